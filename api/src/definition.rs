//! Custom resources: what a CustomResourceDefinition makes of itself as entries of the catalogue, and which names it gets.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::catalogue::{ALL_VERBS, Name, Resource, Scope, Subresource, Verb};
use crate::field::FieldError;
use crate::json_path::JsonPath;
use crate::schema::{self, Schemas};

mod approval;
mod names;

pub use approval::Approval;
pub use names::{Claims, settle, terminating};

/// The group of definitions.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Their name in paths.
pub const PLURAL: &str = "customresourcedefinitions";
/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What is known of a definition.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its own name.
    pub name: Box<str>,
    /// The group of its resources.
    pub group: Box<str>,
    /// The names that are its own.
    pub claims: Claims,
    /// Whether it waits for names that another one has.
    pub waits: bool,
    /// The revision at which its versions came to be as they are.
    pub since: u64,
    /// Its served versions, preferred one first; none before its names are accepted.
    pub resources: Vec<Arc<Resource>>,
}

/// What the definition of a custom resource says of one version of it.
#[derive(Debug)]
pub struct Custom {
    /// The definition's name.
    pub definition: Box<str>,
    /// Whether the definition is being deleted, with all its objects.
    pub terminating: bool,
    /// Columns of tables behind the name.
    pub columns: Vec<Column>,
    /// Where the numbers of the scale subresource are.
    pub scale: Option<Scale>,
    /// Fields that selectors may name, as `spec.color`.
    pub selectable: Vec<Box<str>>,
    /// Objects that were written after this revision were written under this very schema.
    pub since: u64,
    /// Who converts objects between versions, where it is a webhook: `spec.conversion.webhook`.
    pub converter: Option<Value>,
    /// The definition as it is stored.
    stored: Bytes,
    /// Which of its versions this is.
    version: usize,
    type_name: String,
    schemas: OnceLock<Schemas>,
}

/// A column of tables.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its heading.
    pub name: Box<str>,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: Box<str>,
    /// A hint for clients.
    pub format: Box<str>,
    /// What it shows.
    pub description: Box<str>,
    /// 0: shown in all tables.
    pub priority: i64,
    /// Where its value is.
    pub path: JsonPath,
}

/// Where the numbers of the scale subresource are.
#[derive(Clone, Debug)]
pub struct Scale {
    /// How many are wanted.
    pub spec: Vec<Box<str>>,
    /// How many there are.
    pub status: Vec<Box<str>>,
    /// A label selector as text.
    pub selector: Option<Vec<Box<str>>>,
}

// === impl Definition ===

impl Definition {
    /// Reads a stored definition, whose versions came to be as they are at the revision `since`.
    pub fn read(stored: &Bytes, since: u64) -> Option<Definition> {
        let object: Value = serde_json::from_slice(stored).ok()?;
        let (spec, status) = (&object["spec"], &object["status"]);
        let mut definition = Definition {
            name: text(&object["metadata"]["name"]).into(),
            group: text(&spec["group"]).into(),
            claims: Claims::of(&status["acceptedNames"]),
            waits: !names::is(&object, "NamesAccepted"),
            since,
            resources: Vec::new(),
        };
        if names::is(&object, "Established") {
            let versions = items(&spec["versions"]).iter().enumerate();
            let served = versions.filter(|(_, version)| version["served"] == true);
            let origin = Origin { object: &object, stored, since };
            definition.resources = served.map(|(at, _)| Arc::new(origin.resource(at))).collect();
            definition.resources.sort_by(|a, b| crate::catalogue::by_preference(&a.version, &b.version));
        }
        Some(definition)
    }
}

/// What resources are made from.
struct Origin<'a> {
    object: &'a Value,
    stored: &'a Bytes,
    since: u64,
}

// === impl Origin ===

