//! Servers among themselves: by which certificate a server proves that it is a member, and how it reaches the others.

use std::io;
use std::sync::Arc;

use apiserver_core::User;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use store::{Connector, PeerId, PeerTls};

use crate::pki::{Authority, COMPONENT_LIFETIME};

/// The group in the certificates of servers.
const GROUP: &str = "system:orlop:servers";
/// What a server's user name begins with; its id among the members follows.
const USER_PREFIX: &str = "system:orlop:server:";
/// A name that the certificate of every server is good for.
const SERVER_NAME: &str = "kubernetes";

/// Reaches the other servers with certificates that the authority issues for each connection.
pub struct PeerConnector {
    authority: Arc<Authority>,
    member: u64,
}

/// Why no channel could be set up.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the certificate was not issued")]
    Issue(#[from] crate::pki::PkiError),
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

// === impl PeerConnector ===

impl PeerConnector {
    /// The way of this member to the others.
    pub fn new(authority: Arc<Authority>, member: u64) -> PeerConnector {
        PeerConnector { authority, member }
    }

    fn config(&self) -> Result<ClientConfig, ConnectError> {
        let user = format!("{USER_PREFIX}{}", self.member);
        let issued = self.authority.issue_client(&user, Some(GROUP), COMPONENT_LIFETIME)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.authority.roots()?)
            .with_client_auth_cert(vec![issued.cert_der.clone()], issued.key_der())?)
    }
}

impl Connector for PeerConnector {
    fn tls(&self) -> io::Result<PeerTls> {
        let config = self.config().map_err(io::Error::other)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        Ok(PeerTls { config, name })
    }
}

/// The member that the user of a certificate is.
pub(crate) fn member(user: &User) -> Option<PeerId> {
    let id = user.name.strip_prefix(USER_PREFIX)?.parse().ok()?;
    user.in_group(GROUP).then_some(PeerId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_of_the_group_is_a_member() {
        let check = |name: &str, group: &str, expected: Option<u64>| {
            let user = User::from_certificate(name, &[group.to_owned()]);
            assert_eq!(member(&user), expected.map(PeerId), "{name} {group}");
        };
        check("system:orlop:server:3", "system:orlop:servers", Some(3));
        check("system:orlop:server:3", "system:nodes", None);
        check("system:orlop:server:x", "system:orlop:servers", None);
        check("system:node:3", "system:orlop:servers", None);
    }
}
