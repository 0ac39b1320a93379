//! Functions of texts: CEL's own, its extension for strings (version 2), and Kubernetes' for regular expressions.

use std::fmt::Write as _;

use super::super::value::{Answer, Fault, Text, Value};
use super::{Cost, ONE, Row, conversions, int, list, text};
use crate::schema::structural::expression;

const LETTERS: Cost = Cost::Letters { of: 0, times: 1.0 };
const TWICE: Cost = Cost::Letters { of: 0, times: 2.0 };
/// The most digits behind a point that a format may ask for.
const MAX_PRECISION: usize = 1000;

pub(super) const ROWS: &[Row] = &[
    ("string.contains(string) bool", Cost::Search, |a| Ok(Value::Bool(text(&a[0])?.contains(text(&a[1])?)))),
    ("string.startsWith(string) bool", Cost::Letters { of: 1, times: 1.0 }, |a| {
        Ok(Value::Bool(text(&a[0])?.starts_with(text(&a[1])?)))
    }),
    ("string.endsWith(string) bool", Cost::Letters { of: 1, times: 1.0 }, |a| {
        Ok(Value::Bool(text(&a[0])?.ends_with(text(&a[1])?)))
    }),
    ("string.matches(string) bool", Cost::Expression, matches),
    ("matches(string, string) bool", Cost::Expression, matches),
    ("string.find(string) string", Cost::Expression, |a| {
        let content = text(&a[0])?;
        with_expression(&a[1], |found| found.find(content).map_or("", |found| found.as_str()).to_owned())
            .map(Value::text)
    }),
    ("string.findAll(string) list<string>", Cost::Expression, |a| find_all(a, i64::MAX)),
    ("string.findAll(string, int) list<string>", Cost::Expression, |a| find_all(a, int(&a[2])?)),
    ("string.charAt(int) string", ONE, |a| {
        let (content, at) = (text(&a[0])?, int(&a[1])?);
        let count = content.chars().count() as i64;
        match usize::try_from(at) {
            Ok(index) if at <= count => {
                Ok(Value::text(content.chars().skip(index).take(1).collect::<String>()))
            }
            _ => out_of_range(at),
        }
    }),
    ("string.indexOf(string) int", LETTERS, |a| index_of(a, 0)),
    ("string.indexOf(string, int) int", LETTERS, |a| index_of(a, int(&a[2])?)),
    ("string.lastIndexOf(string) int", LETTERS, |a| last_index_of(a, None)),
    ("string.lastIndexOf(string, int) int", LETTERS, |a| last_index_of(a, Some(int(&a[2])?))),
    ("string.lowerAscii() string", LETTERS, |a| Ok(Value::text(text(&a[0])?.to_ascii_lowercase()))),
    ("string.upperAscii() string", LETTERS, |a| Ok(Value::text(text(&a[0])?.to_ascii_uppercase()))),
    ("string.trim() string", LETTERS, |a| Ok(Value::text(text(&a[0])?.trim()))),
    ("string.replace(string, string) string", TWICE, |a| {
        Ok(Value::text(text(&a[0])?.replace(text(&a[1])?, text(&a[2])?)))
    }),
    ("string.replace(string, string, int) string", TWICE, |a| {
        let (content, from, to) = (text(&a[0])?, text(&a[1])?, text(&a[2])?);
        Ok(Value::text(match usize::try_from(int(&a[3])?) {
            Ok(count) => content.replacen(from, to, count),
            // A negative number is no limit.
            Err(_) => content.replace(from, to),
        }))
    }),
    ("string.split(string) list<string>", TWICE, |a| split(a, -1)),
    ("string.split(string, int) list<string>", TWICE, |a| split(a, int(&a[2])?)),
    ("string.substring(int) string", LETTERS, |a| substring(text(&a[0])?, int(&a[1])?, None)),
    ("string.substring(int, int) string", LETTERS, |a| {
        substring(text(&a[0])?, int(&a[1])?, Some(int(&a[2])?))
    }),
    ("list<string>.join() string", Cost::Result { times: 2.0 }, |a| join(a, "")),
    ("list<string>.join(string) string", Cost::Result { times: 2.0 }, |a| join(a, text(&a[1])?)),
    ("string.format(list<dyn>) string", LETTERS, format),
    ("strings.quote(string) string", LETTERS, |a| Ok(Value::text(quoted(text(&a[0])?)))),
    ("jsonpatch.escapeKey(string) string", TWICE, |a| {
        Ok(Value::text(text(&a[0])?.replace('~', "~0").replace('/', "~1")))
    }),
];

