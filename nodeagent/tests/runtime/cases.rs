//! The tests.

use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use nodeagent_core::runtime::*;

use super::measure;
use super::world::{Outcome, Test, World, ended, holds, inside, same, start, status};

/// Every test with its name.
pub fn all() -> Vec<(&'static str, Test)> {
    vec![
        ("output_and_exit_status_are_kept", |w| output(w).boxed_local()),
        ("a_program_that_is_missing_fails_the_start", |w| missing_program(w).boxed_local()),
        ("containers_are_isolated", |w| isolation(w).boxed_local()),
        ("exec_gets_no_more_than_the_container", |w| credentials(w).boxed_local()),
        ("system_calls_are_filtered", |w| filtered(w).boxed_local()),
        ("users_and_groups_are_set", |w| users(w).boxed_local()),
        ("volumes_are_mounted", |w| volumes(w).boxed_local()),
        ("exec_streams_both_ways", |w| exec_streams(w).boxed_local()),
        ("terminals_have_a_size", |w| terminals(w).boxed_local()),
        ("attach_reads_and_writes", |w| attach(w).boxed_local()),
        ("stop_kills_after_the_grace_period", |w| stop(w).boxed_local()),
        ("too_much_memory_is_an_oom_kill", |w| oom(w).boxed_local()),
        ("a_shared_pid_namespace_is_shared", |w| shared_pid(w).boxed_local()),
        ("pods_reach_each_other_over_nodes", |w| network(w).boxed_local()),
        ("host_network_is_the_nodes", |w| host_network(w).boxed_local()),
        ("a_later_agent_takes_over", |w| adoption(w).boxed_local()),
        ("a_lost_shim_is_noticed", |w| lost_shim(w).boxed_local()),
        ("purge_works_from_files_alone", |w| purge(w).boxed_local()),
        ("fabrics_give_way_and_are_cleaned_up", |w| fabrics(w).boxed_local()),
        ("speed_is_measured", |w| measure::all(w).boxed_local()),
    ]
}

