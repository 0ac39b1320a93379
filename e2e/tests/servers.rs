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

use anyhow::{Context, Result, bail, ensure};
use e2e::harness;
use e2e::wait::{eventually, eventually_within};
use nix::sys::signal::Signal;

use load::Load;
use trio::Trio;

/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(3);
/// How long clients work in peace between faults.
const PEACE: Duration = Duration::from_secs(1);
/// A sync of a slow disk: longer than what a leader calls slow (150 ms), and shorter than its followers' patience (300 ms).
const SLOW: Duration = Duration::from_millis(190);
/// Followers do not wait so long for a leader.
const VERY_SLOW: Duration = Duration::from_millis(500);
/// How often the lead may be lost before it is handed over: on a busy machine followers can lose patience.
const TRIES: usize = 5;

fn main() -> ExitCode {
    harness::one_by_one(&[
        ("killed_servers_lose_nothing", false, killed),
        ("stopped_servers_do_no_harm", false, paused),
        ("cut_servers_serve_nothing_old", false, cut),
        ("a_rolling_restart_fails_no_request", false, rolling),
        ("a_server_is_replaced", false, replaced),
        ("the_last_server_goes_on_alone", false, last),
        ("a_full_disk_is_one_servers_matter", false, full_disk),
        ("a_leader_with_a_slow_disk_hands_the_lead_over", false, slow_disk),
    ])
}

/// Clients and watchers at work, a fault, and what came of it.
fn under(fault: impl FnOnce(&mut Trio, &Load) -> Result<()>) -> Result<()> {
    under_on(Trio::start()?, fault)
}

fn under_on(mut trio: Trio, fault: impl FnOnce(&mut Trio, &Load) -> Result<()>) -> Result<()> {
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

fn slow_disk() -> Result<()> {
    under_on(Trio::with_slow_disks()?, |trio, _| {
        let slow = until_handed_over(trio)?;
        // The lead does not go back to the slow disk, and nobody waits for that disk.
        writes_are_quick(trio, slow)?;
        std::thread::sleep(FAULT);
        ensure!(trio.one(true)? != slow, "the slow disk leads again");
        writes_are_quick(trio, slow)?;
        ensure!(trio.disk(slow)?.delayed() > 2, "the disk was not slow");
        trio.disk(slow)?.set_delay(Duration::ZERO);
        // Where a single sync takes longer than followers wait, they elect: sooner or later, but the group goes on.
        let slow = trio.one(true)?;
        trio.disk(slow)?.set_delay(VERY_SLOW);
        until_another_leads(trio, slow)?;
        writes_are_quick(trio, slow)?;
        trio.disk(slow)?.set_delay(Duration::ZERO);
        Ok(())
    })
}

/// Makes the disk of whoever leads slow, until one has handed the lead over. Returns it; its disk is still slow.
fn until_handed_over(trio: &Trio) -> Result<usize> {
    for _ in 0..TRIES {
        let leader = trio.one(true)?;
        let (before, began) = (trio.hand_overs(leader)?, Instant::now());
        trio.disk(leader)?.set_delay(SLOW);
        let next = until_another_leads(trio, leader)?;
        // It learns of its heir a moment after the others.
        let handed_over = eventually_within(FAULT, "the lead is handed over", || {
            ensure!(trio.hand_overs(leader)? > before, "it was lost");
            Ok(())
        })
        .is_ok();
        println!("from {leader} to {next} after {:?}, handed over: {handed_over}", began.elapsed());
        if handed_over {
            return Ok(leader);
        }
        trio.disk(leader)?.set_delay(Duration::ZERO);
    }
    bail!("no leader handed the lead over: each one lost it")
}

fn until_another_leads(trio: &Trio, leader: usize) -> Result<usize> {
    eventually("another one leads", || {
        let now = trio.one(true)?;
        ensure!(now != leader, "the slow disk leads");
        Ok(now)
    })
}

/// Writes by way of a server whose disk is not slow: they take less than half of a slow sync.
fn writes_are_quick(trio: &Trio, slow: usize) -> Result<()> {
    let api = trio.api(slow % 3 + 1);
    let mut times = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        let body = r#"{"metadata":{"generateName":"quick-"}}"#;
        let answer = api.post("/api/v1/namespaces/default/configmaps", body)?;
        ensure!(answer.status == 201, "{}", answer.text());
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!(
        "writes while the disk of {slow} is slow: {:?} to {:?}, median {:?}",
        times[0], times[20], times[10]
    );
    ensure!(times[10] < SLOW / 2, "writes wait for the slow disk: {times:?}");
    Ok(())
}
