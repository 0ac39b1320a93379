//! Watch answers: a body cut into lines.

use bytes::{Bytes, BytesMut};
use client_core::object::ResourceType;
use client_core::wire::{Envelope, JSON};
use futures::FutureExt as _;
use http::{Method, header};
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;

use crate::params::{ListParams, Query};
use crate::{Client, Error, ResponseBody};

/// How many lines are handed out together at most.
const BATCH: usize = 512;

/// No single line is longer than this.
const LINE_LIMIT: usize = 64 << 20;

/// A body of lines, such as a watch or a log.
#[derive(Debug)]
pub struct Lines {
    body: ResponseBody,
    buffer: BytesMut,
    /// Up to here `buffer` holds no line feed.
    scanned: usize,
    ended: bool,
}

/// One event of a watch, not decoded any further.
#[derive(Clone, Debug)]
pub struct RawEvent {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub kind: String,
    /// The object's JSON.
    pub object: Box<RawValue>,
}

// === impl Lines ===

impl Lines {
    /// Cuts a body into lines.
    pub fn new(body: ResponseBody) -> Self {
        Self { body, buffer: BytesMut::new(), scanned: 0, ended: false }
    }

    /// The next lines (without their line feeds): waits for one, and brings along those that are there already. `None`: the end.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        let mut lines = Vec::new();
        while lines.is_empty() && !self.ended {
            let frame = self.body.frame().await;
            self.take(frame, &mut lines)?;
        }
        while !self.ended && lines.len() < BATCH {
            let Some(frame) = self.body.frame().now_or_never() else { break };
            self.take(frame, &mut lines)?;
        }
        Ok((!lines.is_empty()).then_some(lines))
    }

    fn take(
        &mut self,
        frame: Option<Result<http_body::Frame<Bytes>, tower::BoxError>>,
        lines: &mut Vec<Bytes>,
    ) -> Result<(), Error> {
        match frame {
            None => {
                self.ended = true;
                let rest = self.buffer.split().freeze();
                if !rest.is_empty() {
                    lines.push(rest);
                }
                Ok(())
            }
            Some(Err(error)) => {
                self.ended = true;
                Err(Error::Transport(error))
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.split(data, lines);
                }
                if self.buffer.len() > LINE_LIMIT {
                    self.ended = true;
                    return Err(Error::transport("a line of the answer is too long"));
                }
                Ok(())
            }
        }
    }

    fn split(&mut self, mut data: Bytes, lines: &mut Vec<Bytes>) {
        if self.buffer.is_empty() {
            // The common case: the frame is whole lines, which are shared and not copied.
            while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
                push_line(lines, data.split_to(end + 1));
            }
            self.buffer.extend_from_slice(&data);
            self.scanned = self.buffer.len();
            return;
        }
        self.buffer.extend_from_slice(&data);
        while let Some(offset) =
            self.buffer.get(self.scanned..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let line = self.buffer.split_to(self.scanned + offset + 1).freeze();
            self.scanned = 0;
            push_line(lines, line);
        }
        self.scanned = self.buffer.len();
    }
}

fn push_line(lines: &mut Vec<Bytes>, mut line: Bytes) {
    line.truncate(line.len().saturating_sub(1));
    if !line.is_empty() {
        lines.push(line);
    }
}

// === impl RawEvent ===

impl RawEvent {
    /// Reads one line of a watch.
    ///
    /// # Errors
    /// [`Error::Decode`] when it is none.
    pub fn parse(line: &[u8]) -> Result<Self, Error> {
        let envelope: Envelope<'_> = serde_json::from_slice(line).map_err(Error::Decode)?;
        Ok(Self { kind: envelope.kind.into_owned(), object: envelope.object.to_owned() })
    }
}

// === impl Client ===

impl Client {
    /// Opens a watch and returns its lines; each is read with [`RawEvent::parse`] or [`client_core::wire::decode_line`].
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_expired`] when the version is too old.
    pub async fn watch(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        params: &ListParams,
        timeout: Option<std::time::Duration>,
    ) -> Result<Lines, Error> {
        self.watch_as(resource, namespace, params, timeout, JSON).await
    }

    /// As [`Client::watch`], with a media type of choice (for example a Table).
    ///
    /// # Errors
    /// As [`Client::watch`].
    pub async fn watch_as(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        params: &ListParams,
        timeout: Option<std::time::Duration>,
        accept: &str,
    ) -> Result<Lines, Error> {
        let mut query = Query::new(resource.collection_path(namespace));
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        params.add_to(&mut query);
        query.add_opt("timeoutSeconds", timeout.map(|timeout| timeout.as_secs().to_string()).as_deref());
        let mut request = Self::build(Method::GET, &query.finish())?;
        let accept = http::HeaderValue::from_str(accept).map_err(Error::request)?;
        request.headers_mut().insert(header::ACCEPT, accept);
        Ok(Lines::new(self.stream(request).await?.into_body()))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn lines_of(frames: &'static [&'static str]) -> Vec<String> {
        let frames = stream::iter(frames.iter().map(|frame| {
            Ok::<_, tower::BoxError>(http_body::Frame::data(Bytes::from_static(frame.as_bytes())))
        }));
        let mut lines = Lines::new(StreamBody::new(frames).boxed_unsync());
        let mut out = Vec::new();
        futures::executor::block_on(async {
            while let Some(batch) = lines.next_batch().await.expect("no error") {
                out.extend(batch.iter().map(|line| String::from_utf8_lossy(line).into_owned()));
            }
        });
        out
    }

    #[test]
    fn lines_across_frames() {
        assert_eq!(lines_of(&["a\nb\n", "c", "c", "\nd\ne", "e\n\nf"]), ["a", "b", "cc", "d", "ee", "f"]);
        assert!(lines_of(&[]).is_empty());
        assert_eq!(lines_of(&["", "x\n"]), ["x"]);
    }
}
