//! What the kernel was told of service rules, and the changes that bring it to a new state.
//!
//! The rules are a few global maps, not a chain a service: a frontend leads to the chain of its pool's size, which picks a
//! number below that size and looks the backend up by frontend and number. A change of one service touches its own
//! elements only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::services::{Backend, Frontend, Pool, Protocol, Selection, ServiceRules};

/// A chain that picks one of `size` backends. Made when the first frontend needs it, removed with the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// How it picks.
    pub selection: Selection,
    /// How many backends it picks from; at least 1.
    pub size: u32,
    /// Whether the connection is marked for masquerade.
    pub masquerade: bool,
}

/// One change of the kernel's tables. The order within one transaction is the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make a chain. Comes before any frontend that leads to it.
    AddChain(Chain),
    /// Add what frontend and number lead to.
    AddBackend(Frontend, u32, Backend),
    /// Remove what frontend and number lead to.
    RemoveBackend(Frontend, u32, Backend),
    /// Lead a frontend to a chain.
    AddFrontend(Frontend, Chain),
    /// Stop leading a frontend to a chain.
    RemoveFrontend(Frontend, Chain),
    /// A pod at this address may be its own client: then its connection is masqueraded.
    AddHairpin(Ipv4Addr),
    /// No backend has this address any more.
    RemoveHairpin(Ipv4Addr),
    /// Remove a chain that no frontend leads to. Comes after their removal.
    RemoveChain(Chain),
}

/// A connection-less flow whose backend is gone: its tracking entry must be forgotten, or packets still go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaleFlow {
    /// Where the client sends to.
    pub frontend: Frontend,
    /// Where packets went; `None` when none was there before and packets passed untranslated.
    pub backend: Option<Backend>,
}

/// One transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// To be applied together or not at all.
    pub changes: Vec<Change>,
    /// To be flushed after the changes were applied.
    pub stale: Vec<StaleFlow>,
}

/// What the kernel was told.
#[derive(Clone, Debug, Default)]
pub struct Table {
    services: BTreeMap<String, ServiceRules>,
    chains: BTreeMap<Chain, usize>,
    hairpins: BTreeMap<Ipv4Addr, usize>,
}

impl Table {
    /// Sets the rules of the service `key` (an empty map removes it) and returns what changes. The caller applies the
    /// transaction before it asks for the next.
    ///
    /// Two services cannot share a frontend: the API server gives each address and port once.
    pub fn set(&mut self, key: &str, rules: ServiceRules) -> Transaction {
        let before = self.services.remove(key).unwrap_or_default();
        let mut rules = rules;
        for (frontend, pool) in &mut rules {
            let old = before.get(frontend).map(|pool| pool.backends.as_slice()).unwrap_or_default();
            pool.backends = place(old, &pool.backends);
        }
        let mut steps = Steps::default();
        let frontends: BTreeSet<Frontend> = before.keys().chain(rules.keys()).copied().collect();
        for frontend in frontends {
            let (old, new) = (before.get(&frontend), rules.get(&frontend));
            if old != new {
                self.change_frontend(frontend, old, new, &mut steps);
            }
        }
        if !rules.is_empty() {
            self.services.insert(key.to_owned(), rules);
        }
        steps.in_order()
    }

    /// Everything, as one transaction on an empty table: for a kernel that lost its rules.
    pub fn rebuild(&self) -> Transaction {
        let mut fresh = Table::default();
        let mut all = Transaction::default();
        for (key, rules) in &self.services {
            all.changes.extend(fresh.set(key, rules.clone()).changes);
        }
        all
    }

