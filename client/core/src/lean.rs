//! Objects without what a cache does not need.

use std::borrow::Cow;
use std::ops::Range;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use memchr::memmem;

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

/// What is told to nobody but the containers that a pod runs, what its node says of them for people alone, and memory that
/// its lists keep in reserve.
///
/// What remains is enough to place a pod, to count and judge it, and to follow its life; it is not enough to run it.
pub const POD: Trim<Pod> = Trim { lists: &["\"volumes\":[", "\"volumeMounts\":["], object: pod };

/// Steps on the way to `Ready`, which only the pod's node tells apart.
const STEPS: [&str; 3] = ["PodReadyToStartContainers", "Initialized", "ContainersReady"];

/// Takes out of a pod what [`POD`] says.
fn pod(pod: &mut Pod) {
    if let Some(status) = &mut pod.status {
        let conditions = status.conditions.iter_mut();
        conditions.for_each(|all| all.retain(|condition| !STEPS.contains(&&*condition.type_)));
        let statuses = [&mut status.container_statuses, &mut status.init_container_statuses];
        statuses.into_iter().flatten().flatten().for_each(container_status);
    }
    unrun(pod);
}

/// Takes out of a pod what is told to nobody but the containers that it runs.
pub fn unrun(pod: &mut Pod) {
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

/// Leaves how often the container was started, and what it has been given.
fn container_status(status: &mut ContainerStatus) {
    status.container_id = None;
    status.image = String::new();
    status.image_id = String::new();
    status.last_state = None;
    status.state = None;
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
    fn of_a_pod_there_stays_what_is_judged() {
        let status = serde_json::json!({
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "containerID": "x", "image": "i", "imageID": "i", "ready": true,
                "restartCount": 7, "state": {"running": {}}, "resources": {"limits": {"cpu": "1"}}}]});
        let mut of: Pod = serde_json::from_value(serde_json::json!({"status": status})).expect("a pod");
        (POD.object)(&mut of);
        let stays = serde_json::json!({"metadata": {}, "apiVersion": "v1", "kind": "Pod", "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 7,
                "resources": {"limits": {"cpu": "1"}}}]}});
        assert_eq!(serde_json::to_value(&of).expect("JSON"), stays);
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
