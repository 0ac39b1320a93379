//! Evaluates expressions, and counts the steps that it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::functions::{Cost, Overload, optional};
use super::step::{Fold, Step, StepKind};
use super::syntax::{Access, FoldKind};
use super::types::Type;
use super::value::{Answer, Fault, Key, Map, Value};

/// What the variables of an environment are.
pub trait Bindings<'a> {
    /// The value of a variable, by its place in the environment. What it costs to find it goes to `spent`, which may not
    /// become more than `limit`.
    fn get(&self, at: usize, spent: &mut u64, limit: u64) -> Answer<'a>;
}

impl<'a> Bindings<'a> for [Value<'a>] {
    fn get(&self, at: usize, _: &mut u64, _: u64) -> Answer<'a> {
        <[Value<'a>]>::get(self, at).cloned().ok_or(Fault::NoOverload)
    }
}

impl<'a, B: Bindings<'a> + ?Sized> Bindings<'a> for &B {
    fn get(&self, at: usize, spent: &mut u64, limit: u64) -> Answer<'a> {
        (**self).get(at, spent, limit)
    }
}

/// What it costs to build a list, a map, an object.
pub(super) const LIST: u64 = 10;
pub(super) const MAP: u64 = 30;
pub(super) const STRUCT: u64 = 40;

/// What a loop costs for each item besides its body.
pub(super) const fn of_item(kind: FoldKind) -> u64 {
    match kind {
        FoldKind::All => 3,
        FoldKind::Exists => 4,
        FoldKind::ExistsOne => 2,
        FoldKind::Map => LIST + 2,
        FoldKind::Filter => LIST + 3,
        FoldKind::TransformMap | FoldKind::TransformMapEntry => 3,
    }
}

/// What a loop costs besides its items.
pub(super) const fn of_fold(kind: FoldKind) -> u64 {
    match kind {
        FoldKind::All | FoldKind::Exists => 1,
        FoldKind::ExistsOne => 2,
        FoldKind::Map | FoldKind::Filter => LIST + 1,
        FoldKind::TransformMap | FoldKind::TransformMapEntry => MAP + 1,
    }
}

/// What letters cost.
pub(super) fn letters(count: f64) -> u64 {
    (count * 0.1).ceil() as u64
}

pub(super) struct Evaluator<'e, 'a> {
    pub globals: &'e dyn Bindings<'a>,
    pub locals: Vec<Value<'a>>,
    pub spent: u64,
    pub limit: u64,
}

// === impl Evaluator ===

