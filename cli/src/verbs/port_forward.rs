//! `port-forward`: local ports that lead into a pod.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::error::{Error, Result, message};
use super::pods;
use super::session::{Connection, Session, text_at};

/// Forward one or more local ports to a pod
#[derive(Args, Debug)]
pub struct PortForward {
    /// POD, or TYPE/NAME
    word: String,
    /// [LOCAL:]REMOTE; without a local port the same one, with an empty one any
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<String>,
    /// Addresses to listen on
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// A local port, 0 for any, and the port that it leads to, by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    local: Option<u16>,
    remote: String,
}

/// Where a listener leads.
#[derive(Clone)]
struct Target {
    pods: Api<Pod>,
    name: String,
    remote: u16,
}

/// Runs `port-forward`.
pub async fn run(arguments: &PortForward) -> Result<()> {
    let pairs = arguments.ports.iter().map(|text| text.parse()).collect::<Result<Vec<Pair>>>()?;
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let pod = pods::one(&session, &arguments.word).await?;
    let phase = text_at(&pod, "/status/phase");
    if phase != "Running" {
        return message(format!("unable to forward port because pod is not running. Current status={phase}"));
    }
    let service = service(&session, &arguments.word).await?;
    let Some(client) = session.client.kube() else { return message("streams need a server on the network") };
    let pods: Api<Pod> = Api::namespaced(client, text_at(&pod, "/metadata/namespace"));
    let name = text_at(&pod, "/metadata/name");
    let mut forwards = JoinSet::new();
    for pair in &pairs {
        let remote = match &service {
            Some(service) => of_service(service, &pod, &pair.remote)?,
            None => of_pod(&pod, &pair.remote)?,
        };
        let local = pair.local.unwrap_or(match pair.remote.parse() {
            Ok(same) => same,
            Err(_) => remote,
        });
        for listener in listeners(&arguments.address, local).await? {
            say(&format!("Forwarding from {} -> {remote}", listener.local_addr()?))?;
            let target = Target { pods: pods.clone(), name: name.to_owned(), remote };
            forwards.spawn(accept(listener, target));
        }
    }
    // Until the user has had enough of it.
    while let Some(ended) = forwards.join_next().await {
        if let Ok(outcome) = ended {
            outcome?;
        }
    }
    Ok(())
}

/// The service, when one was named.
async fn service(session: &Session, word: &str) -> Result<Option<Value>> {
    let Some((kind, name)) = word.split_once('/') else { return Ok(None) };
    let api = session.find(kind).await?;
    if api.resource.kind != "Service" || !api.resource.group.is_empty() {
        return Ok(None);
    }
    let object = session.client.get_object(&session.target(&api, name)).await;
    object.map(Some).map_err(|error| session.refused(error.into()))
}

/// The listeners on all addresses. With port 0 the first one chooses for all.
async fn listeners(addresses: &[String], port: u16) -> Result<Vec<TcpListener>> {
    let mut port = port;
    let mut out = Vec::new();
    for address in addresses {
        let ips: Vec<IpAddr> = match (address.as_str(), address.parse()) {
            ("localhost", _) => vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])],
            (_, Ok(ip)) => vec![ip],
            (_, Err(_)) => return message(format!("{address} is not a valid IP")),
        };
        let mut heard = false;
        let mut why = None;
        for ip in ips {
            match TcpListener::bind(SocketAddr::new(ip, port)).await {
                Ok(listener) => {
                    port = listener.local_addr()?.port();
                    heard = true;
                    out.push(listener);
                }
                // Machines without IPv6 are well served by the other one.
                Err(error) => why = Some(error),
            }
        }
        if let Some(error) = why.filter(|_| !heard) {
            return message(format!("unable to listen on port {port}: {error}"));
        }
    }
    Ok(out)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

async fn accept(listener: TcpListener, target: Target) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let local = listener.local_addr()?.port();
        say(&format!("Handling connection for {local}"))?;
        let target = target.clone();
        connections.spawn(async move {
            if let Err(error) = forward(stream, &target).await {
                eprintln!("error: an error occurred forwarding {local} -> {}: {error}", target.remote);
            }
        });
    }
}

