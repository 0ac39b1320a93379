//! Plans requests that are passed on: to a pod, to a ready endpoint of a service, to a node.

use std::net::IpAddr;

use api::status::{ResourceName, Status};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use crate::ask::Endpoint;
use crate::backends;
use crate::call::Call;
use crate::connect::{Backend, Proxied, Stream};
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::object::{items, meta};
use crate::prepare::Planned;
use crate::request::RequestInfo;
use crate::response::{Prepared, Response};
use crate::stream::{self, connect};

pub mod headers;

/// The port under which a kubelet serves: here the agent answers through its tunnel.
const AGENT_PORT: u16 = 10250;
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// `scheme:name:port`, `name:port` or `name`.
struct Named<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

/// A backend and the node through which it is reached.
struct Found {
    node: String,
    backend: Backend,
}

/// HTTP to a pod, a service's endpoint, or a node.
pub(crate) fn plan(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let info = &call.request.info;
    if !METHODS.contains(&info.method) {
        return Err(Status::method_not_allowed_here().into());
    }
    // The path is not for others to change: what was asked for is asked for.
    stream::connecting(call, stream::options::of_request(call))?;
    let singular = &call.resource.singular;
    let named = split_name(call.name())
        .ok_or_else(|| failure::bad_request(&format!("invalid {singular} request {:?}", call.name())))?;
    let about = ResourceName { group: "", resource: &call.resource.plural };
    let entry =
        call.world.snapshot.get(&call.key(named.name)).ok_or_else(|| Status::not_found(about, named.name))?;
    let object = call.parsed(entry)?;
    let Found { node, backend } = match &*call.resource.plural {
        "pods" => pod(&object, &named)?,
        "services" => service(call, &object, &named, ids)?,
        _ => self::node(&object, &named)?,
    };
    let upgrade = call.request.headers.contains_key(header::UPGRADE);
    if info.rest.is_empty() && matches!(info.method, Method::GET | Method::HEAD) && !upgrade {
        return Ok(slash(info).map(Prepared::Respond)?);
    }
    let root = if info.rest.is_empty() { "/" } else { &info.rest };
    let target = match info.raw_query.is_empty() {
        true => root.to_owned(),
        false => format!("{root}?{}", info.raw_query),
    };
    let prefix = info.path.strip_suffix(&*info.rest).unwrap_or(&info.path).to_owned();
    let proxied = Stream::Proxy(Proxied { backend, target, prefix });
    Ok(connect(call, &node, meta(&object, "uid"), proxied))
}

/// Without a slash at the end, relative links of the backend's root would lead elsewhere.
fn slash(info: &RequestInfo) -> Result<Response, Refused> {
    let separator = if info.raw_query.is_empty() { "" } else { "?" };
    let location = HeaderValue::from_str(&format!("{}/{separator}{}", info.path, info.raw_query))
        .map_err(|_| failure::bad_request("the path cannot be redirected"))?;
    Ok(Response {
        headers: vec![(header::LOCATION, location)],
        ..Response::text(StatusCode::MOVED_PERMANENTLY, "")
    })
}

fn split_name(name: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = name.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let known = matches!(scheme, "" | "http" | "https");
    (known && !name.is_empty()).then_some(Named { tls: scheme == "https", name, port })
}

/// An address that the server may have a node connect to.
fn address(text: &str) -> Result<IpAddr, Refused> {
    backends::allowed(text).ok_or_else(|| failure::bad_request("address not allowed"))
}

fn pod(pod: &Value, named: &Named<'_>) -> Result<Found, Refused> {
    let mut declared = items(&pod["spec"]["containers"]).iter().flat_map(|c| items(&c["ports"]));
    let number = |port: &Value| backends::as_port(port["containerPort"].as_u64());
    let port = match (named.port, named.port.parse::<u16>()) {
        ("", _) => declared.find_map(number).or(Some(if named.tls { 443 } else { 80 })),
        (_, Ok(number)) => Some(number).filter(|number| *number > 0),
        (name, Err(_)) => declared.find(|port| port["name"] == *name).and_then(number),
    };
    let port = port.ok_or_else(|| failure::bad_request(&format!("the pod has no port {:?}", named.port)))?;
    let ip = address(pod["status"]["podIP"].as_str().unwrap_or_default())?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(failure::bad_request(&format!("pod {} does not have a host assigned", named.name)));
    }
    Ok(Found { node: node.to_owned(), backend: Backend::Address { tls: named.tls, ip, port } })
}

