//! Content on disk: `blobs/sha256/…`, `layers/…` (unpacked), `owners/<node>/…` (records), `tmp/`.
//!
//! Everything appears by rename, after what it consists of was synced: a name that exists has its full content, whatever
//! happened before. Temporary files of a dead process are removed when the store is opened and nobody else has it open.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::manifest::hex_of;
use super::{ImageError, Record, unpack};

/// Layer directories are named by this much of their digest: many of them must fit into one page of mount options.
const LAYER_NAME: usize = 32;

/// A layer without content, for images that have none.
pub const EMPTY_LAYER: &str = "empty";

/// The content directory.
pub struct Content {
    dir: PathBuf,
    serial: AtomicU64,
}

/// Keeps garbage collection away, in this process and others, while content is being added.
pub struct Importing(#[expect(dead_code, reason = "the lock is held by the open file")] File);

/// Removes a temporary path unless it was moved to its place.
pub struct Temporary(PathBuf);

impl Temporary {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

// === impl Content ===

impl Content {
    /// Opens the directory; makes it when it is missing.
    pub fn open(dir: &Path) -> Result<Content, ImageError> {
        let failed = || format!("image store {}", dir.display());
        for part in ["blobs/sha256", "layers/empty", "owners", "tmp"] {
            fs::create_dir_all(dir.join(part)).map_err(ImageError::io(failed()))?;
        }
        // Images bring set-user-id programs, which are not for the machine's users.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(dir, private).map_err(ImageError::io(failed()))?;
        // Shims, which mount the layers, have another working directory.
        let dir = dir.canonicalize().map_err(ImageError::io(failed()))?;
        let content = Content { dir: dir.clone(), serial: AtomicU64::new(0) };
        let lock = content.lock_file()?;
        if lock.try_lock().is_ok() {
            // Nobody is adding anything: leftovers belong to the dead.
            let _ = fs::remove_dir_all(dir.join("tmp"));
            fs::create_dir_all(dir.join("tmp")).map_err(ImageError::io(failed()))?;
        }
        Ok(content)
    }

    fn lock_file(&self) -> Result<File, ImageError> {
        File::create(self.dir.join("lock")).map_err(ImageError::io("image store lock"))
    }

    /// To be held from before the first look at what is here until the record is written.
    pub fn importing(&self) -> Result<Importing, ImageError> {
        let lock = self.lock_file()?;
        lock.lock_shared().map_err(ImageError::io("image store lock"))?;
        Ok(Importing(lock))
    }

    /// Where unpacked layers are.
    pub fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// A path of our own that goes away with the answer.
    pub fn temporary(&self) -> Temporary {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        Temporary(self.dir.join("tmp").join(format!("{}-{serial}", std::process::id())))
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf, ImageError> {
        Ok(self.dir.join("blobs/sha256").join(hex_of(digest)?))
    }

    /// The directory name of a layer.
    pub fn layer_name(diff_id: &str) -> Result<String, ImageError> {
        Ok(hex_of(diff_id)?.chars().take(LAYER_NAME).collect())
    }

    /// Whether the layer is unpacked already.
    pub fn has_layer(&self, name: &str) -> bool {
        self.layers_dir().join(name).is_dir()
    }

    /// Where a layer's download is kept so that it can be resumed.
    pub fn partial(&self, digest: &str) -> Result<PathBuf, ImageError> {
        Ok(self.dir.join("tmp").join(format!("partial-{}", hex_of(digest)?)))
    }

    /// Keeps a small blob; returns its digest.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<String, ImageError> {
        let digest = digest_of(bytes);
        let path = self.blob_path(&digest)?;
        if !path.exists() {
            self.write_durably(&path, bytes, true)?;
        }
        Ok(digest)
    }

    /// Unpacks a layer from a file in any supported compression, unless it is here already. Returns its directory name.
    pub fn put_layer(&self, diff_id: &str, source: impl Read) -> Result<String, ImageError> {
        let name = Self::layer_name(diff_id)?;
        if self.has_layer(&name) {
            return Ok(name);
        }
        let temporary = self.temporary();
        fs::create_dir(temporary.path()).map_err(ImageError::io("unpack layer"))?;
        let found = unpack::unpack(source, temporary.path())
            .map_err(|error| ImageError::Malformed(format!("layer {diff_id}: {error}")))?;
        if found != diff_id {
            return Err(ImageError::Malformed(format!("layer {diff_id} has content of {found}")));
        }
        self.publish_layer(&temporary, &name)?;
        Ok(name)
    }

    /// Gives an unpacked layer its name, once it is on the disk.
    pub fn publish_layer(&self, temporary: &Temporary, name: &str) -> Result<(), ImageError> {
        let failed = || format!("layer {name}");
        let dir = File::open(temporary.path()).map_err(ImageError::io(failed()))?;
        // Thousands of files: one call for the file system is cheaper than one for each.
        rustix::fs::syncfs(&dir).map_err(|error| ImageError::io(failed())(error.into()))?;
        let target = self.layers_dir().join(name);
        match fs::rename(temporary.path(), &target) {
            Ok(()) => sync_dir(&self.layers_dir()).map_err(ImageError::io(failed())),
            // Another node was faster.
            Err(_) if target.is_dir() => Ok(()),
            Err(error) => Err(ImageError::io(failed())(error)),
        }
    }

    /// All records of a node. A record that cannot be read, or whose layers are gone, is dropped: the image is pulled
    /// again when it is needed.
    pub fn records(&self, owner: &str) -> Result<Vec<Record>, ImageError> {
        let dir = self.owner_dir(owner)?;
        let mut records = Vec::new();
        for entry in fs::read_dir(&dir).map_err(ImageError::io("image records"))? {
            let path = entry.map_err(ImageError::io("image records"))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok()) {
                Some(record) if record.layers.iter().all(|layer| self.has_layer(layer)) => {
                    records.push(record)
                }
                _ => {
                    tracing::warn!(path = %path.display(), "dropping a damaged image record");
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(records)
    }

    /// Changes whenever a record of the node is written or removed, also by another process.
    pub fn stamp(&self, owner: &str) -> Option<std::time::SystemTime> {
        fs::metadata(self.owner_dir(owner).ok()?).ok()?.modified().ok()
    }

    /// Writes a record.
    pub fn write_record(&self, owner: &str, record: &Record, durable: bool) -> Result<(), ImageError> {
        let path = self.owner_dir(owner)?.join(format!("{}.json", hex_of(&record.id)?));
        let bytes = serde_json::to_vec(record).map_err(|error| ImageError::Malformed(error.to_string()))?;
        self.write_durably(&path, &bytes, durable)
    }

    /// Forgets a record.
    pub fn remove_record(&self, owner: &str, id: &str) -> Result<(), ImageError> {
        let path = self.owner_dir(owner)?.join(format!("{}.json", hex_of(id)?));
        fs::remove_file(path).map_err(ImageError::io("image record"))
    }

    /// Removes layers and blobs that no record of any node names.
    ///
    /// A layer that is being added is not yet named: while anybody adds, nothing is removed; the next call will.
    pub fn collect_garbage(&self) -> Result<(), ImageError> {
        let lock = self.lock_file()?;
        if lock.try_lock().is_err() {
            return Ok(());
        }
        let doomed = self.sweep()?;
        drop(lock);
        drop(doomed);
        Ok(())
    }

    fn sweep(&self) -> Result<Vec<Temporary>, ImageError> {
        let mut swept = Vec::new();
        let failed = || "collect image garbage".to_owned();
        let (mut layers, mut blobs) = (BTreeSet::from([EMPTY_LAYER.to_owned()]), BTreeSet::new());
        for owner in fs::read_dir(self.dir.join("owners")).map_err(ImageError::io(failed()))? {
            let owner = owner.map_err(ImageError::io(failed()))?.file_name();
            for record in self.records(&owner.to_string_lossy())? {
                layers.extend(record.layers);
                blobs.extend([Some(record.id), record.manifest].into_iter().flatten());
            }
        }
        for entry in fs::read_dir(self.layers_dir()).map_err(ImageError::io(failed()))?.flatten() {
            if !layers.contains(&*entry.file_name().to_string_lossy()) {
                // By rename first: a half-removed layer must not look whole.
                let doomed = self.temporary();
                fs::rename(entry.path(), doomed.path()).map_err(ImageError::io(failed()))?;
                swept.push(doomed);
            }
        }
        for entry in fs::read_dir(self.dir.join("blobs/sha256")).map_err(ImageError::io(failed()))?.flatten()
        {
            if !blobs.contains(&format!("sha256:{}", entry.file_name().to_string_lossy())) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(swept)
    }

    /// Digest of the layer that any node of this machine has packed from files in that state.
    pub fn packed(&self, state: &str) -> Option<String> {
        for owner in fs::read_dir(self.dir.join("owners")).ok()?.flatten() {
            let records = self.records(&owner.file_name().to_string_lossy()).ok()?;
            let found = records.iter().find_map(|record| record.packed_from.as_ref()?.strip_prefix(state));
            if let Some(diff_id) = found {
                return Some(diff_id.trim().to_owned());
            }
        }
        None
    }

    fn owner_dir(&self, owner: &str) -> Result<PathBuf, ImageError> {
        if owner.is_empty() || owner.contains('/') || owner.starts_with('.') {
            return Err(ImageError::Malformed(format!("bad owner name {owner:?}")));
        }
        let dir = self.dir.join("owners").join(owner);
        fs::create_dir_all(&dir).map_err(ImageError::io("image records"))?;
        Ok(dir)
    }

    fn write_durably(&self, path: &Path, bytes: &[u8], durable: bool) -> Result<(), ImageError> {
        let temporary = self.temporary();
        let write = || {
            let mut file = File::create(temporary.path())?;
            file.write_all(bytes)?;
            if durable {
                file.sync_all()?;
            }
            fs::rename(temporary.path(), path)?;
            match path.parent() {
                Some(parent) if durable => sync_dir(parent),
                _ => Ok(()),
            }
        };
        write().map_err(ImageError::io(path.display().to_string()))
    }
}

/// `sha256:…` of bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
