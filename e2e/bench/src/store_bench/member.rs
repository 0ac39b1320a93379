//! One member of the store as a process of its own, so that its CPU seconds stand alone and it can be killed.

use std::path::PathBuf;

use anyhow::{Context, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use store::{Key, Options, PEER_PROTOCOL, PeerId, Start, Store};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::cork;
use super::kv::Service;
use super::pki::{Mutual, acceptor};
use super::wire::kv_server::KvServer;

/// How a member is started.
#[derive(clap::Args)]
pub struct Arguments {
    /// Its id.
    #[arg(long)]
    id: u64,
    /// Where its data lives.
    #[arg(long)]
    data: PathBuf,
    /// Where the certificates are.
    #[arg(long)]
    pki: PathBuf,
    /// Where its peers reach it.
    #[arg(long)]
    peer: String,
    /// Where clients reach it.
    #[arg(long)]
    client: String,
    /// The log grows at least this large before a checkpoint.
    #[arg(long)]
    checkpoint_log_bytes: Option<u64>,
}

/// Serves until the process is ended. Takes lines of `add NAME ADDRESS`; tells ids and leaders.
pub async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { id, data, pki, peer, client, checkpoint_log_bytes } = arguments;
    let name = format!("member-{id}");
    let mut options = Options::new(data, Key::new(1, [7; 32]));
    options.member = id;
    options.start = match id {
        1 => Start::First { name: name.clone(), address: peer.clone() },
        _ => Start::Join { name: name.clone(), address: peer.clone() },
    };
    options.peers = Some(std::sync::Arc::new(Mutual::new(&pki, &name)?));
    options.checkpoint_log_bytes = checkpoint_log_bytes.unwrap_or(options.checkpoint_log_bytes);
    let (peers, clients) = (TcpListener::bind(&peer).await?, TcpListener::bind(&client).await?);
    let store = Store::open(options)?;
    let tls = acceptor(&pki, &name)?;
    tokio::spawn(serve_peers(peers, tls.clone(), store.clone()));
    tokio::spawn(serve_clients(clients, tls, store.clone()));
    let mut leadership = store.leadership();
    tokio::spawn(async move {
        loop {
            let now = *leadership.borrow_and_update();
            println!("leader {}", now.leader.unwrap_or(0));
            if leadership.changed().await.is_err() {
                return;
            }
        }
    });
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(tokio::io::stdin()));
    while let Some(line) = lines.next_line().await? {
        let (name, address) = line.split_once(' ').context("a name and an address")?;
        println!("added {}", store.add_member(name, address).await?);
    }
    store.close().await;
    Ok(())
}

async fn serve_clients(listener: TcpListener, tls: TlsAcceptor, store: Store) {
    let service = KvServer::new(Service(store));
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, service) = (tls.clone(), service.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(stream) = tls.accept(stream).await else { return };
            let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let serving = http.timer(TokioTimer::new());
            let service = TowerToHyperService::new(service);
            // How a connection ends is its client's business.
            let _ =
                cork::serve(stream, |stream| serving.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

async fn serve_peers(listener: TcpListener, tls: TlsAcceptor, store: Store) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, store) = (tls.clone(), store.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(stream) = tls.accept(stream).await else { return };
            let certificates = stream.get_ref().1.peer_certificates();
            let peer = certificates.and_then(|chain| member_of(chain.first()?));
            if let (Some(peer), Some(PEER_PROTOCOL)) = (peer, stream.get_ref().1.alpn_protocol()) {
                return store.take_stream(peer, stream.into());
            }
            let service = store.peer_service();
            let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                service.clone().oneshot(request)
            });
            let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let serving = http.timer(TokioTimer::new());
            // How a connection ends is its client's business.
            let _ = serving.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The member that a certificate of the bench's own authority names.
fn member_of(certificate: &[u8]) -> Option<PeerId> {
    let is_named = |id: &u64| {
        let name = format!("member-{id}");
        certificate.windows(name.len()).any(|part| part == name.as_bytes())
    };
    (1..=3).find(is_named).map(PeerId)
}
