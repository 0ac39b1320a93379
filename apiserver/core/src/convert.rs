//! Custom resources in other versions than they are stored in, where the definition names a webhook that converts them.
//!
//! An object says itself in which version it is stored. Only objects of another version than the one that is wanted are sent
//! to the webhook, many with one question.

use std::collections::BTreeMap;
use std::time::Duration;

use api::catalogue::Resource;
use api::status::Status;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::ask::{Answers, Ask, Fault, Question, Review};
use crate::call::Call;
use crate::failure::{self, Refused};
use crate::negotiate::Form;
use crate::object::{self, items, meta};
use crate::prepare::Stop;
use crate::response::Response;
use crate::scan;
use crate::webhooks::client::Client;
use crate::world::World;

/// How long a webhook may take to convert what one question has.
const TIMEOUT: Duration = Duration::from_secs(30);
/// So many objects are sent with one question.
const BATCH: usize = 500;

/// Stored objects, with what they are in the version that is wanted.
pub type Converted = BTreeMap<Bytes, Bytes>;

/// How far the conversion of some objects is.
pub enum Conversion {
    /// The webhook has to be asked.
    Ask(Ask),
    /// All are converted; those that need it not are left out.
    Done(Converted),
    /// They cannot be converted.
    Failed(Response),
}

/// Whether objects of a resource that are in another version are converted by a webhook.
pub fn by_webhook(resource: &Resource) -> bool {
    resource.custom.as_ref().is_some_and(|custom| custom.converter.is_some())
}

/// Whether a stored object must be converted before it can be shown as one of the resource.
pub fn is_needed(resource: &Resource, stored: &[u8]) -> bool {
    by_webhook(resource)
        && scan::text(stored, &["apiVersion"]).is_some_and(|version| version != resource.api_version())
}

/// Converts the objects that need it into the version of the resource at a path.
pub fn convert(
    world: &World<'_>,
    path: (&str, &str, &str),
    stored: &[Bytes],
    answers: &Answers,
) -> Conversion {
    let Some(resource) = world.resource(path.0, path.1, path.2) else {
        return Conversion::Failed(*failure::no_such_path());
    };
    let open: Vec<&Bytes> = stored.iter().filter(|stored| is_needed(&resource, stored)).collect();
    match shown(world, answers, &resource, &open) {
        Ok(shown) => Conversion::Done(open.into_iter().cloned().zip(shown).collect()),
        Err(Stop::Ask(ask)) => Conversion::Ask(ask),
        Err(Stop::Refused(refused)) => Conversion::Failed(*refused),
    }
}

// === impl Call ===

impl Call<'_> {
    /// Stored objects as they are shown: in the version of the request, where a webhook has to see to that.
    pub fn in_version(&self, stored: &[&Bytes]) -> Result<Vec<Bytes>, Stop> {
        // Of metadata all versions have the same.
        if !by_webhook(self.resource) || self.accepted.form == Form::Partial {
            return Ok(stored.iter().map(|bytes| (*bytes).clone()).collect());
        }
        shown(&self.world, self.answers, self.resource, stored)
    }

    /// A document that was stored, in the version of the request if a webhook converts; else as it is.
    pub fn current(&self, stored: Value) -> Result<Value, Stop> {
        if !by_webhook(self.resource) || stored["apiVersion"] == *self.resource.api_version() {
            return Ok(stored);
        }
        let mut object = one(self, self.resource, &stored)?;
        renew(self.resource, &mut object);
        Ok(object)
    }

    /// A document in the version of the request, as it is to be stored.
    pub fn store_form(&self, object: &mut Value) -> Result<(), Stop> {
        let Some((group, version)) = self.resource.stored_as.as_ref().filter(|_| by_webhook(self.resource))
        else {
            return Ok(());
        };
        let wanted = api::catalogue::api_version(group, version);
        if object["apiVersion"] != *wanted {
            let documents = vec![object.clone()];
            let mut stored = many(&self.world, self.answers, self.resource, &wanted, documents)?;
            *object = stored.pop().unwrap_or_default();
        }
        Ok(())
    }
}

