//! The store's thread: takes what waits, applies it, publishes it, answers.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use store_core::history::History;
use store_core::state::StateMachine;

use crate::handle::Request;
use crate::published::Published;
use crate::{OpenError, Options};

pub(crate) fn start(options: Options) -> Result<(Arc<Published>, Sender<Request>), OpenError> {
    let state = StateMachine::new();
    let history = History::new(state.snapshot().revision(), options.history);
    let published = Arc::new(Published::new(Arc::new(state.snapshot().clone()), history));
    published.confirm(true);
    let (requests, waiting) = channel();
    let shared = published.clone();
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || run(state, &shared, &waiting))
        .map_err(|error| OpenError::Thread { reason: error.to_string() })?;
    Ok((published, requests))
}

fn run(mut state: StateMachine, published: &Published, waiting: &Receiver<Request>) {
    while let Ok(request) = waiting.recv() {
        match request {
            Request::Commit { txn, answer } => {
                let (outcome, events) = state.commit(&txn);
                published.publish(state.snapshot().clone(), &events, 0);
                let _ = answer.send(Ok(outcome));
            }
            Request::Read { answer } => drop(answer.send(Ok(()))),
            Request::Close { done } => {
                let _ = done.send(());
                return;
            }
        }
    }
}
