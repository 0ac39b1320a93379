//! Where a webhook is: an address, or a service of the cluster.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::Value;
use store_core::Snapshot;

use crate::ask::{Fault, Recipient, Route};
use crate::{backends, keys, object};

/// The port of a service that names none.
const PORT: u64 = 443;

/// A `clientConfig`.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    place: Place,
    ca_bundle: Bytes,
}

#[derive(Clone, Debug)]
enum Place {
    Url(String),
    Service { namespace: String, name: String, port: u64, path: String },
}

// === impl Client ===

impl Client {
    pub fn read(config: &Value) -> Client {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = &config["service"];
        let place = match config["url"].as_str() {
            Some(url) => Place::Url(url.to_owned()),
            None => Place::Service {
                namespace: text(&service["namespace"]),
                name: text(&service["name"]),
                port: service["port"].as_u64().unwrap_or(PORT),
                path: text(&service["path"]),
            },
        };
        let ca_bundle = config["caBundle"].as_str().and_then(|text| BASE64.decode(text).ok());
        Client { place, ca_bundle: ca_bundle.unwrap_or_default().into() }
    }

    /// Whom a question is to be sent to, on this state.
    pub fn recipient(&self, snapshot: &Snapshot, timeout: Duration) -> Result<Recipient, Fault> {
        let url = self.url(timeout);
        let route = match &self.place {
            Place::Url(_) => Route::Host,
            Place::Service { namespace, name, port, .. } => {
                let missing = |why: String| Fault::Call(format!("Post {url:?}: {why}"));
                let key = keys::object("", "services", namespace, name);
                let service = snapshot.get(&key).and_then(|entry| object::parse(&entry.value));
                let service = service.ok_or_else(|| missing(format!("service {name:?} not found")))?;
                let port_name = backends::port_name(&service, *port)
                    .ok_or_else(|| missing(format!("no service port {port} found for service {name:?}")))?;
                let endpoints = backends::of_service(snapshot, namespace, name, port_name);
                if endpoints.is_empty() {
                    return Err(missing(format!("no endpoints available for service {name:?}")));
                }
                Route::Endpoints(endpoints)
            }
        };
        Ok(Recipient { url, route, ca_bundle: self.ca_bundle.clone(), timeout })
    }

    /// The address with the time that the webhook has.
    fn url(&self, timeout: Duration) -> String {
        let base = match &self.place {
            Place::Url(url) => url.clone(),
            Place::Service { namespace, name, port, path } => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                format!("https://{name}.{namespace}.svc:{port}{slash}{path}")
            }
        };
        let separator = if base.contains('?') { '&' } else { '?' };
        format!("{base}{separator}timeout={}s", timeout.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(config: Value, expected: &str) {
        assert_eq!(Client::read(&config).url(Duration::from_secs(10)), expected);
    }

    #[test]
    fn addresses_name_the_service_and_the_time() {
        check(json!({"url": "https://hook.example/a"}), "https://hook.example/a?timeout=10s");
        check(json!({"url": "https://hook.example/a?x=1"}), "https://hook.example/a?x=1&timeout=10s");
        check(json!({"service": {"namespace": "n", "name": "s"}}), "https://s.n.svc:443/?timeout=10s");
        check(
            json!({"service": {"namespace": "n", "name": "s", "port": 8443, "path": "/check"}}),
            "https://s.n.svc:8443/check?timeout=10s",
        );
    }

    #[test]
    fn a_service_without_endpoints_cannot_be_asked() {
        let client = Client::read(&json!({"service": {"namespace": "n", "name": "s"}}));
        let fault = client.recipient(&Snapshot::default(), Duration::from_secs(1)).err().expect("a fault");
        assert_eq!(
            fault.to_string(),
            "failed to call webhook: Post \"https://s.n.svc:443/?timeout=1s\": service \"s\" not found"
        );
    }
}
