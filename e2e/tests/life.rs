//! How clusters start, stop, die and come back, and what they refuse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test without the usual harness"
)]

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, Home, Refused};
use e2e::harness;
use e2e::host::Snapshot;
use e2e::kubectl::Kubectl;
use e2e::manifests;
use e2e::wait::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How often a cluster is killed under writes.
const KILLS: usize = 6;
const WRITERS: usize = 4;

fn main() -> ExitCode {
    harness::one_by_one(&[
        ("a_stopped_cluster_resumes", true, stopped),
        ("a_killed_cluster_resumes", true, killed),
        ("containers_outlive_their_agent", true, agent_killed),
        ("several_servers_on_one_machine", true, several_servers),
        ("no_acknowledged_write_is_lost", false, killed_under_writes),
        ("a_second_instance_is_refused", false, second_instance),
        ("a_taken_port_is_refused", false, taken_port),
        ("a_user_without_rights_is_refused", false, not_root),
        ("a_useless_data_directory_is_refused", false, useless_directory),
    ])
}

/// Three replicas behind a service, and a ConfigMap.
fn web_and_kept() -> String {
    let kept = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n";
    manifests::web("Deployment", Some(3)) + kept
}

fn snapshot(home: &Home, name: &str) -> Result<Snapshot> {
    Snapshot::take(&[&home.data_dir().to_string_lossy(), name])
}

/// All there, all running.
fn at_work(cluster: &Cluster) -> Result<Kubectl> {
    let kubectl = cluster.kubectl()?;
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    kubectl.until("configmap/kept", "{.data.a}", "b")?;
    let address = kubectl.path("service/web", "{.spec.clusterIP}")?.parse()?;
    let netns = cluster.netns(1)?;
    eventually("the service answers", || {
        let answer = e2e::netns::within(&netns, move || e2e::netns::get(address, 80, "/"))?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(())
    })?;
    eventually("every pod is ready", || {
        let ready = kubectl.ok(&["get", "pods", "--no-headers"])?;
        ensure!(ready.lines().count() == 3 && ready.lines().all(|line| line.contains("1/1")), "{ready}");
        Ok(())
    })?;
    Ok(kubectl)
}

fn stopped() -> Result<()> {
    let home = Home::new(3)?;
    let before = snapshot(&home, "")?;
    let cluster = home.start()?;
    let kubeconfig = cluster.kubeconfig().to_string_lossy().into_owned();
    ensure!(cluster.ready_line.contains(&kubeconfig), "the line names no kubeconfig: {}", cluster.ready_line);
    let name = cluster.name()?;
    cluster.kubectl()?.apply(&web_and_kept())?;
    let kubectl = at_work(&cluster)?;
    let uid = kubectl.path("deployment/web", "{.metadata.uid}")?;
    cluster.stop(Signal::SIGINT)?;
    snapshot(&home, &name)?.since(&before).must_be_empty().context("after Ctrl-C")?;

    let cluster = home.start()?;
    let kubectl = at_work(&cluster)?;
    ensure!(kubectl.path("deployment/web", "{.metadata.uid}")? == uid);
    cluster.stop(Signal::SIGTERM)?;
    snapshot(&home, &name)?.since(&before).must_be_empty().context("after SIGTERM")
}

fn killed() -> Result<()> {
    let home = Home::new(3)?;
    let before = snapshot(&home, "")?;
    let cluster = home.start()?;
    let name = cluster.name()?;
    cluster.kubectl()?.apply(&web_and_kept())?;
    at_work(&cluster)?;
    cluster.kill()?;
    let cluster = home.start()?;
    let kubectl = at_work(&cluster)?;
    // It does not only look alive.
    kubectl.ok(&["scale", "deployment/web", "--replicas=1"])?;
    kubectl.until("deployment/web", "{.status.replicas}", "1")?;
    cluster.kill()?;
    // Killed at once after a kill: nothing has had the time to settle.
    home.start()?.kill()?;
    let cluster = home.start()?;
    cluster.kubectl()?.until("deployment/web", "{.status.readyReplicas}", "1")?;
    cluster.stop(Signal::SIGTERM)?;
    snapshot(&home, &name)?.since(&before).must_be_empty()
}

