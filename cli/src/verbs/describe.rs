//! `describe`: an object in full, with what happened to it.

use clap::Args;
use client::core::object::ResourceType;
use client::params::ListParams;
use jiff::Timestamp;
use serde_json::Value;

use super::error::{Error, Result, message};
use super::select::{self, Found, Selection, Words};
use super::session::{Connection, Session, text_at};
use super::{pods, tabs};

mod container;
pub mod events;
pub use self::events as event;
mod generic;
pub mod node;
mod pod;
mod service;
mod text;
mod volume;
mod workload;

pub use pod::template_text;
use text::Text;
pub use text::age_of;

/// Show objects in full, with their events
#[derive(Args, Debug)]
pub struct Describe {
    #[command(flatten)]
    selection: Selection,
    /// With events
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    show_events: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Whose kinds nothing ever happens to.
const RBAC: &str = "rbac.authorization.k8s.io";

/// What a description is made of, besides the object.
#[derive(Debug, Default)]
struct Around {
    /// Its events; none when they were not asked for.
    events: Option<Vec<Value>>,
    /// Objects that belong to it: pods of a node or workload, slices of a service, replica sets of a deployment.
    related: Vec<Value>,
    /// The lease of a node.
    lease: Option<Value>,
}

/// Runs `describe`.
pub async fn run(arguments: &Describe) -> Result<()> {
    if arguments.selection.is_empty() {
        return message(
            "You must specify the type of resource to describe. Use \"orlop api-resources\" for a complete list of supported resources.",
        );
    }
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let mut errors = Vec::new();
    let mut first = true;
    for found in find(arguments, &session, &mut errors).await? {
        let around = around(&session, &found, arguments.show_events).await?;
        if !std::mem::take(&mut first) {
            super::apply::say("\n")?;
        }
        let text = describe(&found, &around, Timestamp::now());
        super::apply::say(tabs::align(&text, tabs::DESCRIPTION).trim_end_matches('\n'))?;
    }
    Error::all(errors)
}

/// The objects: exact names, or every object whose name starts with what was given.
async fn find(arguments: &Describe, session: &Session, errors: &mut Vec<Error>) -> Result<Vec<Found>> {
    let selection = &arguments.selection;
    if !selection.files.is_empty() {
        return selection.find(session).await.map_err(|error| session.refused(error));
    }
    let words = select::read_words(
        session.discovery().await.map_err(|error| session.refused(error))?,
        &selection.words,
    )?;
    let scope = session.scope(selection.all_namespaces).map(str::to_owned);
    let mut found = Vec::new();
    match words {
        Words::Types(types) => {
            for api in types {
                select::each(session, &api, scope.as_deref(), selection.params(), |value| {
                    found.push(Found { target: select::target_of(&api, &value), api: api.clone(), value });
                    Ok(())
                })
                .await?;
            }
            if found.is_empty() {
                match &scope {
                    Some(namespace) => eprintln!("No resources found in {namespace} namespace."),
                    None => eprintln!("No resources found"),
                }
            }
        }
        Words::Names(pairs) => {
            for (api, name) in pairs {
                let target = session.target(&api, &name);
                match session.client.get_object(&target).await {
                    Ok(value) => found.push(Found { api, target, value }),
                    Err(error) if error.is_not_found() => {
                        let before = found.len();
                        select::each(session, &api, scope.as_deref(), selection.params(), |value| {
                            if text_at(&value, "/metadata/name").starts_with(&name) {
                                found.push(Found {
                                    target: select::target_of(&api, &value),
                                    api: api.clone(),
                                    value,
                                });
                            }
                            Ok(())
                        })
                        .await?;
                        if found.len() == before {
                            errors.push(error.into());
                        }
                    }
                    Err(error) => errors.push(error.into()),
                }
            }
        }
    }
    Ok(found)
}

async fn around(session: &Session, found: &Found, with_events: bool) -> Result<Around> {
    let value = &found.value;
    let namespace = found.target.key.namespace_opt();
    let mut around = Around::default();
    // Nothing is ever told about these.
    let eventful =
        found.api.resource.group != RBAC && !matches!(&*found.api.resource.kind, "Namespace" | "Secret");
    if with_events && eventful {
        around.events = Some(events::of(session, found).await);
    }
    match &*found.api.resource.kind {
        "Node" => {
            let on_node = format!(
                "spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed",
                found.target.key.name
            );
            around.related =
                pods::list(session, None, ListParams::all().fields(on_node)).await.unwrap_or_default();
            let leases = ResourceType::new("coordination.k8s.io", "v1", "Lease", "leases", true);
            let path = leases.object_path(Some("kube-node-lease"), &found.target.key.name, None);
            around.lease = session.client.get_path(&path).await.ok();
        }
        "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" => {
            let mut related = pods::of(session, value).await.unwrap_or_default();
            related.retain(|pod| owned_by(pod, value));
            around.related = related;
        }
        "Deployment" => {
            around.related = related(session, namespace, "apps", "ReplicaSet", "replicasets", value).await
        }
        "Service" => {
            let slices = ResourceType::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true);
            let params =
                ListParams::all().labels(format!("kubernetes.io/service-name={}", found.target.key.name));
            around.related = list(session, &slices, namespace, params).await;
        }
        _ => {}
    }
    Ok(around)
}

