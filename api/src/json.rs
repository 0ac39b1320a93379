//! Parses JSON into a document and notices fields that are written twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A document and the paths of the fields that it has twice; the last value counts, as in Go.
#[derive(Debug)]
pub struct Parsed {
    /// The document.
    pub value: Value,
    /// Paths of fields that occur more than once.
    pub duplicates: Vec<String>,
}

/// Parses one JSON document. Nesting is bounded at 128 levels.
pub fn parse(bytes: &[u8]) -> Result<Parsed, serde_json::Error> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(&mut duplicates).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Parsed { value, duplicates })
}

/// Builds a value, adding to the duplicates found.
struct Seed<'a>(&'a mut Vec<String>);

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

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let before = self.0.len();
            match access.next_element_seed(Seed(&mut *self.0))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
            prefix(self.0, before, &format_args!("[{}]", items.len() - 1));
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let before = self.0.len();
            let value = access.next_value_seed(Seed(&mut *self.0))?;
            prefix(self.0, before, &name);
            if map.contains_key(&name) {
                self.0.push(name.clone());
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

fn prefix(paths: &mut [String], from: usize, segment: &dyn fmt::Display) {
    for path in &mut paths[from..] {
        let dot = if path.starts_with('[') { "" } else { "." };
        *path = format!("{segment}{dot}{path}");
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
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
