//! What a run is about: some runs have any kinds of faults, others are full of those that meet in one kind of trouble.

use super::Fault;
use crate::kernel::{MS, SECOND, Sim, Time};

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Focus {
    /// Any kinds, each of them in half of such runs.
    Anything,
    /// Who leads is stopped, cut off and sent away, while clients go on asking it.
    Leaders,
    /// Messages are slow, leaders go, and voters lose their power right after they have said something.
    Elections,
    /// Clocks are set, and members end shortly after they began.
    Clocks,
    /// Disks fail in all their ways.
    Disks,
    /// Members come, go and are replaced.
    Members,
    /// Who runs controllers and scheduler stops for longer than its lease, or writes to a server that is behind.
    Managers,
    /// Agents and containers end.
    Nodes,
    /// For moments nobody can decide anything.
    Quorum,
}

/// Whom faults of a run befall more often than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Nobody.
    Anyone,
    /// The member that leads.
    Leader,
    /// The server beside which controllers and scheduler run.
    Manager,
}

/// How the faults of a run come.
#[derive(Clone, Debug)]
pub struct Style {
    /// The kinds; one that is named twice comes twice as often.
    pub kinds: Vec<Fault>,
    /// About how long one is behind the other.
    pub pace: Time,
    /// Whom they befall more often.
    pub aim: Aim,
}

const STORE: [Focus; 7] = [
    Focus::Anything,
    Focus::Leaders,
    Focus::Elections,
    Focus::Clocks,
    Focus::Disks,
    Focus::Members,
    Focus::Quorum,
];

// === impl Focus ===

impl Focus {
    /// Draws what a run is about. `whole`: there are nodes and controllers.
    pub fn draw(sim: &Sim, whole: bool) -> Focus {
        // Half of the runs have whatever may come: nobody knows which kinds meet in a fault that is not known.
        if sim.chance(0.5) {
            return Focus::Anything;
        }
        let further: &[Focus] = if whole { &[Focus::Managers, Focus::Nodes, Focus::Managers] } else { &[] };
        let place = sim.index(STORE.len() + further.len());
        STORE
            .get(place)
            .or(further.get(place.saturating_sub(STORE.len())))
            .copied()
            .unwrap_or(Focus::Anything)
    }

    /// Draws how the faults of a run come.
    pub fn style(self, sim: &Sim) -> Style {
        use Fault::*;
        let (kinds, fastest, slowest, aim): (&[Fault], Time, Time, Aim) = match self {
            Focus::Anything => {
                let mut kinds: Vec<Fault> = super::ALL.into_iter().filter(|_| sim.chance(0.5)).collect();
                if kinds.is_empty() {
                    kinds.extend(super::ALL);
                }
                let aim = [Aim::Anyone, Aim::Anyone, Aim::Leader, Aim::Manager][sim.index(4)];
                return Style { kinds, pace: sim.between(SECOND, 8 * SECOND), aim };
            }
            Focus::Leaders => {
                (&[Pause, Pause, Isolate, OneWay, Transfer, Kill], SECOND, 5 * SECOND, Aim::Leader)
            }
            Focus::Elections => (
                &[
                    VoterLost, VoterLost, VoterLost, Ambush, Weather, Weather, Kill, Isolate, Transfer,
                    Transfer,
                ],
                300 * MS,
                1500 * MS,
                Aim::Leader,
            ),
            Focus::Clocks => (
                &[ClockJump, ClockJump, CrashLoop, CrashLoop, Kill, Isolate],
                SECOND,
                5 * SECOND,
                Aim::Leader,
            ),
            Focus::Disks => (
                &[PowerCut, Blackout, TornWrite, SyncFails, DiskFull, BitFlip, Checkpoint, Ambush],
                SECOND,
                4 * SECOND,
                Aim::Anyone,
            ),
            Focus::Members => (
                &[Join, Leave, Replace, Transfer, Checkpoint, Kill, Isolate],
                SECOND,
                5 * SECOND,
                Aim::Leader,
            ),
            Focus::Managers => {
                (&[Manager, Manager, Ambush, Ambush, Isolate, Pause], SECOND, 5 * SECOND, Aim::Manager)
            }
            Focus::Nodes => (&[Agent, Agent, Container, Weather], SECOND, 4 * SECOND, Aim::Anyone),
            Focus::Quorum => (&[Apart, Apart, Blackout, Isolate], 2 * SECOND, 8 * SECOND, Aim::Leader),
        };
        Style { kinds: kinds.to_vec(), pace: sim.between(fastest, slowest), aim }
    }
}
