//! Streams and proxied requests before the policies: what they are opened with, as the object of a `CONNECT`.

use serde_json::Value;

use super::{Write, validate, validates};
use crate::admission::matching::Operation;
use crate::call::Call;
use crate::failure::Refused;
use crate::stream::options;

/// Holds the opening of a stream against the validating policies. Nobody can be warned: a stream has no place for it.
///
/// # Errors
///
/// The refusal of a policy.
pub(crate) fn connect(call: &Call<'_>, name: &str) -> Result<(), Refused> {
    if !validates(call) || call.subresource() == "log" {
        return Ok(());
    }
    let object = options::of_request(call);
    let write = Write { operation: Operation::Connect, name, object: &object, old: &Value::Null };
    validate(call, &write).map(drop)
}
