//! nf_tables objects as netlink messages: tables, chains, sets, elements, rules and the expressions in them.
//!
//! Numbers are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h`.

use std::net::Ipv4Addr;

use crate::netlink::{Attributes, Batch, Error, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, Socket};

const SUBSYSTEM: u16 = 10;
const FAMILY_IPV4: u8 = 2;
const FAMILY_NONE: u8 = 0;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_JUMP: i32 = -3;
const VERDICT_GOTO: i32 = -4;
const SET_MAP: u32 = 8;
const TYPE_VERDICT: u32 = 0xffff_ff00;
/// An attribute's length has 16 bits; elements are sent in portions below that.
const PORTION_BYTES_MAX: usize = 32 << 10;

/// The verdict register.
pub const VERDICT: u32 = 0;
/// The first of the 4-byte registers; a key of several parts lies in consecutive ones.
pub const REGISTER: u32 = 8;

/// Where a base chain hooks into the kernel's path.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub number: u32,
    /// Lower runs earlier.
    pub priority: i32,
}

/// What a map leads to.
#[derive(Clone, Copy, Debug)]
pub enum Leads {
    /// It is a set.
    Nowhere,
    /// To a chain.
    Verdict,
    /// To so many bytes.
    Data(u32),
}

/// The value of an element.
#[derive(Clone, Debug)]
pub enum Value {
    /// Of a set: none.
    Nothing,
    /// `goto` a chain.
    Goto(String),
    /// Bytes.
    Data(Vec<u8>),
}

/// Key and value.
pub type Element = (Vec<u8>, Value);

