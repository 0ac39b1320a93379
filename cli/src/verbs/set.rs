//! `set`: changes one thing of a workload.

use clap::{Args, Subcommand};
use client::core::plan::PatchKind;
use serde_json::{Map, Value, json};

use super::apply::say;
use super::error::{Error, Result, message};
use super::select::{DryRun, Found, Selection};
use super::session::{Connection, Session, text_at};

/// Set specific features on objects
#[derive(Args, Debug)]
pub struct Set {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Update the images of containers: CONTAINER=IMAGE…, * is every container
    Image(Change),
    /// Update environment variables: NAME=VALUE…, NAME- removes
    Env(Change),
    /// Update requests and limits
    Resources {
        #[command(flatten)]
        selection: Selection,
        /// Such as cpu=100m,memory=64Mi
        #[arg(long, value_delimiter = ',')]
        requests: Vec<String>,
        /// Such as cpu=100m,memory=64Mi
        #[arg(long, value_delimiter = ',')]
        limits: Vec<String>,
        /// The containers; * is every one
        #[arg(short, long, default_value = "*")]
        containers: String,
    },
}

#[derive(Args, Debug)]
struct Change {
    #[command(flatten)]
    selection: Selection,
    /// The containers; * is every one
    #[arg(short, long, default_value = "*")]
    containers: String,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
}

/// Runs `set`.
pub async fn run(arguments: &Set) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl-set").await?;
    match &arguments.action {
        Action::Image(change) => {
            let (selection, pairs) = split(&change.selection, |word| word.contains('='));
            if pairs.is_empty() {
                return message("at least one image update is required");
            }
            each(&session, &selection, change.dry_run, "image updated", |object| image_patch(object, &pairs))
                .await
        }
        Action::Env(change) => {
            let (selection, pairs) =
                split(&change.selection, |word| word.contains('=') || word.ends_with('-'));
            if pairs.is_empty() {
                return message("at least one environment variable must be provided");
            }
            let change_env = |object: &Value| Ok(env_patch(object, &pairs, &change.containers));
            each(&session, &selection, change.dry_run, "env updated", change_env).await
        }
        Action::Resources { selection, requests, limits, containers } => {
            if requests.is_empty() && limits.is_empty() {
                return message(
                    "you must specify an update to requests or limits (in the form of --requests/--limits)",
                );
            }
            let (requests, limits) = (amounts(requests)?, amounts(limits)?);
            each(&session, selection, DryRun::None, "resource requirements updated", |object| {
                Ok(containers_patch(object, |kind, container| {
                    (kind == "containers" && named(containers, text_at(container, "/name")))
                        .then(|| json!({"resources": {"requests": requests, "limits": limits}}))
                }))
            })
            .await
        }
    }
}

/// Divides words into those that name objects and those that name changes.
fn split(selection: &Selection, is_change: fn(&str) -> bool) -> (Selection, Vec<String>) {
    let (changes, words) = selection.words.iter().cloned().partition(|word: &String| is_change(word));
    (Selection { words, ..selection.clone() }, changes)
}

fn amounts(pairs: &[String]) -> Result<Map<String, Value>> {
    pairs
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, amount)) if amount.parse::<api::quantity::Quantity>().is_ok() => {
                Ok((name.to_owned(), json!(amount)))
            }
            _ => message(format!("invalid argument syntax {pair}, expected <resource>=<value>")),
        })
        .collect()
}

async fn each(
    session: &Session,
    selection: &Selection,
    dry_run: DryRun,
    word: &str,
    change: impl Fn(&Value) -> Result<Option<Value>>,
) -> Result<()> {
    let found = selection.find(session).await.map_err(|error| session.refused(error))?;
    let mut errors = Vec::new();
    for Found { api, target, value } in found {
        let outcome = async {
            let Some(body) = change(&value)? else { return Ok(false) };
            if dry_run != DryRun::Client {
                session.client.patch_object(&target, &dry_run.patch(PatchKind::Strategic, body)).await?;
            }
            Ok::<bool, Error>(true)
        };
        match outcome.await {
            Ok(true) => {
                say(&format!("{}/{} {word}{}", api.qualified_kind(), target.key.name, dry_run.suffix()))?
            }
            Ok(false) => {}
            Err(error) => errors.push(session.refused(error)),
        }
    }
    Error::all(errors)
}

