//! Three stores on real directories and loopback sockets with mutual TLS: joining, followers, restarts, catching up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

#[path = "group/network.rs"]
mod network;
#[path = "group/slow_disk.rs"]
mod slow_disk;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use network::{Authority, Member, Three};
use store::{ChangeError, Event, Observer, Outcome, Role, Snapshot, Start, Txn};

const LONG: Duration = Duration::from_secs(60);

async fn put(store: &store::Store, key: &str, value: &str) -> u64 {
    match store.commit(Txn::put(key.to_owned(), value.to_owned())).await {
        Ok(Outcome::Committed { revisions }) => revisions[0],
        other => panic!("{key}: {other:?}"),
    }
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Observer for Seen {
    fn applied(&self, events: &[Arc<Event>], _: &Arc<Snapshot>) {
        self.0.lock().unwrap().extend(events.iter().map(|event| event.revision.to_string()));
    }

    fn replaced(&self, snapshot: &Arc<Snapshot>) {
        self.0.lock().unwrap().push(format!("replaced {}", snapshot.revision()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_takes_writes_and_confirms_reads() {
    let three = Three::start().await;
    for writer in 1..=3 {
        let revision = put(three.store(writer), "k", &writer.to_string()).await;
        assert_eq!(three.store(writer).snapshot().revision(), revision, "who wrote reads what it wrote");
        for reader in 1..=3 {
            let snapshot = three.store(reader).linearizable().await.unwrap();
            assert_eq!(&snapshot.get(b"k").unwrap().value[..], writer.to_string().as_bytes());
        }
    }
    let leader = three.leader().await;
    for member in three.members.values() {
        let members = member.store.members().await;
        assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(
            members.iter().filter(|member| member.leads).map(|it| it.id).collect::<Vec<_>>(),
            [leader]
        );
        for status in &members {
            assert_eq!(status.address, three.addresses[status.id as usize - 1]);
            assert!(status.applied.is_some() && status.matched.is_some(), "{status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_closes_hands_over_and_comes_back() {
    let mut three = Three::start().await;
    for round in 0..3 {
        let leader = three.leader().await;
        let other = leader % 3 + 1;
        let mut leadership = three.store(other).leadership();
        three.members.remove(&leader).unwrap().stop().await;
        let next = leadership.wait_for(|now| now.leader.is_some_and(|id| id != leader)).await.unwrap().leader;
        assert!(next.is_some());
        put(three.store(other), "k", &round.to_string()).await;
        three.open(leader, three.start_of(leader)).await;
        let snapshot = three.store(leader).linearizable().await.unwrap();
        assert_eq!(&snapshot.get(b"k").unwrap().value[..], round.to_string().as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_too_late_is_sent_the_state_and_observers_start_over() {
    let mut three = Three::start().await;
    let leader = three.leader().await;
    let away = leader % 3 + 1;
    three.members.remove(&away).unwrap().stop().await;
    let value = "x".repeat(1 << 20);
    let mut last = 0;
    for number in 0..24 {
        last = put(three.store(leader), &format!("k{number}"), &value).await;
    }
    three.open(away, three.start_of(away)).await;
    let seen = Seen::default();
    let begin = three.store(away).observe(Box::new(seen.clone())).revision();
    three.store(away).at_least(last, LONG).await.unwrap();
    let seen = seen.0.lock().unwrap().clone();
    if begin < last {
        assert!(seen[0].starts_with("replaced "), "{seen:?}");
    }
    assert!(three.store(away).history(2).is_err(), "what led there is not known here");
    put(three.store(away), "k", "v").await;
    let hash = three.store(leader).linearizable().await.unwrap().hash();
    assert_eq!(three.store(away).linearizable().await.unwrap().hash(), hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_refused_and_another_takes_its_place() {
    let mut three = Three::start().await;
    let gone = three.leader().await;
    assert_eq!(three.store(gone % 3 + 1).remove_member(gone).await, Ok(()));
    let removed = three.members.remove(&gone).unwrap();
    let mut closed = removed.store.leadership();
    while closed.changed().await.is_ok() {}
    removed.stop().await;
    let rest = gone % 3 + 1;
    assert_eq!(three.store(rest).promote(gone).await, Err(ChangeError::Removed { id: gone }));
    assert_eq!(three.store(rest).remove_member(77).await, Err(ChangeError::NoSuchMember { id: 77 }));

    // It comes back with its old data, and is told to go.
    three.open(gone, three.start_of(gone)).await;
    let mut closed = three.store(gone).leadership();
    while closed.changed().await.is_ok() {}
    three.members.remove(&gone).unwrap().stop().await;

    three.join(4).await;
    put(three.store(4), "k", "v").await;
    let members = three.store(rest).members().await;
    assert!(members.iter().all(|member| member.id != gone && member.role == Role::Voter), "{members:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_with_another_authority_reaches_nobody() {
    let mut three = Three::start().await;
    let asked = three.store(1).add_member("stranger", three.addresses[3].clone()).await;
    assert_eq!(asked, Ok(4));
    let stranger = Authority::new();
    let start = three.start_of(4);
    let member = Member::start(&stranger, 4, three.dir(4), three.addresses[3].clone(), start, None).await;
    assert!(member.store.linearizable().await.is_err(), "it never joins");
    let members = three.store(1).members().await;
    assert!(members.iter().any(|member| member.id == 4 && member.role == Role::Learner), "{members:?}");
    member.stop().await;
    put(three.store(2), "k", "v").await;
    drop(three.members.remove(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_takes_over_a_changed_name() {
    let mut three = Three::start().await;
    three.members.remove(&2).unwrap().stop().await;
    let address = three.addresses[1].clone();
    three.open(2, Start::Join { name: "renamed".into(), address }).await;
    loop {
        let members = three.store(1).members().await;
        if members.iter().any(|member| member.name == "renamed") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes the disk of whoever leads slow, until one has handed the lead over; returns it. On a busy machine followers can lose
/// patience before: then the next one is tried.
async fn until_handed_over(three: &Three) -> u64 {
    for _ in 0..5 {
        let leader = three.leader().await;
        let other = leader % 3 + 1;
        put(three.store(other), "quick", "v").await;
        let before = three.store(leader).leadership().borrow().hand_overs;
        three.delays[&leader].store(190, Ordering::Relaxed);
        let began = Instant::now();
        // Each write keeps the slow disk busy, until it is not waited for any more.
        while three.store(other).leadership().borrow().leader.is_none_or(|now| now == leader) {
            put(three.store(other), "slow", "v").await;
            assert!(began.elapsed() < LONG, "writes wait for the slow disk");
        }
        let mut leadership = three.store(leader).leadership();
        let told = leadership.wait_for(|now| now.leader.is_some_and(|now| now != leader)).await;
        if told.unwrap().hand_overs > before {
            return leader;
        }
        three.delays[&leader].store(0, Ordering::Relaxed);
    }
    panic!("no leader handed the lead over: each one lost it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_slow_hands_the_lead_over() {
    let three = Three::start().await;
    let leader = until_handed_over(&three).await;
    let other = leader % 3 + 1;
    for number in 0..20 {
        put(three.store(other), &format!("after-{number}"), "v").await;
    }
    let leads = three.store(other).leadership().borrow().leader;
    assert_ne!(leads, Some(leader), "the lead went back to the slow disk");
    three.delays[&leader].store(0, Ordering::Relaxed);
    let hash = three.store(other).linearizable().await.unwrap().hash();
    assert_eq!(three.store(leader).linearizable().await.unwrap().hash(), hash, "it keeps up all the same");
}
