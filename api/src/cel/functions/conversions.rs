//! From a value of one type to the same of another.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use super::super::types::Type;
use super::super::value::{Answer, Fault, Value};
use super::{Cost, ONE, Row, text};

const LETTERS: Cost = Cost::Letters { of: 0, times: 1.0 };

pub(super) const ROWS: &[Row] = &[
    ("dyn(T) dyn", ONE, |a| Ok(a[0].clone())),
    ("type(T) type", ONE, |a| {
        Ok(Value::Type(match &a[0] {
            Value::Type(_) => Type::Type,
            value => value.kind(),
        }))
    }),
    ("bool(bool) bool", ONE, |a| Ok(a[0].clone())),
    ("bool(string) bool", ONE, |a| match text(&a[0])? {
        "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
        other => Fault::other(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")),
    }),
    ("int(int) int", ONE, int),
    ("int(uint) int", ONE, int),
    ("int(double) int", ONE, int),
    ("int(string) int", ONE, int),
    ("int(timestamp) int", ONE, int),
    ("int(duration) int", ONE, int),
    ("uint(uint) uint", ONE, uint),
    ("uint(int) uint", ONE, uint),
    ("uint(double) uint", ONE, uint),
    ("uint(string) uint", ONE, uint),
    ("double(double) double", ONE, double),
    ("double(int) double", ONE, double),
    ("double(uint) double", ONE, double),
    ("double(string) double", ONE, double),
    ("string(string) string", ONE, string),
    ("string(bool) string", ONE, string),
    ("string(int) string", ONE, string),
    ("string(uint) string", ONE, string),
    ("string(double) string", ONE, string),
    ("string(bytes) string", LETTERS, string),
    ("string(timestamp) string", ONE, string),
    ("string(duration) string", ONE, string),
    ("bytes(bytes) bytes", ONE, |a| Ok(a[0].clone())),
    ("bytes(string) bytes", LETTERS, |a| Ok(Value::bytes(text(&a[0])?.as_bytes().to_vec()))),
    ("timestamp(timestamp) timestamp", ONE, |a| Ok(a[0].clone())),
    ("timestamp(string) timestamp", ONE, |a| {
        let text = text(&a[0])?;
        let fault = || Fault::Other(format!("invalid timestamp: {text:?}"));
        timestamp(text).map(Value::Timestamp).ok_or_else(fault)
    }),
    ("timestamp(int) timestamp", ONE, |a| match a[0] {
        Value::Int(seconds) => {
            let time = Timestamp::from_second(seconds);
            time.map(Value::Timestamp).map_err(|_| Fault::Other("timestamp overflow".into()))
        }
        _ => Err(Fault::NoOverload),
    }),
    ("duration(duration) duration", ONE, |a| Ok(a[0].clone())),
    ("duration(string) duration", ONE, |a| {
        let text = text(&a[0])?;
        let fault = || Fault::Other(format!("time: invalid duration {text:?}"));
        duration(text).map(Value::Duration).ok_or_else(fault)
    }),
    ("duration(int) duration", ONE, |a| match a[0] {
        Value::Int(nanoseconds) => Ok(Value::Duration(SignedDuration::from_nanos(nanoseconds))),
        _ => Err(Fault::NoOverload),
    }),
];

fn int<'a>(a: &[Value<'a>]) -> Answer<'a> {
    let out_of_range = || Fault::Other("integer overflow".into());
    match &a[0] {
        Value::Int(number) => Ok(Value::Int(*number)),
        Value::Uint(number) => i64::try_from(*number).map(Value::Int).map_err(|_| out_of_range()),
        Value::Double(number) if number.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*number as i64)),
        Value::Double(_) => Err(out_of_range()),
        Value::String(text) => {
            let parsed = text.parse::<i64>();
            parsed.map(Value::Int).map_err(|_| not_a_number("ParseInt", text))
        }
        Value::Timestamp(time) => Ok(Value::Int(time.as_second())),
        Value::Duration(span) => i64::try_from(span.as_nanos()).map(Value::Int).map_err(|_| out_of_range()),
        _ => Err(Fault::NoOverload),
    }
}

