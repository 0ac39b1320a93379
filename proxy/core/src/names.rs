//! Answers cluster DNS questions from Services and EndpointSlices.
//!
//! Follows the specification of DNS-based service discovery for Kubernetes, version 1.1.0
//! (<https://github.com/kubernetes/dns/blob/master/docs/specification.md>).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Ports and names of a service.
    Srv,
    /// The name of an address.
    Ptr,
    /// Text: the version of the specification.
    Txt,
    /// Anything else: no record of that type exists.
    Other,
}

/// One record of an answer. Names end with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Record {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name for what was asked.
    Cname(String),
    /// A port and the name that serves it.
    Srv {
        /// Port.
        port: u16,
        /// Name of the host.
        target: String,
    },
    /// The name of an address.
    Ptr(String),
    /// Text.
    Txt(String),
}

/// What the cluster knows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name is not of the cluster: ask upstream.
    Elsewhere,
    /// No such name.
    NoSuchName,
    /// The name exists; there may be no record of the wanted type.
    Records(Vec<Record>),
}

/// The names of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    external: Option<String>,
    addresses: BTreeSet<IpAddr>,
    /// Of endpoints of a headless service.
    hosts: BTreeMap<String, BTreeSet<IpAddr>>,
    /// (`_port`, `_protocol`) → (port, host); no host: the service itself.
    ports: BTreeSet<(String, String, u16, Option<String>)>,
    headless: bool,
}

/// All names of the cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    domain: String,
    services: BTreeMap<(String, String), Names>,
    addresses: BTreeMap<IpAddr, String>,
}

impl Zone {
    /// A zone without services. `domain` is the cluster's, for instance `cluster.local`.
    pub fn new(domain: &str) -> Zone {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        Zone { domain, services: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    /// The cluster's domain without dots at its ends.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Sets the names of a Service; `None` removes them.
    pub fn set(
        &mut self,
        namespace: &str,
        name: &str,
        service: Option<(&Service, &mut dyn Iterator<Item = &EndpointSlice>)>,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(old) = self.services.remove(&key) {
            reverse(&old).for_each(|(address, _)| {
                self.addresses.remove(&address);
            });
        }
        let Some((service, slices)) = service else { return };
        let names = names(service, slices);
        let base = format!("{name}.{namespace}.svc.{}.", self.domain);
        for (address, host) in reverse(&names) {
            let name = host.map_or_else(|| base.clone(), |host| format!("{host}.{base}"));
            self.addresses.insert(address, name);
        }
        self.services.insert(key, names);
    }

    /// Answers a question for `name`, in any case, with or without its last dot.
    pub fn answer(&self, name: &str, question: Question) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(address) = reverse_name(&name) {
            return match self.addresses.get(&address) {
                Some(name) if question == Question::Ptr => Answer::Records(vec![Record::Ptr(name.clone())]),
                Some(_) => Answer::Records(Vec::new()),
                None => Answer::Elsewhere,
            };
        }
        if name == self.domain {
            return Answer::Records(Vec::new());
        }
        let Some(inner) = name.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.')) else {
            return Answer::Elsewhere;
        };
        let labels: Vec<&str> = inner.split('.').rev().collect();
        match labels.as_slice() {
            ["dns-version"] if question == Question::Txt => {
                Answer::Records(vec![Record::Txt("1.1.0".to_owned())])
            }
            ["dns-version"] | ["svc"] | ["pod"] => Answer::Records(Vec::new()),
            ["svc", namespace] => self.namespace(namespace),
            ["svc", namespace, service, rest @ ..] => self.service(namespace, service, rest, question),
            ["pod", _namespace, address] => pod(address, question),
            _ => Answer::NoSuchName,
        }
    }

    fn namespace(&self, namespace: &str) -> Answer {
        let first = (namespace.to_owned(), String::new());
        let known = self.services.range(first..).next().is_some_and(|((found, _), _)| found == namespace);
        if known { Answer::Records(Vec::new()) } else { Answer::NoSuchName }
    }

    fn service(&self, namespace: &str, service: &str, rest: &[&str], question: Question) -> Answer {
        let key = (namespace.to_owned(), service.to_owned());
        let Some(names) = self.services.get(&key) else { return Answer::NoSuchName };
        let base = format!("{service}.{namespace}.svc.{}.", self.domain);
        match rest {
            [] => Answer::Records(match (&names.external, question) {
                (Some(name), Question::A | Question::Aaaa | Question::Other) => {
                    vec![Record::Cname(format!("{name}."))]
                }
                (None, Question::Srv) => srv(names, None, &base),
                _ => addresses(&names.addresses, question),
            }),
            [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                let found = srv(names, Some((port, protocol)), &base);
                match (found.is_empty(), question) {
                    (true, _) => Answer::NoSuchName,
                    (false, Question::Srv) => Answer::Records(found),
                    (false, _) => Answer::Records(Vec::new()),
                }
            }
            [host] => match names.hosts.get(*host) {
                Some(of_host) => Answer::Records(addresses(of_host, question)),
                None => Answer::NoSuchName,
            },
            _ => Answer::NoSuchName,
        }
    }
}

