//! Checks what extends the server: webhooks, admission policies, custom resources, aggregated APIs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, Path, given, labels, list, structural, text};
use crate::definition::Approval;
use crate::field::FieldError;
use crate::{name, policy};

const TIMEOUT_MAX: i64 = 30;
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

pub fn check_webhooks(object: &Value, errors: &mut Errors) {
    let root = Path::root("webhooks");
    let mut seen = BTreeSet::new();
    for (at, webhook) in list(&object["webhooks"]).iter().enumerate() {
        let place = root.index(at);
        check_webhook(webhook, &place, errors);
        let own = text(&webhook["name"]);
        if !own.is_empty() && !seen.insert(own) {
            errors.duplicate(&place.field("name"), own);
        }
    }
}

fn check_webhook(webhook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let own = text(&webhook["name"]);
    let place = path.field("name");
    if own.is_empty() {
        errors.required(&place, "");
    } else {
        errors.reasons(&place, own, name::dns1123_subdomain(own));
        if own.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.invalid(&place, own, detail);
        }
    }
    check_rules(&webhook["rules"], &path.field("rules"), errors);
    errors.optional_one_of(&path.field("failurePolicy"), &webhook["failurePolicy"], &["Fail", "Ignore"]);
    errors.optional_one_of(&path.field("matchPolicy"), &webhook["matchPolicy"], &["Equivalent", "Exact"]);
    errors.optional_one_of(
        &path.field("reinvocationPolicy"),
        &webhook["reinvocationPolicy"],
        &["IfNeeded", "Never"],
    );
    match text(&webhook["sideEffects"]) {
        "" => {
            errors.required(&path.field("sideEffects"), "must specify one of None, NoneOnDryRun");
        }
        _ => errors.one_of(&path.field("sideEffects"), &webhook["sideEffects"], &["None", "NoneOnDryRun"]),
    }
    if let Some(seconds) = webhook["timeoutSeconds"].as_i64()
        && !(1..=TIMEOUT_MAX).contains(&seconds)
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.field("timeoutSeconds"), seconds, detail);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        labels::check_selector(&webhook[field], &path.field(field), errors);
    }
    let versions = list(&webhook["admissionReviewVersions"]);
    let place = path.field("admissionReviewVersions");
    if versions.is_empty() {
        errors.required(&place, "must specify one of v1, v1beta1");
    } else if !versions.iter().any(|version| matches!(text(version), "v1" | "v1beta1")) {
        let detail = "must include at least one of v1, v1beta1";
        errors.invalid(&place, webhook["admissionReviewVersions"].clone(), detail);
    }
    check_client(&webhook["clientConfig"], &path.field("clientConfig"), errors);
    check_conditions(&webhook["matchConditions"], &path.field("matchConditions"), errors);
}

