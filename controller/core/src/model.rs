//! A cluster in memory for tests: applies plans, plays the node agents, checks that plans are idempotent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::dispatch::{self, Attempt};
use crate::plan::{Action, Answer, Answers, Plan, Question, Step};
use crate::world::{Controller, Key, Settings, Work, World};
use crate::write::{PatchKind, Write};

/// The cluster.
pub struct Model {
    pub world: World,
    pub objects: BTreeMap<(String, Key), Value>,
    pub now: Timestamp,
    pub rng: StdRng,
    pub queue: BTreeSet<Work>,
    pub later: BTreeMap<Work, Timestamp>,
    /// What was written, one line each.
    pub log: Vec<String>,
    /// Checked after every single write.
    pub invariant: Option<fn(&Model)>,
    /// Whether questions are answered.
    pub hears: bool,
    /// The controllers that run.
    pub running: Vec<Controller>,
    revision: u64,
}

impl Model {
    pub fn new(seed: u64) -> Self {
        Self::with(Settings::default(), seed)
    }

    pub fn with(settings: Settings, seed: u64) -> Self {
        Model {
            world: World::new(settings),
            objects: BTreeMap::new(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            rng: StdRng::seed_from_u64(seed),
            queue: BTreeSet::new(),
            later: BTreeMap::new(),
            log: Vec::new(),
            invariant: None,
            hears: true,
            running: Controller::ALL.to_vec(),
            revision: 0,
        }
    }

    /// Stores an object as the API server would and tells the world.
    pub fn put(&mut self, plural: &str, mut object: Value) {
        self.revision += 1;
        let meta = object.as_object_mut().unwrap().entry("metadata").or_insert_with(|| json!({}));
        let meta = meta.as_object_mut().unwrap();
        let revision = self.revision.to_string();
        meta.entry("uid").or_insert_with(|| json!(format!("uid-{revision}")));
        meta.entry("creationTimestamp").or_insert_with(|| json!(self.now.to_string()));
        meta.insert("resourceVersion".into(), json!(revision));
        if !matches!(plural, "nodes" | "namespaces") {
            meta.entry("namespace").or_insert_with(|| json!("default"));
        }
        let key = key_of(&object);
        let old = self.objects.insert((plural.to_owned(), key), object.clone());
        let spec_changed = old.as_ref().is_none_or(|old| old["spec"] != object["spec"]);
        if spec_changed {
            let generation = old.and_then(|old| old["metadata"]["generation"].as_i64()).unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
            self.objects.insert((plural.to_owned(), key_of(&object)), object.clone());
        }
        self.tell(plural, &object, false);
    }

    pub fn remove(&mut self, plural: &str, key: &Key) {
        if let Some(object) = self.objects.remove(&(plural.to_owned(), key.clone())) {
            self.tell(plural, &object, true);
        }
    }

    fn tell(&mut self, plural: &str, object: &Value, gone: bool) {
        let now = self.now;
        macro_rules! tell {
            ($($name:literal => $kind:ty),* $(,)?) => {
                match plural {
                    $($name => {
                        let typed: $kind = serde_json::from_value(object.clone()).unwrap();
                        if gone { self.world.deleted(&typed, now) } else { self.world.applied(Arc::new(typed), now) }
                    })*
                    other => panic!("the model knows no {other}"),
                }
            };
        }
        let work = tell!(
            "pods" => Pod, "replicasets" => ReplicaSet, "deployments" => Deployment, "daemonsets" => DaemonSet,
            "controllerrevisions" => ControllerRevision, "nodes" => Node, "services" => Service,
            "endpointslices" => EndpointSlice, "endpoints" => Endpoints, "namespaces" => Namespace,
            "serviceaccounts" => ServiceAccount, "configmaps" => ConfigMap, "resourcequotas" => ResourceQuota,
            "persistentvolumeclaims" => PersistentVolumeClaim,
        );
        self.queue.extend(work);
        if let Some(check) = self.invariant {
            check(self);
        }
    }

    /// Works until nobody has anything to do.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some(work) = self.queue.pop_first() else { return };
            if self.running.contains(&work.controller) {
                self.handle(&work);
            }
        }
        panic!("no fixpoint; last writes: {:#?}", &self.log[self.log.len().saturating_sub(20)..]);
    }

    /// Plans and carries out one piece of work. A second plan on the result may only bring the status up to
    /// date with what the first one did; a third is empty.
    pub fn handle(&mut self, work: &Work) {
        let plan = self.plan(work);
        if let Some(at) = plan.look_again_at {
            self.later.insert(work.clone(), at);
        }
        if plan.is_empty() {
            return;
        }
        self.carry_out(&plan);
        let second = self.plan(work);
        let only_status = second.steps.iter().all(|step| matches!(step, Step::Always(_)));
        assert!(only_status, "{work:?} is not idempotent: {second:#?}");
        self.carry_out(&second);
        let third = self.plan(work);
        assert!(third.is_empty(), "{work:?} is not idempotent: {third:#?}");
    }

    fn carry_out(&mut self, plan: &Plan) {
        let actions: Vec<Action> = plan.actions().cloned().collect();
        for action in actions {
            self.apply(action);
        }
    }

    pub fn plan(&mut self, work: &Work) -> Plan {
        let mut attempt = Attempt::default();
        loop {
            let (plan, _) = dispatch::plan(&mut self.world, work, &attempt, self.now, &mut self.rng);
            if plan.questions.is_empty() {
                return plan;
            }
            let answers: Answers = plan
                .questions
                .into_iter()
                .map(|question| (question.clone(), self.answer(&question)))
                .collect();
            attempt.answers.extend(answers);
        }
    }

    fn answer(&self, question: &Question) -> Answer {
        let meta = |object: &Value| serde_json::from_value::<ObjectMeta>(object["metadata"].clone()).unwrap();
        match question {
            _ if !self.hears => Answer::Failed("the server is not there".into()),
            Question::Get(target) => {
                match self.objects.get(&(target.resource.plural.to_string(), target.key.clone())) {
                    Some(object) => Answer::Found(Box::new(meta(object))),
                    None => Answer::Absent,
                }
            }
            Question::Whole(target) => {
                let found = self.objects.get(&(target.resource.plural.to_string(), target.key.clone()));
                found.map_or(Answer::Absent, |object| Answer::Document(Box::new(object.clone())))
            }
            Question::List(resource, namespace) => {
                let listed = self.objects.iter().filter(|((plural, key), _)| {
                    *plural == *resource.plural && (namespace.is_empty() || *key.namespace == **namespace)
                });
                Answer::Listed(listed.map(|(_, object)| meta(object)).collect())
            }
        }
    }

    fn apply(&mut self, action: Action) {
        if let Some(note) = &action.succeeded {
            self.log.push(format!("{}: {}", note.reason, note.message));
        }
        match action.write {
            Write::Create { resource, object, .. } => {
                let key = (resource.plural.to_string(), key_of(&object));
                assert!(!self.objects.contains_key(&key), "{key:?} exists");
                self.put(&resource.plural, object);
            }
            Write::Patch { target, precondition, kind, body, .. } => {
                let plural = target.resource.plural.to_string();
                let Some(current) = self.objects.get(&(plural.clone(), target.key.clone())) else {
                    assert!(action.tolerant, "{target:?} is gone");
                    return;
                };
                let mut next = current.clone();
                if let Some(expected) = &precondition.resource_version {
                    assert_eq!(
                        current["metadata"]["resourceVersion"],
                        json!(expected),
                        "conflict on {target:?}"
                    );
                }
                match kind {
                    PatchKind::Json => json_patch(&mut next, &body),
                    PatchKind::Merge => merge(&mut next, &body),
                    _ => strategic(&mut next, &body),
                }
                self.put(&plural, next);
            }
            Write::Delete { target, grace_period_seconds, .. } => {
                let plural = target.resource.plural.to_string();
                let Some(object) = self.objects.get(&(plural.clone(), target.key.clone())) else { return };
                let bound = object["spec"]["nodeName"].is_string();
                if plural == "pods" && bound && grace_period_seconds != Some(0) {
                    let mut next = object.clone();
                    next["metadata"]["deletionTimestamp"] = json!(self.now.to_string());
                    self.put(&plural, next);
                } else {
                    self.remove(&plural, &target.key);
                }
            }
            other => panic!("the model cannot carry out {other:?}"),
        }
    }

    pub fn advance(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let due: Vec<Work> =
            self.later.iter().filter(|(_, at)| **at <= self.now).map(|(work, _)| work.clone()).collect();
        for work in due {
            self.later.remove(&work);
            self.queue.insert(work);
        }
    }

    pub fn of(&self, plural: &str) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|((each, _), _)| each == plural)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Plays scheduler and node agents: each pod takes its next step with probability `chance` in 100.
    pub fn run_pods(&mut self, chance: u32, becomes_ready: impl Fn(&Value) -> bool) {
        let nodes: Vec<String> =
            self.of("nodes").iter().map(|node| text(&node["metadata"]["name"])).collect();
        for mut pod in self.of("pods") {
            if self.rng.random_range(0..100) >= chance {
                continue;
            }
            if pod["metadata"]["deletionTimestamp"].is_string() {
                self.remove("pods", &key_of(&pod));
            } else if !pod["spec"]["nodeName"].is_string() {
                let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
                let pinned = crate::daemon_set::pinned_node(&typed).map(str::to_owned);
                let any = || nodes.first().cloned().unwrap_or_else(|| "node".into());
                pod["spec"]["nodeName"] = json!(pinned.unwrap_or_else(any));
                self.put("pods", pod);
            } else if pod["status"]["conditions"].is_null() && becomes_ready(&pod) {
                let number = self.revision % 250 + 1;
                pod["status"] = json!({
                    "phase": "Running",
                    "podIP": format!("10.0.0.{number}"),
                    "podIPs": [{"ip": format!("10.0.0.{number}")}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": self.now.to_string()}],
                });
                self.put("pods", pod);
            }
        }
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn key_of(object: &Value) -> Key {
    Key::new(text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let map = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            map.remove(name);
        } else {
            merge(map.entry(name).or_insert(Value::Null), value);
        }
    }
}

fn json_patch(target: &mut Value, patch: &Value) {
    for step in patch.as_array().unwrap() {
        let path = step["path"].as_str().unwrap();
        match step["op"].as_str().unwrap() {
            "test" => assert_eq!(target.pointer(path), Some(&step["value"]), "test of {path}"),
            _ => {
                let (parent, last) = path.rsplit_once('/').unwrap();
                let last = last.replace("~1", "/").replace("~0", "~");
                target.pointer_mut(parent).unwrap()[last] = step["value"].clone();
            }
        }
    }
}

/// Strategic merge of what planners send: lists by `type` or `uid`.
fn strategic(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(map) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, value) in map {
                strategic(&mut target[name.as_str()], value);
            }
        }
        Value::Array(items) => {
            if !target.is_array() {
                *target = json!([]);
            }
            let list = target.as_array_mut().unwrap();
            for item in items {
                let field = if item["type"].is_string() { "type" } else { "uid" };
                let place = list.iter().position(|each| each[field] == item[field]);
                match place {
                    Some(place) if item["$patch"] == "delete" => {
                        list.remove(place);
                    }
                    Some(place) => strategic(&mut list[place], item),
                    None => list.push(item.clone()),
                }
            }
        }
        other => *target = other.clone(),
    }
}
