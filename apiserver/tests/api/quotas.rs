//! Quotas under pressure: whatever is created at the same time, no more is taken than there is, and nobody is turned away
//! while there is some left.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_writers_share_a_quota_out() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "20"}}});
    let (status, mut quota) = admin.post(quotas, &quota).await;
    assert_eq!(status, StatusCode::CREATED, "{quota}");
    // In the place of the controller.
    quota["status"] = json!({"hard": {"configmaps": "20"}, "used": {"configmaps": "0"}});
    let (status, answer) = admin.json(Method::PUT, &format!("{quotas}/q/status"), &quota).await;
    assert_eq!(status, StatusCode::OK, "{answer}");

    let sender = cluster.http2(Some(&cluster.admin())).await;
    let mut requests = tokio::task::JoinSet::new();
    for index in 0..60 {
        let mut sender = sender.clone();
        requests.spawn(async move {
            let body =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{index}")}});
            let request = Request::post("https://kubernetes/api/v1/namespaces/default/configmaps")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::<Bytes>::from(body.to_string()))
                .expect("a request");
            let response = sender.send_request(request).await.expect("an answer");
            let status = response.status();
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            (status, serde_json::from_slice::<Value>(&body).expect("JSON"))
        });
    }
    let (mut created, mut refused) = (0, 0);
    while let Some(answer) = requests.join_next().await {
        let (status, answer) = answer.expect("answered");
        match status {
            StatusCode::CREATED => created += 1,
            StatusCode::FORBIDDEN => {
                let message = answer["message"].as_str().unwrap_or_default();
                assert!(
                    message.contains("exceeded quota: q, requested: configmaps=1, used: configmaps=20"),
                    "{message}"
                );
                refused += 1;
            }
            other => panic!("{other}: {answer}"),
        }
    }
    assert_eq!((created, refused), (20, 40));
    let (_, quota) = admin.get(&format!("{quotas}/q")).await;
    assert_eq!(quota["status"]["used"]["configmaps"], "20");
    cluster.stop().await;
}
