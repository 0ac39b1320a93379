//! Lets a network of this machine reach the world from where no proxy runs: its packets leave with the machine's address.

use crate::netlink::{Error, Socket};
use crate::nftables::Network;
use crate::rules;

/// Masquerades what leaves `inside`, in the network namespace of the calling thread, until [`remove`].
///
/// # Errors
/// When the kernel refuses.
pub fn install(inside: Network) -> Result<(), Error> {
    rules::install_egress(&Socket::open()?, inside)
}

/// Removes what [`install`] made; nothing there is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn remove() -> Result<(), Error> {
    rules::remove(&Socket::open()?)
}
