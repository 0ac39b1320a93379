//! Who is sent entries when.

use super::super::Event;
use super::super::tests::Group;
use crate::txn::Txn;

/// Writes one value after the other, within a moment.
fn write(group: &mut Group, leader: u64, count: u64) {
    for _ in 0..count {
        let ticket = group.answers.len() as u64;
        group.tell(leader, Event::Commit { ticket, txn: Txn::put("k", ticket.to_string()) });
    }
}

/// A group that has settled, and its leader.
fn group(members: u64) -> (Group, u64) {
    let mut group = Group::new(members);
    group.pass(2000);
    let leader = group.leader().unwrap();
    group.appends.clear();
    (group, leader)
}

/// How many entries each message to a member had.
fn sent_to(group: &Group, member: u64) -> Vec<usize> {
    let to = group.appends.iter().filter(|(_, to, _)| *to == member);
    to.map(|(_, _, entries)| *entries).collect()
}

/// The members that were sent something lately, the one that was sent most messages first.
fn receivers(group: &Group) -> Vec<u64> {
    let mut receivers: Vec<u64> = group.nodes.keys().copied().collect();
    receivers.retain(|member| !sent_to(group, *member).is_empty());
    receivers.sort_by_key(|member| std::cmp::Reverse(sent_to(group, *member).len()));
    receivers
}

#[test]
fn a_stream_of_entries_goes_to_a_majority_at_once_and_to_the_others_together() {
    for (members, at_once) in [(3, 1), (5, 2)] {
        let (mut group, leader) = group(members);
        write(&mut group, leader, 21);
        assert_eq!(group.answers.len(), 21, "nobody waits for the others");
        group.pass(10);
        let receivers = receivers(&group);
        let (first, others) = receivers.split_at(at_once);
        for member in first {
            assert_eq!(sent_to(&group, *member), [1; 21]);
        }
        assert_eq!(others.len(), members as usize - 1 - at_once);
        for member in others {
            assert_eq!(sent_to(&group, *member), [1, 20], "the first one came alone");
        }
        let applied = |member: &u64| group.nodes[member].state().snapshot().revision();
        assert!(receivers.iter().all(|member| applied(member) == applied(&leader)));
    }
}

#[test]
fn entries_that_come_one_by_one_go_to_all() {
    let (mut group, leader) = group(3);
    // Between two ticks, at which the leader may write something by itself.
    group.pass(20);
    for _ in 0..5 {
        group.pass(50);
        group.appends.clear();
        write(&mut group, leader, 1);
        assert_eq!(receivers(&group).len(), 2);
    }
}

#[test]
fn when_the_first_does_not_answer_the_next_is_asked_and_comes_first_from_then_on() {
    let (mut group, leader) = group(3);
    write(&mut group, leader, 10);
    let first = receivers(&group)[0];
    group.cut_off = Some(first);
    write(&mut group, leader, 1);
    assert_eq!(group.answers.len(), 10);
    group.pass(10);
    assert_eq!(group.answers.len(), 11, "the other one has it by now");
    write(&mut group, leader, 10);
    assert_eq!(group.answers.len(), 21, "and is asked first");
}

#[test]
fn who_asks_how_far_to_read_is_sent_what_it_lacks_first() {
    let (mut group, leader) = group(3);
    write(&mut group, leader, 10);
    let last = receivers(&group)[1];
    group.tell(last, Event::Read { ticket: 1000 });
    assert_eq!(group.confirmed, [1000]);
}

#[test]
fn what_another_member_proposes_goes_to_all_at_once() {
    let (mut group, leader) = group(3);
    write(&mut group, leader, 10);
    let last = receivers(&group)[1];
    group.appends.clear();
    group.tell(last, Event::Commit { ticket: 1000, txn: Txn::put("other", "v") });
    assert_eq!(sent_to(&group, last), [9, 1]);
    assert_eq!(group.answers.len(), 11);
}
