//! The declarative table of every resource: names, scope, verbs, subresources, schema.
//!
//! Nothing here is code per kind: a kind is an entry of [`builtin`], and what is special about it is looked up by
//! its schema type elsewhere. Entries own or borrow their names, so that custom resources add entries at run time.

use std::sync::Arc;
use std::{borrow::Cow, cmp::Ordering, sync::LazyLock};

use crate::definition::Custom;
use crate::schema::{self, Schemas, TypeId};

mod builtin;

/// A name that is either part of the program or came with a custom resource.
pub type Name = Cow<'static, str>;

/// Whether objects of a resource live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One set of names for the whole cluster.
    Cluster,
    /// One set of names for each namespace.
    Namespaced,
}

/// What can be done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// POST of a new object.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of a whole collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// PATCH of one object.
    Patch,
    /// PUT of one object.
    Update,
    /// GET of a collection's changes.
    Watch,
}

/// All verbs of an ordinary stored resource, in the order in which discovery names them.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// A path below an object, such as `status`, and the kind that it speaks.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// The path segment.
    pub name: Name,
    /// Group of the kind that is sent and answered.
    pub group: Name,
    /// Version of that kind.
    pub version: Name,
    /// The kind that is sent and answered.
    pub kind: Name,
    /// What it allows.
    pub verbs: Vec<Verb>,
    /// Schema of that kind; absent for kinds that are never a body, as `PodExecOptions`.
    pub schema: Option<TypeId>,
}

/// One resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: Name,
    /// API version.
    pub version: Name,
    /// Kind of one object.
    pub kind: Name,
    /// Kind of a list.
    pub list_kind: Name,
    /// Name in paths.
    pub plural: Name,
    /// Name of one object in prose.
    pub singular: Name,
    /// Short names for the command line.
    pub short_names: Vec<Name>,
    /// Categories for the command line, such as `all`.
    pub categories: Vec<Name>,
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// What can be done.
    pub verbs: Vec<Verb>,
    /// Paths below an object.
    pub subresources: Vec<Subresource>,
    /// Schema of one object.
    pub schema: TypeId,
    /// False for kinds that are answered and forgotten, such as reviews.
    pub stored: bool,
    /// Group and version in which objects are stored, where another resource owns the storage.
    pub stored_as: Option<(Name, Name)>,
    /// Whether objects are kept and nothing in the cluster acts on them: who makes one is told.
    pub idle: bool,
    /// What everyone who uses it is told, where it should not be used any more.
    pub deprecation: Option<Name>,
    /// What its definition says, where it is a custom resource.
    pub custom: Option<Arc<Custom>>,
}

/// A group with its versions, for discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name, empty for the core group.
    pub name: Name,
    /// Versions, preferred one first.
    pub versions: Vec<Name>,
}

/// All resources, with their indexes.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    resources: Vec<Resource>,
    /// Places of resources, sorted by group, version and plural.
    by_plural: Vec<usize>,
    /// Places of resources, sorted by group, version and kind.
    by_kind: Vec<usize>,
    groups: Vec<Group>,
}

// === impl Verb ===

impl Verb {
    /// The word that discovery and RBAC use.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

// === impl Resource ===

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> Cow<'_, str> {
        api_version(&self.group, &self.version)
    }

    /// `deployments.apps`, or `pods` for the core group: how errors name a resource.
    pub fn qualified_plural(&self) -> Cow<'_, str> {
        match self.group.is_empty() {
            true => Cow::Borrowed(&self.plural),
            false => Cow::Owned(format!("{}.{}", self.plural, self.group)),
        }
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether spec and status are written by different paths.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether objects live in a namespace.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The group in whose storage objects live.
    pub fn storage_group(&self) -> &str {
        self.stored_as.as_ref().map_or(&self.group, |(group, _)| group)
    }

    /// The table that its type is in.
    pub fn schemas(&self) -> &Schemas {
        self.custom.as_ref().map_or_else(|| schema::builtin(), |custom| custom.schemas())
    }

    /// Whether this is the built-in resource of that group and plural.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// `apps/v1`, or `v1` for the core group.
pub fn api_version<'a>(group: &str, version: &'a str) -> Cow<'a, str> {
    match group.is_empty() {
        true => Cow::Borrowed(version),
        false => Cow::Owned(format!("{group}/{version}")),
    }
}

/// The order in which versions are preferred: stable ones first, then betas and alphas, newer before older; at the end, by
/// their names, what is no version as Kubernetes writes it.
pub fn by_preference(a: &str, b: &str) -> Ordering {
    match (version_rank(a), version_rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// (how stable, major, minor) of `v1`, `v1beta2`, `v1alpha1`.
fn version_rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(end);
    let (stability, minor) = match rest {
        "" => (2, "0"),
        rest => match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => (1, minor),
            (_, Some(minor)) => (0, minor),
            _ => return None,
        },
    };
    Some((stability, major.parse().ok()?, minor.parse().ok()?))
}

/// Group and version of an `apiVersion`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

