//! The request of an `AdmissionReview`: what a webhook is told of a write.

use api::catalogue::Resource;
use api::conversion;
use serde_json::Value;

use super::Write;
use crate::admission::request::{self, Spoken};
use crate::call::Call;
use crate::convert;
use crate::prepare::Stop;

/// Object and old object of a write in the version of `matched`, another version of the request's resource.
///
/// Kinds of subresources, as `Scale`, have one version only.
pub(super) fn seen_as(call: &Call<'_>, write: &Write, matched: &Resource) -> Result<(Value, Value), Stop> {
    let seen = |object: &Value| match object.is_null() || !is_other(call, matched) {
        true => Ok(object.clone()),
        false => between(call, call.resource, matched, object),
    };
    Ok((seen(&write.object)?, seen(&write.old)?))
}

/// An object that a webhook has changed, back in the version of the request.
pub(super) fn back(call: &Call<'_>, matched: &Resource, object: Value) -> Result<Value, Stop> {
    match is_other(call, matched) {
        true => between(call, matched, call.resource, &object),
        false => Ok(object),
    }
}

/// Whether objects have another form in the version of `matched` than in that of the request.
fn is_other(call: &Call<'_>, matched: &Resource) -> bool {
    Spoken::of(call, call.resource).is_own && matched.api_version() != call.resource.api_version()
}

fn between(call: &Call<'_>, from: &Resource, to: &Resource, object: &Value) -> Result<Value, Stop> {
    if convert::by_webhook(from) {
        return convert::one(call, to, object);
    }
    let mut object = object.clone();
    conversion::to_stored(from, &mut object);
    conversion::from_stored(to, &mut object);
    // What is stored in the version that is wanted is named as it.
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".to_owned(), to.api_version().into_owned().into());
    }
    Ok(object)
}

/// The request, without its uid.
pub(super) fn request(
    call: &Call<'_>,
    write: &Write,
    matched: &Resource,
    (object, old): (&Value, &Value),
) -> Value {
    let mut request = request::described(call, (write.operation, &write.name), matched);
    request.insert("object".to_owned(), object.clone());
    request.insert("oldObject".to_owned(), old.clone());
    Value::Object(request)
}
