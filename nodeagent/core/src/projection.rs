//! The files of configMap, secret, downwardAPI and projected volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use crate::fields::{self, FieldContext};
use crate::pod;

/// The files of a volume by their path below it.
pub type Files = BTreeMap<String, File>;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// The user that it belongs to; `None`: the superuser.
    pub owner: Option<u32>,
}

/// Permission bits and owner of a service account token: nobody may read it but the pod's only user or its group, if the
/// pod has one of them.
pub fn token_access(of: &Pod, stated: u32) -> (u32, Option<u32>) {
    let spec = pod::spec(of);
    let context = spec.security_context.as_ref();
    let default = context.and_then(|it| it.run_as_user);
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = all.map(|it| it.security_context.as_ref().and_then(|it| it.run_as_user).or(default));
    let first = users.next().flatten();
    let owner = first.filter(|_| users.all(|user| user == first)).and_then(|user| u32::try_from(user).ok());
    let closed = owner.is_some() || context.is_some_and(|it| it.fs_group.is_some());
    (if closed { 0o600 } else { stated }, owner)
}

/// Why the files of a volume cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object lacks a key.
    #[error("references non-existent {kind} key: {key}")]
    NoKey {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A path leaves the volume.
    #[error("invalid path {0:?}: must be relative and not contain '..'")]
    Path(String),
    /// A field reference means nothing.
    #[error(transparent)]
    Field(#[from] fields::Error),
}

/// The files of a ConfigMap.
///
/// # Errors
/// When it or a key that is asked for does not exist.
pub fn config_map(
    name: &str,
    object: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
) -> Result<Files, Error> {
    let Some(object) = object else { return absent("configmap", name, optional) };
    let text = object.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    pick("config", &text.chain(binary).collect(), items, optional, mode)
}

/// The files of a Secret.
///
/// # Errors
/// When it or a key that is asked for does not exist.
pub fn secret(
    name: &str,
    object: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
) -> Result<Files, Error> {
    let Some(object) = object else { return absent("secret", name, optional) };
    let data = object.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    pick("secret", &data.collect(), items, optional, mode)
}

fn absent(kind: &'static str, name: &str, optional: bool) -> Result<Files, Error> {
    if optional { Ok(Files::new()) } else { Err(Error::NotFound { kind, name: name.to_owned() }) }
}

fn pick(
    kind: &'static str,
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
) -> Result<Files, Error> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let all = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), File { content: value.to_vec(), mode, owner: None }));
        return Ok(all.collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
                files.insert(checked(&item.path)?, File { content: value.to_vec(), mode, owner: None });
            }
            None if optional => {}
            None => return Err(Error::NoKey { kind, key: item.key.clone() }),
        }
    }
    Ok(files)
}

/// The files of a downwardAPI volume.
///
/// # Errors
/// When a field does not exist.
pub fn downward(
    context: &FieldContext<'_>,
    items: &[DownwardAPIVolumeFile],
    mode: u32,
) -> Result<Files, Error> {
    let mut files = Files::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields::field(context, &field.field_path)?,
            (None, Some(resource)) => fields::resource(context, None, resource)?,
            (None, None) => String::new(),
        };
        let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
        files.insert(checked(&item.path)?, File { content: value.into_bytes(), mode, owner: None });
    }
    Ok(files)
}

/// The path, if it stays within its volume.
///
/// # Errors
/// When it does not.
pub fn checked(path: &str) -> Result<String, Error> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.starts_with("..")
        || path.split('/').any(|part| matches!(part, ".." | "." | ""));
    if bad { Err(Error::Path(path.to_owned())) } else { Ok(path.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_the_pods_only_user_or_group() {
        let check = |spec: &str, expected| {
            let pod: Pod = serde_json::from_str(&format!(r#"{{"spec":{spec}}}"#)).expect("a pod");
            assert_eq!(token_access(&pod, 0o644), expected, "{spec}");
        };
        check(r#"{"containers":[{"name":"a"}]}"#, (0o644, None));
        check(r#"{"securityContext":{"fsGroup":7},"containers":[{"name":"a"}]}"#, (0o600, None));
        check(r#"{"securityContext":{"runAsUser":5},"containers":[{"name":"a"}]}"#, (0o600, Some(5)));
        let two = r#"{"containers":[{"name":"a","securityContext":{"runAsUser":5}},{"name":"b"}]}"#;
        check(two, (0o644, None));
    }
}
