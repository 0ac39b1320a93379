//! Groups of several members: joining, catching up, removal, changes of the lead, reads, restarts and bad weather.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

#[path = "cluster/group.rs"]
mod group;

use std::collections::BTreeMap;

use group::{CALM, Group, STORM, Told, member};
use store_core::node::{Change, ChangeRefusal, Event, Refusal};
use store_core::recovery::Start;
use store_core::{Outcome, Txn};

fn value(number: usize) -> String {
    format!("{number}:{}", "x".repeat(200))
}

#[test]
fn a_member_joins_as_a_learner_and_is_promoted_when_it_has_caught_up() {
    let mut group = Group::new(1);
    for number in 0..50 {
        group.put(1, &format!("k{number}"), &value(number));
    }
    let ticket = group.change(1, Change::Add(member(2)));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(2)));
    assert_eq!(group.host(1).node().conf_state().learners, [2]);
    group.pass(2000);
    assert_eq!(group.voters(1), [1], "who has not come yet does not vote");
    group.put(1, "meanwhile", "v");
    group.place(2, Start::Join(member(2)));
    group.until(5000, |group| group.voters(1) == [1, 2] && group.is_even());
    assert_eq!(group.machines[&2].replaced, 1);
    let members = group.host(2).node().state().members().clone();
    assert_eq!(members.get(2), Some(&member(2)));
    assert_eq!(members.get(1), Some(&member(1)));
    group.put(2, "from the new one", "v");
    assert!(group.host(2).snapshot().get(b"from the new one").is_some(), "it reads what it wrote");
}

#[test]
fn writes_and_reads_work_on_any_member() {
    let mut group = Group::of(3, 2);
    for id in [1, 2, 3] {
        group.put(id, "k", &id.to_string());
        let revision = group.host(id).snapshot().revision();
        for reader in [1, 2, 3] {
            let ticket = group.read(reader);
            assert_eq!(group.wait_for(ticket), Told::Confirmed(revision), "{id} wrote, {reader} reads");
        }
    }
    let ticket = group.commit(2, Txn::put("k", "x").when("k", store_core::Expect::Absent));
    assert_eq!(group.wait_for(ticket), Told::Outcome(Outcome::Conflict { compare: 0 }));
}

#[test]
fn who_was_too_far_behind_is_sent_the_state_and_starts_over() {
    let mut group = Group::of(3, 3);
    let leader = group.wait_for_leader();
    let behind = group.other_than(leader);
    let replaced = group.machines[&behind].replaced;
    for (round, power) in [false, true].into_iter().enumerate() {
        group.crash(behind, power);
        for number in 0..100 {
            group.put(leader, &format!("k{number}"), &value(number + round));
        }
        group.boot(behind);
        group.until(5000, |group| group.is_even());
        assert_eq!(group.machines[&behind].replaced, replaced + 1 + round);
    }
    group.put(behind, "k", "v");
    group.crash(behind, true);
    group.boot(behind);
    assert!(group.machines[&behind].stopped.is_none(), "{:?}", group.machines[&behind].stopped);
    group.until(5000, |group| group.is_even());
}

#[test]
fn a_state_is_caught_up_with_while_writes_go_on() {
    let mut group = Group::of(3, 4);
    let leader = group.wait_for_leader();
    let behind = group.other_than(leader);
    group.crash(behind, false);
    for number in 0..100 {
        group.put(leader, &format!("k{number}"), &value(number));
    }
    group.boot(behind);
    // More is written while the state is under way than is kept for slow peers.
    for number in 0..100 {
        group.commit(leader, Txn::put(format!("l{number}"), value(number)));
        group.pass(1);
    }
    group.until(5000, |group| group.is_even());
    assert_eq!(group.machines[&behind].replaced, 2, "once when it joined, once now");
}

