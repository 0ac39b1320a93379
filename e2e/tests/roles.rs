//! Scheduler, controllers and proxy as processes of their own, each with the rights of its own role only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test without the usual harness"
)]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use e2e::harness;
use e2e::hosts::{Hosts, PORT, Process};
use e2e::kubectl::Kubectl;
use e2e::manifests;
use e2e::wait::eventually;
use nix::sys::signal::Signal;

fn main() -> ExitCode {
    harness::one_by_one(&[("every_part_in_a_process_of_its_own", true, apart)])
}

/// A role on the server's host, with the kubeconfig of its own user.
fn role(hosts: &Hosts, name: &str, role: &str, user: &str, host: usize, flags: &[&str]) -> Result<Process> {
    let kubeconfig = hosts.kubeconfig_of(1, "s1", user)?.to_string_lossy().into_owned();
    let mut arguments = vec![role, "--kubeconfig", &kubeconfig];
    arguments.extend(flags);
    hosts.start(host, name, &arguments)
}

fn apart() -> Result<()> {
    let hosts = Hosts::connect(2)?;
    let server = hosts.server_with(1, "s1", &["--disable-scheduler", "--disable-controller"])?;
    let token = hosts.token(1, "s1", false)?;
    let join = format!("{}:{PORT}", hosts.address(1));
    let agent = hosts.agent_with(2, "n2", &["--join", &join, "--token", &token, "--disable-proxy"])?;
    let kubectl = hosts.kubectl(1, "s1")?;
    kubectl.apply(&manifests::web("Deployment", Some(2)))?;

    // Each step needs the part that comes with it, and none after it.
    let first = role(&hosts, "c1", "controller", "system:kube-controller-manager", 1, &[])?;
    kubectl.until("deployment/web", "{.status.replicas}", "2")?;
    ensure!(kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"])?.is_empty());
    let scheduler = role(&hosts, "sched", "scheduler", "system:kube-scheduler", 1, &[])?;
    kubectl.until("deployment/web", "{.status.availableReplicas}", "2")?;
    let service: std::net::Ipv4Addr = kubectl.path("service/web", "{.spec.clusterIP}")?.parse()?;
    let address = hosts.address(2).to_string();
    let proxy =
        role(&hosts, "proxy", "proxy", "system:kube-proxy", 2, &["--name", "n2", "--address", &address])?;
    let netns = hosts.netns(2).to_owned();
    eventually("the service answers on the node", || {
        let answer = e2e::netns::within(&netns, move || e2e::netns::get(service, 80, "/"))?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(())
    })?;
    // A pod that goes is drained first: the agent waits for what this proxy tells.
    let observed = "{.metadata.annotations.orlop\\.dev/proxy-observed}";
    let lease = ["get", "lease", "n2", "-n", "kube-node-lease", "-o", &format!("jsonpath={observed}")];
    ensure!(!kubectl.ok(&lease)?.is_empty(), "the proxy does not tell what is in effect");

    // Of two, one works; when it is gone, the other does.
    let second = role(&hosts, "c2", "controller", "system:kube-controller-manager", 1, &[])?;
    first.signal(Signal::SIGKILL)?;
    kubectl.ok(&["scale", "deployment/web", "--replicas=3"])?;
    kubectl.until("deployment/web", "{.status.availableReplicas}", "3")?;

    // Nobody asked for what its role does not give, and no role gives more.
    for process in [&first, &second, &scheduler, &proxy] {
        let said = process.said();
        ensure!(!said.to_lowercase().contains("forbidden"), "{said}");
    }
    for (user, beyond) in [
        ("system:kube-scheduler", ["create", "deployments.apps"]),
        ("system:kube-controller-manager", ["delete", "pods"]),
        ("system:kube-proxy", ["get", "secrets"]),
    ] {
        let own = Kubectl::new(&hosts.kubeconfig_of(1, "s1", user)?, hosts.data_dir("s1").as_path())?;
        let answer = own.run(&["auth", "can-i", beyond[0], beyond[1]])?;
        ensure!(answer.stdout.trim() == "no", "{user} may {beyond:?}");
    }
    drop((first, second, scheduler, proxy, agent, server));
    Ok(())
}
