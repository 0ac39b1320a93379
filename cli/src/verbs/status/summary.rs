//! What is worth knowing of a cluster, from its objects.

use apiserver::join::Member;
use apiserver::keys::KeyringStatus;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::verbs::describe::{event, node};
use crate::verbs::pods::condition;
use crate::verbs::session::text_at;
use crate::verbs::tabs;

/// Warnings that are older are not shown.
const RECENT: SignedDuration = SignedDuration::from_mins(15);
/// A certificate that ends sooner is pointed out.
const SOON_DAYS: i64 = 90;
/// A certificate that ends sooner is an alarm.
const URGENT_DAYS: i64 = 14;
/// Certificates of a day that end sooner were not renewed when they should have been.
const RENEWED_HOURS: i64 = 7;
/// Certificates of a day that end sooner are an alarm.
const ALARM_HOURS: i64 = 2;
/// So many warnings are shown.
const WARNINGS: usize = 10;

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// Everything that is looked at.
#[derive(Debug, Default)]
pub struct View {
    /// The server's address.
    pub server: String,
    /// What `/version` says.
    pub version: Value,
    /// What `/readyz?verbose` says.
    pub readyz: String,
    /// The servers, where the cluster tells.
    pub members: Vec<Member>,
    /// What each certificate is of, and when it ends.
    pub certificates: Vec<(&'static str, Timestamp)>,
    /// The keys of the cluster, where it tells.
    pub keys: KeyringStatus,
    /// All nodes.
    pub nodes: Vec<Value>,
    /// All pods.
    pub pods: Vec<Value>,
    /// All deployments.
    pub deployments: Vec<Value>,
    /// All daemon sets.
    pub daemon_sets: Vec<Value>,
    /// All stateful sets.
    pub stateful_sets: Vec<Value>,
    /// All events.
    pub events: Vec<Value>,
}

/// The view in words; with colours for a terminal.
pub fn summary(view: &View, now: Timestamp, colours: bool) -> String {
    let paint = Paint(colours);
    let mut out = server(view, paint);
    out.push_str(&members(&view.members, paint));
    out.push_str(&certificates(&view.certificates, now, paint));
    out.push_str(&short_certificates(&view.keys.certificates, now, paint));
    out.push_str(&rotations(&view.keys, paint));
    out.push_str(&nodes(view, paint));
    out.push_str(&workloads(view, paint));
    out.push_str(&warnings(view, now, paint));
    out
}

#[derive(Clone, Copy)]
struct Paint(bool);

// === impl Paint ===

impl Paint {
    fn with(self, colour: &str, text: &str) -> String {
        if self.0 { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }
}

fn server(view: &View, paint: Paint) -> String {
    let checks: Vec<&str> = view.readyz.lines().filter(|line| line.starts_with('[')).collect();
    let failed: Vec<&str> = checks.iter().filter(|line| !line.starts_with("[+]")).copied().collect();
    let ready = failed.is_empty()
        && (view.readyz.contains("passed") || view.readyz.trim() == "ok" || !checks.is_empty());
    let state = match (ready, failed.as_slice()) {
        (true, _) => paint.with(GREEN, "ready"),
        (false, []) => paint.with(RED, "not ready"),
        (false, failed) => paint.with(RED, &format!("not ready: {}", failed.join("; "))),
    };
    let passed = checks.len() - failed.len();
    let counted =
        if checks.is_empty() { String::new() } else { format!(" ({passed} of {} checks)", checks.len()) };
    format!(
        "API server  {} {}  {state}{counted}\n",
        view.server.trim_end_matches('/'),
        text_at(&view.version, "/gitVersion")
    )
}

fn members(members: &[Member], paint: Paint) -> String {
    if members.len() < 2 {
        return String::new();
    }
    let reached = members.iter().filter(|member| member.applied_index.is_some()).count();
    let colour = if reached == members.len() { GREEN } else { RED };
    let count = paint.with(colour, &format!("{reached} of {} reachable", members.len()));
    let leader = members
        .iter()
        .find(|member| member.leader)
        .map_or_else(|| paint.with(RED, "nobody leads"), |leader| format!("{} leads", leader.name));
    let mut table = String::from("  NAME\tROLE\tADDRESS\tAPPLIED\n");
    for member in members {
        let applied = member.applied_index.map_or("unreachable".to_owned(), |index| index.to_string());
        table.push_str(&format!("  {}\t{}\t{}\t{applied}\n", member.name, member.role, member.address));
    }
    format!("Servers     {count}, {leader}\n{}", tabs::align(&table, tabs::TABLE))
}

fn certificates(certificates: &[(&str, Timestamp)], now: Timestamp, paint: Paint) -> String {
    let told: Vec<String> = certificates
        .iter()
        .map(|(of, until)| {
            let days = until.duration_since(now).as_hours() / 24;
            let colour = if days < URGENT_DAYS { RED } else { YELLOW };
            let text = format!("{of} for {days} days");
            if days < SOON_DAYS { paint.with(colour, &text) } else { text }
        })
        .collect();
    if told.is_empty() { String::new() } else { format!("Valid       {}\n", told.join(", ")) }
}

/// The certificates of servers and nodes, which are renewed by themselves after two thirds of a day.
fn short_certificates(certificates: &[(String, Timestamp)], now: Timestamp, paint: Paint) -> String {
    let Some((first, until)) = certificates.iter().min_by_key(|(_, until)| *until) else {
        return String::new();
    };
    let hours = |until: &Timestamp| until.duration_since(now).as_hours();
    let mut out =
        format!("            servers and nodes for {} hours at least ({first})\n", hours(until).max(0));
    for (of, until) in certificates.iter().filter(|(_, until)| hours(until) < RENEWED_HOURS) {
        let text = match until.duration_since(now) {
            left if left.is_negative() => format!("{of} has a certificate that has expired"),
            left => format!("{of} does not renew its certificate: it ends in {} hours", left.as_hours()),
        };
        let colour = if hours(until) < ALARM_HOURS { RED } else { YELLOW };
        out.push_str(&format!("            {}\n", paint.with(colour, &text)));
    }
    out
}

/// Keys that are being rotated.
fn rotations(keys: &KeyringStatus, paint: Paint) -> String {
    let mut out = String::new();
    for (name, key) in
        [("authority", &keys.authority), ("service-account", &keys.token_key), ("store", &keys.store_key)]
    {
        let mut parts = Vec::new();
        if let Some(next) = &key.next {
            parts.push(format!("{next} is announced"));
        }
        parts.extend(key.former.iter().map(|(id, until)| format!("{id} is accepted until {until:.0}")));
        if !key.waits_for.is_empty() {
            parts.push(paint.with(YELLOW, &format!("waits for {}", key.waits_for.join(", "))));
        }
        if !parts.is_empty() {
            out.push_str(&format!("Key         {name}: {}\n", parts.join("; ")));
        }
    }
    out
}

fn nodes(view: &View, paint: Paint) -> String {
    let ready = |node: &&Value| condition(node, "Ready") == "True";
    let count = view.nodes.iter().filter(ready).count();
    let colour = if count == view.nodes.len() && count > 0 { GREEN } else { RED };
    let mut out =
        format!("Nodes       {}\n", paint.with(colour, &format!("{count} of {} ready", view.nodes.len())));
    let mut table = String::from("  NAME\tSTATUS\tPODS\tCPU\tMEMORY\n");
    for node in &view.nodes {
        table.push_str(&node_line(node, &view.pods));
    }
    if !view.nodes.is_empty() {
        out.push_str(&tabs::align(&table, tabs::TABLE));
    }
    out
}

fn node_line(node: &Value, pods: &[Value]) -> String {
    let name = text_at(node, "/metadata/name");
    let mut status = match condition(node, "Ready") {
        "True" => "Ready".to_owned(),
        _ => "NotReady".to_owned(),
    };
    if node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    for pressure in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        if condition(node, pressure) == "True" {
            status.push_str(&format!(",{pressure}"));
        }
    }
    let here: Vec<&Value> = pods
        .iter()
        .filter(|pod| text_at(pod, "/spec/nodeName") == name)
        .filter(|pod| !matches!(text_at(pod, "/status/phase"), "Succeeded" | "Failed"))
        .collect();
    let share = |resource: &str| {
        let asked = node::sum(here.iter().map(|pod| node::asked(pod, resource))).requests;
        let all: Option<api::quantity::Quantity> = node
            .pointer("/status/allocatable")
            .and_then(|all| all.get(resource))
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok());
        match all {
            Some(all) if all.as_f64() > 0.0 => {
                format!("{asked} of {all} ({}%)", (asked.as_f64() / all.as_f64() * 100.0).round())
            }
            _ => asked.to_string(),
        }
    };
    let room = text_at(node, "/status/allocatable/pods");
    let room = if room.is_empty() { String::new() } else { format!(" of {room}") };
    format!("  {name}\t{status}\t{}{room}\t{}\t{}\n", here.len(), share("cpu"), share("memory"))
}