#[test]
fn a_removed_member_stops_and_is_refused_when_it_comes_back() {
    let mut group = Group::of(3, 5);
    let leader = group.wait_for_leader();
    let gone = group.other_than(leader);
    let ticket = group.change(leader, Change::Remove(gone));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(gone)));
    group.until(10_000, |group| group.machines[&gone].host.is_none());
    let reason = group.machines[&gone].stopped.clone().unwrap();
    assert!(reason.contains("removed from the cluster: remove its data directory"), "{reason}");
    group.boot(gone);
    group.until(10_000, |group| group.machines[&gone].host.is_none());
    let rest = group.other_than(gone);
    group.put(rest, "k", "v");

    let ticket = group.change(rest, Change::Add(member(9)));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(4)), "ids are not given again");
    let ticket = group.change(rest, Change::Promote(gone));
    assert_eq!(group.wait_for(ticket), Told::Changed(Err(ChangeRefusal::Removed)));
}

#[test]
fn who_was_away_when_it_was_removed_is_told_by_its_peers() {
    let mut group = Group::of(3, 6);
    let leader = group.wait_for_leader();
    let gone = group.other_than(leader);
    group.crash(gone, false);
    let ticket = group.change(leader, Change::Remove(gone));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(gone)));
    group.boot(gone);
    group.until(10_000, |group| group.machines[&gone].host.is_none());
    assert!(group.machines[&gone].stopped.as_ref().unwrap().contains("removed from the cluster"));
    assert!(group.leader() == Some(leader), "it disturbed nobody");
}

#[test]
fn a_learner_that_was_away_when_it_was_removed_is_told_too() {
    let mut group = Group::of(2, 7);
    let ticket = group.change(1, Change::Add(member(3)));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(3)));
    group.place(3, Start::Join(member(3)));
    group.until(10_000, |group| group.host(3).node().conf_state().learners.contains(&3));
    group.crash(3, false);
    let ticket = group.change(1, Change::Remove(3));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(3)));
    group.pass(5_000);
    group.boot(3);
    group.until(10_000, |group| group.machines[&3].host.is_none());
    assert!(group.machines[&3].stopped.as_ref().unwrap().contains("removed from the cluster"));
}

#[test]
fn a_member_that_joined_and_that_nobody_calls_gives_up() {
    let mut group = Group::of(1, 8);
    let ticket = group.change(1, Change::Add(member(2)));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(2)));
    let ticket = group.change(1, Change::Remove(2));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(2)));
    // What was sent to it before it was removed is lost.
    group.pass(1_000);
    group.place(2, Start::Join(member(2)));
    group.pass(115_000);
    assert!(group.machines[&2].host.is_some(), "it waits for two minutes");
    group.until(10_000, |group| group.machines[&2].host.is_none());
    assert!(group.machines[&2].stopped.as_ref().unwrap().contains("join anew"));
}

#[test]
fn a_learner_that_was_cut_off_waits_for_as_long_as_it_takes() {
    let mut group = Group::of(1, 8);
    let ticket = group.change(1, Change::Add(member(2)));
    assert_eq!(group.wait_for(ticket), Told::Changed(Ok(2)));
    group.place(2, Start::Join(member(2)));
    group.until(10_000, |group| group.host(2).node().has_begun());
    group.crash(1, false);
    group.pass(300_000);
    assert!(group.machines[&2].host.is_some());
}

#[test]
fn a_leader_that_is_removed_hands_over_first_also_from_two() {
    for count in [2, 3] {
        let mut group = Group::of(count, 7);
        let leader = group.wait_for_leader();
        let ticket = group.change(leader, Change::Remove(leader));
        group.until(10_000, |group| group.machines[&leader].host.is_none());
        assert_eq!(group.told.get(&ticket), Some(&Told::Changed(Ok(leader))));
        let rest = group.ids().into_iter().find(|id| *id != leader).unwrap();
        group.put(rest, "k", "v");
        assert!(!group.voters(rest).contains(&leader));
    }
}

