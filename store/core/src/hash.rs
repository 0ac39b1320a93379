//! The state hash: a sum over live entries, so that it changes in step with each write.

const SEEDS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

/// The hash of one live entry. The hash of a state is the wrapping sum over its entries.
pub fn entry(key: &[u8], revision: u64, value: &[u8]) -> u64 {
    let mut hash = bytes(fold(SEEDS[0] ^ revision, SEEDS[1]), key);
    hash = bytes(hash, value);
    fold(hash ^ SEEDS[2], SEEDS[0] ^ revision)
}

fn bytes(seed: u64, data: &[u8]) -> u64 {
    let mut hash = fold(seed ^ data.len() as u64, SEEDS[1]);
    let (chunks, rest) = data.as_chunks::<16>();
    for chunk in chunks {
        hash = fold(word(&chunk[..8]) ^ SEEDS[1] ^ hash, word(&chunk[8..]) ^ SEEDS[2]) ^ hash.rotate_left(23);
    }
    for part in rest.chunks(8) {
        hash = fold(word(part) ^ hash ^ SEEDS[0], part.len() as u64 ^ SEEDS[2]) ^ hash.rotate_left(23);
    }
    hash
}

fn word(part: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..part.len()].copy_from_slice(part);
    u64::from_le_bytes(word)
}

/// Multiplies to 128 bits and folds the halves together.
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_by_every_part() {
        let base = entry(b"key", 7, b"value");
        assert_eq!(base, entry(b"key", 7, b"value"));
        for other in [
            entry(b"kez", 7, b"value"),
            entry(b"key", 8, b"value"),
            entry(b"key", 7, b"valuf"),
            entry(b"keyv", 7, b"alue"),
            entry(b"key", 7, b"value\0"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_changes_the_hash() {
        let value: Vec<u8> = (0..100).collect();
        let base = entry(b"k", 1, &value);
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(base, entry(b"k", 1, &flipped), "bit {bit}");
        }
    }
}
