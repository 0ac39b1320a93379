//! Checks what an update must leave as it was.

use serde_json::Value;

use super::{Errors, Path, batch, certificate, extension, given, list, quota, storage, text};
use crate::catalogue::Resource;

const IMMUTABLE: &str = "field is immutable";
const POD_WORDS: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn check(resource: &Resource, new: &Value, old: &Value, errors: &mut Errors) {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Pod") => check_pod(new, old, errors),
        ("", "Service") => check_service(new, old, errors),
        ("", "ConfigMap") => {
            check_frozen(new, old, &["data", "binaryData"], errors);
        }
        ("", "Secret") => {
            check_frozen(new, old, &["data"], errors);
            check_same(new, old, &["type"], errors);
        }
        ("", "Node") => check_node(new, old, errors),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => {
            check_same(new, old, &["spec", "selector"], errors)
        }
        ("apps", "StatefulSet") => batch::check_stateful_set_update(new, old, errors),
        ("apps", "ControllerRevision") => check_same(new, old, &["data"], errors),
        ("discovery.k8s.io", "EndpointSlice") => check_same(new, old, &["addressType"], errors),
        ("scheduling.k8s.io", "PriorityClass") => {
            for field in ["value", "preemptionPolicy"] {
                if new[field] != old[field] {
                    errors.forbidden(&Path::root(field), "may not be changed in an update.");
                }
            }
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding")
            if new["roleRef"] != old["roleRef"] =>
        {
            errors.invalid(&Path::root("roleRef"), new["roleRef"].clone(), "cannot change roleRef");
        }
        _ => check_kept(resource, new, old, errors),
    }
}

/// The kinds that are kept for others to act on.
fn check_kept(resource: &Resource, new: &Value, old: &Value, errors: &mut Errors) {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "PersistentVolume") => storage::check_volume_update(new, old, errors),
        ("", "PersistentVolumeClaim") => storage::check_claim_update(new, old, errors),
        ("", "ResourceQuota") => quota::check_resource_quota_update(new, old, errors),
        ("batch", "Job") => batch::check_job_update(new, old, errors),
        ("networking.k8s.io", "IngressClass") => check_same(new, old, &["spec", "controller"], errors),
        ("networking.k8s.io", "IPAddress") => check_same(new, old, &["spec", "parentRef"], errors),
        ("networking.k8s.io", "ServiceCIDR") => check_same(new, old, &["spec", "cidrs"], errors),
        ("node.k8s.io", "RuntimeClass") => check_same(new, old, &["handler"], errors),
        ("storage.k8s.io", "StorageClass") => {
            storage::forbid_updates(new, old, &["parameters", "provisioner", "reclaimPolicy"], errors);
            check_same(new, old, &["volumeBindingMode"], errors);
        }
        ("storage.k8s.io", "VolumeAttributesClass") => {
            storage::forbid_updates(new, old, &["driverName", "parameters"], errors);
        }
        ("storage.k8s.io", "VolumeAttachment") => check_same(new, old, &["spec"], errors),
        ("storage.k8s.io", "CSIStorageCapacity") => {
            check_same(new, old, &["nodeTopology"], errors);
            check_same(new, old, &["storageClassName"], errors);
        }
        ("storage.k8s.io", "CSIDriver") => {
            check_same(new, old, &["spec", "attachRequired"], errors);
            check_same(new, old, &["spec", "volumeLifecycleModes"], errors);
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            extension::check_definition_update(new, old, errors);
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificate::check_signing_request_update(new, old, errors);
        }
        ("certificates.k8s.io", "ClusterTrustBundle") => {
            check_same(new, old, &["spec", "signerName"], errors)
        }
        ("certificates.k8s.io", "PodCertificateRequest") => check_same(new, old, &["spec"], errors),
        ("resource.k8s.io", "ResourceClaim" | "ResourceClaimTemplate") => {
            check_same(new, old, &["spec"], errors);
        }
        ("resource.k8s.io", "ResourceSlice") => {
            for field in ["driver", "nodeName", "nodeSelector", "allNodes"] {
                check_same(new, old, &["spec", field], errors);
            }
            check_same(new, old, &["spec", "pool", "name"], errors);
        }
        _ => {}
    }
}

fn check_same(new: &Value, old: &Value, path: &[&str], errors: &mut Errors) {
    let at = |object: &Value| path.iter().fold(object.clone(), |value, field| value[*field].clone());
    let (now, before) = (at(new), at(old));
    if now != before {
        errors.invalid(&Path::root(&path.join(".")), now, IMMUTABLE);
    }
}

/// An object whose field `immutable` is set keeps it, and its data.
fn check_frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.forbidden(&Path::root("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        if new[*field] != old[*field] {
            errors.forbidden(&Path::root(field), "field is immutable when `immutable` is set");
        }
    }
}

fn check_pod(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = Path::root("spec");
    for field in ["containers", "initContainers"] {
        let (now, before) = (list(&new["spec"][field]), list(&old["spec"][field]));
        if now.len() != before.len() {
            errors.forbidden(&spec.field(field), "pod updates may not add or remove containers");
            return;
        }
    }
    // What may change is made equal; the rest must be.
    let mut allowed = new["spec"].clone();
    for field in ["containers", "initContainers"] {
        let before = list(&old["spec"][field]);
        let containers = allowed.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, before) in containers.zip(before) {
            container["image"] = before["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        match old["spec"].get(field) {
            Some(before) => allowed[field] = before.clone(),
            None => {
                allowed.as_object_mut().and_then(|spec| spec.remove(field));
            }
        }
    }
    if allowed != old["spec"] {
        errors.forbidden(&spec, POD_WORDS);
    }
    let kept =
        list(&old["spec"]["tolerations"]).iter().all(|one| list(&new["spec"]["tolerations"]).contains(one));
    if !kept {
        errors.forbidden(
            &spec.field("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
    if list(&new["spec"]["schedulingGates"])
        .iter()
        .any(|gate| !list(&old["spec"]["schedulingGates"]).contains(gate))
    {
        errors.forbidden(
            &spec.field("schedulingGates"),
            "only deletion is allowed, but found new scheduling gate",
        );
    }
}

fn check_service(new: &Value, old: &Value, errors: &mut Errors) {
    let was = text(&old["spec"]["clusterIP"]);
    let is = text(&new["spec"]["clusterIP"]);
    let stays = text(&new["spec"]["type"]) != "ExternalName" && text(&old["spec"]["type"]) != "ExternalName";
    if stays && given(&old["spec"]["clusterIP"]) && was != is {
        let ips = Path::root("spec.clusterIPs");
        errors.invalid(&ips.index(0), is, "may not change once set");
    }
}

fn check_node(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = Path::root("spec");
    for field in ["podCIDRs", "providerID"] {
        if given(&old["spec"][field]) && new["spec"][field] != old["spec"][field] {
            errors.forbidden(&spec.field(field), "node updates may not change it once it is set");
        }
    }
}
