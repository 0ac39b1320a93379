//! Image archives as `docker save` and OCI tools write them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::content::{EMPTY_LAYER, Temporary, digest_of};
use super::manifest::{self, Descriptor, Manifest};
use super::{ImageError, ImageStore, Record, reference, unpack};

/// Manifests and configurations are small; an archive that claims otherwise is not read into memory.
const MAX_DOCUMENT: u64 = 8 << 20;

/// One image of docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Reads every image of the archive into the store.
pub fn load(store: &ImageStore, path: &Path) -> Result<Vec<Arc<Record>>, ImageError> {
    let opened = Opened::extract(store, path)?;
    if opened.has("manifest.json") {
        return opened.docker(store);
    }
    if opened.has("index.json") {
        return opened.oci(store);
    }
    Err(ImageError::Malformed(format!("{}: neither an OCI nor a docker image archive", path.display())))
}

/// An archive's files on disk.
struct Opened {
    dir: Temporary,
}

impl Opened {
    fn extract(store: &ImageStore, path: &Path) -> Result<Opened, ImageError> {
        let failed = || format!("image archive {}", path.display());
        let dir = store.content.temporary();
        fs::create_dir(dir.path()).map_err(ImageError::io(failed()))?;
        let source = File::open(path).map_err(ImageError::io(failed()))?;
        unpack::unpack(source, dir.path())
            .map_err(|error| ImageError::Malformed(format!("{}: {error}", failed())))?;
        Ok(Opened { dir })
    }

    fn has(&self, name: &str) -> bool {
        unpack::open_inside(self.dir.path(), Path::new(name)).is_ok()
    }

    fn open(&self, name: &Path) -> Result<File, ImageError> {
        unpack::open_inside(self.dir.path(), name)
            .map_err(ImageError::io(format!("{} in archive", name.display())))
    }

    fn document(&self, name: &Path) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let read = self.open(name)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(ImageError::io(format!("{} in archive", name.display())))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::Malformed(format!("{} in archive is too large", name.display())));
        }
        Ok(bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let bytes = self.document(&blob_path(descriptor)?)?;
        if digest_of(&bytes) != descriptor.digest {
            return Err(ImageError::Malformed(format!("{} has other content", descriptor.digest)));
        }
        Ok(bytes)
    }

    fn docker(&self, store: &ImageStore) -> Result<Vec<Arc<Record>>, ImageError> {
        let images: Vec<DockerImage> = serde_json::from_slice(&self.document(Path::new("manifest.json"))?)
            .map_err(|error| ImageError::Malformed(format!("manifest.json: {error}")))?;
        let mut records = Vec::new();
        for image in images {
            let mut tags = Vec::new();
            for tag in image.repo_tags.unwrap_or_default() {
                tags.push(reference::parse(&tag)?.whole());
            }
            let config = self.document(Path::new(&image.config))?;
            let layers: Vec<PathBuf> = image.layers.iter().map(PathBuf::from).collect();
            records.push(self.import(store, &config, &layers, tags, None)?);
        }
        Ok(records)
    }

    fn oci(&self, store: &ImageStore) -> Result<Vec<Arc<Record>>, ImageError> {
        let index = manifest::parse_manifest(&self.document(Path::new("index.json"))?)?;
        let mut records = Vec::new();
        for descriptor in &index.manifests {
            let tags = names(&descriptor.annotations)?;
            let mut bytes = self.blob(descriptor)?;
            let mut found: Manifest = manifest::parse_manifest(&bytes)?;
            if found.config.is_none() {
                bytes = self.blob(manifest::for_this_machine(&found)?)?;
                found = manifest::parse_manifest(&bytes)?;
            }
            let config = found
                .config
                .as_ref()
                .ok_or_else(|| ImageError::Malformed("the manifest has no configuration".to_owned()))?;
            let layers = found.layers.iter().map(blob_path).collect::<Result<Vec<_>, _>>()?;
            records.push(self.import(store, &self.blob(config)?, &layers, tags, Some(&bytes))?);
        }
        Ok(records)
    }

    fn import(
        &self,
        store: &ImageStore,
        config: &[u8],
        layers: &[PathBuf],
        tags: Vec<String>,
        manifest_bytes: Option<&[u8]>,
    ) -> Result<Arc<Record>, ImageError> {
        let configuration = manifest::parse_configuration(config)?;
        let diff_ids = &configuration.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(ImageError::Malformed(format!(
                "{} layers for {} in configuration",
                layers.len(),
                diff_ids.len()
            )));
        }
        let mut names = Vec::new();
        for (diff_id, path) in diff_ids.iter().zip(layers) {
            names.push(store.content.put_layer(diff_id, BufReader::new(self.open(path)?))?);
        }
        let manifest = manifest_bytes.map(|bytes| store.content.put_blob(bytes)).transpose()?;
        let digests = match &manifest {
            Some(digest) => tags.iter().filter_map(|tag| name_with_digest(tag, digest)).collect(),
            None => Vec::new(),
        };
        store.adopt(finish(store, config, configuration, names, Names { tags, digests, manifest })?)
    }
}

/// What an image is called.
pub struct Names {
    /// `name:tag`.
    pub tags: Vec<String>,
    /// `name@digest`.
    pub digests: Vec<String>,
    /// Digest of the manifest.
    pub manifest: Option<String>,
}

/// Makes the record of an image whose layers are unpacked.
pub fn finish(
    store: &ImageStore,
    config: &[u8],
    configuration: manifest::Configuration,
    layers: Vec<String>,
    names: Names,
) -> Result<Record, ImageError> {
    let id = store.content.put_blob(config)?;
    let mut size = config.len() as u64;
    for layer in &layers {
        size += tree_size(&store.layers_dir().join(layer)).map_err(ImageError::io("size of a layer"))?;
    }
    let layers = if layers.is_empty() { vec![EMPTY_LAYER.to_owned()] } else { layers };
    Ok(Record {
        id,
        manifest: names.manifest,
        tags: names.tags,
        digests: names.digests,
        layers,
        size,
        run: configuration.config.unwrap_or_default(),
        packed_from: None,
        last_used: None,
    })
}

/// `name@digest` for a `name:tag`.
pub fn name_with_digest(tag: &str, digest: &str) -> Option<String> {
    let parsed = reference::parse(tag).ok()?;
    Some(format!("{}/{}@{digest}", parsed.registry(), parsed.repository()))
}

fn blob_path(descriptor: &Descriptor) -> Result<PathBuf, ImageError> {
    Ok(Path::new("blobs/sha256").join(manifest::hex_of(&descriptor.digest)?))
}

fn names(annotations: &BTreeMap<String, String>) -> Result<Vec<String>, ImageError> {
    let name = annotations
        .get("io.containerd.image.name")
        .or_else(|| annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains('/')));
    name.map(|name| Ok(vec![reference::parse(name)?.whole()])).unwrap_or_else(|| Ok(Vec::new()))
}

fn tree_size(dir: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                pending.push(entry.path());
            } else {
                total += meta.len();
            }
        }
    }
    Ok(total)
}