fn several_servers() -> Result<()> {
    let home = Home::new(2)?;
    let before = snapshot(&home, "")?;
    let cluster = home.start_with_servers(3)?;
    let name = cluster.name()?;
    cluster.kubectl()?.apply(&web_and_kept())?;
    at_work(&cluster)?;
    let leader = || -> Result<String> {
        let members = cluster.api()?.get("/orlop/v1/members")?.json()?;
        let all = members.as_array().context("not a list")?;
        ensure!(all.len() == 3 && all.iter().all(|one| one["role"] == "voter"), "{members}");
        let leader = all.iter().find(|one| one["leader"] == true).context("nobody leads")?;
        Ok(leader["name"].as_str().unwrap_or_default().to_owned())
    };
    let first = eventually("three vote and one leads", leader)?;
    kill(Pid::from_raw(child_of(cluster.pid(), &first)?), Signal::SIGKILL)?;
    eventually("another leads", || {
        let next = leader()?;
        ensure!(next != first, "{next} leads still");
        Ok(())
    })?;
    at_work(&cluster)?;
    // Everything at once, without a farewell.
    cluster.kill()?;
    let cluster = home.start_with_servers(3)?;
    let kubectl = at_work(&cluster)?;
    kubectl.ok(&["scale", "deployment/web", "--replicas=1"])?;
    kubectl.until("deployment/web", "{.status.replicas}", "1")?;
    cluster.stop(Signal::SIGTERM)?;
    snapshot(&home, &name)?.since(&before).must_be_empty()?;
    one_line(&home.refused(home.up()?)?, &["has 3 servers", "--servers 3"])
}

fn agent_killed() -> Result<()> {
    let home = Home::new(1)?;
    let cluster = home.start()?;
    cluster.kubectl()?.apply(&web_and_kept())?;
    let kubectl = at_work(&cluster)?;
    let containers = |kubectl: &Kubectl| -> Result<Vec<String>> {
        let ids = kubectl.ok(&[
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].status.containerStatuses[0].containerID}",
        ])?;
        let mut ids: Vec<String> = ids.split(' ').map(str::to_owned).collect();
        ids.sort();
        Ok(ids)
    };
    let known = containers(&kubectl)?;
    let agent = child_of(cluster.pid(), "agent")?;
    kill(Pid::from_raw(agent), Signal::SIGKILL)?;
    eventually("another agent has taken over", || {
        ensure!(child_of(cluster.pid(), "agent")? != agent);
        Ok(())
    })?;
    kubectl.ok(&["scale", "deployment/web", "--replicas=4"])?;
    kubectl.until("deployment/web", "{.status.readyReplicas}", "4")?;
    let after = containers(&kubectl)?;
    ensure!(known.iter().all(|one| after.contains(one)), "{known:?} became {after:?}");
    let restarts = kubectl.ok(&[
        "get",
        "pods",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[0].restartCount}",
    ])?;
    ensure!(restarts == "0 0 0 0", "{restarts}");
    cluster.stop(Signal::SIGTERM)
}

/// The child of a process whose command line has this word.
fn child_of(parent: u32, word: &str) -> Result<i32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let mut tasks = children;
    for task in std::fs::read_dir(format!("/proc/{parent}/task"))?.flatten() {
        tasks.push_str(&std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    }
    let found = tasks.split_whitespace().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split('\0').any(|one| one == word))
    });
    Ok(found.context("there is no such child")?.parse()?)
}

