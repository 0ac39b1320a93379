//! The keys of an issuer, as its JSON Web Key Set tells them (RFC 7517), and what they have signed (RFC 7518).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::Value;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named as RFC 7518 does.
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
}

/// The keys of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// A point of the curve that this algorithm signs on.
    Curve {
        algorithm: Algorithm,
        point: Vec<u8>,
    },
}

// === impl Algorithm ===

impl Algorithm {
    /// All that are accepted when nothing else is said.
    pub const ALL: [Algorithm; 8] = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
    ];

    /// Reads its name.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| format!("{algorithm:?}") == name)
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
            Algorithm::ES256 | Algorithm::ES384 => return None,
        })
    }

    fn curve(self) -> Option<&'static EcdsaVerificationAlgorithm> {
        match self {
            Algorithm::ES256 => Some(&ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Some(&ECDSA_P384_SHA384_FIXED),
            _ => None,
        }
    }
}

// === impl KeySet ===

impl KeySet {
    /// Reads a key set. Keys that no accepted algorithm uses are left out.
    pub fn parse(document: &Value) -> KeySet {
        let keys = document["keys"].as_array().into_iter().flatten();
        KeySet(keys.filter_map(Key::parse).collect())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key has made the signature: the one of that id, where the token names one.
    pub fn verifies(&self, algorithm: Algorithm, id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        self.0
            .iter()
            .filter(|key| id.is_none() || key.id.is_none() || key.id.as_deref() == id)
            .any(|key| key.material.verifies(algorithm, message, signature))
    }
}

// === impl Key ===

impl Key {
    fn parse(key: &Value) -> Option<Key> {
        if key["use"].as_str().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let part = |name: &str| BASE64.decode(key[name].as_str()?.trim_end_matches('=')).ok();
        let material = match (key["kty"].as_str()?, key["crv"].as_str()) {
            ("RSA", _) => Material::Rsa { modulus: part("n")?, exponent: part("e")? },
            ("EC", Some("P-256")) => curve(Algorithm::ES256, 32, &part("x")?, &part("y")?)?,
            ("EC", Some("P-384")) => curve(Algorithm::ES384, 48, &part("x")?, &part("y")?)?,
            _ => return None,
        };
        Some(Key { id: key["kid"].as_str().map(str::to_owned), material })
    }
}

/// A point in its uncompressed form (SEC 1); both coordinates have the length of the curve.
fn curve(algorithm: Algorithm, length: usize, x: &[u8], y: &[u8]) -> Option<Material> {
    if x.len() != length || y.len() != length {
        return None;
    }
    let point = [&[4], x, y].concat();
    Some(Material::Curve { algorithm, point })
}

// === impl Material ===

impl Material {
    fn verifies(&self, with: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Material::Rsa { modulus, exponent } => with.rsa().is_some_and(|parameters| {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signature).is_ok()
            }),
            Material::Curve { algorithm, point } if *algorithm == with => with
                .curve()
                .is_some_and(|curve| UnparsedPublicKey::new(curve, point).verify(message, signature).is_ok()),
            Material::Curve { .. } => false,
        }
    }
}
