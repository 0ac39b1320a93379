//! What people, scripts and enemies send: each gets a clear answer, and the server goes on.

use anyhow::{Context, Result, ensure};
use e2e::https::Answer;
use serde_json::{Value, json};

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("broken_documents_are_refused", broken),
    ("broken_manifests_are_refused", manifests),
    ("unknown_fields_are_told", unknown_fields),
    ("wrong_types_name_their_field", wrong_types),
    ("bad_values_name_their_field", bad_values),
    ("what_is_too_large_is_refused", too_large),
    ("deep_and_wide_documents_are_refused", deep),
    ("odd_requests_get_a_status", odd_requests),
    ("immutable_fields_stay", immutable),
];

fn path(stage: &Stage, plural: &str) -> String {
    format!("/api/v1/namespaces/{}/{plural}", stage.kubectl.namespace())
}

fn deployments(stage: &Stage) -> String {
    format!("/apis/apps/v1/namespaces/{}/deployments", stage.kubectl.namespace())
}

/// Checks that an answer is a failure `Status` with this code and reason, and these words in its message.
fn status(answer: &Answer, code: u16, reason: &str, words: &[&str]) -> Result<Value> {
    let value = answer.json()?;
    ensure!(answer.status == code && value["code"] == code, "{} instead of {code}: {value}", answer.status);
    ensure!(
        value["kind"] == "Status" && value["status"] == "Failure" && value["reason"] == reason,
        "{value}"
    );
    let message = value["message"].as_str().unwrap_or_default();
    for word in words {
        ensure!(message.contains(word), "no {word:?} in {message:?}");
    }
    Ok(value)
}

/// The server still does its work.
fn still_well(stage: &Stage) -> Result<()> {
    ensure!(stage.api.get("/readyz")?.text() == "ok");
    let made = stage
        .api
        .post(&path(stage, "configmaps"), json!({"metadata": {"generateName": "well-"}}).to_string())?;
    ensure!(made.status == 201, "{}", made.text());
    Ok(())
}

fn broken(stage: &Stage) -> Result<()> {
    let maps = path(stage, "configmaps");
    for body in [
        "",
        "{",
        "[]",
        "null",
        "true",
        "\"text\"",
        "{\"metadata\":",
        "{\"kind\":\"ConfigMap\",}",
        "\u{0}\u{1}\u{2}",
        "{'a': 1}",
        "{\"metadata\":{\"name\":\"a\"}}}",
        "{\"metadata\":{\"name\":\"\\ud800\"}}",
    ] {
        let answer = stage.api.post(&maps, body)?;
        status(&answer, 400, "BadRequest", &[]).with_context(|| format!("the body {body:?}"))?;
    }
    let invalid = stage.api.post(&maps, b"{\"metadata\":{\"name\":\"\xff\xfe\"}}")?;
    ensure!(invalid.status == 400 || invalid.status == 422, "{}", invalid.text());
    let yaml = stage.api.send("POST", &maps, "application/yaml", b"a: [1\nb: {")?;
    status(&yaml, 400, "BadRequest", &[])?;
    let protobuf =
        stage.api.send("POST", &maps, "application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff\xff\xff\xff")?;
    status(&protobuf, 400, "BadRequest", &[])?;
    let strange = stage.api.send("POST", &maps, "text/html", b"<html>")?;
    status(&strange, 415, "UnsupportedMediaType", &["application/json"])?;
    let other = stage
        .api
        .post(&maps, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}).to_string())?;
    status(&other, 400, "BadRequest", &["Secret"])?;
    let elsewhere =
        stage.api.post(&maps, json!({"metadata": {"name": "x", "namespace": "kube-system"}}).to_string())?;
    status(
        &elsewhere,
        400,
        "BadRequest",
        &["the namespace of the provided object does not match the namespace sent on the request"],
    )?;
    still_well(stage)
}

fn manifests(stage: &Stage) -> Result<()> {
    let refused = |manifest: &str, words: &[&str]| -> Result<()> {
        let said = stage.kubectl.fails_with(&["apply", "-f", "-"], manifest)?;
        for word in words {
            ensure!(said.contains(word), "no {word:?} in {said:?}");
        }
        Ok(())
    };
    refused(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n data: b\n",
        &["line ", "did not find expected key"],
    )?;
    refused("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [}\n", &["yaml"])?;
    refused("{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": }}", &["error"])?;
    refused("kind: ConfigMap\nmetadata: {name: a}\n", &["apiVersion not set"])?;
    refused("apiVersion: v1\nkind: Gadget\nmetadata: {name: a}\n", &["error"])?;
    refused("apiVersion: apps/v9\nkind: Deployment\nmetadata: {name: a}\n", &["error"])?;
    refused("apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n", &["name"])?;
    still_well(stage)
}

