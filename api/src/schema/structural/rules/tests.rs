//! Rules hold values, and say what Kubernetes would say.

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
        &[r#"spec: Invalid value: "object": no such key: max evaluating rule: self.min <= self.max"#],
    );
}

#[test]
fn transitions_are_checked_where_there_was_something_before() {
    let rule = json!({"rule": "self.min >= oldSelf.min", "message": "must grow"});
    check(rule.clone(), json!({"min": 1}), None, &[]);
    check(rule.clone(), json!({"min": 3}), Some(json!({"min": 2})), &[]);
    check(rule, json!({"min": 1}), Some(json!({"min": 2})), &[r#"spec: Invalid value: "object": must grow"#]);
    let rule =
        json!({"rule": "!oldSelf.hasValue() || self.min >= oldSelf.value().min", "optionalOldSelf": true});
    check(rule.clone(), json!({"min": 1}), None, &[]);
    let failed = "spec: Invalid value: \"object\": failed rule: !oldSelf.hasValue() || self.min >= oldSelf.value().min";
    check(rule, json!({"min": 1}), Some(json!({"min": 2})), &[failed]);
}

#[test]
fn rules_that_cannot_be_used_are_told_why() {
    let node = Node::read(&json!({"type": "object", "properties": {"min": {"type": "integer"}}}));
    let fault = |rule: Value| Rule::read(&rule).unwrap().compile(&node, false).unwrap_err();
    assert_eq!(
        fault(json!({"rule": "self.max > 1"})),
        Uncompiled::Rule(
            "compilation failed: ERROR: <input>:1:5: undefined field 'max'\n | self.max > 1\n | ....^".into()
        )
    );
    assert_eq!(
        fault(json!({"rule": "self.min"})),
        Uncompiled::Rule("cel expression must evaluate to a bool".into())
    );
    assert_eq!(
        fault(json!({"rule": "true", "messageExpression": "self.min"})),
        Uncompiled::Message("messageExpression must evaluate to a string".into())
    );
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
        &[&format!(
            r#"spec: Invalid value: "object": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"#
        )],
    );
}
