//! Checks what all objects have: names, labels, annotations, owners, finalizers.

use serde_json::Value;

use super::{Errors, Path, entries, given, labels, list, text};
use crate::catalogue::Resource;
use crate::name;

/// Annotations of one object, keys and values together.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;
const IMMUTABLE: &str = "field is immutable";

pub fn check(resource: &Resource, object: &Value, errors: &mut Errors) {
    let root = Path::root("metadata");
    let metadata = &object["metadata"];
    match text(&metadata["name"]) {
        "" => errors.required(&root.field("name"), "name or generateName is required"),
        name => errors.reasons(&root.field("name"), name, name_reasons(resource, name)),
    }
    if resource.namespaced() {
        match text(&metadata["namespace"]) {
            "" => errors.required(&root.field("namespace"), ""),
            namespace => errors.reasons(&root.field("namespace"), namespace, name::dns1123_label(namespace)),
        }
    } else if given(&metadata["namespace"]) {
        errors.forbidden(&root.field("namespace"), "not allowed on this type");
    }
    labels::check(&metadata["labels"], &root.field("labels"), errors);
    check_annotations(&metadata["annotations"], &root.field("annotations"), errors);
    check_owners(&metadata["ownerReferences"], &root.field("ownerReferences"), errors);
    for (index, finalizer) in list(&metadata["finalizers"]).iter().enumerate() {
        let path = root.field("finalizers");
        let finalizer = text(finalizer);
        errors.reasons(&path.index(index), finalizer, name::qualified_name(finalizer));
    }
}

/// What of the metadata must not change.
pub fn check_update(new: &Value, old: &Value, errors: &mut Errors) {
    let root = Path::root("metadata");
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (new, old) = (&new["metadata"][field], &old["metadata"][field]);
        if new != old {
            errors.invalid(&root.field(field), new.clone(), IMMUTABLE);
        }
    }
    if old["metadata"]["deletionTimestamp"].is_string() {
        let before = list(&old["metadata"]["finalizers"]);
        let added: Vec<&str> = list(&new["metadata"]["finalizers"])
            .iter()
            .filter(|one| !before.contains(one))
            .map(text)
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.forbidden(&root.field("finalizers"), detail);
        }
    }
}

fn name_reasons(resource: &Resource, value: &str) -> Vec<String> {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("rbac.authorization.k8s.io" | "apiregistration.k8s.io", _)
        | ("networking.k8s.io", "IPAddress")
        | ("certificates.k8s.io", "ClusterTrustBundle") => name::path_segment(value),
        ("", "Namespace") => name::dns1123_label(value),
        ("", "Service") => name::dns1035_label(value),
        _ => name::dns1123_subdomain(value),
    }
}

fn check_annotations(annotations: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in entries(annotations) {
        // Keys of annotations may have capitals in their prefix.
        errors.reasons(path, key, name::qualified_name(&key.to_ascii_lowercase()));
        size += key.len() + text(value).len();
    }
    if size > ANNOTATIONS_BYTES_MAX {
        errors.add(crate::field::FieldError::too_long(path.to_string(), ANNOTATIONS_BYTES_MAX));
    }
}

fn check_owners(owners: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut controller: Option<&str> = None;
    for (index, owner) in list(owners).iter().enumerate() {
        let place = path.index(index);
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(&owner[field]).is_empty() {
                errors.invalid(&place.field(field), "", format!("{field} must not be empty"));
            }
        }
        if owner["controller"] == true {
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    text(&owner["name"])
                );
                errors.invalid(path, owners.clone(), detail);
            }
            controller = Some(text(&owner["name"]));
        }
    }
}
