//! Turns a bearer token into a user: signature, times, audience, and the objects that the token is bound to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use store_core::Snapshot;

use crate::config::Config;
use crate::user::User;
use crate::{keys, scan};

pub mod bootstrap;
pub mod impersonation;
pub mod jwt;
pub mod oidc;

/// The extra fact that holds the names of the pod that a token is bound to.
pub const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// The uid of that pod.
pub const EXTRA_POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// The node that the pod runs on.
pub const EXTRA_NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The uid of that node.
pub const EXTRA_NODE_UID: &str = "authentication.kubernetes.io/node-uid";
/// The id of the token.
pub const EXTRA_CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Seconds by which clocks may differ; so long a token also outlives the time at which what it is bound to should have ended.
const LEEWAY: i64 = 60;

/// Why a token names nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not a token of ours.
    #[error(transparent)]
    Jwt(#[from] jwt::JwtError),
    /// Issued by someone else.
    #[error("the token has another issuer")]
    Issuer,
    /// Not valid any more.
    #[error("service account token has expired")]
    Expired,
    /// Not valid yet.
    #[error("service account token is not valid yet")]
    NotYet,
    /// No bootstrap token of that id and secret may be used to prove an identity.
    #[error("the bootstrap token is not known, or was revoked")]
    Bootstrap,
    /// A bootstrap token that is not valid any more.
    #[error("the bootstrap token has expired")]
    BootstrapExpired,
    /// For other audiences.
    #[error("the token's audiences are not those asked for")]
    Audience,
    /// Lacks a claim.
    #[error("the token lacks the claim {0}")]
    Claim(&'static str),
    /// The service account, pod, secret or node is gone, or is another one of the same name.
    #[error("the {kind} {name:?} that the token is bound to has been deleted or replaced")]
    Unbound {
        /// The kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

/// The user that `token` proves, for the API server itself.
pub fn authenticate(
    snapshot: &Snapshot,
    config: &Config,
    token: &str,
    now: Timestamp,
) -> Result<User, TokenError> {
    if let Some(parts) = bootstrap::parse(token) {
        return bootstrap::user(snapshot, parts, now);
    }
    verify(snapshot, config, token, &config.audiences, now).map(|(user, _)| user)
}

/// The user that `token` proves, and those of `audiences` that the token is for.
pub fn verify(
    snapshot: &Snapshot,
    config: &Config,
    token: &str,
    audiences: &[String],
    now: Timestamp,
) -> Result<(User, Vec<String>), TokenError> {
    let claims = jwt::verify(&config.signing_keys, token)?;
    if claims["iss"].as_str() != Some(&config.issuer) {
        return Err(TokenError::Issuer);
    }
    if now.as_second() >= claims["exp"].as_i64().ok_or(TokenError::Claim("exp"))? {
        return Err(TokenError::Expired);
    }
    if claims["nbf"].as_i64().is_some_and(|from| now.as_second() + LEEWAY < from) {
        return Err(TokenError::NotYet);
    }
    let shared = shared_audiences(&claims["aud"], audiences);
    if shared.is_empty() {
        return Err(TokenError::Audience);
    }
    Ok((bound_user(snapshot, &claims, now)?, shared))
}

fn shared_audiences(claim: &Value, audiences: &[String]) -> Vec<String> {
    let is_for = |audience: &str| match claim {
        Value::String(one) => one == audience,
        Value::Array(all) => all.iter().any(|a| a.as_str() == Some(audience)),
        _ => false,
    };
    audiences.iter().filter(|audience| is_for(audience)).cloned().collect()
}

fn bound_user(snapshot: &Snapshot, claims: &Value, now: Timestamp) -> Result<User, TokenError> {
    let alive = |plural, kind, namespace, reference| alive(snapshot, plural, kind, namespace, reference, now);
    let private = &claims["kubernetes.io"];
    let namespace = private["namespace"].as_str().ok_or(TokenError::Claim("kubernetes.io.namespace"))?;
    let account = &private["serviceaccount"];
    let name = account["name"].as_str().ok_or(TokenError::Claim("kubernetes.io.serviceaccount.name"))?;
    alive("serviceaccounts", "service account", namespace, account)?;
    let mut extra = BTreeMap::new();
    if private["pod"].is_object() {
        alive("pods", "pod", namespace, &private["pod"])?;
        fact(&mut extra, EXTRA_POD_NAME, &private["pod"]["name"]);
        fact(&mut extra, EXTRA_POD_UID, &private["pod"]["uid"]);
    }
    if private["secret"].is_object() {
        alive("secrets", "secret", namespace, &private["secret"])?;
    }
    if private["node"].is_object() {
        // Of a pod's token the node is only told: what it is bound to is the pod.
        if !private["pod"].is_object() {
            alive("nodes", "node", "", &private["node"])?;
        }
        fact(&mut extra, EXTRA_NODE_NAME, &private["node"]["name"]);
        fact(&mut extra, EXTRA_NODE_UID, &private["node"]["uid"]);
    }
    if let Some(id) = claims["jti"].as_str() {
        extra.insert(EXTRA_CREDENTIAL.into(), vec![format!("JTI={id}")]);
    }
    let uid = account["uid"].as_str().unwrap_or_default().to_owned();
    Ok(User { uid, extra, ..User::service_account(namespace, name) })
}

fn fact(extra: &mut BTreeMap<String, Vec<String>>, key: &str, value: &Value) {
    if let Some(value) = value.as_str().filter(|value| !value.is_empty()) {
        extra.insert(key.into(), vec![value.into()]);
    }
}

/// Whether the object of a reference still is that very object, and not one whose time to end is over.
fn alive(
    snapshot: &Snapshot,
    plural: &str,
    kind: &'static str,
    namespace: &str,
    reference: &Value,
    now: Timestamp,
) -> Result<(), TokenError> {
    let name = reference["name"].as_str().unwrap_or_default();
    let entry = snapshot.get(&keys::object("", plural, namespace, name));
    let uid = entry.and_then(|entry| scan::text(&entry.value, &["metadata", "uid"]));
    let deletion = entry.and_then(|entry| scan::text(&entry.value, &["metadata", "deletionTimestamp"]));
    let over = deletion
        .and_then(|time| time.parse::<Timestamp>().ok())
        .is_some_and(|time| time.as_second() + LEEWAY < now.as_second());
    match uid {
        Some(uid) if !over && reference["uid"].as_str() == Some(&uid) => Ok(()),
        _ => Err(TokenError::Unbound { kind, name: name.to_owned() }),
    }
}
