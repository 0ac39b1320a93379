use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::managed_fields::{Operation, Writer, apply};
use crate::{schema, table};

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
                "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v1", "served": true, "storage": true,
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                    "additionalPrinterColumns": [
                        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                        {"name": "Since", "type": "date", "jsonPath": ".status.since", "priority": 1}],
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "properties": {
                            "replicas": {"type": "integer"}, "color": {"type": "string", "default": "red"},
                            "free": {"x-kubernetes-preserve-unknown-fields": true, "type": "object"},
                            "parts": {"type": "array", "x-kubernetes-list-type": "map",
                                "x-kubernetes-list-map-keys": ["id"], "items": {"type": "object", "required": ["id"],
                                    "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}}}}},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

fn settled() -> Value {
    let mut object = definition();
    settle(&mut object, &Claims::default(), "2026-01-01T00:00:00Z");
    object["status"]["storedVersions"] = json!(["v1"]);
    object
}

fn widgets() -> Vec<Arc<Resource>> {
    Definition::read(&settled().to_string().into(), 7).expect("a definition").resources
}

#[test]
fn an_established_definition_is_served() {
    let resources = widgets();
    let versions: Vec<(&str, bool)> =
        resources.iter().map(|resource| (&*resource.version, resource.stored_as.is_some())).collect();
    assert_eq!(versions, [("v1", false), ("v1beta1", true)]);
    let widgets = &resources[0];
    assert_eq!((&*widgets.plural, &*widgets.kind, widgets.namespaced()), ("widgets", "Widget", true));
    let subresources: Vec<&str> = widgets.subresources.iter().map(|sub| &*sub.name).collect();
    assert_eq!(subresources, ["scale", "status"]);
    let waiting = definition().to_string().into();
    assert!(Definition::read(&waiting, 7).expect("a definition").resources.is_empty());
}

#[test]
fn names_belong_to_one_definition() {
    let mut second = definition();
    let taken = Definition::read(&settled().to_string().into(), 7).expect("a definition").claims;
    settle(&mut second, &taken, "2026-01-01T00:00:00Z");
    let conditions = &second["status"]["conditions"];
    assert_eq!(conditions[0]["reason"], "ListKindConflict");
    assert_eq!((&conditions[0]["status"], &conditions[1]["status"]), (&json!("False"), &json!("False")));
    // When the names are free again, it gets them.
    settle(&mut second, &Claims::default(), "2026-01-01T00:00:09Z");
    let conditions = &second["status"]["conditions"];
    assert_eq!((&conditions[0]["status"], &conditions[1]["status"]), (&json!("True"), &json!("True")));
    let before = second.clone();
    settle(&mut second, &Claims::default(), "2026-01-01T00:01:00Z");
    assert_eq!(second, before);
}

#[test]
fn tables_show_what_the_definition_names() {
    let widgets = &widgets()[0];
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
    let names: Vec<Value> = table::columns(widgets)
        .as_array()
        .expect("columns")
        .iter()
        .map(|column| column["name"].clone())
        .collect();
    assert_eq!(names, ["Name", "Replicas", "Since"]);
    let object = json!({"metadata": {"name": "a"}, "spec": {"replicas": 3}, "status": {"since": "2026-01-01T00:00:00Z"}});
    assert_eq!(table::row(widgets, &object, now)["cells"], json!(["a", 3, "60m"]));
    assert_eq!(
        table::row(widgets, &json!({"metadata": {"name": "a"}}), now)["cells"],
        json!(["a", null, null])
    );
}

fn applied(
    live: Option<&Value>,
    manager: &str,
    spec: Value,
) -> Result<Value, crate::managed_fields::ApplyError> {
    let widgets = &widgets()[0];
    let writer = Writer {
        manager,
        operation: Operation::Apply,
        subresource: "",
        api_version: "example.com/v1",
        time: "2026-01-01T00:00:00Z",
    };
    let config =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec});
    let done = apply(widgets.schemas(), widgets, live, &config, &writer, false)?;
    let mut object = done.object;
    crate::defaults::apply(widgets, &mut object);
    object["metadata"]["managedFields"] = done.entries.into();
    Ok(object)
}

#[test]
fn items_and_free_fields_are_owned_one_by_one() {
    let first = applied(None, "one", json!({"parts": [{"id": "a", "n": 1}], "free": {"x": {"y": 1}}}))
        .expect("applies");
    let again =
        applied(Some(&first), "one", json!({"parts": [{"id": "a", "n": 1}], "free": {"x": {"y": 1}}}));
    assert_eq!(again.expect("applies"), first);
    let both = applied(Some(&first), "two", json!({"parts": [{"id": "b"}], "free": {"x": {"z": 2}}}))
        .expect("applies");
    assert_eq!(both["spec"]["parts"], json!([{"id": "a", "n": 1}, {"id": "b"}]));
    assert_eq!(both["spec"]["free"], json!({"x": {"y": 1, "z": 2}}));
    applied(Some(&both), "two", json!({"parts": [{"id": "a", "n": 5}]})).expect_err("a conflict");
    let left = applied(Some(&both), "one", json!({})).expect("applies");
    assert_eq!(left["spec"]["parts"], json!([{"id": "b"}]));
    assert_eq!(left["spec"]["free"], json!({"x": {"z": 2}}));
    let error = applied(None, "one", json!({"nothing": 1})).expect_err("no such field");
    assert!(error.to_string().contains(".spec.nothing: field not declared in schema"), "{error}");
}

#[test]
fn types_are_published() {
    let resources = widgets();
    let document = schema::builtin().openapi_v3(&[&resources[0]], "v1.37.0+orlop");
    let schemas = &document["components"]["schemas"];
    let widget = &schemas["com.example.v1.Widget"];
    assert_eq!(
        widget["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "kind": "Widget", "version": "v1"}])
    );
    assert_eq!(widget["properties"]["spec"]["properties"]["color"]["type"], "string");
    assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    assert!(
        document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/scale"].is_object()
    );
    let v2 = schema::builtin().openapi_v2(
        crate::catalogue::Catalogue::builtin(),
        &[&resources[0]],
        "v1.37.0+orlop",
    );
    let widget = &v2["definitions"]["com.example.v1.Widget"]["properties"];
    assert!(widget["spec"]["properties"]["color"]["default"].is_null());
    assert!(widget["status"]["type"].is_null());
}
