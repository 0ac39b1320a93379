//! Keeps the status of quotas true: what is limited, and how much of it is used.
//!
//! The server charges a quota in the transaction of each write, and never gives back: what has gone, ended or shrunk is found
//! out here, by adding up what is there. A cache that has not seen a new object yet would give back what that object took.
//! So nothing is given back on the word of a cache: the server is asked what is there, and the quota is written only if it is
//! still the one that was looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::quota::{self, Amounts, Counted, Quota, stays_counted_until};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::merge::{diff, to_json};
use crate::object::{Object, after, is_terminating, namespace, revision};
use crate::plan::{Answer, Answers, Plan, Question, Report, merge_exact};
use crate::world::counted;
use crate::write::ResourceType;

/// How soon a quota is looked at again when the caches are behind the server.
const BEHIND_SECONDS: i64 = 1;

/// What the planner may look at.
pub struct View<'a> {
    /// The quota.
    pub quota: &'a ResourceQuota,
    /// The pods of its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// The services of its namespace.
    pub services: Vec<Arc<Service>>,
    /// The claims of its namespace.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    /// Every resource that the server serves.
    pub resources: &'a [ResourceType],
    /// How many objects of a resource its namespace has.
    pub count: &'a dyn Fn(&ResourceType) -> usize,
}

/// An object, and what the server would say of it.
struct Seen {
    document: Value,
    revision: u64,
}

/// Plans for one quota.
pub fn plan(view: &View<'_>, answers: &Answers, now: Timestamp) -> (Plan, Report) {
    let mut plan = Plan::default();
    if is_terminating(view.quota) {
        return (plan, Report::default());
    }
    let document = to_json(view.quota);
    let hard = quota::amounts(&document["spec"]["hard"]);
    // What is in force is what was last written; what is looked at are the names that shall be.
    let stored = Quota::of(&document);
    let wanted = Quota { hard: hard.clone(), ..stored.clone() };
    let resources = limited(view, &hard);
    let caches = Caches::of(view, &resources);
    let used = caches.used(&wanted, &resources, now);
    let falls = |name: &String| stored.used.get(name).is_none_or(|before| used[name] < *before);
    let falling: BTreeSet<&String> = used.keys().filter(|name| falls(name)).collect();
    let doubtful = resources.iter().filter(|(_, names)| names.iter().any(|name| falling.contains(name)));
    let place = namespace(view.quota);
    let questions: Vec<Question> =
        doubtful.map(|(resource, _)| Question::List((*resource).clone(), place.to_owned())).collect();
    let unasked: Vec<Question> =
        questions.iter().filter(|each| !answers.contains_key(each)).cloned().collect();
    if !unasked.is_empty() {
        return (Plan::ask(unasked), Report::default());
    }
    if !questions.iter().all(|question| caches.agree(question, answers)) {
        plan.look_again(after(now, BEHIND_SECONDS));
        return (plan, Report { why: vec!["the caches are behind".to_owned()], ..Report::default() });
    }
    if let Some(next) = caches.next_end(&wanted, now) {
        plan.look_again(next);
    }
    let (is, shall) = (
        json!({"hard": document["status"]["hard"], "used": document["status"]["used"]}),
        json!({"hard": quota::document(&hard), "used": quota::document(&used)}),
    );
    if (&stored.hard, &stored.used) != (&hard, &used)
        && let Some(change) = diff(&is, &shall)
    {
        let body = json!({"status": change});
        plan.one(merge_exact::<ResourceQuota>(&view.quota.metadata, Some("status"), body));
    }
    (plan, Report::default())
}

/// The resources that names of the quota limit, with these names.
fn limited<'a>(view: &View<'a>, hard: &Amounts) -> Vec<(&'a ResourceType, Vec<String>)> {
    let of = |resource: &'a ResourceType| {
        let names: Vec<String> =
            hard.keys().filter(|name| counted(resource).counts_as(name)).cloned().collect();
        (resource.namespaced && !names.is_empty()).then_some((resource, names))
    };
    let mut found: Vec<(&ResourceType, Vec<String>)> = Vec::new();
    for (resource, names) in view.resources.iter().filter_map(of) {
        // A resource that is served in several versions is one.
        if !found.iter().any(|(known, _)| counted(known) == counted(resource)) {
            found.push((resource, names));
        }
    }
    found
}

