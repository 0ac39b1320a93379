//! Finds the type of every part of an expression, and what each name in it means.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Environment;
use super::functions::{self, conversions};
use super::step::{Fold, Step, StepKind};
use super::syntax::{self, Access, Expr, FoldKind, Issue, Item, Kind};
use super::types::{Declared, Type};
use super::value::{Key, Text, Value};

/// What a check comes to: the expression, and the variables that it uses.
pub(super) type Checked = (Step, BTreeSet<usize>);

/// Checks an expression.
pub(super) fn check(environment: &Environment, expr: &Expr) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        environment,
        locals: Vec::new(),
        open: Vec::new(),
        issues: Vec::new(),
        used: BTreeSet::new(),
    };
    let step = checker.check(expr);
    match checker.issues.is_empty() {
        true => Ok((step, checker.used)),
        false => {
            checker.issues.sort_by_key(|issue| issue.at);
            Err(checker.issues)
        }
    }
}

struct Checker<'e> {
    environment: &'e Environment,
    locals: Vec<(Arc<str>, Type)>,
    /// What was found for types that are to be found.
    open: Vec<Option<Type>>,
    issues: Vec<Issue>,
    used: BTreeSet<usize>,
}

// === impl Checker ===

impl Checker<'_> {
    fn complain(&mut self, at: usize, message: String) {
        self.issues.push(Issue { at, message });
    }

    fn check(&mut self, expr: &Expr) -> Step {
        let at = expr.at;
        let (kind, result) = match &expr.kind {
            Kind::Literal(value) => (StepKind::Literal(value.clone()), value.kind()),
            Kind::Ident(name) => match self.variable(name) {
                Some(found) => found,
                None => {
                    self.complain(at, format!("undeclared reference to '{name}' (in container '')"));
                    (StepKind::Literal(Value::Null), Type::Dyn)
                }
            },
            Kind::Select { of, name, access } => self.select(expr, of, name, *access),
            Kind::Call { name, target, arguments } => self.call(at, name, target.as_deref(), arguments),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.structure(at, name, fields),
            Kind::Logic { any, terms } => self.logic(at, *any, terms),
            Kind::Choice(three) => self.choice(at, three),
            Kind::Fold(fold) => self.fold(fold),
            Kind::OptionalMap { of, variable, body, flat } => self.optional_map(of, variable, body, *flat),
        };
        let result = self.found(&result);
        Step { kind, result }
    }

    /// What a name means, with its dots.
    fn variable(&mut self, name: &str) -> Option<(StepKind, Type)> {
        if let Some(at) = self.locals.iter().rposition(|(known, _)| **known == *name) {
            return Some((StepKind::Local(at), self.locals[at].1.clone()));
        }
        if let Some(at) = self.environment.variables.iter().position(|(known, _)| **known == *name) {
            self.used.insert(at);
            return Some((StepKind::Global(at), self.environment.variables[at].1.kind.clone()));
        }
        Type::named(name).map(|kind| (StepKind::Literal(Value::Type(kind)), Type::Type))
    }

    fn is_local(&self, name: &str) -> bool {
        let root = name.split('.').next().unwrap_or(name);
        self.locals.iter().any(|(known, _)| **known == *root)
    }

    fn select(&mut self, expr: &Expr, of: &Expr, name: &Arc<str>, access: Access) -> (StepKind, Type) {
        let qualified = expr.qualified().filter(|qualified| !self.is_local(qualified));
        if let Some(found) = qualified.and_then(|qualified| self.variable(&qualified)) {
            return found;
        }
        let of = self.check(of);
        let member = match &of.result {
            Type::Optional(inner) => self.member(expr.at, inner, name).optional(),
            other => self.member(expr.at, other, name),
        };
        let result = match (access, &member) {
            (Access::Presence, _) => Type::Bool,
            (Access::Optional, Type::Optional(_)) | (Access::Value, _) => member,
            (Access::Optional, _) => member.optional(),
        };
        (StepKind::Select { of: Box::new(of), key: Key::String(name.clone()), access }, result)
    }

    fn member(&mut self, at: usize, of: &Type, name: &str) -> Type {
        match of {
            Type::Object(object) => match object.field(name) {
                Some(field) => return field.kind.clone(),
                None => self.complain(at, format!("undefined field '{name}'")),
            },
            Type::Map(_, value) => return (**value).clone(),
            Type::Dyn | Type::Open(_) | Type::Struct(_) => {}
            other => self.complain(at, format!("type '{other}' does not support field selection")),
        }
        Type::Dyn
    }

    fn call(&mut self, at: usize, name: &str, target: Option<&Expr>, arguments: &[Expr]) -> (StepKind, Type) {
        let qualified = target.and_then(Expr::qualified).filter(|qualified| !self.is_local(qualified));
        let namespaced = qualified.map(|qualified| functions::overloads(&format!("{qualified}.{name}")));
        let (candidates, on_value) = match namespaced.filter(|found| !found.is_empty()) {
            Some(found) => (found, false),
            None => (functions::overloads(name), target.is_some()),
        };
        let target = target.filter(|_| on_value);
        let mut steps: Vec<Step> = target.into_iter().chain(arguments).map(|one| self.check(one)).collect();
        if candidates.is_empty() {
            self.complain(at, format!("undeclared reference to '{name}' (in container '')"));
            return (StepKind::Literal(Value::Null), Type::Dyn);
        }
        let kinds: Vec<Type> = steps.iter().map(|step| self.found(&step.result)).collect();
        let mut results: Vec<Type> = Vec::new();
        let mut overloads = Vec::new();
        for overload in
            candidates.iter().filter(|one| one.on_value == on_value && one.arguments.len() == kinds.len())
        {
            let before = self.open.clone();
            let parameters = [(); 3].map(|()| self.fresh());
            let fits = overload
                .arguments
                .iter()
                .zip(&kinds)
                .all(|(wanted, found)| self.takes(&instance(wanted, &parameters), found));
            if !fits {
                self.open = before;
                continue;
            }
            overloads.push(overload);
            let result = self.found(&instance(&overload.result, &parameters));
            if !results.contains(&result) {
                results.push(result);
            }
        }
        if overloads.is_empty() {
            let shown: Vec<String> = kinds.iter().map(ToString::to_string).collect();
            let applied = match on_value {
                true => format!("{}.({})", shown[0], shown[1..].join(", ")),
                false => format!("({})", shown.join(", ")),
            };
            self.complain(at, format!("found no matching overload for '{name}' applied to '{applied}'"));
        }
        self.check_literals(name, target.into_iter().chain(arguments), &mut steps);
        let result = if results.len() == 1 { results.remove(0) } else { Type::Dyn };
        (StepKind::Call { overloads, arguments: steps }, result)
    }

    /// Literals that stand for something else are read now: expressions, points and spans in time.
    fn check_literals<'x>(&mut self, name: &str, exprs: impl Iterator<Item = &'x Expr>, steps: &mut [Step]) {
        for (at, expr) in exprs.enumerate() {
            let Kind::Literal(Value::String(text)) = &expr.kind else { continue };
            let is_valid = match (name, at) {
                ("matches" | "find" | "findAll", 1) => {
                    let pattern = Text::pattern(text);
                    let is_valid = pattern.is_some();
                    if let Some(pattern) = pattern {
                        steps[at].kind = StepKind::Literal(Value::String(pattern));
                    }
                    is_valid
                }
                ("timestamp", 0) => conversions::timestamp(text).is_some(),
                ("duration", 0) => conversions::duration(text).is_some(),
                _ => true,
            };
            if !is_valid {
                self.complain(expr.at, format!("invalid {name} argument"));
            }
        }
    }

    /// An item of a literal; of an optional one what is in it.
    fn item(&mut self, item: &Item) -> (Step, Type) {
        let step = self.check(&item.value);
        let kind = match &step.result {
            Type::Optional(inner) if item.optional => (**inner).clone(),
            Type::Dyn if item.optional => Type::Dyn,
            other => {
                let other = other.clone();
                if item.optional {
                    self.complain(
                        item.value.at,
                        format!("expected type 'optional_type({other})' but found '{other}'"),
                    );
                }
                other
            }
        };
        (step, kind)
    }

    /// Holds the type of an item against that of those before it.
    fn same(&mut self, at: usize, known: &mut Option<Type>, found: Type) {
        match known {
            None => *known = Some(found),
            Some(wanted) => {
                let wanted = wanted.clone();
                if !self.takes(&wanted, &found) {
                    let (wanted, found) = (self.found(&wanted), self.found(&found));
                    self.complain(at, format!("expected type '{wanted}' but found '{found}'"));
                }
            }
        }
    }

    fn list(&mut self, items: &[Item]) -> (StepKind, Type) {
        let (mut steps, mut kind) = (Vec::with_capacity(items.len()), None);
        for item in items {
            let (step, found) = self.item(item);
            self.same(item.value.at, &mut kind, found);
            steps.push((item.optional, step));
        }
        let kind = kind.unwrap_or_else(|| self.fresh());
        (StepKind::List(steps), kind.list())
    }

    fn map(&mut self, entries: &[(Item, Expr)]) -> (StepKind, Type) {
        let (mut steps, mut keys, mut values) = (Vec::with_capacity(entries.len()), None, None);
        for (key, value) in entries {
            let of_key = self.check(&key.value);
            self.same(key.value.at, &mut keys, of_key.result.clone());
            let item = Item { optional: key.optional, value: value.clone() };
            let (of_value, found) = self.item(&item);
            self.same(value.at, &mut values, found);
            steps.push((key.optional, of_key, of_value));
        }
        let keys = keys.unwrap_or_else(|| self.fresh());
        let values = values.unwrap_or_else(|| self.fresh());
        (StepKind::Map(steps), Type::Map(Arc::new(keys), Arc::new(values)))
    }

    fn structure(&mut self, at: usize, name: &Arc<str>, fields: &[(Arc<str>, Item)]) -> (StepKind, Type) {
        let known = self.environment.structs.iter().any(|root| {
            name.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if !known {
            self.complain(at, format!("undeclared reference to '{name}' (in container '')"));
        }
        let mut steps = Vec::with_capacity(fields.len());
        for (field, item) in fields {
            let (step, found) = self.item(item);
            self.check_nested(item.value.at, name, field, &found);
            steps.push((field.clone(), item.optional, step));
        }
        (StepKind::Struct { name: name.clone(), fields: steps }, Type::Struct(name.clone()))
    }

    /// A value of a named type belongs where its name says: `Object.spec{}` into the field `spec` of an `Object`.
    fn check_nested(&mut self, at: usize, name: &str, field: &str, found: &Type) {
        let nested = match found {
            Type::List(of) => match &**of {
                Type::Struct(nested) => nested,
                _ => return,
            },
            Type::Struct(nested) => nested,
            _ => return,
        };
        let expected = format!("{name}.{field}");
        let is_patch = name == "JSONPatch" && field == "value";
        if !is_patch && **nested != *expected {
            let message =
                format!("expected type of field '{field}' is '{expected}' but provided type is '{nested}'");
            self.complain(at, message);
        }
    }

    fn logic(&mut self, at: usize, any: bool, terms: &[Expr]) -> (StepKind, Type) {
        let steps: Vec<Step> = terms.iter().map(|term| self.check(term)).collect();
        let kinds: Vec<Type> = steps.iter().map(|step| step.result.clone()).collect();
        for (index, kind) in kinds.iter().enumerate() {
            if !self.takes(&Type::Bool, kind) {
                let sign = if any { "||" } else { "&&" };
                let pair = match index {
                    0 => format!("{kind}, {}", kinds[1]),
                    _ => format!("bool, {kind}"),
                };
                self.complain(at, format!("found no matching overload for '_{sign}_' applied to '({pair})'"));
                break;
            }
        }
        (StepKind::Logic { any, terms: steps }, Type::Bool)
    }

    fn choice(&mut self, at: usize, three: &[Expr; 3]) -> (StepKind, Type) {
        let steps = [self.check(&three[0]), self.check(&three[1]), self.check(&three[2])];
        let kinds = [0, 1, 2].map(|index| self.found(&steps[index].result));
        let [condition, yes, no] = &kinds;
        let fits = self.takes(yes, no);
        let result = if fits && *yes != Type::Null { yes.clone() } else { no.clone() };
        if !fits || !self.takes(&Type::Bool, condition) {
            let message =
                format!("found no matching overload for '_?_:_' applied to '({condition}, {yes}, {no})'");
            self.complain(at, message);
        }
        // What may be of any type in one case is so in all.
        let result = if *yes == Type::Dyn || *no == Type::Dyn { Type::Dyn } else { result };
        (StepKind::Choice(Box::new(steps)), result)
    }

    fn fold(&mut self, fold: &syntax::Fold) -> (StepKind, Type) {
        let range = self.check(&fold.range);
        let (key, item, single) = match &range.result {
            Type::List(item) => (Type::Int, (**item).clone(), (**item).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone(), (**key).clone()),
            Type::Dyn | Type::Open(_) => (Type::Dyn, Type::Dyn, Type::Dyn),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.complain(fold.range.at, message);
                (Type::Dyn, Type::Dyn, Type::Dyn)
            }
        };
        let outer = self.locals.len();
        match &fold.second {
            None => self.locals.push((fold.variable.clone(), single.clone())),
            Some(second) => {
                self.locals.push((fold.variable.clone(), key.clone()));
                self.locals.push((second.clone(), item));
            }
        }
        let filter = fold.filter.as_ref().map(|filter| self.condition(filter));
        let is_condition =
            matches!(fold.kind, FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne | FoldKind::Filter);
        let body = if is_condition { self.condition(&fold.body) } else { self.check(&fold.body) };
        self.locals.truncate(outer);
        let result = match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Type::Bool,
            FoldKind::Map => body.result.clone().list(),
            FoldKind::Filter => single.list(),
            FoldKind::TransformMap => Type::Map(Arc::new(key), Arc::new(body.result.clone())),
            FoldKind::TransformMapEntry => body.result.clone(),
        };
        let two = fold.second.is_some();
        (StepKind::Fold(Box::new(Fold { kind: fold.kind, range, two, filter, body })), result)
    }

    fn condition(&mut self, expr: &Expr) -> Step {
        let step = self.check(expr);
        if !self.takes(&Type::Bool, &step.result) {
            self.complain(expr.at, format!("expected type 'bool' but found '{}'", step.result));
        }
        step
    }

    fn optional_map(&mut self, of: &Expr, variable: &Arc<str>, body: &Expr, flat: bool) -> (StepKind, Type) {
        let at = of.at;
        let of = self.check(of);
        let inner = match &of.result {
            Type::Optional(inner) => (**inner).clone(),
            Type::Dyn | Type::Open(_) => Type::Dyn,
            other => {
                self.complain(
                    at,
                    format!("found no matching overload for 'hasValue' applied to '{other}.()'"),
                );
                Type::Dyn
            }
        };
        self.locals.push((variable.clone(), inner));
        let body = self.check(body);
        self.locals.pop();
        let result = if flat { body.result.clone() } else { body.result.clone().optional() };
        (StepKind::OptionalMap { of: Box::new(of), body: Box::new(body), flat }, result)
    }

    // What types fit into each other.

    fn fresh(&mut self) -> Type {
        self.open.push(None);
        Type::Open(self.open.len() - 1)
    }

    /// A type with what was found for the types in it that were to be found.
    fn found(&self, kind: &Type) -> Type {
        match kind {
            Type::Open(at) => match &self.open[*at] {
                Some(found) => self.found(found),
                None => kind.clone(),
            },
            Type::List(of) => self.found(of).list(),
            Type::Optional(of) => self.found(of).optional(),
            Type::Map(key, value) => Type::Map(Arc::new(self.found(key)), Arc::new(self.found(value))),
            other => other.clone(),
        }
    }

    /// Whether a value of one type may stand where one of another is wanted. Types that are to be found are settled by it.
    fn takes(&mut self, wanted: &Type, found: &Type) -> bool {
        let (wanted, found) = (self.found(wanted), self.found(found));
        match (&wanted, &found) {
            (Type::Open(a), Type::Open(b)) if a == b => true,
            (Type::Open(at), other) | (other, Type::Open(at)) => {
                if mentions(other, *at) {
                    return false;
                }
                self.open[*at] = Some(other.clone());
                true
            }
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null
                    | Type::Object(_)
                    | Type::Struct(_)
                    | Type::Opaque(_)
                    | Type::Optional(_)
                    | Type::Timestamp
                    | Type::Duration
            ),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.takes(a, b),
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                self.takes(key, other_key) && self.takes(value, other_value)
            }
            (a, b) => a == b,
        }
    }
}

/// A type of a signature with types in the place of its parameters.
fn instance(kind: &Type, parameters: &[Type; 3]) -> Type {
    match kind {
        Type::Parameter(at) => parameters[usize::from(*at)].clone(),
        Type::List(of) => instance(of, parameters).list(),
        Type::Optional(of) => instance(of, parameters).optional(),
        Type::Map(key, value) => {
            Type::Map(Arc::new(instance(key, parameters)), Arc::new(instance(value, parameters)))
        }
        other => other.clone(),
    }
}

fn mentions(kind: &Type, open: usize) -> bool {
    match kind {
        Type::Open(at) => *at == open,
        Type::List(of) | Type::Optional(of) => mentions(of, open),
        Type::Map(key, value) => mentions(key, open) || mentions(value, open),
        _ => false,
    }
}

/// What an environment declares, for estimates.
pub(super) fn declared(environment: &Environment, at: usize) -> Option<&Arc<Declared>> {
    environment.variables.get(at).map(|(_, declared)| declared)
}
