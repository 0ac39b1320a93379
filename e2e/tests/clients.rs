//! Clients that others wrote, on one cluster of two nodes: every command of several kubectls, helm, the Python and Node
//! clients, kube-rs. What they run is in `e2e/clients`; what is not installed is reported as ignored.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test without the usual harness"
)]

#[path = "clients/kube_rs.rs"]
mod kube_rs;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use e2e::cluster::{Cluster, Home};
use e2e::kubectl::{self, Kubectl};
use e2e::transcript::{self, Place, Version};
use e2e::{harness, image, wait};
use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::Signal;

/// Where the clients are that `e2e/clients/prepare` has fetched; otherwise `target/clients`.
const VARIABLE: &str = "ORLOP_TEST_CLIENTS";
/// The scripts and transcripts.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");
/// A script that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(240);
/// How many clients work at a time, unless the command line says otherwise.
const THREADS: usize = 3;
/// What Orlop adds to what Kubernetes says.
const ONLY_KEPT: &str = "Warning: nothing in this cluster acts on ";

/// Keeps the tool's image in use: on a disk that is nearly full, nodes remove the images that are not.
const KEEPER: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: keeper}
spec:
  selector: {matchLabels: {app: keeper}}
  template:
    metadata: {labels: {app: keeper}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers: [{name: main, image: 'orlop.dev/e2e-tool:v1'}]
"#;

/// Versions of kubectl whose words the transcripts do not have: they speak like the older ones here, and there like the
/// newer ones.
const UNKNOWN: RangeInclusive<Version> = (1, 21)..=(1, 32);

struct Shared {
    home: Home,
    cluster: Cluster,
    /// One lock a transcript: its runs with several kubectls use the same names.
    turns: Mutex<BTreeMap<String, &'static Mutex<()>>>,
}

/// Started by the first test that needs it.
static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let missing = harness::missing(true);
    if missing.is_none()
        && let Err(error) = harness::isolate()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let mut trials = kubectl_trials(missing.as_deref());
    trials.extend(chart_trials(missing.as_deref()));
    trials.extend(python_trials(missing.as_deref()));
    trials.push(node_trial(missing.as_deref()));
    trials.push(harness::trial("kube_rs_runs_a_controller", missing.as_deref(), || {
        kube_rs::test(&shared()?.cluster.kubeconfig())
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(Ok(shared)) = SHARED.get()
        && let Err(error) = shared.cluster.stop(Signal::SIGTERM)
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// The folder of the clients that were fetched.
fn fetched() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients");
    std::env::var_os(VARIABLE).map_or(own, PathBuf::from)
}

/// The reason why a test is ignored, when a file is not there.
fn without(missing: Option<&str>, file: &Path) -> Option<String> {
    let absent = || (!file.exists()).then(|| "needs e2e/clients/prepare".to_owned());
    missing.map(str::to_owned).or_else(absent)
}

fn transcripts(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(SOURCES).join(folder)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

fn name_of(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn kubectl_trials(missing: Option<&str>) -> Vec<Trial> {
    let mut kubectls = match missing {
        Some(_) => Vec::new(),
        None => kubectl::oldest_and_newest(&[fetched().join("bin/kubectl")]),
    };
    kubectls.retain(|(version, _)| !UNKNOWN.contains(version));
    let mut trials = Vec::new();
    for file in transcripts("kubectl") {
        for (version, program) in kubectls.clone() {
            let name = format!("kubectl_{}_{}_{}", version.0, version.1, name_of(&file));
            let file = file.clone();
            trials.push(harness::trial(&name, missing, move || {
                run_transcript(&file, version, &[("kubectl", &program)])
            }));
        }
        if kubectls.is_empty() {
            let reason = missing.unwrap_or("needs a kubectl of 1.20 or older, or of 1.33 or newer");
            trials.push(harness::trial(&format!("kubectl_{}", name_of(&file)), Some(reason), || Ok(())));
        }
    }
    trials
}

fn chart_trials(missing: Option<&str>) -> Vec<Trial> {
    let bin = fetched().join("bin");
    let (helm, kubectl) = (bin.join("helm"), bin.join("kubectl"));
    let missing = without(missing, &helm);
    let trial = |file: PathBuf| {
        let (helm, kubectl) = (helm.clone(), kubectl.clone());
        harness::trial(&format!("helm_{}", name_of(&file)), missing.as_deref(), move || {
            run_transcript(&file, kubectl::version_of(&kubectl)?, &[("helm", &helm), ("kubectl", &kubectl)])
        })
    };
    transcripts("helm").into_iter().map(trial).collect()
}

fn python_trials(missing: Option<&str>) -> Vec<Trial> {
    let python = fetched().join("python/bin/python");
    let missing = without(missing, &python);
    let scripts = ["official", "kr8s_client", "lightkube_client", "operator_kopf"];
    let trial = |script: &'static str| {
        let python = python.clone();
        harness::trial(&format!("python_{script}"), missing.as_deref(), move || {
            let folder = Path::new(SOURCES).join("python");
            let mut command = Command::new(python);
            command.arg(folder.join(format!("{script}.py"))).env("PYTHONDONTWRITEBYTECODE", "1");
            run_script(command)
        })
    };
    scripts.into_iter().map(trial).collect()
}

fn node_trial(missing: Option<&str>) -> Trial {
    let modules = fetched().join("node/node_modules");
    let missing = without(missing, &modules);
    harness::trial("node_client", missing.as_deref(), move || {
        // Modules are looked for beside the script.
        let script = modules.with_file_name("client.mjs");
        std::fs::copy(Path::new(SOURCES).join("node/client.mjs"), &script).context("copying the script")?;
        let mut command = Command::new("node");
        command.arg(script);
        run_script(command)
    })
}

fn shared() -> Result<&'static Shared> {
    let shared = SHARED.get_or_init(|| Shared::start().map_err(|error| format!("{error:#}")));
    shared.as_ref().map_err(|error| anyhow!(error.clone()))
}

/// Runs a transcript with these programs, in a namespace and a folder of its own.
fn run_transcript(file: &Path, version: Version, programs: &[(&str, &Path)]) -> Result<()> {
    let shared = shared()?;
    let name = name_of(file);
    let turn = shared.turn(&name);
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let namespace = format!("{name}-{}-{}", version.0, version.1);
    let place = tempfile::tempdir_in(shared.home.folder())?;
    let (bin, work, kubeconfig) =
        (place.path().join("bin"), place.path().join("work"), place.path().join("kubeconfig"));
    std::fs::create_dir_all(&bin)?;
    std::fs::create_dir_all(&work)?;
    std::fs::copy(shared.cluster.kubeconfig(), &kubeconfig)?;
    for (name, program) in programs {
        std::os::unix::fs::symlink(program.canonicalize()?, bin.join(name))?;
    }
    let admin = Kubectl::new(&kubeconfig, place.path())?;
    admin.ok(&["create", "namespace", &namespace])?;
    admin.ok(&["config", "set-context", "--current", &format!("--namespace={namespace}")])?;
    let own = admin.namespaced(&namespace);
    // What controllers put into each namespace.
    wait::eventually("the namespace is furnished", || {
        own.ok(&["get", "serviceaccount/default", "configmap/kube-root-ca.crt"])
    })?;
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let environment = [
        ("PATH", path),
        ("HOME", place.path().display().to_string()),
        ("KUBECONFIG", kubeconfig.display().to_string()),
        ("NAMESPACE", namespace.clone()),
        ("LC_ALL", "C.UTF-8".to_owned()),
    ];
    let place = Place { folder: &work, environment: &environment, version, ignored: ONLY_KEPT };
    let result = transcript::run(&std::fs::read_to_string(file)?, &place);
    admin.ok(&["delete", "namespace", &namespace, "--wait=false"])?;
    result.map(drop)
}

/// Runs a script as administrator; it must end with success.
fn run_script(mut command: Command) -> Result<()> {
    let shared = shared()?;
    let mut log = tempfile::NamedTempFile::new_in(shared.home.folder())?;
    let mut script = command
        .env("KUBECONFIG", shared.cluster.kubeconfig())
        .env("HOME", shared.home.folder())
        .env("ORLOP_TEST_IMAGE", image::TOOL)
        .stdin(Stdio::null())
        .stdout(log.as_file().try_clone()?)
        .stderr(log.as_file_mut().try_clone()?)
        .spawn()
        .context("starting the script")?;
    let ended = wait::eventually_within(LIMIT, "the script ends", || script.try_wait()?.context("it runs"));
    if ended.is_err() {
        script.kill()?;
        script.wait()?;
    }
    let said = std::fs::read_to_string(log.path()).unwrap_or_default();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("it ended with {status}:\n{said}"),
        Err(error) => Err(error.context(said)),
    }
}

// === impl Shared ===

impl Shared {
    fn start() -> Result<Shared> {
        let home = Home::new(2)?;
        let cluster = home.start()?;
        cluster.load_tool(Path::new(env!("CARGO_BIN_EXE_e2e-tool")))?;
        cluster.kubectl()?.namespaced("kube-system").apply(KEEPER)?;
        Ok(Shared { home, cluster, turns: Mutex::default() })
    }

    fn turn(&self, name: &str) -> &'static Mutex<()> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(name.to_owned()).or_insert_with(|| Box::leak(Box::default()))
    }
}
