//! A file that grows within reserved room and is synced again and again, as the log is: written past the page cache.
//!
//! A synchronous direct write into blocks that hold something already changes no metadata: no journal is written, and no
//! thread of the kernel is waited for. So room that was only reserved is filled with zeros a piece ahead. Where a sync ends
//! within a block, the next one writes that block again, as the page cache would.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

/// Direct writes begin, end and lie in memory at multiples of this: no disk has larger blocks.
pub(crate) const BLOCK: usize = 4096;
/// How much is filled with zeros at a time: it takes about half a millisecond.
const AHEAD: u64 = 256 << 10;
/// A buffer that has grown larger is not kept.
const KEPT_BYTES: usize = 1 << 20;

/// A file under direct writes.
pub(crate) struct DirectFile {
    file: File,
    /// How long the file is: a multiple of the block size.
    capacity: u64,
    /// Up to where the file's blocks hold something.
    filled: u64,
    /// Where the file's text is that `text` begins with: the block that is written next.
    base: u64,
    text: Blocks,
    /// Whether all of `text` is durable.
    durable: bool,
}

/// Bytes in memory that begin at a multiple of the block size.
#[derive(Default)]
struct Blocks {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

// === impl DirectFile ===

impl DirectFile {
    /// Opens a file of `capacity` bytes, a multiple of the block size, that is reserved room and up to `filled` zeros;
    /// `None`: its file system writes only through the page cache.
    pub(crate) fn open(path: &Path, capacity: u64, filled: u64) -> io::Result<Option<Self>> {
        let opened = OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path);
        let direct = match opened {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            file => file?,
        };
        // Some file systems refuse only now.
        let mut first = Blocks::default();
        first.extend_with_zeros(BLOCK);
        match write_all(&direct, first.whole(), 0, ReadWriteFlags::empty()) {
            Err(Errno::INVAL) => return Ok(None),
            written => written?,
        }
        let filled = filled.max(BLOCK as u64);
        Ok(Some(Self { file: direct, capacity, filled, base: 0, text: Blocks::default(), durable: true }))
    }

    /// Takes bytes in, which [`Self::sync`] writes.
    pub(crate) fn append(&mut self, data: &[u8]) {
        self.text.extend(data);
        self.durable &= data.is_empty();
    }

    /// Writes what was taken in, and makes it durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.durable {
            return Ok(());
        }
        let end = self.base + self.text.whole().len() as u64;
        if end > self.filled {
            self.fill_from(end)?;
        }
        write_all(&self.file, self.text.whole(), self.base, ReadWriteFlags::DSYNC)?;
        self.base += self.text.drop_full() as u64;
        self.durable = true;
        Ok(())
    }

    /// Fills a piece of the room behind `from` with zeros. What lies before is written at once, or was.
    fn fill_from(&mut self, from: u64) -> Result<(), Errno> {
        let end = (from + AHEAD).min(self.capacity);
        if let Some(missing) = end.checked_sub(from.max(self.filled)).filter(|missing| *missing > 0) {
            let mut zeros = Blocks::default();
            zeros.extend_with_zeros(missing as usize);
            write_all(&self.file, zeros.whole(), end - missing, ReadWriteFlags::empty())?;
        }
        self.filled = self.filled.max(end).max(from);
        Ok(())
    }
}

fn write_all(file: &File, mut data: &[u8], mut at: u64, flags: ReadWriteFlags) -> Result<(), Errno> {
    while !data.is_empty() {
        match pwritev2(file, &[IoSlice::new(data)], at, flags) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                data = &data[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

// === impl Blocks ===

impl Blocks {
    fn extend(&mut self, data: &[u8]) {
        self.make_room(data.len());
        let end = self.start + self.len;
        self.room[end..end + data.len()].copy_from_slice(data);
        self.len += data.len();
    }

    fn extend_with_zeros(&mut self, len: usize) {
        self.make_room(len);
        let end = self.start + self.len;
        self.room[end..end + len].fill(0);
        self.len += len;
    }

    /// Makes room for `more` bytes, up to the end of their last block.
    fn make_room(&mut self, more: usize) {
        let needed = (self.len + more).next_multiple_of(BLOCK);
        if self.start + needed <= self.room.len() {
            return;
        }
        // Larger by half, so that what grows bit by bit is not moved each time.
        let room = vec![0; needed + needed / 2 + BLOCK];
        let start = room.as_ptr().align_offset(BLOCK);
        let (old, at) = (std::mem::replace(&mut self.room, room), self.start);
        self.room[start..start + self.len].copy_from_slice(&old[at..at + self.len]);
        self.start = start;
    }

    /// The blocks, with zeros behind the last byte.
    fn whole(&mut self) -> &[u8] {
        let (end, whole) = (self.start + self.len, self.len.next_multiple_of(BLOCK));
        self.room[end..self.start + whole].fill(0);
        &self.room[self.start..self.start + whole]
    }

    /// Lets go of the blocks that are full, and returns how many bytes they had.
    fn drop_full(&mut self) -> usize {
        let full = self.len / BLOCK * BLOCK;
        let (from, rest) = (self.start + full, self.len - full);
        if self.room.len() > KEPT_BYTES {
            let tail = self.room[from..from + rest].to_vec();
            *self = Self::default();
            self.extend(&tail);
        } else {
            self.room.copy_within(from..from + rest, self.start);
            self.len = rest;
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(dir: &Path, capacity: u64) -> std::path::PathBuf {
        let path = dir.join("file");
        File::create(&path).unwrap().set_len(capacity).unwrap();
        path
    }

    #[test]
    fn what_was_appended_is_in_the_file_with_zeros_behind() {
        let dir = tempfile::tempdir().unwrap();
        let capacity = 3 << 20;
        let path = reserved(dir.path(), capacity);
        let Some(mut file) = DirectFile::open(&path, capacity, 0).unwrap() else { return };
        let mut expected = Vec::new();
        let sizes = [64, 400, 1, 4095, 4096, 4097, 30_000, 0, 300_000, 8, 1 << 20, 70_000, 5];
        for (place, size) in sizes.into_iter().enumerate() {
            let data = vec![place as u8 + 1; size];
            file.append(&data);
            expected.extend_from_slice(&data);
            if place % 3 != 1 {
                file.sync().unwrap();
                let found = std::fs::read(&path).unwrap();
                assert_eq!(found.len() as u64, capacity);
                assert!(found[..expected.len()] == expected[..], "after {size} bytes at {place}");
                assert!(
                    found[expected.len()..].iter().all(|byte| *byte == 0),
                    "after {size} bytes at {place}"
                );
            }
        }
    }

    #[test]
    fn room_is_filled_ahead_up_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let capacity = AHEAD + AHEAD / 2;
        let path = reserved(dir.path(), capacity);
        let Some(mut file) = DirectFile::open(&path, capacity, 0).unwrap() else { return };
        assert_eq!(file.filled, BLOCK as u64);
        file.append(&[1; BLOCK]);
        file.sync().unwrap();
        assert_eq!(file.filled, BLOCK as u64, "nothing that is not needed yet");
        file.append(&[2]);
        file.sync().unwrap();
        assert_eq!(file.filled, AHEAD + 2 * BLOCK as u64);
        file.append(&vec![3; capacity as usize - BLOCK - 1]);
        file.sync().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), capacity);
    }
}
