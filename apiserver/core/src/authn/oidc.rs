//! OpenID Connect: the users of an issuer outside the cluster, proved by the ID tokens that it signs.
//!
//! The keys of an issuer are an argument: who fetches them, and when, is for the shell to say. What the settings mean:
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens>.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use serde_json::Value;

use super::EXTRA_CREDENTIAL;
use crate::user::User;

pub mod configuration;
pub mod keys;
#[cfg(test)]
mod tests;

use keys::{Algorithm, KeySet};

/// Whom an issuer's tokens prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The `iss` claim of its tokens; below it is its discovery document.
    pub url: String,
    /// Where its discovery document is, when that is elsewhere.
    pub discovery_url: Option<String>,
    /// Tokens are for one of these.
    pub audiences: Vec<String>,
    /// The claim that names the user, and what is put before it.
    pub username: Mapping,
    /// The claim that names the user's groups.
    pub groups: Option<Mapping>,
    /// The claim that identifies the user for ever.
    pub uid: Option<String>,
    /// Claims that must have these values.
    pub required: BTreeMap<String, String>,
    /// How tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// Certificates of those who vouch for the issuer's server, as PEM; the host's own when it is `None`.
    pub authority: Option<String>,
}

/// A claim, and what is put before its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The claim.
    pub claim: String,
    /// The prefix; may be empty.
    pub prefix: String,
}

/// Why an ID token proves nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdTokenError {
    /// Not three base64 parts with JSON in them.
    #[error("oidc: malformed jwt")]
    Malformed,
    /// Signed in a way that is not accepted.
    #[error("oidc: the token's signing algorithm is not accepted")]
    Algorithm,
    /// No key that is known made the signature; the issuer may have others by now.
    #[error("oidc: failed to verify signature: no key that is known has made it")]
    UnknownKey,
    /// The keys of the issuer have not been fetched yet.
    #[error("oidc: authenticator not initialized")]
    NoKeys,
    /// Not valid any more.
    #[error("oidc: token is expired")]
    Expired,
    /// Not valid yet.
    #[error("oidc: token is not valid yet")]
    NotYet,
    /// For others.
    #[error("oidc: the token's audiences are none of {0:?}")]
    Audience(Vec<String>),
    /// Lacks a claim, or has it in another form.
    #[error("oidc: parse claim {0:?}")]
    Claim(String),
    /// A mail address that its owner has not confirmed.
    #[error("oidc: email not verified")]
    Unverified,
    /// A claim that must have a value has another.
    #[error("oidc: required claim {claim} value does not match. Got = {found:?}, want = {wanted:?}")]
    Required {
        /// The claim.
        claim: String,
        /// What it has.
        found: String,
        /// What it must have.
        wanted: String,
    },
    /// The user's name is empty, or one that only the cluster gives.
    #[error("oidc: the name {0:?} may not be given by an issuer")]
    Name(String),
}

/// Clocks of two machines may differ by this many seconds.
const LEEWAY_SECONDS: i64 = 300;

/// The parts of a token.
struct Parts<'t> {
    signed: &'t str,
    header: Value,
    claims: Value,
    signature: Vec<u8>,
}

fn parts(token: &str) -> Option<Parts<'_>> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let decode = |part: &str| BASE64.decode(part).ok();
    let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).ok();
    Some(Parts { signed, header: json(header)?, claims: json(claims)?, signature: decode(signature)? })
}

/// The issuer that a token claims to be of. Nothing is checked.
pub fn claimed_issuer(token: &str) -> Option<String> {
    parts(token)?.claims["iss"].as_str().map(str::to_owned)
}

// === impl Issuer ===

impl Issuer {
    /// The user that `token` proves.
    ///
    /// # Errors
    /// When it proves nobody. [`IdTokenError::UnknownKey`] may be cured by newer keys.
    pub fn verify(&self, token: &str, keys: &KeySet, now: Timestamp) -> Result<User, IdTokenError> {
        let Parts { signed, header, claims, signature } = parts(token).ok_or(IdTokenError::Malformed)?;
        let algorithm = header["alg"].as_str().and_then(Algorithm::parse);
        let algorithm =
            algorithm.filter(|alg| self.algorithms.contains(alg)).ok_or(IdTokenError::Algorithm)?;
        if !keys.verifies(algorithm, header["kid"].as_str(), signed.as_bytes(), &signature) {
            return Err(IdTokenError::UnknownKey);
        }
        self.check(&claims, now)?;
        self.user(&claims)
    }

    fn check(&self, claims: &Value, now: Timestamp) -> Result<(), IdTokenError> {
        let claim = |name: &str| IdTokenError::Claim(name.to_owned());
        if claims["iss"].as_str() != Some(&self.url) {
            return Err(claim("iss"));
        }
        let seconds = |value: &Value| value.as_f64().map(|seconds| seconds as i64);
        if now.as_second() >= seconds(&claims["exp"]).ok_or_else(|| claim("exp"))? {
            return Err(IdTokenError::Expired);
        }
        if seconds(&claims["nbf"]).is_some_and(|from| now.as_second() + LEEWAY_SECONDS < from) {
            return Err(IdTokenError::NotYet);
        }
        let audiences = strings(&claims["aud"]).unwrap_or_default();
        if !self.audiences.iter().any(|own| audiences.iter().any(|audience| audience == own)) {
            return Err(IdTokenError::Audience(self.audiences.clone()));
        }
        for (name, wanted) in &self.required {
            let found = claims[name.as_str()].as_str().ok_or_else(|| claim(name))?;
            if found != wanted {
                let (claim, found, wanted) = (name.clone(), found.to_owned(), wanted.clone());
                return Err(IdTokenError::Required { claim, found, wanted });
            }
        }
        Ok(())
    }

    fn user(&self, claims: &Value) -> Result<User, IdTokenError> {
        let claim = |name: &str| IdTokenError::Claim(name.to_owned());
        let name = claims[self.username.claim.as_str()].as_str();
        let name = name.filter(|name| !name.is_empty()).ok_or_else(|| claim(&self.username.claim))?;
        if self.username.claim == "email" && claims.get("email_verified").is_some_and(|it| *it != true) {
            return Err(IdTokenError::Unverified);
        }
        let name = format!("{}{name}", self.username.prefix);
        let mut groups = Vec::new();
        if let Some(mapping) = &self.groups
            && let Some(value) = claims.get(&mapping.claim).filter(|value| !value.is_null())
        {
            let named = strings(value).ok_or_else(|| claim(&mapping.claim))?;
            groups.extend(named.into_iter().map(|group| format!("{}{group}", mapping.prefix)));
        }
        // What begins like this the cluster's own rules trust: no one outside may give it.
        if let Some(own) = std::iter::once(&name).chain(&groups).find(|name| name.starts_with("system:")) {
            return Err(IdTokenError::Name(own.clone()));
        }
        let mut user = User::authenticated(&name, &groups);
        if let Some(uid) = &self.uid {
            user.uid = claims[uid.as_str()].as_str().ok_or_else(|| claim(uid))?.to_owned();
        }
        if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
            user.extra.insert(EXTRA_CREDENTIAL.into(), vec![format!("JTI={id}")]);
        }
        Ok(user)
    }
}

/// A text, or a list of texts.
fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|each| each.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}
