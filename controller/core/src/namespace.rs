//! Empties a namespace that is being deleted, then lets it go.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::merge::{diff_field, to_json};
use crate::object::{after, is_terminating, name, stamp};
use crate::plan::{Action, Answer, Answers, Plan, Question, Report, merge_exact, target_of};
use crate::write::{ObjectKey, Precondition, Propagation, ResourceType, Target, Write};

/// The finalizer that this planner takes away.
const FINALIZER: &str = "kubernetes";
/// How soon remaining content is looked at again when nothing tells of its end.
const RETRY_SECONDS: i64 = 5;

/// What the API server serves.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Every namespaced resource whose objects can be listed and deleted.
    pub resources: Vec<ResourceType>,
    /// What could not be found out.
    pub failure: Option<String>,
}

/// The content of a resource that is left.
struct Left<'a> {
    resource: &'a ResourceType,
    objects: &'a [ObjectMeta],
}

/// Plans for one namespace. Asks for its content first.
pub fn plan(
    namespace: &Namespace,
    discovery: &Discovery,
    answers: &Answers,
    now: Timestamp,
) -> (Plan, Report) {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    if !is_terminating(namespace) || !finalizers.iter().any(|each| each == FINALIZER) {
        return (Plan::default(), Report::default());
    }
    let question = |resource: &ResourceType| Question::List(resource.clone(), name(namespace).to_owned());
    let open: Vec<Question> =
        discovery.resources.iter().map(question).filter(|question| !answers.contains_key(question)).collect();
    if !open.is_empty() {
        return (Plan::ask(open), Report::default());
    }
    let mut failures: Vec<String> = Vec::new();
    let mut left = Vec::new();
    for resource in &discovery.resources {
        match answers.get(&question(resource)) {
            Some(Answer::Listed(objects)) if !objects.is_empty() => left.push(Left { resource, objects }),
            Some(Answer::Failed(error)) => failures.push(format!("{resource}: {error}")),
            _ => {}
        }
    }
    let mut plan = Plan::default();
    let mut report = Report::default();
    if left.is_empty() && failures.is_empty() && discovery.failure.is_none() {
        plan.one(finalize(namespace, finalizers));
        report.why.push(format!("namespace {} is empty", name(namespace)));
        return (plan, report);
    }
    // Pods go before what they may need while they stop.
    let pods_left = left.iter().any(|left| is_pods(left.resource));
    let turn = left.iter().filter(|left| !pods_left || is_pods(left.resource));
    plan.together(turn.flat_map(deletions).collect());
    let conditions = conditions(namespace, discovery, &failures, &left, now);
    report.why.extend(
        conditions.iter().filter(|each| each.status == "True").filter_map(|each| each.message.clone()),
    );
    let mut status = namespace.status.clone().unwrap_or_default();
    status.conditions = Some(conditions);
    if let Some(body) = diff_field("status", &namespace.status, &Some(status)) {
        plan.always(merge_exact::<Namespace>(&namespace.metadata, Some("status"), body));
    }
    plan.look_again(after(now, RETRY_SECONDS));
    (plan, report)
}

fn is_pods(resource: &ResourceType) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

fn deletions<'a>(left: &'a Left<'a>) -> impl Iterator<Item = Action> + 'a {
    left.objects.iter().filter(|meta| meta.deletion_timestamp.is_none()).map(|meta| {
        Action::from(Write::Delete {
            target: Target { resource: left.resource.clone(), key: ObjectKey::of_meta(meta) },
            precondition: Precondition { uid: meta.uid.clone(), resource_version: None },
            grace_period_seconds: None,
            propagation: Some(Propagation::Background),
        })
        .tolerant()
    })
}

fn finalize(namespace: &Namespace, finalizers: &[String]) -> Action {
    let rest: Vec<&String> = finalizers.iter().filter(|each| *each != FINALIZER).collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name(namespace),
            "uid": namespace.metadata.uid,
            "resourceVersion": namespace.metadata.resource_version,
        },
        "spec": {"finalizers": to_json(&rest)},
    });
    let target = target_of::<Namespace>(&namespace.metadata);
    Action::from(Write::ReplaceSub { target, subresource: "finalize", object }).tolerant()
}

