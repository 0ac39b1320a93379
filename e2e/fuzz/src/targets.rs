//! The targets.

use api::protobuf;
use api::schema;
use api::selector::{FieldSelector, LabelSelector};
use apiserver::spdy::Reader;
use serde_json::{Value, json};

use crate::server::{Answer, OBJECTS, Server};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const APPLY: &str = "application/apply-patch+yaml";
const PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// The first byte chooses among `choices`; the rest is the input.
fn choose<'a, T>(choices: &[T], input: &'a [u8]) -> Option<(usize, &'a [u8])> {
    let (first, rest) = input.split_first()?;
    Some((usize::from(*first) % choices.len(), rest))
}

/// Nothing that a client sends is the server's fault. (Kubernetes answers 500 to a configuration with unknown fields that is
/// applied, and so does Orlop.)
fn told(answer: &Answer) {
    let message = answer.body["message"].as_str().unwrap_or_default();
    let untyped = message.starts_with("failed to create typed patch object");
    assert!(answer.status < 500 || untyped, "{}: {}", answer.status, answer.body);
}

/// What is stored can be stored again, and is the same then.
fn keeps(server: &mut Server, path: &str) {
    let stored = server.ask("GET", path, JSON, b"");
    if stored.status != 200 {
        return;
    }
    let again = server.ask("PUT", path, JSON, stored.body.to_string().as_bytes());
    assert_eq!(again.status, 200, "what is stored is refused: {}\n{}", again.body, stored.body);
    assert_eq!(again.body, stored.body, "what is stored changes when it is stored again");
}

/// Bodies in JSON, YAML and protobuf, for an object that is new or there.
pub fn decode(input: &[u8]) {
    let types = [JSON, YAML, protobuf::MEDIA_TYPE];
    let Some((media, rest)) = choose(&types, input) else { return };
    let Some((place, body)) = choose(OBJECTS, rest) else { return };
    let mut server = Server::new();
    let collection = OBJECTS[place].0;
    let created = server.ask("POST", collection, types[media], body);
    told(&created);
    if created.status == 201
        && let Some(name) = created.body["metadata"]["name"].as_str()
    {
        keeps(&mut server, &format!("{collection}/{name}"));
    }
    told(&server.ask("PUT", &format!("{collection}/o"), types[media], body));
}

/// The three kinds of patches, on objects that are there.
pub fn patch(input: &[u8]) {
    let Some((kind, rest)) = choose(&PATCHES, input) else { return };
    let Some((place, body)) = choose(OBJECTS, rest) else { return };
    let path = format!("{}/o", OBJECTS[place].0);
    let mut server = Server::new();
    told(&server.ask("PATCH", &path, PATCHES[kind], body));
    keeps(&mut server, &path);
}

/// Server-side apply: of two managers in turn, and each twice.
pub fn apply(input: &[u8]) {
    let Some((place, body)) = choose(OBJECTS, input) else { return };
    let path = format!("{}/o", OBJECTS[place].0);
    let mut server = Server::new();
    for manager in ["one", "two"] {
        let target = format!("{path}?fieldManager={manager}&force=true");
        let first = server.ask("PATCH", &target, APPLY, body);
        told(&first);
        let second = server.ask("PATCH", &target, APPLY, body);
        assert_eq!(second.status, first.status, "{}", second.body);
        if first.status == 200 {
            assert_eq!(second.body, first.body, "applying the same again changes something");
        }
    }
    keeps(&mut server, &path);
}

/// Selectors of labels and of fields, by themselves and in a list.
pub fn selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let labels: std::collections::BTreeMap<String, String> =
            [("a".to_owned(), "b".to_owned()), ("x".to_owned(), String::new())].into();
        let printed = selector.to_string();
        let again = LabelSelector::parse(&printed).expect("a selector is printed as one");
        assert_eq!(again.matches(&labels), selector.matches(&labels), "{printed:?} selects something else");
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let object =
            json!({"metadata": {"name": "o", "namespace": "default"}, "status": {"phase": "Running"}});
        let printed = selector.to_string();
        let again = FieldSelector::parse(&printed).expect("a selector is printed as one");
        assert_eq!(again.matches_object(&object), selector.matches_object(&object), "{printed:?}");
    }
    let escaped: String = input.iter().map(|byte| format!("%{byte:02x}")).collect();
    let mut server = Server::new();
    for query in [format!("labelSelector={escaped}"), format!("fieldSelector={escaped}")] {
        told(&server.ask("GET", &format!("/api/v1/namespaces/default/pods?{query}"), JSON, b""));
    }
}

/// A rule of a definition, and an object that it is held against: separated by a line that says `---`.
pub fn cel(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (rule, object) = text.split_once("\n---\n").unwrap_or((text, "{}"));
    let Ok(spec) = serde_json::from_str::<Value>(object) else { return };
    let mut server = Server::new();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let defined = server.ask("POST", definitions, JSON, definition(rule).to_string().as_bytes());
    told(&defined);
    if defined.status != 201 {
        return;
    }
    let widget = json!({"metadata": {"name": "w"}, "spec": spec});
    let created = server.ask("POST", WIDGETS, JSON, widget.to_string().as_bytes());
    told(&created);
    if created.status == 201 {
        let path = format!("{WIDGETS}/w");
        // A transition rule may refuse even what changes nothing.
        if !rule.contains("oldSelf") {
            keeps(&mut server, &path);
        }
        told(&server.ask("PATCH", &path, PATCHES[1], br#"{"spec":{"size":2,"list":["z"],"map":{"k":"w"}}}"#));
    }
}

fn definition(rule: &str) -> Value {
    let spec = json!({
        "type": "object",
        "x-kubernetes-validations": [{"rule": rule, "message": "no"}],
        "properties": {
            "size": {"type": "integer"},
            "text": {"type": "string", "maxLength": 100},
            "at": {"type": "string", "format": "date-time"},
            "list": {"type": "array", "maxItems": 20, "items": {"type": "string", "maxLength": 20}},
            "map": {"type": "object", "maxProperties": 20, "additionalProperties": {"type": "string"}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
            }],
        },
    })
}

/// Kubernetes' protobuf: what is read is written, and read again as the same.
pub fn protobuf(input: &[u8]) {
    let Ok(document) = protobuf::decode_object(input) else { return };
    let schemas = schema::builtin();
    let Some(written) = protobuf::encode_document(schemas, &document.value) else { return };
    let again = protobuf::decode_object(&written).expect("what was written is read");
    let written_again = protobuf::encode_document(schemas, &again.value).expect("a type that was there");
    assert_eq!(written_again, written, "{} and {}", document.value, again.value);
}

/// Frames of SPDY/3.1, as the first bytes of an upgraded connection.
pub fn spdy(input: &[u8]) {
    let mut reader = Reader::new(input);
    futures::executor::block_on(async {
        // Each frame takes a byte at least, so that there are no more frames than bytes.
        for _ in 0..=input.len() {
            if !matches!(reader.next().await, Ok(Some(_))) {
                return;
            }
        }
        panic!("more frames than bytes");
    });
}
