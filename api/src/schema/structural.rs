//! The schema of a custom resource as one tree, read from the `openAPIV3Schema` of its definition: what pruning,
//! defaults and checks of custom resources walk.

use std::cell::RefCell;

use regex::Regex;
use serde_json::{Map, Value};

use super::ListType;

mod checks;
mod compile;
mod formats;
mod properties;
mod pruning;
mod rules;

pub(crate) use formats::has as has_format;
pub(crate) use properties::Properties;
pub(crate) use rules::{Compiled, Rule, Uncompiled};

/// A type that JSON knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonType {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
}

/// What an object may have besides its properties.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// Nothing.
    #[default]
    Nothing,
    /// Anything.
    Anything,
    /// Values of one schema.
    Of(Box<Node>),
}

/// One place of an object.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub kind: Option<JsonType>,
    pub nullable: bool,
    /// Fields that are not specified stay.
    pub preserve: bool,
    /// It is an object of the API itself.
    pub embedded: bool,
    pub int_or_string: bool,
    pub default: Option<Box<Value>>,
    pub properties: Properties,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    pub list: ListType,
    pub list_keys: Box<[Box<str>]>,
    /// An object is owned as one.
    pub atomic: bool,
    pub rules: Option<Box<Rules>>,
    /// Conditions in CEL.
    pub conditions: Box<[Rule]>,
    /// Whether there are conditions here or below.
    pub has_conditions: bool,
}

/// What is demanded of a value besides its type.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub minimum: Option<Bound>,
    pub maximum: Option<Bound>,
    pub multiple_of: Option<f64>,
    pub length: Range,
    pub items: Range,
    pub members: Range,
    pub unique: bool,
    pub pattern: Option<Pattern>,
    pub format: Option<Box<str>>,
    pub accepted: Vec<Value>,
    pub required: Vec<Box<str>>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
}

/// An end of a range of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub limit: f64,
    /// The limit itself is out of the range.
    pub exclusive: bool,
}

/// How many there may be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Range {
    pub least: Option<u64>,
    pub most: Option<u64>,
}

/// A regular expression in the dialect of Go. No definition keeps it compiled: automata are large, definitions many, and writes
/// of their objects few. Those that were used last stay at hand, for an object may have very many texts under one of them.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub text: Box<str>,
}

thread_local! {
    /// The expressions that a thread has used last.
    static RECENT: RefCell<Vec<(Box<str>, Regex)>> = const { RefCell::new(Vec::new()) };
}

/// So many expressions stay compiled.
const MAX_RECENT: usize = 4;
/// An automaton may take so many bytes.
const PATTERN_SIZE: usize = 1 << 20;

// === impl JsonType ===

impl JsonType {
    fn parse(word: &str) -> Option<JsonType> {
        Some(match word {
            "array" => JsonType::Array,
            "boolean" => JsonType::Boolean,
            "integer" => JsonType::Integer,
            "number" => JsonType::Number,
            "object" => JsonType::Object,
            "string" => JsonType::String,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            JsonType::Array => "array",
            JsonType::Boolean => "boolean",
            JsonType::Integer => "integer",
            JsonType::Number => "number",
            JsonType::Object => "object",
            JsonType::String => "string",
        }
    }
}

// === impl Pattern ===

impl Pattern {
    fn new(text: &str) -> Pattern {
        Pattern { text: text.into() }
    }

    /// Whether a text has a match in it. What is no expression matches nothing.
    pub fn matches(&self, text: &str) -> bool {
        RECENT.with_borrow_mut(|recent| {
            match recent.iter().position(|(known, _)| *known == self.text) {
                Some(at) => recent.swap(0, at),
                None => {
                    let Ok(compiled) = expression(&self.text) else { return false };
                    recent.truncate(MAX_RECENT - 1);
                    recent.insert(0, (self.text.clone(), compiled));
                }
            }
            recent.first().is_some_and(|(_, compiled)| compiled.is_match(text))
        })
    }
}

/// Why a text is no regular expression.
pub(crate) fn pattern_fault(text: &str) -> Option<String> {
    expression(text).err().map(|error| error.to_string())
}

/// A regular expression in the dialect of Go, ready to be used.
pub(crate) fn expression(text: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&ascii(text)).size_limit(PATTERN_SIZE).build()
}

