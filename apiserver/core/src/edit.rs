//! Changes single members in the bytes of a JSON object: what no change names stays byte for byte.

use std::ops::Range;

use bytes::Bytes;

use crate::scan;

/// Changes to the bytes of one object. They must not touch one another.
pub(crate) struct Edits<'a> {
    bytes: &'a [u8],
    changes: Vec<(Range<usize>, Vec<u8>)>,
}

// === impl Edits ===

impl<'a> Edits<'a> {
    pub fn new(bytes: &'a [u8]) -> Edits<'a> {
        Edits { bytes, changes: Vec::new() }
    }

    /// Sets the member at `path` to a value given as JSON: in its place if it is there, else where its name belongs among the
    /// sorted names. `None` when the object that is to have it is not there.
    pub fn set(&mut self, path: &[&str], json: &[u8]) -> Option<()> {
        let (name, parents) = path.split_last()?;
        let object = scan::locate(self.bytes, parents)?;
        let members = scan::members(self.bytes.get(object.clone())?);
        let (mut before, mut is_empty) = (None, true);
        for (found, range) in members {
            let range = object.start + range.start..object.start + range.end;
            if found == *name {
                self.changes.push((range, json.to_vec()));
                return Some(());
            }
            is_empty = false;
            if *found < **name {
                before = Some(range.end);
            }
        }
        if self.bytes.get(object.start) != Some(&b'{') {
            return None;
        }
        let at = before.unwrap_or(object.start + 1);
        let (lead, trail): (&[u8], &[u8]) = match before {
            Some(_) => (b",\"", b""),
            None if is_empty => (b"\"", b""),
            None => (b"\"", b","),
        };
        self.changes.push((at..at, [lead, name.as_bytes(), b"\":", json, trail].concat()));
        Some(())
    }

    /// The changed bytes.
    pub fn finish(mut self) -> Bytes {
        self.changes.sort_by_key(|(range, _)| range.start);
        let added: usize = self.changes.iter().map(|(_, json)| json.len()).sum();
        let mut out = Vec::with_capacity(self.bytes.len() + added);
        let mut at = 0;
        for (range, json) in self.changes {
            out.extend_from_slice(&self.bytes[at..range.start]);
            out.extend_from_slice(&json);
            at = range.end;
        }
        out.extend_from_slice(&self.bytes[at..]);
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(object: &str, path: &[&str], expected: Option<&str>) {
        let mut edits = Edits::new(object.as_bytes());
        let done = edits.set(path, b"7").map(|()| edits.finish());
        assert_eq!(done.as_deref(), expected.map(str::as_bytes), "{object} {path:?}");
    }

    #[test]
    fn members_are_set_in_their_places() {
        check(r#"{"a":{"c":"}"},"b":1}"#, &["b"], Some(r#"{"a":{"c":"}"},"b":7}"#));
        check(r#"{"a":{"c":"}"},"b":1}"#, &["a", "c"], Some(r#"{"a":{"c":7},"b":1}"#));
        check(r#"{"a":{"c":"}"},"b":1}"#, &["a", "b"], Some(r#"{"a":{"b":7,"c":"}"},"b":1}"#));
        check(r#"{"a":{"c":"}"},"b":1}"#, &["a", "d"], Some(r#"{"a":{"c":"}","d":7},"b":1}"#));
        check(r#"{"a":{},"b":1}"#, &["a", "d"], Some(r#"{"a":{"d":7},"b":1}"#));
    }

    #[test]
    fn nothing_is_set_below_what_is_not_there() {
        check(r#"{"a":{}}"#, &["b", "c"], None);
        check(r#"{"a":[1]}"#, &["a", "c"], None);
    }
}
