//! Lets a network of this machine reach the world from where no proxy runs: its packets leave with the machine's address.

use crate::netlink::{Error, Socket};
use crate::nftables::Network;
use crate::{nftables, rules};

/// Masquerades what leaves `inside`, in the network namespace of the calling thread, until [`remove`]. Several clusters on
/// one machine have several tables: `bridge`, which leads to the network, tells them apart.
///
/// # Errors
/// When the kernel refuses.
pub fn install(bridge: &str, inside: Network) -> Result<(), Error> {
    rules::install_egress(&Socket::open()?, &table(bridge), inside)
}

/// Removes what [`install`] made; nothing there is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(bridge: &str) -> Result<(), Error> {
    rules::remove_table(&Socket::open()?, &table(bridge))
}

/// Whether what [`install`] makes is there.
///
/// # Errors
/// When the kernel refuses.
pub fn is_installed(bridge: &str) -> Result<bool, Error> {
    nftables::has_table(&Socket::open()?, &table(bridge))
}

fn table(bridge: &str) -> String {
    format!("{bridge}-egress")
}
