//! One watch: first the state, then what happened since, then what happens; as the body of an answer.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use apiserver_core::convert::Converted;
use apiserver_core::watch::Common;
use apiserver_core::{Response, WatchPlan};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame};
use store_core::Event;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{Batch, Registration, Shared, mailbox::Taken};
use crate::body::BodyError;

/// How often a watcher that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// So many events are converted together.
const CONVERTED: usize = 500;
/// Lines are put together up to about this size.
const CHUNK: usize = 64 * 1024;

/// One watch. Dropping it ends it.
pub(crate) struct Watcher {
    registration: Registration,
    plan: WatchPlan,
    state: State,
    /// Lines that are ready to be sent.
    lines: VecDeque<Bytes>,
    /// Events of the history that were not looked at yet.
    past: std::vec::IntoIter<Arc<Event>>,
    /// Everything up to this revision is in `past` or before it.
    known: u64,
    /// The next bookmark; for those who want none, only the end matters.
    bookmark: Pin<Box<Sleep>>,
    end: Pin<Box<Sleep>>,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Who converts objects, where that takes a webhook.
    convert: Option<Box<dyn Convert>>,
    converting: Option<Converting>,
}

/// Converts stored objects into the version of the resource at a path (group, version, plural).
pub(crate) trait Convert: Send + Sync {
    /// The objects that had to be converted.
    fn convert(
        &self,
        path: (&str, &str, &str),
        stored: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Converted, Response>>;
}

/// Events that wait for their objects.
struct Converting {
    events: Vec<Arc<Event>>,
    converted: BoxFuture<'static, Result<Converted, Response>>,
}

/// How far a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Events are sent.
    Following,
    /// The last lines are being sent.
    Ending,
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(registration: Registration, mut plan: WatchPlan, past: Vec<Arc<Event>>) -> Watcher {
        let known = past.last().map_or(plan.after, |event| event.revision.max(plan.after));
        let now = Instant::now();
        let lines = std::mem::take(&mut plan.initial).into();
        let end = now + plan.timeout.unwrap_or_else(default_timeout);
        Watcher {
            registration,
            plan,
            state: State::Following,
            lines,
            past: past.into_iter(),
            known,
            bookmark: Box::pin(tokio::time::sleep_until(now + BOOKMARK_EVERY)),
            end: Box::pin(tokio::time::sleep_until(end)),
            stop: None,
            convert: None,
            converting: None,
        }
    }

    /// Ends the watch when the server stops.
    pub(crate) fn until(mut self, stop: WaitForCancellationFutureOwned) -> Watcher {
        self.stop = Some(Box::pin(stop));
        self
    }

    /// Has objects converted that need it.
    pub(crate) fn converting(mut self, convert: impl Convert + 'static) -> Watcher {
        self.convert = Some(Box::new(convert));
        self
    }