/// One step of a rule.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Load bytes of the network header.
    NetworkHeader { register: u32, offset: u32, length: u32 },
    /// Load bytes of the transport header.
    TransportHeader { register: u32, offset: u32, length: u32 },
    /// Load the transport protocol's number.
    Protocol { register: u32 },
    /// Load the packet's mark.
    LoadMark { register: u32 },
    /// Set the packet's mark.
    StoreMark { register: u32 },
    /// Continue only if equal.
    Equal { register: u32, value: Vec<u8> },
    /// Continue only if different.
    Different { register: u32, value: Vec<u8> },
    /// `register = (register & mask) ^ xor`.
    Bitwise { register: u32, mask: [u8; 4], xor: [u8; 4] },
    /// Put a constant into a register.
    Constant { register: u32, value: Vec<u8> },
    /// Load the kind of the destination address (`RTN_*`).
    DestinationKind { register: u32 },
    /// A random number below `modulus`.
    Random { register: u32, modulus: u32 },
    /// A hash of 4 bytes below `modulus`.
    Hash { from: u32, register: u32, modulus: u32 },
    /// Continue only if the set has the key; a map puts its value into `into`.
    Lookup { set: &'static str, key: u32, into: Option<u32> },
    /// Translate the destination to the address and port in two registers.
    DestinationNat { address: u32, port: u32 },
    /// Translate the source to the address of the outgoing interface.
    Masquerade,
    /// Answer with a TCP reset.
    RejectTcp,
    /// Answer with ICMP port unreachable.
    RejectIcmp,
    /// Continue in a chain and come back.
    Jump(&'static str),
    /// Let it pass this hook.
    Accept,
}

/// Changes of one table, applied together or not at all.
pub struct Transaction {
    batch: Batch,
    table: String,
}

impl Transaction {
    /// Starts a transaction on a table of the IPv4 family.
    pub fn new(table: &str) -> Transaction {
        let mut batch = Batch::default();
        batch.message(
            BATCH_BEGIN,
            0,
            FAMILY_NONE,
            SUBSYSTEM,
            &Attributes::default(),
            "the start of a batch".to_owned(),
        );
        Transaction { batch, table: table.to_owned() }
    }

    /// Makes the table if it is not there.
    pub fn add_table(&mut self) {
        let attributes = Attributes::default().text(1, &self.table);
        self.message(NEW_TABLE, NLM_F_CREATE, &attributes, format!("table {}", self.table));
    }

    /// Removes the table with all that is in it.
    pub fn delete_table(&mut self) {
        let attributes = Attributes::default().text(1, &self.table);
        self.message(DELETE_TABLE, 0, &attributes, format!("removal of table {}", self.table));
    }

    /// Makes a chain; with a hook, a base chain.
    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut attributes = Attributes::default().text(1, &self.table).text(3, name);
        if let Some(hook) = hook {
            let place = Attributes::default().number(1, hook.number).number(2, hook.priority as u32);
            attributes = attributes.nested(4, place).text(7, hook.kind);
        }
        self.message(NEW_CHAIN, NLM_F_CREATE, &attributes, format!("chain {name}"));
    }

    /// Removes a chain with its rules.
    pub fn delete_chain(&mut self, name: &str) {
        let attributes = Attributes::default().text(1, &self.table).text(3, name);
        self.message(DELETE_CHAIN, 0, &attributes, format!("removal of chain {name}"));
    }

    /// Makes a set or a map with keys of `key_bytes`.
    pub fn add_set(&mut self, name: &str, key_bytes: u32, leads: Leads) {
        // The kernel does not look into these types; nft shows them.
        const TYPE_OPAQUE: u32 = 0;
        let mut attributes = Attributes::default().text(1, &self.table).text(2, name);
        attributes = match leads {
            Leads::Nowhere => attributes.number(3, 0),
            Leads::Verdict => attributes.number(3, SET_MAP).number(6, TYPE_VERDICT),
            Leads::Data(bytes) => attributes.number(3, SET_MAP).number(6, TYPE_OPAQUE).number(7, bytes),
        };
        attributes = attributes.number(4, TYPE_OPAQUE).number(5, key_bytes);
        // The kernel wants an identity within the batch.
        attributes = attributes.number(10, self.batch.count() as u32);
        self.message(NEW_SET, NLM_F_CREATE, &attributes, format!("set {name}"));
    }

    /// Adds elements to a set or map.
    pub fn add_elements(&mut self, set: &str, elements: impl Iterator<Item = Element>) {
        self.elements(NEW_ELEMENTS, NLM_F_CREATE, set, elements);
    }

    /// Removes elements from a set or map.
    pub fn delete_elements(&mut self, set: &str, elements: impl Iterator<Item = Element>) {
        self.elements(DELETE_ELEMENTS, 0, set, elements);
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expression]) {
        let mut list = Attributes::default();
        for expression in expressions {
            let (name, data) = encode(expression);
            let mut element = Attributes::default().text(1, name);
            if let Some(data) = data {
                element = element.nested(2, data);
            }
            list = list.nested(LIST_ELEMENT, element);
        }
        let attributes = Attributes::default().text(1, &self.table).text(2, chain).nested(4, list);
        self.message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &attributes, format!("a rule of chain {chain}"));
    }

    /// Sends the transaction.
    pub fn commit(mut self, socket: &Socket) -> Result<(), Error> {
        // Reading the generation changes nothing and carries the only acknowledgement: it comes when all is applied.
        let last = self.batch.count();
        let attributes = Attributes::default().text(1, &self.table);
        self.message(NEW_TABLE, NLM_F_CREATE | NLM_F_ACK, &attributes, "the end of a batch".to_owned());
        self.batch.message(
            BATCH_END,
            0,
            FAMILY_NONE,
            SUBSYSTEM,
            &Attributes::default(),
            "the end of a batch".to_owned(),
        );
        socket.send(&self.batch, last)
    }

    /// Sends a transaction that ends with the table gone; as [`Transaction::commit`], which would leave it there empty.
    pub fn commit_removal(mut self, socket: &Socket) -> Result<(), Error> {
        let last = self.batch.count();
        let attributes = Attributes::default().text(1, &self.table);
        self.message(DELETE_TABLE, NLM_F_ACK, &attributes, format!("removal of table {}", self.table));
        self.batch.message(
            BATCH_END,
            0,
            FAMILY_NONE,
            SUBSYSTEM,
            &Attributes::default(),
            "the end of a batch".to_owned(),
        );
        socket.send(&self.batch, last)
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: &Attributes, what: String) {
        self.batch.message(SUBSYSTEM << 8 | kind, flags, FAMILY_IPV4, 0, attributes, what);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: impl Iterator<Item = Element>) {
        let mut portion = Attributes::default();
        for (key, value) in elements {
            let element = Attributes::default().nested(1, Attributes::default().bytes(DATA_VALUE, &key));
            let element = match value {
                Value::Nothing => element,
                Value::Data(bytes) => element.nested(2, Attributes::default().bytes(DATA_VALUE, &bytes)),
                Value::Goto(chain) => element.nested(2, verdict(VERDICT_GOTO, Some(&chain))),
            };
            portion = portion.nested(LIST_ELEMENT, element);
            if portion.len() > PORTION_BYTES_MAX {
                self.portion(kind, flags, set, std::mem::take(&mut portion));
            }
        }
        if !portion.is_empty() {
            self.portion(kind, flags, set, portion);
        }
    }

    fn portion(&mut self, kind: u16, flags: u16, set: &str, portion: Attributes) {
        let attributes = Attributes::default().text(1, &self.table).text(2, set).nested(3, portion);
        self.message(kind, flags, &attributes, format!("elements of {set}"));
    }
}

