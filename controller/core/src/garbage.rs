//! Deletes what has lost its owners, holds owners that wait for their dependents, and lets orphans go.

mod graph;
#[cfg(test)]
mod tests;

pub use self::graph::{Change, Graph, Owner, Seen};
use jiff::Timestamp;
use serde_json::json;

use self::graph::{FOREGROUND, Node, ORPHAN};
use crate::object::after;
use crate::plan::{Action, Answer, Answers, Plan, Question, Report};
use crate::write::{ObjectKey, PatchKind, Precondition, Propagation, ResourceType, Target, Write};

/// How long after a question that failed it is put again.
const RETRY_SECONDS: i64 = 5;

/// Finds the resource of an owner reference's apiVersion and kind. None: not known (any more).
pub type ResourceOf<'a> = &'a dyn Fn(&str, &str) -> Option<ResourceType>;

/// What an owner is to its dependent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is there.
    Solid,
    /// It is there, and waits for its dependents to go.
    Waiting,
    /// It is gone, as the API server itself confirmed.
    Absent,
    /// Nobody could say; the dependent stays, and somebody is asked again later.
    Unheard,
    /// It cannot be asked for; the dependent stays.
    Unknown,
}

/// Plans for one object of the graph.
///
/// An owner counts as absent when its deletion was told of; one that the graph does not hold is asked for
/// live, by name, and is absent only when it is not found or has another uid. The object itself is deleted
/// only in the revision that the graph has seen.
pub fn plan(
    graph: &Graph,
    uid: &str,
    resource_of: ResourceOf,
    answers: &Answers,
    now: Timestamp,
) -> (Plan, Report) {
    let Some(node) = graph.node(uid) else { return (Plan::default(), Report::default()) };
    if node.is_terminating && node.has(ORPHAN) {
        return orphan(graph, uid, node);
    }
    if node.is_terminating && node.has(FOREGROUND) {
        return foreground(graph, uid, node);
    }
    if node.is_terminating || node.owners.is_empty() {
        return (Plan::default(), Report::default());
    }
    collect(graph, uid, node, resource_of, answers, now)
}

/// Takes the owner out of its dependents, then its finalizer away.
fn orphan(graph: &Graph, uid: &str, node: &Node) -> (Plan, Report) {
    let mut plan = Plan::default();
    let dependents = graph.dependents(uid).filter_map(|dependent| Some((dependent, graph.node(dependent)?)));
    plan.together(dependents.map(|(dependent, each)| drop_owners(each, dependent, &[uid])).collect());
    plan.one(drop_finalizer(node, uid, ORPHAN));
    let why = format!("{} is deleted without its dependents", node.key);
    (plan, Report { events: Vec::new(), why: vec![why] })
}

/// Deletes the dependents that hold the owner; without any, lets the owner go.
fn foreground(graph: &Graph, uid: &str, node: &Node) -> (Plan, Report) {
    let mut plan = Plan::default();
    let mut report = Report::default();
    let blocking = graph
        .dependents(uid)
        .filter_map(|dependent| graph.node(dependent))
        .filter(|dependent| dependent.owners.iter().any(|owner| &*owner.uid == uid && owner.blocks));
    match blocking.count() {
        0 => plan.one(drop_finalizer(node, uid, FOREGROUND)),
        count => report.why.push(format!("{} waits for {count} dependents to go", node.key)),
    }
    (plan, report)
}

