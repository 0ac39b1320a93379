//! The handle on real files: what it answers, in which order, and when it is closed or refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use store::{
    Change, CommitError, Event, Expect, Key, Limits, Observer, Op, OpenError, Options, Outcome, ReadError,
    Snapshot, Store, Txn, Value,
};

fn options(dir: &tempfile::TempDir) -> Options {
    Options::new(dir.path().join("store"), Key::new(1, [1; 32]))
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn committed(revision: u64) -> Result<Outcome, CommitError> {
    Ok(Outcome::Committed { revisions: vec![revision] })
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(u64, u64)>>>);

impl Observer for Seen {
    fn applied(&self, events: &[Arc<Event>], snapshot: &Arc<Snapshot>) {
        let mut seen = self.0.lock().unwrap();
        seen.extend(events.iter().map(|event| (event.revision, snapshot.revision())));
    }

    fn replaced(&self, snapshot: &Arc<Snapshot>) {
        panic!("the state was replaced by revision {}", snapshot.revision());
    }
}

#[tokio::test]
async fn commits_are_seen_by_snapshot_observer_and_history_before_they_are_answered() {
    let dir = dir();
    let store = Store::open(options(&dir)).unwrap();
    let seen = Seen::default();
    let begin = store.observe(Box::new(seen.clone()));
    assert_eq!((begin.revision(), begin.len()), (1, 0));
    for number in 2..5 {
        let answer = store.commit(Txn::put("k", format!("v{number}"))).await;
        assert_eq!(answer, committed(number));
        assert_eq!(store.snapshot().revision(), number);
        assert_eq!(seen.0.lock().unwrap().last(), Some(&(number, number)));
        assert_eq!(store.history(number - 1).unwrap().len(), 1);
    }
    let conflict = store.commit(Txn::put("k", "x").when("k", Expect::Revision(2))).await;
    assert_eq!(conflict, Ok(Outcome::Conflict { compare: 0 }));
    assert_eq!(store.linearizable().await.unwrap().revision(), 4);
    assert_eq!(&store.at(3).unwrap().get(b"k").unwrap().value[..], b"v3");
    assert!(store.at(1).unwrap().is_empty());
    assert!(store.at(0).is_err() && store.history(0).is_err());
    store.close().await;
}

#[tokio::test]
async fn a_restart_brings_back_objects_history_and_revisions() {
    let dir = dir();
    let store = Store::open(options(&dir)).unwrap();
    let value = Value::spliced("{\"rv\":\"\"}", 7);
    let op = Op::Put { key: "k".into(), value, expires_at_ms: None };
    store.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    store.commit(Txn::delete("k")).await.unwrap();
    store.commit(Txn::put("l", "v")).await.unwrap();
    store.close().await;
    assert_eq!(store.commit(Txn::put("k", "v")).await, Err(CommitError::Closed));
    assert_eq!(store.linearizable().await.err(), Some(ReadError::Closed));
    assert_eq!(store.snapshot().revision(), 4);

    let store = Store::open(options(&dir)).unwrap();
    assert_eq!(store.snapshot().revision(), 4);
    let history = store.history(1).unwrap();
    assert_eq!(history.len(), 3);
    let Change::Delete { last, previous } = &history[1].change else { panic!("not a deletion") };
    assert_eq!((&last[..], &previous[..]), (&b"{\"rv\":\"3\"}"[..], &b"{\"rv\":\"2\"}"[..]));
    assert_eq!(store.commit(Txn::put("k", "v")).await, committed(5));
}

#[tokio::test]
async fn a_second_instance_is_refused_until_the_first_is_closed() {
    let dir = dir();
    let store = Store::open(options(&dir)).unwrap();
    let error = Store::open(options(&dir)).err().expect("refused");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another instance"), "{error}");
    store.close().await;
    Store::open(options(&dir)).expect("free again").close().await;
}

#[tokio::test]
async fn a_wrong_key_and_a_large_transaction_are_refused() {
    let dir = dir();
    let mut small = options(&dir);
    small.max_txn_bytes = 100;
    let store = Store::open(small).unwrap();
    let refused = store.commit(Txn::put("k", vec![0; 100])).await;
    assert!(matches!(refused, Err(CommitError::TooLarge { limit: 100, .. })));
    store.close().await;
    let mut wrong = options(&dir);
    wrong.key = Key::new(1, [2; 32]);
    let error = Store::open(wrong).err().expect("refused").to_string();
    assert!(error.contains("key 1 is not the key"), "{error}");
}

#[tokio::test]
async fn a_reader_waits_for_a_revision_and_gives_up() {
    let dir = dir();
    let store = Store::open(options(&dir)).unwrap();
    let late = store.at_least(2, Duration::ZERO).await;
    assert_eq!(late.err(), Some(ReadError::TimedOut));
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.at_least(2, Duration::from_secs(60)).await }
    });
    store.commit(Txn::put("k", "v")).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().revision(), 2);
}

#[tokio::test]
async fn waiting_writers_share_batches_and_all_get_their_own_revision() {
    let dir = dir();
    let mut small = options(&dir);
    small.checkpoint_log_bytes = 20_000;
    small.segment_bytes = 1 << 17;
    small.history = Limits { bytes: 50_000, age_ms: i64::MAX };
    let store = Store::open(small).unwrap();
    let writers = (0..50).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for number in 0..20 {
                let txn = Txn::put(format!("/{writer}/{number}"), vec![b'x'; 100]);
                match store.commit(txn).await {
                    Ok(Outcome::Committed { revisions: mut own }) => revisions.append(&mut own),
                    other => panic!("{other:?}"),
                }
            }
            revisions
        })
    });
    let mut revisions = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        revisions.extend(writer.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (2..1002).collect::<Vec<u64>>());
    assert!(store.snapshot().compacted_revision() > 1);
    let hash = store.snapshot().hash();
    // A checkpoint is written, and the one before removed, in the background.
    let first = dir.path().join("store/checkpoint-0000000000000001");
    let removed = async {
        while first.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), removed).await.expect("the first checkpoint goes");
    store.close().await;
    assert_eq!(Store::open(options(&dir)).unwrap().snapshot().hash(), hash);
}

#[tokio::test]
async fn keys_expire() {
    let dir = dir();
    let store = Store::open(options(&dir)).unwrap();
    let op = Op::Put { key: "k".into(), value: Value::plain("v"), expires_at_ms: Some(1) };
    store.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    let snapshot = store.at_least(3, Duration::from_secs(60)).await.unwrap();
    assert!(snapshot.is_empty());
}

#[tokio::test]
async fn the_key_is_replaced_while_the_store_runs() {
    let dir = dir();
    let store = Store::open(options(&dir)).unwrap();
    store.commit(Txn::put("before", "v")).await.unwrap();
    assert_eq!(store.key_ids().await.unwrap(), [1].into());
    store.rekey(Key::new(2, [2; 32])).await.unwrap();
    let mut waited = 0;
    while store.key_ids().await.unwrap() != [2].into() {
        waited += 1;
        assert!(waited < 1000, "files of the old key stay: {:?}", store.key_ids().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.commit(Txn::put("after", "v")).await.unwrap();
    store.close().await;
    let Err(OpenError::Recovery { reason, .. }) = Store::open(options(&dir)) else {
        panic!("opened with a key that was replaced")
    };
    assert!(reason.contains("encrypted with key 2"), "{reason}");
    let again = Options::new(dir.path().join("store"), Key::new(2, [2; 32]));
    let store = Store::open(again).unwrap();
    assert_eq!(store.snapshot().len(), 2);
    store.close().await;
}
