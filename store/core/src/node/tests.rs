//! A group in memory without disks: elects, replicates, confirms reads, compares states, and does the same again with
//! the same seeds.

use std::collections::BTreeMap;

use raft::eraftpb::HardState;
use raft::{GetEntriesContext, Storage as _};

use super::*;
use crate::command::{self, Body, Command, Origin};
use crate::members::Members;
use crate::recovery::GENESIS;
use crate::txn::{Op, Outcome, Txn};

pub(super) struct Group {
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) now_ms: i64,
    pub(super) cut_off: Option<u64>,
    /// What was sent with entries: when, to whom, and how many entries.
    pub(super) appends: Vec<(i64, u64, usize)>,
    pub(super) answers: Vec<(u64, Outcome)>,
    refused: Vec<(u64, Refusal)>,
    pub(super) confirmed: Vec<u64>,
    halted: BTreeMap<u64, String>,
    trace: Vec<String>,
}

/// A member of a group of so many that has not done anything yet.
fn node(members: u64, member: u64, seed: u64) -> Node {
    let conf_state = ConfState { voters: (1..=members).collect(), ..ConfState::default() };
    let members = Members::of(&conf_state.voters);
    let image = Image { applied: GENESIS, conf_state, members, ..Image::default() };
    let hard_state = HardState { term: GENESIS.term, commit: GENESIS.index, ..HardState::default() };
    let recovered = Recovered {
        image,
        hard_state,
        entries: Vec::new(),
        segments: Vec::new(),
        dropped: Vec::new(),
        next_segment: 1,
        old_checkpoints: Vec::new(),
        uses_retired_key: false,
        notes: Vec::new(),
    };
    let settings = Settings { patience_ticks: 40, mark_ticks: 10, ..Settings::new(member) };
    Node::new(settings, recovered, 1, seed, 0).unwrap()
}

impl Group {
    pub(super) fn new(members: u64) -> Self {
        let mut group = Self {
            nodes: (1..=members).map(|member| (member, node(members, member, member))).collect(),
            now_ms: 0,
            cut_off: None,
            appends: Vec::new(),
            answers: Vec::new(),
            refused: Vec::new(),
            confirmed: Vec::new(),
            halted: BTreeMap::new(),
            trace: Vec::new(),
        };
        group.settle();
        group
    }

