//! The agent's end of the tunnel: it dials the server, listens for sessions and serves them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use nodeagent_core::pod;
use nodeagent_core::runtime::{
    ContainerState, ContainerStatus, ExecConfig, RuntimeError, Session, SessionInput, SessionOutput,
};
use proto::tunnel::{Exit, Failure, Frame, Hello, Open, frame, open, tunnel_client::TunnelClient};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream_of::receiver;
use tokio_util::task::AbortOnDropHandle;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::agent::TunnelConfig;
use crate::driver::PodHandle;
use crate::pods::Pods;
use crate::{api, sockets};

mod logs;

const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const DIAL: Duration = Duration::from_secs(20);
/// How much of a connection is read at once.
const CHUNK: usize = 32 * 1024;
/// How long the server may take to end its side of a session.
const DRAIN: Duration = Duration::from_secs(30);

type Frames = mpsc::Sender<Frame>;

/// A stream of what comes out of a channel.
mod tokio_stream_of {
    use futures::Stream;
    use tokio::sync::mpsc;

    pub(super) fn receiver<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
        futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|item| (item, receiver))
        })
    }
}

/// Why a session fails: an HTTP status and a message for people.
struct Refusal(u32, String);

// === the connection ===

fn tls(config: &TunnelConfig) -> Result<TlsConnector, Box<dyn std::error::Error + Send + Sync>> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let (authority, certificate, key) =
        (read(&config.authority)?, read(&config.certificate)?, read(&config.key)?);
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut authority.as_slice()) {
        roots.add(certificate?)?;
    }
    let chain =
        rustls_pemfile::certs(&mut certificate.as_slice()).collect::<Result<Vec<CertificateDer>, _>>()?;
    let key: PrivateKeyDer =
        rustls_pemfile::private_key(&mut key.as_slice())?.ok_or("the node has no private key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(client)))
}

async fn connect(config: &TunnelConfig) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
    let connector = tls(config)?;
    let name = ServerName::try_from(config.server_name.clone())?;
    let address = config.address.clone();
    // The scheme is plain because TLS is laid by the connector.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .http2_keep_alive_interval(SIGN_OF_LIFE)
        .keep_alive_while_idle(true);
    let connect = tower::service_fn(move |_: http::Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    Ok(endpoint.connect_with_connector(connect).await?)
}

/// Keeps a tunnel to each of the servers until the task is dropped.
pub(crate) async fn keep_all(mut servers: watch::Receiver<Vec<TunnelConfig>>, pods: Arc<Pods>) {
    let mut tunnels: HashMap<TunnelConfig, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        let wanted = servers.borrow_and_update().clone();
        tunnels.retain(|server, _| wanted.contains(server));
        for server in wanted {
            tunnels.entry(server).or_insert_with_key(|server| {
                AbortOnDropHandle::new(tokio::spawn(keep(server.clone(), pods.clone())))
            });
        }
        if servers.changed().await.is_err() {
            // They will not change any more.
            return std::future::pending().await;
        }
    }
}

