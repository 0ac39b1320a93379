//! Services own addresses and ports: each is a claim key that is written in the service's own transaction. An address is shown
//! as an IPAddress besides, which comes and goes with its claim.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use api::field::FieldError;
use api::status::Status;
use serde_json::{Map, Value, json};
use store_core::{Compare, Expect, Op, Txn, Value as Stored};

use crate::call::Call;
use crate::failure::Refused;
use crate::ids::Ids;
use crate::object::{self, items, meta};
use crate::{keys, own};

/// How often a random choice is made before everything is searched.
const RANDOM_TRIES: usize = 16;

/// The service that a claim belongs to; in the claim it is `NAMESPACE/NAME`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
}

// === impl Owner ===

impl<'a> Owner<'a> {
    fn of(service: &'a Value) -> Owner<'a> {
        Owner { namespace: meta(service, "namespace"), name: meta(service, "name") }
    }

    pub fn parse(claim: &'a str) -> Option<Owner<'a>> {
        let (namespace, name) = claim.split_once('/')?;
        Some(Owner { namespace, name })
    }
}

impl std::fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Gives a new service its addresses and ports.
pub(crate) fn create(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    service: &mut Value,
    txn: &mut Txn,
) -> Result<(), Refused> {
    allocate(call, ids, service, None, txn)
}

/// Keeps, changes or gives back addresses and ports when a service changes.
pub(crate) fn update(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    new: &mut Value,
    old: &Value,
    txn: &mut Txn,
) -> Result<(), Refused> {
    allocate(call, ids, new, Some(old), txn)?;
    let (mut before, after) = (claims_of(old), claims_of(new));
    before.retain(|claim| !after.contains(claim));
    give_back(before, txn);
    Ok(())
}

/// Gives back everything that a service holds.
pub(crate) fn release(service: &Value, txn: &mut Txn) {
    give_back(claims_of(service), txn);
}

fn give_back(claims: BTreeSet<String>, txn: &mut Txn) {
    for claim in claims {
        let shown = keys::claimed_ip(claim.as_bytes()).map(keys::ip_address);
        txn.ops.push(Op::Delete { key: claim.into() });
        txn.ops.extend(shown.map(|key| Op::Delete { key }));
    }
}

/// The claim keys that a service holds.
fn claims_of(service: &Value) -> BTreeSet<String> {
    let spec = &service["spec"];
    let key = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    let addresses = items(&spec["clusterIPs"]).iter().filter_map(Value::as_str);
    let mut claims: BTreeSet<String> =
        addresses.filter(|a| is_address(a)).map(|a| key(keys::service_ip(a))).collect();
    if let Some(address) = spec["clusterIP"].as_str().filter(|a| is_address(a)) {
        claims.insert(key(keys::service_ip(address)));
    }
    claims.extend(held_ports(spec).map(|port| key(keys::node_port(port))));
    claims
}

fn held_ports(spec: &Value) -> impl Iterator<Item = u16> {
    let ports = items(&spec["ports"]).iter().filter_map(|port| port["nodePort"].as_u64());
    ports.filter(|port| *port > 0).map(|port| port as u16)
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn kind(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

fn wants_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn allocate(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    service: &mut Value,
    old: Option<&Value>,
    txn: &mut Txn,
) -> Result<(), Refused> {
    let held = old.map(claims_of).unwrap_or_default();
    let owner = Owner::of(service).to_string();
    let mut claims = Claims { call, held, owner, txn, taken: BTreeSet::new(), errors: Vec::new() };
    if kind(service) == "ExternalName" {
        forget_addresses(object::child(service, "spec"));
    } else {
        claims.addresses(ids, object::child(service, "spec"));
    }
    if wants_ports(service) {
        claims.ports(ids, service);
    } else if old.is_some_and(wants_ports) {
        forget_ports(object::child(service, "spec"), old);
    }
    match claims.errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("", "Service", meta(service, "name"), &claims.errors).into()),
    }
}

fn forget_addresses(spec: &mut Map<String, Value>) {
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
        spec.remove(field);
    }
}

/// A service that is no NodePort any more gives its ports back, unless the writer set others.
fn forget_ports(spec: &mut Map<String, Value>, old: Option<&Value>) {
    let held: BTreeSet<u64> =
        old.map(|old| held_ports(&old["spec"]).map(u64::from).collect()).unwrap_or_default();
    if let Some(Value::Array(ports)) = spec.get_mut("ports") {
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            if port.get("nodePort").and_then(Value::as_u64).is_some_and(|p| held.contains(&p)) {
                port.remove("nodePort");
            }
        }
    }
    spec.remove("healthCheckNodePort");
}

/// Claims in the making.
struct Claims<'c, 'w> {
    call: &'c Call<'w>,
    held: BTreeSet<String>,
    owner: String,
    txn: &'c mut Txn,
    taken: BTreeSet<String>,
    errors: Vec<FieldError>,
}

// === impl Claims ===

impl Claims<'_, '_> {
    fn is_free(&self, key: &[u8]) -> bool {
        let text = String::from_utf8_lossy(key);
        !self.taken.contains(&*text)
            && (self.held.contains(&*text) || self.call.world.snapshot.get(key).is_none())
    }

    /// Notes a claim; what the service holds already is not written again.
    fn claim(&mut self, key: bytes::Bytes) {
        let text = String::from_utf8_lossy(&key).into_owned();
        if !self.held.contains(&text) {
            self.txn.compares.push(Compare { key: key.clone(), expect: Expect::Absent });
            let value = Stored::plain(self.owner.clone());
            self.txn.ops.push(Op::Put { key, value, expires_at_ms: None });
        }
        self.taken.insert(text);
    }

