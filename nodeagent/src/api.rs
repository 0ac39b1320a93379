//! The agent's own HTTP API, reached through the tunnel: the part of a kubelet's that is real here.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nodeagent_core::pod;
use nodeagent_core::runtime::{ContainerState, ContainerStatus};
use nodeagent_core::usage::{Owner, Owners};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::driver::PodHandle;
use crate::pods::Pods;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves one connection until its other end is gone.
pub(crate) async fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, pods: Arc<Pods>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let pods = pods.clone();
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &pods).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(io), service).await {
        tracing::debug!(%error, "a connection to the node's API ended early");
    }
}

async fn answer(method: &Method, path: &str, pods: &Pods) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n".into());
    }
    match path.trim_end_matches('/') {
        "/healthz" => respond(StatusCode::OK, TEXT, "ok".into()),
        "/pods" => respond(StatusCode::OK, JSON, bound(pods)),
        "/stats/summary" => {
            let owners = owners(pods).await;
            let summary = pods.node.meter().summary(&pods.node.config.node_name, &owners);
            respond(StatusCode::OK, JSON, summary.to_string())
        }
        "/metrics/resource" => {
            let owners = owners(pods).await;
            respond(StatusCode::OK, PROMETHEUS, pods.node.meter().resource_metrics(&owners))
        }
        "/metrics" => respond(StatusCode::OK, PROMETHEUS, metrics(pods).await),
        _ => {
            let known = "/healthz, /metrics, /metrics/resource, /pods, /stats/summary";
            respond(StatusCode::NOT_FOUND, TEXT, format!("404 page not found: this node serves {known}\n"))
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// The pods that are bound to the node, as the agent knows them.
fn bound(pods: &Pods) -> String {
    let bound: Vec<_> = pods.handles().values().map(PodHandle::pod).collect();
    let items: Vec<_> = bound.iter().map(|pod| &**pod).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}).to_string()
}

/// Whose the running containers are.
async fn owners(pods: &Pods) -> Owners {
    let containers = pods.node.runtime.list_containers().await.unwrap_or_default();
    let sandboxes = pods.node.runtime.list_sandboxes().await.unwrap_or_default();
    let owner = |container: ContainerStatus| {
        let sandbox = sandboxes.iter().find(|it| it.id == container.sandbox)?;
        let owner = Owner {
            namespace: sandbox.pod_namespace.clone(),
            pod: sandbox.pod_name.clone(),
            uid: sandbox.pod_uid.clone(),
            container: container.name,
        };
        Some((container.id, owner))
    };
    let runs = |it: &ContainerStatus| matches!(it.state, ContainerState::Running { .. });
    containers.into_iter().filter(runs).filter_map(owner).collect()
}

/// What the agent can say of itself, with a kubelet's names.
async fn metrics(pods: &Pods) -> String {
    let running = owners(pods).await;
    let active = pods.handles().values().filter(|handle| !pod::is_terminal(&handle.pod())).count();
    let node = &pods.node.config.node_name;
    format!(
        "# HELP kubelet_node_name The node's name. The count is always 1.\n# TYPE kubelet_node_name gauge\n\
         kubelet_node_name{{node={node:?}}} 1\n\
         # HELP kubelet_running_pods Number of pods that have not ended\n# TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {active}\n\
         # HELP kubelet_running_containers Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"running\"}} {}\n",
        running.len()
    )
}
