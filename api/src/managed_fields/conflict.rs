//! Words for fields that another manager owns.

use serde_json::{Map, Value};

use super::{set, shape, text};
use crate::status::Status;

/// A field that an apply would take from its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as messages name it.
    pub owner: String,
    /// The path: `.spec.replicas`.
    pub path: String,
}

/// One conflict for each member of `fields`, all of the same owner.
pub(super) fn of(entry: &Map<String, Value>, fields: &Map<String, Value>) -> Vec<Conflict> {
    let owner = owner(entry);
    let mut conflicts = Vec::new();
    set::each_member(fields, &mut Vec::new(), &mut |path| {
        let path = path.iter().map(|element| shape::shown(element)).collect();
        conflicts.push(Conflict { owner: owner.clone(), path });
    });
    conflicts
}

fn owner(entry: &Map<String, Value>) -> String {
    let mut owner = format!("{:?}", text(entry, "manager"));
    if !text(entry, "subresource").is_empty() {
        owner.push_str(&format!(" with subresource {:?}", text(entry, "subresource")));
    }
    if text(entry, "operation") == "Update" {
        owner.push_str(&format!(" using {}", text(entry, "apiVersion")));
    }
    owner
}

/// 409: the fields are owned by others, each named with its owner.
pub(super) fn status(conflicts: &[Conflict]) -> Status {
    let mut status = Status::apply_conflict(message(conflicts));
    for conflict in conflicts {
        let message = format!("conflict with {}", conflict.owner);
        status = status.with_cause("FieldManagerConflict", message, &conflict.path);
    }
    status
}

fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.owner, only.path);
    }
    let mut owners: Vec<&str> = conflicts.iter().map(|conflict| conflict.owner.as_str()).collect();
    owners.sort_unstable();
    owners.dedup();
    let mut lines = Vec::new();
    for owner in owners {
        lines.push(format!("conflicts with {owner}:"));
        let of_owner = conflicts.iter().filter(|conflict| conflict.owner == owner);
        lines.extend(of_owner.map(|conflict| format!("- {}", conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
