//! System call filters, compiled by the agent and installed by the shim.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use seccompiler::{BpfProgram, TargetArch};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// System calls that the default profile allows; lines `cap NAME: …` need that capability, `x86_64: …` that machine.
const DEFAULT: &str = include_str!("seccomp_default.txt");

/// Why a filter could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The profile cannot be read.
    #[error("seccomp profile {path}: {detail}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The filter cannot be compiled.
    #[error("seccomp filter: {0}")]
    Compile(String),
    /// The compiled filter cannot be kept.
    #[error("seccomp filter: {0}")]
    Io(#[from] io::Error),
}

/// Compiled filters of the default profile for a process with these capabilities, as files in `dir`.
pub fn runtime_default(dir: &Path, capabilities: u64) -> Result<Vec<PathBuf>, SeccompError> {
    // A later version of the profile must not find the filters of an earlier one.
    let version = hex::encode(&Sha256::digest(DEFAULT)[..4]);
    let main = dir.join(format!("default-{version}-{capabilities:x}.bpf"));
    let unknown = dir.join(format!("unknown-{version}.bpf"));
    if !main.exists() {
        fs::create_dir_all(dir)?;
        let filter: Vec<Value> = rules(capabilities);
        let document = json!({"main": {
            "mismatch_action": {"errno": libc::EPERM}, "match_action": "allow", "filter": filter,
        }});
        keep(&main, &compile(&document)?)?;
    }
    if !unknown.exists() {
        keep(&unknown, &unknown_calls())?;
    }
    let sys_admin = capabilities & (1 << 21) != 0;
    // clone3 hides its flags behind a pointer: only those who may make namespaces anyway may call it.
    Ok(if sys_admin { vec![main] } else { vec![main, unknown] })
}

/// Compiled filters of a profile in the OCI JSON form.
pub fn from_profile(dir: &Path, profile: &Path, id: &str) -> Result<Vec<PathBuf>, SeccompError> {
    let fault = |detail: String| SeccompError::Profile { path: profile.to_owned(), detail };
    let text = fs::read(profile).map_err(|error| fault(error.to_string()))?;
    let parsed: Profile = serde_json::from_slice(&text).map_err(|error| fault(error.to_string()))?;
    fs::create_dir_all(dir)?;
    let mut files = Vec::new();
    for (index, document) in parsed.documents().map_err(fault)?.iter().enumerate() {
        let path = dir.join(format!("{id}-{index}.bpf"));
        keep(&path, &compile(document)?)?;
        files.push(path);
    }
    Ok(files)
}

fn machine() -> Result<TargetArch, SeccompError> {
    std::env::consts::ARCH.try_into().map_err(|error| SeccompError::Compile(format!("{error}")))
}

fn compile(document: &Value) -> Result<Vec<u8>, SeccompError> {
    let text = document.to_string();
    let mut map = seccompiler::compile_from_json(text.as_bytes(), machine()?)
        .map_err(|error| SeccompError::Compile(error.to_string()))?;
    let program: BpfProgram = map.remove("main").unwrap_or_default();
    Ok(program.iter().flat_map(|i| instruction(i.code, i.jt, i.jf, i.k)).collect())
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> [u8; 8] {
    let ([c0, c1], [k0, k1, k2, k3]) = (code.to_le_bytes(), k.to_le_bytes());
    [c0, c1, jt, jf, k0, k1, k2, k3]
}

/// Answers ENOSYS for clone3 and for calls newer than the profile, so that programs fall back instead of giving up.
fn unknown_calls() -> Vec<u8> {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let newest_known = 462;
    [
        instruction(LOAD, 0, 0, 0),
        instruction(EQUAL, 2, 0, libc::SYS_clone3 as u32),
        instruction(GREATER, 1, 0, newest_known),
        instruction(RETURN, 0, 0, ALLOW),
        instruction(RETURN, 0, 0, ERRNO | libc::ENOSYS as u32),
    ]
    .concat()
}

fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}", rand::random::<u32>()));
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// Flags of clone that make namespaces.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

fn rules(capabilities: u64) -> Vec<Value> {
    let mut rules = Vec::new();
    for line in DEFAULT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (applies, calls) = match line.split_once(':') {
            None => (true, line),
            Some((condition, calls)) => match condition.strip_prefix("cap ") {
                Some(name) => {
                    (super::spec::capability(name).is_some_and(|n| capabilities & (1 << n) != 0), calls)
                }
                None => (condition == std::env::consts::ARCH, calls),
            },
        };
        if applies {
            rules.extend(calls.split_whitespace().map(|call| json!({"syscall": call})));
        }
    }
    let condition =
        |index: u8, op: Value, value: u64| json!([{"index": index, "type": "dword", "op": op, "val": value}]);
    if capabilities & (1 << 21) == 0 {
        rules.push(json!({
            "syscall": "clone", "args": condition(0, json!({"masked_eq": NAMESPACE_FLAGS}), 0),
        }));
    }
    for persona in [0, 0x8, 0x20000, 0x20008, 0xffff_ffff_u64] {
        rules.push(json!({"syscall": "personality", "args": condition(0, json!("eq"), persona)}));
    }
    // Sockets of every family but those that reach the hypervisor.
    rules.push(json!({"syscall": "socket", "args": condition(0, json!("ne"), 40)}));
    rules
}

