//! The orlop binary: server roles and kubectl-style verbs.

fn main() {}
