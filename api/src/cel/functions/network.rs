//! IP addresses and networks.

use std::fmt;
use std::net::IpAddr;

use super::super::value::{Fault, Value};
use super::{Cost, ONE, Opaque, Row, opaque, text};

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    pub(super) prefix: u8,
}

const LETTERS: Cost = Cost::Letters { of: 0, times: 1.0 };

pub(super) const ROWS: &[Row] = &[
    ("ip(string) IP", LETTERS, |a| Ok(Value::Opaque(Opaque::Ip(parse(text(&a[0])?)?)))),
    ("isIP(string) bool", LETTERS, |a| Ok(Value::Bool(parse(text(&a[0])?).is_ok()))),
    ("ip.isCanonical(string) bool", Cost::Letters { of: 0, times: 2.0 }, |a| {
        let text = text(&a[0])?;
        Ok(Value::Bool(parse(text)?.to_string() == text))
    }),
    ("string(IP) string", ONE, |a| Ok(Value::text(address(&a[0])?.to_string()))),
    ("IP.family() int", ONE, |a| Ok(Value::Int(if address(&a[0])?.is_ipv4() { 4 } else { 6 }))),
    ("IP.isUnspecified() bool", ONE, |a| Ok(Value::Bool(address(&a[0])?.is_unspecified()))),
    ("IP.isLoopback() bool", ONE, |a| Ok(Value::Bool(address(&a[0])?.is_loopback()))),
    ("IP.isLinkLocalMulticast() bool", ONE, |a| Ok(Value::Bool(is_link_local_multicast(address(&a[0])?)))),
    ("IP.isLinkLocalUnicast() bool", ONE, |a| Ok(Value::Bool(is_link_local_unicast(address(&a[0])?)))),
    ("IP.isGlobalUnicast() bool", ONE, |a| Ok(Value::Bool(is_global_unicast(address(&a[0])?)))),
    ("cidr(string) CIDR", LETTERS, |a| Ok(Value::Opaque(Opaque::Cidr(Network::parse(text(&a[0])?)?)))),
    ("isCIDR(string) bool", LETTERS, |a| Ok(Value::Bool(Network::parse(text(&a[0])?).is_ok()))),
    ("string(CIDR) string", ONE, |a| Ok(Value::text(network(&a[0])?.to_string()))),
    ("CIDR.ip() IP", ONE, |a| Ok(Value::Opaque(Opaque::Ip(network(&a[0])?.address)))),
    ("CIDR.prefixLength() int", ONE, |a| Ok(Value::Int(network(&a[0])?.prefix.into()))),
    ("CIDR.masked() CIDR", ONE, |a| Ok(Value::Opaque(Opaque::Cidr(network(&a[0])?.masked())))),
    ("CIDR.containsIP(string) bool", Cost::Addresses { times: 2.0, extra: 0 }, |a| {
        Ok(Value::Bool(network(&a[0])?.contains(parse(text(&a[1])?)?)))
    }),
    ("CIDR.containsIP(IP) bool", Cost::Addresses { times: 2.0, extra: 0 }, |a| {
        Ok(Value::Bool(network(&a[0])?.contains(address(&a[1])?)))
    }),
    ("CIDR.containsCIDR(string) bool", Cost::Addresses { times: 3.0, extra: 1 }, |a| {
        Ok(Value::Bool(network(&a[0])?.holds(Network::parse(text(&a[1])?)?)))
    }),
    ("CIDR.containsCIDR(CIDR) bool", Cost::Addresses { times: 3.0, extra: 1 }, |a| {
        Ok(Value::Bool(network(&a[0])?.holds(network(&a[1])?)))
    }),
];

fn address(value: &Value<'_>) -> Result<IpAddr, Fault> {
    match opaque(value)? {
        Opaque::Ip(address) => Ok(*address),
        _ => Err(Fault::NoOverload),
    }
}

fn network(value: &Value<'_>) -> Result<Network, Fault> {
    match opaque(value)? {
        Opaque::Cidr(network) => Ok(*network),
        _ => Err(Fault::NoOverload),
    }
}

fn parse(text: &str) -> Result<IpAddr, Fault> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(Fault::Other(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        Ok(address) => Ok(address),
        Err(_) if text.contains('%') => {
            Err(Fault::Other(format!("IP address {text:?} with zone value is not allowed")))
        }
        Err(_) => {
            let why = format!("ParseAddr({text:?}): unable to parse IP");
            Err(Fault::Other(format!("IP Address {text:?} parse error during conversion from string: {why}")))
        }
    }
}

fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_global_unicast(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(is_broadcast
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || is_link_local_unicast(address))
}

// === impl Network ===

impl Network {
    fn parse(text: &str) -> Result<Network, Fault> {
        let fault = |why: String| {
            Fault::Other(format!("network address parse error during conversion from string: {why}"))
        };
        let no_slash = || fault(format!("netip.ParsePrefix({text:?}): no '/'"));
        let (address, prefix) = text.split_once('/').ok_or_else(no_slash)?;
        let address = parse(address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_plain = prefix == "0" || !(prefix.is_empty() || prefix.starts_with(['0', '+']));
        match prefix.parse::<u8>() {
            Ok(prefix) if prefix <= most && is_plain => Ok(Network { address, prefix }),
            _ => Err(fault(format!("netip.ParsePrefix({text:?}): bad bits after slash: {prefix:?}"))),
        }
    }

    fn masked(self) -> Network {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        };
        Network { address, ..self }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Network { address, ..self }.masked() == self.masked()
    }

    fn holds(self, other: Network) -> bool {
        other.prefix >= self.prefix && self.contains(other.address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
