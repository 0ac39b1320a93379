//! `rollout`: how a change of a workload goes, its history, the way back.

use std::time::Duration;

use clap::{Args, Subcommand};
use client::core::plan::PatchKind;
use serde_json::{Value, json};

use super::apply::say;
use super::error::{Error, Result, message};
use super::select::{DryRun, Found, Selection};
use super::session::{Connection, Session, text_at};
use super::watching;

pub mod history;
pub mod progress;

/// Manage the rollout of a workload
#[derive(Args, Debug)]
pub struct Rollout {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the status of a rollout, and wait for its end
    Status {
        #[command(flatten)]
        selection: Selection,
        /// Follow it to its end
        #[arg(short, long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
        watch: bool,
        /// How long to wait; 0 is without end
        #[arg(long, value_parser = watching::duration, default_value = "0s")]
        timeout: Duration,
        /// The revision to wait for; 0 is the newest
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// List the revisions of a workload
    History {
        #[command(flatten)]
        selection: Selection,
        /// Show this one in full
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Go back to an earlier revision
    Undo {
        #[command(flatten)]
        selection: Selection,
        /// The revision to go back to; 0 is the one before
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
        /// Only try
        #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
        dry_run: DryRun,
    },
    /// Let changes wait
    Pause {
        #[command(flatten)]
        selection: Selection,
    },
    /// Carry waiting changes out
    Resume {
        #[command(flatten)]
        selection: Selection,
    },
    /// Replace all pods
    Restart {
        #[command(flatten)]
        selection: Selection,
    },
}

/// Runs `rollout`.
pub async fn run(arguments: &Rollout) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl-rollout").await?;
    let selection = match &arguments.action {
        Action::Status { selection, .. }
        | Action::History { selection, .. }
        | Action::Undo { selection, .. }
        | Action::Pause { selection }
        | Action::Resume { selection }
        | Action::Restart { selection } => selection,
    };
    if selection.is_empty() {
        return message("required resource not specified");
    }
    let found = selection.find(&session).await.map_err(|error| session.refused(error))?;
    let mut errors = Vec::new();
    for one in found {
        if let Err(error) = act(&session, &arguments.action, &one).await {
            errors.push(session.refused(error));
        }
    }
    Error::all(errors)
}

async fn act(session: &Session, action: &Action, found: &Found) -> Result<()> {
    match action {
        Action::Status { watch, timeout, revision, .. } => {
            status(session, found, *watch, *timeout, *revision).await
        }
        Action::History { revision, .. } => history::show(session, found, *revision).await,
        Action::Undo { to_revision, dry_run, .. } => {
            history::undo(session, found, *to_revision, *dry_run).await
        }
        Action::Pause { .. } => pause(session, found, true).await,
        Action::Resume { .. } => pause(session, found, false).await,
        Action::Restart { .. } => restart(session, found).await,
    }
}

async fn status(
    session: &Session,
    found: &Found,
    watch: bool,
    timeout: Duration,
    revision: i64,
) -> Result<()> {
    let timeout = (!timeout.is_zero()).then_some(timeout);
    let mut last = String::new();
    let done = watching::until(&session.client, &found.target, timeout, |object| {
        let Some(object) = object else { return message("object has been deleted") };
        let progress = progress::of(&found.api.resource.kind, object, revision)?;
        if progress.text != last {
            say(&progress.text)?;
            last.clone_from(&progress.text);
        }
        Ok((progress.done || !watch).then_some(()))
    });
    match done.await? {
        Some(()) => Ok(()),
        None => message("timed out waiting for the condition"),
    }
}

async fn pause(session: &Session, found: &Found, paused: bool) -> Result<()> {
    let name = format!("{}/{}", found.api.qualified_plural(), found.target.key.name);
    if found.api.resource.kind != "Deployment" {
        let verb = if paused { "pausing" } else { "resuming" };
        return message(format!("{name} {verb} is not supported"));
    }
    let now = found.value.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false);
    if now == paused {
        let state = if paused { "already paused" } else { "not paused" };
        return message(format!("{} \"{}\" is {state}", found.api.qualified_plural(), found.target.key.name));
    }
    let body = json!({"spec": {"paused": if paused { json!(true) } else { Value::Null }}});
    patch(session, found, body, DryRun::None).await?;
    let word = if paused { "paused" } else { "resumed" };
    say(&format!("{}/{} {word}", found.api.qualified_kind(), found.target.key.name))
}

async fn restart(session: &Session, found: &Found) -> Result<()> {
    if !matches!(&*found.api.resource.kind, "Deployment" | "DaemonSet" | "StatefulSet") {
        return message(format!("{} restarting is not supported", found.api.qualified_plural()));
    }
    if found.value.pointer("/spec/paused").and_then(Value::as_bool) == Some(true) {
        return message("can't restart paused deployment (run rollout resume first)");
    }
    let now = api::time::format(jiff::Timestamp::now());
    let body = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
    patch(session, found, body, DryRun::None).await?;
    say(&format!("{}/{} restarted", found.api.qualified_kind(), found.target.key.name))
}

async fn patch(session: &Session, found: &Found, body: Value, dry_run: DryRun) -> Result<()> {
    let patch = dry_run.patch(PatchKind::Strategic, body);
    session.client.patch_object(&found.target, &patch).await?;
    Ok(())
}

/// The revision that an object is of.
fn revision_of(object: &Value) -> i64 {
    text_at(object, "/metadata/annotations/deployment.kubernetes.io~1revision").parse().unwrap_or(0)
}