/// Keeps a tunnel to one server until the task is dropped.
async fn keep(config: TunnelConfig, pods: Arc<Pods>) {
    let mut pause = Duration::from_millis(100);
    loop {
        match connect(&config).await {
            Ok(channel) => {
                pause = Duration::from_millis(100);
                if let Err(status) = listen(channel, &pods).await {
                    tracing::debug!(server = config.address, %status, "the tunnel ended");
                }
            }
            Err(error) => tracing::debug!(server = config.address, error, "no tunnel"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn listen(channel: Channel, pods: &Arc<Pods>) -> Result<(), tonic::Status> {
    let node = pods.node.config.node_name.clone();
    let hellos = futures::stream::unfold(true, move |first| {
        let node = node.clone();
        async move {
            if !first {
                tokio::time::sleep(SIGN_OF_LIFE).await;
            }
            Some((Hello { node }, false))
        }
    });
    let mut client = TunnelClient::new(channel);
    let mut opens = client.listen(Request::new(hellos)).await?.into_inner();
    while let Some(open) = opens.message().await? {
        let (client, pods) = (client.clone(), pods.clone());
        tokio::spawn(async move {
            if let Err(status) = session(client, open, pods).await {
                tracing::debug!(%status, "a session ended");
            }
        });
    }
    Ok(())
}

async fn session(
    mut client: TunnelClient<Channel>,
    open: Open,
    pods: Arc<Pods>,
) -> Result<(), tonic::Status> {
    let (frames, out) = mpsc::channel(16);
    let mut request = Request::new(receiver(out));
    request.metadata_mut().insert("orlop-session", open.session.into());
    let mut incoming = client.session(request).await?.into_inner();
    let (inbound, frames_in) = mpsc::channel(16);
    // Read to its end, also when nobody listens any more: dropped earlier, the stream is reset and loses what was sent.
    let relay = tokio::spawn(async move {
        while let Ok(Some(frame)) = incoming.message().await {
            // An error means that the request has ended.
            let _ = inbound.send(frame).await;
        }
    });
    if let Err(Refusal(code, message)) = serve_request(open.request, frames_in, &frames, &pods).await {
        send(&frames, frame::Frame::Failure(Failure { code, message })).await;
    }
    drop(frames);
    if tokio::time::timeout(DRAIN, relay).await.is_err() {
        tracing::debug!("the server did not end a session");
    }
    Ok(())
}

async fn send(frames: &Frames, frame: frame::Frame) -> bool {
    frames.send(Frame { frame: Some(frame) }).await.is_ok()
}

// === the requests ===

async fn serve_request(
    request: Option<open::Request>,
    incoming: mpsc::Receiver<Frame>,
    frames: &Frames,
    pods: &Arc<Pods>,
) -> Result<(), Refusal> {
    let netns = pods.node.config.netns.as_deref();
    match request {
        Some(open::Request::Exec(exec)) => {
            let (_, status) = running(pods, &exec.namespace, &exec.pod, &exec.uid, &exec.container)?;
            let config = ExecConfig { command: exec.command, stdin: exec.stdin, tty: exec.tty };
            let session = pods.node.runtime.exec(&status.id, config).await.map_err(refuse)?;
            interact(session, incoming, frames).await
        }
        Some(open::Request::Attach(attach)) => {
            let (_, status) = running(pods, &attach.namespace, &attach.pod, &attach.uid, &attach.container)?;
            let session = pods.node.runtime.attach(&status.id).await.map_err(refuse)?;
            interact(session, incoming, frames).await
        }
        Some(open::Request::Logs(request)) => logs::read(pods, request, incoming, frames).await,
        Some(open::Request::Dial(dial)) => {
            let ip: IpAddr = dial
                .address
                .parse()
                .map_err(|_| Refusal(400, format!("{:?} is not an address", dial.address)))?;
            let port = u16::try_from(dial.port).map_err(|_| Refusal(400, "invalid port".into()))?;
            carry(sockets::connect(netns, SocketAddr::new(ip, port), DIAL).await, incoming, frames).await
        }
        Some(open::Request::PortForward(forward)) => {
            let handle = pods
                .find(&forward.namespace, &forward.pod, &forward.uid)
                .ok_or_else(|| not_found(&forward.pod))?;
            let port = u16::try_from(forward.port).map_err(|_| Refusal(400, "invalid port".into()))?;
            carry(Ok(connect_inside(pods, &handle, port).await?), incoming, frames).await
        }
        Some(open::Request::Node(_)) => {
            let (ours, theirs) = tokio::io::duplex(CHUNK);
            let _serving = AbortOnDropHandle::new(tokio::spawn(api::serve(theirs, pods.clone())));
            carry(Ok(ours), incoming, frames).await
        }
        None => Err(Refusal(501, "the agent does not know this request".into())),
    }
}

fn not_found(pod: &str) -> Refusal {
    Refusal(404, format!("pods \"{pod}\" not found on this node"))
}

fn refuse(error: RuntimeError) -> Refusal {
    match error {
        RuntimeError::NotFound { .. } => Refusal(404, error.to_string()),
        error => Refusal(500, error.to_string()),
    }
}

fn default_container(of: &k8s_openapi::api::core::v1::Pod, named: &str) -> String {
    let first = pod::spec(of).containers.first().map(|it| it.name.clone()).unwrap_or_default();
    if named.is_empty() { first } else { named.to_owned() }
}

fn running(
    pods: &Pods,
    namespace: &str,
    name: &str,
    uid: &str,
    container: &str,
) -> Result<(PodHandle, ContainerStatus), Refusal> {
    let handle = pods.find(namespace, name, uid).ok_or_else(|| not_found(name))?;
    let container = default_container(&handle.pod(), container);
    let status = {
        let machine = handle.machine();
        machine.instances(&container).and_then(|(current, _)| current.cloned())
    };
    match status {
        Some(status) if matches!(status.state, ContainerState::Running { .. }) => Ok((handle, status)),
        _ => Err(Refusal(500, format!("container not found (\"{container}\")"))),
    }
}

async fn interact(
    session: Session,
    mut incoming: mpsc::Receiver<Frame>,
    frames: &Frames,
) -> Result<(), Refusal> {
    send(frames, frame::Frame::Ready(true)).await;
    let Session { mut input, mut output } = session;
    let feed = async move {
        while let Some(Frame { frame }) = incoming.recv().await {
            let item = match frame {
                Some(frame::Frame::Stdin(bytes)) => SessionInput::Stdin(bytes.into()),
                Some(frame::Frame::CloseStdin(_)) => SessionInput::CloseStdin,
                Some(frame::Frame::Resize(size)) => SessionInput::Resize {
                    width: u16::try_from(size.width).unwrap_or(u16::MAX),
                    height: u16::try_from(size.height).unwrap_or(u16::MAX),
                },
                _ => continue,
            };
            if input.send(item).await.is_err() {
                // The process listens no more; what it still has to say comes by the output.
                std::future::pending::<()>().await;
            }
        }
    };
    let say = async {
        while let Some(item) = output.next().await {
            let (frame, last) = match item {
                Ok(SessionOutput::Stdout(bytes)) => (frame::Frame::Stdout(bytes.into()), false),
                Ok(SessionOutput::Stderr(bytes)) => (frame::Frame::Stderr(bytes.into()), false),
                Ok(SessionOutput::Exit(code)) => (frame::Frame::Exit(Exit { code }), true),
                Err(error) => return Err(refuse(error)),
            };
            if !send(frames, frame).await || last {
                break;
            }
        }
        Ok(())
    };
    // Whoever is first: the process has ended, or nobody is there any more whom it could talk to. An end of the standard
    // input alone comes as a frame. Dropping the session hangs up a terminal and closes the standard input of others.
    tokio::select! {
        biased;
        result = say => result,
        () = feed => Ok(()),
        () = frames.closed() => Ok(()),
    }
}

/// Connects to a port of a pod, from inside its network namespace: also what listens on the loopback only is reached.
async fn connect_inside(pods: &Pods, handle: &PodHandle, port: u16) -> Result<TcpStream, Refusal> {
    let of = handle.pod();
    let sandboxes = pods.node.runtime.list_sandboxes().await.map_err(refuse)?;
    let sandbox = sandboxes
        .into_iter()
        .filter(|it| it.ready && it.pod_uid == pod::uid(&of))
        .max_by_key(|it| it.attempt)
        .ok_or_else(|| Refusal(500, format!("failed to find sandbox of pod {}", pod::name(&of))))?;
    let netns = pods.node.runtime.network_namespace(&sandbox.id).await.map_err(refuse)?;
    let dial = |ip: IpAddr| sockets::connect(netns.as_deref(), SocketAddr::new(ip, port), DIAL);
    let first = match dial(Ipv4Addr::LOCALHOST.into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    dial(Ipv6Addr::LOCALHOST.into()).await.map_err(|second| {
        let inside = &sandbox.id.0;
        Refusal(
            502,
            format!(
                "failed to connect to localhost:{port} inside namespace {inside:?}, IPv4: {first} IPv6: {second}"
            ),
        )
    })
}

/// Carries a connection until the server lets go of the session or the connection fails. Each direction ends by itself.
async fn carry(
    stream: std::io::Result<impl AsyncRead + AsyncWrite>,
    mut incoming: mpsc::Receiver<Frame>,
    frames: &Frames,
) -> Result<(), Refusal> {
    let stream = stream.map_err(|error| Refusal(502, error.to_string()))?;
    send(frames, frame::Frame::Ready(true)).await;
    let (mut read, mut write) = tokio::io::split(stream);
    let inbound = async move {
        let mut open = true;
        while let Some(Frame { frame }) = incoming.recv().await {
            match frame {
                // What nobody takes any more is dropped: the other direction may still have something to say.
                Some(frame::Frame::Data(bytes)) if open => open = write.write_all(&bytes).await.is_ok(),
                Some(frame::Frame::End(_)) if open => {
                    open = false;
                    // Fails only when the other side is gone, which reading tells.
                    let _ = write.shutdown().await;
                }
                _ => {}
            }
        }
    };
    let outbound = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            match read.read(&mut chunk).await {
                Ok(0) => break,
                Ok(count) => {
                    if !send(frames, frame::Frame::Data(chunk[..count].to_vec())).await {
                        return Ok(());
                    }
                }
                Err(error) => return Err(Refusal(502, error.to_string())),
            }
        }
        send(frames, frame::Frame::End(true)).await;
        // The server may still have something to say.
        std::future::pending().await
    };
    tokio::select! {
        result = outbound => result,
        () = inbound => Ok(()),
        () = frames.closed() => Ok(()),
    }
}

// === TLS of probes ===

/// A TLS connection whose certificate is not looked at, as probes make it.
pub(crate) async fn tls_without_check(
    stream: TcpStream,
    ip: IpAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(client)).connect(ServerName::IpAddress(ip.into()), stream).await
}

/// Takes any certificate: a probe asks whether someone answers, not who.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
