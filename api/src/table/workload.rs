//! Prints what keeps pods running.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, Printer, cell, number, text, wide};

pub const DEPLOYMENT: Printer = Printer {
    columns: &[
        NAME,
        text("Ready"),
        number("Up-to-date"),
        number("Available"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: deployment,
};

pub const REPLICA_SET: Printer = Printer {
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
    cells: replica_set,
};

pub const DAEMON_SET: Printer = Printer {
    columns: &[
        NAME,
        number("Desired"),
        number("Current"),
        number("Ready"),
        number("Up-to-date"),
        number("Available"),
        text("Node Selector"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: daemon_set,
};

pub const CONTROLLER_REVISION: Printer =
    Printer { columns: &[NAME, text("Controller"), number("Revision"), AGE], cells: controller_revision };

fn template(object: &Value) -> [Value; 3] {
    let [names, images] = cell::containers(&object["spec"]["template"]["spec"]);
    [names, images, cell::selector(&object["spec"]["selector"])]
}

fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let ready = status["readyReplicas"].as_i64().unwrap_or(0);
    let mut cells = vec![
        cell::name(object),
        format!("{ready}/{}", spec["replicas"].as_i64().unwrap_or(0)).into(),
        cell::count(&status["updatedReplicas"]),
        cell::count(&status["availableReplicas"]),
        cell::age(object, now),
    ];
    cells.extend(template(object));
    cells
}

fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut cells = vec![
        cell::name(object),
        cell::count(&object["spec"]["replicas"]),
        cell::count(&status["replicas"]),
        cell::count(&status["readyReplicas"]),
        cell::age(object, now),
    ];
    cells.extend(template(object));
    cells
}

fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut cells = vec![
        cell::name(object),
        cell::count(&status["desiredNumberScheduled"]),
        cell::count(&status["currentNumberScheduled"]),
        cell::count(&status["numberReady"]),
        cell::count(&status["updatedNumberScheduled"]),
        cell::count(&status["numberAvailable"]),
        cell::pairs(&object["spec"]["template"]["spec"]["nodeSelector"]),
        cell::age(object, now),
    ];
    cells.extend(template(object));
    cells
}

fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = cell::list(&object["metadata"]["ownerReferences"]);
    let owner = owners.iter().find(|owner| owner["controller"] == true).map(|owner| {
        let version = cell::str(&owner["apiVersion"]);
        let group = version.split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
        format!("{}{group}/{}", cell::str(&owner["kind"]).to_lowercase(), cell::str(&owner["name"]))
    });
    vec![
        cell::name(object),
        cell::or_none(&owner.unwrap_or_default()),
        cell::count(&object["revision"]),
        cell::age(object, now),
    ]
}
