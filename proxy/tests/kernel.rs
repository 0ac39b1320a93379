//! The service rules in a real kernel: each test has a network namespace of its own, without any way out.

#![allow(clippy::unwrap_used, reason = "a test without the usual harness")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_server::proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType, rdata};
use k8s_openapi::api::core::v1::Service;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sched::{CloneFlags, unshare};
use proxy::{DataPlane, Network, Networks};
use proxy_core::names::Zone;
use proxy_core::services::{Backend, Frontend, Pool, Protocol, Selection, ServiceRules};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 11);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const POD_A: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
const POD_B: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn main() {
    let arguments = Arguments::from_args();
    let root = nix::unistd::geteuid().is_root();
    let trial = |name: &str, test: fn(Node) -> Result<(), Failed>| {
        let run = move || within_a_node(test);
        Trial::test(name, run).with_kind(if root { "" } else { "needs root" }).with_ignored_flag(!root)
    };
    let tests = vec![
        trial("a_service_address_leads_to_every_backend", spreads),
        trial("a_client_stays_with_its_backend", sticks),
        trial("an_address_without_backends_refuses", refuses),
        trial("a_node_port_leads_to_backends", node_port),
        trial("a_removed_udp_backend_hears_no_more", udp),
        trial("a_lost_table_is_rebuilt", rebuilds),
        trial("nothing_stays_behind", removes),
        trial("names_are_answered_here_or_upstream", names),
    ];
    libtest_mimic::run(&arguments, tests).exit();
}

/// A node with two pods' addresses on its loopback device.
struct Node {
    runtime: tokio::runtime::Runtime,
    data_plane: DataPlane,
}

impl Node {
    fn apply(&mut self, rules: ServiceRules) {
        self.runtime.block_on(self.data_plane.apply(vec![("default/web".to_owned(), rules)])).unwrap();
    }
}

fn networks() -> Networks {
    Networks { pods: "10.244.0.0/16".parse().unwrap(), services: "10.96.0.0/16".parse().unwrap(), dns: DNS }
}

/// Runs a test on a thread of its own; the namespace ends with it.
fn within_a_node(test: fn(Node) -> Result<(), Failed>) -> Result<(), Failed> {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let data_plane = runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            handle.link().set(rtnetlink::LinkUnspec::new_with_index(1).up().build()).execute().await?;
            for address in [NODE, POD_A, POD_B] {
                handle.address().add(1, IpAddr::V4(address), 32).execute().await?;
            }
            let own = Path::new("/proc/thread-self/ns/net");
            proxy::claim(own, networks().services, DNS, Some(NODE))
                .await
                .map_err(|error| format!("{error:?}"))?;
            let data_plane = DataPlane::open(None, networks())?;
            data_plane.install().await?;
            Ok::<_, Failed>(data_plane)
        })?;
        test(Node { runtime, data_plane })
    });
    thread.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
        Err(Failed::from(text))
    })
}

fn rules(protocol: Protocol, address: Ipv4Addr, backends: &[Ipv4Addr], selection: Selection) -> ServiceRules {
    let backends = backends.iter().map(|address| Backend { address: *address, port: 8080 }).collect();
    let pool = Pool { backends, selection, masquerade: address == ANY };
    let port = if address == ANY { 30080 } else { 80 };
    BTreeMap::from([(Frontend { address, protocol, port }, pool)])
}

/// Answers each connection with its own address.
fn serve(address: Ipv4Addr) {
    let listener = TcpListener::bind((address, 8080)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // A client that has gone fails its own test.
            let _ = stream.write_all(address.to_string().as_bytes());
        }
    });
}

fn ask(address: Ipv4Addr, port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(2))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn answers(address: Ipv4Addr, port: u16) -> BTreeSet<String> {
    (0..60).map(|_| ask(address, port).unwrap()).collect()
}

fn spreads(mut node: Node) -> Result<(), Failed> {
    serve(POD_A);
    serve(POD_B);
    node.apply(rules(Protocol::Tcp, VIP, &[POD_A, POD_B], Selection::Random));
    assert_eq!(answers(VIP, 80), BTreeSet::from([POD_A.to_string(), POD_B.to_string()]));
    node.apply(rules(Protocol::Tcp, VIP, &[POD_B], Selection::Random));
    assert_eq!(answers(VIP, 80), BTreeSet::from([POD_B.to_string()]));
    Ok(())
}

fn sticks(mut node: Node) -> Result<(), Failed> {
    serve(POD_A);
    serve(POD_B);
    node.apply(rules(Protocol::Tcp, VIP, &[POD_A, POD_B], Selection::ClientHash));
    assert_eq!(answers(VIP, 80).len(), 1);
    Ok(())
}

fn refuses(mut node: Node) -> Result<(), Failed> {
    for step in ["unclaimed", "claimed"] {
        let error = ask(VIP, 80).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{step}: {error}");
        node.apply(rules(Protocol::Tcp, VIP, &[], Selection::Random));
    }
    Ok(())
}

