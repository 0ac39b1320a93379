//! kubectl's dialect of JSONPath: text with `{…}` in it, ranges, filters, unions, slices.

use serde_json::Value;

mod eval;
mod parse;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Node>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Written as it is.
    Text(String),
    /// What the steps find, separated by blanks.
    Path(Vec<Step>),
    /// The body, once for each value that the steps find.
    Range(Vec<Step>, Vec<Node>),
}

/// One step from values to values.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// The member of that name.
    Field(String),
    /// All members or items.
    Wildcard,
    /// One item; negative: from the end.
    Index(i64),
    /// Items from, up to (exclusive), every so many.
    Slice(Option<i64>, Option<i64>, i64),
    /// What each of the paths finds.
    Union(Vec<Vec<Step>>),
    /// Items for which it holds.
    Filter(Operand, Option<(Comparison, Operand)>),
    /// The value and all values in it that have members or items.
    Recursive,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no template.
    #[error("error parsing jsonpath {template}, {reason}")]
    Parse {
        /// The whole text.
        template: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not fit the value.
    #[error("{0}")]
    Eval(String),
}

// === impl Template ===

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::template(text).map(Self).map_err(|reason| Error::Parse { template: text.to_owned(), reason })
    }

    /// Parses one path, whose braces and leading dot may be missing.
    pub fn relaxed(text: &str) -> Result<Self, Error> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let inner = inner.strip_prefix('.').unwrap_or(inner);
        if inner.is_empty() || inner.contains(['{', '}']) {
            let reason = "it must be one path such as .metadata.name".to_owned();
            return Err(Error::Parse { template: text.to_owned(), reason });
        }
        let dot = if inner.starts_with('[') { "" } else { "." };
        Self::parse(&format!("{{{dot}{inner}}}"))
    }

    /// The text that the template gives for a value. What a path does not find is empty.
    pub fn render(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        eval::render(&self.0, value, &mut out).map_err(Error::Eval)?;
        Ok(out)
    }

    /// All values that the template's paths find.
    pub fn find<'a>(&self, value: &'a Value) -> Result<Vec<&'a Value>, Error> {
        let mut found = Vec::new();
        for node in &self.0 {
            if let Node::Path(steps) = node {
                found.extend(eval::walk(steps, vec![value]).map_err(Error::Eval)?);
            }
        }
        Ok(found)
    }
}

/// A value as templates print it: text as it is, what has parts as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
