//! The paths of the resources, with what clients look for in them: actions, kinds, query parameters.

use serde_json::{Map, Value, json};

use super::{
    Dialect,
    definitions::{full_name, kind, list_name, type_name},
};
use crate::{
    catalogue::{Resource, Subresource, Verb},
    schema::Schemas,
};

const JSON: &str = "application/json";
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// What an operation does, and to what.
struct Operation<'a> {
    method: &'static str,
    action: &'static str,
    /// The kind that it is about.
    kind: Value,
    /// The body's type.
    body: Option<String>,
    /// The answer's type.
    answer: Option<String>,
    query: &'static [(&'static str, &'static str)],
    id: String,
    tag: &'a str,
}

const WRITE: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("pretty", "string")];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
    ("pretty", "string"),
];
const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("pretty", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("pretty", "string"),
    ("propagationPolicy", "string"),
];
const GET: &[(&str, &str)] = &[("pretty", "string")];

/// All paths of the resources.
pub(super) fn all(schemas: &Schemas, resources: &[&Resource], dialect: Dialect) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        Writer { schemas, resource, dialect }.resource(&mut paths);
    }
    Value::Object(paths)
}

struct Writer<'a> {
    schemas: &'a Schemas,
    resource: &'a Resource,
    dialect: Dialect,
}

// === impl Writer ===