fn out_of_range<'a>(at: i64) -> Answer<'a> {
    Fault::other(format!("index out of range: {at}"))
}

fn with_expression<T>(pattern: &Value<'_>, look: impl FnOnce(&regex::Regex) -> T) -> Result<T, Fault> {
    let Value::String(pattern) = pattern else { return Err(Fault::NoOverload) };
    if let Text::Pattern(pattern) = pattern
        && let Some(known) = pattern.compiled()
    {
        return Ok(look(known));
    }
    match expression(pattern) {
        Ok(made) => Ok(look(&made)),
        Err(fault) => Err(Fault::Other(format!("error parsing regexp: {fault}"))),
    }
}

fn matches<'a>(a: &[Value<'a>]) -> Answer<'a> {
    let content = text(&a[0])?;
    with_expression(&a[1], |expression| expression.is_match(content)).map(Value::Bool)
}

fn find_all<'a>(a: &[Value<'a>], most: i64) -> Answer<'a> {
    let content = text(&a[0])?;
    // A negative number is no limit.
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found = with_expression(&a[1], |expression| {
        expression.find_iter(content).take(most).map(|found| Value::text(found.as_str())).collect()
    });
    found.map(Value::list)
}

/// The byte at which a letter begins; that of the end for the one behind the last.
fn offset(content: &str, letter: i64) -> Option<usize> {
    let letter = usize::try_from(letter).ok()?;
    content.char_indices().map(|(at, _)| at).chain([content.len()]).nth(letter)
}

fn index_of<'a>(a: &[Value<'a>], from: i64) -> Answer<'a> {
    let (content, wanted) = (text(&a[0])?, text(&a[1])?);
    if wanted.is_empty() {
        return Ok(Value::Int(from));
    }
    let Some(start) = offset(content, from) else { return out_of_range(from) };
    let found = content[start..].find(wanted).map(|at| content[..start + at].chars().count() as i64);
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(a: &[Value<'a>], most: Option<i64>) -> Answer<'a> {
    let (content, wanted) = (text(&a[0])?, text(&a[1])?);
    let count = content.chars().count() as i64;
    let most = most.unwrap_or(count);
    if wanted.is_empty() {
        return Ok(Value::Int(most.min(count)));
    }
    let Some(start) = offset(content, most.min(count)).filter(|_| most >= 0) else {
        return out_of_range(most);
    };
    // It may begin at that place and go beyond it.
    let end = (start + wanted.len()).min(content.len());
    let end = (end..=content.len()).find(|end| content.is_char_boundary(*end)).unwrap_or(content.len());
    let found = content[..end].rfind(wanted).map(|at| content[..at].chars().count() as i64);
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn split<'a>(a: &[Value<'a>], most: i64) -> Answer<'a> {
    let (content, separator) = (text(&a[0])?, text(&a[1])?);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if most == 0 {
        return Ok(Value::list(Vec::new()));
    }
    if separator.is_empty() {
        let mut parts: Vec<String> = content.chars().take(most - 1).map(String::from).collect();
        let rest: String = content.chars().skip(most - 1).collect();
        if !rest.is_empty() {
            parts.push(rest);
        }
        return Ok(Value::list(parts.into_iter().map(Value::text).collect()));
    }
    Ok(Value::list(content.splitn(most, separator).map(Value::text).collect()))
}

fn substring<'a>(content: &str, from: i64, to: Option<i64>) -> Answer<'a> {
    let Some(start) = offset(content, from) else { return out_of_range(from) };
    let to = to.unwrap_or_else(|| content.chars().count() as i64);
    let Some(end) = offset(content, to) else { return out_of_range(to) };
    if start > end {
        return Fault::other(format!("invalid substring range. start: {from}, end: {to}"));
    }
    Ok(Value::text(&content[start..end]))
}

fn join<'a>(a: &[Value<'a>], separator: &str) -> Answer<'a> {
    let mut joined = String::new();
    for (at, item) in list(&a[0])?.iter().enumerate() {
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text(&item)?);
    }
    Ok(Value::text(joined))
}