impl<'a> Evaluator<'_, 'a> {
    fn spend(&mut self, cost: u64) -> Result<(), Fault> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(Fault::OverBudget) } else { Ok(()) }
    }

    pub fn value(&mut self, step: &Step) -> Answer<'a> {
        match &step.kind {
            StepKind::Literal(value) => Ok(value.clone()),
            StepKind::Global(at) => {
                self.spend(1)?;
                self.globals.get(*at, &mut self.spent, self.limit)
            }
            StepKind::Local(at) => {
                self.spend(1)?;
                Ok(self.locals[*at].clone())
            }
            StepKind::Select { of, key, access } => self.select(of, key, *access),
            StepKind::Call { overloads, arguments } => self.call(overloads, arguments),
            StepKind::List(items) => self.list(items),
            StepKind::Map(entries) => self.map(entries),
            StepKind::Struct { name, fields } => self.structure(name, fields),
            StepKind::Logic { any, terms } => {
                self.logic(*any, terms.iter(), |evaluator, term| evaluator.value(term))
            }
            StepKind::Choice(three) => match self.value(&three[0])? {
                Value::Bool(true) => self.value(&three[1]),
                Value::Bool(false) => self.value(&three[2]),
                _ => Err(Fault::NoOverload),
            },
            StepKind::Fold(fold) => self.fold(fold),
            StepKind::OptionalMap { of, body, flat } => self.optional_map(of, body, *flat),
        }
    }

    fn select(&mut self, of: &Step, key: &Key, access: Access) -> Answer<'a> {
        let of = self.value(of)?;
        // Whether something is there is asked for nothing.
        self.spend(u64::from(access != Access::Presence))?;
        let (of, optional) = match &of {
            Value::Optional(None) => {
                return Ok(match access {
                    Access::Presence => Value::Bool(false),
                    Access::Value | Access::Optional => Value::Optional(None),
                });
            }
            Value::Optional(Some(inner)) => (&**inner, true),
            other => (other, access == Access::Optional),
        };
        let Value::Map(map) = of else { return Err(Fault::NoOverload) };
        let found = map.get(key).ok_or_else(|| match key {
            Key::String(name) => Fault::NoKey(name.to_string()),
            other => Fault::NoKey(other.value().to_string()),
        });
        match access {
            Access::Presence => Ok(Value::Bool(found.is_ok())),
            _ if optional => optional::of_answer(found),
            _ => found,
        }
    }

    fn call(&mut self, overloads: &[&'static Overload], steps: &[Step]) -> Answer<'a> {
        let mut arguments = Vec::with_capacity(steps.len());
        for step in steps {
            arguments.push(self.value(step)?);
        }
        let fits = |overload: &&&Overload| {
            overload.arguments.iter().zip(&arguments).all(|(wanted, found)| fits(wanted, found))
        };
        let overload = overloads.iter().find(fits).ok_or(Fault::NoOverload)?;
        self.spend(cost(overload.cost, &arguments))?;
        let result = (overload.run)(&arguments)?;
        if let Cost::Result { times } = overload.cost {
            self.spend(letters(result.size() as f64 * times))?;
        }
        Ok(result)
    }

    /// The value of an item of a literal; nothing if it is an optional one without a value.
    fn item(&mut self, optional: bool, step: &Step) -> Result<Option<Value<'a>>, Fault> {
        let value = self.value(step)?;
        match value {
            Value::Optional(inner) if optional => Ok(inner.map(|inner| (*inner).clone())),
            _ if optional => Err(Fault::NoOverload),
            value => Ok(Some(value)),
        }
    }

    fn list(&mut self, items: &[(bool, Step)]) -> Answer<'a> {
        let mut values = Vec::with_capacity(items.len());
        for (optional, step) in items {
            values.extend(self.item(*optional, step)?);
        }
        self.spend(LIST)?;
        Ok(Value::list(values))
    }

    fn map(&mut self, entries: &[(bool, Step, Step)]) -> Answer<'a> {
        let mut map = BTreeMap::new();
        for (optional, key, value) in entries {
            let key = self.value(key)?;
            let key = Key::of(&key).ok_or_else(|| Fault::Other("unsupported key type".into()))?;
            let Some(value) = self.item(*optional, value)? else { continue };
            insert(&mut map, key, value)?;
        }
        self.spend(MAP)?;
        Ok(Value::map(map))
    }

    fn structure(&mut self, name: &Arc<str>, fields: &[(Arc<str>, bool, Step)]) -> Answer<'a> {
        let mut map = BTreeMap::new();
        for (field, optional, step) in fields {
            if let Some(value) = self.item(*optional, step)? {
                map.insert(Key::String(field.clone()), value);
            }
        }
        self.spend(STRUCT)?;
        Ok(Value::Map(Map::Struct(name.clone(), Arc::new(map))))
    }

    /// Several conditions. One that decides makes up for those that have no value.
    fn logic<T>(
        &mut self,
        any: bool,
        terms: impl Iterator<Item = T>,
        mut value: impl FnMut(&mut Self, T) -> Answer<'a>,
    ) -> Answer<'a> {
        let mut fault = None;
        for term in terms {
            match value(self, term) {
                Ok(Value::Bool(flag)) if flag == any => return Ok(Value::Bool(any)),
                Ok(Value::Bool(_)) => {}
                Err(Fault::OverBudget) => return Err(Fault::OverBudget),
                Err(found) => fault = fault.or(Some(found)),
                Ok(_) => fault = fault.or(Some(Fault::NoOverload)),
            }
        }
        fault.map_or(Ok(Value::Bool(!any)), Err)
    }

    fn optional_map(&mut self, of: &Step, body: &Step, flat: bool) -> Answer<'a> {
        let of = self.value(of)?;
        let inner = match of {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => (*inner).clone(),
            _ => return Err(Fault::NoOverload),
        };
        self.locals.push(inner);
        let value = self.value(body);
        self.locals.pop();
        if flat { value } else { value.map(Value::some) }
    }

    fn fold(&mut self, fold: &Fold) -> Answer<'a> {
        let range = self.value(&fold.range)?;
        self.spend(of_fold(fold.kind))?;
        // Key and item, or an item alone.
        let entries: Vec<(Option<Value<'a>>, Value<'a>)> = match &range {
            Value::List(list) if fold.two => {
                list.iter().enumerate().map(|(at, item)| (Some(Value::Int(at as i64)), item)).collect()
            }
            Value::List(list) => list.iter().map(|item| (None, item)).collect(),
            Value::Map(map) if fold.two => {
                map.keys().iter().filter_map(|key| Some((Some(key.value()), map.get(key)?))).collect()
            }
            Value::Map(map) => map.keys().iter().map(|key| (None, key.value())).collect(),
            _ => return Err(Fault::NoOverload),
        };
        match fold.kind {
            FoldKind::All | FoldKind::Exists => {
                self.logic(fold.kind == FoldKind::Exists, entries.into_iter(), |evaluator, (key, item)| {
                    evaluator.with(fold, key, item, |evaluator| evaluator.value(&fold.body))
                })
            }
            FoldKind::ExistsOne => {
                let mut count = 0;
                for (key, item) in entries {
                    count +=
                        usize::from(self.with(fold, key, item, |evaluator| evaluator.holds(&fold.body))?);
                }
                Ok(Value::Bool(count == 1))
            }
            FoldKind::Filter => {
                let mut kept = Vec::new();
                for (key, item) in entries {
                    if self.with(fold, key, item.clone(), |evaluator| evaluator.holds(&fold.body))? {
                        kept.push(item);
                    }
                }
                Ok(Value::list(kept))
            }
            FoldKind::Map => {
                let mut made = Vec::new();
                for (key, item) in entries {
                    made.extend(self.with(fold, key, item, |evaluator| evaluator.filtered(fold))?);
                }
                Ok(Value::list(made))
            }
            FoldKind::TransformMap | FoldKind::TransformMapEntry => self.transform(fold, entries),
        }
    }

    fn transform(&mut self, fold: &Fold, entries: Vec<(Option<Value<'a>>, Value<'a>)>) -> Answer<'a> {
        let mut made = BTreeMap::new();
        for (key, item) in entries {
            let name = key.as_ref().and_then(Key::of).ok_or(Fault::NoOverload)?;
            let Some(value) = self.with(fold, key, item, |evaluator| evaluator.filtered(fold))? else {
                continue;
            };
            match value {
                value if fold.kind == FoldKind::TransformMap => insert(&mut made, name, value)?,
                Value::Map(entry) => {
                    for key in entry.keys() {
                        let value = entry.get(&key).ok_or(Fault::NoOverload)?;
                        insert(&mut made, key, value)?;
                    }
                }
                _ => return Err(Fault::NoOverload),
            }
        }
        Ok(Value::map(made))
    }

    /// Does something for one item of a loop.
    fn with<T>(
        &mut self,
        fold: &Fold,
        key: Option<Value<'a>>,
        item: Value<'a>,
        then: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.spend(of_item(fold.kind))?;
        let outer = self.locals.len();
        self.locals.extend(key);
        self.locals.push(item);
        let result = then(self);
        self.locals.truncate(outer);
        result
    }

    fn filtered(&mut self, fold: &Fold) -> Result<Option<Value<'a>>, Fault> {
        match &fold.filter {
            Some(filter) if !self.holds(filter)? => Ok(None),
            _ => self.value(&fold.body).map(Some),
        }
    }

    fn holds(&mut self, step: &Step) -> Result<bool, Fault> {
        match self.value(step)? {
            Value::Bool(flag) => Ok(flag),
            _ => Err(Fault::NoOverload),
        }
    }
}

