//! Objects as kubectl makes and changes them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("three_kinds_of_patch", patches),
    ("apply_remembers_what_it_said", apply),
    ("an_edit_replaces", replace),
    ("labels_and_annotations_change", labels),
    ("selectors_choose", selectors),
    ("long_lists_come_in_pages", pages),
    ("a_dry_run_changes_nothing", dry_run),
    ("waits_end", waits),
    ("ordinary_kinds_are_accepted", kinds),
    ("stale_writes_are_refused", stale),
    ("names_are_generated", generated),
];

const PLAIN: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: plain, labels: {a: "1"}}
data: {one: "1", two: "2"}
"#;

fn patches(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.ok(&["create", "deployment", "web", "--image=orlop.dev/e2e-tool:v1", "--replicas=0"])?;
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"orlop.dev/demo:v1"}]}}}}"#;
    ensure!(kubectl.ok(&["patch", "deployment", "web", "-p", strategic])? == "deployment.apps/web patched\n");
    let names = "{.spec.template.spec.containers[*].name}";
    ensure!(kubectl.path("deployment/web", names)? == "side e2e-tool");
    let removal = r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","$patch":"delete"}]}}}}"#;
    kubectl.ok(&["patch", "deployment", "web", "-p", removal])?;
    ensure!(kubectl.path("deployment/web", names)? == "e2e-tool");
    ensure!(
        kubectl.ok(&["patch", "deployment", "web", "-p", removal])?
            == "deployment.apps/web patched (no change)\n"
    );
    kubectl.ok(&[
        "patch",
        "deployment",
        "web",
        "--type=merge",
        "-p",
        r#"{"metadata":{"labels":{"app":null,"new":"yes"}}}"#,
    ])?;
    ensure!(kubectl.path("deployment/web", "{.metadata.labels}")? == r#"{"new":"yes"}"#);
    let json = r#"[{"op":"test","path":"/spec/replicas","value":0},{"op":"add","path":"/metadata/annotations/a~1b","value":"c"}]"#;
    kubectl.ok(&["patch", "deployment", "web", "--type=json", "-p", json])?;
    ensure!(kubectl.path("deployment/web", r"{.metadata.annotations.a/b}")? == "c");
    let failed = kubectl.fails(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"test","path":"/spec/replicas","value":7}]"#,
    ])?;
    ensure!(failed.contains("the server rejected our request") || failed.contains("test"), "{failed}");
    kubectl.ok(&[
        "patch",
        "deployment",
        "web",
        "--subresource=scale",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":0}}"#,
    ])?;
    Ok(())
}