fn collect(
    graph: &Graph,
    uid: &str,
    node: &Node,
    resource_of: ResourceOf,
    answers: &Answers,
    now: Timestamp,
) -> (Plan, Report) {
    let mut questions = Vec::new();
    let standings: Vec<Standing> = node
        .owners
        .iter()
        .map(|owner| standing(graph, node, owner, resource_of, answers, &mut questions))
        .collect();
    if !questions.is_empty() {
        return (Plan::ask(questions), Report::default());
    }
    let of = |wanted: Standing| {
        let owners = node.owners.iter().zip(&standings).filter(move |(_, standing)| **standing == wanted);
        owners.map(|(owner, _)| &*owner.uid).collect::<Vec<_>>()
    };
    let (absent, waiting) = (of(Standing::Absent), of(Standing::Waiting));
    let mut plan = Plan::default();
    if standings.contains(&Standing::Unheard) {
        plan.look_again(after(now, RETRY_SECONDS));
        return (plan, Report::default());
    }
    if standings.contains(&Standing::Unknown) || absent.len() + waiting.len() == 0 {
        return (plan, Report::default());
    }
    if standings.contains(&Standing::Solid) {
        let gone: Vec<&str> = absent.into_iter().chain(waiting).collect();
        plan.one(drop_owners(node, uid, &gone));
        return (
            plan,
            Report { events: Vec::new(), why: vec![format!("{} keeps its other owners", node.key)] },
        );
    }
    let has_dependents = graph.dependents(uid).next().is_some();
    let waits_on = !waiting.is_empty() && has_dependents;
    // A circle of owners that wait for each other is opened here.
    let mut dependents = graph.dependents(uid).filter_map(|dependent| graph.node(dependent));
    let circular =
        waits_on && dependents.any(|dependent| dependent.is_terminating && dependent.has(FOREGROUND));
    if circular {
        plan.one(unblock(node, uid));
    }
    let propagation = if waits_on {
        Propagation::Foreground
    } else if node.has(ORPHAN) {
        Propagation::Orphan
    } else if node.has(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    plan.one(
        Action::from(Write::Delete {
            target: Target { resource: node.resource.clone(), key: node.key.clone() },
            // Owners may have been added since: the deletion holds for what the graph has seen. A circle
            // that was just opened has a newer revision.
            precondition: Precondition {
                uid: Some(uid.to_owned()),
                resource_version: Some(node.revision.to_string()).filter(|_| !circular),
            },
            grace_period_seconds: None,
            propagation: Some(propagation),
        })
        .tolerant(),
    );
    (plan, Report { events: Vec::new(), why: vec![format!("{} has lost its owners", node.key)] })
}

fn standing(
    graph: &Graph,
    node: &Node,
    owner: &Owner,
    resource_of: ResourceOf,
    answers: &Answers,
    questions: &mut Vec<Question>,
) -> Standing {
    let judge = |terminating: bool, waits: bool| {
        if terminating && waits { Standing::Waiting } else { Standing::Solid }
    };
    if graph.is_gone(&owner.uid) {
        return Standing::Absent;
    }
    let Some(resource) = resource_of(&owner.api_version, &owner.kind) else { return Standing::Unknown };
    let namespace = if resource.namespaced { &*node.key.namespace } else { "" };
    if resource.namespaced && node.key.namespace.is_empty() {
        // What lives in no namespace cannot be owned by what lives in one.
        return Standing::Unknown;
    }
    let held = graph.node(&owner.uid);
    if let Some(held) = held.filter(|held| held.resource == resource && *held.key.namespace == *namespace) {
        return judge(held.is_terminating, held.has(FOREGROUND));
    }
    if held.is_none() && graph.lives(&owner.uid, namespace, &resource) {
        return Standing::Solid;
    }
    let question = Question::Get(Target { resource, key: ObjectKey::new(namespace, &*owner.name) });
    match answers.get(&question) {
        None => {
            questions.push(question);
            Standing::Unknown
        }
        Some(Answer::Found(meta)) if meta.uid.as_deref() == Some(&*owner.uid) => {
            let waits = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
            judge(meta.deletion_timestamp.is_some(), waits)
        }
        Some(Answer::Found(_) | Answer::Absent) => Standing::Absent,
        Some(_) => Standing::Unheard,
    }
}

// === writes ===

fn patch(node: &Node, uid: &str, kind: PatchKind, body: serde_json::Value) -> Action {
    Action::from(Write::Patch {
        target: Target { resource: node.resource.clone(), key: node.key.clone() },
        subresource: None,
        precondition: Precondition {
            uid: Some(uid.to_owned()),
            resource_version: Some(node.revision.to_string()),
        },
        kind,
        body,
    })
    .tolerant()
}

/// Keeps the owners that are not `gone`.
fn drop_owners(node: &Node, uid: &str, gone: &[&str]) -> Action {
    let kept = node.owners.iter().filter(|owner| !gone.contains(&&*owner.uid)).map(Owner::document);
    patch(node, uid, PatchKind::Merge, json!({"metadata": {"ownerReferences": kept.collect::<Vec<_>>()}}))
}

fn unblock(node: &Node, uid: &str) -> Action {
    let owners = node.owners.iter().map(|owner| Owner { blocks: false, ..owner.clone() }.document());
    patch(node, uid, PatchKind::Merge, json!({"metadata": {"ownerReferences": owners.collect::<Vec<_>>()}}))
}

fn drop_finalizer(node: &Node, uid: &str, finalizer: &str) -> Action {
    let kept: Vec<&str> =
        node.finalizers.iter().map(|each| &**each).filter(|each| *each != finalizer).collect();
    patch(node, uid, PatchKind::Merge, json!({"metadata": {"finalizers": kept}}))
}
