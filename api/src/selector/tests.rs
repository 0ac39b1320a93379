use serde_json::json;

use super::*;

fn check(selector: &str, labels: Value, expected: bool) {
    let parsed = LabelSelector::parse(selector).expect(selector);
    assert_eq!(parsed.matches(&labels), expected, "{selector} on {labels}");
    let again = LabelSelector::parse(&parsed.to_string()).expect("printed form parses");
    assert_eq!(again, parsed, "{selector}");
}

#[test]
fn selects_by_label() {
    let web = json!({"app": "web", "tier": "front", "n": "5"});
    for (selector, expected) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app=db", false),
        ("app!=db", true),
        ("other!=x", true),
        ("app", true),
        ("!app", false),
        ("!other", true),
        ("app in (web, db)", true),
        ("app notin (web)", false),
        ("other notin (a)", true),
        ("app=web,tier=front", true),
        ("app=web,tier=back", false),
        ("n>4", true),
        ("n<5", false),
        ("other=", false),
        ("app in (,web)", true),
    ] {
        check(selector, web.clone(), expected);
    }
}

#[test]
fn says_what_is_wrong() {
    for (selector, message) in [
        ("app=web,", "unable to parse requirement: found '', expected: identifier after ','"),
        ("app in web", "unable to parse requirement: found 'web', expected: '('"),
        ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
        ("=x", "unable to parse requirement: found '=', expected: !, identifier, or 'end of string'"),
    ] {
        assert_eq!(LabelSelector::parse(selector).expect_err(selector).to_string(), message);
    }
    let error = LabelSelector::parse("a b/c=x").expect_err("bad key").to_string();
    assert!(error.starts_with("unable to parse requirement"), "{error}");
    let error = LabelSelector::parse("app=-x").expect_err("bad value").to_string();
    assert!(error.starts_with("values[0][app]: Invalid value: \"-x\": a valid label must be"), "{error}");
}

#[test]
fn reads_objects() {
    let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]});
    let selector = LabelSelector::from_object(&selector).expect("selector");
    assert!(selector.matches(&json!({"app": "web", "tier": "b"})));
    assert!(!selector.matches(&json!({"app": "web", "tier": "b", "old": ""})));
    assert!(!LabelSelector::from_object(&Value::Null).expect("nothing").matches(&json!({})));
    assert!(LabelSelector::from_object(&json!({})).expect("everything").is_everything());
}

#[test]
fn selects_by_field() {
    let pod =
        json!({"metadata": {"name": "a,b"}, "status": {"phase": "Running"}, "spec": {"hostNetwork": true}});
    for (selector, expected) in [
        ("", true),
        ("metadata.name=a\\,b", true),
        ("status.phase!=Failed", true),
        ("status.phase==Running", true),
        ("spec.nodeName=", true),
        ("spec.nodeName!=", false),
        ("spec.hostNetwork=true,status.phase=Failed", false),
    ] {
        let parsed = FieldSelector::parse(selector).expect(selector);
        assert_eq!(parsed.matches_object(&pod), expected, "{selector}");
    }
    let error = FieldSelector::parse("a=1,b").expect_err("no operator").to_string();
    assert_eq!(error, "invalid selector: 'a=1,b'; can't understand 'b'");
}