fn killed_under_writes() -> Result<()> {
    let home = Home::new(1)?;
    let acknowledged = Mutex::new(Vec::new());
    let total = AtomicUsize::new(0);
    for round in 0..KILLS {
        let cluster = home.start_hollow()?;
        let api = cluster.api()?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            for writer in 0..WRITERS {
                let (api, acknowledged, total, stop) = (&api, &acknowledged, &total, &stop);
                scope.spawn(move || {
                    for number in 0.. {
                        let name = format!("w{round}-{writer}-{number}");
                        let body = json!({"metadata": {"name": name}, "data": {"round": round.to_string()}});
                        let made = api.post("/api/v1/namespaces/default/configmaps", body.to_string());
                        if made.is_ok_and(|answer| answer.status == 201 && answer.json().is_ok()) {
                            acknowledged.lock().unwrap().push(name);
                            total.fetch_add(1, Ordering::Relaxed);
                        }
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            // The moment of the kill is another one in every round.
            std::thread::sleep(Duration::from_millis(300 + 170 * round as u64));
            let killed = cluster.kill();
            stop.store(true, Ordering::Relaxed);
            killed
        })?;
        let cluster = home.start_hollow()?;
        all_there(&cluster, &acknowledged.lock().unwrap()).with_context(|| format!("after kill {round}"))?;
        cluster.kill()?;
    }
    ensure!(total.load(Ordering::Relaxed) > 10 * KILLS, "only {total:?} writes were acknowledged");
    Ok(())
}

fn all_there(cluster: &Cluster, names: &[String]) -> Result<()> {
    let list = cluster.api()?.get("/api/v1/namespaces/default/configmaps")?.json()?;
    let items = list["items"].as_array().context("no items")?;
    let found: std::collections::BTreeSet<&str> =
        items.iter().filter_map(|item: &Value| item["metadata"]["name"].as_str()).collect();
    let lost: Vec<&String> = names.iter().filter(|name| !found.contains(name.as_str())).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), names.len());
    Ok(())
}

/// One clear line, and a failure.
fn one_line(refused: &Refused, words: &[&str]) -> Result<()> {
    ensure!(!refused.status.success(), "it succeeded");
    let lines: Vec<&str> = refused.stderr.lines().collect();
    ensure!(lines.len() == 1 && lines[0].starts_with("orlop: "), "not one line: {}", refused.stderr);
    for word in words {
        ensure!(lines[0].contains(word), "no {word:?} in {}", lines[0]);
    }
    Ok(())
}

fn second_instance() -> Result<()> {
    let mut home = Home::new(1)?;
    let cluster = home.start()?;
    let name = cluster.name()?;
    let first = home.port;
    let with = snapshot(&home, &name)?;
    home.port = first + 1;
    let refused = home.refused(home.up()?)?;
    home.port = first;
    one_line(&refused, &[&*home.data_dir().to_string_lossy()])?;
    snapshot(&home, &name)?.since(&with).must_be_empty()?;
    with.since(&snapshot(&home, &name)?).must_be_empty().context("the running cluster has lost something")?;
    ensure!(cluster.api()?.get("/readyz")?.text() == "ok");
    cluster.stop(Signal::SIGTERM)
}

fn taken_port() -> Result<()> {
    let home = Home::new(1)?;
    let before = snapshot(&home, "")?;
    let _taken = TcpListener::bind(("127.0.0.1", home.port))?;
    let refused = home.refused(home.up()?)?;
    one_line(&refused, &[&format!("port {}", home.port), "--port"])?;
    ensure!(!home.data_dir().exists(), "the data directory was made");
    snapshot(&home, "")?.since(&before).must_be_empty()
}

fn not_root() -> Result<()> {
    let home = Home::new(1)?;
    let before = snapshot(&home, "")?;
    // Somebody else must be able to run it, wherever it was built.
    let program = home.folder().join("orlop");
    std::fs::copy(e2e::binary::path()?, &program)?;
    std::os::unix::fs::chown(home.folder(), Some(65534), Some(65534))?;
    let mut command = home.up_with(&program);
    command.uid(65534).gid(65534);
    let refused = home.refused(command)?;
    one_line(&refused, &["root", "sudo"])?;
    ensure!(!home.data_dir().exists(), "the data directory was made");
    snapshot(&home, "")?.since(&before).must_be_empty()
}

fn useless_directory() -> Result<()> {
    let home = Home::new(1)?;
    let before = snapshot(&home, "")?;
    std::fs::write(home.data_dir(), "a file")?;
    let refused = home.refused(home.up()?)?;
    one_line(&refused, &[&*home.data_dir().to_string_lossy()])?;
    ensure!(Path::new(&home.data_dir()).is_file());
    snapshot(&home, "")?.since(&before).must_be_empty()
}
