//! What signs do, and what is asked of lists and maps.

use std::cmp::Ordering;

use jiff::SignedDuration;

use super::super::types::Type;
use super::super::value::{Answer, Fault, Key, Value};
use super::{Cost, ONE, Overload, Row, Run, list};

const OVERFLOW: &str = "integer overflow";
const UNSIGNED_OVERFLOW: &str = "unsigned integer overflow";

pub(super) const ROWS: &[Row] = &[
    ("_==_(T, T) bool", Cost::Shorter, |a| Ok(Value::Bool(a[0].equals(&a[1])))),
    ("_!=_(T, T) bool", Cost::Shorter, |a| Ok(Value::Bool(!a[0].equals(&a[1])))),
    ("!_(bool) bool", ONE, |a| match a[0] {
        Value::Bool(flag) => Ok(Value::Bool(!flag)),
        _ => Err(Fault::NoOverload),
    }),
    ("-_(int) int", ONE, negative),
    ("-_(double) double", ONE, negative),
    ("-_(duration) duration", ONE, negative),
    ("_+_(int, int) int", ONE, plus),
    ("_+_(uint, uint) uint", ONE, plus),
    ("_+_(double, double) double", ONE, plus),
    ("_+_(string, string) string", Cost::Both, plus),
    ("_+_(bytes, bytes) bytes", Cost::Both, plus),
    ("_+_(list<T>, list<T>) list<T>", ONE, plus),
    ("_+_(timestamp, duration) timestamp", ONE, plus),
    ("_+_(duration, timestamp) timestamp", ONE, plus),
    ("_+_(duration, duration) duration", ONE, plus),
    ("_-_(int, int) int", ONE, minus),
    ("_-_(uint, uint) uint", ONE, minus),
    ("_-_(double, double) double", ONE, minus),
    ("_-_(timestamp, timestamp) duration", ONE, minus),
    ("_-_(timestamp, duration) timestamp", ONE, minus),
    ("_-_(duration, duration) duration", ONE, minus),
    ("_*_(int, int) int", ONE, times),
    ("_*_(uint, uint) uint", ONE, times),
    ("_*_(double, double) double", ONE, times),
    ("_/_(int, int) int", ONE, divided),
    ("_/_(uint, uint) uint", ONE, divided),
    ("_/_(double, double) double", ONE, divided),
    ("_%_(int, int) int", ONE, rest),
    ("_%_(uint, uint) uint", ONE, rest),
    ("@in(T, list<T>) bool", Cost::Items { of: 1 }, |a| {
        Ok(Value::Bool(list(&a[1])?.iter().any(|item| item.equals(&a[0]))))
    }),
    ("@in(K, map<K, V>) bool", ONE, |a| match &a[1] {
        Value::Map(map) => Ok(Value::Bool(Key::of(&a[0]).is_some_and(|key| map.get(&key).is_some()))),
        _ => Err(Fault::NoOverload),
    }),
    ("_[_](list<T>, int) T", ONE, |a| item(&a[0], &a[1])),
    ("_[_](map<K, V>, K) V", ONE, |a| item(&a[0], &a[1])),
    ("_[_](optional<list<T>>, int) optional<T>", ONE, optional_item),
    ("_[_](optional<map<K, V>>, K) optional<V>", ONE, optional_item),
    ("_[?_](list<T>, int) optional<T>", ONE, optional_item),
    ("_[?_](map<K, V>, K) optional<V>", ONE, optional_item),
    ("_[?_](optional<list<T>>, int) optional<T>", ONE, optional_item),
    ("_[?_](optional<map<K, V>>, K) optional<V>", ONE, optional_item),
    ("size(string) int", ONE, size),
    ("size(bytes) int", ONE, size),
    ("size(list<T>) int", ONE, size),
    ("size(map<K, V>) int", ONE, size),
    ("string.size() int", ONE, size),
    ("bytes.size() int", ONE, size),
    ("list<T>.size() int", ONE, size),
    ("map<K, V>.size() int", ONE, size),
];

/// The overloads of `<`, `<=`, `>` and `>=`: of two of a type, and of numbers of two types.
pub(super) fn comparisons() -> Vec<Overload> {
    const NUMBERS: [Type; 3] = [Type::Int, Type::Uint, Type::Double];
    let same = [
        Type::Bool,
        Type::Int,
        Type::Uint,
        Type::Double,
        Type::String,
        Type::Bytes,
        Type::Timestamp,
        Type::Duration,
    ];
    let mut pairs: Vec<(Type, Type)> = same.into_iter().map(|kind| (kind.clone(), kind)).collect();
    for a in NUMBERS {
        pairs.extend(NUMBERS.into_iter().filter(|b| *b != a).map(|b| (a.clone(), b)));
    }
    let signs: [(&'static str, Run); 4] = [
        ("_<_", |a| ordered(a, Ordering::is_lt)),
        ("_<=_", |a| ordered(a, Ordering::is_le)),
        ("_>_", |a| ordered(a, Ordering::is_gt)),
        ("_>=_", |a| ordered(a, Ordering::is_ge)),
    ];
    let overload = |(name, run): (&'static str, Run), (a, b): &(Type, Type)| Overload {
        name,
        on_value: false,
        arguments: vec![a.clone(), b.clone()],
        result: Type::Bool,
        cost: if matches!(a, Type::String | Type::Bytes) { Cost::Shorter } else { ONE },
        run,
    };
    signs.into_iter().flat_map(|sign| pairs.iter().map(move |pair| overload(sign, pair))).collect()
}

fn ordered<'a>(a: &[Value<'a>], holds: fn(Ordering) -> bool) -> Answer<'a> {
    // Nothing is before or behind what is no number.
    Ok(Value::Bool(a[0].order(&a[1]).is_some_and(holds)))
}

