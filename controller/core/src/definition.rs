//! Removes the objects of a definition that is being deleted, then lets the definition go.
//!
//! The server takes no new objects of such a definition, so that what is listed as empty stays empty.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::object::after;
use crate::plan::{Action, Answer, Answers, Plan, Question, Report};
use crate::write::{ObjectKey, PatchKind, Precondition, Propagation, ResourceType, Target, Write};

/// The finalizer that this planner takes away.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// How soon remaining objects are looked at again when nothing tells of their end.
const RETRY_SECONDS: i64 = 5;

/// The resource of definitions.
pub fn resource() -> ResourceType {
    ResourceType::new(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    )
}

/// Whether a definition waits for its objects to go.
pub fn is_waiting(definition: &ObjectMeta) -> bool {
    definition.deletion_timestamp.is_some() && finalizers(definition).any(|each| each == FINALIZER)
}

/// Plans for one definition. Asks for the definition, then for its objects.
pub fn plan(definition: &ObjectMeta, answers: &Answers, now: Timestamp) -> (Plan, Report) {
    if !is_waiting(definition) {
        return (Plan::default(), Report::default());
    }
    let whole = Question::Whole(target(definition));
    let document = match answers.get(&whole) {
        None => return (Plan::ask(vec![whole]), Report::default()),
        Some(Answer::Document(document)) => document,
        Some(Answer::Failed(error)) => return later(error.clone(), now),
        Some(_) => return (Plan::default(), Report::default()),
    };
    // Without names of its own it has served nothing.
    let Some(served) = served(document) else { return (let_go(definition), Report::default()) };
    let objects = Question::List(served.clone(), String::new());
    match answers.get(&objects) {
        None => (Plan::ask(vec![objects]), Report::default()),
        Some(Answer::Listed(left)) if left.is_empty() => (let_go(definition), Report::default()),
        Some(Answer::Listed(left)) => {
            let mut plan = Plan::default();
            let staying = left.iter().filter(|meta| meta.deletion_timestamp.is_none());
            plan.together(staying.map(|meta| deletion(&served, meta)).collect());
            plan.look_again(after(now, RETRY_SECONDS));
            (
                plan,
                Report {
                    why: vec![format!("{} objects of {served} are left", left.len())],
                    ..Report::default()
                },
            )
        }
        Some(Answer::Failed(error)) => later(error.clone(), now),
        Some(_) => (Plan::default(), Report::default()),
    }
}

fn later(why: String, now: Timestamp) -> (Plan, Report) {
    let mut plan = Plan::default();
    plan.look_again(after(now, RETRY_SECONDS));
    (plan, Report { why: vec![why], ..Report::default() })
}

fn finalizers(definition: &ObjectMeta) -> impl Iterator<Item = &String> {
    definition.finalizers.iter().flatten()
}

fn target(definition: &ObjectMeta) -> Target {
    Target { resource: resource(), key: ObjectKey::of_meta(definition) }
}

/// One of the versions in which the objects are served.
fn served(definition: &Value) -> Option<ResourceType> {
    let (spec, status) = (&definition["spec"], &definition["status"]);
    let established =
        |condition: &&Value| condition["type"] == "Established" && condition["status"] == "True";
    status["conditions"].as_array()?.iter().find(established)?;
    let version = spec["versions"].as_array()?.iter().find(|version| version["served"] == true)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(ResourceType::new(
        text(&spec["group"])?,
        text(&version["name"])?,
        text(&status["acceptedNames"]["kind"])?,
        text(&status["acceptedNames"]["plural"])?,
        spec["scope"] == "Namespaced",
    ))
}

fn deletion(resource: &ResourceType, meta: &ObjectMeta) -> Action {
    Action::from(Write::Delete {
        target: Target { resource: resource.clone(), key: ObjectKey::of_meta(meta) },
        precondition: Precondition { uid: meta.uid.clone(), resource_version: None },
        grace_period_seconds: None,
        propagation: Some(Propagation::Background),
    })
    .tolerant()
}

fn let_go(definition: &ObjectMeta) -> Plan {
    let rest: Vec<&String> = finalizers(definition).filter(|each| *each != FINALIZER).collect();
    let mut plan = Plan::default();
    plan.one(
        Action::from(Write::Patch {
            target: target(definition),
            subresource: None,
            precondition: Precondition {
                uid: definition.uid.clone(),
                resource_version: definition.resource_version.clone(),
            },
            kind: PatchKind::Merge,
            body: json!({"metadata": {"finalizers": rest}}),
        })
        .tolerant(),
    );
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::stamp;

    fn definition() -> ObjectMeta {
        ObjectMeta {
            name: Some("widgets.example.com".into()),
            uid: Some("u".into()),
            finalizers: Some(vec![FINALIZER.into(), "other".into()]),
            deletion_timestamp: Some(stamp(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        }
    }

    /// `left`: names of objects that are left; a `!` behind a name says that it is being deleted.
    fn check(established: &str, left: &[&str], expected: &[&str]) {
        let (definition, now) = (definition(), Timestamp::UNIX_EPOCH);
        let document = json!({
            "spec": {"group": "example.com", "scope": "Namespaced",
                "versions": [{"name": "v1beta1", "served": false}, {"name": "v1", "served": true}]},
            "status": {"acceptedNames": {"plural": "widgets", "kind": "Widget"},
                "conditions": [{"type": "Established", "status": established}]}});
        let objects = left.iter().map(|text| ObjectMeta {
            name: Some(text.trim_end_matches('!').into()),
            namespace: Some("default".into()),
            deletion_timestamp: text.ends_with('!').then(|| stamp(now)),
            ..ObjectMeta::default()
        });
        let widgets = ResourceType::new("example.com", "v1", "Widget", "widgets", true);
        let answers = Answers::from([
            (Question::Whole(target(&definition)), Answer::Document(Box::new(document))),
            (Question::List(widgets, String::new()), Answer::Listed(objects.collect())),
        ]);
        let (plan, _) = plan(&definition, &answers, now);
        let shown: Vec<String> = plan
            .actions()
            .map(|action| match &action.write {
                Write::Delete { target, .. } => format!("delete {}", target.key.name),
                Write::Patch { body, .. } => body["metadata"]["finalizers"].to_string(),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn objects_go_before_their_definition() {
        check("True", &["a", "b!"], &["delete a"]);
        check("True", &["b!"], &[]);
        check("True", &[], &[r#"["other"]"#]);
    }

    #[test]
    fn a_definition_that_served_nothing_goes_at_once() {
        check("False", &[], &[r#"["other"]"#]);
    }

    #[test]
    fn nothing_is_asked_of_a_definition_that_stays() {
        let staying = ObjectMeta { deletion_timestamp: None, ..definition() };
        let (plan, _) = plan(&staying, &Answers::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(plan, Plan::default());
    }
}
