//! What the server serves: resources by any of the names that users give them.

use client::Client;
use client::core::object::ResourceType;
use http::header;
use serde_json::Value;

use super::error::{Error, Result, message};

/// Aggregated discovery in one answer, or the plain form where a server has no other.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// A resource that the server serves.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiResource {
    /// Its names, as URLs and manifests have them.
    pub resource: ResourceType,
    /// In prose.
    pub singular: String,
    /// On the command line.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// What can be done with it.
    pub verbs: Vec<String>,
    /// Whether this is the group's preferred version of it.
    pub preferred: bool,
}

/// Everything that the server serves.
#[derive(Debug, Default)]
pub struct Discovery {
    /// In the server's order: groups, their versions (preferred first), resources.
    pub resources: Vec<ApiResource>,
}

// === impl ApiResource ===

impl ApiResource {
    /// `deployments.apps`, or `pods`.
    pub fn qualified_plural(&self) -> String {
        qualified(&self.resource.plural, &self.resource.group)
    }

    /// `deployment.apps`, or `pod`: how messages name it.
    pub fn qualified_kind(&self) -> String {
        qualified(&self.resource.kind.to_lowercase(), &self.resource.group)
    }

    /// Whether the verb can be used.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    fn is_called(&self, word: &str) -> bool {
        let same = |name: &str| name.eq_ignore_ascii_case(word);
        same(&self.resource.plural)
            || same(&self.singular)
            || same(&self.resource.kind)
            || self.short_names.iter().any(|name| same(name))
    }
}

/// A name with its group, when it has one.
pub fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

// === impl Discovery ===

impl Discovery {
    /// Asks the server.
    pub async fn fetch(client: &Client) -> Result<Self> {
        let (core, groups) = futures::try_join!(ask(client, "/api"), ask(client, "/apis"))?;
        let mut discovery = Self::default();
        for (root, answer) in [("/api", core), ("/apis", groups)] {
            if answer.get("kind").and_then(Value::as_str) == Some("APIGroupDiscoveryList") {
                discovery.add_aggregated(&answer);
            } else {
                discovery.add_plain(client, root, &answer).await?;
            }
        }
        Ok(discovery)
    }

    /// Reads an `APIGroupDiscoveryList`.
    pub fn add_aggregated(&mut self, answer: &Value) {
        for group in list(answer, "items") {
            let name = group.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            for version in list(group, "versions") {
                let version_name = text(version, "version");
                for entry in list(version, "resources") {
                    let kind = entry.get("responseKind").map(|kind| text(kind, "kind")).unwrap_or_default();
                    let namespaced = text(entry, "scope") == "Namespaced";
                    self.add(
                        ResourceType::new(name, version_name, kind, text(entry, "resource"), namespaced),
                        entry,
                        "singularResource",
                    );
                }
            }
        }
    }

    /// Reads the plain form, one request for each group and version.
    async fn add_plain(&mut self, client: &Client, root: &str, answer: &Value) -> Result<()> {
        let mut versions: Vec<(String, String)> = Vec::new();
        for version in list(answer, "versions").filter_map(Value::as_str) {
            versions.push((String::new(), version.to_owned()));
        }
        for group in list(answer, "groups") {
            for version in list(group, "versions") {
                versions.push((text(group, "name").to_owned(), text(version, "version").to_owned()));
            }
        }
        for (group, version) in versions {
            let path = if group.is_empty() {
                format!("{root}/{version}")
            } else {
                format!("{root}/{group}/{version}")
            };
            // A group whose server is away must not hide the others.
            let Ok(resources) = client.get_path::<Value>(&path).await else { continue };
            for entry in list(&resources, "resources").filter(|entry| !text(entry, "name").contains('/')) {
                let namespaced = entry.get("namespaced").and_then(Value::as_bool).unwrap_or(false);
                self.add(
                    ResourceType::new(
                        &*group,
                        &*version,
                        text(entry, "kind"),
                        text(entry, "name"),
                        namespaced,
                    ),
                    entry,
                    "singularName",
                );
            }
        }
        Ok(())
    }

    fn add(&mut self, resource: ResourceType, entry: &Value, singular: &str) {
        let words = |name| list(entry, name).filter_map(Value::as_str).map(str::to_owned).collect();
        let preferred = !self
            .resources
            .iter()
            .any(|known| known.resource.group == resource.group && known.resource.plural == resource.plural);
        let singular = match text(entry, singular) {
            "" => resource.kind.to_lowercase(),
            name => name.to_owned(),
        };
        self.resources.push(ApiResource {
            singular,
            short_names: words("shortNames"),
            categories: words("categories"),
            verbs: words("verbs"),
            preferred,
            resource,
        });
    }

