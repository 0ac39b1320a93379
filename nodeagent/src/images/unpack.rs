//! Unpacks a layer into a directory that may become the lower side of an overlay.
//!
//! Nothing in an archive is trusted: names are resolved by the kernel with the directory as root, so that no symbolic
//! link and no `..` leads out of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use sha2::{Digest, Sha256};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Where a header of POSIX or GNU has the numbers of a device.
const DEVICE_MAJOR: Range<usize> = 329..337;
const DEVICE_MINOR: Range<usize> = 337..345;

/// Counts and hashes what passes.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Unpacks a gzip, zstd or plain tar archive; returns the digest of the plain archive.
pub fn unpack(source: impl Read, root: &Path) -> io::Result<String> {
    let mut source = BufReader::with_capacity(128 * 1024, source);
    let head = source.fill_buf()?;
    let plain: Box<dyn Read + '_> = if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(source))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(source)?)
    } else {
        Box::new(source)
    };
    let mut hashing = Hashing { inner: BufReader::with_capacity(128 * 1024, plain), hash: Sha256::new() };
    let mut tree = Tree::open(root)?;
    {
        let mut archive = tar::Archive::new(&mut hashing);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            tree.entry(&mut entry, &path)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        }
    }
    tree.finish()?;
    // What follows the end of the archive is part of its digest.
    io::copy(&mut hashing, &mut io::sink())?;
    Ok(format!("sha256:{}", hex::encode(hashing.hash.finalize())))
}

/// The numbers of an entry's header. Blank ones count as 0: some makers of archives leave out what has no meaning.
struct Numbers {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds since 1970.
    changed: i64,
}

impl Numbers {
    fn of(header: &tar::Header) -> io::Result<Numbers> {
        let fields = header.as_old();
        Ok(Numbers {
            mode: or_blank(&fields.mode, || header.mode())? & 0o7777,
            uid: or_blank(&fields.uid, || header.uid())? as u32,
            gid: or_blank(&fields.gid, || header.gid())? as u32,
            changed: or_blank(&fields.mtime, || header.mtime())? as i64,
        })
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw_unchecked(self.uid)), Some(Gid::from_raw_unchecked(self.gid)))
    }
}

fn or_blank<T: Default>(field: &[u8], read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let is_blank = field.iter().all(|byte| matches!(byte, b' ' | 0));
    if is_blank { Ok(T::default()) } else { read() }
}

/// The directory being filled.
struct Tree {
    root: OwnedFd,
    /// Directory of the last entry: neighbours in an archive are neighbours in the tree.
    last: Option<(PathBuf, OwnedFd)>,
    /// Times of directories, set when nothing changes in them any more.
    times: BTreeMap<PathBuf, i64>,
}

fn not_safe(detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

/// Parent and name of an entry, as plain relative path; `None` for the root itself.
fn split(path: &Path) -> io::Result<Option<(PathBuf, OsString)>> {
    let mut parts: Vec<&OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => return Err(not_safe("path leads upwards")),
            Component::Prefix(_) => return Err(not_safe("path has a prefix")),
        }
    }
    Ok(parts.pop().map(|name| (parts.iter().collect(), name.to_owned())))
}

/// Where a link in `dir` points, without leading above the root.
fn clamp(dir: &Path, target: &Path) -> PathBuf {
    let mut parts: Vec<&OsStr> = if target.is_absolute() { Vec::new() } else { dir.iter().collect() };
    for component in target.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.iter().collect()
}

/// Most links followed for one directory.
const MAX_LINKS: usize = 40;

