use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::configuration::{Flags, issuers};
use super::*;

const ISSUER: &str = "https://login.example.com";

/// An issuer's key, and its public half as a key set.
fn key() -> (EcdsaKeyPair, KeySet) {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
        .expect("a key");
    let point = pair.public_key().as_ref();
    let keys = json!({"keys": [
        {"kty": "oct", "k": "x"},
        {"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig",
            "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])}]});
    let keys = KeySet::parse(&keys);
    assert_eq!(keys.len(), 1);
    (pair, keys)
}

fn signed(pair: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
    format!("{message}.{}", BASE64.encode(signature.as_ref()))
}

fn issuer() -> Issuer {
    let flags = Flags {
        issuer_url: ISSUER.into(),
        client_id: "cluster".into(),
        groups_claim: Some("groups".into()),
        groups_prefix: Some("corp:".into()),
        required_claims: vec!["tenant=blue".into()],
        signing_algorithms: vec!["ES256".into()],
        ..Flags::default()
    };
    flags.issuer().expect("an issuer")
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": ["other", "cluster"], "exp": 1000, "sub": "jane", "groups": ["dev"],
        "tenant": "blue", "jti": "7"})
}

/// Changes the claims of a good token, and says what comes of it.
fn check(change: impl FnOnce(&mut Value), now: i64) -> Result<User, IdTokenError> {
    let (pair, keys) = key();
    let mut claims = claims();
    change(&mut claims);
    let token = signed(&pair, &json!({"alg": "ES256", "kid": "one"}), &claims);
    assert_eq!(claimed_issuer(&token).as_deref(), Some(ISSUER));
    issuer().verify(&token, &keys, Timestamp::from_second(now).expect("time"))
}

#[test]
fn a_good_token_proves_its_user() {
    let user = check(|_| {}, 999).expect("a user");
    assert_eq!(user.name, "https://login.example.com#jane");
    assert!(user.groups.contains(&"corp:dev".to_owned()), "{:?}", user.groups);
    assert!(user.groups.contains(&"system:authenticated".to_owned()), "{:?}", user.groups);
    assert_eq!(user.extra[EXTRA_CREDENTIAL], ["JTI=7"]);
}

#[test]
fn a_token_is_for_a_time_a_place_and_a_purpose() {
    assert_eq!(check(|_| {}, 1000), Err(IdTokenError::Expired));
    assert_eq!(check(|claims| claims["nbf"] = 900.into(), 500), Err(IdTokenError::NotYet));
    let audience = check(|claims| claims["aud"] = "other".into(), 1);
    assert_eq!(audience, Err(IdTokenError::Audience(vec!["cluster".into()])));
    assert!(matches!(check(|claims| claims["tenant"] = "red".into(), 1), Err(IdTokenError::Required { .. })));
    assert_eq!(check(|claims| claims["sub"] = Value::Null, 1), Err(IdTokenError::Claim("sub".into())));
    assert_eq!(check(|claims| claims["groups"] = json!({}), 1), Err(IdTokenError::Claim("groups".into())));
}

#[test]
fn a_signature_is_of_a_known_key_in_an_accepted_way() {
    let (pair, keys) = key();
    let verify = |token: &str, keys: &KeySet| issuer().verify(token, keys, Timestamp::UNIX_EPOCH);
    let good = signed(&pair, &json!({"alg": "ES256", "kid": "one"}), &claims());
    assert!(verify(&good, &keys).is_ok());
    assert_eq!(verify(&good, &key().1), Err(IdTokenError::UnknownKey));
    let other = signed(&pair, &json!({"alg": "ES256", "kid": "two"}), &claims());
    assert_eq!(verify(&other, &keys), Err(IdTokenError::UnknownKey));
    for algorithm in ["none", "HS256", "RS256", "EdDSA"] {
        let token = signed(&pair, &json!({"alg": algorithm}), &claims());
        assert_eq!(verify(&token, &keys), Err(IdTokenError::Algorithm), "{algorithm}");
    }
    let (message, signature) = good.rsplit_once('.').expect("parts");
    let (header, _) = message.split_once('.').expect("parts");
    let mut forged = claims();
    forged["sub"] = "root".into();
    let forged = format!("{header}.{}.{signature}", BASE64.encode(forged.to_string()));
    assert_eq!(verify(&forged, &keys), Err(IdTokenError::UnknownKey));
    assert_eq!(verify("a.b", &keys), Err(IdTokenError::Malformed));
}

#[test]
fn an_issuer_gives_no_name_of_the_clusters_own() {
    let (pair, keys) = key();
    let mut issuer = issuer();
    issuer.username.prefix = String::new();
    issuer.groups = Some(Mapping { claim: "groups".into(), prefix: String::new() });
    let verify = |claims: &Value| {
        let token = signed(&pair, &json!({"alg": "ES256"}), claims);
        issuer.verify(&token, &keys, Timestamp::UNIX_EPOCH)
    };
    let mut named = claims();
    named["sub"] = "system:node:a".into();
    assert_eq!(verify(&named), Err(IdTokenError::Name("system:node:a".into())));
    let mut grouped = claims();
    grouped["groups"] = json!(["system:masters"]);
    assert_eq!(verify(&grouped), Err(IdTokenError::Name("system:masters".into())));
}

#[test]
fn mail_addresses_are_confirmed() {
    let (pair, keys) = key();
    let flags = Flags { username_claim: Some("email".into()), ..flags() };
    let issuer = flags.issuer().expect("an issuer");
    let verify = |verified: Value| {
        let claims =
            json!({"iss": ISSUER, "aud": "cluster", "exp": 9, "email": "a@b.c", "email_verified": verified});
        let token = signed(&pair, &json!({"alg": "ES256"}), &claims);
        issuer.verify(&token, &keys, Timestamp::UNIX_EPOCH).map(|user| user.name)
    };
    assert_eq!(verify(true.into()), Ok("a@b.c".to_owned()));
    assert_eq!(verify(false.into()), Err(IdTokenError::Unverified));
}

fn flags() -> Flags {
    Flags {
        issuer_url: ISSUER.into(),
        client_id: "cluster".into(),
        signing_algorithms: vec!["ES256".into()],
        ..Flags::default()
    }
}

#[test]
fn issuers_are_configured() {
    let found = issuers(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: https://a.example.com\n    audiences: [x, y]\n  claimMappings:\n    username: {claim: sub, prefix: ''}\n    uid: {claim: id}\n  claimValidationRules:\n  - {claim: hd, requiredValue: example.com}\n",
    )
    .expect("issuers");
    assert_eq!(found[0].audiences, ["x", "y"]);
    assert_eq!(found[0].required["hd"], "example.com");
    assert_eq!(found[0].uid.as_deref(), Some("id"));
    let refuse = |text: &str| issuers(text).expect_err("refused").to_string();
    let text = |rest: &str| {
        format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthenticationConfiguration, jwt: [{{{rest}}}]}}"
        )
    };
    let expression = refuse(&text(
        "issuer: {url: 'https://a', audiences: [x]}, claimMappings: {username: {expression: claims.sub}}",
    ));
    assert!(expression.starts_with("jwt[0].claimMappings.username: CEL"), "{expression}");
    let plain = refuse(&text(
        "issuer: {url: 'http://a', audiences: [x]}, claimMappings: {username: {claim: a, prefix: ''}}",
    ));
    assert_eq!(plain, "jwt[0].issuer.url: \"http://a\" is not an https URL");
    assert!(Flags { client_id: String::new(), ..flags() }.issuer().is_err());
}

