//! `delete`: objects by name, file, label; waits until they are gone.

use std::time::Duration;

use clap::Args;
use client::core::object::Target;
use client::core::plan::{Precondition, Propagation};
use client::params::DeleteOptions;
use serde_json::Value;

use super::apply::say;
use super::discovery::ApiResource;
use super::error::{Error, Result, message};
use super::select::{DryRun, Selection};
use super::session::{Connection, Session, text_at};
use super::watching;

/// Delete objects by file name, standard input, name, or label
#[derive(Args, Debug)]
pub struct Delete {
    #[command(flatten)]
    selection: Selection,
    /// Seconds that the object has to end; negative: its own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Remove at once, without waiting for an end
    #[arg(long)]
    force: bool,
    /// End soon: a grace period of one second
    #[arg(long)]
    now: bool,
    /// What becomes of dependents: background, orphan, foreground
    #[arg(long, default_value = "background", num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    cascade: String,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait; 0 is without end
    #[arg(long, value_parser = watching::duration, default_value = "0s")]
    timeout: Duration,
    /// It is no failure when an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// name
    #[arg(short, long)]
    output: Option<String>,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `delete`.
pub async fn run(arguments: &Delete) -> Result<()> {
    let options = arguments.options()?;
    if arguments.selection.is_empty() {
        return message("You must provide one or more resources by argument or filename.");
    }
    let session = Session::open(&arguments.connection, "kubectl").await?;
    if arguments.force {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    let targets = arguments.selection.targets(&session).await.map_err(|error| session.refused(error))?;
    if targets.is_empty() {
        say("No resources found")?;
        return Ok(());
    }
    let lenient =
        arguments.ignore_not_found || arguments.selection.all || arguments.selection.selector.is_some();
    let mut errors = Vec::new();
    let mut waiting = Vec::new();
    for (api, target) in targets {
        match arguments.delete(&session, &target, &options).await {
            Err(error) if error.is_not_found() && lenient => {}
            Err(error) => errors.push(session.refused(error)),
            Ok(uid) => {
                arguments.tell(&api, &target)?;
                waiting.push((target, uid));
            }
        }
    }
    if arguments.wait && arguments.dry_run == DryRun::None {
        let timeout = (!arguments.timeout.is_zero()).then_some(arguments.timeout);
        let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        for (target, uid) in waiting {
            let left =
                deadline.map(|deadline| deadline.saturating_duration_since(tokio::time::Instant::now()));
            until_gone(&session, &target, uid.as_deref(), left).await?;
        }
    }
    Error::all(errors)
}

/// Waits until an object (of this uid) does not exist any more.
pub async fn until_gone(
    session: &Session,
    target: &Target,
    uid: Option<&str>,
    timeout: Option<Duration>,
) -> Result<()> {
    let gone = watching::until(&session.client, target, timeout, |object| {
        Ok(match object {
            None => Some(()),
            Some(object) => uid.is_some_and(|uid| uid != text_at(object, "/metadata/uid")).then_some(()),
        })
    });
    match gone.await? {
        Some(()) => Ok(()),
        None => message(format!(
            "timed out waiting for the condition on {}/{}",
            target.resource.plural, target.key.name
        )),
    }
}

// === impl Delete ===

impl Delete {
    fn options(&self) -> Result<DeleteOptions> {
        let propagation = match &*self.cascade {
            "background" | "true" => Propagation::Background,
            "orphan" | "false" => Propagation::Orphan,
            "foreground" => Propagation::Foreground,
            other => {
                return message(format!(
                    "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
                ));
            }
        };
        let grace = match (self.now, self.force, self.grace_period) {
            (true, _, given) if given >= 0 => {
                return message("--now and --grace-period cannot be specified together");
            }
            (true, _, _) => Some(1),
            (false, true, given) if given > 0 => {
                return message("--force and --grace-period greater than 0 cannot be specified together");
            }
            (false, true, _) => Some(0),
            // Without --force nothing is removed before it has ended.
            (false, false, 0) => Some(1),
            (false, false, given) => (given > 0).then_some(given),
        };
        Ok(DeleteOptions {
            precondition: Precondition::none(),
            grace_period_seconds: grace,
            propagation: Some(propagation),
            dry_run: self.dry_run == DryRun::Server,
        })
    }

    /// Deletes one object and returns its uid, when the answer told it.
    async fn delete(
        &self,
        session: &Session,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Option<String>> {
        if self.dry_run == DryRun::Client {
            session.client.get_object(target).await?;
            return Ok(None);
        }
        let answer: Value = session.client.delete_object(target, options).await?;
        let uid = match text_at(&answer, "/kind") {
            "Status" => text_at(&answer, "/details/uid"),
            _ => text_at(&answer, "/metadata/uid"),
        };
        Ok((!uid.is_empty()).then(|| uid.to_owned()))
    }

    fn tell(&self, api: &ApiResource, target: &Target) -> Result<()> {
        if self.output.as_deref() == Some("name") {
            return say(&format!("{}/{}", api.qualified_kind(), target.key.name));
        }
        let word = if self.force { "force deleted" } else { "deleted" };
        say(&format!("{} \"{}\" {word}{}", api.qualified_kind(), target.key.name, self.dry_run.suffix()))
    }
}
