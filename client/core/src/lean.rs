//! Objects without what a cache does not need.

use std::borrow::Cow;
use std::ops::Range;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use memchr::memmem;

use crate::object::PartialObject;

/// The beginning of a list of what every object has and no cache needs: managed fields are often larger than the rest.
pub const MANAGED_FIELDS: &str = "\"managedFields\":[";

/// What the readers of a cache do not need of its objects.
#[derive(Debug)]
pub struct Trim<T> {
    /// Lists that are not decoded at all, as their JSON begins: [`without`] says which.
    pub lists: &'static [&'static str],
    /// Takes the rest out of what was decoded.
    pub object: fn(&mut T),
}

/// What is told to nobody but the containers that a pod runs, and memory that its lists keep in reserve.
///
/// What remains is enough to place a pod, to count and judge it, and to follow its life; it is not enough to run it.
pub const POD: Trim<Pod> = Trim { lists: &["\"volumes\":[", "\"volumeMounts\":["], object: pod };

/// What garbage collection does not look at: of objects that are known by their metadata only there are many, and maps are
/// the largest part of them.
pub const METADATA: Trim<PartialObject> = Trim { lists: &[], object: metadata };

/// Leaves of metadata which object it is, who owns it, and what holds it.
fn metadata(object: &mut PartialObject) {
    let ObjectMeta {
        deletion_timestamp,
        finalizers,
        name,
        namespace,
        owner_references,
        resource_version,
        uid,
        ..
    } = std::mem::take(object).metadata;
    object.metadata = ObjectMeta {
        deletion_timestamp,
        finalizers,
        name,
        namespace,
        owner_references,
        resource_version,
        uid,
        ..ObjectMeta::default()
    };
}

/// Takes out of a pod what [`POD`] says.
pub fn pod(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        spec.volumes = None;
        spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(container);
        spec.containers.shrink_to_fit();
        tighten(&mut spec.tolerations);
    }
    if let Some(status) = &mut pod.status {
        tighten(&mut status.container_statuses);
        tighten(&mut status.init_container_statuses);
        tighten(&mut status.conditions);
    }
}

fn tighten<T>(list: &mut Option<Vec<T>>) {
    if let Some(list) = list {
        list.shrink_to_fit();
    }
}

fn container(container: &mut Container) {
    container.args = None;
    container.command = None;
    container.env = None;
    container.env_from = None;
    container.security_context = None;
    container.termination_message_path = None;
    container.volume_devices = None;
    container.volume_mounts = None;
}

/// The JSON of an object without its managed fields: they are costly to decode.
pub fn without_managed_fields(json: &str) -> Cow<'_, str> {
    without(json, &[MANAGED_FIELDS])
}

/// The JSON of an object without lists, each given by the text with which it begins: its name and the bracket. Of several of one
/// name the first goes.
///
/// Only the compact form that API servers write is recognised. Any other text, and what is not JSON, comes back as it is.
pub fn without<'a>(json: &'a str, lists: &[&str]) -> Cow<'a, str> {
    lists.iter().fold(Cow::Borrowed(json), |json, list| match member(&json, list) {
        Some(cut) => Cow::Owned([&json[..cut.start], &json[cut.end..]].concat()),
        None => json,
    })
}

/// Where the member that begins with this text is, with the comma that goes with it.
fn member(json: &str, text: &str) -> Option<Range<usize>> {
    // Within a string the quotes would be escaped: such a text can only begin a member.
    let begin = memmem::find(json.as_bytes(), text.as_bytes())?;
    let list = begin + text.len() - 1;
    let end = list + nested(json.get(list..)?.as_bytes())?;
    Some(if json[end..].starts_with(',') {
        begin..end + 1
    } else {
        begin - usize::from(json[..begin].ends_with(','))..end
    })
}

/// The length of the list or object at the beginning.
fn nested(json: &[u8]) -> Option<usize> {
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        assert_eq!(without_managed_fields(json), expected);
    }

    #[test]
    fn the_list_goes_with_one_comma() {
        check(r#"{"a":1,"managedFields":[{"k:{\"x\":\"]\"}":{}}],"name":"n"}"#, r#"{"a":1,"name":"n"}"#);
        check(r#"{"managedFields":[],"name":"n"}"#, r#"{"name":"n"}"#);
        check(r#"{"a":1,"managedFields":[[1]]}"#, r#"{"a":1}"#);
        check(r#"{"managedFields":[]}"#, "{}");
    }

    #[test]
    fn several_lists_go() {
        let lists = [MANAGED_FIELDS, "\"v\":[", "\"w\":[", "\"x\":["];
        let json = r#"{"a":{"managedFields":[1]},"b":{"v":[{"w":[2]}],"w":[3]},"x":[4]}"#;
        assert_eq!(without(json, &lists), r#"{"a":{},"b":{}}"#);
        assert_eq!(without(r#"{"a":1,"v":[2],"w":[3]}"#, &lists), r#"{"a":1}"#);
    }

    #[test]
    fn everything_else_stays() {
        for json in [
            r#"{"annotations":{"managedFields":"[","x":"\"managedFields\":[1]"}}"#,
            r#"{"managedFields": [1]}"#,
            r#"{"managedFields":[1"#,
            "",
        ] {
            check(json, json);
        }
    }
}