fn check_client(client: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (client["url"].is_string(), client["service"].is_object()) {
        (true, false) => {
            let url = text(&client["url"]);
            let place = path.field("url");
            match url.strip_prefix("https://") {
                None => {
                    let detail =
                        "'https' is the only allowed URL scheme; desired format: https://host[/path]";
                    errors.invalid(&place, url, detail);
                }
                Some("") => {
                    let detail = "host must be specified; desired format: https://host[/path]";
                    errors.invalid(&place, "", detail);
                }
                Some(_) => {}
            }
        }
        (false, true) => {
            let place = path.field("service");
            for (field, detail) in
                [("name", "service name is required"), ("namespace", "service namespace is required")]
            {
                if text(&client["service"][field]).is_empty() {
                    errors.required(&place.field(field), detail);
                }
            }
            errors.port(&place.field("port"), &client["service"]["port"]);
        }
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn check_rules(rules: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (at, rule) in list(rules).iter().enumerate() {
        let place = path.index(at);
        let operations = place.field("operations");
        let asked = list(&rule["operations"]);
        if asked.is_empty() {
            errors.required(&operations, "");
        }
        if asked.len() > 1 && asked.iter().any(|one| one == "*") {
            let detail = "if '*' is present, must not specify other operations";
            errors.invalid(&operations, rule["operations"].clone(), detail);
        }
        for (at, operation) in asked.iter().enumerate() {
            errors.one_of(&operations.index(at), operation, OPERATIONS);
        }
        for field in ["apiGroups", "apiVersions", "resources"] {
            let values = list(&rule[field]);
            if values.is_empty() {
                errors.required(&place.field(field), "");
            }
            if field != "resources" && values.len() > 1 && values.iter().any(|one| one == "*") {
                let what = if field == "apiGroups" { "API groups" } else { "API versions" };
                let detail = format!("if '*' is present, must not specify other {what}");
                errors.invalid(&place.field(field), rule[field].clone(), detail);
            }
        }
        errors.optional_one_of(&place.field("scope"), &rule["scope"], &["*", "Cluster", "Namespaced"]);
    }
}

fn check_conditions(conditions: &Value, path: &Path<'_>, errors: &mut Errors) {
    const CONDITIONS_MAX: usize = 64;
    let conditions = list(conditions);
    if conditions.len() > CONDITIONS_MAX {
        errors.add(FieldError::too_many(path.to_string(), conditions.len(), CONDITIONS_MAX));
    }
    let mut seen = BTreeSet::new();
    for (at, condition) in conditions.iter().enumerate() {
        let place = path.index(at);
        if text(&condition["expression"]).trim().is_empty() {
            errors.required(&place.field("expression"), "");
        }
        match text(&condition["name"]) {
            "" => errors.required(&place.field("name"), ""),
            own if !seen.insert(own) => errors.duplicate(&place.field("name"), own),
            own => errors.reasons(&place.field("name"), own, name::qualified_name(own)),
        }
    }
}

fn check_constraints(resources: &Value, path: &Path<'_>, required: bool, errors: &mut Errors) {
    for field in ["resourceRules", "excludeResourceRules"] {
        check_rules(&resources[field], &path.field(field), errors);
    }
    if required && list(&resources["resourceRules"]).is_empty() {
        errors.required(&path.field("resourceRules"), "");
    }
    for field in ["namespaceSelector", "objectSelector"] {
        labels::check_selector(&resources[field], &path.field(field), errors);
    }
    errors.optional_one_of(&path.field("matchPolicy"), &resources["matchPolicy"], &["Equivalent", "Exact"]);
}

fn check_policy(spec: &Value, root: &Path<'_>, errors: &mut Errors) {
    let kind = &spec["paramKind"];
    if !kind.is_null() {
        for field in ["apiVersion", "kind"] {
            if text(&kind[field]).is_empty() {
                errors.required(&root.field("paramKind").field(field), "");
            }
        }
    }
    let place = root.field("matchConstraints");
    if spec["matchConstraints"].is_null() {
        errors.required(&place, "");
    } else {
        check_constraints(&spec["matchConstraints"], &place, true, errors);
    }
    check_conditions(&spec["matchConditions"], &root.field("matchConditions"), errors);
    errors.optional_one_of(&root.field("failurePolicy"), &spec["failurePolicy"], &["Fail", "Ignore"]);
    let place = root.field("variables");
    for (at, variable) in list(&spec["variables"]).iter().enumerate() {
        for field in ["name", "expression"] {
            if text(&variable[field]).trim().is_empty() {
                errors.required(&place.index(at).field(field), "");
            }
        }
    }
}

pub fn check_validating_policy(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    check_policy(spec, &root, errors);
    let place = root.field("validations");
    if !given(&spec["validations"]) && !given(&spec["auditAnnotations"]) {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.required(&place, detail);
    }
    for (at, validation) in list(&spec["validations"]).iter().enumerate() {
        let place = place.index(at);
        if text(&validation["expression"]).trim().is_empty() {
            errors.required(&place.field("expression"), "expression is not specified");
        }
        errors.optional_one_of(
            &place.field("reason"),
            &validation["reason"],
            &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"],
        );
    }
    let place = root.field("auditAnnotations");
    for (at, annotation) in list(&spec["auditAnnotations"]).iter().enumerate() {
        for (field, detail) in [("key", ""), ("valueExpression", "valueExpression is not specified")] {
            if text(&annotation[field]).trim().is_empty() {
                errors.required(&place.index(at).field(field), detail);
            }
        }
    }
    policy::errors(spec).into_iter().for_each(|error| errors.add(error));
}

pub fn check_mutating_policy(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    check_policy(spec, &root, errors);
    errors.one_of(&root.field("reinvocationPolicy"), &spec["reinvocationPolicy"], &["IfNeeded", "Never"]);
    let place = root.field("mutations");
    if !given(&spec["mutations"]) {
        errors.required(&place, "mutations must contain at least one item");
    }
    for (at, mutation) in list(&spec["mutations"]).iter().enumerate() {
        let place = place.index(at);
        let source = match text(&mutation["patchType"]) {
            "ApplyConfiguration" => "applyConfiguration",
            "JSONPatch" => "jsonPatch",
            _ => {
                let accepted = &["ApplyConfiguration", "JSONPatch"];
                errors.one_of(&place.field("patchType"), &mutation["patchType"], accepted);
                continue;
            }
        };
        if text(&mutation[source]["expression"]).trim().is_empty() {
            errors.required(&place.field(source).field("expression"), "");
        }
    }
    policy::errors(spec).into_iter().for_each(|error| errors.add(error));
}

pub fn check_policy_binding(object: &Value, validating: bool, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    match text(&spec["policyName"]) {
        "" => errors.required(&root.field("policyName"), ""),
        policy => errors.reasons(&root.field("policyName"), policy, name::dns1123_subdomain(policy)),
    }
    let (parameters, place) = (&spec["paramRef"], root.field("paramRef"));
    if !parameters.is_null() {
        match (given(&parameters["name"]), parameters["selector"].is_null()) {
            (false, true) => errors.required(&place, "one of name or selector must be specified"),
            (true, false) => {
                let detail = "name and selector are mutually exclusive";
                errors.forbidden(&place.field("name"), detail);
            }
            _ => {}
        }
        let accepted = &["Allow", "Deny"];
        let action = &parameters["parameterNotFoundAction"];
        errors.one_of(&place.field("parameterNotFoundAction"), action, accepted);
    }
    check_constraints(&spec["matchResources"], &root.field("matchResources"), false, errors);
    if !validating {
        return;
    }
    let (actions, place) = (list(&spec["validationActions"]), root.field("validationActions"));
    if actions.is_empty() {
        errors.required(&place, "at least one validation action is required");
    }
    for (at, action) in actions.iter().enumerate() {
        errors.one_of(&place.index(at), action, &["Audit", "Deny", "Warn"]);
        if actions[..at].contains(action) {
            errors.duplicate(&place.index(at), action.clone());
        }
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(&place, spec["validationActions"].clone(), detail);
    }
}

pub fn check_definition(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let own = text(&object["metadata"]["name"]);
    if own != format!("{plural}.{group}") {
        errors.invalid(&Path::root("metadata.name"), own, "must be spec.names.plural+\".\"+spec.group");
    }
    let place = root.field("group");
    if group.is_empty() {
        errors.required(&place, "");
    } else {
        errors.reasons(&place, group, name::dns1123_subdomain(group));
        if !group.contains('.') {
            errors.invalid(&place, group, "should be a domain with at least one dot");
        }
    }
    errors.one_of(&root.field("scope"), &spec["scope"], &["Cluster", "Namespaced"]);
    check_names(&spec["names"], &root.field("names"), errors);
    check_versions(spec, &root, errors);
    let (conversion, place) = (&spec["conversion"], root.field("conversion"));
    errors.one_of(&place.field("strategy"), &conversion["strategy"], &["None", "Webhook"]);
    let webhook = place.field("webhook");
    match (text(&conversion["strategy"]), conversion["webhook"].is_object()) {
        ("Webhook", false) => {
            errors.required(&webhook.field("clientConfig"), "required when strategy is set to Webhook");
        }
        ("Webhook", true) => {
            check_client(&conversion["webhook"]["clientConfig"], &webhook.field("clientConfig"), errors);
            let versions = &conversion["webhook"]["conversionReviewVersions"];
            let place = webhook.field("conversionReviewVersions");
            if !given(versions) {
                errors.required(&place, "");
            } else if !list(versions).iter().any(|version| matches!(text(version), "v1" | "v1beta1")) {
                errors.invalid(&place, versions.clone(), "must include at least one of v1, v1beta1");
            }
        }
        ("None", true) => errors.forbidden(&webhook, "should not be set when strategy is not set to Webhook"),
        _ => {}
    }
    if spec["preserveUnknownFields"] == true {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&root.field("preserveUnknownFields"), true, detail);
    }
}

fn check_names(names: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let value = text(&names[field]);
        match value {
            "" => errors.required(&path.field(field), ""),
            value => errors.reasons(&path.field(field), value, name::dns1035_label(&value.to_lowercase())),
        }
    }
    for (at, short) in list(&names["shortNames"]).iter().enumerate() {
        let value = text(short);
        errors.reasons(&path.field("shortNames").index(at), value, name::dns1035_label(value));
    }
    if given(&names["kind"]) && names["kind"] == names["listKind"] {
        let detail = "kind and listKind may not be the same";
        errors.invalid(&path.field("listKind"), names["listKind"].clone(), detail);
    }
}

