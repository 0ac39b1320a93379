//! Role based access control: an index of roles and bindings, kept as a value and changed key by key.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::LabelSelector;
use bytes::Bytes;
use imbl::OrdMap;
use serde::Deserialize;

use super::{Attributes, Decision};
use crate::keys;
use crate::user::User;

/// The API group of the RBAC kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// One rule of a role.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Verbs, or `*`.
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    #[serde(deserialize_with = "list")]
    pub api_groups: Vec<String>,
    /// Resources (`pods`, `pods/log`, `*/scale`), or `*`.
    #[serde(deserialize_with = "list")]
    pub resources: Vec<String>,
    /// Names of objects; all when empty.
    #[serde(deserialize_with = "list")]
    pub resource_names: Vec<String>,
    /// Paths, perhaps with `*` at the end.
    #[serde(rename = "nonResourceURLs", deserialize_with = "list")]
    pub non_resource_urls: Vec<String>,
}

/// Whom a binding is for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RoleObject {
    #[serde(deserialize_with = "list")]
    rules: Vec<Rule>,
    metadata: RoleMetadata,
    #[serde(rename = "aggregationRule")]
    aggregation: Option<Aggregation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RoleMetadata {
    labels: Option<BTreeMap<String, String>>,
}

/// Which cluster roles lend their rules to an aggregated one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Aggregation {
    #[serde(deserialize_with = "list")]
    cluster_role_selectors: Vec<serde_json::Value>,
}

/// A cluster role that lends or borrows rules.
struct Aggregate {
    own: Arc<[Rule]>,
    labels: BTreeMap<String, String>,
    selectors: Vec<LabelSelector>,
}

/// Aggregated roles may select aggregated roles; this deep is followed.
const AGGREGATION_DEPTH: usize = 3;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BindingObject {
    role_ref: RoleRef,
    #[serde(deserialize_with = "list")]
    subjects: Vec<Subject>,
}

/// The role that a binding grants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The role's name.
    pub name: String,
}

struct Binding {
    /// Empty: for the whole cluster.
    namespace: String,
    role: Bytes,
    subjects: Vec<Arc<str>>,
    key: Bytes,
}

/// Every role and binding, ready to be asked.
#[derive(Clone, Default)]
pub struct Rules {
    roles: OrdMap<Bytes, Arc<[Rule]>>,
    aggregates: OrdMap<Bytes, Arc<Aggregate>>,
    bindings: OrdMap<Bytes, Arc<Binding>>,
    by_subject: OrdMap<Arc<str>, Arc<[Arc<Binding>]>>,
}

fn list<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(input)?.unwrap_or_default())
}

// === impl Rule ===

impl Rule {
    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let verb = has(&self.verbs, attributes.verb);
        if !attributes.is_resource {
            return verb
                && self.non_resource_urls.iter().any(|pattern| path_matches(pattern, attributes.path));
        }
        verb && has(&self.api_groups, attributes.group)
            && self.resources.iter().any(|r| resource_matches(r, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == attributes.name))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

/// Whether a rule's resource covers `resource` and `subresource`.
pub fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((r, s)) => s == subresource && !subresource.is_empty() && (r == "*" || r == resource),
    }
}

/// Whether a rule's path covers `path`.
pub fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

// === impl Rules ===

impl Rules {
    /// Takes in a stored role or binding.
    pub fn put(&mut self, key: &Bytes, value: &[u8]) {
        let Some((kind, namespace)) = split(key) else { return };
        match kind {
            "roles" | "clusterroles" => match serde_json::from_slice::<RoleObject>(value) {
                Ok(role) => self.insert_role(key, kind, role),
                // What cannot be read grants nothing.
                Err(_) => self.remove_role(key),
            },
            "rolebindings" | "clusterrolebindings" => {
                self.remove_binding(key);
                if let Ok(binding) = serde_json::from_slice::<BindingObject>(value) {
                    self.insert_binding(key, namespace, &binding);
                }
            }
            _ => {}
        }
    }

    /// Forgets a role or binding.
    pub fn remove(&mut self, key: &Bytes) {
        self.remove_role(key);
        self.remove_binding(key);
    }

    fn insert_role(&mut self, key: &Bytes, kind: &str, role: RoleObject) {
        let own: Arc<[Rule]> = role.rules.into();
        self.roles.insert(key.clone(), own.clone());
        let labels = role.metadata.labels.unwrap_or_default();
        let selectors: Vec<LabelSelector> = role
            .aggregation
            .iter()
            .flat_map(|aggregation| &aggregation.cluster_role_selectors)
            .filter_map(|selector| LabelSelector::from_object(selector).ok())
            .collect();
        let took_part = self.aggregates.remove(key).is_some();
        if kind == "clusterroles" && !(labels.is_empty() && selectors.is_empty()) {
            self.aggregates.insert(key.clone(), Arc::new(Aggregate { own, labels, selectors }));
            self.aggregate();
        } else if took_part {
            self.aggregate();
        }
    }

