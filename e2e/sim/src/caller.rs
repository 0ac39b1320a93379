//! A client of the API: sends requests to whichever server answers.

use std::cell::Cell;
use std::rc::Rc;

use apiserver_core::User;
use bytes::Bytes;
use client_core::election::Held;
use client_core::error::Error;
use client_core::object::Target;
use client_core::plan::{Write, delete_options};
use client_core::wire::JSON;
use futures::channel::mpsc;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::cluster::{Cluster, Work};
use crate::kernel::{MS, SECOND, Time};
use crate::network::Place;
use crate::serve::{self, ApiAnswer, ApiRequest};
use crate::streams::Line;

const TIMEOUT: Time = 10 * SECOND;
/// How many servers a client over the network asks.
const ATTEMPTS: u64 = 4;

/// A client with one identity.
#[derive(Clone)]
pub struct Caller {
    /// The cluster.
    pub cluster: Rc<Cluster>,
    place: Place,
    user: Rc<User>,
    fence: Option<Rc<str>>,
    favourite: Rc<Cell<u64>>,
    /// How many servers are asked when one after the other says that it did nothing.
    attempts: u64,
}

// === impl Caller ===

impl Caller {
    /// A client at a place.
    pub fn new(cluster: &Rc<Cluster>, place: Place, user: User) -> Self {
        let favourite = match place {
            Place::Server(member) => member,
            Place::Host(_) => cluster.any().map_or(1, |server| server.member),
        };
        Self {
            cluster: cluster.clone(),
            place,
            user: Rc::new(user),
            fence: None,
            favourite: Rc::new(Cell::new(favourite)),
            attempts: ATTEMPTS,
        }
    }

    /// The same client with another identity.
    pub fn acting_as(&self, user: User) -> Self {
        Self { user: Rc::new(user), ..self.clone() }
    }

    /// The same client, in the process of a server: it asks no other for what that one refuses.
    pub fn in_process(self) -> Self {
        Self { attempts: 1, ..self }
    }

    /// The same client, in the name of a term that it was elected for.
    pub fn fenced(&self, held: &Held) -> Self {
        Self { fence: Some(held.fence().into()), ..self.clone() }
    }

