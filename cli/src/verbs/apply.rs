//! `apply`: makes objects as files say, and leaves alone what files do not say.

use clap::Args;
use client::core::plan::{PatchKind, Precondition, Propagation};
use client::params::{DeleteOptions, Patch, WriteParams};
use serde_json::{Value, json};

use super::error::{Error, Result, message};
use super::manifest::{self, Files, Resolved};
use super::merge::{self, Documents};
use super::output::{Output, list_of, name_of, without_managed_fields};
use super::select::{DryRun, is_builtin_group};
use super::session::{Connection, Session, text_at};

/// Where the last applied configuration is remembered.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How often a patch is computed anew when somebody else writes meanwhile.
const ATTEMPTS: usize = 5;

/// Apply a configuration to objects by file name or standard input
#[derive(Args, Debug)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Only try: client sends nothing, server stores nothing
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// yaml, json, name, jsonpath=TEMPLATE, …
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Delete and create objects that cannot be changed
    #[arg(long)]
    force: bool,
    /// Let the server merge
    #[arg(long)]
    server_side: bool,
    /// With --server-side: take over fields that others own
    #[arg(long)]
    force_conflicts: bool,
    /// The name of the field manager
    #[arg(long)]
    field_manager: Option<String>,
    /// What becomes of unknown fields: strict, warn, ignore
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", require_equals = true)]
    validate: String,
    #[command(flatten)]
    connection: Connection,
}

/// The `fieldValidation` that a `--validate` means.
pub fn field_validation(validate: &str) -> Result<&'static str> {
    match validate {
        "strict" | "true" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "ignore" | "false" => Ok("Ignore"),
        other => message(format!(
            "invalid - validate option \"{other}\"; valid values are: strict (or true), warn, ignore (or false)"
        )),
    }
}

/// Runs `apply`.
pub async fn run(arguments: &Apply) -> Result<()> {
    arguments.files.required()?;
    let output = Output::parse(arguments.output.as_deref())?;
    let manager = match (&arguments.field_manager, arguments.server_side) {
        (Some(manager), _) => manager.as_str(),
        (None, true) => "kubectl",
        (None, false) => "kubectl-client-side-apply",
    };
    let documents = arguments.files.read()?;
    let session = Session::open(&arguments.connection, manager).await?;
    let params = WriteParams {
        dry_run: arguments.dry_run == DryRun::Server,
        field_validation: Some(field_validation(&arguments.validate)?.to_owned()),
        field_manager: None,
        force: false,
    };
    let selector = arguments
        .selector
        .as_deref()
        .map(api::selector::LabelSelector::parse)
        .transpose()
        .map_err(|error| Error::Message(error.to_string()))?;
    let mut errors = Vec::new();
    let mut done = Vec::new();
    for resolved in manifest::resolve(&session, documents).await? {
        if selector.as_ref().is_some_and(|selector| !selected(selector, &resolved.value)) {
            continue;
        }
        let job = Job { session: &session, arguments, params: &params };
        match job.apply(&resolved).await {
            Ok((object, verb)) if output.is_table() => {
                say(&format!("{} {verb}{}", name_of(&object), arguments.dry_run.suffix()))?;
            }
            Ok((mut object, _)) => {
                without_managed_fields(&mut object);
                done.push(object);
            }
            Err(error) => errors.push(session.refused(error)),
        }
    }
    if !done.is_empty() {
        let answer = if done.len() == 1 { done.remove(0) } else { list_of(done) };
        output.print(&answer, &mut std::io::stdout().lock())?;
    }
    Error::all(errors)
}

/// Prints a line on standard output.
pub fn say(line: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn selected(selector: &api::selector::LabelSelector, value: &Value) -> bool {
    let labels: std::collections::BTreeMap<String, String> = value
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    selector.matches(&labels)
}

struct Job<'a> {
    session: &'a Session,
    arguments: &'a Apply,
    params: &'a WriteParams,
}

// === impl Job ===

