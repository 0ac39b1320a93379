//! Defaults of volumes, claims, and what provides them.

use serde_json::json;

use super::{Object, child, present, put};

pub(super) fn claim(map: &mut Object) {
    if let Some(spec) = child(map, "spec") {
        put(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = child(map, "status") {
        put(status, "phase", "Pending");
    }
}

pub(super) fn volume(map: &mut Object) {
    if let Some(spec) = child(map, "spec") {
        put(spec, "persistentVolumeReclaimPolicy", "Retain");
        put(spec, "volumeMode", "Filesystem");
        if let Some(source) = present(spec, "hostPath") {
            put(source, "type", "");
        }
        for source in ["iscsi", "rbd"] {
            if let Some(source) = present(spec, source) {
                match source.contains_key("iqn") {
                    true => put(source, "iscsiInterface", "default"),
                    false => {
                        put(source, "pool", "rbd");
                        put(source, "user", "admin");
                        put(source, "keyring", "/etc/ceph/keyring");
                    }
                }
            }
        }
        if let Some(disk) = present(spec, "azureDisk") {
            put(disk, "cachingMode", "ReadWrite");
            put(disk, "kind", "Shared");
            put(disk, "fsType", "ext4");
            put(disk, "readOnly", false);
        }
        if let Some(source) = present(spec, "scaleIO") {
            put(source, "storageMode", "ThinProvisioned");
            put(source, "fsType", "xfs");
        }
    }
    if let Some(status) = child(map, "status") {
        put(status, "phase", "Pending");
    }
}

pub(super) fn storage_class(map: &mut Object) {
    put(map, "reclaimPolicy", "Delete");
    put(map, "volumeBindingMode", "Immediate");
}

pub(super) fn driver(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "attachRequired", true);
    for name in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        put(spec, name, false);
    }
    put(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    put(spec, "volumeLifecycleModes", json!(["Persistent"]));
}
