//! A directory of the host as the store's disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use store_core::disk::{Disk, DiskError, DiskFile, DiskReader};

use crate::OpenError;
use crate::direct::{BLOCK, DirectFile};

const LOCK: &str = "LOCK";

/// A directory of the host.
pub(crate) struct RealDisk {
    dir: PathBuf,
    handle: File,
}

/// Holds the directory for this process; the kernel lets it go when the process ends, however that happens.
pub(crate) struct DirLock {
    _file: File,
}

struct RealFile {
    file: Way,
    name: String,
}

/// How a file is written.
enum Way {
    /// Through the page cache.
    Cached(File),
    /// Past it.
    Direct(DirectFile),
}

struct RealReader {
    file: File,
    name: String,
    len: u64,
}

// === impl RealDisk ===

impl RealDisk {
    /// Opens a directory, makes it where it is missing, and takes it for this process alone.
    pub(crate) fn open(dir: &Path) -> Result<(Self, DirLock), OpenError> {
        let failed = |source| OpenError::Directory { dir: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(dir.join(LOCK)).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked { dir: dir.to_owned() }),
            Err(error) => return Err(failed(error.into())),
        }
        let handle = File::open(dir).map_err(failed)?;
        Ok((Self { dir: dir.to_owned(), handle }, DirLock { _file: file }))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Disk for RealDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let entries = std::fs::read_dir(&self.dir).map_err(wrap("list", ""))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(wrap("list", ""))?;
            names.extend(entry.file_name().into_string().ok().filter(|name| name != LOCK));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, name: &str, reserve: u64) -> Result<Box<dyn DiskFile>, DiskError> {
        let path = self.at(name);
        let mut options = OpenOptions::new();
        let mut file =
            options.create_new(true).write(true).mode(0o600).open(&path).map_err(wrap("create", name))?;
        if reserve == 0 {
            return Ok(Box::new(RealFile { file: Way::Cached(file), name: name.to_owned() }));
        }
        let whole = reserve.next_multiple_of(BLOCK as u64);
        let reserved =
            reserve_room(&mut file, whole).and_then(|filled| DirectFile::open(&path, whole, filled));
        match reserved {
            Ok(direct) => {
                let file = direct.map_or(Way::Cached(file), Way::Direct);
                Ok(Box::new(RealFile { file, name: name.to_owned() }))
            }
            Err(error) => {
                // The name must be free for the next attempt.
                let _ = std::fs::remove_file(&path);
                Err(wrap("reserve", name)(error))
            }
        }
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskReader>, DiskError> {
        let file = File::open(self.at(name)).map_err(wrap("open", name))?;
        let len = file.metadata().map_err(wrap("open", name))?.len();
        Ok(Box::new(RealReader { file, name: name.to_owned(), len }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        std::fs::rename(self.at(from), self.at(to)).map_err(wrap("rename", from))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        std::fs::remove_file(self.at(name)).map_err(wrap("remove", name))
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError> {
        let file = OpenOptions::new().write(true).open(self.at(name)).map_err(wrap("truncate", name))?;
        file.set_len(len).and_then(|()| file.sync_all()).map_err(wrap("truncate", name))
    }

    fn sync(&self, name: &str) -> Result<(), DiskError> {
        let file = File::open(self.at(name)).map_err(wrap("sync", name))?;
        file.sync_data().map_err(wrap("sync", name))
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.handle.sync_all().map_err(wrap("sync", "directory"))
    }
}

/// Gives a file real room, so that later writes neither fail for want of it nor change the file's length. Returns up to
/// where the room was written.
fn reserve_room(file: &mut File, bytes: u64) -> io::Result<u64> {
    match fallocate(&*file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => return Ok(0),
        Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    // Direct writes do not go round what is still in the page cache.
    file.sync_data()?;
    io::Seek::rewind(file)?;
    Ok(bytes)
}

fn wrap(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> DiskError {
    let name = name.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::Full,
        io::ErrorKind::NotFound => DiskError::NotFound { name },
        io::ErrorKind::AlreadyExists => DiskError::Exists { name },
        _ => DiskError::Io { operation, name, reason: error.to_string() },
    }
}

// === impl RealFile ===

impl DiskFile for RealFile {
    fn append(&mut self, data: &[u8]) -> Result<(), DiskError> {
        match &mut self.file {
            Way::Cached(file) => file.write_all(data).map_err(wrap("append", &self.name)),
            Way::Direct(file) => {
                file.append(data);
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let synced = match &mut self.file {
            Way::Cached(file) => file.sync_data(),
            Way::Direct(file) => file.sync(),
        };
        synced.map_err(wrap("sync", &self.name))
    }
}

// === impl RealReader ===

impl DiskReader for RealReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, DiskError> {
        loop {
            match self.file.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(wrap("read", &self.name)),
            }
        }
    }
}
