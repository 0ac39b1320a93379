//! Writes as data, shared with every other planner.

pub use client_core::object::{ObjectKey, ResourceType, Target};
pub use client_core::plan::{PatchKind, Precondition, Propagation, Write};
