//! How objects are shown: as they are, as a table, or their metadata only.

use std::borrow::Cow;

use api::conversion;
use api::protobuf::{self, Message};
use api::schema;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::convert;
use crate::negotiate::{Accepted, Encoding, Form};
use crate::object;
use crate::response::{Body, JSON, Response};
use crate::scan;
use crate::served::Served;
use crate::table;
use crate::watch::{Common, frame};

/// The content type of a watch in protobuf.
const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// The form of an answer.
#[derive(Clone)]
pub struct Output {
    form: Form,
    encoding: Encoding,
    /// Objects are stored in another version than they are shown in.
    converted: bool,
    resource: Served,
    include: table::Include,
    now: Timestamp,
}

/// The metadata of a list.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    /// The revision that the list shows.
    pub revision: u64,
    /// Where it goes on.
    pub continue_token: String,
    /// How many objects follow.
    pub remaining: Option<u64>,
}

// === impl ListMeta ===

impl ListMeta {
    fn to_json(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            meta["continue"] = self.continue_token.clone().into();
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        meta
    }
}

// === impl Output ===

impl Output {
    /// The output for a resource as negotiated.
    pub fn new(resource: Served, accepted: Accepted, include: Option<&str>, now: Timestamp) -> Output {
        Output {
            form: accepted.form,
            encoding: accepted.encoding,
            converted: resource.stored_as.is_some(),
            resource,
            include: table::Include::parse(include),
            now,
        }
    }

    /// How lines of a watch are written when they are the same for every watcher that is alike.
    pub fn common(&self) -> Option<Common> {
        if self.converted || matches!(self.form, Form::Table | Form::Partial) {
            return None;
        }
        Some(match self.encoding {
            Encoding::Protobuf => Common::Protobuf,
            Encoding::Json | Encoding::Yaml => Common::Json,
        })
    }

    /// Whether objects are shown as they are stored.
    pub fn is_plain(&self) -> bool {
        !self.converted
            && self.encoding != Encoding::Protobuf
            && !matches!(self.form, Form::Table | Form::Partial)
    }

    /// Whether objects may have to be converted by a webhook before they are given to the output.
    pub fn by_webhook(&self) -> bool {
        // Of metadata all versions have the same.
        convert::by_webhook(&self.resource) && self.form != Form::Partial
    }

    /// Whether that stored object has to be.
    pub fn is_unconverted(&self, stored: &[u8]) -> bool {
        self.by_webhook() && convert::is_needed(&self.resource, stored)
    }

    /// Group, version and plural of what is shown.
    pub fn path(&self) -> (&str, &str, &str) {
        (&self.resource.group, &self.resource.version, &self.resource.plural)
    }

    /// One object.
    pub fn object(&self, status: StatusCode, stored: &Bytes) -> Response {
        let bytes = match self.form {
            Form::Table => self.table(&[stored], &self.meta_of(stored)).to_string().into(),
            _ => self.item(stored),
        };
        self.finish(Response::json(status, bytes))
    }

    /// A list.
    pub fn list(&self, items: &[&Bytes], meta: &ListMeta) -> Response {
        if let Some(response) = self.protobuf_list(items, meta) {
            return response;
        }
        let response = match self.form {
            Form::Table => Response::document(StatusCode::OK, &self.table(items, &meta.to_json())),
            _ => self.joined(items, meta),
        };
        self.finish(response)
    }

    /// A list that is encoded without the detour over its text.
    fn protobuf_list(&self, items: &[&Bytes], meta: &ListMeta) -> Option<Response> {
        if self.encoding != Encoding::Protobuf {
            return None;
        }
        let schemas = schema::builtin();
        let message = match self.form {
            Form::Partial => Message::Partial,
            _ => Message::of_type(schemas, self.resource.schema)?,
        };
        let encoded = items.iter().filter_map(|stored| {
            let mut object = object::parse(stored)?;
            conversion::from_stored(&self.resource, &mut object);
            Some(message.encode(schemas, &object))
        });
        let list = protobuf::list_message(schemas, &meta.to_json(), encoded);
        let (kind, version) = self.list_kind();
        let bytes = protobuf::envelope(&version, &kind, &list);
        Some(Response { content_type: protobuf::MEDIA_TYPE, ..Response::json(StatusCode::OK, bytes) })
    }

    /// One event of a watch about a stored object.
    pub fn event(&self, kind: &str, stored: &Bytes) -> Bytes {
        let object = match self.form {
            Form::Table => self.table(&[stored], &self.meta_of(stored)).to_string().into(),
            _ => self.item(stored),
        };
        self.frame(kind, &object)
    }

