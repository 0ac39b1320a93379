//! Uids in little memory: nearly all are numbers of 128 bits, and caches hold one of every object.

use std::fmt;

use uuid::Uuid;

/// The uid of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Form);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    /// Written as [RFC 9562](https://www.rfc-editor.org/rfc/rfc9562) has it, in small letters. As bytes, for their alignment.
    Number([u8; 16]),
    /// Anything else.
    Text(Box<str>),
}

// === impl Uid ===

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        let number = Uuid::try_parse(text).ok();
        let is_exact = |number: &Uuid| {
            let mut written = Uuid::encode_buffer();
            *number.hyphenated().encode_lower(&mut written) == *text
        };
        Self(match number.filter(is_exact) {
            Some(number) => Form::Number(number.into_bytes()),
            None => Form::Text(text.into()),
        })
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Number(bytes) => fmt::Display::fmt(&Uuid::from_bytes(*bytes).hyphenated(), f),
            Form::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        for text in [
            "6f1e0f3a-8a3b-4c59-9f0e-2f9d8f4b7c11",
            "6F1E0F3A-8A3B-4C59-9F0E-2F9D8F4B7C11",
            "{6f1e0f3a-8a3b-4c59-9f0e-2f9d8f4b7c11}",
            "6f1e0f3a8a3b4c599f0e2f9d8f4b7c11",
            "00000000-0000-0000-0000-000000000000",
            "u-web",
            "",
        ] {
            assert_eq!(Uid::from(text).to_string(), text);
        }
        assert!(std::mem::size_of::<Uid>() <= 24);
    }
}
