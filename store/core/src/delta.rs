//! A value told as its difference from another one, for what was replaced mostly comes back in what replaced it.
//!
//! The difference is a block of [LZ4](https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md) whose dictionary is the other
//! value: quick to make, and it needs no knowledge of what values are.

use bytes::Bytes;
use lz4_flex::block::{compress_with_dict, decompress_with_dict};

/// Of more than a window of LZ4 the difference would take long and find little.
const LARGEST: usize = 64 << 10;

/// What makes a value out of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    block: Box<[u8]>,
    length: u32,
}

// === impl Delta ===

impl Delta {
    /// The difference of `value` from `base`; `None` where it would not be much smaller than the value.
    pub(crate) fn of(value: &[u8], base: &[u8]) -> Option<Self> {
        if value.len().max(base.len()) > LARGEST {
            return None;
        }
        let length = u32::try_from(value.len()).ok()?;
        let block = compress_with_dict(value, base);
        (block.len() < value.len() / 2).then(|| Self { block: block.into(), length })
    }

    /// The value; `None` when `base` is another one than the difference was made from.
    pub(crate) fn apply(&self, base: &[u8]) -> Option<Bytes> {
        decompress_with_dict(&self.block, self.length as usize, base).ok().map(Bytes::from)
    }

    /// The bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        self.block.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(number: usize) -> String {
        (0..40).map(|line| format!("{{\"line\":{line},\"of\":\"{}\"}}", number * line)).collect()
    }

    #[test]
    fn what_is_alike_takes_little() {
        let (old, new) = (text(7), format!("{}{{\"more\":true}}", text(7)));
        let delta = Delta::of(old.as_bytes(), new.as_bytes()).expect("much smaller");
        assert!(delta.size() < 64, "{}", delta.size());
        assert_eq!(delta.apply(new.as_bytes()).expect("the same base"), old.as_bytes());
    }

    #[test]
    fn what_would_take_as_much_is_not_made() {
        assert_eq!(Delta::of(b"abcdefgh", b"12345678"), None);
        assert_eq!(Delta::of(b"", b""), None);
        let large = vec![0; LARGEST + 1];
        assert_eq!(Delta::of(&large, &large), None);
    }

    proptest! {
        #[test]
        fn the_value_comes_back(
            base in proptest::collection::vec(0..4_u8, 0..400),
            cut in any::<prop::sample::Index>(),
            put in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut value = base.clone();
            let at = cut.index(base.len() + 1);
            value.splice(at..(at + put.len() / 2).min(base.len()), put);
            if let Some(delta) = Delta::of(&value, &base) {
                prop_assert_eq!(delta.apply(&base).expect("the same base"), value);
            }
        }
    }
}
