//! Types as JSON schemas.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Dialect;
use crate::{
    catalogue::{Resource, Verb},
    schema::{Field, Kind, ListType, Schemas, Type, TypeId},
};

/// Names that the table cuts short, and names of scalars that are types of their own.
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

/// The full name of a type: `io.k8s.api.core.v1.Pod`.
pub(super) fn full_name(name: &str) -> String {
    match name {
        name if name.starts_with("meta.v1.") => format!("io.k8s.apimachinery.pkg.apis.{name}"),
        name if name.starts_with("io.") => name.to_owned(),
        name if name.starts_with("apiextensions.") => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.{name}")
        }
        name if name.starts_with("apiregistration.") => format!("io.k8s.kube-aggregator.pkg.apis.{name}"),
        name => format!("io.k8s.api.{name}"),
    }
}

/// The full name of the type of a resource's lists.
pub(super) fn list_name(schemas: &Schemas, resource: &Resource) -> String {
    format!("{}List", type_name(schemas, resource))
}

/// The full name of the type of a resource's objects.
pub(super) fn type_name(schemas: &Schemas, resource: &Resource) -> String {
    match &resource.custom {
        Some(custom) => custom.type_name().to_owned(),
        None => full_name(&schemas.get(resource.schema).name),
    }
}

/// All types that the roots reach, and the lists of the resources.
pub(super) fn all(
    schemas: &Schemas,
    resources: &[&Resource],
    roots: &BTreeSet<TypeId>,
    dialect: Dialect,
) -> Value {
    let mut kinds: BTreeMap<TypeId, Vec<Value>> = BTreeMap::new();
    for resource in resources {
        if resource.custom.is_none() {
            let own = kind(&resource.group, &resource.version, &resource.kind);
            kinds.entry(resource.schema).or_default().push(own);
        }
        for sub in &resource.subresources {
            if let Some(id) = sub.schema {
                let entry = kind(&sub.group, &sub.version, &sub.kind);
                let known = kinds.entry(id).or_default();
                if !known.contains(&entry) {
                    known.push(entry);
                }
            }
        }
    }
    shared_kinds(schemas, resources, &mut kinds);
    let mut writer = Writer { schemas, dialect, texts: schemas.texts(), out: Map::new() };
    for id in reachable(schemas, roots) {
        let definition = writer.definition(schemas.get(id), kinds.get(&id));
        writer.out.insert(full_name(&schemas.get(id).name), definition);
    }
    for resource in resources {
        if let Some(custom) = &resource.custom {
            let definition = super::custom::definition(resource, custom, dialect);
            writer.out.insert(type_name(schemas, resource), definition);
        }
    }
    for resource in resources.iter().filter(|resource| resource.verbs.contains(&Verb::List)) {
        let definition = writer.list(resource);
        writer.out.insert(list_name(schemas, resource), definition);
    }
    writer.scalars();
    Value::Object(writer.out)
}

pub(super) fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

/// `DeleteOptions` belongs to every group and version, `Status` to the core group.
fn shared_kinds(schemas: &Schemas, resources: &[&Resource], kinds: &mut BTreeMap<TypeId, Vec<Value>>) {
    if let Some(id) = schemas.by_name("meta.v1.DeleteOptions") {
        let versions: BTreeSet<(&str, &str)> =
            resources.iter().map(|resource| (&*resource.group, &*resource.version)).collect();
        kinds
            .entry(id)
            .or_default()
            .extend(versions.into_iter().map(|(group, version)| kind(group, version, "DeleteOptions")));
    }
    if let Some(id) = schemas.by_name("meta.v1.Status") {
        kinds.insert(id, vec![kind("", "v1", "Status")]);
    }
}

fn reachable(schemas: &Schemas, roots: &BTreeSet<TypeId>) -> BTreeSet<TypeId> {
    let (mut reached, mut open): (BTreeSet<TypeId>, Vec<TypeId>) = (BTreeSet::new(), Vec::new());
    open.extend(roots);
    while let Some(id) = open.pop() {
        if reached.insert(id) {
            open.extend(schemas.get(id).fields.iter().filter_map(|field| field.kind.object()));
        }
    }
    reached
}

struct Writer<'s> {
    schemas: &'s Schemas,
    dialect: Dialect,
    texts: Vec<String>,
    out: Map<String, Value>,
}

// === impl Writer ===

