//! The environment of a container: its own variables, those from ConfigMaps, Secrets and fields, and those of services.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};

use crate::fields::{self, FieldContext};
use crate::pod;

/// The objects that a container's environment refers to, by name. `None`: it was looked for and does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps of the pod's namespace.
    pub config_maps: BTreeMap<String, Option<std::sync::Arc<ConfigMap>>>,
    /// Secrets of the pod's namespace.
    pub secrets: BTreeMap<String, Option<std::sync::Arc<Secret>>>,
}

/// Why an environment cannot be built. Shown as `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An object that is not optional does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key that is not optional does not exist.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
    },
    /// A field reference means nothing.
    #[error(transparent)]
    Field(#[from] fields::Error),
}

/// The names of the ConfigMaps and Secrets that a container's environment needs.
pub fn references(container: &Container) -> (Vec<&str>, Vec<&str>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.iter().map(|it| it.name.as_str()));
        secrets.extend(from.secret_ref.iter().map(|it| it.name.as_str()));
    }
    for source in container.env.iter().flatten().filter_map(|it| it.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.iter().map(|it| it.name.as_str()));
        secrets.extend(source.secret_key_ref.iter().map(|it| it.name.as_str()));
    }
    (maps, secrets)
}

/// The whole environment in order; later entries win over earlier ones of the same name.
///
/// # Errors
/// When something that is not optional is missing.
pub fn build(
    context: &FieldContext<'_>,
    container: &Container,
    sources: &Sources,
    services: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, Error> {
    let mut known: BTreeMap<String, String> = services.clone();
    let mut order: Vec<String> = Vec::new();
    let mut put = |known: &mut BTreeMap<String, String>, name: String, value: String| {
        if !order.contains(&name) {
            order.push(name.clone());
        }
        known.insert(name, value);
    };
    for (name, value) in from_objects(container, sources)? {
        put(&mut known, name, value);
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) => Some(expand(value, |name| known.get(name).cloned())),
            (None, Some(source)) => value_from(context, container, source, sources)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            put(&mut known, var.name.clone(), value);
        }
    }
    let own: Vec<_> = order.into_iter().filter_map(|name| known.remove_entry(&name)).collect();
    Ok(known.into_iter().chain(own).collect())
}

fn from_objects(container: &Container, sources: &Sources) -> Result<Vec<(String, String)>, Error> {
    let mut all = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_maps.get(&reference.name).and_then(Option::as_ref) {
                Some(map) => {
                    all.extend(
                        map.data
                            .iter()
                            .flatten()
                            .map(|(key, value)| (format!("{prefix}{key}"), value.clone())),
                    );
                }
                None if reference.optional == Some(true) => {}
                None => return Err(Error::NotFound { kind: "configmap", name: reference.name.clone() }),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secrets.get(&reference.name).and_then(Option::as_ref) {
                Some(secret) => all.extend(secret.data.iter().flatten().map(|(key, value)| {
                    (format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned())
                })),
                None if reference.optional == Some(true) => {}
                None => return Err(Error::NotFound { kind: "secret", name: reference.name.clone() }),
            }
        }
    }
    Ok(all)
}

fn value_from(
    context: &FieldContext<'_>,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources,
) -> Result<Option<String>, Error> {
    if let Some(field) = &source.field_ref {
        return Ok(Some(fields::field(context, &field.field_path)?));
    }
    if let Some(reference) = &source.resource_field_ref {
        return Ok(Some(fields::resource(context, Some(container), reference)?));
    }
    let namespace = || pod::namespace(context.pod).to_owned();
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let name = reference.name.clone();
        let Some(map) = sources.config_maps.get(&name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(Error::NotFound { kind: "configmap", name }) };
        };
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key)).cloned();
        return match value {
            None if !optional => Err(Error::NoKey {
                key: reference.key.clone(),
                kind: "ConfigMap",
                namespace: namespace(),
                name,
            }),
            value => Ok(value),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let name = reference.name.clone();
        let Some(secret) = sources.secrets.get(&name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(Error::NotFound { kind: "secret", name }) };
        };
        let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        return match value {
            None if !optional => {
                Err(Error::NoKey { key: reference.key.clone(), kind: "Secret", namespace: namespace(), name })
            }
            value => Ok(value.map(|value| String::from_utf8_lossy(&value.0).into_owned())),
        };
    }
    Ok(Some(String::new()))
}

/// Replaces `$(NAME)` by what `lookup` knows; `$$` stands for `$`; what is not known stays as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The variables that tell a pod of services: those of its namespace (with `enableServiceLinks`) and `kubernetes`.
pub fn services<'a>(pod: &Pod, all: impl Iterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let links = pod::spec(pod).enable_service_links.unwrap_or(true);
    let mut variables = BTreeMap::new();
    for service in all {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = namespace == "default" && name == "kubernetes";
        if !(master || links && namespace == pod::namespace(pod)) {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let prefix = name.to_uppercase().replace('-', "_");
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let (number, lower) = (port.port, protocol.to_lowercase());
            if index == 0 {
                variables.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
                variables.insert(format!("{prefix}_PORT"), format!("{lower}://{host}:{number}"));
            }
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                variables.insert(format!("{prefix}_SERVICE_PORT_{port_name}"), number.to_string());
            }
            let base = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
            variables.insert(base.clone(), format!("{lower}://{host}:{number}"));
            variables.insert(format!("{base}_PROTO"), lower);
            variables.insert(format!("{base}_PORT"), number.to_string());
            variables.insert(format!("{base}_ADDR"), ip.to_owned());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion() {
        let check = |text: &str, expected: &str| {
            let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
            assert_eq!(expand(text, lookup), expected);
        };
        check("$(A)-$(B)-$$(A)-$A-$", "1-$(B)-$(A)-$A-$");
        check("$(A", "$(A");
        check("$$$(A)", "$1");
    }
}
