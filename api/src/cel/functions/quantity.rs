//! Kubernetes' quantities.

use std::cmp::Ordering;

use super::super::value::{Fault, Value};
use super::{Cost, ONE, Opaque, Row, int, opaque, text};
use crate::quantity::{Format, Quantity};

const LETTERS: Cost = Cost::Letters { of: 0, times: 1.0 };

pub(super) const ROWS: &[Row] = &[
    ("quantity(string) Quantity", LETTERS, |a| match text(&a[0])?.parse::<Quantity>() {
        Ok(quantity) => Ok(Value::Opaque(Opaque::Quantity(quantity))),
        Err(fault) => Fault::other(fault.to_string()),
    }),
    ("isQuantity(string) bool", LETTERS, |a| Ok(Value::Bool(text(&a[0])?.parse::<Quantity>().is_ok()))),
    ("Quantity.sign() int", ONE, |a| {
        let quantity = quantity(&a[0])?;
        Ok(Value::Int(if quantity.is_zero() { 0 } else { 1 - 2 * i64::from(quantity.is_negative()) }))
    }),
    ("Quantity.isInteger() bool", ONE, |a| Ok(Value::Bool(whole(quantity(&a[0])?).is_some()))),
    ("Quantity.asInteger() int", ONE, |a| match whole(quantity(&a[0])?) {
        Some(number) => Ok(Value::Int(number)),
        None => Fault::other("cannot convert value to integer"),
    }),
    ("Quantity.asApproximateFloat() double", ONE, |a| Ok(Value::Double(quantity(&a[0])?.as_f64()))),
    ("Quantity.isGreaterThan(Quantity) bool", ONE, |a| Ok(Value::Bool(quantity(&a[0])? > quantity(&a[1])?))),
    ("Quantity.isLessThan(Quantity) bool", ONE, |a| Ok(Value::Bool(quantity(&a[0])? < quantity(&a[1])?))),
    ("Quantity.compareTo(Quantity) int", ONE, |a| {
        Ok(Value::Int(match quantity(&a[0])?.cmp(&quantity(&a[1])?) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }))
    }),
    ("Quantity.add(Quantity) Quantity", ONE, |a| Ok(sum(quantity(&a[0])?, quantity(&a[1])?))),
    ("Quantity.add(int) Quantity", ONE, |a| Ok(sum(quantity(&a[0])?, of_int(int(&a[1])?)))),
    ("Quantity.sub(Quantity) Quantity", ONE, |a| Ok(difference(quantity(&a[0])?, quantity(&a[1])?))),
    ("Quantity.sub(int) Quantity", ONE, |a| Ok(difference(quantity(&a[0])?, of_int(int(&a[1])?)))),
];

fn quantity(value: &Value<'_>) -> Result<Quantity, Fault> {
    match opaque(value)? {
        Opaque::Quantity(quantity) => Ok(*quantity),
        _ => Err(Fault::NoOverload),
    }
}

fn of_int(number: i64) -> Quantity {
    Quantity::from_value(number, Format::DecimalExponent)
}

fn sum<'a>(mut a: Quantity, b: Quantity) -> Value<'a> {
    a += b;
    Value::Opaque(Opaque::Quantity(a))
}

fn difference<'a>(mut a: Quantity, b: Quantity) -> Value<'a> {
    a -= b;
    Value::Opaque(Opaque::Quantity(a))
}

/// The amount, if it is a whole number that an `int` holds. What is larger was cut down to the largest.
fn whole(quantity: Quantity) -> Option<i64> {
    let value = quantity.value();
    (quantity.is_whole() && value != i64::MAX).then_some(value)
}
