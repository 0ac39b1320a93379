//! Bombs for parsers: a small text that would become very large, very deep or very slow.

use std::io::Write as _;
use std::time::Instant;

use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::{Client, Cluster};
use crate::wire::{PATIENCE, is_well};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The code and the length of the answer to a body of some type; it must come soon.
async fn sent(
    client: &mut Client,
    method: Method,
    path: &str,
    kind: &'static str,
    body: impl Into<bytes::Bytes>,
) -> (u16, String) {
    let began = Instant::now();
    let mut request = client.request(method, path, body);
    request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    let response = client.send(request).await;
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    assert!(began.elapsed() < PATIENCE, "{kind} {path}: {:?}", began.elapsed());
    assert!(body.len() < 4 << 20, "{kind} {path}: {} bytes", body.len());
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

fn head(rest: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},{rest}}}"#)
}

/// A message of a field in Kubernetes' envelope.
fn enveloped(kind: &str, mut raw: Vec<u8>, levels: usize) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
        out
    };
    for level in 0..levels {
        let names = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        let message = [field(1, &names), field(2, &raw)].concat();
        raw = [b"k8s\0".to_vec(), message].concat();
        if level + 1 < levels {
            // A list, whose items are whole documents.
            raw = field(2, &field(1, &raw));
        }
    }
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_any_depth_are_refused() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let (json, yaml, protobuf) =
        ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf");
    let post =
        async |client: &mut Client, kind, body: Vec<u8>| sent(client, Method::POST, MAPS, kind, body).await.0;
    for body in [
        nested("[", "", "]", 1_000_000),
        "[".repeat(2_000_000),
        head(&format!(r#""data":{}"#, nested(r#"{"a":"#, "1", "}", 100_000))),
        head(&format!(r#""data":{}"#, nested(r#"{"a":"#, "1", "}", 120))),
    ] {
        assert_eq!(post(&mut admin, json, body.into()).await, 400);
    }
    let block: String = (0..1500).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let laughs: String =
        (0..30).map(|n| format!("a{}: &a{} [{}]\n", n + 1, n + 1, format!("*a{n},").repeat(9))).collect();
    let chain: String = (0..5000).map(|n| format!("a{}: &a{} [*a{n}]\n", n + 1, n + 1)).collect();
    for body in [
        nested("[", "", "]", 200_000),
        nested("{a: ", "1", "}", 1900),
        block,
        format!("a0: &a0 [lol]\n{laughs}"),
        format!("a0: &a0 [lol]\n{chain}"),
        "- ".repeat(50_000),
        "&a [*a]".to_owned(),
        "? ".repeat(50_000),
    ] {
        let start: String = body.chars().take(20).collect();
        assert_eq!(post(&mut admin, yaml, body.into()).await, 400, "{start}");
    }
    assert_eq!(post(&mut admin, protobuf, enveloped("List", Vec::new(), 2000)).await, 400);
    assert_eq!(
        post(&mut admin, protobuf, b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec()).await,
        400
    );
    is_well(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deepest_object_that_is_taken_can_be_changed_and_deleted() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"metadata": {"name": "deeps.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "deeps", "kind": "Deep"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    assert_eq!(admin.post(DEFINITIONS, &definition).await.0, 201);
    let path = "/apis/example.com/v1/namespaces/default/deeps";
    let mut deepest = 0;
    for levels in (80..130).step_by(1) {
        let spec: Value = serde_json::from_str(&nested(r#"{"a":"#, "1", "}", levels)).unwrap_or_default();
        let body = json!({"apiVersion": "example.com/v1", "kind": "Deep", "metadata": {"name": format!("d{levels}")}, "spec": spec});
        let (status, body) = sent(&mut admin, Method::POST, path, "application/json", body.to_string()).await;
        if !spec.is_object() || status == 400 {
            continue;
        }
        assert_eq!(status, 201, "{body}");
        deepest = levels;
        let object = format!("{path}/d{levels}");
        let patch = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
        let changed = sent(&mut admin, Method::PATCH, &object, "application/merge-patch+json", patch).await;
        assert_eq!(changed.0, 200, "{levels}: {}", changed.1);
        let deleted = sent(&mut admin, Method::DELETE, &object, "application/json", "").await;
        assert_eq!(deleted.0, 200, "{levels}: {}", deleted.1);
    }
    assert!(deepest >= 90, "{deepest}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_do_not_grow_what_they_change() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let object =
        json!({"metadata": {"name": "a", "annotations": {"x": "y".repeat(100_000)}}, "data": {"k": "v"}});
    assert_eq!(admin.post(MAPS, &object).await.0, 201);
    let path = format!("{MAPS}/a");
    let copies: Vec<Value> = (0..5000)
        .map(|n| json!({"op": "copy", "from": "/metadata/annotations", "path": format!("/metadata/annotations/c{n}")}))
        .collect();
    // Each puts the object into itself: twice as large and twice as deep.
    let doubling: Vec<Value> = (0..17)
        .map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data{}", "/a".repeat(1 << n))}))
        .collect();
    let nesting: Vec<Value> = (0..150)
        .map(|n| {
            json!({"op": "add", "path": format!("/data{}", "/a".repeat(90 * n + 1)),
            "value": serde_json::from_str::<Value>(&nested(r#"{"a":"#, "{}", "}", 89)).expect("JSON")})
        })
        .collect();
    let moving: Vec<Value> = (0..3000)
        .flat_map(|n| {
            [
                json!({"op": "add", "path": format!("/l{n}"), "value": {}}),
                json!({"op": "move", "from": "/data", "path": format!("/l{n}/a")}),
                json!({"op": "move", "from": format!("/l{n}"), "path": "/data"}),
            ]
        })
        .collect();
    for operations in [copies, doubling, nesting, moving] {
        let body = Value::from(operations).to_string();
        let (status, answer) =
            sent(&mut admin, Method::PATCH, &path, "application/json-patch+json", body).await;
        assert_eq!(status, 422, "{answer}");
        is_well(&cluster).await;
    }
    let many =
        Value::from(vec![json!({"op": "test", "path": "/data", "value": {"k": "v"}}); 10_001]).to_string();
    let (status, _) = sent(&mut admin, Method::PATCH, &path, "application/json-patch+json", many).await;
    assert_eq!(status, 413);
    // Very many finalizers are taken out one by one, or all at once.
    let words: Vec<String> = (0..60_000).map(|n| format!("x/f{n}")).collect();
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": words}}).to_string();
    let body = json!({"metadata": {"name": "b", "finalizers": words}}).to_string();
    sent(&mut admin, Method::POST, MAPS, "application/json", body).await;
    sent(&mut admin, Method::PATCH, &format!("{MAPS}/b"), "application/strategic-merge-patch+json", patch)
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complaints_are_shorter_than_what_they_are_about() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let key = "k".repeat(1 << 20);
    let doubled = head(&format!(r#""data":{{"{key}":{{{}"a":1}}}}"#, r#""a":1,"#.repeat(200_000)));
    let unknown: Vec<String> = (0..100_000).map(|n| format!(r#""u{n}":1"#)).collect();
    let wrong = format!(
        r#"{{"metadata":{{"name":"a"}},"spec":{{"signerName":"a/b","extra":{{"{key}":[{}1]}}}}}}"#,
        "1,".repeat(700_000)
    );
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    for (path, body) in [(MAPS, doubled), (MAPS, head(&unknown.join(","))), (requests, wrong)] {
        for validation in ["Strict", "Warn", "Ignore"] {
            let path = format!("{path}?fieldValidation={validation}");
            let (status, _) = sent(&mut admin, Method::POST, &path, "application/json", body.clone()).await;
            assert!(matches!(status, 201 | 400 | 409 | 422), "{path}: {status}");
        }
    }
    is_well(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_patterns_and_selectors_cost_no_more_than_they_are_long() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let deployment = |replicas: &str| {
        format!(
            r#"{{"metadata":{{"name":"a"}},"spec":{{"replicas":{replicas},"selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"a","image":"b"}}]}}}}}}}}"#
        )
    };
    let apps = "/apis/apps/v1/namespaces/default/deployments";
    for number in
        ["1e999999999", "-1e-999999999", "99999999999999999999999999", "1.5", &"9".repeat(1_000_000)]
    {
        let (status, body) =
            sent(&mut admin, Method::POST, apps, "application/json", deployment(number)).await;
        assert!(matches!(status, 400 | 422), "{status} {body}");
    }
    let volume =
        |size: &str| json!({"metadata": {"name": "a"}, "spec": {"capacity": {"storage": size}}}).to_string();
    let long = "9".repeat(1_000_000);
    for size in
        ["1e1000000000", "1e-1000000000", "0.000000000000000000000000000001Ei", &long, &format!("0.{long}Ki")]
    {
        let (status, _) =
            sent(&mut admin, Method::POST, "/api/v1/persistentvolumes", "application/json", volume(size))
                .await;
        assert!(matches!(status, 400 | 422), "{size}: {status}");
    }
    for selector in [
        format!("labelSelector=a+in+({})", "x,".repeat(15_000)),
        format!("labelSelector={}", "!a,".repeat(15_000)),
        format!("fieldSelector={}", "metadata.name!=a,".repeat(3000)),
        format!("labelSelector={}", "(".repeat(50_000)),
        format!("continue={}", "A".repeat(50_000)),
    ] {
        let (status, _) =
            sent(&mut admin, Method::GET, &format!("{MAPS}?{selector}"), "application/json", "").await;
        assert!(matches!(status, 200 | 400 | 410 | 431), "{status}");
        admin = cluster.admin_client().await;
    }
    let schema = |more: Value| {
        let mut field = json!({"type": "string"});
        field.as_object_mut().expect("a field").extend(more.as_object().expect("an object").clone());
        json!({"metadata": {"name": "as.example.com"}, "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "as", "kind": "A"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"x": field}}}}]}}).to_string()
    };
    for (more, expected) in [
        (json!({"pattern": "((((a{100}){100}){100}){100})"}), 422),
        (json!({"pattern": "(".repeat(100_000)}), 422),
        (json!({"x-kubernetes-validations": [{"rule": nested("(", "true", ")", 100_000)}]}), 422),
        (json!({"x-kubernetes-validations": [{"rule": "!".repeat(100_000) + "true"}]}), 422),
    ] {
        let (status, body) = sent(
            &mut admin,
            Method::POST,
            &format!("{DEFINITIONS}?dryRun=All"),
            "application/json",
            schema(more),
        )
        .await;
        // A rule that is too long to be read is not checked, and a warning says so.
        assert!(status == expected || status == 201, "{status} {body}");
    }
    is_well(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_bodies_are_not_unpacked() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer
        .write_all(head(&format!(r#""data":{{"a":"{}"}}"#, "0".repeat(64 << 20))).as_bytes())
        .expect("packed");
    let packed = packer.finish().expect("packed");
    let mut request = admin.request(Method::POST, MAPS, packed);
    request.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    let status = admin.send(request).await.status().as_u16();
    assert!(matches!(status, 400 | 415), "{status}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_objects_are_checked_in_bounded_time_and_words() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let text = json!({"type": "string", "pattern": "^[a-z]{1,60}([-a-z0-9]{0,60}[a-z0-9])?$"});
    let set = json!({"type": "array", "items": text, "x-kubernetes-list-type": "set"});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "set": set, "map": {"type": "object", "additionalProperties": {"type": "array", "items": text}}}}}});
    let definition = json!({"metadata": {"name": "lists.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "lists", "kind": "List"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    assert_eq!(admin.post(DEFINITIONS, &definition).await.0, 201);
    let path = "/apis/example.com/v1/namespaces/default/lists";
    let words: Vec<String> = (0..20_000).map(|n| format!("w{n}")).collect();
    let object = |spec: Value| json!({"metadata": {"name": "a"}, "spec": spec}).to_string();
    let (status, body) =
        sent(&mut admin, Method::POST, path, "application/json", object(json!({"set": words}))).await;
    assert_eq!(status, 201, "{body}");
    let mut more = words.clone();
    more.push("more".to_owned());
    let patch = json!({"spec": {"set": more}}).to_string();
    let merge = "application/merge-patch+json";
    let (status, body) = sent(&mut admin, Method::PATCH, &format!("{path}/a"), merge, patch).await;
    assert_eq!(status, 200, "{body}");
    let key = "k".repeat(1 << 20);
    for wrong in [json!("NO"), json!(1)] {
        let spec = json!({"map": {&key: vec![wrong; 200_000]}});
        let body = object(spec).replace("\"a\"", "\"b\"");
        let (status, _) = sent(&mut admin, Method::POST, path, "application/json", body).await;
        assert_eq!(status, 422);
    }
    is_well(&cluster).await;
    cluster.stop().await;
}
