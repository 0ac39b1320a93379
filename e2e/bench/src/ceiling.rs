//! The ceiling: a bare axum and rustls server that answers with constant bytes. What Orlop adds to it is what it costs.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::routing::{get, post};
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

use crate::target::Target;

/// As long as a ConfigMap with 1 KiB of data is when the API server answers with it.
const OBJECT_BYTES: usize = 1200;
/// A list of 1,000 of them.
const LIST_OBJECTS: usize = 1000;

#[derive(Clone)]
struct Constant {
    object: Bytes,
    list: Bytes,
    line: Bytes,
    notify: broadcast::Sender<()>,
}

/// The server as a process of its own, so that its CPU seconds stand alone.
pub struct Ceiling {
    child: Child,
    /// Where it listens.
    pub target: Target,
}

impl Ceiling {
    /// Starts this executable again as the constant server.
    pub async fn start(folder: &Path) -> Result<Ceiling> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["ceiling-server", "--folder", &folder.to_string_lossy()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().context("the ceiling server ended at once")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let address = BufReader::new(stdout)
            .lines()
            .next_line()
            .await?
            .context("the ceiling server said no address")?;
        let authority = std::fs::read(folder.join("ceiling.crt"))?;
        Ok(Ceiling { child, target: Target::new(address, pid, &authority, None)? })
    }

    /// Ends the server.
    pub async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("stopping the ceiling server")
    }
}

/// Serves until the process is ended. Prints its address first.
pub async fn serve(folder: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?.self_signed(&key)?;
    std::fs::write(folder.join("ceiling.crt"), certificate.pem())?;
    let mut tls =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?,
            )?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let router = router();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            // A client that goes away ends its connection; there is nobody to tell.
            if let Ok(stream) = acceptor.accept(stream).await {
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            }
        });
    }
}

fn router() -> Router {
    let object = vec![b'x'; OBJECT_BYTES];
    let mut line = object.clone();
    line.push(b'\n');
    let constant = Constant {
        list: object.repeat(LIST_OBJECTS).into(),
        object: object.into(),
        line: line.into(),
        notify: broadcast::channel(1 << 16).0,
    };
    Router::new()
        .route("/object", get(async |State(constant): State<Constant>| constant.object))
        .route("/object", post(accept))
        .route("/list", get(async |State(constant): State<Constant>| constant.list))
        .route("/watch", get(watch))
        .with_state(constant)
}

async fn accept(State(constant): State<Constant>, _body: Bytes) -> Bytes {
    // Nobody watches in most runs.
    constant.notify.send(()).ok();
    constant.object
}

async fn watch(State(constant): State<Constant>) -> Body {
    let notified = futures::stream::unfold(constant.notify.subscribe(), |mut receiver| async move {
        receiver.recv().await.ok().map(|()| ((), receiver))
    });
    let line = constant.line;
    Body::from_stream(notified.map(move |()| Ok::<_, std::convert::Infallible>(line.clone())))
}
