//! `wait`: until a condition holds, a path has a value, or objects are gone.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::apply::say;
use super::error::{Error, Result, message};
use super::jsonpath::{Template, text_of};
use super::select::Selection;
use super::session::{Connection, Session, text_at};
use super::watching;

/// Waits longer than this are waits without end.
const A_WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Wait for a specific condition on one or many objects
#[derive(Args, Debug)]
pub struct Wait {
    #[command(flatten)]
    selection: Selection,
    /// delete, create, condition=NAME[=VALUE], jsonpath=PATH[=VALUE]
    #[arg(long = "for", value_name = "CONDITION")]
    what: String,
    /// How long; negative is a week
    #[arg(long, default_value = "30s", allow_hyphen_values = true)]
    timeout: String,
    #[command(flatten)]
    connection: Connection,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
enum Goal {
    /// The object does not exist.
    Gone,
    /// The object exists.
    There,
    /// A condition has a status.
    Condition(String, String),
    /// A path finds a value, or anything.
    Path(Template, Option<String>),
}

/// Runs `wait`.
pub async fn run(arguments: &Wait) -> Result<()> {
    let goal = parse(&arguments.what)?;
    let timeout = match arguments.timeout.starts_with('-') {
        true => A_WEEK,
        false => watching::duration(&arguments.timeout).map_err(Error::Message)?,
    };
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let targets = arguments.selection.targets(&session).await.map_err(|error| session.refused(error))?;
    if targets.is_empty() {
        if goal == Goal::Gone {
            return Ok(());
        }
        return message("no matching resources found");
    }
    let deadline = tokio::time::Instant::now() + timeout;
    let mut errors = Vec::new();
    for (api, target) in targets {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let name = format!("{}/{}", api.qualified_kind(), target.key.name);
        match session.client.get_object(&target).await {
            // It is gone already: nothing happened that could be told.
            Err(error) if error.is_not_found() && goal == Goal::Gone => continue,
            Err(error) if error.is_not_found() && goal == Goal::There => {}
            Err(error) => {
                errors.push(session.refused(error.into()));
                continue;
            }
            Ok(_) => {}
        }
        let met =
            watching::until(&session.client, &target, Some(left.max(Duration::from_millis(200))), |object| {
                goal.met(object).map(|met| met.then_some(()))
            });
        match met.await {
            Ok(Some(())) if goal == Goal::Gone => say(&format!("{name} deleted"))?,
            Ok(Some(())) if goal == Goal::There => say(&format!("{name} created"))?,
            Ok(Some(())) => say(&format!("{name} condition met"))?,
            Ok(None) => {
                let plural = &target.resource.plural;
                errors.push(Error::Message(format!(
                    "timed out waiting for the condition on {plural}/{}",
                    target.key.name
                )));
            }
            Err(error) => errors.push(session.refused(error)),
        }
    }
    Error::all(errors)
}

fn parse(text: &str) -> Result<Goal> {
    if text.eq_ignore_ascii_case("delete") {
        return Ok(Goal::Gone);
    }
    if text.eq_ignore_ascii_case("create") {
        return Ok(Goal::There);
    }
    if let Some(condition) = text.strip_prefix("condition=") {
        let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
        return Ok(Goal::Condition(name.to_owned(), value.to_owned()));
    }
    if let Some(rest) = text.strip_prefix("jsonpath=") {
        // The value stands after the brace that closes the path, or after the last equals sign.
        let (path, value) = match rest.find("}=").or_else(|| rest.find("}'=").map(|at| at + 1)) {
            Some(at) => rest.split_at(at + 1),
            None if rest.ends_with('}') => (rest, ""),
            None => rest.rfind('=').map_or((rest, ""), |at| rest.split_at(at)),
        };
        let value = value.strip_prefix('=').map(|value| value.trim_matches(['"', '\'']).to_owned());
        if value.as_deref() == Some("") {
            return message("jsonpath wait has to have a value after equal sign");
        }
        return Ok(Goal::Path(Template::relaxed(path.trim_matches('\''))?, value));
    }
    message(format!("unrecognized condition: \"{text}\""))
}

// === impl Goal ===

impl Goal {
    fn met(&self, object: Option<&Value>) -> Result<bool> {
        let Some(object) = object else { return Ok(*self == Self::Gone) };
        match self {
            Self::Gone => Ok(false),
            Self::There => Ok(true),
            Self::Condition(name, value) => {
                let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
                let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
                let found = conditions
                    .into_iter()
                    .flatten()
                    .find(|one| text_at(one, "/type").eq_ignore_ascii_case(name));
                let Some(condition) = found else { return Ok(false) };
                let observed = condition
                    .get("observedGeneration")
                    .or_else(|| object.pointer("/status/observedGeneration"))
                    .and_then(Value::as_i64);
                let fresh = observed.is_none_or(|observed| observed >= generation);
                Ok(fresh && text_at(condition, "/status").eq_ignore_ascii_case(value))
            }
            Self::Path(path, value) => match (path.find(object), value) {
                (Err(_), _) => Ok(false),
                (Ok(found), None) => Ok(!found.is_empty()),
                (Ok(found), Some(value)) => match found.as_slice() {
                    [] => Ok(false),
                    [one] => Ok(text_of(one) == *value),
                    _ => message("given jsonpath expression matches more than one value"),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(goal: &str, object: Option<Value>, expected: bool) {
        let goal = parse(goal).expect(goal);
        assert_eq!(goal.met(object.as_ref()).expect("decided"), expected, "{goal:?}");
    }

    #[test]
    fn goals() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]}});
        let stale = json!({"metadata": {"generation": 3}, "status": {"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]}});
        check("condition=Ready", Some(pod.clone()), true);
        check("condition=ready=false", Some(pod.clone()), false);
        check("condition=Ready", Some(stale), false);
        check("condition=Other", Some(pod.clone()), false);
        check("jsonpath={.status.phase}=Running", Some(pod.clone()), true);
        check("jsonpath='{.status.phase}'=Pending", Some(pod.clone()), false);
        check("jsonpath=.status.phase=Running", Some(pod.clone()), true);
        check("jsonpath={.status.phase}", Some(pod.clone()), true);
        check("jsonpath={.status.nothing}", Some(pod.clone()), false);
        check("delete", Some(pod.clone()), false);
        check("delete", None, true);
        check("create", Some(pod), true);
        check("condition=Ready", None, false);
        parse("nonsense").expect_err("no such goal");
    }
}
