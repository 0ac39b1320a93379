//! The most steps that an expression can take, whatever it is about: what its definition is refused for.
//!
//! It is reckoned as Kubernetes does, so that the same definitions are taken and refused.

use std::sync::Arc;

use super::Environment;
use super::check::declared;
use super::evaluate::{LIST, MAP, STRUCT, letters, of_fold, of_item};
use super::functions::{Cost, Overload};
use super::step::{Fold, Step, StepKind};
use super::syntax::{Access, FoldKind};
use super::types::{Declared, Type};
use super::value::Value;

/// The fewest and the most letters, items or entries of a value.
#[derive(Clone, Copy, Debug)]
struct Size {
    least: u64,
    most: u64,
}

const UNKNOWN: Size = Size { least: 0, most: u64::MAX };

/// What is known of a value before it is there.
#[derive(Clone, Debug, Default)]
struct Guess {
    size: Option<Size>,
    /// Where in the schema it comes from.
    declared: Option<Arc<Declared>>,
    /// The sizes of the keys and the values of a container that the expression makes.
    entries: Option<(Size, Size)>,
}

/// The most steps of an expression.
pub(super) fn most(environment: &Environment, step: &Step) -> u64 {
    let mut estimator = Estimator { environment, locals: Vec::new() };
    estimator.estimate(step).0
}

struct Estimator<'e> {
    environment: &'e Environment,
    locals: Vec<Guess>,
}

// === impl Size ===

impl Size {
    fn of(size: u64) -> Size {
        Size { least: size, most: size }
    }

    fn plus(self, other: Size) -> Size {
        Size { least: self.least.saturating_add(other.least), most: self.most.saturating_add(other.most) }
    }

    fn times(self, other: Size) -> Size {
        Size { least: self.least.saturating_mul(other.least), most: self.most.saturating_mul(other.most) }
    }

    fn or(self, other: Size) -> Size {
        Size { least: self.least.min(other.least), most: self.most.max(other.most) }
    }
}

// === impl Guess ===

impl Guess {
    fn sized(size: Size) -> Guess {
        Guess { size: Some(size), ..Guess::default() }
    }

    fn of(declared: &Arc<Declared>) -> Guess {
        let size = Some(Size { least: 0, most: declared.most });
        Guess { size, declared: Some(declared.clone()), entries: None }
    }

    fn size(&self) -> Size {
        self.size.unwrap_or(UNKNOWN)
    }

    /// An item of a list or a value of a map.
    fn item(&self) -> Guess {
        match (self.declared.as_ref().and_then(|declared| declared.items.as_ref()), self.entries) {
            (Some(items), _) => Guess::of(items),
            (None, Some((_, value))) => Guess::sized(value),
            (None, None) => Guess::default(),
        }
    }

    fn key(&self) -> Guess {
        match (&self.declared, self.entries) {
            // The names of entries have no limit, and Kubernetes counts none.
            (Some(_), _) => Guess::sized(Size::of(0)),
            (None, Some((key, _))) => Guess::sized(key),
            (None, None) => Guess::default(),
        }
    }
}

// === impl Estimator ===