    fn addresses(&mut self, ids: &mut Ids<'_>, spec: &mut Map<String, Value>) {
        let first = || spec.get("clusterIPs").and_then(|ips| ips[0].as_str()).unwrap_or_default();
        let named = match spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default() {
            "" => first().to_owned(),
            text => text.to_owned(),
        };
        let address = match named.as_str() {
            "None" => "None".to_owned(),
            "" => match self.free_address(ids) {
                Some(address) => address.to_string(),
                None => {
                    let why = "failed to allocate a serviceIP: range is full";
                    return self.errors.push(FieldError::invalid("spec.clusterIPs", json!([]), why));
                }
            },
            text => match self.named_address(text) {
                Ok(address) => address,
                Err(why) => {
                    return self.errors.push(FieldError::invalid("spec.clusterIPs", json!([text]), why));
                }
            },
        };
        if address != "None" {
            let before = self.txn.ops.len();
            self.claim(keys::service_ip(&address));
            if self.txn.ops.len() > before
                && let Some(owner) = Owner::parse(&self.owner)
            {
                self.txn.ops.extend(own::ip_address(&address, &owner, &ids.uid(), self.call.now));
            }
        }
        spec.insert("clusterIP".into(), address.clone().into());
        spec.insert("clusterIPs".into(), json!([address]));
        families(spec);
    }

    fn named_address(&self, text: &str) -> Result<String, String> {
        let range = self.call.world.config.service_cidr;
        let address: Ipv4Addr =
            text.parse().map_err(|_| "failed to allocate IP: not an IPv4 address".to_owned())?;
        if !range.contains(address) {
            return Err(format!(
                "failed to allocate IP {text}: the provided IP is not in the valid range. The range of valid IPs is {range}"
            ));
        }
        match self.is_free(&keys::service_ip(text)) {
            true => Ok(address.to_string()),
            false => Err(format!("failed to allocate IP {text}: provided IP is already allocated")),
        }
    }

    /// A free address: from the upper part of the range, so that the lower part stays for those who choose.
    fn free_address(&self, ids: &mut Ids<'_>) -> Option<Ipv4Addr> {
        let range = self.call.world.config.service_cidr;
        let usable = range.size().checked_sub(2)?;
        let lower = (range.size() / 16).clamp(16, 256).min(usable);
        let free = |index: u64| {
            let address = range.nth(index);
            self.is_free(&keys::service_ip(&address.to_string())).then_some(address)
        };
        let upper = usable.saturating_sub(lower) as usize;
        (0..RANDOM_TRIES)
            .filter(|_| upper > 0)
            .find_map(|_| free(lower + 1 + ids.below(upper) as u64))
            .or_else(|| (lower + 1..=usable).chain(1..=lower).find_map(free))
    }

    fn ports(&mut self, ids: &mut Ids<'_>, service: &mut Value) {
        let (first, last) = self.call.world.config.node_ports;
        let Some(Value::Array(ports)) = object::child(service, "spec").get_mut("ports") else { return };
        // Ports that are named are claimed before others are chosen. One number serves all protocols of it.
        let mut by_number: BTreeSet<(u64, String)> = BTreeSet::new();
        for (index, port) in ports.iter().enumerate() {
            let Some(number) = port["nodePort"].as_u64().filter(|number| *number > 0) else { continue };
            let path = format!("spec.ports[{index}].nodePort");
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let shared = by_number.iter().any(|(n, p)| *n == number && *p != protocol);
            by_number.insert((number, protocol));
            if number < u64::from(first) || number > u64::from(last) {
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is {first}-{last}"
                );
                self.errors.push(FieldError::invalid(path, number, why));
            } else if shared {
                continue;
            } else if self.is_free(&keys::node_port(number as u16)) {
                self.claim(keys::node_port(number as u16));
            } else {
                self.errors.push(FieldError::invalid(path, number, "provided port is already allocated"));
            }
        }
        for (index, port) in ports.iter_mut().enumerate() {
            if port["nodePort"].as_u64().unwrap_or(0) > 0 {
                continue;
            }
            match self.free_port(ids) {
                Some(number) => {
                    self.claim(keys::node_port(number));
                    port["nodePort"] = number.into();
                }
                None => {
                    let path = format!("spec.ports[{index}].nodePort");
                    self.errors.push(FieldError::invalid(
                        path,
                        0,
                        "failed to allocate a nodePort: range is full",
                    ));
                }
            }
        }
    }

    fn free_port(&self, ids: &mut Ids<'_>) -> Option<u16> {
        let (first, last) = self.call.world.config.node_ports;
        let free = |port: u16| self.is_free(&keys::node_port(port)).then_some(port);
        let size = usize::from(last.saturating_sub(first)) + 1;
        // The lowest ports stay for those who choose.
        let band = (size / 32).clamp(16, 128).min(size.saturating_sub(1));
        (0..RANDOM_TRIES)
            .find_map(|_| free(first + (band + ids.below(size - band)) as u16))
            .or_else(|| (first..=last).rev().find_map(free))
    }
}

/// The dual-stack fields of a service in a cluster that has one family.
fn families(spec: &mut Map<String, Value>) {
    let policy = spec.get("ipFamilyPolicy").and_then(Value::as_str).unwrap_or_default();
    if policy.is_empty() {
        spec.insert("ipFamilyPolicy".into(), "SingleStack".into());
    }
    if spec.get("ipFamilies").is_none_or(|families| items(families).is_empty()) {
        spec.insert("ipFamilies".into(), json!(["IPv4"]));
    }
}
