//! A resource that is served: a part of the program, or what a definition in the cluster says.

use std::ops::Deref;
use std::sync::Arc;

use api::catalogue::Resource;

/// A resource, cheap to keep.
#[derive(Clone)]
pub enum Served {
    /// It is always there.
    Builtin(&'static Resource),
    /// It is there as long as its definition is.
    Custom(Arc<Resource>),
}

// === impl Served ===

impl Deref for Served {
    type Target = Resource;

    fn deref(&self) -> &Resource {
        match self {
            Served::Builtin(resource) => resource,
            Served::Custom(resource) => resource,
        }
    }
}
