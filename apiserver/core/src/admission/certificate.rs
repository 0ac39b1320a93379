//! Requests for certificates: who asks is written down, and who may grant is asked.

use serde_json::{Value, json};

use super::CERTIFICATES;
use crate::authz::{self, Attributes};
use crate::call::Call;
use crate::failure::Refused;
use crate::kinds::Part;
use crate::object;

/// Writes down who asks.
pub(super) fn requested_by(call: &Call<'_>, new: &mut Value) {
    let user = call.user;
    let spec = object::child(new, "spec");
    spec.insert("username".into(), user.name.as_str().into());
    spec.insert("groups".into(), json!(user.groups));
    object::set(spec, "uid", if user.uid.is_empty() { Value::Null } else { user.uid.as_str().into() });
    object::set(spec, "extra", if user.extra.is_empty() { Value::Null } else { json!(user.extra) });
}

/// Granting and signing need a right for the signer besides that for the object.
pub(super) fn update(call: &Call<'_>, new: &Value, old: &Value, part: Part) -> Result<(), Refused> {
    let (now, before) = (&new["status"], &old["status"]);
    match part {
        Part::Sub("approval") => may(call, "approve", old),
        Part::Sub("status") if now["certificate"] != before["certificate"] => may(call, "sign", old),
        _ => Ok(()),
    }
}

fn may(call: &Call<'_>, verb: &str, request: &Value) -> Result<(), Refused> {
    let signer = request["spec"]["signerName"].as_str().unwrap_or_default();
    let wildcard = signer.split_once('/').map_or_else(String::new, |(domain, _)| format!("{domain}/*"));
    let asked = |name| Attributes {
        verb,
        is_resource: true,
        group: CERTIFICATES,
        resource: "signers",
        name,
        ..Attributes::default()
    };
    let allowed = [signer, wildcard.as_str()]
        .into_iter()
        .any(|name| authz::check(&call.world, call.user, &asked(name)).is_ok());
    match allowed {
        true => Ok(()),
        false => {
            let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
            Err(call.forbidden(call.name(), why))
        }
    }
}
