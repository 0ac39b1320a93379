//! The server as a tower service, for clients in the same process.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use api::status::Status;
use apiserver_core::{User, failure::Refused};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body as HttpBody;

use crate::body::{Body, BodyError};
use crate::respond::IntoHttp as _;
use crate::shell::{Peer, Shell};

/// Who an in-process client is. A request extension: nothing that arrives over a network can set it.
#[derive(Clone, Debug)]
pub struct Identity(pub User);

/// The server for clients in the same process.
#[derive(Clone)]
pub struct InProcess {
    shell: Arc<Shell>,
}

// === impl InProcess ===

impl InProcess {
    pub(crate) fn new(shell: Arc<Shell>) -> InProcess {
        InProcess { shell }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let shell = self.shell.clone();
        Box::pin(async move {
            let Some(Identity(user)) = request.extensions_mut().remove::<Identity>() else {
                return Ok(Refused::from(Status::unauthorized()).into_http());
            };
            let peer = Peer::Known(shell.caller(user));
            Ok(shell.handle(request, &peer).await)
        })
    }
}
