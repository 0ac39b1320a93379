//! Holds a custom resource against its schema, with the words and paths of Kubernetes.
//!
//! What an update leaves as it was is not held against a schema that has become stricter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use super::rules::{Budget, Subject};
use super::{Bound, JsonType, Node, Range, Rules, formats};
use crate::field::{ErrorKind, FieldError, quote};
use crate::json::found::MAX_FOUND;
use crate::schema::ListType;

/// Where a value is.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

/// Complaints that no single field is to blame for.
pub(super) const NOWHERE: &str = "<nil>";

/// What is said when there is no use in checking rules.
const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

// === impl Place ===

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Field(Place::Root, name) => f.write_str(shown(name)),
            Place::Field(parent, name) => write!(f, "{parent}.{}", shown(name)),
            Place::Index(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}

/// A name in a path, as far as it helps to find the place: a key may be as large as a request, and before very many places.
fn shown(name: &str) -> &str {
    const ENOUGH: usize = 256;
    name.char_indices().nth(ENOUGH).map_or(name, |(end, _)| &name[..end])
}

impl Place<'_> {
    fn path(&self) -> String {
        match self {
            Place::Root => NOWHERE.to_owned(),
            place => place.to_string(),
        }
    }
}

impl Node {
    /// Checks a whole object; `old` is what it was before.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.check_value(object, old, &Place::Root, &mut errors);
        // Rules rest on the types and the presence of what they name.
        let blocking = |error: &FieldError| {
            use ErrorKind::{Required, TooLong, TooMany, TypeInvalid};
            matches!(error.kind, Required | TooLong | TooMany | TypeInvalid)
        };
        match errors.iter().any(blocking) {
            true if self.has_conditions => errors.push(FieldError::invalid(NOWHERE, "null", UNCHECKED)),
            true => {}
            false => self.check_conditions((object, old), &Place::Root, &mut Budget::default(), &mut errors),
        }
        errors
    }

    /// Holds a value, and what is in it, against the conditions of its schema.
    fn check_conditions(
        &self,
        (value, old): (&Value, Option<&Value>),
        place: &Place<'_>,
        budget: &mut Budget,
        errors: &mut Vec<FieldError>,
    ) {
        if !self.has_conditions || value.is_null() || old == Some(value) {
            return;
        }
        let whole = self.embedded || matches!(place, Place::Root);
        for rule in &self.conditions {
            let subject = Subject { value, old, path: &place.path(), whole };
            errors.extend(rule.check(self, subject, budget));
        }
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let Some(node) = self.member(name) else { continue };
                    let old = old.and_then(|old| old.get(name));
                    node.check_conditions((value, old), &Place::Field(place, name), budget, errors);
                }
            }
            Value::Array(items) => {
                let Some(node) = &self.items else { return };
                let known = self.known(old);
                for (at, item) in items.iter().enumerate() {
                    let old = known.get(&self.key(item).to_string()).copied();
                    node.check_conditions((item, old), &Place::Index(place, at), budget, errors);
                }
            }
            _ => {}
        }
    }

    /// The items of a list as they were before, by what identifies them.
    fn known<'v>(&self, old: Option<&'v Value>) -> BTreeMap<String, &'v Value> {
        let before = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        match self.list {
            ListType::Map => before.iter().map(|item| (self.key(item).to_string(), item)).collect(),
            ListType::Set => before.iter().map(|item| (item.to_string(), item)).collect(),
            ListType::Atomic => BTreeMap::new(),
        }
    }

    fn check_value(
        &self,
        value: &Value,
        old: Option<&Value>,
        place: &Place<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        // So many complaints are enough: an object of any size gets an answer of bounded size.
        if errors.len() >= MAX_FOUND || old == Some(value) {
            return;
        }
        self.check_type(value, place, errors);
        if value.is_null() {
            return;
        }
        if let Some(rules) = &self.rules {
            rules.check(value, place, errors);
        }
        match value {
            Value::Object(map) => self.check_map(map, old, place, errors),
            Value::Array(items) => self.check_items(items, old, place, errors),
            _ => {}
        }
    }

    fn check_type(&self, value: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
        let found = type_of(value);
        let fits = match (self.kind, value) {
            (_, Value::Null) => self.nullable || (self.kind.is_none() && !self.int_or_string),
            (None, Value::String(_)) => true,
            (None, _) if self.int_or_string => found == "integer",
            (None, _) => true,
            (Some(JsonType::Number), Value::Number(_)) => true,
            (Some(JsonType::Integer), Value::Number(number)) => is_whole(number),
            (Some(kind), _) => kind.as_str() == found,
        };
        if fits {
            return;
        }
        let wanted = self.kind.map_or("integer,string", JsonType::as_str);
        let detail = format!("{place} in body must be of type {wanted}: {}", quote(found));
        errors.push(FieldError::new(ErrorKind::TypeInvalid, place.path(), found, detail));
    }

    fn check_map(
        &self,
        map: &Map<String, Value>,
        old: Option<&Value>,
        place: &Place<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        if self.embedded {
            for field in ["apiVersion", "kind"] {
                if map.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
                    let path = Place::Field(place, field).path();
                    errors.push(FieldError::required(path, "must not be empty"));
                }
            }
        }
        for (name, value) in map {
            if let Some(node) = self.member(name) {
                let old = old.and_then(|old| old.get(name));
                node.check_value(value, old, &Place::Field(place, name), errors);
            }
        }
    }

    fn check_items(
        &self,
        items: &[Value],
        old: Option<&Value>,
        place: &Place<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        let known = self.known(old);
        if let Some(node) = &self.items {
            for (at, item) in items.iter().enumerate() {
                let old = match self.list {
                    ListType::Map => known.get(&self.key(item).to_string()).copied(),
                    ListType::Set => known.get(&item.to_string()).copied(),
                    ListType::Atomic => None,
                };
                node.check_value(item, old, &Place::Index(place, at), errors);
            }
        }
        if self.list == ListType::Atomic {
            return;
        }
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            let key = if self.list == ListType::Map { self.key(item) } else { item.clone() };
            let times = seen.entry(key.to_string()).or_default();
            *times += 1;
            // Told once, however often it is repeated.
            if *times == 2 {
                errors.push(FieldError::duplicate(Place::Index(place, at).path(), key));
            }
        }
    }

    /// What identifies an item of a list of maps.
    fn key(&self, item: &Value) -> Value {
        let default = |key: &str| self.items.as_ref()?.properties.get(key)?.default.as_deref().cloned();
        let keys = self.list_keys.iter().filter_map(|key| {
            let value = item.get(&**key).cloned().or_else(|| default(key))?;
            Some((key.to_string(), value))
        });
        Value::Object(keys.collect())
    }
}

