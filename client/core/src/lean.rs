//! Objects without what a cache does not need.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, Pod};

const MANAGED_FIELDS: &str = "\"managedFields\":[";

/// Takes out of a pod what is told to nobody but the containers that it runs, and memory that its lists keep in reserve.
///
/// What remains is enough to place it, to count and judge it, and to follow its life; it is not enough to run it.
pub fn pod(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        if let Some(volumes) = &mut spec.volumes {
            // Claims have a say in where a pod can run.
            volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
            volumes.shrink_to_fit();
        }
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

/// The JSON of an object without its first `managedFields`: they are often larger than the rest, and costly to decode.
///
/// Only the compact form that API servers write is recognised. Any other text, and what is not JSON, comes back as it is.
pub fn without_managed_fields(json: &str) -> Cow<'_, str> {
    // Within a string the quotes would be escaped: this can only be a member, and no other member of that name is a list.
    let Some(begin) = json.find(MANAGED_FIELDS) else { return Cow::Borrowed(json) };
    let list = begin + MANAGED_FIELDS.len() - 1;
    let Some(length) = json.get(list..).and_then(|rest| nested(rest.as_bytes())) else {
        return Cow::Borrowed(json);
    };
    let (mut begin, mut end) = (begin, list + length);
    if json[end..].starts_with(',') {
        end += 1;
    } else if json[..begin].ends_with(',') {
        begin -= 1;
    }
    Cow::Owned([&json[..begin], &json[end..]].concat())
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
