//! What goes wrong, when: drawn from the run's seed, each fault ends by itself.

pub mod focus;

use std::rc::Rc;

use raft::eraftpb::MessageType;
use store_core::disk::Faults;
use store_core::node::Change;

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::kernel::{MS, SECOND, Scope, Sim};
use crate::manager::Manager;
use crate::network::{Place, Weather};
use crate::server::{Server, Trap};
use focus::{Aim, Focus, Style};

/// The kinds of faults of servers and network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Groups of machines that do not hear each other.
    Partition,
    /// A server that nobody hears, or that hears nobody.
    OneWay,
    /// A server that hears no other, and is heard by none; clients still reach it.
    Isolate,
    /// No server hears another.
    Apart,
    /// Loss, duplication and delay everywhere.
    Weather,
    /// A server's process is killed.
    Kill,
    /// A server loses its power, and what it has not synced.
    PowerCut,
    /// A server loses its power, or is cut off, right after it has said something of a kind to another.
    Ambush,
    /// Whoever votes next loses its power right after that.
    VoterLost,
    /// A server ends again and again shortly after it has begun, and its clock is set in between.
    CrashLoop,
    /// All servers lose their power at once.
    Blackout,
    /// The power fails in the middle of what a server writes.
    TornWrite,
    /// A server's disk fails to sync.
    SyncFails,
    /// A server's disk is full for a while.
    DiskFull,
    /// A bit flips on a server's disk.
    BitFlip,
    /// The wall clock of a server, a node or of the controllers jumps.
    ClockJump,
    /// A server's process is stopped for a while.
    Pause,
    /// A server writes a checkpoint, however short its log is.
    Checkpoint,
    /// Another server is asked to lead.
    Transfer,
    /// A machine joins the servers.
    Join,
    /// A server is removed.
    Leave,
    /// A server loses its disk, and another machine takes its place.
    Replace,
    /// The agent of a node ends, or its host is cut off.
    Agent,
    /// A container ends by itself.
    Container,
    /// The process of controllers and scheduler ends, or stops for a while.
    Manager,
}

/// Whom faults may befall.
#[derive(Clone)]
pub struct Victims {
    /// Servers and network.
    pub cluster: Rc<Cluster>,
    /// The agents of nodes.
    pub agents: Vec<Rc<Agent>>,
    /// The processes that run controllers and scheduler.
    pub managers: Vec<Rc<Manager>>,
}

const ALL: [Fault; 25] = [
    Fault::Partition,
    Fault::OneWay,
    Fault::Isolate,
    Fault::Apart,
    Fault::Weather,
    Fault::Kill,
    Fault::PowerCut,
    Fault::Ambush,
    Fault::VoterLost,
    Fault::CrashLoop,
    Fault::Blackout,
    Fault::TornWrite,
    Fault::SyncFails,
    Fault::DiskFull,
    Fault::BitFlip,
    Fault::ClockJump,
    Fault::Pause,
    Fault::Checkpoint,
    Fault::Transfer,
    Fault::Join,
    Fault::Leave,
    Fault::Replace,
    Fault::Agent,
    Fault::Container,
    Fault::Manager,
];

/// Lets things go wrong until its process is killed. The seed decides what the run is about, unless that is given.
pub fn start(victims: &Victims, scope: Scope, focus: Option<Focus>) {
    let sim = &victims.cluster.sim;
    let focus = focus.unwrap_or_else(|| Focus::draw(sim, !victims.agents.is_empty()));
    let Style { kinds, pace, aim } = focus.style(sim);
    sim.note(format_args!("a run about {focus:?}: {kinds:?} at {aim:?}, about every {} ms", pace / MS));
    let victims = victims.clone();
    sim.spawn(scope, async move {
        let sim = victims.cluster.sim.clone();
        loop {
            sim.sleep(sim.between(pace / 4, pace * 2)).await;
            let fault = kinds[sim.index(kinds.len())];
            if let Some(server) = victim(&victims, aim) {
                break_something(&victims, scope, fault, server);
            }
        }
    });
}

/// Whom the next fault befalls.
fn victim(victims: &Victims, aim: Aim) -> Option<Rc<Server>> {
    let cluster = &victims.cluster;
    let aimed = match aim {
        Aim::Anyone => None,
        Aim::Leader => cluster.servers().into_iter().find(|server| server.leads()),
        Aim::Manager => {
            victims.managers.iter().find(|it| it.works()).and_then(|it| cluster.server(it.number))
        }
    };
    aimed.filter(|_| cluster.sim.chance(0.6)).or_else(|| cluster.any())
}

