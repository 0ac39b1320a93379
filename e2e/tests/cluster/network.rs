//! Services as pods and nodes reach them, by address and by name.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use e2e::netns;
use e2e::wait::eventually;

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("services_are_reached_from_pods", from_pods),
    ("services_are_reached_from_nodes", from_nodes),
    ("headless_names_lead_to_pods", headless),
    ("external_names_are_aliases", external),
    ("endpoints_follow_readiness", endpoints),
    ("pods_reach_each_other_across_nodes", across),
];

const SERVERS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 3
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: echo}}}
      containers:
        - name: server
          image: orlop.dev/e2e-tool:v1
          ports: [{name: web, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthy, port: web}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: web}]
---
apiVersion: v1
kind: Service
metadata: {name: node-echo}
spec:
  type: NodePort
  selector: {app: echo}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: bare}
spec:
  clusterIP: None
  selector: {app: echo}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "orlop.dev/e2e-tool:v1", args: [sleep, "3600"]}]
"#;

fn start(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(SERVERS)?;
    kubectl.ok(&["rollout", "status", "deployment/echo", "--timeout=90s"])?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/asker", "--timeout=60s"])?;
    Ok(())
}

fn tool(stage: &Stage, words: &[&str]) -> Result<String> {
    stage.kubectl.ok(&[&["exec", "asker", "--", "/tool"], words].concat())
}

fn servers(stage: &Stage) -> Result<BTreeSet<String>> {
    let names =
        stage.kubectl.ok(&["get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[*].metadata.name}"])?;
    Ok(names.split(' ').map(str::to_owned).collect())
}

/// Asks until every server has answered.
fn spread(what: &str, wanted: &BTreeSet<String>, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    eventually(what, || {
        let answer = ask()?;
        seen.extend(answer.split_whitespace().filter(|word| word.starts_with("echo-")).map(str::to_owned));
        ensure!(seen == *wanted, "answers came from {seen:?} of {wanted:?}; the last: {answer}");
        Ok(())
    })
}

fn from_pods(stage: &Stage) -> Result<()> {
    start(stage)?;
    let space = stage.kubectl.namespace();
    let address = stage.kubectl.path("service/echo", "{.spec.clusterIP}")?;
    let full = format!("echo.{space}.svc.cluster.local");
    ensure!(tool(stage, &["resolve", "echo"])?.trim() == address);
    for host in [&address, "echo", &format!("echo.{space}"), &format!("echo.{space}.svc"), &full] {
        let url = format!("http://{host}/");
        spread(&format!("{url} spreads"), &servers(stage)?, || {
            tool(stage, &["fetch", &url, ",", "fetch", &url, ",", "fetch", &url, ",", "fetch", &url])
        })?;
    }
    let variable = tool(stage, &["env", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"])?;
    ensure!(variable == "KUBERNETES_SERVICE_HOST=10.96.0.1\nKUBERNETES_SERVICE_PORT=443\n", "{variable}");
    // A service that nobody serves refuses at once; a name that is not there is not found.
    stage.kubectl.ok(&["create", "service", "clusterip", "idle", "--tcp=80:80"])?;
    eventually("the idle service has a name", || tool(stage, &["resolve", "idle"]))?;
    let refused = stage.kubectl.fails(&["exec", "asker", "--", "/tool", "fetch", "http://idle/"])?;
    ensure!(refused.contains("refused"), "{refused}");
    let unknown = stage.kubectl.fails(&["exec", "asker", "--", "/tool", "resolve", "nobody"])?;
    ensure!(unknown.contains("not known") || unknown.contains("failed to lookup"), "{unknown}");
    // A server reaches itself through its service.
    let one = servers(stage)?.pop_first().context("no server")?;
    spread("a server asks its own service", &servers(stage)?, || {
        stage.kubectl.ok(&[
            "exec",
            &one,
            "--",
            "/tool",
            "fetch",
            "http://echo/",
            ",",
            "fetch",
            "http://echo/",
        ])
    })
}

fn from_nodes(stage: &Stage) -> Result<()> {
    start(stage)?;
    let wanted = servers(stage)?;
    let address: Ipv4Addr = stage.kubectl.path("service/echo", "{.spec.clusterIP}")?.parse()?;
    let port: u16 = stage.kubectl.path("service/node-echo", "{.spec.ports[0].nodePort}")?.parse()?;
    ensure!((30000..=32767).contains(&port), "node port {port}");
    for number in 1..=3 {
        let node: Ipv4Addr = stage
            .kubectl
            .path(&format!("node/node-{number}"), "{.status.addresses[?(@.type==\"InternalIP\")].address}")?
            .parse()?;
        let netns = stage.cluster.netns(number)?;
        spread(&format!("the cluster IP from node-{number}"), &wanted, || {
            netns::within(&netns, move || netns::get(address, 80, "/"))
        })?;
        spread(&format!("the node port of node-{number} from the host"), &wanted, || {
            netns::get(node, port, "/")
        })?;
        let other = stage.cluster.netns(number % 3 + 1)?;
        spread(&format!("the node port of node-{number} from another node"), &wanted, || {
            netns::within(&other, move || netns::get(node, port, "/"))
        })?;
        let from_pod = tool(stage, &["fetch", &format!("http://{node}:{port}/")])?;
        ensure!(from_pod.starts_with("echo-"), "{from_pod}");
    }
    Ok(())
}

fn headless(stage: &Stage) -> Result<()> {
    start(stage)?;
    let kubectl = &stage.kubectl;
    let addresses =
        kubectl.ok(&["get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[*].status.podIP}"])?;
    let wanted: BTreeSet<&str> = addresses.split(' ').collect();
    eventually("the name leads to all pods", || {
        let found = tool(stage, &["resolve", "bare"])?;
        let found: BTreeSet<&str> = found.split_whitespace().collect();
        ensure!(found == wanted, "{found:?} instead of {wanted:?}");
        Ok(())
    })?;
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: named, labels: {app: echo}}, spec: {terminationGracePeriodSeconds: 1, hostname: captain, \
         subdomain: bare, containers: [{name: c, image: 'orlop.dev/e2e-tool:v1'}]}}",
    )?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/named", "--timeout=30s"])?;
    let address = kubectl.path("pod/named", "{.status.podIP}")?;
    eventually("the pod's own name", || {
        let found = tool(stage, &["resolve", "captain.bare"])?;
        ensure!(found.trim() == address, "{found:?} instead of {address:?}");
        Ok(())
    })
}

