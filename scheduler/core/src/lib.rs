//! Decides which node a pod runs on: the state of the cluster, filters, scores, and the queue of pods that wait.
//!
//! The state is kept incrementally: what depends only on a node and on the shape of a pod is remembered per shape, and the pods that a
//! selector counts are counted per node as they come and go. A decision is then one pass over the nodes with no allocation per node.

pub mod binding;
pub mod cluster;
pub mod node;
pub mod pod;
pub mod queue;
pub mod report;
pub mod resources;
pub mod selector;

mod affinity;
mod schedule;
mod score;
mod shapes;
mod spread;
mod verdict;

pub use self::cluster::{Cluster, NodeChange};
pub use self::pod::PodInfo;
pub use self::queue::Queue;
pub use self::report::{Causes, Reason, Report};
pub use self::schedule::Decision;