fn names(service: &Service, slices: &mut dyn Iterator<Item = &EndpointSlice>) -> Names {
    let mut names = Names::default();
    let Some(spec) = &service.spec else { return names };
    if spec.type_.as_deref() == Some("ExternalName") {
        names.external = spec.external_name.as_ref().map(|name| name.trim_end_matches('.').to_owned());
        return names;
    }
    names.headless = spec.cluster_ip.as_deref() == Some("None");
    if !names.headless {
        names.addresses = spec
            .cluster_ips
            .iter()
            .flatten()
            .chain(&spec.cluster_ip)
            .filter_map(|ip| ip.parse().ok())
            .collect();
        for port in spec.ports.iter().flatten() {
            if let (Some(name), Ok(number)) = (&port.name, u16::try_from(port.port)) {
                names.ports.insert((format!("_{name}"), underscored(port.protocol.as_deref()), number, None));
            }
        }
        return names;
    }
    let unready_too = spec.publish_not_ready_addresses == Some(true);
    for slice in slices {
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            if !ready && !unready_too {
                continue;
            }
            for address in endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
                let host = endpoint.hostname.clone().unwrap_or_else(|| host_of(address));
                names.addresses.insert(address);
                for port in slice.ports.iter().flatten() {
                    let number = port.port.and_then(|port| u16::try_from(port).ok());
                    if let (Some(name), Some(number)) =
                        (port.name.as_ref().filter(|name| !name.is_empty()), number)
                    {
                        let protocol = underscored(port.protocol.as_deref());
                        names.ports.insert((format!("_{name}"), protocol, number, Some(host.clone())));
                    }
                }
                names.hosts.entry(host).or_default().insert(address);
            }
        }
    }
    names
}

fn underscored(protocol: Option<&str>) -> String {
    format!("_{}", protocol.unwrap_or("TCP").to_ascii_lowercase())
}

