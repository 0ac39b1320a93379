//! The API without a client between: requests byte for byte, so that no client mends what the test has spoilt.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server and who asks it.
#[derive(Clone)]
pub struct Api {
    host: String,
    port: u16,
    authority: Vec<u8>,
    tls: Arc<ClientConfig>,
    token: Option<String>,
    patience: Duration,
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}{}", self.head, self.text()))
    }
}

impl Api {
    /// The server and the certificate of a kubeconfig with one of each.
    ///
    /// # Errors
    /// When it is not such a file.
    pub fn from_kubeconfig(path: &Path) -> Result<Api> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let config: Value = serde_saphyr::from_str(&text).context("parsing the kubeconfig")?;
        let cluster = &config["clusters"][0]["cluster"];
        let user = &config["users"][0]["user"];
        let url = cluster["server"].as_str().context("no server in the kubeconfig")?;
        let (host, port) =
            url.trim_start_matches("https://").rsplit_once(':').context("no port in the server's address")?;
        let decoded = |value: &Value| -> Result<Vec<u8>> {
            Ok(STANDARD.decode(value.as_str().context("a certificate is missing")?)?)
        };
        let authority = decoded(&cluster["certificate-authority-data"])?;
        let pair = (decoded(&user["client-certificate-data"])?, decoded(&user["client-key-data"])?);
        Self::new(host, port.parse()?, &authority, Some(pair))
    }

    /// A server by the certificate of its authority; `pair` is the asker's certificate and key. All in PEM.
    ///
    /// # Errors
    /// When they are not what they should be.
    pub fn new(host: &str, port: u16, authority: &[u8], pair: Option<(Vec<u8>, Vec<u8>)>) -> Result<Api> {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut &authority[..]) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let tls = match pair {
            Some((certificate, key)) => {
                let chain = rustls_pemfile::certs(&mut &certificate[..]).collect::<Result<Vec<_>, _>>()?;
                let key = rustls_pemfile::private_key(&mut &key[..])?.context("no key")?;
                tls.with_client_auth_cert(chain, key)?
            }
            None => tls.with_no_client_auth(),
        };
        let authority = authority.to_vec();
        Ok(Api {
            host: host.to_owned(),
            port,
            authority,
            tls: Arc::new(tls),
            token: None,
            patience: PATIENCE,
        })
    }

    /// The same, asked by nobody in particular.
    ///
    /// # Errors
    /// When the authority's certificate cannot be read.
    pub fn anonymous(&self) -> Result<Api> {
        Self::new(&self.host, self.port, &self.authority, None)
    }

    /// The same, asked with a bearer token.
    pub fn with_token(&self, token: &str) -> Api {
        Api { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Sends one request on a connection of its own.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let mut stream = self.open(self.patience)?;
        stream.write_all(self.head(method, path, content_type, body.len()).as_bytes())?;
        // A server that answers before it has read everything is in its right; the answer tells.
        let written = stream.write_all(body).and_then(|()| stream.flush());
        let mut answer = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                // The end of a connection without a farewell, or a reset after the answer.
                Err(_) if !answer.is_empty() => break,
                Err(error) => {
                    written.context("sending the request")?;
                    return Err(error).context("reading the answer");
                }
            }
        }
        parse(&answer)
    }

    /// A connection on which every read and write may take this long.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn open(&self, patience: Duration) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let target = (self.host.as_str(), self.port);
        let address = target.to_socket_addrs()?.next().context("the server has no address")?;
        let socket = TcpStream::connect_timeout(&address, patience)
            .with_context(|| format!("connecting to {}:{}", self.host, self.port))?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let name = ServerName::try_from(self.host.clone())?;
        Ok(StreamOwned::new(ClientConnection::new(self.tls.clone(), name)?, socket))
    }

    /// The head of a request.
    pub fn head(&self, method: &str, path: &str, content_type: &str, length: usize) -> String {
        let authorization =
            self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\naccept: application/json\r\n\
             content-type: {content_type}\r\ncontent-length: {length}\r\n{authorization}\r\n",
            self.host
        )
    }

    /// The same at another server of the cluster.
    pub fn at(&self, host: &str) -> Api {
        Api { host: host.to_owned(), port: 6443, ..self.clone() }
    }

    /// The same, more or less patient.
    pub fn with_patience(&self, patience: Duration) -> Api {
        Api { patience, ..self.clone() }
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, "application/json", b"")
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Result<Answer> {
        self.send("POST", path, "application/json", body.as_ref())
    }
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").context("no complete answer")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    let rest = &bytes[end + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(rest)? } else { rest.to_vec() };
    Ok(Answer { status, head, body })
}

fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok(body) };
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line])?.trim(), 16)?;
        if length == 0 {
            return Ok(body);
        }
        let start = line + 2;
        let Some(chunk) = rest.get(start..start + length) else { bail!("a chunk is cut") };
        body.extend_from_slice(chunk);
        rest = rest.get(start + length + 2..).unwrap_or_default();
    }
}
