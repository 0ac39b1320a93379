//! Signs and verifies JSON web tokens (EdDSA over Ed25519, whose signatures need no randomness).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

/// Why a key or a token was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwtError {
    /// The seed is not one of an Ed25519 key.
    #[error("the signing key is not a 32 byte Ed25519 seed")]
    Key,
    /// The text is not three base64 parts with JSON in them.
    #[error("the token is malformed")]
    Malformed,
    /// Signed with an algorithm other than EdDSA.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// No key of ours made the signature.
    #[error("the token's signature is not valid")]
    Signature,
}

/// An Ed25519 key that signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Ed25519KeyPair>,
    id: String,
}

// === impl SigningKey ===

impl SigningKey {
    /// The key that a 32 byte seed gives.
    pub fn from_seed(seed: &[u8]) -> Result<SigningKey, JwtError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| JwtError::Key)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        let id = BASE64.encode(digest.as_ref());
        Ok(SigningKey { pair: Arc::new(pair), id })
    }

    /// What tokens call it (`kid`).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs `claims`.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.id, "typ": "JWT"});
        let mut token = BASE64.encode(header.to_string());
        token.push('.');
        BASE64.encode_string(claims.to_string(), &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        BASE64.encode_string(signature.as_ref(), &mut token);
        token
    }

    /// The public half as a JSON web key.
    pub fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.id,
            "x": BASE64.encode(self.pair.public_key().as_ref())})
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.pair.public_key().as_ref()).verify(message, signature).is_ok()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The claims of `token`, if one of `keys` signed it.
pub fn verify(keys: &[SigningKey], token: &str) -> Result<Value, JwtError> {
    let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(JwtError::Malformed)?;
    let decode = |part: &str| BASE64.decode(part).map_err(|_| JwtError::Malformed);
    let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
    if header.get("alg").and_then(Value::as_str) != Some("EdDSA") {
        return Err(JwtError::Algorithm);
    }
    let signature = decode(signature)?;
    if !keys.iter().any(|key| key.verifies(message.as_bytes(), &signature)) {
        return Err(JwtError::Signature);
    }
    serde_json::from_slice(&decode(claims)?).map_err(|_| JwtError::Malformed)
}