fn node(node: &Value, named: &Named<'_>) -> Result<Found, Refused> {
    let name = meta(node, "name").to_owned();
    let port: Option<u16> = named.port.parse().ok().filter(|port| *port > 0);
    if named.port.is_empty() || port == Some(AGENT_PORT) {
        return Ok(Found { node: name, backend: Backend::Agent });
    }
    let port =
        port.ok_or_else(|| failure::bad_request(&format!("invalid port of a node: {:?}", named.port)))?;
    let addresses = items(&node["status"]["addresses"]);
    let address = addresses.iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
    let ip = self::address(address.unwrap_or_default())?;
    Ok(Found { node: name, backend: Backend::Address { tls: named.tls, ip, port } })
}

/// One of the ready endpoints of the service's port.
fn service(call: &Call<'_>, service: &Value, named: &Named<'_>, ids: &mut Ids<'_>) -> Result<Found, Refused> {
    let name = named.name;
    let port = match named.port.parse::<u64>() {
        Ok(number) => backends::port_name(service, number).ok_or_else(|| {
            Status::unavailable(format!("no service port {number} found for service {name:?}"))
        })?,
        Err(_) => named.port,
    };
    let mut found = backends::of_service(call.world.snapshot, call.namespace(), name, port);
    found.retain(|endpoint| endpoint.node.is_some());
    if found.is_empty() {
        return Err(Status::unavailable(format!("no endpoints available for service {name:?}")).into());
    }
    let Endpoint { node, ip, port } = found.swap_remove(ids.below(found.len()));
    let node = node.unwrap_or_default();
    Ok(Found { node, backend: Backend::Address { tls: named.tls, ip, port } })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_name(name: &str, expected: Option<(bool, &str, &str)>) {
        assert_eq!(split_name(name).map(|named| (named.tls, named.name, named.port)), expected, "{name}");
    }

    #[test]
    fn names_have_a_scheme_and_a_port() {
        check_name("web", Some((false, "web", "")));
        check_name("web:8080", Some((false, "web", "8080")));
        check_name("https:web:admin", Some((true, "web", "admin")));
        check_name("http:web:", Some((false, "web", "")));
        check_name("ftp:web:21", None);
        check_name("a:b:c:d", None);
        check_name(":80", None);
    }

    #[track_caller]
    fn check_pod(name: &str, ip: &str, expected: Result<(bool, u16), &str>) {
        let object = json!({"spec": {"nodeName": "n", "containers": [{"ports": [
            {"containerPort": 8080}, {"name": "admin", "containerPort": 9090}]}]}, "status": {"podIP": ip}});
        let named = split_name(name).expect("a name");
        let found = pod(&object, &named).map(|found| match found.backend {
            Backend::Address { tls, port, .. } => (tls, port),
            Backend::Agent => (false, 0),
        });
        let found = found.map_err(|refused| String::from_utf8_lossy(&refused.body.to_bytes()).into_owned());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn ports_of_pods_are_numbers_names_or_the_first_one() {
        check_pod("web", "10.0.0.1", Ok((false, 8080)));
        check_pod("web:81", "10.0.0.1", Ok((false, 81)));
        check_pod("https:web:admin", "10.0.0.1", Ok((true, 9090)));
        check_pod("web:nothing", "10.0.0.1", Err("no port"));
        check_pod("web:0", "10.0.0.1", Err("no port"));
    }

    #[test]
    fn what_is_not_a_pods_address_is_not_reached() {
        let refused = ["", "127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "fe80::1"];
        for ip in refused.into_iter().chain(["::ffff:127.0.0.1", "host.example"]) {
            check_pod("web", ip, Err("address not allowed"));
        }
    }
}