async fn output(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let config = world.container(&["both"]);
    let log = config.log_path.clone();
    let (_, id) = start(node, world.pod(), config).await?;
    let status = ended(node, &id).await?;
    let ContainerState::Exited { exit_code, ref reason, started_at, .. } = status.state else {
        return Err(format!("{:?}", status.state));
    };
    same("status", (exit_code, reason.as_str(), started_at.is_some()), (0, "Completed", true))?;
    let text = std::fs::read_to_string(log).map_err(|error| error.to_string())?;
    holds("log", &text, " stdout F out\n")?;
    holds("log", &text, " stderr F err\n")?;
    let (_, id) = start(node, world.pod(), world.container(&["exit", "7"])).await?;
    match ended(node, &id).await?.state {
        ContainerState::Exited { exit_code: 7, reason, .. } if reason == "Error" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn missing_program(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let mut config = world.container(&[]);
    config.command = vec!["no-such-program".to_owned()];
    let error = start(node, world.pod(), config).await.err().unwrap_or_default();
    holds("error", &error, "\"no-such-program\": executable file not found in $PATH")?;
    let list = node.list_containers().await.map_err(|error| error.to_string())?;
    match &list[0].state {
        ContainerState::Exited { exit_code: 128, reason, .. } if reason == "StartError" => {}
        other => return Err(format!("{other:?}")),
    }
    let (_, id) = start(node, world.pod(), world.container(&["sleep"])).await?;
    let exec = node.exec_sync(&id, vec!["/nothing".to_owned()], Duration::from_secs(5)).await;
    holds("exec", &format!("{exec:?}"), "no such file or directory")?;
    let slow = vec!["/orlop".to_owned(), "workload".to_owned(), "sleep".to_owned()];
    let exec = node.exec_sync(&id, slow, Duration::from_millis(100)).await;
    same("slow exec", exec, Err(RuntimeError::Timeout(Duration::from_millis(100))))
}

async fn isolation(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let mut pod = world.pod();
    pod.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned());
    let name = pod.hostname.clone();
    let mut config = world.container(&["sleep"]);
    config.security.read_only_root = true;
    let (_, id) = start(node, pod, config).await?;
    same("hostname", inside(node, &id, &["show", "/proc/sys/kernel/hostname"]).await?.trim(), &name)?;
    let port = inside(node, &id, &["show", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).await?;
    same("sysctl", port.trim(), "77")?;
    let processes = inside(node, &id, &["list", "/proc"]).await?;
    let pids = processes.lines().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).count();
    same("processes", pids, 2)?;
    let mut root: Vec<_> = inside(node, &id, &["list", "/"]).await?.lines().map(str::to_owned).collect();
    root.sort();
    holds("root", &root.join(" "), "orlop")?;
    same("host files", root.iter().any(|name| name == "home" || name == "boot"), false)?;
    holds("read-only root", &inside(node, &id, &["write", "/x", "y"]).await?, "Read-only")?;
    holds(
        "kernel settings",
        &inside(node, &id, &["write", "/proc/sys/kernel/panic", "1"]).await?,
        "Read-only",
    )?;
    same("masked", inside(node, &id, &["show", "/proc/timer_list"]).await?.as_str(), "")?;
    let devices = inside(node, &id, &["list", "/dev"]).await?;
    holds("devices", &devices, "null")?;
    same("disks", devices.lines().any(|name| name.starts_with("vd") || name.starts_with("sd")), false)?;
    holds("env", &inside(node, &id, &["env"]).await?, "COLOUR=blue")
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim()
}

async fn credentials(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let names =
        ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];
    for (user, privileged) in [(None, false), (Some(1000), false), (None, true)] {
        let mut config = world.container(&["sleep"]);
        config.security.run_as_user = user;
        config.security.privileged = privileged;
        config.security.no_new_privileges = !privileged;
        config.security.supplemental_groups = vec![2000];
        let (_, id) = start(node, world.pod(), config).await?;
        let first = inside(node, &id, &["show", "/proc/1/status"]).await?;
        let later = inside(node, &id, &["show", "/proc/self/status"]).await?;
        for name in names {
            same(name, field(&later, name), field(&first, name))?;
        }
        let expected = match (privileged, user) {
            (true, _) => None,
            (false, None) => Some("00000000a00405fb"),
            (false, Some(_)) => Some("0000000000000000"),
        };
        if let Some(expected) = expected {
            let bounding = field(&first, "CapBnd");
            same("bounding", bounding, "00000000a00405fb".trim()).or_else(|error| {
                if bounding.len() == 16 && bounding != "000001ffffffffff" { Ok(()) } else { Err(error) }
            })?;
            let effective = if user.is_none() { bounding } else { expected };
            same("effective", field(&first, "CapEff"), effective)?;
            same("filters", (field(&first, "Seccomp"), field(&first, "NoNewPrivs")), ("2", "1"))?;
        } else {
            same("filters", field(&first, "Seccomp"), "0")?;
        }
        same("uid", field(&first, "Uid").split('\t').next(), Some(&*user.unwrap_or(0).to_string()))?;
        holds("groups", field(&first, "Groups"), "2000")?;
        let cgroup = inside(node, &id, &["show", "/proc/self/cgroup"]).await?;
        same(
            "cgroup of exec",
            cgroup.lines().filter(|line| line.contains("memory:")).all(|l| l.ends_with(":/")),
            true,
        )?;
    }
    Ok(())
}

async fn filtered(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    // Root without no_new_privs is the hard case: the filter must be installed before capabilities are dropped.
    let (_, id) = start(node, world.pod(), world.container(&["sleep"])).await?;
    for (call, errno) in
        [("unshare", libc::EPERM), ("keyctl", libc::EPERM), ("clone3", libc::ENOSYS), ("getpid", 0)]
    {
        same(call, inside(node, &id, &["call", call]).await?.trim(), &errno.to_string())?;
    }
    let mut config = world.container(&["sleep"]);
    config.security.seccomp = Seccomp::Unconfined;
    let (_, id) = start(node, world.pod(), config).await?;
    same("unconfined", inside(node, &id, &["call", "unshare"]).await?.trim(), "0")
}

async fn users(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let mut config = world.container(&["sleep"]);
    config.security.run_as_user = Some(65534);
    config.security.run_as_group = Some(3000);
    config.working_dir = Some("/made/here".to_owned());
    let (_, id) = start(node, world.pod(), config).await?;
    let text = inside(node, &id, &["show", "/proc/1/status"]).await?;
    same("uid", field(&text, "Uid"), "65534\t65534\t65534\t65534")?;
    same("gid", field(&text, "Gid"), "3000\t3000\t3000\t3000")?;
    holds("home", &inside(node, &id, &["env"]).await?, "HOME=/")?;
    let mut config = world.container(&["sleep"]);
    config.security.run_as_non_root = true;
    let error = start(node, world.pod(), config).await.err().unwrap_or_default();
    holds("error", &error, "runAsNonRoot")
}

