use serde_json::json;

use super::*;

fn store() -> Value {
    json!({
        "kind": "List",
        "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web", "x": "1"}},
             "status": {"phase": "Running", "n": 3, "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "False"}]}},
            {"metadata": {"name": "b"}, "status": {"phase": "Pending", "n": 10, "conditions": []}},
            {"metadata": {"name": "c"}, "status": {"phase": "Running", "n": 7.5, "ok": true}}
        ]
    })
}

fn check(template: &str, expected: &str) {
    let value = store();
    let text = Template::parse(template).and_then(|parsed| parsed.render(&value));
    assert_eq!(text.as_deref(), Ok(expected), "{template}");
}

#[test]
fn paths() {
    check("{.kind}", "List");
    check("plain {.kind}!", "plain List!");
    check("{$.kind}{@.kind}", "ListList");
    check("{.items[0].metadata.name}", "a");
    check("{.items[-1].metadata.name}", "c");
    check("{.items[0:2].metadata.name}", "a b");
    check("{.items[-2:].metadata.name}", "b c");
    check("{.items[::2].metadata.name}", "a c");
    check("{.items[*].metadata.name}", "a b c");
    check("{.items[0,2].metadata.name}", "a c");
    check(
        "{.items[*]['metadata.name','status']}",
        "{\"conditions\":[{\"status\":\"True\",\"type\":\"Ready\"},{\"status\":\"False\",\"type\":\"Initialized\"}],\"n\":3,\"phase\":\"Running\"} {\"conditions\":[],\"n\":10,\"phase\":\"Pending\"} {\"n\":7.5,\"ok\":true,\"phase\":\"Running\"}",
    );
    check("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "web");
    check("{.items[0].metadata.labels['app\\.kubernetes\\.io/name']}", "web");
    check("{..name}", "a b c");
    check("{.missing.deep}", "");
    check("{.items[0].metadata.labels}", "{\"app.kubernetes.io/name\":\"web\",\"x\":\"1\"}");
    check("{.items[*].status.n}", "3 10 7.5");
    check("{.kind}{'\\n'}", "List\n");
    check("{.kind} {\"}\"}", "List }");
}

#[test]
fn ranges() {
    check(
        "{range .items[*]}{.metadata.name}{\"\\t\"}{.status.phase}{\"\\n\"}{end}",
        "a\tRunning\nb\tPending\nc\tRunning\n",
    );
    check(
        "{range .items[*]}[{.metadata.name}:{range .status.conditions[*]}{.type}={.status};{end}]{end}",
        "[a:Ready=True;Initialized=False;][b:][c:]",
    );
}

#[test]
fn filters() {
    check("{.items[?(@.status.phase==\"Running\")].metadata.name}", "a c");
    check("{.items[?(@.status.phase!='Running')].metadata.name}", "b");
    check("{.items[?(@.status.n>5)].metadata.name}", "b c");
    check("{.items[?(@.status.n<=7.5)].metadata.name}", "a c");
    check("{.items[?(@.status.ok==true)].metadata.name}", "c");
    check("{.items[?(@.status.ok)].metadata.name}", "c");
    check("{.items[0].status.conditions[?(@.type==\"Ready\")].status}", "True");
    check("{.items[?(@.metadata.labels['x']==\"1\")].metadata.name}", "a");
}

#[test]
fn errors() {
    let value = store();
    let out = Template::parse("{.items[7].metadata}").expect("a template").render(&value);
    assert_eq!(out.expect_err("too far").to_string(), "array index out of bounds: index 7, length 3");
    for bad in [
        "{.a",
        "{range .items[*]}x",
        "{end}",
        "{.items[}",
        "{.items[?(@.a==)]}",
        "{'x}",
        "{.items[1:2:0]}",
        "{%}",
    ] {
        Template::parse(bad).expect_err(bad);
    }
}

#[test]
fn relaxed_paths() {
    for text in [".metadata.name", "metadata.name", "{.metadata.name}", "{metadata.name}"] {
        let found = Template::relaxed(text).expect(text);
        let value = json!({"metadata": {"name": "x"}});
        assert_eq!(found.find(&value).expect("found"), [&json!("x")], "{text}");
    }
    Template::relaxed("").expect_err("nothing");
}