impl Job<'_> {
    /// Applies one object: what is there afterwards, and what was done.
    async fn apply(&self, resolved: &Resolved) -> Result<(Value, &'static str)> {
        if resolved.target.key.name.is_empty() {
            return match text_at(&resolved.value, "/metadata/generateName") {
                "" => message("resource name may not be empty"),
                name => message(format!("from {name}: cannot use generate name with apply")),
            };
        }
        if self.arguments.server_side {
            return self.server_side(resolved).await;
        }
        let client = &self.session.client;
        let modified = with_last_applied(&resolved.value);
        for attempt in 1.. {
            let live = match client.get_object(&resolved.target).await {
                Err(error) if error.is_not_found() => return self.create(resolved, modified).await,
                live => {
                    live.map_err(|source| sourced("retrieving current configuration of", resolved, source))?
                }
            };
            if live
                .pointer("/metadata/annotations")
                .and_then(|annotations| annotations.get(LAST_APPLIED))
                .is_none()
            {
                eprintln!(
                    "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by orlop apply. orlop apply should only be used on resources created declaratively by either orlop create --save-config or orlop apply. The missing annotation will be patched automatically.",
                    resolved.api.resource.plural, resolved.target.key.name
                );
            }
            let Some((kind, body)) = patch(resolved, &modified, &live) else {
                return Ok((live, "unchanged"));
            };
            if self.arguments.dry_run == DryRun::Client {
                return Ok((patched(resolved, kind, live, &body), "configured"));
            }
            let patch = Patch { params: self.params.clone(), ..Patch::new(kind, body) };
            match client.patch_object(&resolved.target, &patch).await {
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
                Err(error) if self.arguments.force && (error.is_conflict() || error.code() == Some(422)) => {
                    return self.replace(resolved, modified).await;
                }
                Err(source) => return Err(sourced("applying patch from", resolved, source)),
                Ok(object) => return Ok((object, "configured")),
            }
        }
        message("the object changes all the time")
    }

    async fn create(&self, resolved: &Resolved, modified: Value) -> Result<(Value, &'static str)> {
        if self.arguments.dry_run == DryRun::Client {
            return Ok((modified, "created"));
        }
        let namespace = resolved.target.key.namespace_opt();
        let created =
            self.session.client.create_object(&resolved.api.resource, namespace, &modified, self.params);
        let object = created.await.map_err(|source| sourced("creating", resolved, source))?;
        Ok((object, "created"))
    }

    async fn replace(&self, resolved: &Resolved, modified: Value) -> Result<(Value, &'static str)> {
        let options = DeleteOptions {
            precondition: Precondition::none(),
            grace_period_seconds: Some(0),
            propagation: Some(Propagation::Background),
            dry_run: self.params.dry_run,
        };
        self.session.client.delete_object(&resolved.target, &options).await?;
        if !self.params.dry_run {
            super::delete::until_gone(self.session, &resolved.target, None, None).await?;
        }
        let (object, _) = self.create(resolved, modified).await?;
        Ok((object, "configured"))
    }

    async fn server_side(&self, resolved: &Resolved) -> Result<(Value, &'static str)> {
        if self.arguments.dry_run == DryRun::Client {
            return message(
                "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
            );
        }
        let mut patch = Patch::new(PatchKind::Apply, resolved.value.clone());
        patch.params = WriteParams { force: self.arguments.force_conflicts, ..self.params.clone() };
        let applied = self.session.client.patch_object(&resolved.target, &patch).await;
        Ok((
            applied.map_err(|source| sourced("applying patch from", resolved, source))?,
            "serverside-applied",
        ))
    }
}

fn sourced(action: &'static str, resolved: &Resolved, source: client::Error) -> Error {
    Error::Sourced { action, source_name: resolved.source.clone(), source }
}

/// The object with the annotation that remembers it.
pub fn with_last_applied(value: &Value) -> Value {
    let mut plain = value.clone();
    if let Some(annotations) = annotations_of(&mut plain) {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{plain}\n");
    if let Some(annotations) = annotations_of(&mut plain) {
        annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
    }
    plain
}

fn annotations_of(value: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    let metadata = value.as_object_mut()?.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations.as_object_mut()
}

/// The patch that makes `live` what is to be applied; `None` when it is that already.
fn patch(resolved: &Resolved, modified: &Value, live: &Value) -> Option<(PatchKind, Value)> {
    let remembered = live
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(LAST_APPLIED))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .unwrap_or_else(|| json!({}));
    let documents = Documents { original: &remembered, modified, current: live };
    let resource = &resolved.api.resource;
    let schemas = api::schema::builtin();
    let id = schemas.type_of(&resource.group, &resource.version, &resource.kind);
    match id.filter(|_| is_builtin_group(&resource.group)) {
        Some(id) => Some((PatchKind::Strategic, merge::strategic(schemas, id, documents)?)),
        None => Some((PatchKind::Merge, merge::json_merge(documents)?)),
    }
}

/// What the server would make of the patch, as far as that can be told from here.
fn patched(resolved: &Resolved, kind: PatchKind, live: Value, body: &Value) -> Value {
    let resource = &resolved.api.resource;
    let schemas = api::schema::builtin();
    let mut after = live.clone();
    let outcome = match (kind, schemas.type_of(&resource.group, &resource.version, &resource.kind)) {
        (PatchKind::Strategic, Some(id)) => api::patch::strategic(schemas, id, &mut after, body),
        _ => api::patch::merge(&mut after, body),
    };
    if outcome.is_ok() { after } else { live }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_without_remembering_itself() {
        let once = with_last_applied(&json!({"kind": "Pod", "metadata": {"name": "a"}}));
        assert_eq!(
            once["metadata"]["annotations"][LAST_APPLIED],
            "{\"kind\":\"Pod\",\"metadata\":{\"annotations\":{},\"name\":\"a\"}}\n"
        );
        assert_eq!(with_last_applied(&once), once);
    }
}