fn unknown_fields(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let manifest = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replica: 1, selector: {matchLabels: {a: b}}, \
                    template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i, imagePolicy: Never}]}}}}";
    let strict = kubectl.fails_with(&["create", "-f", "-"], manifest)?;
    ensure!(strict.contains("strict decoding error: unknown field \"spec.replica\", unknown field \"spec.template.spec.containers[0].imagePolicy\""), "{strict}");
    let warned = kubectl.run_with(
        &["create", "--validate=warn", "-f", "-"],
        &manifest.replace("{replica: 1,", "{replicas: 0, replica: 1,"),
    )?;
    ensure!(
        warned.code == 0 && warned.stderr.contains("Warning: unknown field \"spec.replica\""),
        "{warned:?}"
    );
    ensure!(kubectl.path("deployment/d", "{.spec.replica}")?.is_empty());
    let silent = stage.api.post(
        &format!("{}?fieldValidation=Ignore", path(stage, "configmaps")),
        r#"{"metadata":{"name":"m"},"dat":{}}"#,
    )?;
    ensure!(silent.status == 201 && !silent.head.to_lowercase().contains("warning:"), "{}", silent.head);
    let twice = stage.api.post(
        &format!("{}?fieldValidation=Strict", path(stage, "configmaps")),
        r#"{"metadata":{"name":"n","name":"o"}}"#,
    )?;
    status(&twice, 400, "BadRequest", &["duplicate field \"metadata.name\""])?;
    let mode = stage.api.post(
        &format!("{}?fieldValidation=Maybe", path(stage, "configmaps")),
        r#"{"metadata":{"name":"n"}}"#,
    )?;
    ensure!(mode.status == 400 || mode.status == 422, "{}", mode.text());
    Ok(())
}

fn wrong_types(stage: &Stage) -> Result<()> {
    let check = |path: &str, body: Value, word: &str| -> Result<()> {
        let answer = stage.api.post(path, body.to_string())?;
        ensure!(answer.status == 400 || answer.status == 422, "{body}: {} {}", answer.status, answer.text());
        let value = answer.json()?;
        ensure!(
            value["message"].as_str().unwrap_or_default().contains(word),
            "{body}: no {word:?} in {value}"
        );
        Ok(())
    };
    let (maps, pods) = (path(stage, "configmaps"), path(stage, "pods"));
    check(&maps, json!({"metadata": {"name": "a"}, "data": {"x": 1}}), "data")?;
    check(&maps, json!({"metadata": {"name": "a"}, "data": ["x"]}), "data")?;
    check(&maps, json!({"metadata": "a"}), "metadata")?;
    check(&maps, json!({"metadata": {"name": 7}}), "name")?;
    check(&maps, json!({"metadata": {"name": "a", "labels": {"x": true}}}), "labels")?;
    check(&maps, json!({"metadata": {"name": "a"}, "binaryData": {"x": "not base64!"}}), "base64")?;
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        if let (Some(fields), Some(more)) = (container.as_object_mut(), more.as_object()) {
            fields.extend(more.clone());
        }
        json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})
    };
    check(&pods, container(json!({"ports": [{"containerPort": "eighty"}]})), "containerPort")?;
    check(&pods, container(json!({"ports": [{"containerPort": 1e300}]})), "containerPort")?;
    check(&pods, container(json!({"command": "sh"})), "command")?;
    check(&pods, container(json!({"resources": {"limits": {"memory": "lots"}}})), "quantities must match")?;
    check(
        &deployments(stage),
        json!({"metadata": {"name": "d"}, "spec": {"replicas": "three"}}),
        "replicas",
    )?;
    check(
        &deployments(stage),
        json!({"metadata": {"name": "d"}, "spec": {"replicas": 99_999_999_999_u64}}),
        "replicas",
    )?;
    let yaml = stage.kubectl.fails_with(
        &["create", "-f", "-"],
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {debug: yes}}",
    )?;
    ensure!(yaml.contains("data"), "{yaml}");
    still_well(stage)
}