/// Where a kind keeps its pod spec: for a pod it is the object itself.
fn pod_spec(object: &Value) -> Option<(&'static str, &Value)> {
    ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec", "/spec"]
        .into_iter()
        .find_map(|pointer| Some((pointer, object.pointer(pointer)?)))
        .filter(|(_, spec)| spec.get("containers").is_some())
}

/// A patch of those containers for which `change` has one.
fn containers_patch(object: &Value, change: impl Fn(&str, &Value) -> Option<Value>) -> Option<Value> {
    let (pointer, spec) = pod_spec(object)?;
    let mut patch = Map::new();
    for kind in ["initContainers", "containers"] {
        let containers = spec.get(kind).and_then(Value::as_array).into_iter().flatten();
        let changes: Vec<Value> = containers
            .filter_map(|container| {
                let mut change = change(kind, container)?;
                change["name"] = container.get("name").cloned().unwrap_or_default();
                Some(change)
            })
            .collect();
        if !changes.is_empty() {
            patch.insert(kind.to_owned(), Value::Array(changes));
        }
    }
    if patch.is_empty() {
        return None;
    }
    let segments = pointer.trim_start_matches('/').rsplit('/');
    Some(segments.fold(Value::Object(patch), |inner, name| json!({ name: inner })))
}

fn named(pattern: &str, name: &str) -> bool {
    pattern == "*" || pattern.split(',').any(|one| one == name)
}

fn image_patch(object: &Value, pairs: &[String]) -> Result<Option<Value>> {
    let Some((_, spec)) = pod_spec(object) else { return message("the object has no pod template") };
    let names: Vec<&str> = ["initContainers", "containers"]
        .iter()
        .filter_map(|kind| spec.get(*kind).and_then(Value::as_array))
        .flatten()
        .map(|container| text_at(container, "/name"))
        .collect();
    let mut wanted = Vec::new();
    for pair in pairs {
        let (name, image) = pair.split_once('=').unwrap_or((pair, ""));
        if image.is_empty() {
            return message(format!("invalid image of container {name}: it must not be empty"));
        }
        if name != "*" && !names.contains(&name) {
            return message(format!("unable to find container named \"{name}\""));
        }
        wanted.push((name, image));
    }
    Ok(containers_patch(object, |kind, container| {
        let name = text_at(container, "/name");
        let matches =
            |(wanted, _): &&(&str, &str)| *wanted == name || (*wanted == "*" && kind == "containers");
        let (_, image) = wanted.iter().rfind(matches)?;
        (text_at(container, "/image") != *image).then(|| json!({"image": image}))
    }))
}

fn env_patch(object: &Value, pairs: &[String], containers: &str) -> Option<Value> {
    containers_patch(object, |kind, container| {
        if kind != "containers" || !named(containers, text_at(container, "/name")) {
            return None;
        }
        let changes: Vec<Value> = pairs
            .iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => json!({"name": name, "value": value}),
                None => json!({"name": pair.trim_end_matches('-'), "$patch": "delete"}),
            })
            .collect();
        Some(json!({"env": changes}))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({"spec": {"template": {"spec": {
            "initContainers": [{"name": "i", "image": "i:1"}],
            "containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}}}})
    }

    fn check(pairs: &[&str], expected: Value) {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let containers = image_patch(&deployment(), &pairs)
            .expect("a patch")
            .map(|patch| patch["spec"]["template"]["spec"].clone());
        assert_eq!(containers.unwrap_or_default(), expected);
    }

    #[test]
    fn images() {
        check(&["a=a:2"], json!({"containers": [{"name": "a", "image": "a:2"}]}));
        check(
            &["*=x", "i=i:2"],
            json!({"initContainers": [{"name": "i", "image": "i:2"}], "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}),
        );
        check(&["a=a:1"], Value::Null);
        image_patch(&deployment(), &["c=x".to_owned()]).expect_err("no such container");
    }

    #[test]
    fn variables() {
        let pairs = ["A=1".to_owned(), "B-".to_owned()];
        let patch = env_patch(&deployment(), &pairs, "a").expect("a patch");
        assert_eq!(
            patch["spec"]["template"]["spec"]["containers"],
            json!([{"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "$patch": "delete"}]}])
        );
    }
}