fn apply(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    ensure!(kubectl.apply(PLAIN)? == "configmap/plain created\n");
    ensure!(kubectl.apply(PLAIN)? == "configmap/plain unchanged\n");
    kubectl.ok(&["patch", "configmap", "plain", "-p", r#"{"data":{"three":"3"}}"#])?;
    let changed = PLAIN.replace(r#"one: "1", two: "2""#, r#"two: "22""#);
    let diff = kubectl.run_with(&["diff", "-f", "-"], &changed)?;
    ensure!(
        diff.code == 1 && diff.stdout.contains("-  one: \"1\"") && diff.stdout.contains("+  two: \"22\""),
        "{diff:?}"
    );
    ensure!(kubectl.apply(&changed)? == "configmap/plain configured\n");
    ensure!(kubectl.path("configmap/plain", "{.data}")? == r#"{"three":"3","two":"22"}"#);
    let last = kubectl.ok(&["apply", "view-last-applied", "configmap/plain"])?;
    ensure!(last.contains("two: \"22\"") && !last.contains("three"), "{last}");
    // A field that two sides set, a list that is merged by its keys.
    let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {a: b}, ports: [{name: a, port: 80}]}}";
    kubectl.apply(service)?;
    let address = kubectl.path("service/s", "{.spec.clusterIP}")?;
    kubectl.apply(
        &service
            .replace("[{name: a, port: 80}]", "[{name: a, port: 80, targetPort: 8080}, {name: b, port: 81}]"),
    )?;
    ensure!(kubectl.path("service/s", "{.spec.ports[*].targetPort}")? == "8080 81");
    ensure!(kubectl.path("service/s", "{.spec.clusterIP}")? == address);
    let pruned = kubectl.ok_with(
        &["apply", "-f", "-", "--prune", "-l", "a=1", "--prune-allowlist=core/v1/ConfigMap"],
        &PLAIN.replace("plain", "other"),
    )?;
    ensure!(pruned.contains("configmap/plain pruned"), "{pruned}");
    Ok(())
}

fn replace(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(PLAIN)?;
    let text = kubectl.ok(&["get", "configmap", "plain", "-o", "yaml"])?;
    let edited = text.replace("one: \"1\"", "one: edited");
    ensure!(kubectl.ok_with(&["replace", "-f", "-"], &edited)? == "configmap/plain replaced\n");
    ensure!(kubectl.path("configmap/plain", "{.data.one}")? == "edited");
    let stale = kubectl.fails_with(&["replace", "-f", "-"], &edited)?;
    ensure!(
        stale.contains(
            "the object has been modified; please apply your changes to the latest version and try again"
        ),
        "{stale}"
    );
    let mut command = kubectl.command(&["edit", "configmap", "plain"]);
    let output = command.env("KUBE_EDITOR", "sed -i s/edited/again/").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(kubectl.path("configmap/plain", "{.data.one}")? == "again");
    let uid = kubectl.path("configmap/plain", "{.metadata.uid}")?;
    kubectl.ok_with(&["replace", "--force", "-f", "-"], PLAIN)?;
    ensure!(kubectl.path("configmap/plain", "{.metadata.uid}")? != uid);
    Ok(())
}

fn labels(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(PLAIN)?;
    ensure!(kubectl.ok(&["label", "configmap", "plain", "b=2"])? == "configmap/plain labeled\n");
    let refused = kubectl.fails(&["label", "configmap", "plain", "b=3"])?;
    ensure!(refused.contains("already has a value (2), and --overwrite is false"), "{refused}");
    kubectl.ok(&["label", "configmap", "plain", "b=3", "--overwrite"])?;
    ensure!(kubectl.ok(&["label", "configmap", "plain", "b-"])? == "configmap/plain unlabeled\n");
    let bad = kubectl.fails(&["label", "configmap", "plain", "c=not valid"])?;
    ensure!(bad.contains("a valid label must be"), "{bad}");
    kubectl.ok(&["annotate", "configmap", "plain", "note=a b c"])?;
    ensure!(kubectl.path("configmap/plain", "{.metadata.annotations.note}")? == "a b c");
    kubectl.ok(&["annotate", "configmap", "plain", "note-"])?;
    ensure!(kubectl.path("configmap/plain", "{.metadata.annotations.note}")?.is_empty());
    let shown = kubectl.ok(&["get", "configmap", "plain", "--show-labels", "--no-headers"])?;
    ensure!(shown.trim_end().ends_with("a=1"), "{shown}");
    Ok(())
}

fn selectors(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    for (name, labels) in
        [("a", "tier: front, env: prod"), ("b", "tier: back, env: prod"), ("c", "tier: back")]
    {
        kubectl.apply(&format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{{labels}, own: yes-1}}}}}}"))?;
    }
    let check = |selector: &str, wanted: &str| -> Result<()> {
        let found = kubectl.ok(&[
            "get",
            "configmaps",
            "-l",
            &format!("own,{selector}"),
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ])?;
        ensure!(found == wanted, "-l {selector} finds {found:?}, not {wanted:?}");
        Ok(())
    };
    check("tier=back", "b c")?;
    check("tier!=back", "a")?;
    check("tier in (front, back),env", "a b")?;
    check("tier notin (front)", "b c")?;
    check("!env", "c")?;
    let bad = kubectl.fails(&["get", "configmaps", "-l", "a in b"])?;
    ensure!(bad.contains("unable to parse requirement"), "{bad}");
    let one = kubectl.ok(&["get", "configmaps", "--field-selector", "metadata.name=b", "-o", "name"])?;
    ensure!(one == "configmap/b\n", "{one}");
    let others = kubectl.ok(&[
        "get",
        "configmaps",
        "--field-selector",
        "metadata.name!=b",
        "-l",
        "own",
        "-o",
        "name",
    ])?;
    ensure!(others == "configmap/a\nconfigmap/c\n", "{others}");
    let unknown = kubectl.fails(&["get", "configmaps", "--field-selector", "data.a=b"])?;
    ensure!(unknown.contains("field label not supported: data.a"), "{unknown}");
    ensure!(
        kubectl
            .ok(&[
                "get",
                "pods",
                "-A",
                "--field-selector",
                "spec.nodeName=node-9,status.phase=Running",
                "-o",
                "name"
            ])?
            .is_empty()
    );
    Ok(())
}

