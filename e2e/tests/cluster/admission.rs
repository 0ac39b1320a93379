//! What namespaces allow and bound, and what is done to pods while they run: looked into, resized.

use anyhow::{Context, Result, ensure};
use e2e::wait::eventually;

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("quotas_hold_and_give_back", quotas),
    ("limits_are_given_and_kept", limits),
    ("restricted_namespaces_take_restricted_pods", pod_security),
    ("a_running_pod_is_looked_into", debug),
    ("a_running_pod_is_resized", resize),
];

const WORKERS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: workers}
spec:
  replicas: 8
  selector: {matchLabels: {app: workers}}
  template:
    metadata: {labels: {app: workers}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: orlop.dev/e2e-tool:v1
          args: [serve]
          resources: {requests: {cpu: 10m}}
"#;

fn quotas(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.ok(&["create", "quota", "few", "--hard=pods=5,count/deployments.apps=1,requests.cpu=1"])?;
    kubectl.until("quota/few", "{.status.used.pods}", "0")?;
    kubectl.apply(WORKERS)?;
    kubectl.until("quota/few", "{.status.used.pods}", "5")?;
    kubectl.until("deployment/workers", "{.status.readyReplicas}", "5")?;
    let pods = kubectl.ok(&["get", "pods", "-o", "name"])?;
    ensure!(pods.lines().count() == 5, "{pods}");
    let condition = "{.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
    eventually("the deployment says why", || {
        let why = kubectl.path("deployment/workers", condition)?;
        let wanted = "exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5";
        ensure!(why.contains(wanted), "{why}");
        Ok(())
    })?;
    let second = WORKERS.replace("name: workers}\nspec", "name: others}\nspec");
    let refused = kubectl.fails_with(&["create", "-f", "-"], &second)?;
    ensure!(refused.contains("requested: count/deployments.apps=1"), "{refused}");
    let shown = kubectl.ok(&["describe", "quota", "few"])?;
    ensure!(shown.lines().any(|line| line.split_whitespace().eq(["pods", "5", "5"])), "{shown}");
    kubectl.ok(&["scale", "deployment/workers", "--replicas=2"])?;
    kubectl.until("quota/few", "{.status.used.pods}", "2")?;
    kubectl.until("quota/few", "{.status.used['requests\\.cpu']}", "20m")?;
    Ok(())
}

fn limits(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(
        "{apiVersion: v1, kind: LimitRange, metadata: {name: bounds}, spec: {limits: [{type: Container, \
         max: {cpu: 500m}, default: {cpu: 200m}, defaultRequest: {cpu: 20m}}]}}",
    )?;
    let image = "--image=orlop.dev/e2e-tool:v1";
    kubectl.ok(&["run", "modest", image, "--", "serve"])?;
    let resources = kubectl.path("pod/modest", "{.spec.containers[0].resources}")?;
    ensure!(resources == r#"{"limits":{"cpu":"200m"},"requests":{"cpu":"20m"}}"#, "{resources}");
    let overrides = r#"{"spec":{"containers":[{"name":"greedy","image":"orlop.dev/e2e-tool:v1","resources":{"limits":{"cpu":"2"}}}]}}"#;
    let refused = kubectl.fails(&["run", "greedy", image, &format!("--overrides={overrides}")])?;
    ensure!(refused.contains("maximum cpu usage per Container is 500m, but limit is 2"), "{refused}");
    Ok(())
}

fn pod_security(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let label = |level: &str| {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        kubectl.run(&["label", "--overwrite", "namespace", kubectl.namespace(), &label])
    };
    let image = "--image=orlop.dev/e2e-tool:v1";
    kubectl.ok(&["run", "plain", image, "--", "serve"])?;
    let told = label("restricted")?;
    let wanted = format!(
        "Warning: existing pods in namespace \"{}\" violate the new PodSecurity enforce level \"restricted:latest\"",
        kubectl.namespace()
    );
    ensure!(told.code == 0 && told.stderr.contains(&wanted), "{told:?}");
    ensure!(told.stderr.contains("Warning: plain: allowPrivilegeEscalation != false"), "{told:?}");
    let refused = kubectl.fails(&["run", "other", image])?;
    let wanted = "Error from server (Forbidden): pods \"other\" is forbidden: violates PodSecurity \"restricted:latest\": \
                  allowPrivilegeEscalation != false (container \"other\" must set securityContext.allowPrivilegeEscalation=false), ";
    ensure!(refused.starts_with(wanted), "{refused}");
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: good}, spec: {securityContext: {runAsNonRoot: true, runAsUser: 1000, \
         seccompProfile: {type: RuntimeDefault}}, containers: [{name: main, image: 'orlop.dev/e2e-tool:v1', args: [serve], \
         securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}",
    )?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/good", "--timeout=60s"])?;
    Ok(())
}

fn debug(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.ok(&["run", "server", "--image=orlop.dev/e2e-tool:v1", "--", "serve", "8080"])?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/server", "--timeout=60s"])?;
    let look = ["debug", "server", "--image=orlop.dev/e2e-tool:v1", "--arguments-only"];
    let target = [
        "-c",
        "look",
        "--target=server",
        "--",
        "fetch",
        "http://127.0.0.1:8080/",
        ",",
        "cat",
        "/proc/1/cmdline",
    ];
    kubectl.ok(&[&look[..], &target].concat())?;
    let state = "{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}";
    kubectl.until("pod/server", state, "0")?;
    let log = kubectl.ok(&["logs", "server", "-c", "look"])?;
    ensure!(log.starts_with("server 127.0.0.1"), "it does not share the network: {log}");
    ensure!(log.contains("serve\08080"), "it does not see the processes of its target: {log:?}");
    kubectl.ok(&[&look[..], &["-c", "alone", "--", "cat", "/proc/1/cmdline"]].concat())?;
    kubectl.until("pod/server", "{.status.ephemeralContainerStatuses[1].state.terminated.exitCode}", "0")?;
    let log = kubectl.ok(&["logs", "server", "-c", "alone"])?;
    ensure!(!log.contains("serve"), "it sees processes that nobody has shown it: {log:?}");
    kubectl.until("pod/server", "{.status.conditions[?(@.type==\"Ready\")].status}", "True")?;
    Ok(())
}

fn resize(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: server}, spec: {containers: [{name: main, image: 'orlop.dev/e2e-tool:v1', \
         args: [serve], resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}}]}}",
    )?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/server", "--timeout=60s"])?;
    let ask = |resources: &str| -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/server/resize", kubectl.namespace());
        let body = format!(r#"{{"spec":{{"containers":[{{"name":"main","resources":{resources}}}]}}}}"#);
        let kind = "application/strategic-merge-patch+json";
        let answer = stage.api.send("PATCH", &path, kind, body.as_bytes())?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    };
    let limit = || -> Result<String> {
        let one = ["exec", "server", "--", "/tool", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let two = ["exec", "server", "--", "/tool", "cat", "/sys/fs/cgroup/memory.max"];
        let found = kubectl.ok(&one).or_else(|_| kubectl.ok(&two)).context("no memory limit inside")?;
        Ok(found.trim().to_owned())
    };
    ensure!(limit()? == (128 << 20).to_string(), "{}", limit()?);
    let held = "{.status.containerStatuses[0].resources.limits.memory}";
    for (size, bytes) in [("256Mi", 256 << 20), ("96Mi", 96 << 20)] {
        ask(&format!(r#"{{"requests":{{"memory":"64Mi"}},"limits":{{"memory":"{size}","cpu":"300m"}}}}"#))?;
        kubectl.until("pod/server", held, size)?;
        ensure!(limit()? == bytes.to_string(), "{size}: {}", limit()?);
    }
    let pending = "{.status.conditions[?(@.type==\"PodResizePending\")].reason}";
    ask(r#"{"requests":{"cpu":"5000"},"limits":{"cpu":"5000"}}"#)?;
    kubectl.until("pod/server", pending, "Infeasible")?;
    ask(r#"{"requests":{"cpu":"50m"},"limits":{"cpu":"300m"}}"#)?;
    kubectl.until("pod/server", pending, "")?;
    let restarts = kubectl.path("pod/server", "{.status.containerStatuses[0].restartCount}")?;
    ensure!(restarts == "0", "it was started anew {restarts} times");
    Ok(())
}
