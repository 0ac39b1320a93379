//! The parts of points and of spans in time.

use jiff::Zoned;
use jiff::tz::{Offset, TimeZone};

use super::super::value::{Answer, Fault, Value};
use super::{ONE, Row, text};

/// A line for a part of a point in time, in UTC and in another zone.
macro_rules! part {
    ($utc:literal, $zone:literal, $part:expr) => {
        [
            ($utc, ONE, |a: &[Value<'_>]| Ok(Value::Int(($part)(&zoned(&a[0], None)?)))),
            ($zone, ONE, |a: &[Value<'_>]| Ok(Value::Int(($part)(&zoned(&a[0], Some(text(&a[1])?))?)))),
        ]
    };
}

const PARTS: [[Row; 2]; 10] = [
    part!("timestamp.getFullYear() int", "timestamp.getFullYear(string) int", |t: &Zoned| i64::from(
        t.year()
    )),
    part!("timestamp.getMonth() int", "timestamp.getMonth(string) int", |t: &Zoned| i64::from(t.month()) - 1),
    part!("timestamp.getDate() int", "timestamp.getDate(string) int", |t: &Zoned| i64::from(t.day())),
    part!("timestamp.getDayOfMonth() int", "timestamp.getDayOfMonth(string) int", |t: &Zoned| {
        i64::from(t.day()) - 1
    }),
    part!("timestamp.getDayOfWeek() int", "timestamp.getDayOfWeek(string) int", |t: &Zoned| {
        i64::from(t.weekday().to_sunday_zero_offset())
    }),
    part!("timestamp.getDayOfYear() int", "timestamp.getDayOfYear(string) int", |t: &Zoned| {
        i64::from(t.day_of_year()) - 1
    }),
    part!("timestamp.getHours() int", "timestamp.getHours(string) int", |t: &Zoned| i64::from(t.hour())),
    part!("timestamp.getMinutes() int", "timestamp.getMinutes(string) int", |t: &Zoned| i64::from(
        t.minute()
    )),
    part!("timestamp.getSeconds() int", "timestamp.getSeconds(string) int", |t: &Zoned| i64::from(
        t.second()
    )),
    part!("timestamp.getMilliseconds() int", "timestamp.getMilliseconds(string) int", |t: &Zoned| {
        i64::from(t.millisecond())
    }),
];

const SPANS: [Row; 4] = [
    ("duration.getHours() int", ONE, |a| span(a, 3_600_000_000_000)),
    ("duration.getMinutes() int", ONE, |a| span(a, 60_000_000_000)),
    ("duration.getSeconds() int", ONE, |a| span(a, 1_000_000_000)),
    ("duration.getMilliseconds() int", ONE, |a| match a[0] {
        Value::Duration(span) => Ok(Value::Int(i64::from(span.subsec_millis()))),
        _ => Err(Fault::NoOverload),
    }),
];

pub(super) const ROWS: &[Row] = &{
    let mut rows = [SPANS[0]; 24];
    let mut at = 0;
    while at < 10 {
        rows[2 * at] = PARTS[at][0];
        rows[2 * at + 1] = PARTS[at][1];
        at += 1;
    }
    let mut at = 0;
    while at < 4 {
        rows[20 + at] = SPANS[at];
        at += 1;
    }
    rows
};

fn span<'a>(a: &[Value<'a>], unit: i128) -> Answer<'a> {
    match a[0] {
        Value::Duration(span) => Ok(Value::Int((span.as_nanos() / unit) as i64)),
        _ => Err(Fault::NoOverload),
    }
}

/// A point in time in a zone: `UTC`, or an offset such as `+02:00`. Names of zones stand for tables that are on no server.
fn zoned(time: &Value<'_>, zone: Option<&str>) -> Result<Zoned, Fault> {
    let Value::Timestamp(time) = time else { return Err(Fault::NoOverload) };
    let zone = match zone {
        None | Some("" | "UTC") => TimeZone::UTC,
        Some(name) => offset(name).ok_or_else(|| Fault::Other(format!("unknown time zone {name}")))?,
    };
    Ok(time.to_zoned(zone))
}

fn offset(text: &str) -> Option<TimeZone> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = sign * (hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60);
    Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
}
