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
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// A name that the certificate of every server is good for.
pub const SERVER_NAME: &str = "kubernetes";

/// How much the clocks of a cluster may differ.
const CLOCKS_MAY_DIFFER_SECONDS: i64 = 240;

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
}

/// Why a token is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: it should be ID.SECRET.HASH, as `orlop token create` prints it")]
pub struct NoToken;

// === impl JoinToken ===

impl JoinToken {
    /// The token with this bootstrap token for the cluster of these authorities, of which the first issues certificates.
    ///
    /// # Errors
    /// When the authorities are no certificates in PEM.
    pub fn new(bearer: String, authority_pem: &str) -> Result<JoinToken> {
        let authorities = certificates(authority_pem)?;
        let current = authorities.first().context("the cluster names no authority")?;
        Ok(JoinToken { bearer, hash: hash(current) })
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

fn hash(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    certificates.map_err(|error| anyhow::anyhow!("the authority's certificate: {error}"))
}

/// The authority with that hash, among those that the cluster accepts (PEM).
fn pinned(bundle: &str, pin: &str) -> Result<Option<CertificateDer<'static>>> {
    Ok(certificates(bundle)?.into_iter().find(|authority| hash(authority) == pin))
}

/// Certificates are good from a little before they were issued, and for a day: a host whose clock is further off cannot use
/// its own, and what it would be told is only that a certificate is not valid.
fn clock_problem(ours: Timestamp, theirs: Timestamp) -> Option<String> {
    let off = ours.duration_since(theirs);
    let (seconds, way) = (off.as_secs().abs(), if off.is_negative() { "behind" } else { "ahead of" });
    let much = match seconds {
        seconds if seconds <= CLOCKS_MAY_DIFFER_SECONDS => return None,
        seconds if seconds < 7200 => format!("{} minutes", seconds / 60),
        seconds if seconds < 172_800 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    };
    Some(format!(
        "this host's clock is {much} {way} the cluster's ({ours:.0} here, {theirs:.0} there): set it right, then join again"
    ))
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
        let asking = || format!("asking {server} for the cluster's authority");
        let request = Client::build(Method::GET, join::AUTHORITY)?;
        let (date, text) = stranger.request_dated(request).await.with_context(asking)?;
        let Some(authority) = pinned(&text, &token.hash)? else {
            bail!(
                "the server at {server} belongs to another cluster than the token (its authority is another one, or was rotated since); check the address, or make a token at that cluster with `orlop token create`"
            );
        };
        if let Some(problem) = date.and_then(|theirs| clock_problem(Timestamp::now(), theirs)) {
            bail!("{problem}");
        }
        let mut config = kube::Config::new(url);
        config.root_cert = Some(vec![authority.to_vec()]);
        config.tls_server_name = Some(SERVER_NAME.to_owned());
        config.auth_info.token = Some(token.bearer.clone().into());
        Ok(Invitation { client: Client::from_config(config)? })
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
    fn a_clock_that_is_off_is_told_so_in_both_directions() {
        let theirs: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
        let check = |ours: &str, expected: Option<&str>| {
            let problem = clock_problem(ours.parse().expect("a time"), theirs);
            match expected {
                Some(part) => {
                    assert!(problem.as_ref().is_some_and(|text| text.contains(part)), "{problem:?}")
                }
                None => assert_eq!(problem, None, "{ours}"),
            }
        };
        check("2026-03-01T12:04:00Z", None);
        check("2026-03-01T11:56:00Z", None);
        check("2026-03-01T12:10:00Z", Some("10 minutes ahead of the cluster's"));
        check("2026-02-28T12:00:00Z", Some("24 hours behind the cluster's"));
        check("2026-03-04T12:00:00Z", Some("3 days ahead of the cluster's"));
    }

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