impl Tree {
    fn open(root: &Path) -> io::Result<Tree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Tree { root: rustix::fs::open(root, flags, Mode::empty())?, last: None, times: BTreeMap::new() })
    }

    /// Opens a directory inside; missing ones are made.
    fn dir(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return fd.try_clone();
        }
        let fd = self.open_dir(path)?;
        self.last = Some((path.to_owned(), fd.try_clone()?));
        Ok(fd)
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.make_dir(path, MAX_LINKS)
    }

    fn make_dir(&self, path: &Path, links_left: usize) -> io::Result<OwnedFd> {
        match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent_path, name) = split(path)?.ok_or_else(|| not_safe("no such directory"))?;
        let parent = self.make_dir(&parent_path, links_left)?;
        match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            // A link to a directory of a lower layer: that directory is made here, too, for the overlay to merge.
            Err(rustix::io::Errno::EXIST) => {
                let target = rustix::fs::readlinkat(&parent, &name, Vec::new())?;
                let target = clamp(&parent_path, Path::new(OsStr::from_bytes(target.to_bytes())));
                let left = links_left.checked_sub(1).ok_or_else(|| not_safe("too many links"))?;
                return self.make_dir(&target, left);
            }
            Err(error) => return Err(error.into()),
        }
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), how)?)
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &Path) -> io::Result<()> {
        use tar::EntryType::*;
        let Some((parent_path, name)) = split(path)? else {
            return self.attributes_of_root(entry);
        };
        let parent = self.dir(&parent_path)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT.as_bytes()) {
            return whiteout(&parent, &name, OsStr::from_bytes(hidden));
        }
        let kind = entry.header().entry_type();
        let numbers = Numbers::of(entry.header())?;
        if kind != Directory || !is_dir(&parent, &name)? {
            self.clear(&parent, &name)?;
        }
        match kind {
            Directory => match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            },
            Symlink => {
                let target = entry.link_name()?.ok_or_else(|| not_safe("link without target"))?;
                rustix::fs::symlinkat(&*target, &parent, &name)?;
                self.last = None;
            }
            Link => return self.hard_link(entry, &parent, &name),
            Char | Block | Fifo => special(entry, &parent, &name, kind, numbers.mode)?,
            Regular | Continuous | GNUSparse => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o600))?;
                io::copy(entry, &mut std::fs::File::from(fd))?;
            }
            XGlobalHeader => return Ok(()),
            other => return Err(not_safe(&format!("unsupported entry type {other:?}"))),
        }
        self.attributes(entry, &parent, &name, kind, &numbers)?;
        if kind == Directory {
            self.times.insert(parent_path.join(&name), numbers.changed);
        }
        Ok(())
    }

    /// Removes what an earlier entry of the same layer has put there.
    fn clear(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) => self.last = None,
            Err(rustix::io::Errno::NOENT) => {}
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {
                self.last = None;
                remove_tree(parent, name)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn hard_link<R: Read>(
        &mut self,
        entry: &tar::Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> io::Result<()> {
        let target = entry.link_name()?.ok_or_else(|| not_safe("link without target"))?;
        let (dir, file) = split(&target)?.ok_or_else(|| not_safe("link to the root"))?;
        let dir = self.resolve(&dir, OFlags::PATH | OFlags::DIRECTORY)?;
        // Without FOLLOW: a link to a symbolic link is a link to that, not to where it points.
        rustix::fs::linkat(&dir, &file, parent, name, AtFlags::empty())?;
        Ok(())
    }

    fn attributes<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        kind: tar::EntryType,
        numbers: &Numbers,
    ) -> io::Result<()> {
        let (user, group) = numbers.owner();
        rustix::fs::chownat(parent, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        let link = kind == tar::EntryType::Symlink;
        if !link {
            // After chown, which clears set-user-id bits.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(numbers.mode), AtFlags::empty())?;
        }
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions.flatten() {
                let Some(attribute) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
                set_attribute(parent, name, OsStr::from_bytes(attribute), extension.value_bytes())?;
            }
        }
        if kind != tar::EntryType::Directory {
            set_time(parent, name, numbers.changed)?;
        }
        Ok(())
    }

    fn attributes_of_root<R: Read>(&self, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let numbers = Numbers::of(entry.header())?;
        rustix::fs::fchmod(&self.root, Mode::from_raw_mode(numbers.mode))?;
        let (user, group) = numbers.owner();
        Ok(rustix::fs::fchown(&self.root, user, group)?)
    }

    fn finish(self) -> io::Result<()> {
        // Deepest first: setting a time inside changes nothing outside, but order costs nothing either.
        for (path, seconds) in self.times.iter().rev() {
            match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(dir) => rustix::fs::futimens(&dir, &times(*seconds))?,
                // Replaced by a later entry.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn set_time(parent: &OwnedFd, name: &OsStr, seconds: i64) -> io::Result<()> {
    Ok(rustix::fs::utimensat(parent, name, &times(seconds), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn is_dir(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn remove_tree(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child == "." || child == ".." {
            continue;
        }
        if is_dir(&dir, child)? {
            remove_tree(&dir, child)?;
        } else {
            rustix::fs::unlinkat(&dir, child, AtFlags::empty())?;
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn whiteout(parent: &OwnedFd, name: &OsStr, hidden: &OsStr) -> io::Result<()> {
    if name == OPAQUE {
        return Ok(rustix::fs::fsetxattr(parent, "trusted.overlay.opaque", b"y", XattrFlags::empty())?);
    }
    // Other names that start with `.wh..wh.` are bookkeeping of the archive's maker.
    if hidden.is_empty()
        || hidden.as_bytes().starts_with(WHITEOUT.as_bytes())
        || hidden == "."
        || hidden == ".."
    {
        return Ok(());
    }
    match rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
        // The same layer brings the name again: that wins.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn special<R: Read>(
    entry: &tar::Entry<'_, R>,
    parent: &OwnedFd,
    name: &OsStr,
    kind: tar::EntryType,
    mode: u32,
) -> io::Result<()> {
    let header = entry.header();
    let (file_type, device) = match kind {
        // Some archives have no number fields for a fifo.
        tar::EntryType::Fifo => (FileType::Fifo, 0),
        _ => {
            let number = |field, read: fn(&tar::Header) -> io::Result<Option<u32>>| {
                Ok::<u32, io::Error>(or_blank(&header.as_bytes()[field], || read(header))?.unwrap_or(0))
            };
            let major = number(DEVICE_MAJOR, tar::Header::device_major)?;
            let minor = number(DEVICE_MINOR, tar::Header::device_minor)?;
            let file_type = match kind {
                tar::EntryType::Char => FileType::CharacterDevice,
                _ => FileType::BlockDevice,
            };
            (file_type, rustix::fs::makedev(major, minor))
        }
    };
    Ok(rustix::fs::mknodat(parent, name, file_type, Mode::from_raw_mode(mode), device)?)
}

/// Sets an extended attribute; those of the overlay itself are not for archives to set.
fn set_attribute(parent: &OwnedFd, name: &OsStr, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    if attribute.as_bytes().starts_with(b"trusted.") {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    match rustix::fs::setxattr(path.as_str(), attribute, value, XattrFlags::empty()) {
        // The file system has no such attributes, or a link cannot have them.
        Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file below a directory that an archive has filled, without leaving it.
pub fn open_inside(root: &Path, path: &Path) -> io::Result<std::fs::File> {
    let dir =
        rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), how)?.into())
}
