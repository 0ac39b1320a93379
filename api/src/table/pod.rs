//! Prints pods: the one word of status that says what a pod is doing or why it is not.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Column, NAME, Printer, cell, text, wide};
use crate::time;

pub const POD: Printer = Printer {
    columns: &[
        NAME,
        text("Ready"),
        text("Status"),
        text("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        Column { name: "Readiness Gates", kind: "string", priority: 1 },
    ],
    cells,
};

/// Tells clients that hide finished pods which ones those are.
pub fn conditions(pod: &Value) -> Vec<Value> {
    match cell::str(&pod["status"]["phase"]) {
        phase @ ("Succeeded" | "Failed") => {
            let message = format!("The pod has ended: {phase}.");
            vec![json!({"type": "Completed", "status": "True", "reason": phase, "message": message})]
        }
        _ => Vec::new(),
    }
}

/// What the containers of a pod say together.
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    restarted_at: Option<Timestamp>,
}

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarise(pod);
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let total = cell::list(&spec["containers"]).len() + sidecars(pod).count();
    let restarts = match summary.restarted_at {
        Some(at) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, time::human_duration(now.duration_since(at)))
        }
        _ => summary.restarts.to_string(),
    };
    let ip =
        cell::list(&status["podIPs"]).first().map_or(cell::str(&status["podIP"]), |ip| cell::str(&ip["ip"]));
    vec![
        cell::name(pod),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        cell::age(pod, now),
        cell::or_none(ip),
        cell::or_none(cell::str(&spec["nodeName"])),
        cell::or_none(cell::str(&status["nominatedNodeName"])),
        gates(pod),
    ]
}

fn gates(pod: &Value) -> Value {
    let gates = cell::list(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let met = |gate: &&Value| condition(pod, cell::str(&gate["conditionType"])) == Some("True");
    format!("{}/{}", gates.iter().filter(met).count(), gates.len()).into()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = cell::list(&pod["status"]["conditions"]);
    conditions.iter().find(|one| cell::str(&one["type"]) == kind).map(|one| cell::str(&one["status"]))
}

fn sidecars(pod: &Value) -> impl Iterator<Item = &Value> {
    cell::list(&pod["spec"]["initContainers"])
        .iter()
        .filter(|container| cell::str(&container["restartPolicy"]) == "Always")
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    sidecars(pod).any(|container| cell::str(&container["name"]) == name)
}

fn summarise(pod: &Value) -> Summary {
    let status = &pod["status"];
    let given = cell::str(&status["reason"]);
    let phase = cell::str(&status["phase"]);
    let mut summary = Summary {
        reason: if given.is_empty() { phase.to_owned() } else { given.to_owned() },
        ready: 0,
        restarts: 0,
        restarted_at: None,
    };
    if let Some(gated) =
        cell::list(&status["conditions"]).iter().find(|one| cell::str(&one["type"]) == "PodScheduled")
        && cell::str(&gated["reason"]) == "SchedulingGated"
    {
        summary.reason = "SchedulingGated".to_owned();
    }
    let initializing = summarise_init(pod, &mut summary);
    if !initializing || condition(pod, "Initialized") == Some("True") {
        summarise_main(pod, &mut summary);
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        summary.reason = match given {
            "NodeLost" => "Unknown".to_owned(),
            _ if matches!(phase, "Succeeded" | "Failed") => summary.reason,
            _ => "Terminating".to_owned(),
        };
    }
    summary
}

/// Reads the init containers. True while one of them holds the others up.
fn summarise_init(pod: &Value, summary: &mut Summary) -> bool {
    let total = cell::list(&pod["spec"]["initContainers"]).len();
    for (index, container) in cell::list(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        count_restarts(container, summary);
        let sidecar = is_sidecar(pod, cell::str(&container["name"]));
        if sidecar && container["ready"] == true {
            summary.ready += 1;
        }
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if terminated["exitCode"] == 0 || (sidecar && container["started"] == true) {
            continue;
        }
        let waits = cell::str(&waiting["reason"]);
        summary.reason = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !waits.is_empty() && waits != "PodInitializing" {
            format!("Init:{waits}")
        } else {
            format!("Init:{index}/{total}")
        };
        return true;
    }
    false
}

fn summarise_main(pod: &Value, summary: &mut Summary) {
    // Of the init containers only sidecars restart while the pod runs.
    let before = std::mem::take(&mut summary.restarts);
    let restarted_before = summary.restarted_at.take();
    for container in cell::list(&pod["status"]["initContainerStatuses"]) {
        if is_sidecar(pod, cell::str(&container["name"])) {
            count_restarts(container, summary);
        }
    }
    let statuses = cell::list(&pod["status"]["containerStatuses"]);
    let mut running = false;
    for container in statuses.iter().rev() {
        count_restarts(container, summary);
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        let waits = cell::str(&waiting["reason"]);
        if !waits.is_empty() {
            summary.reason = waits.to_owned();
        } else if terminated.is_object() {
            summary.reason = ended(terminated);
        } else if container["ready"] == true && container["state"]["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    if statuses.is_empty() {
        (summary.restarts, summary.restarted_at) = (before, restarted_before);
    }
    if summary.reason == "Completed" && running {
        summary.reason =
            if condition(pod, "Ready") == Some("True") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn ended(terminated: &Value) -> String {
    let reason = cell::str(&terminated["reason"]);
    match (reason, terminated["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn count_restarts(container: &Value, summary: &mut Summary) {
    summary.restarts += container["restartCount"].as_i64().unwrap_or(0);
    let finished = cell::str(&container["lastState"]["terminated"]["finishedAt"]);
    if let Ok(at) = finished.parse::<Timestamp>() {
        summary.restarted_at = summary.restarted_at.max(Some(at));
    }
}
