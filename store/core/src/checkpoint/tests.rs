//! Checkpoints as they are read back whole, cut, flipped and with the wrong key.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::crypt::Key;
use crate::disk::SimDisk;
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
    Image { applied, conf_state, sessions, snapshot: state.snapshot().clone() }
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
        assert_eq!(found.sessions, image.sessions);
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
