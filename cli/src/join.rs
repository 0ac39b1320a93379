//! How a machine joins a cluster: the token that it is given, and what it asks a server of the cluster.
//!
//! The token pins the cluster's authority by a hash, so that nobody between can pose as the cluster; the secret in it is sent
//! only over a connection to that very authority.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use apiserver::{bootstrap, join};
use client::Client;
use client::kube;
use http::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// A name that the certificate of every server is good for.
pub const SERVER_NAME: &str = "kubernetes";

/// What a machine proves itself with, and knows the cluster by: `ID.SECRET.HASH`, where the hash is SHA-256 of the
/// authority's certificate (DER), in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// `ID.SECRET`, a bootstrap token.
    bearer: String,
    hash: String,
}

/// A cluster that a machine is about to join.
pub struct Invitation {
    client: Client,
    /// The certificate of the cluster's authority, PEM.
    pub authority: String,
}

/// Why a token is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: it should be ID.SECRET.HASH, as `orlop token create` prints it")]
pub struct NoToken;

// === impl JoinToken ===

impl JoinToken {
    /// The token with this bootstrap token for the cluster of this authority.
    ///
    /// # Errors
    /// When the authority is no certificate in PEM.
    pub fn new(bearer: String, authority_pem: &str) -> Result<JoinToken> {
        Ok(JoinToken { bearer, hash: hash(authority_pem)? })
    }
}

impl FromStr for JoinToken {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<JoinToken, NoToken> {
        let (bearer, hash) = text.trim().rsplit_once('.').ok_or(NoToken)?;
        let fits = hash.len() == 64
            && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match bootstrap::parse(bearer).is_some() && fits {
            true => Ok(JoinToken { bearer: bearer.to_owned(), hash: hash.to_owned() }),
            false => Err(NoToken),
        }
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.bearer, self.hash)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

fn hash(authority_pem: &str) -> Result<String> {
    let der = CertificateDer::from_pem_slice(authority_pem.as_bytes())
        .map_err(|error| anyhow::anyhow!("the authority's certificate: {error}"))?;
    Ok(Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect())
}

// === impl Invitation ===

impl Invitation {
    /// Asks the server at `HOST:PORT` who it is, and holds that against the token.
    ///
    /// # Errors
    /// When it cannot be reached, or belongs to another cluster than the token.
    pub async fn accept(server: &str, token: &JoinToken) -> Result<Invitation> {
        let url: http::Uri = format!("https://{server}")
            .parse()
            .with_context(|| format!("{server:?} is not HOST:PORT of a server"))?;
        if url.port().is_none() {
            bail!("{server:?} is not HOST:PORT of a server: the port is missing");
        }
        let mut config = kube::Config::new(url.clone());
        // Nobody is believed yet: what comes back is held against the token's hash.
        config.accept_invalid_certs = true;
        let stranger = Client::from_config(config)?;
        let authority = stranger
            .request_text(Client::build(Method::GET, join::AUTHORITY)?)
            .await
            .with_context(|| format!("asking {server} for the cluster's authority"))?;
        if hash(&authority)? != token.hash {
            bail!(
                "the server at {server} belongs to another cluster than the token (its authority is another one); check the address, or make a token at that cluster with `orlop token create`"
            );
        }
        let mut config = kube::Config::new(url);
        let certificate = CertificateDer::from_pem_slice(authority.as_bytes())
            .map_err(|error| anyhow::anyhow!("the authority's certificate: {error}"))?;
        config.root_cert = Some(vec![certificate.to_vec()]);
        config.tls_server_name = Some(SERVER_NAME.to_owned());
        config.auth_info.token = Some(token.bearer.clone().into());
        Ok(Invitation { client: Client::from_config(config)?, authority })
    }

    /// Posts a request to one of the paths of [`apiserver::join`].
    ///
    /// # Errors
    /// When the server refuses, or does not answer.
    pub async fn ask<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<T> {
        ask(&self.client, path, request).await
    }
}

/// Posts a request to one of the paths of [`apiserver::join`].
///
/// # Errors
/// When the server refuses, or does not answer.
pub async fn ask<T: DeserializeOwned>(client: &Client, path: &str, request: &impl Serialize) -> Result<T> {
    let body = serde_json::to_vec(request)?;
    let request = Client::build_with(Method::POST, path, "application/json", body)?;
    match client.request(request).await {
        Ok(answer) => Ok(answer),
        Err(client::Error::Status(status)) if status.code == Some(401) => {
            bail!(
                "the cluster does not accept the token: it was revoked or has expired; make another with `orlop token create`"
            )
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        let hash = "ab".repeat(32);
        let check = |text: &str, fits: bool| {
            assert_eq!(
                text.parse::<JoinToken>().map(|token| token.to_string()).ok(),
                fits.then(|| text.to_owned())
            );
        };
        check(&format!("abcdef.0123456789abcdef.{hash}"), true);
        check("abcdef.0123456789abcdef", false);
        check(&format!("abcdef.0123456789abcde.{hash}"), false);
        check(&format!("abcdef.0123456789abcdef.{}", hash.to_uppercase()), false);
        check("", false);
    }
}
