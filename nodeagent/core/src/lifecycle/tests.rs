//! The machine in scripted situations and under random orders of events.
