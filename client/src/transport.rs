//! Carries requests: over the network by kube-client's stack, or inside the process straight into the API server's service.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use client_core::election::Held;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use jiff::Timestamp;
use kube::client::Body;
use tower::{BoxError, Service, ServiceExt};

use crate::Error;
use crate::servers::Network;

/// By this header a writer that was elected names its term.
const FENCE: HeaderName = HeaderName::from_static("orlop-fence");

/// What answers carry.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// No single answer is larger than this.
const ANSWER_LIMIT: usize = 256 << 20;

/// How long an answer to anything but a watch or stream may take.
const DEADLINE: Duration = Duration::from_secs(60);

type Carry =
    dyn Fn(Request<Body>) -> BoxFuture<'static, Result<Response<ResponseBody>, BoxError>> + Send + Sync;

/// A way to the API of one cluster, with one identity. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    way: Way,
    default_namespace: String,
    field_manager: Option<Arc<str>>,
    /// The value of [`FENCE`] that all writes carry.
    fence: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

#[derive(Clone)]
enum Way {
    /// By kube-client.
    Network(Arc<Network>),
    /// A function call.
    Process(Arc<Carry>),
}

// === impl Client ===

impl Client {
    /// A client whose requests are served by a service in the same process.
    ///
    /// `identify` runs on each request before it is handed over: it inserts the identity that the service trusts.
    pub fn in_process<S, B, F>(service: S, identify: F) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body_util::BodyExt<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        F: Fn(&mut http::Extensions) + Send + Sync + 'static,
    {
        let service = Mutex::new(service);
        let carry = move |mut request: Request<Body>| -> BoxFuture<'static, Result<Response<ResponseBody>, BoxError>> {
            identify(request.extensions_mut());
            let service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Box::pin(async move {
                let response = service.oneshot(request).await.map_err(Into::into)?;
                Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
            })
        };
        Self::over(Way::Process(Arc::new(carry)), "default".to_owned())
    }

    /// A client over the network. Must be called within a runtime.
    ///
    /// # Errors
    /// When the configuration names certificates or credentials that cannot be used.
    pub fn from_config(config: kube::Config) -> Result<Self, crate::ConnectError> {
        crate::connect::install_crypto();
        let namespace = config.default_namespace.clone();
        Ok(Self::over(Way::Network(Arc::new(Network::new(config)?)), namespace))
    }

    fn over(way: Way, default_namespace: String) -> Self {
        let inner = Inner { way, default_namespace, field_manager: None, user_agent: None, fence: None };
        Self { inner: Arc::new(inner) }
    }

    /// The same client, whose writes name this field manager.
    #[must_use]
    pub fn with_field_manager(&self, manager: &str) -> Self {
        let mut inner = Inner::clone(&self.inner);
        inner.field_manager = Some(Arc::from(manager));
        Self { inner: Arc::new(inner) }
    }

    /// The same client, whose writes the server refuses when the Lease that elected the writer has changed hands since:
    /// `held` says under which Lease and in which of its terms it writes.
    #[must_use]
    pub fn fenced(&self, held: &Held) -> Self {
        let mut inner = Inner::clone(&self.inner);
        // Names are plain text; one that is not would be refused as unknown.
        inner.fence = held.fence().parse().ok();
        Self { inner: Arc::new(inner) }
    }

    /// The same client, whose requests say that this program sends them. Writes that name no field manager are managed
    /// by it.
    #[must_use]
    pub fn with_user_agent(&self, program: &'static str) -> Self {
        let mut inner = Inner::clone(&self.inner);
        inner.user_agent = Some(HeaderValue::from_static(program));
        Self { inner: Arc::new(inner) }
    }

    /// Replaces the client certificate of this client and all its clones, and the authorities (PEM) that they accept. Requests under way are not disturbed; new ones
    /// use new connections. Does nothing to a client inside the process.
    ///
    /// # Errors
    /// When the certificate or key cannot be used; the old one stays.
    pub fn replace_identity(
        &self,
        ca_pem: &str,
        cert_pem: &str,
        key_pem: &str,
    ) -> Result<(), crate::ConnectError> {
        match &self.inner.way {
            Way::Network(network) => {
                let identity = crate::connect::certificate_auth(cert_pem, key_pem)?;
                network.replace_identity(identity, Some(crate::connect::authorities(ca_pem)?))
            }
            Way::Process(_) => Ok(()),
        }
    }

    /// A client of its own, to the servers that this one knows now, that proves itself by a bearer token alone. See
    /// [`Client::replace_token`] for its renewal. Must be called within a runtime.
    ///
    /// # Errors
    /// [`ConnectError::InProcess`](crate::ConnectError::InProcess) inside the process; when the token cannot be used.
    pub fn with_token(&self, token: &str) -> Result<Self, crate::ConnectError> {
        let Way::Network(network) = &self.inner.way else { return Err(crate::ConnectError::InProcess) };
        let network = network.with_identity(crate::connect::token_auth(token)?)?;
        let mut inner = Inner::clone(&self.inner);
        inner.way = Way::Network(Arc::new(network));
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Replaces the bearer token of this client and all its clones. Requests under way are not disturbed.
    ///
    /// # Errors
    /// As [`Client::with_token`]; the old one stays.
    pub fn replace_token(&self, token: &str) -> Result<(), crate::ConnectError> {
        match &self.inner.way {
            Way::Network(network) => network.replace_identity(crate::connect::token_auth(token)?, None),
            Way::Process(_) => Err(crate::ConnectError::InProcess),
        }
    }

    /// Names the servers of the cluster, as URLs: a request that cannot reach one of them goes to the next. Does nothing
    /// to a client inside the process.
    ///
    /// # Errors
    /// When there is none, or one is not a URL; the old ones stay.
    pub fn set_servers(&self, urls: &[String]) -> Result<(), crate::ConnectError> {
        match &self.inner.way {
            Way::Network(network) => network.set_servers(urls),
            Way::Process(_) => Ok(()),
        }
    }

    /// The namespace of the kubeconfig's context, or `default`.
    pub fn default_namespace(&self) -> &str {
        &self.inner.default_namespace
    }

    /// The field manager that writes name.
    pub fn field_manager(&self) -> Option<&str> {
        self.inner.field_manager.as_deref()
    }

    /// The URL of the API server; `None` inside the process.
    pub fn server_url(&self) -> Option<String> {
        match &self.inner.way {
            Way::Network(network) => Some(network.current().0.to_string()),
            Way::Process(_) => None,
        }
    }

    /// The underlying kube client, for WebSockets; `None` inside the process.
    pub fn kube(&self) -> Option<kube::Client> {
        match &self.inner.way {
            Way::Network(network) => Some(network.current().1),
            Way::Process(_) => None,
        }
    }

    /// Sends a request as it is (its URI is a path with a query) and returns whatever comes back, errors of the server included.
    ///
    /// # Errors
    /// [`Error::Transport`] when no answer came.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<ResponseBody>, Error> {
        if let Some(fence) = self.inner.fence.as_ref().filter(|_| !request.method().is_safe()) {
            request.headers_mut().insert(FENCE, fence.clone());
        }
        if let Some(program) = &self.inner.user_agent {
            request.headers_mut().insert(header::USER_AGENT, program.clone());
        }
        match &self.inner.way {
            Way::Network(network) => {
                let response = network.send(request).await.map_err(Error::transport)?;
                Ok(response.map(|body| body.map_err(|error| -> BoxError { Box::new(error) }).boxed_unsync()))
            }
            Way::Process(carry) => carry(request).await.map_err(Error::Transport),
        }
    }

    /// Sends a request whose answer is a stream without end, such as a watch or a log. The body comes as it is read.
    ///
    /// # Errors
    /// [`Error::Status`] when the server refused, [`Error::Transport`] when no answer came.
    pub async fn stream(&self, request: Request<Body>) -> Result<Response<ResponseBody>, Error> {
        let response =
            tokio::time::timeout(DEADLINE, self.send(request)).await.map_err(Error::transport)??;
        let code = response.status();
        if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        Err(Error::from_answer(code, &collect(response.into_body()).await?))
    }

    /// Sends a request and returns the body of a successful answer.
    ///
    /// # Errors
    /// [`Error::Status`] when the server refused, [`Error::Transport`] when no answer came in time.
    pub async fn request_bytes(&self, request: Request<Body>) -> Result<Bytes, Error> {
        let answer = async {
            let response = self.send(request).await?;
            let code = response.status();
            let body = collect(response.into_body()).await?;
            if code.is_success() { Ok(body) } else { Err(Error::from_answer(code, &body)) }
        };
        tokio::time::timeout(DEADLINE, answer).await.map_err(Error::transport)?
    }

    /// Sends a request and returns the body of a successful answer as text.
    ///
    /// # Errors
    /// As [`Client::request_bytes`].
    pub async fn request_text(&self, request: Request<Body>) -> Result<String, Error> {
        let bytes = self.request_bytes(request).await?;
        String::from_utf8(bytes.into()).map_err(Error::transport)
    }

    /// Sends a request and returns the body of a successful answer as text, with the server's time where it says it.
    ///
    /// # Errors
    /// As [`Client::request_bytes`].
    pub async fn request_dated(&self, request: Request<Body>) -> Result<(Option<Timestamp>, String), Error> {
        let answer = async {
            let response = self.send(request).await?;
            let (parts, body) = response.into_parts();
            let date = parts.headers.get(header::DATE).and_then(|date| date.to_str().ok());
            let date =
                date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
            let body = collect(body).await?;
            match parts.status.is_success() {
                true => Ok((date, String::from_utf8(body.into()).map_err(Error::transport)?)),
                false => Err(Error::from_answer(parts.status, &body)),
            }
        };
        tokio::time::timeout(DEADLINE, answer).await.map_err(Error::transport)?
    }

    /// Sends a request and decodes the body of a successful answer.
    ///
    /// # Errors
    /// As [`Client::request_bytes`], and [`Error::Decode`].
    pub async fn request<T: serde::de::DeserializeOwned>(&self, request: Request<Body>) -> Result<T, Error> {
        let bytes = self.request_bytes(request).await?;
        serde_json::from_slice(&bytes).map_err(Error::Decode)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server_url()).finish_non_exhaustive()
    }
}

/// Reads a whole body. Frame by frame: most answers are a single frame, which is not copied.
async fn collect(mut body: ResponseBody) -> Result<Bytes, Error> {
    let mut first = Bytes::new();
    let mut rest = bytes::BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::Transport)?.into_data() else { continue };
        if first.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
        }
        if rest.len() + data.len() > ANSWER_LIMIT {
            return Err(Error::transport("the answer is too large"));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}