fn checked<'a, T>(made: Option<T>, value: fn(T) -> Value<'a>, fault: &str) -> Answer<'a> {
    made.map_or_else(|| Fault::other(fault), |made| Ok(value(made)))
}

fn negative<'a>(a: &[Value<'a>]) -> Answer<'a> {
    match a[0] {
        Value::Int(number) => checked(number.checked_neg(), Value::Int, OVERFLOW),
        Value::Double(number) => Ok(Value::Double(-number)),
        Value::Duration(span) => checked(span.checked_neg(), Value::Duration, OVERFLOW),
        _ => Err(Fault::NoOverload),
    }
}

fn plus<'a>(a: &[Value<'a>]) -> Answer<'a> {
    match (&a[0], &a[1]) {
        (Value::Int(a), Value::Int(b)) => checked(a.checked_add(*b), Value::Int, OVERFLOW),
        (Value::Uint(a), Value::Uint(b)) => checked(a.checked_add(*b), Value::Uint, UNSIGNED_OVERFLOW),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::text([&**a, &**b].concat())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::bytes([&**a, &**b].concat())),
        (Value::List(a), Value::List(b)) => Ok(Value::List(a.joined(b))),
        (Value::Timestamp(time), Value::Duration(span)) | (Value::Duration(span), Value::Timestamp(time)) => {
            checked(time.checked_add(*span).ok(), Value::Timestamp, "timestamp overflow")
        }
        (Value::Duration(a), Value::Duration(b)) => checked(a.checked_add(*b), Value::Duration, OVERFLOW),
        _ => Err(Fault::NoOverload),
    }
}

fn minus<'a>(a: &[Value<'a>]) -> Answer<'a> {
    match (&a[0], &a[1]) {
        (Value::Int(a), Value::Int(b)) => checked(a.checked_sub(*b), Value::Int, OVERFLOW),
        (Value::Uint(a), Value::Uint(b)) => checked(a.checked_sub(*b), Value::Uint, UNSIGNED_OVERFLOW),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanoseconds = a.as_nanosecond() - b.as_nanosecond();
            let seconds = i64::try_from(nanoseconds / 1_000_000_000).unwrap_or_default();
            Ok(Value::Duration(SignedDuration::new(seconds, (nanoseconds % 1_000_000_000) as i32)))
        }
        (Value::Timestamp(time), Value::Duration(span)) => {
            checked(time.checked_sub(*span).ok(), Value::Timestamp, "timestamp overflow")
        }
        (Value::Duration(a), Value::Duration(b)) => checked(a.checked_sub(*b), Value::Duration, OVERFLOW),
        _ => Err(Fault::NoOverload),
    }
}

fn times<'a>(a: &[Value<'a>]) -> Answer<'a> {
    match (&a[0], &a[1]) {
        (Value::Int(a), Value::Int(b)) => checked(a.checked_mul(*b), Value::Int, OVERFLOW),
        (Value::Uint(a), Value::Uint(b)) => checked(a.checked_mul(*b), Value::Uint, UNSIGNED_OVERFLOW),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(Fault::NoOverload),
    }
}

fn divided<'a>(a: &[Value<'a>]) -> Answer<'a> {
    match (&a[0], &a[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Fault::other("division by zero"),
        (Value::Int(a), Value::Int(b)) => checked(a.checked_div(*b), Value::Int, OVERFLOW),
        (Value::Uint(a), Value::Uint(b)) => checked(a.checked_div(*b), Value::Uint, UNSIGNED_OVERFLOW),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(Fault::NoOverload),
    }
}

fn rest<'a>(a: &[Value<'a>]) -> Answer<'a> {
    match (&a[0], &a[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Fault::other("modulus by zero"),
        (Value::Int(a), Value::Int(b)) => checked(a.checked_rem(*b), Value::Int, OVERFLOW),
        (Value::Uint(a), Value::Uint(b)) => checked(a.checked_rem(*b), Value::Uint, UNSIGNED_OVERFLOW),
        _ => Err(Fault::NoOverload),
    }
}

fn size<'a>(a: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Int(a[0].size() as i64))
}

/// The item of a list, or the value of a key.
fn item<'a>(of: &Value<'a>, index: &Value<'a>) -> Answer<'a> {
    match of {
        Value::List(list) => {
            let Some(Key::Int(at)) = Key::of(index) else { return Err(Fault::NoOverload) };
            let item = usize::try_from(at).ok().and_then(|at| list.get(at));
            item.ok_or(Fault::OutOfBounds(at))
        }
        Value::Map(map) => {
            let key = Key::of(index).ok_or(Fault::NoOverload)?;
            map.get(&key).ok_or_else(|| match &key {
                Key::String(name) => Fault::NoKey(name.to_string()),
                other => Fault::NoKey(other.value().to_string()),
            })
        }
        _ => Err(Fault::NoOverload),
    }
}

/// The same, if it is there.
fn optional_item<'a>(a: &[Value<'a>]) -> Answer<'a> {
    let of = match &a[0] {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(of)) => of,
        of => of,
    };
    match item(of, &a[1]) {
        Ok(item) => Ok(Value::some(item)),
        Err(Fault::NoKey(_) | Fault::OutOfBounds(_)) => Ok(Value::Optional(None)),
        Err(fault) => Err(fault),
    }
}
