//! `patch`, `replace`, `edit`: objects changed by hand.

use clap::{Args, ValueEnum};
use client::core::plan::{PatchKind, Precondition, Propagation};
use client::params::{DeleteOptions, Patch as Request, WriteParams};
use serde_json::Value;

use super::apply::{field_validation, say};
use super::error::{Error, Result, message};
use super::manifest::{self, Files};
use super::output::{Output, list_of, name_of, without_managed_fields};
use super::select::{DryRun, Found, Selection, merge_kind};
use super::session::{Connection, Session, text_at};
use super::yaml;

/// Update fields of an object with a patch
#[derive(Args, Debug)]
pub struct Patch {
    #[command(flatten)]
    selection: Selection,
    /// The patch, as JSON or YAML
    #[arg(short, long)]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long)]
    patch_file: Option<std::path::PathBuf>,
    /// The dialect of the patch
    #[arg(long = "type", value_enum, default_value_t = Dialect::Strategic)]
    dialect: Dialect,
    /// The subresource to patch
    #[arg(long)]
    subresource: Option<String>,
    /// yaml, json, name, …
    #[arg(short, long)]
    output: Option<String>,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    #[command(flatten)]
    connection: Connection,
}

/// The dialects of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dialect {
    Json,
    Merge,
    Strategic,
}

/// Replace objects by those of files
#[derive(Args, Debug)]
pub struct Replace {
    #[command(flatten)]
    files: Files,
    /// Delete and create them
    #[arg(long)]
    force: bool,
    /// The subresource to replace
    #[arg(long)]
    subresource: Option<String>,
    /// yaml, json, name, …
    #[arg(short, long)]
    output: Option<String>,
    /// What becomes of unknown fields: strict, warn, ignore
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", require_equals = true)]
    validate: String,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    #[command(flatten)]
    connection: Connection,
}

/// Change an object in an editor
#[derive(Args, Debug)]
pub struct Edit {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `patch`.
pub async fn run(arguments: &Patch) -> Result<()> {
    let text = match (&arguments.patch, &arguments.patch_file) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(path)) => std::fs::read(path)?,
        _ => return message("must specify --patch or --patch-file containing the contents of the patch"),
    };
    let body = match yaml::parse(&text) {
        Ok(mut documents) if documents.len() == 1 => documents.remove(0),
        Ok(_) => return message("unable to parse patch: it must be one document"),
        Err(error) => {
            return message(format!("unable to parse \"{}\": {error}", String::from_utf8_lossy(&text)));
        }
    };
    let kind = match arguments.dialect {
        Dialect::Json => PatchKind::Json,
        Dialect::Merge => PatchKind::Merge,
        Dialect::Strategic => PatchKind::Strategic,
    };
    let output = Output::parse(arguments.output.as_deref())?;
    let session = Session::open(&arguments.connection, "kubectl-patch").await?;
    let mut errors = Vec::new();
    let mut done = Vec::new();
    for Found { api, target, value } in
        arguments.selection.find(&session).await.map_err(|error| session.refused(error))?
    {
        let mut patch = Request { params: arguments.dry_run.params(), ..Request::new(kind, body.clone()) };
        patch.subresource.clone_from(&arguments.subresource);
        let outcome = match arguments.dry_run {
            DryRun::Client => Ok(value.clone()),
            _ => session.client.patch_object(&target, &patch).await,
        };
        match outcome {
            Ok(after) if output.is_table() => {
                let same = text_at(&after, "/metadata/resourceVersion")
                    == text_at(&value, "/metadata/resourceVersion");
                let unchanged = same && arguments.dry_run == DryRun::None;
                let word = if unchanged { "patched (no change)" } else { "patched" };
                say(&format!(
                    "{}/{} {word}{}",
                    api.qualified_kind(),
                    target.key.name,
                    arguments.dry_run.suffix()
                ))?;
            }
            Ok(mut after) => {
                without_managed_fields(&mut after);
                done.push(after);
            }
            Err(error) => errors.push(session.refused(error.into())),
        }
    }
    show(&output, done)?;
    Error::all(errors)
}

fn show(output: &Output, mut done: Vec<Value>) -> Result<()> {
    if done.is_empty() {
        return Ok(());
    }
    let answer = if done.len() == 1 { done.remove(0) } else { list_of(done) };
    output.print(&answer, &mut std::io::stdout().lock())
}

