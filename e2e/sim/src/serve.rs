//! The request loop of one server, as the API server's shell has it: a snapshot, a plan, a commit, an answer.

use std::rc::Rc;

use apiserver_core::authn::jwt::SigningKey;
use apiserver_core::{
    Config, Consistency, Deleted, DeletionPart, DeletionPlace, Ids, Prepared, Progress, Rendered, Request,
    RequestInfo, User, World, fence, genesis, prepare_from,
};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::{Either, select};
use http::{HeaderMap, HeaderValue, Method, header};
use store_core::{Outcome, Snapshot};

use crate::cluster::Cluster;
use crate::kernel::{SECOND, Scope};
use crate::network::Place;
use crate::server::{CommitError, Server};
use crate::streams::Line;

/// How often a request is planned anew because the state moved on.
const MAX_PLANS: usize = 16;
/// How long a read waits for a revision that this member has not applied yet.
const REVISION_DEADLINE: u64 = 3 * SECOND;

/// A request as a client sends it.
#[derive(Clone)]
pub struct ApiRequest {
    /// Who sends it, as its certificate proves.
    pub user: Rc<User>,
    /// GET, POST, …
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The term in whose name it is sent.
    pub fence: Option<Rc<str>>,
    /// What the body is.
    pub content_type: &'static str,
    /// What is wanted back.
    pub accept: &'static str,
    /// The body.
    pub body: Bytes,
}

/// What a server answers.
pub enum ApiAnswer {
    /// A status code and a body.
    Response {
        /// The status code.
        code: u16,
        /// The body.
        body: Bytes,
    },
    /// The lines of a watch.
    Watch(mpsc::UnboundedReceiver<Line>),
}

/// The settings of the simulated cluster.
pub fn config() -> Option<Config> {
    let mut config = Config::new(vec![SigningKey::from_seed(&[7; 32]).ok()?]);
    // Small ranges, so that addresses and ports are used again and again.
    config.service_cidr = apiserver_core::config::Ipv4Cidr::parse("10.96.0.0/26")?;
    config.node_ports = (30000, 30007);
    config.event_ttl = jiff::SignedDuration::from_secs(60);
    Some(config)
}

/// Answers a request.
pub async fn answer(cluster: Rc<Cluster>, server: Rc<Server>, from: Place, request: ApiRequest) -> ApiAnswer {
    if !server.is_ready() {
        return unavailable("the server is not ready");
    }
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let info = match RequestInfo::parse(&request.method, path, query) {
        Ok(info) => info,
        Err(refusal) => return respond(&refusal),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(request.accept));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(request.content_type));
    if let Some(term) = request.fence.as_deref().and_then(|term| HeaderValue::from_str(term).ok()) {
        headers.insert(fence::HEADER, term);
    }
    let core = Request { info, headers, body: request.body.clone() };
    let mut consistency = core.consistency();
    for _ in 0..MAX_PLANS {
        let snapshot = match snapshot(&server, consistency).await {
            Ok(snapshot) => snapshot,
            Err(refusal) => return refusal,
        };
        let Some(prepared) = plan(&cluster, &server, &snapshot, &core, &request.user, None) else {
            return unavailable("the server stops");
        };
        if prepared.must_be_confirmed(&core.info, consistency) {
            consistency = Consistency::Latest;
            continue;
        }
        match prepared {
            Prepared::Respond(response) => return respond(&response),
            Prepared::Commit(commit) => {
                cluster.checks.fences.planned(request.fence.as_deref(), &commit.txn);
                match server.commit(commit.txn).await.unwrap_or(Err(CommitError::Unknown)) {
                    Ok(outcome) => match commit.reply.render(&outcome) {
                        Rendered::Respond(response) => return respond(&response),
                        Rendered::Retry => {}
                    },
                    Err(error) => return commit_failure(error),
                }
            }
            Prepared::Watch(plan) => {
                let Some(past) = server.past(plan.after) else {
                    return failure(410, "Expired", "the version is too old");
                };
                let place = server.place();
                let lines = server.watchers(|watchers| watchers.add(&cluster, place, from, *plan, &past));
                return lines.map_or_else(|| unavailable("the server stops"), ApiAnswer::Watch);
            }
            Prepared::Part(part) => {
                return delete_in_parts(&cluster, &server, &core, &request, *part).await;
            }
            Prepared::Ask(_) | Prepared::Measure(_) | Prepared::Connect(_) => {
                return failure(501, "NotImplemented", "no node and no webhook can be asked here");
            }
        }
    }
    failure(409, "Conflict", "the object changed again and again")
}

