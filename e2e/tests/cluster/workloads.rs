//! Deployments, DaemonSets, and what is done to nodes.

use anyhow::{Context, Result, ensure};
use e2e::wait::eventually;

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("the_examples_run", examples),
    ("a_deployment_is_scaled", scale),
    ("a_rollout_goes_forth_and_back", rollout),
    ("a_paused_rollout_waits", paused),
    ("a_bad_rollout_stalls", stalled),
    ("a_daemon_set_follows_its_template", daemon_set),
    ("a_drained_node_is_empty", drain),
    ("a_taint_keeps_pods_away", taint),
    ("generators_make_workloads", generators),
];

/// As the documentation of Kubernetes shows its first Deployment, with an image that is here.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: server
          image: orlop.dev/e2e-tool:v1
          ports: [{containerPort: 8080}]
          resources: {requests: {cpu: 10m, memory: 16Mi}}
"#;

fn examples(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    kubectl.ok(&["apply", "-f", folder])?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    kubectl.ok(&["rollout", "status", "daemonset/node-watch", "--timeout=60s"])?;
    ensure!(
        kubectl.path("deployment/web", "{.metadata.generation}")? == "1",
        "the rollout made a generation"
    );
    let versions = || {
        kubectl.ok(&["get", "deployment,service,daemonset", "-o", "jsonpath={.items[*].metadata.generation}"])
    };
    let before = versions()?;
    let again = kubectl.ok(&["apply", "-f", folder])?;
    ensure!(again.contains("service/web unchanged"), "{again}");
    ensure!(versions()? == before, "applied again, it is another");
    let nodes = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
    let mut nodes: Vec<&str> = nodes.split(' ').collect();
    nodes.sort_unstable();
    ensure!(nodes == ["node-1", "node-2", "node-3"], "the web pods are on {nodes:?}");
    let diff = kubectl.run(&["diff", "-f", folder])?;
    ensure!(diff.code == 0 && diff.stdout.is_empty(), "{diff:?}");
    kubectl.ok(&["delete", "-f", folder, "--timeout=60s"])?;
    Ok(())
}

fn scale(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(WEB)?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let said = kubectl.ok(&["scale", "deployment/web", "--replicas=5"])?;
    ensure!(said == "deployment.apps/web scaled\n", "{said}");
    kubectl.until("deployment/web", "{.status.readyReplicas}", "5")?;
    let refused = kubectl.fails(&["scale", "deployment/web", "--current-replicas=9", "--replicas=1"])?;
    ensure!(refused.contains("Expected replicas to be 9, was 5"), "{refused}");
    kubectl.ok(&["scale", "deployment/web", "--replicas=0"])?;
    eventually("all pods are gone", || {
        let pods = kubectl.ok(&["get", "pods", "-o", "name"])?;
        ensure!(pods.is_empty(), "{pods}");
        Ok(())
    })?;
    let shown = kubectl.ok(&["get", "deployment", "web", "--no-headers"])?;
    ensure!(shown.split_whitespace().nth(1) == Some("0/0"), "{shown}");
    // A ReplicaSet of its own, and one that adopts a pod that matches.
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: stray, labels: {app: lone}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'orlop.dev/e2e-tool:v1'}]}}",
    )?;
    kubectl.apply(&WEB.replace("Deployment", "ReplicaSet").replace("web", "lone"))?;
    kubectl.until("replicaset/lone", "{.status.readyReplicas}", "2")?;
    ensure!(kubectl.path("pod/stray", "{.metadata.ownerReferences[0].name}")? == "lone");
    kubectl.ok(&["label", "pod", "stray", "app=free", "--overwrite"])?;
    eventually("the stray is released and replaced", || {
        ensure!(kubectl.path("pod/stray", "{.metadata.ownerReferences}")?.is_empty());
        ensure!(kubectl.ok(&["get", "pods", "-l", "app=lone", "-o", "name"])?.lines().count() == 2);
        Ok(())
    })
}

