//! Checks roles and bindings.

use serde_json::Value;

use super::{Errors, Path, list, text};
use crate::catalogue::Resource;
use crate::field::FieldError;
use crate::name;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn check_role(resource: &Resource, object: &Value, errors: &mut Errors) {
    let rules = Path::root("rules");
    for (index, rule) in list(&object["rules"]).iter().enumerate() {
        let place = rules.index(index);
        if list(&rule["verbs"]).is_empty() {
            errors.required(&place.field("verbs"), "verbs must contain at least one value");
        }
        if !list(&rule["nonResourceURLs"]).is_empty() {
            let urls = place.field("nonResourceURLs");
            if resource.namespaced() {
                errors.invalid(
                    &urls,
                    rule["nonResourceURLs"].clone(),
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if !list(&rule["apiGroups"]).is_empty()
                || !list(&rule["resources"]).is_empty()
                || !list(&rule["resourceNames"]).is_empty()
            {
                errors.invalid(
                    &urls,
                    rule["nonResourceURLs"].clone(),
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if list(&rule["apiGroups"]).is_empty() {
            errors.required(&place.field("apiGroups"), "resource rules must supply at least one api group");
        }
        if list(&rule["resources"]).is_empty() {
            errors.required(&place.field("resources"), "resource rules must supply at least one resource");
        }
    }
}

pub fn check_binding(resource: &Resource, object: &Value, errors: &mut Errors) {
    let place = Path::root("roleRef");
    let role = &object["roleRef"];
    let not_supported = |path: &Path<'_>, value: &Value, accepted: &[&str]| {
        FieldError::not_supported(path.to_string(), value.clone(), accepted)
    };
    if text(&role["apiGroup"]) != GROUP {
        errors.add(not_supported(&place.field("apiGroup"), &role["apiGroup"], &[GROUP]));
    }
    let kinds: &[&str] = if resource.namespaced() { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(&role["kind"])) {
        errors.add(not_supported(&place.field("kind"), &role["kind"], kinds));
    }
    match text(&role["name"]) {
        "" => errors.required(&place.field("name"), ""),
        name => errors.reasons(&place.field("name"), name, name::path_segment(name)),
    }
    let subjects = Path::root("subjects");
    for (index, subject) in list(&object["subjects"]).iter().enumerate() {
        let place = subjects.index(index);
        if text(&subject["name"]).is_empty() {
            errors.required(&place.field("name"), "");
        }
        match text(&subject["kind"]) {
            "ServiceAccount" => {
                let name = text(&subject["name"]);
                if !name.is_empty() {
                    errors.reasons(&place.field("name"), name, name::dns1123_subdomain(name));
                }
                if !text(&subject["apiGroup"]).is_empty() {
                    errors.add(not_supported(&place.field("apiGroup"), &subject["apiGroup"], &[""]));
                }
                if text(&subject["namespace"]).is_empty() && !resource.namespaced() {
                    errors.required(&place.field("namespace"), "");
                }
            }
            "User" | "Group" => {
                if text(&subject["apiGroup"]) != GROUP {
                    errors.add(not_supported(&place.field("apiGroup"), &subject["apiGroup"], &[GROUP]));
                }
            }
            _ => errors.add(not_supported(
                &place.field("kind"),
                &subject["kind"],
                &["Group", "ServiceAccount", "User"],
            )),
        }
    }
}