fn bad_values(stage: &Stage) -> Result<()> {
    let check = |path: &str, body: &Value, field: &str, words: &str| -> Result<()> {
        let answer = stage.api.post(path, body.to_string())?;
        let value = status(&answer, 422, "Invalid", &[words])?;
        let causes = value["details"]["causes"].as_array().context("no causes")?;
        ensure!(
            causes.iter().any(|cause| cause["field"].as_str().unwrap_or_default() == field),
            "no cause at {field:?} in {value}"
        );
        Ok(())
    };
    let maps = path(stage, "configmaps");
    let long = "a".repeat(254);
    check(&maps, &json!({"metadata": {"name": long}}), "metadata.name", "must be no more than 253")?;
    check(&maps, &json!({"metadata": {"name": "Upper"}}), "metadata.name", "lowercase RFC 1123 subdomain")?;
    check(&maps, &json!({"metadata": {}}), "metadata.name", "name or generateName is required")?;
    let huge = "v".repeat(100_000);
    check(
        &maps,
        &json!({"metadata": {"name": "a", "labels": {"x": huge}}}),
        "metadata.labels",
        "must be no more than 63",
    )?;
    check(
        &maps,
        &json!({"metadata": {"name": "a", "labels": {"bad key": "x"}}}),
        "metadata.labels",
        "bad key",
    )?;
    let annotations = json!({"metadata": {"name": "a", "annotations": {"x": "v".repeat(300_000)}}});
    check(&maps, &annotations, "metadata.annotations", "Too long")?;
    check(
        &maps,
        &json!({"metadata": {"name": "a"}, "data": {"not/a/key": "x"}}),
        "data[not/a/key]",
        "a valid config key",
    )?;
    check(
        &maps,
        &json!({"metadata": {"name": "a"}, "data": {"x": "v".repeat((1 << 20) + 1)}}),
        "",
        "Too long",
    )?;
    let template = |labels: Value| json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let body = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "c"}))}});
    check(
        &deployments(stage),
        &body,
        "spec.template.metadata.labels",
        "`selector` does not match template `labels`",
    )?;
    let body = json!({"metadata": {"name": "d"}, "spec": {"template": template(json!({"a": "c"}))}});
    check(&deployments(stage), &body, "spec.selector", "Required value")?;
    let body = json!({"metadata": {"name": "d"}, "spec": {"replicas": -1, "selector": {"matchLabels": {"a": "c"}}, "template": template(json!({"a": "c"}))}});
    check(&deployments(stage), &body, "spec.replicas", "must be greater than or equal to 0")?;
    let pods = path(stage, "pods");
    check(
        &pods,
        &json!({"metadata": {"name": "p"}, "spec": {"containers": []}}),
        "spec.containers",
        "Required value",
    )?;
    check(
        &pods,
        &json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}),
        "spec.containers[0].image",
        "Required value",
    )?;
    let twice = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}});
    check(&pods, &twice, "spec.containers[1].name", "Duplicate value")?;
    let mount = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}});
    check(&pods, &mount, "spec.containers[0].volumeMounts[0].name", "Not found")?;
    let policy = json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}]}});
    check(&pods, &policy, "spec.restartPolicy", "Unsupported value")?;
    let services = path(stage, "services");
    check(
        &services,
        &json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 70000}]}}),
        "spec.ports[0].port",
        "must be between 1 and 65535",
    )?;
    check(
        &services,
        &json!({"metadata": {"name": "1s"}, "spec": {"ports": [{"port": 80}]}}),
        "metadata.name",
        "DNS-1035",
    )?;
    check(
        &services,
        &json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "1.2.3.4", "ports": [{"port": 80}]}}),
        "spec.clusterIPs",
        "not in the valid range",
    )?;
    still_well(stage)
}

fn too_large(stage: &Stage) -> Result<()> {
    let maps = path(stage, "configmaps");
    for megabytes in [4, 10] {
        let body =
            format!(r#"{{"metadata":{{"name":"big"}},"data":{{"x":"{}"}}}}"#, "v".repeat(megabytes << 20));
        let answer = stage.api.post(&maps, body)?;
        status(&answer, 413, "RequestEntityTooLarge", &["limit is 3145728"])?;
    }
    let said = {
        let manifest = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata: {{x: {}}}\n",
            "v".repeat(10 << 20)
        );
        stage.kubectl.fails_with(&["create", "-f", "-"], &manifest)?
    };
    ensure!(said.contains("Request entity too large"), "{said}");
    let query = stage.api.get(&format!("{maps}?labelSelector={}", "a".repeat(200_000)))?;
    ensure!((400..500).contains(&query.status), "{}", query.status);
    still_well(stage)
}

