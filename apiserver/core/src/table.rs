//! Tables: what `kubectl get` prints, made on the server.

use api::catalogue::Resource;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{object, output};

/// What a table's rows carry of their objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// Everything.
    Object,
}

// === impl Include ===

impl Include {
    /// Reads the parameter `includeObject`.
    pub fn parse(value: Option<&str>) -> Include {
        match value {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        }
    }
}

/// The table of some stored objects.
pub fn render(resource: &Resource, items: &[Bytes], meta: &Value, include: Include, now: Timestamp) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .filter_map(|stored| {
            let document = object::parse(stored)?;
            let mut row = crate::kinds::row(resource, &document, now);
            match include {
                Include::None => {}
                Include::Metadata => {
                    row["object"] = object::parse(&output::partial(stored)).unwrap_or_default()
                }
                Include::Object => row["object"] = document,
            }
            Some(row)
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": crate::kinds::columns(resource), "rows": rows})
}