// === impl Catalogue ===

impl Catalogue {
    /// The built-in resources.
    pub fn builtin() -> &'static Catalogue {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| {
            let mut catalogue = Catalogue::default();
            for resource in builtin::resources() {
                catalogue.insert(resource);
            }
            catalogue
        });
        &BUILTIN
    }

    /// Adds a resource, or replaces the one with the same group, version and plural.
    pub fn insert(&mut self, resource: Resource) {
        match self.groups.iter_mut().find(|group| group.name == resource.group) {
            Some(group) if group.versions.contains(&resource.version) => {}
            Some(group) => group.versions.push(resource.version.clone()),
            None => self
                .groups
                .push(Group { name: resource.group.clone(), versions: vec![resource.version.clone()] }),
        }
        match self.place(&self.by_plural, by_plural, (&resource.group, &resource.version, &resource.plural)) {
            Some(at) => self.resources[at] = resource,
            None => self.resources.push(resource),
        }
        let resources = &self.resources;
        for (index, key) in [(&mut self.by_plural, by_plural as KeyOf), (&mut self.by_kind, by_kind)] {
            *index = (0..resources.len()).collect();
            index.sort_by(|a, b| key(&resources[*a]).cmp(&key(&resources[*b])));
        }
    }

    fn place(&self, index: &[usize], key: KeyOf, wanted: (&str, &str, &str)) -> Option<usize> {
        let found = index.binary_search_by(|at| key(&self.resources[*at]).cmp(&wanted)).ok()?;
        index.get(found).copied()
    }

    /// The resource at a path.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        let at = self.place(&self.by_plural, by_plural, (group, version, plural))?;
        self.resources.get(at)
    }

    /// The resource whose objects are of a kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        let at = self.place(&self.by_kind, by_kind, (group, version, kind))?;
        self.resources.get(at)
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub fn by_type(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        let (group, version) = split_api_version(api_version);
        self.by_kind(group, version, kind)
    }

    /// The resource in whose version objects of a resource are stored.
    pub fn storage_of<'a>(&'a self, resource: &'a Resource) -> &'a Resource {
        match &resource.stored_as {
            Some((group, version)) => self.resource(group, version, &resource.plural).unwrap_or(resource),
            None => resource,
        }
    }

    /// Every resource, in the order of the table.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter()
    }

    /// The resources of one group and version.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Resource> + 'a {
        self.resources.iter().filter(move |resource| resource.group == group && resource.version == version)
    }

    /// Groups in discovery order, the core group first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

/// What an index is sorted by.
type KeyOf = fn(&Resource) -> (&str, &str, &str);

fn by_plural(resource: &Resource) -> (&str, &str, &str) {
    (&resource.group, &resource.version, &resource.plural)
}

fn by_kind(resource: &Resource) -> (&str, &str, &str) {
    (&resource.group, &resource.version, &resource.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_path_and_by_kind() {
        let catalogue = Catalogue::builtin();
        let deployments = catalogue.resource("apps", "v1", "deployments").expect("deployments");
        assert_eq!(deployments.kind, "Deployment");
        assert_eq!(deployments.api_version(), "apps/v1");
        assert_eq!(deployments.qualified_plural(), "deployments.apps");
        assert!(deployments.has_status());
        assert_eq!(catalogue.by_type("v1", "Pod").map(|pod| &*pod.plural), Some("pods"));
        assert!(catalogue.resource("apps", "v1", "pods").is_none());
    }

    #[test]
    fn events_share_one_storage() {
        let events = Catalogue::builtin().resource("events.k8s.io", "v1", "events").expect("events");
        assert_eq!(events.storage_group(), "");
    }

    #[test]
    fn resources_are_added_at_run_time() {
        let mut catalogue = Catalogue::builtin().clone();
        let pods = catalogue.resource("", "v1", "pods").expect("pods").clone();
        let (count, versions) = (catalogue.resources().count(), catalogue.groups().len());
        let widgets =
            Resource { group: "example.com".into(), kind: "Widget".into(), plural: "widgets".into(), ..pods };
        catalogue.insert(widgets.clone());
        catalogue.insert(widgets);
        assert_eq!((catalogue.resources().count(), catalogue.groups().len()), (count + 1, versions + 1));
        assert!(catalogue.by_kind("example.com", "v1", "Widget").is_some());
        assert!(catalogue.resource("", "v1", "pods").is_some());
    }

    #[test]
    fn stable_and_newer_versions_are_preferred() {
        let mut versions =
            ["v1alpha1", "foo10", "v1", "v3beta1", "v12alpha1", "v11alpha2", "v10", "foo1", "v2", "v11beta2"];
        versions.sort_by(|a, b| by_preference(a, b));
        let expected =
            ["v10", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "v11alpha2", "v1alpha1", "foo1", "foo10"];
        assert_eq!(versions, expected);
    }

    #[test]
    fn core_group_comes_first() {
        assert_eq!(Catalogue::builtin().groups()[0].name, "");
    }
}
