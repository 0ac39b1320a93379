//! Clusters whose servers and nodes are hosts of their own: how they join, what is refused, what outlives what.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test without the usual harness"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use e2e::harness;
use e2e::hosts::{Hosts, PORT};
use e2e::kubectl::Kubectl;
use e2e::manifests;
use e2e::wait::eventually;
use nix::sys::signal::Signal;

fn main() -> ExitCode {
    harness::one_by_one(&[
        ("hosts_become_nodes", true, nodes),
        ("strangers_do_not_join", false, strangers),
        ("a_backup_becomes_a_cluster", true, backup),
        ("keys_are_rotated_and_nobody_notices", true, keys),
    ])
}

fn at(hosts: &Hosts, host: usize) -> String {
    format!("{}:{PORT}", hosts.address(host))
}

/// A service answers on a host, and every one of so many pods does.
fn answers(hosts: &Hosts, host: usize, service: std::net::Ipv4Addr, pods: usize) -> Result<()> {
    let netns = hosts.netns(host).to_owned();
    eventually("every pod answers by the service", || {
        let names = e2e::netns::within(&netns, move || {
            let mut names = std::collections::BTreeSet::new();
            for _ in 0..pods * 8 {
                let answer = e2e::netns::get(service, 80, "/")?;
                ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                names.insert(answer.lines().last().unwrap_or_default().to_owned());
            }
            Ok(names)
        })?;
        ensure!(names.len() == pods, "{names:?}");
        Ok(())
    })
}

