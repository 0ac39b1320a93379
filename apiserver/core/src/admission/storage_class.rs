//! The storage class of claims that name none.

use std::cmp::Reverse;

use api::quota::class;
use serde_json::Value;

use crate::call::Call;
use crate::failure::Refused;
use crate::keys;
use crate::object::{self, meta};

const DEFAULT: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Gives a new claim the default class: of several the newest.
pub(super) fn default(call: &Call<'_>, claim: &mut Value) -> Result<(), Refused> {
    if class(claim).is_some() {
        return Ok(());
    }
    let prefix = keys::prefix("storage.k8s.io", "storageclasses");
    let mut defaults = Vec::new();
    for (_, entry) in call.world.snapshot.prefix(prefix.as_bytes()) {
        let class = call.parsed(entry)?;
        let annotations = &class["metadata"]["annotations"];
        if DEFAULT.iter().any(|key| annotations.get(*key).and_then(Value::as_str) == Some("true")) {
            defaults.push(class);
        }
    }
    let order = |class: &Value| {
        (Reverse(meta(class, "creationTimestamp").to_owned()), meta(class, "name").to_owned())
    };
    if let Some(chosen) = defaults.iter().min_by_key(|class| order(class)) {
        object::child(claim, "spec").insert("storageClassName".into(), meta(chosen, "name").into());
    }
    Ok(())
}
