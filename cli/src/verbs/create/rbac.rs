//! Roles and bindings from flags.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::generate::plain;
use crate::verbs::discovery::Discovery;
use crate::verbs::error::{Result, message};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What is allowed.
#[derive(Args, Debug)]
pub struct Rules {
    /// Verbs, such as get,list
    #[arg(long, value_delimiter = ',')]
    verb: Vec<String>,
    /// Resources, such as pods or deployments.apps or pods/log
    #[arg(long, value_delimiter = ',')]
    resource: Vec<String>,
    /// Names of single objects
    #[arg(long)]
    resource_name: Vec<String>,
}

/// A role.
#[derive(Args, Debug)]
pub struct Role {
    /// Its name
    name: String,
    #[command(flatten)]
    rules: Rules,
}

/// A cluster role.
#[derive(Args, Debug)]
pub struct ClusterRole {
    /// Its name
    name: String,
    #[command(flatten)]
    rules: Rules,
    /// Paths of the API that are no resources
    #[arg(long = "non-resource-url", value_delimiter = ',')]
    non_resource_url: Vec<String>,
    /// Take the rules of the cluster roles with these labels: KEY=VALUE
    #[arg(long)]
    aggregation_rule: Option<String>,
}

/// Who is allowed.
#[derive(Args, Debug)]
pub struct Subjects {
    /// Users
    #[arg(long = "user", value_delimiter = ',')]
    users: Vec<String>,
    /// Groups
    #[arg(long = "group", value_delimiter = ',')]
    groups: Vec<String>,
    /// Service accounts, as NAMESPACE:NAME
    #[arg(long = "serviceaccount", value_delimiter = ',')]
    service_accounts: Vec<String>,
}

/// A role binding.
#[derive(Args, Debug)]
pub struct RoleBinding {
    /// Its name
    name: String,
    /// The cluster role
    #[arg(long)]
    clusterrole: Option<String>,
    /// The role
    #[arg(long)]
    role: Option<String>,
    #[command(flatten)]
    subjects: Subjects,
}

/// A cluster role binding.
#[derive(Args, Debug)]
pub struct ClusterRoleBinding {
    /// Its name
    name: String,
    /// The cluster role
    #[arg(long, required = true)]
    clusterrole: String,
    #[command(flatten)]
    subjects: Subjects,
}

// === impl Rules ===

impl Rules {
    fn resource_rules(&self, discovery: &Discovery) -> Result<Vec<Value>> {
        if self.verb.is_empty() {
            return message("at least one verb must be specified");
        }
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for word in &self.resource {
            let (word, sub) = word.split_once('/').map_or((&**word, ""), |(word, sub)| (word, sub));
            let (group, plural) = if word == "*" {
                ("*".to_owned(), "*".to_owned())
            } else {
                let found = discovery.find(word)?;
                (found.resource.group.to_string(), found.resource.plural.to_string())
            };
            let name = if sub.is_empty() { plural } else { format!("{plural}/{sub}") };
            groups.entry(group).or_default().push(name);
        }
        let mut verbs: Vec<&String> = Vec::new();
        for verb in &self.verb {
            if !verbs.contains(&verb) {
                verbs.push(verb);
            }
        }
        Ok(groups
            .into_iter()
            .map(|(group, resources)| {
                let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
                if !self.resource_name.is_empty() {
                    rule["resourceNames"] = json!(self.resource_name);
                }
                rule
            })
            .collect())
    }
}

// === impl Role ===

impl Role {
    /// The object.
    pub fn object(&self, discovery: &Discovery) -> Result<Value> {
        if self.rules.resource.is_empty() {
            return message("at least one resource must be specified");
        }
        let mut object = plain(&format!("{GROUP}/v1"), "Role", &self.name);
        object["rules"] = Value::Array(self.rules.resource_rules(discovery)?);
        Ok(object)
    }
}

// === impl ClusterRole ===

impl ClusterRole {
    /// The object.
    pub fn object(&self, discovery: &Discovery) -> Result<Value> {
        let mut object = plain(&format!("{GROUP}/v1"), "ClusterRole", &self.name);
        if let Some(labels) = &self.aggregation_rule {
            let pairs: BTreeMap<&str, &str> =
                labels.split(',').filter_map(|pair| pair.split_once('=')).collect();
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": pairs}]});
            object["rules"] = json!([]);
            return Ok(object);
        }
        if self.rules.resource.is_empty() && self.non_resource_url.is_empty() {
            return message("one of resource or nonResourceURL must be specified");
        }
        let mut rules = self.rules.resource_rules(discovery)?;
        if !self.non_resource_url.is_empty() {
            rules.push(json!({"nonResourceURLs": self.non_resource_url, "verbs": self.rules.verb}));
        }
        object["rules"] = Value::Array(rules);
        Ok(object)
    }
}

// === impl Subjects ===

impl Subjects {
    fn list(&self, namespace: &str) -> Result<Vec<Value>> {
        let named =
            |kind: &'static str| move |name: &String| json!({"apiGroup": GROUP, "kind": kind, "name": name});
        let mut subjects: Vec<Value> = self.users.iter().map(named("User")).collect();
        subjects.extend(self.groups.iter().map(named("Group")));
        for account in &self.service_accounts {
            let (namespace, name) = match account.split_once(':') {
                Some((place, name)) if !place.is_empty() && !name.is_empty() => (place, name),
                Some(_) => return message("serviceaccount must be <namespace>:<name>"),
                None => (namespace, account.as_str()),
            };
            subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        }
        Ok(subjects)
    }
}

// === impl RoleBinding ===

impl RoleBinding {
    /// The object.
    pub fn object(&self, namespace: &str) -> Result<Value> {
        let (kind, role) = match (&self.clusterrole, &self.role) {
            (Some(role), None) => ("ClusterRole", role),
            (None, Some(role)) => ("Role", role),
            _ => return message("exactly one of clusterrole or role must be specified"),
        };
        let mut object = plain(&format!("{GROUP}/v1"), "RoleBinding", &self.name);
        object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": role});
        object["subjects"] = Value::Array(self.subjects.list(namespace)?);
        Ok(object)
    }
}

// === impl ClusterRoleBinding ===

impl ClusterRoleBinding {
    /// The object.
    pub fn object(&self, namespace: &str) -> Result<Value> {
        let mut object = plain(&format!("{GROUP}/v1"), "ClusterRoleBinding", &self.name);
        object["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": self.clusterrole});
        object["subjects"] = Value::Array(self.subjects.list(namespace)?);
        Ok(object)
    }
}
