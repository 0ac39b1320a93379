//! kill -9 of a process that writes, again and again: every acknowledged write is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use store::{Key, Options, Store, Txn};

const DIR: &str = "STORE_KILL_TEST_DIR";
const ROUNDS: u64 = 6;

fn options(dir: impl Into<std::path::PathBuf>) -> Options {
    let mut options = Options::new(dir, Key::new(1, [1; 32]));
    options.checkpoint_log_bytes = 40_000;
    options.segment_bytes = 1 << 17;
    options
}

/// Writes numbers until it is killed, and tells each one that was acknowledged.
#[test]
#[ignore = "not a test of its own: the process that `acknowledged_writes_survive_kill_9` starts and kills"]
fn writer() {
    let dir = std::env::var(DIR).expect("the directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(options(dir)).expect("the store opens");
        let mut number = store.snapshot().revision();
        loop {
            let writes = (0..8).map(|part| {
                let (store, key) = (store.clone(), format!("k{}", (number + part) % 100));
                let value = format!("{}:{}", number + part, "x".repeat(500));
                tokio::spawn(async move { store.commit(Txn::put(key, value)).await })
            });
            for write in writes.collect::<Vec<_>>() {
                write.await.expect("the writer").expect("committed");
            }
            number += 8;
            let mut out = std::io::stdout();
            writeln!(out, "\nacknowledged {number}").and_then(|()| out.flush()).expect("the test listens");
        }
    });
}

#[tokio::test]
async fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let mut highest = 0;
    for round in 0..ROUNDS {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(DIR, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the writer starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let acknowledged =
            lines.filter_map(|line| line.ok()?.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        highest = acknowledged.take(20 + 17 * round as usize).last().expect("writes were acknowledged");
        child.kill().expect("kill -9");
        child.wait().expect("it ended");

        let store = Store::open(options(&path)).expect("the store opens");
        let snapshot = store.snapshot();
        assert!(snapshot.revision() >= highest, "{} < {highest}", snapshot.revision());
        for number in highest.saturating_sub(90).max(1)..highest {
            let entry = snapshot.get(format!("k{}", number % 100).as_bytes()).expect("the key is there");
            let text = String::from_utf8_lossy(&entry.value).into_owned();
            let found: u64 = text.split(':').next().and_then(|found| found.parse().ok()).expect("a number");
            assert!(found >= number, "{number} was acknowledged, {found} is there");
        }
        store.close().await;
    }
    assert!(highest > 500);
}
