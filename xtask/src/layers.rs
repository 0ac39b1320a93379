//! Holds the absences of the design: what a core may not link, and what it may not call.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

use crate::sources::{self, Source};

/// Crates that no core and not `api` may reach: runtimes, transports, sockets, processes.
const BANNED_CRATES: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "polling",
    "socket2",
    "hyper",
    "tonic",
    "axum",
    "tower-http",
    "kube-client",
    "reqwest",
    "rustls",
    "tokio-rustls",
    "tungstenite",
    "rtnetlink",
    "netlink-sys",
    "nix",
    "rustix",
    "libcontainer",
    "proto",
];

/// Names that no core may use in its own code, and why.
const BANNED_CALLS: &[(&str, &str)] = &[
    ("::now(", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("thread_rng", "randomness is an argument"),
    ("rand::rng(", "randomness is an argument"),
    ("rand::random", "randomness is an argument"),
    ("new_v4", "ids are arguments"),
    ("std::fs", "files belong to the shell"),
    ("std::process", "processes belong to the shell"),
    ("std::thread", "threads belong to the shell"),
    ("TcpStream", "sockets belong to the shell"),
    ("TcpListener", "sockets belong to the shell"),
    ("UdpSocket", "sockets belong to the shell"),
    ("HashMap", "a map needs a defined order"),
    ("HashSet", "a set needs a defined order"),
];

/// Rooms that meet only through API objects.
const STRANGERS: &[&str] = &["scheduler", "controller", "nodeagent", "proxy"];

/// All violations of the layers, one line each.
pub fn check() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(sources::root().join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("cargo metadata")?;
    let mut violations = links(&metadata)?;
    violations.extend(calls(&sources::all(&["rs"])?));
    Ok(violations)
}

fn is_core(name: &str) -> bool {
    name == "api"
        || name.ends_with("-core")
            && STRANGERS
                .iter()
                .chain(&["store", "apiserver", "client"])
                .any(|room| name == format!("{room}-core"))
}

fn links(metadata: &Metadata) -> Result<Vec<String>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata gave no dependency graph")?;
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            (&node.id, normal.map(|dep| &dep.pkg).collect())
        })
        .collect();
    let mut violations = Vec::new();
    for member in &metadata.workspace_members {
        let name = names[member];
        let reached = closure(member, &edges);
        let reached: BTreeSet<&str> = reached.iter().filter_map(|id| names.get(id).copied()).collect();
        if is_core(name) {
            violations.extend(
                BANNED_CRATES.iter().filter(|banned| reached.contains(**banned)).map(|banned| {
                    format!("{name}: a core links {banned} (cargo tree -p {name} -i {banned})")
                }),
            );
        }
        if name.starts_with("store") && reached.contains("api") {
            violations.push(format!("{name}: the store has never heard of Pods, but links api"));
        }
        for stranger in STRANGERS {
            let own = name == *stranger || name == format!("{stranger}-core");
            let others = STRANGERS.iter().filter(|other| *other != stranger);
            violations.extend(
                others
                    .filter(|other| {
                        own && (reached.contains(**other)
                            || reached.contains(format!("{other}-core").as_str()))
                    })
                    .map(|other| format!("{name}: links {other}; they meet only through API objects")),
            );
        }
    }
    Ok(violations)
}

fn closure<'a>(
    start: &'a PackageId,
    edges: &BTreeMap<&'a PackageId, Vec<&'a PackageId>>,
) -> BTreeSet<&'a PackageId> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![start];
    while let Some(id) = waiting.pop() {
        for next in edges.get(id).into_iter().flatten() {
            if reached.insert(*next) {
                waiting.push(next);
            }
        }
    }
    reached
}

fn calls(all: &[Source]) -> Vec<String> {
    all.iter().filter(|source| in_core(&source.path)).flat_map(banned_calls).collect()
}

fn in_core(path: &str) -> bool {
    let core = path.starts_with("api/src/") || path.contains("/core/src/");
    core && !path.ends_with("/tests.rs") && !path.contains("/tests/")
}

fn banned_calls(source: &Source) -> Vec<String> {
    let hits = sources::code_lines(source).flat_map(|(number, line)| {
        BANNED_CALLS
            .iter()
            .filter(move |(name, _)| line.contains(name))
            .map(move |(name, why)| (number, *name, *why))
    });
    hits.map(|(number, name, why)| format!("{}:{number}: a core names `{name}`: {why}", source.path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_layers() {
        let violations = check().unwrap();
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    #[test]
    fn a_banned_call_in_a_core_is_seen() {
        let source = Source {
            path: "scheduler/core/src/queue.rs".to_owned(),
            text: "fn f() { let t = Timestamp::now(); }\n// SystemTime in a comment\n".to_owned(),
        };
        assert_eq!(
            calls(&[source]),
            ["scheduler/core/src/queue.rs:1: a core names `::now(`: time is an argument"]
        );
    }

    #[test]
    fn a_shell_and_a_test_may_call_what_they_like() {
        let shell = Source { path: "scheduler/src/lib.rs".to_owned(), text: "Timestamp::now();".to_owned() };
        let test = Source {
            path: "api/src/quantity.rs".to_owned(),
            text: "#[cfg(test)]\nmod tests { use std::collections::HashMap; }".to_owned(),
        };
        assert!(calls(&[shell, test]).is_empty());
    }
}