    /// Sends a request, and to other servers while they say that they did nothing. `body` is what `content_type` says.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Error> {
        let mut last = no_answer();
        for attempt in 0..self.attempts {
            let request = ApiRequest {
                user: self.user.clone(),
                fence: self.fence.clone(),
                method: method.clone(),
                target: target.to_owned(),
                content_type,
                accept: JSON,
                body: body.clone(),
            };
            match self.ask(request).await {
                Some(ApiAnswer::Response { code, body }) if code < 400 => {
                    self.acknowledged(&body);
                    return Ok(body);
                }
                Some(ApiAnswer::Response { code, body }) => last = refused(code, &body),
                Some(ApiAnswer::Watch(_)) => return Err(no_answer()),
                None if method == Method::GET => last = no_answer(),
                None => {
                    self.elsewhere();
                    return Err(no_answer());
                }
            }
            if last.code() != Some(503) && !matches!(last, Error::Transport(_)) {
                return Err(last);
            }
            self.elsewhere();
            self.cluster.sim.sleep((20 << attempt) * MS).await;
        }
        Err(last)
    }

    /// GET.
    pub async fn get(&self, target: &str) -> Result<Value, Error> {
        decode(&self.send(Method::GET, target, JSON, Bytes::new()).await?)
    }

    /// GET, as its bytes and in another form.
    pub async fn get_as(&self, target: &str, accept: &'static str) -> Result<Bytes, Error> {
        let request = ApiRequest {
            user: self.user.clone(),
            fence: self.fence.clone(),
            method: Method::GET,
            target: target.to_owned(),
            content_type: JSON,
            accept,
            body: Bytes::new(),
        };
        match self.ask(request).await {
            Some(ApiAnswer::Response { code, body }) if code < 400 => Ok(body),
            Some(ApiAnswer::Response { code, body }) => {
                let failure = refused(code, &body);
                if failure.code() == Some(503) {
                    self.elsewhere();
                }
                Err(failure)
            }
            _ => {
                self.elsewhere();
                Err(no_answer())
            }
        }
    }

    /// Opens a watch.
    pub async fn watch(
        &self,
        target: &str,
        accept: &'static str,
    ) -> Result<mpsc::UnboundedReceiver<Line>, Error> {
        let request = ApiRequest {
            user: self.user.clone(),
            fence: self.fence.clone(),
            method: Method::GET,
            target: target.to_owned(),
            content_type: JSON,
            accept,
            body: Bytes::new(),
        };
        match self.ask(request).await {
            Some(ApiAnswer::Watch(lines)) => Ok(lines),
            Some(ApiAnswer::Response { code, body }) => {
                self.elsewhere();
                Err(refused(code, &body))
            }
            None => {
                self.elsewhere();
                Err(no_answer())
            }
        }
    }

    /// A write with a document.
    pub async fn document(&self, method: Method, target: &str, document: &Value) -> Result<Value, Error> {
        decode(&self.send(method, target, JSON, document.to_string().into()).await?)
    }

    /// A patch.
    pub async fn patch(
        &self,
        target: &str,
        content_type: &'static str,
        body: &Value,
    ) -> Result<Bytes, Error> {
        self.send(Method::PATCH, target, content_type, body.to_string().into()).await
    }

    /// Carries out a planned write. Events are not written.
    pub async fn write(&self, write: Write) -> Result<Bytes, Error> {
        match write {
            Write::Create { resource, namespace, object } => {
                let path = resource.collection_path(Some(&namespace));
                self.send(Method::POST, &path, JSON, object.to_string().into()).await
            }
            Write::CreateSub { target, subresource, object } => {
                self.send(Method::POST, &target.path(Some(subresource)), JSON, object.to_string().into())
                    .await
            }
            Write::ReplaceSub { target, subresource, object } => {
                self.send(Method::PUT, &target.path(Some(subresource)), JSON, object.to_string().into()).await
            }
            Write::Patch { target, subresource, precondition, kind, mut body } => {
                precondition.add_to_patch(kind, &mut body);
                self.patch(&target.path(subresource), kind.content_type(), &body).await
            }
            Write::Delete { target, precondition, grace_period_seconds, propagation } => {
                let options = delete_options(&precondition, grace_period_seconds, propagation);
                self.delete(&target, &options).await
            }
            Write::Event(_) => Ok(Bytes::new()),
        }
    }

    /// DELETE.
    pub async fn delete(&self, target: &Target, options: &Value) -> Result<Bytes, Error> {
        self.send(Method::DELETE, &target.path(None), JSON, options.to_string().into()).await
    }

    /// What a server has told a client of must be seen by every list that begins later.
    fn acknowledged(&self, body: &[u8]) {
        let version = apiserver_core::scan::text(body, &["metadata", "resourceVersion"]);
        if let Some(revision) = version.and_then(|version| version.parse().ok()) {
            self.cluster.checks.store.acknowledge(revision);
        }
    }

    fn elsewhere(&self) {
        if let Some(server) = self.cluster.any() {
            self.favourite.set(server.member);
        }
    }

    async fn ask(&self, request: ApiRequest) -> Option<ApiAnswer> {
        let (cluster, from) = (self.cluster.clone(), self.place);
        let sim = self.cluster.sim.clone();
        let line = format!("{} {} {}", self.user.name, request.method, request.target);
        let answer = self
            .cluster
            .ask(from, self.favourite.get(), TIMEOUT, move |server| -> Work<ApiAnswer> {
                Box::pin(serve::answer(cluster, server, from, request))
            })
            .await;
        let told = match &answer {
            Some(ApiAnswer::Response { code, .. }) => i32::from(*code),
            Some(ApiAnswer::Watch(_)) => 200,
            None => -1,
        };
        sim.note(format_args!("{line} -> {told} by {}", self.favourite.get()));
        answer
    }
}

fn decode(body: &Bytes) -> Result<Value, Error> {
    serde_json::from_slice(body).map_err(Error::Decode)
}

/// Whatever was asked for may have been done.
fn no_answer() -> Error {
    Error::transport("no answer")
}

fn refused(code: u16, body: &[u8]) -> Error {
    Error::from_answer(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
}
