//! `/orlop/v1`: how machines join a cluster, and what its members are. What is asked and answered, and who may ask.
//!
//! These paths are about the server and not about its objects, so they are no resources; who may use them is a matter of
//! RBAC's `nonResourceURLs` all the same.

use api::name;
use api::status::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store_core::Snapshot;

use crate::failure::Refused;
use crate::keyring::Keyring;
use crate::keys;

/// The authority's certificate, for everyone: what a joining machine compares with its token.
pub const AUTHORITY: &str = "/orlop/v1/authority";
/// A machine becomes a node.
pub const JOIN_NODE: &str = "/orlop/v1/join/node";
/// A machine becomes a server.
pub const JOIN_SERVER: &str = "/orlop/v1/join/server";
/// A node's certificate is renewed.
pub const CERTIFICATE: &str = "/orlop/v1/certificate";
/// The servers of the cluster; below it, by id, what is done to one.
pub const MEMBERS: &str = "/orlop/v1/members";

/// The keys that all servers share; below it, by name, how one is rotated.
pub const KEYRING: &str = "/orlop/v1/keyring";

/// The whole state of the cluster, sealed with a key that the asker chooses.
pub const BACKUP: &str = "/orlop/v1/backup";

/// Who proves by a token to be a machine that is to become a node.
pub const NODE_BOOTSTRAPPERS: &str = "system:bootstrappers:orlop:nodes";
/// Who proves by a token to be a machine that is to become a server.
pub const SERVER_BOOTSTRAPPERS: &str = "system:bootstrappers:orlop:servers";

/// Asks to become a node, or for a node's next certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRequest {
    /// The name of the Node.
    pub name: String,
    /// A PKCS#10 request in PEM; its key is certified, whatever else it asks for.
    pub signing_request: String,
}

/// What a node needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    /// Its certificate, PEM.
    pub certificate: String,
    /// What every part of the cluster agrees on.
    pub cluster: Value,
    /// `HOST:PORT` of each server.
    pub servers: Vec<String>,
    /// The certificates of all authorities that the cluster accepts, PEM.
    pub authorities: String,
}

/// Asks to become a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerRequest {
    /// The name of the server.
    pub name: String,
    /// `HOST:PORT` at which the other servers reach it.
    pub address: String,
}

/// What a server needs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerAnswer {
    /// Its id among the members.
    pub member: u64,
    /// The keys that all servers share: every server issues certificates and tokens.
    pub keyring: Keyring,
    /// What every part of the cluster agrees on.
    pub cluster: Value,
}

/// Asks to rotate a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotationRequest {
    /// For how long the key before is accepted once the new one is used.
    pub keep_old_seconds: u64,
}

/// Asks for a backup.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupRequest {
    /// The key that seals it: 64 hexadecimal digits.
    pub key: String,
    /// The version of its format; the newest unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<u32>,
}

/// What a backup holds besides the objects: all that a cluster cannot be made again from without them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupFacts {
    /// When it was made.
    pub created: String,
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The authority's key, PEM.
    pub authority_key: String,
    /// The seed of the key that signs tokens, base64.
    pub token_seed: String,
    /// What every part of the cluster agrees on.
    pub cluster: Value,
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its id, never used again.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `HOST:PORT` at which it serves.
    pub address: String,
    /// `voter` or `learner`.
    pub role: String,
    /// Whether it leads.
    pub leader: bool,
    /// The index up to which it has the log, as far as the answering member knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_index: Option<u64>,
}

/// Refuses a name that no Node can have, or that another machine has already.
pub fn check_node_name(snapshot: &Snapshot, name: &str) -> Result<(), Refused> {
    check_name(name)?;
    if snapshot.get(&keys::object("", "nodes", "", name)).is_some() {
        let message = format!(
            "a node named {name:?} is in the cluster already: choose another name with --name, or delete that Node first"
        );
        return Err(crate::failure::conflict(&message));
    }
    Ok(())
}

/// Refuses a name that no machine can have.
pub fn check_name(name: &str) -> Result<(), Refused> {
    let problems = name::dns1123_subdomain(name);
    match problems.is_empty() {
        true => Ok(()),
        false => {
            Err(Status::bad_request(format!("name: Invalid value: {name:?}: {}", problems.join("; "))).into())
        }
    }
}
