//! `metrics.k8s.io`: what nodes and pods use, as their agents measure it. The plan names the nodes to ask; the answer is
//! made of what they said. Nothing is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use api::catalogue::{Catalogue, Resource, Scope, Verb};
use api::schema::TypeId;
use api::status::Status;
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::Call;
use crate::keys;
use crate::object::meta;
use crate::prepare::Planned;
use crate::response::{Prepared, Response};
use crate::selection::Selection;

/// The group.
pub(crate) const GROUP: &str = "metrics.k8s.io";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// What to ask the agents, and for whom.
#[derive(Debug)]
pub struct MeasurePlan {
    kind: Kind,
    subjects: Vec<Subject>,
    /// The refusal when the one that was asked for was not measured.
    one: Option<Box<Response>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nodes,
    Pods,
}

/// A node or pod whose measures are wanted.
#[derive(Debug)]
struct Subject {
    node: String,
    uid: String,
    metadata: Value,
}

/// What an agent has measured: `/stats/summary` of its HTTP API, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The whole node.
    #[serde(default)]
    node: Stats,
    /// Its pods.
    #[serde(default)]
    pods: Vec<PodStats>,
    /// Seconds over which rates were taken.
    #[serde(default)]
    window_seconds: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Stats {
    #[serde(default)]
    name: String,
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memory,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Option<Timestamp>,
    usage_nano_cores: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<Stats>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodRef {
    #[serde(default)]
    uid: String,
}

/// The group's resources. They have no schema: nothing is read from clients.
pub(crate) fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
        let mut catalogue = Catalogue::default();
        let entries = [("NodeMetrics", "nodes", Scope::Cluster), ("PodMetrics", "pods", Scope::Namespaced)];
        for (kind, plural, scope) in entries {
            catalogue.insert(Resource {
                group: GROUP.into(),
                version: "v1beta1".into(),
                kind: kind.into(),
                list_kind: format!("{kind}List").into(),
                plural: plural.into(),
                singular: "".into(),
                short_names: Vec::new(),
                categories: Vec::new(),
                scope,
                verbs: vec![Verb::Get, Verb::List],
                subresources: Vec::new(),
                schema: TypeId::UNKNOWN,
                stored: false,
                stored_as: None,
                idle: false,
                deprecation: None,
                custom: None,
            });
        }
        catalogue
    });
    &CATALOGUE
}

/// GET of one object or of a collection.
pub(crate) fn plan(call: &Call<'_>) -> Planned {
    let kind = if call.resource.plural == "nodes" { Kind::Nodes } else { Kind::Pods };
    let is_list = call.request.info.verb == crate::request::Verb::List;
    let (subjects, one) = if is_list {
        (selected(call)?, None)
    } else {
        let missing: Box<Response> = Status::not_found(call.resource, call.name()).into();
        let key = keys::object("", &call.resource.plural, call.namespace(), call.name());
        let entry = call.world.snapshot.get(&key);
        let subject = entry.map(|entry| call.parsed(entry)).transpose()?.and_then(|it| subject(kind, &it));
        match subject {
            Some(subject) => (vec![subject], Some(missing)),
            None => return Err(missing.into()),
        }
    };
    Ok(Prepared::Measure(Box::new(MeasurePlan { kind, subjects, one })))
}

fn selected(call: &Call<'_>) -> Result<Vec<Subject>, Box<Response>> {
    let kind = if call.resource.plural == "nodes" { Kind::Nodes } else { Kind::Pods };
    let selection = Selection::parse(call.resource, call.options())?;
    let prefix = keys::namespace_prefix("", &call.resource.plural, call.namespace());
    let mut subjects = Vec::new();
    for (key, entry) in call.world.snapshot.prefix(prefix.as_bytes()) {
        if selection.matches(key, &entry.value) {
            subjects.extend(subject(kind, &call.parsed(entry)?));
        }
    }
    Ok(subjects)
}

/// What is wanted of a node or pod; `None` for a pod that does not run.
fn subject(kind: Kind, object: &Value) -> Option<Subject> {
    let node = match kind {
        Kind::Nodes => meta(object, "name"),
        Kind::Pods if object["status"]["phase"] != "Running" => return None,
        Kind::Pods => object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())?,
    };
    let mut metadata = json!({"name": meta(object, "name")});
    if kind == Kind::Pods {
        metadata["namespace"] = meta(object, "namespace").into();
    }
    if let Some(labels) = object["metadata"]["labels"].as_object() {
        metadata["labels"] = json!(labels);
    }
    Some(Subject { node: node.to_owned(), uid: meta(object, "uid").to_owned(), metadata })
}

// === impl Summary ===

impl Summary {
    /// Reads an agent's answer.
    ///
    /// # Errors
    /// When it is not such a document.
    pub fn read(bytes: &[u8]) -> Result<Summary, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

// === impl MeasurePlan ===

impl MeasurePlan {
    /// The nodes whose agents are to be asked.
    pub fn nodes(&self) -> BTreeSet<&str> {
        self.subjects.iter().map(|subject| &*subject.node).collect()
    }

