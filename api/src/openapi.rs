//! The published schemas: OpenAPI v2 and v3, generated from the table and the catalogue.
//!
//! Documents are large and seldom asked for: nothing of them is kept here.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    catalogue::{Catalogue, Resource},
    schema::{Schemas, TypeId},
};

mod custom;
mod definitions;
mod gnostic;
mod paths;

pub use gnostic::encode_v2;

/// The media type under which old clients ask for OpenAPI v2.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The media type of the answer to that: it differs in one letter, which must not be an `@` here.
pub const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Which specification a document follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

// === impl Dialect ===

impl Dialect {
    fn reference(self, name: &str) -> String {
        match self {
            Dialect::V2 => format!("#/definitions/{name}"),
            Dialect::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// The key of a group and version in the v3 index: `api/v1`, `apis/apps/v1`.
pub fn v3_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// The hash by which clients know a document again.
pub fn hash(document: &[u8]) -> String {
    Sha256::digest(document).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The index at `/openapi/v3`, from each document's key and hash.
pub fn v3_index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let paths: Map<String, Value> = documents
        .into_iter()
        .map(|(path, hash)| {
            (path.to_owned(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
        })
        .collect();
    json!({"paths": paths})
}

// === impl Schemas ===

impl Schemas {
    /// The whole API as OpenAPI v2, with the given custom resources.
    pub fn openapi_v2(&self, catalogue: &Catalogue, custom: &[&Resource], version: &str) -> Value {
        let resources: Vec<&Resource> = catalogue.resources().chain(custom.iter().copied()).collect();
        let (definitions, paths) = self.contents(&resources, Dialect::V2);
        json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": version},
            "paths": paths,
            "definitions": definitions,
        })
    }

    /// The resources of one group and version as OpenAPI v3.
    pub fn openapi_v3(&self, resources: &[&Resource], version: &str) -> Value {
        let (schemas, paths) = self.contents(resources, Dialect::V3);
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": version},
            "paths": paths,
            "components": {"schemas": schemas},
        })
    }

    fn contents(&self, resources: &[&Resource], dialect: Dialect) -> (Value, Value) {
        let mut roots: BTreeSet<TypeId> = BTreeSet::new();
        for resource in resources {
            match &resource.custom {
                None => drop(roots.insert(resource.schema)),
                Some(_) => roots.extend(self.by_name("meta.v1.ObjectMeta")),
            }
            roots.extend(resource.subresources.iter().filter_map(|subresource| subresource.schema));
        }
        for shared in ["meta.v1.DeleteOptions", "meta.v1.Status", "meta.v1.ListMeta"] {
            roots.extend(self.by_name(shared));
        }
        let definitions = definitions::all(self, resources, &roots, dialect);
        (definitions, paths::all(self, resources, dialect))
    }
}

#[cfg(test)]
mod tests;
