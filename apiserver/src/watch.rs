//! A watch as an HTTP answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use hyper::body::{Body as HttpBody, Frame};

use crate::body::{Body, BodyError};
use crate::hub::Watcher;
use crate::metrics::LongRunning;

/// The answer that carries a watch.
pub(crate) fn answer(watcher: Watcher, guard: LongRunning) -> Response<Body> {
    let content_type = watcher.content_type();
    respond(content_type, Body::stream(Counted { watcher, _guard: guard }))
}

/// The answer to a watch whose beginning was forgotten: one line that says so.
pub(crate) fn expired(content_type: &'static str, line: Bytes) -> Response<Body> {
    respond(content_type, Body::one(line))
}

fn respond(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A watch that is counted while it lives.
struct Counted {
    watcher: Watcher,
    _guard: LongRunning,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.watcher).poll_frame(context)
    }
}
