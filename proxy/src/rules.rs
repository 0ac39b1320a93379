//! Puts the service rules into nf_tables: the fixed chains once, then one transaction a change.
//!
//! `frontends` maps address, protocol and port to the chain of the pool's size; that chain picks a number and `backends`
//! maps address, protocol, port and number to where the connection goes.

use std::net::Ipv4Addr;

use proxy_core::services::{Backend, Frontend, Selection};
use proxy_core::table::{Chain, Change};

use crate::netlink::{Error, Socket};
use crate::nftables::{Element, Expression, Hook, Leads, Network, REGISTER, Transaction, VERDICT, Value};

const TABLE: &str = "orlop";
const FRONTENDS: &str = "frontends";
const BACKENDS: &str = "backends";
const HAIRPINS: &str = "hairpins";
/// Marks connections whose source becomes the node's address.
const MASQUERADE_MARK: u32 = 0x4000;
const RTN_LOCAL: u32 = 2;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const ADDRESS_BYTES: u32 = 4;
/// Priorities of the kernel's own hooks (`NF_IP_PRI_*`).
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

/// What the fixed chains need to know of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Networks {
    /// Addresses of all pods.
    pub pods: Network,
    /// Addresses of all services.
    pub services: Network,
    /// Address of the cluster's DNS, answered on the node itself.
    pub dns: Ipv4Addr,
}

/// Makes the table anew, with fixed chains and empty maps.
pub fn install(socket: &Socket, networks: &Networks) -> Result<(), Error> {
    let mut transaction = Transaction::new(TABLE);
    transaction.add_table();
    transaction.delete_table();
    transaction.add_table();
    transaction.add_set(FRONTENDS, 12, Leads::Verdict);
    transaction.add_set(BACKENDS, 16, Leads::Data(8));
    transaction.add_set(HAIRPINS, 8, Leads::Nowhere);
    transaction.add_chain("services", None);
    add_services(&mut transaction);
    for (name, number) in [("prerouting", 0), ("output", 3)] {
        transaction.add_chain(name, Some(Hook { kind: "nat", number, priority: PRIORITY_DNAT }));
        transaction.add_rule(name, &[Expression::Jump("services")]);
    }
    transaction.add_chain("postrouting", Some(Hook { kind: "nat", number: 4, priority: PRIORITY_SNAT }));
    add_masquerade(&mut transaction, networks);
    for (name, number) in [("forward-refused", 2), ("output-refused", 3)] {
        transaction.add_chain(name, Some(Hook { kind: "filter", number, priority: PRIORITY_FILTER }));
        add_refusal(&mut transaction, name, networks);
    }
    transaction.commit(socket)
}

/// Removes the table of the service rules.
pub fn remove(socket: &Socket) -> Result<(), Error> {
    remove_table(socket, TABLE)
}

/// Removes a table; one that is not there is no error.
pub fn remove_table(socket: &Socket, table: &str) -> Result<(), Error> {
    let mut transaction = Transaction::new(table);
    transaction.add_table();
    transaction.commit_removal(socket)
}

/// Applies changes in their order, all or none.
pub fn apply(socket: &Socket, changes: &[Change]) -> Result<(), Error> {
    let mut transaction = Transaction::new(TABLE);
    // Runs of the same kind go into one message.
    for run in changes.chunk_by(|one, next| std::mem::discriminant(one) == std::mem::discriminant(next)) {
        apply_run(&mut transaction, run);
    }
    transaction.commit(socket)
}

/// Makes the table `table` that only masquerades what leaves `inside`.
pub fn install_egress(socket: &Socket, table: &str, inside: Network) -> Result<(), Error> {
    let mut transaction = Transaction::new(table);
    transaction.add_table();
    transaction.delete_table();
    transaction.add_table();
    transaction.add_chain("postrouting", Some(Hook { kind: "nat", number: 4, priority: PRIORITY_SNAT }));
    add_egress(&mut transaction, inside);
    transaction.commit(socket)
}

