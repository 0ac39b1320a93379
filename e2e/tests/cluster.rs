//! One cluster of three nodes, and everything that kubectl and pods do with it. Every test has a namespace of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test without the usual harness"
)]

#[path = "cluster/access.rs"]
mod access;
#[path = "cluster/admission.rs"]
mod admission;
#[path = "cluster/bad_input.rs"]
mod bad_input;
#[path = "cluster/custom.rs"]
mod custom;
#[path = "cluster/deletion.rs"]
mod deletion;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/objects.rs"]
mod objects;
#[path = "cluster/output.rs"]
mod output;
#[path = "cluster/pods.rs"]
mod pods;
#[path = "cluster/streams.rs"]
mod streams;
#[path = "cluster/workloads.rs"]
mod workloads;

use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use e2e::cluster::{Cluster, Home};
use e2e::harness;
use e2e::host::Snapshot;
use e2e::https::Api;
use e2e::kubectl::Kubectl;
use libtest_mimic::Arguments;
use nix::sys::signal::Signal;

/// What a test works with.
pub struct Stage {
    /// In the test's namespace.
    pub kubectl: Kubectl,
    /// As administrator.
    pub api: Api,
    /// The cluster.
    pub cluster: &'static Cluster,
}

/// A test by its name.
pub type Test = (&'static str, fn(&Stage) -> Result<()>);

struct Shared {
    home: Home,
    cluster: Cluster,
    before: Snapshot,
}

/// Started by the first test that needs it.
static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = harness::missing(true);
    if missing.is_none()
        && let Err(error) = harness::isolate()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let tests = [
        objects::TESTS,
        output::TESTS,
        deletion::TESTS,
        pods::TESTS,
        workloads::TESTS,
        network::TESTS,
        streams::TESTS,
        access::TESTS,
        admission::TESTS,
        bad_input::TESTS,
        custom::TESTS,
    ];
    let trials = tests
        .into_iter()
        .flatten()
        .map(|(name, test)| harness::trial(name, missing.as_deref(), move || on_stage(name, *test)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let Some(Ok(shared)) = SHARED.get()
        && let Err(error) = shared.end()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn shared() -> Result<&'static Shared> {
    let shared = SHARED.get_or_init(|| Shared::start().map_err(|error| format!("{error:#}")));
    shared.as_ref().map_err(|error| anyhow!(error.clone()))
}

fn on_stage(name: &str, test: fn(&Stage) -> Result<()>) -> Result<()> {
    let shared = shared()?;
    let namespace = name.replace('_', "-");
    let kubectl = shared.cluster.kubectl()?;
    kubectl.ok(&["create", "namespace", &namespace])?;
    let stage = Stage {
        kubectl: kubectl.namespaced(&namespace),
        api: shared.cluster.api()?,
        cluster: &shared.cluster,
    };
    test(&stage).map_err(|error| {
        let pods = stage.kubectl.ok(&["get", "pods", "-o", "wide"]).unwrap_or_default();
        let events = stage.kubectl.ok(&["get", "events"]).unwrap_or_default();
        error.context(format!("with these pods and events:\n{pods}{events}"))
    })?;
    kubectl.ok(&["delete", "namespace", &namespace, "--wait=false"])?;
    Ok(())
}

impl Shared {
    fn start() -> Result<Shared> {
        let home = Home::new(3)?;
        let before = Snapshot::take(&[&home.data_dir().to_string_lossy()])?;
        let cluster = home.start()?;
        cluster.load_tool(Path::new(env!("CARGO_BIN_EXE_e2e-tool")))?;
        let shared = Shared { home, cluster, before };
        Ok(shared)
    }

    /// Stops the cluster; nothing may stay.
    fn end(&self) -> Result<()> {
        let name = self.cluster.name()?;
        let said = self.cluster.stderr();
        self.cluster.stop(Signal::SIGTERM)?;
        let after = Snapshot::take(&[&self.home.data_dir().to_string_lossy(), &name])?;
        std::fs::remove_dir_all(self.home.folder())?;
        if !said.is_empty() {
            eprintln!("the cluster said:\n{said}");
        }
        after.since(&self.before).must_be_empty()
    }
}
