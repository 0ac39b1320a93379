//! A disk whose syncs take as long as a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use store::DiskLayer;
use store_core::disk::{Disk, DiskError, DiskFile, DiskReader};

/// How long each sync takes besides its own time, in milliseconds.
pub type Delay = Arc<AtomicU64>;

struct SlowDisk {
    disk: Arc<dyn Disk>,
    delay: Delay,
}

struct SlowFile {
    file: Box<dyn DiskFile>,
    delay: Delay,
}

/// Lays the delay between a store and its directory.
pub fn layer(delay: Delay) -> DiskLayer {
    Arc::new(move |disk| Arc::new(SlowDisk { disk, delay: delay.clone() }))
}

impl Disk for SlowDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.disk.list()
    }

    fn create(&self, name: &str, reserve: u64) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.disk.create(name, reserve)?;
        Ok(Box::new(SlowFile { file, delay: self.delay.clone() }))
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskReader>, DiskError> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError> {
        self.disk.truncate(name, len)
    }

    fn sync(&self, name: &str) -> Result<(), DiskError> {
        self.disk.sync(name)
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.disk.sync_dir()
    }
}

impl DiskFile for SlowFile {
    fn append(&mut self, data: &[u8]) -> Result<(), DiskError> {
        self.file.append(data)
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        std::thread::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed)));
        self.file.sync()
    }
}
