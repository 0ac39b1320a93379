//! Writers' transactions on their way through the log: from any member to the leader, and through changes of it.
//!
//! A member puts what waits into one command with an origin of its own, and proposes it until it has applied it
//! itself. However often it is proposed, it is applied at most once, as long as what is under way fits into what a
//! [`Session`](crate::state::Session) remembers: that bounds how many commands may be under way.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Refusal;
use crate::command::{self, Body, Command, Origin};
use crate::state::Session;
use crate::txn::Txn;

const BATCH_BYTES: usize = 4 << 20;
/// After how many ticks a command is proposed again to the same leader; doubles each time.
const AGAIN_TICKS: u64 = 20;

/// Commands of this member.
#[derive(Debug)]
pub(super) struct Flights {
    member: u64,
    boot: u64,
    next: u64,
    limit: usize,
    waiting: VecDeque<Waiting>,
    under_way: BTreeMap<u64, Flight>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    txn: Txn,
    since: u64,
}

#[derive(Debug)]
struct Flight {
    data: Bytes,
    tickets: Vec<u64>,
    since: u64,
    /// When it was proposed last, and how often; `None`: nobody else can have seen it.
    proposed: Option<(u64, u32)>,
}

// === impl Flights ===

impl Flights {
    pub(super) fn new(member: u64, boot: u64, limit: usize) -> Self {
        let limit = limit.clamp(1, Session::WINDOW as usize / 2);
        Self { member, boot, next: 1, limit, waiting: VecDeque::new(), under_way: BTreeMap::new() }
    }

    pub(super) fn wait(&mut self, ticket: u64, txn: Txn, tick: u64) {
        self.waiting.push_back(Waiting { ticket, txn, since: tick });
    }

    /// Puts what waits into a command and returns its sequence and data, while another may be under way.
    pub(super) fn launch(&mut self, tick: u64) -> Option<(u64, Bytes)> {
        let oldest = self.under_way.first_key_value().map_or(self.next, |(sequence, _)| *sequence);
        if self.under_way.len() >= self.limit || self.next - oldest >= Session::WINDOW {
            return None;
        }
        let since = self.waiting.front()?.since;
        let (mut bodies, mut tickets, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(waiting) = self.waiting.pop_front()
        {
            bytes += waiting.txn.size();
            tickets.push(waiting.ticket);
            bodies.push(Body::Txn(waiting.txn));
        }
        let (origin, data) = self.seal(bodies);
        self.under_way.insert(
            origin.sequence,
            Flight { data: data.clone(), tickets, since, proposed: Some((tick, 1)) },
        );
        Some((origin.sequence, data))
    }

    /// A command that nobody waits for, and that is not proposed again when it is lost.
    pub(super) fn seal(&mut self, bodies: Vec<Body>) -> (Origin, Bytes) {
        let origin = Origin { member: self.member, boot: self.boot, sequence: self.next };
        self.next += 1;
        (origin, command::encode(&Command { origin, bodies }).into())
    }

    /// A proposal was refused at once, so nobody has seen it, unless it had been proposed before.
    pub(super) fn dropped(&mut self, sequence: u64) {
        if let Some(flight) = self.under_way.get_mut(&sequence)
            && flight.proposed.is_some_and(|(_, times)| times <= 1)
        {
            flight.proposed = None;
        }
    }

    /// All that is under way, for a new leader.
    pub(super) fn again(&mut self, tick: u64) -> Vec<(u64, Bytes)> {
        self.under_way.iter_mut().map(|(sequence, flight)| (*sequence, flight.propose(tick))).collect()
    }

    /// What the leader should have applied by now: it may have been lost on the way.
    pub(super) fn overdue(&mut self, tick: u64, leads: bool) -> Vec<(u64, Bytes)> {
        let due = self.under_way.iter_mut().filter(|(_, flight)| match flight.proposed {
            None => true,
            Some(_) if leads => false,
            Some((last, times)) => tick >= last + (AGAIN_TICKS << times.min(6)) / 2,
        });
        due.map(|(sequence, flight)| (*sequence, flight.propose(tick))).collect()
    }

    /// A command of this run was applied: who waited for it.
    pub(super) fn landed(&mut self, origin: Origin) -> Vec<u64> {
        if origin.member != self.member || origin.boot != self.boot {
            return Vec::new();
        }
        self.under_way.remove(&origin.sequence).map_or(Vec::new(), |flight| flight.tickets)
    }

    /// Takes out what satisfies `settled`: it was applied where this member did not see the outcome.
    pub(super) fn take_settled(&mut self, settled: impl Fn(Origin) -> bool) -> Vec<(u64, Refusal)> {
        let (member, boot) = (self.member, self.boot);
        let gone = self
            .under_way
            .extract_if(.., |sequence, _| settled(Origin { member, boot, sequence: *sequence }));
        gone.flat_map(|(_, flight)| flight.tickets).map(|ticket| (ticket, Refusal::Unknown)).collect()
    }

    /// Goes on as a later run; what is under way in this one may have been applied, or never will be.
    pub(super) fn restart(&mut self, boot: u64) -> Vec<(u64, Refusal)> {
        self.boot = boot;
        self.next = 1;
        let gone = std::mem::take(&mut self.under_way).into_values();
        gone.flat_map(|flight| flight.tickets).map(|ticket| (ticket, Refusal::Unknown)).collect()
    }

    /// Takes out what waits since before `tick`.
    pub(super) fn take_late(&mut self, tick: u64, leader: Option<u64>) -> Vec<(u64, Refusal)> {
        let mut refused = Vec::new();
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.since < tick) {
            refused.push((waiting.ticket, Refusal::NotLeader { leader }));
        }
        for (_, flight) in self.under_way.extract_if(.., |_, flight| flight.since < tick) {
            let why = match flight.proposed {
                Some(_) => Refusal::Unknown,
                None => Refusal::NotLeader { leader },
            };
            refused.extend(flight.tickets.into_iter().map(|ticket| (ticket, why)));
        }
        refused
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }
}

