//! The one way to a disk: what the files need of a directory. Production and simulation each implement it.

mod sim;

pub use sim::{Faults, SimDisk};

/// A flat directory of files.
///
/// A file's bytes survive a power cut once its `sync` returned; its name once `sync_dir` returned.
pub trait Disk: Send + Sync + 'static {
    /// The names of all files, in order.
    fn list(&self) -> Result<Vec<String>, DiskError>;
    /// Creates a file with room for `reserve` bytes: appends within the reserve do not run out of space. What is
    /// reserved and not yet written reads as zeros. Fails when the name is taken.
    fn create(&self, name: &str, reserve: u64) -> Result<Box<dyn DiskFile>, DiskError>;
    /// Opens a file for reading from its start.
    fn open(&self, name: &str) -> Result<Box<dyn DiskReader>, DiskError>;
    /// Gives a file another name, in the place of what had that name.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file.
    fn remove(&self, name: &str) -> Result<(), DiskError>;
    /// Cuts a file to `len` bytes, and makes that durable.
    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError>;
    /// Makes the bytes of a file durable.
    fn sync(&self, name: &str) -> Result<(), DiskError>;
    /// Makes the names in the directory durable.
    fn sync_dir(&self) -> Result<(), DiskError>;
}

/// A file that grows at its end.
pub trait DiskFile: Send {
    /// Writes behind what was written last.
    fn append(&mut self, data: &[u8]) -> Result<(), DiskError>;
    /// Makes everything written durable. After an error nothing is known about what was written since the last
    /// success, and trying again proves nothing.
    fn sync(&mut self) -> Result<(), DiskError>;
}

/// A file that is read once, in order.
pub trait DiskReader: Send {
    /// The bytes that the file has.
    fn len(&self) -> u64;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads some bytes; 0 at the end.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, DiskError>;
}

/// Why the disk did not do as told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// There is no space left.
    #[error("no space left on the disk")]
    Full,
    /// There is no such file.
    #[error("{name}: no such file")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The name is taken.
    #[error("{name}: the file exists already")]
    Exists {
        /// The name.
        name: String,
    },
    /// Anything else.
    #[error("{operation} {name}: {reason}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        name: String,
        /// What the system said.
        reason: String,
    },
}

/// Reads the rest of a file.
pub fn read_to_end(reader: &mut dyn DiskReader) -> Result<Vec<u8>, DiskError> {
    let mut data = vec![0; usize::try_from(reader.len()).unwrap_or(usize::MAX)];
    let len = read_full(reader, &mut data)?;
    data.truncate(len);
    Ok(data)
}

/// Reads until `into` is full or the file ends; returns how much was read.
pub fn read_full(reader: &mut dyn DiskReader, into: &mut [u8]) -> Result<usize, DiskError> {
    let mut len = 0;
    while len < into.len() {
        match reader.read(&mut into[len..])? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}