/// Runs `replace`.
pub async fn replace(arguments: &Replace) -> Result<()> {
    arguments.files.required()?;
    let output = Output::parse(arguments.output.as_deref())?;
    let documents = arguments.files.read()?;
    let session = Session::open(&arguments.connection, "kubectl-replace").await?;
    let params = WriteParams {
        field_validation: Some(field_validation(&arguments.validate)?.to_owned()),
        ..arguments.dry_run.params()
    };
    let mut errors = Vec::new();
    let mut done = Vec::new();
    for one in manifest::resolve(&session, documents).await.map_err(|error| session.refused(error))? {
        let outcome = async {
            if arguments.dry_run == DryRun::Client {
                return Ok(one.value.clone());
            }
            if arguments.force {
                let options = DeleteOptions {
                    precondition: Precondition::none(),
                    grace_period_seconds: Some(0),
                    propagation: Some(Propagation::Background),
                    dry_run: params.dry_run,
                };
                match session.client.delete_object(&one.target, &options).await {
                    Err(error) if !error.is_not_found() => return Err(Error::from(error)),
                    _ if params.dry_run => {}
                    _ => super::delete::until_gone(&session, &one.target, None, None).await?,
                }
                let namespace = one.target.key.namespace_opt();
                return Ok(session
                    .client
                    .create_object(&one.api.resource, namespace, &one.value, &params)
                    .await?);
            }
            let replaced = session.client.replace_object(
                &one.target,
                arguments.subresource.as_deref(),
                &one.value,
                &params,
            );
            replaced.await.map_err(|source| Error::Sourced {
                action: "replacing",
                source_name: one.source.clone(),
                source,
            })
        };
        match outcome.await {
            Ok(object) if output.is_table() => {
                say(&format!("{} replaced{}", name_of(&object), arguments.dry_run.suffix()))?;
            }
            Ok(mut object) => {
                without_managed_fields(&mut object);
                done.push(object);
            }
            Err(error) => errors.push(session.refused(error)),
        }
    }
    show(&output, done)?;
    Error::all(errors)
}

/// Runs `edit`.
pub async fn edit(arguments: &Edit) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl-edit").await?;
    for found in arguments.selection.find(&session).await.map_err(|error| session.refused(error))? {
        let mut shown = found.value.clone();
        without_managed_fields(&mut shown);
        let before = yaml::to_string(&shown);
        let after = in_editor(&before)?;
        if after == before || after.trim().is_empty() {
            eprintln!("Edit cancelled, no changes made.");
            continue;
        }
        let mut documents = yaml::parse(after.as_bytes())
            .map_err(|error| Error::Message(format!("the edited file is not valid: {error}")))?;
        let (1, Some(edited)) = (documents.len(), documents.pop()) else {
            return message("the edited file must hold one object");
        };
        let version = text_at(&found.value, "/metadata/resourceVersion").to_owned();
        let documents = super::merge::Documents { original: &shown, modified: &edited, current: &shown };
        let resource = &found.api.resource;
        let schemas = api::schema::builtin();
        let id = schemas.type_of(&resource.group, &resource.version, &resource.kind);
        let kind = merge_kind(&found.api);
        let body = match (kind, id) {
            (PatchKind::Strategic, Some(id)) => super::merge::strategic(schemas, id, documents),
            _ => super::merge::json_merge(documents),
        };
        let Some(mut body) = body else {
            eprintln!("Edit cancelled, no changes made.");
            continue;
        };
        // What somebody else changed meanwhile is not to be overwritten unseen.
        body["metadata"]["resourceVersion"] = Value::String(version);
        session.client.patch_object(&found.target, &Request::new(kind, body)).await?;
        say(&format!("{}/{} edited", found.api.qualified_kind(), found.target.key.name))?;
    }
    Ok(())
}

fn in_editor(text: &str) -> Result<String> {
    use std::io::Write as _;
    let mut file = tempfile::Builder::new().prefix("orlop-edit-").suffix(".yaml").tempfile()?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    let editor = ["KUBE_EDITOR", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(file.path())
        .status()
        .map_err(|error| {
            Error::Message(format!("there was a problem with the editor \"{editor}\": {error}"))
        })?;
    if !status.success() {
        return message(format!("there was a problem with the editor \"{editor}\""));
    }
    Ok(std::fs::read_to_string(file.path())?)
}
