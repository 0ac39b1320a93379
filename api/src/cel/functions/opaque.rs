//! Values that only functions can look into.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value as Json;

use super::authorizer::{Authorizer, Check, Verdict};
use super::format::Format;
use super::network::Network;
use super::semver::Semver;
use super::url::Url;
use crate::quantity::Quantity;

/// A value that only functions can look into.
#[derive(Clone, Debug)]
pub enum Opaque<'a> {
    /// Of `url()`.
    Url(Arc<Url>),
    /// Of `ip()`.
    Ip(IpAddr),
    /// Of `cidr()`.
    Cidr(Network),
    /// Of `quantity()`.
    Quantity(Quantity),
    /// Of `semver()`.
    Semver(Arc<Semver>),
    /// Of `format.named()` and the like.
    Format(&'static Format),
    /// The variable `authorizer`.
    Authorizer(Authorizer<'a>),
    /// Of `authorizer.path()`.
    PathCheck(Arc<Check<'a>>),
    /// Of `authorizer.group()`.
    GroupCheck(Arc<Check<'a>>),
    /// Of `resource()`.
    ResourceCheck(Arc<Check<'a>>),
    /// Of `check()`.
    Decision(Arc<Verdict>),
}

// === impl Opaque ===

impl Opaque<'_> {
    /// The name of its type.
    pub(in super::super) fn name(&self) -> &'static str {
        match self {
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(_) => "net.CIDR",
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// The size that costs are counted by: of an address its bytes.
    pub(in super::super) fn size(&self) -> u64 {
        match self {
            Opaque::Ip(IpAddr::V4(_)) => 4,
            Opaque::Ip(IpAddr::V6(_)) => 16,
            Opaque::Cidr(network) => u64::from(network.prefix.div_ceil(8)),
            _ => 1,
        }
    }

    pub(in super::super) fn equals(&self, other: &Opaque<'_>) -> bool {
        match (self, other) {
            (Opaque::Url(a), Opaque::Url(b)) => a.text == b.text,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.order(b).is_eq(),
            (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
            _ => false,
        }
    }

    /// For messages.
    pub(in super::super) fn text(&self) -> String {
        match self {
            Opaque::Url(url) => url.text.to_string(),
            Opaque::Ip(address) => address.to_string(),
            Opaque::Cidr(network) => network.to_string(),
            Opaque::Quantity(quantity) => quantity.to_string(),
            Opaque::Semver(version) => version.text.to_string(),
            Opaque::Format(format) => format.name.to_owned(),
            other => other.name().to_owned(),
        }
    }

    pub(in super::super) fn to_json(&self) -> Option<Json> {
        match self {
            Opaque::Url(_) | Opaque::Ip(_) | Opaque::Cidr(_) | Opaque::Quantity(_) | Opaque::Semver(_) => {
                Some(self.text().into())
            }
            _ => None,
        }
    }
}
