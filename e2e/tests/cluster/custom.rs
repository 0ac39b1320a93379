//! Custom resources: defined, explained, used, and gone with what they rest on.

use anyhow::{Result, ensure};
use e2e::wait::eventually;

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("custom_resources_are_served_when_they_are_defined", lifecycle),
    ("a_namespace_takes_its_custom_resources", namespace),
    ("custom_resources_own_and_are_owned", ownership),
    ("a_definition_takes_its_objects", definition),
];

/// Defines `plural` in a group of its own, with a status, a scale, a column and a rule.
fn define(stage: &Stage, plural: &str) -> Result<()> {
    let kind = plural.trim_end_matches('s');
    stage.kubectl.apply(&format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {plural}.e2e.example.com}}, spec: {{\
         group: e2e.example.com, scope: Namespaced, names: {{plural: {plural}, singular: {kind}, kind: {kind}kind}}, versions: [{{\
         name: v1, served: true, storage: true, subresources: {{status: {{}}, scale: {{specReplicasPath: .spec.size, \
         statusReplicasPath: .status.size}}}}, additionalPrinterColumns: [{{name: Size, type: integer, jsonPath: .spec.size}}], \
         schema: {{openAPIV3Schema: {{type: object, properties: {{spec: {{type: object, description: What is wanted., \
         x-kubernetes-validations: [{{rule: self.size <= self.most, message: size is above most}}], properties: {{\
         size: {{type: integer, default: 1}}, most: {{type: integer, default: 9}}}}}}, \
         status: {{type: object, properties: {{size: {{type: integer}}}}}}}}}}}}}}]}}}}"
    ))?;
    let definition = format!("crd/{plural}.e2e.example.com");
    stage.kubectl.ok(&["wait", "--for=condition=established", &definition, "--timeout=1s"])?;
    Ok(())
}

fn object(plural: &str, name: &str, rest: &str) -> String {
    let kind = plural.trim_end_matches('s');
    format!(
        "{{apiVersion: e2e.example.com/v1, kind: {kind}kind, metadata: {{name: {name}}}, spec: {{{rest}}}}}"
    )
}

fn lifecycle(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    define(stage, "alphas")?;
    let explained = kubectl.ok(&["explain", "alpha.spec"])?;
    ensure!(explained.contains("What is wanted.") && explained.contains("most"), "{explained}");
    ensure!(kubectl.ok(&["api-resources"])?.contains("alphas"));
    kubectl.apply(&object("alphas", "a", ""))?;
    kubectl.ok(&["scale", "alpha/a", "--replicas=3"])?;
    let table = kubectl.ok(&["get", "alphas"])?;
    ensure!(
        table.contains("SIZE") && table.lines().any(|line| line.starts_with('a') && line.contains('3')),
        "{table}"
    );
    let refused =
        kubectl.fails(&["patch", "alpha", "a", "--type=merge", "-p", "{\"spec\":{\"size\":10}}"])?;
    ensure!(refused.contains("size is above most"), "{refused}");
    kubectl.ok(&["delete", "crd", "alphas.e2e.example.com", "--timeout=30s"])?;
    Ok(())
}

fn namespace(stage: &Stage) -> Result<()> {
    define(stage, "betas")?;
    let kubectl = stage.kubectl.namespaced("e2e-custom");
    kubectl.ok(&["create", "namespace", "e2e-custom"])?;
    kubectl.apply(&object("betas", "b", ""))?;
    // The definition is as new as can be: the namespace waits until it is known what may be in it.
    kubectl.ok(&["delete", "namespace", "e2e-custom", "--timeout=30s"])?;
    kubectl.ok(&["create", "namespace", "e2e-custom"])?;
    let left = kubectl.ok(&["get", "betas", "-o", "name"])?;
    ensure!(left.is_empty(), "{left}");
    kubectl.ok(&["delete", "namespace", "e2e-custom", "--wait=false"])?;
    kubectl.ok(&["delete", "crd", "betas.e2e.example.com", "--timeout=30s"])?;
    Ok(())
}

fn ownership(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    define(stage, "gammas")?;
    kubectl.apply(&object("gammas", "owner", ""))?;
    let uid = kubectl.ok(&["get", "gamma", "owner", "-o", "jsonpath={.metadata.uid}"])?;
    kubectl.apply(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, ownerReferences: [{{apiVersion: e2e.example.com/v1, \
         kind: gammakind, name: owner, uid: {uid}}}]}}}}"
    ))?;
    kubectl.ok(&["delete", "gamma", "owner"])?;
    eventually("the owned is gone", || {
        let left = kubectl.ok(&["get", "configmap", "owned", "--ignore-not-found", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    kubectl.ok(&["delete", "crd", "gammas.e2e.example.com", "--timeout=30s"])?;
    Ok(())
}

fn definition(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    define(stage, "deltas")?;
    for name in ["a", "b"] {
        kubectl.apply(&object("deltas", name, "size: 2"))?;
    }
    kubectl.ok(&["delete", "crd", "deltas.e2e.example.com", "--timeout=30s"])?;
    let gone = kubectl.fails(&["get", "deltas"])?;
    ensure!(gone.contains("doesn't have a resource type") || gone.contains("could not find"), "{gone}");
    define(stage, "deltas")?;
    ensure!(kubectl.ok(&["get", "deltas", "-o", "name"])?.is_empty(), "objects outlive their definition");
    kubectl.ok(&["delete", "crd", "deltas.e2e.example.com", "--timeout=30s"])?;
    Ok(())
}
