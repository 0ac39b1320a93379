//! Keeps an agent's list of servers true: requests and tunnels go to those that the cluster says it has.

use std::path::PathBuf;

use client::core::object::Object as _;
use client::{Client, Informer};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nodeagent::TunnelConfig;
use tokio::sync::watch;
use tracing::warn;

use super::AgentFile;
use crate::join::SERVER_NAME;

/// The servers as URLs.
pub fn urls(servers: &[String]) -> Vec<String> {
    servers.iter().map(|server| format!("https://{server}")).collect()
}

/// A tunnel to each server.
pub fn tunnels(file: &AgentFile) -> Vec<TunnelConfig> {
    let tunnel = |server: &String| TunnelConfig {
        address: server.clone(),
        server_name: SERVER_NAME.to_owned(),
        authority: file.authority.clone(),
        certificate: file.certificate.clone(),
        key: file.key.clone(),
    };
    file.servers.iter().map(tunnel).collect()
}

/// Follows the endpoints of `default/kubernetes` until the cache ends. What is new is remembered in the agent's file at
/// `path`, for its next start.
pub async fn follow(
    path: PathBuf,
    mut file: AgentFile,
    client: Client,
    slices: Informer<EndpointSlice>,
    tunnels: watch::Sender<Vec<TunnelConfig>>,
) {
    let mut changes = slices.subscribe();
    while changes.next().await.is_some() {
        while changes.try_next().is_some() {}
        let found = servers(slices.store().iter().map(AsRef::as_ref));
        if found.is_empty() || found == file.servers {
            continue;
        }
        file.servers = found;
        if let Err(error) = client.set_servers(&urls(&file.servers)) {
            warn!(%error, "the list of servers cannot be used");
            continue;
        }
        tunnels.send_replace(self::tunnels(&file));
        if let Err(error) = file.write(&path) {
            warn!("the list of servers was not written down: {error:#}");
        }
    }
}

/// `HOST:PORT` of the ready endpoints of `default/kubernetes`, in order.
fn servers<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<String> {
    let mut found = Vec::new();
    let ours = |slice: &&EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
        slice.namespace() == "default" && service.is_some_and(|name| name == "kubernetes")
    };
    for slice in slices.filter(ours) {
        let port = slice.ports.iter().flatten().find_map(|port| port.port);
        let Some(port) = port else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            found.extend(
                endpoint.addresses.iter().filter(|_| ready).map(|address| format!("{address}:{port}")),
            );
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_the_ready_endpoints_of_the_api() {
        let slice = |namespace: &str, service: &str| -> EndpointSlice {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "kubernetes", "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4",
                "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
                "endpoints": [
                    {"addresses": ["10.0.0.3"], "conditions": {"ready": true}},
                    {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.1"], "conditions": {}},
                ],
            }))
            .unwrap()
        };
        let slices = [slice("default", "kubernetes"), slice("other", "kubernetes"), slice("default", "web")];
        assert_eq!(servers(slices.iter()), ["10.0.0.1:6443", "10.0.0.3:6443"]);
    }
}