fn workloads(view: &View, paint: Paint) -> String {
    let mut troubles = Vec::new();
    let mut total = 0;
    let lists = [("deployment", &view.deployments), ("statefulset", &view.stateful_sets)];
    for (kind, list) in lists {
        for object in list {
            total += 1;
            let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            let there = number(object, "/status/availableReplicas").max(if kind == "statefulset" {
                number(object, "/status/readyReplicas")
            } else {
                0
            });
            let updated = number(object, "/status/updatedReplicas");
            trouble(view, kind, object, (there, updated, wanted), &mut troubles);
        }
    }
    for object in &view.daemon_sets {
        total += 1;
        let wanted = number(object, "/status/desiredNumberScheduled");
        let figures = (
            number(object, "/status/numberAvailable"),
            number(object, "/status/updatedNumberScheduled"),
            wanted,
        );
        trouble(view, "daemonset", object, figures, &mut troubles);
    }
    for pod in view.pods.iter().filter(|pod| pod.pointer("/metadata/ownerReferences").is_none()) {
        total += 1;
        if let Some(why) = pod_trouble(pod, &view.events) {
            troubles.push(format!(
                "  pod/{}\t{}\t\t{why}\n",
                text_at(pod, "/metadata/name"),
                text_at(pod, "/metadata/namespace")
            ));
        }
    }
    let well = total - troubles.len();
    let colour = if troubles.is_empty() { GREEN } else { YELLOW };
    let mut out = format!("Workloads   {}\n", paint.with(colour, &format!("{well} of {total} as desired")));
    if !troubles.is_empty() {
        let table = format!("  NAME\tNAMESPACE\tAVAILABLE\tWHY\n{}", troubles.concat());
        out.push_str(&tabs::align(&table, tabs::TABLE));
    }
    out
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn trouble(view: &View, kind: &str, object: &Value, figures: (i64, i64, i64), troubles: &mut Vec<String>) {
    let (there, updated, wanted) = figures;
    if there >= wanted && updated >= wanted {
        return;
    }
    let mut why = Vec::new();
    for one in object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
        let bad = matches!(
            (text_at(one, "/type"), text_at(one, "/status")),
            ("Progressing", "False") | ("ReplicaFailure", "True")
        );
        if bad {
            why.push(format!("{}: {}", text_at(one, "/reason"), text_at(one, "/message")));
        }
    }
    let selector =
        api::selector::LabelSelector::from_object(object.pointer("/spec/selector").unwrap_or(&Value::Null));
    for pod in &view.pods {
        let same_place = text_at(pod, "/metadata/namespace") == text_at(object, "/metadata/namespace");
        let selected = same_place && selector.as_ref().is_ok_and(|selector| selector.matches(&labels(pod)));
        if selected
            && let Some(reason) = pod_trouble(pod, &view.events)
            && !why.contains(&reason)
        {
            why.push(reason);
        }
    }
    if why.is_empty() {
        why.push(if updated < wanted {
            format!("{updated} of {wanted} updated")
        } else {
            "starting".to_owned()
        });
    }
    troubles.push(format!(
        "  {kind}/{}\t{}\t{there}/{wanted}\t{}\n",
        text_at(object, "/metadata/name"),
        text_at(object, "/metadata/namespace"),
        why.join("; ")
    ));
}

