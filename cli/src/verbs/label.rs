//! `label` and `annotate`: KEY=VALUE sets, KEY- removes.

use clap::Args;
use client::core::plan::PatchKind;
use serde_json::{Map, Value, json};

use super::apply::say;
use super::error::{Error, Result, message};
use super::output::{Output, without_managed_fields};
use super::select::{DryRun, Found, Selection};
use super::session::{Connection, Session};

/// What is changed, and of what.
#[derive(Args, Debug)]
pub struct Change {
    /// TYPE NAME… or TYPE/NAME…, then KEY=VALUE or KEY-
    #[command(flatten)]
    selection: Selection,
    /// Replace values that are there
    #[arg(long)]
    overwrite: bool,
    /// Show what is there
    #[arg(long)]
    list: bool,
    /// Only when this is the version now
    #[arg(long)]
    resource_version: Option<String>,
    /// yaml, json, name, …
    #[arg(short, long)]
    output: Option<String>,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    #[command(flatten)]
    connection: Connection,
}

/// Update the labels on an object
#[derive(Args, Debug)]
pub struct Label {
    #[command(flatten)]
    change: Change,
}

/// Update the annotations on an object
#[derive(Args, Debug)]
pub struct Annotate {
    #[command(flatten)]
    change: Change,
}

#[derive(Clone, Copy)]
struct Kind {
    field: &'static str,
    /// What is told when it was done.
    done: &'static str,
    manager: &'static str,
}

const LABELS: Kind = Kind { field: "labels", done: "labeled", manager: "kubectl-label" };
const ANNOTATIONS: Kind = Kind { field: "annotations", done: "annotated", manager: "kubectl-annotate" };

/// Runs `label`.
pub async fn label(arguments: &Label) -> Result<()> {
    run(&arguments.change, LABELS).await
}

/// Runs `annotate`.
pub async fn annotate(arguments: &Annotate) -> Result<()> {
    run(&arguments.change, ANNOTATIONS).await
}

async fn run(arguments: &Change, kind: Kind) -> Result<()> {
    let (changes, words): (Vec<String>, Vec<String>) =
        arguments.selection.words.iter().cloned().partition(|word| is_change(word));
    if changes.is_empty() && !arguments.list {
        return message(format!("at least one {} update is required", kind.field.trim_end_matches('s')));
    }
    let changes = parse(&changes)?;
    let output = Output::parse(arguments.output.as_deref())?;
    let session = Session::open(&arguments.connection, kind.manager).await?;
    let selection = Selection { words, ..arguments.selection.clone() };
    let mut errors = Vec::new();
    for found in selection.find(&session).await.map_err(|error| session.refused(error))? {
        if let Err(error) = change(arguments, kind, &session, &found, &changes, &output).await {
            errors.push(session.refused(error));
        }
    }
    Error::all(errors)
}

/// A removal ends in a dash; names of objects may not.
fn is_change(word: &str) -> bool {
    word.contains('=') || word.ends_with('-')
}

/// Keys and their values; none removes.
fn parse(changes: &[String]) -> Result<Vec<(String, Option<String>)>> {
    let mut parsed: Vec<(String, Option<String>)> = Vec::new();
    for change in changes {
        let (key, value) = match change.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (change.trim_end_matches('-'), None),
        };
        if key.is_empty() {
            return message(format!("invalid spec: {change}"));
        }
        if parsed.iter().any(|(known, _)| known == key) {
            return message(format!("cannot modify \"{key}\" twice in the same command"));
        }
        parsed.push((key.to_owned(), value));
    }
    Ok(parsed)
}

async fn change(
    arguments: &Change,
    kind: Kind,
    session: &Session,
    found: &Found,
    changes: &[(String, Option<String>)],
    output: &Output,
) -> Result<()> {
    let there = found.value.pointer(&format!("/metadata/{}", kind.field)).and_then(Value::as_object);
    if arguments.list {
        for (key, value) in there.into_iter().flatten() {
            say(&format!("{key}={}", value.as_str().unwrap_or_default()))?;
        }
        if changes.is_empty() {
            return Ok(());
        }
    }
    let patch = patch(there, changes, arguments.overwrite, kind)?;
    let name = format!("{}/{}", found.api.qualified_kind(), found.target.key.name);
    let mut after = found.value.clone();
    if !patch.is_empty() && arguments.dry_run != DryRun::Client {
        let mut body = json!({"metadata": {kind.field: patch}});
        if let Some(version) = &arguments.resource_version {
            body["metadata"]["resourceVersion"] = json!(version);
        }
        let patch = arguments.dry_run.patch(PatchKind::Merge, body);
        after = session.client.patch_object(&found.target, &patch).await?;
    }
    if !output.is_table() {
        without_managed_fields(&mut after);
        return output.print(&after, &mut std::io::stdout().lock());
    }
    let removed_only = kind.field == "labels" && changes.iter().all(|(_, value)| value.is_none());
    let word = match (patch.is_empty(), removed_only) {
        (true, _) if kind.field == "labels" => "not labeled",
        (false, true) => "unlabeled",
        _ => kind.done,
    };
    for (key, _) in changes
        .iter()
        .filter(|(key, value)| value.is_none() && !there.is_some_and(|map| map.contains_key(key)))
    {
        eprintln!("{} \"{key}\" not found.", kind.field.trim_end_matches('s'));
    }
    say(&format!("{name} {word}{}", arguments.dry_run.suffix()))
}

/// What changes: values, and null for what goes.
fn patch(
    there: Option<&Map<String, Value>>,
    changes: &[(String, Option<String>)],
    overwrite: bool,
    kind: Kind,
) -> Result<Map<String, Value>> {
    let mut patch = Map::new();
    for (key, value) in changes {
        let before = there.and_then(|map| map.get(key)).and_then(Value::as_str);
        match (before, value) {
            (None, None) => {}
            (Some(_), None) => {
                patch.insert(key.clone(), Value::Null);
            }
            (Some(before), Some(value)) if before == value => {}
            (Some(before), Some(_)) if !overwrite => {
                return match kind.field {
                    "labels" => {
                        message(format!("'{key}' already has a value ({before}), and --overwrite is false"))
                    }
                    _ => message(format!(
                        "--overwrite is false but found the following declared annotation(s): '{key}' already has a value ({before})"
                    )),
                };
            }
            (_, Some(value)) => {
                patch.insert(key.clone(), Value::String(value.clone()));
            }
        }
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], overwrite: bool, expected: Result<Value, &str>) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let there = json!({"a": "1", "b": "2"});
        let found = parse(&words).and_then(|changes| patch(there.as_object(), &changes, overwrite, LABELS));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(Value::Object(found), expected),
            (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn patches() {
        check(&["c=3", "a-"], false, Ok(json!({"c": "3", "a": null})));
        check(&["a=1", "x-"], false, Ok(json!({})));
        check(&["a=2"], true, Ok(json!({"a": "2"})));
        check(&["a=2"], false, Err("'a' already has a value (1), and --overwrite is false"));
        check(&["c=1", "c-"], false, Err("cannot modify \"c\" twice in the same command"));
    }
}