/// The name of an endpoint that has no hostname: its address with dashes.
fn host_of(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn reverse(names: &Names) -> impl Iterator<Item = (IpAddr, Option<&str>)> {
    let hosts = names
        .hosts
        .iter()
        .flat_map(|(host, all)| all.iter().map(move |address| (*address, Some(host.as_str()))));
    let own = names.addresses.iter().filter(|_| !names.headless).map(|address| (*address, None));
    hosts.chain(own)
}

fn addresses(all: &BTreeSet<IpAddr>, question: Question) -> Vec<Record> {
    let wanted = all.iter().filter_map(|address| match (address, question) {
        (IpAddr::V4(address), Question::A) => Some(Record::A(*address)),
        (IpAddr::V6(address), Question::Aaaa) => Some(Record::Aaaa(*address)),
        _ => None,
    });
    wanted.collect()
}

fn srv(names: &Names, only: Option<(&str, &str)>, base: &str) -> Vec<Record> {
    let ports = names
        .ports
        .iter()
        .filter(|(port, protocol, ..)| only.is_none_or(|only| only == (port.as_str(), protocol.as_str())));
    let records = ports.map(|(_, _, port, host)| {
        let target = host.as_ref().map_or_else(|| base.to_owned(), |host| format!("{host}.{base}"));
        Record::Srv { port: *port, target }
    });
    records.collect()
}

fn pod(label: &str, question: Question) -> Answer {
    if let Ok(address) = label.replace('-', ".").parse::<Ipv4Addr>() {
        return Answer::Records(addresses(&BTreeSet::from([IpAddr::V4(address)]), question));
    }
    match label.replace('-', ":").parse::<Ipv6Addr>() {
        Ok(address) => Answer::Records(addresses(&BTreeSet::from([IpAddr::V6(address)]), question)),
        Err(_) => Answer::NoSuchName,
    }
}

fn reverse_name(name: &str) -> Option<IpAddr> {
    let labels = name.strip_suffix(".in-addr.arpa")?;
    let mut bytes: Vec<u8> = labels.split('.').map(|label| label.parse().ok()).collect::<Option<_>>()?;
    bytes.reverse();
    let bytes: [u8; 4] = bytes.try_into().ok()?;
    Some(IpAddr::V4(bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::new("cluster.local");
        let service = |text: &str| -> Service { serde_json::from_str(text).unwrap() };
        let web = service(
            r#"{"spec":{"clusterIP":"10.96.0.7","ports":[{"name":"http","port":80,"protocol":"TCP"}]}}"#,
        );
        zone.set("default", "web", Some((&web, &mut std::iter::empty())));
        let external = service(r#"{"spec":{"type":"ExternalName","externalName":"example.org"}}"#);
        zone.set("default", "out", Some((&external, &mut std::iter::empty())));
        let headless = service(r#"{"spec":{"clusterIP":"None","ports":[{"name":"db","port":5432}]}}"#);
        let slice: EndpointSlice = serde_json::from_str(
            r#"{"addressType":"IPv4","ports":[{"name":"db","port":5432,"protocol":"TCP"}],"endpoints":[
                {"addresses":["10.244.0.2"],"hostname":"db-0","conditions":{"ready":true}},
                {"addresses":["10.244.0.3"],"conditions":{"ready":true}},
                {"addresses":["10.244.0.4"],"conditions":{"ready":false}}]}"#,
        )
        .unwrap();
        zone.set("prod", "db", Some((&headless, &mut std::iter::once(&slice))));
        zone
    }

    fn check(name: &str, question: Question, expected: &str) {
        let shown = match zone().answer(name, question) {
            Answer::Elsewhere => "elsewhere".to_owned(),
            Answer::NoSuchName => "none".to_owned(),
            Answer::Records(records) => {
                let records: Vec<String> = records
                    .into_iter()
                    .map(|record| match record {
                        Record::A(address) => address.to_string(),
                        Record::Aaaa(address) => address.to_string(),
                        Record::Srv { port, target } => format!("{target}:{port}"),
                        Record::Cname(text) | Record::Ptr(text) | Record::Txt(text) => text,
                    })
                    .collect();
                format!("[{}]", records.join(" "))
            }
        };
        assert_eq!(shown, expected, "{name} {question:?}");
    }

    #[test]
    fn services() {
        check("web.default.svc.cluster.local.", Question::A, "[10.96.0.7]");
        check("WEB.default.SVC.cluster.local", Question::A, "[10.96.0.7]");
        check("web.default.svc.cluster.local.", Question::Aaaa, "[]");
        check("web.other.svc.cluster.local.", Question::A, "none");
        check("out.default.svc.cluster.local.", Question::A, "[example.org.]");
        check(
            "_http._tcp.web.default.svc.cluster.local.",
            Question::Srv,
            "[web.default.svc.cluster.local.:80]",
        );
        check("_https._tcp.web.default.svc.cluster.local.", Question::Srv, "none");
    }

    #[test]
    fn headless_services() {
        check("db.prod.svc.cluster.local.", Question::A, "[10.244.0.2 10.244.0.3]");
        check("db-0.db.prod.svc.cluster.local.", Question::A, "[10.244.0.2]");
        check("10-244-0-3.db.prod.svc.cluster.local.", Question::A, "[10.244.0.3]");
        check("db-9.db.prod.svc.cluster.local.", Question::A, "none");
        check(
            "_db._tcp.db.prod.svc.cluster.local.",
            Question::Srv,
            "[10-244-0-3.db.prod.svc.cluster.local.:5432 db-0.db.prod.svc.cluster.local.:5432]",
        );
    }

    #[test]
    fn other_names() {
        check("10-244-0-9.default.pod.cluster.local.", Question::A, "[10.244.0.9]");
        check("nonsense.default.pod.cluster.local.", Question::A, "none");
        check("2.0.244.10.in-addr.arpa.", Question::Ptr, "[db-0.db.prod.svc.cluster.local.]");
        check("7.0.96.10.in-addr.arpa.", Question::Ptr, "[web.default.svc.cluster.local.]");
        check("1.1.1.1.in-addr.arpa.", Question::Ptr, "elsewhere");
        check("dns-version.cluster.local.", Question::Txt, "[1.1.0]");
        check("default.svc.cluster.local.", Question::A, "[]");
        check("example.org.", Question::A, "elsewhere");
        check("notcluster.local.", Question::A, "elsewhere");
    }

    #[test]
    fn a_removed_service_leaves_no_name() {
        let mut zone = zone();
        zone.set("default", "web", None);
        assert_eq!(zone.answer("web.default.svc.cluster.local", Question::A), Answer::NoSuchName);
        assert_eq!(zone.answer("7.0.96.10.in-addr.arpa", Question::Ptr), Answer::Elsewhere);
    }
}