fn conditions(
    namespace: &Namespace,
    discovery: &Discovery,
    failures: &[String],
    left: &[Left],
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let discovered = match &discovery.failure {
        Some(failure) => (true, "DiscoveryFailed", format!("Discovery failed for some groups, {failure}")),
        None => (false, "ResourcesDiscovered", "All resources successfully discovered".into()),
    };
    let parsed = (false, "ParsedGroupVersions", "All legacy kube types successfully parsed".into());
    let deleted = if failures.is_empty() {
        (false, "ContentDeleted", "All content successfully deleted, may be waiting on finalization".into())
    } else {
        let message = format!(
            "Failed to delete all resource types, {} remaining: {}",
            failures.len(),
            failures.join(", ")
        );
        (true, "ContentDeletionFailed", message)
    };
    let remaining = if left.is_empty() {
        (false, "ContentRemoved", "All content successfully removed".into())
    } else {
        let each = left
            .iter()
            .map(|left| format!("{} has {} resource instances", dotted(left.resource), left.objects.len()));
        let list = each.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
        (true, "SomeResourcesRemain", format!("Some resources are remaining: {list}"))
    };
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in
        left.iter().flat_map(|left| left.objects).flat_map(|meta| meta.finalizers.iter().flatten())
    {
        *finalizers.entry(finalizer.as_str()).or_default() += 1;
    }
    let held = if finalizers.is_empty() {
        (false, "ContentHasNoFinalizers", "All content-preserving finalizers finished".into())
    } else {
        let each =
            finalizers.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"));
        let list = each.collect::<Vec<_>>().join(", ");
        let message = format!("Some content in the namespace has finalizers remaining: {list}");
        (true, "SomeFinalizersRemain", message)
    };
    let current =
        namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let facts = [
        ("NamespaceDeletionDiscoveryFailure", discovered),
        ("NamespaceDeletionGroupVersionParsingFailure", parsed),
        ("NamespaceDeletionContentFailure", deleted),
        ("NamespaceContentRemaining", remaining),
        ("NamespaceFinalizersRemaining", held),
    ];
    let mut next: Vec<NamespaceCondition> =
        current.iter().filter(|each| facts.iter().all(|(kind, _)| *kind != each.type_)).cloned().collect();
    for (kind, (is_true, reason, message)) in facts {
        let status = if is_true { "True" } else { "False" };
        let before = current.iter().find(|each| each.type_ == kind && each.status == status);
        next.push(NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: before
                .and_then(|before| before.last_transition_time.clone())
                .or_else(|| Some(stamp(now))),
        });
    }
    next
}

fn dotted(resource: &ResourceType) -> String {
    format!("{}.{}", resource.plural, resource.group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminating() -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("gone".into());
        namespace.metadata.uid = Some("u".into());
        namespace.metadata.deletion_timestamp = Some(stamp(Timestamp::UNIX_EPOCH));
        namespace.spec.get_or_insert_default().finalizers = Some(vec!["kubernetes".into(), "other".into()]);
        namespace
    }

    /// `content`: objects by resource, as `name` or `name!finalizer`.
    fn check(content: &[(&str, &[&str])], expected: &[&str]) {
        let namespace = terminating();
        let resources = content.iter().map(|(plural, _)| ResourceType::new("", "v1", *plural, *plural, true));
        let discovery = Discovery { resources: resources.collect(), failure: None };
        let now = Timestamp::UNIX_EPOCH;
        let (asking, _) = plan(&namespace, &discovery, &Answers::new(), now);
        assert_eq!(asking.questions.len(), content.len());
        let mut answers = Answers::new();
        for (resource, (_, objects)) in discovery.resources.iter().zip(content) {
            let objects = objects.iter().map(|text| {
                let (object, finalizer) =
                    text.split_once('!').map_or((*text, None), |(object, rest)| (object, Some(rest)));
                ObjectMeta {
                    name: Some(object.into()),
                    finalizers: finalizer.map(|finalizer| vec![finalizer.to_owned()]),
                    deletion_timestamp: finalizer.map(|_| stamp(now)),
                    ..ObjectMeta::default()
                }
            });
            answers
                .insert(Question::List(resource.clone(), "gone".into()), Answer::Listed(objects.collect()));
        }
        let (plan, _) = plan(&namespace, &discovery, &answers, now);
        let shown: Vec<String> = plan
            .actions()
            .map(|action| match &action.write {
                Write::Delete { target, .. } => format!("delete {}", target.key.name),
                Write::ReplaceSub { object, .. } => format!("finalize {}", object["spec"]["finalizers"]),
                Write::Patch { body, .. } => {
                    let conditions = body["status"]["conditions"].as_array().unwrap();
                    let bad = conditions.iter().filter(|each| each["status"] == "True");
                    format!(
                        "status {}",
                        bad.map(|each| each["message"].as_str().unwrap()).collect::<Vec<_>>().join("; ")
                    )
                }
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn pods_go_first_and_the_namespace_last() {
        check(
            &[("configmaps", &["a"]), ("pods", &["p"])],
            &[
                "delete p",
                "status Some resources are remaining: configmaps. has 1 resource instances, pods. has 1 resource instances",
            ],
        );
        check(
            &[("configmaps", &["a", "b!keep"]), ("pods", &[])],
            &[
                "delete a",
                "status Some resources are remaining: configmaps. has 2 resource instances; Some content in the namespace has finalizers remaining: keep in 1 resource instances",
            ],
        );
        check(&[("configmaps", &[]), ("pods", &[])], &["finalize [\"other\"]"]);
    }
}
