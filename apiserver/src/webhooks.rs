//! Asks webhooks: by HTTPS to a host, or to the endpoints of a service, pods through the tunnels of their nodes.
//!
//! What is asked, and what answers mean, the core has decided. Connections are kept and used again.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apiserver_core::ask::{Answer, Ask, Fault, Question, Route};
use apiserver_core::{Answers, Ids};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::tunnel::Registry;
use connector::Connector;

mod connector;
mod trust;

/// So many webhooks are asked at the same time for one request.
const AT_ONCE: usize = 16;
/// An unused connection is kept so long.
const IDLE: Duration = Duration::from_secs(30);
/// More clients than these are not kept: some are made anew then.
const MAX_CLIENTS: usize = 128;
/// The largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// The largest part of a refusal that is told.
const MAX_TOLD: usize = 1024;

/// Clients of the webhooks that were asked lately.
#[derive(Default)]
pub(crate) struct Webhooks {
    clients: Mutex<HashMap<Key, Arc<Hook>>>,
}

/// What connections may be shared for: host and port, and who vouches for them.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    authority: String,
    ca_bundle: Bytes,
    by_service: bool,
}

/// A client of one webhook's server.
struct Hook {
    client: Client<Connector, Full<Bytes>>,
    /// Where new connections lead.
    route: Arc<ArcSwap<Route>>,
}

// === impl Webhooks ===

impl Webhooks {
    /// Asks all questions, and keeps their answers.
    pub(crate) async fn ask(&self, tunnels: &Arc<Registry>, ask: Ask, answers: &mut Answers) {
        let asked = ask.questions.into_iter().map(|question| async move {
            let answer = self.answer(tunnels, &question).await;
            (question, answer)
        });
        let mut asked = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((question, answer)) = asked.next().await {
            if let Err(fault) = &answer {
                tracing::warn!(url = question.url, %fault, "a webhook has not answered");
            }
            answers.put(&question, answer);
        }
    }

    async fn answer(&self, tunnels: &Arc<Registry>, question: &Question) -> Answer {
        let uid = Ids::new(&mut rand::rng()).uid();
        let failed = |why: String| Fault::Call(format!("Post {:?}: {why}", question.url));
        let posted =
            tokio::time::timeout(question.timeout, self.post(tunnels, question, question.body(&uid)));
        let (status, body) = posted
            .await
            .map_err(|_| failed("context deadline exceeded".to_owned()))?
            .map_err(|error| failed(told(&*error)))?;
        match status.is_success() {
            true => question.read(&uid, &body),
            false => Err(Fault::Call(refusal(status, &body))),
        }
    }

    async fn post(
        &self,
        tunnels: &Arc<Registry>,
        question: &Question,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
        let uri: Uri = question.url.parse()?;
        let hook = self.client(tunnels, &uri, question)?;
        let mut request = Request::post(uri).body(Full::new(body))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("kube-apiserver-admission"));
        let answer = hook.client.request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?;
        Ok((status, body.to_bytes()))
    }

    fn client(
        &self,
        tunnels: &Arc<Registry>,
        uri: &Uri,
        question: &Question,
    ) -> Result<Arc<Hook>, rustls::Error> {
        let key = Key {
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            ca_bundle: question.ca_bundle.clone(),
            by_service: question.route != Route::Host,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hook) = clients.get(&key) {
            hook.route.store(Arc::new(question.route.clone()));
            return Ok(hook.clone());
        }
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        let route = Arc::new(ArcSwap::from_pointee(question.route.clone()));
        let tls = trust::client_config(&question.ca_bundle)?;
        let connector = Connector::new(tunnels.clone(), route.clone(), tls);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let hook = Arc::new(Hook { client, route });
        clients.insert(key, hook.clone());
        Ok(hook)
    }
}

/// An error with its causes.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some say what their cause says.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// What an answer without success says, in the words that clients of Kubernetes have for it.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    if let (Some("Status"), Some(message)) = (document["kind"].as_str(), document["message"].as_str()) {
        return message.to_owned();
    }
    let body = String::from_utf8_lossy(&body[..body.len().min(MAX_TOLD)]);
    match status {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".to_owned(),
        StatusCode::BAD_REQUEST => "the server rejected our request for an unknown reason".to_owned(),
        status if status.is_server_error() => {
            format!("an error on the server ({:?}) has prevented the request from succeeding", body.trim())
        }
        status => {
            let code = status.as_u16();
            format!("the server responded with the status code {code} but did not return more information")
        }
    }
}
