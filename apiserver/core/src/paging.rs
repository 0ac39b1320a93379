//! The token that continues a paged list: the revision of the first page and the key to go on from.

use api::status::Status;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::failure::Refused;

/// 410: the revision that a list's pages show was forgotten.
pub fn expired() -> Refused {
    Status::expired(api::status::CONTINUE_EXPIRED).into()
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The revision that all pages show; 0 for an inconsistent continuation at the newest.
    pub revision: u64,
    /// The first key of the next page, below the list's prefix.
    pub start: String,
    /// How many objects are still to come, where that is told.
    pub remaining: Option<u64>,
}

// === impl Token ===

impl Token {
    /// The token as clients carry it.
    pub fn encode(&self) -> String {
        let remaining = self.remaining.map(|count| count.to_string()).unwrap_or_default();
        BASE64.encode(format!("v1\n{}\n{remaining}\n{}", self.revision, self.start))
    }

    /// Reads a token that [`Token::encode`] made.
    pub fn parse(text: &str) -> Option<Token> {
        let bytes = BASE64.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.splitn(4, '\n');
        if parts.next() != Some("v1") {
            return None;
        }
        let revision = parts.next()?.parse().ok()?;
        let remaining = match parts.next()? {
            "" => None,
            count => Some(count.parse().ok()?),
        };
        let start = parts.next()?;
        let safe = !start.starts_with('/') && !start.split('/').any(|part| part == "..");
        safe.then(|| Token { revision, start: start.to_owned(), remaining })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip_and_garbage_does_not_parse() {
        for remaining in [None, Some(3)] {
            let token = Token { revision: 17, start: "default/web-1".into(), remaining };
            assert_eq!(Token::parse(&token.encode()), Some(token));
        }
        assert_eq!(Token::parse("nonsense!"), None);
        assert_eq!(Token::parse(&BASE64.encode("v1\n3\n\n/secrets/x")), None);
    }
}
