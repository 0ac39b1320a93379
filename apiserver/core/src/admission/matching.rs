//! Which requests a webhook or an admission policy is about: operations, resources, names, and the labels of object and
//! namespace.
//!
//! It is read once, when its configuration is written, and asked for each request.

use api::catalogue::Resource;
use api::selector::LabelSelector;
use serde_json::Value;

use crate::object;

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// A stream to a subresource.
    Connect,
}

/// One write, as rules look at it.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub operation: Operation,
    /// The resource and version of the request.
    pub resource: &'a Resource,
    pub subresource: &'a str,
    /// Empty where it is not known yet, as of an object that is created with `generateName`.
    pub name: &'a str,
    /// The object as it will be; null when it goes.
    pub object: &'a Value,
    /// The object as it was; null when it is new.
    pub old: &'a Value,
    /// The namespace of the object, or null where it has none.
    pub namespace: &'a Value,
}

/// What a configuration says of the requests that it is for: `rules` of a webhook, `matchConstraints` or
/// `matchResources` of a policy.
#[derive(Debug)]
pub(crate) struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// `matchPolicy: Exact`: other versions of a resource are not meant.
    exact: bool,
    objects: LabelSelector,
    namespaces: LabelSelector,
}

/// A group, a version and a plural.
pub(crate) type Path = (String, String, String);

#[derive(Debug)]
struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    operations: Vec<String>,
    /// With their subresources: `pods/exec`.
    resources: Vec<String>,
    names: Vec<String>,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Cluster,
    Namespaced,
}

/// The group whose kinds decide over others: nothing of it is ever held up by what it says.
const OWN_GROUP: &str = "admissionregistration.k8s.io";

/// Whether webhooks and policies leave a resource alone, so that one that refuses everything can be taken back.
pub(crate) fn is_exempt(resource: &Resource) -> bool {
    resource.group == OWN_GROUP
}

// === impl Operation ===

impl Operation {
    /// As rules and reviews write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

// === impl Constraints ===

impl Constraints {
    /// Reads what a configuration says. `rules` names the field of the rules: `rules`, or `resourceRules`.
    pub fn read(spec: &Value, rules: &str) -> Constraints {
        let read = |field: &str| object::items(&spec[field]).iter().map(Rule::read).collect();
        // What cannot be read was refused when it was written.
        let selector = |field: &str| match spec[field].is_object() {
            true => LabelSelector::from_object(&spec[field]).unwrap_or_else(|_| LabelSelector::nothing()),
            false => LabelSelector::everything(),
        };
        Constraints {
            rules: read(rules),
            excluded: read("excludeResourceRules"),
            exact: spec["matchPolicy"] == "Exact",
            objects: selector("objectSelector"),
            namespaces: selector("namespaceSelector"),
        }
    }

