//! The keys of issuers outside the cluster: fetched when the server starts, now and then, and when a token was signed with a
//! key that is not known.

use std::{
    io::{self, Error},
    sync::Arc,
    time::{Duration, Instant},
};

use apiserver_core::User;
use apiserver_core::authn::oidc::{IdTokenError, Issuer, claimed_issuer, keys::KeySet};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// How often keys are fetched when nothing asks for newer ones.
const REFRESH: Duration = Duration::from_secs(3600);
/// How soon they are tried again while there are none.
const RETRY: Duration = Duration::from_secs(5);
/// Tokens with unknown keys make the server ask at most this often.
const MIN_PAUSE: Duration = Duration::from_secs(10);
/// An issuer may take this long to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// No document of an issuer is larger.
const MAX_DOCUMENT: usize = 1 << 20;

/// The issuers whose tokens are accepted.
#[derive(Default)]
pub(crate) struct Issuers(Vec<Arc<Known>>);

/// An issuer, and what is known of its keys.
struct Known {
    issuer: Issuer,
    tls: TlsConnector,
    keys: ArcSwapOption<KeySet>,
    /// When they were last asked for.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// Why an issuer's server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The certificates of those who vouch for it cannot be read.
    #[error("the certificates for the issuer {0} cannot be read")]
    Authority(String),
    /// TLS cannot be configured.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

// === impl Issuers ===

impl Issuers {
    /// Issuers whose keys are not known yet.
    ///
    /// # Errors
    /// When the certificates for one of them cannot be read.
    pub(crate) fn new(issuers: Vec<Issuer>) -> Result<Issuers, IssuerError> {
        let known = issuers.into_iter().map(|issuer| Known::new(issuer).map(Arc::new));
        known.collect::<Result<_, _>>().map(Issuers)
    }

    fn of(&self, token: &str) -> Option<&Arc<Known>> {
        if self.0.is_empty() {
            return None;
        }
        let url = claimed_issuer(token)?;
        self.0.iter().find(|known| known.issuer.url == url)
    }

    /// The user that a token proves; `None` when it is of none of these issuers.
    pub(crate) fn authenticate(&self, token: &str, now: Timestamp) -> Option<Result<User, IdTokenError>> {
        let known = self.of(token)?;
        Some(
            known
                .keys
                .load()
                .as_ref()
                .map_or(Err(IdTokenError::NoKeys), |keys| known.issuer.verify(token, keys, now)),
        )
    }

    /// Asks for newer keys when a token was signed with none that is known. Returns whether there are any.
    pub(crate) async fn learn(&self, token: &str, now: Timestamp) -> bool {
        let unknown = matches!(
            self.authenticate(token, now),
            Some(Err(IdTokenError::UnknownKey | IdTokenError::NoKeys))
        );
        match self.of(token).filter(|_| unknown) {
            Some(known) => known.refresh().await,
            None => false,
        }
    }

    /// Keeps the keys of all issuers fresh until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let each = self.0.iter().map(|known| async {
            loop {
                known.refresh().await;
                let pause = if known.keys.load().is_some() { REFRESH } else { RETRY.max(MIN_PAUSE) };
                tokio::time::sleep(pause).await;
            }
        });
        tokio::select! {
            _ = futures::future::join_all(each) => {}
            () = stop.cancelled() => {}
        }
    }
}

// === impl Known ===

impl Known {
    fn new(issuer: Issuer) -> Result<Known, IssuerError> {
        let unreadable = || IssuerError::Authority(issuer.url.clone());
        let mut roots = RootCertStore::empty();
        match &issuer.authority {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots.add(certificate.map_err(|_| unreadable())?)?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err(unreadable());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Known {
            issuer,
            tls: TlsConnector::from(Arc::new(config)),
            keys: ArcSwapOption::empty(),
            asked: tokio::sync::Mutex::new(None),
        })
    }

    /// Asks for the keys, unless that was done a moment ago. Returns whether they are other ones now.
    async fn refresh(&self) -> bool {
        let before = self.keys.load_full();
        let mut asked = self.asked.lock().await;
        // Somebody else may have asked while this one waited.
        if asked.is_some_and(|asked| asked.elapsed() < MIN_PAUSE) {
            return self.keys.load_full() != before;
        }
        *asked = Some(Instant::now());
        let fetched = tokio::time::timeout(DEADLINE, self.fetch()).await;
        match fetched.unwrap_or_else(|_| Err(Error::other("it did not answer in time"))) {
            Ok(keys) => self.keys.store(Some(Arc::new(keys))),
            Err(error) => {
                tracing::warn!(issuer = self.issuer.url, %error, "cannot get the keys of an issuer of ID tokens");
            }
        }
        self.keys.load_full() != before
    }

    async fn fetch(&self) -> io::Result<KeySet> {
        let own = format!("{}/.well-known/openid-configuration", self.issuer.url.trim_end_matches('/'));
        let discovery = self.get(self.issuer.discovery_url.as_deref().unwrap_or(&own)).await?;
        if discovery["issuer"].as_str() != Some(&self.issuer.url) {
            let found = &discovery["issuer"];
            return Err(Error::other(format!("its discovery document is of another issuer: {found}")));
        }
        let uri = discovery["jwks_uri"].as_str().ok_or_else(|| Error::other("it tells of no keys"))?;
        Ok(KeySet::parse(&self.get(uri).await?))
    }

    async fn get(&self, url: &str) -> io::Result<Value> {
        let uri: Uri = url.parse().map_err(Error::other)?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or_else(|| Error::other(format!("{url:?} is not an https URL")))?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = TcpStream::connect((name.as_str(), uri.port_u16().unwrap_or(443))).await?;
        let stream = self.tls.connect(ServerName::try_from(name).map_err(Error::other)?, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::other)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(Error::other)?;
        let asked = async {
            let response = sender.send_request(request).await.map_err(Error::other)?;
            if response.status() != StatusCode::OK {
                return Err(Error::other(format!("{url} answers {}", response.status())));
            }
            let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
            let body = body.map_err(|error| Error::other(error.to_string()))?.to_bytes();
            serde_json::from_slice(&body).map_err(Error::other)
        };
        // The connection moves only while it is polled, and ends with the answer.
        tokio::pin!(asked, connection);
        tokio::select! {
            answer = &mut asked => answer,
            ended = &mut connection => match ended {
                Ok(()) => asked.await,
                Err(error) => Err(Error::other(error)),
            },
        }
    }
}