/// Ends all faults: everything runs, and nothing is lost from now on.
pub fn heal(victims: &Victims) {
    let cluster = &victims.cluster;
    cluster.sim.note(format_args!("all faults end"));
    cluster.network.mend();
    cluster.network.set_weather(Weather::FAIR);
    for server in cluster.servers() {
        server.disk.set_faults(Faults::default());
        server.forget_ambush();
        server.resume();
        server.start();
        // A server that had noticed a flipped bit starts now that it is flipped back.
        server.start();
        server.unflip();
    }
    for manager in &victims.managers {
        manager.resume();
        manager.start();
    }
    victims.agents.iter().for_each(|agent| agent.start());
}

fn break_something(victims: &Victims, scope: Scope, fault: Fault, server: Rc<Server>) {
    let cluster = &victims.cluster;
    let sim = &cluster.sim;
    sim.note(format_args!("fault {fault:?} at server {}", server.member));
    match fault {
        Fault::Partition => partition(victims),
        Fault::OneWay => one_way(cluster, &server),
        Fault::Isolate => cluster.cut_off(&server, 20 * SECOND),
        Fault::Apart => cluster.servers().iter().for_each(|server| cluster.cut_off(server, 20 * SECOND)),
        Fault::Weather => weather(cluster),
        Fault::Kill | Fault::PowerCut => {
            if fault == Fault::Kill {
                server.kill()
            } else {
                server.cut_power()
            }
            restart(sim, server);
        }
        Fault::Ambush => ambush(sim, &server),
        Fault::VoterLost => {
            let vote = MessageType::MsgRequestVoteResponse;
            cluster.servers().iter().for_each(|server| server.ambush(vote, Trap::PowerCut));
        }
        Fault::CrashLoop => sim.spawn(scope, crash_loop(sim.clone(), server)),
        Fault::Blackout => {
            for server in cluster.servers() {
                server.cut_power();
                restart(sim, server.clone());
            }
        }
        Fault::TornWrite | Fault::SyncFails | Fault::DiskFull => disk(sim, fault, server),
        Fault::BitFlip => {
            server.kill();
            server.flip_bit();
            restart(sim, server);
        }
        Fault::ClockJump => clock_jump(victims, &server),
        Fault::Pause => {
            server.pause();
            sim.after(sim.between(SECOND / 10, 15 * SECOND), move || server.resume());
        }
        Fault::Checkpoint => server.checkpoint(),
        Fault::Transfer | Fault::Join | Fault::Leave | Fault::Replace => members(cluster, fault, &server),
        Fault::Agent => agent(victims),
        Fault::Container => {
            if let Some(agent) = victims.agents.get(sim.index(victims.agents.len().max(1))) {
                agent.crash_container();
            }
        }
        Fault::Manager => manager(victims),
    }
}

fn disk(sim: &Sim, fault: Fault, server: Rc<Server>) {
    let soon = Some(server.disk.operations() + sim.between(0, 40));
    let faults = match fault {
        Fault::TornWrite => Faults { cut_at: soon, ..Faults::default() },
        Fault::SyncFails => Faults { fail_sync_from: soon, ..Faults::default() },
        _ => {
            let capacity = Some(server.disk.used() + sim.between(0, 100_000));
            Faults { capacity, ..Faults::default() }
        }
    };
    server.break_disk(faults);
    if fault == Fault::DiskFull {
        sim.after(sim.between(SECOND, 20 * SECOND), move || {
            server.break_disk(Faults::default());
            server.start();
        });
    }
}

fn ambush(sim: &Sim, server: &Server) {
    const KINDS: [MessageType; 5] = [
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgAppendResponse,
        MessageType::MsgAppend,
        MessageType::MsgPropose,
        MessageType::MsgPropose,
    ];
    let trap = if sim.chance(0.6) { Trap::PowerCut } else { Trap::CutOff };
    server.ambush(KINDS[sim.index(KINDS.len())], trap);
}

/// Whatever starts the server again does so at once; it has little time to do anything.
async fn crash_loop(sim: Sim, server: Rc<Server>) {
    for _ in 0..sim.between(2, 8) {
        if sim.chance(0.5) {
            server.kill();
        } else {
            server.cut_power();
        }
        if sim.chance(0.5) {
            set_clock(&sim, &server);
        }
        sim.sleep(sim.between(MS, SECOND / 10)).await;
        server.start();
        sim.sleep(sim.between(MS, SECOND / 2)).await;
    }
    restart(&sim, server);
}

fn set_clock(sim: &Sim, server: &Server) {
    let by = drawn_jump(sim);
    sim.note(format_args!("the clock of server {} is off by {by} ms", server.member));
    server.clock.jump(by);
}

fn members(cluster: &Rc<Cluster>, fault: Fault, server: &Rc<Server>) {
    let sim = &cluster.sim;
    let count = cluster.servers().len();
    // Changes go on when the faults end: nobody leaves a group half changed.
    let scope = sim.scope();
    match fault {
        Fault::Transfer => drop(cluster.any().map(|asked| asked.change(Change::TransferLead(server.member)))),
        Fault::Join if count < 6 => sim.spawn(scope, cluster.clone().add()),
        Fault::Leave if count > 2 => sim.spawn(scope, cluster.clone().remove(server.member)),
        Fault::Replace => sim.spawn(scope, cluster.clone().replace(server.member)),
        _ => {}
    }
}

