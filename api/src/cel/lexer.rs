//! Splits the text of an expression into words.

use std::iter::Peekable;
use std::str::CharIndices;
use std::sync::Arc;

use super::syntax::Issue;
use super::value::Value;

/// A word, and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub at: usize,
    pub kind: TokenKind,
}

#[derive(Clone, Debug)]
pub(super) enum TokenKind {
    /// A name, or a word of the language.
    Word(Arc<str>),
    Literal(Value<'static>),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Longer signs come before those that begin them.
const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "!", "-", "+", "*",
    "/", "%", "<", ">",
];

/// The words of a text; the last of them is its end.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Issue> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(letter) = text[at..].chars().next() {
        let rest = &text[at..];
        if letter.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (kind, length) = token(rest).map_err(|message| Issue { at, message })?;
        tokens.push(Token { at, kind });
        at += length;
    }
    tokens.push(Token { at: text.len(), kind: TokenKind::End });
    Ok(tokens)
}

fn token(rest: &str) -> Result<(TokenKind, usize), String> {
    let first = rest.as_bytes()[0];
    if let Some(found) = quoted(rest)? {
        return Ok(found);
    }
    if first.is_ascii_digit() || (first == b'.' && rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit)) {
        return number(rest);
    }
    if first.is_ascii_alphabetic() || first == b'_' {
        let end =
            rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let word = &rest[..end];
        let kind = match word {
            "true" => TokenKind::Literal(Value::Bool(true)),
            "false" => TokenKind::Literal(Value::Bool(false)),
            "null" => TokenKind::Literal(Value::Null),
            "in" => TokenKind::Sign("in"),
            _ => TokenKind::Word(word.into()),
        };
        return Ok((kind, end));
    }
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(sign) => Ok((TokenKind::Sign(sign), sign.len())),
        None => {
            let letter: String = rest.chars().take(1).collect();
            Err(format!("Syntax error: token recognition error at: '{letter}'"))
        }
    }
}

fn number(rest: &str) -> Result<(TokenKind, usize), String> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let count = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        let parsed = u64::from_str_radix(&hex[..count], 16);
        return whole(parsed.ok(), &hex[count..], 2 + count);
    }
    let mut end = digits(rest);
    let mut fraction = false;
    if rest[end..].starts_with('.') && rest.as_bytes().get(end + 1).is_some_and(u8::is_ascii_digit) {
        end += 1 + digits(&rest[end + 1..]);
        fraction = true;
    }
    if rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        let exponent = digits(&rest[end + 1 + sign..]);
        if exponent > 0 {
            end += 1 + sign + exponent;
            fraction = true;
        }
    }
    if fraction {
        let parsed = rest[..end].parse::<f64>().map_err(|_| "invalid double literal".to_owned())?;
        return Ok((TokenKind::Literal(Value::Double(parsed)), end));
    }
    whole(rest[..end].parse::<u64>().ok(), &rest[end..], end)
}

/// A whole number. The smallest `int` has no positive counterpart: that one is kept as it is, for the sign before it.
fn whole(parsed: Option<u64>, after: &str, length: usize) -> Result<(TokenKind, usize), String> {
    if after.starts_with(['u', 'U']) {
        let value = parsed.ok_or("invalid uint literal")?;
        return Ok((TokenKind::Literal(Value::Uint(value)), length + 1));
    }
    const LEAST: u64 = 1 << 63;
    match parsed {
        Some(LEAST) => Ok((TokenKind::Literal(Value::Int(i64::MIN)), length)),
        Some(value) if value < LEAST => Ok((TokenKind::Literal(Value::Int(value as i64)), length)),
        _ => Err("invalid int literal".to_owned()),
    }
}

/// A text or bytes, with what is before the quote: `r` for raw, `b` for bytes.
fn quoted(rest: &str) -> Result<Option<(TokenKind, usize)>, String> {
    let prefix = rest.bytes().take_while(|letter| b"rRbB".contains(letter)).count();
    let (words, body) = rest.split_at(prefix.min(2));
    let quote = match body.as_bytes().first() {
        Some(quote @ (b'"' | b'\'')) => *quote as char,
        _ => return Ok(None),
    };
    let triple: String = [quote; 3].iter().collect();
    let delimiter = if body.starts_with(&triple) { triple } else { quote.to_string() };
    let raw = words.contains(['r', 'R']);
    let bytes = words.contains(['b', 'B']);
    let inner = &body[delimiter.len()..];
    let length = inner_length(inner, &delimiter, raw).ok_or_else(|| {
        format!("Syntax error: token recognition error at: '{}'", rest.lines().next().unwrap_or_default())
    })?;
    let content = inner[..length].replace("\r\n", "\n");
    let total = words.len() + 2 * delimiter.len() + length;
    let literal = match (raw, bytes) {
        (true, true) => Value::bytes(content.into_bytes()),
        (true, false) => Value::text(content),
        (false, true) => Value::bytes(unescaped(&content, true)?),
        (false, false) => {
            let text =
                String::from_utf8(unescaped(&content, false)?).map_err(|_| "invalid unicode".to_owned())?;
            Value::text(text)
        }
    };
    Ok(Some((TokenKind::Literal(literal), total)))
}

/// How much stands before the closing quotes.
fn inner_length(inner: &str, delimiter: &str, raw: bool) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = &inner[at..];
        if rest.starts_with(delimiter) {
            return Some(at);
        }
        let letter = rest.chars().next()?;
        if letter == '\n' && delimiter.len() == 1 {
            return None;
        }
        at += letter.len_utf8();
        if letter == '\\' && !raw {
            at += inner[at..].chars().next()?.len_utf8();
        }
    }
}

fn unescaped(text: &str, bytes: bool) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut letters = text.char_indices().peekable();
    let mut utf8 = [0; 4];
    while let Some((_, letter)) = letters.next() {
        if letter != '\\' {
            out.extend(letter.encode_utf8(&mut utf8).bytes());
            continue;
        }
        let fault = || "Syntax error: unable to unescape string".to_owned();
        let (_, escape) = letters.next().ok_or_else(fault)?;
        let simple = match escape {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => Some(escape as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            continue;
        }
        let code = match escape {
            'x' | 'X' => digits(&mut letters, 2, 16, 0),
            'u' if !bytes => digits(&mut letters, 4, 16, 0),
            'U' if !bytes => digits(&mut letters, 8, 16, 0),
            '0'..='3' => digits(&mut letters, 2, 8, escape.to_digit(8).unwrap_or_default()),
            _ => None,
        };
        let code = code.ok_or_else(fault)?;
        if bytes {
            out.push(code as u8);
        } else {
            let letter = char::from_u32(code).ok_or_else(fault)?;
            out.extend(letter.encode_utf8(&mut utf8).bytes());
        }
    }
    Ok(out)
}

fn digits(letters: &mut Peekable<CharIndices<'_>>, count: usize, radix: u32, first: u32) -> Option<u32> {
    (0..count).try_fold(first, |code, _| {
        let digit = letters.next()?.1.to_digit(radix)?;
        code.checked_mul(radix)?.checked_add(digit)
    })
}