impl Estimator<'_> {
    fn estimate(&mut self, step: &Step) -> (u64, Guess) {
        let (cost, mut guess) = match &step.kind {
            StepKind::Literal(value) => (0, literal(value)),
            StepKind::Global(at) => (1, declared(self.environment, *at).map(Guess::of).unwrap_or_default()),
            StepKind::Local(at) => (1, self.locals[*at].clone()),
            StepKind::Select { of, key, access } => self.select(of, &key.value(), *access),
            StepKind::Call { overloads, arguments } => self.call(overloads, arguments),
            StepKind::List(items) => self.list(items),
            StepKind::Map(entries) => self.map(entries),
            StepKind::Struct { fields, .. } => {
                let parts: Vec<u64> = fields.iter().map(|(_, _, field)| self.estimate(field).0).collect();
                (sum(STRUCT, parts), Guess::default())
            }
            StepKind::Logic { terms, .. } => {
                let parts: Vec<u64> = terms.iter().map(|term| self.estimate(term).0).collect();
                (sum(0, parts), Guess::sized(Size::of(1)))
            }
            StepKind::Choice(three) => self.choice(three),
            StepKind::Fold(fold) => self.fold(fold),
            StepKind::OptionalMap { of, body, .. } => {
                let (before, guess) = self.estimate(of);
                self.locals.push(guess);
                let (after, guess) = self.estimate(body);
                self.locals.pop();
                (sum(before, [after, 3]), guess)
            }
        };
        if guess.size.is_none() && step.result.is_scalar() {
            guess.size = Some(Size::of(1));
        }
        (cost, guess)
    }

    fn select(&mut self, of: &Step, name: &Value<'_>, access: Access) -> (u64, Guess) {
        let (cost, guess) = self.estimate(of);
        let Value::String(name) = name else { return (cost, Guess::default()) };
        let below =
            guess.declared.as_ref().and_then(|declared| declared.field(name).or(declared.items.as_ref()));
        let own = match (access, &of.result) {
            (Access::Presence, _) => 0,
            (_, Type::Map(..) | Type::Object(_)) => 1,
            // Nothing is counted for what is not known.
            _ => 0,
        };
        (cost.saturating_add(own), below.map(Guess::of).unwrap_or_default())
    }

    fn list(&mut self, items: &[(bool, Step)]) -> (u64, Guess) {
        let (mut cost, mut of_items) = (LIST, None);
        for (_, item) in items {
            let (own, guess) = self.estimate(item);
            cost = cost.saturating_add(own);
            of_items = Some(of_items.map_or(guess.size(), |known: Size| known.or(guess.size())));
        }
        let entries = Some((Size::of(1), of_items.unwrap_or(Size::of(0))));
        (cost, Guess { size: Some(Size::of(items.len() as u64)), declared: None, entries })
    }

    fn map(&mut self, entries: &[(bool, Step, Step)]) -> (u64, Guess) {
        let (mut cost, mut of_entries) = (MAP, None);
        for (_, key, value) in entries {
            let (of_key, key) = self.estimate(key);
            let (of_value, value) = self.estimate(value);
            cost = sum(cost, [of_key, of_value]);
            let own = (key.size(), value.size());
            of_entries =
                Some(of_entries.map_or(own, |(key, value): (Size, Size)| (key.or(own.0), value.or(own.1))));
        }
        let size = Some(Size::of(entries.len() as u64));
        (cost, Guess { size, declared: None, entries: of_entries.or(Some((Size::of(0), Size::of(0)))) })
    }

    fn choice(&mut self, three: &[Step; 3]) -> (u64, Guess) {
        let (condition, _) = self.estimate(&three[0]);
        let (yes, a) = self.estimate(&three[1]);
        let (no, b) = self.estimate(&three[2]);
        let entries = a.entries.zip(b.entries).map(|(a, b)| (a.0.or(b.0), a.1.or(b.1)));
        let guess = Guess { size: Some(a.size().or(b.size())), declared: None, entries };
        (condition.saturating_add(yes.max(no)), guess)
    }

    fn fold(&mut self, fold: &Fold) -> (u64, Guess) {
        let (range, of_range) = self.estimate(&fold.range);
        let outer = self.locals.len();
        let is_map = matches!(fold.range.result, Type::Map(..));
        match (fold.two, is_map) {
            (false, false) => self.locals.push(of_range.item()),
            (false, true) => self.locals.push(of_range.key()),
            (true, false) => self.locals.extend([Guess::sized(Size::of(1)), of_range.item()]),
            (true, true) => self.locals.extend([of_range.key(), of_range.item()]),
        }
        let filter = fold.filter.as_ref().map_or(0, |filter| self.estimate(filter).0);
        let (body, of_body) = self.estimate(&fold.body);
        let item = if is_map { of_range.key() } else { of_range.item() };
        self.locals.truncate(outer);
        let each = sum(of_item(fold.kind), [filter, body]);
        let cost = sum(of_fold(fold.kind), [range, of_range.size().most.saturating_mul(each)]);
        let zero = Size::of(0);
        let guess = match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Guess::sized(Size::of(1)),
            FoldKind::Map => Guess {
                size: of_range.size,
                declared: None,
                entries: Some((Size::of(1), zero.or(of_body.size()))),
            },
            FoldKind::Filter => Guess {
                size: of_range.size,
                declared: None,
                entries: Some((Size::of(1), zero.or(item.size()))),
            },
            FoldKind::TransformMap | FoldKind::TransformMapEntry => Guess {
                size: of_range.size,
                declared: None,
                entries: Some((of_range.key().size(), zero.or(of_body.size()))),
            },
        };
        (cost, guess)
    }

    fn call(&mut self, overloads: &[&'static Overload], arguments: &[Step]) -> (u64, Guess) {
        let (mut cost, mut guesses) = (0u64, Vec::with_capacity(arguments.len()));
        for argument in arguments {
            let (own, guess) = self.estimate(argument);
            cost = cost.saturating_add(own);
            guesses.push(guess);
        }
        let own = overloads.iter().map(|overload| of_call(overload, &guesses)).max().unwrap_or(0);
        let guess = overloads.first().map(|overload| result(overload, &guesses)).unwrap_or_default();
        (cost.saturating_add(own), guess)
    }
}

