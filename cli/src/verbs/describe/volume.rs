//! Volumes of a pod.

use serde_json::Value;

use super::text::{Text, number, plain};
use crate::verbs::session::text_at;

/// Writes all volumes.
pub fn write_all(text: &mut Text, volumes: Option<&Value>, level: usize) {
    let Some(volumes) = volumes.and_then(Value::as_array).filter(|volumes| !volumes.is_empty()) else {
        return text.field(level, "Volumes", "<none>");
    };
    text.line(level, "Volumes:");
    for volume in volumes {
        let indent = if level > 0 { " " } else { "" };
        text.line(1, format!("{indent}{}:", text_at(volume, "/name")));
        write(text, volume, 2);
    }
}

fn write(text: &mut Text, volume: &Value, level: usize) {
    let optional = |source: &Value| source.get("optional").and_then(Value::as_bool).unwrap_or(false);
    if let Some(source) = volume.get("emptyDir") {
        text.field(level, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
        text.field(level, "Medium", text_at(source, "/medium"));
        let limit = source.get("sizeLimit").map(plain).unwrap_or_default();
        text.field(level, "SizeLimit", if limit.is_empty() { "<unset>".to_owned() } else { limit });
    } else if let Some(source) = volume.get("hostPath") {
        text.field(level, "Type", "HostPath (bare host directory volume)");
        text.field(level, "Path", text_at(source, "/path"));
        text.field(level, "HostPathType", text_at(source, "/type"));
    } else if let Some(source) = volume.get("configMap") {
        text.field(level, "Type", "ConfigMap (a volume populated by a ConfigMap)");
        text.field(level, "Name", text_at(source, "/name"));
        text.field(level, "Optional", optional(source));
    } else if let Some(source) = volume.get("secret") {
        text.field(level, "Type", "Secret (a volume populated by a Secret)");
        text.field(level, "SecretName", text_at(source, "/secretName"));
        text.field(level, "Optional", optional(source));
    } else if let Some(source) = volume.get("downwardAPI") {
        text.field(level, "Type", "DownwardAPI (a volume populated by information about the pod)");
        text.line(level, "Items:");
        for item in source.get("items").and_then(Value::as_array).into_iter().flatten() {
            text.line(
                level + 1,
                format!("{} -> {}", text_at(item, "/fieldRef/fieldPath"), text_at(item, "/path")),
            );
        }
    } else if let Some(source) = volume.get("persistentVolumeClaim") {
        text.field(
            level,
            "Type",
            "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        );
        text.field(level, "ClaimName", text_at(source, "/claimName"));
        text.field(level, "ReadOnly", source.get("readOnly").and_then(Value::as_bool).unwrap_or(false));
    } else if let Some(source) = volume.get("projected") {
        text.field(level, "Type", "Projected (a volume that contains injected data from multiple sources)");
        for source in source.get("sources").and_then(Value::as_array).into_iter().flatten() {
            if let Some(source) = source.get("serviceAccountToken") {
                text.field(level, "TokenExpirationSeconds", number(source, "/expirationSeconds"));
            } else if let Some(source) = source.get("configMap") {
                text.field(level, "ConfigMapName", text_at(source, "/name"));
                text.field(level, "Optional", optional(source));
            } else if let Some(source) = source.get("secret") {
                text.field(level, "SecretName", text_at(source, "/name"));
                text.field(level, "Optional", optional(source));
            } else if source.get("downwardAPI").is_some() {
                text.field(level, "DownwardAPI", true);
            }
        }
    } else {
        let kind = volume
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .find(|name| *name != "name");
        text.field(level, "Type", kind.unwrap_or("<unknown>"));
    }
}
