//! What apply does, as fixtures, and against a plain model.

use super::*;

/// Runs a script of transactions, separated by blank lines, and prints what each did.
fn run(script: &str) -> String {
    let mut state = StateMachine::new();
    let mut out = String::new();
    for (number, text) in script.trim().split("\n\n").enumerate() {
        let mut txn = Txn::default();
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split(' ').collect();
            let key = Bytes::copy_from_slice(words[1].as_bytes());
            match words[0] {
                "absent" => txn.compares.push(Compare { key, expect: Expect::Absent }),
                "present" => txn.compares.push(Compare { key, expect: Expect::Present }),
                "at" => {
                    let revision = words[2].parse().expect("revision");
                    txn.compares.push(Compare { key, expect: Expect::Revision(revision) });
                }
                "put" => {
                    let at = words[2].find('|').map(|at| at as u32);
                    let bytes = Bytes::from(words[2].replace('|', "").into_bytes());
                    txn.ops.push(Op::Put { key, value: Value { bytes, splice_at: at }, expires_at_ms: None });
                }
                "delete" => txn.ops.push(Op::Delete { key }),
                other => panic!("unknown word {other}"),
            }
        }
        let origin = Origin { member: 1, boot: 1, sequence: number as u64 + 1 };
        let mut events = Vec::new();
        let outcomes = state.apply(&Command { origin, bodies: vec![Body::Txn(txn)] }, 1, &mut events);
        match outcomes.expect("not applied before").remove(0) {
            Outcome::Committed { revisions } => out += &format!("committed {revisions:?}\n"),
            Outcome::Conflict { compare } => out += &format!("conflict {compare}\n"),
        }
        for event in events {
            let key = String::from_utf8_lossy(&event.key).into_owned();
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            out += &match &event.change {
                Change::Put { value, previous } => {
                    let previous = previous.as_ref().map_or("-".into(), text);
                    format!("  {} {key} = {} was {previous}\n", event.revision, text(value))
                }
                Change::Delete { last, previous } => {
                    format!("  {} {key} gone {} was {}\n", event.revision, text(last), text(previous))
                }
            };
        }
    }
    out
}

fn check(script: &str, expected: &str) {
    let expected: String = expected.trim().lines().map(|line| format!("{}\n", line.trim())).collect();
    let found: String = run(script).lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_revision_is_spliced_into_the_value() {
    check(
        "put a {rv:|}\n\nput a {rv:|}\nput b plain",
        "
        committed [2]
        2 a = {rv:2} was -
        committed [3, 4]
        3 a = {rv:3} was {rv:2}
        4 b = plain was -",
    );
}

#[test]
fn a_deletion_carries_the_last_value_with_its_own_revision() {
    let puts = "put a <|>\n\n".repeat(8);
    let script = format!("{puts}put b x\n\ndelete a\n\ndelete b\n\ndelete b");
    let found = run(&script);
    assert!(found.ends_with(
        "committed [11]\n  11 a gone <11> was <9>\ncommitted [12]\n  12 b gone x was x\ncommitted [12]\n"
    ));
}

#[test]
fn the_first_failed_compare_is_told_and_nothing_changes() {
    check(
        "put a 1\n\npresent a\nabsent a\nat a 9\nput b 2\n\nabsent b\nat a 2\nput a 3\n\nat a 2\nput a 4",
        "
        committed [2]
        2 a = 1 was -
        conflict 1
        committed [3]
        3 a = 3 was 1
        conflict 0",
    );
}

#[test]
fn later_operations_see_earlier_ones() {
    check(
        "put a 1\ndelete a\nput a |2",
        "
        committed [2, 3, 4]
        2 a = 1 was -
        3 a gone 1 was 1
        4 a = 42 was -",
    );
}

#[test]
fn a_splice_behind_the_end_is_at_the_end() {
    let mut state = StateMachine::new();
    let op = Op::Put { key: "a".into(), value: Value::spliced("xy", 99), expires_at_ms: None };
    state.commit(&Txn { compares: vec![], ops: vec![op] });
    assert_eq!(&state.snapshot().get(b"a").unwrap().value[..], b"xy2");
}

fn send(state: &mut StateMachine, boot: u64, sequence: u64) -> bool {
    let origin = Origin { member: 1, boot, sequence };
    let settled = state.is_settled(origin);
    let command = Command { origin, bodies: vec![Body::Txn(Txn::put("k", "v"))] };
    let applied = state.apply(&command, 1, &mut Vec::new()).is_some();
    assert_eq!(applied, !settled);
    applied
}

#[test]
fn a_command_is_applied_at_most_once() {
    let mut state = StateMachine::new();
    assert!(send(&mut state, 1, 1) && !send(&mut state, 1, 1));
    assert!(send(&mut state, 1, 5) && send(&mut state, 1, 3) && !send(&mut state, 1, 3));
    assert!(send(&mut state, 1, 200) && !send(&mut state, 1, 5) && !send(&mut state, 1, 100));
    assert!(send(&mut state, 1, 199) && !send(&mut state, 1, 199) && send(&mut state, 1, 264));
    assert!(send(&mut state, 2, 1) && !send(&mut state, 1, 300) && !send(&mut state, 2, 1));
    assert_eq!(state.next_boot(1), 3);
}

#[test]
fn keys_expire_only_at_the_revision_that_was_due() {
    let put = |key: &'static str, at| Txn {
        compares: vec![],
        ops: vec![Op::Put { key: key.into(), value: Value::plain("v"), expires_at_ms: at }],
    };
    let mut state = StateMachine::new();
    state.commit(&put("a", Some(10)));
    state.commit(&put("b", Some(20)));
    state.commit(&put("c", None));
    assert_eq!((state.next_expiry_ms(), state.expired(9, 1000)), (Some(10), vec![]));
    let all = 1000;
    let due = state.expired(20, all);
    assert_eq!(due, vec![("a".into(), 2), ("b".into(), 3)]);
    assert_eq!(state.expired(20, 40).len(), 1);
    state.commit(&put("a", Some(30)));
    let origin = Origin { member: 1, boot: 1, sequence: 1 };
    let mut events = Vec::new();
    state.apply(&Command { origin, bodies: vec![Body::Expire(due)] }, 1, &mut events);
    assert_eq!(events.len(), 1);
    assert!(state.snapshot().get(b"a").is_some() && state.snapshot().get(b"b").is_none());
    assert_eq!(state.next_expiry_ms(), Some(30));
}
