use serde_json::json;

use super::*;

fn check(kind: &str, input: Value, expected: Value, complaints: &[&str]) {
    let schemas = builtin();
    let id = schemas.by_name(kind).expect(kind);
    let mut value = input;
    let decoded = schemas.decode(id, &mut value);
    let mut found: Vec<String> = decoded.unknown.iter().map(|path| format!("unknown {path}")).collect();
    found.extend(decoded.errors.iter().map(ToString::to_string));
    assert_eq!(found, complaints);
    assert_eq!(value, expected);
    assert!(schemas.decode(id, &mut value).unknown.is_empty(), "nothing unknown stays");
}

#[test]
fn the_whole_table_is_read() {
    let text = include_str!("../../schemas.txt");
    let fields: usize = builtin().types().map(|(_, declared)| declared.fields.len()).sum();
    assert_eq!(fields, text.lines().filter(|line| line.starts_with(' ')).count());
    assert_eq!(builtin().texts().len(), text.lines().count() + 1);
    for (_, declared) in builtin().types() {
        assert!(declared.fields.is_sorted_by(|a, b| a.name < b.name), "{} is not sorted", declared.name);
    }
}

#[test]
fn normalises_as_go_would() {
    check(
        "core.v1.Pod",
        json!({"metadata": {"name": "a", "creationTimestamp": null, "labels": {}, "x": 1}, "spec": {
            "hostNetwork": false, "terminationGracePeriodSeconds": 0, "nodeName": "", "containers": [
                {"name": "", "image": "i", "args": [], "foo": {}, "resources": {"limits": {"cpu": "1000m", "memory": 1024}}},
            ], "volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"metadata": {"name": "a"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                {"name": "", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1024"}}},
            ], "volumes": [{"name": "v", "emptyDir": {}}]}}),
        &["unknown metadata.x", "unknown spec.containers[0].foo"],
    );
}

#[test]
fn words_wrong_types_as_go_does() {
    let input = json!({"spec": {"replicas": "three", "template": {"spec": {"containers": [
        {"name": 1, "imagePullPolicy": 2, "ports": [{"containerPort": 1.5}], "command": "sh",
         "resources": {"limits": {"cpu": "lots"}}}], "hostNetwork": "yes"}}},
        "metadata": {"labels": {"a": 1}, "creationTimestamp": "now"}});
    check(
        "apps.v1.Deployment",
        input.clone(),
        input,
        &[
            r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            "json: cannot unmarshal string into Go struct field Container.spec.template.spec.containers.command of type []string",
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string",
            "json: cannot unmarshal number 1.5 into Go struct field ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.hostNetwork of type bool",
        ],
    );
}

#[test]
fn a_body_that_is_no_object() {
    let decoded = builtin().decode(builtin().by_name("core.v1.Pod").expect("pod"), &mut json!([]));
    assert_eq!(decoded.errors[0].to_string(), "json: cannot unmarshal array into Go value of type v1.Pod");
}

#[test]
fn declared_defaults() {
    let mut service = json!({"spec": {"ports": [{"port": 80}]}});
    builtin().default(builtin().by_name("core.v1.Service").expect("service"), &mut service);
    assert_eq!(service["spec"]["ports"][0]["protocol"], "TCP");
}