fn agent(victims: &Victims) {
    let (sim, network) = (&victims.cluster.sim, &victims.cluster.network);
    let Some(agent) = victims.agents.get(sim.index(victims.agents.len().max(1))).cloned() else { return };
    if sim.chance(0.5) {
        agent.kill();
        sim.after(sim.between(SECOND, 60 * SECOND), move || agent.start());
        return;
    }
    for server in victims.cluster.servers() {
        network.cut(agent.place(), server.place());
        network.cut(server.place(), agent.place());
    }
    victims.cluster.mend_later(90 * SECOND);
}

fn manager(victims: &Victims) {
    let sim = &victims.cluster.sim;
    let working = victims.managers.iter().find(|manager| manager.works()).filter(|_| sim.chance(0.6));
    let any = || victims.managers.get(sim.index(victims.managers.len().max(1)));
    let Some(manager) = working.or_else(any).cloned() else { return };
    if sim.chance(0.4) {
        manager.kill();
        sim.after(sim.between(SECOND / 10, 20 * SECOND), move || manager.start());
    } else {
        manager.pause();
        // Long enough for another one to take the lead.
        sim.after(sim.between(SECOND, 60 * SECOND), move || manager.resume());
    }
}

fn restart(sim: &Sim, server: Rc<Server>) {
    let again = server.clone();
    let longest = if sim.chance(0.5) { SECOND } else { 10 * SECOND };
    sim.after(sim.between(SECOND / 20, longest), move || server.start());
    // Once more, for a server that had refused to start.
    sim.after(sim.between(10 * SECOND, 15 * SECOND), move || again.start());
}

/// By how many milliseconds a clock is wrong.
fn drawn_jump(sim: &Sim) -> i64 {
    let far = [SECOND, 60 * SECOND, 3600 * SECOND, 86_400 * SECOND][sim.index(4)];
    let by = sim.between(0, far) / MS;
    if sim.chance(0.5) { by.cast_signed() } else { -by.cast_signed() }
}

fn clock_jump(victims: &Victims, server: &Server) {
    let sim = &victims.cluster.sim;
    let by = drawn_jump(sim);
    if sim.chance(0.3) {
        // Whoever tells all servers the time is wrong.
        sim.note(format_args!("the clocks of all servers are off by {by} ms"));
        victims.cluster.servers().iter().for_each(|server| server.clock.jump(by));
        return;
    }
    let place = sim.index(1 + victims.managers.len() + victims.agents.len());
    let manager = place.checked_sub(1).and_then(|place| victims.managers.get(place));
    let agent = place.checked_sub(1 + victims.managers.len()).and_then(|place| victims.agents.get(place));
    let (who, clock) = match (manager, agent) {
        (Some(manager), _) => (format!("manager {}", manager.number), &*manager.clock),
        (None, Some(agent)) => (agent.name.clone(), &*agent.clock),
        (None, None) => (format!("server {}", server.member), &server.clock),
    };
    sim.note(format_args!("the clock of {who} is off by {by} ms"));
    clock.jump(by);
}

fn partition(victims: &Victims) {
    let cluster = &victims.cluster;
    let sim = &cluster.sim;
    let servers = cluster.servers().into_iter().map(|server| server.place());
    let places: Vec<Place> = servers.chain(victims.agents.iter().map(|agent| agent.place())).collect();
    let sides: Vec<bool> = places.iter().map(|_| sim.chance(0.5)).collect();
    for (from, side) in places.iter().zip(&sides) {
        for (to, other) in places.iter().zip(&sides) {
            if side != other {
                cluster.network.cut(*from, *to);
            }
        }
    }
    cluster.mend_later(20 * SECOND);
}

fn one_way(cluster: &Rc<Cluster>, server: &Server) {
    let mute = cluster.sim.chance(0.5);
    for other in cluster.servers() {
        let (from, to) = if mute { (server.place(), other.place()) } else { (other.place(), server.place()) };
        cluster.network.cut(from, to);
    }
    cluster.mend_later(20 * SECOND);
}

fn weather(cluster: &Rc<Cluster>) {
    let sim = &cluster.sim;
    let weather = Weather {
        loss: sim.between(0, 30) as f64 / 100.0,
        duplicates: sim.between(0, 20) as f64 / 100.0,
        slow: sim.between(0, 50) as f64 / 100.0,
        slowest: sim.between(5 * MS, SECOND),
    };
    sim.note(format_args!("weather: {weather:?}"));
    cluster.network.set_weather(weather);
    let fair = cluster.clone();
    sim.after(sim.between(SECOND, 20 * SECOND), move || fair.network.set_weather(Weather::FAIR));
}
