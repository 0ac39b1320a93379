//! The controllers from end to end against a server that knows little: a namespace without its defaults, and
//! a ReplicaSet without its pods.

use std::convert::Infallible;

use bytes::Bytes;
use client::kube::client::Body;
use client::{Client, Informers};
use futures::stream;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

type Posted = mpsc::UnboundedSender<(String, Value)>;

fn list(path: &str) -> Value {
    let resource = |name: &str, kind: &str| json!({"name": name, "kind": kind, "namespaced": true, "singularName": "", "verbs": ["list", "watch", "delete"]});
    let items = match path {
        "/api/v1" => {
            let resources =
                [resource("pods", "Pod"), resource("secrets", "Secret"), resource("events", "Event")];
            return json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": resources});
        }
        "/apis" => return json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "/api/v1/namespaces" => {
            json!([{"metadata": {"name": "default", "uid": "n", "resourceVersion": "3"}}])
        }
        "/apis/apps/v1/replicasets" => json!([{
            "metadata": {"name": "web", "namespace": "default", "uid": "r", "resourceVersion": "4"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}},
        }]),
        _ => json!([]),
    };
    json!({"metadata": {"resourceVersion": "9"}, "items": items})
}

async fn serve(
    request: Request<Body>,
    posted: Posted,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let path = request.uri().path().to_owned();
    let watches = request.uri().query().is_some_and(|query| query.contains("watch"));
    let body = match (request.method(), watches) {
        (&Method::GET, true) => {
            BodyExt::boxed(StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()))
        }
        (&Method::GET, false) => Full::new(Bytes::from(list(&path).to_string())).boxed(),
        _ => {
            let bytes = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            // A revision ahead of any list: the watch has not told of it.
            object["metadata"]["uid"] = json!(format!("u-{}", object["metadata"]["name"]));
            object["metadata"]["resourceVersion"] = json!("100");
            posted.send((path, object.clone())).ok();
            Full::new(Bytes::from(object.to_string())).boxed()
        }
    };
    Ok(Response::new(body))
}

#[tokio::test]
async fn makes_what_is_missing_once() {
    let (posted, mut seen) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let posted = posted.clone();
        Box::pin(serve(request, posted))
            as futures::future::BoxFuture<'static, Result<Response<BoxBody<Bytes, Infallible>>, Infallible>>
    });
    let client = Client::in_process(service, |_| {});
    let settings = controller_core::world::Settings { root_ca: "PEM".into(), ..Default::default() };
    let why = controller::Why::default();
    let config = controller::Config { settings, why: why.clone(), ..controller::Config::default() };
    let stop = CancellationToken::new();
    let clients = client.clone();
    let running =
        tokio::spawn(controller::run(config, move |_| clients.clone(), Informers::new(client), stop.clone()));
    let mut made = Vec::new();
    while made.len() < 5 {
        let (path, object) = seen.recv().await.unwrap();
        match path.as_str() {
            "/api/v1/namespaces/default/pods" => made.push("pod".to_owned()),
            "/api/v1/namespaces/default/serviceaccounts" | "/api/v1/namespaces/default/configmaps" => {
                made.push(object["metadata"]["name"].as_str().unwrap().to_owned());
            }
            // Events, and the status.
            _ => {}
        }
    }
    made.sort();
    assert_eq!(made, ["default", "kube-root-ca.crt", "pod", "pod", "pod"]);
    // Although no watch ever tells of the pods, they are not made again: the status counts them.
    loop {
        let (path, object) = seen.recv().await.unwrap();
        assert_ne!(path, "/api/v1/namespaces/default/pods");
        if path.ends_with("/replicasets/web/status") {
            assert_eq!(object["status"]["replicas"], 3);
            break;
        }
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}