    /// Carries out actions and messages until nothing is left to do.
    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            let mut letters = Vec::new();
            for (member, node) in &mut self.nodes {
                while let Some(action) = node.poll_action() {
                    busy = true;
                    match action {
                        Action::Sync { number } => node.handle(Event::Persisted { number }, self.now_ms),
                        Action::Send(messages) => letters.extend(messages),
                        Action::Publish(published) => {
                            self.trace.push(format!("{member} at {}", published.snapshot.revision()));
                            self.answers.extend(published.answers);
                        }
                        Action::Confirm { tickets } => self.confirmed.extend(tickets),
                        Action::Refuse(refused) => self.refused.extend(refused),
                        Action::Halt { reason } => drop(self.halted.insert(*member, reason)),
                        Action::Append(_) | Action::Checkpoint(_) | Action::Release { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            for letter in letters {
                if !letter.entries.is_empty() && letter.get_msg_type() == MessageType::MsgAppend {
                    self.appends.push((self.now_ms, letter.to, letter.entries.len()));
                }
                if self.cut_off == Some(letter.from) || self.cut_off == Some(letter.to) {
                    continue;
                }
                if let Some(node) = self.nodes.get_mut(&letter.to) {
                    node.handle(Event::Message(Box::new(letter)), self.now_ms);
                }
            }
        }
    }

    pub(super) fn pass(&mut self, ms: i64) {
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            for node in self.nodes.values_mut() {
                if node.poll_timeout().is_some_and(|at| at <= self.now_ms) {
                    node.handle(Event::Tick, self.now_ms);
                }
            }
            self.settle();
        }
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let mut leaders =
            self.nodes.iter().filter(|(member, node)| node.leads() && self.cut_off != Some(**member));
        leaders.next().map(|(member, _)| *member)
    }

    pub(super) fn tell(&mut self, member: u64, event: Event) {
        let now_ms = self.now_ms;
        self.nodes.get_mut(&member).unwrap().handle(event, now_ms);
        self.settle();
    }

    fn hashes(&self) -> Vec<(u64, u64)> {
        let state = |node: &Node| (node.state().snapshot().revision(), node.state().snapshot().hash());
        self.nodes.values().map(state).collect()
    }
}

#[test]
fn a_group_of_one_leads_at_once_and_asks_for_no_ticks() {
    let mut group = Group::new(1);
    assert!(group.nodes[&1].is_confirmed() && group.nodes[&1].poll_timeout().is_none());
    for ticket in 0..3 {
        group.nodes.get_mut(&1).unwrap().handle(Event::Commit { ticket, txn: Txn::put("k", "v") }, 0);
    }
    group.settle();
    let revisions = |revision| Outcome::Committed { revisions: vec![revision] };
    assert_eq!(group.answers, [(0, revisions(2)), (1, revisions(3)), (2, revisions(4))]);
    assert_eq!(group.trace, ["1 at 4"]);
    group.tell(1, Event::Read { ticket: 9 });
    assert_eq!(group.confirmed, [9]);
}

#[test]
fn expired_keys_are_deleted_by_the_leader() {
    let mut group = Group::new(1);
    let op = Op::Put { key: "k".into(), value: crate::Value::plain("v"), expires_at_ms: Some(5000) };
    group.tell(1, Event::Commit { ticket: 1, txn: Txn { compares: vec![], ops: vec![op] } });
    assert_eq!(group.nodes[&1].poll_timeout(), Some(5000));
    group.pass(4990);
    assert_eq!(group.nodes[&1].state().snapshot().len(), 1);
    group.pass(10);
    assert!(group.nodes[&1].state().snapshot().is_empty() && group.nodes[&1].poll_timeout().is_none());
}

#[test]
fn three_members_replicate_and_survive_a_lost_leader() {
    let run = || {
        let mut group = Group::new(3);
        group.pass(2000);
        let first = group.leader().expect("a leader");
        for ticket in 0..20 {
            group.tell(first, Event::Commit { ticket, txn: Txn::put(format!("k{ticket}"), "v") });
        }
        assert_eq!(group.answers.len(), 20);
        group.tell(first, Event::Read { ticket: 100 });
        assert_eq!(group.confirmed, [100]);
        let follower = (1..=3).find(|member| *member != first).unwrap();
        group.tell(follower, Event::Commit { ticket: 200, txn: Txn::put("x", "v") });
        group.tell(follower, Event::Read { ticket: 201 });
        assert_eq!(group.answers.last().map(|(ticket, _)| *ticket), Some(200));
        assert_eq!(group.confirmed, [100, 201]);

        group.cut_off = Some(first);
        group.tell(first, Event::Commit { ticket: 300, txn: Txn::put("late", "v") });
        group.tell(first, Event::Read { ticket: 301 });
        group.pass(1500);
        let second = group.leader().expect("another leader");
        group.tell(second, Event::Commit { ticket: 400, txn: Txn::put("kept", "v") });
        assert_eq!(group.answers.last().map(|(ticket, _)| *ticket), Some(400));
        group.pass(1500);
        group.refused.sort_unstable_by_key(|(ticket, _)| *ticket);
        assert_eq!(group.refused, [(300, Refusal::Unknown), (301, Refusal::Unknown)]);
        group.tell(first, Event::Commit { ticket: 302, txn: Txn::put("never", "v") });
        group.pass(3000);
        assert_eq!(group.refused.last(), Some(&(302, Refusal::NotLeader { leader: None })));

        group.cut_off = None;
        group.pass(3000);
        let hashes = group.hashes();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
        assert!(group.nodes[&first].state().snapshot().get(b"never").is_none());
        assert!(group.halted.is_empty(), "{:?}", group.halted);
        (group.trace, first, second)
    };
    assert_eq!(run(), run());
}

#[test]
fn what_comes_while_rounds_are_under_way_goes_together_in_the_next() {
    let mut group = Group::new(3);
    group.pass(2000);
    let leader = group.leader().expect("a leader");
    let (node, now_ms) = (group.nodes.get_mut(&leader).unwrap(), group.now_ms);
    let mut appended = Vec::new();
    for ticket in 0..6 {
        node.handle(Event::Commit { ticket, txn: Txn::put(format!("k{ticket}"), "v") }, now_ms);
        while let Some(action) = node.poll_action() {
            match action {
                Action::Append(record) => appended.push(record.entries.len()),
                Action::Sync { number } => node.handle(Event::Persisted { number }, now_ms),
                // Lost, so that no round comes to its end.
                _ => {}
            }
        }
    }
    assert_eq!(appended, vec![1; node.settings.rounds]);
    let before = node.raft.raft.raft_log.last_index();
    group.pass(500);
    assert_eq!(group.answers.len(), 6);
    let log = group.nodes[&leader].raft.store();
    let entries = log.entries(before + 1, before + 2, None, GetEntriesContext::empty(false)).unwrap();
    let commands = command::decode(&entries[0].data).unwrap();
    assert_eq!(commands[0].bodies.len(), 6 - appended.len(), "what waited is one command");
}

#[test]
fn who_waits_for_a_write_learns_of_it_at_once_and_others_in_a_moment() {
    let mut group = Group::new(3);
    group.pass(2000);
    let leader = group.leader().expect("a leader");
    let mut others = (1..=3).filter(|member| *member != leader);
    let (waits, other) = (others.next().unwrap(), others.next().unwrap());
    let revisions = |group: &Group| {
        [leader, waits, other].map(|member| group.nodes[&member].state().snapshot().revision())
    };
    let put = |ticket| Event::Commit { ticket, txn: Txn::put("k", "v") };
    group.tell(waits, put(1));
    assert_eq!(group.answers.len(), 1);
    group.pass(100);
    group.tell(leader, put(2));
    assert_eq!(revisions(&group), [3, 3, 3], "one that comes alone is told at once");
    group.tell(leader, put(3));
    assert_eq!(revisions(&group), [4, 3, 3], "the next is waited for");
    group.tell(waits, put(4));
    assert_eq!((revisions(&group), group.answers.len()), ([5, 5, 5], 4));
    group.tell(leader, put(5));
    assert_eq!(revisions(&group), [6, 5, 5]);
    group.pass(10);
    assert_eq!(revisions(&group), [6, 6, 6]);
}

#[test]
fn a_write_under_way_is_applied_once_when_the_lead_changes() {
    let mut group = Group::new(3);
    group.pass(2000);
    let first = group.leader().expect("a leader");
    group.cut_off = Some(first);
    group.tell(first, Event::Commit { ticket: 1, txn: Txn::put("a", "v") });
    group.pass(1000);
    let second = group.leader().expect("another leader");
    group.tell(second, Event::Commit { ticket: 2, txn: Txn::put("b", "v") });
    group.cut_off = None;
    group.pass(1000);
    let answered: Vec<u64> = group.answers.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!((answered, group.refused.len()), (vec![2, 1], 0));
    assert_eq!(group.nodes[&second].state().snapshot().revision(), 3);
}

/// Elects, writes, changes the state of `wrong` behind everyone's back, and lets the members compare.
fn corrupted(members: u64, wrong: impl Fn(u64) -> bool) -> Group {
    let mut group = Group::new(members);
    group.pass(2000);
    let leader = group.leader().expect("a leader");
    group.tell(leader, Event::Commit { ticket: 1, txn: Txn::put("a", "v") });
    group.pass(2000);
    assert!(group.halted.is_empty(), "{:?}", group.halted);
    for (member, node) in &mut group.nodes {
        if wrong(*member) {
            node.state.live.hash ^= *member;
        }
    }
    let leader = group.leader().expect("a leader");
    group.tell(leader, Event::Commit { ticket: 2, txn: Txn::put("b", "v") });
    group.pass(4000);
    group
}

#[test]
fn who_differs_from_the_majority_stops_also_when_it_leads() {
    for wrong in 1..=3 {
        let group = corrupted(3, |member| member == wrong);
        let halted: Vec<_> = group.halted.iter().collect();
        let [(member, reason)] = halted[..] else { panic!("{halted:?}") };
        assert_eq!(*member, wrong);
        assert!(reason.contains("differs from that of the majority"), "{reason}");
    }
}

#[test]
fn without_a_majority_all_stop() {
    for members in [2, 3] {
        let group = corrupted(members, |member| member > 1);
        assert_eq!(group.halted.len() as u64, members, "{:?}", group.halted);
        assert!(group.halted.values().all(|reason| reason.contains("none has a majority")));
    }
}

#[test]
fn who_lost_what_it_had_acknowledged_stops() {
    let mut group = Group::new(3);
    group.pass(2000);
    let leader = group.leader().expect("a leader");
    group.tell(leader, Event::Commit { ticket: 1, txn: Txn::put("a", "v") });
    let lost = (1..=3).find(|member| *member != leader).unwrap();
    let fresh = Group::new(3).nodes.remove(&lost).unwrap();
    group.nodes.insert(lost, fresh);
    group.pass(1000);
    assert!(group.halted[&lost].contains("its data was lost"), "{:?}", group.halted);
}

#[test]
fn a_run_whose_number_fell_behind_answers_and_takes_a_new_one() {
    let mut group = Group::new(1);
    let node = group.nodes.get_mut(&1).unwrap();
    let ahead = node.boot + 9;
    let origin = Origin { member: 1, boot: ahead, sequence: 3 };
    let earlier = Command { origin, bodies: vec![Body::Txn(Txn::put("a", "1"))] };
    assert!(node.propose_data(command::encode(&earlier).into()));
    group.settle();
    group.tell(1, Event::Commit { ticket: 1, txn: Txn::put("b", "2") });
    assert_eq!(group.answers, [(1, Outcome::Committed { revisions: vec![3] })]);
    assert!(group.nodes[&1].boot > ahead);
}

#[test]
fn what_a_run_before_has_sent_is_not_taken_for_what_this_one_sends() {
    let mut group = Group::new(1);
    let own = group.nodes.get_mut(&1).unwrap();
    // Nothing of the run before was applied when this one began, at a time when the clock shows the same again.
    let before = (2..).map(|seed| node(1, 1, seed).boot).find(|boot| *boot < own.boot).unwrap();
    let origin = Origin { member: 1, boot: before, sequence: own.flights.seal(Vec::new()).0.sequence + 1 };
    let earlier = Command { origin, bodies: vec![Body::Txn(Txn::put("a", "1"))] };
    assert!(own.propose_data(command::encode(&earlier).into()));
    group.tell(1, Event::Commit { ticket: 1, txn: Txn::put("b", "2") });
    assert_eq!(group.answers, [(1, Outcome::Committed { revisions: vec![3] })]);
}

#[test]
fn a_member_whose_clock_is_set_back_goes_on_ticking() {
    let mut group = Group::new(3);
    group.pass(2000);
    group.now_ms -= 3_600_000;
    let leader = group.leader().expect("a leader");
    group.cut_off = Some(leader);
    let now = group.now_ms;
    for node in group.nodes.values_mut() {
        node.handle(Event::Tick, now);
        assert_eq!(node.poll_timeout(), Some(now + 50));
    }
    group.pass(3000);
    assert!(group.leader().is_some_and(|second| second != leader));
}

#[test]
fn a_leader_that_is_slow_again_and_again_hands_the_lead_over() {
    let mut group = Group::new(3);
    group.pass(2000);
    let first = group.leader().expect("a leader");
    group.tell(first, Event::Commit { ticket: 1, txn: Txn::put("a", "v") });
    group.tell(first, Event::Slow);
    group.pass(500);
    assert_eq!(group.leader(), Some(first), "once is an accident");
    group.tell(first, Event::Slow);
    let second = group.leader().expect("another leader, without an election's wait");
    assert_ne!(second, first);
    assert_eq!((group.nodes[&first].hand_overs(), group.nodes[&second].hand_overs()), (1, 0));
    group.tell(second, Event::Commit { ticket: 2, txn: Txn::put("b", "v") });
    assert_eq!(group.answers.last().map(|(ticket, _)| *ticket), Some(2));

    // Where the others are as slow, the lead does not go round and round.
    group.nodes.get_mut(&second).unwrap().raft.transfer_leader(first);
    group.settle();
    assert_eq!(group.leader(), Some(first));
    for _ in 0..5 {
        group.tell(first, Event::Slow);
        group.pass(500);
    }
    assert_eq!(group.leader(), Some(first));
    assert_eq!(group.nodes[&second].hand_overs(), 0, "it was asked to, and was not slow");
}

#[test]
fn a_lead_that_followers_took_was_not_handed_over() {
    let mut group = Group::new(3);
    group.pass(2000);
    let first = group.leader().expect("a leader");
    group.tell(first, Event::Slow);
    group.cut_off = Some(first);
    group.tell(first, Event::Slow);
    group.pass(3000);
    let second = group.nodes.iter().find(|(id, node)| **id != first && node.leads()).map(|(id, _)| *id);
    assert!(second.is_some(), "the others have elected");
    group.cut_off = None;
    group.pass(2000);
    assert_eq!(group.nodes[&first].hand_overs(), 0);
}

#[test]
fn a_slow_leader_does_not_hand_the_lead_to_who_is_behind() {
    let mut group = Group::new(2);
    group.pass(2000);
    let leader = group.leader().expect("a leader");
    group.cut_off = Some(3 - leader);
    group.tell(leader, Event::Commit { ticket: 1, txn: Txn::put("a", "v") });
    let progress = group.nodes.get_mut(&leader).unwrap().raft.raft.mut_prs().get_mut(3 - leader).unwrap();
    progress.recent_active = false;
    group.tell(leader, Event::Slow);
    group.tell(leader, Event::Slow);
    assert!(group.nodes[&leader].leads() && group.nodes[&leader].raft.raft.lead_transferee.is_none());
}

/// raft-rs lets `next` fall to or behind `match` when a rejection comes late, and then asserts that it is not so.
#[test]
fn an_old_rejection_does_not_take_a_leader_back_behind_what_was_acknowledged() {
    let mut group = Group::new(3);
    group.pass(2000);
    let leader = group.leader().expect("a leader");
    for ticket in 0..5 {
        group.tell(leader, Event::Commit { ticket, txn: Txn::put(format!("k{ticket}"), "v") });
    }
    let (follower, now_ms) = ((1..=3).find(|member| *member != leader).unwrap(), group.now_ms);
    let node = group.nodes.get_mut(&leader).unwrap();
    let term = node.term();
    let progress = node.raft.raft.mut_prs().get_mut(follower).unwrap();
    progress.become_probe();
    let matched = progress.matched;
    let mut old =
        Message { from: follower, to: leader, term, index: matched, reject: true, ..Message::default() };
    old.set_msg_type(MessageType::MsgAppendResponse);
    node.handle(Event::Message(Box::new(old)), now_ms);
    let progress = node.raft.raft.prs().get(follower).unwrap();
    assert!(progress.next_idx > progress.matched && progress.matched == matched);
}

#[test]
fn entries_that_a_leader_goes_back_to_are_not_put_into_a_message_that_speaks_of_later_ones() {
    let mut group = Group::new(3);
    group.pass(2000);
    let leader = group.leader().unwrap();
    let follower = (1..=3).find(|member| *member != leader).unwrap();
    for ticket in 0..5 {
        group.tell(leader, Event::Commit { ticket, txn: Txn::put("k", "v") });
    }
    group.pass(100);
    let now_ms = group.now_ms;
    let node = group.nodes.get_mut(&leader).unwrap();
    let (last, term) = (node.raft.raft.raft_log.last_index(), node.term());
    // As it is when the leader stood still and finds the follower's old answers.
    node.raft.raft.mut_prs().get_mut(follower).unwrap().matched = last - 3;
    node.raft.raft.bcast_append();
    let mut rejection = Message { from: follower, to: leader, term, index: last, ..Message::default() };
    rejection.set_msg_type(MessageType::MsgAppendResponse);
    (rejection.reject, rejection.reject_hint) = (true, last - 3);
    node.handle(Event::Message(Box::new(rejection)), now_ms);
    let mut appends = Vec::new();
    while let Some(action) = node.poll_action() {
        if let Action::Send(messages) = action {
            appends.extend(messages.into_iter().filter(|message| !message.entries.is_empty()));
        }
    }
    assert!(!appends.is_empty());
    for append in appends {
        assert_eq!(append.entries[0].index, append.index + 1, "{append:?}");
    }
}
