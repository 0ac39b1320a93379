//! The rules of custom resources (`x-kubernetes-validations`): conditions in CEL that a value, and a change of it, must
//! fulfil.

use std::sync::{Arc, LazyLock, OnceLock};

use ::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use ::cel::extractors::This;
use ::cel::objects::{Key, OptionalValue};
use ::cel::{Context, Env, Program, Value as Cel, extensions};
use serde_json::Value;

use super::{Additional, JsonType, Node};
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
    compiled: OnceLock<Option<Compiled>>,
}

/// A rule, ready to be evaluated.
#[derive(Debug)]
struct Compiled {
    program: Program,
    message: Option<Program>,
    /// How many loops are within each other.
    depth: u32,
    /// It is about a change.
    is_transition: bool,
}

/// A rule may take about so many steps.
const BUDGET: usize = 10_000_000;
/// Limits of an expression: bytes, brackets (and choices) within each other, signs before a value, operators.
const MAX_LENGTH: usize = 16 * 1024;
const MAX_OPEN: usize = 8;
const MAX_PREFIXES: usize = 4;
const MAX_OPERATORS: usize = 600;
const OVER_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What rules may call besides operators.
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "charAt",
    "contains",
    "distinct",
    "double",
    "dyn",
    "endsWith",
    "find",
    "findAll",
    "flatten",
    "format",
    "has",
    "hasValue",
    "indexOf",
    "int",
    "isCIDR",
    "isIP",
    "isQuantity",
    "isSorted",
    "isURL",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "none",
    "of",
    "ofNonZeroValue",
    "optFlatMap",
    "optMap",
    "or",
    "orValue",
    "quote",
    "replace",
    "reverse",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "substring",
    "sum",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "value",
];

/// What rules are compiled with.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // They are declared once, in an environment that has none of them.
    let _ = env.add_extension(extensions::strings);
    let _ = env.add_extension(extensions::lists);
    Arc::new(env)
});

// === impl Rule ===

