//! Plans streams: finds the node, checks every parameter before anything is opened.

use api::field::FieldError;
use api::status::{ResourceName, Status};
use http::StatusCode;
use serde_json::Value;

use crate::call::Call;
use crate::connect::{ConnectPlan, Logs, Stream, Streams};
use crate::failure::{self, Refused};
use crate::object::{self, items, meta};
use crate::prepare::Planned;
use crate::response::{Prepared, Response};
use crate::{keys, scan};

/// Logs, exec, attach, port-forward and proxies.
pub(crate) fn plan(call: &Call<'_>) -> Planned {
    if call.subresource() == "proxy" {
        return proxy(call);
    }
    let (_, pod) = call.stored()?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let stream = match call.subresource() {
        "log" => {
            let logs = logs(call, &pod)?;
            // A pod without a node has written nothing yet.
            if node.is_empty() {
                return Ok(Prepared::Respond(Response::text(StatusCode::OK, "")));
            }
            Stream::Logs(logs)
        }
        "exec" => {
            running(&pod, "exec into")?;
            Stream::Exec {
                container: container(call, &pod)?,
                command: command(call)?,
                streams: streams(call)?,
            }
        }
        "attach" => {
            running(&pod, "attach to")?;
            Stream::Attach { container: container(call, &pod)?, streams: streams(call)? }
        }
        _ => Stream::PortForward { ports: ports(call)? },
    };
    if node.is_empty() {
        return Err(failure::bad_request(&format!("pod {} does not have a host assigned", call.name())));
    }
    Ok(connect(call, node, meta(&pod, "uid"), stream))
}

fn connect(call: &Call<'_>, node: &str, uid: &str, stream: Stream) -> Prepared {
    Prepared::Connect(Box::new(ConnectPlan {
        node: node.to_owned(),
        namespace: call.namespace().to_owned(),
        name: call.name().to_owned(),
        uid: uid.to_owned(),
        stream,
    }))
}

fn running(pod: &Value, what: &str) -> Result<(), Refused> {
    match pod["status"]["phase"].as_str() {
        Some(phase @ ("Succeeded" | "Failed")) => Err(failure::bad_request(&format!(
            "cannot {what} a container in a completed pod; current phase is {phase}"
        ))),
        _ => Ok(()),
    }
}

fn names(pod: &Value, field: &str) -> Vec<String> {
    items(&pod["spec"][field]).iter().filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
}

/// The container that is named, or the only one.
fn container(call: &Call<'_>, pod: &Value) -> Result<String, Refused> {
    let (main, init) = (names(pod, "containers"), names(pod, "initContainers"));
    let ephemeral = names(pod, "ephemeralContainers");
    let wanted = call.request.info.param("container").unwrap_or_default();
    if wanted.is_empty() {
        if let [only] = main.as_slice() {
            return Ok(only.clone());
        }
        let mut message = format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            call.name(),
            main.join(" ")
        );
        if !init.is_empty() {
            message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
        }
        return Err(failure::bad_request(&message));
    }
    match main.iter().chain(&init).chain(&ephemeral).any(|name| name == wanted) {
        true => Ok(wanted.to_owned()),
        false => {
            Err(failure::bad_request(&format!("container {wanted} is not valid for pod {}", call.name())))
        }
    }
}

fn command(call: &Call<'_>) -> Result<Vec<String>, Refused> {
    let query = &call.request.info.query;
    let command: Vec<String> =
        query.iter().filter(|(key, _)| key == "command").map(|(_, v)| v.clone()).collect();
    match command.is_empty() {
        true => Err(failure::bad_request("you must specify at least one command for the container")),
        false => Ok(command),
    }
}

/// Output streams are carried unless the query says no; input only when it says yes.
fn streams(call: &Call<'_>) -> Result<Streams, Refused> {
    let info = &call.request.info;
    let unless = |name: &str| info.param(name).is_none() || info.flag(name);
    let tty = info.flag("tty");
    let streams = Streams {
        stdin: info.flag("stdin"),
        stdout: unless("stdout"),
        stderr: unless("stderr") && !tty,
        tty,
    };
    match streams.stdin || streams.stdout || streams.stderr {
        true => Ok(streams),
        false => Err(failure::bad_request("you must specify at least one of stdin, stdout, stderr")),
    }
}

fn ports(call: &Call<'_>) -> Result<Vec<u16>, Refused> {
    let query = call.request.info.query.iter().filter(|(key, _)| key == "ports");
    query
        .flat_map(|(_, value)| value.split(','))
        .map(|port| match port.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(failure::bad_request(&format!("unable to parse {port:?} as a port"))),
        })
        .collect()
}

