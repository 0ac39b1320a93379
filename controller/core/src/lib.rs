//! Plans what workloads need: one planner a controller.
