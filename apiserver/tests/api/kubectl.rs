//! The real kubectl, where there is one: `ORLOP_TEST_KUBECTL`, or `kubectl` on PATH.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use apiserver::pki::kubeconfig;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::agent::Agent;
use crate::support::Cluster;
use crate::webhooks::{Webhook, patch};

/// Where kubectl is.
fn kubectl() -> PathBuf {
    let named = std::env::var_os("ORLOP_TEST_KUBECTL").map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file())
    };
    named.or_else(on_path).expect("there was a kubectl when the tests were built")
}

struct Kubectl<'a> {
    program: PathBuf,
    cluster: &'a Cluster,
}

impl<'a> Kubectl<'a> {
    fn new(program: PathBuf, cluster: &'a Cluster) -> Self {
        let server = format!("https://{}", cluster.address());
        let path = cluster.dir.path().join("kubeconfig");
        kubeconfig::write(&path, "orlop", "admin", &server, &cluster.authority.ca_pem(), &cluster.admin())
            .expect("a kubeconfig");
        Kubectl { program, cluster }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(self.cluster.dir.path().join("kubeconfig"))
            .args(arguments)
            .env("HOME", self.cluster.dir.path())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.expect("kubectl runs")
    }

    async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input).await.expect("written");
        drop(stdin);
        child.wait_with_output().await.expect("kubectl ends")
    }

    #[track_caller]
    fn good(output: &Output) -> String {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_kubectl), ignore = "needs kubectl on PATH or in ORLOP_TEST_KUBECTL")]
async fn kubectl_creates_reads_applies_and_deletes() {
    let cluster = Cluster::start().await;
    let kubectl = Kubectl::new(kubectl(), &cluster);
    let namespaces = Kubectl::good(&kubectl.run(&["get", "ns"]).await);
    assert!(namespaces.contains("default") && namespaces.contains("Active"), "{namespaces}");
    Kubectl::good(&kubectl.run(&["create", "configmap", "words", "--from-literal=one=1"]).await);
    let one = Kubectl::good(&kubectl.run(&["get", "cm", "words", "-o", "jsonpath={.data.one}"]).await);
    assert_eq!(one, "1");
    let manifest = cluster.dir.path().join("deployment.yaml");
    std::fs::write(
        &manifest,
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, image: 'web:1'}]}\n",
    )
    .expect("written");
    let manifest = manifest.to_str().expect("a path");
    let applied = Kubectl::good(&kubectl.run(&["apply", "-f", manifest]).await);
    assert_eq!(applied.trim(), "deployment.apps/web created");
    let applied = Kubectl::good(&kubectl.run(&["apply", "-f", manifest]).await);
    assert_eq!(applied.trim(), "deployment.apps/web unchanged");
    let shown = Kubectl::good(&kubectl.run(&["get", "deploy"]).await);
    assert!(shown.contains("READY") && shown.contains("0/2"), "{shown}");
    let described = Kubectl::good(&kubectl.run(&["describe", "deploy", "web"]).await);
    assert!(described.contains("RollingUpdateStrategy:  25% max unavailable, 25% max surge"), "{described}");
    let explained = Kubectl::good(&kubectl.run(&["explain", "deployment.spec.replicas"]).await);
    assert!(explained.contains("FIELD: replicas <integer>"), "{explained}");
    let refused = kubectl.run(&["create", "configmap", "words"]).await;
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains(r#"configmaps "words" already exists"#), "{error}");
    Kubectl::good(&kubectl.run(&["delete", "-f", manifest, "--wait=false"]).await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_kubectl), ignore = "needs kubectl on PATH or in ORLOP_TEST_KUBECTL")]
async fn kubectl_meets_webhooks() {
    let cluster = Cluster::start().await;
    let kubectl = Kubectl::new(kubectl(), &cluster);
    let hook = Webhook::start("127.0.0.1", |path, _| match path {
        "/mutate" => patch(&json!([{"op": "add", "path": "/data", "value": {"from": "webhook"}}])),
        _ => json!({"allowed": false, "warnings": ["look at the rules"], "status": {"message": "not today"}}),
    })
    .await;
    let rules = "[{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [RESOURCE]}]";
    let manifest = |kind: &str, path: &str, resource: &str| {
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: {kind}\nmetadata: {{name: test}}\nwebhooks:\n- name: test.example.com\n  clientConfig: {{url: '{}{path}', caBundle: {}}}\n  rules: {}\n  sideEffects: None\n  admissionReviewVersions: [v1]\n",
            hook.url,
            hook.ca_bundle,
            rules.replace("RESOURCE", resource)
        )
    };
    for text in [
        manifest("MutatingWebhookConfiguration", "/mutate", "configmaps"),
        manifest("ValidatingWebhookConfiguration", "/validate", "secrets"),
    ] {
        let applied = kubectl.run_with_input(&["apply", "-f", "-"], text.as_bytes()).await;
        assert_eq!(String::from_utf8_lossy(&applied.stderr), "", "nothing is said that nobody acts on it");
        assert!(Kubectl::good(&applied).contains("created"));
    }
    Kubectl::good(&kubectl.run(&["create", "configmap", "words"]).await);
    let from = Kubectl::good(&kubectl.run(&["get", "cm", "words", "-o", "jsonpath={.data.from}"]).await);
    assert_eq!(from, "webhook");
    let refused = kubectl.run(&["create", "secret", "generic", "hidden"]).await;
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("Warning: look at the rules"), "{error}");
    assert!(
        error.contains(r#"admission webhook "test.example.com" denied the request: not today"#),
        "{error}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_kubectl), ignore = "needs kubectl on PATH or in ORLOP_TEST_KUBECTL")]
async fn kubectl_executes_and_reads_logs() {
    let cluster = crate::support::cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let kubectl = Kubectl::new(kubectl(), &cluster);
    // Newer ones use WebSocket, older ones SPDY; newer ones can be told to do as the older ones did.
    let output = kubectl.run(&["exec", "web", "--", "exit", "3"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"out\n"[..]), "{error}");
    assert!(error.contains("err\n"), "{error}");
    let echoed =
        Kubectl::good(&kubectl.run_with_input(&["exec", "-i", "web", "--", "cat"], b"to and fro\n").await);
    assert_eq!(echoed, "to and fro\n");
    let logs = Kubectl::good(&kubectl.run(&["logs", "web", "--tail=2"]).await);
    assert_eq!(logs, "line 0\nline 1\n");
    cluster.stop().await;
}
