//! Hosts on one bridge, each a network namespace: where servers and agents run that are no part of `orlop up`.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeagent::network::fabric::{self, Fabric, FabricConfig};
use tempfile::TempDir;

use crate::kubectl::Kubectl;
use crate::slow_disk::SlowDisk;
use crate::wait::eventually;
use crate::{binary, netns};

/// The port of servers.
pub const PORT: u16 = 6443;
/// An end that takes longer has failed.
const STOP: Duration = Duration::from_secs(60);

/// The hosts, and a folder for all their data.
pub struct Hosts {
    fabric: Fabric,
    folder: TempDir,
    /// Whether the disk of what is started can be made slow.
    slow_disks: bool,
    runtime: tokio::runtime::Runtime,
}

/// A process on one of the hosts, killed when it is dropped.
pub struct Process {
    child: Option<Child>,
    output: PathBuf,
    disk: Option<SlowDisk>,
}

// === impl Hosts ===

impl Hosts {
    /// Connects so many hosts: the first is number 1.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn connect(count: usize) -> Result<Hosts> {
        let folder = tempfile::Builder::new().prefix("orlop-hosts-").tempdir().context("making a folder")?;
        let config = FabricConfig {
            cluster: format!("hosts-{}", std::process::id()),
            nodes: (1..=count).map(|number| format!("host-{number}")).collect(),
            service_cidr: "10.96.0.0/16".parse()?,
            state_dir: folder.path().to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let fabric = runtime.block_on(fabric::up(&config))?;
        Ok(Hosts { fabric, folder, slow_disks: false, runtime })
    }

    /// Has each process that is started from now on have a disk that can be made slow.
    pub fn with_slow_disks(mut self) -> Hosts {
        self.slow_disks = true;
        self
    }