    /// The answer, made of what the agents said, by node. Who was not measured is left out.
    pub fn render(self, said: &BTreeMap<String, Summary>) -> Response {
        let (kind_name, measured): (_, fn(&Subject, &Summary) -> Option<Value>) = match self.kind {
            Kind::Nodes => ("NodeMetrics", node_metrics),
            Kind::Pods => ("PodMetrics", pod_metrics),
        };
        let mut items =
            self.subjects.iter().filter_map(|subject| measured(subject, said.get(&subject.node)?));
        match self.one {
            Some(missing) => match items.next() {
                Some(mut item) => {
                    item["kind"] = kind_name.into();
                    item["apiVersion"] = API_VERSION.into();
                    Response::document(StatusCode::OK, &item)
                }
                None => *missing,
            },
            None => {
                let items: Vec<Value> = items.collect();
                let list = json!({"kind": format!("{kind_name}List"), "apiVersion": API_VERSION, "metadata": {},
                    "items": items});
                Response::document(StatusCode::OK, &list)
            }
        }
    }
}

fn node_metrics(subject: &Subject, said: &Summary) -> Option<Value> {
    let mut item = measures(subject, said, said.node.cpu.time?);
    item["usage"] = usage(&said.node)?;
    Some(item)
}

/// A pod is measured when all of its containers are: a sum without some of them would mislead.
fn pod_metrics(subject: &Subject, said: &Summary) -> Option<Value> {
    let pod = said.pods.iter().find(|pod| pod.pod_ref.uid == subject.uid)?;
    let at = pod.containers.iter().filter_map(|container| container.cpu.time).min()?;
    let containers: Option<Vec<Value>> = pod
        .containers
        .iter()
        .map(|container| Some(json!({"name": container.name, "usage": usage(container)?})))
        .collect();
    let mut item = measures(subject, said, at);
    item["containers"] = Value::Array(containers?);
    Some(item)
}

fn measures(subject: &Subject, said: &Summary, at: Timestamp) -> Value {
    let mut metadata = subject.metadata.clone();
    let at = api::time::format(at);
    metadata["creationTimestamp"] = at.clone().into();
    json!({"metadata": metadata, "timestamp": at, "window": format!("{:.3}s", said.window_seconds)})
}

fn usage(stats: &Stats) -> Option<Value> {
    let (cpu, memory) = (stats.cpu.usage_nano_cores?, stats.memory.working_set_bytes?);
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory / 1024)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> BTreeMap<String, Summary> {
        let said = json!({"windowSeconds": 10.0,
            "node": {"nodeName": "n", "cpu": {"time": "2026-01-01T00:00:10.5Z", "usageNanoCores": 250_000_000},
                "memory": {"workingSetBytes": 2_097_152}},
            "pods": [
                {"podRef": {"name": "a", "uid": "1"}, "containers": [
                    {"name": "x", "cpu": {"time": "2026-01-01T00:00:10Z", "usageNanoCores": 7}, "memory": {"workingSetBytes": 4096}}]},
                {"podRef": {"name": "b", "uid": "2"}, "containers": [
                    {"name": "x", "cpu": {"time": "2026-01-01T00:00:10Z", "usageNanoCores": 7}, "memory": {"workingSetBytes": 4096}},
                    {"name": "new", "cpu": {"time": "2026-01-01T00:00:10Z"}, "memory": {"workingSetBytes": 4096}}]}]});
        let said = Summary::read(said.to_string().as_bytes()).expect("a summary");
        BTreeMap::from([("n".to_owned(), said)])
    }

    fn pod(uid: &str, phase: &str) -> Option<Subject> {
        let object = json!({"metadata": {"name": format!("pod-{uid}"), "namespace": "d", "uid": uid, "labels": {"a": "b"}},
            "spec": {"nodeName": "n"}, "status": {"phase": phase}});
        subject(Kind::Pods, &object)
    }

    fn answer(plan: MeasurePlan) -> (u16, Value) {
        let response = plan.render(&summary());
        (response.status.as_u16(), serde_json::from_slice(&response.body.to_bytes()).expect("JSON"))
    }

    #[test]
    fn pods_are_listed_when_all_of_them_is_measured() {
        assert!(pod("1", "Succeeded").is_none());
        let subjects = ["1", "2", "3"].into_iter().filter_map(|uid| pod(uid, "Running")).collect();
        let plan = MeasurePlan { kind: Kind::Pods, subjects, one: None };
        assert_eq!(plan.nodes(), BTreeSet::from(["n"]));
        let (_, list) = answer(plan);
        let expected = json!([{"metadata": {"name": "pod-1", "namespace": "d", "labels": {"a": "b"},
                "creationTimestamp": "2026-01-01T00:00:10Z"},
            "timestamp": "2026-01-01T00:00:10Z", "window": "10.000s",
            "containers": [{"name": "x", "usage": {"cpu": "7n", "memory": "4Ki"}}]}]);
        assert_eq!((&list["kind"], &list["items"]), (&json!("PodMetricsList"), &expected));
    }

    #[test]
    fn one_that_was_not_measured_is_not_found() {
        let plan = |uid: &str| MeasurePlan {
            kind: Kind::Pods,
            subjects: pod(uid, "Running").into_iter().collect(),
            one: Some(Box::new(Response::text(StatusCode::NOT_FOUND, "{}"))),
        };
        assert_eq!(answer(plan("1")).1["kind"], "PodMetrics");
        assert_eq!(answer(plan("3")).0, 404);
    }

    #[test]
    fn nodes_are_measured_as_a_whole() {
        let node = |name: &str| subject(Kind::Nodes, &json!({"metadata": {"name": name}}));
        let subjects = ["n", "away"].into_iter().filter_map(node).collect();
        let (_, list) = answer(MeasurePlan { kind: Kind::Nodes, subjects, one: None });
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(list["items"][0]["usage"], json!({"cpu": "250000000n", "memory": "2048Ki"}));
        assert_eq!(list["items"][0]["timestamp"], "2026-01-01T00:00:10Z");
    }
}
