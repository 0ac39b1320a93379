//! Segments as they are read back whole, torn, flipped and with the wrong key.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::crypt::{Key, Keys};

fn record(index: u64, size: usize) -> Record {
    let data = vec![index as u8; size].into();
    let entry = Entry { index, term: 3, data, ..Entry::default() };
    let state = HardState { term: 3, commit: index, ..HardState::default() };
    Record { hard_state: Some(state), entries: vec![entry] }
}

/// A segment of records, each synced before the next, with the offsets where they begin.
fn segment(sizes: &[usize]) -> (Vec<u8>, Vec<usize>, Cipher) {
    let keys = Keys::new(Key::new(1, [7; 32]), vec![]);
    let (header, cipher) = keys.create(MAGIC, VERSION, 1, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    let mut data = header.encode().to_vec();
    let mut starts = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        let at = data.len();
        starts.push(at);
        data = seal(&record(index as u64 + 1, *size), &cipher, at as u64, at as u64, data).unwrap();
    }
    (data, starts, cipher)
}

#[test]
fn reads_back_what_was_written_with_reserved_room_behind() {
    let (mut data, _, cipher) = segment(&[0, 1, 100, 5000]);
    let end = data.len() as u64;
    data.resize(data.len() + 4096, 0);
    let scanned = scan(data, &cipher).unwrap();
    assert_eq!((scanned.end, scanned.torn, scanned.records.len()), (end, false, 4));
    assert_eq!(scanned.records[3], record(4, 5000));
}

#[test]
fn a_cut_anywhere_in_the_last_record_leaves_the_others() {
    let (data, starts, cipher) = segment(&[10, 20, 30]);
    for end in starts[2]..data.len() - ALIGN {
        for zeros in [0, 64] {
            let mut cut = data[..end].to_vec();
            cut.resize(end + zeros, 0);
            let scanned = scan(cut, &cipher).unwrap();
            assert_eq!(scanned.records.len(), 2, "cut at {end}");
            assert_eq!((scanned.end, scanned.torn), (starts[2] as u64, end > starts[2]));
        }
    }
}

#[test]
fn a_flipped_bit_before_the_tail_is_refused_and_in_the_tail_is_cut() {
    let (data, starts, cipher) = segment(&[10, 20, 30]);
    let padding =
        |bit: usize| scan(flip(&data, bit), &cipher).is_ok_and(|scanned| scanned.records.len() == 3);
    for bit in starts[0] * 8..data.len() * 8 {
        if padding(bit) {
            continue;
        }
        match scan(flip(&data, bit), &cipher) {
            Ok(scanned) => {
                assert!(bit / 8 >= starts[2] && scanned.torn, "bit {bit}");
                assert_eq!(scanned.end, starts[2] as u64);
            }
            Err(LogError::Damaged { offset, .. }) => {
                let hit = starts.iter().rev().find(|start| **start <= bit / 8);
                assert_eq!(Some(&(offset as usize)), hit);
                assert!(bit / 8 < starts[2]);
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

fn flip(data: &[u8], bit: usize) -> Vec<u8> {
    let mut data = data.to_vec();
    data[bit / 8] ^= 1 << (bit % 8);
    data
}

#[test]
fn records_of_one_unsynced_stretch_may_be_torn_in_any_order() {
    let (mut data, _, cipher) = segment(&[10]);
    let durable = data.len();
    for index in 2..5 {
        let at = data.len() as u64;
        data = seal(&record(index, 40), &cipher, at, durable as u64, data).unwrap();
    }
    data[durable..durable + RECORD_HEADER].fill(0);
    let scanned = scan(data, &cipher).unwrap();
    assert_eq!((scanned.end, scanned.torn, scanned.records.len()), (durable as u64, true, 1));
}

#[test]
fn a_forged_record_and_an_unknown_version_are_refused() {
    let (data, starts, cipher) = segment(&[10, 20]);
    let resign = |mut data: Vec<u8>, at: usize| {
        let len = le_u32(&data[at + 4..at + 8]) as usize;
        let crc = crc32fast::hash(&data[at + CHECKED_FROM..at + RECORD_HEADER + len]);
        data[at + 8..at + CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
        data
    };
    let mut forged = data.clone();
    forged[starts[1] + RECORD_HEADER] ^= 1;
    let found = scan(resign(forged, starts[1]), &cipher).map(|_| ());
    assert!(matches!(found, Err(LogError::Crypt { source: CryptError::Forged, .. })));
    let mut newer = data;
    newer[starts[1] + CHECKED_FROM] = VERSION as u8 + 1;
    let found = scan(resign(newer, starts[1]), &cipher).map(|_| ());
    assert_eq!(found, Err(LogError::Version { offset: starts[1] as u64, found: VERSION as u8 + 1 }));
}
