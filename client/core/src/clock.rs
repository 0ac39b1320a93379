//! The two kinds of time that cores are given: a monotonic moment for delays, a wall-clock timestamp for what is written into objects.

/// Monotonic time since an origin of the host's choice. It never goes back, and means nothing outside its process.
pub type Moment = std::time::Duration;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For delays and time-outs.
    pub moment: Moment,
    /// For what is written into objects.
    pub wall: jiff::Timestamp,
}
