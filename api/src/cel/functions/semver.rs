//! Semantic versions (semver.org).

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::value::{Answer, Fault, Value};
use super::{Cost, ONE, Opaque, Row, opaque, text};

/// A version.
#[derive(Debug)]
pub struct Semver {
    pub(super) text: Box<str>,
    numbers: [u64; 3],
    /// What comes before the release, such as `alpha.1`.
    before: Vec<Box<str>>,
}

const LETTERS: Cost = Cost::Letters { of: 0, times: 1.0 };
const TWICE: Cost = Cost::Letters { of: 0, times: 2.0 };

pub(super) const ROWS: &[Row] = &[
    ("semver(string) Semver", LETTERS, |a| made(Semver::parse(text(&a[0])?))),
    ("semver(string, bool) Semver", TWICE, |a| made(parse_as(text(&a[0])?, &a[1])?)),
    ("isSemver(string) bool", LETTERS, |a| Ok(Value::Bool(Semver::parse(text(&a[0])?).is_ok()))),
    ("isSemver(string, bool) bool", TWICE, |a| Ok(Value::Bool(parse_as(text(&a[0])?, &a[1])?.is_ok()))),
    ("Semver.major() int", ONE, |a| Ok(Value::Int(version(&a[0])?.numbers[0] as i64))),
    ("Semver.minor() int", ONE, |a| Ok(Value::Int(version(&a[0])?.numbers[1] as i64))),
    ("Semver.patch() int", ONE, |a| Ok(Value::Int(version(&a[0])?.numbers[2] as i64))),
    ("Semver.isGreaterThan(Semver) bool", ONE, |a| Ok(Value::Bool(order(a)?.is_gt()))),
    ("Semver.isLessThan(Semver) bool", ONE, |a| Ok(Value::Bool(order(a)?.is_lt()))),
    ("Semver.compareTo(Semver) int", ONE, |a| Ok(Value::Int(order(a)? as i64))),
];

fn made<'a>(parsed: Result<Semver, String>) -> Answer<'a> {
    match parsed {
        Ok(version) => Ok(Value::Opaque(Opaque::Semver(Arc::new(version)))),
        Err(fault) => Fault::other(fault),
    }
}

fn version<'v>(value: &'v Value<'_>) -> Result<&'v Semver, Fault> {
    match opaque(value)? {
        Opaque::Semver(version) => Ok(version),
        _ => Err(Fault::NoOverload),
    }
}

fn order(a: &[Value<'_>]) -> Result<Ordering, Fault> {
    Ok(version(&a[0])?.order(version(&a[1])?))
}

/// Reads a version, as it is or brought into form first: without a `v`, without leading zeros, with all three numbers.
fn parse_as(text: &str, normalize: &Value<'_>) -> Result<Result<Semver, String>, Fault> {
    match normalize {
        Value::Bool(true) => Ok(normalized(text).and_then(|text| Semver::parse(&text))),
        Value::Bool(false) => Ok(Semver::parse(text)),
        _ => Err(Fault::NoOverload),
    }
}

fn normalized(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            let trimmed = part.trim_start_matches('0');
            match trimmed.starts_with(|first: char| first.is_ascii_digit()) {
                _ if part.len() < 2 => part.to_owned(),
                true => trimmed.to_owned(),
                false => format!("0{trimmed}"),
            }
        })
        .collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_owned());
    }
    parts.resize(3, "0".to_owned());
    Ok(parts.join("."))
}

// === impl Semver ===

impl Semver {
    fn parse(text: &str) -> Result<Semver, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let (rest, build) = match text.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (text, None),
        };
        let (core, before) = match rest.split_once('-') {
            Some((core, before)) => (core, Some(before)),
            None => (rest, None),
        };
        let parts: Vec<&str> = core.split('.').collect();
        let [major, minor, patch] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let numbers = [number(major, "major")?, number(minor, "minor")?, number(patch, "patch")?];
        let before: Vec<Box<str>> =
            before.into_iter().flat_map(|text| text.split('.')).map(Into::into).collect();
        let words =
            before.iter().map(|word| &**word).chain(build.into_iter().flat_map(|text| text.split('.')));
        for word in words {
            let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
            if word.is_empty() || !word.chars().all(is_word) {
                return Err(format!("Invalid character(s) found in prerelease {word:?}"));
            }
        }
        let is_number = |word: &str| word.bytes().all(|digit| digit.is_ascii_digit());
        if let Some(word) =
            before.iter().find(|word| is_number(word) && word.len() > 1 && word.starts_with('0'))
        {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {word:?}"));
        }
        Ok(Semver { text: text.into(), numbers, before })
    }

    /// Which version is before which. What was built does not count.
    pub(super) fn order(&self, other: &Semver) -> Ordering {
        let before = match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.before.iter().zip(&other.before);
                let first = pairs.map(|(a, b)| order_of_words(a, b)).find(|order| order.is_ne());
                first.unwrap_or_else(|| self.before.len().cmp(&other.before.len()))
            }
        };
        self.numbers.cmp(&other.numbers).then(before)
    }
}

fn number(text: &str, what: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {what} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{what} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("{what} number {text:?} is too large"))
}

/// Numbers are before words, and in their own order.
fn order_of_words(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}
