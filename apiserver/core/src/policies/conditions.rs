//! The `matchConditions` of webhooks: they see what those of policies see, but for the namespace.

use api::catalogue::Resource;
use api::policy::{Compiled, Expression};
use serde_json::Value;

use super::Write;
use super::evaluate::View;
use crate::call::Call;

/// Whether all conditions hold for a write whose objects are in the version of `seen_as`.
///
/// # Errors
///
/// What is wrong with one that comes to nothing, where no other decides.
pub(crate) fn hold(
    call: &Call<'_>,
    write: &Write<'_>,
    seen_as: &Resource,
    conditions: &[Expression],
) -> Result<bool, String> {
    let view = View::of_request(call, write, seen_as);
    let compiled = Compiled::default();
    let held = view.variables(&compiled, &Value::Null).all_hold(conditions);
    held.map_err(|why| format!("match condition failed to evaluate: {why}"))
}