fn external(stage: &Stage) -> Result<()> {
    start(stage)?;
    let target = format!("echo.{}.svc.cluster.local", stage.kubectl.namespace());
    stage.kubectl.ok(&["create", "service", "externalname", "alias", "--external-name", &target])?;
    eventually("the alias leads to the service", || {
        let answer = tool(stage, &["fetch", "http://alias/"])?;
        ensure!(answer.starts_with("echo-"), "{answer}");
        Ok(())
    })
}

fn endpoints(stage: &Stage) -> Result<()> {
    start(stage)?;
    let kubectl = &stage.kubectl;
    let mut wanted = servers(stage)?;
    let sick = wanted.pop_first().context("no server")?;
    kubectl.ok(&["exec", &sick, "--", "/tool", "write", "/tmp/sick", "yes"])?;
    eventually("the sick pod is not ready in its slice", || {
        let path = format!("{{.items[*].endpoints[?(@.targetRef.name==\"{sick}\")].conditions.ready}}");
        let ready = kubectl.ok(&[
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=echo",
            "-o",
            &format!("jsonpath={path}"),
        ])?;
        ensure!(ready == "false", "{ready:?}");
        let not_ready =
            kubectl.path("endpoints/echo", "{.subsets[*].notReadyAddresses[*].targetRef.name}")?;
        ensure!(not_ready == sick, "{not_ready:?}");
        Ok(())
    })?;
    eventually("only the healthy pods answer", || {
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let answers = tool(
                stage,
                &[
                    "fetch",
                    "http://echo/",
                    ",",
                    "fetch",
                    "http://echo/",
                    ",",
                    "fetch",
                    "http://echo/",
                    ",",
                    "fetch",
                    "http://echo/",
                ],
            )?;
            seen.extend(answers.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned));
        }
        ensure!(!seen.contains(&sick), "{sick} still answers");
        Ok(())
    })?;
    kubectl.ok(&["exec", &sick, "--", "/tool", "remove", "/tmp/sick"])?;
    spread("all answer again", &servers(stage)?, || {
        tool(stage, &["fetch", "http://echo/", ",", "fetch", "http://echo/"])
    })
}

fn across(stage: &Stage) -> Result<()> {
    start(stage)?;
    let own = stage.kubectl.path("pod/asker", "{.status.podIP}")?;
    let pods = stage.kubectl.json(&["pods", "-l", "app=echo"])?;
    for pod in pods["items"].as_array().context("no pods")? {
        let address = pod["status"]["podIP"].as_str().context("no address")?;
        let answer = tool(stage, &["fetch", &format!("http://{address}:8080/")])?;
        let wanted = format!("{} {own}\n", pod["metadata"]["name"].as_str().unwrap_or_default());
        ensure!(
            answer == wanted,
            "the pod answers {answer:?}, not {wanted:?}: it must see the asker's own address"
        );
    }
    Ok(())
}