/// One object in the version of another resource of the same definition.
pub(crate) fn one(call: &Call<'_>, to: &Resource, object: &Value) -> Result<Value, Stop> {
    let mut found = many(&call.world, call.answers, to, &to.api_version(), vec![object.clone()])?;
    Ok(found.pop().unwrap_or_default())
}

fn renew(resource: &Resource, object: &mut Value) {
    if let Some(custom) = &resource.custom {
        custom.renew(object);
    }
}

fn shown(
    world: &World<'_>,
    answers: &Answers,
    resource: &Resource,
    stored: &[&Bytes],
) -> Result<Vec<Bytes>, Stop> {
    let mut documents = Vec::new();
    for bytes in stored.iter().filter(|bytes| is_needed(resource, bytes)) {
        let document = object::parse(bytes);
        documents.push(document.ok_or_else(|| failure::internal("a stored object is not valid JSON"))?);
    }
    let mut converted = many(world, answers, resource, &resource.api_version(), documents)?.into_iter();
    let bytes = stored.iter().map(|bytes| match is_needed(resource, bytes) {
        true => {
            let mut document = converted.next().unwrap_or_default();
            renew(resource, &mut document);
            document.to_string().into()
        }
        false => (*bytes).clone(),
    });
    Ok(bytes.collect())
}

/// Objects of a definition in the version `wanted`, each in the place of the one that it was.
fn many(
    world: &World<'_>,
    answers: &Answers,
    resource: &Resource,
    wanted: &str,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, Stop> {
    let others: Vec<usize> = (0..objects.len()).filter(|at| objects[*at]["apiVersion"] != *wanted).collect();
    let Some(converter) = resource.custom.as_ref().and_then(|custom| custom.converter.as_ref()) else {
        return Ok(objects);
    };
    let mut open = Vec::new();
    for places in others.chunks(BATCH) {
        let first = &objects[places[0]];
        let failed = |why: String| Stop::from(Refused::from(Status::unexplained(failure_of(first, &why))));
        let question = question(world.snapshot, converter, wanted, places.iter().map(|at| &objects[*at]))
            .map_err(|fault| failed(told(&fault)))?;
        let response = match answers.get(&question) {
            None => {
                open.push(question);
                continue;
            }
            Some(Err(fault)) => return Err(failed(told(fault))),
            Some(Ok(response)) => response,
        };
        let originals: Vec<&Value> = places.iter().map(|at| &objects[*at]).collect();
        let converted = read(response, wanted, &originals).map_err(|why| match why {
            Unfit::Failed(why) => failed(why),
            Unfit::Objects(why) => {
                Refused::from(Status::unexplained(format!("conversion webhook for {} {why}", kind(first))))
                    .into()
            }
        })?;
        for (at, object) in places.iter().zip(converted) {
            objects[*at] = object;
        }
    }
    match open.is_empty() {
        true => Ok(objects),
        false => Err(Stop::Ask(Ask { questions: open })),
    }
}

fn question<'o>(
    snapshot: &store_core::Snapshot,
    converter: &Value,
    wanted: &str,
    objects: impl Iterator<Item = &'o Value>,
) -> Result<Question, Fault> {
    if !items(&converter["conversionReviewVersions"]).iter().any(|version| version == "v1") {
        return Err(Fault::Call("no supported conversion review versions".to_owned()));
    }
    let to = Client::read(&converter["clientConfig"]).recipient(snapshot, TIMEOUT)?;
    let objects: Vec<&Value> = objects.collect();
    let request = json!({"desiredAPIVersion": wanted, "objects": objects});
    Ok(Question::new(Review::Conversion, to, &request))
}

/// A fault in the words that conversions have for it.
fn told(fault: &Fault) -> String {
    match fault {
        Fault::Call(why) | Fault::Response(why) => why.clone(),
    }
}