impl Writer<'_> {
    fn resource(&self, paths: &mut Map<String, Value>) {
        let resource = self.resource;
        let root = match resource.group.is_empty() {
            true => format!("/api/{}", resource.version),
            false => format!("/apis/{}/{}", resource.group, resource.version),
        };
        let plural = &resource.plural;
        let collection = match resource.namespaced() {
            true => format!("{root}/namespaces/{{namespace}}/{plural}"),
            false => format!("{root}/{plural}"),
        };
        self.put(paths, collection.clone(), self.collection());
        if resource.namespaced() && resource.verbs.contains(&Verb::List) {
            let list = self.list("ForAllNamespaces");
            self.put(paths, format!("{root}/{plural}"), vec![list]);
        }
        if resource.verbs.contains(&Verb::Get) {
            self.put(paths, format!("{collection}/{{name}}"), self.item());
        }
        for sub in &resource.subresources {
            let path = format!("{collection}/{{name}}/{}", sub.name);
            self.put(paths, path, self.subresource(sub));
        }
    }

    fn own_kind(&self) -> Value {
        kind(&self.resource.group, &self.resource.version, &self.resource.kind)
    }

    fn own_type(&self) -> Option<String> {
        Some(type_name(self.schemas, self.resource))
    }

    fn shared(&self, name: &str) -> Option<String> {
        Some(format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"))
    }

    fn operation(&self, method: &'static str, action: &'static str, suffix: &str) -> Operation<'_> {
        let scope = if self.resource.namespaced() { "Namespaced" } else { "" };
        let verb = match action {
            "post" => "create",
            "put" => "replace",
            "get" => "read",
            "deletecollection" => "deleteCollection",
            other => other,
        };
        Operation {
            method,
            action,
            kind: self.own_kind(),
            body: None,
            answer: self.own_type(),
            query: GET,
            id: format!("{verb}{}{scope}{}{suffix}", self.id_prefix(), self.resource.kind),
            tag: &self.resource.group,
        }
    }

    fn id_prefix(&self) -> String {
        let group = self.resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
        [group, &self.resource.version].into_iter().map(capitalise).collect()
    }

    fn list(&self, suffix: &str) -> Operation<'_> {
        let mut list = self.operation("get", "list", suffix);
        list.answer = Some(list_name(self.schemas, self.resource));
        list.query = LIST;
        list
    }

    fn collection(&self) -> Vec<Operation<'_>> {
        let verbs = &self.resource.verbs;
        let mut operations = Vec::new();
        if verbs.contains(&Verb::List) {
            operations.push(self.list(""));
        }
        if verbs.contains(&Verb::Create) {
            let mut create = self.operation("post", "post", "");
            create.body = self.own_type();
            create.query = WRITE;
            operations.push(create);
        }
        if verbs.contains(&Verb::DeleteCollection) {
            let mut delete = self.operation("delete", "deletecollection", "");
            delete.body = self.shared("DeleteOptions");
            delete.answer = self.shared("Status");
            delete.query = DELETE;
            delete.id = delete.id.replacen("deleteCollection", "deleteCollectionOf", 1);
            operations.push(delete);
        }
        operations
    }

    fn item(&self) -> Vec<Operation<'_>> {
        let mut operations = self.read_write(&self.resource.verbs, "");
        if self.resource.verbs.contains(&Verb::Delete) {
            let mut delete = self.operation("delete", "delete", "");
            delete.body = self.shared("DeleteOptions");
            delete.answer = self.shared("Status");
            delete.query = DELETE;
            operations.push(delete);
        }
        operations
    }

    fn read_write(&self, verbs: &[Verb], suffix: &str) -> Vec<Operation<'_>> {
        let mut operations = Vec::new();
        if verbs.contains(&Verb::Get) {
            operations.push(self.operation("get", "get", suffix));
        }
        if verbs.contains(&Verb::Update) {
            let mut replace = self.operation("put", "put", suffix);
            replace.body = self.own_type();
            replace.query = WRITE;
            operations.push(replace);
        }
        if verbs.contains(&Verb::Patch) {
            let mut patch = self.operation("patch", "patch", suffix);
            patch.body = self.shared("Patch");
            patch.query = PATCH;
            operations.push(patch);
        }
        operations
    }

    fn subresource(&self, sub: &Subresource) -> Vec<Operation<'_>> {
        let suffix = capitalise(&sub.name);
        let connect = matches!(&*sub.name, "attach" | "exec" | "portforward" | "proxy");
        let about = kind(&sub.group, &sub.version, &sub.kind);
        let own = || self.resource.custom.as_ref().and_then(|_| self.own_type());
        let body = sub.schema.map(|id| full_name(&self.schemas.get(id).name)).or_else(own);
        let mut operations = self.read_write(&sub.verbs, &suffix);
        if sub.verbs.contains(&Verb::Create) {
            let mut create = self.operation("post", "post", &suffix);
            create.body = body.clone();
            create.query = WRITE;
            operations.push(create);
        }
        for operation in &mut operations {
            operation.kind = about.clone();
            if connect {
                operation.action = "connect";
                operation.body = None;
                operation.answer = None;
            } else if sub.name == "log" {
                operation.answer = None;
            } else {
                operation.answer = body.clone();
                if matches!(operation.method, "put" | "post") {
                    operation.body = body.clone();
                }
            }
        }
        operations
    }

    fn put(&self, paths: &mut Map<String, Value>, path: String, operations: Vec<Operation<'_>>) {
        if operations.is_empty() {
            return;
        }
        let mut item = Map::new();
        for operation in &operations {
            item.insert(operation.method.to_owned(), self.render(operation));
        }
        let parameters: Vec<Value> = [("namespace", "{namespace}"), ("name", "{name}")]
            .into_iter()
            .filter(|(_, marker)| path.contains(marker))
            .map(|(name, _)| self.parameter(name, "path", "string"))
            .collect();
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), parameters.into());
        }
        paths.insert(path, Value::Object(item));
    }

    fn parameter(&self, name: &str, place: &str, of_type: &str) -> Value {
        let mut parameter = match self.dialect {
            Dialect::V2 => json!({"name": name, "in": place, "type": of_type, "uniqueItems": true}),
            Dialect::V3 => {
                json!({"name": name, "in": place, "schema": {"type": of_type, "uniqueItems": true}})
            }
        };
        if place == "path" {
            parameter["required"] = true.into();
        }
        parameter
    }

    fn render(&self, operation: &Operation<'_>) -> Value {
        let mut parameters: Vec<Value> =
            operation.query.iter().map(|(name, of_type)| self.parameter(name, "query", of_type)).collect();
        let reference = |name: &String| json!({"$ref": self.dialect.reference(name)});
        let patch = operation.action == "patch";
        let any = json!({"type": "object"});
        let body = operation.body.as_ref().map(|name| if patch { any.clone() } else { reference(name) });
        let tag = if operation.tag.is_empty() { "core" } else { operation.tag };
        let mut rendered = json!({
            "operationId": operation.id,
            "tags": [format!("{}_{}", tag.split('.').next().unwrap_or(tag), self.resource.version)],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": operation.kind,
        });
        let types: Vec<&str> = match patch {
            // Merge keys are known of built-in kinds only.
            true => PATCH_TYPES
                .into_iter()
                .filter(|media| self.resource.custom.is_none() || !media.contains("strategic"))
                .collect(),
            false => vec![JSON],
        };
        let required = matches!(operation.method, "post" | "put" | "patch");
        match (self.dialect, body) {
            (Dialect::V2, body) => {
                if let Some(schema) = body {
                    parameters
                        .push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
                }
                rendered["consumes"] = if patch { json!(types) } else { json!(["*/*"]) };
                rendered["produces"] = json!([JSON]);
                let mut ok = json!({"description": "OK"});
                if let Some(answer) = &operation.answer {
                    ok["schema"] = reference(answer);
                }
                rendered["responses"] = json!({"200": ok});
            }
            (Dialect::V3, body) => {
                if let Some(schema) = body {
                    let content: Map<String, Value> =
                        types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
                    rendered["requestBody"] = json!({"content": content, "required": required});
                }
                let mut ok = json!({"description": "OK"});
                if let Some(answer) = &operation.answer {
                    ok["content"] = json!({JSON: {"schema": reference(answer)}});
                }
                rendered["responses"] = json!({"200": ok});
            }
        }
        if !parameters.is_empty() {
            rendered["parameters"] = parameters.into();
        }
        rendered
    }
}

fn capitalise(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
