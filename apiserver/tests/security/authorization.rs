//! Ways around authorization: through subresources, selectors, collections, methods, impersonation and granted roles.

use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::support::{Client, Cluster, POD, cluster_with_pod};
use crate::wire::user_with;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn code(client: &mut Client, method: &str, path: &str, body: &Value) -> u16 {
    let method: Method = method.parse().expect("a method");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client.text(method, path, body).await.0.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_runs_no_command() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let get =
        |resources: Value, verbs: Value| json!([{"apiGroups": [""], "resources": resources, "verbs": verbs}]);
    let streams = json!(["pods/exec", "pods/attach", "pods/portforward"]);
    let mut reader = user_with(&cluster, "reader", false, get(json!(["pods"]), json!(["*"]))).await;
    let mut getter = user_with(&cluster, "getter", false, get(streams.clone(), json!(["get"]))).await;
    let mut creator = user_with(&cluster, "creator", false, get(streams, json!(["get", "create"]))).await;
    for path in ["exec?command=true", "attach?stdout=true", "portforward?ports=80"] {
        let path = format!("{POD}/{path}");
        for client in [&mut reader, &mut getter] {
            let answered = code(client, "GET", &path, &Value::Null).await;
            assert_eq!(answered, 403, "{path}");
        }
        assert_eq!(code(&mut reader, "POST", &path, &Value::Null).await, 403, "{path}");
        // What is missing now is the upgrade only.
        assert_eq!(code(&mut creator, "GET", &path, &Value::Null).await, 400, "{path}");
    }
    for (method, path) in
        [("GET", "proxy/"), ("GET", "log"), ("PUT", "status"), ("POST", "eviction"), ("POST", "binding")]
    {
        assert_eq!(code(&mut reader, method, &format!("{POD}/{path}"), &Value::Null).await, 403, "{path}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_may_be_read_opens_no_collection() {
    let cluster = Cluster::start().await;
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get", "list", "delete", "update", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["update"]},
    ]);
    let mut user = user_with(&cluster, "user", false, rules).await;
    let mut admin = cluster.admin_client().await;
    for name in ["mine", "other"] {
        assert_eq!(admin.post(MAPS, &json!({"metadata": {"name": name}})).await.0, StatusCode::CREATED);
    }
    for (method, target, expected) in [
        ("GET", format!("{MAPS}?fieldSelector=metadata.name=mine"), 200),
        ("GET", format!("{MAPS}?fieldSelector=metadata.name=mine,metadata.name=other"), 200),
        ("GET", format!("{MAPS}?fieldSelector=metadata.name=other"), 403),
        ("GET", format!("{MAPS}?fieldSelector=metadata.name!=other"), 403),
        ("GET", format!("{MAPS}?resourceVersion=0"), 403),
        ("GET", format!("{MAPS}?limit=1"), 403),
        ("GET", "/api/v1/configmaps?fieldSelector=metadata.name=mine".to_owned(), 403),
        ("HEAD", MAPS.to_owned(), 403),
        ("DELETE", MAPS.to_owned(), 403),
        ("DELETE", format!("{MAPS}?fieldSelector=metadata.name=mine"), 403),
        ("DELETE", format!("{MAPS}/other"), 403),
        ("OPTIONS", format!("{MAPS}/mine"), 403),
        ("PROPFIND", format!("{MAPS}/mine"), 403),
        ("TRACE", format!("{MAPS}/mine"), 403),
    ] {
        assert_eq!(code(&mut user, method, &target, &Value::Null).await, expected, "{method} {target}");
    }
    let (_, list) = user.get(&format!("{MAPS}?fieldSelector=metadata.name=mine,metadata.name=other")).await;
    assert_eq!(list["items"], json!([]), "{list}");
    // The object is the one of the path, whatever the body says.
    let other = json!({"metadata": {"name": "other"}, "data": {"taken": "over"}});
    assert_eq!(code(&mut user, "PUT", &format!("{MAPS}/mine"), &other).await, 400);
    // Who may update only creates nothing by it.
    let lease = json!({"metadata": {"name": "new"}, "spec": {}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/new";
    assert_eq!(code(&mut user, "PUT", path, &lease).await, 403);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_be_somebody_is_nobody_else() {
    let cluster = Cluster::start().await;
    let rules = json!([{"apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"], "verbs": ["impersonate"]}]);
    let mut user = user_with(&cluster, "user", true, rules).await;
    let masters = ("impersonate-group", "system:masters");
    let jane = ("impersonate-user", "jane");
    for headers in [
        vec![jane, masters],
        vec![masters],
        vec![("impersonate-user", "kubernetes-admin")],
        vec![jane, ("impersonate-user", "system:serviceaccount:kube-system:namespace-controller")],
        vec![jane, ("impersonate-uid", "1")],
        vec![jane, ("impersonate-extra-scopes", "all")],
        vec![("impersonate-user", "system:node:node-1"), ("impersonate-group", "system:nodes")],
        vec![("impersonate-unknown", "x")],
    ] {
        let mut request = user.request(Method::GET, "/api/v1/nodes", "");
        for (name, value) in &headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let status = user.send(request).await.status();
        assert!(matches!(status.as_u16(), 400 | 403), "{headers:?}: {status}");
    }
    let mut request = user.request(Method::GET, "/api", "");
    request.headers_mut().insert("impersonate-user", HeaderValue::from_static("jane"));
    assert_eq!(user.send(request).await.status(), StatusCode::OK);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_grants_what_he_does_not_hold() {
    let cluster = Cluster::start().await;
    let everything = json!(["clusterroles", "clusterrolebindings", "roles", "rolebindings"]);
    let rules = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": everything, "verbs": ["get", "create", "update", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]);
    let mut user = user_with(&cluster, "user", true, rules).await;
    let secrets = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let maps = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let aggregation = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let roles = format!("{RBAC}/clusterroles");
    let role = |name: &str, more: Value| {
        let mut role = json!({"metadata": {"name": name}, "rules": []});
        role.as_object_mut().expect("a role").extend(more.as_object().expect("an object").clone());
        role
    };
    let to = |role: &str| {
        json!({"metadata": {"name": format!("to-{role}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "user"}]})
    };
    let own = role("own", json!({"rules": maps}));
    assert_eq!(code(&mut user, "POST", &roles, &own).await, 201);
    for (method, path, body) in [
        ("POST", roles.clone(), role("a", json!({"rules": secrets}))),
        ("POST", roles.clone(), role("b", json!({"aggregationRule": aggregation}))),
        (
            "POST",
            roles.clone(),
            role("c", json!({"rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]})),
        ),
        // Whoever is an administrator of a namespace would hold it too.
        ("POST", roles.clone(), {
            let mut role = role("d", json!({"rules": secrets}));
            role["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
            role
        }),
        ("PUT", format!("{roles}/own"), role("own", json!({"rules": secrets}))),
        ("PUT", format!("{roles}/own"), role("own", json!({"rules": maps, "aggregationRule": aggregation}))),
        ("PUT", format!("{RBAC}/namespaces/default/roles/new"), role("new", json!({"rules": secrets}))),
        ("POST", format!("{RBAC}/clusterrolebindings"), to("cluster-admin")),
        ("POST", format!("{RBAC}/namespaces/default/rolebindings"), to("edit")),
        ("PUT", format!("{RBAC}/clusterrolebindings/to-admin"), to("admin")),
    ] {
        assert_eq!(code(&mut user, method, &path, &body).await, 403, "{method} {path} {body}");
    }
    let mut request =
        user.request(Method::PATCH, &format!("{roles}/own"), json!({"rules": secrets}).to_string());
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/merge-patch+json"));
    assert_eq!(user.send(request).await.status(), StatusCode::FORBIDDEN);
    let apply = format!("{roles}/own?fieldManager=me&force=true");
    let applied =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": secrets});
    let mut request = user.request(Method::PATCH, &apply, role("own", applied).to_string());
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/apply-patch+yaml"));
    assert_eq!(user.send(request).await.status(), StatusCode::FORBIDDEN);
    cluster.stop().await;
}