fn add_services(transaction: &mut Transaction) {
    let lookup = Expression::Lookup { set: FRONTENDS, key: REGISTER, into: Some(VERDICT) };
    let mut by_address = vec![destination(REGISTER)];
    by_address.extend(protocol_and_port());
    by_address.push(lookup.clone());
    transaction.add_rule("services", &by_address);
    let mut by_node_port = vec![
        Expression::DestinationKind { register: REGISTER },
        Expression::Equal { register: REGISTER, value: RTN_LOCAL.to_ne_bytes().to_vec() },
        Expression::Constant { register: REGISTER, value: vec![0; 4] },
    ];
    by_node_port.extend(protocol_and_port());
    by_node_port.push(lookup);
    transaction.add_rule("services", &by_node_port);
}

fn add_masquerade(transaction: &mut Transaction, networks: &Networks) {
    let hairpin = [
        source(REGISTER),
        destination(REGISTER + 1),
        Expression::Lookup { set: HAIRPINS, key: REGISTER, into: None },
        Expression::Masquerade,
    ];
    transaction.add_rule("postrouting", &hairpin);
    let mark = MASQUERADE_MARK.to_ne_bytes();
    let marked = [
        Expression::LoadMark { register: REGISTER },
        Expression::Bitwise { register: REGISTER, mask: mark, xor: [0; 4] },
        Expression::Equal { register: REGISTER, value: mark.to_vec() },
        Expression::Masquerade,
    ];
    transaction.add_rule("postrouting", &marked);
    add_egress(transaction, networks.pods);
}

fn add_egress(transaction: &mut Transaction, inside: Network) {
    let mut egress = inside.matches(REGISTER, SOURCE, true).to_vec();
    egress.extend(inside.matches(REGISTER, DESTINATION, false));
    egress.push(Expression::Masquerade);
    transaction.add_rule("postrouting", &egress);
}

/// What still goes to a service address when it is routed found no backend: refused at once instead of timing out.
fn add_refusal(transaction: &mut Transaction, chain: &'static str, networks: &Networks) {
    let dns = networks.dns.octets().to_vec();
    let local =
        [destination(REGISTER), Expression::Equal { register: REGISTER, value: dns }, Expression::Accept];
    transaction.add_rule(chain, &local);
    let service = networks.services.matches(REGISTER, DESTINATION, true);
    let tcp = [
        Expression::Protocol { register: REGISTER },
        Expression::Equal { register: REGISTER, value: vec![6] },
        Expression::RejectTcp,
    ];
    transaction.add_rule(chain, &[service.as_slice(), tcp.as_slice()].concat());
    transaction.add_rule(chain, &[service.as_slice(), &[Expression::RejectIcmp]].concat());
}

fn destination(register: u32) -> Expression {
    Expression::NetworkHeader { register, offset: DESTINATION, length: ADDRESS_BYTES }
}

fn source(register: u32) -> Expression {
    Expression::NetworkHeader { register, offset: SOURCE, length: ADDRESS_BYTES }
}

fn protocol_and_port() -> [Expression; 2] {
    [
        Expression::Protocol { register: REGISTER + 1 },
        Expression::TransportHeader { register: REGISTER + 2, offset: 2, length: 2 },
    ]
}

/// A chain serves service addresses; its twin serves node ports, whose key has no address.
fn chain_names(chain: &Chain) -> [(String, bool); 2] {
    let selection = match chain.selection {
        Selection::Random => "random",
        Selection::ClientHash => "client",
    };
    let masquerade = if chain.masquerade { "-masquerade" } else { "" };
    let name = format!("{selection}-{}{masquerade}", chain.size);
    [(name.clone(), false), (format!("{name}-node"), true)]
}

fn chain_name(chain: &Chain, frontend: &Frontend) -> String {
    let [(service, _), (node, _)] = chain_names(chain);
    if frontend.address.is_unspecified() { node } else { service }
}

