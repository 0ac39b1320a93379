//! The parameters of a policy: the objects that its bindings name.

use api::selector::LabelSelector;
use serde_json::Value;

use super::{Binding, Policy};
use crate::call::Call;
use crate::{keys, object};

/// The parameters for which a policy is evaluated, one after the other. Null stands for none: of a policy that has no parameters, or
/// a binding that names none.
///
/// An error says why there are none where there should be, in the words of Kubernetes.
pub(super) fn collect(call: &Call<'_>, policy: &Policy, binding: &Binding) -> Result<Vec<Value>, String> {
    let (kind, reference) = (&policy.spec["paramKind"], &binding.spec["paramRef"]);
    if kind.is_null() || reference.is_null() {
        return Ok(vec![Value::Null]);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&kind["apiVersion"]), text(&kind["kind"]));
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    let mut resources = call.world.of_version(group, version);
    let unknown = || {
        let at = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        format!("failed to find resource referenced by paramKind: '{at}, Kind={kind}'")
    };
    let resource =
        resources.find(|resource| *resource.kind == *kind && resource.stored).ok_or_else(unknown)?;
    let mut namespace = text(&reference["namespace"]);
    match (resource.namespaced(), namespace.is_empty()) {
        (true, true) => namespace = call.namespace().to_owned(),
        (false, false) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        _ => {}
    }
    if resource.namespaced() && namespace.is_empty() {
        return Err(
            "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into()
        );
    }
    let group = resource.storage_group();
    let snapshot = call.world.snapshot;
    let found: Vec<Value> = match reference["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => {
            let entry = snapshot.get(&keys::object(group, &resource.plural, &namespace, name));
            entry.and_then(|entry| object::parse(&entry.value)).into_iter().collect()
        }
        None => {
            let selector = LabelSelector::from_object(&reference["selector"])
                .map_err(|fault| format!("invalid paramRef.selector: {fault}"))?;
            let prefix = keys::namespace_prefix(group, &resource.plural, &namespace);
            let entries = snapshot.prefix(prefix.as_bytes());
            let objects = entries.filter_map(|(_, entry)| object::parse(&entry.value));
            objects.filter(|object| selector.matches(&object["metadata"]["labels"])).collect()
        }
    };
    if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}
