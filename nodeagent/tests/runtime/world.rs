//! A throw-away cluster network with one runtime a node, taken down whatever happens.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use nodeagent::embedded::{EmbeddedConfig, EmbeddedRuntime};
use nodeagent::images::{ImageStore, ImageStoreConfig, SelfImage};
use nodeagent::network::fabric::{self, Fabric, FabricConfig};
use nodeagent::network::{Ipv4Cidr, PodRoute};
use nodeagent_core::runtime::*;

/// What a test says when it fails.
pub type Outcome = Result<(), String>;

/// A test, given a world to itself.
pub type Test = fn(&mut World) -> Pin<Box<dyn Future<Output = Outcome> + '_>>;

/// Why these tests cannot run here.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if nix::sched::unshare(nix::sched::CloneFlags::empty()).is_err() || !Path::new("/sys/fs/cgroup").exists()
    {
        return Some("needs namespaces and cgroups".to_owned());
    }
    None
}

/// Everything that a test may use.
pub struct World {
    /// Temporary directory.
    pub dir: tempfile::TempDir,
    /// The nodes' network.
    pub fabric: Fabric,
    /// One runtime a node.
    pub nodes: Vec<Arc<EmbeddedRuntime>>,
    /// The packed executable.
    pub image: String,
    serial: AtomicU32,
}

/// Makes a world, runs the test, takes the world down, and looks for leftovers.
pub fn run(test: Test) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut world = World::new().await?;
        let marks = Marks::of(&world);
        let test = std::panic::AssertUnwindSafe(async {
            tokio::time::timeout(Duration::from_secs(60), test(&mut world))
                .await
                .unwrap_or(Err("too slow".to_owned()))
        });
        let outcome = test.catch_unwind().await.unwrap_or_else(|_| Err("panicked".to_owned()));
        let closed = world.close().await;
        outcome.and(closed)?;
        // A process that was killed takes a moment to be gone.
        for _ in 0..200 {
            if marks.traces().is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("left behind: {:?}", marks.traces()))
    })
}

/// What tells the traces of one world from those of others on the same machine.
struct Marks {
    words: Vec<String>,
    bridge: String,
}

impl Marks {
    fn of(world: &World) -> Marks {
        let cluster = &world.fabric.cluster;
        let words =
            vec![world.dir.path().display().to_string(), format!("/{cluster}/"), format!("/{cluster}-")];
        Marks { words, bridge: world.fabric.bridge.clone() }
    }

    fn mark(&self, text: &str) -> bool {
        self.words.iter().any(|word| text.contains(word.as_str()))
    }

    /// Mounts, links, cgroups and processes that are still there.
    fn traces(&self) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let mut traces: Vec<String> = mounts.filter(|mount| self.mark(mount)).map(str::to_owned).collect();
        let links = format!("orl{}n", self.bridge.trim_start_matches("orlop"));
        for (dir, ours) in [
            ("/sys/class/net", [self.bridge.as_str(), links.as_str()].as_slice()),
            ("/sys/fs/cgroup/memory/orlop", &[]),
            ("/sys/fs/cgroup/orlop", &[]),
        ] {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = entry.path().display().to_string();
                if self.mark(&path) || ours.iter().any(|prefix| name.starts_with(prefix)) {
                    traces.push(path);
                }
            }
        }
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let cgroups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            // A dead process that its parent has not looked at is not ours to bury.
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            if self.mark(&cgroups) && !stat.contains(") Z ") {
                traces.push(format!("process {}", entry.file_name().to_string_lossy()));
            }
        }
        traces
    }
}