    fn remove_role(&mut self, key: &Bytes) {
        self.roles.remove(key);
        if self.aggregates.remove(key).is_some() {
            self.aggregate();
        }
    }

    /// Gives each aggregated role the rules of the roles that it selects, besides its own.
    fn aggregate(&mut self) {
        let borrowers: Vec<(Bytes, Arc<Aggregate>)> = self
            .aggregates
            .iter()
            .filter(|(_, role)| !role.selectors.is_empty())
            .map(|(key, role)| (key.clone(), role.clone()))
            .collect();
        for _ in 0..AGGREGATION_DEPTH {
            for (key, borrower) in &borrowers {
                let mut rules = borrower.own.to_vec();
                let selected = |role: &Aggregate| borrower.selectors.iter().any(|s| s.matches(&role.labels));
                for (lender, _) in
                    self.aggregates.iter().filter(|(other, role)| *other != key && selected(role))
                {
                    let lent = self.roles.get(lender).map(|rules| rules.to_vec()).unwrap_or_default();
                    for rule in lent {
                        if !rules.contains(&rule) {
                            rules.push(rule);
                        }
                    }
                }
                self.roles.insert(key.clone(), rules.into());
            }
        }
    }

    /// Whether some binding of the user grants a rule that allows it.
    pub fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let mut found = None;
        self.visit(user, attributes.namespace, |rules, key| {
            if rules.iter().any(|rule| rule.allows(attributes)) {
                found = Some(key.clone());
            }
            found.is_some()
        });
        match found {
            Some(key) => Decision::Allow(format!("RBAC: allowed by {}", String::from_utf8_lossy(&key))),
            None => Decision::NoOpinion(String::new()),
        }
    }

    /// Every rule that the user has in a namespace (cluster-wide ones included).
    pub fn rules_of(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let mut all = Vec::new();
        self.visit(user, namespace, |rules, _| {
            all.extend(rules.iter().cloned());
            false
        });
        all
    }

    /// The rules of a role that a binding in `namespace` refers to.
    pub fn role(&self, reference: &RoleRef, namespace: &str) -> Option<&[Rule]> {
        self.roles.get(&role_key(reference, namespace)).map(|rules| &**rules)
    }

    /// Shows `look` the rules of each binding of the user, until it says stop.
    fn visit(&self, user: &User, namespace: &str, mut look: impl FnMut(&[Rule], &Bytes) -> bool) {
        let groups = user.groups.iter().map(|group| subject_key('g', group));
        for subject in std::iter::once(subject_key('u', &user.name)).chain(groups) {
            let Some(bindings) = self.by_subject.get(&*subject) else { continue };
            for binding in bindings.iter() {
                if !binding.namespace.is_empty() && binding.namespace != namespace {
                    continue;
                }
                if let Some(rules) = self.roles.get(&binding.role)
                    && look(rules, &binding.key)
                {
                    return;
                }
            }
        }
    }

    fn insert_binding(&mut self, key: &Bytes, namespace: &str, object: &BindingObject) {
        let subjects = object.subjects.iter().filter_map(|s| s.key(namespace)).map(Arc::from).collect();
        let role = role_key(&object.role_ref, namespace);
        let binding = Arc::new(Binding { namespace: namespace.into(), role, subjects, key: key.clone() });
        for subject in &binding.subjects {
            let mut all = self.by_subject.get(subject).map(|all| all.to_vec()).unwrap_or_default();
            all.push(binding.clone());
            self.by_subject.insert(subject.clone(), all.into());
        }
        self.bindings.insert(key.clone(), binding);
    }

    fn remove_binding(&mut self, key: &Bytes) {
        let Some(binding) = self.bindings.remove(key) else { return };
        for subject in &binding.subjects {
            let Some(all) = self.by_subject.get(subject) else { continue };
            let rest: Vec<_> = all.iter().filter(|other| other.key != *key).cloned().collect();
            match rest.is_empty() {
                true => self.by_subject.remove(subject),
                false => self.by_subject.insert(subject.clone(), rest.into()),
            };
        }
    }
}

// === impl Subject ===

impl Subject {
    fn key(&self, binding_namespace: &str) -> Option<String> {
        match self.kind.as_str() {
            "User" => Some(subject_key('u', &self.name)),
            "Group" => Some(subject_key('g', &self.name)),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                let user = format!("system:serviceaccount:{namespace}:{}", self.name);
                (!namespace.is_empty()).then(|| subject_key('u', &user))
            }
            _ => None,
        }
    }
}

