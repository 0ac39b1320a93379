//! The revisions of a workload: replica sets of a deployment, controller revisions of the others.

use client::core::object::ResourceType;
use client::core::plan::PatchKind;
use client::params::ListParams;
use serde_json::{Value, json};

use super::revision_of;
use crate::verbs::apply::say;
use crate::verbs::describe::template_text;
use crate::verbs::error::{Result, message};
use crate::verbs::select::{DryRun, Found, each};
use crate::verbs::session::{Session, text_at};
use crate::verbs::tabs;

const CAUSE: &str = "/metadata/annotations/kubernetes.io~1change-cause";
/// The label that keeps replica sets of one deployment apart.
const HASH: &str = "pod-template-hash";
/// Annotations that belong to a revision and are not taken back.
const KEPT: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// One revision.
#[derive(Clone, Debug)]
struct Revision {
    number: i64,
    /// The replica set or controller revision.
    object: Value,
}

/// Prints the list of revisions, or one in full.
pub async fn show(session: &Session, found: &Found, revision: i64) -> Result<()> {
    let revisions = revisions(session, found).await?;
    let name = format!("{}/{}", found.api.qualified_kind(), found.target.key.name);
    if revision > 0 {
        let Some(one) = revisions.iter().find(|one| one.number == revision) else {
            return message("unable to find the specified revision");
        };
        let template = match one.object.pointer("/data/spec/template") {
            Some(template) => template.clone(),
            None => one.object.pointer("/spec/template").cloned().unwrap_or_default(),
        };
        say(&format!("{name} with revision #{revision}"))?;
        return say(template_text(&template, text_at(&one.object, CAUSE)).trim_end());
    }
    let mut text = String::from("REVISION\tCHANGE-CAUSE\n");
    for one in &revisions {
        let cause = match text_at(&one.object, CAUSE) {
            "" => "<none>",
            cause => cause,
        };
        text.push_str(&format!("{}\t{cause}\n", one.number));
    }
    let text = tabs::align(&text, tabs::Layout { minimum: 0, padding: 2 });
    say(&format!("{name} \n{text}"))
}

/// Goes back to a revision (0: the one before).
pub async fn undo(session: &Session, found: &Found, to: i64, dry_run: DryRun) -> Result<()> {
    if found.value.pointer("/spec/paused").and_then(Value::as_bool) == Some(true) {
        return message(format!(
            "you cannot rollback a paused deployment; resume it first with 'orlop rollout resume deployment/{}' and try again",
            found.target.key.name
        ));
    }
    let mut revisions = revisions(session, found).await?;
    let chosen = match to {
        0 if revisions.len() < 2 => {
            return message(format!(
                "no rollout history found for {} \"{}\"",
                found.api.singular, found.target.key.name
            ));
        }
        0 => revisions.swap_remove(revisions.len() - 2),
        to => match revisions.iter().position(|one| one.number == to) {
            Some(at) => revisions.swap_remove(at),
            None => return message(format!("unable to find specified revision {to} in history")),
        },
    };
    let name = format!("{}/{}", found.api.qualified_kind(), found.target.key.name);
    let (kind, body) = match &*found.api.resource.kind {
        "Deployment" => match deployment_patch(&found.value, &chosen.object) {
            Some(body) => (PatchKind::Json, body),
            None => {
                let running = revision_of(&found.value);
                return say(&format!(
                    "{name} skipped rollback (current template already matches revision {running})"
                ));
            }
        },
        _ => match chosen.object.get("data") {
            Some(data) if in_force(&found.value, data) => {
                return say(&format!(
                    "{name} skipped rollback (current template already matches revision {})",
                    chosen.number
                ));
            }
            Some(data) => (PatchKind::Strategic, data.clone()),
            None => return message(format!("revision {} has no data", chosen.number)),
        },
    };
    if dry_run == DryRun::Client {
        return say(&format!("{name} rolled back{}", dry_run.suffix()));
    }
    session.client.patch_object(&found.target, &dry_run.patch(kind, body)).await?;
    say(&format!("{name} rolled back{}", dry_run.suffix()))
}

