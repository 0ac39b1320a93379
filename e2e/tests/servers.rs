//! Three servers on three hosts under faults, with clients and watchers that hold them to what they have promised.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test without the usual harness"
)]

#[path = "servers/load.rs"]
mod load;
#[path = "servers/trio.rs"]
mod trio;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::harness;
use e2e::wait::eventually;
use libtest_mimic::Arguments;
use nix::sys::signal::Signal;

use load::Load;
use trio::Trio;

/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(3);
/// How long clients work in peace between faults.
const PEACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Every test has the bridge for itself.
    arguments.test_threads = Some(1);
    let missing = harness::missing(false);
    if missing.is_none()
        && let Err(error) = harness::isolate()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let missing = missing.as_deref();
    let tests = vec![
        harness::trial("killed_servers_lose_nothing", missing, killed),
        harness::trial("stopped_servers_do_no_harm", missing, paused),
        harness::trial("cut_servers_serve_nothing_old", missing, cut),
        harness::trial("a_rolling_restart_fails_no_request", missing, rolling),
        harness::trial("a_server_is_replaced", missing, replaced),
        harness::trial("the_last_server_goes_on_alone", missing, last),
        harness::trial("a_full_disk_is_one_servers_matter", missing, full_disk),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// Clients and watchers at work, a fault, and what came of it.
fn under(fault: impl FnOnce(&mut Trio, &Load) -> Result<()>) -> Result<()> {
    let mut trio = Trio::start()?;
    let load = Load::start(&trio)?;
    std::thread::sleep(PEACE);
    fault(&mut trio, &load)?;
    trio.until_whole()?;
    std::thread::sleep(PEACE);
    let summary = load.finish(&trio)?;
    println!("{summary}");
    ensure!(summary.writes > 50, "clients got nothing done: {summary}");
    trio.until_same_state()
}

/// The time from `moment` until the next write was acknowledged.
fn outage(load: &Load, moment: Instant) -> Result<Duration> {
    let next =
        eventually("writes are acknowledged again", || load.history().gap(moment).1.context("none yet"))?;
    Ok(next.duration_since(moment))
}

fn killed() -> Result<()> {
    under(|trio, load| {
        for _ in 0..2 {
            for leading in [true, false] {
                let server = trio.one(leading)?;
                let moment = Instant::now();
                trio.kill(server)?;
                println!(
                    "killed server {server}, leading: {leading}: {:?} without a write",
                    outage(load, moment)?
                );
                std::thread::sleep(PEACE);
                trio.start_again(server)?;
                trio.until_whole()?;
            }
        }
        Ok(())
    })
}

fn paused() -> Result<()> {
    under(|trio, load| {
        for leading in [true, false] {
            let server = trio.one(leading)?;
            let moment = Instant::now();
            trio.signal(server, Signal::SIGSTOP)?;
            outage(load, moment)?;
            std::thread::sleep(FAULT);
            trio.signal(server, Signal::SIGCONT)?;
            trio.until_whole()?;
        }
        Ok(())
    })
}

fn cut() -> Result<()> {
    under(|trio, load| {
        for leading in [true, false] {
            let server = trio.one(leading)?;
            let moment = Instant::now();
            trio.hosts().set_link(server, false)?;
            outage(load, moment)?;
            std::thread::sleep(FAULT);
            trio.hosts().set_link(server, true)?;
            trio.until_whole()?;
        }
        // One way only: the leader hears the others, and they do not hear it.
        let server = trio.one(true)?;
        trio.silence(server, true)?;
        std::thread::sleep(FAULT);
        trio.silence(server, false)
    })
}

fn rolling() -> Result<()> {
    let mut trio = Trio::start()?;
    let load = Load::start(&trio)?;
    std::thread::sleep(PEACE);
    for server in 1..=3 {
        trio.stop(server)?;
        trio.start_again(server)?;
        trio.until_whole()?;
    }
    std::thread::sleep(PEACE);
    let summary = load.finish(&trio)?;
    println!("{summary}");
    ensure!(summary.unknown == 0, "requests failed: {summary}");
    ensure!(summary.writes > 50, "clients got nothing done: {summary}");
    trio.until_same_state()
}

fn replaced() -> Result<()> {
    under(|trio, _| {
        let leaving = trio.one(false)?;
        trio.remove(leaving)?;
        let said = trio.end_of(leaving)?;
        ensure!(said.contains("removed"), "a removed server says: {said}");
        let again = trio.refused_start(leaving)?;
        ensure!(again.contains("removed") && again.contains("data directory"), "it says: {again}");
        trio.join_anew(leaving)?;
        trio.until_whole()
    })
}

fn last() -> Result<()> {
    let mut trio = Trio::start()?;
    let load = Load::start(&trio)?;
    std::thread::sleep(PEACE);
    load.finish(&trio)?;
    trio.until_same_state()?;
    let names = trio.names_at(2)?;
    for server in 1..=3 {
        trio.kill(server)?;
    }
    trio.recover(2)?;
    trio.start_again(2)?;
    ensure!(trio.names_at(2)? == names, "objects are lost");
    ensure!(
        trio.api(2).post("/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"after"}}"#)?.status
            == 201
    );
    // Who was given up does not come back with its data.
    let said = trio.refused_start(1)?;
    ensure!(said.contains("removed"), "it says: {said}");
    for server in [1, 3] {
        trio.join_anew(server)?;
    }
    trio.until_whole()
}

fn full_disk() -> Result<()> {
    under(|trio, load| {
        let server = trio.one(false)?;
        trio.stop(server)?;
        let disk = trio.small_disk(server)?;
        trio.start_again(server)?;
        trio.until_whole()?;
        disk.fill()?;
        load.write_much(trio)?;
        let moment = Instant::now();
        outage(load, moment)?;
        disk.free()?;
        trio.revive(server)?;
        trio.until_whole()?;
        // Its data goes with the small disk, so it leaves first.
        trio.stop(server)?;
        disk.leave()?;
        trio.start_again(server)
    })
}
