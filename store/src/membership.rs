//! The group as callers see it: its members, who leads, and how changes fail.

use store_core::members::Member;
pub use store_core::members::Role;
use store_core::node::{Change, ChangeRefusal, Node};

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id; never given to another member.
    pub id: u64,
    /// What people call it.
    pub name: String,
    /// Where its peers reach it.
    pub address: String,
    /// Whether it votes.
    pub role: Role,
    /// Whether it leads, as far as this member knows.
    pub leads: bool,
    /// How far it has applied the log; `None` when it could not be asked.
    pub applied: Option<u64>,
    /// How much of the log the leader knows it to have; `None` when the leader could not be asked.
    pub matched: Option<u64>,
}

/// Who leads the group, as far as this member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// This member.
    pub member: u64,
    /// The leader; `None` while there is none, or this member has not heard of it.
    pub leader: Option<u64>,
    /// The term of the consensus; grows with every election.
    pub term: u64,
    /// How often, since it was opened, this member has handed the lead over because its disk was slow.
    pub hand_overs: u64,
}

/// Why a change of the members was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such member.
    #[error("the cluster has no member {id}")]
    NoSuchMember {
        /// The id.
        id: u64,
    },
    /// The member was removed earlier; ids are not given twice.
    #[error("member {id} was removed from the cluster")]
    Removed {
        /// The id.
        id: u64,
    },
    /// The last voter cannot be removed: the data would be gone.
    #[error("member {id} is the only one that votes: without it the cluster would be lost")]
    LastVoter {
        /// The id.
        id: u64,
    },
    /// Only a voter can lead.
    #[error("member {id} does not vote yet, so it cannot lead")]
    NotVoter {
        /// The id.
        id: u64,
    },
    /// A learner cannot be asked, so it does not vote.
    #[error("member {id} cannot be reached: it does not get a vote that it could not use")]
    Away {
        /// The id.
        id: u64,
    },
    /// A learner lacks too much of the log to vote.
    #[error(
        "member {id} has not caught up: it has the log up to {has} of {needs}; it gets its vote by itself when it has"
    )]
    Behind {
        /// The id.
        id: u64,
        /// The entry up to which it has the log.
        has: u64,
        /// The entry that it should have by now.
        needs: u64,
    },
    /// The change was not seen to be made in time: there is no leader, or too few members can be reached. It may
    /// still be made.
    #[error("the cluster did not confirm the change in time: are enough members reachable?")]
    TimedOut,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Who calls the peer service: the server that mounts [`Store::peer_service`](crate::Store::peer_service) puts it
/// into each request's extensions, from the client certificate that it has checked. Requests without it are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerId(pub u64);

/// What a learner has to have before it may vote: what the leader had applied. `None` when there is nothing to wait for, or
/// nobody says.
pub(crate) fn target(members: &[MemberStatus], id: u64) -> Option<u64> {
    let is_learner = members.iter().any(|member| member.id == id && member.role == Role::Learner);
    members.iter().find(|member| member.leads && is_learner)?.applied
}

/// Refuses a learner that does not have what it should have by now.
pub(crate) fn caught_up(members: &[MemberStatus], id: u64, needs: u64) -> Result<(), ChangeError> {
    let Some(learner) = members.iter().find(|member| member.id == id && member.role == Role::Learner) else {
        return Ok(());
    };
    if learner.applied.is_none() {
        return Err(ChangeError::Away { id });
    }
    match learner.matched.unwrap_or(0) {
        has if has >= needs => Ok(()),
        has => Err(ChangeError::Behind { id, has, needs }),
    }
}

/// What the store's thread knows of the group.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) member: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) applied: u64,
    pub(crate) revision: u64,
    pub(crate) members: Vec<(u64, Member, Role, Option<u64>)>,
}

// === impl View ===

impl View {
    pub(crate) fn of(member: u64, node: &Node) -> Self {
        let matched = node.matched();
        let learners = &node.conf_state().learners;
        let members = node.state().members().iter().map(|(id, member)| {
            let role = if learners.contains(&id) { Role::Learner } else { Role::Voter };
            (id, member.clone(), role, matched.get(&id).copied())
        });
        Self {
            member,
            leader: node.leader(),
            applied: node.state().applied().index,
            revision: node.state().snapshot().revision(),
            members: members.collect(),
        }
    }
}

// === impl ChangeError ===

impl ChangeError {
    pub(crate) fn of(refusal: ChangeRefusal, change: &Change) -> Self {
        let id = match change {
            Change::Promote(id) | Change::Remove(id) | Change::TransferLead(id) => *id,
            Change::Add(_) => 0,
        };
        match refusal {
            ChangeRefusal::NoSuchMember => Self::NoSuchMember { id },
            ChangeRefusal::Removed => Self::Removed { id },
            ChangeRefusal::LastVoter => Self::LastVoter { id },
            ChangeRefusal::NotVoter => Self::NotVoter { id },
            ChangeRefusal::TimedOut => Self::TimedOut,
        }
    }
}

// === impl Leadership ===

impl Leadership {
    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, role: Role, leads: bool, applied: Option<u64>, matched: Option<u64>) -> MemberStatus {
        MemberStatus { id, name: String::new(), address: String::new(), role, leads, applied, matched }
    }

    #[test]
    fn a_learner_gets_a_vote_when_it_can_use_it() {
        let check = |applied: Option<u64>, matched: Option<u64>, expected: Result<(), ChangeError>| {
            let members = [
                member(1, Role::Voter, true, Some(100), Some(100)),
                member(2, Role::Learner, false, applied, matched),
            ];
            assert_eq!(target(&members, 2), Some(100));
            assert_eq!(caught_up(&members, 2, 100), expected, "{applied:?} {matched:?}");
        };
        check(Some(100), Some(100), Ok(()));
        check(Some(90), Some(101), Ok(()));
        check(Some(7), Some(8), Err(ChangeError::Behind { id: 2, has: 8, needs: 100 }));
        check(None, Some(100), Err(ChangeError::Away { id: 2 }));
        let voter = [member(1, Role::Voter, true, Some(100), Some(100))];
        assert_eq!(target(&voter, 1), None);
        assert_eq!(caught_up(&voter, 1, 1000), Ok(()));
    }
}