    /// Where a host's process keeps its data.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        self.fabric.nodes[host - 1].ip
    }

    /// The network namespace of a host.
    pub fn netns(&self, host: usize) -> &Path {
        &self.fabric.nodes[host - 1].netns
    }

    /// Cuts a host off from the others, or connects it again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_link(&self, host: usize, up: bool) -> Result<()> {
        Ok(self.runtime.block_on(fabric::set_link(&self.fabric.nodes[host - 1], up))?)
    }

    /// Runs `orlop` on a host, to its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn orlop(&self, host: usize, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(binary::path()?);
        command.args(arguments).env_remove("ORLOP_LOG").stdin(Stdio::null());
        let netns = self.netns(host).to_owned();
        netns::within(&netns, move || command.output().context("running orlop"))
    }

    /// As [`Hosts::orlop`]; it must succeed. Returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn orlop_ok(&self, host: usize, arguments: &[&str]) -> Result<String> {
        let output = self.orlop(host, arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "orlop {} ended with {}: {stderr}",
            arguments.join(" "),
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts `orlop` on a host. What it says goes to a file beside the data of `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, host: usize, name: &str, arguments: &[&str]) -> Result<Process> {
        let output = self.folder.path().join(format!("{name}.out"));
        let file = File::options().create(true).append(true).open(&output)?;
        let mut command = Command::new(binary::path()?);
        command
            .args(arguments)
            .env_remove("ORLOP_LOG")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let netns = self.netns(host).to_owned();
        if self.slow_disks {
            SlowDisk::prepare(&mut command);
        }
        // A child is where the thread is that starts it.
        let child = netns::within(&netns, move || command.spawn().context("starting orlop"))?;
        let pid = child.id();
        let mut process = Process { child: Some(child), output, disk: None };
        process.disk = self.slow_disks.then(|| SlowDisk::of(pid)).transpose()?;
        Ok(process)
    }

    /// Starts a server: the first of a cluster, or with `join` (`HOST:PORT` and a token) a further one.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn server(&self, host: usize, name: &str, join: Option<(&str, &str)>) -> Result<Process> {
        match join {
            Some((server, token)) => self.server_with(host, name, &["--join", server, "--token", token]),
            None => self.server_with(host, name, &[]),
        }
    }

    /// Starts a server with further flags.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn server_with(&self, host: usize, name: &str, flags: &[&str]) -> Result<Process> {
        let dir = self.data_dir(name).to_string_lossy().into_owned();
        let mut arguments = vec!["server", "--name", name, "--data-dir", &dir];
        arguments.extend(flags);
        let mut process = self.start(host, name, &arguments)?;
        let ready = process.said().matches("is ready at").count();
        eventually("the server is ready", || {
            process.must_run()?;
            ensure!(process.said().matches("is ready at").count() > ready, "{}", process.said());
            Ok(())
        })?;
        Ok(process)
    }

    /// Starts an agent that joins as node `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent(&self, host: usize, name: &str, server: &str, token: &str) -> Result<Process> {
        self.agent_with(host, name, &["--join", server, "--token", token])
    }

    /// Starts an agent with further flags.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent_with(&self, host: usize, name: &str, flags: &[&str]) -> Result<Process> {
        let dir = self.data_dir(name).to_string_lossy().into_owned();
        let mut arguments = vec!["agent", "--name", name, "--data-dir", &dir];
        arguments.extend(flags);
        self.start(host, name, &arguments)
    }

    /// The kubeconfig of a user, made at a server, for clients on other hosts of the bridge.
    ///
    /// # Errors
    /// When the server's authority does not make it.
    pub fn kubeconfig_of(&self, host: usize, name: &str, user: &str) -> Result<PathBuf> {
        let dir = self.data_dir(name).to_string_lossy().into_owned();
        let server = format!("https://{}:{PORT}", self.address(host));
        let arguments = ["kubeconfig", "--client-name", user, "--data-dir", &dir, "--server", &server];
        let text = self.orlop_ok(host, &arguments)?;
        let path = self.folder.path().join(format!("{}.kubeconfig", user.replace(':', "-")));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// The kubeconfig of a server, for clients on other hosts of the bridge.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn kubeconfig(&self, host: usize, name: &str) -> Result<PathBuf> {
        let own = std::fs::read_to_string(self.data_dir(name).join("kubeconfig"))?;
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, own.replace("127.0.0.1", &self.address(host).to_string()))?;
        Ok(path)
    }

    /// kubectl as administrator, by way of a server.
    ///
    /// # Errors
    /// Without a kubectl.
    pub fn kubectl(&self, host: usize, name: &str) -> Result<Kubectl> {
        Kubectl::new(&self.kubeconfig(host, name)?, self.folder.path())
    }

    /// A token, made at a server: for a server, or for a node.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn token(&self, host: usize, name: &str, for_server: bool) -> Result<String> {
        let kubeconfig = self.kubeconfig(host, name)?.to_string_lossy().into_owned();
        let mut arguments = vec!["token", "create", "--quiet", "--kubeconfig", &kubeconfig];
        if for_server {
            arguments.push("--for-server");
        }
        self.orlop_ok(host, &arguments)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // What a failed test has left is cleaned up as well as can be.
        for dir in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            for node in std::fs::read_dir(dir.path().join("nodes")).into_iter().flatten().flatten() {
                let _ = nodeagent::embedded::purge(&node.path());
            }
        }
        let _ = self.runtime.block_on(fabric::down(&self.fabric));
    }
}

// === impl Process ===

impl Process {
    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("it was stopped before")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal).with_context(|| format!("sending {signal}"))
    }

    /// Its disk, on hosts with slow disks.
    ///
    /// # Errors
    /// On others.
    pub fn disk(&self) -> Result<&SlowDisk> {
        self.disk.as_ref().context("its disk cannot be made slow")
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// With what it said.
    pub fn must_run(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("it was stopped before")?;
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}: {}", self.said()),
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("it was stopped before")?;
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("it did not end within {} s: {}", STOP.as_secs(), self.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it by a signal; it must end well.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let status = self.end()?;
        ensure!(status.success(), "it ended with {status}: {}", self.said());
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(mut self) -> Result<()> {
        self.must_run()?;
        self.signal(Signal::SIGKILL)?;
        self.end().map(|_| ())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