impl Rule {
    pub(super) fn read(rule: &Value) -> Option<Rule> {
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

    /// What is known of the rule; `None` where it is more than is served, as its definition was told.
    fn compiled(&self) -> Option<&Compiled> {
        let compile = || {
            if rule_fault(&self.text).is_some() {
                return None;
            }
            let program = compiled(&self.text).ok()?;
            let is_transition = program.references().has_variable("oldSelf");
            let message = self.message_expression.as_ref().filter(|text| rule_fault(text).is_none());
            let message = message.and_then(|text| compiled(text).ok());
            let depth = depth(program.expression());
            Some(Compiled { program, message, depth, is_transition })
        };
        self.compiled.get_or_init(compile).as_ref()
    }

    /// Holds a value against the rule; `old` is what it was before, where that is known.
    pub(super) fn check(
        &self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &str,
    ) -> Option<FieldError> {
        let compiled = self.compiled()?;
        if compiled.is_transition && old.is_none() && !self.optional_old {
            return None;
        }
        let kind = node.kind.map_or("object", JsonType::as_str);
        let size = largest(value).max(old.map_or(0, largest)).max(self.text.len() / 4);
        if size.checked_pow(compiled.depth).is_none_or(|steps| steps > BUDGET) {
            return Some(FieldError::invalid(path, kind, OVER_BUDGET));
        }
        let context = self.context(node, value, old);
        let fault = match compiled.program.execute(&context) {
            Ok(Cel::Bool(true)) => return None,
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        let said = compiled.message.as_ref().and_then(|message| match message.execute(&context) {
            Ok(Cel::String(text)) if !text.trim().is_empty() && !text.contains('\n') => {
                Some(text.to_string())
            }
            _ => None,
        });
        let message = match said {
            Some(said) => said,
            None if self.message.is_empty() => format!("failed rule: {}", self.text.trim()),
            None => self.message.to_string(),
        };
        let detail = match fault {
            Some(fault) => format!("{fault} evaluating rule: {message}"),
            None => message,
        };
        let path = match path {
            super::checks::NOWHERE if !self.field_path.is_empty() => {
                self.field_path.trim_start_matches('.').to_owned()
            }
            path => format!("{path}{}", self.field_path),
        };
        Some(FieldError::new(self.reason, path, kind, detail))
    }

    fn context(&self, node: &Node, value: &Value, old: Option<&Value>) -> Context<'static, 'static> {
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.add_variable_from_value("self", convert(Some(node), value));
        let old = old.map(|old| convert(Some(node), old));
        match (self.optional_old, old) {
            (true, old) => {
                let old = old.map_or_else(OptionalValue::none, OptionalValue::of);
                context.add_variable_from_value("oldSelf", Cel::Opaque(Arc::new(old)));
            }
            (false, Some(old)) => context.add_variable_from_value("oldSelf", old),
            (false, None) => {}
        }
        add_functions(&mut context);
        context
    }
}

/// Whether a condition holds for values that have no schema.
pub(crate) fn holds(text: &str, variables: &[(&str, &Value)]) -> Result<bool, String> {
    match rule_fault(text) {
        None => {}
        Some(RuleFault::Malformed(why)) => return Err(why),
        Some(RuleFault::Unserved(why)) => return Err(format!("it cannot be evaluated ({why})")),
    }
    let program = compiled(text)?;
    let size = variables.iter().map(|(_, value)| largest(value)).max().unwrap_or(0).max(text.len() / 4);
    if size.checked_pow(depth(program.expression())).is_none_or(|steps| steps > BUDGET) {
        return Err("it is out of cost budget".to_owned());
    }
    let mut context = Context::with_env(ENVIRONMENT.clone());
    for (name, value) in variables {
        context.add_variable_from_value(*name, convert(None, value));
    }
    add_functions(&mut context);
    match program.execute(&context) {
        Ok(Cel::Bool(holds)) => Ok(holds),
        Ok(_) => Err("it is neither true nor false".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Why a rule cannot be checked, if it cannot.
pub(crate) fn rule_fault(text: &str) -> Option<RuleFault> {
    if is_too_deep(text) {
        return Some(RuleFault::Unserved("it is too long, or too deep".to_owned()));
    }
    match compiled(text) {
        Err(error) => Some(RuleFault::Malformed(error)),
        Ok(program) => {
            let references = program.references();
            let mut unknown: Vec<String> = references
                .functions()
                .into_iter()
                .filter(|name| name.starts_with(|letter: char| letter.is_ascii_alphabetic()))
                .filter(|name| !FUNCTIONS.contains(&name.rsplit('.').next().unwrap_or(name)))
                .map(str::to_owned)
                .collect();
            unknown.sort();
            (!unknown.is_empty())
                .then(|| RuleFault::Unserved(format!("{} not known here", unknown.join(", "))))
        }
    }
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RuleFault {
    /// It does not parse.
    Malformed(String),
    /// It is more than is served.
    Unserved(String),
}

fn compiled(text: &str) -> Result<Program, String> {
    ENVIRONMENT.compile(text).map_err(|errors| errors.to_string())
}

/// Whether a parser that descends for each operator may descend too far. It counts what stands in texts too: few of them have
/// so much of it.
fn is_too_deep(text: &str) -> bool {
    let (mut open, mut prefixes, mut choices, mut operators) = (0usize, 0usize, 0usize, 0usize);
    for letter in text.bytes() {
        match letter {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'?' => choices += 1,
            _ => {}
        }
        prefixes = match letter {
            b'!' | b'-' => prefixes + 1,
            _ if letter.is_ascii_whitespace() => prefixes,
            _ => 0,
        };
        operators += usize::from(b".?+*/%&|<>=([{,".contains(&letter));
        if open > MAX_OPEN || prefixes > MAX_PREFIXES || choices > MAX_OPEN {
            return true;
        }
    }
    text.len() > MAX_LENGTH || operators > MAX_OPERATORS
}

/// How many loops are within each other.
fn depth(expression: &IdedExpr) -> u32 {
    let deepest = |several: &mut dyn Iterator<Item = &IdedExpr>| several.map(depth).max().unwrap_or(0);
    match &expression.expr {
        Expr::Call(call) => deepest(&mut call.target.as_deref().into_iter().chain(&call.args)),
        Expr::Comprehension(inner) => {
            let within = [&inner.loop_cond, &inner.loop_step, &inner.result];
            let before = depth(&inner.iter_range).max(depth(&inner.accu_init));
            before.max(1 + deepest(&mut within.into_iter()))
        }
        Expr::List(list) => deepest(&mut list.elements.iter()),
        Expr::Select(select) => depth(&select.operand),
        Expr::Map(map) => map.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
        Expr::Struct(of) => of.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => 0,
    }
}

fn entry_depth(entry: &EntryExpr) -> u32 {
    match entry {
        EntryExpr::StructField(field) => depth(&field.value),
        EntryExpr::MapEntry(entry) => depth(&entry.key).max(depth(&entry.value)),
    }
}

/// The length of the largest list, map or text in a value: what a loop may run over.
fn largest(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(largest).max().unwrap_or(0).max(items.len()),
        Value::Object(map) => map.values().map(largest).max().unwrap_or(0).max(map.len()),
        // A text can be split; few are in more than some parts.
        Value::String(text) => text.len() / 16,
        _ => 1,
    }
}

/// A value with the types that its schema says: whole numbers are integers where that is declared, and what is not specified is
/// not seen.
fn convert(node: Option<&Node>, value: &Value) -> Cel {
    let number = |number: &serde_json::Number| match node.and_then(|node| node.kind) {
        Some(JsonType::Number) => number.as_f64().map(Cel::Float),
        _ => number.as_i64().map(Cel::Int).or_else(|| number.as_f64().map(Cel::Float)),
    };
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(found) => number(found).unwrap_or(Cel::Null),
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => {
            let node = node.and_then(|node| node.items.as_deref());
            Cel::List(Arc::new(items.iter().map(|item| convert(node, item)).collect()))
        }
        Value::Object(map) => {
            let is_map = node.is_none_or(|node| !matches!(node.additional, Additional::Nothing));
            let entries = map.iter().filter_map(|(name, value)| {
                let member = node.and_then(|node| node.member(name));
                let common = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                if !is_map && member.is_none() && !common {
                    return None;
                }
                let name = if is_map { name.clone() } else { escaped(name) };
                Some((Key::String(Arc::new(name)), convert(member, value)))
            });
            Cel::Map(::cel::objects::Map { map: Arc::new(entries.collect()) })
        }
    }
}

/// A name of a property as rules write it.
fn escaped(name: &str) -> String {
    const KEYWORDS: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if KEYWORDS.contains(&name) {
        return format!("__{name}__");
    }
    let name = name.replace("__", "__underscores__");
    name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

/// What Kubernetes adds to CEL.
fn add_functions(context: &mut Context<'_, '_>) {
    // None of these names is taken.
    let _ = context.add_function("isURL", |text: Arc<String>| {
        text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty())
            || text.starts_with('/')
    });
    let _ = context.add_function("isIP", |text: Arc<String>| text.parse::<std::net::IpAddr>().is_ok());
    let _ = context.add_function("isCIDR", |text: Arc<String>| super::formats::has("cidr", &text));
    let _ = context
        .add_function("isQuantity", |text: Arc<String>| text.parse::<crate::quantity::Quantity>().is_ok());
    let _ = context.add_function("find", |This(this): This<Arc<String>>, pattern: Arc<String>| {
        let found = regex::Regex::new(&pattern)
            .ok()
            .and_then(|pattern| Some(pattern.find(&this)?.as_str().to_owned()));
        found.unwrap_or_default()
    });
    let _ = context.add_function("findAll", |This(this): This<Arc<String>>, pattern: Arc<String>| {
        let pattern = regex::Regex::new(&pattern).ok();
        let found = pattern.iter().flat_map(|pattern| pattern.find_iter(&this));
        let texts = found.map(|found| Cel::String(Arc::new(found.as_str().to_owned())));
        Cel::List(Arc::new(texts.collect()))
    });
    let _ = context.add_function("isSorted", |This(this): This<Cel>| match this {
        Cel::List(items) => {
            items.windows(2).all(|pair| pair[0].partial_cmp(&pair[1]).is_some_and(|order| order.is_le()))
        }
        _ => false,
    });
    let _ = context.add_function("sum", |This(this): This<Cel>| match this {
        Cel::List(items) => items.iter().fold(Cel::Int(0), |sum, item| match (sum, item) {
            (Cel::Int(sum), Cel::Int(item)) => sum.checked_add(*item).map_or(Cel::Null, Cel::Int),
            (Cel::Int(sum), Cel::Float(item)) => Cel::Float(sum as f64 + item),
            (Cel::Float(sum), Cel::Float(item)) => Cel::Float(sum + item),
            _ => Cel::Null,
        }),
        _ => Cel::Null,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(rule: Value, spec: Value, old: Option<Value>, expected: &[&str]) {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [rule], "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"}, "ratio": {"type": "number"},
                "names": {"type": "array", "items": {"type": "string"}}, "my-name": {"type": "string"},
                "port": {"x-kubernetes-int-or-string": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}}}}}});
        let node = Node::read(&schema);
        let errors = node.check(&json!({"spec": spec}), old.map(|old| json!({"spec": old})).as_ref());
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected);
    }

    fn holds(rule: &str, spec: Value) {
        assert_eq!(rule_fault(rule), None);
        check(json!({"rule": rule}), spec, None, &[]);
    }

    #[test]
    fn rules_that_hold_say_nothing() {
        holds("self.min <= self.max && self.min + 1 > 0", json!({"min": 1, "max": 2}));
        holds("self.ratio > 0.5 && self.ratio + 1.0 < 3.0", json!({"ratio": 1}));
        holds("!has(self.max) || self.max > 1", json!({}));
        holds("self.names.all(n, n.startsWith('a') && n.size() < 4)", json!({"names": ["a", "ab"]}));
        holds("self.names.exists_one(n, n == 'a') && self.names.isSorted()", json!({"names": ["a", "ab"]}));
        holds("self.my__dash__name == 'x'", json!({"my-name": "x"}));
        holds("type(self.port) == int ? self.port > 10 : self.port == 'http'", json!({"port": 80}));
        holds(
            "self.labels.all(k, self.labels[k] != '') && 'a-b' in self.labels",
            json!({"labels": {"a-b": "c"}}),
        );
        holds("self.names.map(n, n.upperAscii()).join(',') == 'A,B'", json!({"names": ["a", "b"]}));
        holds("isURL('https://x/') && isIP('::1') && isCIDR('10.0.0.0/8') && isQuantity('100Mi')", json!({}));
        holds("'abc 123'.find('[0-9]+') == '123' && [1, 2].sum() == 3", json!({}));
    }

    #[test]
    fn rules_that_fail_are_told_in_the_words_of_kubernetes() {
        let rule = "self.min <= self.max";
        check(
            json!({"rule": rule}),
            json!({"min": 3, "max": 2}),
            None,
            &[r#"spec: Invalid value: "object": failed rule: self.min <= self.max"#],
        );
        check(
            json!({"rule": rule, "message": "min is above max", "fieldPath": ".min", "reason": "FieldValueForbidden"}),
            json!({"min": 3, "max": 2}),
            None,
            &["spec.min: Forbidden: min is above max"],
        );
        check(
            json!({"rule": rule, "message": "no", "messageExpression": "'min is ' + string(self.min)"}),
            json!({"min": 3, "max": 2}),
            None,
            &[r#"spec: Invalid value: "object": min is 3"#],
        );
        check(
            json!({"rule": rule}),
            json!({"min": 3}),
            None,
            &[
                r#"spec: Invalid value: "object": No such key: max evaluating rule: failed rule: self.min <= self.max"#,
            ],
        );
    }

    #[test]
    fn transitions_are_checked_where_there_was_something_before() {
        let rule = json!({"rule": "self.min >= oldSelf.min", "message": "must grow"});
        check(rule.clone(), json!({"min": 1}), None, &[]);
        check(rule.clone(), json!({"min": 3}), Some(json!({"min": 2})), &[]);
        check(
            rule,
            json!({"min": 1}),
            Some(json!({"min": 2})),
            &[r#"spec: Invalid value: "object": must grow"#],
        );
        let rule = json!({"rule": "!oldSelf.hasValue() || self.min >= oldSelf.value().min", "optionalOldSelf": true});
        check(rule.clone(), json!({"min": 1}), None, &[]);
        let failed = "spec: Invalid value: \"object\": failed rule: !oldSelf.hasValue() || self.min >= oldSelf.value().min";
        check(rule, json!({"min": 1}), Some(json!({"min": 2})), &[failed]);
    }

    #[test]
    fn rules_that_cannot_be_served_are_seen() {
        assert!(matches!(rule_fault("self.x >"), Some(RuleFault::Malformed(_))));
        assert_eq!(
            rule_fault("url(self.x).getHost() == 'a'"),
            Some(RuleFault::Unserved("getHost, url not known here".into()))
        );
        assert_eq!(rule_fault("self.list.exists(x, x.a == 1 && !(x.b in [1, 2]) || -x.c < 3)"), None);
    }

    #[test]
    fn hostile_rules_are_refused_and_not_followed() {
        // As much as is let through, and far more.
        for times in [4, 8, 250, 20_000] {
            for (head, tail) in [
                ("(", ""),
                ("!", "true"),
                ("-", "1"),
                ("[", ""),
                ("{1:", ""),
                ("a ? b : ", "c"),
                ("a.", "b"),
                ("f(", ""),
                ("1+", "1"),
                ("a&&", "a"),
                ("a[", ""),
                ("! ", "a"),
                ("- ", "a"),
            ] {
                let text = head.repeat(times) + tail;
                let fault = rule_fault(&text);
                assert!(times < 20_000 || matches!(fault, Some(RuleFault::Unserved(_))), "{head}");
            }
        }
    }

    #[test]
    fn loops_within_loops_are_bounded() {
        let rule =
            "self.names.all(a, self.names.all(b, self.names.all(c, self.names.all(d, a + b + c + d != ''))))";
        let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        check(
            json!({"rule": rule}),
            json!({"names": names}),
            None,
            &[&format!(r#"spec: Invalid value: "object": {OVER_BUDGET}"#)],
        );
    }
}
