//! Packs this executable, with the loader and the libraries that it maps, as an image: a workload without a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::archive::{Names, finish, name_with_digest};
use super::content::{Content, digest_of};
use super::manifest::{Configuration, Descriptor, Manifest, RootFs, RunConfig};
use super::{ARCHITECTURE, ImageError, ImageStore, Record, reference, unpack};

/// An image made of this executable.
#[derive(Clone, Debug, Default)]
pub struct SelfImage {
    /// `name:tag`.
    pub reference: String,
    /// Arguments after the executable's path; containers run `/orlop ARGUMENTS…` unless the pod says otherwise.
    pub arguments: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Labels; two images that differ in nothing else have different ids.
    pub labels: BTreeMap<String, String>,
}

/// Where the executable is in the image.
const PROGRAM: &str = "orlop";

/// One entry of the layer.
enum Entry {
    Dir(u32),
    Link(PathBuf),
    Text(&'static str),
    File(PathBuf),
}

/// Packs this executable. The same executable gives the same image.
pub fn pack_self(store: &ImageStore, image: &SelfImage) -> Result<Arc<Record>, ImageError> {
    let tag = reference::parse(&image.reference)?.whole();
    let entries = entries().map_err(ImageError::io("find this executable's libraries"))?;
    let state = fingerprint(&entries).map_err(ImageError::io("look at this executable"))?;
    let diff_id = match known_layer(store, &state) {
        Some(diff_id) => diff_id,
        None => make_layer(store, &entries)?,
    };
    let run = RunConfig {
        entrypoint: [format!("/{PROGRAM}")].into_iter().chain(image.arguments.iter().cloned()).collect(),
        env: image.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        working_dir: "/".to_owned(),
        labels: image.labels.clone(),
        ..RunConfig::default()
    };
    let configuration = Configuration {
        architecture: ARCHITECTURE.to_owned(),
        os: "linux".to_owned(),
        config: Some(run),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id.clone()] },
    };
    let json = |error: serde_json::Error| ImageError::Malformed(error.to_string());
    let config = serde_json::to_vec(&configuration).map_err(json)?;
    let layer = Content::layer_name(&diff_id)?;
    let descriptor = |kind: &str, digest: String, size: u64| Descriptor {
        media_type: format!("application/vnd.oci.image.{kind}"),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let manifest = serde_json::to_vec(&Manifest {
        schema_version: 2,
        media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        config: Some(descriptor("config.v1+json", digest_of(&config), config.len() as u64)),
        layers: vec![descriptor("layer.v1.tar", diff_id.clone(), 0)],
        manifests: Vec::new(),
    })
    .map_err(json)?;
    let manifest = store.content.put_blob(&manifest)?;
    let digests = name_with_digest(&tag, &manifest).into_iter().collect();
    let names = Names { tags: vec![tag], digests, manifest: Some(manifest) };
    let record = finish(store, &config, configuration, vec![layer], names)?;
    store.adopt(Record { packed_from: Some(format!("{state} {diff_id}")), ..record })
}

/// The layer that an earlier packing of the very same files has made.
fn known_layer(store: &ImageStore, state: &str) -> Option<String> {
    store
        .content
        .packed(state)
        .filter(|diff_id| Content::layer_name(diff_id).is_ok_and(|name| store.content.has_layer(&name)))
}

fn make_layer(store: &ImageStore, entries: &BTreeMap<PathBuf, Entry>) -> Result<String, ImageError> {
    let temporary = store.content.temporary();
    fs::create_dir(temporary.path()).map_err(ImageError::io("pack this executable"))?;
    // The archive is written to a pipe that the unpacker reads: it never exists as a file.
    let (reader, writer) = io::pipe().map_err(ImageError::io("pack this executable"))?;
    let outcome = std::thread::scope(|scope| {
        let packing =
            scope.spawn(|| write_archive(entries, io::BufWriter::with_capacity(256 * 1024, writer)));
        let unpacked = unpack::unpack(reader, temporary.path());
        let packed = packing.join().unwrap_or_else(|_| Err(io::Error::other("packing failed")));
        packed.and(unpacked)
    });
    let diff_id = outcome.map_err(ImageError::io("pack this executable"))?;
    store.content.publish_layer(&temporary, &Content::layer_name(&diff_id)?)?;
    Ok(diff_id)
}

