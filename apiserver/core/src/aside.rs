//! Objects of which only a part is read: what a request cannot change stays the bytes that it is.

use bytes::Bytes;
use serde_json::{Map, Value};
use store_core::{Entry, Value as Stored};

use crate::call::Call;
use crate::object;
use crate::{policies, scan, webhooks};

/// Members of a stored object that were not read, in order of their names. Empty for an object that was read whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aside {
    stored: Bytes,
    /// Name and range of the value.
    members: Vec<(String, std::ops::Range<usize>)>,
}

/// Members that are read.
const READ: &[&str] = &["apiVersion", "kind", "metadata", "status"];

// === impl Aside ===

impl Aside {
    /// Reads of a stored object what a patch of its status can change, and leaves the rest aside.
    ///
    /// `None` when the whole object has to be read: the rest matters, or the patch is more than an ordinary one.
    pub fn of_status_patch(call: &Call<'_>, patch: &Value, entry: &Entry) -> Option<(Value, Aside)> {
        let ordinary = call.subresource() == "status"
            && call.resource.stored_as.is_none()
            // The schema of a custom resource may demand what was left aside.
            && call.resource.custom.is_none()
            // The finalizers of a namespace are not among its metadata.
            && !call.is("", "namespaces")
            && !call.options().dry_run
            // Policies and webhooks are shown whole objects.
            && !policies::validates(call)
            && !policies::mutates(call)
            && !webhooks::any(call)
            && patch.as_object().is_some_and(changes_status_only);
        if !ordinary {
            return None;
        }
        let (document, aside) = Aside::split(&entry.value)?;
        // What is being deleted may end with this very write, and is then shown whole.
        (!object::is_terminating(&document)).then_some((document, aside))
    }

    fn split(stored: &Bytes) -> Option<(Value, Aside)> {
        let mut document = Map::new();
        let mut members = Vec::new();
        for (name, range) in scan::members(stored) {
            if READ.contains(&&*name) {
                document.insert(name.into_owned(), serde_json::from_slice(&stored[range]).ok()?);
            } else {
                members.push((name.into_owned(), range));
            }
        }
        document
            .contains_key("metadata")
            .then(|| (Value::Object(document), Aside { stored: stored.clone(), members }))
    }

    /// The bytes to store of a document and what was left aside of it.
    pub fn encode(&self, document: &mut Value) -> Stored {
        let members: Vec<_> =
            self.members.iter().map(|(name, range)| (name.as_str(), &self.stored[range.clone()])).collect();
        object::encode_with(document, &members)
    }
}

/// Whether a merge patch touches nothing but the status and ordinary metadata.
fn changes_status_only(patch: &Map<String, Value>) -> bool {
    patch.iter().all(|(name, value)| match name.as_str() {
        "status" => true,
        "metadata" => value.as_object().is_some_and(|metadata| !metadata.contains_key("managedFields")),
        _ => false,
    })
}
