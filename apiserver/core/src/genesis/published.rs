//! ConfigMaps in which a cluster tells of itself: by which authority clients prove who they are, and where it is reached.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::config::Config;

/// What programs read that serve a part of the API themselves, so that they know the users of the cluster.
pub(super) fn authentication(authority: &str) -> Value {
    json!({"metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"client-ca-file": authority}})
}

/// What kubeadm publishes: a kubeconfig without a user. Nothing where clients elsewhere have no address to reach the server at.
pub(super) fn cluster_info(config: &Config, authority: &str) -> Option<Value> {
    let (ip, port) = config.advertise.first()?;
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    let authority = BASE64.encode(authority);
    let kubeconfig = format!(
        "apiVersion: v1\n\
         clusters:\n\
         - cluster:\n\
         \x20   certificate-authority-data: {authority}\n\
         \x20   server: https://{host}:{port}\n\
         \x20 name: \"\"\n\
         contexts: null\n\
         current-context: \"\"\n\
         kind: Config\n\
         users: null\n"
    );
    Some(json!({"metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": kubeconfig}}))
}
