//! The servers of one cluster: a request goes to one of them, and to the next when that one cannot be reached.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response, StatusCode, Uri};
use kube::client::Body;
use kube::config::AuthInfo;

use crate::ConnectError;

/// Where there are other servers, one that does not answer is given up after this long.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Connection pools, one for each server.
pub(crate) struct Network {
    /// How clients are made; the URL is replaced by each server's. Held while servers or identity are replaced.
    config: Mutex<kube::Config>,
    servers: ArcSwap<Vec<(Uri, kube::Client)>>,
    /// Counts up; modulo the number of servers it is the one that is used.
    current: AtomicUsize,
}

// === impl Network ===

impl Network {
    /// The way to the server that the configuration names.
    pub(crate) fn new(config: kube::Config) -> Result<Self, ConnectError> {
        let servers = connect(&config, std::slice::from_ref(&config.cluster_url))?;
        Ok(Self {
            config: Mutex::new(config),
            servers: ArcSwap::from_pointee(servers),
            current: AtomicUsize::new(0),
        })
    }

    /// The server that is used now.
    pub(crate) fn current(&self) -> (Uri, kube::Client) {
        let servers = self.servers.load();
        servers[self.current.load(Ordering::Relaxed) % servers.len()].clone()
    }

    /// The way to the same servers with another identity, by connections of its own.
    pub(crate) fn with_identity(&self, identity: AuthInfo) -> Result<Self, ConnectError> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        config.auth_info = identity;
        let urls: Vec<Uri> = self.servers.load().iter().map(|(url, _)| url.clone()).collect();
        let servers = ArcSwap::from_pointee(connect(&config, &urls)?);
        let current = AtomicUsize::new(self.current.load(Ordering::Relaxed));
        Ok(Self { config: Mutex::new(config), servers, current })
    }

    /// New requests prove another identity, and accept these authorities or, without, those of before, by new connections.
    pub(crate) fn replace_identity(
        &self,
        identity: AuthInfo,
        authorities: Option<Vec<Vec<u8>>>,
    ) -> Result<(), ConnectError> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = config.clone();
        next.auth_info = identity;
        if authorities.is_some() {
            next.root_cert = authorities;
        }
        let urls: Vec<Uri> = self.servers.load().iter().map(|(url, _)| url.clone()).collect();
        self.servers.store(Arc::new(connect(&next, &urls)?));
        *config = next;
        Ok(())
    }

    /// New requests go to these servers. Those that were known keep their connections.
    pub(crate) fn set_servers(&self, urls: &[String]) -> Result<(), ConnectError> {
        let urls = urls.iter().map(|url| url.parse()).collect::<Result<Vec<Uri>, _>>()?;
        if urls.is_empty() {
            return Err(ConnectError::NoServer);
        }
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, _) = self.current();
        let known = self.servers.load();
        let mut next = connect(&config, &urls)?;
        // A single server is waited for longer, so its client is another one.
        if (known.len() > 1) == (next.len() > 1) {
            for (url, client) in &mut next {
                if let Some((_, same)) = known.iter().find(|(known, _)| known == url) {
                    *client = same.clone();
                }
            }
        }
        let at = next.iter().position(|(url, _)| *url == used).unwrap_or(0);
        self.servers.store(Arc::new(next));
        self.current.store(at, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a request to the current server; when that one did not get it, to each of the others.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let servers = self.servers.load_full();
        let (parts, mut body) = request.into_parts();
        let mut tries = servers.len();
        loop {
            tries -= 1;
            let at = self.current.load(Ordering::Relaxed);
            let (_, client) = &servers[at % servers.len()];
            let spare = if tries > 0 { body.try_clone() } else { None };
            let answer = client.send(Request::from_parts(parts.clone(), body)).await;
            let fault = match &answer {
                Ok(response) => response.status() == StatusCode::SERVICE_UNAVAILABLE,
                Err(_) => true,
            };
            if fault {
                // Whoever notices first moves on; others that noticed the same do not move on again.
                let _ = self.current.compare_exchange(
                    at,
                    at.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            match (answer, spare) {
                (Err(error), Some(spare)) if is_unsent(&error) => body = spare,
                (answer, _) => return answer,
            }
        }
    }
}

fn connect(config: &kube::Config, urls: &[Uri]) -> Result<Vec<(Uri, kube::Client)>, ConnectError> {
    let client = |url: &Uri| {
        let mut config = config.clone();
        config.cluster_url = url.clone();
        // Who asked knows whether asking again is right; a write whose outcome is unknown is not repeated blindly.
        config.default_retry = false;
        if urls.len() > 1 {
            config.connect_timeout = Some(CONNECT_PATIENCE);
        }
        Ok((url.clone(), kube::Client::try_from(config)?))
    };
    urls.iter().map(client).collect()
}

/// Whether no connection came about, so that the server has seen nothing of the request.
fn is_unsent(error: &kube::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers every request on a connection of its own with this status and the request's body.
    async fn server(status: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        url
    }

    /// An address where nobody listens.
    async fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        format!("http://{}", listener.local_addr().expect("address"))
    }

    fn request() -> Request<Body> {
        Request::post("/x").body(Body::from(b"hello".to_vec())).expect("a request")
    }

    async fn network(urls: &[String]) -> Network {
        crate::connect::install_crypto();
        let network = Network::new(kube::Config::new(urls[0].parse().expect("a URL"))).expect("made");
        network.set_servers(urls).expect("set");
        network
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_passed_over() {
        let urls = [nobody().await, nobody().await, server("200 OK").await];
        let network = network(&urls).await;
        let response = network.send(request()).await.expect("the third answers");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
        assert_eq!(&body[..], b"hello", "the body is sent again");
        assert_eq!(
            network.current().0.to_string().trim_end_matches('/'),
            urls[2],
            "and it is asked first from now on"
        );
    }

    #[tokio::test]
    async fn when_none_is_there_the_error_is_told() {
        let urls = [nobody().await, nobody().await];
        let network = network(&urls).await;
        assert!(network.send(request()).await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_cannot_serve_is_not_asked_again() {
        let urls = [server("503 Service Unavailable").await, server("200 OK").await];
        let network = network(&urls).await;
        let refused = network.send(request()).await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "the request may have had its effect");
        assert_eq!(network.send(request()).await.expect("an answer").status(), StatusCode::OK);
        network.set_servers(&urls[1..]).expect("set");
        assert_eq!(network.send(request()).await.expect("an answer").status(), StatusCode::OK);
        assert!(network.set_servers(&[]).is_err());
    }
}