fn rollout(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(WEB)?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let said = kubectl.ok(&["set", "env", "deployment/web", "RELEASE=two"])?;
    ensure!(said == "deployment.apps/web env updated\n", "{said}");
    let status = kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ensure!(status.ends_with("deployment \"web\" successfully rolled out\n"), "{status}");
    kubectl.ok(&["set", "image", "deployment/web", "server=orlop.dev/demo:v1"])?;
    kubectl.ok(&["annotate", "deployment/web", "kubernetes.io/change-cause=another image"])?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    eventually("the history has three revisions", || {
        let history = kubectl.ok(&["rollout", "history", "deployment/web"])?;
        let revisions: Vec<&str> =
            history.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
        ensure!(revisions == ["1", "2", "3"] && history.contains("another image"), "{history}");
        Ok(())
    })?;
    let second = kubectl.ok(&["rollout", "history", "deployment/web", "--revision=2"])?;
    ensure!(second.contains("RELEASE:\ttwo") && second.contains("orlop.dev/e2e-tool:v1"), "{second}");
    let said = kubectl.ok(&["rollout", "undo", "deployment/web"])?;
    ensure!(said == "deployment.apps/web rolled back\n", "{said}");
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ensure!(
        kubectl.path("deployment/web", "{.spec.template.spec.containers[0].image}")?
            == "orlop.dev/e2e-tool:v1"
    );
    kubectl.ok(&["rollout", "undo", "deployment/web", "--to-revision=1"])?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ensure!(kubectl.path("deployment/web", "{.spec.template.spec.containers[0].env}")?.is_empty());
    let before = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "name"])?;
    kubectl.ok(&["rollout", "restart", "deployment/web"])?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    eventually("only new pods are left", || {
        let after = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "name"])?;
        ensure!(
            after.lines().count() == 2 && after.lines().all(|pod| !before.contains(pod)),
            "{before} and {after}"
        );
        Ok(())
    })?;
    let described = kubectl.ok(&["describe", "deployment", "web"])?;
    for part in [
        "OldReplicaSets:",
        "NewReplicaSet:",
        "ScalingReplicaSet",
        "2 desired | 2 updated | 2 total | 2 available",
    ] {
        ensure!(described.contains(part), "no {part:?} in {described}");
    }
    Ok(())
}

fn paused(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(WEB)?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ensure!(kubectl.ok(&["rollout", "pause", "deployment/web"])? == "deployment.apps/web paused\n");
    kubectl.ok(&["set", "env", "deployment/web", "RELEASE=two"])?;
    kubectl.ok(&["set", "resources", "deployment/web", "--limits=memory=100Mi"])?;
    let generation = kubectl.path("deployment/web", "{.metadata.generation}")?;
    kubectl.until("deployment/web", "{.status.observedGeneration}", &generation)?;
    ensure!(kubectl.ok(&["get", "replicasets", "-o", "name"])?.lines().count() == 1);
    let refused = kubectl.fails(&["rollout", "undo", "deployment/web", "--to-revision=1"])?;
    ensure!(refused.contains("paused"), "{refused}");
    ensure!(kubectl.ok(&["rollout", "resume", "deployment/web"])? == "deployment.apps/web resumed\n");
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ensure!(kubectl.ok(&["get", "replicasets", "-o", "name"])?.lines().count() == 2);
    Ok(())
}

fn stalled(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(&WEB.replace("replicas: 2", "replicas: 2\n  progressDeadlineSeconds: 3"))?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"server","image":"orlop.dev/nothing:v9","imagePullPolicy":"Never"}]}}}}"#;
    kubectl.ok(&["patch", "deployment", "web", "-p", patch])?;
    let status = kubectl.fails(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ensure!(status.contains("exceeded its progress deadline"), "{status}");
    ensure!(kubectl.path("deployment/web", "{.status.availableReplicas}")? == "2");
    kubectl.ok(&["rollout", "undo", "deployment/web"])?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    Ok(())
}

fn daemon_set(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let manifest =
        WEB.replace("Deployment", "DaemonSet").replace("  replicas: 2\n", "").replace("web", "agent");
    kubectl.apply(&manifest)?;
    kubectl.ok(&["rollout", "status", "daemonset/agent", "--timeout=60s"])?;
    let shown = kubectl.ok(&["get", "daemonset", "agent", "--no-headers"])?;
    ensure!(shown.split_whitespace().skip(1).take(5).all(|count| count == "3"), "{shown}");
    kubectl.ok(&["set", "env", "daemonset/agent", "RELEASE=two"])?;
    kubectl.ok(&["rollout", "status", "daemonset/agent", "--timeout=90s"])?;
    let history = kubectl.ok(&["rollout", "history", "daemonset/agent"])?;
    ensure!(history.lines().skip(2).filter(|line| !line.is_empty()).count() == 2, "{history}");
    ensure!(kubectl.ok(&["get", "controllerrevisions", "-o", "name"])?.lines().count() == 2);
    kubectl.ok(&["rollout", "undo", "daemonset/agent"])?;
    kubectl.ok(&["rollout", "status", "daemonset/agent", "--timeout=90s"])?;
    ensure!(kubectl.path("daemonset/agent", "{.spec.template.spec.containers[0].env}")?.is_empty());
    let patch = r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node-2"}}}}}"#;
    kubectl.ok(&["patch", "daemonset", "agent", "-p", patch])?;
    kubectl.until("daemonset/agent", "{.status.desiredNumberScheduled}", "1")?;
    eventually("only the pod on node-2 is left", || {
        let nodes = kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
        ensure!(nodes == "node-2", "pods are on {nodes}");
        Ok(())
    })
}