fn add_picking_chain(transaction: &mut Transaction, chain: &Chain) {
    for (name, node_port) in chain_names(chain) {
        transaction.add_chain(&name, None);
        if chain.masquerade {
            let mark = MASQUERADE_MARK.to_ne_bytes();
            let mask = (!MASQUERADE_MARK).to_ne_bytes();
            let set_mark = [
                Expression::LoadMark { register: REGISTER },
                Expression::Bitwise { register: REGISTER, mask, xor: mark },
                Expression::StoreMark { register: REGISTER },
            ];
            transaction.add_rule(&name, &set_mark);
        }
        let address = match node_port {
            true => Expression::Constant { register: REGISTER, value: vec![0; 4] },
            false => destination(REGISTER),
        };
        let mut pick = vec![address];
        pick.extend(protocol_and_port());
        match chain.selection {
            Selection::Random => {
                pick.push(Expression::Random { register: REGISTER + 3, modulus: chain.size })
            }
            Selection::ClientHash => {
                pick.push(source(REGISTER + 4));
                pick.push(Expression::Hash {
                    from: REGISTER + 4,
                    register: REGISTER + 3,
                    modulus: chain.size,
                });
            }
        }
        pick.push(Expression::Lookup { set: BACKENDS, key: REGISTER, into: Some(REGISTER) });
        pick.push(Expression::DestinationNat { address: REGISTER, port: REGISTER + 1 });
        transaction.add_rule(&name, &pick);
    }
}

/// `run` holds changes of one kind.
fn apply_run(transaction: &mut Transaction, run: &[Change]) {
    let elements = |of: fn(&Change) -> Option<Element>| run.iter().filter_map(of);
    match run.first() {
        None => {}
        Some(Change::AddChain(_)) => run.iter().for_each(|change| {
            if let Change::AddChain(chain) = change {
                add_picking_chain(transaction, chain);
            }
        }),
        Some(Change::RemoveChain(_)) => run.iter().for_each(|change| {
            if let Change::RemoveChain(chain) = change {
                chain_names(chain).iter().for_each(|(name, _)| transaction.delete_chain(name));
            }
        }),
        Some(Change::AddFrontend(..)) => transaction.add_elements(FRONTENDS, elements(frontend_element)),
        Some(Change::RemoveFrontend(..)) => {
            transaction.delete_elements(FRONTENDS, elements(frontend_element))
        }
        Some(Change::AddBackend(..)) => transaction.add_elements(BACKENDS, elements(backend_element)),
        Some(Change::RemoveBackend(..)) => transaction.delete_elements(BACKENDS, elements(backend_element)),
        Some(Change::AddHairpin(_)) => transaction.add_elements(HAIRPINS, elements(hairpin_element)),
        Some(Change::RemoveHairpin(_)) => transaction.delete_elements(HAIRPINS, elements(hairpin_element)),
    }
}

fn frontend_element(change: &Change) -> Option<Element> {
    match change {
        Change::AddFrontend(frontend, chain) | Change::RemoveFrontend(frontend, chain) => {
            Some((frontend_key(frontend), Value::Goto(chain_name(chain, frontend))))
        }
        _ => None,
    }
}

fn backend_element(change: &Change) -> Option<Element> {
    match change {
        Change::AddBackend(frontend, number, backend) | Change::RemoveBackend(frontend, number, backend) => {
            let mut key = frontend_key(frontend);
            key.extend_from_slice(&number.to_ne_bytes());
            Some((key, Value::Data(backend_value(backend))))
        }
        _ => None,
    }
}

fn hairpin_element(change: &Change) -> Option<Element> {
    match change {
        Change::AddHairpin(address) | Change::RemoveHairpin(address) => {
            Some((address.octets().repeat(2), Value::Nothing))
        }
        _ => None,
    }
}

/// Each part fills a register of 4 bytes.
fn frontend_key(frontend: &Frontend) -> Vec<u8> {
    let mut key = frontend.address.octets().to_vec();
    key.extend_from_slice(&[frontend.protocol.number(), 0, 0, 0]);
    key.extend_from_slice(&frontend.port.to_be_bytes());
    key.extend_from_slice(&[0; 2]);
    key
}

fn backend_value(backend: &Backend) -> Vec<u8> {
    let mut value = backend.address.octets().to_vec();
    value.extend_from_slice(&backend.port.to_be_bytes());
    value.extend_from_slice(&[0; 2]);
    value
}
