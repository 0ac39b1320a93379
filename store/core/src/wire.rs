//! The byte layout that log, checkpoint and commands share: little-endian words, varints, counted bytes.

use bytes::Bytes;

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end too early.
    #[error("the data ends too early")]
    Truncated,
    /// Bytes are left over.
    #[error("the data has {left} bytes too many")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// A varint has more than 64 bits.
    #[error("a number is out of range")]
    Range,
    /// A variant that this version does not know.
    #[error("unknown tag {found}")]
    Tag {
        /// The tag.
        found: u8,
    },
    /// A format that this version does not know.
    #[error("format version {found} is unknown to this version")]
    Version {
        /// The version that was found.
        found: u32,
    },
}

/// Writes the layout.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

/// Reads the layout; counted bytes are slices of the input.
#[derive(Debug)]
pub struct Reader<'a> {
    data: &'a Bytes,
    at: usize,
}

// === impl Writer ===

impl Writer {
    /// A writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    /// A writer that goes on behind `out`.
    pub fn behind(out: Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes one byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Writes a number in as few bytes as it needs.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// Writes a number that may be missing.
    pub fn optional(&mut self, value: Option<u64>) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                self.varint(value);
            }
        }
    }

    /// Writes bytes behind their count.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// Writes numbers behind their count.
    pub fn numbers(&mut self, numbers: &[u64]) {
        self.varint(numbers.len() as u64);
        numbers.iter().for_each(|number| self.varint(*number));
    }

    /// How much was written.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// A reader from the start of `data`.
    pub fn new(data: &'a Bytes) -> Self {
        Self { data, at: 0 }
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        let byte = *self.data.get(self.at).ok_or(WireError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// Reads a number.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(WireError::Range);
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Range)
    }

    /// Reads a number that may be missing.
    pub fn optional(&mut self) -> Result<Option<u64>, WireError> {
        match self.u8()? {
            0 => Ok(None),
            1 => Ok(Some(self.varint()?)),
            other => Err(WireError::Tag { found: other }),
        }
    }

    /// Reads a count of items that take at least `least` bytes each, so that a wrong count cannot ask for memory.
    pub fn count(&mut self, least: usize) -> Result<usize, WireError> {
        let count = usize::try_from(self.varint()?).map_err(|_| WireError::Range)?;
        if count.checked_mul(least.max(1)).is_none_or(|bytes| bytes > self.left()) {
            return Err(WireError::Truncated);
        }
        Ok(count)
    }

    /// Reads counted bytes.
    pub fn bytes(&mut self) -> Result<Bytes, WireError> {
        let count = self.count(1)?;
        let bytes = self.data.slice(self.at..self.at + count);
        self.at += count;
        Ok(bytes)
    }

    /// Reads counted numbers.
    pub fn numbers(&mut self) -> Result<Vec<u64>, WireError> {
        let count = self.count(1)?;
        (0..count).map(|_| self.varint()).collect()
    }

    /// How much is left.
    pub fn left(&self) -> usize {
        self.data.len() - self.at
    }

    /// Checks that everything was read.
    pub fn end(&self) -> Result<(), WireError> {
        match self.left() {
            0 => Ok(()),
            left => Err(WireError::Trailing { left }),
        }
    }
}
