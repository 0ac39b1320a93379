//! Commands, forwarded ports, proxied requests and measures, with every kubectl of this machine.

use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::kubectl::{self, Kubectl};
use e2e::netns;
use e2e::wait::{eventually, eventually_within};

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("every_kubectl_runs_commands", commands),
    ("ports_are_forwarded", forward),
    ("requests_are_passed_on", proxy),
    ("what_runs_is_measured", top),
];

/// A web server on port 8080, one on the loopback only, and a service.
const SERVER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: main, image: 'orlop.dev/e2e-tool:v1', args: [serve], ports: [{name: http, containerPort: 8080}]}
    - {name: inner, image: 'orlop.dev/e2e-tool:v1', args: [serve, '8081', 127.0.0.1]}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: server}, ports: [{name: web, port: 80, targetPort: http}, {name: other, port: 81, targetPort: 9}]}
"#;

fn server(stage: &Stage) -> Result<()> {
    stage.kubectl.apply(SERVER)?;
    stage.kubectl.ok(&["wait", "--for=condition=Ready", "pod/server", "--timeout=30s"])?;
    Ok(())
}

/// The stage's kubectl in every version, with the name of the version.
fn every(stage: &Stage) -> Vec<(String, Kubectl)> {
    let programs = kubectl::all().into_iter();
    programs
        .map(|program| (program.to_string_lossy().into_owned(), stage.kubectl.with_program(&program)))
        .collect()
}

fn commands(stage: &Stage) -> Result<()> {
    server(stage)?;
    for (version, kubectl) in every(stage) {
        let tool = ["exec", "server", "-c", "main", "--", "/tool"];
        let output =
            kubectl.run(&[&tool[..], &["echo", "out", ",", "warn", "err", ",", "exit", "7"]].concat())?;
        ensure!(output.code == 7, "{version}: {output:?}");
        ensure!(output.stdout == "out\n" && output.stderr.starts_with("err\n"), "{version}: {output:?}");
        let typed = "a line\n".repeat(10_000);
        let upper =
            kubectl.ok_with(&["exec", "-i", "server", "-c", "main", "--", "/tool", "upper"], &typed)?;
        ensure!(upper == typed.to_uppercase(), "{version}: {} bytes", upper.len());
        let missing = kubectl.run(&["exec", "server", "-c", "main", "--", "/nothing"])?;
        ensure!(missing.code != 0 && missing.stderr.contains("/nothing"), "{version}: {missing:?}");
    }
    Ok(())
}

/// A kubectl that forwards a port.
struct Forward {
    child: Child,
    port: u16,
    /// kubectl tells of each connection, and ends when nobody reads that.
    _said: BufReader<ChildStdout>,
}

impl Forward {
    fn start(kubectl: &Kubectl, target: &str, port: u16) -> Result<Forward> {
        let port = format!(":{port}");
        let mut child = kubectl
            .command(&["port-forward", target, &port])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().context("no output")?);
        said.read_line(&mut line)?;
        let local: Option<u16> =
            line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let forward = Forward { child, port: local.unwrap_or_default(), _said: said };
        match local {
            Some(_) => Ok(forward),
            None => bail!("kubectl port-forward said {line:?}: {}", forward.stop()?),
        }
    }

    fn get(&self) -> Result<String> {
        netns::get(Ipv4Addr::LOCALHOST, self.port, "/")
    }

    /// Ends it; what it said of errors.
    fn stop(mut self) -> Result<String> {
        // It may have ended by itself.
        let _ = self.child.kill();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        Ok(said)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(stage: &Stage) -> Result<()> {
    server(stage)?;
    for (version, kubectl) in every(stage) {
        let forward = Forward::start(&kubectl, "pod/server", 8080).context(version.clone())?;
        let answers: Vec<Result<String>> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| forward.get())).collect();
            clients.into_iter().filter_map(|client| client.join().ok()).collect()
        });
        let wrong =
            |answer: &Result<String>| !answer.as_ref().is_ok_and(|it| it.contains("server 127.0.0.1"));
        if let Some(answer) = answers.iter().find(|answer| wrong(answer)) {
            bail!("{version}: one of {} said {answer:?}, kubectl {}", answers.len(), forward.stop()?);
        }
        let inner = Forward::start(&kubectl, "pod/server", 8081).context(version.clone())?;
        ensure!(inner.get()?.contains("server 127.0.0.1"), "{version}");
        let service = Forward::start(&kubectl, "service/front", 80).context(version.clone())?;
        ensure!(service.get()?.contains("server"), "{version}");

        let refused = Forward::start(&kubectl, "pod/server", 9).context(version.clone())?;
        ensure!(refused.get().map_or(true, |answer| answer.is_empty()), "{version}: somebody answered");
        // kubectl says so a moment after it has let go of the connection.
        std::thread::sleep(Duration::from_millis(500));
        let said = refused.stop()?;
        ensure!(said.contains("error forwarding port 9 to pod server, uid "), "{version}: {said}");
        ensure!(said.contains("onnection refused"), "{version}: {said}");
        ensure!(forward.get()?.contains("server"), "{version}: the first forward has ended");
    }
    Ok(())
}

