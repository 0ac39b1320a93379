//! The store's thread: takes everything that waits, has the core commit it, publishes, answers.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use store_core::disk::DiskError;
use store_core::files::FilesError;
use store_core::history::History;
use store_core::host::{Host, HostError, HostSettings, Job, Output, Stopped};
use store_core::node::{Event, Published as Batch, Refusal, Settings};
use store_core::recovery::RecoveryError;
use store_core::{Outcome, Txn};
use tokio::sync::oneshot;

use crate::handle::Request;
use crate::options::FatalHandler;
use crate::published::Published;
use crate::real_disk::{DirLock, RealDisk};
use crate::{CommitError, FatalError, OpenError, Options, ReadError};

/// How much is taken into one batch.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_COUNT: usize = 4096;

struct Driver {
    host: Host,
    published: Arc<Published>,
    requests: Sender<Request>,
    writers: HashMap<u64, oneshot::Sender<Result<Outcome, CommitError>>>,
    readers: HashMap<u64, oneshot::Sender<Result<(), ReadError>>>,
    next_ticket: u64,
    jobs: Vec<JoinHandle<()>>,
}

/// What came in together.
#[derive(Default)]
struct Intake {
    txns: Vec<(u64, Txn)>,
    bytes: usize,
    events: Vec<Event>,
    closing: Vec<oneshot::Sender<()>>,
}

/// Opens the directory, recovers, and starts the thread.
pub(crate) fn start(options: Options) -> Result<(Arc<Published>, Sender<Request>), OpenError> {
    let (disk, lock) = RealDisk::open(&options.dir)?;
    let now = now_ms();
    let mut node = Settings::new(options.member);
    node.checkpoint_log_bytes = options.checkpoint_log_bytes;
    let settings = HostSettings {
        node,
        segment_bytes: options.segment_bytes,
        boot: now.max(1).cast_unsigned(),
        seed: rand::random(),
    };
    let opened = Host::open(Arc::new(disk), options.keys(), &settings, now);
    let (mut host, notes) = opened.map_err(|error| open_error(&options, error))?;
    for note in notes {
        tracing::warn!(dir = %options.dir.display(), "{note}");
    }
    let outputs = host.take_outputs();
    let first = outputs.iter().find_map(|output| match output {
        Output::Publish(batch) => Some(batch.events.first()?.revision - 1),
        _ => None,
    });
    let begin = first.unwrap_or(host.snapshot().revision());
    let history = History::new(begin, options.history);
    let published = Arc::new(Published::new(host.snapshot().clone(), history));
    let (requests, waiting) = channel();
    let driver = Driver {
        host,
        published: published.clone(),
        requests: requests.clone(),
        writers: HashMap::new(),
        readers: HashMap::new(),
        next_ticket: 1,
        jobs: Vec::new(),
    };
    spawn(driver, outputs, waiting, lock, options.on_fatal)?;
    Ok((published, requests))
}

fn spawn(
    mut driver: Driver,
    outputs: Vec<Output>,
    waiting: Receiver<Request>,
    lock: DirLock,
    on_fatal: FatalHandler,
) -> Result<(), OpenError> {
    driver.perform(outputs, now_ms());
    let body = move || {
        // A panic must not leave a store behind that looks alive: it ends like any other fatal error.
        let ended = catch_unwind(AssertUnwindSafe(|| driver.run(&waiting)));
        // Nobody confirms any more that what is published is the newest.
        driver.published.confirm(false);
        let closing = match ended {
            Ok(Ok(closing)) => closing,
            Ok(Err(stopped)) => {
                on_fatal(&FatalError { reason: stopped.to_string() });
                return;
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
                on_fatal(&FatalError { reason: text.to_owned() });
                return;
            }
        };
        driver.finish(&waiting);
        drop((driver, waiting, lock));
        for done in closing {
            // Who closed may have stopped waiting.
            let _ = done.send(());
        }
    };
    let spawned = std::thread::Builder::new().name("store".into()).spawn(body);
    spawned.map(|_| ()).map_err(|error| OpenError::Thread { reason: error.to_string() })
}

