//! Validating webhooks: all are asked at once, and each can refuse.

use api::status::Status;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answered, Hook, Scene, Write, ask, review};
use crate::call::Call;
use crate::failure::{self, Refused};
use crate::prepare::Planned;
use crate::response::Response;

/// Puts a write before the validating webhooks.
pub(crate) fn validate(call: &Call<'_>, write: &Write) -> Planned<()> {
    let hooks = call.world.derived.hooks();
    if hooks.validating.is_empty() {
        return Ok(());
    }
    let scene = Scene::of(call);
    let (mut open, mut refusal) = (Vec::new(), None);
    for hook in hooks.validating() {
        let Some(matched) = hook.wanted(call, write, &scene)? else { continue };
        hook.check_dry_run(call, write)?;
        let (object, old) = review::seen_as(call, write, &matched)?;
        let asked = hook.question(call, write, &matched, (&object, &old));
        match hook.answered(call, &asked) {
            Answered::Open(question) => open.push(question),
            Answered::Known(Err(fault)) if refusal.is_none() => refusal = hook.missed(&fault).err(),
            Answered::Known(Ok(response)) if refusal.is_none() => {
                refusal = match patched(response) {
                    Some(why) => hook.missed(&crate::ask::Fault::Response(why.to_owned())).err(),
                    None => allowed(hook, response).err().map(Into::into),
                }
            }
            Answered::Known(_) => {}
        }
    }
    // The first refusal in the order of the webhooks is told, whichever came first.
    ask(open)?;
    refusal.map_or(Ok(()), Err)
}

/// What is wrong with a response that changes what it may only look at.
fn patched(response: &Value) -> Option<&'static str> {
    let is_set = |field: &str| response.get(field).is_some_and(|value| !value.is_null());
    match () {
        () if is_set("patch") => Some("validating webhook may not return response.patch"),
        () if is_set("patchType") => Some("validating webhook may not return response.patchType"),
        () => None,
    }
}

/// Whether a response lets the write go on; else the refusal in the webhook's own words.
pub(super) fn allowed(hook: &Hook, response: &Value) -> Result<(), Refused> {
    if response["allowed"] == true {
        return Ok(());
    }
    let status = &response["status"];
    let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
    let denied = format!("admission webhook {:?} denied the request", hook.name);
    let message = match text("message").or(text("reason")) {
        Some(why) => format!("{denied}: {why}"),
        None => format!("{denied} without explanation"),
    };
    // A refusal is one, whatever it calls itself.
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let code = code.unwrap_or(StatusCode::BAD_REQUEST.as_u16());
    let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "code": code});
    for field in ["reason", "details"] {
        if !status[field].is_null() {
            body[field] = status[field].clone();
        }
    }
    match StatusCode::from_u16(code) {
        Ok(code) => Err(Box::new(Response::document(code, &body))),
        Err(_) => Err(failure::response(&Status::internal(message)).into()),
    }
}