fn labels(pod: &Value) -> std::collections::BTreeMap<String, String> {
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Why a pod does not run; `None` when it does, or has ended well.
pub fn pod_trouble(pod: &Value, events: &[Value]) -> Option<String> {
    let phase = text_at(pod, "/status/phase");
    if phase == "Succeeded" || (phase == "Running" && condition(pod, "Ready") == "True") {
        return None;
    }
    if !text_at(pod, "/metadata/deletionTimestamp").is_empty() {
        return Some("terminating".to_owned());
    }
    if condition(pod, "PodScheduled") == "False" || text_at(pod, "/spec/nodeName").is_empty() {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let told = conditions.into_iter().flatten().find(|one| text_at(one, "/type") == "PodScheduled");
        let event = events.iter().find(|event| {
            text_at(event, "/reason") == "FailedScheduling"
                && text_at(event, "/involvedObject/uid") == text_at(pod, "/metadata/uid")
        });
        let text = told.map(|one| text_at(one, "/message")).filter(|text| !text.is_empty());
        let text = text.or_else(|| event.map(|event| text_at(event, "/message")));
        return Some(
            text.map_or_else(|| "not scheduled yet".to_owned(), |text| format!("not scheduled: {text}")),
        );
    }
    for list in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for container in pod.pointer(list).and_then(Value::as_array).into_iter().flatten() {
            let name = text_at(container, "/name");
            let waiting = text_at(container, "/state/waiting/reason");
            if !waiting.is_empty() && !matches!(waiting, "PodInitializing" | "ContainerCreating") {
                let code = container.pointer("/lastState/terminated/exitCode").and_then(Value::as_i64);
                let last = code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
                return Some(format!("container {name}: {waiting}{last}"));
            }
            if let Some(code) = container
                .pointer("/state/terminated/exitCode")
                .and_then(Value::as_i64)
                .filter(|code| *code != 0)
            {
                return Some(format!("container {name} ended with exit code {code}"));
            }
        }
    }
    match phase {
        "Failed" => Some(format!("failed {}", text_at(pod, "/status/reason")).trim_end().to_owned()),
        "Running" => Some("running, not ready".to_owned()),
        _ => Some("starting".to_owned()),
    }
}

