//! Answers `metrics.k8s.io`: asks the agents, through their tunnels, what they have measured.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use apiserver_core::Response;
use apiserver_core::metrics::{MeasurePlan, Summary};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proto::tunnel::{Node, open};
use tokio_util::task::AbortOnDropHandle;

use crate::body::BodyError;
use crate::tunnel::Registry;

/// How long an agent may take. One that takes longer is left out.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long an answer is good for. Agents measure more seldom than this.
const FRESH: Duration = Duration::from_secs(5);
/// Agents that are asked at the same time.
const ASKED: usize = 64;
/// The largest answer of an agent.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// What agents have said lately.
#[derive(Default)]
pub(crate) struct Measures(Mutex<HashMap<String, (Instant, Arc<Summary>)>>);

// === impl Measures ===

impl Measures {
    /// Carries out the plan.
    pub(crate) async fn answer(&self, tunnels: &Registry, plan: MeasurePlan) -> Response {
        let nodes: Vec<String> = plan.nodes().into_iter().map(str::to_owned).collect();
        let said: BTreeMap<String, Summary> = futures::stream::iter(nodes)
            .map(|node| async move {
                let summary = self.of(tunnels, &node).await?;
                Some((node, (*summary).clone()))
            })
            .buffer_unordered(ASKED)
            .filter_map(futures::future::ready)
            .collect()
            .await;
        plan.render(&said)
    }

    async fn of(&self, tunnels: &Registry, node: &str) -> Option<Arc<Summary>> {
        if let Some((_, summary)) = self.kept().get(node).filter(|(since, _)| since.elapsed() < FRESH) {
            return Some(summary.clone());
        }
        // Hollow nodes have no agent that could be asked.
        if !tunnels.is_connected(node) {
            return None;
        }
        let summary = match tokio::time::timeout(DEADLINE, ask(tunnels, node)).await {
            Ok(Ok(summary)) => Arc::new(summary),
            Ok(Err(error)) => {
                tracing::debug!(node, %error, "an agent did not say what its node uses");
                return None;
            }
            Err(_) => {
                tracing::debug!(node, "an agent did not say in time what its node uses");
                return None;
            }
        };
        let mut kept = self.kept();
        kept.retain(|_, (since, _)| since.elapsed() < FRESH);
        kept.insert(node.to_owned(), (Instant::now(), summary.clone()));
        Some(summary)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, (Instant, Arc<Summary>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(tunnels: &Registry, node: &str) -> Result<Summary, BodyError> {
    let session = tunnels.open(node, open::Request::Node(Node {})).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(session.into_pipe())).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get("/stats/summary").header(header::HOST, node).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("its agent answered {}", answer.status()).into());
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?;
    Ok(Summary::read(&body.to_bytes())?)
}
