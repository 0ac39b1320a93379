//! The world, the queues, and the workers between them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::Client;
use client::clock;
use client::events::Recorder;
use client_core::queue::WorkQueue;
use controller_core::dispatch::{self, Attempt};
use controller_core::execution::{self, Failures, Outcome, Rounds};
use controller_core::plan::{Plan, Report};
use controller_core::world::{Controller, Key, Work, World};
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::execute;
use crate::why::Why;

/// How often objects known only from our own writes are checked.
const EXPIRE: Duration = Duration::from_secs(60);

pub(crate) struct Host {
    world: Mutex<World>,
    desks: BTreeMap<Controller, Desk>,
    failures: Mutex<Failures>,
    workers: usize,
    pub(crate) writes: usize,
    why: Why,
}

/// Where one controller's work is done.
pub(crate) struct Desk {
    queue: Mutex<WorkQueue<Key>>,
    added: Notify,
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Host ===

impl Host {
    pub(crate) fn new(config: &Config, clients: impl Fn(&str) -> Client) -> Self {
        let desk = |controller: &Controller| {
            let client = clients(controller.account());
            let recorder = Recorder::new(&client, controller.component(), None);
            (*controller, Desk { queue: Mutex::default(), added: Notify::new(), client, recorder })
        };
        Host {
            world: Mutex::new(World::new(config.settings.clone())),
            desks: config.controllers.iter().map(desk).collect(),
            failures: Mutex::default(),
            workers: config.workers.max(1),
            writes: config.writes.max(1),
            why: config.why.clone(),
        }
    }

    /// Changes the world and queues the work that follows.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World, Timestamp) -> Vec<Work>) {
        let work = change(&mut lock(&self.world), Timestamp::now());
        self.add(work);
    }

    fn add(&self, work: Vec<Work>) {
        let mut woken: Option<Controller> = None;
        for Work { controller, key } in work {
            let Some(desk) = self.desks.get(&controller) else { continue };
            lock(&desk.queue).add(key);
            if woken != Some(controller) {
                desk.added.notify_one();
                woken = Some(controller);
            }
        }
    }

    /// Works off a controller's queue until `stop`.
    pub(crate) async fn work(self: Arc<Self>, controller: Controller, stop: CancellationToken) {
        let Some(desk) = self.desks.get(&controller) else { return };
        let places = Arc::new(Semaphore::new(self.workers));
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let Ok(place) = place else { break };
            let (key, wake_at) = {
                let mut queue = lock(&desk.queue);
                let key = queue.pop(clock::moment());
                (key, queue.poll_timeout())
            };
            if let Some(key) = key {
                let host = Arc::clone(&self);
                tasks.spawn(async move {
                    host.handle(Work::new(controller, key)).await;
                    drop(place);
                });
                continue;
            }
            drop(place);
            tokio::select! {
                () = stop.cancelled() => break,
                () = desk.added.notified() => {}
                () = clock::sleep_until(wake_at) => {}
            }
        }
        tasks.shutdown().await;
    }

    /// Plans one key, carries the plan out, and gives the key back.
    async fn handle(&self, work: Work) {
        let Some(desk) = self.desks.get(&work.controller) else { return };
        let (outcome, look_again_at) = self.attempt(&work, desk).await;
        lock(&self.failures).note(&work, &outcome);
        execution::give_back(&mut lock(&desk.queue), &work.key, &outcome, look_again_at, clock::now());
        desk.added.notify_one();
    }

    async fn attempt(&self, work: &Work, desk: &Desk) -> (Outcome, Option<Timestamp>) {
        const AGAIN: (Outcome, Option<Timestamp>) = (Outcome::Failed(None), None);
        let failure = lock(&self.failures).of(work).cloned();
        let mut attempt = Attempt { failure: failure.as_ref(), ..Attempt::default() };
        let mut rounds = Rounds::default();
        let (plan, Report { events, why }) = loop {
            let Ok((mut plan, report)) = self.plan(work, &attempt) else { return AGAIN };
            match rounds.questions(&mut plan) {
                Some(questions) => {
                    attempt.answers.extend(execute::ask(&desk.client, questions, self.writes).await);
                }
                None => break (plan, report),
            }
        };
        self.why.record(work, Timestamp::now(), why);
        for event in events {
            desk.recorder.note(event.into());
        }
        if !plan.questions.is_empty() {
            return AGAIN;
        }
        (execute::carry_out(self, desk, plan.steps).await, plan.look_again_at)
    }

    /// Plans one key. An object that breaks its planner must not take the others with it: it is tried again like any failure.
    fn plan(&self, work: &Work, attempt: &Attempt) -> Result<(Plan, Report), ()> {
        let plan = || {
            let mut rng = StdRng::from_os_rng();
            dispatch::plan(&mut lock(&self.world), work, attempt, Timestamp::now(), &mut rng)
        };
        catch_unwind(AssertUnwindSafe(plan)).map_err(|_| {
            tracing::error!(controller = ?work.controller, key = ?work.key, "planning panicked");
        })
    }

    /// Forgets what no watch has confirmed.
    pub(crate) async fn expire(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EXPIRE) => self.change(|world, now| world.expire(now)),
            }
        }
    }
}
