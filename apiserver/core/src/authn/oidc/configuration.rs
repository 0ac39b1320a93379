//! Issuers as they are configured: by the flags of kube-apiserver, or by its `AuthenticationConfiguration`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::keys::Algorithm;
use super::{Issuer, Mapping};

/// The flags of kube-apiserver that are about an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--oidc-issuer-url`.
    pub issuer_url: String,
    /// `--oidc-client-id`.
    pub client_id: String,
    /// `--oidc-username-claim`; `sub` when it is `None`.
    pub username_claim: Option<String>,
    /// `--oidc-username-prefix`: `-` for none; when it is `None`, the issuer's URL and `#`, but nothing for mail addresses.
    pub username_prefix: Option<String>,
    /// `--oidc-groups-claim`.
    pub groups_claim: Option<String>,
    /// `--oidc-groups-prefix`.
    pub groups_prefix: Option<String>,
    /// `--oidc-required-claim`, each `KEY=VALUE`.
    pub required_claims: Vec<String>,
    /// `--oidc-signing-algs`; `RS256` when there are none.
    pub signing_algorithms: Vec<String>,
    /// The content of `--oidc-ca-file`.
    pub authority: Option<String>,
}

/// Why issuers cannot be configured like this.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigurationError {
    /// The document is no `AuthenticationConfiguration`.
    #[error("cannot read the AuthenticationConfiguration: {0}")]
    Unreadable(String),
    /// A field, or a flag, has a value that it may not have.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: String,
        /// What is wrong.
        why: String,
    },
}

fn invalid(field: impl Into<String>, why: impl Into<String>) -> ConfigurationError {
    ConfigurationError::Invalid { field: field.into(), why: why.into() }
}

// === impl Flags ===

impl Flags {
    /// The issuer that the flags describe.
    ///
    /// # Errors
    /// When a flag has a value that it may not have.
    pub fn issuer(self) -> Result<Issuer, ConfigurationError> {
        check_url("--oidc-issuer-url", &self.issuer_url)?;
        if self.client_id.is_empty() {
            return Err(invalid("--oidc-client-id", "must be set with --oidc-issuer-url"));
        }
        let claim = self.username_claim.unwrap_or_else(|| "sub".to_owned());
        let prefix = match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if claim == "email" => String::new(),
            None => format!("{}#", self.issuer_url),
        };
        let mut required = BTreeMap::new();
        for pair in &self.required_claims {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| invalid("--oidc-required-claim", format!("{pair:?} is not KEY=VALUE")))?;
            required.insert(name.to_owned(), value.to_owned());
        }
        let mut algorithms = Vec::new();
        for name in &self.signing_algorithms {
            let known = Algorithm::parse(name);
            algorithms.push(
                known.ok_or_else(|| invalid("--oidc-signing-algs", format!("{name:?} is not supported")))?,
            );
        }
        if algorithms.is_empty() {
            algorithms.push(Algorithm::RS256);
        }
        let groups_prefix = self.groups_prefix.unwrap_or_default();
        Ok(Issuer {
            url: self.issuer_url,
            discovery_url: None,
            audiences: vec![self.client_id],
            username: Mapping { claim, prefix },
            groups: self.groups_claim.map(|claim| Mapping { claim, prefix: groups_prefix }),
            uid: None,
            required,
            algorithms,
            authority: self.authority,
        })
    }
}

