//! The process that stays beside each container: owns its streams, reaps it, writes its log and its exit file.
//!
//! A shim is a fork of a small single-threaded re-exec of this very executable (the *zygote*), so that all shims share
//! the pages which the dynamic loader had to touch, and so that a container start costs a fork instead of an exec of a
//! large binary. No thread and no asynchronous runtime may ever exist in these processes.

mod credentials;
mod exec;
mod fork;
mod log;
pub mod protocol;
mod server;
mod start;
mod sys;
pub mod task;
pub mod zygote;

use std::process::ExitCode;

pub use sys::{send_fds, start_time as sys_start_time};

/// Words after the executable's name that make it a shim.
pub const ARGV: [&str; 2] = ["internal", "shim"];

/// Runs the shim's side when this process was started as one; to be called first in `main`, before any thread exists.
pub fn dispatch() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != ARGV[0] || args.next()? != ARGV[1] {
        return None;
    }
    match args.next().as_deref().and_then(|word| word.to_str()) {
        Some("zygote") => Some(zygote::run(args)),
        _ => {
            eprintln!("this command is used by the node agent itself");
            Some(ExitCode::from(2))
        }
    }
}
