//! What every new pod gets: a service account with its token, a priority, tolerations for sick nodes.

use serde_json::{Value, json};

use crate::call::Call;
use crate::failure::Refused;
use crate::ids::Ids;
use crate::object::{self, items, meta};
use crate::{keys, scan};

const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
const TOKEN_SECONDS: i64 = 3607;
const TOLERATION_SECONDS: i64 = 300;

/// Whether the pod stands for one that its node runs of its own accord.
pub(super) fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// Gives the pod its service account, and mounts the account's token.
pub(super) fn service_account(call: &Call<'_>, ids: &mut Ids<'_>, pod: &mut Value) -> Result<(), Refused> {
    if is_mirror(pod) {
        return Ok(());
    }
    let name = match pod["spec"]["serviceAccountName"].as_str().unwrap_or_default() {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    let namespace = call.namespace();
    let entry = call.world.snapshot.get(&keys::object("", "serviceaccounts", namespace, &name));
    let Some(entry) = entry else {
        let why =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(call.forbidden(meta(pod, "name"), why));
    };
    let account = call.parsed(entry)?;
    let spec = object::child(pod, "spec");
    spec.insert("serviceAccountName".into(), name.clone().into());
    spec.insert("serviceAccount".into(), name.into());
    let pulls = &account["imagePullSecrets"];
    if spec.get("imagePullSecrets").is_none_or(|own| items(own).is_empty()) && !items(pulls).is_empty() {
        spec.insert("imagePullSecrets".into(), pulls.clone());
    }
    let own = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    if own.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        mount_token(ids, spec);
    }
    Ok(())
}

fn mount_token(ids: &mut Ids<'_>, spec: &mut serde_json::Map<String, Value>) {
    let volumes = spec.get("volumes").map(items).unwrap_or_default();
    let is_token = |volume: &&Value| {
        volume["name"].as_str().is_some_and(|name| name.starts_with(VOLUME))
            && volume["projected"].is_object()
    };
    let existing =
        volumes.iter().find(is_token).and_then(|volume| volume["name"].as_str()).map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| free_name(ids, volumes));
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            if items(&container["volumeMounts"]).iter().any(|m| m["mountPath"].as_str() == Some(MOUNT_PATH)) {
                continue;
            }
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if let Value::Array(mounts) = mounts {
                mounts.push(mount.clone());
                mounted = true;
            }
        }
    }
    if mounted && existing.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Value::Array(volumes) = volumes {
            volumes.push(token_volume(&name));
        }
    }
}

/// A volume name that is not taken.
fn free_name(ids: &mut Ids<'_>, volumes: &[Value]) -> String {
    loop {
        let name = format!("{VOLUME}{}", ids.suffix(5));
        if !volumes.iter().any(|volume| volume["name"].as_str() == Some(&name)) {
            return name;
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
        ]}}
    ]}})
}

/// Turns the pod's priority class into a number.
pub(super) fn priority(call: &Call<'_>, pod: &mut Value) -> Result<(), Refused> {
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    let class = if name.is_empty() { default_class(call) } else { class(call, name) };
    if class.is_none() && !name.is_empty() {
        let why = format!("no PriorityClass with name {name} was found");
        return Err(call.forbidden(meta(pod, "name"), why));
    }
    let value = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or(0);
    let policy =
        class.as_ref().and_then(|c| c["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    if pod["spec"]["priority"].as_i64().is_some_and(|given| given != value) {
        let why = format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
            pod["spec"]["priority"]
        );
        return Err(call.forbidden(meta(pod, "name"), why));
    }
    let given = pod["spec"]["preemptionPolicy"].as_str();
    if given.is_some_and(|given| given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name",
            given.unwrap_or_default()
        );
        return Err(call.forbidden(meta(pod, "name"), why));
    }
    let policy = policy.to_owned();
    let spec = object::child(pod, "spec");
    if let Some(class) = &class {
        spec.insert("priorityClassName".into(), meta(class, "name").into());
    }
    spec.insert("priority".into(), value.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

fn class(call: &Call<'_>, name: &str) -> Option<Value> {
    let key = keys::object("scheduling.k8s.io", "priorityclasses", "", name);
    object::parse(&call.world.snapshot.get(&key)?.value)
}

/// The class of pods that name none: of several, the one with the lowest value.
fn default_class(call: &Call<'_>) -> Option<Value> {
    let prefix = keys::prefix("scheduling.k8s.io", "priorityclasses");
    let entries = call.world.snapshot.prefix(prefix.as_bytes());
    entries
        .filter(|(_, entry)| scan::scalar(&entry.value, &["globalDefault"]).as_deref() == Some("true"))
        .filter_map(|(_, entry)| object::parse(&entry.value))
        .min_by_key(|class| class["value"].as_i64().unwrap_or(0))
}

/// Of priority classes only one is the default.
pub(super) fn only_default(call: &Call<'_>, class: &Value) -> Result<(), Refused> {
    if class["globalDefault"] != true {
        return Ok(());
    }
    match default_class(call).filter(|other| meta(other, "name") != meta(class, "name")) {
        None => Ok(()),
        Some(other) => {
            let name = meta(&other, "name");
            let why =
                format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(call.forbidden(meta(class, "name"), why))
        }
    }
}

/// Pods stay a while on nodes that stop answering.
pub(super) fn default_tolerations(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = items(&pod["spec"]["tolerations"]).iter().any(|toleration| {
            let of_key = matches!(toleration["key"].as_str(), None | Some("")) || toleration["key"] == key;
            of_key && matches!(toleration["effect"].as_str(), None | Some("" | "NoExecute"))
        });
        if tolerated {
            continue;
        }
        let tolerations = object::child(pod, "spec").entry("tolerations").or_insert_with(|| json!([]));
        if let Value::Array(tolerations) = tolerations {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS}));
        }
    }
}
