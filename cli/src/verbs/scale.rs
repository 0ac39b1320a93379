//! `scale`: another number of pods.

use clap::Args;
use client::core::plan::PatchKind;
use serde_json::{Value, json};

use super::apply::say;
use super::error::{Error, Result, message};
use super::select::{DryRun, Selection};
use super::session::{Connection, Session};

/// Set a new size for a deployment, replica set, or anything else with a scale
#[derive(Args, Debug)]
pub struct Scale {
    #[command(flatten)]
    selection: Selection,
    /// The new size
    #[arg(long)]
    replicas: i32,
    /// Only when this is the size now
    #[arg(long)]
    current_replicas: Option<i32>,
    /// Only when this is the version now
    #[arg(long)]
    resource_version: Option<String>,
    /// name
    #[arg(short, long)]
    output: Option<String>,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `scale`.
pub async fn run(arguments: &Scale) -> Result<()> {
    if arguments.replicas < 0 {
        return message(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        );
    }
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let mut errors = Vec::new();
    let targets = arguments.selection.targets(&session).await.map_err(|error| session.refused(error))?;
    if targets.is_empty() {
        return message("no objects passed to scale");
    }
    for (api, target) in targets {
        match scale(arguments, &session, &target).await {
            Ok(()) if arguments.output.as_deref() == Some("name") => {
                say(&format!("{}/{}", api.qualified_kind(), target.key.name))?;
            }
            Ok(()) => {
                say(&format!(
                    "{}/{} scaled{}",
                    api.qualified_kind(),
                    target.key.name,
                    arguments.dry_run.suffix()
                ))?;
            }
            Err(error) => errors.push(session.refused(error)),
        }
    }
    Error::all(errors)
}

async fn scale(arguments: &Scale, session: &Session, target: &client::core::object::Target) -> Result<()> {
    let path = target.path(Some("scale"));
    let mut body = json!({"spec": {"replicas": arguments.replicas}});
    let conditional = arguments.current_replicas.is_some() || arguments.resource_version.is_some();
    if conditional || arguments.dry_run == DryRun::Client {
        let now: Value = session.client.get_path(&path).await?;
        let size = now.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        if let Some(expected) = arguments.current_replicas.filter(|expected| i64::from(*expected) != size) {
            return message(format!("Expected replicas to be {expected}, was {size}"));
        }
        let version = super::session::text_at(&now, "/metadata/resourceVersion");
        if let Some(expected) = arguments.resource_version.as_deref().filter(|expected| *expected != version)
        {
            return message(format!("Expected resource version to be {expected}, was {version}"));
        }
        if conditional {
            body["metadata"] = json!({"resourceVersion": version});
        }
    }
    if arguments.dry_run == DryRun::Client {
        return Ok(());
    }
    let patch = arguments.dry_run.patch(PatchKind::Merge, body).of("scale");
    session.client.patch_object(target, &patch).await?;
    Ok(())
}
