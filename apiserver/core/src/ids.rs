//! Mints uids and random names from the randomness that the shell lends.

use rand::{Rng, RngCore};

/// Letters and digits that cannot spell words or be mistaken for one another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A source of ids for one request.
pub struct Ids<'a> {
    rng: &'a mut dyn RngCore,
}

// === impl Ids ===

impl<'a> Ids<'a> {
    /// Ids drawn from `rng`.
    pub fn new(rng: &'a mut dyn RngCore) -> Ids<'a> {
        Ids { rng }
    }

    /// A fresh random uid.
    pub fn uid(&mut self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// A random suffix of `len` characters, safe in names.
    pub fn suffix(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(ALPHABET[self.below(ALPHABET.len())])).collect()
    }

    /// A uniformly chosen number below `bound` (0 when `bound` is 0).
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.rng.random_range(0..bound) }
    }
}