/// Whether the workload's template is the revision's already.
fn in_force(workload: &Value, data: &Value) -> bool {
    let mut wanted = data.pointer("/spec/template").cloned().unwrap_or_default();
    if let Value::Object(map) = &mut wanted {
        map.remove("$patch");
    }
    workload.pointer("/spec/template") == Some(&wanted)
}

/// The patch that gives a deployment the template and annotations of a replica set; `None` when it has the template.
fn deployment_patch(deployment: &Value, replica_set: &Value) -> Option<Value> {
    let mut template = replica_set.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(Value::Object(labels)) = template.pointer_mut("/metadata/labels") {
        labels.remove(HASH);
    }
    if deployment.pointer("/spec/template") == Some(&template) {
        return None;
    }
    let annotations_of = |object: &Value| {
        object.pointer("/metadata/annotations").and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let mut annotations = annotations_of(replica_set);
    annotations.retain(|name, _| !KEPT.contains(&&**name));
    for (name, value) in annotations_of(deployment) {
        if KEPT.contains(&&*name) {
            annotations.insert(name, value);
        }
    }
    Some(json!([
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
    ]))
}

/// All revisions, oldest first.
async fn revisions(session: &Session, found: &Found) -> Result<Vec<Revision>> {
    let kind = match &*found.api.resource.kind {
        "Deployment" => ResourceType::new("apps", "v1", "ReplicaSet", "replicasets", true),
        "DaemonSet" | "StatefulSet" => {
            ResourceType::new("apps", "v1", "ControllerRevision", "controllerrevisions", true)
        }
        other => return message(format!("no history viewer has been implemented for \"{other}\"")),
    };
    let uid = text_at(&found.value, "/metadata/uid");
    let selector = selector_of(&found.value);
    let api = super::super::discovery::ApiResource {
        resource: kind,
        singular: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: Vec::new(),
        preferred: true,
    };
    let mut revisions = Vec::new();
    let params = ListParams { label_selector: selector, ..ListParams::all() };
    each(session, &api, found.target.key.namespace_opt(), params, |object| {
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        if owners.into_iter().flatten().any(|owner| text_at(owner, "/uid") == uid) {
            let number =
                object.get("revision").and_then(Value::as_i64).unwrap_or_else(|| revision_of(&object));
            revisions.push(Revision { number, object });
        }
        Ok(())
    })
    .await?;
    revisions.retain(|one| one.number > 0);
    revisions.sort_by_key(|one| one.number);
    Ok(revisions)
}

/// The selector of a workload, as text.
pub fn selector_of(object: &Value) -> Option<String> {
    let selector = object.pointer("/spec/selector")?;
    api::selector::LabelSelector::from_object(selector).ok().map(|selector| selector.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back() {
        let deployment = json!({
            "metadata": {"annotations": {"deployment.kubernetes.io/revision": "2", "kubernetes.io/change-cause": "two"}},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"x": 2}}},
        });
        let before = json!({
            "metadata": {"annotations": {"deployment.kubernetes.io/revision": "1", "kubernetes.io/change-cause": "one"}},
            "spec": {"template": {"metadata": {"labels": {"app": "web", "pod-template-hash": "h"}}, "spec": {"x": 1}}},
        });
        assert_eq!(
            deployment_patch(&deployment, &before),
            Some(json!([
                {"op": "replace", "path": "/spec/template", "value": {"metadata": {"labels": {"app": "web"}}, "spec": {"x": 1}}},
                {"op": "add", "path": "/metadata/annotations", "value": {"deployment.kubernetes.io/revision": "2", "kubernetes.io/change-cause": "one"}},
            ]))
        );
        assert_eq!(deployment_patch(&deployment, &deployment), None);
    }
}