impl Origin<'_> {
    fn resource(&self, at: usize) -> Resource {
        let (spec, status) = (&self.object["spec"], &self.object["status"]);
        let version = &spec["versions"][at];
        let names = &status["acceptedNames"];
        let owned = |value: &Value| Name::Owned(text(value).to_owned());
        let all = |value: &Value| items(value).iter().map(owned).collect();
        let (group, name, kind) = (owned(&spec["group"]), owned(&version["name"]), owned(&names["kind"]));
        let storage = items(&spec["versions"]).iter().find(|version| version["storage"] == true);
        let storage = storage.map_or(Name::Borrowed(""), |version| owned(&version["name"]));
        // Objects are stored in this version, and none in another one.
        let only = storage == name && items(&status["storedVersions"]).iter().all(|stored| *stored == *name);
        let sub = |path: &'static str, group: Name, version: Name, kind: Name| Subresource {
            schema: schema::builtin().type_of(&group, &version, &kind).filter(|_| path == "scale"),
            name: Name::Borrowed(path),
            group,
            version,
            kind,
            verbs: vec![Verb::Get, Verb::Patch, Verb::Update],
        };
        let mut subresources = Vec::new();
        if version["subresources"]["scale"].is_object() {
            subresources.push(sub("scale", "autoscaling".into(), "v1".into(), "Scale".into()));
        }
        if version["subresources"]["status"].is_object() {
            subresources.push(sub("status", group.clone(), name.clone(), kind.clone()));
        }
        Resource {
            list_kind: owned(&names["listKind"]),
            plural: owned(&names["plural"]),
            singular: owned(&names["singular"]),
            short_names: all(&names["shortNames"]),
            categories: all(&names["categories"]),
            scope: if spec["scope"] == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
            verbs: ALL_VERBS.to_vec(),
            subresources,
            schema: Schemas::first_custom(),
            stored: true,
            stored_as: (!only).then(|| (group.clone(), storage)),
            idle: false,
            deprecation: deprecation(version, &group, &name, &kind),
            custom: Some(Arc::new(self.custom(at, version, type_name(&group, &name, &kind)))),
            group,
            version: name,
            kind,
        }
    }

    /// The webhook that converts objects, if that is the strategy.
    fn converter(&self) -> Option<Value> {
        let conversion = &self.object["spec"]["conversion"];
        (conversion["strategy"] == "Webhook").then(|| conversion["webhook"].clone())
    }

    fn custom(&self, at: usize, version: &Value, type_name: String) -> Custom {
        Custom {
            definition: text(&self.object["metadata"]["name"]).into(),
            terminating: self.object["metadata"]["deletionTimestamp"].is_string(),
            columns: items(&version["additionalPrinterColumns"]).iter().filter_map(Column::read).collect(),
            scale: Scale::read(&version["subresources"]["scale"]),
            selectable: items(&version["selectableFields"])
                .iter()
                .map(|field| text(&field["jsonPath"]).trim_start_matches('.').into())
                .collect(),
            since: self.since,
            converter: self.converter(),
            stored: self.stored.clone(),
            version: at,
            type_name,
            schemas: OnceLock::new(),
        }
    }
}

/// What users of a version are told that should not be used any more.
fn deprecation(version: &Value, group: &str, name: &str, kind: &str) -> Option<Name> {
    let own = version["deprecationWarning"].as_str().map(str::to_owned);
    let warning = || own.unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated"));
    (version["deprecated"] == true).then(warning).map(Name::Owned)
}

/// The name under which a type is published: `com.example.v1.Widget`.
fn type_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    parts.extend([version, kind]);
    parts.join(".")
}

// === impl Custom ===

impl Custom {
    /// The table of its types; made when it is first asked for.
    pub fn schemas(&self) -> &Schemas {
        self.schemas.get_or_init(|| Schemas::custom(self.type_name.clone(), &self.schema()))
    }

    /// The schema as its definition has it, read anew.
    pub(crate) fn schema(&self) -> Value {
        let definition: Value = serde_json::from_slice(&self.stored).unwrap_or_default();
        let Value::Object(mut definition) = definition else { return Value::Null };
        let mut spec = definition.remove("spec").unwrap_or_default();
        spec["versions"][self.version]["schema"]["openAPIV3Schema"].take()
    }

    /// The name under which its type is published: `com.example.v1.Widget`.
    pub(crate) fn type_name(&self) -> &str {
        &self.type_name
    }

    /// Checks an object; `old` is what it was before.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = self.schemas().check(object, old);
        if let Some(scale) = &self.scale {
            for path in [&scale.spec, &scale.status] {
                if let Some(number) = at(object, path).and_then(Value::as_i64).filter(|number| *number < 0) {
                    errors.push(FieldError::invalid(
                        path.join("."),
                        number,
                        "should be a non-negative integer",
                    ));
                }
            }
        }
        errors
    }

    /// An object that may have been written under another schema, as this one wants it.
    pub fn renew(&self, object: &mut Value) {
        let schemas = self.schemas();
        let id = Schemas::first_custom();
        let _dropped = schemas.prune(id, object);
        schemas.default(id, object);
    }
}

/// The value at a path of fields.
pub fn at<'v>(object: &'v Value, path: &[Box<str>]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, name| value.get(&**name))
}

/// Puts a value at a path of fields; what leads there is made.
pub fn put(object: &mut Value, path: &[Box<str>], value: Value) {
    let mut place = object;
    for name in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[&**name];
    }
    *place = value;
}

// === impl Column ===

impl Column {
    fn read(column: &Value) -> Option<Column> {
        Some(Column {
            name: text(&column["name"]).into(),
            kind: text(&column["type"]).into(),
            format: text(&column["format"]).into(),
            description: text(&column["description"]).into(),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: JsonPath::parse(text(&column["jsonPath"]))?,
        })
    }
}

// === impl Scale ===

impl Scale {
    fn read(scale: &Value) -> Option<Scale> {
        let path = |name: &str| {
            let path = JsonPath::parse(scale[name].as_str()?)?;
            Some(path.fields()?.into_iter().map(Into::into).collect::<Vec<Box<str>>>())
        };
        Some(Scale {
            spec: path("specReplicasPath")?,
            status: path("statusReplicasPath")?,
            selector: path("labelSelectorPath").filter(|path| !path.is_empty()),
        })
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests;
