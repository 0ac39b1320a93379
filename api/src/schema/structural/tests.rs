use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Schemas;

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5, "nullable": true},
            "port": {"x-kubernetes-int-or-string": true},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "half": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"in": {"type": "object", "properties": {"x": {"type": "string"}}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                "items": {"type": "object", "required": ["id"], "properties": {
                    "id": {"type": "string"}, "n": {"type": "number", "default": 0.5, "multipleOf": 0.5}}}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 2, "items": {"type": "string"}},
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            "one": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            "when": {"type": "string", "format": "date-time"}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
}

fn prune(spec: Value, expected: Value, unknown: &[&str]) {
    let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "spec": spec});
    let mut found = Vec::new();
    Node::read(&schema()).prune(&mut object, &mut found);
    assert_eq!(
        (&object["spec"], found.as_slice()),
        (&expected, unknown.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice())
    );
    assert_eq!(object["metadata"]["name"], "x");
}

#[test]
fn unknown_fields_go() {
    prune(json!({"size": 1, "no": {"x": 1}}), json!({"size": 1}), &["spec.no"]);
    prune(json!({"any": {"x": [1]}, "port": "http"}), json!({"any": {"x": [1]}, "port": "http"}), &[]);
    prune(
        json!({"half": {"y": 1, "in": {"x": "1", "z": 2}}}),
        json!({"half": {"y": 1, "in": {"x": "1"}}}),
        &["spec.half.in.z"],
    );
    prune(json!({"parts": [{"id": "a", "q": 1}]}), json!({"parts": [{"id": "a"}]}), &["spec.parts[0].q"]);
    prune(
        json!({"inner": {"apiVersion": "v1", "kind": "X", "metadata": {"a": 1}, "spec": {}, "data": 1}}),
        json!({"inner": {"apiVersion": "v1", "kind": "X", "metadata": {"a": 1}, "spec": {}}}),
        &["spec.inner.data"],
    );
}

fn fill(spec: Value, expected: Value) {
    let mut object = json!({"spec": spec});
    Node::read(&schema()).fill(&mut object);
    assert_eq!(object["spec"], expected);
}

#[test]
fn defaults_come_and_nulls_go() {
    fill(json!({"size": 1}), json!({"size": 1, "color": "red"}));
    fill(json!({"color": null, "size": null, "name": null}), json!({"color": "red", "name": null}));
    fill(json!({"color": "blue", "any": null}), json!({"color": "blue", "any": null}));
    fill(
        json!({"color": "blue", "parts": [{"id": "a"}]}),
        json!({"color": "blue", "parts": [{"id": "a", "n": 0.5}]}),
    );
}

fn check(spec: Value, expected: &[&str]) {
    let errors = Node::read(&schema()).check(&json!({"spec": spec}), None);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected);
}

#[test]
fn complaints_are_those_of_kubernetes() {
    check(json!({"size": 1, "name": null, "port": 80, "when": "2026-01-01T00:00:00Z"}), &[]);
    check(json!({}), &["spec.size: Required value"]);
    check(
        json!({"size": "1"}),
        &[r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#],
    );
    check(
        json!({"size": 0}),
        &["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"],
    );
    check(
        json!({"size": 10}),
        &["spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9"],
    );
    check(
        json!({"size": 1, "color": "x"}),
        &[r#"spec.color: Unsupported value: "x": supported values: "blue", "red""#],
    );
    check(
        json!({"size": 1, "name": "Abcdef"}),
        &[
            r#"spec.name: Invalid value: "Abcdef": spec.name in body should match '^[a-z]+$'"#,
            "spec.name: Too long: may not be more than 5 bytes",
        ],
    );
    check(
        json!({"size": 1, "port": true}),
        &[
            r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#,
        ],
    );
    check(
        json!({"size": 1, "labels": {"a.b": 1}}),
        &[
            r#"spec.labels.a.b: Invalid value: "integer": spec.labels.a.b in body must be of type string: "integer""#,
        ],
    );
    check(
        json!({"size": 1, "parts": [{"id": "a", "n": 1}, {"id": "a", "n": 0.7}]}),
        &[
            "spec.parts[1].n: Invalid value: 0.7: spec.parts[1].n in body should be a multiple of 0.5",
            r#"spec.parts[1]: Duplicate value: {"id":"a"}"#,
        ],
    );
    check(
        json!({"size": 1, "tags": ["a", "b", "a"]}),
        &["spec.tags: Too many: 3: must have at most 2 items", r#"spec.tags[2]: Duplicate value: "a""#],
    );
    check(
        json!({"size": 1, "inner": {"kind": "X"}}),
        &["spec.inner.apiVersion: Required value: must not be empty"],
    );
    check(
        json!({"size": 1, "one": {}}),
        &[
            r#"<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.one.a: Required value",
        ],
    );
    check(
        json!({"size": 1, "when": "today"}),
        &[r#"spec.when: Invalid value: "today": spec.when in body must be of type date-time: "today""#],
    );
}

#[test]
fn patterns_are_those_of_go() {
    let check = |pattern: &str, text: &str, expected: bool| {
        assert_eq!(pattern_fault(pattern), None);
        assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
    };
    check(r"^\d+$", "12", true);
    check(r"^\d+$", "\u{663}", false);
    check(r"^[\w.-]+$", "a_b-1.c", true);
    check(r"^[^\s]+$", "a b", false);
    check(r"^\\d$", r"\d", true);
    check(r"b", "abc", true);
    assert!(pattern_fault("(").is_some());
}

#[test]
fn what_an_update_leaves_is_not_checked_again() {
    let node = Node::read(&schema());
    let old = json!({"spec": {"size": 50, "parts": [{"id": "a", "n": 0.7}]}});
    let new = json!({"spec": {"size": 50, "color": "blue", "parts": [{"id": "b"}, {"id": "a", "n": 0.7}]}});
    assert_eq!(node.check(&new, Some(&old)), []);
    assert_eq!(node.check(&new, None).len(), 2);
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..12).prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from),
    ];
    let names = [
        "size", "color", "name", "port", "any", "half", "in", "labels", "parts", "id", "n", "tags", "inner",
        "one", "x", "spec",
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(proptest::sample::select(names.to_vec()), inner, 0..6).prop_map(
                |map| Value::Object(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            ),
        ]
    })
}

proptest! {
    #[test]
    fn decoding_and_defaults_are_stable(spec in document(), status in document()) {
        let schemas = Schemas::custom("a.v1.A".to_owned(), &schema());
        let id = Schemas::first_custom();
        let mut once = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "spec": spec, "status": status});
        schemas.decode(id, &mut once);
        let mut pruned = once.clone();
        prop_assert!(schemas.decode(id, &mut pruned).unknown.is_empty());
        prop_assert_eq!(&pruned, &once);
        schemas.default(id, &mut once);
        let mut twice = once.clone();
        schemas.default(id, &mut twice);
        prop_assert_eq!(&twice, &once);
        // What defaults fill in is no unknown field.
        prop_assert!(schemas.decode(id, &mut twice).unknown.is_empty());
        prop_assert_eq!(twice, once);
    }
}