fn check_url(field: &str, url: &str) -> Result<(), ConfigurationError> {
    match url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']))
    {
        true => Ok(()),
        false => Err(invalid(field, format!("{url:?} is not an https URL"))),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Authenticator>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Authenticator {
    issuer: IssuerDocument,
    claim_mappings: Mappings,
    #[serde(default)]
    claim_validation_rules: Vec<Rule>,
    #[serde(default)]
    user_validation_rules: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerDocument {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    audiences: Vec<String>,
    audience_match_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mappings {
    username: MappingDocument,
    groups: Option<MappingDocument>,
    uid: Option<MappingDocument>,
    #[serde(default)]
    extra: Vec<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MappingDocument {
    claim: Option<String>,
    prefix: Option<String>,
    expression: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    claim: Option<String>,
    required_value: Option<String>,
    expression: Option<String>,
    #[allow(dead_code)] // Says why an expression refuses.
    message: Option<String>,
}

const NO_EXPRESSIONS: &str = "CEL expressions are not supported here: name a claim";

/// The issuers of an `AuthenticationConfiguration`, written in YAML or JSON.
///
/// # Errors
/// When it cannot be read, or asks for what is not there.
pub fn issuers(text: &str) -> Result<Vec<Issuer>, ConfigurationError> {
    let document: Document =
        serde_saphyr::from_str(text).map_err(|error| ConfigurationError::Unreadable(error.to_string()))?;
    let versions = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
    if !versions.contains(&document.api_version.as_str()) || document.kind != "AuthenticationConfiguration" {
        let found = format!("{}, Kind={}", document.api_version, document.kind);
        return Err(ConfigurationError::Unreadable(format!("it is of {found}")));
    }
    let issuers: Vec<Issuer> = document.jwt.into_iter().enumerate().map(issuer).collect::<Result<_, _>>()?;
    for (at, each) in issuers.iter().enumerate() {
        if issuers[..at].iter().any(|other| other.url == each.url) {
            return Err(invalid(format!("jwt[{at}].issuer.url"), "Duplicate value"));
        }
    }
    Ok(issuers)
}

fn issuer((at, document): (usize, Authenticator)) -> Result<Issuer, ConfigurationError> {
    let field = |name: &str| format!("jwt[{at}].{name}");
    let Authenticator { issuer, claim_mappings, claim_validation_rules, user_validation_rules } = document;
    check_url(&field("issuer.url"), &issuer.url)?;
    if issuer.audiences.is_empty() {
        return Err(invalid(field("issuer.audiences"), "at least one jwt[].issuer.audiences is required"));
    }
    let policy = issuer.audience_match_policy.as_deref().unwrap_or_default();
    if !matches!(policy, "" | "MatchAny") {
        return Err(invalid(field("issuer.audienceMatchPolicy"), "must be MatchAny"));
    }
    if !user_validation_rules.is_empty() {
        return Err(invalid(field("userValidationRules"), NO_EXPRESSIONS));
    }
    if !claim_mappings.extra.is_empty() {
        return Err(invalid(field("claimMappings.extra"), NO_EXPRESSIONS));
    }
    let mapping = |name: &str, document: MappingDocument| -> Result<Mapping, ConfigurationError> {
        let name = field(&format!("claimMappings.{name}"));
        match (document.claim, document.expression) {
            (_, Some(_)) => Err(invalid(name, NO_EXPRESSIONS)),
            (None, None) => Err(invalid(name, "claim is required")),
            (Some(claim), None) => Ok(Mapping { claim, prefix: document.prefix.unwrap_or_default() }),
        }
    };
    if claim_mappings.username.claim.is_some() && claim_mappings.username.prefix.is_none() {
        return Err(invalid(
            field("claimMappings.username.prefix"),
            "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        ));
    }
    let mut required = BTreeMap::new();
    for (rule, each) in claim_validation_rules.into_iter().enumerate() {
        match (each.claim, each.expression) {
            (Some(claim), None) => drop(required.insert(claim, each.required_value.unwrap_or_default())),
            _ => return Err(invalid(field(&format!("claimValidationRules[{rule}]")), NO_EXPRESSIONS)),
        }
    }
    Ok(Issuer {
        username: mapping("username", claim_mappings.username)?,
        groups: claim_mappings.groups.map(|groups| mapping("groups", groups)).transpose()?,
        uid: claim_mappings.uid.map(|uid| mapping("uid", uid)).transpose()?.map(|uid| uid.claim),
        url: issuer.url,
        discovery_url: issuer.discovery_url,
        audiences: issuer.audiences,
        required,
        algorithms: Algorithm::ALL.to_vec(),
        authority: issuer.certificate_authority,
    })
}