/// Signed by another program: what it takes for an RS256 signature is one here.
#[test]
fn a_signature_of_rsa_is_known() {
    const MODULUS: &str = "ry4AIshIh2EE-CwZOznOth9aOWeKMOQ-v9XrhQqVMHNe8ZDGwzRFSuiTYFozTzRxrY4lo_A7c-Pd8BfDuT8JN1JISrKEEWfOWqTwi8nwIypjn-wOmXARSf2j-UnyxvH9RnehVkjxQDpCAaDzmR4dJHq4CdPeye1QES8beozGEHnDmbF_uh4exU8EA6UOHMq2QYuDUoGsRw0bS0-rngiFFwPHoNltNWvC7wbQO0bm2AxgW2jDXiJhDc99HNC7rpy55FQK9uf9TxouHYo1ZL1G6vYvuAbmZ9dKR74cHOXIOEuDtplc7ZZBjZMcDWypwKoXNJTdJ7NTiZ-Xb5DrAjgJ6Q";
    const TOKEN: &str = "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogInIifQ.eyJpc3MiOiAiaHR0cHM6Ly9sb2dpbi5leGFtcGxlLmNvbSIsICJhdWQiOiAiY2x1c3RlciIsICJleHAiOiA0MTAyNDQ0ODAwLCAic3ViIjogImphbmUiLCAidGVuYW50IjogImJsdWUifQ.GUNfRXFxqc_gzmKc56lKCtAKkLl_MqkdYTdf3yAuQSmYlKJ3u4Wku7yG-jJu11BRJn5vOwVmnTgsJz2q2j5JsMLQBQpt7ilfMUH9LtmvCQYLWCo9XYy866SrDoZ2ll7-0oalwhuRo00MMCknogw4_SM-Gu7qNgPUDccdX01OwRIaHpGAEt_kOoTn3w8pNxfNtt6e0loefVYeQ9L1avMG8apzAWJOcWtstZp07YxVKlcqwojEJNqVStEP0xN8J8Y9JRR6PBgPv5YuEoZn2DwGv4bRUwrXT0eZPjh0t0UKLAcsrl9ahL2w71G7GJbgsTqWro3VotwhZeQe91Gk-SOy_A";
    let keys = KeySet::parse(&json!({"keys": [{"kty": "RSA", "kid": "r", "n": MODULUS, "e": "AQAB"}]}));
    let issuer = Issuer { algorithms: vec![Algorithm::RS256], ..issuer() };
    let user = issuer.verify(TOKEN, &keys, Timestamp::UNIX_EPOCH).expect("a user");
    assert_eq!(user.name, "https://login.example.com#jane");
    let forged = TOKEN.replace(".eyJ", ".eyI");
    assert_ne!(issuer.verify(&forged, &keys, Timestamp::UNIX_EPOCH).map(|user| user.name), Ok(user.name));
}
