//! `taint`: KEY=VALUE:EFFECT sets, KEY- or KEY:EFFECT- removes.

use clap::Args;
use client::core::plan::PatchKind;
use serde_json::{Value, json};

use super::apply::say;
use super::error::{Error, Result, message};
use super::select::{DryRun, Found, Selection};
use super::session::{Connection, Session, text_at};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Update the taints on one or more nodes
#[derive(Args, Debug)]
pub struct Taint {
    /// nodes NAME…, then KEY=VALUE:EFFECT or KEY:EFFECT-
    #[command(flatten)]
    selection: Selection,
    /// Replace taints that are there
    #[arg(long)]
    overwrite: bool,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Debug, PartialEq)]
struct Change {
    key: String,
    value: String,
    /// Empty: all effects (of a removal).
    effect: String,
    remove: bool,
}

/// Runs `taint`.
pub async fn run(arguments: &Taint) -> Result<()> {
    let is_change = |word: &String| word.contains(':') || word.contains('=') || word.ends_with('-');
    let (changes, words): (Vec<String>, Vec<String>) =
        arguments.selection.words.iter().cloned().partition(is_change);
    if changes.is_empty() {
        return message("at least one taint update is required");
    }
    let changes: Vec<Change> = changes.iter().map(|text| parse(text)).collect::<Result<_>>()?;
    let session = Session::open(&arguments.connection, "kubectl-taint").await?;
    let selection = Selection { words, ..arguments.selection.clone() };
    let mut errors = Vec::new();
    for found in selection.find(&session).await.map_err(|error| session.refused(error))? {
        if let Err(error) = taint(arguments, &session, &found, &changes).await {
            errors.push(session.refused(error));
        }
    }
    Error::all(errors)
}

async fn taint(arguments: &Taint, session: &Session, found: &Found, changes: &[Change]) -> Result<()> {
    let name = &found.target.key.name;
    if found.api.resource.kind != "Node" {
        return message(format!(
            "invalid resource type {}, only node types are supported",
            found.api.resource.plural
        ));
    }
    let there = found.value.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    let (taints, word) = changed(&there, changes, arguments.overwrite, name)?;
    if arguments.dry_run != DryRun::Client {
        let version = text_at(&found.value, "/metadata/resourceVersion");
        let body = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
        session.client.patch_object(&found.target, &arguments.dry_run.patch(PatchKind::Merge, body)).await?;
    }
    say(&format!("node/{name} {word}{}", arguments.dry_run.suffix()))
}

fn parse(text: &str) -> Result<Change> {
    let invalid = || format!("invalid taint spec: {text}");
    let (text_part, remove) = match text.strip_suffix('-') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (pair, effect) = text_part.rsplit_once(':').unwrap_or((text_part, ""));
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    if key.is_empty() || (!remove && effect.is_empty()) {
        return message(invalid());
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        return message(format!("{}, unsupported taint effect", invalid()));
    }
    Ok(Change { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned(), remove })
}

/// The taints afterwards, and what was done.
fn changed(
    there: &[Value],
    changes: &[Change],
    overwrite: bool,
    node: &str,
) -> Result<(Vec<Value>, &'static str)> {
    let mut taints = there.to_vec();
    let same = |taint: &Value, change: &Change| {
        text_at(taint, "/key") == change.key
            && (change.effect.is_empty() || text_at(taint, "/effect") == change.effect)
    };
    let (mut added, mut replaced, mut removed) = (false, false, false);
    for change in changes {
        let known = taints.iter().any(|taint| same(taint, change));
        if change.remove {
            if !known {
                return message(format!(
                    "taint \"{}\" not found",
                    match change.effect.as_str() {
                        "" => change.key.clone(),
                        effect => format!("{}:{effect}", change.key),
                    }
                ));
            }
            taints.retain(|taint| !same(taint, change));
            removed = true;
            continue;
        }
        if known && !overwrite {
            return message(format!(
                "node {node} already has {} taint(s) with same effect(s) and --overwrite is false",
                change.key
            ));
        }
        taints.retain(|taint| !same(taint, change));
        let mut taint = json!({"key": change.key, "effect": change.effect});
        if !change.value.is_empty() {
            taint["value"] = json!(change.value);
        }
        taints.push(taint);
        replaced |= known;
        added |= !known;
    }
    let word = match (added, replaced, removed) {
        (false, false, true) => "untainted",
        (false, true, false) => "modified",
        (true, false, false) => "tainted",
        _ => "modified",
    };
    Ok((taints, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: &str) {
        let there = [
            json!({"key": "a", "effect": "NoSchedule"}),
            json!({"key": "a", "effect": "NoExecute", "value": "v"}),
        ];
        let outcome = words
            .iter()
            .map(|word| parse(word))
            .collect::<Result<Vec<_>>>()
            .and_then(|changes| changed(&there, &changes, false, "n"));
        let text = match outcome {
            Ok((taints, word)) => {
                let taints: Vec<String> =
                    taints.iter().map(crate::verbs::describe::node::taint_text).collect();
                format!("{word}: {}", taints.join(" "))
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn taints() {
        check(&["b=1:NoSchedule"], "tainted: a:NoSchedule a=v:NoExecute b=1:NoSchedule");
        check(&["a-"], "untainted: ");
        check(&["a:NoExecute-"], "untainted: a:NoSchedule");
        check(
            &["a=2:NoSchedule"],
            "node n already has a taint(s) with same effect(s) and --overwrite is false",
        );
        check(&["b-"], "taint \"b\" not found");
        check(&["b=1:Never"], "invalid taint spec: b=1:Never, unsupported taint effect");
        check(&["b"], "invalid taint spec: b");
    }
}