/// What the caches have of the namespace.
struct Caches<'a> {
    /// By plural, of the core group.
    objects: BTreeMap<&'static str, BTreeMap<String, Seen>>,
    count: &'a dyn Fn(&ResourceType) -> usize,
}

// === impl Caches ===

impl<'a> Caches<'a> {
    fn of(view: &View<'a>, resources: &[(&ResourceType, Vec<String>)]) -> Self {
        let is_limited = |plural: &str| {
            resources.iter().any(|(resource, _)| counted(resource) == Counted { group: "", plural })
        };
        let mut objects = BTreeMap::new();
        if is_limited("pods") {
            objects.insert("pods", seen(&view.pods));
        }
        if is_limited("services") {
            objects.insert("services", seen(&view.services));
        }
        if is_limited("persistentvolumeclaims") {
            objects.insert("persistentvolumeclaims", seen(&view.claims));
        }
        Self { objects, count: view.count }
    }

    fn objects(&self, resource: &ResourceType) -> Option<&BTreeMap<String, Seen>> {
        resource.group.is_empty().then(|| self.objects.get(&*resource.plural)).flatten()
    }

    /// What is used of each name that is limited. Names that nothing counts as are left out.
    fn used(&self, quota: &Quota, resources: &[(&ResourceType, Vec<String>)], now: Timestamp) -> Amounts {
        let mut used = Amounts::new();
        for (resource, names) in resources {
            used.extend(names.iter().map(|name| (name.clone(), Default::default())));
            let kind = counted(resource);
            let Some(objects) = self.objects(resource) else {
                if quota.scopes.is_empty() {
                    let count = i64::try_from((self.count)(resource)).unwrap_or(i64::MAX);
                    let count = api::quantity::Quantity::from_value(count, Default::default());
                    used.extend(names.iter().map(|name| (name.clone(), count)));
                }
                continue;
            };
            for object in objects.values().filter(|each| quota.covers(kind, &each.document)) {
                let usage = kind.usage(&object.document, now);
                let usage = usage.into_iter().filter(|(name, _)| names.contains(name)).collect();
                quota::add(&mut used, &usage);
            }
        }
        used
    }

    /// Whether the caches have everything that the server has, as new as the server has it.
    fn agree(&self, question: &Question, answers: &Answers) -> bool {
        let (Question::List(resource, _), Some(Answer::Listed(live))) = (question, answers.get(question))
        else {
            return false;
        };
        match self.objects(resource) {
            Some(objects) => live.iter().all(|meta| {
                let seen = objects.get(meta.uid.as_deref().unwrap_or_default());
                seen.is_some_and(|seen| seen.revision >= revision(meta).unwrap_or(0))
            }),
            None => live.len() <= (self.count)(resource),
        }
    }

    /// When the next pod ceases to count because its time is up.
    fn next_end(&self, quota: &Quota, now: Timestamp) -> Option<Timestamp> {
        let pods = self.objects.get("pods")?.values().map(|seen| &seen.document);
        let pods = pods.filter(|pod| quota.covers(Counted { group: "", plural: "pods" }, pod));
        let ends = pods.filter_map(stays_counted_until).filter(|end| *end >= now);
        ends.min()?.checked_add(SignedDuration::from_secs(1)).ok()
    }
}

fn seen<K: Object>(objects: &[Arc<K>]) -> BTreeMap<String, Seen> {
    let of = |object: &Arc<K>| {
        let meta: &ObjectMeta = object.metadata();
        let seen = Seen { document: to_json(&**object), revision: revision(meta).unwrap_or(0) };
        (meta.uid.clone().unwrap_or_default(), seen)
    };
    objects.iter().map(of).collect()
}

#[cfg(test)]
mod tests;
