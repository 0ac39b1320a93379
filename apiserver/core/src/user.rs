//! Who is asking: the identity that authentication found.

use std::collections::BTreeMap;

/// The group of everyone who proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everyone who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name given to a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that authorization never refuses.
pub const MASTERS: &str = "system:masters";
/// The group of node agents.
pub const NODES: &str = "system:nodes";

/// An authenticated (or anonymous) caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user's name, for example `system:node:node-1`.
    pub name: String,
    /// A stable id, where the authenticator knows one.
    pub uid: String,
    /// The groups that the user belongs to.
    pub groups: Vec<String>,
    /// Further facts about the credential.
    pub extra: BTreeMap<String, Vec<String>>,
}

// === impl User ===

impl User {
    /// The user of a request without credentials.
    pub fn anonymous() -> User {
        User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() }
    }

    /// The user that a client certificate names: subject common name and organisations.
    pub fn from_certificate(common_name: &str, organisations: &[String]) -> User {
        User::authenticated(common_name, organisations)
    }

    /// A user with the given groups and `system:authenticated`.
    pub fn authenticated(name: &str, groups: &[String]) -> User {
        let mut groups = groups.to_vec();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        User { name: name.into(), groups, ..User::default() }
    }

    /// The user that a service account is.
    pub fn service_account(namespace: &str, name: &str) -> User {
        User::authenticated(
            &format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
        )
    }

    /// Whether the user belongs to `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node that this user is the identity of, if it is a node agent.
    pub fn node(&self) -> Option<&str> {
        let node = self.name.strip_prefix("system:node:")?;
        (self.in_group(NODES) && !node.is_empty()).then_some(node)
    }
}
