//! IPv4 networks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A network in CIDR notation; host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ipv4Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

/// Not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR {0:?}")]
pub struct CidrError(String);

// === impl Ipv4Cidr ===

impl Ipv4Cidr {
    /// The network that holds `ip`.
    pub fn containing(ip: Ipv4Addr, prefix: u8) -> Option<Ipv4Cidr> {
        let mask = u32::MAX.checked_shl(32u32.checked_sub(u32::from(prefix))?).unwrap_or(0);
        Some(Ipv4Cidr { network: Ipv4Addr::from(u32::from(ip) & mask), prefix })
    }

    /// First address.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Length of the mask.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// How many addresses, at most `u32::MAX`.
    pub fn size(&self) -> u32 {
        u32::try_from(1u64 << (32 - self.prefix)).unwrap_or(u32::MAX)
    }

    /// The address that many after the first.
    pub fn nth(&self, offset: u32) -> Option<Ipv4Addr> {
        (offset < self.size()).then(|| Ipv4Addr::from(u32::from(self.network) + offset))
    }

    /// How far an address is after the first.
    pub fn offset(&self, ip: Ipv4Addr) -> Option<u32> {
        u32::from(ip).checked_sub(u32::from(self.network)).filter(|offset| *offset < self.size())
    }

    /// Whether the networks have an address in common.
    pub fn overlaps(&self, other: &Ipv4Cidr) -> bool {
        self.offset(other.network).is_some() || other.offset(self.network).is_some()
    }
}

impl FromStr for Ipv4Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parsed = text.split_once('/').and_then(|(ip, prefix)| {
            let (ip, prefix) = (ip.parse().ok()?, prefix.parse::<u8>().ok().filter(|prefix| *prefix <= 32)?);
            Ipv4Cidr::containing(ip, prefix)
        });
        parsed.ok_or_else(|| CidrError(text.to_owned()))
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_parsed_and_compared() {
        let a: Ipv4Cidr = "10.244.1.7/24".parse().unwrap();
        assert_eq!(a.to_string(), "10.244.1.0/24");
        assert_eq!((a.nth(1), a.nth(256)), (Some(Ipv4Addr::new(10, 244, 1, 1)), None));
        let overlap = |other: &str| a.overlaps(&other.parse().unwrap());
        assert!(overlap("10.244.0.0/16") && overlap("10.244.1.128/25") && overlap("0.0.0.0/0"));
        assert!(!overlap("10.244.2.0/24"));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "x/8"] {
            assert!(bad.parse::<Ipv4Cidr>().is_err(), "{bad:?}");
        }
    }
}