fn kind(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    format!("{}, Kind={}", text("apiVersion"), text("kind"))
}

fn failure_of(object: &Value, why: &str) -> String {
    format!("conversion webhook for {} failed: {why}", kind(object))
}

/// What is wrong with a response.
enum Unfit {
    /// It says so itself.
    Failed(String),
    /// Its objects are not those that were sent.
    Objects(String),
}

/// The converted objects in a response, with the metadata that no conversion may change.
fn read(response: &Value, wanted: &str, originals: &[&Value]) -> Result<Vec<Value>, Unfit> {
    let result = &response["result"];
    let status = result["status"].as_str().unwrap_or_default();
    if status != "Success" {
        return Err(Unfit::Failed(match result["message"].as_str().filter(|message| !message.is_empty()) {
            Some(message) => message.to_owned(),
            None => format!("response.result.status was '{status}', not 'Success'"),
        }));
    }
    let converted = items(&response["convertedObjects"]);
    if converted.len() != originals.len() {
        let (found, expected) = (converted.len(), originals.len());
        return Err(Unfit::Objects(format!("returned {found} objects, expected {expected}")));
    }
    let fitted = converted.iter().zip(originals).enumerate().map(|(at, (object, original))| {
        fit(object.clone(), original, wanted)
            .map_err(|why| Unfit::Objects(format!("returned invalid converted object at index {at}: {why}")))
    });
    fitted.collect()
}

/// Holds a converted object against the one that was sent. Only labels and annotations may differ in the metadata.
fn fit(mut object: Value, original: &Value, wanted: &str) -> Result<Value, String> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    if version != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {version})"));
    }
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let kinds = (text(original, "kind"), text(&object, "kind"));
    if kinds.0 != kinds.1 {
        return Err(format!("invalid kind (expected {}, received {})", kinds.0, kinds.1));
    }
    for (field, word) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (expected, found) = (meta(original, field), meta(&object, field));
        if expected != found {
            return Err(format!("must have the same {word}: {expected} != {found}"));
        }
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let value = object["metadata"][field].clone();
        let texts = value.as_object().is_some_and(|map| map.values().all(Value::is_string));
        if !value.is_null() && !texts {
            return Err(format!("metadata.{field} must be a map of strings"));
        }
        if let Value::Object(metadata) = &mut metadata {
            object::set(metadata, field, value);
        }
    }
    match &mut object {
        Value::Object(map) => map.insert("metadata".to_owned(), metadata),
        _ => return Err("it is not an object".to_owned()),
    };
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, name: &str) -> Value {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget",
            "metadata": {"name": name, "uid": "1", "finalizers": ["x"], "labels": {"a": "b"}}})
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Value), expected: Result<Value, &str>) {
        let mut converted = object("v2", "w");
        change(&mut converted);
        let found = fit(converted, &object("v1", "w"), "example.com/v2").map(|it| it["metadata"].clone());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn only_labels_and_annotations_of_the_metadata_are_converted() {
        let metadata =
            |labels: Value| json!({"name": "w", "uid": "1", "finalizers": ["x"], "labels": labels});
        check(|_| {}, Ok(metadata(json!({"a": "b"}))));
        check(
            |it| it["metadata"] = json!({"name": "w", "uid": "1", "finalizers": [], "labels": {"a": "c"}}),
            Ok(metadata(json!({"a": "c"}))),
        );
        check(|it| it["metadata"]["uid"] = json!("2"), Err("must have the same UID: 1 != 2"));
        check(|it| it["metadata"]["name"] = json!("v"), Err("must have the same name: w != v"));
        check(
            |it| it["metadata"]["labels"] = json!({"a": 1}),
            Err("metadata.labels must be a map of strings"),
        );
        check(
            |it| it["apiVersion"] = json!("example.com/v1"),
            Err("invalid groupVersion (expected example.com/v2, received example.com/v1)"),
        );
    }
}
