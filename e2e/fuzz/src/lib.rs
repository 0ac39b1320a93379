//! What takes a stranger's bytes, as functions of bytes: fuzz targets.
//!
//! A target fails by a panic: of the code under test, or of a property that it checks. [`TARGETS`] are run in two ways: by
//! `cargo test -p fuzz` on the kept corpus and on some mutations of it, and, guided by coverage, by `cargo run -p xtask --
//! fuzz` (`libfuzzer/`). What either finds goes into `corpus/TARGET` when it is mended.

#![allow(clippy::expect_used, clippy::panic, reason = "a target fails by a panic")]

mod server;
mod targets;

/// One way of bytes into the product.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Takes an input; panics when something is wrong.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "decode", run: targets::decode },
    Target { name: "patch", run: targets::patch },
    Target { name: "apply", run: targets::apply },
    Target { name: "selector", run: targets::selector },
    Target { name: "cel", run: targets::cel },
    Target { name: "protobuf", run: targets::protobuf },
    Target { name: "spdy", run: targets::spdy },
];

/// Runs one target, by its name.
///
/// # Panics
/// When there is none of that name, or the target fails.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").run)(input);
}
