//! What kubectl can ask and show: output forms, discovery, explanations.

use anyhow::{Result, ensure};
use e2e::wait::eventually;

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("objects_are_shown_in_every_form", forms),
    ("lists_are_sorted_and_watched", sorted),
    ("fields_are_explained", explain),
    ("resources_are_discovered", discovery),
    ("nodes_are_described", nodes),
    ("events_are_listed", events),
    ("health_and_metrics_are_served", health),
];

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: shown, labels: {app: shown}}, spec: {terminationGracePeriodSeconds: 1, \
                   containers: [{name: main, image: 'orlop.dev/e2e-tool:v1'}]}}";

fn forms(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(POD)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/shown", "--timeout=30s"])?;
    let check = |form: &str, parts: &[&str]| -> Result<()> {
        let text = kubectl.ok(&["get", "pod", "shown", "-o", form])?;
        for part in parts {
            ensure!(text.contains(part), "-o {form}: no {part:?} in\n{text}");
        }
        Ok(())
    };
    let address = kubectl.path("pod/shown", "{.status.podIP}")?;
    check(
        "wide",
        &[
            "NAME ",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP ",
            "NODE ",
            "NOMINATED NODE",
            "READINESS GATES",
            "1/1",
            "Running",
            &address,
        ],
    )?;
    check(
        "yaml",
        &["apiVersion: v1\nkind: Pod\nmetadata:\n", "  name: shown\n", "status:\n", "  phase: Running\n"],
    )?;
    check("json", &["\"kind\": \"Pod\"", "\"phase\": \"Running\""])?;
    check("name", &["pod/shown\n"])?;
    check("jsonpath={.metadata.name}/{.spec.containers[0].image}", &["shown/orlop.dev/e2e-tool:v1"])?;
    check(
        "jsonpath={range .status.conditions[*]}{.type}={.status};{end}",
        &["Ready=True;", "PodScheduled=True;"],
    )?;
    check("go-template={{.metadata.name}}!", &["shown!"])?;
    check("custom-columns=NAME:.metadata.name,NODE:.spec.nodeName", &["NAME    NODE", "shown   node-"])?;
    let many = kubectl.ok(&["get", "pods,serviceaccounts,configmaps"])?;
    ensure!(
        many.contains("pod/shown")
            && many.contains("serviceaccount/default")
            && many.contains("configmap/kube-root-ca.crt"),
        "{many}"
    );
    let list = kubectl.ok(&["get", "pods", "-o", "yaml"])?;
    ensure!(list.starts_with("apiVersion: v1\nitems:\n") && list.contains("kind: List"), "{list}");
    let column = kubectl.ok(&["get", "pods", "-L", "app", "--no-headers"])?;
    ensure!(column.trim_end().ends_with("shown"), "{column}");
    let none = kubectl.run(&["get", "deployments"])?;
    ensure!(none.code == 0 && none.stderr.starts_with("No resources found in"), "{none:?}");
    let unknown = kubectl.fails(&["get", "gadgets"])?;
    ensure!(unknown.contains("the server doesn't have a resource type \"gadgets\""), "{unknown}");
    let all = kubectl.ok(&["get", "pods", "-A"])?;
    ensure!(all.starts_with("NAMESPACE"), "{all}");
    let described = kubectl.ok(&["describe", "pod", "shown"])?;
    for part in [
        "Status:           Running",
        "Controlled",
        "Conditions:",
        "QoS Class:                   BestEffort",
        "Events:",
    ] {
        ensure!(part == "Controlled" || described.contains(part), "no {part:?} in\n{described}");
    }
    Ok(())
}