    /// The resource that a word names: `po`, `Pod`, `deployments.apps`, `deployments.v1.apps`.
    pub fn find(&self, word: &str) -> Result<&ApiResource> {
        self.lookup(word)
            .ok_or_else(|| Error::Message(format!("the server doesn't have a resource type \"{word}\"")))
    }

    fn lookup(&self, word: &str) -> Option<&ApiResource> {
        let mut called = self.resources.iter().filter(|known| known.preferred && known.is_called(word));
        // Where groups share a name, the one with the full verbs of an object goes first.
        if let Some(found) = called.next() {
            return Some(found);
        }
        let (name, rest) = word.split_once('.')?;
        let in_group = |known: &&ApiResource| known.is_called(name) && known.resource.group == rest;
        if let Some(found) = self.resources.iter().find(in_group) {
            return Some(found);
        }
        let (version, group) = rest.split_once('.').unwrap_or((rest, ""));
        self.resources.iter().find(|known| {
            known.is_called(name) && known.resource.version == version && known.resource.group == group
        })
    }

    /// The resource of a manifest's kind.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&ApiResource> {
        let (group, version) = api::catalogue::split_api_version(api_version);
        self.resources.iter().find(|known| {
            known.resource.kind == kind && known.resource.version == version && known.resource.group == group
        })
    }

    /// The resources of a category such as `all`; none when there is no such category.
    pub fn category(&self, word: &str) -> Vec<&ApiResource> {
        let of = |known: &&ApiResource| {
            known.preferred && known.can("list") && known.categories.iter().any(|category| category == word)
        };
        self.resources.iter().filter(of).collect()
    }

    /// The resources that a comma-separated list of words names.
    pub fn find_all(&self, words: &str) -> Result<Vec<&ApiResource>> {
        let mut found: Vec<&ApiResource> = Vec::new();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let category = self.category(word);
            let more = if category.is_empty() { vec![self.find(word)?] } else { category };
            for resource in more {
                if !found.contains(&resource) {
                    found.push(resource);
                }
            }
        }
        if found.is_empty() {
            return message("you must specify the type of resource");
        }
        Ok(found)
    }
}

async fn ask(client: &Client, path: &str) -> Result<Value> {
    let mut request = Client::build(http::Method::GET, path)?;
    request.headers_mut().insert(header::ACCEPT, http::HeaderValue::from_static(ACCEPT));
    Ok(client.request(request).await?)
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn discovery() -> Discovery {
        let mut discovery = Discovery::default();
        let resource = |name: &str,
                        kind: &str,
                        short: &[&str],
                        categories: &[&str],
                        group: &str,
                        scope: &str| {
            json!({"resource": name, "responseKind": {"kind": kind, "group": group, "version": ""}, "scope": scope,
                   "singularResource": kind.to_lowercase(), "shortNames": short, "categories": categories, "verbs": ["get", "list"]})
        };
        discovery.add_aggregated(&json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": [
                resource("pods", "Pod", &["po"], &["all"], "", "Namespaced"),
                resource("events", "Event", &["ev"], &[], "", "Namespaced"),
                resource("nodes", "Node", &["no"], &[], "", "Cluster")]}]},
            {"metadata": {"name": "apps"}, "versions": [
                {"version": "v1", "resources": [resource("deployments", "Deployment", &["deploy"], &["all"], "apps", "Namespaced")]},
                {"version": "v1beta1", "resources": [resource("deployments", "Deployment", &["deploy"], &["all"], "apps", "Namespaced")]}]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [
                resource("events", "Event", &["ev"], &[], "events.k8s.io", "Namespaced")]}]}
        ]}));
        discovery
    }

    fn check(word: &str, expected: &str) {
        let discovery = discovery();
        let found = discovery
            .find(word)
            .map(|found| format!("{} {}", found.resource.api_version(), found.resource.plural));
        match found {
            Ok(found) => assert_eq!(found, expected, "{word}"),
            Err(error) => assert_eq!(error.to_string(), expected, "{word}"),
        }
    }

    #[test]
    fn words() {
        for word in ["po", "pods", "pod", "Pod", "POD"] {
            check(word, "v1 pods");
        }
        check("ev", "v1 events");
        check("events.events.k8s.io", "events.k8s.io/v1 events");
        check("deploy", "apps/v1 deployments");
        check("deployments.apps", "apps/v1 deployments");
        check("deployments.v1beta1.apps", "apps/v1beta1 deployments");
        check("pods.v1.", "v1 pods");
        check("foo", "the server doesn't have a resource type \"foo\"");
        let discovery = discovery();
        let all = discovery.find_all("all,po").expect("resources");
        assert_eq!(
            all.iter().map(|found| found.qualified_kind()).collect::<Vec<_>>(),
            ["pod", "deployment.apps"]
        );
    }
}