fn sum(first: u64, rest: impl IntoIterator<Item = u64>) -> u64 {
    rest.into_iter().fold(first, u64::saturating_add)
}

fn literal(value: &Value<'_>) -> Guess {
    match value {
        Value::Type(_) | Value::Opaque(_) => Guess::default(),
        value => Guess::sized(Size::of(value.size())),
    }
}

/// What a call costs at most besides its arguments.
fn of_call(overload: &Overload, guesses: &[Guess]) -> u64 {
    let size = |at: usize| guesses.get(at).map_or(UNKNOWN, Guess::size).most;
    // Of what has no limit the product has none.
    let product = |a: u64, b: u64| a.saturating_mul(b);
    match overload.cost {
        Cost::Fixed(cost) => cost,
        Cost::Letters { of, times } => letters(size(of) as f64 * times),
        Cost::Result { .. } => letters(joined(guesses).most as f64),
        Cost::Both => letters(size(0).saturating_add(size(1)) as f64),
        Cost::Shorter => letters(size(0).min(size(1)) as f64),
        Cost::Items { of } => size(of),
        Cost::ItemsAndLetters => {
            let with_letters = matches!(&overload.arguments[0], Type::List(of) if matches!(**of, Type::String | Type::Bytes | Type::Parameter(_)));
            let item = guesses[0].item();
            let of_letters = match item.declared.as_ref().map(|declared| &declared.kind) {
                Some(Type::String | Type::Bytes) => letters(item.size().most as f64),
                None if with_letters => letters(item.size().most as f64),
                _ => 0,
            };
            product(size(0), of_letters.saturating_add(1))
        }
        Cost::Search => product(letters(size(0) as f64), letters(size(1) as f64)),
        Cost::Expression => product(letters(size(0) as f64 + 1.0), (size(1) as f64 * 0.25).ceil() as u64),
        Cost::Pairs { times } => (product(size(0), size(1)) as f64 * times) as u64,
        Cost::Addresses { times, extra } => {
            let text = match overload.arguments[1] {
                Type::String => letters(size(1) as f64),
                _ => 0,
            };
            sum(letters(16.0 * times), [extra, text])
        }
    }
}

/// What is known of the result of a call.
fn result(overload: &Overload, guesses: &[Guess]) -> Guess {
    let size = |at: usize| guesses.get(at).map_or(UNKNOWN, Guess::size);
    match overload.name {
        "_[_]" | "_[?_]" => guesses[0].item(),
        "dyn" | "optional.of" | "value" | "orValue" | "or" => guesses[0].clone(),
        "_+_" => {
            let entries = guesses[0].entries.zip(guesses[1].entries);
            let entries = entries.map(|(a, b)| (a.0.or(b.0), a.1.or(b.1)));
            match overload.result {
                Type::String | Type::Bytes | Type::List(_) => {
                    Guess { size: Some(size(0).plus(size(1))), declared: None, entries }
                }
                _ => Guess::default(),
            }
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" => Guess::sized(size(0)),
        "replace" => Guess::sized(replaced(size(0), size(1), size(2))),
        "split" | "find" | "findAll" => Guess::sized(Size { least: 0, most: size(0).most }),
        "join" => Guess::sized(joined(guesses)),
        "format" => Guess::sized(size(0).plus(size(1))),
        "strings.quote" => Guess::sized(size(0).times(Size::of(2)).plus(Size::of(2))),
        "bytes" => Guess::sized(Size { least: size(0).least, most: size(0).most.saturating_mul(4) }),
        "string" if overload.arguments[0] == Type::Bytes => {
            Guess::sized(Size { least: size(0).least / 4, most: size(0).most })
        }
        "string" if overload.arguments[0] == Type::String => Guess::sized(size(0)),
        _ => Guess::default(),
    }
}

fn joined(guesses: &[Guess]) -> Size {
    let count = guesses[0].size();
    let separator = guesses.get(1).map_or(Size::of(0), Guess::size);
    let between = Size { least: count.least.saturating_sub(1), most: count.most.saturating_sub(1) };
    count.times(guesses[0].item().size()).plus(separator.times(between))
}

fn replaced(of: Size, from: Size, to: Size) -> Size {
    let most = match from.least {
        // Between all letters there is room for something.
        0 => of.most.saturating_add(1).saturating_mul(to.most).saturating_add(of.most),
        least if to.most <= least => of.most,
        least => of.most.div_ceil(least).saturating_mul(to.most),
    };
    Size { least: 0, most }
}
