//! Random transactions against a plain map.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use store_core::crypt::{Key, Keys};
use store_core::disk::SimDisk;
use store_core::history::{History, Limits};
use store_core::host::{Host, HostSettings, Output};
use store_core::members::Member;
use store_core::node::Settings;
use store_core::recovery::Start;
use store_core::state::StateMachine;
use store_core::{Compare, Expect, Op, Outcome, Snapshot, Txn, Value};

/// A plain map that does the same: key to (value, create revision, revision).
#[derive(Clone, Default)]
struct Model {
    live: BTreeMap<Vec<u8>, (Vec<u8>, u64, u64)>,
    revision: u64,
}

impl Model {
    fn apply(&mut self, txn: &Txn) -> Outcome {
        for (compare, Compare { key, expect }) in txn.compares.iter().enumerate() {
            let found = self.live.get(&key[..]).map(|(_, _, revision)| *revision);
            let holds = match expect {
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::Revision(revision) => found == Some(*revision),
            };
            if !holds {
                return Outcome::Conflict { compare };
            }
        }
        let revisions = txn.ops.iter().map(|op| self.operate(op)).collect();
        Outcome::Committed { revisions }
    }

    fn operate(&mut self, op: &Op) -> u64 {
        match op {
            Op::Put { key, value, .. } => {
                self.revision += 1;
                let mut bytes = value.bytes.to_vec();
                if let Some(at) = value.splice_at {
                    let at = bytes.len().min(at as usize);
                    bytes.splice(at..at, self.revision.to_string().into_bytes());
                }
                let created = self.live.get(&key[..]).map_or(self.revision, |(_, created, _)| *created);
                self.live.insert(key.to_vec(), (bytes, created, self.revision));
            }
            Op::Delete { key } => self.revision += u64::from(self.live.remove(&key[..]).is_some()),
        }
        self.revision
    }

    fn check(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.revision(), self.revision);
        let found: Vec<_> = snapshot
            .prefix(b"")
            .map(|(key, entry)| (key.to_vec(), (entry.value.to_vec(), entry.create_revision, entry.revision)))
            .collect();
        let expected: Vec<_> = self.live.clone().into_iter().collect();
        assert_eq!(found, expected);
    }
}

fn key() -> impl Strategy<Value = bytes::Bytes> {
    "[ab]{1,2}|/a/[0-9]".prop_map(|key| key.into_bytes().into())
}

fn txn() -> impl Strategy<Value = Txn> {
    let expect = prop_oneof![
        1 => Just(Expect::Absent),
        3 => Just(Expect::Present),
        1 => (1u64..20).prop_map(Expect::Revision)
    ];
    let value = ("[xyz]{0,6}", proptest::option::of(0u32..9))
        .prop_map(|(text, splice_at)| Value { bytes: text.into_bytes().into(), splice_at });
    let op = prop_oneof![
        3 => (key(), value, proptest::option::of(1i64..50))
            .prop_map(|(key, value, expires_at_ms)| Op::Put { key, value, expires_at_ms }),
        1 => key().prop_map(|key| Op::Delete { key })
    ];
    let compare = (key(), expect).prop_map(|(key, expect)| Compare { key, expect });
    (prop::collection::vec(compare, 0..2), prop::collection::vec(op, 0..4))
        .prop_map(|(compares, ops)| Txn { compares, ops })
}

proptest! {
    #[test]
    fn apply_does_what_a_plain_map_does(txns in prop::collection::vec(txn(), 0..60)) {
        let mut state = StateMachine::new();
        let mut history = History::new(state.snapshot().revision(), Limits::default());
        let mut model = Model { revision: state.snapshot().revision(), ..Model::default() };
        let mut past = vec![model.clone()];
        for txn in &txns {
            let before = state.snapshot().revision();
            let (outcome, events) = state.commit(txn);
            prop_assert_eq!(outcome, model.apply(txn));
            let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
            prop_assert_eq!(revisions, (before + 1..=model.revision).collect::<Vec<_>>());
            history.push(&events, 0);
            model.check(state.snapshot());
            past.push(model.clone());
        }
        for model in past {
            let past = history.between(model.revision, state.snapshot().revision()).unwrap();
            model.check(&state.snapshot().rewound(&past.events(state.snapshot())));
        }
    }

    #[test]
    fn ranges_and_prefixes_are_those_of_a_plain_map(
        keys in prop::collection::btree_set(prop::collection::vec(254u8.., 0..4), 0..20),
        from in prop::collection::vec(254u8.., 0..3),
        to in prop::collection::vec(254u8.., 0..3),
    ) {
        let snapshot = Snapshot::for_tests(keys.iter().map(|key| (key.clone(), "v")));
        let range: Vec<_> = snapshot.range(&from, &to).map(|(key, _)| key.to_vec()).collect();
        let expected: Vec<_> = keys.iter().filter(|key| **key >= from && **key < to).cloned().collect();
        prop_assert_eq!(range, expected);
        let prefixed: Vec<_> = snapshot.prefix(&from).map(|(key, _)| key.to_vec()).collect();
        let expected: Vec<_> = keys.iter().filter(|key| key.starts_with(&from)).cloned().collect();
        prop_assert_eq!(snapshot.count_prefix(&from), expected.len());
        prop_assert_eq!(prefixed, expected);
    }

    #[test]
    fn a_restart_replays_to_the_same_state(batches in prop::collection::vec(prop::collection::vec(txn(), 1..5), 0..20)) {
        let disk = SimDisk::new();
        let open = |boot| {
            let mut node = Settings::new(1);
            node.checkpoint_log_bytes = 500;
            let start = Start::First(Member::default());
            let settings = HostSettings { node, start, segment_bytes: 1 << 17, boot, seed: [boot as u8; 32] };
            let keys = Keys::new(Key::new(1, [1; 32]), vec![]);
            Host::open(Arc::new(disk.clone()), keys, &settings, 0).unwrap().0
        };
        let mut host = open(1);
        for batch in batches {
            host.commit((0..).zip(batch).collect(), 0).unwrap();
            for output in host.take_outputs() {
                if let Output::Job(job) = output {
                    job.run().event.map(|event| host.handle(event, 0)).transpose().unwrap();
                }
            }
        }
        let live = host.snapshot().clone();
        drop(host);
        let again = open(2);
        prop_assert_eq!(again.snapshot().hash(), live.hash());
        prop_assert_eq!(again.snapshot().revision(), live.revision());
        prop_assert_eq!(again.snapshot().data_bytes(), live.data_bytes());
    }
}