fn nodes() -> Result<()> {
    let hosts = Hosts::connect(3)?;
    let server = hosts.server(1, "s1", None)?;
    let token = hosts.token(1, "s1", false)?;
    let mut agents = Vec::new();
    for (host, name) in [(2, "n2"), (3, "n3")] {
        agents.push(hosts.agent(host, name, &at(&hosts, 1), &token)?);
    }
    let kubectl = hosts.kubectl(1, "s1")?;
    kubectl.apply(&manifests::web("DaemonSet", None))?;
    kubectl.until("daemonset/web", "{.status.numberAvailable}", "2")?;
    let service = kubectl.path("service/web", "{.spec.clusterIP}")?.parse()?;
    for host in [2, 3] {
        answers(&hosts, host, service, 2)?;
    }
    let pod = kubectl.ok(&["get", "pods", "--field-selector=spec.nodeName=n2", "-o", "name"])?;
    ensure!(kubectl.ok(&["logs", pod.trim()])?.contains("listens on"), "the tunnel carries no logs");
    let started = "{.items[0].status.containerStatuses[0].state.running.startedAt}";
    let pods = ["get", "pods", "--field-selector=spec.nodeName=n2", "-o", &format!("jsonpath={started}")];
    let before = kubectl.ok(&pods)?;

    // An agent that is stopped leaves its containers, and services work meanwhile; it needs no token to come back.
    agents.remove(0).stop(Signal::SIGTERM)?;
    answers(&hosts, 2, service, 2)?;
    let dir = hosts.data_dir("n2").to_string_lossy().into_owned();
    let again = hosts.start(2, "n2", &["agent", "--data-dir", &dir])?;
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    kubectl.until("node/n2", ready, "True")?;
    ensure!(kubectl.ok(&pods)? == before, "the container was started anew");

    // The server comes back with everything, and the agents find it again.
    server.stop(Signal::SIGTERM)?;
    answers(&hosts, 3, service, 2)?;
    let server = hosts.server(1, "s1", None)?;
    kubectl.ok(&["delete", pod.trim(), "--wait=true", "--timeout=30s"])?;
    kubectl.until("daemonset/web", "{.status.numberAvailable}", "2")?;

    // A host that is to be no node any more is left clean.
    again.stop(Signal::SIGINT)?;
    hosts.orlop_ok(2, &["reset", "--data-dir", &dir])?;
    let netns = hosts.netns(2).to_owned();
    let links = e2e::netns::within(&netns, || Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
    ensure!(!links.contains("orlop") && !links.contains("orp"), "{links}");
    drop((server, agents));
    Ok(())
}

fn strangers() -> Result<()> {
    let hosts = Hosts::connect(2)?;
    let _server = hosts.server(1, "s1", None)?;
    let token = hosts.token(1, "s1", false)?;
    let hash = token.rsplit('.').next().unwrap_or_default();
    let dir = hosts.data_dir("stranger").to_string_lossy().into_owned();
    let refused = |role: &str, server: &str, token: &str, why: &str| -> Result<()> {
        let arguments = [role, "--name", "stranger", "--data-dir", &dir, "--join", server, "--token", token];
        let output = hosts.orlop(2, &arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{token} was let in");
        ensure!(said.contains(why), "{role} {server} {token}: {said}");
        ensure!(said.trim().lines().count() == 1, "more than one line: {said}");
        Ok(())
    };
    let server = at(&hosts, 1);
    refused("agent", &server, &format!("abcdef.0123456789abcdef.{hash}"), "does not accept the token")?;
    let other = "ab".repeat(32);
    refused("agent", &server, &format!("abcdef.0123456789abcdef.{other}"), "belongs to another cluster")?;
    let for_server = hosts.token(1, "s1", true)?;
    let taken = e2e::netns::within(hosts.netns(2), || Ok(std::net::TcpListener::bind(("0.0.0.0", PORT))?))?;
    refused("server", &server, &for_server, "cannot be listened on")?;
    drop(taken);
    let kubectl = hosts.kubeconfig(1, "s1")?.to_string_lossy().into_owned();
    let members = hosts.orlop_ok(1, &["member", "list", "--kubeconfig", &kubectl])?;
    ensure!(!members.contains("stranger"), "who cannot serve was counted: {members}");
    refused("server", &server, &token, "cannot post path \"/orlop/v1/join/server\"")?;
    let nobody = format!("{}:{PORT}", hosts.address(2));
    refused("agent", &nobody, &token, "onnection refused")?;
    let kubeconfig = hosts.kubeconfig(1, "s1")?.to_string_lossy().into_owned();
    let id = token.split('.').next().unwrap_or_default();
    hosts.orlop_ok(1, &["token", "delete", id, "--kubeconfig", &kubeconfig])?;
    refused("agent", &server, &token, "does not accept the token")?;
    Ok(())
}

/// Writes until told to stop; returns how often it succeeded.
fn keep_writing(kubectl: Kubectl, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Result<usize>> {
    std::thread::spawn(move || {
        let mut written = 0;
        while !stop.load(Ordering::Relaxed) {
            kubectl.ok(&["create", "configmap", &format!("written-{written}")])?;
            written += 1;
        }
        Ok(written)
    })
}

fn keys() -> Result<()> {
    let hosts = Hosts::connect(3)?;
    let _one = hosts.server(1, "s1", None)?;
    let join = hosts.token(1, "s1", true)?;
    let two = hosts.server(2, "s2", Some((&at(&hosts, 1), &join)))?;
    let early = hosts.token(1, "s1", false)?;
    let _agent = hosts.agent(3, "n3", &at(&hosts, 1), &early)?;
    // What clients elsewhere have: it knows the authority of now alone.
    let before = hosts.data_dir("before.kubeconfig");
    std::fs::copy(hosts.kubeconfig(1, "s1")?, &before)?;
    let old = Kubectl::new(&before, &hosts.data_dir("home"))?;
    old.until("node/n3", "{.status.conditions[?(@.type==\"Ready\")].status}", "True")?;
    let service_token = old.ok(&["create", "token", "default"])?;
    let pki = hosts.data_dir("s1").join("pki");
    let first_key = std::fs::read(pki.join("store.key"))?;

    let orlop = |arguments: &[&str]| {
        let kubeconfig = hosts.kubeconfig(1, "s1")?.to_string_lossy().into_owned();
        hosts.orlop_ok(1, &[arguments, &["--kubeconfig", &kubeconfig]].concat())
    };
    let stop = Arc::new(AtomicBool::new(false));
    let writer = keep_writing(old.clone(), stop.clone());
    for kind in ["authority", "service-account", "store"] {
        orlop(&["key", "rotate", kind, "--keep-old-for", "1h", "--wait"])?;
    }
    let listed = orlop(&["key", "list"])?;
    ensure!(listed.matches(" until ").count() == 2, "{listed}");
    let status = orlop(&["status"])?;
    ensure!(status.contains("is accepted until"), "{status}");
    ensure!(status.contains("servers and nodes for 23 hours at least"), "{status}");

    // Both authorities are published, and whoever knows the old one, or has a token of it, comes in.
    let published = old.path("configmap/kube-root-ca.crt", "{.data.ca\\.crt}")?;
    ensure!(published.matches("BEGIN CERTIFICATE").count() == 2, "{published}");
    let as_pod = |token: &str| {
        let server = format!("--server=https://{}", at(&hosts, 1));
        let arguments = [&server, "--insecure-skip-tls-verify", "--token", token, "get", "--raw=/api"];
        Kubectl::new(std::path::Path::new("/dev/null"), &hosts.data_dir("home"))?.run(&arguments)
    };
    ensure!(as_pod(&service_token)?.code == 0, "{:?}", as_pod(&service_token)?);
    let _late = hosts.agent(2, "n2", &at(&hosts, 1), &early)?;
    old.until("node/n2", "{.status.conditions[?(@.type==\"Ready\")].status}", "True")?;
    ensure!(!pki.join("store.key").exists(), "the store's first key is kept");
    ensure!(std::fs::read(pki.join("store-1.key"))? != first_key, "the store's key is the same");
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(written > 0, "nothing was written meanwhile");

    // A server that starts anew finds its keys, and is found.
    two.stop(Signal::SIGTERM)?;
    let _two = hosts.server(2, "s2", None)?;

    // Then the old ones are dropped, and what is of them is refused.
    orlop(&["key", "drop-old", "authority"])?;
    orlop(&["key", "drop-old", "service-account"])?;
    eventually("the old keys are dropped", || {
        let listed = orlop(&["key", "list"])?;
        ensure!(!listed.contains(" until "), "{listed}");
        let refused = old.run(&["get", "--raw=/api"])?;
        ensure!(refused.code != 0 && refused.stderr.contains("certificate"), "{refused:?}");
        let refused = as_pod(&service_token)?;
        ensure!(refused.code != 0, "{refused:?}");
        Ok(())
    })?;
    let kubectl = hosts.kubectl(2, "s2")?;
    kubectl.ok(&["get", "nodes"])?;
    kubectl.ok(&["get", "configmap", &format!("written-{}", written - 1)])?;
    Ok(())
}

fn backup() -> Result<()> {
    let hosts = Hosts::connect(2)?;
    let server = hosts.server(1, "s1", None)?;
    let kubectl = hosts.kubectl(1, "s1")?;
    kubectl.ok(&["create", "configmap", "kept", "--from-literal=a=b"])?;
    let (file, key, other) = (hosts.data_dir("backup"), hosts.data_dir("key"), hosts.data_dir("other"));
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let (file, key, other) = (text(&file), text(&key), text(&other));
    let kubeconfig = text(&hosts.kubeconfig(1, "s1")?);
    hosts.orlop_ok(1, &["backup", "create", &file, "--key", &key, "--kubeconfig", &kubeconfig])?;
    let api = e2e::https::Api::from_kubeconfig(&hosts.kubeconfig(1, "s1")?)?;
    kubectl.ok(&["create", "configmap", "later"])?;
    let seen = kubectl.path("configmap/later", "{.metadata.resourceVersion}")?;
    let listed = hosts.orlop_ok(1, &["backup", "inspect", &file, "--key", &key])?;
    ensure!(listed.contains("core/configmaps"), "{listed}");

    let refused = |arguments: &[&str], why: &str| -> Result<()> {
        let output = hosts.orlop(2, arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
        Ok(())
    };
    let (live, fresh) = (text(&hosts.data_dir("s1")), text(&hosts.data_dir("r1")));
    refused(&["backup", "restore", &file, "--key", &key, "--data-dir", &live], "holds a cluster already")?;
    std::fs::write(&other, "ab".repeat(32))?;
    refused(&["backup", "restore", &file, "--key", &other, "--data-dir", &fresh], "is not the key of")?;
    refused(&["backup", "inspect", &key, "--key", &key], "reading")?;
    server.stop(Signal::SIGTERM)?;

    hosts.orlop_ok(2, &["backup", "restore", &file, "--key", &key, "--data-dir", &fresh, "--name", "r1"])?;
    let _restored = hosts.server(2, "r1", None)?;
    let kubectl = hosts.kubectl(2, "r1")?;
    kubectl.until("configmap/kept", "{.data.a}", "b")?;
    let missing = kubectl.run(&["get", "configmap", "later"])?;
    ensure!(missing.code != 0 && missing.stderr.contains("not found"), "{missing:?}");
    kubectl.ok(&["create", "configmap", "after"])?;
    // The administrator of before is known, and a watch of before is told that its past is gone.
    let api = api.at(&hosts.address(2).to_string());
    let watch = api.get(&format!("/api/v1/configmaps?watch=true&resourceVersion={seen}&timeoutSeconds=5"))?;
    ensure!(watch.text().contains("410"), "{} {}", watch.head, watch.text());
    Ok(())
}
