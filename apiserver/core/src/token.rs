//! TokenRequest: a service account's token, bound to what uses it, for a while.

use api::field::FieldError;
use api::schema;
use api::status::{ResourceName, Status};
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::admission::Passing;
use crate::body::{self, Expected};
use crate::call::Call;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::object::{self, meta};
use crate::prepare::Planned;
use crate::response::{Prepared, Response};
use crate::{admission, create, keys};

const MIN_SECONDS: i64 = 600;
const DEFAULT_SECONDS: i64 = 3600;
const MAX_SECONDS: i64 = 1 << 32;

/// POST of a TokenRequest.
pub(crate) fn plan(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let schema = schema::builtin().type_of("authentication.k8s.io", "v1", "TokenRequest").unwrap_or_default();
    let expected = Expected {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        schemas: schema::builtin(),
        schema,
    };
    let mut request = body::read(call.request, expected)?.object;
    object::child(&mut request, "spec").entry("expirationSeconds").or_insert(DEFAULT_SECONDS.into());
    let passing = Passing::created(call.name(), expected);
    passing.mutate(call, &mut request)?;
    let (_, account) = call.stored()?;
    complete(call, &mut request);
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    check_seconds(seconds)?;
    let warnings = passing.validate(call, &request)?;
    let mut private = json!({
        "namespace": call.namespace(),
        "serviceaccount": {"name": call.name(), "uid": meta(&account, "uid")},
    });
    let reference = request["spec"]["boundObjectRef"].clone();
    bind(call, &reference, &mut private)?;
    admission::node_token(call, &reference, &private)?;
    let key =
        call.world.config.signing_keys.first().ok_or_else(|| failure::internal("no key signs tokens"))?;
    let issued = call.now.as_second();
    let token = key.sign(&json!({
        "iss": call.world.config.issuer,
        "sub": format!("system:serviceaccount:{}:{}", call.namespace(), call.name()),
        "aud": request["spec"]["audiences"],
        "exp": issued + seconds,
        "iat": issued,
        "nbf": issued,
        "jti": ids.uid(),
        "kubernetes.io": private,
    }));
    let end = call.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(call.now);
    request["status"] = json!({"token": token, "expirationTimestamp": api::time::format(end)});
    let headers = create::warnings_headers(&warnings);
    Ok(Prepared::Respond(Response { headers, ..Response::document(StatusCode::CREATED, &request) }))
}

/// What a request need not say.
fn complete(call: &Call<'_>, request: &mut Value) {
    let metadata = object::meta_mut(request);
    metadata.insert("name".into(), call.name().into());
    metadata.insert("namespace".into(), call.namespace().into());
    metadata.insert("creationTimestamp".into(), api::time::format(call.now).into());
    let spec = object::child(request, "spec");
    if spec.get("audiences").is_none_or(|audiences| object::items(audiences).is_empty()) {
        spec.insert("audiences".into(), json!(call.world.config.audiences));
    }
    object::map_of(request).remove("status");
}

fn check_seconds(seconds: i64) -> Result<(), Refused> {
    let why = match seconds {
        s if s < MIN_SECONDS => "may not specify a duration less than 10 minutes",
        s if s > MAX_SECONDS => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, why);
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]).into())
}

/// Looks up the object that the token is bound to and notes it in the claims.
fn bind(call: &Call<'_>, reference: &Value, private: &mut Value) -> Result<(), Refused> {
    if !reference.is_object() {
        return Ok(());
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (plural, claim, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1" | "", "Pod") => ("pods", "pod", call.namespace()),
        ("v1" | "", "Secret") => ("secrets", "secret", call.namespace()),
        ("v1" | "", "Node") => ("nodes", "node", ""),
        (version, kind) => {
            return Err(failure::bad_request(&format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    };
    let about = ResourceName { group: "", resource: plural };
    let found = call.world.snapshot.get(&keys::object("", plural, namespace, text("name")));
    let bound = call.parsed(found.ok_or_else(|| Status::not_found(about, text("name")))?)?;
    let uid = meta(&bound, "uid");
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(about, text("name"), why).into());
    }
    if plural == "pods" {
        if bound["spec"]["serviceAccountName"].as_str() != Some(call.name()) {
            return Err(failure::bad_request(&format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                call.name()
            )));
        }
        note_node(call, &bound, private);
    }
    private[claim] = json!({"name": text("name"), "uid": uid});
    Ok(())
}

/// A token bound to a pod also names the pod's node.
fn note_node(call: &Call<'_>, pod: &Value, private: &mut Value) {
    let Some(name) = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty()) else { return };
    let entry = call.world.snapshot.get(&keys::object("", "nodes", "", name));
    let uid = entry.and_then(|entry| crate::scan::text(&entry.value, &["metadata", "uid"]));
    let mut node = json!({"name": name});
    if let Some(uid) = uid {
        node["uid"] = uid.into();
    }
    private["node"] = node;
}
