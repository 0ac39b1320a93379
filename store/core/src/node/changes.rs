//! Changes of the group: asked of any member, carried by the log, decided alike by all when they are applied.

use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry};

use super::{Action, Change, ChangeRefusal, Node};
use crate::members::{Member, Note};

/// After how many ticks a change is proposed again.
const AGAIN_TICKS: u64 = 20;
/// How long a member that was removed stays to help the others learn of it.
const LEAVE_TICKS: u64 = 40;

/// Changes that this member was asked for; one at a time is under way.
#[derive(Debug, Default)]
pub(super) struct Changes {
    queue: VecDeque<Asked>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Asked {
    ticket: u64,
    number: u64,
    change: Change,
    since: u64,
    proposed: Option<u64>,
    /// The id that a new member was proposed with.
    id: Option<u64>,
    added: bool,
}

/// What brings a change forward.
enum Step {
    Done(Result<u64, ChangeRefusal>),
    Propose(ConfChangeType, u64),
    /// The lead must be elsewhere first.
    Transfer(u64),
    Wait,
}

// === impl Changes ===

impl Changes {
    pub(super) fn ask(&mut self, ticket: u64, change: Change, tick: u64) {
        self.next += 1;
        let number = self.next;
        let asked = Asked { ticket, number, change, since: tick, proposed: None, id: None, added: false };
        self.queue.push_back(asked);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Has what is under way proposed again.
    pub(super) fn ask_again(&mut self) {
        self.queue.iter_mut().for_each(|asked| asked.proposed = None);
    }

    /// Tries again what may be lost, and gives up what waits since before `late`.
    pub(super) fn pass_tick(&mut self, tick: u64, late: u64, actions: &mut VecDeque<Action>) {
        while let Some(asked) = self.queue.pop_front_if(|asked| asked.since < late) {
            let result = Err(ChangeRefusal::TimedOut);
            actions.push_back(Action::Changed { ticket: asked.ticket, result });
        }
        for asked in &mut self.queue {
            asked.proposed.take_if(|at| tick >= *at + AGAIN_TICKS);
        }
    }

    /// This member was removed: who wanted that is told.
    pub(super) fn removed(&mut self, own: u64, actions: &mut VecDeque<Action>) {
        for asked in self.queue.iter().filter(|asked| asked.change == Change::Remove(own)) {
            actions.push_back(Action::Changed { ticket: asked.ticket, result: Ok(own) });
        }
        self.queue.clear();
    }

    /// A change of this run was applied, or could not be.
    fn applied(&mut self, number: u64, id: u64, fits: bool) {
        let Some(asked) = self.queue.iter_mut().find(|asked| asked.number == number) else { return };
        if asked.id == Some(id) {
            asked.added |= fits;
            // Another member was given the id meanwhile.
            if !asked.added {
                asked.id = None;
                asked.proposed = None;
            }
        }
    }
}

// === impl Node ===

impl Node {
    pub(super) fn pursue_changes(&mut self) {
        while let Some(asked) = self.changes.queue.front().cloned() {
            match self.step_change(&asked) {
                Step::Done(result) => {
                    self.changes.queue.pop_front();
                    self.actions.push_back(Action::Changed { ticket: asked.ticket, result });
                }
                _ if asked.proposed.is_some() || self.leader().is_none() => return,
                Step::Wait => return,
                Step::Transfer(to) => {
                    self.note_proposed(None);
                    self.slowness.heir = None;
                    self.raft.transfer_leader(to);
                    return;
                }
                Step::Propose(kind, id) => {
                    self.note_proposed(Some(id));
                    let member = match asked.change {
                        Change::Add(member) => member,
                        _ => Member::default(),
                    };
                    let asked_by = (self.settings.member, self.boot);
                    self.propose_change(kind, id, &Note { asked_by, number: asked.number, member });
                    return;
                }
            }
        }
    }

    fn note_proposed(&mut self, id: Option<u64>) {
        if let Some(front) = self.changes.queue.front_mut() {
            front.proposed = Some(self.tick);
            front.id = id;
        }
    }

