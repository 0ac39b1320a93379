//! Values that may be missing.

use std::sync::Arc;

use super::super::value::{Answer, Fault, Value};
use super::{ONE, Row};

pub(super) const ROWS: &[Row] = &[
    ("optional.of(T) optional<T>", ONE, |a| Ok(Value::some(a[0].clone()))),
    ("optional.none() optional<T>", ONE, |_| Ok(Value::Optional(None))),
    ("optional.ofNonZeroValue(T) optional<T>", ONE, |a| {
        Ok(Value::Optional((!is_zero(&a[0])).then(|| Arc::new(a[0].clone()))))
    }),
    ("optional<T>.hasValue() bool", ONE, |a| Ok(Value::Bool(optional(&a[0])?.is_some()))),
    ("optional<T>.value() T", ONE, |a| match optional(&a[0])? {
        Some(value) => Ok((**value).clone()),
        None => Fault::other("optional.none() dereference"),
    }),
    ("optional<T>.or(optional<T>) optional<T>", ONE, |a| {
        Ok(if optional(&a[0])?.is_some() { a[0].clone() } else { a[1].clone() })
    }),
    ("optional<T>.orValue(T) T", ONE, |a| {
        Ok(optional(&a[0])?.as_ref().map_or_else(|| a[1].clone(), |value| (**value).clone()))
    }),
];

fn optional<'v, 'a>(value: &'v Value<'a>) -> Result<&'v Option<Arc<Value<'a>>>, Fault> {
    match value {
        Value::Optional(value) => Ok(value),
        _ => Err(Fault::NoOverload),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Int(number) => *number == 0,
        Value::Uint(number) => *number == 0,
        Value::Double(number) => *number == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.len() == 0,
        Value::Map(map) => map.len() == 0,
        Value::Duration(span) => span.is_zero(),
        Value::Optional(value) => value.is_none(),
        Value::Timestamp(_) | Value::Type(_) | Value::Opaque(_) => false,
    }
}

/// What an answer is as an optional one: a missing key or field is nothing.
pub(in super::super) fn of_answer<'a>(answer: Answer<'a>) -> Answer<'a> {
    match answer {
        Ok(value) => Ok(Value::some(value)),
        Err(Fault::NoKey(_)) => Ok(Value::Optional(None)),
        Err(fault) => Err(fault),
    }
}
