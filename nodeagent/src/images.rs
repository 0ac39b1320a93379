//! The node's images: content addressed, fetched from registries, read from archives, or packed from this executable.
//!
//! Content (configurations, manifests, unpacked layers) lives in one directory that several nodes of a machine may share.
//! Every node keeps a record for each of its images there; content without a record of any node is garbage. The records
//! are the truth; what is held in memory is read from them when the store is opened.

pub mod archive;
mod content;
mod manifest;
mod pack;
mod reference;
mod registry;
pub mod unpack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use nodeagent_core::runtime::{Image, RegistryAuth, RuntimeError};
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, Semaphore, watch};

pub use content::Content;
pub use manifest::RunConfig;
pub use pack::SelfImage;
pub use registry::Mirror;

/// Where a store keeps its content, and where it fetches from.
#[derive(Clone, Debug)]
pub struct ImageStoreConfig {
    /// Content; may be shared by the nodes of one machine.
    pub content: PathBuf,
    /// Name under which this node's records are kept in `content`.
    pub owner: String,
    /// Registries to ask before the one that an image names, by that one's host name.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// Registries spoken to without TLS, beside those on loopback.
    pub plain_http: Vec<String>,
    /// Layers fetched at the same time, over all pulls.
    pub parallel_layers: usize,
}

/// Why an image could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// The reference cannot be parsed.
    #[error("invalid image name {reference:?}: {detail}")]
    InvalidName {
        /// As given.
        reference: String,
        /// What is wrong.
        detail: String,
    },
    /// The registry could not be reached or refused.
    #[error("{0}")]
    Registry(String),
    /// What was fetched is not what was promised, or not an image.
    #[error("{0}")]
    Malformed(String),
    /// No variant of the image is for this machine.
    #[error("no match for platform linux/{architecture} in manifest")]
    Platform {
        /// Of this machine, as images name it.
        architecture: &'static str,
    },
    /// The disk failed.
    #[error("{what}: {detail}")]
    Io {
        /// What was being done.
        what: String,
        /// What the kernel said.
        detail: String,
    },
    /// There is no such image.
    #[error("no such image: {0}")]
    NotFound(String),
}

impl ImageError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ImageError {
        let what = what.into();
        move |error| ImageError::Io { what, detail: error.to_string() }
    }

    /// As the agent reports it for this reference.
    pub fn into_runtime(self, reference: &str) -> RuntimeError {
        let reference = reference.to_owned();
        match self {
            ImageError::InvalidName { detail, .. } => RuntimeError::InvalidImageName { reference, detail },
            ImageError::NotFound(_) => RuntimeError::NotFound { what: format!("image {reference:?}") },
            other => RuntimeError::Pull { reference, detail: other.to_string() },
        }
    }
}

/// An image as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of the configuration.
    pub id: String,
    /// Digest of the manifest, if one was seen.
    pub manifest: Option<String>,
    /// `name:tag` references.
    pub tags: Vec<String>,
    /// `name@sha256:…` references.
    pub digests: Vec<String>,
    /// Unpacked layers, lowest first, as directory names in the content directory.
    pub layers: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// How containers of this image run.
    pub run: RunConfig,
    /// Made by [`ImageStore::pack_self`] from an executable in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_from: Option<String>,
    /// When a container last used it, in seconds since 1970.
    #[serde(default)]
    pub last_used: Option<i64>,
}

type Pull = Arc<OnceCell<Result<Arc<Record>, ImageError>>>;

/// The records in memory, with the state of the directory that they were read from.
#[derive(Default)]
struct Known {
    records: BTreeMap<String, Arc<Record>>,
    stamp: Option<std::time::SystemTime>,
}

/// The images of one node.
pub struct ImageStore {
    config: ImageStoreConfig,
    content: Content,
    records: Mutex<Known>,
    pulls: Mutex<BTreeMap<String, Pull>>,
    /// Whether images are being packed that nobody could fetch.
    packing: watch::Sender<bool>,
    layer_slots: Semaphore,
}

// === impl ImageStore ===

impl ImageStore {
    /// Opens the store; makes its directories when they are missing.
    pub fn open(config: ImageStoreConfig) -> Result<Arc<ImageStore>, ImageError> {
        let content = Content::open(&config.content)?;
        let layer_slots = Semaphore::new(config.parallel_layers.max(1));
        Ok(Arc::new(ImageStore {
            records: Mutex::default(),
            pulls: Mutex::default(),
            packing: watch::Sender::new(false),
            content,
            config,
            layer_slots,
        }))
    }

    /// The directory that the names in [`Record::layers`] are relative to.
    pub fn layers_dir(&self) -> PathBuf {
        self.content.layers_dir()
    }

    /// All images of this node.
    pub fn list(&self) -> Vec<Arc<Record>> {
        self.lock().records.values().cloned().collect()
    }