    fn step_change(&self, asked: &Asked) -> Step {
        let members = self.state.members();
        let voters = &self.conf_state().voters;
        let known = |id: u64| match (members.get(id), members.was_removed(id)) {
            (_, true) => Err(ChangeRefusal::Removed),
            (None, _) => Err(ChangeRefusal::NoSuchMember),
            (Some(_), _) => Ok(id),
        };
        match asked.change {
            Change::Add(_) => match asked.id {
                Some(id) if asked.added => Step::Done(Ok(id)),
                id => Step::Propose(ConfChangeType::AddLearnerNode, id.unwrap_or_else(|| members.fresh_id())),
            },
            Change::Promote(id) => match known(id) {
                Ok(id) if voters.contains(&id) => Step::Done(Ok(id)),
                Ok(id) => Step::Propose(ConfChangeType::AddNode, id),
                Err(refusal) => Step::Done(Err(refusal)),
            },
            Change::Remove(id) => match known(id) {
                Err(ChangeRefusal::Removed) => Step::Done(Ok(id)),
                Err(refusal) => Step::Done(Err(refusal)),
                Ok(id) if voters[..] == [id] => Step::Done(Err(ChangeRefusal::LastVoter)),
                // A leader that removes itself could go before anybody else knows.
                Ok(id) if self.leader() == Some(id) => match self.heir_of(id) {
                    Some(heir) => Step::Transfer(heir),
                    None => Step::Wait,
                },
                Ok(id) => Step::Propose(ConfChangeType::RemoveNode, id),
            },
            Change::TransferLead(id) => match known(id) {
                Ok(id) if self.leader() == Some(id) => Step::Done(Ok(id)),
                Ok(id) if !voters.contains(&id) => Step::Done(Err(ChangeRefusal::NotVoter)),
                Ok(id) => Step::Transfer(id),
                Err(refusal) => Step::Done(Err(refusal)),
            },
        }
    }

    /// The voter that is to lead in the place of `id`.
    fn heir_of(&self, id: u64) -> Option<u64> {
        match self.leads() {
            true => self.successor(),
            false => self.conf_state().voters.iter().copied().find(|voter| *voter != id),
        }
    }

    pub(super) fn propose_change(&mut self, kind: ConfChangeType, id: u64, note: &Note) {
        let mut change = ConfChange { node_id: id, context: note.encode().into(), ..ConfChange::default() };
        change.set_change_type(kind);
        // What is refused here is proposed again when it is not seen to happen.
        drop(self.raft.propose_conf_change(Vec::new(), change));
    }

    /// Applies a change of the members. What does not fit any more changes nothing, on any member.
    pub(super) fn apply_change(&mut self, entry: &Entry) -> Result<(), String> {
        let mut change = ConfChange::default();
        change.merge_from_bytes(&entry.data).map_err(|error| error.to_string())?;
        let note = match change.context.is_empty() {
            true => Note::default(),
            false => Note::decode(&change.context).map_err(|error| error.to_string())?,
        };
        let (id, kind) = (change.node_id, change.get_change_type());
        let fits = self.fits(kind, id, &note.member);
        if fits {
            let conf_state = self.raft.apply_conf_change(&change).map_err(|error| error.to_string())?;
            self.raft.mut_store().conf_state = conf_state;
            match kind {
                ConfChangeType::AddLearnerNode => self.state.members.set(id, note.member),
                ConfChangeType::AddNode => {}
                ConfChangeType::RemoveNode => self.state.members.remove(id),
            }
        }
        if note.asked_by == (self.settings.member, self.boot) {
            self.changes.applied(note.number, id, fits);
        }
        if fits && kind == ConfChangeType::RemoveNode && id == self.settings.member {
            self.leave();
        }
        Ok(())
    }

    fn fits(&self, kind: ConfChangeType, id: u64, member: &Member) -> bool {
        let members = &self.state.members;
        let voters = &self.conf_state().voters;
        match kind {
            ConfChangeType::AddLearnerNode => {
                let same = members.get(id).is_none_or(|known| known == member);
                same && !members.was_removed(id) && !voters.contains(&id)
            }
            ConfChangeType::AddNode => members.get(id).is_some(),
            ConfChangeType::RemoveNode => members.get(id).is_some() && voters[..] != [id],
        }
    }

    /// This member was removed. It stays for a while, so that the others can learn of it with its help.
    fn leave(&mut self) {
        if self.leads() {
            self.raft.raft.bcast_append();
            let term = self.term();
            self.raft.raft.become_follower(term, raft::INVALID_ID);
        }
        self.leaving = Some(self.tick + LEAVE_TICKS);
    }
}
