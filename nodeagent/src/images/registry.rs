//! Pulls images from registries.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use oci_client::Reference;
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use oci_client::secrets;
use sha2::{Digest, Sha256};

use nodeagent_core::runtime::RegistryAuth;

use super::archive::{self, Names};
use super::content::{Content, digest_of};
use super::manifest::{self, Descriptor};
use super::{ImageError, ImageStore, Record, reference};

/// A registry that is asked before the one that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Host and port.
    pub host: String,
    /// Without TLS.
    pub plain_http: bool,
}

/// How often an interrupted download is taken up again.
const RESUMES: usize = 5;

const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// One registry from which an image may come.
struct Source {
    client: Client,
    name: Reference,
    auth: secrets::RegistryAuth,
}

/// Fetches an image from the first source that has it.
pub async fn pull(
    store: &Arc<ImageStore>,
    name: &Reference,
    auth: Option<RegistryAuth>,
) -> Result<Arc<Record>, ImageError> {
    // Fails when somebody has chosen a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let auth = match auth {
        Some(auth) => secrets::RegistryAuth::Basic(auth.username, auth.password),
        None => secrets::RegistryAuth::Anonymous,
    };
    let locking = Arc::clone(store);
    let _importing = blocking(move || locking.content.importing()).await?;
    let mirrors = store.config.mirrors.get(name.registry()).cloned().unwrap_or_default();
    for mirror in mirrors {
        let mut mirrored = name.clone();
        mirrored.set_mirror_registry(mirror.host.clone());
        let plain = mirror.plain_http || reference::is_loopback(&mirror.host);
        let source = source(mirrored, plain.then_some(mirror.host.clone()), secrets::RegistryAuth::Anonymous);
        match pull_from(store, &source, name).await {
            Ok(record) => return Ok(record),
            Err(error) => tracing::info!(mirror = mirror.host, %error, "mirror does not serve the image"),
        }
    }
    let host = name.resolve_registry().to_owned();
    let plain = reference::is_loopback(&host) || store.config.plain_http.contains(&host);
    pull_from(store, &source(name.clone(), plain.then_some(host), auth), name).await
}

fn source(name: Reference, plain_http: Option<String>, auth: secrets::RegistryAuth) -> Source {
    let config = ClientConfig {
        protocol: plain_http.map_or(ClientProtocol::Https, |host| ClientProtocol::HttpsExcept(vec![host])),
        connect_timeout: Some(std::time::Duration::from_secs(15)),
        read_timeout: Some(std::time::Duration::from_secs(60)),
        user_agent: "orlop",
        https_proxy: variable("HTTPS_PROXY"),
        http_proxy: variable("HTTP_PROXY"),
        no_proxy: variable("NO_PROXY"),
        ..ClientConfig::default()
    };
    Source { client: Client::new(config), name, auth }
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase())).ok()?;
    Some(value).filter(|value| !value.is_empty())
}