/// Carries one connection.
async fn forward(mut stream: TcpStream, target: &Target) -> Result<()> {
    let mut forwarder = target.pods.portforward(&target.name, &[target.remote]).await?;
    let Some(mut inside) = forwarder.take_stream(target.remote) else { return Ok(()) };
    let why = forwarder.take_error(target.remote);
    let told = async {
        match why {
            Some(why) => why.await,
            None => None,
        }
    };
    tokio::pin!(told);
    let early = {
        let carried = tokio::io::copy_bidirectional(&mut stream, &mut inside);
        tokio::pin!(carried);
        tokio::select! {
            biased;
            why = &mut told => {
                if why.is_none() {
                    // The connection has ended; what came before is still under way.
                    carried.await?;
                }
                Some(why)
            }
            carried = &mut carried => {
                carried?;
                None
            }
        }
    };
    drop(inside);
    let why = match early {
        Some(why) => why,
        None => told.await,
    };
    why.map_or(Ok(()), |why| Err(Error::Message(why)))
}

// === impl Pair ===

impl FromStr for Pair {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pair> {
        let invalid = || Error::Message(format!("invalid port format '{text}'"));
        let (local, remote) = text.split_once(':').map_or((None, text), |(local, rest)| (Some(local), rest));
        let usable = !remote.is_empty() && !remote.contains(':') && remote != "0";
        let local = match local {
            None => None,
            Some("") => Some(0),
            Some(port) => Some(port.parse().map_err(|_| invalid())?),
        };
        if usable { Ok(Pair { local, remote: remote.to_owned() }) } else { Err(invalid()) }
    }
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn number(value: &Value, pointer: &str) -> Option<u16> {
    value.pointer(pointer).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())
}

/// A port of a pod, by number or by the name that a container gives it.
fn of_pod(pod: &Value, port: &str) -> Result<u16> {
    if let Ok(port) = port.parse() {
        return Ok(port);
    }
    let mut named = list(pod, "/spec/containers").flat_map(|container| list(container, "/ports"));
    let found = named.find(|declared| text_at(declared, "/name") == port);
    match found.and_then(|declared| number(declared, "/containerPort")) {
        Some(port) => Ok(port),
        None => {
            message(format!("Pod '{}' does not have a named port '{port}'", text_at(pod, "/metadata/name")))
        }
    }
}

/// The pod's port behind a port of a service, by number or name.
fn of_service(service: &Value, pod: &Value, port: &str) -> Result<u16> {
    let is_meant = |declared: &&Value| {
        text_at(declared, "/name") == port
            || number(declared, "/port").is_some_and(|known| port.parse() == Ok(known))
    };
    let Some(declared) = list(service, "/spec/ports").find(is_meant) else {
        let name = text_at(service, "/metadata/name");
        return message(format!("Service {name} does not have a service port {port}"));
    };
    match declared.pointer("/targetPort") {
        Some(Value::String(name)) => of_pod(pod, name),
        _ if text_at(service, "/spec/clusterIP") == "None" => match number(declared, "/port") {
            Some(port) => Ok(port),
            None => of_pod(pod, port),
        },
        _ => match number(declared, "/targetPort").or(number(declared, "/port")) {
            Some(port) => Ok(port),
            None => of_pod(pod, port),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(Option<u16>, &str)>) {
        let found: Option<Pair> = text.parse().ok();
        assert_eq!(
            found,
            expected.map(|(local, remote)| Pair { local, remote: remote.to_owned() }),
            "{text}"
        );
    }

    #[test]
    fn pairs_are_read() {
        check("80", Some((None, "80")));
        check("8080:80", Some((Some(8080), "80")));
        check(":80", Some((Some(0), "80")));
        check("8080:http", Some((Some(8080), "http")));
        check("http", Some((None, "http")));
        check("x:80", None);
        check("70000:80", None);
        check("80:", None);
        check("1:2:3", None);
        check("0", None);
    }

    #[test]
    fn services_lead_to_ports_of_pods() {
        let pod = json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.9", "ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "plain", "port": 81, "targetPort": 9090}]}});
        let port = |name: &str| of_service(&service, &pod, name).ok();
        assert_eq!((port("80"), port("web"), port("81")), (Some(8080), Some(8080), Some(9090)));
        assert_eq!(port("82"), None);
        assert_eq!((of_pod(&pod, "http").ok(), of_pod(&pod, "7").ok()), (Some(8080), Some(7)));
        assert!(of_pod(&pod, "nothing").is_err());
    }
}
