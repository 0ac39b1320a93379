//! From a template and a value to text.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Comparison, Node, Operand, Step, text_of};

/// Values that one path may find at most.
const LIMIT: usize = 1_000_000;

pub(super) fn render(nodes: &[Node], value: &Value, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(steps) => {
                for (at, found) in walk(steps, vec![value])?.into_iter().enumerate() {
                    if at > 0 {
                        out.push(' ');
                    }
                    out.push_str(&text_of(found));
                }
            }
            Node::Range(steps, body) => {
                for found in walk(steps, vec![value])? {
                    render(body, found, out)?;
                }
            }
        }
    }
    Ok(())
}

pub(super) fn walk<'a>(steps: &[Step], start: Vec<&'a Value>) -> Result<Vec<&'a Value>, String> {
    let mut values = start;
    for step in steps {
        let mut next = Vec::new();
        for value in values {
            apply(step, value, &mut next)?;
            if next.len() > LIMIT {
                return Err("the path finds too many values".to_owned());
            }
        }
        values = next;
    }
    Ok(values)
}

fn apply<'a>(step: &Step, value: &'a Value, next: &mut Vec<&'a Value>) -> Result<(), String> {
    match step {
        Step::Field(name) => next.extend(value.get(name)),
        Step::Wildcard => children(value, next),
        Step::Recursive => descend(value, next),
        Step::Index(index) => {
            let Value::Array(items) = value else { return Ok(()) };
            let at = resolved(*index, items.len());
            let found = usize::try_from(at).ok().and_then(|at| items.get(at));
            let length = items.len();
            next.push(
                found.ok_or_else(|| format!("array index out of bounds: index {index}, length {length}"))?,
            );
        }
        Step::Slice(from, to, step) => {
            let Value::Array(items) = value else { return Ok(()) };
            let clamp = |at: i64| usize::try_from(at.max(0)).unwrap_or(usize::MAX).min(items.len());
            let from = clamp(resolved(from.unwrap_or(0), items.len()));
            let to = to.map_or(items.len(), |to| clamp(resolved(to, items.len())));
            let step = usize::try_from(*step).unwrap_or(1).max(1);
            next.extend(items.get(from..to).unwrap_or_default().iter().step_by(step));
        }
        Step::Union(paths) => {
            for path in paths {
                next.extend(walk(path, vec![value])?);
            }
        }
        Step::Filter(left, comparison) => {
            let Value::Array(items) = value else { return Ok(()) };
            for item in items {
                if holds(left, comparison.as_ref(), item)? {
                    next.push(item);
                }
            }
        }
    }
    Ok(())
}

fn resolved(index: i64, length: usize) -> i64 {
    if index < 0 { index.saturating_add(i64::try_from(length).unwrap_or(i64::MAX)) } else { index }
}

fn children<'a>(value: &'a Value, next: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => next.extend(items),
        Value::Object(map) => next.extend(map.values()),
        _ => {}
    }
}

fn descend<'a>(value: &'a Value, next: &mut Vec<&'a Value>) {
    let mut inner = Vec::new();
    children(value, &mut inner);
    if !inner.is_empty() {
        next.push(value);
        for child in inner {
            descend(child, next);
        }
    }
}

fn holds(left: &Operand, comparison: Option<&(Comparison, Operand)>, item: &Value) -> Result<bool, String> {
    let left = operand(left, item)?;
    let Some((comparison, right)) = comparison else { return Ok(left.is_some()) };
    let right = operand(right, item)?;
    let (Some(left), Some(right)) = (left, right) else { return Ok(false) };
    let order = compare(left, right);
    Ok(match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

fn operand<'a>(operand: &'a Operand, item: &'a Value) -> Result<Option<&'a Value>, String> {
    match operand {
        Operand::Literal(value) => Ok(Some(value)),
        Operand::Path(steps) => {
            let found = walk(steps, vec![item])?;
            match found.as_slice() {
                [] => Ok(None),
                [one] => Ok(Some(*one)),
                _ => Err("can only compare one element at a time".to_owned()),
            }
        }
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        (left, right) => (left == right).then_some(Ordering::Equal),
    }
}
