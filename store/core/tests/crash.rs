//! Power cuts, torn writes, flipped bits, full disks and failed syncs, at every point of a scripted workload.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use store_core::crypt::{Key, Keys};
use store_core::disk::{Disk, Faults, SimDisk};
use store_core::host::{Host, HostError, HostSettings, Output, Stopped};
use store_core::members::Member;
use store_core::node::{Event, Settings};
use store_core::recovery::Start;
use store_core::{Op, Outcome, Txn, Value};

const WRITES: u64 = 60;

fn keys(byte: u8) -> Keys {
    Keys::new(Key::new(u64::from(byte), [byte; 32]), vec![])
}

fn settings(boot: u64) -> HostSettings {
    let mut node = Settings::new(1);
    node.checkpoint_log_bytes = 2000;
    let start = Start::First(Member::default());
    HostSettings { node, start, segment_bytes: 1 << 17, boot, seed: [boot as u8; 32] }
}

fn open(disk: &SimDisk, boot: u64) -> Result<Host, HostError> {
    Host::open(Arc::new(disk.clone()), keys(1), &settings(boot), 0).map(|(host, _)| host)
}

fn value(write: u64) -> String {
    format!("{write}:{}", "x".repeat((write % 7) as usize * 40))
}

/// Writes number by number, a batch of three at a time, and runs jobs as they come. Returns what was acknowledged.
fn work(host: &mut Host, acknowledged: &mut BTreeMap<String, u64>, from: u64) -> Result<(), Stopped> {
    for batch in (from..from + WRITES).step_by(3) {
        let txns =
            (batch..batch + 3).map(|write| (write, Txn::put(format!("k{}", write % 10), value(write))));
        host.commit(txns.collect(), 0)?;
        drain(host, acknowledged)?;
    }
    Ok(())
}