async fn related(
    session: &Session,
    namespace: Option<&str>,
    group: &str,
    kind: &str,
    plural: &str,
    owner: &Value,
) -> Vec<Value> {
    let resource = ResourceType::new(group, "v1", kind, plural, true);
    let selector = super::rollout::history::selector_of(owner);
    let params = ListParams { label_selector: selector, ..ListParams::all() };
    let mut found = list(session, &resource, namespace, params).await;
    found.retain(|object| owned_by(object, owner));
    found
}

/// What cannot be listed is left out of a description, which tells what it can.
async fn list(
    session: &Session,
    resource: &ResourceType,
    namespace: Option<&str>,
    params: ListParams,
) -> Vec<Value> {
    match session.client.list_page(resource, namespace, &params).await {
        Ok(mut page) => match page.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        Err(_) => Vec::new(),
    }
}

fn owned_by(object: &Value, owner: &Value) -> bool {
    let uid = text_at(owner, "/metadata/uid");
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|reference| text_at(reference, "/uid") == uid)
}

/// The description, cells separated by tabs.
fn describe(found: &Found, around: &Around, now: Timestamp) -> String {
    let mut text = Text::default();
    let value = &found.value;
    match (&*found.api.resource.group, &*found.api.resource.kind) {
        ("", "Pod") => pod::write(&mut text, value),
        ("", "Node") => node::write(&mut text, value, around, now),
        ("", "Service") => service::write(&mut text, value, &around.related),
        ("", "ConfigMap") => generic::config_map(&mut text, value),
        ("", "Secret") => generic::secret(&mut text, value),
        ("", "Namespace") => generic::namespace(&mut text, value),
        ("", "ServiceAccount") => generic::service_account(&mut text, value),
        (RBAC, "Role" | "ClusterRole") => generic::role(&mut text, value),
        (RBAC, "RoleBinding" | "ClusterRoleBinding") => generic::binding(&mut text, value),
        ("apps", "Deployment") => workload::deployment(&mut text, value, &around.related),
        ("apps", "ReplicaSet") => workload::replica_set(&mut text, value, &around.related),
        ("apps", "DaemonSet") => workload::daemon_set(&mut text, value, &around.related),
        ("apps", "StatefulSet") => workload::stateful_set(&mut text, value, &around.related),
        _ => generic::write(&mut text, value),
    }
    if let Some(list) = &around.events {
        events::write(&mut text, list, now);
    }
    text.finish()
}

#[cfg(test)]
mod tests;
