//! A state as the beginning of a new group: of one that is restored from a backup, or of the last member of one that has lost
//! its majority.

use raft::eraftpb::{ConfState, EntryType};

use crate::checkpoint::Image;
use crate::command;
use crate::members::{Member, Members};
use crate::recovery::{GENESIS, Recovered};
use crate::state::Applied;

/// So far behind the revisions that clients may have seen a new group begins. Watches from before are told that their past
/// is gone, instead of being shown another past under the same numbers.
pub const REVISION_JUMP: u64 = 1_000_000_000;

/// Why the log of a member cannot be followed to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of the log cannot be applied: {reason}")]
pub struct ReplayError {
    /// Which entry.
    pub index: u64,
    /// Why.
    pub reason: String,
}

/// The state at the end of a member's log. Whether a majority ever agreed to its last entries is not known; nobody is left
/// who could say.
pub fn replay(recovered: Recovered) -> Result<Image, ReplayError> {
    let Recovered { image, entries, .. } = recovered;
    let conf_state = image.conf_state.clone();
    let mut state = image.into_state();
    for entry in
        entries.iter().filter(|entry| entry.index > state.applied().index).cloned().collect::<Vec<_>>()
    {
        // Changes of members are of the group that is gone.
        if entry.entry_type == EntryType::EntryNormal && !entry.data.is_empty() {
            let commands = command::decode(&entry.data)
                .map_err(|error| ReplayError { index: entry.index, reason: error.to_string() })?;
            for command in &commands {
                // What it does is all that matters: nobody waits.
                let _ = state.apply(command, entry.index, &mut Vec::new());
            }
        }
        state.advance(Applied { index: entry.index, term: entry.term });
    }
    Ok(Image {
        applied: state.applied(),
        conf_state,
        sessions: state.sessions.clone(),
        members: state.members().clone(),
        received: false,
        snapshot: state.snapshot().clone(),
    })
}

/// The same objects as the first state of a new group, whose only member is `id`. All other members of the group before
/// count as removed.
pub fn refounded(image: Image, id: u64, member: Member) -> Image {
    let Members { known, mut removed } = image.members;
    removed.extend(known.into_keys());
    removed.remove(&id);
    let mut snapshot = image.snapshot;
    snapshot.revision += REVISION_JUMP;
    snapshot.compacted_revision = snapshot.revision;
    Image {
        applied: GENESIS,
        conf_state: ConfState { voters: vec![id], ..ConfState::default() },
        sessions: image.sessions,
        members: Members { known: [(id, member)].into(), removed },
        received: false,
        snapshot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;

    #[test]
    fn a_new_group_begins_with_the_objects_and_without_the_others() {
        let snapshot = Snapshot::for_tests([("a", "1"), ("b", "2")]);
        let (hash, revision) = (snapshot.hash(), snapshot.revision());
        let members = Members::of(&[1, 2, 3]);
        let before = Image { applied: Applied { index: 77, term: 5 }, members, snapshot, ..Image::default() };
        let member = Member { name: "s2".to_owned(), address: "10.0.0.2:6443".to_owned() };
        let after = refounded(before, 2, member.clone());
        assert_eq!(after.applied, GENESIS);
        assert_eq!(after.conf_state.voters, [2]);
        assert_eq!(after.members.get(2), Some(&member));
        assert!(
            after.members.was_removed(1) && after.members.was_removed(3) && !after.members.was_removed(2)
        );
        assert_eq!(after.members.fresh_id(), 4);
        assert_eq!(after.snapshot.hash(), hash);
        assert_eq!(after.snapshot.revision(), revision + REVISION_JUMP);
        assert_eq!(after.snapshot.compacted_revision(), after.snapshot.revision());
    }
}
