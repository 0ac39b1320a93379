//! The network between machines: delay, loss, duplication, reordering, partitions and cuts in one direction.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::kernel::{MS, Sim, Time};

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Where a server runs, by its member id.
    Server(u64),
    /// A node, or where a person works.
    Host(u64),
}

/// How the network behaves apart from cuts.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The share of messages that are lost.
    pub loss: f64,
    /// The share of messages between servers that come twice.
    pub duplicates: f64,
    /// The share of messages that are slow.
    pub slow: f64,
    /// How late a slow message may come.
    pub slowest: Time,
}

/// The network.
pub struct Network {
    sim: Sim,
    cuts: RefCell<BTreeSet<(Place, Place)>>,
    weather: RefCell<Weather>,
}

// === impl Weather ===

impl Weather {
    /// Nothing is lost.
    pub const FAIR: Weather = Weather { loss: 0.0, duplicates: 0.0, slow: 0.0, slowest: 0 };
}

// === impl Network ===

impl Network {
    /// A network without faults.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), cuts: RefCell::default(), weather: RefCell::new(Weather::FAIR) }
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        *self.weather.borrow_mut() = weather;
    }

    /// Cuts a direction.
    pub fn cut(&self, from: Place, to: Place) {
        if from != to {
            self.cuts.borrow_mut().insert((from, to));
        }
    }

    /// Mends all cuts.
    pub fn mend(&self) {
        self.cuts.borrow_mut().clear();
    }

    /// Whether a direction is cut.
    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cuts.borrow().contains(&(from, to))
    }

    /// When copies of a message arrive that is sent now: none when it is lost.
    pub fn delays(&self, from: Place, to: Place) -> Vec<Time> {
        if from == to {
            return vec![self.sim.between(5, 50)];
        }
        let weather = *self.weather.borrow();
        if self.is_cut(from, to) || self.sim.chance(weather.loss) {
            return Vec::new();
        }
        let copies = if self.sim.chance(weather.duplicates) { 2 } else { 1 };
        (0..copies).map(|_| self.delay(weather)).collect()
    }

    /// When one message of a connection arrives; `None` when the connection breaks. What a connection loses it
    /// sends again, so that it breaks far more rarely than a message is lost.
    pub fn delay_in_order(&self, from: Place, to: Place) -> Option<Time> {
        if from == to {
            return Some(self.sim.between(5, 50));
        }
        let weather = *self.weather.borrow();
        if self.is_cut(from, to) || self.sim.chance(weather.loss / 20.0) {
            return None;
        }
        let again = if self.sim.chance(weather.loss) { 200 * MS } else { 0 };
        Some(self.delay(weather) + again)
    }

    fn delay(&self, weather: Weather) -> Time {
        if self.sim.chance(weather.slow) {
            self.sim.between(MS, weather.slowest.max(2 * MS))
        } else {
            self.sim.between(100, 2 * MS)
        }
    }
}
