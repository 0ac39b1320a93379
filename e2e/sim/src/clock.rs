//! What a process believes of the time: its wall clock may be wrong and jump, its monotonic clock may be slow or fast.

use std::cell::Cell;
use std::time::Duration;

use client_core::clock::Now;
use jiff::Timestamp;

use crate::kernel::Sim;

/// The true wall time at the start of every run, in milliseconds of the Unix epoch.
const BEGIN_MS: i64 = 1_800_000_000_000;

/// The clocks of one process.
pub struct Clock {
    sim: Sim,
    offset_ms: Cell<i64>,
    /// By how many millionths the monotonic clock is fast.
    drift: Cell<i64>,
}

// === impl Clock ===

impl Clock {
    /// A clock that is right.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), offset_ms: Cell::new(0), drift: Cell::new(0) }
    }

    /// Sets the wall clock off by so much; what it showed before does not matter.
    pub fn jump(&self, offset_ms: i64) {
        self.offset_ms.set(offset_ms);
    }

    /// Sets how fast the monotonic clock is, in millionths.
    pub fn drift(&self, millionths: i64) {
        self.drift.set(millionths);
    }

    /// The wall clock, in milliseconds of the Unix epoch.
    pub fn wall_ms(&self) -> i64 {
        BEGIN_MS + (self.sim.now() / 1000).cast_signed() + self.offset_ms.get()
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        Timestamp::from_millisecond(self.wall_ms()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let elapsed = self.sim.now();
        let wrong = (elapsed.cast_signed() / 1_000_000) * self.drift.get();
        Now { moment: Duration::from_micros(elapsed.saturating_add_signed(wrong)), wall: self.wall() }
    }
}
