//! Reconciles workloads.
