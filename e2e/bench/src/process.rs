//! Starts `orlop up` for a measurement and reads what processes cost from /proc.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::target::Target;

/// A running `orlop up`.
pub struct Cluster {
    child: Child,
    /// The API server.
    pub target: Target,
    /// From exec until the API answered `/readyz`.
    pub api_ready: Duration,
    /// From exec until `up` said that it is ready.
    pub ready: Duration,
}

/// The release binary beside this one.
pub fn orlop_binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().context("this executable has no folder")?.join("orlop");
    if !beside.exists() {
        bail!("{} is missing: run `cargo build --release` first", beside.display());
    }
    Ok(beside)
}

impl Cluster {
    /// Starts `orlop up` with `arguments` and waits until it says that it is ready.
    pub async fn start(data_dir: &Path, port: u16, arguments: &[&str]) -> Result<Cluster> {
        let started = Instant::now();
        let mut child = Command::new(orlop_binary()?)
            .arg("up")
            .args(["--data-dir", &data_dir.to_string_lossy(), "--port", &port.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting orlop up")?;
        let pid = child.id().context("orlop up ended at once")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let kubeconfig = data_dir.join("kubeconfig");
        let api_ready = async {
            loop {
                if let Ok(target) = Target::from_kubeconfig(&kubeconfig, pid)
                    && let Ok(mut connection) = target.connect().await
                    && connection.expect(&http::Method::GET, "/readyz", bytes::Bytes::new()).await.is_ok()
                {
                    return (target, started.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let line = async {
            let mut lines = BufReader::new(stdout).lines();
            let line = lines.next_line().await.ok().flatten();
            (line, lines, started.elapsed())
        };
        let both = async { tokio::join!(api_ready, line) };
        let ((target, api_ready), (line, mut lines, ready)) =
            tokio::time::timeout(Duration::from_secs(120), both)
                .await
                .context("orlop up was not ready within 120 s")?;
        line.context("orlop up ended before it was ready")?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Cluster { child, target, api_ready, ready })
    }

    /// Stops the cluster as Ctrl-C would and waits for it.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?;
        }
        let status = tokio::time::timeout(Duration::from_secs(60), self.child.wait())
            .await
            .context("orlop up does not stop")??;
        if !status.success() {
            bail!("orlop up ended with {status}");
        }
        Ok(())
    }
}

/// CPU seconds that a process and its ended children have used so far.
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command may hold spaces; the numbered fields begin behind its closing parenthesis.
    let fields: Vec<&str> =
        text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks: f64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<f64>().ok()).sum();
    // USER_HZ is 100 on every Linux that Rust supports.
    ticks / 100.0
}

/// A process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    found
}

/// The most memory that a process has had resident, in KiB.
pub fn peak_rss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

/// Proportional set size of a process in KiB: shared pages count by their share.
pub fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}
