//! The kernel of a run: virtual time, one generator, tasks and timers in one thread, and the trace of what happens.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Microseconds since the run began.
pub type Time = u64;
/// A millisecond.
pub const MS: Time = 1_000;
/// A second.
pub const SECOND: Time = 1_000 * MS;

/// How many lines of the trace are kept for the report of a failure.
const KEPT: usize = 400;

/// The kernel. Clones are the same.
#[derive(Clone)]
pub struct Sim(Rc<Inner>);

/// The tasks of one run of a process: they end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(u64);

/// What a checker has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker's id, as in `docs/invariants.md`.
    pub checker: &'static str,
    /// What is wrong.
    pub message: String,
    /// When it was seen.
    pub at: Time,
}

/// What is to be called, by its time and the order in which it was asked for.
type Timers = BTreeMap<(Time, u64), Box<dyn FnOnce()>>;

/// What a task still has to do.
type Rest = Pin<Box<dyn Future<Output = ()>>>;

struct Inner {
    now: Cell<Time>,
    next: Cell<u64>,
    steps: Cell<u64>,
    rng: RefCell<ChaCha8Rng>,
    timers: RefCell<Timers>,
    tasks: RefCell<Tasks>,
    ready: Arc<Mutex<VecDeque<u64>>>,
    trace: RefCell<Trace>,
    violation: RefCell<Option<Violation>>,
}

#[derive(Default)]
struct Tasks {
    /// Every task with its process; without its future while that is being polled.
    futures: BTreeMap<u64, (Scope, Option<Rest>)>,
    alive: BTreeMap<Scope, BTreeSet<u64>>,
    /// Paused scopes, with the tasks that would have been polled.
    paused: BTreeMap<Scope, Vec<u64>>,
}

struct Trace {
    hash: u64,
    kept: VecDeque<String>,
    line: String,
    echo: bool,
}

struct TaskWaker {
    task: u64,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

// === impl Sim ===

impl Sim {
    /// A run that this seed decides. `echo`: the trace is printed as it grows.
    pub fn new(seed: u64, echo: bool) -> Self {
        Self(Rc::new(Inner {
            now: Cell::new(0),
            next: Cell::new(1),
            steps: Cell::new(0),
            rng: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            timers: RefCell::default(),
            tasks: RefCell::default(),
            ready: Arc::default(),
            trace: RefCell::new(Trace {
                hash: 0xcbf2_9ce4_8422_2325,
                kept: VecDeque::new(),
                line: String::new(),
                echo,
            }),
            violation: RefCell::default(),
        }))
    }

    /// The true time, which no process of the cluster can read.
    pub fn now(&self) -> Time {
        self.0.now.get()
    }

    /// How many timers and tasks have run.
    pub fn steps(&self) -> u64 {
        self.0.steps.get()
    }

    fn number(&self) -> u64 {
        self.0.next.replace(self.0.next.get() + 1)
    }

    // --- chance ---

    /// Lends the one generator.
    pub fn rng<T>(&self, with: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        with(&mut self.0.rng.borrow_mut())
    }

    /// A number from `from` (with it) to `to` (without it); `from` when there is none.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        if to <= from { from } else { self.rng(|rng| rng.random_range(from..to)) }
    }

    /// A place in a list of `len`.
    pub fn index(&self, len: usize) -> usize {
        self.between(0, len as u64) as usize
    }

    /// Whether something of this probability happens.
    pub fn chance(&self, probability: f64) -> bool {
        self.rng(|rng| rng.random::<f64>()) < probability
    }

    // --- timers and tasks ---

    /// Has `run` called after `delay`.
    pub fn after(&self, delay: Time, run: impl FnOnce() + 'static) {
        self.at(self.now() + delay, run);
    }

    /// Has `run` called at a time; at once when that has passed.
    pub fn at(&self, at: Time, run: impl FnOnce() + 'static) {
        let number = self.number();
        self.0.timers.borrow_mut().insert((at.max(self.now()), number), Box::new(run));
    }

    /// A new run of a process.
    pub fn scope(&self) -> Scope {
        let scope = Scope(self.number());
        self.0.tasks.borrow_mut().alive.insert(scope, BTreeSet::new());
        scope
    }

    /// Starts a task; nothing happens when its process has ended.
    pub fn spawn(&self, scope: Scope, future: impl Future<Output = ()> + 'static) {
        let task = self.number();
        {
            let mut tasks = self.0.tasks.borrow_mut();
            let Some(alive) = tasks.alive.get_mut(&scope) else { return };
            alive.insert(task);
            tasks.futures.insert(task, (scope, Some(Box::pin(future))));
        }
        self.enqueue(task);
    }

    /// Ends a process: its tasks are dropped where they stand.
    pub fn kill(&self, scope: Scope) {
        let dropped: Vec<_> = {
            let mut tasks = self.0.tasks.borrow_mut();
            tasks.paused.remove(&scope);
            let ended = tasks.alive.remove(&scope).unwrap_or_default();
            ended.iter().filter_map(|task| tasks.futures.remove(task)).collect()
        };
        // Dropped without the borrow: what a task owns may reach for the kernel.
        drop(dropped);
    }

    /// Whether a process runs.
    pub fn is_alive(&self, scope: Scope) -> bool {
        self.0.tasks.borrow().alive.contains_key(&scope)
    }

    /// Stops a process as SIGSTOP does: its tasks are not polled until it is resumed.
    pub fn pause(&self, scope: Scope) {
        self.0.tasks.borrow_mut().paused.entry(scope).or_default();
    }

