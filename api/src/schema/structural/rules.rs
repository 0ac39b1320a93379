//! The rules of custom resources (`x-kubernetes-validations`): conditions in CEL that a value, and a change of it, must
//! fulfil.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::{JsonType, Node};
use crate::cel::{self, CALL_BUDGET, Declared, Environment, Fault, OBJECT_BUDGET, Program, Type};
use crate::field::{ErrorKind, FieldError};

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    text: Box<str>,
    message: Box<str>,
    message_expression: Option<Box<str>>,
    reason: ErrorKind,
    field_path: Box<str>,
    optional_old: bool,
    compiled: OnceLock<Result<Compiled, Uncompiled>>,
}

/// A rule, ready to be evaluated.
#[derive(Debug)]
pub(crate) struct Compiled {
    program: Program,
    message: Option<Program>,
    /// It is about a change.
    pub is_transition: bool,
    /// The fewest bytes that a value takes that the rule is about.
    pub least_bytes: u64,
}

/// Why a rule cannot be used, in the words of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Uncompiled {
    /// The rule.
    Rule(String),
    /// Its message.
    Message(String),
}

/// What the rules of one object have used of their budget.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: u64,
    /// No further rules are looked at.
    is_over: bool,
}

/// Where a value is, and what it was.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub value: &'a Value,
    /// What it was before, where that is known.
    pub old: Option<&'a Value>,
    pub path: &'a str,
    /// It is an object of the API.
    pub whole: bool,
}

/// The places of variables.
const SELF: usize = 0;
const OLD: usize = 1;
/// A message that an expression makes may be so long, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

// === impl Rule ===

impl Rule {
    pub(crate) fn read(rule: &Value) -> Option<Rule> {
        let text = |name: &str| rule[name].as_str().unwrap_or_default().trim();
        Some(Rule {
            text: rule["rule"].as_str()?.into(),
            message: text("message").into(),
            message_expression: Some(text("messageExpression"))
                .filter(|text| !text.is_empty())
                .map(Into::into),
            reason: match text("reason") {
                "FieldValueForbidden" => ErrorKind::Forbidden,
                "FieldValueRequired" => ErrorKind::Required,
                "FieldValueDuplicate" => ErrorKind::Duplicate,
                _ => ErrorKind::Invalid,
            },
            field_path: text("fieldPath").into(),
            optional_old: rule["optionalOldSelf"] == true,
            compiled: OnceLock::new(),
        })
    }

    /// Makes the rule ready for values of a node.
    pub(crate) fn compile(&self, node: &Node, whole: bool) -> Result<Compiled, Uncompiled> {
        let Some(declared) = cel::of_node(node, "self", whole) else {
            let kind = node.kind.map_or("", JsonType::as_str);
            return Err(Uncompiled::Rule(format!(
                "rule declared on schema that does not support validation rules type: '{kind}' x-kubernetes-preserve-unknown-fields: '{}'",
                node.preserve
            )));
        };
        let least_bytes = declared.least_bytes;
        let declared = Arc::new(declared);
        let old = match self.optional_old {
            true => Arc::new(plain(&declared, declared.kind.clone().optional())),
            false => declared.clone(),
        };
        let environment = Environment::new().with("self", declared).with("oldSelf", old);
        let compile = |text: &str, wanted: Type, not_wanted: &str| match environment.compile(text) {
            Err(fault) => Err(format!("compilation failed: {fault}")),
            Ok(program) if *program.result() != wanted && *program.result() != Type::Dyn => {
                Err(not_wanted.to_owned())
            }
            Ok(program) => Ok(program),
        };
        let program = compile(&self.text, Type::Bool, "cel expression must evaluate to a bool");
        let program = program.map_err(Uncompiled::Rule)?;
        let not_text = "messageExpression must evaluate to a string";
        let message = self.message_expression.as_ref().map(|text| compile(text, Type::String, not_text));
        let message = message.transpose().map_err(|fault| {
            Uncompiled::Message(fault.replacen("compilation", "messageExpression compilation", 1))
        })?;
        Ok(Compiled { is_transition: program.uses(OLD), program, message, least_bytes })
    }

    /// Holds a value against the rule.
    pub(super) fn check(&self, node: &Node, subject: Subject<'_>, budget: &mut Budget) -> Option<FieldError> {
        if budget.is_over {
            return None;
        }
        let kind = node.kind.map_or("object", JsonType::as_str);
        let invalid = |detail: String| Some(FieldError::invalid(subject.path, kind, detail));
        let compiled = match self.compiled.get_or_init(|| self.compile(node, subject.whole)) {
            Ok(compiled) => compiled,
            Err(Uncompiled::Rule(fault) | Uncompiled::Message(fault)) => {
                return invalid(format!("rule compile error: {fault}"));
            }
        };
        if compiled.is_transition && subject.old.is_none() && !self.optional_old {
            return None;
        }
        if budget.spent >= OBJECT_BUDGET {
            budget.is_over = true;
            return invalid(OUT_OF_BUDGET.to_owned());
        }
        let variables = self.variables(node, subject);
        let (answer, spent) = compiled.program.evaluate(variables.as_slice(), CALL_BUDGET);
        budget.spent += spent;
        let shown = if self.message.is_empty() { self.text.trim() } else { &self.message };
        match answer {
            Ok(cel::Value::Bool(true)) => return None,
            Ok(_) => {}
            Err(fault @ Fault::OverBudget) => {
                budget.is_over = true;
                return invalid(format!(
                    "'{fault}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                ));
            }
            Err(fault @ Fault::NoOverload) => {
                return invalid(format!(
                    "'{fault}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                ));
            }
            Err(fault) => return invalid(format!("{fault} evaluating rule: {shown}")),
        }
        let said = compiled.message.as_ref().and_then(|message| {
            let (answer, spent) = message.evaluate(variables.as_slice(), CALL_BUDGET);
            budget.spent += spent;
            match answer {
                Ok(cel::Value::String(text)) => fitting(&text),
                _ => None,
            }
        });
        let message = said.unwrap_or_else(|| match self.message.is_empty() {
            true => format!("failed rule: {}", self.text.trim()),
            false => self.message.to_string(),
        });
        Some(FieldError::new(self.reason, self.path(subject.path), kind, message))
    }

    fn variables<'a>(&self, node: &'a Node, subject: Subject<'a>) -> [cel::Value<'a>; 2] {
        let mut variables = [cel::Value::Null, cel::Value::Null];
        variables[SELF] = cel::Value::read(subject.value, Some(node));
        let old = subject.old.map(|old| cel::Value::read(old, Some(node)));
        variables[OLD] = match self.optional_old {
            true => cel::Value::Optional(old.map(Arc::new)),
            false => old.unwrap_or(cel::Value::Null),
        };
        variables
    }

    /// The field that is to blame.
    fn path(&self, path: &str) -> String {
        match path {
            super::checks::NOWHERE if !self.field_path.is_empty() => {
                self.field_path.trim_start_matches('.').to_owned()
            }
            path => format!("{path}{}", self.field_path),
        }
    }
}

// === impl Compiled ===

impl Compiled {
    /// The most steps of the rule, and of its message.
    pub(crate) fn most(&self) -> (u64, Option<u64>) {
        (self.program.most(), self.message.as_ref().map(Program::most))
    }
}

/// A declaration as large as another, of another type.
fn plain(declared: &Declared, kind: Type) -> Declared {
    Declared { kind, most: declared.most, least_bytes: declared.least_bytes, items: None }
}

/// A text that can be a message: one line, not empty and not too long.
fn fitting(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