fn check_versions(spec: &Value, root: &Path<'_>, errors: &mut Errors) {
    let (versions, place) = (list(&spec["versions"]), root.field("versions"));
    // A schema that all versions share is spoken of as one.
    let first = versions.first().map_or(&Value::Null, |version| &version["schema"]["openAPIV3Schema"]);
    let shared = versions.iter().all(|version| version["schema"]["openAPIV3Schema"] == *first);
    if shared && !first.is_null() {
        structural::check(first, &root.field("validation").field("openAPIV3Schema"), errors);
    }
    let mut seen = BTreeSet::new();
    for (at, version) in versions.iter().enumerate() {
        let place = place.index(at);
        let own = text(&version["name"]);
        errors.reasons(&place.field("name"), own, name::dns1035_label(own));
        if !seen.insert(own) {
            errors.invalid(&place.field("name"), own, "must be unique");
        }
        let at = place.field("schema");
        let (schema, at) = (&version["schema"]["openAPIV3Schema"], at.field("openAPIV3Schema"));
        if schema.is_null() {
            errors.required(&at, "schemas are required");
        } else if !shared {
            structural::check(schema, &at, errors);
        }
        for (index, column) in list(&version["additionalPrinterColumns"]).iter().enumerate() {
            let place = place.field("additionalPrinterColumns");
            let place = place.index(index);
            for field in ["name", "jsonPath"] {
                if text(&column[field]).is_empty() {
                    errors.required(&place.field(field), "");
                }
            }
            let types = &["boolean", "date", "integer", "number", "string"];
            errors.one_of(&place.field("type"), &column["type"], types);
        }
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.invalid(&place, spec["versions"].clone(), detail);
    }
    if !versions.iter().any(|version| version["served"] == true) {
        let detail = "must have at least one version marked as served";
        errors.invalid(&place, spec["versions"].clone(), detail);
    }
}

