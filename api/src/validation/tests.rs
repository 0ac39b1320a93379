use super::*;
use crate::catalogue::Catalogue;

fn resource(kind: &str) -> &'static Resource {
    Catalogue::builtin().resources().find(|resource| resource.kind == kind && resource.stored).unwrap()
}

fn object(kind: &str, body: &str) -> Value {
    let resource = resource(kind);
    let mut object: Value = serde_json::from_str(body).unwrap();
    if object["metadata"].is_null() {
        object["metadata"] = serde_json::json!({"name": "it"});
    }
    if resource.namespaced() {
        object["metadata"]["namespace"] = "default".into();
    }
    crate::defaults::apply(resource, &mut object);
    object
}

/// The complaints about a new object, after defaults.
fn check(kind: &str, body: &str, expected: &[&str]) {
    let errors = create(resource(kind), &object(kind, body));
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown, expected);
}

/// The complaints about a change.
fn check_change(kind: &str, old: &str, new: &str, expected: &[&str]) {
    let errors = update(resource(kind), &object(kind, new), &object(kind, old));
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown, expected);
}

const GOOD_POD: &str = r#"{"spec":{"containers":[{"name":"c","image":"i"}]}}"#;

#[test]
fn good_objects_pass() {
    check("Pod", GOOD_POD, &[]);
    check("ConfigMap", r#"{"data":{"a.b":"1"}}"#, &[]);
    check("Service", r#"{"spec":{"ports":[{"port":80}],"selector":{"app":"web"}}}"#, &[]);
    check(
        "Deployment",
        r#"{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},
            "spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],
            "livenessProbe":{"httpGet":{"path":"/","port":80}}}]}}}}"#,
        &[],
    );
    check(
        "ClusterRoleBinding",
        r#"{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},
        "subjects":[{"kind":"ServiceAccount","name":"a","namespace":"default"},{"kind":"User","name":"jane"}]}"#,
        &[],
    );
}

#[test]
fn names_and_labels() {
    let words = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    check(
        "ConfigMap",
        r#"{"metadata":{"name":"Bad_Name"}}"#,
        &[&format!(r#"metadata.name: Invalid value: "Bad_Name": {words}"#)],
    );
    check(
        "ConfigMap",
        r#"{"metadata":{}}"#,
        &["metadata.name: Required value: name or generateName is required"],
    );
    check(
        "ConfigMap",
        r#"{"metadata":{"name":"a","labels":{"k":"bad value"}}}"#,
        &[
            "metadata.labels: Invalid value: \"bad value\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
}

#[test]
fn pods() {
    check("Pod", r#"{"spec":{"containers":[]}}"#, &["spec.containers: Required value"]);
    check(
        "Pod",
        r#"{"spec":{"containers":[{"name":"c"},{"name":"c","image":"i","volumeMounts":[{"name":"v","mountPath":"/v"}]}]}}"#,
        &[
            "spec.containers[0].image: Required value",
            "spec.containers[1].volumeMounts[0].name: Not found: \"v\"",
            "spec.containers[1].name: Duplicate value: \"c\"",
        ],
    );
    check(
        "Pod",
        r#"{"spec":{"restartPolicy":"Sometimes","containers":[{"name":"c","image":"i","ports":[{"containerPort":70000}],
            "resources":{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}}]}}"#,
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ],
    );
    check(
        "Pod",
        r#"{"spec":{"volumes":[{"name":"v","configMap":{"name":"m","items":[{"key":"k","path":"../x"}]}}],
            "containers":[{"name":"c","image":"i"}],"initContainers":[{"name":"n","image":"i","readinessProbe":{"exec":{"command":["a"]}}}]}}"#,
        &[
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
}

#[test]
fn pods_hardly_change() {
    check_change("Pod", GOOD_POD, r#"{"spec":{"containers":[{"name":"c","image":"other"}]}}"#, &[]);
    let changed = r#"{"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}"#;
    let words = format!(
        "spec: Forbidden: {}",
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
    );
    check_change("Pod", GOOD_POD, changed, &[&words]);
}

#[test]
fn workloads() {
    check(
        "Deployment",
        r#"{"spec":{"replicas":-1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"c"}},
            "spec":{"containers":[{"name":"c","image":"i"}]}},"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":0}}}}"#,
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ],
    );
    let set = |label: &str| {
        format!(
            r#"{{"spec":{{"selector":{{"matchLabels":{{"a":"{label}"}}}},"template":{{"metadata":{{"labels":{{"a":"{label}"}}}},
            "spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
        )
    };
    check_change(
        "ReplicaSet",
        &set("b"),
        &set("c"),
        &[r#"spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable"#],
    );
}

#[test]
fn services() {
    check("Service", r#"{"spec":{"selector":{"a":"b"}}}"#, &["spec.ports: Required value"]);
    check(
        "Service",
        r#"{"spec":{"ports":[{"port":80},{"port":80}]}}"#,
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Required value",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ],
    );
    check_change(
        "Service",
        r#"{"spec":{"clusterIP":"10.96.0.7","ports":[{"port":80}]}}"#,
        r#"{"spec":{"clusterIP":"10.96.0.8","ports":[{"port":80}]}}"#,
        &["spec.clusterIPs[0]: Invalid value: \"10.96.0.8\": may not change once set"],
    );
}

#[test]
fn configuration() {
    check(
        "ConfigMap",
        r#"{"data":{"a/b":"1"}}"#,
        &[
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    check_change(
        "ConfigMap",
        r#"{"immutable":true,"data":{"a":"1"}}"#,
        r#"{"immutable":true,"data":{"a":"2"}}"#,
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
    check(
        "Secret",
        r#"{"type":"kubernetes.io/tls","data":{"tls.crt":"YQ=="}}"#,
        &["data[tls.key]: Required value"],
    );
    check(
        "PriorityClass",
        r#"{"value":2000000000}"#,
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
}

#[test]
fn roles() {
    check(
        "Role",
        r#"{"rules":[{"resources":["pods"],"apiGroups":[""]}]}"#,
        &["rules[0].verbs: Required value: verbs must contain at least one value"],
    );
    check(
        "RoleBinding",
        r#"{"roleRef":{"kind":"Robot","name":"r"},"subjects":[{"kind":"User"}]}"#,
        &[
            "roleRef.kind: Unsupported value: \"Robot\": supported values: \"ClusterRole\", \"Role\"",
            "subjects[0].name: Required value",
        ],
    );
}