fn subject_key(kind: char, name: &str) -> String {
    format!("{kind}:{name}")
}

fn role_key(reference: &RoleRef, namespace: &str) -> Bytes {
    match reference.kind.as_str() {
        "Role" => keys::object(GROUP, "roles", namespace, &reference.name),
        _ => keys::object(GROUP, "clusterroles", "", &reference.name),
    }
}

/// Resource and namespace of an RBAC key.
fn split(key: &[u8]) -> Option<(&str, &str)> {
    let rest = std::str::from_utf8(key.strip_prefix(keys::RBAC)?).ok()?;
    let (kind, rest) = rest.split_once('/')?;
    Some((kind, rest.rsplit_once('/').map_or("", |(namespace, _)| namespace)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let mut rules = Rules::default();
        let mut put = |key: &str, value: &str| {
            rules.put(&Bytes::copy_from_slice(format!("/{GROUP}/{key}").as_bytes()), value.as_bytes());
        };
        put(
            "clusterroles/reader",
            r#"{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods","pods/log"]}]}"#,
        );
        put(
            "roles/a/one",
            r#"{"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"resourceNames":["x"]}]}"#,
        );
        put("clusterroles/paths", r#"{"rules":[{"verbs":["get"],"nonResourceURLs":["/healthz","/api/*"]}]}"#);
        put(
            "clusterrolebindings/r",
            r#"{"roleRef":{"kind":"ClusterRole","name":"reader"},"subjects":[{"kind":"User","name":"ann"}]}"#,
        );
        put(
            "rolebindings/a/o",
            r#"{"roleRef":{"kind":"Role","name":"one"},"subjects":[{"kind":"ServiceAccount","name":"bot"}]}"#,
        );
        put(
            "clusterrolebindings/p",
            r#"{"roleRef":{"kind":"ClusterRole","name":"paths"},"subjects":[{"kind":"Group","name":"all"}]}"#,
        );
        rules
    }

    fn may(user: &User, verb: &str, what: &str) -> bool {
        let rules = rules();
        let attributes = match what.strip_prefix('/') {
            Some(_) => Attributes { verb, path: what, ..Attributes::default() },
            None => {
                let parts: Vec<&str> = what.split(' ').collect();
                let (resource, subresource) = parts[1].split_once('/').unwrap_or((parts[1], ""));
                let (namespace, name) = (parts[0], parts[2]);
                Attributes {
                    verb,
                    is_resource: true,
                    resource,
                    subresource,
                    namespace,
                    name,
                    ..Attributes::default()
                }
            }
        };
        rules.authorize(user, &attributes).allowed()
    }

    #[test]
    fn allows_only_what_is_bound() {
        let ann = User::authenticated("ann", &["all".into()]);
        assert!(may(&ann, "get", "a pods x"));
        assert!(may(&ann, "get", "b pods/log x"));
        assert!(!may(&ann, "get", "b pods/exec x"));
        assert!(!may(&ann, "list", "a pods "));
        assert!(may(&ann, "get", "/healthz"));
        assert!(may(&ann, "get", "/api/v1"));
        assert!(!may(&ann, "post", "/healthz"));
        let bot = User::service_account("a", "bot");
        assert!(may(&bot, "delete", "a secrets x"));
        assert!(!may(&bot, "delete", "a secrets y"));
        assert!(!may(&bot, "delete", "b secrets x"));
    }

    #[test]
    fn aggregated_roles_borrow_rules() {
        let mut rules = rules();
        let key = |name: &str| Bytes::from(format!("/{GROUP}/clusterroles/{name}"));
        let extra = br#"{"metadata":{"labels":{"to":"reader"}},"rules":[{"verbs":["list"],"apiGroups":[""],"resources":["nodes"]}]}"#;
        let reader = br#"{"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"to":"reader"}}]}}"#;
        rules.put(&key("extra"), extra);
        rules.put(&key("reader"), reader);
        let list = Attributes { verb: "list", is_resource: true, resource: "nodes", ..Attributes::default() };
        let ann = User::authenticated("ann", &[]);
        assert!(rules.authorize(&ann, &list).allowed());
        rules.remove(&key("extra"));
        assert!(!rules.authorize(&ann, &list).allowed());
    }

    #[test]
    fn forgets_what_is_removed() {
        let mut rules = rules();
        rules.remove(&Bytes::from(format!("/{GROUP}/clusterrolebindings/r")));
        let attributes =
            Attributes { verb: "get", is_resource: true, resource: "pods", ..Attributes::default() };
        assert!(!rules.authorize(&User::authenticated("ann", &[]), &attributes).allowed());
    }
}