/// Whether there is a table of that name.
pub fn has_table(socket: &Socket, table: &str) -> Result<bool, Error> {
    let mut request = Batch::default();
    let attributes = Attributes::default().text(1, table);
    request.message(
        SUBSYSTEM << 8 | GET_TABLE,
        NLM_F_ACK,
        FAMILY_IPV4,
        0,
        &attributes,
        format!("table {table}"),
    );
    match socket.send(&request, 0) {
        Ok(()) => Ok(true),
        Err(Error::Refused { errno: nix::errno::Errno::ENOENT, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn verdict(code: i32, chain: Option<&str>) -> Attributes {
    let mut inner = Attributes::default().number(1, code as u32);
    if let Some(chain) = chain {
        inner = inner.text(2, chain);
    }
    Attributes::default().nested(DATA_VERDICT, inner)
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(DATA_VALUE, bytes)
}

fn encode(expression: &Expression) -> (&'static str, Option<Attributes>) {
    let attributes = Attributes::default();
    let payload = |register: &u32, base: u32, offset: &u32, length: &u32| {
        Attributes::default().number(1, *register).number(2, base).number(3, *offset).number(4, *length)
    };
    let (name, data) = match expression {
        Expression::NetworkHeader { register, offset, length } => {
            ("payload", payload(register, 1, offset, length))
        }
        Expression::TransportHeader { register, offset, length } => {
            ("payload", payload(register, 2, offset, length))
        }
        Expression::Protocol { register } => ("meta", attributes.number(1, *register).number(2, 16)),
        Expression::LoadMark { register } => ("meta", attributes.number(1, *register).number(2, 3)),
        Expression::StoreMark { register } => ("meta", attributes.number(2, 3).number(3, *register)),
        Expression::Equal { register, value: bytes } => {
            ("cmp", attributes.number(1, *register).number(2, 0).nested(3, value(bytes)))
        }
        Expression::Different { register, value: bytes } => {
            ("cmp", attributes.number(1, *register).number(2, 1).nested(3, value(bytes)))
        }
        Expression::Bitwise { register, mask, xor } => {
            let registers = attributes.number(1, *register).number(2, *register).number(3, 4);
            ("bitwise", registers.nested(4, value(mask)).nested(5, value(xor)))
        }
        Expression::Constant { register, value: bytes } => {
            ("immediate", attributes.number(1, *register).nested(2, value(bytes)))
        }
        Expression::DestinationKind { register } => {
            ("fib", attributes.number(1, *register).number(2, 3).number(3, 2))
        }
        Expression::Random { register, modulus } => {
            ("numgen", attributes.number(1, *register).number(2, *modulus).number(3, 1))
        }
        Expression::Hash { from, register, modulus } => {
            let registers = attributes.number(1, *from).number(2, *register).number(3, 4);
            ("hash", registers.number(4, *modulus).number(7, 0))
        }
        Expression::Lookup { set, key, into } => {
            let lookup = attributes.text(1, set).number(2, *key);
            ("lookup", into.map_or(lookup.clone(), |register| lookup.number(3, register)))
        }
        Expression::DestinationNat { address, port } => {
            let to = attributes.number(1, 1).number(2, u32::from(FAMILY_IPV4));
            ("nat", to.number(3, *address).number(5, *port))
        }
        Expression::Masquerade => return ("masq", None),
        Expression::RejectTcp => ("reject", attributes.number(1, 1).bytes(2, &[0])),
        Expression::RejectIcmp => ("reject", attributes.number(1, 0).bytes(2, &[3])),
        Expression::Jump(chain) => {
            ("immediate", attributes.number(1, VERDICT).nested(2, verdict(VERDICT_JUMP, Some(chain))))
        }
        Expression::Accept => ("immediate", attributes.number(1, VERDICT).nested(2, verdict(1, None))),
    };
    (name, Some(data))
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its address.
    pub address: Ipv4Addr,
    /// Bits of its prefix.
    pub prefix: u8,
}

impl Network {
    /// Its mask as bytes.
    pub fn mask(self) -> [u8; 4] {
        let bits = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
        bits.to_be_bytes()
    }

    /// Steps that continue only if the address at `offset` of the IP header is (not) in the network.
    pub fn matches(self, register: u32, offset: u32, inside: bool) -> [Expression; 3] {
        let value = (u32::from(self.address) & u32::from_be_bytes(self.mask())).to_be_bytes().to_vec();
        let compare = if inside {
            Expression::Equal { register, value }
        } else {
            Expression::Different { register, value }
        };
        [
            Expression::NetworkHeader { register, offset, length: 4 },
            Expression::Bitwise { register, mask: self.mask(), xor: [0; 4] },
            compare,
        ]
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let (address, prefix) =
            text.split_once('/').ok_or_else(|| format!("{text:?} is not ADDRESS/PREFIX"))?;
        let address = address.parse().map_err(|_| format!("{address:?} is not an IPv4 address"))?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= 32)
            .ok_or_else(|| format!("{prefix:?} is not 0 to 32"))?;
        Ok(Network { address, prefix })
    }
}
