//! Deletion: grace, cascades, finalizers, namespaces.

use anyhow::{Result, ensure};
use e2e::wait::eventually;

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("a_background_deletion_takes_the_owned", background),
    ("a_foreground_deletion_takes_the_owned_first", foreground),
    ("an_orphaning_deletion_leaves_the_owned", orphan),
    ("a_finalizer_holds_a_deletion", finalizer),
    ("a_namespace_takes_what_is_in_it", namespace),
    ("a_forced_deletion_waits_for_nobody", force),
];

fn deploy(stage: &Stage) -> Result<()> {
    stage.kubectl.apply(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: \
         {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'orlop.dev/e2e-tool:v1'}]}}}}",
    )?;
    stage.kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    Ok(())
}

fn all_gone(stage: &Stage) -> Result<()> {
    eventually("ReplicaSets and pods are gone", || {
        let left = stage.kubectl.ok(&["get", "replicasets,pods", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

fn background(stage: &Stage) -> Result<()> {
    deploy(stage)?;
    let said = stage.kubectl.ok(&["delete", "deployment", "web"])?;
    ensure!(said.starts_with("deployment.apps \"web\" deleted"), "{said}");
    all_gone(stage)
}

fn foreground(stage: &Stage) -> Result<()> {
    deploy(stage)?;
    stage.kubectl.ok(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=60s"])?;
    let left = stage.kubectl.ok(&["get", "replicasets,pods", "-o", "name"])?;
    ensure!(left.is_empty(), "the owner went before what it owns: {left}");
    Ok(())
}

fn orphan(stage: &Stage) -> Result<()> {
    deploy(stage)?;
    let kubectl = &stage.kubectl;
    kubectl.ok(&["delete", "deployment", "web", "--cascade=orphan", "--timeout=30s"])?;
    let left = kubectl.ok(&["get", "replicasets", "-o", "jsonpath={.items[*].metadata.ownerReferences}"])?;
    ensure!(left.is_empty(), "{left}");
    kubectl.ok(&["delete", "replicasets", "--all", "--cascade=orphan", "--timeout=30s"])?;
    let pods = kubectl.ok(&["get", "pods", "-l", "app=web", "--no-headers"])?;
    ensure!(pods.lines().count() == 2 && pods.lines().all(|line| line.contains("Running")), "{pods}");
    let owners = kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].metadata.ownerReferences}"])?;
    ensure!(owners.is_empty(), "{owners}");
    kubectl.ok(&["delete", "pods", "--all", "--timeout=30s"])?;
    Ok(())
}

fn finalizer(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: held, finalizers: [example.com/hold]}}")?;
    kubectl.ok(&["delete", "configmap", "held", "--wait=false"])?;
    ensure!(!kubectl.path("configmap/held", "{.metadata.deletionTimestamp}")?.is_empty());
    let refused = kubectl.fails(&[
        "patch",
        "configmap",
        "held",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":["example.com/hold","example.com/more"]}}"#,
    ])?;
    ensure!(refused.contains("no new finalizers can be added if the object is being deleted"), "{refused}");
    kubectl.ok(&[
        "patch",
        "configmap",
        "held",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ])?;
    ensure!(kubectl.fails(&["get", "configmap", "held"])?.contains("NotFound"));
    Ok(())
}

fn namespace(stage: &Stage) -> Result<()> {
    let outside = &stage.kubectl;
    outside.ok(&["create", "namespace", "e2e-doomed"])?;
    let kubectl = outside.namespaced("e2e-doomed");
    eventually("the namespace has its default account", || {
        kubectl.ok(&["get", "serviceaccount", "default"])
    })?;
    kubectl.ok(&["create", "configmap", "a"])?;
    kubectl.ok(&["create", "deployment", "d", "--image=orlop.dev/demo:v1", "--replicas=2"])?;
    kubectl.ok(&["rollout", "status", "deployment/d", "--timeout=60s"])?;
    kubectl.ok(&["delete", "namespace", "e2e-doomed", "--wait=false"])?;
    let late = kubectl.fails(&["create", "configmap", "late"])?;
    ensure!(late.contains("because it is being terminated") || late.contains("not found"), "{late}");
    kubectl.ok(&["wait", "--for=delete", "namespace/e2e-doomed", "--timeout=60s"])?;
    ensure!(kubectl.ok(&["get", "pods,configmaps,deployments", "-o", "name"])?.is_empty());
    let protected = outside.fails(&["delete", "namespace", "kube-system"])?;
    ensure!(
        protected.contains("forbidden") && protected.contains("this namespace may not be deleted"),
        "{protected}"
    );
    Ok(())
}

fn force(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: stubborn}, spec: {terminationGracePeriodSeconds: 600, containers: \
         [{name: c, image: 'orlop.dev/e2e-tool:v1', lifecycle: {preStop: {sleep: {seconds: 500}}}}]}}",
    )?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/stubborn", "--timeout=30s"])?;
    kubectl.ok(&["delete", "pod", "stubborn", "--wait=false"])?;
    ensure!(kubectl.ok(&["get", "pod", "stubborn"])?.contains("Terminating"));
    let output =
        kubectl.run(&["delete", "pod", "stubborn", "--force", "--grace-period=0", "--timeout=20s"])?;
    ensure!(output.code == 0 && output.stderr.contains("Immediate deletion"), "{output:?}");
    ensure!(kubectl.fails(&["get", "pod", "stubborn"])?.contains("NotFound"));
    Ok(())
}