    /// The content type of the lines.
    pub(crate) fn content_type(&self) -> &'static str {
        self.plan.content_type
    }

    /// Whether nothing waits in the mailbox.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.registration.mailbox.take(std::task::Waker::noop()), Taken::Empty)
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(chunk) = gather(&mut self.lines) {
                return Poll::Ready(Some(chunk));
            }
            if self.state == State::Ending {
                return Poll::Ready(None);
            }
            if self.converting.is_some() {
                ready!(self.poll_converted(context));
                continue;
            }
            if self.look_at_past() {
                continue;
            }
            let revision = self.registration.hub.delivered.load(Ordering::Acquire);
            match self.registration.mailbox.take(context.waker()) {
                Taken::Batch(batch) => match self.shared(&batch) {
                    Some(common) => return Poll::Ready(Some(batch.whole(common))),
                    None => self.select(&batch),
                },
                Taken::Closed(revision) => self.end(revision),
                Taken::CutOff => self.state = State::Ending,
                Taken::Empty => ready!(self.poll_timers(revision, context)),
            }
        }
    }

    /// Looks at the next events of the history; false when there are none left.
    fn look_at_past(&mut self) -> bool {
        if self.past.len() == 0 {
            return false;
        }
        if self.convert.is_some() {
            let events = self.past.by_ref().take(CONVERTED).collect();
            self.tell(events);
            return true;
        }
        let mut bytes = 0;
        while let Some(event) = self.past.next() {
            if self.plan.ends_by(&event) {
                self.past = Vec::new().into_iter();
                self.end(event.revision);
                break;
            }
            if let Some(line) = self.plan.line(&event) {
                bytes += line.len();
                self.lines.push_back(line);
            }
            if bytes >= CHUNK {
                break;
            }
        }
        if self.past.len() == 0 {
            // A watch lives long, and its beginning may have been large.
            self.past = Vec::new().into_iter();
        }
        true
    }

    /// In which way the watcher gets the very bytes that all others of its topic get.
    fn shared(&self, batch: &Batch) -> Option<Common> {
        let whole = self.plan.selection.is_everything() && batch.first_revision() > self.known;
        self.plan.common().filter(|_| whole)
    }

    fn select(&mut self, batch: &Batch) {
        if self.convert.is_some() {
            let new = batch.events.iter().filter(|shared| shared.event.revision > self.known);
            let events = new.map(|shared| shared.event.clone()).collect();
            return self.tell(events);
        }
        let common = self.plan.common();
        for shared in batch.events.iter().filter(|shared| shared.event.revision > self.known) {
            self.lines.extend(line(&self.plan, shared, common));
        }
    }

    /// The last lines: everything up to `revision` was sent.
    fn end(&mut self, revision: u64) {
        self.state = State::Ending;
        if self.plan.bookmarks {
            self.lines.push_back(self.plan.bookmark(revision));
        }
    }

    /// Tells of events, when their objects are converted.
    fn tell(&mut self, events: Vec<Arc<Event>>) {
        let stored: Vec<Bytes> = events.iter().flat_map(|event| self.plan.unconverted(event)).collect();
        match &self.convert {
            Some(convert) if !stored.is_empty() => {
                let converted = convert.convert(self.plan.path(), stored);
                self.converting = Some(Converting { events, converted });
            }
            _ => self.lines.extend(events.iter().filter_map(|event| self.plan.line(event))),
        }
    }

    /// Waits for objects to be converted. A watch that cannot tell of an event ends: what came after it would hide it.
    fn poll_converted(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(context).is_ready()) {
            self.state = State::Ending;
            self.converting = None;
            return Poll::Ready(());
        }
        let Some(waiting) = &mut self.converting else { return Poll::Ready(()) };
        let converted = ready!(waiting.converted.as_mut().poll(context));
        let events = std::mem::take(&mut waiting.events);
        self.converting = None;
        match converted {
            Ok(converted) => {
                self.lines.extend(events.iter().filter_map(|event| self.plan.line_of(event, &converted)));
            }
            Err(why) => {
                self.lines.push_back(self.plan.failed(&why));
                self.state = State::Ending;
            }
        }
        Poll::Ready(())
    }

    /// Nothing to send: is it time for a bookmark, or for the end?
    fn poll_timers(&mut self, revision: u64, context: &mut Context<'_>) -> Poll<()> {
        let revision = revision.max(self.known);
        let stopped = self.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(context).is_ready());
        if stopped || self.end.as_mut().poll(context).is_ready() {
            self.end(revision);
            return Poll::Ready(());
        }
        if !self.plan.bookmarks {
            return Poll::Pending;
        }
        ready!(self.bookmark.as_mut().poll(context));
        self.bookmark.as_mut().reset(Instant::now() + BOOKMARK_EVERY);
        self.lines.push_back(self.plan.bookmark(revision));
        Poll::Ready(())
    }
}

/// The line of an event for one watcher, encoded once for all that are alike.
fn line(plan: &WatchPlan, shared: &Shared, common: Option<Common>) -> Option<Bytes> {
    match common {
        Some(common) => Some(shared.line(plan.decide(&shared.event)?, common)),
        None => plan.line(&shared.event),
    }
}

/// The next lines, as one buffer.
fn gather(lines: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = lines.pop_front()?;
    if lines.is_empty() || first.len() >= CHUNK {
        return Some(first);
    }
    let mut out = BytesMut::with_capacity(CHUNK);
    out.extend_from_slice(&first);
    while let Some(next) = lines.front() {
        if out.len() + next.len() > CHUNK {
            break;
        }
        out.extend_from_slice(next);
        lines.pop_front();
    }
    Some(out.freeze())
}

/// Half an hour to an hour, so that watches do not all come back at once.
fn default_timeout() -> Duration {
    Duration::from_secs(rand::Rng::random_range(&mut rand::rng(), 1800..3600))
}

impl HttpBody for Watcher {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_chunk(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
