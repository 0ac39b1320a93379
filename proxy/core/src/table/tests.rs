use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The kernel's side: holds every change to the rules that netlink would hold it to.
#[derive(Default)]
struct Kernel {
    chains: BTreeSet<Chain>,
    frontends: BTreeMap<Frontend, Chain>,
    backends: BTreeMap<(Frontend, u32), Backend>,
    hairpins: BTreeSet<Ipv4Addr>,
}

impl Kernel {
    fn apply(&mut self, transaction: &Transaction) {
        for change in &transaction.changes {
            let accepted = match *change {
                Change::AddChain(chain) => self.chains.insert(chain),
                Change::RemoveChain(chain) => {
                    !self.frontends.values().any(|used| *used == chain) && self.chains.remove(&chain)
                }
                Change::AddFrontend(frontend, chain) => {
                    self.chains.contains(&chain) && self.frontends.insert(frontend, chain).is_none()
                }
                Change::RemoveFrontend(frontend, chain) => self.frontends.remove(&frontend) == Some(chain),
                Change::AddBackend(frontend, index, backend) => {
                    self.backends.insert((frontend, index), backend).is_none()
                }
                Change::RemoveBackend(frontend, index, backend) => {
                    self.backends.remove(&(frontend, index)) == Some(backend)
                }
                Change::AddHairpin(address) => self.hairpins.insert(address),
                Change::RemoveHairpin(address) => self.hairpins.remove(&address),
            };
            assert!(accepted, "the kernel refuses {change:?}");
        }
    }

    fn check(&self, services: &BTreeMap<String, ServiceRules>) {
        let pools: BTreeMap<Frontend, &Pool> =
            services.values().flatten().map(|(frontend, pool)| (*frontend, pool)).collect();
        let mut addresses = BTreeSet::new();
        for (frontend, pool) in &pools {
            assert_eq!(self.frontends.get(frontend), chain_of(pool).as_ref());
            let reached: BTreeSet<Backend> =
                (0..pool.backends.len() as u32).map(|index| self.backends[&(*frontend, index)]).collect();
            assert_eq!(reached, pool.backends.iter().copied().collect());
            addresses.extend(pool.backends.iter().map(|backend| backend.address));
        }
        assert_eq!(self.backends.len(), pools.values().map(|pool| pool.backends.len()).sum::<usize>());
        let led = pools.values().filter(|pool| !pool.backends.is_empty()).count();
        assert_eq!(self.frontends.len(), led);
        assert_eq!(self.chains, pools.values().filter_map(|pool| chain_of(pool)).collect());
        assert_eq!(self.hairpins, addresses);
    }
}

fn backend(last: u8) -> Backend {
    Backend { address: Ipv4Addr::new(10, 244, 0, last), port: 8080 }
}

fn frontend(service: u8, protocol: Protocol) -> Frontend {
    Frontend { address: Ipv4Addr::new(10, 96, 0, service), protocol, port: 80 }
}

fn rules(service: u8, protocol: Protocol, backends: &[u8]) -> ServiceRules {
    let backends = backends.iter().copied().map(backend).collect();
    BTreeMap::from([(
        frontend(service, protocol),
        Pool { backends, selection: Selection::Random, masquerade: false },
    )])
}

proptest! {
    #[test]
    fn the_kernel_follows_any_history(
        history in prop::collection::vec((0u8..4, prop::collection::btree_set(1u8..9, 0..6), any::<bool>(), any::<bool>()), 1..40)
    ) {
        let (mut table, mut kernel, mut services) = (Table::default(), Kernel::default(), BTreeMap::new());
        for (service, backends, masquerade, removed) in history {
            let key = format!("default/{service}");
            let mut wanted = rules(service, Protocol::Tcp, &backends.into_iter().collect::<Vec<_>>());
            wanted.values_mut().for_each(|pool| pool.masquerade = masquerade);
            if removed {
                wanted.clear();
            }
            kernel.apply(&table.set(&key, wanted.clone()));
            prop_assert_eq!(table.set(&key, wanted.clone()), Transaction::default());
            services.insert(key, wanted);
            kernel.check(&services);
            let mut rebuilt = Kernel::default();
            rebuilt.apply(&table.rebuild());
            rebuilt.check(&services);
        }
    }
}

#[test]
fn a_new_backend_moves_no_other() {
    let mut table = Table::default();
    table.set("default/web", rules(1, Protocol::Tcp, &[5, 6]));
    let transaction = table.set("default/web", rules(1, Protocol::Tcp, &[4, 5, 6]));
    let moved: Vec<&Change> = transaction
        .changes
        .iter()
        .filter(|change| matches!(change, Change::AddBackend(..) | Change::RemoveBackend(..)))
        .collect();
    assert_eq!(moved, [&Change::AddBackend(frontend(1, Protocol::Tcp), 2, backend(4))]);
}

#[test]
fn a_removed_udp_backend_leaves_no_flow() {
    let mut table = Table::default();
    let first = table.set("default/dns", rules(1, Protocol::Udp, &[5, 6]));
    let udp = frontend(1, Protocol::Udp);
    assert_eq!(first.stale, [StaleFlow { frontend: udp, backend: None }]);
    let second = table.set("default/dns", rules(1, Protocol::Udp, &[6]));
    assert_eq!(second.stale, [StaleFlow { frontend: udp, backend: Some(backend(5)) }]);
    let tcp = table.set("default/web", rules(2, Protocol::Tcp, &[5]));
    assert!(tcp.stale.is_empty());
}