impl World {
    async fn new() -> Result<World, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let config = FabricConfig {
            cluster: format!("test-{}", std::process::id()),
            nodes: vec!["node-1".to_owned(), "node-2".to_owned()],
            service_cidr: "10.96.0.0/16".parse().map_err(|_| "cidr")?,
            state_dir: dir.path().to_owned(),
        };
        let fabric = fabric::up(&config).await.map_err(|error| error.to_string())?;
        let mut world =
            World { dir, fabric, nodes: Vec::new(), image: String::new(), serial: AtomicU32::new(0) };
        for index in 0..2 {
            let opened = world.open(index).await;
            match opened {
                Ok(node) => world.nodes.push(node),
                Err(error) => {
                    world.close().await?;
                    return Err(error);
                }
            }
        }
        Ok(world)
    }

    /// Opens the runtime of a node, as an agent does when it starts.
    pub async fn open(&mut self, index: usize) -> Result<Arc<EmbeddedRuntime>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let name = format!("node-{}", index + 1);
        let images = ImageStore::open(ImageStoreConfig {
            content: self.dir.path().join("content"),
            owner: name.clone(),
            mirrors: BTreeMap::new(),
            plain_http: Vec::new(),
            parallel_layers: 3,
        })
        .map_err(|error| text(&error))?;
        let packed = SelfImage {
            reference: "orlop.dev/test:v1".to_owned(),
            arguments: vec!["workload".to_owned()],
            ..SelfImage::default()
        };
        self.image = images.pack_self(&packed).map_err(|error| text(&error))?.id.clone();
        let runtime = EmbeddedRuntime::open(EmbeddedConfig {
            state_dir: self.state_dir(index),
            images,
            netns: Some(self.fabric.nodes[index].netns.clone()),
            cgroup_root: format!("/orlop/test-{}-{name}", std::process::id()),
        })
        .await
        .map_err(|error| text(&error))?;
        let cidr = |index: usize| format!("10.244.{index}.0/24").parse::<Ipv4Cidr>().map_err(|e| text(&e));
        runtime.set_pod_cidr(cidr(index)?).await.map_err(|error| text(&error))?;
        let other = 1 - index;
        let route = PodRoute { cidr: cidr(other)?, via: self.fabric.nodes[other].ip };
        runtime.set_routes(&[route]).await.map_err(|error| text(&error))?;
        Ok(runtime)
    }

    /// Where a node keeps its state.
    pub fn state_dir(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("nodes/node-{}", index + 1))
    }

    async fn close(&mut self) -> Outcome {
        for node in self.nodes.drain(..) {
            node.shutdown(false).await;
        }
        fabric::down(&self.fabric).await.map_err(|error| error.to_string())
    }

    /// A sandbox configuration with a name of its own.
    pub fn pod(&self) -> SandboxConfig {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        SandboxConfig {
            pod_uid: format!("uid-{serial}"),
            pod_name: format!("pod-{serial}"),
            pod_namespace: "default".to_owned(),
            attempt: 0,
            hostname: format!("pod-{serial}"),
            host_network: false,
            host_pid: false,
            host_ipc: false,
            share_process_namespace: false,
            sysctls: BTreeMap::new(),
            qos: QosClass::Burstable,
            resources: Resources::default(),
            labels: BTreeMap::from([("serial".to_owned(), serial.to_string())]),
        }
    }

    /// A container that does what the words say.
    pub fn container(&self, words: &[&str]) -> ContainerConfig {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        ContainerConfig {
            name: "main".to_owned(),
            attempt: 0,
            image_id: self.image.clone(),
            command: Vec::new(),
            args: words.iter().map(|word| (*word).to_owned()).collect(),
            working_dir: None,
            env: vec![("COLOUR".to_owned(), "blue".to_owned())],
            mounts: Vec::new(),
            log_path: self.dir.path().join(format!("logs/{serial}.log")),
            stdin: false,
            stdin_once: false,
            tty: false,
            processes_of: None,
            resources: Resources::default(),
            security: Security {
                run_as_user: None,
                run_as_group: None,
                run_as_non_root: false,
                supplemental_groups: Vec::new(),
                privileged: false,
                read_only_root: false,
                no_new_privileges: false,
                capabilities_add: Vec::new(),
                capabilities_drop: Vec::new(),
                seccomp: Seccomp::RuntimeDefault,
            },
            labels: BTreeMap::new(),
        }
    }
}

/// Makes a sandbox with one started container.
pub async fn start(
    node: &EmbeddedRuntime,
    pod: SandboxConfig,
    container: ContainerConfig,
) -> Result<(SandboxStatus, ContainerId), String> {
    let sandbox = node.run_sandbox(pod).await.map_err(|error| format!("sandbox: {error}"))?;
    let id =
        node.create_container(&sandbox.id, container).await.map_err(|error| format!("create: {error}"))?;
    node.start_container(&id).await.map_err(|error| format!("start: {error}"))?;
    Ok((sandbox, id))
}

/// The container's status.
pub async fn status(node: &EmbeddedRuntime, id: &ContainerId) -> Result<ContainerStatus, String> {
    let list = node.list_containers().await.map_err(|error| error.to_string())?;
    list.into_iter().find(|status| status.id == *id).ok_or_else(|| "container is not listed".to_owned())
}

/// Waits until the container has ended.
pub async fn ended(node: &EmbeddedRuntime, id: &ContainerId) -> Result<ContainerStatus, String> {
    loop {
        let status = status(node, id).await?;
        if matches!(status.state, ContainerState::Exited { .. }) {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a workload inside a container and gives its output.
pub async fn inside(node: &EmbeddedRuntime, id: &ContainerId, words: &[&str]) -> Result<String, String> {
    let mut command = vec!["/orlop".to_owned(), "workload".to_owned()];
    command.extend(words.iter().map(|word| (*word).to_owned()));
    let output = node
        .exec_sync(id, command, Duration::from_secs(20))
        .await
        .map_err(|error| format!("exec {words:?}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails with both sides unless they are equal.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, expected {expected:?}")) }
}

/// Fails with the text unless it holds the part.
pub fn holds(what: &str, text: &str, part: &str) -> Outcome {
    if text.contains(part) { Ok(()) } else { Err(format!("{what}: no {part:?} in {text:?}")) }
}
