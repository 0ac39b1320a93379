//! Tells the tests whether there is a kubectl, so that those that need one are reported as ignored without it.

use std::{env, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=ORLOP_TEST_KUBECTL");
    println!("cargo:rerun-if-env-changed=PATH");
    println!("cargo:rustc-check-cfg=cfg(has_kubectl)");
    let named = env::var_os("ORLOP_TEST_KUBECTL").is_some_and(|path| Path::new(&path).is_file());
    let path = env::var_os("PATH").unwrap_or_default();
    if named || env::split_paths(&path).any(|dir| dir.join("kubectl").is_file()) {
        println!("cargo:rustc-cfg=has_kubectl");
    }
}
