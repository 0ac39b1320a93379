//! From protobuf to JSON documents.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::{
    Error, MAGIC,
    wire::{Item, Reader},
};
use crate::{
    schema::{Field, Kind, Schemas, Type, TypeId, Wire},
    time,
};

/// Messages are not nested deeper than this.
const MAX_DEPTH: usize = 64;

/// What is around an object's own message.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub(super) api_version: &'a str,
    pub(super) kind: &'a str,
    pub(super) raw: &'a [u8],
    pub(super) content_encoding: &'a str,
    pub(super) content_type: &'a str,
}

/// Reads the envelope.
pub(super) fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    let (mut envelope, mut reader) = (Envelope::default(), Reader::new(bytes));
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => {
                let mut names = Reader::new(item.bytes("typeMeta")?);
                while let Some((number, item)) = names.next()? {
                    match number {
                        1 => envelope.api_version = item.text("apiVersion")?,
                        2 => envelope.kind = item.text("kind")?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = item.bytes("raw")?,
            3 => envelope.content_encoding = item.text("contentEncoding")?,
            4 => envelope.content_type = item.text("contentType")?,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Reads the message of a type.
pub(super) fn message(
    schemas: &Schemas,
    id: TypeId,
    bytes: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, Error> {
    let mut map = Map::new();
    let decoder = Decoder { schemas };
    decoder.object(id, bytes, &mut map, depth)?;
    Ok(map)
}

struct Decoder<'s> {
    schemas: &'s Schemas,
}

// === impl Decoder ===

impl Decoder<'_> {
    fn object(
        &self,
        id: TypeId,
        bytes: &[u8],
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        let declared = self.schemas.get(id);
        self.fields(declared, &declared.wire, bytes, map, depth)?;
        map.retain(|name, value| declared.field(name).is_none_or(|field| !field.omits(value)));
        Ok(())
    }

    fn fields(
        &self,
        declared: &Type,
        wire: &[(u32, Wire)],
        bytes: &[u8],
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        let mut reader = Reader::new(bytes);
        while let Some((number, item)) = reader.next()? {
            let Ok(at) = wire.binary_search_by_key(&number, |(number, _)| *number) else { continue };
            match &wire[at].1 {
                Wire::Inline(inner) => {
                    self.fields(declared, inner, item.bytes(&declared.name)?, map, depth + 1)?;
                }
                Wire::Field(index) => {
                    if let Some(field) = declared.fields.get(*index) {
                        self.field(field, item, map, depth)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        item: Item<'_>,
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        let slot = || field.name.clone().into_owned();
        match &field.kind {
            Kind::List(inner) => {
                let list = map.entry(slot()).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = list {
                    self.push(inner, field, item, items, depth)?;
                }
            }
            Kind::Map(inner) => {
                let entries = map.entry(slot()).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = entries {
                    let (key, value) = self.entry(inner, field, item, depth)?;
                    entries.insert(key, value);
                }
            }
            Kind::Object(id) => {
                let below = map.entry(slot()).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(below) = below {
                    self.object(*id, item.bytes(&field.name)?, below, depth + 1)?;
                }
            }
            kind => {
                let value = self.value(kind, field, item, depth)?;
                map.insert(slot(), value);
            }
        }
        Ok(())
    }

    /// Adds an item, or the items of a packed list.
    fn push(
        &self,
        kind: &Kind,
        field: &Field,
        item: Item<'_>,
        items: &mut Vec<Value>,
        depth: usize,
    ) -> Result<(), Error> {
        match (kind, item) {
            (Kind::Int32 | Kind::Int64 | Kind::Bool, Item::Bytes(packed)) => {
                let mut reader = Reader::new(packed);
                while let Some(number) = reader.next_packed()? {
                    items.push(self.value(kind, field, Item::Varint(number), depth)?);
                }
            }
            _ => items.push(self.value(kind, field, item, depth)?),
        }
        Ok(())
    }

    fn entry(
        &self,
        kind: &Kind,
        field: &Field,
        item: Item<'_>,
        depth: usize,
    ) -> Result<(String, Value), Error> {
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(item.bytes(&field.name)?);
        while let Some((number, item)) = reader.next()? {
            match number {
                1 => key = item.text(&field.name)?.to_owned(),
                2 => value = Some(self.value(kind, field, item, depth)?),
                _ => {}
            }
        }
        let value = value.unwrap_or_else(|| match kind {
            Kind::Int32 | Kind::Int64 => Value::from(0),
            Kind::Bool => Value::Bool(false),
            Kind::Object(_) => Value::Object(Map::new()),
            Kind::List(_) | Kind::Wrapped(_) => Value::Array(Vec::new()),
            Kind::Quantity => Value::from("0"),
            _ => Value::from(""),
        });
        Ok((key, value))
    }

    fn value(&self, kind: &Kind, field: &Field, item: Item<'_>, depth: usize) -> Result<Value, Error> {
        let name = &*field.name;
        Ok(match kind {
            Kind::String => item.text(name)?.into(),
            Kind::Int32 => Value::from(item.varint(name)? as i32),
            Kind::Int64 => Value::from(item.varint(name)? as i64),
            Kind::Bool => Value::Bool(item.varint(name)? != 0),
            Kind::Double => match item {
                Item::Fixed64(bits) => {
                    Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
                }
                other => return Err(other.mismatch(name)),
            },
            Kind::Bytes => base64::engine::general_purpose::STANDARD.encode(item.bytes(name)?).into(),
            Kind::IntOrString => int_or_string(name, item.bytes(name)?)?,
            Kind::Quantity => match only(item.bytes(name)?)? {
                Some(text) => text.text(name)?.into(),
                None => Value::from("0"),
            },
            Kind::Time | Kind::MicroTime => timestamp(kind, name, item.bytes(name)?)?,
            Kind::Fields | Kind::Raw | Kind::Open => match only(item.bytes(name)?)? {
                Some(raw) => self.raw(name, raw.bytes(name)?, depth)?,
                None => Value::Null,
            },
            Kind::Object(id) => {
                let mut map = Map::new();
                self.object(*id, item.bytes(name)?, &mut map, depth + 1)?;
                Value::Object(map)
            }
            Kind::Wrapped(inner) | Kind::List(inner) => {
                let (mut items, mut reader) = (Vec::new(), Reader::new(item.bytes(name)?));
                while let Some((number, item)) = reader.next()? {
                    if number == 1 {
                        self.push(inner, field, item, &mut items, depth + 1)?;
                    }
                }
                Value::Array(items)
            }
            Kind::Map(_) => return Err(item.mismatch(name)),
        })
    }

    /// An object in an object: JSON, or a document of its own.
    fn raw(&self, name: &str, bytes: &[u8], depth: usize) -> Result<Value, Error> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        if bytes.starts_with(MAGIC) {
            if depth > MAX_DEPTH {
                return Err(Error::Depth);
            }
            return super::decode_document(self.schemas, bytes, depth + 1).map(|document| document.value);
        }
        serde_json::from_slice(bytes).map_err(|_| Error::Json(name.to_owned()))
    }
}

/// The first field of a message that wraps one value.
fn only(bytes: &[u8]) -> Result<Option<Item<'_>>, Error> {
    let (mut found, mut reader) = (None, Reader::new(bytes));
    while let Some((number, item)) = reader.next()? {
        if number == 1 {
            found = Some(item);
        }
    }
    Ok(found)
}

fn int_or_string(name: &str, bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((field, item)) = reader.next()? {
        match field {
            1 => is_text = item.varint(name)? == 1,
            2 => number = item.varint(name)? as i32,
            3 => text = item.text(name)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// No time is written as no bytes at all: the beginning of 1970 is a time.
fn timestamp(kind: &Kind, name: &str, bytes: &[u8]) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut reader = Reader::new(bytes);
    while let Some((field, item)) = reader.next()? {
        match field {
            1 => seconds = item.varint(name)? as i64,
            2 => nanos = item.varint(name)? as i32,
            _ => {}
        }
    }
    let out_of_range = |_| Error::Time(name.to_owned());
    Ok(match kind {
        Kind::MicroTime => time::format_micro(Timestamp::new(seconds, nanos).map_err(out_of_range)?).into(),
        _ => time::format(Timestamp::new(seconds, 0).map_err(out_of_range)?).into(),
    })
}