fn pages(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let many: Vec<String> = (0..57)
        .map(|number| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: many-{number:02}, labels: {{many: yes-1}}}}}}"))
        .collect();
    kubectl.ok_with(&["create", "-f", "-"], &many.join("\n---\n"))?;
    let names = kubectl.ok(&["get", "configmaps", "-l", "many", "--chunk-size=10", "-o", "name"])?;
    ensure!(names.lines().count() == 57 && names.lines().is_sorted(), "{names}");
    let table = kubectl.ok(&["get", "configmaps", "-l", "many", "--chunk-size=10", "--no-headers"])?;
    ensure!(table.lines().count() == 57, "{table}");
    let path = format!("/api/v1/namespaces/{}/configmaps?labelSelector=many&limit=20", kubectl.namespace());
    let first = stage.api.get(&path)?.json()?;
    let token = first["metadata"]["continue"].as_str().context("no continue token")?;
    kubectl.ok(&["delete", "configmap", "many-30"])?;
    let second = stage.api.get(&format!("{path}&continue={token}"))?.json()?;
    let held = |page: &Value, name: &str| {
        page["items"].as_array().is_some_and(|all| all.iter().any(|one| one["metadata"]["name"] == name))
    };
    ensure!(held(&second, "many-30"), "the second page is not of the same moment as the first");
    ensure!(second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]);
    let wrong = stage.api.get(&format!("{path}&continue=nonsense"))?;
    ensure!(wrong.status == 400, "{}", wrong.text());
    let all = kubectl.ok(&["delete", "configmaps", "-l", "many", "--wait=false"])?;
    ensure!(all.lines().count() == 56, "{all}");
    Ok(())
}

fn dry_run(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let said = kubectl.ok_with(&["apply", "--dry-run=server", "-f", "-"], PLAIN)?;
    ensure!(said == "configmap/plain created (server dry run)\n", "{said}");
    ensure!(kubectl.fails(&["get", "configmap", "plain"])?.contains("NotFound"));
    kubectl.apply(PLAIN)?;
    let version = kubectl.path("configmap/plain", "{.metadata.resourceVersion}")?;
    kubectl.ok(&["label", "configmap", "plain", "x=y", "--dry-run=server"])?;
    kubectl.ok(&["delete", "configmap", "plain", "--dry-run=server"])?;
    ensure!(kubectl.path("configmap/plain", "{.metadata.resourceVersion}")? == version);
    let service = kubectl.ok(&[
        "create",
        "service",
        "clusterip",
        "s",
        "--tcp=80",
        "--dry-run=server",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ])?;
    ensure!(service.starts_with("10.96."), "{service:?}");
    let refused = kubectl.fails_with(&["create", "--dry-run=server", "-f", "-"], PLAIN)?;
    ensure!(refused.contains("configmaps \"plain\" already exists"), "{refused}");
    let client = kubectl.ok(&["create", "deployment", "d", "--image=i", "--dry-run=client", "-o", "yaml"])?;
    ensure!(client.contains("kind: Deployment"), "{client}");
    Ok(())
}

fn waits(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(PLAIN)?;
    kubectl.ok(&["wait", "--for=jsonpath={.data.one}=1", "configmap/plain", "--timeout=5s"])?;
    let late = kubectl.fails(&["wait", "--for=jsonpath={.data.one}=2", "configmap/plain", "--timeout=1s"])?;
    ensure!(late.contains("timed out waiting for the condition"), "{late}");
    let mut deletion =
        kubectl.command(&["wait", "--for=delete", "configmap/plain", "--timeout=20s"]).spawn()?;
    kubectl.ok(&["delete", "configmap", "plain"])?;
    ensure!(deletion.wait()?.success());
    let mut creation =
        kubectl.command(&["wait", "--for=create", "configmap/plain", "--timeout=20s"]).spawn()?;
    kubectl.apply(PLAIN)?;
    ensure!(creation.wait()?.success());
    Ok(())
}

