//! Who uses the cluster: clients of the bare store, and people with kubectl.

pub mod people;
pub mod registers;
