//! Informers over a service inside the process.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::ResponseBody;

/// Answers lists with one pod, the first watch with the given lines, later ones not at all.
fn client(watch: &'static str, watches: Arc<AtomicUsize>) -> Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        assert_eq!(request.extensions().get::<&str>(), Some(&"me"));
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body: ResponseBody = if query.contains("watch=true") {
            let first = watches.fetch_add(1, Ordering::SeqCst) == 0;
            let lines = futures::stream::iter(first.then(|| {
                Ok::<_, tower::BoxError>(http_body::Frame::data(Bytes::from_static(watch.as_bytes())))
            }));
            StreamBody::new(lines.chain(futures::stream::pending())).boxed_unsync()
        } else {
            let list = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[
                {"metadata":{"namespace":"d","name":"a","resourceVersion":"3"}}, {"metadata":{"name":"bad","labels":7}}]}"#;
            Full::new(Bytes::from_static(list.as_bytes())).map_err(Into::into).boxed_unsync()
        };
        futures::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
    });
    Client::in_process(service, |extensions| {
        extensions.insert("me");
    })
}

#[tokio::test]
async fn lists_watches_and_tells_changes() {
    let watches = Arc::new(AtomicUsize::new(0));
    let lines = concat!(
        r#"{"type":"MODIFIED","object":{"metadata":{"namespace":"d","name":"a","resourceVersion":"6"}}}"#,
        "\n",
        r#"{"type":"DELETED","object":{"metadata":{"namespace":"d","name":"a","resourceVersion":"7"}}}"#,
        "\n",
    );
    let informers = Informers::new(client(lines, Arc::clone(&watches)));
    let pods = informers.get::<Pod>(Scope::all());
    let mut changes = pods.subscribe();
    let mut log = Vec::new();
    while log.len() < 4 {
        log.push(match changes.next().await.expect("the informer lives") {
            Change::Applied { new, old } => {
                format!("{} {:?}", new.resource_version(), old.map(|old| old.resource_version().to_owned()))
            }
            Change::Deleted { last } => format!("gone at {}", last.resource_version()),
            Change::Synced => "synced".to_owned(),
            Change::Relisted { resource_version } => format!("relisted {resource_version}"),
        });
    }
    assert_eq!(log, ["3 None", "synced", "6 Some(\"3\")", "gone at 7"]);
    pods.synced().await;
    assert_eq!(pods.store().resource_version(), "7");
    assert!(pods.store().is_empty());
    let again = informers.get::<Pod>(Scope::all());
    assert!(Arc::ptr_eq(&again.shared, &pods.shared), "one cache for all who ask");
    assert_eq!(watches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn ends_with_its_owner() {
    let informers = Informers::new(client("", Arc::default()));
    let mut changes = informers.get::<Pod>(Scope::all()).subscribe();
    drop(informers);
    let drained = async { while changes.next().await.is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), drained).await.expect("the stream ends");
}
