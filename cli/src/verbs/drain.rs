//! `cordon`, `uncordon`, `drain`: takes a node out of use, and back.

use std::time::Duration;

use clap::Args;
use client::Client;
use client::core::plan::{PatchKind, Precondition};
use client::params::{DeleteOptions, ListParams};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::apply::say;
use super::error::{Error, Result, message};
use super::select::{DryRun, Found, Selection};
use super::session::{Connection, Session, text_at};
use super::{delete, pods, watching};

/// How long a refused eviction waits before it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The annotation of pods that a node runs on its own account.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Mark a node as unschedulable, or as schedulable again
#[derive(Args, Debug)]
pub struct Cordon {
    /// NODE…
    nodes: Vec<String>,
    /// Only nodes with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    #[command(flatten)]
    connection: Connection,
}

/// Drain a node: no new pods, and the present ones leave
#[derive(Args, Debug)]
pub struct Drain {
    #[command(flatten)]
    cordon: Cordon,
    /// Pods of daemon sets stay
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Pods leave although their emptyDir volumes are lost
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Pods leave although nothing makes them anew
    #[arg(long)]
    force: bool,
    /// Delete pods, and do not ask whether that disturbs
    #[arg(long)]
    disable_eviction: bool,
    /// Seconds that pods have to end; negative: their own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// How long to go on; 0 is without end
    #[arg(long, value_parser = watching::duration, default_value = "0s")]
    timeout: Duration,
    /// Only pods with these labels
    #[arg(long)]
    pod_selector: Option<String>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It leaves.
    Leaves,
    /// It leaves, with a warning.
    Warned(&'static str),
    /// It stays.
    Stays(Option<&'static str>),
    /// Nothing is done before a flag allows it.
    Forbidden(&'static str),
}

/// Runs `cordon` and `uncordon`.
pub async fn cordon(arguments: &Cordon, desired: bool) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl-drain").await?;
    let mut errors = Vec::new();
    for node in nodes(arguments, &session).await? {
        if let Err(error) = mark(&session, &node, desired, arguments.dry_run).await {
            errors.push(session.refused(error));
        }
    }
    Error::all(errors)
}

/// Runs `drain`.
pub async fn drain(arguments: &Drain) -> Result<()> {
    let session = Session::open(&arguments.cordon.connection, "kubectl-drain").await?;
    let nodes = nodes(&arguments.cordon, &session).await?;
    for node in &nodes {
        mark(&session, node, true, arguments.cordon.dry_run).await?;
    }
    for node in &nodes {
        let name = &node.target.key.name;
        let leaving = arguments.leaving(&session, name).await?;
        if arguments.cordon.dry_run == DryRun::None {
            arguments.empty(&session, &leaving).await?;
        } else {
            for pod in &leaving {
                say(&format!("evicting pod {}{}", place(pod), arguments.cordon.dry_run.suffix()))?;
            }
        }
        say(&format!("node/{name} drained{}", arguments.cordon.dry_run.suffix()))?;
    }
    Ok(())
}

async fn nodes(arguments: &Cordon, session: &Session) -> Result<Vec<Found>> {
    if arguments.nodes.is_empty() && arguments.selector.is_none() {
        return message("USAGE: cordon|uncordon|drain NODE [flags]: a node or a selector is required");
    }
    let mut words = arguments.nodes.clone();
    if !words.iter().any(|word| word.contains('/')) {
        words.insert(0, "nodes".to_owned());
    }
    let selection = Selection { words, selector: arguments.selector.clone(), ..Selection::default() };
    selection.find(session).await.map_err(|error| session.refused(error))
}

async fn mark(session: &Session, node: &Found, desired: bool, dry_run: DryRun) -> Result<()> {
    let name = &node.target.key.name;
    let now = node.value.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false);
    let word = if desired { "cordoned" } else { "uncordoned" };
    if now == desired {
        return say(&format!("node/{name} already {word}{}", dry_run.suffix()));
    }
    if dry_run != DryRun::Client {
        let body = json!({"spec": {"unschedulable": if desired { json!(true) } else { Value::Null }}});
        session.client.patch_object(&node.target, &dry_run.patch(PatchKind::Strategic, body)).await?;
    }
    say(&format!("node/{name} {word}{}", dry_run.suffix()))
}

fn place(pod: &Value) -> String {
    format!("{}/{}", text_at(pod, "/metadata/namespace"), text_at(pod, "/metadata/name"))
}

// === impl Drain ===

impl Drain {
    /// The pods of a node that must leave; an error when one may not.
    async fn leaving(&self, session: &Session, node: &str) -> Result<Vec<Value>> {
        let params = ListParams { label_selector: self.pod_selector.clone(), ..ListParams::all() };
        let all = pods::list(session, None, params.fields(format!("spec.nodeName={node}"))).await?;
        let mut leaving = Vec::new();
        let mut forbidden: Vec<(&'static str, String)> = Vec::new();
        let mut warnings: Vec<(&'static str, String)> = Vec::new();
        for pod in all {
            match self.fate(&pod) {
                Fate::Leaves => leaving.push(pod),
                Fate::Warned(why) => {
                    warnings.push((why, place(&pod)));
                    leaving.push(pod);
                }
                Fate::Stays(why) => warnings.extend(why.map(|why| (why, place(&pod)))),
                Fate::Forbidden(why) => forbidden.push((why, place(&pod))),
            }
        }
        let told = |list: &[(&'static str, String)]| {
            let mut reasons: Vec<&str> = list.iter().map(|(why, _)| *why).collect();
            reasons.sort_unstable();
            reasons.dedup();
            let of = |reason: &str| {
                let pods: Vec<&str> =
                    list.iter().filter(|(why, _)| *why == reason).map(|(_, pod)| &**pod).collect();
                format!("{reason}: {}", pods.join(", "))
            };
            reasons.into_iter().map(of).collect::<Vec<_>>().join("; ")
        };
        if !forbidden.is_empty() {
            return message(format!(
                "unable to drain node \"{node}\" due to error: cannot delete {}",
                told(&forbidden)
            ));
        }
        if !warnings.is_empty() {
            eprintln!("Warning: {}", told(&warnings));
        }
        Ok(leaving)
    }

    fn fate(&self, pod: &Value) -> Fate {
        let annotations = pod.pointer("/metadata/annotations");
        if annotations.is_some_and(|all| all.get(MIRROR).is_some()) {
            return Fate::Stays(None);
        }
        let ended = matches!(text_at(pod, "/status/phase"), "Succeeded" | "Failed");
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let controller = owners
            .into_iter()
            .flatten()
            .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
            .map(|owner| text_at(owner, "/kind"));
        if controller == Some("DaemonSet") && !ended {
            return match self.ignore_daemonsets {
                true => Fate::Stays(Some("ignoring DaemonSet-managed Pods")),
                false => Fate::Forbidden("DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"),
            };
        }
        if ended {
            return Fate::Leaves;
        }
        let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
        if volumes.into_iter().flatten().any(|volume| volume.get("emptyDir").is_some())
            && !self.delete_emptydir_data
        {
            return Fate::Forbidden("Pods with local storage (use --delete-emptydir-data to override)");
        }
        match (controller, self.force) {
            (Some(_), _) => Fate::Leaves,
            (None, true) => Fate::Warned("deleting Pods that declare no controller"),
            (None, false) => {
                Fate::Forbidden("cannot delete Pods that declare no controller (use --force to override)")
            }
        }
    }

    /// Asks each pod to leave and waits until all have left.
    async fn empty(&self, session: &Session, leaving: &[Value]) -> Result<()> {
        let deadline = (!self.timeout.is_zero()).then(|| Instant::now() + self.timeout);
        for pod in leaving {
            say(&format!("evicting pod {}", place(pod)))?;
        }
        for pod in leaving {
            self.ask(session, pod, deadline).await?;
        }
        for pod in leaving {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let uid = text_at(pod, "/metadata/uid");
            delete::until_gone(session, &pods::target(pod), Some(uid), left).await?;
            say(&format!("pod/{} evicted", text_at(pod, "/metadata/name")))?;
        }
        Ok(())
    }

    async fn ask(&self, session: &Session, pod: &Value, deadline: Option<Instant>) -> Result<()> {
        let target = pods::target(pod);
        let grace = (self.grace_period >= 0).then_some(self.grace_period);
        loop {
            let outcome = if self.disable_eviction {
                let options = DeleteOptions {
                    precondition: Precondition::none(),
                    grace_period_seconds: grace,
                    ..DeleteOptions::default()
                };
                session.client.delete_object(&target, &options).await.map(drop)
            } else {
                let mut eviction = json!({
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": &*target.key.name, "namespace": &*target.key.namespace},
                });
                if let Some(grace) = grace {
                    eviction["deleteOptions"] = json!({"gracePeriodSeconds": grace});
                }
                let body = serde_json::to_vec(&eviction).map_err(std::io::Error::from)?;
                let path = target.path(Some("eviction"));
                let request = Client::build_with(Method::POST, &path, "application/json", body)?;
                session.client.request_bytes(request).await.map(drop)
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.code() == Some(429) => {
                    if deadline.is_some_and(|deadline| Instant::now() + RETRY > deadline) {
                        return message(format!("global timeout reached: {:?}", self.timeout));
                    }
                    eprintln!(
                        "error when evicting pods/\"{}\" (will retry after 5s): {error}",
                        target.key.name
                    );
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pod: Value, flags: [bool; 3], expected: Fate) {
        let [ignore_daemonsets, delete_emptydir_data, force] = flags;
        let drain = Drain {
            cordon: Cordon {
                nodes: Vec::new(),
                selector: None,
                dry_run: DryRun::None,
                connection: Connection::default(),
            },
            ignore_daemonsets,
            delete_emptydir_data,
            force,
            disable_eviction: false,
            grace_period: -1,
            timeout: Duration::ZERO,
            pod_selector: None,
        };
        assert_eq!(drain.fate(&pod), expected);
    }

    #[test]
    fn fates() {
        let owned =
            |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "controller": true}]}});
        check(owned("ReplicaSet"), [false; 3], Fate::Leaves);
        check(owned("DaemonSet"), [true, false, false], Fate::Stays(Some("ignoring DaemonSet-managed Pods")));
        check(
            owned("DaemonSet"),
            [false; 3],
            Fate::Forbidden("DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"),
        );
        check(
            json!({}),
            [false; 3],
            Fate::Forbidden("cannot delete Pods that declare no controller (use --force to override)"),
        );
        check(json!({}), [false, false, true], Fate::Warned("deleting Pods that declare no controller"));
        check(json!({"status": {"phase": "Failed"}}), [false; 3], Fate::Leaves);
        check(json!({"metadata": {"annotations": {MIRROR: "x"}}}), [false; 3], Fate::Stays(None));
        let volume = json!({"spec": {"volumes": [{"emptyDir": {}}]}});
        check(
            volume,
            [false, false, true],
            Fate::Forbidden("Pods with local storage (use --delete-emptydir-data to override)"),
        );
    }
}
