//! Who may do what: RBAC, tokens, pods that ask the API.

use anyhow::{Context, Result, ensure};
use e2e::https::Api;
use e2e::wait::eventually;

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("questions_of_access_are_answered", can_i),
    ("a_token_goes_as_far_as_its_roles", token),
    ("a_pod_reaches_the_api_by_name", from_pod),
    ("strangers_see_nothing", strangers),
    ("nobody_grants_what_they_lack", escalation),
];

fn grant(stage: &Stage, account: &str) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.ok(&["create", "serviceaccount", account])?;
    kubectl.ok(&["create", "role", "pod-reader", "--verb=get,list,watch", "--resource=pods"])?;
    let subject = format!("--serviceaccount={}:{account}", kubectl.namespace());
    kubectl.ok(&["create", "rolebinding", "read-pods", "--role=pod-reader", &subject])?;
    Ok(())
}

fn can_i(stage: &Stage) -> Result<()> {
    grant(stage, "robot")?;
    let kubectl = &stage.kubectl;
    let robot = format!("--as=system:serviceaccount:{}:robot", kubectl.namespace());
    ensure!(kubectl.ok(&["auth", "can-i", "create", "deployments"])?.trim() == "yes");
    ensure!(kubectl.ok(&["auth", "can-i", "list", "pods", &robot])?.trim() == "yes");
    let no = kubectl.run(&["auth", "can-i", "delete", "pods", &robot])?;
    ensure!(no.code == 1 && no.stdout.trim() == "no", "{no:?}");
    let list = kubectl.ok(&["auth", "can-i", "--list", &robot])?;
    ensure!(
        list.lines().any(|line| line.starts_with("pods ") && line.contains("[get list watch]")),
        "{list}"
    );
    let me = kubectl.ok(&["auth", "whoami"])?;
    ensure!(me.contains("kubernetes-admin") && me.contains("system:masters"), "{me}");
    let refused = kubectl.fails(&["get", "secrets", &robot])?;
    let wanted = format!(
        "Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:{0}:robot\" cannot list resource \"secrets\" \
         in API group \"\" in the namespace \"{0}\"",
        kubectl.namespace()
    );
    ensure!(refused.starts_with(&wanted), "{refused}");
    let node =
        kubectl.fails(&["get", "secrets", "-A", "--as=system:node:node-1", "--as-group=system:nodes"])?;
    ensure!(node.contains("forbidden"), "{node}");
    Ok(())
}

fn token(stage: &Stage) -> Result<()> {
    grant(stage, "robot")?;
    let kubectl = &stage.kubectl;
    let space = kubectl.namespace();
    let token = kubectl.ok(&["create", "token", "robot", "--duration=600s"])?;
    ensure!(token.trim().split('.').count() == 3, "{token}");
    let api = stage.api.anonymous()?.with_token(token.trim());
    let pods = api.get(&format!("/api/v1/namespaces/{space}/pods"))?;
    ensure!(pods.status == 200, "{}", pods.text());
    let secrets = api.get(&format!("/api/v1/namespaces/{space}/secrets"))?;
    ensure!(secrets.status == 403 && secrets.json()?["reason"] == "Forbidden", "{}", secrets.text());
    ensure!(api.get("/api/v1/namespaces/default/pods")?.status == 403);
    let broken = stage.api.anonymous()?.with_token(&format!("{}x", token.trim())).get("/api/v1/nodes")?;
    ensure!(broken.status == 401 && broken.json()?["reason"] == "Unauthorized", "{}", broken.text());
    kubectl.ok(&["delete", "serviceaccount", "robot"])?;
    eventually("the token of a deleted account is worth nothing", || {
        let gone = api.get(&format!("/api/v1/namespaces/{space}/pods"))?;
        ensure!(gone.status == 401, "{}", gone.text());
        Ok(())
    })
}

fn from_pod(stage: &Stage) -> Result<()> {
    grant(stage, "robot")?;
    let kubectl = &stage.kubectl;
    let space = kubectl.namespace();
    kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: asker}}, spec: {{serviceAccountName: robot, restartPolicy: Never, containers: [{{name: c, \
         image: 'orlop.dev/e2e-tool:v1', args: [api, kubernetes.default.svc, /api/v1/namespaces/{space}/pods/asker, ',', api, kubernetes.default.svc, \
         /api/v1/namespaces/{space}/secrets, ',', cat, /var/run/secrets/kubernetes.io/serviceaccount/namespace]}}]}}}}"
    ))?;
    let log = kubectl.log_of_finished("asker")?;
    let mut lines = log.lines();
    let own = lines.next().context("no answer")?;
    ensure!(own.starts_with("200 ") && own.contains("\"name\":\"asker\""), "{log}");
    ensure!(lines.next().is_some_and(|line| line.starts_with("403 ")), "{log}");
    ensure!(lines.next() == Some(space), "{log}");
    Ok(())
}

fn strangers(stage: &Stage) -> Result<()> {
    let nobody: Api = stage.api.anonymous()?;
    ensure!(nobody.get("/version")?.status == 200);
    ensure!(nobody.get("/healthz")?.status == 200);
    for path in ["/api/v1/pods", "/apis/apps/v1/deployments", "/metrics", "/openapi/v2"] {
        let answer = nobody.get(path)?;
        ensure!(answer.status == 401 || answer.status == 403, "{path}: {} {}", answer.status, answer.text());
    }
    Ok(())
}

fn escalation(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let space = kubectl.namespace();
    kubectl.ok(&["create", "serviceaccount", "clerk"])?;
    kubectl.ok(&[
        "create",
        "role",
        "clerk",
        "--verb=*",
        "--resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io",
    ])?;
    kubectl.ok(&[
        "create",
        "rolebinding",
        "clerk",
        "--role=clerk",
        &format!("--serviceaccount={space}:clerk"),
    ])?;
    let clerk = format!("--as=system:serviceaccount:{space}:clerk");
    // All verbs on roles include "escalate"; without it, nothing may be granted that one does not have.
    kubectl.ok(&[
        "patch",
        "role",
        "clerk",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/rules/0/verbs","value":["get","create","update"]}]"#,
    ])?;
    let refused = kubectl.fails(&["create", "role", "thief", "--verb=get", "--resource=secrets", &clerk])?;
    ensure!(refused.contains("attempting to grant RBAC permissions not currently held"), "{refused}");
    let bound = kubectl.fails(&[
        "create",
        "rolebinding",
        "thief",
        "--clusterrole=cluster-admin",
        &format!("--serviceaccount={space}:clerk"),
        &clerk,
    ])?;
    ensure!(bound.contains("attempting to grant RBAC permissions not currently held"), "{bound}");
    Ok(())
}