fn write_archive(entries: &BTreeMap<PathBuf, Entry>, out: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    for (path, entry) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        match entry {
            Entry::Dir(mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                header.set_size(0);
                archive.append_data(&mut header, path, io::empty())?;
            }
            Entry::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                archive.append_link(&mut header, path, target)?;
            }
            Entry::Text(text) => {
                header.set_mode(0o644);
                header.set_size(text.len() as u64);
                archive.append_data(&mut header, path, text.as_bytes())?;
            }
            Entry::File(source) => {
                let file = File::open(source)?;
                header.set_mode(0o755);
                header.set_size(file.metadata()?.len());
                archive.append_data(&mut header, path, file)?;
            }
        }
    }
    archive.into_inner()?.flush()
}

/// Everything in the layer, by path.
fn entries() -> io::Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::new();
    for dir in ["dev", "etc", "proc", "sys", "root", "run", "var"] {
        entries.insert(PathBuf::from(dir), Entry::Dir(0o755));
    }
    entries.insert(PathBuf::from("tmp"), Entry::Dir(0o1777));
    entries.insert(
        PathBuf::from("etc/passwd"),
        Entry::Text("root:x:0:0:root:/root:/orlop\nnobody:x:65534:65534:nobody:/:/orlop\n"),
    );
    entries.insert(PathBuf::from("etc/group"), Entry::Text("root:x:0:\nnobody:x:65534:\n"));
    entries.insert(PathBuf::from(PROGRAM), Entry::File(PathBuf::from("/proc/self/exe")));
    for library in libraries() {
        place(&mut entries, &library)?;
    }
    Ok(entries)
}

/// Puts a library where the loader will look for it: at the same path, through the same links to directories.
fn place(entries: &mut BTreeMap<PathBuf, Entry>, library: &Path) -> io::Result<()> {
    let mut at = PathBuf::new();
    let parts: Vec<_> = library.strip_prefix("/").unwrap_or(library).components().collect();
    for (index, part) in parts.iter().enumerate() {
        at.push(part);
        if index + 1 == parts.len() {
            entries.insert(at.clone(), Entry::File(fs::canonicalize(library)?));
            return Ok(());
        }
        let host = Path::new("/").join(&at);
        if fs::symlink_metadata(&host)?.is_symlink() {
            let rest: PathBuf = parts[index + 1..].iter().collect();
            let target = fs::read_link(&host)?;
            let resolved = host.parent().unwrap_or(Path::new("/")).join(&target);
            entries.insert(at.clone(), Entry::Link(target));
            return place(entries, &resolved.join(rest));
        }
        entries.entry(at.clone()).or_insert(Entry::Dir(0o755));
    }
    Ok(())
}

/// Paths of the shared libraries of this process, the loader among them, as the loader names them.
fn libraries() -> BTreeSet<PathBuf> {
    unsafe extern "C" fn collect(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        found: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid entry, and our own pointer back.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<BTreeSet<PathBuf>>()) };
        if !info.dlpi_name.is_null() {
            // SAFETY: a non-null name is a C string that lives as long as the library is mapped.
            let name = unsafe { std::ffi::CStr::from_ptr(info.dlpi_name) };
            let path = Path::new(std::ffi::OsStr::new(name.to_str().unwrap_or_default()));
            // The executable has no name, the vDSO no path.
            if path.is_absolute() {
                found.insert(path.to_owned());
            }
        }
        0
    }
    let mut found = BTreeSet::new();
    // SAFETY: the callback gets the set that outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut found).cast()) };
    found
}

/// Tells whether the files have changed since they were packed.
fn fingerprint(entries: &BTreeMap<PathBuf, Entry>) -> io::Result<String> {
    let mut hash = Sha256::new();
    for (path, entry) in entries {
        hash.update(path.as_os_str().as_encoded_bytes());
        match entry {
            Entry::Dir(mode) => hash.update(mode.to_le_bytes()),
            Entry::Link(target) => hash.update(target.as_os_str().as_encoded_bytes()),
            Entry::Text(text) => hash.update(text),
            Entry::File(source) => {
                let meta = fs::metadata(source)?;
                let numbers =
                    [meta.dev(), meta.ino(), meta.size(), meta.mtime() as u64, meta.mtime_nsec() as u64];
                numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
            }
        }
    }
    Ok(hex::encode(hash.finalize()))
}