fn uint<'a>(a: &[Value<'a>]) -> Answer<'a> {
    let out_of_range = || Fault::Other("unsigned integer overflow".into());
    match &a[0] {
        Value::Uint(number) => Ok(Value::Uint(*number)),
        Value::Int(number) => u64::try_from(*number).map(Value::Uint).map_err(|_| out_of_range()),
        Value::Double(number) if (0.0..18_446_744_073_709_551_615.0).contains(number) => {
            Ok(Value::Uint(*number as u64))
        }
        Value::Double(_) => Err(out_of_range()),
        Value::String(text) => {
            text.parse::<u64>().map(Value::Uint).map_err(|_| not_a_number("ParseUint", text))
        }
        _ => Err(Fault::NoOverload),
    }
}

fn double<'a>(a: &[Value<'a>]) -> Answer<'a> {
    match &a[0] {
        Value::Double(number) => Ok(Value::Double(*number)),
        Value::Int(number) => Ok(Value::Double(*number as f64)),
        Value::Uint(number) => Ok(Value::Double(*number as f64)),
        Value::String(text) => {
            text.parse::<f64>().map(Value::Double).map_err(|_| not_a_number("ParseFloat", text))
        }
        _ => Err(Fault::NoOverload),
    }
}

fn not_a_number(function: &str, text: &str) -> Fault {
    Fault::Other(format!("strconv.{function}: parsing {text:?}: invalid syntax"))
}

fn string<'a>(a: &[Value<'a>]) -> Answer<'a> {
    match &a[0] {
        Value::String(_) => Ok(a[0].clone()),
        Value::Uint(number) => Ok(Value::text(number.to_string())),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Fault::other("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Timestamp(time) => Ok(Value::text(time.to_string())),
        Value::Duration(span) => Ok(Value::text(duration_text(*span))),
        value @ (Value::Bool(_) | Value::Int(_) | Value::Double(_)) => Ok(Value::text(value.to_string())),
        _ => Err(Fault::NoOverload),
    }
}

/// A floating-point number with the fewest digits that tell it, large and small ones with an exponent, as Go writes it.
pub(in super::super) fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number}"),
    }
}

/// A span in seconds, as `1.5s`.
pub(in super::super) fn duration_text(span: SignedDuration) -> String {
    let nanoseconds = span.as_nanos();
    let mut text = String::new();
    if nanoseconds < 0 {
        text.push('-');
    }
    let nanoseconds = nanoseconds.unsigned_abs();
    // Writing to a text cannot fail.
    let _ = write!(text, "{}", nanoseconds / 1_000_000_000);
    let fraction = format!("{:09}", nanoseconds % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        let _ = write!(text, ".{fraction}");
    }
    text.push('s');
    text
}

/// A point in time, as RFC 3339 writes it.
pub(in super::super) fn timestamp(text: &str) -> Option<Timestamp> {
    // What has no `T` is some other form that the reader takes too.
    let is_rfc3339 = text.len() >= 20 && text.as_bytes()[10].eq_ignore_ascii_case(&b'T');
    is_rfc3339.then(|| text.parse().ok())?
}

/// A span of time, as Go writes it: `1h30m`, `-1.5s`, `100ms`.
pub(in super::super) fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    const UNITS: &[(&str, f64, i128)] = &[
        ("ns", 1.0, 1),
        ("us", 1e3, 1_000),
        ("µs", 1e3, 1_000),
        ("μs", 1e3, 1_000),
        ("ms", 1e6, 1_000_000),
        ("s", 1e9, 1_000_000_000),
        ("m", 6e10, 60_000_000_000),
        ("h", 3.6e12, 3_600_000_000_000),
    ];
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let unit = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (_, scale, nanoseconds) = UNITS.iter().find(|(name, ..)| *name == &after[..unit])?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*nanoseconds)?)?;
        if !fraction.is_empty() {
            total = total.checked_add((format!("0.{fraction}").parse::<f64>().ok()? * scale) as i128)?;
        }
        rest = &after[unit..];
    }
    let total = i64::try_from(if negative { -total } else { total }).ok()?;
    Some(SignedDuration::from_nanos(total))
}
