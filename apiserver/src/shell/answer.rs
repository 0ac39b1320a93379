//! The course of a request that is known to be allowed in: a snapshot, a plan, a commit, an answer; and again while the state
//! moves on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use api::status::Status;
use apiserver_core::failure::Refused;
use apiserver_core::{
    Ask, Consistency, Deleted, DeletionPart, Ids, Prepared, Progress, Rendered, Request,
    Response as CoreResponse, World, contended as contended_key, failure, prepare_from,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use jiff::Timestamp;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use store::{CommitError, Outcome, ReadError, Snapshot};

use super::{Caller, Shell};
use crate::body::Body;
use crate::hub::Forgotten;
use crate::respond::IntoHttp as _;
use crate::{cluster, compress, openapi, streams, watch};

/// How long a read waits for a revision that this member has not applied yet.
const REVISION_DEADLINE: Duration = Duration::from_secs(3);
/// How often a request is planned anew because the state moved on.
const MAX_PLANS: usize = 16;
/// How often webhooks are asked for one request.
const MAX_ASKS: usize = 256;

/// A request in its course: what it is planned with each time.
struct Course {
    progress: Progress,
    /// What webhooks were asked about must not change because time goes on, or because ids are drawn anew.
    now: Timestamp,
    rng: StdRng,
    asks: usize,
}

// === impl Shell ===

impl Shell {
    /// Plans the request, and plans it again while the state moves on under it. `body` is what a proxied request sends.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: &mut Request,
        mut parts: Parts,
        body: Body,
        caller: &Caller,
    ) -> Response<Body> {
        let info = &request.info;
        let own =
            info.path == "/metrics" || openapi::is_openapi(&info.path) || cluster::is_cluster(&info.path);
        if !info.is_resource && own {
            return self.own_path(request, caller).await;
        }
        let mut consistency = request.consistency();
        let mut course = Course::begin();
        let (mut turn, mut plans) = (None, 0);
        while plans < MAX_PLANS {
            plans += 1;
            let snapshot = match self.snapshot(consistency).await {
                Ok(snapshot) => snapshot,
                Err(refusal) => return refusal.into_http(),
            };
            let prepared = self.plan(&snapshot, request, caller, &course);
            if prepared.must_be_confirmed(&request.info, consistency) {
                consistency = Consistency::Latest;
                continue;
            }
            match prepared {
                Prepared::Respond(response) => return reply(response, &request.headers).await,
                Prepared::Commit(commit) => {
                    // While it waited for its turn, others may have written: it plans again.
                    if turn.is_none()
                        && let Some(key) = contended_key(&commit.txn)
                    {
                        turn = Some(self.turns.take(key).await);
                        continue;
                    }
                    match self.store.commit(commit.txn).await {
                        Ok(outcome) => match commit.reply.render(&outcome) {
                            Rendered::Respond(response) => return response.into_http(),
                            Rendered::Retry => {}
                        },
                        Err(error) => return commit_failure(&error).into_http(),
                    }
                }
                Prepared::Ask(ask) => {
                    if !self.ask(ask, &mut course).await {
                        break;
                    }
                    plans -= 1;
                }
                Prepared::Part(part) => return self.delete_in_parts(request, caller, *part, course).await,
                // A watch that ends at once would only be asked for again.
                Prepared::Watch(_) if self.stop.is_cancelled() => return failure::stopping().into_http(),
                Prepared::Watch(plan) => {
                    let guard = self.metrics.long_running(&request.info);
                    let converts = plan.output.by_webhook();
                    return match self.hub.watch(*plan) {
                        Ok(watcher) => {
                            let watcher = if converts { watcher.converting(self.clone()) } else { watcher };
                            watch::answer(watcher.until(self.stop.clone().cancelled_owned()), guard)
                        }
                        Err(Forgotten { content_type, line }) => watch::expired(content_type, line),
                    };
                }
                Prepared::Measure(plan) => {
                    return self.measures.answer(&self.tunnels, *plan).await.into_http();
                }
                Prepared::Connect(plan) => {
                    let guard = self.metrics.long_running(&request.info);
                    parts.headers = std::mem::take(&mut request.headers);
                    return streams::carry(self, *plan, parts, body, guard).await;
                }
            }
        }
        contended().into_http()
    }

    /// Carries out the deletion of a collection, part after part.
    async fn delete_in_parts(
        &self,
        request: &Request,
        caller: &Caller,
        mut part: DeletionPart,
        mut course: Course,
    ) -> Response<Body> {
        let (mut deleted, mut plans) = (Deleted::default(), 1);
        let mut place = part.from.clone();
        loop {
            let txn = std::mem::take(&mut part.txn);
            let outcome = match txn.ops.is_empty() {
                true => Outcome::Committed { revisions: Vec::new() },
                false => match self.store.commit(txn).await {
                    Ok(outcome) => outcome,
                    Err(error) => return commit_failure(&error).into_http(),
                },
            };
            if matches!(outcome, Outcome::Committed { .. }) {
                let next = part.next.clone();
                if let Some(response) = part.settle(&outcome, &mut deleted) {
                    return response.into_http();
                }
                (place, plans) = (next.unwrap_or(place), 0);
            }
            if plans >= MAX_PLANS {
                return contended().into_http();
            }
            plans += 1;
            course.progress.place = Some(place.clone());
            part = loop {
                match self.plan(&self.store.snapshot(), request, caller, &course) {
                    Prepared::Part(part) => break *part,
                    Prepared::Ask(ask) => {
                        if !self.ask(ask, &mut course).await {
                            return contended().into_http();
                        }
                    }
                    Prepared::Respond(response) => return response.into_http(),
                    _ => return failure::internal("a deletion became something else").into_http(),
                }
            };
        }
    }

    /// Asks webhooks what a plan wants to know; `false` when they were asked too often.
    async fn ask(&self, ask: Ask, course: &mut Course) -> bool {
        course.asks += 1;
        if course.asks > MAX_ASKS {
            return false;
        }
        self.webhooks.ask(&self.tunnels, ask, &mut course.progress.answers).await;
        true
    }

    fn plan(&self, snapshot: &Snapshot, request: &Request, caller: &Caller, course: &Course) -> Prepared {
        let (derived, config) = (self.derived.load(), self.config.load());
        let world = World { snapshot, derived: &derived, config: &config };
        let plan = || {
            let mut rng = course.rng.clone();
            let ids = &mut Ids::new(&mut rng);
            prepare_from(&world, request, &caller.user, course.now, ids, &course.progress)
        };
        // One request that breaks the planner must not take its connection's other requests with it.
        catch_unwind(AssertUnwindSafe(plan)).unwrap_or_else(|_| {
            tracing::error!(method = %request.info.method, path = request.info.path, "planning a request panicked");
            Prepared::Respond(*failure::internal("the request could not be planned"))
        })
    }

    async fn snapshot(&self, consistency: Consistency) -> Result<Arc<Snapshot>, Refused> {
        let found = match consistency {
            Consistency::Any => return Ok(self.store.snapshot()),
            Consistency::Latest => self.store.linearizable().await,
            Consistency::NotOlderThan(revision) => self.store.at_least(revision, REVISION_DEADLINE).await,
            Consistency::Exact(revision) => match self.store.at_least(revision, REVISION_DEADLINE).await {
                Ok(_) => {
                    return self.store.at(revision).map_err(|_| {
                        Status::expired(
                            "The provided continue parameter or resourceVersion is too old to display a \
                             consistent list result.",
                        )
                        .into()
                    });
                }
                Err(error) => Err(error),
            },
        };
        found.map_err(|error| {
            let wanted = match consistency {
                Consistency::NotOlderThan(revision) | Consistency::Exact(revision) => revision,
                _ => 0,
            };
            read_failure(&error, self.store.snapshot().revision(), wanted)
        })
    }
}

