//! One run: build a cluster, let things go wrong while it is used, then heal it and see that it converges.

mod whole;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::cluster::Cluster;
use crate::faults::focus::Focus;
use crate::faults::{self, Victims};
use crate::kernel::{SECOND, Sim, Time, Violation};
use crate::workload::registers;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Servers and clients of the bare store.
    Store,
    /// Everything: servers, controllers, scheduler, nodes, people with kubectl.
    Cluster,
}

impl Level {
    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Store => "store",
            Level::Cluster => "cluster",
        }
    }
}

/// What decides a run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// What is simulated.
    pub level: Level,
    /// How long things go wrong, in simulated seconds.
    pub duration: u64,
    /// What the run is about; drawn when that is not given.
    pub focus: Option<Focus>,
    /// Print the trace as it grows.
    pub trace: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The invariant that was broken, if one was.
    pub violation: Option<Violation>,
    /// The hash of the whole trace.
    pub hash: u64,
    /// How long the cluster lived.
    pub simulated: Time,
    /// How many timers and tasks ran.
    pub steps: u64,
    /// How many operations of clients were served.
    pub operations: u64,
    /// The last lines of the trace; empty when all went well.
    pub last_lines: Vec<String>,
}

/// Runs a simulation to its end.
pub fn run(options: Options) -> Report {
    let sim = Sim::new(options.seed, options.trace);
    let simulate = || match options.level {
        Level::Store => store(&sim, options),
        Level::Cluster => whole::run(&sim, options),
    };
    // A process that panics has ended for a reason that nobody planned for.
    let operations = catch_unwind(AssertUnwindSafe(simulate)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("for no reason");
        sim.violated("does-not-panic", format!("a core panics: {text}"));
        0
    });
    let violation = sim.violation();
    let report = Report {
        hash: sim.trace_hash(),
        simulated: sim.now(),
        steps: sim.steps(),
        operations,
        last_lines: if violation.is_some() { sim.last_lines() } else { Vec::new() },
        violation,
    };
    if report.violation.is_none() {
        sim.shut_down();
    }
    report
}

/// Servers and clients of the bare store.
fn store(sim: &Sim, options: Options) -> u64 {
    let members = if sim.chance(0.3) { 5 } else { 3 };
    let cluster = Cluster::new(sim);
    cluster.form(members);
    let never = || false;
    let people = sim.scope();
    let done = registers::start(&cluster, people, sim.between(2, 8));
    let chaos = sim.scope();
    let victims = Victims { cluster: cluster.clone(), agents: Vec::new(), managers: Vec::new() };
    faults::start(&victims, chaos, options.focus);
    sim.run_until(sim.now() + options.duration * SECOND, never);

    sim.kill(chaos);
    faults::heal(&victims);
    sim.run_until(sim.now() + 5 * SECOND, never);
    sim.kill(people);
    converge(sim, &cluster);
    done.get()
}

/// After the faults every member acknowledges a write soon, and all come to the same state.
fn converge(sim: &Sim, cluster: &Rc<Cluster>) {
    const WITHIN: u64 = 30;
    let settled = Rc::new(RefCell::new(None));
    let scope = sim.scope();
    let (task, told) = (registers::settle(cluster.clone(), WITHIN), settled.clone());
    sim.spawn(scope, async move { *told.borrow_mut() = Some(task.await) });
    let stop = {
        let settled = settled.clone();
        move || settled.borrow().is_some()
    };
    sim.run_until(sim.now() + (WITHIN + 20) * SECOND, stop);
    if sim.violation().is_some() {
        return;
    }
    let silent = settled.borrow_mut().take();
    if silent.as_ref().is_none_or(|silent| !silent.is_empty()) {
        let message =
            format!("no write was acknowledged within {WITHIN} s after all faults had ended by {silent:?}");
        sim.violated("converges", message);
        return;
    }
    sim.run_until(sim.now() + 7 * SECOND, || false);
    let newest = cluster.checks.replicas.order().revision();
    sim.run_until(sim.now() + 3 * SECOND, || false);
    for server in cluster.servers() {
        let revision = server.view().map(|view| view.snapshot.revision());
        if revision.is_none_or(|revision| revision < newest) {
            let member = server.member;
            let message = format!("member {member} stays at revision {revision:?}, the group is at {newest}");
            sim.violated("converges", message);
        }
    }
}
