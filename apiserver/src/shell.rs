//! What every request goes through: who asks, as whom, how much of it is taken in, and how long it may take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use api::status::Status;
use apiserver_core::authn::{TokenError, impersonation};
use apiserver_core::authz::{Attributes, check};
use apiserver_core::failure::Refused;
use apiserver_core::request::Verb;
use apiserver_core::{
    Config, Derived, Request, RequestInfo, Response as CoreResponse, User, World, authn, failure,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;
use jiff::Timestamp;
use store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::body::{Body, BodyError};
use crate::cluster;
use crate::connection::Limits;
use crate::conversions::Conversions;
use crate::health::{self, Health};
use crate::hub::Hub;
use crate::issuers::Issuers;
use crate::limits::{Limiter, Slot};
use crate::measure::Measures;
use crate::metrics::{self, Metrics};
use crate::openapi::Documents;
use crate::pki::Authority;
use crate::request_body::{BodyFailure, collect};
use crate::respond::IntoHttp as _;
use crate::strangers::Stranger;
use crate::tls::Tls;
use crate::tunnel::Registry;
use crate::turns::Turns;
use crate::webhooks::Webhooks;

mod answer;

/// How long a server that stops still takes connections and requests: those that are on their way to it are served, and not
/// broken off where a client cannot tell whether they had an effect.
const LINGER: Duration = Duration::from_millis(250);
/// How long the store may take to answer a health check.
const HEALTH_DEADLINE: Duration = Duration::from_secs(2);

/// What every request needs.
pub(crate) struct Shell {
    pub(crate) store: Store,
    pub(crate) config: ArcSwap<Config>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) authority: Arc<Authority>,
    /// What every part of the cluster agrees on; told to who joins.
    pub(crate) cluster: serde_json::Value,
    pub(crate) derived: Arc<ArcSwap<Derived>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) tunnels: Arc<Registry>,
    pub(crate) measures: Measures,
    pub(crate) webhooks: Webhooks,
    pub(crate) conversions: Conversions,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pub(crate) limiter: Limiter,
    pub(crate) issuers: Arc<Issuers>,
    pub(crate) turns: Turns,
    pub(crate) openapi: Documents,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Set when genesis is in the store.
    pub(crate) ready: AtomicBool,
}

/// Who a connection belongs to, as far as the connection itself proves it.
pub(crate) enum Peer {
    /// A verified client certificate, or an in-process client.
    Known(Caller),
    /// Each request must say.
    Unknown(Stranger),
}

/// An authenticated user with the count of its requests.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) user: Arc<User>,
    pub(crate) slot: Slot,
}

/// Why it is not known who asks.
enum Denied {
    /// What the token is bound to is not known here; it may be newer than what this server has applied.
    Here,
    /// Its issuer may have published keys that are not known here.
    Elsewhere,
    /// Nothing that a server may still learn changes it.
    Everywhere,
}

// === impl Shell ===

impl Shell {
    /// The user as a caller of this server.
    pub(crate) fn caller(&self, user: User) -> Caller {
        Caller { slot: self.limiter.slot(&user), user: Arc::new(user) }
    }

    /// Returns when the server has been stopping for a while: what began at that time was on its way before.
    pub(crate) async fn lingered(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(LINGER).await;
    }

    /// Answers a request.
    pub(crate) async fn handle<B>(self: &Arc<Self>, request: http::Request<B>, peer: &Peer) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let began = Instant::now();
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path();
        if health::is_health(path) {
            return self.health(path, parts.uri.query().unwrap_or_default()).await;
        }
        if !self.ready.load(Ordering::Acquire) {
            return failure::starting().into_http();
        }
        let caller = match self.authenticated(&parts, peer).await {
            Ok(caller) => caller,
            Err(refusal) => return refusal.into_http(),
        };
        let caller = match self.acting(&parts.headers, caller) {
            Ok(caller) => caller,
            Err(refusal) => return refusal.into_http(),
        };
        let info = match RequestInfo::parse(&parts.method, path, parts.uri.query().unwrap_or_default()) {
            Ok(info) => info,
            Err(refusal) => return refusal.into_http(),
        };
        // A watch's own bound is its timeout; what is bounded here is the time to its first byte.
        let _permit = match info.verb {
            Verb::Watch => None,
            _ => match caller.slot.enter().await {
                Some(permit) => Some(permit),
                None => {
                    self.metrics.rejected.inc();
                    let message = "too many requests of this user are under way, please try again later";
                    return Refused::from(Status::too_many_requests(message, 1)).into_http();
                }
            },
        };
        let inflight = if info.is_write() { &self.metrics.mutating } else { &self.metrics.reading };
        inflight.inc();
        let _inflight = Decrement(inflight);

