//! `/openapi/v2` and `/openapi/v3`: made when first asked for, kept compressed.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
};

use api::{catalogue::Catalogue, openapi, schema};
use apiserver_core::{Body, Config, Response as CoreResponse, failure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::compress;

/// The media type of OpenAPI v2 in protobuf, as answers name it: the form with an `@`, which old clients ask for, is not
/// one that they can read.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What both forms have in common.
const V2_PROTOBUF_PART: &str = "proto-openapi.spec.v2";

/// The documents that were asked for.
#[derive(Default)]
pub(crate) struct Documents(Mutex<BTreeMap<String, Arc<Document>>>);

struct Document {
    content_type: &'static str,
    packed: Bytes,
    etag: String,
}

/// Whether the path is one of these documents.
pub(crate) fn is_openapi(path: &str) -> bool {
    path.starts_with("/openapi/")
}

// === impl Documents ===

impl Documents {
    /// The answer to a path. Takes long the first time.
    pub(crate) fn answer(&self, config: &Config, path: &str, headers: &HeaderMap) -> CoreResponse {
        let path = path.trim_end_matches('/');
        let accepts = |part: &str| {
            let values = headers.get_all(header::ACCEPT);
            values.iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(part))
        };
        if path == "/openapi/v3" {
            return index(config);
        }
        let as_protobuf = path == "/openapi/v2" && accepts(V2_PROTOBUF_PART);
        let key = if as_protobuf { "/openapi/v2 protobuf" } else { path };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let document = match known {
            Some(document) => document,
            None => {
                let Some(document) = make(config, path, as_protobuf) else { return *failure::no_such_path() };
                let document = Arc::new(document);
                let mut documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                documents.insert(key.to_owned(), document.clone());
                document
            }
        };
        document.response(headers)
    }
}

/// The documents of v3, each with a hash that is another one when the document may be.
fn index(config: &Config) -> CoreResponse {
    let paths: Vec<String> = v3_paths().map(|(path, ..)| path).collect();
    let hash = |path: &String| {
        openapi::hash(format!("{}+{} {path}", config.kubernetes_version, config.program_version).as_bytes())
    };
    let hashes: Vec<String> = paths.iter().map(hash).collect();
    let documents = paths.iter().map(String::as_str).zip(hashes.iter().map(String::as_str));
    CoreResponse::document(StatusCode::OK, &openapi::v3_index(documents))
}

/// (path, group, version) of all documents of v3.
fn v3_paths() -> impl Iterator<Item = (String, String, String)> {
    Catalogue::builtin().groups().iter().flat_map(|group| {
        let name = group.name.to_string();
        let versions: Vec<String> = group.versions.iter().map(ToString::to_string).collect();
        versions.into_iter().map(move |version| (openapi::v3_path(&name, &version), name.clone(), version))
    })
}

fn make(config: &Config, path: &str, as_protobuf: bool) -> Option<Document> {
    let (schemas, catalogue) = (schema::builtin(), Catalogue::builtin());
    let version = format!("v{}", config.kubernetes_version);
    let (content_type, bytes) = match path.strip_prefix("/openapi/v3/") {
        Some(wanted) => {
            let (_, group, of) = v3_paths().find(|(path, ..)| path == wanted)?;
            (
                "application/json",
                schemas.openapi_v3(catalogue, &group, &of, &version).to_string().into_bytes(),
            )
        }
        None if path == "/openapi/v2" => {
            let document = schemas.openapi_v2(catalogue, &version);
            match as_protobuf {
                true => (V2_PROTOBUF, openapi::encode_v2(&document)),
                false => ("application/json", document.to_string().into_bytes()),
            }
        }
        None => return None,
    };
    let etag = format!("\"{}\"", openapi::hash(&bytes));
    let packed = compress::gzip(&Body::One(bytes.into()))?;
    Some(Document { content_type, packed, etag })
}

// === impl Document ===

impl Document {
    fn response(&self, headers: &HeaderMap) -> CoreResponse {
        let fresh =
            headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == self.etag.as_bytes());
        let mut response = CoreResponse {
            status: if fresh { StatusCode::NOT_MODIFIED } else { StatusCode::OK },
            content_type: self.content_type,
            headers: vec![(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"))],
            body: Body::One(Bytes::new()),
        };
        response.headers.extend(HeaderValue::from_str(&self.etag).ok().map(|etag| (header::ETAG, etag)));
        if fresh {
            return response;
        }
        if compress::accepts_gzip(headers) {
            response.headers.push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            response.body = Body::One(self.packed.clone());
            return response;
        }
        let mut plain = Vec::new();
        match flate2::read::GzDecoder::new(&self.packed[..]).read_to_end(&mut plain) {
            Ok(_) => response.body = Body::One(plain.into()),
            Err(error) => return *failure::internal(&error.to_string()),
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use apiserver_core::authn::jwt::SigningKey;

    use super::*;

    #[test]
    fn every_document_of_the_index_exists_and_is_known_again() {
        let config = Config::new(SigningKey::from_seed(&[7; 32]).expect("a key"));
        let documents = Documents::default();
        let get = |path: &str, headers: &HeaderMap| documents.answer(&config, path, headers);
        let index: serde_json::Value =
            serde_json::from_slice(&get("/openapi/v3", &HeaderMap::new()).body.to_bytes()).expect("JSON");
        let paths = index["paths"].as_object().expect("paths");
        assert!(paths.contains_key("apis/apps/v1") && paths.contains_key("api/v1"), "{index}");
        let apps = get("/openapi/v3/apis/apps/v1", &HeaderMap::new());
        let parsed: serde_json::Value = serde_json::from_slice(&apps.body.to_bytes()).expect("JSON");
        assert_eq!(parsed["openapi"], "3.0.0");
        let (_, etag) = apps.headers.iter().find(|(name, _)| name == header::ETAG).expect("an ETag");
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, etag.clone());
        assert_eq!(get("/openapi/v3/apis/apps/v1", &headers).status, StatusCode::NOT_MODIFIED);
        assert_eq!(get("/openapi/v3/apis/nonsense/v1", &headers).status, StatusCode::NOT_FOUND);
    }
}
