//! Finds single fields in the bytes of a JSON object without building the document.
//!
//! The bytes are stored objects, which are well-formed; on anything else the scanner finds nothing.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// The byte range of the value at `path` (quotes included, for a string).
pub fn locate(bytes: &[u8], path: &[&str]) -> Option<Range<usize>> {
    let mut at = 0;
    for name in path {
        at = Members::of(bytes, at)?.find(|(key, _)| key == name)?.1;
    }
    Some(at..skip(bytes, at)?)
}

/// The string at `path`.
pub fn text<'a>(bytes: &'a [u8], path: &[&str]) -> Option<Cow<'a, str>> {
    let range = locate(bytes, path)?;
    unquote(&bytes[range])
}

/// The value at `path` as selectors compare it: strings without quotes, other scalars as written.
pub fn scalar<'a>(bytes: &'a [u8], path: &[&str]) -> Option<Cow<'a, str>> {
    let range = locate(bytes, path)?;
    let raw = &bytes[range];
    match raw.first()? {
        b'"' => unquote(raw),
        b'{' | b'[' | b'n' => None,
        _ => std::str::from_utf8(raw).ok().map(Cow::Borrowed),
    }
}

/// The members of the object at `path` whose values are strings.
pub fn strings<'a>(bytes: &'a [u8], path: &[&str]) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let Some(range) = locate(bytes, path) else { return Vec::new() };
    let Some(members) = Members::of(bytes, range.start) else { return Vec::new() };
    members
        .filter_map(|(key, at)| {
            let end = skip(bytes, at)?;
            Some((key, unquote(&bytes[at..end])?))
        })
        .collect()
}

/// The members of the object that the bytes are: name, and range of the value.
pub fn members(bytes: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Range<usize>)> {
    let found = Members::of(bytes, 0).into_iter().flatten();
    found.filter_map(|(name, at)| Some((name, at..skip(bytes, at)?)))
}

/// The members of an object: key and offset of the value.
struct Members<'a> {
    bytes: &'a [u8],
    /// Where the next key (or the closing brace) is looked for; `None` when the end was reached.
    at: Option<usize>,
}

impl<'a> Members<'a> {
    fn of(bytes: &'a [u8], at: usize) -> Option<Members<'a>> {
        let at = space(bytes, at);
        (bytes.get(at) == Some(&b'{')).then_some(Members { bytes, at: Some(at + 1) })
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let mut at = space(self.bytes, self.at.take()?);
        if self.bytes.get(at) == Some(&b',') {
            at = space(self.bytes, at + 1);
        }
        if self.bytes.get(at) != Some(&b'"') {
            return None;
        }
        let end = skip_string(self.bytes, at)?;
        let key = unquote(&self.bytes[at..end])?;
        let colon = space(self.bytes, end);
        if self.bytes.get(colon) != Some(&b':') {
            return None;
        }
        let value = space(self.bytes, colon + 1);
        // The value is skipped when the next member is asked for, never twice.
        self.at = skip(self.bytes, value);
        Some((key, value))
    }
}

/// Strings of this length are looked at byte by byte.
const SHORT: usize = 24;

fn space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// The offset behind the value that begins at `at`.
fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => skip_string(bytes, at),
        b'{' | b'[' => skip_nested(bytes, at),
        _ => {
            let rest = &bytes[at..];
            let len =
                rest.iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'));
            Some(at + len.unwrap_or(rest.len()))
        }
    }
}

fn skip_string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    // Most strings are so short that looking at each byte is the quickest.
    for byte in bytes.get(at..)?.iter().take(SHORT) {
        match byte {
            b'"' => return Some(at + 1),
            b'\\' => break,
            _ => at += 1,
        }
    }
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

fn skip_nested(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = skip_string(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

fn unquote(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &[u8] =
        br#"{"a":[1,{"metadata":"]"}],"metadata":{"labels":{"app":"we\"b","x":"}"},"name":"p"},
        "spec": { "n" : 3 , "on": true, "nodeName":"node-1"}}"#;

    #[test]
    fn finds_fields_where_they_are() {
        assert_eq!(text(POD, &["metadata", "name"]).as_deref(), Some("p"));
        assert_eq!(scalar(POD, &["spec", "n"]).as_deref(), Some("3"));
        assert_eq!(scalar(POD, &["spec", "on"]).as_deref(), Some("true"));
        assert_eq!(text(POD, &["spec", "nodeName"]).as_deref(), Some("node-1"));
        assert_eq!(text(POD, &["status", "phase"]), None);
        let labels = strings(POD, &["metadata", "labels"]);
        assert_eq!(labels, [("app".into(), "we\"b".into()), ("x".into(), Cow::Borrowed("}"))]);
    }

    #[test]
    fn finds_nothing_in_garbage() {
        for garbage in [&b""[..], b"{", b"{\"metadata", b"[1]", b"{\"metadata\":{\"name\":\"x", b"]"] {
            assert_eq!(text(garbage, &["metadata", "name"]), None);
        }
    }
}
