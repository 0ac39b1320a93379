//! The finalize subresource of namespaces: the controller that emptied one lets it go.

use serde_json::Value;

use crate::aside::Aside;
use crate::body::{self, Expected};
use crate::call::Call;
use crate::failure;
use crate::ids::Ids;
use crate::kinds::Part;
use crate::object::{self, meta};
use crate::prepare::Planned;
use crate::update;

/// PUT of a Namespace: only `spec.finalizers` counts.
pub(crate) fn plan(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let read = body::read(call.request, Expected::of(call.resource))?;
    if meta(&read.object, "name") != call.name() {
        return Err(failure::bad_request("the name of the object does not match the name on the URL").into());
    }
    let (entry, old) = call.stored()?;
    let mut new = old.clone();
    for field in ["resourceVersion", "uid"] {
        object::set(object::meta_mut(&mut new), field, read.object["metadata"][field].clone());
    }
    let finalizers = match object::items(&read.object["spec"]["finalizers"]) {
        [] => Value::Null,
        some => some.to_vec().into(),
    };
    object::set(object::child(&mut new, "spec"), "finalizers", finalizers);
    let old = update::Old { entry, document: old, aside: Aside::default() };
    update::replace(call, ids, old, new, Part::Sub("finalize"), read.warnings)
}
