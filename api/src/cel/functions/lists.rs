//! Functions of lists: Kubernetes' own, and those that take lists for sets.

use std::cmp::Ordering;

use super::super::types::Type;
use super::super::value::{Answer, Fault, List, Value};
use super::{Cost, Overload, Row, Run, list};

const ITEMS: Cost = Cost::ItemsAndLetters;

pub(super) const ROWS: &[Row] = &[
    ("list<T>.indexOf(T) int", ITEMS, |a| {
        let at = list(&a[0])?.iter().position(|item| item.equals(&a[1]));
        Ok(Value::Int(at.map_or(-1, |at| at as i64)))
    }),
    ("list<T>.lastIndexOf(T) int", ITEMS, |a| {
        let items: Vec<Value<'_>> = list(&a[0])?.iter().collect();
        let at = items.iter().rposition(|item| item.equals(&a[1]));
        Ok(Value::Int(at.map_or(-1, |at| at as i64)))
    }),
    ("sets.contains(list<T>, list<T>) bool", Cost::Pairs { times: 1.0 }, |a| {
        Ok(Value::Bool(contains(list(&a[0])?, list(&a[1])?)))
    }),
    ("sets.equivalent(list<T>, list<T>) bool", Cost::Pairs { times: 2.0 }, |a| {
        let (a, b) = (list(&a[0])?, list(&a[1])?);
        Ok(Value::Bool(contains(a, b) && contains(b, a)))
    }),
    ("sets.intersects(list<T>, list<T>) bool", Cost::Pairs { times: 1.0 }, |a| {
        let (a, b) = (list(&a[0])?, list(&a[1])?);
        Ok(Value::Bool(a.iter().any(|one| b.iter().any(|other| one.equals(&other)))))
    }),
];

/// The overloads that are for lists of certain types.
pub(super) fn of_types() -> Vec<Overload> {
    let ordered = [
        Type::Int,
        Type::Uint,
        Type::Double,
        Type::Bool,
        Type::Duration,
        Type::Timestamp,
        Type::String,
        Type::Bytes,
    ];
    let mut overloads = Vec::new();
    let mut add = |name: &'static str, of: &Type, result: Type, run: Run| {
        let arguments = vec![of.clone().list()];
        overloads.push(Overload { name, on_value: true, arguments, result, cost: ITEMS, run });
    };
    for kind in ordered {
        add("isSorted", &kind, Type::Bool, is_sorted);
        add("min", &kind, kind.clone(), |a| extreme(a, "min", Ordering::Less));
        add("max", &kind, kind.clone(), |a| extreme(a, "max", Ordering::Greater));
    }
    let zeros: [(Type, Run); 4] = [
        (Type::Int, |a| sum(a, Value::Int(0))),
        (Type::Uint, |a| sum(a, Value::Uint(0))),
        (Type::Double, |a| sum(a, Value::Double(0.0))),
        (Type::Duration, |a| sum(a, Value::Duration(jiff::SignedDuration::ZERO))),
    ];
    for (kind, run) in zeros {
        add("sum", &kind, kind.clone(), run);
    }
    overloads
}

fn contains(a: &List<'_>, b: &List<'_>) -> bool {
    b.iter().all(|wanted| a.iter().any(|item| item.equals(&wanted)))
}

fn is_sorted<'a>(a: &[Value<'a>]) -> Answer<'a> {
    let items: Vec<Value<'_>> = list(&a[0])?.iter().collect();
    for pair in items.windows(2) {
        match pair[0].order(&pair[1]) {
            Some(Ordering::Greater) => return Ok(Value::Bool(false)),
            Some(_) => {}
            None => return Err(Fault::NoOverload),
        }
    }
    Ok(Value::Bool(true))
}

fn extreme<'a>(a: &[Value<'a>], name: &str, wanted: Ordering) -> Answer<'a> {
    let mut items = list(&a[0])?.iter();
    let Some(mut best) = items.next() else { return Fault::other(format!("{name} called on empty list")) };
    for item in items {
        match item.order(&best) {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return Err(Fault::NoOverload),
        }
    }
    Ok(best)
}

fn sum<'a>(a: &[Value<'a>], zero: Value<'a>) -> Answer<'a> {
    let plus = super::overloads("_+_").first().ok_or(Fault::NoOverload)?.run;
    let mut items = list(&a[0])?.iter();
    // What is not known to be of another type is of that of the first item.
    let first = items.next();
    items.try_fold(first.unwrap_or(zero), |sum, item| plus(&[sum, item]))
}