fn quoted(content: &str) -> String {
    let mut out = String::from("\"");
    for letter in content.chars() {
        match letter {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out + "\""
}

/// `'%s has %d'.format([name, count])`.
fn format<'a>(a: &[Value<'a>]) -> Answer<'a> {
    let (pattern, arguments) = (text(&a[0])?, list(&a[1])?);
    let (mut out, mut next) = (String::new(), 0);
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        if letters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if letters.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            match digits.parse::<usize>() {
                Ok(wanted) if wanted <= MAX_PRECISION => precision = Some(wanted),
                _ => return Fault::other("error while parsing precision"),
            }
        }
        let Some(verb) = letters.next() else { return Fault::other("unexpected end of string") };
        let Some(argument) = arguments.get(next) else {
            return Fault::other(format!("index {next} out of range"));
        };
        next += 1;
        clause(&mut out, verb, precision, &argument)?;
    }
    Ok(Value::text(out))
}

fn clause(out: &mut String, verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<(), Fault> {
    let not_for = |what: &str| {
        let kind = value.kind();
        Err(Fault::Other(format!("error during formatting: {what}, was given {}", kind.name())))
    };
    // Writing to a text cannot fail.
    let _ = match (verb, value) {
        ('s', value) => write!(out, "{}", shown(value)),
        ('d', Value::Int(number)) => write!(out, "{number}"),
        ('d', Value::Uint(number)) => write!(out, "{number}"),
        ('d', Value::Double(number)) if !number.is_finite() => write!(out, "{}", shown(value)),
        ('d', _) => return not_for("decimal clause can only be used on integers"),
        ('f', value) => match number(value) {
            Some(number) if !number.is_finite() => write!(out, "{}", shown(&Value::Double(number))),
            Some(number) => write!(out, "{number:.*}", precision.unwrap_or(6)),
            None => return not_for("fixed-point clause can only be used on doubles"),
        },
        ('e', value) => match number(value) {
            Some(number) => {
                let text = format!("{number:.*e}", precision.unwrap_or(6));
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or_default();
                let sign = if exponent < 0 { '-' } else { '+' };
                write!(out, "{digits}e{sign}{:02}", exponent.abs())
            }
            None => return not_for("scientific clause can only be used on doubles"),
        },
        ('b', Value::Int(number)) if *number < 0 => write!(out, "-{:b}", number.unsigned_abs()),
        ('b', Value::Int(number)) => write!(out, "{number:b}"),
        ('b', Value::Uint(number)) => write!(out, "{number:b}"),
        ('b', Value::Bool(flag)) => write!(out, "{}", u8::from(*flag)),
        ('b', _) => return not_for("only integers and bools can be formatted as binary"),
        ('o', Value::Int(number)) if *number < 0 => write!(out, "-{:o}", number.unsigned_abs()),
        ('o', Value::Int(number)) => write!(out, "{number:o}"),
        ('o', Value::Uint(number)) => write!(out, "{number:o}"),
        ('o', _) => return not_for("octal clause can only be used on integers"),
        ('x' | 'X', value) => {
            let digits = match value {
                Value::Int(number) if *number < 0 => format!("-{:x}", number.unsigned_abs()),
                Value::Int(number) => format!("{number:x}"),
                Value::Uint(number) => format!("{number:x}"),
                Value::String(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                _ => {
                    return not_for("only integers, byte buffers, and strings can be formatted as hex");
                }
            };
            out.push_str(&if verb == 'X' { digits.to_uppercase() } else { digits });
            Ok(())
        }
        (other, _) => {
            return Err(Fault::Other(format!("unrecognized formatting clause \"{other}\"")));
        }
    };
    Ok(())
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        Value::Uint(number) => Some(*number as f64),
        _ => None,
    }
}

/// A value as `%s` shows it: texts without quotes.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) if number.is_infinite() => {
            if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(span) => conversions::duration_text(*span),
        Value::List(list) => {
            let items: Vec<String> = list.iter().map(|item| shown(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let entry = |key: &super::super::value::Key| {
                let value = map.get(key).map_or_else(String::new, |value| shown(&value));
                format!("{}: {value}", shown(&key.value()))
            };
            let entries: Vec<String> = map.keys().iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}