fn open_error(options: &Options, error: HostError) -> OpenError {
    match error {
        HostError::Recovery(RecoveryError::Disk(error)) => OpenError::Disk(error),
        HostError::Stopped(Stopped::Log(FilesError::Disk(error @ DiskError::Full))) => OpenError::Disk(error),
        other => OpenError::Recovery { dir: options.dir.clone(), reason: other.to_string() },
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

// === impl Driver ===

impl Driver {
    /// Works until it is told to close.
    fn run(&mut self, waiting: &Receiver<Request>) -> Result<Vec<oneshot::Sender<()>>, Stopped> {
        loop {
            let first = self.wait(waiting);
            let intake = self.take_in(first, waiting);
            let now = now_ms();
            if !intake.txns.is_empty() {
                self.host.commit(intake.txns, now)?;
            }
            for event in intake.events {
                self.host.handle(event, now)?;
            }
            let outputs = self.host.take_outputs();
            self.perform(outputs, now);
            self.jobs.retain(|job| !job.is_finished());
            if !intake.closing.is_empty() {
                return Ok(intake.closing);
            }
        }
    }

    /// Waits for a request, or until the node wants to be told the time.
    fn wait(&self, waiting: &Receiver<Request>) -> Option<Request> {
        let Some(at) = self.host.node().poll_timeout() else {
            return Some(waiting.recv().unwrap_or_else(|_| closed()));
        };
        let left = u64::try_from(at.saturating_sub(now_ms())).unwrap_or(0);
        match waiting.recv_timeout(Duration::from_millis(left)) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(closed()),
        }
    }

    /// Takes in a first request and all that wait behind it.
    fn take_in(&mut self, first: Option<Request>, waiting: &Receiver<Request>) -> Intake {
        let mut intake = Intake::default();
        match first {
            None => intake.events.push(Event::Tick),
            Some(request) => self.sort_in(request, &mut intake),
        }
        while intake.bytes < BATCH_BYTES && intake.txns.len() < BATCH_COUNT && intake.closing.is_empty() {
            let Ok(request) = waiting.try_recv() else { break };
            self.sort_in(request, &mut intake);
        }
        intake
    }

    fn sort_in(&mut self, request: Request, intake: &mut Intake) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        match request {
            Request::Commit { txn, answer } => {
                intake.bytes += txn.size();
                intake.txns.push((ticket, txn));
                self.writers.insert(ticket, answer);
            }
            Request::Read { answer } => {
                intake.events.push(Event::Read { ticket });
                self.readers.insert(ticket, answer);
            }
            Request::Tell(event) => intake.events.push(event),
            Request::Close { done } => intake.closing.push(done),
        }
    }

    fn perform(&mut self, outputs: Vec<Output>, now_ms: i64) {
        for output in outputs {
            match output {
                Output::Publish(batch) => self.publish(batch, now_ms),
                Output::Confirm(tickets) => {
                    tickets.iter().for_each(|ticket| self.answer_read(*ticket, Ok(())))
                }
                Output::Refuse(refused) => {
                    refused.into_iter().for_each(|(ticket, why)| self.refuse(ticket, why))
                }
                Output::DiskFull(tickets) => {
                    tickets.iter().for_each(|ticket| self.answer(*ticket, Err(CommitError::DiskFull)));
                }
                // Peers are reached by whoever carries messages; a group of one has none.
                Output::Send(_) => {}
                Output::Job(job) => self.start_job(job),
            }
        }
        self.published.confirm(self.host.node().is_confirmed());
    }

    fn publish(&mut self, batch: Batch, now_ms: i64) {
        if !batch.events.is_empty() {
            self.published.publish(batch.snapshot, &batch.events, now_ms);
        }
        for (ticket, outcome) in batch.answers {
            self.answer(ticket, Ok(outcome));
        }
    }

    fn refuse(&mut self, ticket: u64, why: Refusal) {
        self.answer_read(ticket, Err(ReadError::Unconfirmed));
        self.answer(
            ticket,
            Err(match why {
                Refusal::NotLeader { leader } => CommitError::NotLeader { leader },
                Refusal::Unknown => CommitError::Unknown,
            }),
        );
    }

    fn answer(&mut self, ticket: u64, result: Result<Outcome, CommitError>) {
        if let Some(answer) = self.writers.remove(&ticket) {
            // Who asked may have stopped waiting.
            let _ = answer.send(result);
        }
    }

    fn answer_read(&mut self, ticket: u64, result: Result<(), ReadError>) {
        if let Some(answer) = self.readers.remove(&ticket) {
            // Who asked may have stopped waiting.
            let _ = answer.send(result);
        }
    }

    fn start_job(&mut self, job: Box<Job>) {
        let (lost, lost_too) = (job.when_lost(), job.when_lost());
        let requests = self.requests.clone();
        let run = move || {
            let event = match catch_unwind(AssertUnwindSafe(|| job.run())) {
                Ok(done) => {
                    if let Some(error) = done.error {
                        tracing::warn!(%error, "a background job of the store failed; it is tried again later");
                    }
                    done.event
                }
                Err(_) => lost,
            };
            if let Some(event) = event {
                // The store may have closed meanwhile.
                let _ = requests.send(Request::Tell(event));
            }
        };
        match std::thread::Builder::new().name("store-job".into()).spawn(run) {
            Ok(handle) => self.jobs.push(handle),
            Err(error) => {
                tracing::warn!(%error, "a background job of the store could not start; it is tried again later");
                if let Some(event) = lost_too {
                    // Fails only when the thread has gone, and this is the thread.
                    let _ = self.requests.send(Request::Tell(event));
                }
            }
        }
    }

    /// Waits for the jobs, and answers whoever asked too late.
    fn finish(&mut self, waiting: &Receiver<Request>) {
        for job in self.jobs.drain(..) {
            // A job that panicked has left at most a partial file, which the next start removes.
            let _ = job.join();
        }
        for request in waiting.try_iter() {
            match request {
                Request::Commit { answer, .. } => drop(answer.send(Err(CommitError::Closed))),
                Request::Read { answer } => drop(answer.send(Err(ReadError::Closed))),
                Request::Tell(_) => {}
                Request::Close { done } => drop(done.send(())),
            }
        }
    }
}

/// All handles are gone: nobody waits for the end.
fn closed() -> Request {
    let (done, _) = oneshot::channel();
    Request::Close { done }
}
