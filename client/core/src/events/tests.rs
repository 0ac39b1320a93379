//! Correlation in virtual time.

use super::*;

fn note(object: &str, message: &str) -> EventNote {
    EventNote {
        regarding: ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some("default".into()),
            name: Some(object.into()),
            ..ObjectReference::default()
        },
        kind: EventType::Warning,
        reason: "BackOff".into(),
        action: String::new(),
        message: message.into(),
    }
}

fn at(seconds: i64) -> Now {
    Now {
        moment: Duration::from_secs(u64::try_from(seconds).expect("positive")),
        wall: Timestamp::new(seconds, 0).expect("in range"),
    }
}

#[test]
fn the_same_note_again_raises_the_count() {
    let mut correlator = Correlator::new(Limits::default());
    let Correlated::Create(first) = correlator.note(note("a", "m"), at(1)) else { panic!("created") };
    assert_eq!((first.count, first.name.as_str()), (1, "a.3b9aca00"));
    let Correlated::Update(second) = correlator.note(note("a", "m"), at(5)) else { panic!("updated") };
    assert_eq!(second.name, first.name);
    assert_eq!((second.count, second.first, second.last), (2, first.first, at(5).wall));
    assert!(matches!(correlator.note(note("b", "m"), at(6)), Correlated::Create(_)));
    correlator.forget(&second);
    assert!(matches!(correlator.note(note("a", "m"), at(7)), Correlated::Create(_)));
}

#[test]
fn ever_new_messages_are_combined() {
    let mut correlator = Correlator::new(Limits::default());
    for n in 0..9 {
        assert!(matches!(correlator.note(note("a", &format!("m{n}")), at(n)), Correlated::Create(_)), "{n}");
    }
    let Correlated::Create(combined) = correlator.note(note("a", "m9"), at(9)) else { panic!("created") };
    assert_eq!(combined.note.message, "(combined from similar events): m9");
    let Correlated::Update(combined) = correlator.note(note("a", "m10"), at(10)) else { panic!("updated") };
    assert_eq!((combined.count, combined.note.message.as_str()), (2, "(combined from similar events): m10"));
    assert!(
        matches!(correlator.note(note("a", "m11"), at(2000)), Correlated::Create(_)),
        "after the interval"
    );
}

#[test]
fn a_noisy_object_is_silenced_until_its_bucket_refills() {
    let mut correlator = Correlator::new(Limits::default());
    let written = (0..40).filter(|_| correlator.note(note("a", "m"), at(0)) != Correlated::Dropped).count();
    assert_eq!(written, 25);
    assert_eq!(correlator.note(note("a", "m"), at(200)), Correlated::Dropped);
    assert_ne!(correlator.note(note("a", "m"), at(301)), Correlated::Dropped);
    assert_ne!(correlator.note(note("b", "m"), at(0)), Correlated::Dropped);
}

#[test]
fn memory_is_bounded() {
    let mut correlator = Correlator::new(Limits { remembered: 3, ..Limits::default() });
    for n in 0..50 {
        correlator.note(note(&format!("pod{n}"), "m"), at(n));
    }
    assert_eq!(correlator.known.values.len(), 3);
    assert_eq!(correlator.known.order.len(), 3);
    assert!(matches!(correlator.note(note("pod49", "m"), at(51)), Correlated::Update(_)));
    assert!(matches!(correlator.note(note("pod1", "m"), at(52)), Correlated::Create(_)));
}