// === impl Course ===

impl Course {
    fn begin() -> Course {
        let rng = StdRng::from_rng(&mut rand::rng());
        Course { progress: Progress::default(), now: Timestamp::now(), rng, asks: 0 }
    }
}

/// An answer as HTTP, compressed when it is large and the client asks for it.
async fn reply(response: CoreResponse, headers: &HeaderMap) -> Response<Body> {
    if response.status != StatusCode::OK || !compress::is_wanted(headers, response.body.len()) {
        return response.into_http();
    }
    let body = response.body.clone();
    let packed = tokio::task::spawn_blocking(move || compress::gzip(&body)).await;
    let Ok(Some(packed)) = packed else { return response.into_http() };
    let mut response = CoreResponse { body: apiserver_core::Body::One(packed), ..response }.into_http();
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

fn contended() -> CoreResponse {
    let message = "the object changed again and again while the request was being carried out";
    CoreResponse::failure(StatusCode::CONFLICT, "Conflict", message)
}

fn commit_failure(error: &CommitError) -> Refused {
    match error {
        CommitError::Unknown => Box::new(CoreResponse::failure(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            "the outcome of the request is unknown: look before asking again",
        )),
        CommitError::TooLarge { limit, .. } => Status::too_large(*limit).into(),
        CommitError::DiskFull | CommitError::NotLeader { .. } | CommitError::Closed => Box::new(
            CoreResponse::failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &error.to_string()),
        ),
    }
}

fn read_failure(error: &ReadError, current: u64, wanted: u64) -> Refused {
    match error {
        ReadError::TimedOut => Status::too_large_resource_version(wanted, current).into(),
        ReadError::Unconfirmed | ReadError::Closed => Status::unavailable(error.to_string()).into(),
    }
}
