//! `/openapi/v2` and `/openapi/v3`: made when first asked for, kept compressed until a definition changes what they show.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
};

use api::{
    catalogue::{Catalogue, Resource},
    openapi, schema,
};
use apiserver_core::customs::Customs;
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
    /// The revision of the definitions that it shows; 0 where it shows none.
    shows: u64,
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
    pub(crate) fn answer(
        &self,
        config: &Config,
        customs: &Customs,
        path: &str,
        headers: &HeaderMap,
    ) -> CoreResponse {
        let path = path.trim_end_matches('/');
        let accepts = |part: &str| {
            let values = headers.get_all(header::ACCEPT);
            values.iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(part))
        };
        if path == "/openapi/v3" {
            return index(config, customs);
        }
        let as_protobuf = path == "/openapi/v2" && accepts(V2_PROTOBUF_PART);
        let key = if as_protobuf { "/openapi/v2 protobuf" } else { path };
        let shows = shown(customs, path);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let document = match known.filter(|known| known.shows == shows) {
            Some(document) => document,
            None => {
                let Some(document) = make(config, customs, path, as_protobuf) else {
                    return *failure::no_such_path();
                };
                let document = Arc::new(document);
                let mut documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                documents.insert(key.to_owned(), document.clone());
                document
            }
        };
        document.response(headers)
    }
}

/// The revision of the definitions that a document shows; 0 where it shows none.
fn shown(customs: &Customs, path: &str) -> u64 {
    let any = match path.strip_prefix("/openapi/v3/") {
        Some(wanted) => {
            customs.resources().any(|resource| openapi::v3_path(&resource.group, &resource.version) == wanted)
        }
        None => customs.resources().next().is_some(),
    };
    if any { customs.revision() } else { 0 }
}

/// The documents of v3, each with a hash that is another one when the document may be.
fn index(config: &Config, customs: &Customs) -> CoreResponse {
    let paths: Vec<String> = v3_paths(customs).map(|(path, ..)| path).collect();
    let hash = |path: &String| {
        let shows = shown(customs, &format!("/openapi/v3/{path}"));
        let (served, program) = (&config.kubernetes_version, &config.program_version);
        openapi::hash(format!("{served}+{program} {shows} {path}").as_bytes())
    };
    let hashes: Vec<String> = paths.iter().map(hash).collect();
    let documents = paths.iter().map(String::as_str).zip(hashes.iter().map(String::as_str));
    CoreResponse::document(StatusCode::OK, &openapi::v3_index(documents))
}

/// (path, group, version) of all documents of v3.
fn v3_paths(customs: &Customs) -> impl Iterator<Item = (String, String, String)> {
    customs.groups().into_iter().flat_map(|group| {
        let name = group.name.to_string();
        let versions: Vec<String> = group.versions.iter().map(ToString::to_string).collect();
        versions.into_iter().map(move |version| (openapi::v3_path(&name, &version), name.clone(), version))
    })
}

fn make(config: &Config, customs: &Customs, path: &str, as_protobuf: bool) -> Option<Document> {
    let (schemas, catalogue) = (schema::builtin(), Catalogue::builtin());
    let version = format!("v{}", config.kubernetes_version);
    let (content_type, bytes) = match path.strip_prefix("/openapi/v3/") {
        Some(wanted) => {
            let (_, group, of) = v3_paths(customs).find(|(path, ..)| path == wanted)?;
            let resources: Vec<&Resource> =
                catalogue.of_version(&group, &of).chain(customs.of_version(&group, &of)).collect();
            ("application/json", schemas.openapi_v3(&resources, &version).to_string().into_bytes())
        }
        None if path == "/openapi/v2" => {
            let document = schemas.openapi_v2(catalogue, &customs.resources().collect::<Vec<_>>(), &version);
            match as_protobuf {
                true => (V2_PROTOBUF, openapi::encode_v2(&document)),
                false => ("application/json", document.to_string().into_bytes()),
            }
        }
        None => return None,
    };
    let etag = format!("\"{}\"", openapi::hash(&bytes));
    let packed = compress::gzip(&Body::One(bytes.into()))?;
    Some(Document { shows: shown(customs, path), content_type, packed, etag })
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
        let config = Config::new(vec![SigningKey::from_seed(&[7; 32]).expect("a key")]);
        let documents = Documents::default();
        let get =
            |path: &str, headers: &HeaderMap| documents.answer(&config, &Customs::default(), path, headers);
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

    #[test]
    fn documents_follow_the_definitions() {
        let config = Config::new(vec![SigningKey::from_seed(&[7; 32]).expect("a key")]);
        let documents = Documents::default();
        let get = |customs: &Customs, path: &str| {
            documents.answer(&config, customs, path, &HeaderMap::new()).body.to_bytes()
        };
        let definition = |color: &str| {
            let definition = serde_json::json!({
                "metadata": {"name": "widgets.example.com"},
                "spec": {"group": "example.com", "scope": "Cluster", "versions": [{"name": "v1", "served": true,
                    "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                        "properties": {color: {"type": "string"}}}}}]},
                "status": {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"],
                    "acceptedNames": {"plural": "widgets", "kind": "Widget", "listKind": "WidgetList"}}});
            Bytes::from(definition.to_string())
        };
        let key = Bytes::from("widgets");
        let (mut customs, path) = (Customs::default(), "/openapi/v3/apis/example.com/v1");
        customs.put(&key, &definition("red"), None, 1);
        let (index, first) = (get(&customs, "/openapi/v3"), get(&customs, path));
        assert!(String::from_utf8_lossy(&first).contains("\"red\""));
        assert!(String::from_utf8_lossy(&get(&customs, "/openapi/v2")).contains("com.example.v1.Widget"));
        customs.put(&key, &definition("blue"), Some(&definition("red")), 2);
        assert_ne!(get(&customs, "/openapi/v3"), index);
        assert!(String::from_utf8_lossy(&get(&customs, path)).contains("\"blue\""));
        customs.remove(&key, 3);
        assert!(!String::from_utf8_lossy(&get(&customs, "/openapi/v3")).contains("example.com"));
        assert!(!String::from_utf8_lossy(&get(&customs, "/openapi/v2")).contains("com.example.v1.Widget"));
    }
}