fn proxy(stage: &Stage) -> Result<()> {
    server(stage)?;
    let kubectl = &stage.kubectl;
    let base = format!("/api/v1/namespaces/{}", kubectl.namespace());
    let raw = |path: &str| kubectl.ok(&["get", "--raw", path]);
    for path in ["pods/server/proxy/", "pods/server:8080/proxy/a?b=c", "pods/http:server:http/proxy/"] {
        let answer = raw(&format!("{base}/{path}"))?;
        ensure!(answer.starts_with("server "), "{path}: {answer}");
    }
    eventually("the service passes requests on", || {
        for path in ["services/front:web/proxy/", "services/front:80/proxy/"] {
            let answer = raw(&format!("{base}/{path}"))?;
            ensure!(answer.starts_with("server "), "{path}: {answer}");
        }
        Ok(())
    })?;
    kubectl.apply("{apiVersion: v1, kind: Service, metadata: {name: empty}, spec: {selector: {app: nobody}, ports: [{port: 80}]}}")?;
    let answer = stage.api.get(&format!("{base}/services/empty/proxy/"))?;
    ensure!(answer.status == 503, "{}", answer.text());
    ensure!(answer.text().contains("no endpoints available for service \\\"empty\\\""), "{}", answer.text());
    let answer = stage.api.get(&format!("{base}/pods/server:9/proxy/"))?;
    ensure!(
        answer.status == 503 && answer.text().contains("error trying to reach service"),
        "{}",
        answer.text()
    );

    let node = kubectl.path("pod/server", "{.spec.nodeName}")?;
    let of_node = |path: &str| raw(&format!("/api/v1/nodes/{node}/proxy/{path}"));
    ensure!(of_node("healthz")? == "ok", "the node is not well");
    let pods: serde_json::Value = serde_json::from_str(&of_node("pods")?)?;
    let names: Vec<&str> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .collect();
    ensure!(names.contains(&"server"), "the node runs {names:?}");
    ensure!(of_node("metrics")?.contains("kubelet_running_pods"), "no metrics");
    let answer = stage.api.get(&format!("/api/v1/nodes/{node}/proxy/runningpods/"))?;
    ensure!(answer.status == 404, "{}", answer.text());
    Ok(())
}

fn top(stage: &Stage) -> Result<()> {
    server(stage)?;
    for (version, kubectl) in every(stage) {
        eventually_within(Duration::from_secs(60), "containers are measured", || {
            let pods = kubectl.ok(&["top", "pods", "--containers", "--no-headers"])?;
            let names: Vec<&str> = pods.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
            ensure!(names == ["inner", "main"], "{version}: {pods}");
            Ok(())
        })?;
        let all = kubectl.ok(&["top", "pods", "-A"])?;
        ensure!(all.contains("server") && all.contains("MEMORY(bytes)"), "{version}: {all}");
        let nodes = kubectl.ok(&["top", "nodes", "--no-headers"])?;
        ensure!(nodes.lines().count() == 3 && !nodes.contains("unknown"), "{version}: {nodes}");
    }
    let memory = stage.kubectl.ok(&[
        "get",
        "--raw",
        &format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods/server", stage.kubectl.namespace()),
    ])?;
    let measured: serde_json::Value = serde_json::from_str(&memory)?;
    for container in measured["containers"].as_array().context("no containers")? {
        let memory = container["usage"]["memory"].as_str().unwrap_or_default();
        ensure!(memory.ends_with("Ki") && memory != "0Ki", "{measured}");
    }
    Ok(())
}
