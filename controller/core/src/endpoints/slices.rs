//! The EndpointSlices of a Service, with as few changes as possible: an endpoint stays in its slice, and
//! new ones fill the slices that change anyway before others, and new slices last.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use rand::RngCore;
use serde_json::{Value, json};

use super::SliceView;
use super::address::{
    HEADLESS, Port, TRIGGER_TIME, address_of_family, families, hostname, is_headless, is_published, ports,
    publishes_unready, target_ref,
};
use crate::merge::{diff, to_json};
use crate::object::{controller_reference, is_terminating, label, name, namespace, random_name};
use crate::plan::{Plan, Report, create, delete, merge_exact};
use crate::pod::{condition, is_ready, node_name};
use crate::selector::Labels;

/// The most endpoints of one slice.
const CAPACITY: usize = 100;
/// The label that names who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our name there.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The label that names the Service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The endpoints to publish by address family and ports.
type Desired = BTreeMap<(String, Vec<Port>), BTreeMap<String, Wanted>>;

struct Wanted {
    endpoint: Endpoint,
    changed_at: Option<Timestamp>,
}

/// A slice while the plan is made.
struct Draft {
    current: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
    trigger: Option<Timestamp>,
}

/// Plans the slices of a Service.
pub fn plan(view: &SliceView, now: Timestamp, rng: &mut dyn RngCore) -> (Plan, Report) {
    let mut plan = Plan::default();
    if is_terminating(view.service) {
        return (plan, Report::default());
    }
    let labels = labels(view.service);
    let desired = desired(view);
    let mut groups: BTreeMap<(String, Vec<Port>), Vec<Draft>> = BTreeMap::new();
    for slice in &view.slices {
        if label(&slice.metadata, MANAGED_BY) == Some(MANAGER) && !is_terminating(&**slice) {
            let draft = Draft {
                endpoints: slice.endpoints.clone().unwrap_or_default(),
                current: Arc::clone(slice),
                changed: false,
                trigger: None,
            };
            groups.entry((slice.address_type.clone(), slice_ports(slice))).or_default().push(draft);
        }
    }
    let (mut creations, mut changes, mut deletions) = (Vec::new(), Vec::new(), Vec::new());
    for (group, wanted) in &desired {
        let drafts = groups.remove(group).unwrap_or_default();
        let (drafts, rest) = fit(drafts, wanted);
        for chunk in rest.chunks(CAPACITY) {
            let trigger = chunk.iter().filter_map(|wanted| wanted.changed_at).min();
            let endpoints: Vec<&Endpoint> = chunk.iter().map(|wanted| &wanted.endpoint).collect();
            creations.push(create::<EndpointSlice>(
                Some(namespace(view.service)),
                document(view.service, group, &labels, &endpoints, trigger, rng),
            ));
        }
        // One slice stays even when it is empty: it says that the Service has no endpoints.
        let keep_placeholder = wanted.is_empty();
        let mut kept = 0;
        for draft in drafts {
            if draft.endpoints.is_empty() && !(keep_placeholder && kept == 0) {
                deletions.push(delete::<EndpointSlice>(&draft.current.metadata));
                continue;
            }
            kept += 1;
            changes.extend(change(view.service, draft, &labels));
        }
        if keep_placeholder && kept == 0 {
            let document = document(view.service, group, &labels, &[], None, rng);
            creations.push(create::<EndpointSlice>(Some(namespace(view.service)), document));
        }
    }
    deletions
        .extend(groups.into_values().flatten().map(|draft| delete::<EndpointSlice>(&draft.current.metadata)));
    let _ = now;
    // New addresses appear before old slices go.
    plan.together(creations);
    plan.together(changes);
    plan.together(deletions);
    (plan, Report::default())
}

fn desired(view: &SliceView) -> Desired {
    let service = view.service;
    let unready_too = publishes_unready(service);
    let mut desired = Desired::new();
    for family in families(service) {
        let mut any = false;
        for pod in view.pods.iter().filter(|pod| is_published(pod)) {
            let Some(address) = address_of_family(pod, &family) else { continue };
            let mut served = ports(service, pod);
            served.sort();
            any = true;
            let wanted = Wanted {
                endpoint: endpoint(view, pod, address, unready_too),
                changed_at: condition(pod, "Ready")
                    .and_then(|ready| Some(ready.last_transition_time.as_ref()?.0)),
            };
            desired.entry((family.clone(), served)).or_default().insert(identity(&wanted.endpoint), wanted);
        }
        if !any {
            desired.insert((family, Vec::new()), BTreeMap::new());
        }
    }
    desired
}