    /// Whether a write is meant, and as which version of its resource: that of the request, or another in `others` that
    /// serves the same objects. `None` if it is not meant.
    pub fn matched<'r>(&self, target: &Target<'r>, others: &[&'r Resource]) -> Option<&'r Resource> {
        if !self.is_of_namespace(target) || !self.is_of_object(target) {
            return None;
        }
        let any =
            |rules: &[Rule], resource: &Resource| rules.iter().any(|rule| rule.is_for(target, resource));
        let either =
            || std::iter::once(target.resource).chain(others.iter().copied().filter(|_| !self.exact));
        if either().any(|resource| any(&self.excluded, resource)) {
            return None;
        }
        either().find(|resource| any(&self.rules, resource))
    }

    /// As [`Constraints::matched`], where no rules mean all resources, as in the `matchResources` of a binding.
    pub fn matched_or_all<'r>(&self, target: &Target<'r>, others: &[&'r Resource]) -> Option<&'r Resource> {
        if !self.rules.is_empty() {
            return self.matched(target, others);
        }
        let meant = self.is_of_namespace(target) && self.is_of_object(target);
        let excluded = self.excluded.iter().any(|rule| rule.is_for(target, target.resource));
        (meant && !excluded).then_some(target.resource)
    }

    /// The resources that the rules name in full, without `*` and without subresources.
    pub fn named(&self) -> Vec<Path> {
        let mut named = Vec::new();
        for rule in &self.rules {
            for group in &rule.groups {
                for version in &rule.versions {
                    for resource in rule.resources.iter().filter(|resource| !resource.contains('/')) {
                        let path = (group.clone(), version.clone(), resource.clone());
                        if ![group, version, resource].iter().any(|word| *word == "*")
                            && !named.contains(&path)
                        {
                            named.push(path);
                        }
                    }
                }
            }
        }
        named
    }

    fn is_of_namespace(&self, target: &Target<'_>) -> bool {
        if self.namespaces.is_everything() {
            return true;
        }
        let labels = |object: &Value| self.namespaces.matches(&object["metadata"]["labels"]);
        match target.resource.namespaced() {
            true => labels(target.namespace),
            // A namespace stands for itself.
            false if target.resource.is("", "namespaces") => match target.object.is_null() {
                true => labels(target.old),
                false => labels(target.object),
            },
            false => true,
        }
    }

    fn is_of_object(&self, target: &Target<'_>) -> bool {
        let matches =
            |object: &Value| object.is_object() && self.objects.matches(&object["metadata"]["labels"]);
        self.objects.is_everything() || matches(target.object) || matches(target.old)
    }
}

// === impl Rule ===

impl Rule {
    fn read(rule: &Value) -> Rule {
        let texts = |field: &str| -> Vec<String> {
            object::items(&rule[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Rule {
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            operations: texts("operations"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: match rule["scope"].as_str() {
                Some("Cluster") => Scope::Cluster,
                Some("Namespaced") => Scope::Namespaced,
                _ => Scope::Any,
            },
        }
    }

    fn is_for(&self, target: &Target<'_>, resource: &Resource) -> bool {
        let among = |words: &[String], word: &str| words.iter().any(|known| known == "*" || known == word);
        let scope = match self.scope {
            Scope::Any => true,
            Scope::Namespaced => resource.namespaced(),
            Scope::Cluster => !resource.namespaced(),
        };
        scope
            && among(&self.operations, target.operation.as_str())
            && among(&self.groups, &resource.group)
            && among(&self.versions, &resource.version)
            && self.resources.iter().any(|known| is_resource(known, &resource.plural, target.subresource))
            && (self.names.is_empty() || self.names.iter().any(|name| name == target.name))
    }
}

/// Whether a rule's word means a resource: `pods`, `pods/exec`, `*`, `*/scale`, `pods/*`, `*/*`.
fn is_resource(word: &str, plural: &str, subresource: &str) -> bool {
    let (known, below) = word.split_once('/').unwrap_or((word, ""));
    (known == "*" || known == plural) && (below == "*" || below == subresource)
}

#[cfg(test)]
mod tests {
    use api::catalogue::Catalogue;
    use serde_json::json;

    use super::*;

    fn matches(spec: Value, plural: &str, subresource: &str, object: Value) -> bool {
        let catalogue = Catalogue::builtin();
        let (group, version) =
            if plural == "horizontalpodautoscalers" { ("autoscaling", "v2") } else { ("", "v1") };
        let resource = catalogue.resource(group, version, plural).unwrap();
        let others: Vec<&Resource> = catalogue.resource(group, "v1", plural).into_iter().collect();
        let target = Target {
            operation: Operation::Create,
            resource,
            subresource,
            name: "a",
            object: &object,
            old: &Value::Null,
            namespace: &json!({"metadata": {"labels": {"env": "test"}}}),
        };
        Constraints::read(&spec, "rules").matched(&target, &others).is_some()
    }

    fn rule(groups: &str, versions: &str, resources: &str) -> Value {
        json!({"apiGroups": [groups], "apiVersions": [versions], "resources": [resources], "operations": ["CREATE"]})
    }

    #[test]
    fn rules_name_groups_versions_resources_and_subresources() {
        for (word, subresource, expected) in [
            ("pods", "", true),
            ("pods", "exec", false),
            ("pods/*", "exec", true),
            ("pods/*", "", true),
            ("*", "", true),
            ("*", "exec", false),
            ("*/exec", "exec", true),
            ("*/*", "exec", true),
            ("services", "", false),
        ] {
            let found = matches(json!({"rules": [rule("", "v1", word)]}), "pods", subresource, json!({}));
            assert_eq!(found, expected, "{word} {subresource}");
        }
        assert!(!matches(json!({"rules": [rule("apps", "v1", "pods")]}), "pods", "", json!({})));
        assert!(!matches(json!({"rules": [rule("", "v2", "pods")]}), "pods", "", json!({})));
    }

    #[test]
    fn another_version_of_the_same_objects_matches_unless_the_policy_is_exact() {
        let rules = json!([rule("autoscaling", "v1", "horizontalpodautoscalers")]);
        assert!(matches(json!({"rules": rules}), "horizontalpodautoscalers", "", json!({})));
        let exact = json!({"rules": rules, "matchPolicy": "Exact"});
        assert!(!matches(exact, "horizontalpodautoscalers", "", json!({})));
    }

    #[test]
    fn selectors_names_scopes_and_exclusions_narrow_what_is_meant() {
        let labelled = json!({"metadata": {"labels": {"app": "web"}}});
        let with = |field: &str, value: Value| {
            let mut spec = json!({"rules": [rule("", "v1", "pods")]});
            spec[field] = value;
            matches(spec, "pods", "", labelled.clone())
        };
        assert!(with("objectSelector", json!({"matchLabels": {"app": "web"}})));
        assert!(!with("objectSelector", json!({"matchLabels": {"app": "db"}})));
        assert!(with("namespaceSelector", json!({"matchLabels": {"env": "test"}})));
        assert!(!with("namespaceSelector", json!({"matchLabels": {"env": "live"}})));
        assert!(!with("excludeResourceRules", json!([rule("*", "*", "*")])));
        let narrowed = |field: &str, value: Value| {
            let mut rule = rule("", "v1", "pods");
            rule[field] = value;
            matches(json!({"rules": [rule]}), "pods", "", json!({}))
        };
        assert!(narrowed("resourceNames", json!(["a"])));
        assert!(!narrowed("resourceNames", json!(["b"])));
        assert!(narrowed("scope", json!("Namespaced")));
        assert!(!narrowed("scope", json!("Cluster")));
        assert!(!narrowed("operations", json!(["DELETE"])));
        assert!(narrowed("operations", json!(["*"])));
    }
}
