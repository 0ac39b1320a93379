//! Checkpoints as they are read back whole, cut, flipped and with the wrong key.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::crypt::Key;
use crate::disk::SimDisk;
use crate::members::Member;
use crate::txn::{Op, Txn, Value};

fn keys(id: u64, byte: u8) -> Keys {
    Keys::new(Key::new(id, [byte; 32]), vec![])
}

fn image(objects: usize, size: usize) -> Image {
    let mut state = StateMachine::new();
    for number in 0..objects {
        let value = Value::spliced(vec![b'x'; size], 1);
        let expires_at_ms = (number % 3 == 0).then_some(number as i64);
        let key = format!("/key/{number}").into();
        state.commit(&Txn { compares: vec![], ops: vec![Op::Put { key, value, expires_at_ms }] });
    }
    let applied = Applied { index: 42, term: 3 };
    let sessions = BTreeMap::from([(1, Session { boot: 2, highest: u64::MAX, window: 5 })]);
    let conf_state = ConfState { voters: vec![1, 2], ..ConfState::default() };
    let mut members = Members::of(&[1, 2]);
    members.set(2, Member { name: "two".into(), address: "host:2".into() });
    members.remove(3);
    Image { applied, conf_state, sessions, members, received: false, snapshot: state.snapshot().clone() }
}

fn written(objects: usize, size: usize) -> (SimDisk, Image) {
    let disk = SimDisk::new();
    let image = image(objects, size);
    write(&disk, &keys(1, 1), &mut ChaCha20Rng::seed_from_u64(1), image.clone()).unwrap();
    (disk, image)
}

fn load(disk: &SimDisk, keys: &Keys) -> Result<Image, CheckpointError> {
    read(&mut *disk.open(&name(42)).unwrap(), keys).map(|(_, image)| image)
}

#[test]
fn reads_back_what_was_written() {
    for (objects, size) in [(0, 0), (1, 10), (1000, 1000), (2, BLOCK * 2)] {
        let (disk, image) = written(objects, size);
        let found = load(&disk, &keys(1, 1)).unwrap();
        assert_eq!((found.applied, &found.conf_state), (image.applied, &image.conf_state));
        assert_eq!((&found.sessions, &found.members), (&image.sessions, &image.members));
        assert!(found.snapshot.objects == image.snapshot.objects);
        assert_eq!(found.snapshot.revision(), image.snapshot.revision());
        assert_eq!(found.snapshot.data_bytes(), image.snapshot.data_bytes());
        assert_eq!(found.into_state().next_expiry_ms(), (objects > 0).then_some(0));
    }
}

#[test]
fn any_flipped_bit_and_any_cut_is_seen() {
    let (disk, _) = written(3, 10);
    let bits = disk.content(&name(42)).unwrap().len() as u64 * 8;
    for bit in 0..bits {
        disk.flip_bit(&name(42), bit);
        assert!(load(&disk, &keys(1, 1)).is_err(), "bit {bit}");
        disk.flip_bit(&name(42), bit);
    }
    for len in (0..bits / 8).rev() {
        disk.truncate(&name(42), len).unwrap();
        assert!(load(&disk, &keys(1, 1)).is_err(), "cut at {len}");
    }
}

#[test]
fn wrong_keys_are_told_apart() {
    let (disk, _) = written(3, 10);
    let wrong = load(&disk, &keys(1, 2)).unwrap_err();
    assert_eq!(wrong, CheckpointError::Crypt(CryptError::WrongKey { id: 1 }));
    let unknown = load(&disk, &keys(2, 1)).unwrap_err();
    assert_eq!(unknown, CheckpointError::Crypt(CryptError::UnknownKey { id: 1 }));
    let rotated = Keys::new(Key::new(2, [2; 32]), vec![Key::new(1, [1; 32])]);
    assert!(load(&disk, &rotated).is_ok());
}

#[test]
fn a_checkpoint_of_the_version_before_knows_its_members_by_id() {
    let plain = Image { members: Members::default(), ..image(0, 0) };
    let mut text = Texts::new(plain).next_text(Vec::new()).unwrap();
    let unknown_then = [0, 0, 0];
    assert!(text.ends_with(&unknown_then));
    text.truncate(text.len() - unknown_then.len());
    let found = texts::read_meta(&text.into(), 1).unwrap().image;
    assert_eq!((found.members, found.received), (Members::of(&[1, 2]), false));
}

/// Sends the texts of an image to a member with a key of its own, changed on the way.
fn sent(
    image: Image,
    held: &Snapshot,
    disk: &SimDisk,
    change: impl Fn(usize, Vec<u8>) -> Option<Vec<u8>>,
) -> Result<Received, CheckpointError> {
    let rng = ChaCha20Rng::seed_from_u64(2);
    let mut receiver =
        Receiver::new(std::sync::Arc::new(disk.clone()), keys(2, 2), rng, held.clone(), VERSION)?;
    let mut texts = Texts::new(image);
    let mut number = 0;
    while let Some(text) = texts.next_text(Vec::new()) {
        if let Some(text) = change(number, text) {
            receiver.push(&text.into())?;
        }
        number += 1;
    }
    receiver.finish()
}

#[test]
fn a_state_that_was_sent_is_the_same_under_another_key() {
    for (objects, size) in [(0, 0), (1000, 1000)] {
        let (disk, image) = (SimDisk::new(), image(objects, size));
        let received = sent(image.clone(), &Snapshot::default(), &disk, |_, text| Some(text)).unwrap();
        assert!(received.image.snapshot.objects == image.snapshot.objects && received.image.received);
        assert_eq!((&received.image.members, received.image.applied), (&image.members, image.applied));
        disk.rename(&received.file, &name(42)).unwrap();
        assert!(load(&disk, &keys(2, 2)).unwrap().received);
    }
}

#[test]
fn what_a_member_holds_already_takes_no_memory_again() {
    let image = image(1000, 1000);
    let mut held = image.snapshot.clone();
    let (changed, _) = held.objects.iter().nth(500).map(|(key, entry)| (key.clone(), entry.clone())).unwrap();
    held.put(changed.clone(), Entry::new("other".into(), 1, 1, None, None));
    let received = sent(image.clone(), &held, &SimDisk::new(), |_, text| Some(text)).unwrap();
    for (key, entry) in &received.image.snapshot.objects {
        let before = held.get(key).unwrap();
        assert_eq!(entry, image.snapshot.get(key).unwrap());
        assert_eq!(entry.value.as_ptr() == before.value.as_ptr(), *key != changed);
    }
}

#[test]
fn a_state_that_was_cut_or_changed_is_not_taken() {
    let image = image(1000, 1000);
    for broken in 0..4 {
        let disk = SimDisk::new();
        let without = sent(image.clone(), &Snapshot::default(), &disk, |number, text| {
            (number != broken).then_some(text)
        });
        assert!(without.is_err(), "without text {broken}");
        let changed = sent(image.clone(), &Snapshot::default(), &disk, |number, mut text| {
            let at = text.len() / 2;
            text[at] ^= u8::from(number == broken);
            Some(text)
        });
        assert!(broken == 0 || changed.is_err(), "text {broken} changed");
        assert!(disk.list().unwrap().iter().all(|name| broken == 0 || !name.starts_with("received")));
    }
}
