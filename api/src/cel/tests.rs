//! A table of expressions and what they come to, and what their estimates and budgets do.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::schema::structural::Node;

fn schema() -> Json {
    let text = || json!({"type": "string"});
    let named = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    json!({"type": "object", "properties": {
        "min": {"type": "integer"},
        "none": {"type": "integer"},
        "ratio": {"type": "number"},
        "my-name": text(),
        "namespace": text(),
        "dotted.name": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": text()},
        "port": {"x-kubernetes-int-or-string": true},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "names": {"type": "array", "items": text()},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text()},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": named},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true},
        "when": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "span": {"type": "string", "format": "duration"},
        "data": {"type": "string", "format": "byte"},
    }})
}

fn object() -> Json {
    json!({
        "min": 1, "ratio": 2, "my-name": "x", "namespace": "default", "dotted.name": 1, "labels": {"a-b": "c"},
        "port": 80, "any": {"x": 1}, "names": ["a", "b"], "set": ["a", "b"],
        "items": [{"name": "b"}, {"name": "a"}],
        "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "inner"}},
        "when": "2024-05-01T10:00:00Z", "day": "2024-01-02", "span": "1m30s", "data": "aGk=",
    })
}

/// What an expression comes to, in the words of the table.
fn come_to(text: &str) -> String {
    let (schema, object) = (schema(), object());
    let node = Node::read(&schema);
    let declared = of_node(&node, "self", false).unwrap();
    let environment = Environment::new().with("self", declared).with("object", Declared::plain(Type::Dyn));
    let program = match environment.compile(text) {
        Ok(program) => program,
        Err(issue) => {
            let line = issue.lines().next().unwrap_or_default();
            let message = line.splitn(5, ':').nth(4).unwrap_or_default();
            return format!("issue:{message}");
        }
    };
    let variables = [Value::read(&object, Some(&node)), Value::read(&object, None)];
    match program.evaluate(variables.as_slice(), CALL_BUDGET).0 {
        Ok(value) => value.to_string(),
        Err(fault) => format!("fault: {fault}"),
    }
}

#[test]
fn expressions_come_to_what_the_table_says() {
    let mut wrong = Vec::new();
    for line in include_str!("tests/expressions.txt").lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (text, expected) = line.rsplit_once(" => ").expect("a line has an arrow");
        let found = come_to(text);
        let fits =
            if expected.starts_with("issue:") { found.starts_with(expected) } else { found == expected };
        if !fits {
            wrong.push(format!("{text}\n    expected {expected}\n    found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{} lines:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn issues_are_shown_with_their_place() {
    let environment = Environment::new().with("x", Declared::plain(Type::Int));
    let issues = environment.compile("x > 1 &&\n  y == 2").unwrap_err();
    assert_eq!(
        issues,
        "ERROR: <input>:2:3: undeclared reference to 'y' (in container '')\n |   y == 2\n | ..^"
    );
}

#[test]
fn what_is_too_deep_is_refused_and_not_followed() {
    for (head, tail) in [
        ("(", ""),
        ("!", "true"),
        ("-", "1"),
        ("[", ""),
        ("{1:", ""),
        ("true ? 1 : ", "2"),
        ("a.", "b"),
        ("size(", ""),
        ("1+", "1"),
        ("true&&", "true"),
        ("a[", ""),
        ("[1].all(x, ", ""),
    ] {
        for times in [50, 98, 20_000] {
            let _ = come_to(&(head.repeat(times) + tail));
        }
    }
    assert!(come_to(&format!("{}1{}", "(".repeat(98), ")".repeat(98))) == "1");
    let deep = format!("{}1{}", "(".repeat(110), ")".repeat(110));
    assert!(come_to(&deep).contains("expression recursion limit exceeded: 100"));
    let nested = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    assert_eq!(come_to(&format!("size({nested})")), "1");
}

#[test]
fn an_evaluation_ends_with_its_budget() {
    let environment = Environment::new().with("list", Declared::plain(Type::Dyn));
    let program = environment.compile("list.all(a, list.all(b, list.all(c, a + b + c >= 0)))").unwrap();
    let list = Value::list((0..200).map(Value::Int).collect());
    let (answer, spent) = program.evaluate([list].as_slice(), CALL_BUDGET);
    assert!(matches!(answer, Err(Fault::OverBudget)));
    assert!((CALL_BUDGET..CALL_BUDGET + 100).contains(&spent));
}

/// The most steps of an expression about a schema.
fn most(schema: Json, text: &str) -> u64 {
    let declared = of_node(&Node::read(&schema), "self", false).unwrap();
    Environment::new().with("self", declared).compile(text).unwrap().most()
}

#[test]
fn estimates_are_those_of_kubernetes() {
    // So much an item, as measured on Kubernetes' own validator.
    for (length, item) in [(16, 11), (63, 30), (253, 106), (1024, 414)] {
        let schema = json!({"type": "array", "maxItems": 100_000,
            "items": {"type": "string", "maxLength": length}});
        let cost = most(schema, "self.all(x, x.contains('gpu'))");
        assert_eq!(cost / 100_000, item, "{length}");
    }
    // What has no limit is as long as a request.
    let schema = json!({"type": "array", "items": {"type": "string"}});
    assert!(most(schema, "self.all(x, x.contains('gpu'))") > 100 * OBJECT_BUDGET);
    let schema = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
    assert_eq!(most(schema.clone(), "self.x > 0"), 3);
    assert_eq!(most(schema, "has(self.x) && self.x > 0"), 4);
}

proptest! {
    /// Whatever is written, it is refused or evaluated.
    #[test]
    fn any_text_comes_to_something(words in proptest::collection::vec(word(), 0..24)) {
        prop_assert!(!come_to(&words.concat()).is_empty());
    }
}

fn word() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "self",
        "object",
        ".",
        ".?",
        "min",
        "names",
        "set",
        "items",
        "(",
        ")",
        "[",
        "]",
        "[?",
        "{",
        "}",
        ",",
        ":",
        "?",
        "1",
        "2u",
        "0.5",
        "'a'",
        "b'x'",
        "true",
        "null",
        "x",
        "+",
        "-",
        "*",
        "/",
        "%",
        "<",
        ">=",
        "==",
        "!=",
        "&&",
        "||",
        "!",
        " in ",
        ".all(x, ",
        ".map(x, ",
        ".filter(x, ",
        ".transformMap(k, v, ",
        ".size()",
        ".sum()",
        ".split(",
        ".substring(",
        ".format(",
        ".findAll(",
        "url(",
        "ip(",
        "cidr(",
        "quantity(",
        "semver(",
        "duration(",
        "timestamp(",
        "optional.of(",
        ".orValue(",
        ".optMap(x, ",
        "has(",
        "type(",
        "dyn(",
        "sets.contains(",
        "\u{e9}",
        " ",
        "\\",
        "\"",
    ])
}
