//! The keys that all servers share, and how one takes the place of another while everything goes on.
//!
//! A new key is announced first: everybody learns to accept it, nobody uses it. When all have said that they do, it is
//! used, and the one before is still accepted. When that one's time is over and nobody has anything of it any more, it
//! is dropped. Each step is one write of one value in the store, so all servers take the same steps, and a step that a
//! server did not finish is taken by the one that leads next.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use store_core::Snapshot;

use crate::keys;

/// The annotation of a Node in which its agent says what it accepts: a [`Report`] as JSON.
pub const ANNOTATION: &str = "orlop.dev/certificate";

/// The keys that all servers share. In the store it is one value; a cluster that never rotated a key has none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keyring {
    /// What signs certificates.
    pub authority: Succession<AuthorityKey>,
    /// What signs the tokens of ServiceAccounts.
    pub token_key: Succession<TokenKey>,
    /// How often the keys of the stores were rotated: every server makes its own.
    pub store_key: u64,
}

/// A key, the one that will take its place, and those that it took the place of.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "K: Deserialize<'de>"))]
pub struct Succession<K> {
    /// The key that is used.
    pub current: K,
    /// A key that is accepted and not used yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next<K>>,
    /// Keys that are accepted and not used any more, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former<K>>,
}

/// A key that is announced.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Next<K> {
    /// The key.
    pub key: K,
    /// For how long the key before it is accepted when this one is used.
    pub keep_old_seconds: u64,
}

/// A key that was used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Former<K> {
    /// The key.
    pub key: K,
    /// It is accepted until then, and longer while somebody still depends on it.
    pub until: Timestamp,
}

/// A certificate authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityKey {
    /// What it is called: the beginning of the SHA-256 of its certificate.
    pub id: String,
    /// Its certificate, PEM, signed by itself.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// Its public key, certified by the authority before it (PEM): by this, who knows only that one accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voucher: Option<String>,
}

/// A key that signs tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenKey {
    /// What it is called.
    pub id: String,
    /// The seed of the Ed25519 key, base64.
    pub seed: String,
}

/// What has a name by which reports call it.
pub trait Named {
    /// The name.
    fn id(&self) -> &str;
}

/// What a server or an agent says of the keys that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The ids of the authorities that it accepts.
    pub accepts: Vec<String>,
    /// The id of the authority that its certificate is of.
    pub issuer: String,
    /// When its certificate ends.
    pub expires: Timestamp,
    /// The ids of the token keys that a server accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<String>,
    /// The keys that a server's store needs, as counted in [`Keyring::store_key`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub store_keys: Vec<u64>,
}

/// Somebody who has keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// How people call it: `server s1`, `node n2`.
    pub name: String,
    /// What it said last; `None`: nothing yet.
    pub report: Option<Report>,
}

/// Who has keys.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// The servers of the cluster.
    pub servers: Vec<Holder>,
    /// The nodes that have said anything: others have their certificates from elsewhere.
    pub nodes: Vec<Holder>,
}

/// What people see of a succession.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessionStatus {
    /// The id of the key that is used.
    pub current: String,
    /// The id of the key that is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The ids of those that are still accepted, and until when at least.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<(String, Timestamp)>,
    /// Who has to do something before the next step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// What people see of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyringStatus {
    /// What signs certificates.
    pub authority: SuccessionStatus,
    /// What signs tokens.
    pub token_key: SuccessionStatus,
    /// What encrypts the stores: how often it was rotated, and the servers that still have files of an older one.
    pub store_key: SuccessionStatus,
    /// When the certificates of servers and nodes end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<(String, Timestamp)>,
}

// === impl Named ===

impl Named for AuthorityKey {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Named for TokenKey {
    fn id(&self) -> &str {
        &self.id
    }
}

// === impl Succession ===

impl<K: Named + Clone> Succession<K> {
    /// A key alone.
    pub fn of(current: K) -> Succession<K> {
        Succession { current, next: None, former: Vec::new() }
    }

    /// All keys that are accepted, the one that is used first.
    pub fn accepted(&self) -> impl Iterator<Item = &K> {
        let next = self.next.iter().map(|next| &next.key);
        std::iter::once(&self.current).chain(next).chain(self.former.iter().map(|former| &former.key))
    }

    /// Announces a key; `false` when another one is announced already.
    pub fn announce(&mut self, key: K, keep_old_seconds: u64) -> bool {
        if self.next.is_some() {
            return false;
        }
        self.next = Some(Next { key, keep_old_seconds });
        true
    }

    /// Ends the time of those that are not used any more.
    pub fn expire_former(&mut self, now: Timestamp) {
        self.former.iter_mut().for_each(|former| former.until = former.until.min(now));
    }

    /// Takes the next step, if its time has come: `all_accept` says whether everybody accepts a key, `is_needed` whether
    /// somebody still depends on it.
    fn advance(
        &mut self,
        now: Timestamp,
        all_accept: impl Fn(&str) -> bool,
        is_needed: impl Fn(&str) -> bool,
    ) {
        if let Some(next) = self.next.take_if(|next| all_accept(next.key.id())) {
            let kept = i64::try_from(next.keep_old_seconds).unwrap_or(i64::MAX);
            let until = now.saturating_add(SignedDuration::from_secs(kept)).unwrap_or(Timestamp::MAX);
            let key = std::mem::replace(&mut self.current, next.key);
            self.former.insert(0, Former { key, until });
        }
        self.former.retain(|former| now < former.until || is_needed(former.key.id()));
    }

