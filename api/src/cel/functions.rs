//! The functions of CEL and of Kubernetes' libraries for it: one table, a line an overload.
//!
//! A line is a signature, what a call costs, and what it does. `string.trim() string` is called on a text,
//! `sets.contains(list<T>, list<T>) bool` by its name. Which functions there are, and what they cost:
//! <https://kubernetes.io/docs/reference/using-api/cel/>.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::types::{OPAQUE, Type};
use super::value::{Answer, Fault, List, Value};

mod authorizer;
pub(super) mod conversions;
mod format;
mod lists;
mod network;
pub(super) mod opaque;
mod operators;
pub(super) mod optional;
mod quantity;
mod semver;
mod strings;
mod time;
mod url;

pub use authorizer::{Authority, Question, Verdict};
pub use opaque::Opaque;

/// What an overload does with its arguments.
pub(super) type Run = for<'a> fn(&[Value<'a>]) -> Answer<'a>;

/// A line of a table.
type Row = (&'static str, Cost, Run);

/// What a call costs besides its arguments. A letter is a tenth of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cost {
    /// So many steps.
    Fixed(u64),
    /// To go through an argument's letters, so often.
    Letters { of: usize, times: f64 },
    /// To build a result, so often.
    Result { times: f64 },
    /// To go through the letters of both.
    Both,
    /// To go through the letters of the shorter one.
    Shorter,
    /// A step an item.
    Items { of: usize },
    /// A step an item, and its letters.
    ItemsAndLetters,
    /// To look for one text in another.
    Search,
    /// To look for an expression in a text.
    Expression,
    /// A step for each pair of items.
    Pairs { times: f64 },
    /// To compare addresses, so often, and to read a text where there is one.
    Addresses { times: f64, extra: u64 },
}

/// A step.
const ONE: Cost = Cost::Fixed(1);

/// A function for arguments of certain types.
#[derive(Debug)]
pub(super) struct Overload {
    pub name: &'static str,
    /// It is called on its first argument.
    pub on_value: bool,
    pub arguments: Vec<Type>,
    pub result: Type,
    pub cost: Cost,
    pub run: Run,
}

static FUNCTIONS: LazyLock<BTreeMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let tables = [
        operators::ROWS,
        conversions::ROWS,
        strings::ROWS,
        lists::ROWS,
        optional::ROWS,
        time::ROWS,
        url::ROWS,
        network::ROWS,
        quantity::ROWS,
        semver::ROWS,
        format::ROWS,
        authorizer::ROWS,
    ];
    let mut functions: BTreeMap<&'static str, Vec<Overload>> = BTreeMap::new();
    for (signature, cost, run) in tables.into_iter().flatten() {
        // A line that cannot be read is seen by the test below.
        if let Some(overload) = Overload::read(signature, *cost, *run) {
            functions.entry(overload.name).or_default().push(overload);
        }
    }
    for overload in operators::comparisons().into_iter().chain(lists::of_types()) {
        functions.entry(overload.name).or_default().push(overload);
    }
    functions
});

/// The overloads of a name; empty if there is no such function.
pub(super) fn overloads(name: &str) -> &'static [Overload] {
    FUNCTIONS.get(name).map_or(&[], Vec::as_slice)
}

// === impl Overload ===

impl Overload {
    fn read(signature: &'static str, cost: Cost, run: Run) -> Option<Overload> {
        let open = signature.find('(')?;
        let (inner, result) = signature[open + 1..].rsplit_once(") ")?;
        let mut arguments = Vec::new();
        let head = &signature[..open];
        let (receiver, name) = match split_receiver(head) {
            Some((receiver, name)) => (Some(receiver), name),
            None => (None, head),
        };
        let on_value = receiver.is_some();
        arguments.extend(receiver);
        for argument in split(inner) {
            arguments.push(kind(argument)?);
        }
        Some(Overload { name, on_value, arguments, result: kind(result)?, cost, run })
    }
}

/// What comes before the last dot, if it is a type.
fn split_receiver(head: &'static str) -> Option<(Type, &'static str)> {
    let (before, name) = head.rsplit_once('.')?;
    Some((kind(before)?, name))
}

/// The parts between commas that are in no brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

/// A type as signatures write it.
fn kind(text: &str) -> Option<Type> {
    if let Some((of, inner)) = text.strip_suffix('>').and_then(|text| text.split_once('<')) {
        let mut inner = split(inner).into_iter().map(kind);
        let first = inner.next()??;
        return Some(match of {
            "list" => first.list(),
            "optional" => first.optional(),
            "map" => Type::Map(Arc::new(first), Arc::new(inner.next()??)),
            _ => return None,
        });
    }
    Some(match text {
        "T" => Type::Parameter(0),
        "K" => Type::Parameter(1),
        "V" => Type::Parameter(2),
        "null" => Type::Null,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "dyn" | "bool" | "int" | "uint" | "double" | "string" | "bytes" | "type" => Type::named(text)?,
        _ => Type::Opaque(OPAQUE.iter().find(|(word, _)| *word == text)?.1),
    })
}

// What functions take of their arguments.

fn text<'v>(value: &'v Value<'_>) -> Result<&'v str, Fault> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(Fault::NoOverload),
    }
}

fn int(value: &Value<'_>) -> Result<i64, Fault> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(Fault::NoOverload),
    }
}

fn list<'v, 'a>(value: &'v Value<'a>) -> Result<&'v List<'a>, Fault> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(Fault::NoOverload),
    }
}

fn opaque<'v, 'a>(value: &'v Value<'a>) -> Result<&'v Opaque<'a>, Fault> {
    match value {
        Value::Opaque(opaque) => Ok(opaque),
        _ => Err(Fault::NoOverload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_tables_can_be_read() {
        let tables = [
            operators::ROWS,
            conversions::ROWS,
            strings::ROWS,
            lists::ROWS,
            optional::ROWS,
            time::ROWS,
            url::ROWS,
            network::ROWS,
            quantity::ROWS,
            semver::ROWS,
            format::ROWS,
            authorizer::ROWS,
        ];
        for (signature, cost, run) in tables.into_iter().flatten() {
            assert!(Overload::read(signature, *cost, *run).is_some(), "{signature}");
        }
    }
}
