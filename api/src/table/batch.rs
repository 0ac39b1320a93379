//! Prints jobs, stateful sets and what scales and protects workloads.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, Printer, cell, number, text, wide};
use crate::time;

pub const STATEFUL_SET: Printer =
    Printer { columns: &[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")], cells: stateful_set };

pub const REPLICATION_CONTROLLER: Printer = Printer {
    columns: &[
        NAME,
        number("Desired"),
        number("Current"),
        number("Ready"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: replication_controller,
};

pub const POD_TEMPLATE: Printer =
    Printer { columns: &[NAME, text("Containers"), text("Images"), text("Pod Labels")], cells: pod_template };

pub const JOB: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Completions"),
        text("Duration"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: job,
};

pub const CRON_JOB: Printer = Printer {
    columns: &[
        NAME,
        text("Schedule"),
        text("Timezone"),
        Column { name: "Suspend", kind: "boolean", priority: 0 },
        number("Active"),
        text("Last Schedule"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: cron_job,
};

pub const AUTOSCALER: Printer = Printer {
    columns: &[
        NAME,
        text("Reference"),
        text("Targets"),
        text("MinPods"),
        text("MaxPods"),
        text("Replicas"),
        AGE,
    ],
    cells: autoscaler,
};

pub const DISRUPTION_BUDGET: Printer = Printer {
    columns: &[NAME, text("Min Available"), text("Max Unavailable"), number("Allowed Disruptions"), AGE],
    cells: disruption_budget,
};

/// So many targets of an autoscaler are shown; the others are counted.
const TARGETS_MAX: usize = 2;

fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = object["status"]["readyReplicas"].as_i64().unwrap_or(0);
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(0);
    let [names, images] = cell::containers(&object["spec"]["template"]["spec"]);
    vec![cell::name(object), format!("{ready}/{wanted}").into(), cell::age(object, now), names, images]
}

fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = cell::containers(&spec["template"]["spec"]);
    vec![
        cell::name(object),
        cell::count(&spec["replicas"]),
        cell::count(&status["replicas"]),
        cell::count(&status["readyReplicas"]),
        cell::age(object, now),
        names,
        images,
        cell::pairs(&spec["selector"]),
    ]
}

fn pod_template(object: &Value, _: Timestamp) -> Vec<Value> {
    let [names, images] = cell::containers(&object["template"]["spec"]);
    vec![cell::name(object), names, images, cell::pairs(&object["template"]["metadata"]["labels"])]
}

fn has_condition(object: &Value, name: &str) -> bool {
    let conditions = cell::list(&object["status"]["conditions"]);
    conditions.iter().any(|one| one["type"] == name && one["status"] == "True")
}

fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let deleting = object["metadata"]["deletionTimestamp"].is_string();
    let state = ["Complete", "Failed", "Terminating", "Suspended", "FailureTarget", "SuccessCriteriaMet"]
        .into_iter()
        .find(|name| if *name == "Terminating" { deleting } else { has_condition(object, name) });
    let succeeded = status["succeeded"].as_i64().unwrap_or(0);
    let completions = match (spec["completions"].as_i64(), spec["parallelism"].as_i64().unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    };
    let at = |name: &str| status[name].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let duration = match (at("startTime"), at("completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => time::human_duration(end.unwrap_or(now).duration_since(start)),
    };
    let [names, images] = cell::containers(&spec["template"]["spec"]);
    vec![
        cell::name(object),
        state.unwrap_or("Running").into(),
        completions.into(),
        duration.into(),
        cell::age(object, now),
        names,
        images,
        cell::selector(&spec["selector"]),
    ]
}

fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let last = match &status["lastScheduleTime"] {
        Value::String(_) => cell::since(&status["lastScheduleTime"], now).into(),
        _ => cell::or_none(""),
    };
    let suspended = match spec["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let [names, images] = cell::containers(&spec["jobTemplate"]["spec"]["template"]["spec"]);
    vec![
        cell::name(object),
        cell::str(&spec["schedule"]).into(),
        cell::or_none(cell::str(&spec["timeZone"])),
        suspended.into(),
        cell::list(&status["active"]).len().into(),
        last,
        cell::age(object, now),
        names,
        images,
        cell::selector(&spec["jobTemplate"]["spec"]["selector"]),
    ]
}

fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    let minimum = match spec["minReplicas"].as_i64() {
        Some(minimum) => minimum.to_string(),
        None => "<unset>".to_owned(),
    };
    vec![
        cell::name(object),
        format!("{}/{}", cell::str(&target["kind"]), cell::str(&target["name"])).into(),
        targets(&spec["metrics"], &status["currentMetrics"]).into(),
        minimum.into(),
        cell::count(&spec["maxReplicas"]),
        cell::count(&status["currentReplicas"]),
        cell::age(object, now),
    ]
}

/// `current/target` of each metric, the first few of them.
fn targets(metrics: &Value, current: &Value) -> String {
    let metrics = cell::list(metrics);
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let current = cell::list(current);
    let shown: Vec<String> = metrics
        .iter()
        .take(TARGETS_MAX)
        .enumerate()
        .map(|(at, metric)| target(metric, current.get(at).unwrap_or(&Value::Null)))
        .collect();
    let shown = shown.join(", ");
    match metrics.len() {
        all if all > TARGETS_MAX => format!("{shown} + {} more...", all - TARGETS_MAX),
        _ => shown,
    }
}

fn target(metric: &Value, current: &Value) -> String {
    const UNKNOWN: &str = "<unknown>";
    let source = match cell::str(&metric["type"]) {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, found) = (&metric[source]["target"], &current[source]["current"]);
    let value = |name: &str| (found[name].as_str().unwrap_or(UNKNOWN), wanted[name].as_str());
    let prefix = match source {
        "resource" | "containerResource" => format!("{}: ", cell::str(&metric[source]["name"])),
        _ => String::new(),
    };
    if let Some(percent) = wanted["averageUtilization"].as_i64() {
        let found = found["averageUtilization"].as_i64();
        let found = found.map_or_else(|| UNKNOWN.to_owned(), |found| format!("{found}%"));
        return format!("{prefix}{found}/{percent}%");
    }
    match (value("averageValue"), value("value")) {
        ((found, Some(wanted)), _) if matches!(source, "object" | "external") => {
            format!("{prefix}{found}/{wanted} (avg)")
        }
        ((found, Some(wanted)), _) => format!("{prefix}{found}/{wanted}"),
        (_, (found, wanted)) => format!("{prefix}{found}/{}", wanted.unwrap_or("<auto>")),
    }
}

fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |name: &str| match &object["spec"][name] {
        Value::Null => "N/A".into(),
        Value::String(text) => text.as_str().into(),
        number => Value::from(number.to_string()),
    };
    vec![
        cell::name(object),
        bound("minAvailable"),
        bound("maxUnavailable"),
        cell::count(&object["status"]["disruptionsAllowed"]),
        cell::age(object, now),
    ]
}