/// A definition in a group of Kubernetes says whether it was approved. One that does not, and is there, may stay so.
pub fn check_approval(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let approval = Approval::of(new);
    if old.is_none_or(|old| Approval::of(old) != approval)
        && let Some(fault) = approval.fault()
    {
        errors.add(fault);
    }
}

/// What a definition must keep while objects may be stored by it.
pub fn check_definition_update(new: &Value, old: &Value, errors: &mut Errors) {
    let mut same = |path: &str, now: &Value, before: &Value| {
        if now != before {
            errors.invalid(&Path::root(path), now.clone(), "field is immutable");
        }
    };
    let (now, before) = (&new["spec"], &old["spec"]);
    same("spec.group", &now["group"], &before["group"]);
    same("spec.names.plural", &now["names"]["plural"], &before["names"]["plural"]);
    let conditions = list(&old["status"]["conditions"]);
    if conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True") {
        same("spec.scope", &now["scope"], &before["scope"]);
        same("spec.names.kind", &now["names"]["kind"], &before["names"]["kind"]);
    }
    check_approval(new, Some(old), errors);
    let versions = list(&now["versions"]);
    for (at, stored) in list(&new["status"]["storedVersions"]).iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let place = Path::root("status.storedVersions");
            let detail = format!(
                "missing from spec.versions; {} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {} and removes {} from status.storedVersions",
                text(stored),
                text(stored),
                text(stored)
            );
            errors.invalid(&place.index(at), stored.clone(), detail);
        }
    }
}

pub fn check_api_service(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    let own = text(&object["metadata"]["name"]);
    let (group, version) = (text(&spec["group"]), text(&spec["version"]));
    if own != format!("{version}.{group}") {
        let detail = "must be `spec.version+\".\"+spec.group`";
        errors.invalid(&Path::root("metadata.name"), own, detail);
    }
    if group.is_empty() && version != "v1" {
        errors.required(&root.field("group"), "only v1 may have an empty group and it better be legacy kube");
    } else if !group.is_empty() {
        errors.reasons(&root.field("group"), group, name::dns1123_subdomain(group));
    }
    errors.reasons(&root.field("version"), version, name::dns1035_label(version));
    for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let value = spec[field].as_i64().unwrap_or(0);
        if !(1..=most).contains(&value) {
            let detail = format!("must be positive and less than {most}");
            errors.invalid(&root.field(field), value, detail);
        }
    }
    let bundle = given(&spec["caBundle"]);
    if spec["service"].is_null() {
        if bundle {
            errors.invalid(&root.field("caBundle"), "<bytes>", "local APIServices may not have a caBundle");
        }
        if spec["insecureSkipTLSVerify"] == true {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid(&root.field("insecureSkipTLSVerify"), true, detail);
        }
        return;
    }
    for field in ["namespace", "name"] {
        if text(&spec["service"][field]).is_empty() {
            errors.required(&root.field("service").field(field), "");
        }
    }
    errors.port(&root.field("service").field("port"), &spec["service"]["port"]);
    if bundle && spec["insecureSkipTLSVerify"] == true {
        let detail = "may not be true if caBundle is present";
        errors.invalid(&root.field("insecureSkipTLSVerify"), true, detail);
    }
}
