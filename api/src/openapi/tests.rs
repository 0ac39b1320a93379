use serde_json::json;

use super::*;
use crate::schema;

fn v3(group: &str) -> Value {
    let resources: Vec<_> = Catalogue::builtin().of_version(group, "v1").collect();
    schema::builtin().openapi_v3(&resources, "v1.37.0+orlop")
}

/// Every reference leads somewhere.
fn check_references(document: &Value, at: &Value) {
    match at {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            map.values().for_each(|value| check_references(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(document, value)),
        _ => {}
    }
}

#[test]
fn references_lead_somewhere() {
    let v2 = schema::builtin().openapi_v2(Catalogue::builtin(), &[], "v1.37.0+orlop");
    check_references(&v2, &v2);
    let spec = &v2["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"];
    assert_eq!(spec, "#/definitions/io.k8s.api.core.v1.PodSpec");
    for group in Catalogue::builtin().groups() {
        let document = v3(&group.name);
        check_references(&document, &document);
        assert!(!document["paths"].as_object().expect("paths").is_empty());
    }
}

#[test]
fn kubectl_finds_what_it_looks_for() {
    let document = v3("apps");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let deployment = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], deployment);
    let parameters = patch["parameters"].as_array().expect("parameters");
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
        json!([deployment])
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(containers["description"].as_str().is_some_and(|text| text.contains("containers")));
    let list = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["get"];
    assert_eq!(list["x-kubernetes-action"], "list");
}

#[test]
fn the_index_names_documents_by_hash() {
    let index = v3_index([("apis/apps/v1", "AB")]);
    let url = &index["paths"]["apis/apps/v1"]["serverRelativeURL"];
    assert_eq!(url, "/openapi/v3/apis/apps/v1?hash=AB");
    assert_eq!(hash(b"").len(), 64);
}

#[test]
fn encodes_for_old_clients() {
    let document = schema::builtin().openapi_v2(Catalogue::builtin(), &[], "v1.37.0+orlop");
    let bytes = encode_v2(&document);
    assert!(bytes.starts_with(b"\x0a\x032.0"));
    assert!(bytes.len() > 100_000);
}
