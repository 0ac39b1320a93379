//! Path confusion: what was authorized is what is served, however a path is written.

use base64::Engine as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Cluster;
use crate::wire::{codes, exchange, user_with};

/// What is in the secret of somebody else: `theirs`, as a secret is shown.
const THEIRS: &str = "dGhlaXJz";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_leads_elsewhere() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    for (namespace, name) in [("kube-system", "theirs"), ("default", "own")] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"key": name}});
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        assert_eq!(admin.post(&path, &secret).await.0, StatusCode::CREATED);
    }
    let rules = json!([{"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["*"]}]);
    let mut user = user_with(&cluster, "user", false, rules).await;
    let continued = |start: &str, revision: u64| {
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        format!(
            "/api/v1/namespaces/default/secrets?continue={}",
            engine.encode(format!("v1\n{revision}\n\n{start}"))
        )
    };
    let revision = cluster.store.snapshot().revision();
    for path in [
        "/api/v1/namespaces/default/../kube-system/secrets".to_owned(),
        "/api/v1/namespaces/default/secrets/../../kube-system/secrets".to_owned(),
        "/api/v1/namespaces/default/%2e%2e/kube-system/secrets".to_owned(),
        "/api/v1/namespaces/default%2F..%2Fkube-system/secrets".to_owned(),
        "/api/v1/namespaces/default%2fsecrets/secrets".to_owned(),
        "/api/v1/namespaces/default/secrets/..%2fkube-system%2ftheirs".to_owned(),
        "/api/v1/namespaces/default/secrets/%2e%2e%2fkube-system%2ftheirs".to_owned(),
        "/api/v1/namespaces/default/secrets/kube-system%2Ftheirs".to_owned(),
        "/api/v1/namespaces/default/secrets/own%00/../theirs".to_owned(),
        "/api/v1/namespaces/default//../kube-system/secrets".to_owned(),
        "/api/v1/namespaces/%2e%2e/secrets".to_owned(),
        "/api/v1/namespaces//secrets".to_owned(),
        "/api/v1/./namespaces/kube-system/secrets".to_owned(),
        "/./api/v1/namespaces/kube-system/secrets".to_owned(),
        "//api/v1/namespaces/kube-system/secrets".to_owned(),
        "/api//v1///namespaces/kube-system//secrets".to_owned(),
        "/api/v1/namespaces/kube-system/secrets/".to_owned(),
        "/api/v1/watch/namespaces/default/../kube-system/secrets?timeoutSeconds=1".to_owned(),
        "/%61pi/v1/namespaces/kube-system/secrets".to_owned(),
        "/api/v1/namespaces/kube%2Dsystem/secrets".to_owned(),
        "/api/v1/namespaces/default/secrets%2f..%2f..%2fkube-system%2fsecrets".to_owned(),
        "/api/v1/namespaces/default;x=/kube-system/secrets".to_owned(),
        "/api/v1/namespaces/default\\..\\kube-system/secrets".to_owned(),
        "/api/v1/namespaces/default/configmaps/..%2f..%2fsecrets%2fkube-system%2ftheirs".to_owned(),
        "/api/v1/secrets/kube-system%2ftheirs".to_owned(),
        "/api/v1/namespaces/default/secrets?fieldSelector=metadata.namespace=kube-system".to_owned(),
        continued("../kube-system/", revision),
        continued("/core/secrets/kube-system/", revision),
        continued("", revision),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n");
        let identity = crate::wire::user(&cluster, "user");
        let answer = exchange(&cluster, Some(&identity), request).await;
        assert!(!answer.contains(THEIRS), "{path}: {answer}");
        assert!(!codes(&answer).iter().any(|code| *code >= 500), "{path}: {answer}");
    }
    assert_eq!(user.get("/api/v1/namespaces/default/secrets/own").await.0, StatusCode::OK);
    let (_, seen) = admin.text(Method::GET, "/api/v1/namespaces/kube-system/secrets/theirs", "").await;
    assert!(seen.contains(THEIRS), "it would have been seen: {seen}");
    // Names and namespaces that are no names are not written either.
    for (path, name) in [
        ("/api/v1/namespaces/default/secrets", "../kube-system/new"),
        ("/api/v1/namespaces/default/secrets", "a/b"),
        ("/api/v1/namespaces/default/secrets", ".."),
        ("/api/v1/namespaces/default%2fx/secrets", "new"),
    ] {
        let (status, body) = admin.post(path, &json!({"metadata": {"name": name}})).await;
        assert!(matches!(status.as_u16(), 400 | 404 | 422), "{path} {name}: {body}");
    }
    let elsewhere = json!({"metadata": {"name": "new", "namespace": "kube-system"}});
    assert_eq!(user.post("/api/v1/namespaces/default/secrets", &elsewhere).await.0, StatusCode::BAD_REQUEST);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_to_all_opens_nothing_else() {
    let cluster = Cluster::start().await;
    for path in [
        "/version/../api/v1/namespaces",
        "/version/x",
        "/version%2f..%2fapi",
        "/version?/api/v1/namespaces",
        "/healthz/../api/v1/namespaces",
        "/healthz/..%2f..%2fapi%2fv1%2fnamespaces",
        "/livez/%2e%2e/api",
        "//api/v1/namespaces",
        "/orlop/v1/authority/../members",
        "/orlop/v1/authority/x",
        "/orlop/v1/members",
        "/metrics",
        "/metrics/",
        "//metrics",
        "/healthz/../metrics",
        "*",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n");
        let answer = exchange(&cluster, None, request).await;
        let open = path.starts_with("/version?");
        let good =
            codes(&answer).iter().all(|code| if open { *code == 200 } else { matches!(code, 400..=404) });
        assert!(
            good && !answer.contains("NamespaceList") && !answer.contains("apiserver_request_total"),
            "{path}: {answer}"
        );
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let status =
            cluster.client(None).await.text(method.clone(), "/api/v1/namespaces/default", "").await.0;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_in_a_pod_leads_out_of_its_volume() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin.post(accounts, &json!({"metadata": {"name": "default"}})).await;
    let pod = |volume: Value, mount: Value| {
        let mut mounted = json!({"name": "v", "mountPath": "/v"});
        mounted.as_object_mut().expect("a mount").extend(mount.as_object().expect("an object").clone());
        let mut given = json!({"name": "v"});
        given.as_object_mut().expect("a volume").extend(volume.as_object().expect("an object").clone());
        json!({"metadata": {"name": "p"}, "spec": {"volumes": [given],
            "containers": [{"name": "c", "image": "i", "volumeMounts": [mounted]}]}})
    };
    let empty = json!({"emptyDir": {}});
    let item = |path: &str| json!([{"key": "k", "path": path}]);
    let path = "/api/v1/namespaces/default/pods?dryRun=All";
    let (status, body) = admin.post(path, &pod(empty.clone(), json!({"subPath": "a/b"}))).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let mut hostile = vec![
        pod(empty.clone(), json!({"subPath": "../x"})),
        pod(empty.clone(), json!({"subPath": "a/../../x"})),
        pod(empty.clone(), json!({"subPath": "/etc"})),
        pod(empty.clone(), json!({"subPathExpr": "../$(X)"})),
        pod(json!({"hostPath": {"path": "/var/../etc"}}), json!({})),
        pod(json!({"hostPath": {"path": "/var", "type": "Anything"}}), json!({})),
        pod(json!({"name": "../v", "emptyDir": {}}), json!({})),
        pod(
            json!({"downwardAPI": {"items": [{"path": "../x", "fieldRef": {"fieldPath": "metadata.name"}}]}}),
            json!({}),
        ),
        pod(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "../token"}}]}}), json!({})),
    ];
    for out in ["../x", "..", "a/../../x", "/etc/passwd", "..data/x"] {
        hostile.push(pod(json!({"configMap": {"name": "m", "items": item(out)}}), json!({})));
        hostile.push(pod(json!({"secret": {"secretName": "s", "items": item(out)}}), json!({})));
        let source = json!({"configMap": {"name": "m", "items": item(out)}});
        hostile.push(pod(json!({"projected": {"sources": [source]}}), json!({})));
    }
    for pod in hostile {
        let (status, body) = admin.post(path, &pod).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{pod}: {body}");
    }
    for (plural, field) in [("configmaps", "data"), ("secrets", "stringData")] {
        for key in ["..", ".", "a/b", "../x", ""] {
            let object = json!({"metadata": {"name": "m"}, field: {key: "x"}});
            let (status, body) = admin.post(&format!("/api/v1/namespaces/default/{plural}"), &object).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{plural} {key}: {body}");
        }
    }
    // The log of a container is one that the pod has.
    let real = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(admin.post("/api/v1/namespaces/default/pods", &real).await.0, StatusCode::CREATED);
    for container in ["..%2f..%2fother", "%2fetc%2fpasswd", "c%2f..%2f..", "c%00"] {
        let (status, body) = admin
            .text(Method::GET, &format!("/api/v1/namespaces/default/pods/p/log?container={container}"), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{container}: {body}");
    }
    cluster.stop().await;
}
