//! Writes kubeconfig files.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::{Issued, PkiError, write_private};

/// The text of a kubeconfig with one cluster, one user and one context, all embedded.
pub fn render(cluster: &str, user: &str, server: &str, ca_pem: &str, identity: &Issued) -> Zeroizing<String> {
    let ca = BASE64_STANDARD.encode(ca_pem);
    let cert = BASE64_STANDARD.encode(&identity.cert_pem);
    let key = Zeroizing::new(BASE64_STANDARD.encode(identity.key_pem.as_bytes()));
    let (cluster, user, server) = (quoted(cluster), quoted(user), quoted(server));
    Zeroizing::new(format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {cluster}\n\
         \x20 cluster:\n\
         \x20   certificate-authority-data: {ca}\n\
         \x20   server: {server}\n\
         contexts:\n\
         - name: {cluster}\n\
         \x20 context:\n\
         \x20   cluster: {cluster}\n\
         \x20   user: {user}\n\
         current-context: {cluster}\n\
         preferences: {{}}\n\
         users:\n\
         - name: {user}\n\
         \x20 user:\n\
         \x20   client-certificate-data: {cert}\n\
         \x20   client-key-data: {}\n",
        key.as_str(),
    ))
}

/// Writes a kubeconfig, readable by its owner only.
pub fn write(
    path: &Path,
    cluster: &str,
    user: &str,
    server: &str,
    ca_pem: &str,
    identity: &Issued,
) -> Result<(), PkiError> {
    write_private(path, render(cluster, user, server, ca_pem, identity).as_bytes())
}

/// A YAML string in double quotes: JSON's form is valid YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
