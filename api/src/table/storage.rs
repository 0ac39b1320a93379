//! Prints volumes, claims, and what provides them.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, Printer, cell, number, text, wide};

const fn flag(name: &'static str) -> Column {
    Column { name, kind: "boolean", priority: 0 }
}

pub const VOLUME: Printer = Printer {
    columns: &[
        NAME,
        text("Capacity"),
        text("Access Modes"),
        text("Reclaim Policy"),
        text("Status"),
        text("Claim"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Reason"),
        AGE,
        wide("VolumeMode"),
    ],
    cells: volume,
};

pub const CLAIM: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Volume"),
        text("Capacity"),
        text("Access Modes"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        AGE,
        wide("VolumeMode"),
    ],
    cells: claim,
};

pub const STORAGE_CLASS: Printer = Printer {
    columns: &[
        NAME,
        text("Provisioner"),
        text("ReclaimPolicy"),
        text("VolumeBindingMode"),
        flag("AllowVolumeExpansion"),
        AGE,
    ],
    cells: storage_class,
};

pub const DRIVER: Printer = Printer {
    columns: &[
        NAME,
        flag("AttachRequired"),
        flag("PodInfoOnMount"),
        flag("StorageCapacity"),
        text("TokenRequests"),
        flag("RequiresRepublish"),
        text("Modes"),
        AGE,
    ],
    cells: driver,
};

pub const NODE: Printer = Printer { columns: &[NAME, number("Drivers"), AGE], cells: node };

pub const CAPACITY: Printer =
    Printer { columns: &[NAME, text("StorageClassName"), text("Capacity")], cells: capacity };

pub const ATTACHMENT: Printer = Printer {
    columns: &[NAME, text("Attacher"), text("PV"), text("Node"), flag("Attached"), AGE],
    cells: attachment,
};

pub const ATTRIBUTES_CLASS: Printer =
    Printer { columns: &[NAME, text("DriverName"), AGE], cells: attributes_class };

const UNSET: &str = "<unset>";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const IS_DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";

/// Access modes by their short names, in a fixed order.
fn modes(value: &Value) -> Value {
    const NAMES: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let modes = cell::list(value);
    let present = NAMES.iter().filter(|(name, _)| modes.iter().any(|mode| mode == name));
    cell::joined(present.map(|(_, short)| *short)).into()
}

fn class(object: &Value) -> String {
    match cell::str(&object["metadata"]["annotations"][CLASS_BETA]) {
        "" => cell::str(&object["spec"]["storageClassName"]).to_owned(),
        class => class.to_owned(),
    }
}

fn or_unset(text: &str) -> Value {
    if text.is_empty() { UNSET.into() } else { text.into() }
}

fn phase(object: &Value) -> Value {
    match object["metadata"]["deletionTimestamp"].is_string() {
        true => "Terminating".into(),
        false => cell::str(&object["status"]["phase"]).into(),
    }
}

fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let claim = match &spec["claimRef"] {
        Value::Null => String::new(),
        claim => format!("{}/{}", cell::str(&claim["namespace"]), cell::str(&claim["name"])),
    };
    vec![
        cell::name(object),
        cell::str(&spec["capacity"]["storage"]).into(),
        modes(&spec["accessModes"]),
        cell::str(&spec["persistentVolumeReclaimPolicy"]).into(),
        phase(object),
        claim.into(),
        class(object).into(),
        or_unset(cell::str(&spec["volumeAttributesClassName"])),
        cell::str(&object["status"]["reason"]).into(),
        cell::age(object, now),
        or_unset(cell::str(&spec["volumeMode"])),
    ]
}

fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let bound = !cell::str(&spec["volumeName"]).is_empty();
    vec![
        cell::name(object),
        phase(object),
        cell::str(&spec["volumeName"]).into(),
        if bound { cell::str(&status["capacity"]["storage"]).into() } else { "".into() },
        if bound { modes(&status["accessModes"]) } else { "".into() },
        class(object).into(),
        or_unset(cell::str(&spec["volumeAttributesClassName"])),
        cell::age(object, now),
        or_unset(cell::str(&spec["volumeMode"])),
    ]
}

fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = &object["metadata"]["annotations"];
    let default = annotations[IS_DEFAULT] == "true" || annotations[IS_DEFAULT_BETA] == "true";
    let name = cell::str(&object["metadata"]["name"]);
    vec![
        if default { format!("{name} (default)").into() } else { name.into() },
        cell::str(&object["provisioner"]).into(),
        object["reclaimPolicy"].as_str().unwrap_or("Delete").into(),
        object["volumeBindingMode"].as_str().unwrap_or("Immediate").into(),
        (object["allowVolumeExpansion"] == true).into(),
        cell::age(object, now),
    ]
}

fn driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let audiences = cell::list(&spec["tokenRequests"]).iter().map(|token| cell::str(&token["audience"]));
    let tokens = match cell::list(&spec["tokenRequests"]) {
        [] => UNSET.to_owned(),
        _ => cell::joined(audiences),
    };
    vec![
        cell::name(object),
        spec["attachRequired"].as_bool().unwrap_or(true).into(),
        (spec["podInfoOnMount"] == true).into(),
        (spec["storageCapacity"] == true).into(),
        tokens.into(),
        (spec["requiresRepublish"] == true).into(),
        cell::or_none(&cell::joined(cell::list(&spec["volumeLifecycleModes"]).iter().map(cell::str))),
        cell::age(object, now),
    ]
}

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::list(&object["spec"]["drivers"]).len().into(), cell::age(object, now)]
}

fn capacity(object: &Value, _: Timestamp) -> Vec<Value> {
    let size = object["capacity"].as_str().unwrap_or(UNSET);
    vec![cell::name(object), cell::str(&object["storageClassName"]).into(), size.into()]
}

fn attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        cell::name(object),
        cell::str(&spec["attacher"]).into(),
        cell::str(&spec["source"]["persistentVolumeName"]).into(),
        cell::str(&spec["nodeName"]).into(),
        (object["status"]["attached"] == true).into(),
        cell::age(object, now),
    ]
}

fn attributes_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::str(&object["driverName"]).into(), cell::age(object, now)]
}