    fn change_frontend(
        &mut self,
        frontend: Frontend,
        old: Option<&Pool>,
        new: Option<&Pool>,
        steps: &mut Steps,
    ) {
        let old_chain = old.and_then(chain_of);
        let new_chain = new.and_then(chain_of);
        let backends = |pool: Option<&Pool>| pool.map(|pool| pool.backends.clone()).unwrap_or_default();
        let (old_backends, new_backends) = (backends(old), backends(new));
        for (index, backend) in old_backends.iter().enumerate() {
            if new_backends.get(index) != Some(backend) {
                steps.remove.push(Change::RemoveBackend(frontend, index as u32, *backend));
            }
        }
        for (index, backend) in new_backends.iter().enumerate() {
            if old_backends.get(index) != Some(backend) {
                steps.add.push(Change::AddBackend(frontend, index as u32, *backend));
            }
        }
        if old_chain != new_chain {
            if let Some(chain) = old_chain {
                steps.remove.push(Change::RemoveFrontend(frontend, chain));
            }
            if let Some(chain) = new_chain {
                steps.lead.push(Change::AddFrontend(frontend, chain));
            }
            self.count_chain(new_chain, old_chain, steps);
        }
        new_backends.iter().for_each(|backend| self.count_hairpin(backend.address, true, steps));
        old_backends.iter().for_each(|backend| self.count_hairpin(backend.address, false, steps));
        steps.note_stale(frontend, &old_backends, &new_backends);
    }

    fn count_chain(&mut self, added: Option<Chain>, removed: Option<Chain>, steps: &mut Steps) {
        if let Some(chain) = added {
            let users = self.chains.entry(chain).or_default();
            *users += 1;
            if *users == 1 {
                steps.chains.push(Change::AddChain(chain));
            }
        }
        if let Some(chain) = removed
            && let Some(users) = self.chains.get_mut(&chain)
        {
            *users -= 1;
            if *users == 0 {
                self.chains.remove(&chain);
                steps.last.push(Change::RemoveChain(chain));
            }
        }
    }

    fn count_hairpin(&mut self, address: Ipv4Addr, added: bool, steps: &mut Steps) {
        let users = self.hairpins.entry(address).or_default();
        if added {
            *users += 1;
            if *users == 1 {
                steps.add.push(Change::AddHairpin(address));
            }
        } else {
            *users -= 1;
            if *users == 0 {
                self.hairpins.remove(&address);
                steps.last.push(Change::RemoveHairpin(address));
            }
        }
    }
}

/// The changes of one transaction by the phase in which they may happen.
#[derive(Default)]
struct Steps {
    chains: Vec<Change>,
    remove: Vec<Change>,
    add: Vec<Change>,
    lead: Vec<Change>,
    last: Vec<Change>,
    stale: Vec<StaleFlow>,
}

impl Steps {
    fn note_stale(&mut self, frontend: Frontend, old: &[Backend], new: &[Backend]) {
        if frontend.protocol != Protocol::Udp {
            return;
        }
        let gone = old.iter().filter(|backend| !new.contains(backend));
        self.stale.extend(gone.map(|backend| StaleFlow { frontend, backend: Some(*backend) }));
        if old.is_empty() && !new.is_empty() {
            self.stale.push(StaleFlow { frontend, backend: None });
        }
    }

    fn in_order(mut self) -> Transaction {
        // A chain that lost its last frontend and gained one in the same step was counted up before it was counted down,
        // so no chain is both added and removed here.
        let mut changes = self.chains;
        changes.append(&mut self.remove);
        changes.append(&mut self.add);
        changes.append(&mut self.lead);
        changes.append(&mut self.last);
        Transaction { changes, stale: self.stale }
    }
}

fn chain_of(pool: &Pool) -> Option<Chain> {
    let size = u32::try_from(pool.backends.len()).ok().filter(|size| *size > 0)?;
    Some(Chain { selection: pool.selection, size, masquerade: pool.masquerade })
}

/// Gives the new backends numbers such that those that stay keep theirs where they can.
fn place(old: &[Backend], new: &[Backend]) -> Vec<Backend> {
    let wanted: BTreeSet<Backend> = new.iter().copied().collect();
    let mut slots: Vec<Option<Backend>> = (0..wanted.len())
        .map(|index| old.get(index).copied().filter(|backend| wanted.contains(backend)))
        .collect();
    let kept: BTreeSet<Backend> = slots.iter().flatten().copied().collect();
    let mut others = wanted.difference(&kept).copied();
    for slot in &mut slots {
        if slot.is_none() {
            *slot = others.next();
        }
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