fn insert<'a>(map: &mut BTreeMap<Key, Value<'a>>, key: Key, value: Value<'a>) -> Result<(), Fault> {
    let shown = key.value().to_string();
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(Fault::Other(format!("insert failed: key {shown} already exists"))),
    }
}

/// Whether a function for a type takes a value. What is in containers it has to see for itself.
fn fits(wanted: &Type, found: &Value<'_>) -> bool {
    match (wanted, found) {
        (Type::Dyn | Type::Parameter(_), _) => true,
        (Type::List(_), Value::List(_))
        | (Type::Map(..), Value::Map(_))
        | (Type::Optional(_), Value::Optional(_)) => true,
        (Type::Opaque(name), Value::Opaque(opaque)) => *name == opaque.name(),
        (wanted, found) => *wanted == found.kind(),
    }
}

/// What a call costs, but for its result.
fn cost(cost: Cost, arguments: &[Value<'_>]) -> u64 {
    let size = |at: usize| arguments.get(at).map_or(1, Value::size);
    let both = || size(0).saturating_add(size(1)) as f64;
    match cost {
        Cost::Fixed(cost) => cost,
        Cost::Letters { of, times } => letters(size(of) as f64 * times),
        Cost::Result { .. } => 0,
        Cost::Both => letters(both()),
        Cost::Shorter => letters(size(0).min(size(1)) as f64),
        Cost::Items { of } => size(of),
        Cost::ItemsAndLetters => match &arguments[0] {
            Value::List(list) => list
                .iter()
                .map(|item| match item {
                    Value::String(_) | Value::Bytes(_) => 1 + letters(item.size() as f64),
                    _ => 1,
                })
                .sum(),
            other => other.size(),
        },
        Cost::Search => letters(size(0) as f64) * letters(size(1) as f64),
        Cost::Expression => letters(size(0) as f64 + 1.0) * ((size(1) as f64 * 0.25).ceil() as u64),
        Cost::Pairs { times } => (size(0).saturating_mul(size(1)) as f64 * times) as u64,
        Cost::Addresses { times, extra } => {
            let text = match arguments.get(1) {
                Some(Value::String(text)) => letters(text.len() as f64),
                _ => 0,
            };
            letters(size(0) as f64 * times) + extra + text
        }
    }
}