        let headers = std::mem::take(&mut parts.headers);
        let mut request = Request { info, headers, body: Bytes::new() };
        let response = if request.info.subresource == "proxy" {
            // The backend reads the body and takes its time: only where it leads is for this server to say.
            let body = Body::stream(body.map_err(Into::into));
            self.answer(&mut request, parts, body, &caller).await
        } else {
            let limit = self.config.load().max_body;
            let answered = tokio::time::timeout(self.limits.request, async {
                let body = match collect(body, limit).await {
                    Ok(body) => body,
                    Err(BodyFailure::TooLarge) => {
                        return Refused::from(Status::too_large(limit)).into_http();
                    }
                    Err(BodyFailure::Broken) => {
                        return CoreResponse::bad_request("the request body ended early").into_http();
                    }
                };
                request.body = body;
                self.answer(&mut request, parts, Body::empty(), &caller).await
            })
            .await;
            answered.unwrap_or_else(|_| {
                let message = "Timeout: request did not complete within the allotted timeout";
                CoreResponse::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).into_http()
            })
        };
        self.metrics.record(&request.info, response.status().as_u16(), began.elapsed());
        response
    }

    /// Who asks. What a token is bound to may be newer than what this server has applied, so a token is refused from
    /// confirmed state only.
    async fn authenticated(&self, parts: &Parts, peer: &Peer) -> Result<Caller, Refused> {
        let known = match self.authenticate(parts, peer) {
            Err(Denied::Elsewhere) => {
                // Keys that an issuer has newly published are fetched before its tokens are refused.
                match bearer_token(&parts.headers) {
                    Some(token) if self.issuers.learn(token, Timestamp::now()).await => {
                        self.authenticate(parts, peer)
                    }
                    _ => Err(Denied::Everywhere),
                }
            }
            Err(Denied::Here) if self.store.linearizable().await.is_ok() => self.authenticate(parts, peer),
            known => known,
        };
        known.map_err(|_| Status::unauthorized().into())
    }

    /// Who asks: the connection's certificate, else a bearer token, else nobody.
    fn authenticate(&self, parts: &Parts, peer: &Peer) -> Result<Caller, Denied> {
        let stranger = match peer {
            Peer::Known(caller) => return Ok(caller.clone()),
            Peer::Unknown(stranger) => stranger,
        };
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            // Health was answered before; of the rest only what says who this is is for everyone.
            return match parts.uri.path().trim_end_matches('/') {
                "/version" | cluster::AUTHORITY => Ok(self.caller(User::anonymous())),
                _ => Err(Denied::Everywhere),
            };
        }
        let token = bearer_token(&parts.headers).ok_or(Denied::Everywhere)?;
        match self.issuers.authenticate(token, Timestamp::now()) {
            Some(Ok(user)) => {
                stranger.is_known();
                return Ok(self.caller(user));
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "an ID token was refused");
                return Err(Denied::Elsewhere);
            }
            None => {}
        }
        match authn::authenticate(&self.store.snapshot(), &self.config.load(), token, Timestamp::now()) {
            Ok(user) => {
                stranger.is_known();
                Ok(self.caller(user))
            }
            Err(error) => {
                tracing::debug!(%error, "a bearer token was refused");
                // Whoever makes something up must not have the servers ask each other.
                Err(match error {
                    TokenError::Unbound { .. } | TokenError::Bootstrap => Denied::Here,
                    _ => Denied::Everywhere,
                })
            }
        }
    }

    /// Who the request acts as. Its count stays with the one who has sent it.
    fn acting(&self, headers: &HeaderMap, caller: Caller) -> Result<Caller, Refused> {
        if !impersonation::is_asked(headers) {
            return Ok(caller);
        }
        let snapshot = self.store.snapshot();
        let (derived, config) = (self.derived.load(), self.config.load());
        let world = World { snapshot: &snapshot, derived: &derived, config: &config };
        let user = impersonation::impersonated(&world, &caller.user, headers)?;
        Ok(Caller { user: Arc::new(user), ..caller })
    }

    async fn health(&self, path: &str, query: &str) -> Response<Body> {
        let store = tokio::time::timeout(HEALTH_DEADLINE, self.store.linearizable()).await;
        let health = Health {
            store: matches!(store, Ok(Ok(_))) && self.ready.load(Ordering::Acquire),
            serving: !self.stop.is_cancelled(),
        };
        let mut response = health::answer(health, path, query).into_http();
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// The paths that are answered here and not by the core: they show the server, not its objects.
    async fn own_path(self: &Arc<Self>, request: &mut Request, caller: &Caller) -> Response<Body> {
        let info = &request.info;
        let allowed = {
            let snapshot = self.store.snapshot();
            let (derived, config) = (self.derived.load(), self.config.load());
            let world = World { snapshot: &snapshot, derived: &derived, config: &config };
            check(&world, &caller.user, &Attributes::of(info, &info.method_verb()))
        };
        if let Err(refusal) = allowed {
            return refusal.into_http();
        }
        if info.path == "/metrics" {
            return match self.metrics.text() {
                Ok(text) => CoreResponse {
                    content_type: metrics::CONTENT_TYPE,
                    ..CoreResponse::text(StatusCode::OK, text)
                }
                .into_http(),
                Err(error) => failure::internal(&error.to_string()).into_http(),
            };
        }
        if cluster::is_cluster(&info.path) {
            return self.cluster(request, caller).await;
        }
        let (shell, path) = (self.clone(), info.path.clone());
        let headers = std::mem::take(&mut request.headers);
        let customs = self.derived.load().customs().clone();
        let answer = move || shell.openapi.answer(&shell.config.load(), &customs, &path, &headers);
        let made = tokio::task::spawn_blocking(answer).await;
        made.unwrap_or_else(|error| *failure::internal(&error.to_string())).into_http()
    }
}

struct Decrement<'a>(&'a prometheus_client::metrics::gauge::Gauge);

impl Drop for Decrement<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The token of the one `Authorization` header (RFC 6750): of two headers, or two tokens in one, some server on the way may
/// have read the other.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let is_one = !token.is_empty() && !token.contains(char::is_whitespace);
    (scheme.eq_ignore_ascii_case("bearer") && is_one).then_some(token)
}