    fn status(&self, waits_for: Vec<String>) -> SuccessionStatus {
        SuccessionStatus {
            current: self.current.id().to_owned(),
            next: self.next.as_ref().map(|next| next.key.id().to_owned()),
            former: self.former.iter().map(|former| (former.key.id().to_owned(), former.until)).collect(),
            waits_for,
        }
    }
}

// === impl Keyring ===

impl Keyring {
    /// The keys in the store, with the revision of the value; `None` before the first rotation, or when it cannot be read.
    pub fn read(snapshot: &Snapshot) -> Option<(u64, Keyring)> {
        let found = snapshot.get(keys::KEYRING)?;
        Some((found.revision, serde_json::from_slice(&found.value).ok()?))
    }

    /// The keys after the next steps whose time has come; `None` when there is nothing to do.
    pub fn advanced(&self, holders: &Holders, now: Timestamp) -> Option<Keyring> {
        let mut next = self.clone();
        next.authority.advance(
            now,
            |id| holders.all().all(|report| report.is_some_and(|report| has(&report.accepts, id))),
            |id| holders.all().any(|report| report.is_none_or(|report| report.issuer == id)),
        );
        next.token_key.advance(
            now,
            |id| holders.servers.iter().all(|server| server.accepts_tokens_of(id)),
            // A token that is good for longer ends with its key.
            |_| false,
        );
        (next != *self).then_some(next)
    }

    /// What people see of it.
    pub fn status(&self, holders: &Holders) -> KeyringStatus {
        let names = |holders: &[&Holder]| holders.iter().map(|holder| holder.name.clone()).collect();
        let everybody: Vec<&Holder> = holders.servers.iter().chain(&holders.nodes).collect();
        let lagging = |lags: &dyn Fn(&Holder) -> bool, among: &[&Holder]| -> Vec<String> {
            names(&among.iter().copied().filter(|holder| lags(holder)).collect::<Vec<_>>())
        };
        let servers: Vec<&Holder> = holders.servers.iter().collect();
        let authority = match &self.authority.next {
            Some(next) => lagging(&|holder| !holder.accepts(&next.key.id), &everybody),
            None => lagging(&|holder| !holder.has_certificate_of(&self.authority.current.id), &everybody),
        };
        let token_key = match &self.token_key.next {
            Some(next) => lagging(&|holder| !holder.accepts_tokens_of(&next.key.id), &servers),
            None => Vec::new(),
        };
        let store_key = lagging(&|holder| !holder.has_store_of(self.store_key), &servers);
        let store_key = SuccessionStatus {
            current: self.store_key.to_string(),
            waits_for: store_key,
            ..SuccessionStatus::default()
        };
        let ends = everybody
            .iter()
            .filter_map(|holder| Some((holder.name.clone(), holder.report.as_ref()?.expires)));
        KeyringStatus {
            authority: self.authority.status(authority),
            token_key: self.token_key.status(token_key),
            store_key,
            certificates: ends.collect(),
        }
    }
}

fn has(ids: &[String], id: &str) -> bool {
    ids.iter().any(|known| known == id)
}

// === impl Holder ===

impl Holder {
    fn accepts(&self, authority: &str) -> bool {
        self.report.as_ref().is_some_and(|report| has(&report.accepts, authority))
    }

    fn has_certificate_of(&self, authority: &str) -> bool {
        self.report.as_ref().is_some_and(|report| report.issuer == authority)
    }

    fn accepts_tokens_of(&self, key: &str) -> bool {
        self.report.as_ref().is_some_and(|report| has(&report.token_keys, key))
    }

    fn has_store_of(&self, key: u64) -> bool {
        self.report.as_ref().is_some_and(|report| report.store_keys == [key])
    }
}

// === impl Holders ===

impl Holders {
    /// Who has keys: the members by id and name, and the nodes, with what each has said.
    pub fn read(snapshot: &Snapshot, members: &[(u64, String)]) -> Holders {
        let report = |id: u64| {
            let found = snapshot.get(&keys::key_report(id))?;
            serde_json::from_slice(&found.value).ok()
        };
        let server =
            |(id, name): &(u64, String)| Holder { name: format!("server {name}"), report: report(*id) };
        let nodes = snapshot.prefix(keys::prefix("", "nodes").as_bytes()).filter_map(|(_, found)| {
            let node: serde_json::Value = serde_json::from_slice(&found.value).ok()?;
            let said = node["metadata"]["annotations"][ANNOTATION].as_str()?;
            let name = node["metadata"]["name"].as_str()?;
            Some(Holder { name: format!("node {name}"), report: serde_json::from_str(said).ok() })
        });
        Holders { servers: members.iter().map(server).collect(), nodes: nodes.collect() }
    }

    fn all(&self) -> impl Iterator<Item = Option<&Report>> {
        self.servers.iter().chain(&self.nodes).map(|holder| holder.report.as_ref())
    }
}

#[cfg(test)]
mod tests;
