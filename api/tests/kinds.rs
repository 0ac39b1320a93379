//! Every kind that is only kept, with one small object each: it decodes, gets its defaults, is valid, prints as many
//! cells as columns, and comes back from protobuf as it went.

use api::catalogue::{Catalogue, Resource};
use api::strategy::Minted;
use api::{defaults, protobuf, schema, strategy, table, validation};
use serde_json::Value;

const NOW: &str = "2024-01-02T03:04:05Z";

fn examples() -> Vec<(&'static Resource, Value)> {
    include_str!("fixtures/kinds.jsonl").lines().map(read).collect()
}

/// An object of one line, with a name and a namespace.
#[cfg(test)]
fn read(line: &str) -> (&'static Resource, Value) {
    let mut object: Value = serde_json::from_str(line).expect(line);
    let text = |field: &str| object[field].as_str().expect("text").to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let resource = Catalogue::builtin().by_type(&version, &kind).expect(&kind);
    let metadata = &mut object["metadata"];
    if metadata["name"].is_null() {
        metadata["name"] = "a".into();
    }
    if resource.namespaced() {
        metadata["namespace"] = "n".into();
    }
    (resource, object)
}

/// The object as creation makes it.
fn created(resource: &Resource, mut object: Value) -> Value {
    let found = schema::builtin().decode(resource.schema, &mut object);
    assert!(found.is_clean(), "{}: {found:?}", resource.kind);
    defaults::apply(resource, &mut object);
    strategy::create(resource, &mut object, &Minted { uid: "u", time: NOW });
    object
}

#[test]
fn every_kind_that_is_only_kept_has_an_example() {
    let examples = examples();
    for resource in Catalogue::builtin().resources().filter(|resource| resource.idle) {
        let stored = Catalogue::builtin().storage_of(resource);
        let found = examples.iter().any(|(of, _)| {
            (&of.group, &of.version, &of.kind) == (&stored.group, &stored.version, &stored.kind)
        });
        assert!(found, "no example of {} {}", resource.api_version(), resource.kind);
    }
}

#[test]
fn examples_are_valid_with_their_defaults() {
    for (resource, object) in examples() {
        let object = created(resource, object);
        assert_eq!(validation::create(resource, &object), [], "{}: {object:#}", resource.kind);
        assert_eq!(validation::update(resource, &object, &object), [], "{}", resource.kind);
    }
}

#[test]
fn what_makes_no_sense_is_refused_in_kubernetes_words() {
    for line in include_str!("fixtures/refused.txt").lines() {
        let (object, expected) = line.split_once(" => ").expect("object => complaint");
        let (resource, object) = read(object);
        let complaints = validation::create(resource, &created(resource, object));
        let complaints: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        assert!(complaints.iter().any(|one| one.contains(expected)), "{line}\n{complaints:#?}");
    }
}

#[test]
fn defaults_and_forms_are_stable() {
    for (resource, object) in examples() {
        let object = created(resource, object);
        let mut again = object.clone();
        defaults::apply(resource, &mut again);
        assert_eq!(again, object, "defaults of {}", resource.kind);
        assert!(schema::builtin().decode(resource.schema, &mut again).is_clean(), "{}", resource.kind);
        assert_eq!(again, object, "{} is as Go writes it", resource.kind);
    }
}

#[test]
fn rows_have_a_cell_for_each_column() {
    let now = NOW.parse().expect("a time");
    for (resource, object) in examples() {
        let columns = table::columns(resource);
        let row = table::row(resource, &created(resource, object), now);
        let count = |value: &Value| value.as_array().map_or(0, Vec::len);
        assert_eq!(count(&row["cells"]), count(&columns), "{}: {row}", resource.kind);
    }
}

#[test]
fn protobuf_brings_back_what_it_took() {
    for (resource, object) in examples() {
        let object = created(resource, object);
        let Some(bytes) = protobuf::encode_document(schema::builtin(), &object) else {
            assert_eq!(resource.group, "apiextensions.k8s.io", "{} has no form in protobuf", resource.kind);
            continue;
        };
        let mut decoded = protobuf::decode_object(&bytes).expect("decodes").value;
        defaults::apply(resource, &mut decoded);
        assert_eq!(decoded, object, "{}", resource.kind);
    }
}
