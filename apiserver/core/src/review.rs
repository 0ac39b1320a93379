//! Reviews: questions about identity and permission, answered and forgotten.

use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::Passing;
use crate::authz::rbac::Rule;
use crate::authz::{self, Attributes, Decision};
use crate::body::{self, Expected};
use crate::call::Call;
use crate::failure::{self, Refused};
use crate::object::{self, items};
use crate::prepare::Planned;
use crate::response::{Prepared, Response};
use crate::user::{MASTERS, User};
use crate::{authn, create};

/// POST of a review.
pub(crate) fn plan(call: &Call<'_>) -> Planned {
    let mut review = body::read(call.request, Expected::of(call.resource))?.object;
    if call.resource.namespaced() {
        create::place(call, &mut review)?;
    }
    Passing::created("", Expected::of(call.resource)).pass(call, &mut review)?;
    let status = match &*call.resource.plural {
        "selfsubjectreviews" => json!({"userInfo": user_info(call.user)}),
        "tokenreviews" => token(call, &review),
        "selfsubjectrulesreviews" => rules(call, &review)?,
        "selfsubjectaccessreviews" => access(call, call.user, &review["spec"])?,
        "localsubjectaccessreviews" => {
            if review["spec"]["resourceAttributes"]["namespace"].as_str() != Some(call.namespace()) {
                return Err(failure::bad_request(
                    "spec.resourceAttributes.namespace must match metadata.namespace",
                )
                .into());
            }
            access(call, &subject(&review["spec"]), &review["spec"])?
        }
        _ => access(call, &subject(&review["spec"]), &review["spec"])?,
    };
    object::meta_mut(&mut review).insert("creationTimestamp".into(), Value::Null);
    review["status"] = status;
    Ok(Prepared::Respond(Response::document(StatusCode::CREATED, &review)))
}

pub(crate) fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn token(call: &Call<'_>, review: &Value) -> Value {
    let config = call.world.config;
    let text = review["spec"]["token"].as_str().unwrap_or_default();
    let asked: Vec<String> =
        items(&review["spec"]["audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let audiences = if asked.is_empty() { &config.audiences } else { &asked };
    match authn::verify(call.world.snapshot, config, text, audiences, call.now) {
        Ok((user, shared)) => json!({"authenticated": true, "user": user_info(&user), "audiences": shared}),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    }
}

fn subject(spec: &Value) -> User {
    let mut user = User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        ..User::default()
    };
    user.groups = items(&spec["groups"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    user
}

fn access(call: &Call<'_>, user: &User, spec: &Value) -> Result<Value, Refused> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() == path.is_object() {
        return Err(failure::bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(failure::bad_request("at least one of user or group must be specified"));
    }
    let text = |from: &'_ Value, field: &str| from[field].as_str().unwrap_or_default().to_owned();
    let from = if resource.is_object() { resource } else { path };
    let fields =
        ["verb", "group", "resource", "subresource", "namespace", "name", "path"].map(|f| text(from, f));
    let [verb, group, plural, subresource, namespace, name, url] = &fields;
    let attributes = Attributes {
        verb,
        is_resource: resource.is_object(),
        group,
        resource: plural,
        subresource,
        namespace,
        name,
        path: url,
        field_selector: "",
    };
    Ok(match authz::authorize(&call.world, user, &attributes) {
        Decision::Allow(reason) => with_reason(json!({"allowed": true}), reason),
        Decision::NoOpinion(reason) => with_reason(json!({"allowed": false}), reason),
    })
}

fn with_reason(mut status: Value, reason: String) -> Value {
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

fn rules(call: &Call<'_>, review: &Value) -> Result<Value, Refused> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(failure::bad_request("no namespace on request"));
    }
    let mut found = call.world.derived.rules().rules_of(call.user, namespace);
    if call.user.in_group(MASTERS) {
        let all = || vec!["*".to_owned()];
        found.push(Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
        found.push(Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() });
    }
    let of_resources: Vec<Value> = found
        .iter()
        .filter(|rule| !rule.resources.is_empty())
        .map(|rule| {
            let mut shown =
                json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                shown["resourceNames"] = json!(rule.resource_names);
            }
            shown
        })
        .collect();
    let of_paths: Vec<Value> = found
        .iter()
        .filter(|rule| !rule.non_resource_urls.is_empty())
        .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
        .collect();
    Ok(
        json!({"resourceRules": of_resources, "nonResourceRules": of_paths, "incomplete": call.user.node().is_some()}),
    )
}
