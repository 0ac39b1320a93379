//! Checks volumes, claims, and what provides them.

use serde_json::Value;

use super::{Errors, Path, entries, given, list, text};
use crate::field::FieldError;
use crate::name;
use crate::quantity::Quantity;

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// What a volume may be made of.
const VOLUME_SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn check_modes(spec: &Value, root: &Path<'_>, missing: &str, errors: &mut Errors) {
    let (modes, place) = (list(&spec["accessModes"]), root.field("accessModes"));
    if modes.is_empty() {
        errors.required(&place, missing);
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&text(mode))) {
        errors.add(FieldError::not_supported(place.to_string(), mode.clone(), ACCESS_MODES));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.forbidden(&place, detail);
    }
    errors.optional_one_of(&root.field("volumeMode"), &spec["volumeMode"], &["Block", "Filesystem"]);
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let value = text(&spec[field]);
        if !value.is_empty() {
            errors.reasons(&root.field(field), value, name::dns1123_subdomain(value));
        }
    }
}

fn check_positive(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let quantity = value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    if quantity.is_some_and(|quantity| quantity.is_zero() || quantity.is_negative()) {
        errors.invalid(path, value.clone(), "must be greater than zero");
    }
}

pub fn check_volume(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    check_modes(spec, &root, "", errors);
    let (capacity, place) = (&spec["capacity"], root.field("capacity"));
    if !given(capacity) {
        errors.required(&place, "");
    } else if capacity["storage"].is_null() || capacity.as_object().is_some_and(|map| map.len() > 1) {
        errors.add(FieldError::not_supported(place.to_string(), capacity.clone(), &["storage"]));
    }
    check_positive(&capacity["storage"], &place.entry("storage"), errors);
    errors.optional_one_of(
        &root.field("persistentVolumeReclaimPolicy"),
        &spec["persistentVolumeReclaimPolicy"],
        &["Delete", "Recycle", "Retain"],
    );
    let mut sources = VOLUME_SOURCES.iter().filter(|source| !spec[**source].is_null());
    if sources.next().is_none() {
        errors.required(&root, "must specify a volume type");
    }
    for source in sources {
        errors.forbidden(&root.field(source), "may not specify more than 1 volume type");
    }
    if spec["local"].is_object() {
        if text(&spec["local"]["path"]).is_empty() {
            errors.required(&root.field("local").field("path"), "");
        }
        if !given(&spec["nodeAffinity"]) {
            errors.required(&root.field("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    let host = text(&spec["hostPath"]["path"]);
    if spec["hostPath"].is_object() {
        let place = root.field("hostPath");
        if host.is_empty() {
            errors.required(&place.field("path"), "");
        }
        if host.split('/').any(|part| part == "..") {
            errors.invalid(&place.field("path"), host, "must not contain '..'");
        }
        if host == "/" && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            errors.forbidden(&root.field("persistentVolumeReclaimPolicy"), detail);
        }
    }
    if spec["nfs"].is_object() {
        for field in ["server", "path"] {
            if text(&spec["nfs"][field]).is_empty() {
                errors.required(&root.field("nfs").field(field), "");
            }
        }
    }
    if spec["csi"].is_object() {
        for field in ["driver", "volumeHandle"] {
            if text(&spec["csi"][field]).is_empty() {
                errors.required(&root.field("csi").field(field), "");
            }
        }
    }
}

/// What a volume must keep.
pub fn check_volume_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (now, before) = (&new["spec"], &old["spec"]);
    if VOLUME_SOURCES.iter().any(|source| now[*source] != before[*source]) {
        let place = Path::root("spec.persistentvolumesource");
        errors.forbidden(&place, "spec.persistentvolumesource is immutable after creation");
    }
    if now["volumeMode"] != before["volumeMode"] {
        let place = Path::root("spec.volumeMode");
        errors.invalid(&place, now["volumeMode"].clone(), "field is immutable");
    }
}

pub fn check_claim(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    check_modes(spec, &root, "at least 1 access mode is required", errors);
    super::labels::check_selector(&spec["selector"], &root.field("selector"), errors);
    let (resources, requests) = (root.field("resources"), &spec["resources"]["requests"]);
    let place = resources.entry("storage");
    if requests["storage"].is_null() {
        errors.required(&place, "");
    }
    check_positive(&requests["storage"], &place, errors);
    if let (Some(source), Some(reference)) =
        (spec["dataSource"].as_object(), spec["dataSourceRef"].as_object())
        && source != reference
    {
        let detail = "must match dataSourceRef";
        errors.invalid(&root.field("dataSource"), spec["dataSource"].clone(), detail);
    }
}

/// What a claim must keep: all but its size, which grows, and the class of its attributes.
pub fn check_claim_update(new: &Value, old: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let (now, before) = (&new["spec"], &old["spec"]);
    let mut allowed = now.clone();
    let bound = text(&old["status"]["phase"]) == "Bound";
    let mut restore = |field: &str| match before.get(field) {
        Some(value) => allowed[field] = value.clone(),
        None => drop(allowed.as_object_mut().map(|spec| spec.remove(field))),
    };
    if bound {
        restore("resources");
        restore("volumeAttributesClassName");
    }
    // A claim is bound by naming its volume.
    if text(&before["volumeName"]).is_empty() {
        restore("volumeName");
    }
    if allowed != *before {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&root, detail);
    }
    let size = |spec: &Value| -> Option<Quantity> {
        spec["resources"]["requests"]["storage"].as_str()?.parse().ok()
    };
    let shown = old["status"]["capacity"]["storage"].as_str().and_then(|text| text.parse::<Quantity>().ok());
    if let (Some(now), Some(was), Some(has)) = (size(now), size(before), shown)
        && now.milli_value() < was.milli_value()
        && now.milli_value() < has.milli_value()
    {
        let place = Path::root("spec.resources.requests.storage");
        errors.forbidden(&place, "field can not be less than status.capacity");
    }
}

pub fn check_storage_class(object: &Value, errors: &mut Errors) {
    const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
    const PARAMETERS_MAX: usize = 512;
    match text(&object["provisioner"]) {
        "" => errors.required(&Path::root("provisioner"), ""),
        provisioner => {
            let lower = provisioner.to_lowercase();
            errors.reasons(&Path::root("provisioner"), provisioner, name::qualified_name(&lower));
        }
    }
    let place = Path::root("parameters");
    let size: usize = entries(&object["parameters"]).map(|(key, value)| key.len() + text(value).len()).sum();
    if entries(&object["parameters"]).count() > PARAMETERS_MAX || size > PARAMETERS_BYTES_MAX {
        errors.add(FieldError::too_long(place.to_string(), PARAMETERS_BYTES_MAX));
    }
    if entries(&object["parameters"]).any(|(key, _)| key.is_empty()) {
        errors.invalid(&place, "", "field can not be empty.");
    }
    errors.optional_one_of(&Path::root("reclaimPolicy"), &object["reclaimPolicy"], &["Delete", "Retain"]);
    errors.one_of(
        &Path::root("volumeBindingMode"),
        &object["volumeBindingMode"],
        &["Immediate", "WaitForFirstConsumer"],
    );
}

/// Complains about fields that must stay as they are, as storage classes word it.
pub fn forbid_updates(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    for field in fields.iter().filter(|field| new[**field] != old[**field]) {
        errors.forbidden(&Path::root(field), format!("updates to {field} are forbidden."));
    }
}

pub fn check_driver(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    let own = text(&object["metadata"]["name"]);
    if own.len() > 63 {
        errors.add(FieldError::too_long("metadata.name", 63));
    }
    errors.optional_one_of(
        &root.field("fsGroupPolicy"),
        &spec["fsGroupPolicy"],
        &["File", "None", "ReadWriteOnceWithFSType"],
    );
    for mode in list(&spec["volumeLifecycleModes"]) {
        errors.one_of(&root.field("volumeLifecycleModes"), mode, &["Ephemeral", "Persistent"]);
    }
    let place = root.field("tokenRequests");
    for (at, token) in list(&spec["tokenRequests"]).iter().enumerate() {
        if token["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < 600) {
            let place = place.index(at);
            let detail = "may not specify a duration less than 10 minutes";
            errors.invalid(&place.field("expirationSeconds"), token["expirationSeconds"].clone(), detail);
        }
    }
}

pub fn check_storage_node(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec.drivers");
    let mut seen = Vec::new();
    for (at, driver) in list(&object["spec"]["drivers"]).iter().enumerate() {
        let place = root.index(at);
        for field in ["name", "nodeID"] {
            if text(&driver[field]).is_empty() {
                errors.required(&place.field(field), "");
            }
        }
        let own = text(&driver["name"]);
        if seen.contains(&own) {
            errors.duplicate(&place.field("name"), own);
        }
        seen.push(own);
    }
}

pub fn check_attachment(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    for field in ["attacher", "nodeName"] {
        if text(&spec[field]).is_empty() {
            errors.required(&root.field(field), "");
        }
    }
    let place = root.field("source");
    match (given(&spec["source"]["inlineVolumeSpec"]), given(&spec["source"]["persistentVolumeName"])) {
        (false, false) => {
            errors.required(&place, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (true, true) => {
            errors.forbidden(&place, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        _ => {}
    }
}

pub fn check_capacity(object: &Value, errors: &mut Errors) {
    match text(&object["storageClassName"]) {
        "" => errors.required(&Path::root("storageClassName"), ""),
        class => errors.reasons(&Path::root("storageClassName"), class, name::dns1123_subdomain(class)),
    }
    for field in ["capacity", "maximumVolumeSize"] {
        let quantity = object[field].as_str().and_then(|text| text.parse::<Quantity>().ok());
        if quantity.is_some_and(|quantity| quantity.is_negative()) {
            errors.invalid(&Path::root(field), object[field].clone(), "must be greater than or equal to 0");
        }
    }
}

pub fn check_attributes_class(object: &Value, errors: &mut Errors) {
    match text(&object["driverName"]) {
        "" => errors.required(&Path::root("driverName"), ""),
        driver => {
            errors.reasons(&Path::root("driverName"), driver, name::qualified_name(&driver.to_lowercase()));
        }
    }
    if !given(&object["parameters"]) {
        errors.required(&Path::root("parameters"), "must contain at least one key/value pair");
    }
}
