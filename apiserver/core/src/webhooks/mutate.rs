//! Mutating webhooks: asked one after the other, each may patch what the one before has left.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::validate::allowed;
use super::{Answered, Hook, Scene, Write, ask, review};
use crate::ask::Fault;
use crate::call::Call;
use crate::failure::{self, Refused};
use crate::prepare::{Planned, Stop};

/// What happens to an object between webhooks.
pub(crate) struct Between<'b> {
    /// After each patch: the object is read as if it had been sent so.
    pub renewed: &'b dyn Fn(&mut Value) -> Result<(), Refused>,
    /// Once after all, if any of them changed it: what the cluster itself adds to such objects.
    pub admitted: &'b mut dyn FnMut(&mut Value) -> Result<(), Refused>,
}

/// Puts a write before the mutating webhooks; whether they changed its object.
///
/// When one of them did, those that were asked before it and wish so (`reinvocationPolicy: IfNeeded`) are asked once more.
pub(crate) fn mutate(call: &Call<'_>, write: &mut Write, between: &mut Between<'_>) -> Planned<bool> {
    let hooks = call.world.derived.hooks();
    if hooks.mutating.is_empty() {
        return Ok(false);
    }
    let scene = Scene::of(call);
    // Those that may be asked again: whether something has changed since they were asked.
    let mut again: Vec<(&Hook, bool)> = Vec::new();
    let mut changed = false;
    for hook in hooks.mutating() {
        let Some(patched) = one(call, write, hook, &scene, between)? else { continue };
        if patched {
            again.iter_mut().for_each(|(_, due)| *due = true);
            changed = true;
        }
        if hook.is_reinvoked {
            again.push((hook, false));
        }
    }
    if !changed {
        return Ok(false);
    }
    let left = write.object.clone();
    (between.admitted)(&mut write.object)?;
    let moved_on = write.object != left;
    for at in 0..again.len() {
        let (hook, due) = again[at];
        if (due || moved_on) && one(call, write, hook, &scene, between)? == Some(true) {
            // Those that come after it are asked again too, if they are among those.
            again.iter_mut().skip(at + 1).for_each(|(_, due)| *due = true);
        }
    }
    Ok(true)
}

/// Puts a write before one webhook. `None`: it does not concern it; otherwise whether it changed the object.
fn one(
    call: &Call<'_>,
    write: &mut Write,
    hook: &Hook,
    scene: &Scene,
    between: &mut Between<'_>,
) -> Planned<Option<bool>> {
    let Some(matched) = hook.wanted(call, write, scene)? else { return Ok(None) };
    hook.check_dry_run(call, write)?;
    let (object, old) = review::seen_as(call, write, &matched)?;
    let asked = hook.question(call, write, &matched, (&object, &old));
    let response = match hook.answered(call, &asked) {
        Answered::Open(question) => {
            ask(vec![question])?;
            return Ok(None);
        }
        Answered::Known(Err(fault)) => return hook.missed(&fault).map(|()| Some(false)),
        Answered::Known(Ok(response)) => response,
    };
    let patch = match patch(response) {
        Ok(patch) => patch,
        Err(fault) => return hook.missed(&fault).map(|()| Some(false)),
    };
    allowed(hook, response)?;
    let Some(patch) = patch else { return Ok(Some(false)) };
    let patched = apply(hook, object.clone(), &patch)?;
    if patched == object {
        return Ok(Some(false));
    }
    write.object = review::back(call, &matched, patched)?;
    (between.renewed)(&mut write.object)?;
    Ok(Some(true))
}

/// The patch in a response, if it has operations.
fn patch(response: &Value) -> Result<Option<Value>, Fault> {
    let patch = response["patch"].as_str().unwrap_or_default();
    let kind = &response["patchType"];
    match (patch.is_empty(), kind.is_null()) {
        (true, true) => return Ok(None),
        (false, true) => {
            let why = "webhook returned response.patch but not response.patchType";
            return Err(Fault::Response(why.to_owned()));
        }
        (true, false) => {
            let why = "webhook returned response.patchType but not response.patch";
            return Err(Fault::Response(why.to_owned()));
        }
        (false, false) => {}
    }
    match kind.as_str() {
        Some("JSONPatch") => {}
        Some("") | None => {
            let why = format!("webhook returned invalid response.patchType of {kind}");
            return Err(Fault::Response(why));
        }
        Some(other) => return Err(Fault::Response(format!("unsupported patch type {other:?}"))),
    }
    let undecodable =
        |error: String| Fault::Response(format!("received undecodable patch in webhook response: {error}"));
    let bytes = BASE64.decode(patch).map_err(|error| undecodable(error.to_string()))?;
    let patch: Value = serde_json::from_slice(&bytes).map_err(|error| undecodable(error.to_string()))?;
    Ok(Some(patch).filter(|patch| patch.as_array().is_none_or(|operations| !operations.is_empty())))
}

fn apply(hook: &Hook, mut object: Value, patch: &Value) -> Result<Value, Stop> {
    if object.is_null() {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        );
        return Err(failure::internal(&why).into());
    }
    match api::patch::json(&mut object, patch) {
        Ok(()) => Ok(object),
        Err(error) => Err(failure::internal(&error.to_string()).into()),
    }
}