fn kinds(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let space = kubectl.namespace();
    kubectl.ok(&["create", "serviceaccount", "robot"])?;
    kubectl.ok(&["create", "role", "reader", "--verb=get,list", "--resource=pods,pods/log"])?;
    kubectl.ok(&[
        "create",
        "rolebinding",
        "readers",
        "--role=reader",
        &format!("--serviceaccount={space}:robot"),
    ])?;
    kubectl.ok(&["create", "clusterrole", "e2e-viewer", "--verb=get", "--resource=nodes"])?;
    kubectl.ok(&[
        "create",
        "clusterrolebinding",
        "e2e-viewers",
        "--clusterrole=e2e-viewer",
        "--group=people",
    ])?;
    kubectl.ok(&["create", "priorityclass", "e2e-high", "--value=1000", "--description=high"])?;
    kubectl.ok(&[
        "create",
        "secret",
        "docker-registry",
        "pull",
        "--docker-username=u",
        "--docker-password=p",
    ])?;
    kubectl.ok(&["create", "service", "nodeport", "np", "--tcp=80:8080"])?;
    kubectl.apply("{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: held}, spec: {holderIdentity: me, leaseDurationSeconds: 15}}")?;
    kubectl.apply("{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: own}, addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.1.2.3]}]}")?;
    let shown = kubectl.ok(&["get", "role,rolebinding,serviceaccount,secret,service,lease,endpointslice"])?;
    for part in ["reader", "robot", "readers", "kubernetes.io/dockerconfigjson", "NodePort", "held", "own"] {
        ensure!(shown.contains(part), "no {part} in {shown}");
    }
    for kind in [
        "role/reader",
        "rolebinding/readers",
        "serviceaccount/robot",
        "secret/pull",
        "service/np",
        "lease/held",
        "endpointslice/own",
    ] {
        let described = kubectl.ok(&["describe", kind])?;
        ensure!(described.starts_with("Name:"), "{described}");
    }
    for kind in [
        "clusterrole/e2e-viewer",
        "clusterrolebinding/e2e-viewers",
        "priorityclass/e2e-high",
        "namespace/default",
    ] {
        let described = kubectl.ok(&["describe", kind])?;
        ensure!(described.starts_with("Name:"), "{described}");
    }
    kubectl.ok(&[
        "delete",
        "clusterrole/e2e-viewer",
        "clusterrolebinding/e2e-viewers",
        "priorityclass/e2e-high",
    ])?;
    Ok(())
}

fn stale(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(PLAIN)?;
    let path = format!("/api/v1/namespaces/{}/configmaps/plain", kubectl.namespace());
    let mut object = stage.api.get(&path)?.json()?;
    object["data"]["one"] = "new".into();
    let put = |body: &Value| stage.api.send("PUT", &path, "application/json", body.to_string().as_bytes());
    let done = put(&object)?;
    ensure!(done.status == 200, "{}", done.text());
    let conflict = put(&object)?;
    ensure!(conflict.status == 409 && conflict.json()?["reason"] == "Conflict", "{}", conflict.text());
    object["metadata"]["resourceVersion"] = Value::Null;
    object["metadata"]["uid"] = "other".into();
    let other = put(&object)?;
    ensure!(other.status == 409, "{}", other.text());
    let precondition = r#"{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"other"}}"#;
    let kept = stage.api.send("DELETE", &path, "application/json", precondition.as_bytes())?;
    ensure!(kept.status == 409, "{}", kept.text());
    Ok(())
}

fn generated(stage: &Stage) -> Result<()> {
    let manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: job-}}";
    let first = stage.kubectl.ok_with(&["create", "-f", "-", "-o", "name"], manifest)?;
    let second = stage.kubectl.ok_with(&["create", "-f", "-", "-o", "name"], manifest)?;
    ensure!(first != second && first.starts_with("configmap/job-"), "{first} {second}");
    Ok(())
}
