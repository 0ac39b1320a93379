//! From JSON documents to protobuf.

use base64::Engine as _;
use serde_json::Value;

use super::wire::{put_bytes, put_double, put_number};
use crate::{
    schema::{Field, Kind, Schemas, Type, TypeId, Wire},
    time,
};

/// The message of an object. What is not in the table, or of a wrong type, has no place in it.
pub(super) fn message(schemas: &Schemas, id: TypeId, object: &Value) -> Vec<u8> {
    let declared = schemas.get(id);
    let mut out = Vec::new();
    Encoder { schemas }.fields(declared, &declared.wire, object, &mut out);
    out
}

struct Encoder<'s> {
    schemas: &'s Schemas,
}

// === impl Encoder ===

impl Encoder<'_> {
    fn fields(&self, declared: &Type, wire: &[(u32, Wire)], object: &Value, out: &mut Vec<u8>) {
        for (number, entry) in wire {
            match entry {
                Wire::Inline(inner) => {
                    let mut below = Vec::new();
                    self.fields(declared, inner, object, &mut below);
                    put_bytes(out, *number, &below);
                }
                Wire::Field(index) => {
                    if let Some(field) = declared.fields.get(*index)
                        && let Some(value) = object.get(&*field.name)
                    {
                        self.field(*number, field, value, out);
                    }
                }
            }
        }
    }

    fn field(&self, number: u32, field: &Field, value: &Value, out: &mut Vec<u8>) {
        match (&field.kind, value) {
            (Kind::List(inner), Value::Array(items)) => {
                items.iter().for_each(|item| self.value(number, inner, item, out));
            }
            (Kind::Map(inner), Value::Object(map)) => {
                for (key, value) in map {
                    let mut entry = Vec::new();
                    put_bytes(&mut entry, 1, key.as_bytes());
                    self.value(2, inner, value, &mut entry);
                    put_bytes(out, number, &entry);
                }
            }
            (kind, value) => self.value(number, kind, value, out),
        }
    }

    fn value(&self, number: u32, kind: &Kind, value: &Value, out: &mut Vec<u8>) {
        match (kind, value) {
            (Kind::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
            (Kind::Int32 | Kind::Int64, Value::Number(n)) => {
                put_number(out, number, n.as_i64().unwrap_or_default() as u64);
            }
            (Kind::Bool, Value::Bool(flag)) => put_number(out, number, u64::from(*flag)),
            (Kind::Double, Value::Number(n)) => put_double(out, number, n.as_f64().unwrap_or_default()),
            (Kind::Bytes, Value::String(text)) => {
                if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text) {
                    put_bytes(out, number, &bytes);
                }
            }
            (Kind::IntOrString, value) => put_bytes(out, number, &int_or_string(value)),
            (Kind::Quantity, Value::String(text)) => {
                let mut inner = Vec::new();
                put_bytes(&mut inner, 1, text.as_bytes());
                put_bytes(out, number, &inner);
            }
            (Kind::Time | Kind::MicroTime, Value::String(text)) => {
                if let Ok(at) = time::parse(text) {
                    let mut inner = Vec::new();
                    put_number(&mut inner, 1, at.as_second() as u64);
                    put_number(&mut inner, 2, at.subsec_nanosecond() as u64);
                    put_bytes(out, number, &inner);
                }
            }
            (Kind::Fields | Kind::Raw | Kind::Open, value) => {
                let mut inner = Vec::new();
                put_bytes(&mut inner, 1, value.to_string().as_bytes());
                put_bytes(out, number, &inner);
            }
            (Kind::Object(id), Value::Object(_)) => {
                put_bytes(out, number, &message(self.schemas, *id, value));
            }
            (Kind::Wrapped(inner), Value::Array(items)) => {
                let mut below = Vec::new();
                items.iter().for_each(|item| self.value(1, inner, item, &mut below));
                put_bytes(out, number, &below);
            }
            _ => {}
        }
    }
}

fn int_or_string(value: &Value) -> Vec<u8> {
    let mut inner = Vec::new();
    match value {
        Value::String(text) => {
            put_number(&mut inner, 1, 1);
            put_number(&mut inner, 2, 0);
            put_bytes(&mut inner, 3, text.as_bytes());
        }
        value => {
            put_number(&mut inner, 1, 0);
            put_number(&mut inner, 2, value.as_i64().unwrap_or_default() as u64);
            put_bytes(&mut inner, 3, b"");
        }
    }
    inner
}
