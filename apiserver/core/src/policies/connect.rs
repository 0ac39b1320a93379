//! Streams and proxied requests before the policies: what they are opened with, as the object of a `CONNECT`.

use serde_json::{Map, Value, json};

use super::{Write, validate, validates};
use crate::admission::matching::Operation;
use crate::call::Call;
use crate::failure::Refused;

/// Holds the opening of a stream against the validating policies. Nobody can be warned: a stream has no place for it.
///
/// # Errors
///
/// The refusal of a policy.
pub(crate) fn connect(call: &Call<'_>, name: &str) -> Result<(), Refused> {
    if !validates(call) || call.subresource() == "log" {
        return Ok(());
    }
    let object = options(call);
    let write = Write { operation: Operation::Connect, name, object: &object, old: &Value::Null };
    validate(call, &write).map(drop)
}

/// The query as an object of its kind, such as PodExecOptions.
fn options(call: &Call<'_>) -> Value {
    let kind = match call.subresource() {
        "exec" => "PodExecOptions".to_owned(),
        "attach" => "PodAttachOptions".to_owned(),
        "portforward" => "PodPortForwardOptions".to_owned(),
        _ => format!("{}ProxyOptions", call.resource.kind),
    };
    let mut options = Map::new();
    options.insert("apiVersion".into(), "v1".into());
    options.insert("kind".into(), kind.into());
    let info = &call.request.info;
    if call.subresource() == "proxy" {
        options.insert("path".into(), info.rest.clone().into());
        return options.into();
    }
    for (name, value) in &info.query {
        match name.as_str() {
            "stdin" | "stdout" | "stderr" | "tty" => {
                options.insert(name.clone(), matches!(value.as_str(), "true" | "1").into());
            }
            "container" => drop(options.insert(name.clone(), value.clone().into())),
            "command" => add(&mut options, name, value.clone().into()),
            "ports" => value
                .split(',')
                .filter_map(|port| port.parse::<u16>().ok())
                .for_each(|port| add(&mut options, name, port.into())),
            _ => {}
        }
    }
    options.into()
}

fn add(options: &mut Map<String, Value>, name: &str, value: Value) {
    let list = options.entry(name).or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.push(value);
    }
}
