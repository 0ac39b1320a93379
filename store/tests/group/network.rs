//! Members on loopback: a CA of their own, a port each, and mutual TLS between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::slow_disk::{self, Delay};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use store::{Connector, DiskLayer, Key, Options, PEER_PROTOCOL, PeerId, PeerTls, Start, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// Issues the members' certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A member that runs in this process.
pub struct Member {
    pub store: Store,
    server: JoinHandle<()>,
}

struct Mutual {
    config: Arc<ClientConfig>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn issue(&self, id: u64) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec![format!("member-{id}"), "localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("member-{id}"));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![certificate.der().clone()], key.into())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }

    pub fn connector(&self, id: u64) -> Arc<dyn Connector> {
        let (chain, key) = self.issue(id);
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap();
        Arc::new(Mutual { config: Arc::new(config) })
    }

    fn acceptor(&self, id: u64) -> TlsAcceptor {
        let (chain, key) = self.issue(id);
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), PEER_PROTOCOL.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Connector for Mutual {
    fn tls(&self) -> std::io::Result<PeerTls> {
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        Ok(PeerTls { config: ClientConfig::clone(&self.config), name })
    }
}

/// The id that a certificate names.
fn member_of(certificate: &CertificateDer<'_>, members: u64) -> Option<u64> {
    (1..=members).find(|id| {
        let name = format!("member-{id}");
        certificate.windows(name.len()).any(|part| part == name.as_bytes())
    })
}

impl Member {
    /// Opens a member whose server listens on `address`.
    pub async fn start(
        authority: &Authority,
        id: u64,
        dir: PathBuf,
        address: String,
        start: Start,
        disk_layer: Option<DiskLayer>,
    ) -> Self {
        let mut options = Options::new(dir, Key::new(id, [id as u8; 32])).on_fatal(|error| {
            println!("{error}");
        });
        options.member = id;
        options.start = start;
        options.disk_layer = disk_layer;
        options.peers = Some(authority.connector(id));
        options.checkpoint_log_bytes = 100_000;
        let listener = TcpListener::bind(&address).await.unwrap();
        let store = Store::open(options).unwrap();
        let server = tokio::spawn(serve(listener, authority.acceptor(id), store.clone()));
        Self { store, server }
    }

    /// Closes the store while its peers can still reach it, and then its server.
    pub async fn stop(self) {
        self.store.close().await;
        self.server.abort();
        // It was aborted.
        let _ = self.server.await;
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, store: Store) {
    // Ends its connections with itself.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (acceptor, store) = (acceptor.clone(), store.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let peer = certificate.and_then(|certificate| member_of(certificate, 9)).map(PeerId);
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
            http.timer(TokioTimer::new());
            // How a connection ends is its client's business.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Addresses on loopback that were free a moment ago.
pub async fn addresses(count: usize) -> Vec<String> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// A group of three, by id.
pub struct Three {
    pub authority: Authority,
    pub members: BTreeMap<u64, Member>,
    pub addresses: Vec<String>,
    /// How slow the members' disks are.
    pub delays: BTreeMap<u64, Delay>,
    dir: tempfile::TempDir,
    /// One group at a time: three members of several at once would elect again and again on a small machine.
    _serial: tokio::sync::MutexGuard<'static, ()>,
}

static SERIAL: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Three {
    pub async fn start() -> Self {
        let serial = SERIAL.lock().await;
        let mut three = Self {
            authority: Authority::new(),
            members: BTreeMap::new(),
            addresses: addresses(4).await,
            delays: BTreeMap::new(),
            dir: tempfile::tempdir().unwrap(),
            _serial: serial,
        };
        let first = Start::First { name: "member-1".into(), address: three.addresses[0].clone() };
        three.open(1, first).await;
        for id in 2..=3 {
            three.join(id).await;
        }
        three
    }

    pub async fn open(&mut self, id: u64, start: Start) {
        let address = self.addresses[id as usize - 1].clone();
        let dir = self.dir(id);
        let layer = slow_disk::layer(self.delays.entry(id).or_default().clone());
        let member = Member::start(&self.authority, id, dir, address, start, Some(layer)).await;
        self.members.insert(id, member);
    }

    pub fn start_of(&self, id: u64) -> Start {
        Start::Join { name: format!("member-{id}"), address: self.addresses[id as usize - 1].clone() }
    }

    pub async fn join(&mut self, id: u64) {
        let asked = self.members.values().next().unwrap();
        let added = asked.store.add_member(format!("member-{id}"), self.addresses[id as usize - 1].clone());
        assert_eq!(added.await, Ok(id));
        self.open(id, self.start_of(id)).await;
        self.until_voters(self.members.len()).await;
    }

    /// Waits until so many members vote, as each of them sees it.
    pub async fn until_voters(&self, count: usize) {
        for member in self.members.values() {
            loop {
                let members = member.store.members().await;
                if members.iter().filter(|member| member.role == store::Role::Voter).count() == count {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }

    pub fn dir(&self, id: u64) -> PathBuf {
        Path::new(self.dir.path()).join(id.to_string())
    }

    pub fn store(&self, id: u64) -> &Store {
        &self.members[&id].store
    }

    /// Who leads, once somebody does.
    pub async fn leader(&self) -> u64 {
        let mut leadership = self.members.values().next().unwrap().store.leadership();
        let known = leadership.wait_for(|now| now.leader.is_some_and(|id| self.members.contains_key(&id)));
        known.await.unwrap().leader.unwrap()
    }
}