async fn pull_from(
    store: &Arc<ImageStore>,
    source: &Source,
    asked: &Reference,
) -> Result<Arc<Record>, ImageError> {
    let (mut bytes, top) = source.manifest(&source.name).await?;
    let mut found = manifest::parse_manifest(&bytes)?;
    if found.config.is_none() {
        let chosen = manifest::for_this_machine(&found)?.digest.clone();
        bytes = source.manifest(&source.name.clone_with_digest(chosen)).await?.0;
        found = manifest::parse_manifest(&bytes)?;
    }
    let config = found
        .config
        .as_ref()
        .ok_or_else(|| ImageError::Malformed("the manifest has no configuration".to_owned()))?;
    let config = source.small_blob(config).await?;
    let configuration = manifest::parse_configuration(&config)?;
    let diff_ids = &configuration.rootfs.diff_ids;
    if diff_ids.len() != found.layers.len() {
        return Err(ImageError::Malformed("manifest and configuration disagree on the layers".to_owned()));
    }
    let mut fetches: FuturesUnordered<_> = diff_ids
        .iter()
        .zip(&found.layers)
        .map(|(diff_id, descriptor)| source.layer(store, diff_id, descriptor))
        .collect();
    while let Some(fetched) = fetches.next().await {
        fetched?;
    }
    drop(fetches);
    let layers =
        diff_ids.iter().map(|diff_id| Content::layer_name(diff_id)).collect::<Result<Vec<_>, _>>()?;
    let names = Names {
        tags: if asked.digest().is_some() { Vec::new() } else { vec![asked.whole()] },
        digests: vec![format!("{}/{}@{top}", asked.registry(), asked.repository())],
        manifest: None,
    };
    let store = Arc::clone(store);
    blocking(move || {
        let names = Names { manifest: Some(store.content.put_blob(&bytes)?), ..names };
        store.adopt(archive::finish(&store, &config, configuration, layers, names)?)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(ImageError::Registry(error.to_string())),
    }
}

// === impl Source ===

impl Source {
    async fn manifest(&self, name: &Reference) -> Result<(Vec<u8>, String), ImageError> {
        let (bytes, _) =
            self.client.pull_manifest_raw(name, &self.auth, &MANIFESTS).await.map_err(registry_error)?;
        let digest = digest_of(&bytes);
        if name.digest().is_some_and(|wanted| wanted.starts_with("sha256:") && wanted != digest) {
            return Err(ImageError::Malformed(format!("the registry's manifest has digest {digest}")));
        }
        Ok((bytes.to_vec(), digest))
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let mut stream = self
            .client
            .pull_blob_stream(&self.name, descriptor.digest.as_str())
            .await
            .map_err(registry_error)?;
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| ImageError::Registry(error.to_string()))?);
            if bytes.len() > 8 << 20 {
                return Err(ImageError::Malformed("the image configuration is too large".to_owned()));
            }
        }
        if digest_of(&bytes) != descriptor.digest {
            return Err(ImageError::Malformed(format!("{} has other content", descriptor.digest)));
        }
        Ok(bytes)
    }

    async fn layer(
        &self,
        store: &Arc<ImageStore>,
        diff_id: &str,
        descriptor: &Descriptor,
    ) -> Result<(), ImageError> {
        let slot = store.layer_slots.acquire().await;
        let _slot = slot.map_err(|_| ImageError::Registry("the image store is closed".to_owned()))?;
        if store.content.has_layer(&Content::layer_name(diff_id)?) {
            return Ok(());
        }
        let path = store.content.partial(&descriptor.digest)?;
        let mut left = RESUMES;
        while let Err(error) = self.download(&path, descriptor).await {
            left = match (left.checked_sub(1), &error) {
                (Some(left), ImageError::Registry(_)) => left,
                _ => return Err(error),
            };
            tracing::info!(layer = descriptor.digest, %error, "resuming a download");
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        let (store, diff_id, digest) = (Arc::clone(store), diff_id.to_owned(), descriptor.digest.clone());
        blocking(move || {
            let verified = verify(&path, &digest).and_then(|()| {
                let file = File::open(&path).map_err(ImageError::io("downloaded layer"))?;
                store.content.put_layer(&diff_id, file)
            });
            let _ = std::fs::remove_file(&path);
            verified.map(|_| ())
        })
        .await
    }

    /// Brings the file to its full length, from where an earlier attempt has left it.
    async fn download(&self, path: &PathBuf, descriptor: &Descriptor) -> Result<(), ImageError> {
        let have = std::fs::metadata(path).map_or(0, |meta| meta.len());
        if have == descriptor.size && have > 0 {
            return Ok(());
        }
        let digest = descriptor.digest.as_str();
        let (mut stream, append) = if have == 0 || have > descriptor.size {
            (self.client.pull_blob_stream(&self.name, digest).await.map_err(registry_error)?, false)
        } else {
            let answer = self.client.pull_blob_stream_partial(&self.name, digest, have, None).await;
            match answer.map_err(registry_error)? {
                BlobResponse::Full(stream) => (stream, false),
                BlobResponse::Partial(stream) => (stream, true),
            }
        };
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(path)
            .map_err(ImageError::io("layer download"))?;
        let mut length = if append { have } else { 0 };
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| ImageError::Registry(error.to_string()))?;
            length += chunk.len() as u64;
            if descriptor.size > 0 && length > descriptor.size {
                return Err(ImageError::Malformed(format!("{digest} is longer than promised")));
            }
            file.write_all(&chunk).map_err(ImageError::io("layer download"))?;
        }
        Ok(())
    }
}

fn verify(path: &Path, digest: &str) -> Result<(), ImageError> {
    let mut file = File::open(path).map_err(ImageError::io("downloaded layer"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 128 * 1024];
    loop {
        match file.read(&mut buffer).map_err(ImageError::io("downloaded layer"))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found = format!("sha256:{}", hex::encode(hash.finalize()));
    if found == digest {
        Ok(())
    } else {
        Err(ImageError::Malformed(format!("layer {digest} arrived with content of {found}")))
    }
}

fn registry_error(error: oci_client::errors::OciDistributionError) -> ImageError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    ImageError::Registry(text)
}
