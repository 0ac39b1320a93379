//! The pure store: Raft machine, multi-version state, log and checkpoint formats.
