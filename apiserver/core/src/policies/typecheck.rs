//! What is likely to be wrong with a validating policy: its expressions, held against the types of the objects that it names. It is
//! told in the status of the policy, and refuses nothing.

use std::sync::Arc;

use api::catalogue::Resource;
use api::cel::{self, Declared};
use api::policy::{Kinds, compile};
use serde_json::{Value, json};

use crate::admission::matching::Constraints;
use crate::call::Call;
use crate::object;

const GROUP: &str = "admissionregistration.k8s.io";
const PLURAL: &str = "validatingadmissionpolicies";
/// So many types are looked at.
const MAX_TYPES: usize = 10;

/// Says in the status of a policy that is written what is likely to be wrong with it. `old` is what it was before.
pub(crate) fn settle(call: &Call<'_>, new: &mut Value, old: Option<&Value>) {
    if !call.is(GROUP, PLURAL) {
        return;
    }
    if old.is_some_and(|old| old["spec"] == new["spec"] && old["status"].is_object()) {
        return;
    }
    let warnings = warnings(call, &new["spec"]);
    let generation = new["metadata"]["generation"].as_i64().unwrap_or(1);
    let checked = match warnings.is_empty() {
        true => json!({}),
        false => json!({"expressionWarnings": warnings}),
    };
    let status = object::child(new, "status");
    status.insert("observedGeneration".into(), generation.into());
    status.insert("typeChecking".into(), checked);
}

fn warnings(call: &Call<'_>, spec: &Value) -> Vec<Value> {
    let constraints = Constraints::read(&spec["matchConstraints"], "resourceRules");
    let served = constraints
        .named()
        .into_iter()
        .filter_map(|(group, version, plural)| call.world.resource(&group, &version, &plural));
    let params = param_type(call, spec);
    // A field, and what each type says of it.
    let mut found: Vec<(String, String)> = Vec::new();
    for resource in served.take(MAX_TYPES) {
        let Some(object) = declared(&resource) else { continue };
        let kinds = Kinds { object: Some(object), params: params.clone() };
        let (_, faults) = compile(spec, &kinds);
        for fault in faults.into_iter().filter(|fault| fault.path.starts_with("spec.validations")) {
            let Some(detail) = fault.detail.strip_prefix("compilation failed: ") else { continue };
            let line = format!("{}, Kind={}: {detail}\n", versioned(&resource), resource.kind);
            match found.iter_mut().find(|(path, _)| *path == fault.path) {
                Some((_, said)) => *said = format!("{said}\n{line}"),
                None => found.push((fault.path, line)),
            }
        }
    }
    found.into_iter().map(|(path, warning)| json!({"fieldRef": path, "warning": warning})).collect()
}

/// Group and version as Go prints them: `/v1` of the core.
fn versioned(resource: &Resource) -> String {
    format!("{}/{}", resource.group, resource.version)
}

fn param_type(call: &Call<'_>, spec: &Value) -> Option<Arc<Declared>> {
    let text = |field: &str| spec["paramKind"][field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let mut resources = call.world.of_version(group, version);
    declared(resources.find(|resource| resource.kind == text("kind"))?)
}

fn declared(resource: &Resource) -> Option<Arc<Declared>> {
    cel::of_resource(resource).map(Arc::new)
}
