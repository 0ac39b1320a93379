//! Documents of any shape go through the whole way of a write without a panic, and a second time without a change.

use api::{
    catalogue::{Catalogue, Resource},
    conversion, defaults, managed_fields, patch, protobuf, schema, strategy, table, validation,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Words that mean something somewhere, so that random documents hit known fields.
const WORDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "annotations",
    "managedFields",
    "fieldsV1",
    "f:spec",
    "containers",
    "initContainers",
    "volumes",
    "ports",
    "containerPort",
    "port",
    "nodePort",
    "protocol",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "template",
    "strategy",
    "rollingUpdate",
    "selector",
    "matchLabels",
    "env",
    "valueFrom",
    "fieldRef",
    "livenessProbe",
    "httpGet",
    "clusterIP",
    "clusterIPs",
    "type",
    "data",
    "stringData",
    "finalizers",
    "ownerReferences",
    "uid",
    "creationTimestamp",
    "conditions",
    "subjects",
    "roleRef",
    "serviceAccount",
    "projected",
    "sources",
    "serviceAccountToken",
    "hostPath",
    "manager",
    "operation",
    "apiVersion",
    "kind",
    "time",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "Update",
    "delete",
    "replace",
    "merge",
    "100m",
    "1Gi",
    "2024-01-02T03:04:05Z",
    "NodePort",
    "ClusterIP",
    "ClientIP",
    "RollingUpdate",
    "accessModes",
    "capacity",
    "storage",
    "rules",
    "http",
    "paths",
    "path",
    "backend",
    "service",
    "schedule",
    "jobTemplate",
    "metrics",
    "target",
    "averageUtilization",
    "versions",
    "schema",
    "openAPIV3Schema",
    "properties",
    "items",
    "object",
    "array",
    "webhooks",
    "devices",
    "exactly",
    "* * * * *",
    "10.0.0.0/8",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(WORDS).prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(6, 80, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    });
    prop::collection::btree_map(word(), value, 0..6)
        .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>()))
}

fn resource() -> impl Strategy<Value = &'static Resource> {
    let count = Catalogue::builtin().resources().count();
    (0..count).prop_filter_map("in range", |at| Catalogue::builtin().resources().nth(at))
}

fn writer(manager: &str) -> managed_fields::Writer<'_> {
    managed_fields::Writer {
        manager,
        operation: managed_fields::Operation::Update,
        subresource: "",
        api_version: "v1",
        time: "2024-01-01T00:00:00Z",
    }
}

fn write(resource: &Resource, old: Option<&Value>, object: &mut Value, manager: &str) {
    let schemas = schema::builtin();
    let minted = strategy::Minted { uid: "u", time: "2024-01-01T00:00:00Z" };
    schemas.decode(resource.schema, object);
    defaults::apply(resource, object);
    if let Some(old) = old {
        strategy::update(resource, object, old);
    }
    managed_fields::update(schemas, resource, old, object, &writer(manager));
    if old.is_none() {
        strategy::create(resource, object, &minted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_document_goes_through(resource in resource(), first in document(), second in document()) {
        let schemas = schema::builtin();
        let mut old = first;
        write(resource, None, &mut old, "one");
        let mut new = second.clone();
        write(resource, Some(&old), &mut new, "two");
        let mut status = second.clone();
        strategy::status_update(resource, &mut status, &old);
        strategy::finalize_update(&mut status, &old);
        let mut patched = old.clone();
        let _ = patch::strategic(schemas, resource.schema, &mut patched, &second);
        let _ = patch::merge(&mut patched, &second);
        let _ = patch::json(&mut patched, &json!([{"op": "add", "path": "/spec/x", "value": second}]));
        let _ = strategy::scale::of(&old);
        let bytes = protobuf::encode_object(schemas, resource.schema, &old);
        let _ = protobuf::decode_object(&bytes);
    }

    #[test]
    fn any_configuration_is_applied_or_refused(resource in resource(), first in document(), second in document()) {
        let mut live = first;
        write(resource, None, &mut live, "one");
        let mut config = second;
        config["apiVersion"] = resource.api_version().into();
        config["kind"] = resource.kind.as_ref().into();
        for subresource in ["", "status"] {
            let writer = managed_fields::Writer {
                operation: managed_fields::Operation::Apply,
                subresource,
                ..writer("two")
            };
            for live in [None, Some(&live)] {
                let _ = managed_fields::apply(schema::builtin(), resource, live, &config, &writer, true);
            }
        }
    }

    #[test]
    fn what_decodes_is_checked_and_printed(resource in resource(), first in document(), second in document()) {
        let (mut old, mut new) = (first, second);
        let clean = |object: &mut Value| schema::builtin().decode(resource.schema, object).errors.is_empty();
        if clean(&mut old) && clean(&mut new) {
            write(resource, None, &mut old, "one");
            write(resource, Some(&old), &mut new, "two");
            let _ = validation::create(resource, &old);
            let _ = validation::update(resource, &new, &old);
            let _ = table::row(resource, &new, jiff::Timestamp::UNIX_EPOCH);
            let mut served = new;
            conversion::from_stored(resource, &mut served);
            conversion::to_stored(resource, &mut served);
        }
    }

    #[test]
    fn decoding_again_changes_nothing(resource in resource(), document in document()) {
        let schemas = schema::builtin();
        let mut once = document;
        let errors = schemas.decode(resource.schema, &mut once).errors;
        let mut twice = once.clone();
        let again = schemas.decode(resource.schema, &mut twice);
        prop_assert_eq!(&twice, &once);
        prop_assert_eq!(again.errors, errors);
        prop_assert!(again.unknown.is_empty());
    }

    #[test]
    fn defaults_set_again_change_nothing(resource in resource(), document in document()) {
        let mut once = document;
        if schema::builtin().decode(resource.schema, &mut once).errors.is_empty() {
            defaults::apply(resource, &mut once);
            let mut twice = once.clone();
            defaults::apply(resource, &mut twice);
            prop_assert_eq!(twice, once);
        }
    }

    #[test]
    fn a_write_that_repeats_what_is_there_changes_nothing(resource in resource(), document in document()) {
        let mut stored = document;
        if schema::builtin().decode(resource.schema, &mut stored).errors.is_empty() {
            write(resource, None, &mut stored, "one");
            let mut again = stored.clone();
            write(resource, Some(&stored), &mut again, "two");
            prop_assert_eq!(again, stored);
        }
    }
}