fn endpoint(view: &SliceView, pod: &Pod, address: &str, unready_too: bool) -> Endpoint {
    let (serving, terminating) = (is_ready(pod), is_terminating(pod));
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(unready_too || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, view.service),
        node_name: node_name(pod).map(str::to_owned),
        target_ref: Some(target_ref(pod)),
        zone: node_name(pod).and_then(|node| (view.zone_of)(node)),
        ..Endpoint::default()
    }
}

/// What makes an endpoint the same one although its conditions change.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.join(","))
}

/// Fits the wanted endpoints into the slices there are; returns those that need new slices.
fn fit(mut drafts: Vec<Draft>, wanted: &BTreeMap<String, Wanted>) -> (Vec<Draft>, Vec<&Wanted>) {
    let mut left: BTreeMap<&str, &Wanted> =
        wanted.iter().map(|(key, wanted)| (key.as_str(), wanted)).collect();
    for draft in &mut drafts {
        let before = std::mem::take(&mut draft.endpoints);
        for endpoint in before {
            match left.remove(identity(&endpoint).as_str()) {
                None => draft.changed = true,
                Some(wanted) if wanted.endpoint == endpoint => draft.endpoints.push(endpoint),
                Some(wanted) => draft.put(wanted),
            }
        }
    }
    let mut rest: Vec<&Wanted> = left.into_values().collect();
    rest.reverse();
    // Slices that are written anyway are filled first; then the fullest that takes all the rest.
    for draft in drafts.iter_mut().filter(|draft| draft.changed && !draft.endpoints.is_empty()) {
        draft.fill(&mut rest);
    }
    if !rest.is_empty() {
        let has_room = |draft: &&mut Draft| draft.endpoints.len() + rest.len() <= CAPACITY;
        if let Some(draft) = drafts.iter_mut().filter(has_room).max_by_key(|draft| draft.endpoints.len()) {
            draft.fill(&mut rest);
        }
    }
    rest.reverse();
    (drafts, rest)
}

/// The patch of a slice that changed.
fn change(service: &Service, draft: Draft, labels: &Labels) -> Option<crate::plan::Action> {
    let current = &*draft.current;
    if !draft.changed && current.metadata.labels.as_ref() == Some(labels) && is_owned(service, current) {
        return None;
    }
    let mut next = current.clone();
    next.endpoints = Some(draft.endpoints);
    next.metadata.labels = Some(labels.clone());
    next.metadata.owner_references = Some(vec![controller_reference(service)]);
    if let Some(trigger) = draft.trigger {
        next.metadata.annotations.get_or_insert_default().insert(TRIGGER_TIME.into(), trigger.to_string());
    }
    let mut body = diff(&to_json(current), &to_json(&next))?;
    // An absent list and an empty one are stored alike.
    if let (Some(map), Some([]) | None) = (body.as_object_mut(), next.endpoints.as_deref()) {
        map.insert("endpoints".into(), Value::Array(Vec::new()));
    }
    Some(merge_exact::<EndpointSlice>(&current.metadata, None, body))
}

fn is_owned(service: &Service, slice: &EndpointSlice) -> bool {
    slice.metadata.owner_references.as_deref() == Some(&[controller_reference(service)])
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), name(service).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn document(
    service: &Service,
    (family, served): &(String, Vec<Port>),
    labels: &Labels,
    endpoints: &[&Endpoint],
    trigger: Option<Timestamp>,
    rng: &mut dyn RngCore,
) -> Value {
    let prefix = format!("{}-", name(service));
    let mut annotations = BTreeMap::new();
    if let Some(trigger) = trigger {
        annotations.insert(TRIGGER_TIME, trigger.to_string());
    }
    let ports: Vec<EndpointPort> = served
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(port.number),
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    json!({
        "metadata": {
            "name": random_name(&prefix, rng),
            "generateName": prefix,
            "namespace": namespace(service),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [to_json(&controller_reference(service))],
        },
        "addressType": family,
        "ports": to_json(&ports),
        "endpoints": to_json(&endpoints),
    })
}

fn slice_ports(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            number: port.port.unwrap_or(0),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}

// === impl Draft ===

impl Draft {
    fn put(&mut self, wanted: &Wanted) {
        self.endpoints.push(wanted.endpoint.clone());
        self.changed = true;
        if let Some(at) = wanted.changed_at {
            self.trigger = Some(self.trigger.map_or(at, |earlier| earlier.min(at)));
        }
    }

    fn fill(&mut self, rest: &mut Vec<&Wanted>) {
        while self.endpoints.len() < CAPACITY {
            let Some(wanted) = rest.pop() else { return };
            self.put(wanted);
        }
    }
}