// === impl Flight ===

impl Flight {
    fn propose(&mut self, tick: u64) -> Bytes {
        let times = self.proposed.map_or(0, |(_, times)| times);
        self.proposed = Some((tick, times + 1));
        self.data.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flights(limit: usize) -> Flights {
        let mut flights = Flights::new(1, 1, limit);
        for ticket in 0..3 {
            flights.wait(ticket, Txn::put("k", vec![0; BATCH_BYTES]), ticket);
        }
        flights
    }

    fn origin(sequence: u64) -> Origin {
        Origin { member: 1, boot: 1, sequence }
    }

    #[test]
    fn no_more_is_under_way_than_a_session_remembers() {
        let mut flights = flights(2);
        let mut launched = || flights.launch(5).map(|(sequence, _)| sequence);
        assert_eq!((launched(), launched(), launched()), (Some(1), Some(2), None));
        assert_eq!(flights.landed(origin(2)), [1]);
        for _ in 0..Session::WINDOW - 2 {
            flights.seal(vec![Body::Mark]);
        }
        assert_eq!(flights.launch(5), None, "1 would fall out of the window");
        assert_eq!(flights.landed(origin(1)), [0]);
        assert!(flights.launch(5).is_some());
    }

    #[test]
    fn what_nobody_can_have_seen_is_told_from_what_may_be_applied() {
        let mut flights = flights(2);
        flights.launch(5);
        flights.launch(5);
        flights.dropped(2);
        let not_leader = Refusal::NotLeader { leader: None };
        assert_eq!(flights.take_late(9, None), [(2, not_leader), (0, Refusal::Unknown), (1, not_leader)]);
        assert!(flights.is_empty());
    }

    #[test]
    fn a_second_refusal_does_not_undo_a_first_proposal() {
        let mut flights = flights(1);
        flights.launch(5);
        assert_eq!(flights.again(6).len(), 1);
        flights.dropped(1);
        assert_eq!(flights.take_late(1, None), [(0, Refusal::Unknown)]);
    }

    #[test]
    fn proposals_are_repeated_ever_more_rarely() {
        let mut flights = flights(1);
        flights.launch(0);
        let repeated: Vec<u64> = (0..200).filter(|tick| !flights.overdue(*tick, false).is_empty()).collect();
        assert_eq!(repeated, [20, 60, 140]);
        assert!(flights.overdue(10_000, true).is_empty(), "the leader's own is in its log");
    }
}