/// Carries out the deletion of a collection, part after part.
async fn delete_in_parts(
    cluster: &Cluster,
    server: &Rc<Server>,
    core: &Request,
    request: &ApiRequest,
    mut part: DeletionPart,
) -> ApiAnswer {
    let (mut deleted, mut place, mut plans) = (Deleted::default(), part.from.clone(), 1);
    loop {
        let txn = std::mem::take(&mut part.txn);
        cluster.checks.fences.planned(request.fence.as_deref(), &txn);
        let outcome = match txn.ops.is_empty() {
            true => Outcome::Committed { revisions: Vec::new() },
            false => match server.commit(txn).await.unwrap_or(Err(CommitError::Unknown)) {
                Ok(outcome) => outcome,
                Err(error) => return commit_failure(error),
            },
        };
        if matches!(outcome, Outcome::Committed { .. }) {
            let next = part.next.clone();
            if let Some(response) = part.settle(&outcome, &mut deleted) {
                return respond(&response);
            }
            (place, plans) = (next.unwrap_or(place), 0);
        }
        if plans >= MAX_PLANS {
            return failure(409, "Conflict", "the objects changed again and again");
        }
        plans += 1;
        let Some(view) = server.view() else { return unavailable("the server stops") };
        part = match plan(cluster, server, &view.snapshot, core, &request.user, Some(&place)) {
            Some(Prepared::Part(part)) => *part,
            Some(Prepared::Respond(response)) => return respond(&response),
            _ => return unavailable("the server stops"),
        };
    }
}

fn commit_failure(error: CommitError) -> ApiAnswer {
    match error {
        CommitError::Unknown => failure(504, "Timeout", "the outcome is unknown"),
        CommitError::NotLeader => unavailable("nobody leads"),
        CommitError::DiskFull => unavailable("the disk is full"),
    }
}

fn plan(
    cluster: &Cluster,
    server: &Server,
    snapshot: &Snapshot,
    request: &Request,
    user: &User,
    place: Option<&DeletionPlace>,
) -> Option<Prepared> {
    let view = server.view()?;
    let world = World { snapshot, derived: &view.derived, config: cluster.config.as_ref()? };
    let now = server.clock.wall();
    let progress = Progress { place: place.cloned(), ..Progress::default() };
    Some(cluster.sim.rng(|rng| prepare_from(&world, request, user, now, &mut Ids::new(rng), &progress)))
}

async fn snapshot(server: &Rc<Server>, consistency: Consistency) -> Result<Snapshot, ApiAnswer> {
    let current = || server.view().map(|view| view.snapshot).ok_or_else(|| unavailable("the server stops"));
    match consistency {
        Consistency::Any => current(),
        Consistency::Latest => match server.confirm().await {
            Ok(true) => current(),
            _ => Err(unavailable("the state is not confirmed")),
        },
        Consistency::NotOlderThan(revision) | Consistency::Exact(revision) => {
            let deadline = server.sleep(REVISION_DEADLINE);
            if let Either::Right(_) = select(server.reached(revision), deadline).await {
                return Err(failure(504, "Timeout", "Too large resource version"));
            }
            match consistency {
                Consistency::Exact(revision) => {
                    server.view_at(revision).ok_or_else(|| failure(410, "Expired", "the version is too old"))
                }
                _ => current(),
            }
        }
    }
}

fn respond(response: &apiserver_core::Response) -> ApiAnswer {
    ApiAnswer::Response { code: response.status.as_u16(), body: response.body.to_bytes() }
}

fn unavailable(message: &str) -> ApiAnswer {
    failure(503, "ServiceUnavailable", message)
}

fn failure(code: u16, reason: &str, message: &str) -> ApiAnswer {
    let code = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    respond(&apiserver_core::Response::failure(code, reason, message))
}

/// Has each server write what every cluster must have, and serve only then.
pub fn serve(cluster: &Rc<Cluster>) {
    let weak = Rc::downgrade(cluster);
    cluster.on_start(move |server, scope| {
        let Some(cluster) = weak.upgrade() else { return };
        let sim = cluster.sim.clone();
        sim.spawn(scope, write_genesis(cluster, server.clone(), scope));
    });
}

async fn write_genesis(cluster: Rc<Cluster>, server: Rc<Server>, scope: Scope) {
    loop {
        if server.confirm().await == Ok(true)
            && let (Some(view), Some(config)) = (server.view(), cluster.config.as_ref())
        {
            let now = server.clock.wall();
            let txns = cluster.sim.rng(|rng| genesis::plan(&view.snapshot, config, now, &mut Ids::new(rng)));
            if txns.is_empty() {
                break;
            }
            for txn in txns {
                // What was refused or has met a conflict is planned anew.
                let _: Result<Result<Outcome, CommitError>, _> = server.commit(txn).await;
            }
            continue;
        }
        // A member that cannot confirm its state serves when what it has says that another has done this.
        if server.view().is_some_and(|view| view.snapshot.get(b"/core/namespaces/kube-system").is_some()) {
            break;
        }
        cluster.sim.sleep(SECOND / 2).await;
    }
    server.set_ready(scope);
}