    /// Lets a paused process go on.
    pub fn resume(&self, scope: Scope) {
        let waiting = self.0.tasks.borrow_mut().paused.remove(&scope).unwrap_or_default();
        waiting.into_iter().for_each(|task| self.enqueue(task));
    }

    /// Completes after `delay`.
    pub fn sleep(&self, delay: Time) -> Sleep {
        Sleep { sim: self.clone(), until: self.now() + delay, armed: false }
    }

    fn enqueue(&self, task: u64) {
        self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    }

    /// Runs until `end`, or until `stop` says so, or a checker has found something.
    pub fn run_until(&self, end: Time, stop: impl Fn() -> bool) {
        while self.0.violation.borrow().is_none() && !stop() {
            let task = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(task) = task {
                self.poll(task);
                continue;
            }
            let due = {
                let mut timers = self.0.timers.borrow_mut();
                match timers.first_key_value() {
                    Some(((at, _), _)) if *at <= end => timers.pop_first(),
                    _ => None,
                }
            };
            let Some(((at, _), run)) = due else {
                self.0.now.set(end.max(self.now()));
                return;
            };
            self.0.now.set(at);
            self.0.steps.set(self.steps() + 1);
            run();
        }
    }

    fn poll(&self, task: u64) {
        let mut future = {
            let mut tasks = self.0.tasks.borrow_mut();
            let Some((scope, future)) = tasks.futures.get_mut(&task) else { return };
            let scope = *scope;
            let future = future.take();
            if let Some(waiting) = tasks.paused.get_mut(&scope) {
                waiting.push(task);
                if let Some(place) = tasks.futures.get_mut(&task) {
                    place.1 = future;
                }
                return;
            }
            let Some(future) = future else { return };
            future
        };
        self.0.steps.set(self.steps() + 1);
        let waker = Waker::from(Arc::new(TaskWaker { task, ready: self.0.ready.clone() }));
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = self.0.tasks.borrow_mut();
        let ended = match (tasks.futures.get_mut(&task), poll) {
            (Some(place), Poll::Pending) => {
                place.1 = Some(future);
                return;
            }
            (Some((scope, _)), Poll::Ready(())) => {
                let scope = *scope;
                tasks.futures.remove(&task);
                if let Some(alive) = tasks.alive.get_mut(&scope) {
                    alive.remove(&task);
                }
                future
            }
            (None, _) => future,
        };
        drop(tasks);
        drop(ended);
    }

    // --- the trace ---

    /// Adds a line to the trace. All lines are part of its hash.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        use fmt::Write as _;
        let mut trace = self.0.trace.borrow_mut();
        let trace = &mut *trace;
        let mut line = if trace.kept.len() >= KEPT {
            trace.kept.pop_front().unwrap_or_default()
        } else {
            std::mem::take(&mut trace.line)
        };
        line.clear();
        let now = self.now();
        // Writing to a String cannot fail.
        let _ = write!(line, "{:>6}.{:06} {text}", now / SECOND, now % SECOND);
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if trace.echo {
            eprintln!("{line}");
        }
        trace.kept.push_back(line);
    }

    /// The hash of the whole trace so far.
    pub fn trace_hash(&self) -> u64 {
        self.0.trace.borrow().hash
    }

    /// The last lines of the trace.
    pub fn last_lines(&self) -> Vec<String> {
        self.0.trace.borrow().kept.iter().cloned().collect()
    }

    /// Reports a broken invariant. The first one ends the run.
    pub fn violated(&self, checker: &'static str, message: String) {
        self.note(format_args!("VIOLATED {checker}: {message}"));
        let at = self.now();
        self.0.violation.borrow_mut().get_or_insert(Violation { checker, message, at });
    }

    /// What was found, if anything.
    pub fn violation(&self) -> Option<Violation> {
        self.0.violation.borrow().clone()
    }

    /// Drops all that is still to happen, so that nothing keeps the kernel alive.
    pub fn shut_down(&self) {
        let timers = std::mem::take(&mut *self.0.timers.borrow_mut());
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        drop((timers, tasks));
    }
}

/// See [`Sim::sleep`].
pub struct Sleep {
    sim: Sim,
    until: Time,
    armed: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.sim.now() >= self.until {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut self.armed, true) {
            let waker = context.waker().clone();
            self.sim.at(self.until, move || waker.wake());
        }
        Poll::Pending
    }
}

/// Wakes whoever waits for something to come.
#[derive(Default)]
pub struct Signal {
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Wakes all who wait.
    pub fn raise(&self) {
        self.count.set(self.count.get() + 1);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Completes when the signal is raised after this call.
    pub fn wait(self: &Rc<Self>) -> impl Future<Output = ()> + use<> {
        let (signal, seen) = (Rc::clone(self), self.count.get());
        std::future::poll_fn(move |context| {
            if signal.count.get() != seen {
                return Poll::Ready(());
            }
            signal.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_run_in_virtual_time_and_end_with_their_process() {
        let sim = Sim::new(1, false);
        let log = Rc::new(RefCell::new(Vec::new()));
        let scopes = [sim.scope(), sim.scope()];
        for (number, scope) in scopes.into_iter().enumerate() {
            let (task, log) = (sim.clone(), log.clone());
            sim.spawn(scope, async move {
                for _ in 0..3 {
                    task.sleep(SECOND).await;
                    log.borrow_mut().push((number, task.now() / SECOND));
                }
            });
        }
        sim.run_until(SECOND + MS, || false);
        sim.kill(scopes[0]);
        sim.pause(scopes[1]);
        sim.run_until(5 * SECOND, || false);
        sim.resume(scopes[1]);
        sim.run_until(20 * SECOND, || false);
        assert_eq!(*log.borrow(), [(0, 1), (1, 1), (1, 5), (1, 6)]);
    }
}
