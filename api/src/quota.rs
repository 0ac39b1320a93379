//! What objects use of the quotas of their namespace, and which quotas count them.
//!
//! The server charges a quota with what a write adds, the quota controller adds up what is there: both ask here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::quantity::{Format, Quantity};

mod pod;
mod scope;

pub use pod::{aggregate, missing, stays_counted_until};
pub use scope::Scope;

/// Amounts by the names that quotas give them: `pods`, `requests.cpu`, `count/deployments.apps`.
pub type Amounts = BTreeMap<String, Quantity>;

/// A resource as quotas tell resources apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub plural: &'a str,
}

/// A ResourceQuota, as far as it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// Its name.
    pub name: String,
    /// What may be used at most: `status.hard`.
    pub hard: Amounts,
    /// What is used: `status.used`.
    pub used: Amounts,
    /// Which objects it counts; all of them have to match.
    pub scopes: Vec<Scope>,
}

/// Resources that were counted by a name of their own before every resource was.
const NAMED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// What no quota counts, whatever its group.
const UNCOUNTED: &[&str] = &["events", "bindings", "componentstatuses"];

const CLASS: &str = ".storageclass.storage.k8s.io/";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";

// === impl Counted ===

impl Counted<'_> {
    /// Whether quotas count the objects of this resource.
    pub fn is_counted(self) -> bool {
        !UNCOUNTED.contains(&self.plural)
    }

    /// The name under which objects are counted: `count/deployments.apps`.
    pub fn count(self) -> String {
        match self.group {
            "" => format!("count/{}", self.plural),
            group => format!("count/{}.{group}", self.plural),
        }
    }

    fn is(self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// Whether objects of this resource count towards the limit of that name.
    pub fn counts_as(self, name: &str) -> bool {
        if name.strip_prefix("count/").is_some() {
            return name == self.count();
        }
        if self.is("pods") {
            return pod::counts_as(name);
        }
        if self.is("services") {
            return matches!(name, "services" | "services.loadbalancers" | "services.nodeports");
        }
        if self.is(CLAIMS) {
            let of_class = |(_, name): (&str, &str)| matches!(name, CLAIMS | STORAGE);
            return matches!(name, CLAIMS | STORAGE) || name.split_once(CLASS).is_some_and(of_class);
        }
        self.group.is_empty() && NAMED.contains(&self.plural) && name == self.plural
    }

    /// What one object of this resource uses.
    pub fn usage(self, object: &Value, now: Timestamp) -> Amounts {
        let mut usage = Amounts::from([(self.count(), number(1))]);
        if self.is("pods") {
            pod::usage(object, now, &mut usage);
            return usage;
        }
        if self.group.is_empty() && NAMED.contains(&self.plural) {
            usage.insert(self.plural.to_owned(), number(1));
        }
        if self.is("services") {
            service(&object["spec"], &mut usage);
        } else if self.is(CLAIMS) {
            claim(object, &mut usage);
        }
        usage
    }
}

fn number(value: usize) -> Quantity {
    Quantity::from_value(i64::try_from(value).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// Ports and load balancers, by what is asked for: the ports may not be allocated yet.
fn service(spec: &Value, usage: &mut Amounts) {
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = || ports.iter().filter(|port| port["nodePort"].as_u64().unwrap_or(0) != 0).count();
    let kind = spec["type"].as_str().unwrap_or_default();
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] == false => named(),
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    usage.insert("services.nodeports".to_owned(), number(node_ports));
    usage.insert("services.loadbalancers".to_owned(), number(usize::from(kind == "LoadBalancer")));
}

/// Storage, in all and by class. What is allocated already counts when it is more than what is asked for.
fn claim(object: &Value, usage: &mut Amounts) {
    let class = class(object).filter(|class| !class.is_empty());
    if let Some(class) = class {
        usage.insert(format!("{class}{CLASS}{CLAIMS}"), number(1));
    }
    let amount = |value: &Value| value.as_str()?.parse::<Quantity>().ok();
    let Some(asked) = amount(&object["spec"]["resources"]["requests"]["storage"]) else { return };
    let allocated = amount(&object["status"]["allocatedResources"]["storage"]);
    let storage = allocated.filter(|allocated| *allocated > asked).unwrap_or(asked).rounded_up();
    usage.insert(STORAGE.to_owned(), storage);
    if let Some(class) = class {
        usage.insert(format!("{class}{CLASS}{STORAGE}"), storage);
    }
}

/// The storage class that a claim names; `Some("")` when it names none on purpose.
pub fn class(claim: &Value) -> Option<&str> {
    let annotation = claim["metadata"]["annotations"].get(CLASS_ANNOTATION).and_then(Value::as_str);
    annotation.or_else(|| claim["spec"]["storageClassName"].as_str())
}

// === impl Quota ===

impl Quota {
    /// Reads a stored ResourceQuota.
    pub fn of(object: &Value) -> Quota {
        Quota {
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            hard: amounts(&object["status"]["hard"]),
            used: amounts(&object["status"]["used"]),
            scopes: scope::of(&object["spec"]),
        }
    }

    /// Whether the quota limits anything that this object uses.
    pub fn covers(&self, resource: Counted<'_>, object: &Value) -> bool {
        self.hard.keys().any(|name| resource.counts_as(name))
            && self.scopes.iter().all(|scope| scope.matches(resource, object))
    }
}

/// Reads amounts; what is no quantity is left out.
pub fn amounts(object: &Value) -> Amounts {
    let entries = object.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

/// Writes amounts.
pub fn document(amounts: &Amounts) -> Value {
    let entries = amounts.iter().map(|(name, amount)| (name.clone(), Value::from(amount.to_string())));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// Adds amounts, name by name.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += *amount;
    }
}

/// Amounts in words, as Kubernetes puts them: `cpu=1,pods=2`.
pub fn words(amounts: &Amounts) -> String {
    let words: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    words.join(",")
}

#[cfg(test)]
mod tests;
