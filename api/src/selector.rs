//! Label and field selectors, in their text and their object form.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

mod parse;

/// Labels to select by.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|labels| labels.label(key))
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

/// What a requirement says of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It is there, with one of the values.
    In,
    /// It is not there, or with another value.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// Its value is a greater number.
    GreaterThan,
    /// Its value is a lesser number.
    LessThan,
}

/// One requirement on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Key of the label.
    pub key: String,
    /// What is said of it.
    pub operator: Operator,
    /// Values, sorted.
    pub values: Vec<String>,
}

/// A conjunction of requirements on labels; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One requirement on fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Path: `spec.nodeName`.
    pub field: String,
    /// Whether the value must be equal, or must not.
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// A conjunction of requirements on fields; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

/// Why a selector does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A requirement on labels is malformed.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// A key is no label's.
    #[error("key: Invalid value: {}: {reason}", crate::field::quote(.key))]
    Key {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// A value is no label's.
    #[error("values[{index}][{key}]: Invalid value: {}: {reason}", crate::field::quote(.value))]
    Value {
        /// The key.
        key: String,
        /// Which value.
        index: usize,
        /// The value.
        value: String,
        /// Why.
        reason: String,
    },
    /// Operator and values do not go together.
    #[error("values: Invalid value: {values:?}: {reason}")]
    Values {
        /// The values.
        values: Vec<String>,
        /// Why.
        reason: String,
    },
    /// An operator that does not exist.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    /// A field selector is malformed.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Field {
        /// The whole.
        selector: String,
        /// The part.
        term: String,
    },
    /// A field selector with a bad escape.
    #[error("invalid field selector: {0}")]
    Escape(String),
}

// === impl Requirement ===

impl Requirement {
    /// A checked requirement.
    pub fn new(key: impl Into<String>, operator: Operator, values: Vec<String>) -> Result<Self, ParseError> {
        let key = key.into();
        if let Some(reason) = crate::name::qualified_name(&key).into_iter().next() {
            return Err(ParseError::Key { key, reason });
        }
        let reason = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            Operator::GreaterThan | Operator::LessThan if values[0].parse::<i64>().is_err() => {
                Some("for 'Gt', 'Lt' operators, the value must be an integer")
            }
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(ParseError::Values { values, reason: reason.to_owned() });
        }
        for (index, value) in values.iter().enumerate() {
            if let Some(reason) = crate::name::label_value(value).into_iter().next() {
                return Err(ParseError::Value { key, index, value: value.clone(), reason });
            }
        }
        let mut values = values;
        values.sort();
        values.dedup();
        Ok(Self { key, operator, values })
    }

    /// Whether labels fulfil it.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.label(&self.key);
        let among = |value: &str| self.values.iter().any(|wanted| wanted == value);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        let bound = || self.values.first().and_then(|bound| bound.parse::<i64>().ok());
        match self.operator {
            Operator::In => value.is_some_and(among),
            Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => number().zip(bound()).is_some_and(|(value, bound)| value > bound),
            Operator::LessThan => number().zip(bound()).is_some_and(|(value, bound)| value < bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (self.operator, self.values.as_slice()) {
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::In, [only]) => write!(f, "{key}={only}"),
            (Operator::NotIn, [only]) => write!(f, "{key}!={only}"),
            (Operator::In, values) => write!(f, "{key} in ({})", values.join(",")),
            (Operator::NotIn, values) => write!(f, "{key} notin ({})", values.join(",")),
            (Operator::GreaterThan, values) => write!(f, "{key}>{}", values.join(",")),
            (Operator::LessThan, values) => write!(f, "{key}<{}", values.join(",")),
        }
    }
}

// === impl LabelSelector ===

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Parses the text form: `app=web,tier in (a,b),!old`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self { requirements: parse::requirements(text)?, nothing: false })
    }

    /// Reads the object form, `matchLabels` and `matchExpressions`. A missing selector (null) selects nothing, an
    /// empty one everything.
    pub fn from_object(selector: &Value) -> Result<Self, ParseError> {
        let Value::Object(map) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in map.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            requirements.push(Requirement::new(key, Operator::In, values)?);
        }
        for expression in map.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(ParseError::Operator(other.to_owned())),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::new(
                expression["key"].as_str().unwrap_or_default(),
                operator,
                values,
            )?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Selects by equal labels, as Services do. No labels at all select nothing.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements: Vec<Requirement> = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.to_owned(),
                operator: Operator::In,
                values: vec![value.to_owned()],
            })
            .collect();
        Self { nothing: requirements.is_empty(), requirements }
    }

    /// Whether labels fulfil all requirements.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

// === impl FieldSelector ===

impl FieldSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Parses `metadata.name=web,status.phase!=Failed`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self { requirements: parse::field_requirements(text)? })
    }

    /// The requirements.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that a field must have.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let found =
            self.requirements.iter().find(|requirement| requirement.equal && requirement.field == field);
        found.map(|requirement| requirement.value.as_str())
    }

    /// Whether the fields that `value` tells fulfil all requirements; a field that is not there is empty.
    pub fn matches<'a>(&self, mut value: impl FnMut(&str) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let actual = value(&requirement.field);
            (actual.as_deref().unwrap_or_default() == requirement.value) == requirement.equal
        })
    }

    /// Whether an object fulfils all requirements, each field read from its path.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(|field| field_text(object, field))
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let operator = if requirement.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", requirement.field, parse::escape(&requirement.value))?;
        }
        Ok(())
    }
}

/// The text of a scalar at a dotted path.
pub fn field_text<'a>(object: &'a Value, path: &str) -> Option<std::borrow::Cow<'a, str>> {
    let value = path.split('.').try_fold(object, |value, segment| value.get(segment))?;
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Bool(flag) => Some(flag.to_string().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
