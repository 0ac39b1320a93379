//! Tags, numbers and lengths of protobuf.

use super::Error;

/// One field as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32,
}

/// Fields of a message, one after the other.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

// === impl Item ===

impl<'a> Item<'a> {
    fn wire_type(self) -> u8 {
        match self {
            Item::Varint(_) => 0,
            Item::Fixed64(_) => 1,
            Item::Bytes(_) => 2,
            Item::Fixed32 => 5,
        }
    }

    pub(crate) fn mismatch(self, field: &str) -> Error {
        Error::WireType { field: field.to_owned(), wire_type: self.wire_type() }
    }

    pub(crate) fn bytes(self, field: &str) -> Result<&'a [u8], Error> {
        match self {
            Item::Bytes(bytes) => Ok(bytes),
            other => Err(other.mismatch(field)),
        }
    }

    pub(crate) fn text(self, field: &str) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| Error::Utf8(field.to_owned()))
    }

    pub(crate) fn varint(self, field: &str) -> Result<u64, Error> {
        match self {
            Item::Varint(number) => Ok(number),
            other => Err(other.mismatch(field)),
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and content.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Item<'a>)>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or(Error::Tag(tag))?;
        let item = match tag & 7 {
            0 => Item::Varint(self.varint()?),
            1 => Item::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::Overflow)?;
                Item::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Item::Fixed32
            }
            _ => return Err(Error::Tag(tag)),
        };
        Ok(Some((number, item)))
    }

    /// The next number without a tag, of a packed list.
    pub(crate) fn next_packed(&mut self) -> Result<Option<u64>, Error> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut number = 0u64;
        for (at, &byte) in self.rest.iter().enumerate() {
            if at == 10 || (at == 9 && byte > 1) {
                return Err(Error::Overflow);
            }
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        Err(Error::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Writes a number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes a field that is a number.
pub(crate) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, number);
}

/// Writes a field that is text, bytes or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a field that is a floating-point number.
pub(crate) fn put_double(out: &mut Vec<u8>, field: u32, number: f64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&number.to_bits().to_le_bytes());
}
