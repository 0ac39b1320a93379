use proptest::prelude::*;
use serde_json::json;

use super::*;

fn check(type_name: &str, object: Value) {
    let schemas = schema::builtin();
    let id = schemas.by_name(type_name).expect(type_name);
    let bytes = encode_object(schemas, id, &object);
    let decoded = decode_object(&bytes).expect("decodes");
    assert_eq!(decoded.value, object);
    for end in 4..bytes.len() {
        let _ = decode_object(&bytes[..end]);
    }
}

/// Bytes as a Go client writes them: zero values of fields that are no pointers are there.
#[test]
fn reads_what_go_writes() {
    let mut meta = Vec::new();
    wire::put_bytes(&mut meta, 1, b"demo");
    for number in [2, 3, 4, 5, 6] {
        wire::put_bytes(&mut meta, number, b"");
    }
    wire::put_number(&mut meta, 7, 0);
    wire::put_bytes(&mut meta, 8, b"");
    let mut namespace = Vec::new();
    wire::put_bytes(&mut namespace, 1, &meta);
    wire::put_bytes(&mut namespace, 2, b"");
    let mut status = Vec::new();
    wire::put_bytes(&mut status, 1, b"");
    wire::put_bytes(&mut namespace, 3, &status);
    let mut names = Vec::new();
    wire::put_bytes(&mut names, 1, b"v1");
    wire::put_bytes(&mut names, 2, b"Namespace");
    let mut bytes = MAGIC.to_vec();
    wire::put_bytes(&mut bytes, 1, &names);
    wire::put_bytes(&mut bytes, 2, &namespace);
    let document = decode_object(&bytes).expect("decodes");
    assert_eq!((document.api_version.as_str(), document.kind.as_str()), ("v1", "Namespace"));
    assert_eq!(
        document.value,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}, "spec": {}, "status": {}})
    );
}

#[test]
fn objects_come_back_as_they_went() {
    check(
        "apps.v1.Deployment",
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"a": "b", "c": ""}, "creationTimestamp": "2024-01-02T03:04:05Z",
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"replicas": 0, "paused": true, "selector": {"matchLabels": {"a": "b"}},
                "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                "template": {"metadata": {}, "spec": {
                    "containers": [{"name": "c", "args": ["", "x"], "resources": {"limits": {"cpu": "100m"}},
                        "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 5},
                        "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}],
                    "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}},
                        {"name": "e", "emptyDir": {}}],
                    "terminationGracePeriodSeconds": -1}}},
            "status": {}}),
    );
    check(
        "core.v1.Secret",
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"a": "AAEC", "e": ""}, "type": "Opaque"}),
    );
    check(
        "authorization.v1.SubjectAccessReview",
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
            "spec": {"user": "u", "extra": {"k": ["a", "b"]}}, "status": {"allowed": false}}),
    );
    check(
        "coordination.v1.Lease",
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {},
            "spec": {"renewTime": "2024-01-02T03:04:05.000006Z", "leaseDurationSeconds": 40}}),
    );
    check(
        "core.v1.Pod",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {}, "status": {}}),
    );
    check(
        "meta.v1.DeleteOptions",
        json!({"apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}}),
    );
}

#[test]
fn hostile_bytes_are_refused() {
    assert_eq!(decode_object(b"{}"), Err(Error::Magic));
    assert_eq!(decode_object(b"k8s\0\x12\xff\xff\xff\xff\x0f"), Err(Error::Truncated));
    assert!(matches!(decode_object(b"k8s\0\x0a\x02\x0a\x00"), Err(Error::UnknownKind { .. })));
    assert_eq!(decode_object(b"k8s\0\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), Err(Error::Overflow));
}

#[test]
fn nested_documents_are_bounded() {
    let schemas = schema::builtin();
    let revision = schemas.by_name("apps.v1.ControllerRevision").expect("revision");
    let mut bytes = br#"{"a":1}"#.to_vec();
    for _ in 0..200 {
        let mut raw = Vec::new();
        wire::put_bytes(&mut raw, 1, &bytes);
        let mut message = Vec::new();
        wire::put_bytes(&mut message, 2, &raw);
        let mut names = Vec::new();
        wire::put_bytes(&mut names, 1, b"apps/v1");
        wire::put_bytes(&mut names, 2, b"ControllerRevision");
        bytes = MAGIC.to_vec();
        wire::put_bytes(&mut bytes, 1, &names);
        wire::put_bytes(&mut bytes, 2, &message);
    }
    assert!(!schemas.get(revision).wire.is_empty());
    assert_eq!(decode_object(&bytes), Err(Error::Depth));
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut names = Vec::new();
        wire::put_bytes(&mut names, 1, b"v1");
        wire::put_bytes(&mut names, 2, b"Pod");
        let mut bytes = MAGIC.to_vec();
        wire::put_bytes(&mut bytes, 1, &names);
        wire::put_bytes(&mut bytes, 2, &noise);
        let _ = decode_object(&bytes);
        let _ = decode_object(&noise);
    }
}

/// Reads the fields of a message: numbers and the bytes of those that have bytes.
fn parts(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut reader = wire::Reader::new(bytes);
    let mut parts = Vec::new();
    while let Some((number, item)) = reader.next().expect("a message") {
        parts.push((number, item.bytes("").expect("bytes").to_vec()));
    }
    parts
}

#[test]
fn lists_metadata_and_frames() {
    let schemas = schema::builtin();
    let object = |name: &str| json!({"metadata": {"name": name}, "data": {"k": "v"}});
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"},
        "items": [object("a"), object("b")]});
    let bytes = encode_document(schemas, &list).expect("a list");
    let envelope = decode::envelope(&bytes[4..]).expect("an envelope");
    assert_eq!((envelope.api_version, envelope.kind), ("v1", "ConfigMapList"));
    let fields = parts(envelope.raw);
    assert_eq!(fields.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 2]);
    assert_eq!(parts(&fields[0].1), [(2, b"7".to_vec())]);
    let config_map = schemas.by_name("core.v1.ConfigMap").expect("a type");
    let second = decode::message(schemas, config_map, &fields[2].1, 0).expect("an item");
    assert_eq!(Value::Object(second), object("b"));

    let partial =
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "a"}});
    let bytes = encode_document(schemas, &partial).expect("metadata");
    let raw = parts(decode::envelope(&bytes[4..]).expect("an envelope").raw);
    assert_eq!(parts(&raw[0].1), [(1, b"a".to_vec())]);

    let frame = watch_frame("ADDED", &bytes);
    assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
    let event = parts(&frame[4..]);
    assert_eq!(event[0], (1, b"ADDED".to_vec()));
    assert_eq!(parts(&event[1].1), [(1, bytes)]);
    assert!(encode_document(schemas, &json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"})).is_none());
}