async fn volumes(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let volume = world.dir.path().join("volume");
    std::fs::create_dir_all(&volume).map_err(|error| error.to_string())?;
    std::fs::write(volume.join("file"), "from the node").map_err(|error| error.to_string())?;
    let mount = |to: &str, read_only| Mount {
        host_path: volume.clone(),
        container_path: to.into(),
        read_only,
        propagation: Propagation::None,
    };
    let mut config = world.container(&["sleep"]);
    // Deeper first: the order of the list must not matter.
    config.mounts = vec![mount("/data/deep", true), mount("/data", false), mount("/etc/link", true)];
    let (_, id) = start(node, world.pod(), config).await?;
    same("read", inside(node, &id, &["show", "/data/file"]).await?.as_str(), "from the node")?;
    same("write", inside(node, &id, &["write", "/data/new", "x"]).await?.as_str(), "")?;
    holds("write", &inside(node, &id, &["write", "/data/deep/new", "x"]).await?, "Read-only")?;
    same("seen outside", volume.join("new").exists(), true)?;
    holds("shared memory", &inside(node, &id, &["show", "/proc/mounts"]).await?, " /dev/shm tmpfs")
}

async fn collect(session: Session, send: &str) -> Result<(String, i32), String> {
    let Session { mut input, mut output } = session;
    let sending = async {
        if send.is_empty() {
            return Ok(());
        }
        input.send(SessionInput::Stdin(send.to_owned().into())).await?;
        input.send(SessionInput::CloseStdin).await
    };
    let reading = async {
        let mut text = String::new();
        while let Some(item) = output.next().await {
            match item? {
                SessionOutput::Stdout(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                SessionOutput::Stderr(bytes) => {
                    text.push_str(&format!("[{}]", String::from_utf8_lossy(&bytes)))
                }
                SessionOutput::Exit(code) => return Ok((text, code)),
            }
        }
        Err(RuntimeError::Internal("the session ended without exit status".to_owned()))
    };
    // A process that writes while it reads must not wait for us.
    let (sent, read) = futures::future::join(sending, reading).await;
    sent.and(read).map_err(|error| error.to_string())
}

fn exec_config(words: &[&str], stdin: bool, tty: bool) -> ExecConfig {
    let command = ["/orlop", "workload"].iter().chain(words).map(|word| (*word).to_owned()).collect();
    ExecConfig { command, stdin, tty }
}

async fn exec_streams(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let (_, id) = start(node, world.pod(), world.container(&["sleep"])).await?;
    let session = node.exec(&id, exec_config(&["cat"], true, false)).await.map_err(|e| e.to_string())?;
    let long = "0123456789abcdef".repeat(64 * 1024);
    same("echo", collect(session, &long).await? == (long, 0), true)?;
    let session = node.exec(&id, exec_config(&["both"], false, false)).await.map_err(|e| e.to_string())?;
    let (text, code) = collect(session, "").await?;
    same("both", (text.contains("out\n"), text.contains("[err\n]"), code), (true, true, 0))?;
    let session =
        node.exec(&id, exec_config(&["exit", "3"], false, false)).await.map_err(|e| e.to_string())?;
    same("code", collect(session, "").await?, (String::new(), 3))
}

async fn terminals(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let mut config = world.container(&["sleep"]);
    config.tty = true;
    config.stdin = true;
    let (_, id) = start(node, world.pod(), config).await?;
    let mut session = node.exec(&id, exec_config(&["cat"], true, true)).await.map_err(|e| e.to_string())?;
    session.input.send(SessionInput::Resize { width: 132, height: 43 }).await.map_err(|e| e.to_string())?;
    // The terminal echoes the line, cat repeats it; then the end-of-file character.
    session.input.send(SessionInput::Stdin("hello\n\u{4}".into())).await.map_err(|e| e.to_string())?;
    let (text, code) = collect(session, "").await?;
    same("cat on a terminal", (text.matches("hello").count(), code), (2, 0))?;
    let session = node.exec(&id, exec_config(&["size"], true, true)).await.map_err(|e| e.to_string())?;
    let (text, _) = collect(session, "").await?;
    holds("terminal", &text, "tty=1")
}

async fn attach(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let mut config = world.container(&["cat"]);
    config.stdin = true;
    config.stdin_once = true;
    let log = config.log_path.clone();
    let (_, id) = start(node, world.pod(), config).await?;
    let session = node.attach(&id).await.map_err(|error| error.to_string())?;
    same("attached", collect(session, "typed\n").await?, ("typed\n".to_owned(), 0))?;
    ended(node, &id).await?;
    holds("log", &std::fs::read_to_string(log).map_err(|error| error.to_string())?, "stdout F typed")
}

async fn stop(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    // The first process of a PID namespace has no default handler: SIGTERM does nothing to it.
    let (sandbox, id) = start(node, world.pod(), world.container(&["sleep"])).await?;
    let begin = std::time::Instant::now();
    node.stop_container(&id, Duration::from_millis(300)).await.map_err(|error| error.to_string())?;
    same("waited", begin.elapsed() >= Duration::from_millis(300), true)?;
    match status(node, &id).await?.state {
        ContainerState::Exited { exit_code: 137, .. } => {}
        other => return Err(format!("{other:?}")),
    }
    node.stop_container(&id, Duration::ZERO).await.map_err(|error| error.to_string())?;
    node.remove_container(&id).await.map_err(|error| error.to_string())?;
    node.remove_container(&id).await.map_err(|error| error.to_string())?;
    node.remove_sandbox(&sandbox.id).await.map_err(|error| error.to_string())?;
    node.remove_sandbox(&sandbox.id).await.map_err(|error| error.to_string())?;
    let left = node.list_containers().await.map_err(|error| error.to_string())?;
    same("containers", left.len(), 0)
}

async fn oom(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let mut config = world.container(&["eat"]);
    config.resources.memory_limit_bytes = Some(32 << 20);
    config.resources.oom_score_adj = Some(1000);
    let (_, id) = start(node, world.pod(), config).await?;
    match ended(node, &id).await?.state {
        ContainerState::Exited { exit_code: 137, oom_killed: true, reason, .. } if reason == "OOMKilled" => {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}

async fn shared_pid(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let mut pod = world.pod();
    pod.share_process_namespace = true;
    let (sandbox, id) = start(node, pod, world.container(&["sleep"])).await?;
    let processes = inside(node, &id, &["list", "/proc"]).await?;
    let pids = processes.lines().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).count();
    same("processes", pids, 3)?;
    holds("pause", &inside(node, &id, &["show", "/proc/1/comm"]).await?, "orlop-pause")?;
    node.stop_sandbox(&sandbox.id).await.map_err(|error| error.to_string())
}

async fn network(world: &mut World) -> Outcome {
    let (one, two) = (&world.nodes[0], &world.nodes[1]);
    let (server, _) = start(one, world.pod(), world.container(&["serve", "8080"])).await?;
    let ip = server.ips.first().ok_or("no address")?;
    for node in [one, two] {
        let (_, client) = start(node, world.pod(), world.container(&["sleep"])).await?;
        let answer = inside(node, &client, &["fetch", &format!("{ip}:8080")]).await?;
        same("answer", answer.trim(), "hello from the pod")?;
    }
    one.stop_sandbox(&server.id).await.map_err(|error| error.to_string())?;
    let list = one.list_sandboxes().await.map_err(|error| error.to_string())?;
    let stopped = list.iter().find(|sandbox| sandbox.id == server.id).ok_or("sandbox is not listed")?;
    same("ready", stopped.ready, false)
}

async fn host_network(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let mut pod = world.pod();
    pod.host_network = true;
    pod.hostname = String::new();
    let (sandbox, id) = start(node, pod, world.container(&["sleep"])).await?;
    same("addresses", sandbox.ips.len(), 0)?;
    holds("links", &inside(node, &id, &["show", "/proc/net/dev"]).await?, "orlop-pods")
}

async fn adoption(world: &mut World) -> Outcome {
    let (sandbox, id) = start(&world.nodes[0], world.pod(), world.container(&["sleep"])).await?;
    let (_, short) = start(&world.nodes[0], world.pod(), world.container(&["cat"])).await?;
    ended(&world.nodes[0], &short).await?;
    let old = world.nodes.remove(0);
    old.shutdown(true).await;
    drop(old);
    let node = world.open(0).await?;
    world.nodes.insert(0, node);
    let node = &world.nodes[0];
    let list = node.list_sandboxes().await.map_err(|error| error.to_string())?;
    same("sandbox", list.iter().find(|found| found.id == sandbox.id), Some(&sandbox))?;
    same("running", matches!(status(node, &id).await?.state, ContainerState::Running { .. }), true)?;
    same(
        "ended",
        matches!(status(node, &short).await?.state, ContainerState::Exited { exit_code: 0, .. }),
        true,
    )?;
    holds("exec", &inside(node, &id, &["print", "still", "here"]).await?, "still here")?;
    let (fresh, _) = start(node, world.pod(), world.container(&["sleep"])).await?;
    same("addresses differ", fresh.ips != sandbox.ips, true)?;
    node.stop_container(&id, Duration::ZERO).await.map_err(|error| error.to_string())?;
    same("stopped", matches!(status(node, &id).await?.state, ContainerState::Exited { .. }), true)
}

async fn lost_shim(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let (_, id) = start(node, world.pod(), world.container(&["sleep"])).await?;
    let file = world.state_dir(0).join("containers").join(&id.0).join("started.json");
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    let started: nodeagent::shim::task::Started =
        serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(started.shim), nix::sys::signal::SIGKILL)
        .map_err(|error| error.to_string())?;
    match ended(node, &id).await?.state {
        ContainerState::Exited { reason, .. } if reason == "ContainerStatusUnknown" => {}
        other => return Err(format!("{other:?}")),
    }
    for _ in 0..200 {
        if nodeagent::shim::sys_start_time(started.pid).is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err("the container's process is still there".to_owned())
}

async fn purge(world: &mut World) -> Outcome {
    let mut pod = world.pod();
    pod.share_process_namespace = true;
    start(&world.nodes[0], pod, world.container(&["sleep"])).await?;
    start(&world.nodes[0], world.pod(), world.container(&["sleep"])).await?;
    // As after kill -9 of the agent: nothing is told to anybody.
    let gone = world.nodes.remove(0);
    std::mem::forget(gone);
    let dir = world.state_dir(0);
    let purged = tokio::task::spawn_blocking(move || nodeagent::embedded::purge(&dir)).await;
    purged.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let left = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let state = world.state_dir(0).display().to_string();
    same("mounts", left.contains(&state), false)
}

async fn fabrics(world: &mut World) -> Outcome {
    use nodeagent::network::fabric::{self, FabricConfig};
    let text = |error: fabric::FabricError| error.to_string();
    let config = FabricConfig {
        cluster: format!("other-{}", std::process::id()),
        nodes: vec!["node-1".to_owned()],
        service_cidr: "10.97.0.0/16".parse().map_err(|_| "cidr")?,
        state_dir: world.dir.path().join("other"),
    };
    let first = fabric::up(&config).await.map_err(text)?;
    same("another bridge", first.bridge != world.fabric.bridge, true)?;
    same("another subnet", first.bridge_ip != world.fabric.bridge_ip, true)?;
    // As after kill -9: nobody takes the first one down, and the state file is all that is known.
    let second = fabric::up(&config).await.map_err(text)?;
    same("the leftovers made room", &second, &first)?;
    let routes = nodeagent::netns::run_in(Some(&second.nodes[0].netns), || {
        std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default()
    })
    .map_err(|error| error.to_string())?;
    // 10.97.0.0 in the table's byte order, claimed by a rejecting route.
    holds("claim", &routes, "0000610A")?;
    // A third cluster with the service network of the second: what both need of the host stays until both are gone.
    let third = FabricConfig {
        cluster: format!("third-{}", std::process::id()),
        state_dir: world.dir.path().join("third"),
        ..config.clone()
    };
    fabric::up(&third).await.map_err(text)?;
    let host = || std::fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    let forwards = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    fabric::cleanup_leftovers(&config.state_dir).await.map_err(text)?;
    same("namespace", second.nodes[0].netns.exists(), false)?;
    holds("claim of the third", &host(), "0000610A")?;
    fabric::cleanup_leftovers(&third.state_dir).await.map_err(text)?;
    same("claim after the last", host().contains("0000610A"), false)?;
    same("forwarding for the world's own", forwards().trim(), "1")
}