impl Writer<'_> {
    fn definition(&self, declared: &Type, kinds: Option<&Vec<Value>>) -> Value {
        let mut schema = Map::new();
        self.describe(&mut schema, declared.doc);
        let mut properties = Map::new();
        for (at, field) in declared.fields.iter().enumerate() {
            properties.insert(field.name.clone().into_owned(), self.field(field, declared.doc + 1 + at));
        }
        if !properties.is_empty() {
            schema.insert("properties".to_owned(), properties.into());
        }
        let required: Vec<Value> = declared
            .fields
            .iter()
            .filter(|field| field.required && !(field.name == "metadata" && kinds.is_some()))
            .map(|field| Value::from(&*field.name))
            .collect();
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
        schema.insert("type".to_owned(), "object".into());
        if declared.atomic {
            schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        if let Some(kinds) = kinds {
            schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds.clone().into());
        }
        Value::Object(schema)
    }

    fn describe(&self, schema: &mut Map<String, Value>, doc: usize) {
        if let Some(text) = self.texts.get(doc).filter(|text| !text.is_empty()) {
            schema.insert("description".to_owned(), text.as_str().into());
        }
    }

    fn field(&self, field: &Field, doc: usize) -> Value {
        let mut schema = self.kind(&field.kind);
        if self.dialect == Dialect::V3
            && let Some(reference) = schema.remove("$ref")
        {
            schema.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            if !field.pointer() && matches!(field.kind, Kind::Object(_)) {
                schema.insert("default".to_owned(), json!({}));
            }
        }
        self.describe(&mut schema, doc);
        if let Some(default) = &field.default {
            schema.insert("default".to_owned(), default.clone());
        }
        let mut extension = |name: &str, value: Value| schema.insert(format!("x-kubernetes-{name}"), value);
        if matches!(field.kind, Kind::List(_)) {
            match field.list_type {
                ListType::Map => {
                    let keys = field.list_keys.iter().map(|key| Value::from(&**key)).collect();
                    extension("list-type", "map".into());
                    extension("list-map-keys", Value::Array(keys));
                }
                ListType::Set => {
                    extension("list-type", "set".into());
                }
                ListType::Atomic => {
                    extension("list-type", "atomic".into());
                }
            }
        }
        if field.atomic_map {
            extension("map-type", "atomic".into());
        }
        let strategy = [
            (field.strategy.merge, "merge"),
            (field.strategy.retain_keys, "retainKeys"),
            (field.strategy.replace, "replace"),
        ];
        let strategy: Vec<&str> = strategy.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        if !strategy.is_empty() {
            extension("patch-strategy", strategy.join(",").into());
        }
        if let Some(key) = &field.merge_key {
            extension("patch-merge-key", (&**key).into());
        }
        Value::Object(schema)
    }

    fn kind(&self, kind: &Kind) -> Map<String, Value> {
        let schema = match kind {
            Kind::String => json!({"type": "string"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 => json!({"type": "integer", "format": "int64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::IntOrString => self.reference(INT_OR_STRING),
            Kind::Quantity => self.reference(QUANTITY),
            Kind::Time => self.reference(&format!("{META}.Time")),
            Kind::MicroTime => self.reference(&format!("{META}.MicroTime")),
            Kind::Fields => self.reference(&format!("{META}.FieldsV1")),
            Kind::Raw | Kind::Open => self.reference(RAW_EXTENSION),
            Kind::Object(id) => self.reference(&full_name(&self.schemas.get(*id).name)),
            Kind::List(inner) | Kind::Wrapped(inner) => {
                json!({"type": "array", "items": self.kind(inner)})
            }
            Kind::Map(inner) => json!({"type": "object", "additionalProperties": self.kind(inner)}),
        };
        match schema {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn reference(&self, name: &str) -> Value {
        json!({"$ref": self.dialect.reference(name)})
    }

    fn list(&self, resource: &Resource) -> Value {
        let item = type_name(self.schemas, resource);
        let metadata = match self.dialect {
            Dialect::V2 => self.reference(&format!("{META}.ListMeta")),
            Dialect::V3 => json!({"allOf": [self.reference(&format!("{META}.ListMeta"))], "default": {}}),
        };
        json!({
            "description": format!("{} is a collection of {}.", resource.list_kind, resource.plural),
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": metadata,
                "items": {"type": "array", "items": self.reference(&item)},
            },
            "required": ["items"],
            "x-kubernetes-group-version-kind": [kind(&resource.group, &resource.version, &resource.list_kind)],
        })
    }

    fn scalars(&mut self) {
        let either = match self.dialect {
            Dialect::V2 => json!({"type": "string", "format": "int-or-string"}),
            Dialect::V3 => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
            }
        };
        let quantity = match self.dialect {
            Dialect::V2 => json!({"type": "string"}),
            Dialect::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        };
        let scalars = [
            (INT_OR_STRING.to_owned(), either, "A number or text."),
            (QUANTITY.to_owned(), quantity, "An amount with a unit, such as 100m or 1Gi."),
            (
                format!("{META}.Time"),
                json!({"type": "string", "format": "date-time"}),
                "A time to the second.",
            ),
            (
                format!("{META}.MicroTime"),
                json!({"type": "string", "format": "date-time"}),
                "A time to the microsecond.",
            ),
            (format!("{META}.FieldsV1"), json!({"type": "object"}), "A set of field paths."),
            (RAW_EXTENSION.to_owned(), json!({"type": "object"}), "Any object."),
        ];
        for (name, mut schema, text) in scalars {
            schema["description"] = text.into();
            self.out.insert(name, schema);
        }
    }
}
