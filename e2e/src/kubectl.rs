//! The unchanged kubectl.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{transcript, wait};

/// Names the kubectl to test with; otherwise the one on `PATH` is used.
pub const VARIABLE: &str = "ORLOP_TEST_KUBECTL";

/// The kubectl of this machine, if there is one.
pub fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|path| path.is_file())
}

/// The kubectl of this machine, and those of other versions beside it: they are named after their version, as `kubectl.1.30`.
pub fn all() -> Vec<PathBuf> {
    let Some(first) = find() else { return Vec::new() };
    let beside = first.canonicalize().ok().and_then(|path| std::fs::read_dir(path.parent()?).ok());
    let entries = beside.into_iter().flatten().flatten().map(|entry| entry.path());
    let mut others: Vec<PathBuf> = entries.filter(|path| is_version(path)).collect();
    others.sort();
    std::iter::once(first).chain(others).collect()
}

/// The version of a kubectl.
///
/// # Errors
/// When it does not tell.
pub fn version_of(program: &Path) -> Result<transcript::Version> {
    let output = Command::new(program)
        .args(["version", "--client", "-o", "json"])
        // A kubectl that chooses another one by the server's version finds no server.
        .env("KUBECONFIG", "/dev/null")
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    let told: Value = serde_json::from_slice(&output.stdout).context("parsing the version")?;
    transcript::version(told["clientVersion"]["gitVersion"].as_str().unwrap_or_default())
}

/// The oldest kubectl that can be found and the two newest, with their versions: beside those of [`all`], those on
/// `PATH` that are named after their version, and `more`.
pub fn oldest_and_newest(more: &[PathBuf]) -> Vec<(transcript::Version, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let entries = std::env::split_paths(&path).filter_map(|folder| std::fs::read_dir(folder).ok());
    let named = entries.flatten().flatten().map(|entry| entry.path()).filter(|path| is_version(path));
    let every = all().into_iter().chain(named).chain(more.iter().cloned());
    let known = every.filter_map(|path| Some((version_of(&path).ok()?, path)));
    let by_version: BTreeMap<transcript::Version, PathBuf> = known.collect();
    let last = by_version.len().saturating_sub(2);
    let chosen = by_version.into_iter().enumerate().filter(|(at, _)| *at == 0 || *at >= last);
    chosen.map(|(_, kubectl)| kubectl).collect()
}

/// Whether a kubectl is named after its version.
fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("kubectl.").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// kubectl with a kubeconfig and a namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    namespace: String,
}

/// What one call gave.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit status; -1 when a signal ended it.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

impl Kubectl {
    /// With the namespace `default`.
    ///
    /// # Errors
    /// Without a kubectl.
    pub fn new(kubeconfig: &Path, home: &Path) -> Result<Kubectl> {
        let program = find().context("there is no kubectl")?;
        let (kubeconfig, home) = (kubeconfig.to_owned(), home.to_owned());
        Ok(Kubectl { program, kubeconfig, home, namespace: "default".to_owned() })
    }

    /// The same in another namespace.
    pub fn namespaced(&self, namespace: &str) -> Kubectl {
        Kubectl { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// The same with another kubectl.
    pub fn with_program(&self, program: &Path) -> Kubectl {
        Kubectl { program: program.to_owned(), ..self.clone() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The command line, to be run by the caller.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("HOME", &self.home)
            .env("KUBECONFIG", &self.kubeconfig)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .args(["--namespace", &self.namespace])
            .args(arguments);
        command
    }

    /// Runs it, with `input` on its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kubectl")?;
        let stdin = child.stdin.take();
        // Before 1.33 kubectl takes whatever begins with a brace for JSON, YAML's flow style too.
        let flow = input.starts_with('{') && serde_json::from_str::<Value>(input).is_err();
        let input = if flow { format!("---\n{input}") } else { input.to_owned() };
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A kubectl that does not read its input says so itself.
                stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
            });
            child.wait_with_output()
        })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Ok(Output { code, stdout: text(output.stdout), stderr: text(output.stderr) })
    }

    /// Runs it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_with(arguments, "")
    }

    /// Standard output of a call that must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        self.ok_with(arguments, "")
    }

    /// As [`Kubectl::ok`], with `input` on its standard input.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn ok_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.run_with(arguments, input)?;
        if output.code != 0 {
            bail!(
                "kubectl {} ended with {}: {}{}",
                arguments.join(" "),
                output.code,
                output.stderr,
                output.stdout
            );
        }
        Ok(output.stdout)
    }

    /// Standard error of a call that must fail.
    ///
    /// # Errors
    /// When it does not.
    pub fn fails(&self, arguments: &[&str]) -> Result<String> {
        self.fails_with(arguments, "")
    }

    /// As [`Kubectl::fails`], with `input` on its standard input.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn fails_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.run_with(arguments, input)?;
        if output.code == 0 {
            bail!("kubectl {} succeeded: {}", arguments.join(" "), output.stdout);
        }
        Ok(output.stderr)
    }

    /// `apply -f -`.
    ///
    /// # Errors
    /// When it is refused.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.ok_with(&["apply", "-f", "-"], manifest)
    }

    /// An object, or a list.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.ok(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).context("parsing kubectl's output")
    }

    /// A value by kubectl's JSONPath.
    ///
    /// # Errors
    /// When the object cannot be had.
    pub fn path(&self, object: &str, path: &str) -> Result<String> {
        self.ok(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// Waits until a value by JSONPath is `wanted`.
    ///
    /// # Errors
    /// With the last value that was seen.
    pub fn until(&self, object: &str, path: &str, wanted: &str) -> Result<()> {
        wait::eventually(&format!("{object} {path} is {wanted:?}"), || {
            let found = self.path(object, path)?;
            if found == wanted { Ok(()) } else { bail!("it is {found:?}") }
        })
    }

    /// Waits until a pod has come to its end; its log.
    ///
    /// # Errors
    /// When it does not, or failed.
    pub fn log_of_finished(&self, pod: &str) -> Result<String> {
        wait::eventually_within(Duration::from_secs(90), &format!("pod {pod} ends"), || {
            match self.path(&format!("pod/{pod}"), "{.status.phase}")?.as_str() {
                "Succeeded" | "Failed" => Ok(()),
                other => bail!("it is {other}"),
            }
        })?;
        self.ok(&["logs", pod])
    }
}