/// The expression with the classes of letters that a backslash names as Go means them: those of ASCII.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('W') => out.push_str("[^0-9A-Za-z_]"),
            Some('s') => out.push_str(r"[\t\n\f\r ]"),
            Some('S') => out.push_str(r"[^\t\n\f\r ]"),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

// === impl Node ===

impl Node {
    /// Reads a schema. What it does not know it leaves out: definitions are checked when they are written.
    pub fn read(schema: &Value) -> Node {
        let text = |name: &str| schema[name].as_str().unwrap_or_default();
        let is = |name: &str| schema[name] == true;
        let int_or_string = is("x-kubernetes-int-or-string") || text("format") == "int-or-string";
        let conditions: Box<[Rule]> = schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Rule::read)
            .collect();
        let mut node = Node {
            kind: JsonType::parse(text("type")).filter(|_| !int_or_string),
            nullable: is("nullable"),
            preserve: is("x-kubernetes-preserve-unknown-fields"),
            embedded: is("x-kubernetes-embedded-resource"),
            int_or_string,
            default: schema.get("default").filter(|default| !default.is_null()).cloned().map(Box::new),
            properties: members(&schema["properties"])
                .map(|(name, below)| (name.as_str().into(), Node::read(below)))
                .collect(),
            additional: match &schema["additionalProperties"] {
                Value::Bool(true) => Additional::Anything,
                Value::Object(_) => Additional::Of(Box::new(Node::read(&schema["additionalProperties"]))),
                _ => Additional::Nothing,
            },
            items: schema["items"].is_object().then(|| Box::new(Node::read(&schema["items"]))),
            list: match text("x-kubernetes-list-type") {
                "map" => ListType::Map,
                "set" => ListType::Set,
                _ => ListType::Atomic,
            },
            list_keys: texts(&schema["x-kubernetes-list-map-keys"]).into(),
            atomic: text("x-kubernetes-map-type") == "atomic",
            rules: Rules::read(schema).map(Box::new),
            has_conditions: !conditions.is_empty(),
            conditions,
        };
        node.has_conditions |= node.properties.iter().any(|(_, below)| below.has_conditions)
            || node.items.as_ref().is_some_and(|items| items.has_conditions)
            || matches!(&node.additional, Additional::Of(below) if below.has_conditions);
        node
    }

    /// The format of a text.
    pub fn format(&self) -> Option<&str> {
        self.rules.as_ref()?.format.as_deref()
    }

    /// The node of a member of an object.
    pub fn member(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(node) => Some(node),
            Additional::Nothing | Additional::Anything => None,
        })
    }
}

// === impl Rules ===

impl Rules {
    fn read(schema: &Value) -> Option<Rules> {
        const WORDS: &[&str] = &[
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "uniqueItems",
            "pattern",
            "format",
            "enum",
            "required",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if WORDS.iter().all(|word| schema[*word].is_null()) {
            return None;
        }
        let bound = |limit: &str, exclusive: &str| {
            let limit = schema[limit].as_f64()?;
            Some(Bound { limit, exclusive: schema[exclusive] == true })
        };
        let range = |of: &str| Range {
            least: schema[format!("min{of}").as_str()].as_u64(),
            most: schema[format!("max{of}").as_str()].as_u64(),
        };
        let text = |name: &str| schema[name].as_str().filter(|text| !text.is_empty());
        let nodes = |name: &str| schema[name].as_array().into_iter().flatten().map(Node::read).collect();
        Some(Rules {
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema["multipleOf"].as_f64(),
            length: range("Length"),
            items: range("Items"),
            members: range("Properties"),
            unique: schema["uniqueItems"] == true,
            pattern: text("pattern").map(Pattern::new),
            format: text("format").map(Into::into),
            accepted: schema["enum"].as_array().cloned().unwrap_or_default(),
            required: texts(&schema["required"]),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: schema["not"].is_object().then(|| Box::new(Node::read(&schema["not"]))),
        })
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn texts(value: &Value) -> Vec<Box<str>> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
}

#[cfg(test)]
mod tests;
