//! How answers get from the store's thread to those who wait.
//!
//! Waking a task from outside costs a runtime of several threads two of them: the one that is woken to look for work wakes
//! the next to go on looking. So the store's thread wakes nobody: it rings a bell that the runtime waits for anyway, as for
//! any socket, and a task there hands out all answers that have come together.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use store_core::Outcome;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::{CommitError, ReadError};

/// Who waits for a write, and what came of it; or for a read.
pub(crate) enum Answer {
    Write(oneshot::Sender<Result<Outcome, CommitError>>, Result<Outcome, CommitError>),
    Read(oneshot::Sender<Result<(), ReadError>>, Result<(), ReadError>),
}

/// The store's end.
pub(crate) struct Answers {
    /// Since the last delivery.
    given: Vec<Answer>,
    /// `None`: there is no runtime, and whoever waits is woken at once.
    counter: Option<Arc<Counter>>,
}

/// Where answers lie until they are handed out.
struct Counter {
    desk: Mutex<Desk>,
    bell: OwnedFd,
}

#[derive(Default)]
struct Desk {
    answers: Vec<Answer>,
    /// The store has no more.
    closed: bool,
    /// The runtime is gone: nobody hands out what lies here.
    deserted: bool,
}

// === impl Answer ===

impl Answer {
    fn hand_out(self) {
        // Who asked may have stopped waiting.
        match self {
            Self::Write(to, result) => drop(to.send(result)),
            Self::Read(to, result) => drop(to.send(result)),
        }
    }
}

// === impl Answers ===

impl Answers {
    /// Hands answers out on this runtime, where there is one.
    pub(crate) fn new(runtime: Option<&Handle>) -> Self {
        Self { given: Vec::new(), counter: runtime.and_then(|runtime| Counter::open(runtime).ok()) }
    }

    pub(crate) fn give(&mut self, answer: Answer) {
        self.given.push(answer);
    }

    /// Lets those who wait have what was given.
    pub(crate) fn deliver(&mut self) {
        if self.given.is_empty() {
            return;
        }
        match &self.counter {
            Some(counter) => counter.lay_out(&mut self.given),
            None => self.given.drain(..).for_each(Answer::hand_out),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.deliver();
        if let Some(counter) = &self.counter {
            counter.desk().closed = true;
            counter.ring();
        }
    }
}

// === impl Counter ===

impl Counter {
    fn open(runtime: &Handle) -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let _entered = runtime.enter();
        // SAFETY: an `OwnedFd` keeps its descriptor open, and always names the same one.
        let heard = unsafe { AsyncFd::register_with_interest(bell.try_clone()?, Interest::READABLE)? };
        let counter = Arc::new(Self { desk: Mutex::default(), bell });
        runtime.spawn(serve(Clerk(counter.clone()), heard));
        Ok(counter)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lay_out(&self, given: &mut Vec<Answer>) {
        let mut desk = self.desk();
        if desk.deserted {
            drop(desk);
            given.drain(..).for_each(Answer::hand_out);
            return;
        }
        let rung = !desk.answers.is_empty();
        desk.answers.append(given);
        drop(desk);
        if !rung {
            self.ring();
        }
    }

    fn ring(&self) {
        // Fails when it was rung 2^64 times.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// Who hands out what lies on the desk; when the runtime ends, for the last time.
struct Clerk(Arc<Counter>);

impl Drop for Clerk {
    fn drop(&mut self) {
        let answers = {
            let mut desk = self.0.desk();
            desk.deserted = true;
            std::mem::take(&mut desk.answers)
        };
        answers.into_iter().for_each(Answer::hand_out);
    }
}

/// Hands out what lies there, whenever the bell rings.
async fn serve(clerk: Clerk, heard: AsyncFd<OwnedFd>) {
    let mut answers = Vec::new();
    while let Ok(mut ready) = heard.readable().await {
        // The count is not read: each ring is heard by itself.
        ready.clear_ready();
        let closed = {
            let mut desk = clerk.0.desk();
            std::mem::swap(&mut desk.answers, &mut answers);
            desk.closed
        };
        answers.drain(..).for_each(Answer::hand_out);
        if closed {
            return;
        }
    }
}
