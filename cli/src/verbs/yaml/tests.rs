use serde_json::json;

use super::*;

fn read(text: &str) -> Vec<Value> {
    parse(text.as_bytes()).expect("YAML")
}

#[test]
fn reads_as_yaml_1_1() {
    assert_eq!(
        read("a: yes\nb: off\nc: 0644\nd: 1_000\ne: 'yes'\nf: 0x1F\ng: ~\n"),
        [json!({"a": true, "b": false, "c": 420, "d": 1000, "e": "yes", "f": 31, "g": null})]
    );
}

#[test]
fn reads_several_documents() {
    let text = "\u{feff}---\r\na: 1\r\n---\r\n---\r\n# nothing\r\n---\r\nb: |\r\n  x\r\n  y\r\n";
    assert_eq!(read(text), [json!({"a": 1}), json!({"b": "x\ny\n"})]);
    assert_eq!(read("{\"a\": 1}\n{\"b\": [1, \"x\"]}\n"), [json!({"a": 1}), json!({"b": [1, "x"]})]);
    assert_eq!(read(""), Vec::<Value>::new());
}

#[test]
fn merges_anchors() {
    let text = "base: &base\n  x: 1\n  y: 2\nmore:\n  <<: *base\n  y: 3\n";
    assert_eq!(read(text), [json!({"base": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}})]);
}

#[test]
fn tells_where_it_is_wrong() {
    let error = parse(b"a: 1\nb: [1, 2\nc: 3\n").expect_err("not closed");
    assert!(error.line >= 2, "{error}");
    let error = parse(b"a: 1\nb: 2\n\tc: 3\n").expect_err("a tab");
    assert_eq!((error.line, error.column), (2, 4), "the scalar before the tab: {error}");
    let error = parse(b"a: 1\nb: \xff\n").expect_err("not UTF-8");
    assert_eq!((error.line, error.column), (2, 4));
    let error = parse(b"{\"a\": 1,, }").expect_err("not JSON");
    assert_eq!(error.line, 1, "{error}");
}

#[test]
fn bombs_are_stopped() {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(",")));
    }
    parse(text.as_bytes()).expect_err("a bomb");
    parse(format!("a: {}", "[".repeat(50_000)).as_bytes()).expect_err("too deep");
}

fn check(value: Value, expected: &str) {
    let text = to_string(&value);
    assert_eq!(text, expected);
    assert_eq!(read(&text), [value], "read back: {text}");
}

#[test]
fn writes_documents() {
    check(
        json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"name": "a", "args": ["x", "y"], "env": []}], "m": {}},
               "metadata": {"labels": {"app": "web"}}}),
        "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    app: web\nspec:\n  containers:\n  - args:\n    - x\n    - \"y\"\n    env: []\n    name: a\n  m: {}\n",
    );
    check(json!([[1, 2], [{"a": 1}], null]), "- - 1\n  - 2\n- - a: 1\n- null\n");
}

#[test]
fn quotes_what_would_be_read_as_something_else() {
    for word in [
        "yes",
        "on",
        "No",
        "n",
        "true",
        "null",
        "~",
        "0644",
        "1_000",
        "1e3",
        "0x1F",
        "12:30:45",
        ".5",
        "",
        "2026-11-21",
        "2026-11-21T10:18:54Z",
        "1.",
    ] {
        check(json!({"a": word}), &format!("a: \"{word}\"\n"));
    }
    for word in ["*", "a: b", "- x", "#x", "a #b", "@x", "%x", "{a}", " x", "x ", "a:", "'x"] {
        check(json!({"a": word}), &format!("a: '{}'\n", word.replace('\'', "''")));
    }
    for word in [
        "a",
        "-x",
        "a:b",
        "a#b",
        "1.2.3",
        "10Mi",
        "100m",
        "x y",
        "it's",
        "10.0.0.1",
        "/a/b",
        "1.37+orlop",
        "ä",
        ":8080",
    ] {
        check(json!({"a": word}), &format!("a: {word}\n"));
    }
    check(json!({"a": "x\ty"}), "a: \"x\\ty\"\n");
    check(json!({"yes": 1, "a b": {"on": 2}}), "a b:\n  \"on\": 2\n\"yes\": 1\n");
}

#[test]
fn writes_several_lines() {
    check(json!({"a": "x\ny\n"}), "a: |\n  x\n  y\n");
    check(json!({"a": "x\ny"}), "a: |-\n  x\n  y\n");
    check(json!({"a": "x\n\n  y\n\n"}), "a: |+\n  x\n\n    y\n\n");
    check(json!({"a": "  x\ny\n"}), "a: |2\n    x\n  y\n");
    check(json!({"a": ["x\ny\n"]}), "a:\n- |\n  x\n  y\n");
    check(json!({"a": "x \ny"}), "a: \"x \\ny\"\n");
}

#[test]
fn folds_long_lines() {
    let words = vec!["word"; 40].join(" ");
    let text = to_string(&json!({"message": words}));
    assert!(text.lines().all(|line| line.len() < 90), "{text}");
    assert_eq!(read(&text), [json!({"message": words})]);
    let quoted = format!("0/3 nodes: {words}  {words}");
    assert_eq!(read(&to_string(&json!({"a": [{"m": quoted}]}))), [json!({"a": [{"m": quoted}]})]);
    let double = format!("tab\t{words}  {words}");
    assert_eq!(read(&to_string(&json!({"m": double}))), [json!({"m": double})]);
}