#[test]
fn who_knew_that_the_group_has_grown_knows_it_after_a_power_cut() {
    let mut group = Group::of(3, 20);
    for id in group.ids() {
        group.crash(id, true);
    }
    // The first never comes back: by the group before, in which the third had no vote, nobody could be elected.
    group.boot(2);
    group.boot(3);
    let leader = group.wait_for_leader();
    group.put(leader, "k", "v");
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let mut group = Group::new(8);
    for (change, expected) in [
        (Change::Remove(1), Err(ChangeRefusal::LastVoter)),
        (Change::Remove(7), Err(ChangeRefusal::NoSuchMember)),
        (Change::Promote(7), Err(ChangeRefusal::NoSuchMember)),
        (Change::Promote(1), Ok(1)),
        (Change::TransferLead(1), Ok(1)),
        (Change::Add(member(2)), Ok(2)),
        (Change::TransferLead(2), Err(ChangeRefusal::NotVoter)),
        (Change::Remove(2), Ok(2)),
        (Change::Remove(2), Ok(2)),
        (Change::Add(member(2)), Ok(3)),
    ] {
        let ticket = group.change(1, change.clone());
        assert_eq!(group.wait_for(ticket), Told::Changed(expected), "{change:?}");
    }
}

#[test]
fn members_asked_at_once_give_different_ids() {
    let mut group = Group::of(3, 9);
    let tickets: Vec<u64> = (1..=3).map(|id| group.change(id, Change::Add(member(10 + id)))).collect();
    let mut ids: Vec<u64> = tickets
        .into_iter()
        .map(|ticket| match group.wait_for(ticket) {
            Told::Changed(Ok(id)) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let members = group.host(1).node().state().members().clone();
    for id in ids {
        assert!(members.get(id).unwrap().name.starts_with("member-1"));
    }
}

#[test]
fn the_lead_is_transferred_without_a_failed_write() {
    let mut group = Group::of(3, 10);
    for round in 0..6 {
        let leader = group.wait_for_leader();
        let next = leader % 3 + 1;
        let change = group.change(leader % 2 + 1, Change::TransferLead(next));
        let write = group.commit(leader, Txn::put(format!("k{round}"), "v"));
        assert_eq!(group.wait_for(change), Told::Changed(Ok(next)));
        assert!(matches!(group.wait_for(write), Told::Outcome(_)));
        group.until(1000, |group| group.leader() == Some(next));
    }
}

#[test]
fn a_broken_connection_to_the_leader_makes_an_election_early() {
    let mut group = Group::of(3, 11);
    let leader = group.wait_for_leader();
    group.crash(leader, false);
    let died = group.now_ms;
    // What was under way still arrives.
    group.pass(10);
    for id in group.ids() {
        group.tell(id, Event::Unreachable { member: leader });
    }
    group.until(1000, |group| group.leader().is_some());
    assert!(group.now_ms - died < 300, "{} ms", group.now_ms - died);

    group.boot(leader);
    group.until(5000, |group| group.is_even());
    let leader = group.wait_for_leader();
    let term = group.host(leader).node().term();
    for _ in 0..20 {
        let follower = group.other_than(leader);
        group.tell(follower, Event::Unreachable { member: leader });
        group.pass(37);
    }
    assert_eq!(group.leader(), Some(leader), "while it lives, its followers stay");
    assert_eq!(group.host(leader).node().term(), term);
}

#[test]
fn without_a_quorum_nothing_is_confirmed() {
    let mut group = Group::of(3, 12);
    let leader = group.wait_for_leader();
    group.isolate(leader);
    let (write, read) = (group.commit(leader, Txn::put("k", "v")), group.read(leader));
    group.pass(3000);
    let late = group.commit(leader, Txn::put("k", "v"));
    assert_eq!(group.wait_for(write), Told::Refused(Refusal::Unknown));
    assert_eq!(group.wait_for(read), Told::Refused(Refusal::Unknown));
    assert_eq!(group.wait_for(late), Told::Refused(Refusal::NotLeader { leader: None }));
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_a_member() {
    let mut group = Group::of(3, 13);
    group.now_ms += 100_000_000;
    group.pass(2000);
    group.now_ms -= 90_000_000;
    group.pass(2000);
    // Parcels that were under way are late by the jump; the members find each other again with new ones.
    let leader = group.wait_for_leader();
    group.put(leader, "k", "v");
}

#[test]
fn a_member_whose_clock_was_ahead_in_its_last_run_writes_again() {
    let mut group = Group::of(3, 14);
    for id in 1..=3 {
        group.machines.get_mut(&id).unwrap().boots = 1_000_000;
        group.crash(id, false);
        group.boot(id);
        group.put(id, &format!("ahead-{id}"), "v");
        group.crash(id, false);
        group.machines.get_mut(&id).unwrap().boots = 10;
        group.boot(id);
        group.put(id, &format!("back-{id}"), "v");
    }
    assert_eq!(group.host(1).node().state().snapshot().revision(), 7);
}

/// A follower is sent the state, and the power goes at one of its disk's operations. `false`: it came to its end before.
fn cut_while_installing(operation: u64) -> bool {
    let mut group = Group::of(3, 15);
    let behind = group.wait_for_leader();
    group.isolate(behind);
    // Entries that the group never agrees on stand where the state will.
    for number in 0..3 {
        group.commit(behind, Txn::put(format!("never-{number}"), value(number)));
    }
    group.pass(1000);
    let leader = group.wait_for_leader();
    for number in 0..60 {
        group.put(leader, &format!("k{number}"), &value(number));
    }
    let disk = group.machines[&behind].disk.clone();
    let cut_at = Some(disk.operations() + operation);
    disk.set_faults(store_core::disk::Faults { cut_at, ..Default::default() });
    group.cut.clear();
    let replaced = group.machines[&behind].replaced;
    group.until(5000, |group| group.machines[&behind].stopped.is_some() || group.is_even());
    let cut = group.machines.get_mut(&behind).unwrap().stopped.take().is_some();
    group.crash(behind, true);
    group.boot(behind);
    let machine = &group.machines[&behind];
    assert!(machine.host.is_some(), "cut at {operation}: {:?}", machine.stopped);
    assert!(cut || machine.replaced == replaced + 1);
    group.until(5000, |group| group.is_even());
    group.put(behind, "afterwards", "v");
    group.crash(behind, true);
    group.boot(behind);
    group.until(5000, |group| group.is_even());
    cut
}

#[test]
fn no_power_cut_while_a_state_is_taken_over_leaves_half_of_it() {
    let mut operation = 0;
    while cut_while_installing(operation) {
        operation += 1;
    }
    assert!(operation > 10, "{operation}");
}

/// Writers on all members, in bad weather, with crashes and power cuts: every acknowledged write is there, none twice.
fn storm(seed: u64) {
    let mut group = Group::of(3, seed);
    let mut written: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    group.weather = STORM;
    for number in 0..300usize {
        let id = 1 + (number as u64 * 7 + seed) % 3;
        if group.machines[&id].host.is_some() {
            let ticket = group.commit(id, Txn::put(format!("{number}"), value(number)));
            written.insert(ticket, (id, number));
        }
        group.pass(20);
        let victim = 1 + (number as u64 / 40 + seed) % 3;
        match number % 40 {
            10 => group.crash(victim, number % 3 == 0),
            25 => group.boot(victim),
            30 => group.isolate(victim),
            37 => group.cut.clear(),
            _ => {}
        }
    }
    group.cut.clear();
    group.weather = CALM;
    for id in group.ids() {
        if group.machines[&id].host.is_none() {
            group.boot(id);
        }
        assert_eq!(group.machines[&id].stopped, None, "seed {seed}");
    }
    group.pass(15_000);
    group.until(20_000, |group| group.is_even());
    let snapshot = group.host(1).snapshot().clone();
    let mut found = 0;
    for (ticket, (_, number)) in &written {
        let entry = snapshot.get(number.to_string().as_bytes());
        if let Some(Told::Outcome(Outcome::Committed { revisions })) = group.told.get(ticket) {
            assert_eq!(entry.map(|entry| entry.revision), Some(revisions[0]), "seed {seed}: write {number}");
        }
        if let Some(Told::Refused(Refusal::NotLeader { .. })) = group.told.get(ticket) {
            assert_eq!(entry, None, "seed {seed}: {number} was said not to be done");
        }
        found += u64::from(entry.is_some());
    }
    assert_eq!(snapshot.revision(), 1 + found, "seed {seed}: each write took one revision");
    assert!(found > 100, "seed {seed}: {found}");
}

#[test]
fn acknowledged_writes_survive_any_weather_and_are_applied_once() {
    for seed in 0..12 {
        storm(seed);
    }
}
