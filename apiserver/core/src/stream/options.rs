//! The options with which a connection is opened, as the object that Kubernetes makes of the query: `PodExecOptions` and its
//! relatives.

use serde_json::{Value, json};

use crate::call::Call;
use crate::object;
use crate::request::Request;

/// Options that say yes or no.
const FLAGS: &[&str] = &["stdin", "stdout", "stderr", "tty"];

/// The options of a request.
pub(crate) fn of_request(call: &Call<'_>) -> Value {
    let info = &call.request.info;
    let kind = call.resource.subresource(call.subresource()).map_or("", |declared| &declared.kind);
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    let map = object::map_of(&mut options);
    if call.subresource() == "proxy" {
        map.insert("path".into(), info.rest.as_str().into());
        return options;
    }
    for (name, value) in &info.query {
        match name.as_str() {
            flag if FLAGS.contains(&flag) => drop(map.insert(flag.into(), info.flag(flag).into())),
            "container" => drop(map.insert(name.clone(), value.as_str().into())),
            "command" => push(map.entry("command").or_insert_with(|| json!([])), value.as_str().into()),
            "ports" => {
                let ports = map.entry("ports").or_insert_with(|| json!([]));
                let numbers = value.split(',').filter_map(|port| port.parse::<u16>().ok());
                numbers.for_each(|port| push(ports, port.into()));
            }
            _ => {}
        }
    }
    options
}

fn push(list: &mut Value, item: Value) {
    if let Value::Array(items) = list {
        items.push(item);
    }
}

/// The request with other options.
pub(crate) fn into_request(call: &Call<'_>, options: &Value) -> Request {
    let mut request = call.request.clone();
    let ours = |name: &str| FLAGS.contains(&name) || matches!(name, "container" | "command" | "ports");
    request.info.query.retain(|(name, _)| !ours(name));
    for (name, value) in options.as_object().into_iter().flatten().filter(|(name, _)| ours(name)) {
        let texts: Vec<String> = match value {
            Value::Array(items) => items.iter().map(text).collect(),
            value => vec![text(value)],
        };
        request.info.query.extend(texts.into_iter().map(|value| (name.clone(), value)));
    }
    request
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
