//! The binary as a person meets it at a prompt: what it says, and how it ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of them")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn orlop(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orlop")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_names_its_version() {
    let output = orlop(&["--version"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), format!("orlop {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_word_is_told_on_standard_error() {
    let output = orlop(&["nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("nonsense"));
}

#[test]
fn a_taken_port_is_told_before_anything_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data_dir = data.to_string_lossy();
    let output =
        orlop(&["up", "--runtime", "hollow", "--nodes", "0", "--port", &port, "--data-dir", &data_dir]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(&port) && told.contains("--port"), "{told}");
    assert!(!data.exists());
}
