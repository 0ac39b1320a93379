//! The parts of OCI and docker manifests and configurations that a node needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ARCHITECTURE, ImageError};

/// Points to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Content address.
    pub digest: String,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// For which machine, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Names, in the index of an archive.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
}

/// An image manifest or an index of such.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    /// Of an image, lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
    /// Of an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Descriptor>,
}

/// An image configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Configuration {
    /// For which machine.
    #[serde(default)]
    pub architecture: String,
    /// For which system.
    #[serde(default)]
    pub os: String,
    /// How containers run.
    #[serde(default)]
    pub config: Option<RunConfig>,
    /// Layers.
    pub rootfs: RootFs,
}

/// The layers of a configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// How containers of an image run, unless the pod says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// User, as written there.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub user: String,
    /// `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Program.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    /// Arguments, or program where there is no entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub working_dir: String,
    /// Signal that asks a container to end.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub stop_signal: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

fn nullable<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Parses a manifest or an index.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ImageError> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Malformed(format!("image manifest: {error}")))?;
    if manifest.schema_version != 2 {
        return Err(ImageError::Malformed(format!("image manifest version {}", manifest.schema_version)));
    }
    Ok(manifest)
}

/// Parses a configuration.
pub fn parse_configuration(bytes: &[u8]) -> Result<Configuration, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Malformed(format!("image configuration: {error}")))
}

/// The manifest for this machine in an index.
pub fn for_this_machine(index: &Manifest) -> Result<&Descriptor, ImageError> {
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().is_none_or(|platform| {
            platform.os == "linux"
                && (platform.architecture == ARCHITECTURE || platform.architecture.is_empty())
        })
    };
    index.manifests.iter().find(fits).ok_or(ImageError::Platform { architecture: ARCHITECTURE })
}

/// The hexadecimal part of a sha256 digest. Digests become file names: anything else is refused.
pub fn hex_of(digest: &str) -> Result<&str, ImageError> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
        .ok_or_else(|| ImageError::Malformed(format!("unsupported digest {digest:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_lists_are_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Labels":null},
            "rootfs":{"type":"layers","diff_ids":[]}}"#;
        let run = parse_configuration(text.as_bytes()).unwrap().config.unwrap();
        assert_eq!(run, RunConfig { cmd: vec!["sh".into()], ..RunConfig::default() });
    }

    #[test]
    fn digests_are_no_paths() {
        assert!(hex_of(&format!("sha256:{}", "a".repeat(64))).is_ok());
        for bad in ["sha256:../../etc/passwd", "md5:aa", "", "sha256:"] {
            assert!(hex_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn another_machine_only_is_refused() {
        let text = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:1","platform":{"architecture":"s390x","os":"linux"}}]}"#;
        let index = parse_manifest(text.as_bytes()).unwrap();
        assert!(matches!(for_this_machine(&index), Err(ImageError::Platform { .. })));
    }
}