fn node_port(mut node: Node) -> Result<(), Failed> {
    serve(POD_A);
    node.apply(rules(Protocol::Tcp, ANY, &[POD_A], Selection::Random));
    assert_eq!(answers(NODE, 30080), BTreeSet::from([POD_A.to_string()]));
    Ok(())
}

fn udp(mut node: Node) -> Result<(), Failed> {
    let pods = [POD_A, POD_B].map(|address| UdpSocket::bind((address, 8080)).unwrap());
    let heard = |pod: &UdpSocket| {
        pod.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        pod.recv_from(&mut [0; 16]).is_ok()
    };
    let client = UdpSocket::bind((NODE, 0))?;
    client.connect((VIP, 80))?;
    node.apply(rules(Protocol::Udp, VIP, &[POD_A], Selection::Random));
    client.send(b"one")?;
    assert!(heard(&pods[0]));
    node.apply(rules(Protocol::Udp, VIP, &[POD_B], Selection::Random));
    client.send(b"two")?;
    assert!(heard(&pods[1]), "the flow was forgotten and found the new backend");
    assert!(!heard(&pods[0]));
    Ok(())
}

fn rebuilds(mut node: Node) -> Result<(), Failed> {
    serve(POD_A);
    node.apply(rules(Protocol::Tcp, VIP, &[POD_A], Selection::Random));
    node.runtime.block_on(node.data_plane.remove())?;
    let change = rules(Protocol::Tcp, VIP, &[POD_A, POD_B], Selection::Random);
    let refused = node.runtime.block_on(node.data_plane.apply(vec![("default/web".to_owned(), change)]));
    assert!(refused.is_err() && !node.data_plane.is_whole());
    node.apply(rules(Protocol::Tcp, VIP, &[POD_A], Selection::Random));
    assert_eq!(ask(VIP, 80)?, POD_A.to_string());
    Ok(())
}

/// Asks the cluster's DNS for addresses.
fn look_up(name: &str) -> (ResponseCode, Vec<String>) {
    let mut query = Message::query();
    query.queries.push(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let socket = UdpSocket::bind((NODE, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(&query.to_vec().unwrap(), (DNS, 53)).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    (answer.metadata.response_code, answer.answers.iter().map(|record| record.data.to_string()).collect())
}

/// A resolver that knows one address.
fn resolver() -> SocketAddr {
    let socket = UdpSocket::bind((NODE, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            let name = message.queries[0].name().clone();
            message.answers.push(Record::from_rdata(
                name,
                60,
                RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, 7))),
            ));
            socket.send_to(&message.to_vec().unwrap(), client).unwrap();
        }
    });
    address
}

fn names(node: Node) -> Result<(), Failed> {
    let service = |spec: &str| -> Service { serde_json::from_str(spec).unwrap() };
    let mut zone = Zone::new("cluster.local");
    let web = service(r#"{"spec":{"clusterIP":"10.96.0.7","ports":[{"port":80}]}}"#);
    zone.set("default", "web", Some((&web, &mut std::iter::empty())));
    let out = service(r#"{"spec":{"type":"ExternalName","externalName":"example.org"}}"#);
    zone.set("default", "out", Some((&out, &mut std::iter::empty())));
    let upstream = vec![resolver()];
    let entered = node.runtime.enter();
    let server = proxy::dns::serve(DNS, None, Arc::new(ArcSwap::from_pointee(zone)), upstream)?;
    drop(entered);
    let asked = std::thread::spawn(move || {
        let answers = ["web.default", "no.default", "out.default"]
            .map(|name| look_up(&format!("{name}.svc.cluster.local.")));
        let outside = look_up("example.org.");
        (answers, outside)
    });
    while !asked.is_finished() {
        node.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
    }
    let (answers, outside) = asked.join().map_err(|_| "a look-up failed")?;
    drop(server);
    let found =
        |code, addresses: &[&str]| (code, addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(answers[0], found(ResponseCode::NoError, &["10.96.0.7"]));
    assert_eq!(answers[1], found(ResponseCode::NXDomain, &[]));
    assert_eq!(answers[2], found(ResponseCode::NoError, &["example.org.", "192.0.2.7"]));
    assert_eq!(outside, found(ResponseCode::NoError, &["192.0.2.7"]));
    Ok(())
}

fn removes(mut node: Node) -> Result<(), Failed> {
    node.apply(rules(Protocol::Tcp, VIP, &[POD_A], Selection::Random));
    node.runtime.block_on(node.data_plane.remove())?;
    // Removing what is gone is no error.
    node.runtime.block_on(node.data_plane.remove())?;
    let inside: Network = "10.89.0.0/24".parse().unwrap();
    proxy::egress::install("orlop0", inside)?;
    assert!(proxy::egress::is_installed("orlop0")? && !proxy::egress::is_installed("orlop1")?);
    proxy::egress::remove("orlop0")?;
    proxy::egress::remove("orlop0")?;
    Ok(())
}
