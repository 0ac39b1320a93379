//! A cluster as a user starts it: `orlop up` as a process, in a directory of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::https::Api;
use crate::kubectl::Kubectl;
use crate::{binary, image};

/// Ports that clusters of tests listen on.
const PORTS: std::ops::RangeInclusive<u16> = 19443..=19499;
/// A start that takes longer has failed.
const START: Duration = Duration::from_secs(90);
/// A stop that takes longer has failed.
const STOP: Duration = Duration::from_secs(60);

/// Where clusters live one after the other; gone when it is dropped.
pub struct Home {
    folder: TempDir,
    /// Port of the API.
    pub port: u16,
    /// How many nodes `up` is asked for.
    pub nodes: usize,
}

/// A running cluster.
pub struct Cluster {
    process: Mutex<Option<Child>>,
    data_dir: PathBuf,
    nodes: usize,
    /// The API's port.
    pub port: u16,
    /// The line that says that it is ready.
    pub ready_line: String,
    errors: PathBuf,
}

/// How one start ended that did not become a cluster.
#[derive(Debug)]
pub struct Refused {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard error.
    pub stderr: String,
}

// === impl Home ===

impl Home {
    /// A folder and a port that nobody uses.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(nodes: usize) -> Result<Home> {
        let folder = tempfile::Builder::new().prefix("orlop-e2e-").tempdir().context("making a folder")?;
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let port = PORTS.clone().find(free).context("no free port")?;
        Ok(Home { folder, port, nodes })
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder for other files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command line of `up`, to be run by the caller.
    ///
    /// # Errors
    /// Without the binary.
    pub fn up(&self) -> Result<Command> {
        Ok(self.up_with(binary::path()?))
    }

    /// As [`Home::up`], with another executable.
    pub fn up_with(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .args(["up", "--nodes", &self.nodes.to_string(), "--port", &self.port.to_string(), "--data-dir"])
            .arg(self.data_dir())
            .env_remove("ORLOP_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Starts a cluster and waits until it is ready.
    ///
    /// # Errors
    /// With what it said when it does not come up.
    pub fn start(&self) -> Result<Cluster> {
        self.start_command(self.up()?)
    }

    /// As [`Home::start`], with several servers.
    ///
    /// # Errors
    /// With what it said when it does not come up.
    pub fn start_with_servers(&self, servers: usize) -> Result<Cluster> {
        let mut command = self.up()?;
        command.args(["--servers", &servers.to_string()]);
        self.start_command(command)
    }

    /// As [`Home::start`], with nodes that run no containers.
    ///
    /// # Errors
    /// With what it said when it does not come up.
    pub fn start_hollow(&self) -> Result<Cluster> {
        let mut command = self.up()?;
        command.args(["--runtime", "hollow"]);
        self.start_command(command)
    }

    fn start_command(&self, mut command: Command) -> Result<Cluster> {
        let errors = self.folder.path().join("up.stderr");
        let mut process = command
            // Signals are meant for the cluster or for the test, never for both.
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(File::create(&errors)?)
            .spawn()
            .context("starting orlop up")?;
        let stdout = process.stdout.take().context("no standard output")?;
        let (lines, line) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Later lines are for nobody.
                let _ = lines.send(line);
            }
        });
        let mut cluster = Cluster {
            process: Mutex::new(Some(process)),
            data_dir: self.data_dir(),
            nodes: self.nodes,
            port: self.port,
            ready_line: String::new(),
            errors,
        };
        match line.recv_timeout(START) {
            Ok(line) => cluster.ready_line = line,
            Err(_) => bail!("the cluster is not ready: {}", cluster.stderr()),
        }
        Ok(cluster)
    }

    /// Starts `command`, which must end by itself.
    ///
    /// # Errors
    /// When it does not end.
    pub fn refused(&self, mut command: Command) -> Result<Refused> {
        let mut process = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting orlop up")?;
        if wait_for(&mut process, Duration::from_secs(20))?.is_none() {
            process.kill()?;
            bail!("it did not end: {:?}", process.wait_with_output());
        }
        let output = process.wait_with_output()?;
        Ok(Refused { status: output.status, stderr: String::from_utf8_lossy(&output.stderr).into_owned() })
    }
}

// === impl Cluster ===

impl Cluster {
    /// The kubeconfig that `up` has written.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// kubectl as administrator.
    ///
    /// # Errors
    /// Without a kubectl.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.kubeconfig(), self.data_dir.parent().unwrap_or(&self.data_dir))
    }

    /// The API without a client between, as administrator.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub fn api(&self) -> Result<Api> {
        Api::from_kubeconfig(&self.kubeconfig())
    }

    /// The process id of `up`.
    pub fn pid(&self) -> u32 {
        self.process().as_ref().map_or(0, Child::id)
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `up` has said on standard error.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// The name by which this machine knows the cluster.
    ///
    /// # Errors
    /// When its network was not built.
    pub fn name(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.data_dir.join("fabric.json"))?;
        let fabric: Value = serde_json::from_str(&text)?;
        fabric["cluster"].as_str().map(str::to_owned).context("the fabric has no name")
    }

    /// The network namespace of `node-NUMBER`.
    ///
    /// # Errors
    /// When its network was not built.
    pub fn netns(&self, number: usize) -> Result<PathBuf> {
        Ok(Path::new("/run/orlop").join(self.name()?).join("netns").join(format!("node-{number}")))
    }

    /// Gives every node the image of the tests' tool.
    ///
    /// # Errors
    /// When it cannot be packed or loaded.
    pub fn load_tool(&self, tool: &Path) -> Result<()> {
        let archive = self.data_dir.with_extension("tool.tar");
        image::pack(tool, &archive)?;
        image::load(&archive, &self.data_dir, self.nodes)?;
        Ok(std::fs::remove_file(&archive)?)
    }

    /// Sends a signal to `up`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to up"))
    }

    /// Stops the cluster by a signal and waits for its end, which must be a success.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn stop(&self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let mut process = self.process().take().context("it was stopped before")?;
        match wait_for(&mut process, STOP)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("up ended with {status}: {}", self.stderr()),
            None => {
                process.kill()?;
                process.wait()?;
                Err(anyhow!("up did not end within {} s after {signal}: {}", STOP.as_secs(), self.stderr()))
            }
        }
    }

    /// Kills `up`, which gets no chance to clean up.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.process().take().context("it was stopped before")?;
        if let Some(status) = process.try_wait()? {
            bail!("up ended by itself with {status}: {}", self.stderr());
        }
        process.kill()?;
        process.wait()?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A test that failed on its way; what it leaves is cleaned up as well as can be.
        let process = self.process().take();
        if let Some(mut process) = process {
            let pid = i32::try_from(process.id()).unwrap_or(0);
            if pid > 0 && kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok() {
                if let Ok(None) = wait_for(&mut process, STOP) {
                    let _ = process.kill();
                }
                let _ = process.wait();
            }
        }
    }
}

fn wait_for(process: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