    /// The image of that id, name, or digest.
    pub fn find(&self, wanted: &str) -> Result<Option<Arc<Record>>, ImageError> {
        let known = self.lock();
        let records = &known.records;
        let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(records.get(&format!("sha256:{hex}")).cloned());
        }
        let name = reference::parse(wanted)?;
        let found = match name.digest() {
            Some(_) => {
                let canonical = reference::with_digest(&name);
                records.values().find(|record| record.digests.contains(&canonical))
            }
            None => {
                let canonical = name.whole();
                records.values().find(|record| record.tags.contains(&canonical))
            }
        };
        Ok(found.cloned())
    }

    /// Fetches an image. Pulls of the same reference at the same time are one.
    pub async fn pull(
        self: &Arc<Self>,
        wanted: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<Arc<Record>, ImageError> {
        let name = reference::parse(wanted)?;
        // Different credentials may see different things: they do not share a pull.
        let key = format!("{} {}", name.whole(), auth.as_ref().map_or("", |auth| &auth.username));
        let cell = {
            let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(pulls.entry(key.clone()).or_default())
        };
        let outcome = cell
            .get_or_init(|| async {
                let this = Arc::clone(self);
                // Detached: a caller that gives up does not stop the pull for the others.
                let task = tokio::spawn(async move { registry::pull(&this, &name, auth).await });
                task.await.unwrap_or_else(|error| Err(ImageError::Registry(error.to_string())))
            })
            .await
            .clone();
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        if pulls.get(&key).is_some_and(|current| Arc::ptr_eq(current, &cell)) {
            pulls.remove(&key);
        }
        outcome
    }

    /// Reads an OCI or docker archive. Blocks.
    pub fn load_archive(&self, path: &Path) -> Result<Vec<Arc<Record>>, ImageError> {
        let _importing = self.content.importing()?;
        archive::load(self, path)
    }

    /// Makes an image known to this node that another node of the same content directory has. Blocks.
    pub fn share(&self, record: &Record) -> Result<Arc<Record>, ImageError> {
        let _importing = self.content.importing()?;
        if !record.layers.iter().all(|layer| self.content.has_layer(layer)) {
            return Err(ImageError::NotFound(record.id.clone()));
        }
        self.adopt(Record { last_used: None, ..record.clone() })
    }

    /// Packs this executable with the loader and the libraries that it maps as an image. Blocks.
    pub fn pack_self(&self, image: &SelfImage) -> Result<Arc<Record>, ImageError> {
        let _importing = self.content.importing()?;
        pack::pack_self(self, image)
    }

    /// Packs this executable beside what else happens. Meanwhile [`ImageStore::find_or_wait`] waits.
    pub fn pack_in_background(self: &Arc<Self>, images: Vec<SelfImage>) {
        self.packing.send_replace(true);
        let store = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            for image in &images {
                if let Err(error) = store.pack_self(image) {
                    tracing::error!(image = image.reference, %error, "cannot pack this executable");
                }
            }
            store.packing.send_replace(false);
        });
    }

    /// As [`ImageStore::find`]; what is missing is looked for again when all packing is done.
    pub async fn find_or_wait(&self, wanted: &str) -> Result<Option<Arc<Record>>, ImageError> {
        let found = self.find(wanted)?;
        if found.is_some() || !*self.packing.borrow() {
            return Ok(found);
        }
        // The sender lives as long as `self`.
        let _ = self.packing.subscribe().wait_for(|packing| !*packing).await;
        self.find(wanted)
    }

    /// Removes an image of this node, and content that no node needs any more. Blocks.
    pub fn remove(&self, wanted: &str) -> Result<(), ImageError> {
        let record = self.find(wanted)?.ok_or_else(|| ImageError::NotFound(wanted.to_owned()))?;
        self.content.remove_record(&self.config.owner, &record.id)?;
        self.lock().records.remove(&record.id);
        self.content.collect_garbage()
    }

    /// Notes that a container uses the image now.
    pub fn touch(&self, id: &str, now: Timestamp) {
        let updated = {
            let mut known = self.lock();
            let Some(record) = known.records.get_mut(id) else { return };
            let now = now.as_second();
            if record.last_used.is_some_and(|last| now - last < 60) {
                return;
            }
            let updated = Arc::new(Record { last_used: Some(now), ..Record::clone(record) });
            *record = Arc::clone(&updated);
            updated
        };
        if let Err(error) = self.content.write_record(&self.config.owner, &updated, false) {
            tracing::debug!(%error, "cannot note the use of an image");
        }
    }

    /// Makes an image known. Its names move here from whatever had them.
    fn adopt(&self, record: Record) -> Result<Arc<Record>, ImageError> {
        let mut known = self.lock();
        let records = &mut known.records;
        let mut record = record;
        if let Some(old) = records.get(&record.id) {
            let keep = |mine: &mut Vec<String>, theirs: &[String]| {
                mine.extend(theirs.iter().cloned());
                mine.sort();
                mine.dedup();
            };
            keep(&mut record.tags, &old.tags);
            keep(&mut record.digests, &old.digests);
            record.last_used = old.last_used;
        }
        let robbed: Vec<Record> = records
            .values()
            .filter(|old| old.id != record.id && old.tags.iter().any(|tag| record.tags.contains(tag)))
            .map(|old| Record {
                tags: old.tags.iter().filter(|tag| !record.tags.contains(tag)).cloned().collect(),
                ..Record::clone(old)
            })
            .collect();
        let record = Arc::new(record);
        self.content.write_record(&self.config.owner, &record, true)?;
        for old in robbed {
            self.content.write_record(&self.config.owner, &old, true)?;
            records.insert(old.id.clone(), Arc::new(old));
        }
        records.insert(record.id.clone(), Arc::clone(&record));
        Ok(record)
    }

    /// The records, read anew when another process (`orlop image load`) has changed them.
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        let mut known = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.content.stamp(&self.config.owner);
        if stamp.is_none() || known.stamp != stamp {
            match self.content.records(&self.config.owner) {
                Ok(records) => {
                    known.records = records.into_iter().map(|r| (r.id.clone(), Arc::new(r))).collect();
                    known.stamp = stamp;
                }
                Err(error) => tracing::warn!(%error, "cannot read the image records"),
            }
        }
        known
    }
}

impl From<&Record> for Image {
    fn from(record: &Record) -> Image {
        Image {
            id: record.id.clone(),
            tags: record.tags.clone(),
            digests: record.digests.clone(),
            size_bytes: record.size,
            user: record.run.user.clone(),
            last_used_at: record.last_used.and_then(|second| Timestamp::from_second(second).ok()),
        }
    }
}

/// This machine's architecture, as images name it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    std::env::consts::ARCH
};