fn deep(stage: &Stage) -> Result<()> {
    let maps = path(stage, "configmaps");
    for depth in [200, 5_000, 500_000] {
        let body = format!(
            r#"{{"metadata":{{"name":"deep"}},"data":{}{}}}"#,
            "{\"a\":".repeat(depth),
            "}".repeat(depth)
        );
        let answer = stage.api.post(&maps, &body)?;
        ensure!(
            answer.status == 400 || answer.status == 413,
            "depth {depth}: {} {}",
            answer.status,
            answer.text()
        );
        let body =
            format!(r#"{{"metadata":{{"name":"deep"}},"data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let answer = stage.api.post(&maps, &body)?;
        ensure!(
            answer.status == 400 || answer.status == 413,
            "depth {depth}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let mut bomb = "metadata: {name: bomb}\ndata:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("  a{level}: &a{level} [{aliases}]\n"));
    }
    let answer = stage.api.send("POST", &maps, "application/yaml", bomb.as_bytes())?;
    status(&answer, 400, "BadRequest", &[])?;
    let patch: Vec<Value> =
        (0..20_000).map(|_| json!({"op": "test", "path": "/kind", "value": "ConfigMap"})).collect();
    stage.api.post(&maps, r#"{"metadata":{"name":"patched"}}"#)?;
    let answer = stage.api.send(
        "PATCH",
        &format!("{maps}/patched"),
        "application/json-patch+json",
        Value::from(patch).to_string().as_bytes(),
    )?;
    status(&answer, 413, "RequestEntityTooLarge", &["10000"])?;
    still_well(stage)
}

fn odd_requests(stage: &Stage) -> Result<()> {
    let api = &stage.api;
    let maps = path(stage, "configmaps");
    status(&api.get(&format!("{maps}/absent"))?, 404, "NotFound", &["configmaps \"absent\" not found"])?;
    ensure!(api.get("/api/v1/gadgets")?.status == 404);
    ensure!(api.get("/apis/none/v1")?.status == 404);
    ensure!(api.get("/nothing")?.status == 404);
    ensure!(api.get("/api/v1/namespaces/../../x")?.status >= 400);
    status(&api.send("PUT", &maps, "application/json", b"{}")?, 405, "MethodNotAllowed", &[])?;
    let limit = api.get(&format!("{maps}?limit=many"))?;
    ensure!(limit.status == 400, "{}", limit.text());
    status(&api.get(&format!("{maps}?resourceVersion=soon"))?, 400, "BadRequest", &["resourceVersion"])
        .or_else(|_| {
            status(&api.get(&format!("{maps}?resourceVersion=soon"))?, 422, "Invalid", &["resourceVersion"])
        })?;
    let future = api.get(&format!("{maps}?resourceVersion=999999999"))?;
    status(&future, 504, "Timeout", &["Too large resource version"])?;
    let absent = api.post("/api/v1/namespaces/absent/configmaps", r#"{"metadata":{"name":"a"}}"#)?;
    status(&absent, 404, "NotFound", &["namespaces \"absent\" not found"])?;
    let patch = api.send("PATCH", &format!("{maps}/absent"), "application/merge-patch+json", b"{}")?;
    status(&patch, 404, "NotFound", &[])?;
    let kind = api.send("PATCH", &format!("{maps}/absent"), "text/plain", b"{}")?;
    status(&kind, 415, "UnsupportedMediaType", &[])?;
    let dry = api.post(&format!("{maps}?dryRun=Some"), r#"{"metadata":{"name":"a"}}"#)?;
    ensure!(dry.status == 400 || dry.status == 422, "{}", dry.text());
    still_well(stage)
}

fn immutable(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.ok(&["create", "deployment", "d", "--image=i", "--replicas=0"])?;
    let selector = kubectl.fails(&[
        "patch",
        "deployment",
        "d",
        "-p",
        r#"{"spec":{"selector":{"matchLabels":{"a":"b"}}}}"#,
    ])?;
    ensure!(
        selector.contains("field is immutable") || selector.contains("`selector` does not match"),
        "{selector}"
    );
    kubectl
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: fixed}, immutable: true, data: {a: b}}")?;
    let fixed = kubectl.fails(&["patch", "configmap", "fixed", "-p", r#"{"data":{"a":"c"}}"#])?;
    ensure!(fixed.contains("field is immutable when `immutable` is set"), "{fixed}");
    kubectl.ok(&["create", "service", "clusterip", "s", "--tcp=80"])?;
    let address = kubectl.fails(&[
        "patch",
        "service",
        "s",
        "-p",
        r#"{"spec":{"clusterIP":"10.96.77.77","clusterIPs":["10.96.77.77"]}}"#,
    ])?;
    ensure!(
        address.contains("field is immutable") || address.contains("may not change once set"),
        "{address}"
    );
    kubectl.ok(&["run", "p", "--image=orlop.dev/e2e-tool:v1"])?;
    let pod = kubectl.fails(&["patch", "pod", "p", "-p", r#"{"spec":{"restartPolicy":"Never"}}"#])?;
    ensure!(pod.contains("pod updates may not change fields other than"), "{pod}");
    let name = kubectl.fails(&["patch", "configmap", "fixed", "-p", r#"{"metadata":{"name":"other"}}"#])?;
    ensure!(
        name.contains("the name of the object (other) does not match the name on the URL (fixed)"),
        "{name}"
    );
    Ok(())
}