// === impl Rules ===

impl Rules {
    fn check(&self, value: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
        let mut invalid = |value: &Value, what: String| {
            let detail = format!("{place} in body {what}");
            errors.push(FieldError::invalid(place.path(), value.clone(), detail));
        };
        match value {
            Value::Number(number) => self.check_number(number, &mut |what| invalid(value, what)),
            Value::String(text) => {
                self.check_text(text, &mut |what| invalid(value, what));
                self.check_longest(text, place, errors);
            }
            Value::Array(items) => {
                if self.items.least.is_some_and(|least| (items.len() as u64) < least) {
                    let least = self.items.least.unwrap_or_default();
                    invalid(&items.len().into(), format!("should have at least {least} items"));
                }
                let mut seen = BTreeSet::new();
                if self.unique && !items.iter().all(|item| seen.insert(item.to_string())) {
                    invalid(value, "shouldn't contain duplicates".to_owned());
                }
                too_many(self.items, items.len(), place, errors);
            }
            Value::Object(map) => {
                if self.members.least.is_some_and(|least| (map.len() as u64) < least) {
                    let least = self.members.least.unwrap_or_default();
                    invalid(&map.len().into(), format!("should have at least {least} properties"));
                }
                too_many(self.members, map.len(), place, errors);
                for name in self.required.iter().filter(|name| !map.contains_key(&***name)) {
                    errors.push(FieldError::required(Place::Field(place, name).path(), ""));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        self.check_accepted(value, place, errors);
        self.check_junctors(value, place, errors);
    }

    fn check_number(&self, number: &serde_json::Number, invalid: &mut dyn FnMut(String)) {
        let Some(found) = number.as_f64() else { return };
        if let Some(Bound { limit, exclusive }) = self.minimum {
            match exclusive {
                true if found <= limit => invalid(format!("should be greater than {limit}")),
                false if found < limit => invalid(format!("should be greater than or equal to {limit}")),
                _ => {}
            }
        }
        if let Some(Bound { limit, exclusive }) = self.maximum {
            match exclusive {
                true if found >= limit => invalid(format!("should be less than {limit}")),
                false if found > limit => invalid(format!("should be less than or equal to {limit}")),
                _ => {}
            }
        }
        if let Some(factor) = self.multiple_of.filter(|factor| *factor > 0.0) {
            let times = found / factor;
            if (times - times.round()).abs() > f64::EPSILON * times.abs().max(1.0) {
                invalid(format!("should be a multiple of {factor}"));
            }
        }
    }

    fn check_text(&self, text: &str, invalid: &mut dyn FnMut(String)) {
        if let Some(least) = self.length.least
            && (text.chars().count() as u64) < least
        {
            invalid(format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = &self.pattern
            && !pattern.matches(text)
        {
            invalid(format!("should match '{}'", pattern.text));
        }
    }

    fn check_longest(&self, text: &str, place: &Place<'_>, errors: &mut Vec<FieldError>) {
        if let Some(most) = self.length.most
            && text.chars().count() as u64 > most
        {
            errors.push(FieldError::too_long(place.path(), most as usize));
        }
        if let Some(format) = &self.format
            && !formats::has(format, text)
        {
            let detail = format!("{place} in body must be of type {format}: {}", quote(text));
            errors.push(FieldError::new(ErrorKind::TypeInvalid, place.path(), text, detail));
        }
    }

    fn check_accepted(&self, value: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
        if self.accepted.is_empty() || self.accepted.contains(value) {
            return;
        }
        let words: Vec<String> = self
            .accepted
            .iter()
            .map(|accepted| accepted.as_str().map_or_else(|| accepted.to_string(), str::to_owned))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(place.path(), value.clone(), &words));
    }

    fn check_junctors(&self, value: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
        let complaints = |node: &Node| {
            let mut errors = Vec::new();
            node.check_value(value, None, place, &mut errors);
            errors
        };
        let own = quote(&place.to_string());
        let mut complain = |what: String| errors.push(FieldError::invalid(NOWHERE, "", what));
        let mut below = Vec::new();
        if !self.all_of.is_empty() {
            let failed: Vec<_> =
                self.all_of.iter().map(complaints).filter(|found| !found.is_empty()).collect();
            if failed.len() == self.all_of.len() {
                complain(format!("{own} must validate all the schemas (allOf). None validated"));
            } else if !failed.is_empty() {
                complain(format!("{own} must validate all the schemas (allOf)"));
            }
            below.extend(failed.into_iter().flatten());
        }
        if !self.any_of.is_empty() {
            let found: Vec<_> = self.any_of.iter().map(complaints).collect();
            if found.iter().all(|found| !found.is_empty()) {
                complain(format!("{own} must validate at least one schema (anyOf)"));
                // The alternative that is closest.
                below.extend(found.into_iter().min_by_key(Vec::len).unwrap_or_default());
            }
        }
        if !self.one_of.is_empty() {
            let found: Vec<_> = self.one_of.iter().map(complaints).collect();
            match found.iter().filter(|found| found.is_empty()).count() {
                1 => {}
                0 => {
                    let none = "must validate one and only one schema (oneOf). Found none valid";
                    complain(format!("{own} {none}"));
                    below.extend(found.into_iter().min_by_key(Vec::len).unwrap_or_default());
                }
                several => complain(format!(
                    "{own} must validate one and only one schema (oneOf). Found {several} valid alternatives"
                )),
            }
        }
        if self.not.as_ref().is_some_and(|not| complaints(not).is_empty()) {
            complain(format!("{own} must not validate the schema (not)"));
        }
        errors.extend(below);
    }
}

fn too_many(range: Range, found: usize, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if let Some(most) = range.most
        && found as u64 > most
    {
        errors.push(FieldError::too_many(place.path(), found, most as usize));
    }
}

/// A number without a fraction, however it is written.
fn is_whole(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_whole(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