/// A profile as `localhostProfile` names it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<ProfileRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileRule {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<ProfileArg>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileArg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

// === impl Profile ===

impl Profile {
    /// One filter for the default with its allowances, and one for each further action: the kernel takes the strictest.
    fn documents(&self) -> Result<Vec<Value>, String> {
        let default = action(&self.default_action, self.default_errno_ret)?;
        let mut by_action: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
        for rule in &self.syscalls {
            let action = action(&rule.action, rule.errno_ret)?;
            let args = rule.args.iter().map(ProfileArg::condition).collect::<Result<Vec<_>, _>>()?;
            let slot = by_action.entry(action.to_string()).or_insert_with(|| (action, Vec::new()));
            for name in rule.names.iter().filter(|name| is_known(name)) {
                slot.1.push(match args.is_empty() {
                    true => json!({"syscall": name}),
                    false => json!({"syscall": name, "args": args}),
                });
            }
        }
        let allowed =
            by_action.remove(&json!("allow").to_string()).map(|(_, rules)| rules).unwrap_or_default();
        let mut filters = Vec::new();
        if default != json!("allow") {
            filters.push(
                json!({"main": {"mismatch_action": default, "match_action": "allow", "filter": allowed}}),
            );
        }
        for (action, rules) in by_action.into_values().filter(|(action, _)| *action != default) {
            filters
                .push(json!({"main": {"mismatch_action": "allow", "match_action": action, "filter": rules}}));
        }
        Ok(filters)
    }
}

impl ProfileArg {
    fn condition(&self) -> Result<Value, String> {
        let (op, value) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (json!("eq"), self.value),
            "SCMP_CMP_NE" => (json!("ne"), self.value),
            "SCMP_CMP_LT" => (json!("lt"), self.value),
            "SCMP_CMP_LE" => (json!("le"), self.value),
            "SCMP_CMP_GT" => (json!("gt"), self.value),
            "SCMP_CMP_GE" => (json!("ge"), self.value),
            "SCMP_CMP_MASKED_EQ" => (json!({"masked_eq": self.value}), self.value_two),
            other => return Err(format!("unknown operator {other:?}")),
        };
        Ok(json!({"index": self.index, "type": "qword", "op": op, "val": value}))
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<Value, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => json!("allow"),
        "SCMP_ACT_LOG" => json!("log"),
        "SCMP_ACT_ERRNO" => json!({"errno": errno.unwrap_or(libc::EPERM as u32)}),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => json!("kill_thread"),
        "SCMP_ACT_KILL_PROCESS" => json!("kill_process"),
        "SCMP_ACT_TRAP" => json!("trap"),
        "SCMP_ACT_TRACE" => json!({"trace": errno.unwrap_or(0)}),
        other => return Err(format!("unsupported action {other:?}")),
    })
}

/// Profiles name the calls of all machines; only those of this one can be compiled.
fn is_known(call: &str) -> bool {
    compile(&json!({"main": {
        "mismatch_action": "allow", "match_action": "log", "filter": [{"syscall": call}],
    }}))
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_default_profile_is_known_here() {
        for rule in rules(u64::MAX).iter().chain(&rules(0)) {
            let name = rule["syscall"].as_str().unwrap();
            assert!(is_known(name), "{name}");
        }
    }

    #[test]
    fn the_default_profile_compiles_for_any_capabilities() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(runtime_default(dir.path(), 0).unwrap().len(), 2);
        assert_eq!(runtime_default(dir.path(), u64::MAX).unwrap().len(), 1);
        for file in fs::read_dir(dir.path()).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.is_empty() && bytes.len() % 8 == 0);
        }
    }

    #[test]
    fn profiles_of_users_become_one_filter_for_each_action() {
        let dir = tempfile::tempdir().unwrap();
        let profile = dir.path().join("p.json");
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
            {"names":["reboot"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
        fs::write(&profile, text).unwrap();
        assert_eq!(from_profile(dir.path(), &profile, "x").unwrap().len(), 2);
        fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).unwrap();
        assert!(from_profile(dir.path(), &profile, "x").is_err());
    }
}
