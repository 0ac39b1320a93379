//! What is done to a member's directory while no process runs it: its state is read to the end, a new group begins with one.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use store_core::checkpoint::{self, Image};
use store_core::crypt::Keys;
use store_core::disk::Disk as _;
use store_core::members::Member;
use store_core::recovery::{self, Start};
use store_core::refound;

use crate::OpenError;
use crate::real_disk::RealDisk;

/// Reads the state that a member's directory holds, to the end of its log.
///
/// # Errors
/// When a process uses the directory, or what is in it cannot be continued.
pub fn salvage(dir: &Path, keys: &Keys, member: u64) -> Result<Image, OpenError> {
    let (disk, _lock) = RealDisk::open(dir)?;
    let refused = |reason: String| OpenError::Recovery { dir: dir.to_owned(), reason };
    if disk.list()?.iter().all(|name| !name.starts_with("checkpoint-")) {
        return Err(refused("there is no state in it".to_owned()));
    }
    let mut rng = ChaCha20Rng::from_seed(rand::random());
    let start = Start::First(Member::default());
    let recovered = recovery::recover(&disk, keys, member, &start, &mut rng)
        .map_err(|error| refused(error.to_string()))?;
    refound::replay(recovered).map_err(|error| refused(error.to_string()))
}

/// Puts the first state of a new group into a directory that holds none: the objects of `image`, and `member` alone.
///
/// # Errors
/// When a process uses the directory, or there is something in it.
pub fn found(dir: &Path, keys: &Keys, image: Image, id: u64, member: Member) -> Result<(), OpenError> {
    let (disk, _lock) = RealDisk::open(dir)?;
    if disk.list()?.iter().any(|name| name.starts_with("checkpoint-") || name.starts_with("log-")) {
        let reason = "there is a state in it already".to_owned();
        return Err(OpenError::Recovery { dir: dir.to_owned(), reason });
    }
    let mut rng = ChaCha20Rng::from_seed(rand::random());
    let image = refound::refounded(image, id, member);
    checkpoint::write(&disk, keys, &mut rng, image)
        .map_err(|error| OpenError::Recovery { dir: dir.to_owned(), reason: error.to_string() })?;
    Ok(())
}
