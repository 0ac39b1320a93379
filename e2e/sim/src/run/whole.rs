//! A run of everything: servers, controllers and scheduler, nodes, and people with kubectl.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::agent::Agent;
use crate::checkers::{convergence, garbage};
use crate::cluster::Cluster;
use crate::faults::{self, Victims};
use crate::kernel::{SECOND, Sim};
use crate::manager::Manager;
use crate::run::{Options, converge};
use crate::serve;
use crate::workload::{people, registers};

/// The longest that a cache waits before it lists again, in seconds: until then a controller may not know of everything yet, and
/// what looks as desired may be written once more.
const CATCHES_UP_WITHIN: u64 = 60;
/// How long the cluster has to come to what is desired, in seconds.
const CONVERGES_WITHIN: u64 = 600;
/// How long it then must stay there.
const STAYS_FOR: u64 = 60;

/// Runs it, and returns how many operations were served.
pub fn run(sim: &Sim, options: Options) -> u64 {
    let cluster = Cluster::new(sim);
    serve::serve(&cluster);
    cluster.form(3);
    let count = sim.between(2, 5) as u8;
    let size = sim.between(2, 5).cast_signed() * 1000;
    let agents: Vec<_> = (1..=count).map(|number| Agent::new(&cluster, number, size)).collect();
    let managers: Vec<_> = (1..=3).map(|number| Manager::new(&cluster, number)).collect();
    for agent in &agents {
        agent.clock.jump(sim.between(0, 4000).cast_signed() - 2000);
        agent.start();
    }
    managers.iter().for_each(|manager| manager.start());
    let never = || false;
    sim.run_until(sim.now() + 15 * SECOND, never);

    let names = agents.iter().map(|agent| agent.name.clone()).collect();
    let scope = sim.scope();
    let budget = i64::from(count) * size * 6 / 10;
    let people = people::start(&cluster, scope, sim.between(1, 5), names, budget);
    let registers = registers::start(&cluster, scope, 1);
    let chaos = sim.scope();
    let victims = Victims { cluster: cluster.clone(), agents, managers };
    faults::start(&victims, chaos, options.focus);
    sim.run_until(sim.now() + options.duration * SECOND, never);

    sim.kill(chaos);
    faults::heal(&victims);
    sim.run_until(sim.now() + 10 * SECOND, never);
    sim.kill(scope);
    let tidying = sim.scope();
    sim.spawn(tidying, people.clone().tidy_up());
    converge(sim, &cluster);
    settle(sim, &victims);
    people.done() + registers.get()
}

fn settle(sim: &Sim, victims: &Victims) {
    let end = sim.now() + CONVERGES_WITHIN * SECOND;
    sim.run_until(sim.now() + CATCHES_UP_WITHIN * SECOND, || false);
    loop {
        let found = unfinished(victims);
        if sim.violation().is_some() {
            return;
        }
        if found.is_empty() {
            break;
        }
        if sim.now() >= end {
            let orphans = garbage::orphans(&victims.cluster.checks.replicas.order().newest());
            let id = if found == orphans { "nothing-orphaned" } else { "converges" };
            let message = format!("{CONVERGES_WITHIN} s after all faults had ended: {}", found.join("; "));
            sim.violated(id, message);
            return;
        }
        sim.run_until(sim.now() + 5 * SECOND, || false);
    }
    sim.note(format_args!("the cluster has converged"));
    let revision = victims.cluster.checks.replicas.order().revision();
    sim.run_until(sim.now() + STAYS_FOR * SECOND, || false);
    let mut found = unfinished(victims);
    found.extend(convergence::unrest(&victims.cluster.checks.replicas.order(), revision));
    if !found.is_empty() {
        let message = format!("the cluster does not stay as it is desired: {}", found.join("; "));
        sim.violated("converges", message);
    }
    victims.agents.iter().for_each(|agent| agent.check());
    victims.managers.iter().for_each(|manager| manager.check());
}

fn unfinished(victims: &Victims) -> Vec<String> {
    let running: BTreeMap<String, BTreeSet<String>> = victims
        .agents
        .iter()
        .map(|agent: &Rc<Agent>| {
            let uids = agent.runtime.running().into_iter().map(|(uid, _)| uid).collect();
            (agent.name.clone(), uids)
        })
        .collect();
    let state = victims.cluster.checks.replicas.order().newest();
    let mut found = convergence::unfinished(&state, &running);
    found.extend(garbage::orphans(&state));
    let leading = victims.managers.iter().filter(|manager| manager.works()).count();
    if leading != 1 {
        found.push(format!("{leading} processes run controllers and scheduler"));
    }
    found
}
