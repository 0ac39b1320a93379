//! Service account tokens of pods: asked for once, asked for anew when four fifths of their life are over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nodeagent_core::{clock, pod};
use serde::Deserialize;
use serde_json::json;

type Key = (String, String, i64);

/// The tokens of the node's pods.
pub(crate) struct Tokens {
    client: Client,
    known: Mutex<BTreeMap<Key, (Arc<str>, Timestamp)>>,
}

#[derive(Deserialize)]
struct Answer {
    status: AnswerStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerStatus {
    token: String,
    expiration_timestamp: Option<Timestamp>,
}

// === impl Tokens ===

impl Tokens {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// A token of the pod's service account that is good for a while.
    pub(crate) async fn get(
        &self,
        of: &Pod,
        audience: &str,
        seconds: i64,
    ) -> Result<Arc<str>, client::Error> {
        let key = (pod::uid(of).to_owned(), audience.to_owned(), seconds);
        let now = Timestamp::now();
        if let Some((token, renew_at)) = self.lock().get(&key)
            && *renew_at > now
        {
            return Ok(token.clone());
        }
        let account = pod::spec(of).service_account_name.as_deref().unwrap_or("default");
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", pod::namespace(of));
        let audiences: Vec<&str> = Some(audience).filter(|it| !it.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod::name(of), "uid": pod::uid(of)},
            },
        });
        let request = Client::build_with(http::Method::POST, &path, "application/json", body.to_string())?;
        let answer: Answer = self.client.request(request).await?;
        let ends =
            answer.status.expiration_timestamp.unwrap_or_else(|| clock::after(now, pod::seconds(seconds)));
        let renew_at = clock::after(now, clock::between(now, ends) * 4 / 5);
        let token: Arc<str> = answer.status.token.into();
        self.lock().insert(key, (token.clone(), renew_at));
        Ok(token)
    }

    /// Drops the tokens of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().retain(|(of, _, _), _| of != uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, (Arc<str>, Timestamp)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