fn drain(host: &mut Host, acknowledged: &mut BTreeMap<String, u64>) -> Result<(), Stopped> {
    loop {
        let outputs = host.take_outputs();
        if outputs.is_empty() {
            return Ok(());
        }
        for output in outputs {
            match output {
                Output::Publish(batch) => {
                    for (write, outcome) in batch.answers {
                        assert!(matches!(outcome, Outcome::Committed { .. }));
                        acknowledged.insert(format!("k{}", write % 10), write);
                    }
                }
                Output::Job(job) => {
                    if let Some(event) = job.run().event {
                        host.handle(event, 0)?;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Every acknowledged write is there, or one that came later; each batch is there as a whole.
fn check(host: &Host, acknowledged: &BTreeMap<String, u64>, context: &str) {
    let snapshot = host.snapshot();
    for (key, write) in acknowledged {
        let found = snapshot.get(key.as_bytes()).unwrap_or_else(|| panic!("{context}: {key} is lost"));
        let text = String::from_utf8(found.value.to_vec()).unwrap();
        let number: u64 = text.split(':').next().unwrap().parse().unwrap();
        assert_eq!(text, value(number), "{context}: {key}");
        assert!(number >= *write, "{context}: {key} is {number}, acknowledged was {write}");
    }
    assert_eq!((snapshot.revision() - 1) % 3, 0, "{context}: half a batch");
    let sum =
        snapshot.prefix(b"").map(|(key, entry)| store_core::hash::entry(key, entry.revision, &entry.value));
    assert_eq!(sum.fold(0, u64::wrapping_add), snapshot.hash(), "{context}: state hash");
}

#[test]
fn no_power_cut_loses_an_acknowledged_write() {
    let disk = SimDisk::new();
    let mut acknowledged = BTreeMap::new();
    work(&mut open(&disk, 1).unwrap(), &mut acknowledged, 0).unwrap();
    let operations = disk.operations();
    let names = disk.list().unwrap();
    assert!(names.iter().any(|name| name > &"checkpoint-0000000000000001".to_owned()), "{names:?}");
    for cut_at in 0..=operations {
        for seed in 0..4 {
            power_cut(cut_at, seed);
        }
    }
}

/// Cuts the power at one operation, again while recovering, and then lets the work go on.
fn power_cut(cut_at: u64, seed: u64) {
    let context = format!("cut at {cut_at}, seed {seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let disk = SimDisk::new();
    let mut acknowledged = BTreeMap::new();
    disk.set_faults(Faults { cut_at: Some(cut_at), ..Faults::default() });
    if let Ok(mut host) = open(&disk, 1) {
        // The cut ends it, wherever it is.
        let _ = work(&mut host, &mut acknowledged, 0);
    }
    disk.power_cut(&mut rng);
    let again = disk.operations() + rng.random_range(0..20);
    disk.set_faults(Faults { cut_at: Some(again), ..Faults::default() });
    if let Ok(mut host) = open(&disk, 2) {
        check(&host, &acknowledged, &context);
        let _ = work(&mut host, &mut acknowledged, 1000);
    }
    disk.power_cut(&mut rng);
    let mut host = open(&disk, 3).unwrap_or_else(|error| panic!("{context}: {error}"));
    check(&host, &acknowledged, &context);
    work(&mut host, &mut acknowledged, 2000).unwrap();
    check(&host, &acknowledged, &context);
    let hash = host.snapshot().hash();
    drop(host);
    assert_eq!(open(&disk, 4).unwrap().snapshot().hash(), hash, "{context}: replay equals live");
}

#[test]
fn a_failed_sync_stops_and_answers_nobody() {
    let mut acknowledged = BTreeMap::new();
    for fail_sync_from in 10..60 {
        let disk = SimDisk::new();
        disk.set_faults(Faults { fail_sync_from: Some(fail_sync_from), ..Faults::default() });
        let mut host = match open(&disk, 1) {
            Ok(host) => host,
            Err(_) => continue,
        };
        acknowledged.clear();
        let stopped = work(&mut host, &mut acknowledged, 0);
        assert!(matches!(stopped, Err(Stopped::Log(_))), "{stopped:?}");
        disk.power_cut(&mut ChaCha20Rng::seed_from_u64(fail_sync_from));
        check(&open(&disk, 2).unwrap(), &acknowledged, &format!("sync fails from {fail_sync_from}"));
    }
}

#[test]
fn a_full_disk_refuses_writes_and_stays_readable() {
    let disk = SimDisk::new();
    let mut host = open(&disk, 1).unwrap();
    let due = Op::Put { key: "due".into(), value: Value::plain("x"), expires_at_ms: Some(1000) };
    host.commit(vec![(1, Txn::put("a", "1")), (1, Txn { compares: vec![], ops: vec![due] })], 0).unwrap();
    host.take_outputs();
    disk.set_faults(Faults { capacity: Some(300 << 10), ..Faults::default() });
    let mut refused = 0;
    for ticket in 2..40 {
        host.commit(vec![(ticket, Txn::put(format!("k{ticket}"), vec![0; 20 << 10]))], 0).unwrap();
        for output in host.take_outputs() {
            match output {
                Output::DiskFull(tickets) => refused += tickets.len(),
                Output::Job(job) => drop(job.run().event.map(|event| host.handle(event, 0))),
                _ => {}
            }
        }
    }
    assert!(refused > 0);
    host.handle(Event::Tick, 1_000_000).unwrap();
    assert!(host.snapshot().get(b"due").is_some(), "nothing can be written, not even an expiry");
    assert_eq!(&host.snapshot().get(b"a").unwrap().value[..], b"1");
    disk.set_faults(Faults::default());
    host.commit(vec![(99, Txn::put("b", "2"))], 0).unwrap();
    host.handle(Event::Tick, 2_000_000).unwrap();
    assert!(host.snapshot().get(b"due").is_none());
    assert!(host.snapshot().get(b"b").is_some());
    let hash = host.snapshot().hash();
    assert_eq!(open(&disk, 2).unwrap().snapshot().hash(), hash);
}

#[test]
fn a_flipped_bit_is_refused_or_cut_but_never_served() {
    let build = || {
        let disk = SimDisk::new();
        let mut host = open(&disk, 1).unwrap();
        let mut states = vec![(host.snapshot().revision(), host.snapshot().hash())];
        for ticket in 0..4 {
            host.commit(vec![(ticket, Txn::put(format!("k{ticket}"), "value"))], 0).unwrap();
            states.push((host.snapshot().revision(), host.snapshot().hash()));
        }
        (disk, states)
    };
    let (disk, states) = build();
    let log = disk.list().unwrap().into_iter().find(|name| name.starts_with("log-")).unwrap();
    let (mut refused, mut cut) = (0, 0);
    let used = disk.content(&log).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for bit in (0..used as u64 * 8).step_by(5) {
        let (disk, _) = build();
        assert!(disk.flip_bit(&log, bit));
        match open(&disk, 2) {
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains(&log), "{error}");
            }
            Ok(host) => {
                let found = (host.snapshot().revision(), host.snapshot().hash());
                assert!(states.contains(&found), "bit {bit}");
                cut += usize::from(found != states[4]);
            }
        }
    }
    assert!(refused > cut && cut > 0, "{refused} refused, {cut} cut");
}

#[test]
fn a_damaged_newest_checkpoint_falls_back_to_the_one_before_or_is_refused() {
    let disk = SimDisk::new();
    let mut host = open(&disk, 1).unwrap();
    let mut acknowledged = BTreeMap::new();
    work(&mut host, &mut acknowledged, 0).unwrap();
    let hash = host.snapshot().hash();
    // A checkpoint is written, but what it covers is not yet removed.
    host.handle(Event::WantCheckpoint, 0).unwrap();
    for output in host.take_outputs() {
        if let Output::Job(job) = output {
            job.run();
        }
    }
    drop(host);
    let checkpoints: Vec<_> =
        disk.list().unwrap().into_iter().filter(|name| name.starts_with("checkpoint")).collect();
    assert_eq!(checkpoints.len(), 2);
    disk.flip_bit(&checkpoints[1], 1000);
    let mut host = open(&disk, 2).unwrap();
    assert_eq!(host.snapshot().hash(), hash);
    drain(&mut host, &mut acknowledged).unwrap();
    drop(host);
    assert_eq!(open(&disk, 3).unwrap().snapshot().hash(), hash);
    let left: Vec<_> =
        disk.list().unwrap().into_iter().filter(|name| name.starts_with("checkpoint")).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    disk.flip_bit(&left[0], 1000);
    let error = open(&disk, 4).err().expect("nothing is left to start from").to_string();
    assert!(error.contains(&left[0]) && error.contains("backup"), "{error}");
}

#[test]
fn keys_are_checked_and_rotated() {
    let disk = SimDisk::new();
    let mut acknowledged = BTreeMap::new();
    work(&mut open(&disk, 1).unwrap(), &mut acknowledged, 0).unwrap();
    let open_with = |keys: Keys, boot| Host::open(Arc::new(disk.clone()), keys, &settings(boot), 0);
    let wrong = Keys::new(Key::new(1, [9; 32]), vec![]);
    let error = open_with(wrong, 2).err().unwrap().to_string();
    assert!(error.contains("key 1 is not the key"), "{error}");
    let error = open_with(keys(2), 2).err().unwrap().to_string();
    assert!(error.contains("key 1, which was not given"), "{error}");
    let rotating = Keys::new(Key::new(2, [2; 32]), vec![Key::new(1, [1; 32])]);
    let (mut host, _) = open_with(rotating, 2).unwrap();
    drain(&mut host, &mut acknowledged).unwrap();
    let hash = host.snapshot().hash();
    drop(host);
    let (host, _) = open_with(keys(2), 3).expect("the retired key is no longer needed");
    assert_eq!(host.snapshot().hash(), hash);
}

#[test]
fn nothing_of_the_plain_text_is_on_the_disk() {
    let disk = SimDisk::new();
    let mut host = open(&disk, 1).unwrap();
    host.commit(vec![(1, Txn::put("the-secret-key", "the-secret-value"))], 0).unwrap();
    host.handle(Event::WantCheckpoint, 0).unwrap();
    drain(&mut host, &mut BTreeMap::new()).unwrap();
    for name in disk.list().unwrap() {
        let content = disk.content(&name).unwrap();
        assert!(!content.windows(6).any(|window| window == b"secret"), "{name}");
    }
}

#[test]
fn a_missing_file_is_refused() {
    let build = || {
        let disk = SimDisk::new();
        for boot in 1..4 {
            let mut host = open(&disk, boot).unwrap();
            host.commit(vec![(1, Txn::put("a", "1"))], 0).unwrap();
        }
        disk
    };
    let files = build().list().unwrap();
    assert_eq!(files.len(), 4, "{files:?}");
    for (missing, message) in [(0, "no checkpoint"), (1, "misses the entries"), (2, "misses the entries")] {
        let disk = build();
        disk.remove(&files[missing]).unwrap();
        let error = open(&disk, 9).err().expect("refused").to_string();
        assert!(error.contains(message), "{}: {error}", files[missing]);
    }
}