    /// One event of a watch about a document.
    pub fn frame(&self, kind: &str, document: &[u8]) -> Bytes {
        match self.encoding {
            Encoding::Protobuf => protobuf_frame(kind, document),
            Encoding::Json | Encoding::Yaml => frame(kind, document),
        }
    }

    /// The object of a bookmark.
    pub fn bookmark(&self, revision: u64, initial_end: bool) -> Value {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if self.form != Form::Table {
            meta["creationTimestamp"] = Value::Null;
        }
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.form {
            Form::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": [], "rows": [{"cells": [], "object":
                        {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}}]})
            }
            Form::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            _ => {
                json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": meta})
            }
        }
    }

    /// One object in the form of a list's item.
    fn item(&self, stored: &Bytes) -> Bytes {
        match self.form {
            Form::Partial => partial(stored).into(),
            _ => self.current(stored),
        }
    }

    /// An object in the version, and under the schema, in which it is shown.
    fn current(&self, stored: &Bytes) -> Bytes {
        let renewed = self.resource.custom.as_ref().filter(|custom| is_older(stored, custom.since));
        if !self.converted && renewed.is_none() {
            return stored.clone();
        }
        let Some(mut object) = object::parse(stored) else { return stored.clone() };
        conversion::from_stored(&self.resource, &mut object);
        if let Some(custom) = renewed {
            custom.renew(&mut object);
        }
        object.to_string().into()
    }

    /// Kind and `apiVersion` of a list.
    fn list_kind(&self) -> (Cow<'_, str>, Cow<'_, str>) {
        match self.form {
            Form::Partial => ("PartialObjectMetadataList".into(), "meta.k8s.io/v1".into()),
            _ => ((&*self.resource.list_kind).into(), self.resource.api_version()),
        }
    }

    fn joined(&self, items: &[&Bytes], meta: &ListMeta) -> Response {
        let (kind, version) = self.list_kind();
        let head = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{},\"items\":[",
            meta.to_json()
        );
        let plain = self.is_plain() && self.resource.custom.is_none();
        let size: usize = items.iter().map(|item| item.len() + 1).sum();
        let mut out = BytesMut::with_capacity(head.len() + size + 3);
        out.extend_from_slice(head.as_bytes());
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b",");
            }
            match plain {
                true => out.extend_from_slice(item),
                false => out.extend_from_slice(&self.item(item)),
            }
        }
        out.extend_from_slice(b"]}\n");
        Response::json(StatusCode::OK, out.freeze())
    }

    fn table(&self, items: &[&Bytes], meta: &Value) -> Value {
        let items: Vec<Bytes> = items.iter().map(|stored| self.current(stored)).collect();
        table::render(&self.resource, &items, meta, self.include, self.now)
    }

    fn meta_of(&self, stored: &[u8]) -> Value {
        json!({"resourceVersion": scan::text(stored, &["metadata", "resourceVersion"]).unwrap_or_default()})
    }

    fn finish(&self, mut response: Response) -> Response {
        if self.encoding == Encoding::Yaml
            && let Some(yaml) =
                object::parse(&response.body.to_bytes()).and_then(|v| serde_saphyr::to_string(&v).ok())
        {
            response.body = Body::One(yaml.into());
            response.content_type = "application/yaml";
        }
        response
    }

    /// The content type of a watch.
    pub fn content_type(&self) -> &'static str {
        match self.encoding {
            Encoding::Protobuf => PROTOBUF_STREAM,
            Encoding::Json | Encoding::Yaml => JSON,
        }
    }
}

/// One event of a watch in protobuf; about what has no such form, in JSON.
pub(crate) fn protobuf_frame(kind: &str, document: &[u8]) -> Bytes {
    let encoded =
        object::parse(document).and_then(|document| protobuf::encode_document(schema::builtin(), &document));
    match encoded {
        Some(encoded) => protobuf::watch_frame(kind, &encoded).into(),
        None => frame(kind, document),
    }
}

/// Whether an object was last written at a revision or before it.
fn is_older(stored: &[u8], revision: u64) -> bool {
    let written = scan::text(stored, &["metadata", "resourceVersion"]);
    written.and_then(|written| written.parse().ok()).is_some_and(|written: u64| written <= revision)
}

/// An object's metadata, as a `PartialObjectMetadata`.
pub fn partial(stored: &[u8]) -> Vec<u8> {
    let mut out = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#.to_vec();
    match scan::locate(stored, &["metadata"]) {
        Some(range) => out.extend_from_slice(&stored[range]),
        None => out.extend_from_slice(b"{}"),
    }
    out.push(b'}');
    out
}
