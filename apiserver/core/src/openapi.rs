//! OpenAPI, published from the schema table. Documents are made when they are asked for: they are large, and rarely read.

use std::sync::OnceLock;

use api::catalogue::Catalogue;
use api::{openapi, schema};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::config::Config;
use crate::failure::{self, Refused};
use crate::response::Response;

/// Version 2: one document.
pub(crate) fn v2(config: &Config, headers: &HeaderMap) -> Result<Response, Refused> {
    check(headers)?;
    let document = schema::builtin().openapi_v2(Catalogue::builtin(), &version(config));
    Ok(Response::document(StatusCode::OK, &document))
}

/// Version 3: the index of documents.
pub(crate) fn v3_index(config: &Config) -> Value {
    static HASHES: OnceLock<Vec<(String, String)>> = OnceLock::new();
    let hashes = HASHES.get_or_init(|| {
        versions()
            .map(|(group, of_version)| {
                let document = document(config, group, of_version).to_string();
                (openapi::v3_path(group, of_version), openapi::hash(document.as_bytes()))
            })
            .collect()
    });
    openapi::v3_index(hashes.iter().map(|(path, hash)| (path.as_str(), hash.as_str())))
}

/// Version 3: the document of one group and version, by its path (`apis/apps/v1`).
pub(crate) fn v3(config: &Config, headers: &HeaderMap, path: &str) -> Result<Response, Refused> {
    check(headers)?;
    let found = versions().find(|(group, of_version)| openapi::v3_path(group, of_version) == path);
    let (group, of_version) = found.ok_or_else(failure::no_such_path)?;
    Ok(Response::document(StatusCode::OK, &document(config, group, of_version)))
}

fn versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let groups = Catalogue::builtin().groups().iter();
    groups.flat_map(|group| group.versions.iter().map(|version| (&*group.name, &**version)))
}

fn document(config: &Config, group: &str, of_version: &str) -> Value {
    schema::builtin().openapi_v3(Catalogue::builtin(), group, of_version, &version(config))
}

fn version(config: &Config) -> String {
    format!("v{}+orlop", config.kubernetes_version)
}

/// Clients that take nothing but protobuf are told so.
fn check(headers: &HeaderMap) -> Result<(), Refused> {
    let accept = headers.get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    let json = accept.is_empty() || accept.contains("json") || accept.contains('*');
    if json { Ok(()) } else { Err(failure::not_acceptable("application/json")) }
}
