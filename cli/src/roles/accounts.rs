//! The controllers' identities: each works as a ServiceAccount of kube-system, by a token that is asked for and renewed.
//!
//! This is what `--use-service-account-credentials` is in Kubernetes: the process that hosts the controllers may ask for
//! their tokens, and each controller has the rights of its own role only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::core::object::ResourceType;
use client::{Client, Error};
use http::Method;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tracing::warn;

const NAMESPACE: &str = "kube-system";
/// So long a token is asked for.
const LIFETIME: Duration = Duration::from_secs(3600);
/// So often all are renewed: several attempts fit into the life of a token.
const RENEWAL: Duration = Duration::from_secs(1200);

/// A client for each account.
#[derive(Clone)]
pub struct Accounts {
    clients: Arc<BTreeMap<&'static str, Client>>,
    manager: Client,
}

// === impl Accounts ===

impl Accounts {
    /// Asks for the token of each account; one that does not exist is made.
    ///
    /// # Errors
    /// When the server refuses, or cannot be reached.
    pub async fn obtain(manager: &Client, names: impl Iterator<Item = &'static str>) -> Result<Accounts> {
        let mut clients = BTreeMap::new();
        for name in names {
            let client = async {
                ensure(manager, name).await?;
                anyhow::Ok(manager.with_token(&token(manager, name).await?)?)
            };
            let client =
                client.await.with_context(|| format!("working as ServiceAccount {NAMESPACE}/{name}"))?;
            clients.insert(name, client);
        }
        Ok(Accounts { clients: Arc::new(clients), manager: manager.clone() })
    }

    /// The client of an account. One that was not asked for has the manager's own rights, which do not suffice for any
    /// controller's work: the server refuses, and says what is missing.
    pub fn client(&self, name: &str) -> Client {
        self.clients.get(name).unwrap_or(&self.manager).clone()
    }

    /// Renews the tokens, for ever.
    pub async fn renew(self, manager: Client) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            for (name, client) in self.clients.iter() {
                let renewed = async { anyhow::Ok(client.replace_token(&token(&manager, name).await?)?) };
                if let Err(error) = renewed.await {
                    warn!(account = name, "the token was not renewed: {error:#}");
                }
            }
        }
    }
}

async fn ensure(manager: &Client, name: &str) -> Result<(), Error> {
    if manager.get_opt::<ServiceAccount>(Some(NAMESPACE), name).await?.is_some() {
        return Ok(());
    }
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        ..ObjectMeta::default()
    };
    match manager.create(&ServiceAccount { metadata, ..ServiceAccount::default() }).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn token(manager: &Client, name: &str) -> Result<String> {
    let path = ResourceType::of::<ServiceAccount>().object_path(Some(NAMESPACE), name, Some("token"));
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": LIFETIME.as_secs()},
    });
    let request = Client::build_with(Method::POST, &path, "application/json", body.to_string())?;
    let answer: TokenRequest = manager.request(request).await?;
    let token = answer.status.and_then(|status| status.token);
    token.context("the server answered without a token")
}