fn drain(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let spread = "terminationGracePeriodSeconds: 1\n      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}]";
    kubectl.apply(
        &WEB.replace("terminationGracePeriodSeconds: 1", spread).replace("replicas: 2", "replicas: 3"),
    )?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let said = kubectl.ok(&["cordon", "node-3"])?;
    ensure!(said == "node/node-3 cordoned\n", "{said}");
    let shown = kubectl.ok(&["get", "node", "node-3", "--no-headers"])?;
    // Whatever is seen, other tests need the node.
    let drained =
        kubectl.ok(&["drain", "node-3", "--pod-selector=app=web", "--ignore-daemonsets", "--timeout=60s"]);
    let uncordoned = kubectl.ok(&["uncordon", "node-3"]);
    ensure!(shown.contains("Ready,SchedulingDisabled"), "{shown}");
    let drained = drained?;
    ensure!(drained.contains("node/node-3 drained") && drained.contains("evicted"), "{drained}");
    ensure!(uncordoned? == "node/node-3 uncordoned\n");
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    kubectl.until("deployment/web", "{.status.readyReplicas}", "3")
}

fn taint(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, {more} \
             nodeSelector: {{kubernetes.io/hostname: node-1}}, containers: [{{name: c, image: 'orlop.dev/e2e-tool:v1'}}]}}}}"
        )
    };
    kubectl.ok(&["taint", "node", "node-1", "e2e=held:NoSchedule"])?;
    let held = kubectl.apply(&pod("held", "")).and_then(|_| {
        eventually("the pod cannot be scheduled", || {
            let message =
                kubectl.path("pod/held", "{.status.conditions[?(@.type==\"PodScheduled\")].message}")?;
            ensure!(message.starts_with("0/3 nodes are available:"), "{message:?}");
            ensure!(message.contains("1 node(s) had untolerated taint"), "{message:?}");
            Ok(())
        })?;
        kubectl.apply(&pod("tolerant", "tolerations: [{key: e2e, operator: Exists}],"))?;
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/tolerant", "--timeout=30s"])
    });
    kubectl.ok(&["taint", "node", "node-1", "e2e-"])?;
    held?;
    kubectl
        .ok(&["wait", "--for=condition=Ready", "pod/held", "--timeout=30s"])
        .context("the taint is gone")?;
    let events = kubectl.ok(&["events", "--for=pod/held"])?;
    ensure!(events.contains("FailedScheduling") && events.contains("Successfully assigned"), "{events}");
    Ok(())
}

fn generators(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.ok(&[
        "create",
        "deployment",
        "quick",
        "--image=orlop.dev/e2e-tool:v1",
        "--replicas=2",
        "--port=8080",
        "--",
        "/tool",
        "serve",
    ])?;
    kubectl.ok(&["expose", "deployment", "quick", "--port=80", "--target-port=8080"])?;
    kubectl.ok(&["wait", "deployment/quick", "--for=condition=Available", "--timeout=60s"])?;
    kubectl.ok(&["run", "lone", "--image=orlop.dev/e2e-tool:v1", "--labels=kind=lone", "--env=A=b"])?;
    kubectl.ok(&["wait", "pod/lone", "--for=condition=Ready", "--timeout=60s"])?;
    eventually("the endpoints are there", || {
        let addresses = kubectl.path("endpoints/quick", "{.subsets[0].addresses[*].ip}")?;
        ensure!(addresses.split(' ').count() == 2, "{addresses:?}");
        Ok(())
    })?;
    ensure!(kubectl.ok(&["exec", "lone", "--", "/tool", "fetch", "http://quick/"])?.starts_with("quick-"));
    kubectl.ok(&["delete", "pod", "lone", "--grace-period=1"])?;
    Ok(())
}