fn warnings(view: &View, now: Timestamp, paint: Paint) -> String {
    let mut recent: Vec<&Value> = view
        .events
        .iter()
        .filter(|event| text_at(event, "/type") == "Warning")
        .filter(|event| {
            event::last_seen(event).parse::<Timestamp>().is_ok_and(|time| now.duration_since(time) < RECENT)
        })
        .collect();
    recent.sort_by_key(|event| std::cmp::Reverse(event::last_seen(event)));
    if recent.is_empty() {
        return "Warnings    none in the last 15 minutes\n".to_owned();
    }
    let count = paint.with(YELLOW, &format!("{} in the last 15 minutes", recent.len()));
    let mut table = String::from("  AGE\tOBJECT\tREASON\tMESSAGE\n");
    for event in recent.iter().take(WARNINGS) {
        table.push_str(&format!(
            "  {}\t{}/{}\t{}\t{}\n",
            event::age(event, now),
            text_at(event, "/involvedObject/kind").to_lowercase(),
            text_at(event, "/involvedObject/name"),
            text_at(event, "/reason"),
            text_at(event, "/message").trim().replace('\n', " ")
        ));
    }
    format!("Warnings    {count}\n{}", tabs::align(&table, tabs::TABLE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn at_a_glance() {
        let view = View {
            server: "https://127.0.0.1:6443/".to_owned(),
            version: json!({"gitVersion": "v1.37.0+orlop"}),
            readyz: "[+]ping ok\n[+]store ok\nreadyz check passed\n".to_owned(),
            members: [("s1", true, Some(7)), ("s2", false, None)]
                .map(|(name, leader, applied_index)| Member {
                    id: 1,
                    name: name.to_owned(),
                    address: "10.0.0.1:6443".to_owned(),
                    role: "voter".to_owned(),
                    leader,
                    applied_index,
                })
                .into(),
            certificates: vec![("authority", "2026-12-21T10:00:00Z".parse().expect("a time"))],
            keys: serde_json::from_value(json!({
                "authority": {"current": "b", "former": [["a", "2026-11-22T10:00:00Z"]], "waitsFor": ["node n2"]},
                "tokenKey": {"current": "t1", "next": "t2"},
                "storeKey": {"current": "0"},
                "certificates": [
                    ["server s1", "2026-11-22T09:30:00Z"],
                    ["node n2", "2026-11-21T11:30:00Z"],
                    ["node n3", "2026-11-21T09:00:00Z"],
                ],
            }))
            .expect("keys"),
            nodes: vec![
                json!({"metadata": {"name": "node-1"}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}]}}),
                json!({"metadata": {"name": "node-2"}, "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            ],
            pods: vec![
                json!({"metadata": {"name": "a", "namespace": "default", "labels": {"app": "web"}, "ownerReferences": [{}]}, "spec": {"nodeName": "node-1", "containers": [{"resources": {"requests": {"cpu": "500m"}}}]},
                    "status": {"phase": "Running", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}]}}),
                json!({"metadata": {"name": "b", "namespace": "default", "uid": "u"}, "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]}}),
            ],
            deployments: vec![
                json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}}, "status": {"updatedReplicas": 1}}),
            ],
            events: vec![
                json!({"type": "Warning", "reason": "BackOff", "message": "Back-off", "lastTimestamp": "2026-11-21T09:59:00Z", "involvedObject": {"kind": "Pod", "name": "a"}}),
            ],
            ..View::default()
        };
        let now = "2026-11-21T10:00:00Z".parse().expect("a time");
        assert_eq!(
            summary(&view, now, false),
            "\
API server  https://127.0.0.1:6443 v1.37.0+orlop  ready (2 of 2 checks)
Servers     1 of 2 reachable, s1 leads
  NAME   ROLE    ADDRESS         APPLIED
  s1     voter   10.0.0.1:6443   7
  s2     voter   10.0.0.1:6443   unreachable
Valid       authority for 30 days
            servers and nodes for 0 hours at least (node n3)
            node n2 does not renew its certificate: it ends in 1 hours
            node n3 has a certificate that has expired
Key         authority: a is accepted until 2026-11-22T10:00:00Z; waits for node n2
Key         service-account: t2 is announced
Nodes       1 of 2 ready
  NAME     STATUS                        PODS       CPU               MEMORY
  node-1   Ready                         1 of 110   500m of 2 (25%)   0 of 4Gi (0%)
  node-2   NotReady,SchedulingDisabled   0          0                 0
Workloads   0 of 2 as desired
  NAME             NAMESPACE   AVAILABLE   WHY
  deployment/web   default     0/1         container c: CrashLoopBackOff (exit code 1)
  pod/b            default                 not scheduled: 0/2 nodes are available
Warnings    1 in the last 15 minutes
  AGE   OBJECT   REASON    MESSAGE
  60s   pod/a    BackOff   Back-off
"
        );
    }
}
