//! A pod, and a pod template.

use serde_json::Value;

use super::container;
use super::text::{Text, long_time, number, pairs};
use super::volume;
use crate::verbs::session::text_at;

/// Writes a pod.
pub fn write(text: &mut Text, pod: &Value) {
    text.head(pod);
    text.field(0, "Priority", number(pod, "/spec/priority"));
    present(text, "Priority Class Name", pod, "/spec/priorityClassName");
    present(text, "Service Account", pod, "/spec/serviceAccountName");
    match (text_at(pod, "/spec/nodeName"), text_at(pod, "/status/hostIP")) {
        ("", _) => text.field(0, "Node", "<none>"),
        (node, ip) => text.field(0, "Node", format!("{node}/{ip}")),
    }
    match text_at(pod, "/status/startTime") {
        "" => {}
        start => text.field(0, "Start Time", long_time(start)),
    }
    text.pairs(0, "Labels", pod.pointer("/metadata/labels"));
    text.annotations(0, pod.pointer("/metadata/annotations"));
    phase(text, pod);
    present(text, "SeccompProfile", pod, "/spec/securityContext/seccompProfile/type");
    addresses(text, pod);
    controlled_by(text, pod);
    for (title, spec, status) in [
        ("Init Containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
    ] {
        container::write_all(text, title, pod.pointer(spec), pod.pointer(status), 0);
    }
    text.conditions(pod, &[("Type", "/type"), ("Status", "/status")]);
    volume::write_all(text, pod.pointer("/spec/volumes"), 0);
    text.field(0, "QoS Class", text_at(pod, "/status/qosClass"));
    scheduling(text, pod.get("spec"), 0);
}

/// Writes a field, if it is there.
fn present(text: &mut Text, title: &str, pod: &Value, pointer: &str) {
    match text_at(pod, pointer) {
        "" => {}
        value => text.field(0, title, value),
    }
}

/// How far the pod is in its life, and why.
fn phase(text: &mut Text, pod: &Value) {
    match text_at(pod, "/metadata/deletionTimestamp") {
        "" => text.field(0, "Status", text_at(pod, "/status/phase")),
        deletion => {
            let age = super::age_of(deletion, jiff::Timestamp::now());
            text.field(0, "Status", format!("Terminating (lasts {age})"));
            let grace = number(pod, "/metadata/deletionGracePeriodSeconds");
            text.field(0, "Termination Grace Period", format!("{grace}s"));
        }
    }
    present(text, "Reason", pod, "/status/reason");
    present(text, "Message", pod, "/status/message");
}

fn addresses(text: &mut Text, pod: &Value) {
    text.field(0, "IP", text_at(pod, "/status/podIP"));
    match pod.pointer("/status/podIPs").and_then(Value::as_array).filter(|ips| !ips.is_empty()) {
        None => text.field(0, "IPs", "<none>"),
        Some(ips) => {
            text.line(0, "IPs:");
            ips.iter().for_each(|ip| text.field(1, "IP", text_at(ip, "/ip")));
        }
    }
}

fn controlled_by(text: &mut Text, pod: &Value) {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut owners = owners.into_iter().flatten();
    let controls = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    if let Some(owner) = owners.find(controls) {
        text.field(0, "Controlled By", format!("{}/{}", text_at(owner, "/kind"), text_at(owner, "/name")));
    }
}

/// Node selectors and tolerations.
fn scheduling(text: &mut Text, spec: Option<&Value>, level: usize) {
    let spec = spec.unwrap_or(&Value::Null);
    text.lines(level, "Node-Selectors", &pairs(spec.get("nodeSelector"), "="));
    let tolerations = spec.get("tolerations").and_then(Value::as_array);
    let mut lines: Vec<String> = tolerations.into_iter().flatten().map(toleration).collect();
    lines.sort();
    text.lines(level, "Tolerations", &lines);
    let spread = spec.get("topologySpreadConstraints").and_then(Value::as_array);
    let lines: Vec<String> = spread.into_iter().flatten().map(spread_text).collect();
    if !lines.is_empty() {
        text.lines(level, "Topology Spread Constraints", &lines);
    }
}

fn spread_text(constraint: &Value) -> String {
    let selector =
        api::selector::LabelSelector::from_object(constraint.get("labelSelector").unwrap_or(&Value::Null));
    format!(
        "{}:{} when max skew {} is exceeded for selector {}",
        text_at(constraint, "/topologyKey"),
        text_at(constraint, "/whenUnsatisfiable"),
        number(constraint, "/maxSkew"),
        selector.map(|selector| selector.to_string()).unwrap_or_default()
    )
}

fn toleration(toleration: &Value) -> String {
    let mut text = text_at(toleration, "/key").to_owned();
    if let value @ [_, ..] = text_at(toleration, "/value").as_bytes() {
        text.push_str(&format!("={}", String::from_utf8_lossy(value)));
    }
    let effect = text_at(toleration, "/effect");
    if !effect.is_empty() {
        text.push_str(&format!(":{effect}"));
    }
    let exists = text_at(toleration, "/operator") == "Exists";
    if exists && text_at(toleration, "/value").is_empty() {
        text.push_str(if text.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = toleration.get("tolerationSeconds").and_then(Value::as_i64) {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}

/// Writes a pod template below a title.
pub fn write_template(text: &mut Text, template: Option<&Value>) {
    text.line(0, "Pod Template:");
    let Some(template) = template.filter(|template| !template.is_null()) else {
        return text.line(0, "  <unset>");
    };
    template_body(text, template);
}

fn template_body(text: &mut Text, template: &Value) {
    text.pairs(1, "Labels", template.pointer("/metadata/labels"));
    if template.pointer("/metadata/annotations").and_then(Value::as_object).is_some_and(|all| !all.is_empty())
    {
        text.annotations(1, template.pointer("/metadata/annotations"));
    }
    if let name @ [_, ..] = text_at(template, "/spec/serviceAccountName").as_bytes() {
        text.field(1, "Service Account", String::from_utf8_lossy(name));
    }
    container::write_all(text, "Init Containers", template.pointer("/spec/initContainers"), None, 1);
    container::write_all(text, "Containers", template.pointer("/spec/containers"), None, 1);
    volume::write_all(text, template.pointer("/spec/volumes"), 1);
    if let name @ [_, ..] = text_at(template, "/spec/priorityClassName").as_bytes() {
        text.field(1, "Priority Class Name", String::from_utf8_lossy(name));
    }
    scheduling(text, template.get("spec"), 1);
}

/// A pod template, laid out, as `rollout history` shows it.
pub fn template_text(template: &Value, cause: &str) -> String {
    let mut template = template.clone();
    if !cause.is_empty() {
        template["metadata"]["annotations"]["kubernetes.io/change-cause"] = Value::from(cause);
    }
    let mut text = Text::default();
    write_template(&mut text, Some(&template));
    crate::verbs::tabs::align(&text.finish(), crate::verbs::tabs::DESCRIPTION)
}