fn logs(call: &Call<'_>, pod: &Value) -> Result<Logs, Refused> {
    let info = &call.request.info;
    let mut errors = Vec::new();
    let mut number = |name: &str, least: i64| {
        let text = info.param(name).filter(|text| !text.is_empty())?;
        match text.parse::<i64>() {
            Ok(value) if value >= least => Some(value),
            Ok(value) => {
                let why = format!("must be greater than or equal to {least}");
                errors.push(FieldError::invalid(name, value, why));
                None
            }
            Err(_) => {
                errors.push(FieldError::invalid(name, text, "must be an integer"));
                None
            }
        }
    };
    let (tail_lines, limit_bytes) = (number("tailLines", 0), number("limitBytes", 1));
    let since_seconds = number("sinceSeconds", 1);
    let since_time = info.param("sinceTime").filter(|time| !time.is_empty()).map(str::to_owned);
    if since_time.as_deref().is_some_and(|time| api::time::parse(time).is_err()) {
        errors.push(FieldError::invalid(
            "sinceTime",
            since_time.clone().unwrap_or_default(),
            "must be an RFC 3339 time",
        ));
    }
    if since_time.is_some() && since_seconds.is_some() {
        errors
            .push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", call.name(), &errors).into());
    }
    Ok(Logs {
        container: container(call, pod)?,
        follow: info.flag("follow"),
        previous: info.flag("previous"),
        since_seconds,
        since_time,
        tail_lines,
        timestamps: info.flag("timestamps"),
        limit_bytes,
    })
}

/// HTTP to a pod, a service's endpoint, or a node.
fn proxy(call: &Call<'_>) -> Planned {
    let (scheme, name, port) = split_name(call.name());
    let about = ResourceName { group: "", resource: &call.resource.plural };
    let entry = call.world.snapshot.get(&call.key(&name)).ok_or_else(|| Status::not_found(about, &name))?;
    let object = call.parsed(entry)?;
    let (node, address, port) = match &*call.resource.plural {
        "pods" => pod_address(&object, &port)?,
        "services" => service_address(call, &object, &name, &port)?,
        _ => node_address(&object, &port)?,
    };
    let query =
        call.request.info.query.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value)));
    let query = query.collect::<Vec<_>>().join("&");
    let separator = if query.is_empty() { "" } else { "?" };
    let path = format!("/{}{separator}{query}", call.request.info.rest);
    Ok(connect(call, &node, meta(&object, "uid"), Stream::Proxy { scheme, address, port, path }))
}

/// `scheme:name:port`, `name:port` or `name`.
fn split_name(name: &str) -> (String, String, String) {
    let parts: Vec<&str> = name.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [scheme, name, port, ..] => (*scheme, *name, *port),
        [name, port] => ("", *name, *port),
        _ => ("", name, ""),
    };
    let scheme = if scheme == "https" { "https" } else { "http" };
    (scheme.into(), name.into(), port.into())
}

type Address = (String, String, u16);

fn pod_address(pod: &Value, port: &str) -> Result<Address, Refused> {
    let declared = items(&pod["spec"]["containers"]).iter().flat_map(|c| items(&c["ports"]));
    let port = match port {
        "" => declared.filter_map(|p| p["containerPort"].as_u64()).next().unwrap_or(80),
        text => match text.parse() {
            Ok(number) => number,
            Err(_) => declared
                .filter(|p| p["name"].as_str() == Some(text))
                .filter_map(|p| p["containerPort"].as_u64())
                .next()
                .ok_or_else(|| failure::bad_request(&format!("pod has no port named {text:?}")))?,
        },
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let address = pod["status"]["podIP"].as_str().unwrap_or_default();
    if node.is_empty() || address.is_empty() {
        return Err(failure::bad_request("address not allowed: the pod has no IP yet"));
    }
    Ok((node.into(), address.into(), port as u16))
}

fn node_address(node: &Value, port: &str) -> Result<Address, Refused> {
    let addresses = items(&node["status"]["addresses"]);
    let address = addresses.iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
    let port = if port.is_empty() {
        node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()
    } else {
        port.parse().ok()
    };
    match (address, port) {
        (Some(address), Some(port)) => Ok((meta(node, "name").into(), address.into(), port as u16)),
        _ => Err(failure::bad_request("the node has no such address and port")),
    }
}

/// The first ready endpoint of the service's port that is on a known node.
fn service_address(call: &Call<'_>, service: &Value, name: &str, port: &str) -> Result<Address, Refused> {
    let ports = items(&service["spec"]["ports"]);
    let wanted = ports
        .iter()
        .find(|p| port.is_empty() || p["name"].as_str() == Some(port) || p["port"] == port)
        .ok_or_else(|| {
            failure::bad_request(&format!("no service port {port:?} found for service {name:?}"))
        })?;
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let prefix = keys::namespace_prefix("discovery.k8s.io", "endpointslices", call.namespace());
    for (_, entry) in call.world.snapshot.prefix(prefix.as_bytes()) {
        let label = scan::text(&entry.value, &["metadata", "labels", "kubernetes.io/service-name"]);
        if label.as_deref() != Some(name) {
            continue;
        }
        let Some(slice) = object::parse(&entry.value) else { continue };
        let port =
            items(&slice["ports"]).iter().find(|p| p["name"].as_str().unwrap_or_default() == port_name);
        let ready = items(&slice["endpoints"])
            .iter()
            .find(|e| e["conditions"]["ready"] != false && e["nodeName"].is_string());
        if let (Some(port), Some(endpoint)) = (port.and_then(|p| p["port"].as_u64()), ready) {
            let address = endpoint["addresses"][0].as_str().unwrap_or_default();
            return Ok((
                endpoint["nodeName"].as_str().unwrap_or_default().into(),
                address.into(),
                port as u16,
            ));
        }
    }
    let message = format!("no endpoints available for service {name:?}");
    Err(Status::unavailable(message).into())
}

/// Percent encoding of what is not plain in a query.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