fn sorted(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    for (name, weight) in [("z", "a"), ("y", "c"), ("x", "b")] {
        kubectl.ok(&["create", "configmap", name, &format!("--from-literal=weight={weight}")])?;
    }
    let names = kubectl.ok(&[
        "get",
        "configmaps",
        "--field-selector=metadata.name!=kube-root-ca.crt",
        "--sort-by={.data.weight}",
        "-o",
        "name",
    ])?;
    ensure!(names == "configmap/z\nconfigmap/x\nconfigmap/y\n", "{names}");
    let watch = kubectl
        .command(&["get", "configmap", "x", "--watch", "-o", "jsonpath={.data.weight}{\"\\n\"}"])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut watch = KillOnDrop(watch);
    let out = watch.0.stdout.take();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(out.ok_or_else(|| anyhow::anyhow!("no output"))?));
    ensure!(lines.next().transpose()?.as_deref() == Some("b"));
    kubectl.ok(&["patch", "configmap", "x", "-p", r#"{"data":{"weight":"d"}}"#])?;
    ensure!(lines.next().transpose()?.as_deref() == Some("d"));
    Ok(())
}

struct KillOnDrop(std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn explain(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let pod = kubectl.ok(&["explain", "pod.spec.containers"])?;
    for part in [
        "KIND:       Pod",
        "VERSION:    v1",
        "FIELD: containers <[]Container>",
        "image\t<string>",
        "name\t<string> -required-",
    ] {
        ensure!(pod.contains(part), "no {part:?} in\n{pod}");
    }
    let deployment = kubectl.ok(&["explain", "deployment.spec.strategy", "--recursive"])?;
    ensure!(deployment.contains("GROUP:      apps") && deployment.contains("maxSurge"), "{deployment}");
    for kind in
        ["service", "configmap", "node", "daemonset", "clusterrole", "endpointslice", "lease", "namespace"]
    {
        ensure!(kubectl.ok(&["explain", kind])?.contains("VERSION:"));
    }
    let unknown = kubectl.fails(&["explain", "pod.spec.nonsense"])?;
    ensure!(unknown.contains("field \"nonsense\" does not exist"), "{unknown}");
    Ok(())
}

fn discovery(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let resources = kubectl.ok(&["api-resources"])?;
    for part in
        ["configmaps                          cm", "deployments                         deploy", "NAME "]
    {
        let part: Vec<&str> = part.split_whitespace().collect();
        let found =
            resources.lines().any(|line| line.split_whitespace().take(part.len()).eq(part.iter().copied()));
        ensure!(found, "no {part:?} in\n{resources}");
    }
    let named = kubectl.ok(&["api-resources", "--api-group=apps", "-o", "name", "--namespaced=true"])?;
    ensure!(
        named.lines().collect::<std::collections::BTreeSet<_>>().is_superset(
            &["deployments.apps", "daemonsets.apps", "replicasets.apps", "controllerrevisions.apps"].into()
        ),
        "{named}"
    );
    let verbs = kubectl.ok(&["api-resources", "-o", "wide"])?;
    ensure!(verbs.contains("create,delete,deletecollection,get,list,patch,update,watch"), "{verbs}");
    let versions = kubectl.ok(&["api-versions"])?;
    for version in
        ["v1", "apps/v1", "rbac.authorization.k8s.io/v1", "discovery.k8s.io/v1", "coordination.k8s.io/v1"]
    {
        ensure!(versions.lines().any(|line| line == version), "no {version} in {versions}");
    }
    let cluster = kubectl.ok(&["cluster-info"])?;
    ensure!(cluster.contains("is running at"), "{cluster}");
    let version = kubectl.ok(&["version"])?;
    ensure!(version.contains("Server Version: v1.") && version.contains("+orlop"), "{version}");
    ensure!(kubectl.ok(&["config", "view", "--minify"])?.contains("DATA+OMITTED"));
    ensure!(stage.api.get("/openapi/v2")?.status == 200);
    ensure!(stage.api.get("/openapi/v3")?.json()?["paths"]["apis/apps/v1"]["serverRelativeURL"].is_string());
    Ok(())
}

fn nodes(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let shown = kubectl.ok(&["get", "nodes", "-o", "wide", "--no-headers"])?;
    ensure!(
        shown.lines().count() == 3
            && shown
                .lines()
                .all(|line| line.contains(" Ready") && line.contains("10.89.") && line.contains("orlop://")),
        "{shown}"
    );
    let described = kubectl.ok(&["describe", "node", "node-1"])?;
    for part in
        ["PodCIDR:", "KubeletReady", "Allocatable:", "Non-terminated Pods:", "Allocated resources:", "Lease:"]
    {
        ensure!(described.contains(part), "no {part:?} in\n{described}");
    }
    Ok(())
}

fn events(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(POD)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/shown", "--timeout=30s"])?;
    eventually("the events of the pod", || {
        let events = kubectl.ok(&[
            "get",
            "events",
            "--field-selector=involvedObject.kind=Pod,involvedObject.name=shown",
            "-o",
            "jsonpath={.items[*].reason}",
        ])?;
        let mut reasons: Vec<&str> = events.split(' ').collect();
        reasons.sort_unstable();
        ensure!(reasons == ["Created", "Pulled", "Scheduled", "Started"], "{reasons:?}");
        Ok(())
    })?;
    let listed = kubectl.ok(&["events", "--for=pod/shown", "--types=Normal"])?;
    ensure!(listed.contains("Successfully assigned") && listed.contains("Scheduled"), "{listed}");
    let newer = kubectl.ok(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"])?;
    ensure!(newer.contains("Scheduled"), "{newer}");
    Ok(())
}

fn health(stage: &Stage) -> Result<()> {
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = stage.api.get(path)?;
        ensure!(answer.status == 200 && answer.text() == "ok", "{path}: {}", answer.text());
        let verbose = stage.api.get(&format!("{path}?verbose"))?.text();
        ensure!(verbose.contains("[+]ping ok") && verbose.contains("check passed"), "{path}: {verbose}");
    }
    let metrics = stage.api.get("/metrics")?;
    ensure!(metrics.status == 200 && metrics.text().contains("apiserver_request"), "{}", metrics.text());
    ensure!(stage.kubectl.ok(&["get", "--raw", "/version"])?.contains("gitVersion"));
    Ok(())
}
