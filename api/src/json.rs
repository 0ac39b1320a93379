//! Parses JSON into a document and notices fields that are written twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

pub(crate) mod found;

/// Documents are not nested deeper than this. Well below what a reader of the stored text takes (128): fields that the
/// server adds, as who owns what, repeat the nesting of the document some levels further down.
pub const MAX_DEPTH: usize = 100;

/// A document and the paths of the fields that it has twice; the last value counts, as in Go.
#[derive(Debug)]
pub struct Parsed {
    /// The document.
    pub value: Value,
    /// Paths of fields that occur more than once; the first hundred.
    pub duplicates: Vec<String>,
}

/// Parses one JSON document, nested at most [`MAX_DEPTH`] levels.
pub fn parse(bytes: &[u8]) -> Result<Parsed, serde_json::Error> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { duplicates: &mut duplicates, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Parsed { value, duplicates })
}

/// How many lists and objects are around the innermost value.
pub fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => return 0,
    };
    below.unwrap_or(0) + 1
}

/// Builds a value, adding to the duplicates found.
struct Seed<'a> {
    duplicates: &'a mut Vec<String>,
    /// How many lists and objects are around it.
    depth: usize,
}

// === impl Seed ===

impl Seed<'_> {
    /// The seed of what is in a list or an object.
    fn below<E: serde::de::Error>(&mut self) -> Result<Seed<'_>, E> {
        match self.depth < MAX_DEPTH {
            true => Ok(Seed { duplicates: self.duplicates, depth: self.depth + 1 }),
            false => Err(E::custom("exceeded max depth")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let before = self.duplicates.len();
            match access.next_element_seed(self.below()?)? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
            found::put_before(&mut self.duplicates[before..], &format_args!("[{}]", items.len() - 1));
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let before = self.duplicates.len();
            let value = access.next_value_seed(self.below()?)?;
            found::put_before(&mut self.duplicates[before..], &name);
            if map.contains_key(&name) {
                found::note(self.duplicates, &name);
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// Parses text that must be one JSON object.
pub fn parse_object(bytes: &[u8]) -> Result<Parsed, serde_json::Error> {
    let parsed = parse(bytes)?;
    match parsed.value {
        Value::Object(_) => Ok(parsed),
        _ => Err(serde_json::Error::custom("expected a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_fields_written_twice() {
        let text = br#"{"spec":{"x":1,"list":[{"a":1,"a":2}],"x":2},"kind":"A"}"#;
        let parsed = parse(text).expect("valid");
        assert_eq!(parsed.duplicates, ["spec.list[0].a", "spec.x"]);
        assert_eq!(parsed.value["spec"]["x"], 2);
    }

    #[test]
    fn bounds_nesting() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let deepest = parse(nested(MAX_DEPTH).as_bytes()).expect("valid");
        assert_eq!(depth(&deepest.value), MAX_DEPTH);
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn doubled_fields_below_a_large_key_cost_little() {
        let text = format!(r#"{{"{}":{{{}"a":1}}}}"#, "k".repeat(1 << 20), r#""a":1,"#.repeat(100_000));
        let parsed = parse(text.as_bytes()).expect("valid");
        assert_eq!(parsed.duplicates.len(), found::MAX_FOUND);
        assert!(parsed.duplicates.iter().all(|path| path.len() < 2048));
    }
}
