//! Archives, honest and hostile, into stores in temporary directories. Needs root: layers have owners and devices.
//!
//! Without harness, so that it can say at run time that root is missing.

#![expect(clippy::unwrap_used, reason = "a test; the attribute that tells so is missing without harness")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use nodeagent::images::*;
use sha2::Digest;

const TESTS: &[(&str, fn())] = &[
    ("ordinary_entries_arrive_with_times", ordinary_entries_arrive_with_times),
    (
        "compressed_archives_have_the_digest_of_the_plain_one",
        compressed_archives_have_the_digest_of_the_plain_one,
    ),
    ("names_that_lead_upwards_are_refused", names_that_lead_upwards_are_refused),
    ("links_do_not_lead_out", links_do_not_lead_out),
    ("whiteouts_become_what_the_overlay_reads", whiteouts_become_what_the_overlay_reads),
    ("later_entries_replace_earlier_ones", later_entries_replace_earlier_ones),
    ("a_fifo_without_device_numbers_is_made", a_fifo_without_device_numbers_is_made),
    ("blank_numbers_count_as_zero", blank_numbers_count_as_zero),
    ("docker_archives_are_loaded_found_and_removed", docker_archives_are_loaded_found_and_removed),
    (
        "content_is_shared_between_nodes_and_kept_while_any_needs_it",
        content_is_shared_between_nodes_and_kept_while_any_needs_it,
    ),
    ("a_layer_that_is_not_what_it_claims_is_refused", a_layer_that_is_not_what_it_claims_is_refused),
    ("this_executable_packs_the_same_every_time", this_executable_packs_the_same_every_time),
    ("another_process_is_noticed", another_process_is_noticed),
    ("pulls_are_resumed_authorised_and_shared", pulls_are_resumed_authorised_and_shared),
    ("what_a_registry_refuses_is_told", what_a_registry_refuses_is_told),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    let root = rustix::process::geteuid().is_root();
    println!("\nrunning {} tests", TESTS.len());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, test) in
        TESTS.iter().filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted.as_str())))
    {
        let (verdict, count) = match root {
            false => ("ignored, needs root", &mut ignored),
            true if std::panic::catch_unwind(test).is_ok() => ("ok", &mut passed),
            true => ("FAILED", &mut failed),
        };
        *count += 1;
        println!("test {name} ... {verdict}");
    }
    println!("\ntest result: {passed} passed; {failed} failed; {ignored} ignored\n");
    ExitCode::from(u8::from(failed > 0))
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Layer {
        Layer(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, body: &[u8]) -> Layer {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(body.len() as u64);
        // Written raw: the builder would refuse hostile names.
        let name = &mut header.as_mut_bytes()[..100];
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, body).unwrap();
        self
    }

    fn file(self, path: &str, body: &str) -> Layer {
        self.entry(tar::EntryType::Regular, path, "", body.as_bytes())
    }

    fn dir(self, path: &str) -> Layer {
        self.entry(tar::EntryType::Directory, path, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Layer {
        self.entry(tar::EntryType::Symlink, path, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn unpacked(layer: Layer) -> (tempfile::TempDir, std::io::Result<String>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    std::fs::write(dir.path().join("secret"), "untouched").unwrap();
    let outcome = unpack::unpack(layer.bytes().as_slice(), &dir.path().join("root"));
    assert_eq!(std::fs::read_to_string(dir.path().join("secret")).unwrap(), "untouched");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "something escaped");
    (dir, outcome)
}

fn ordinary_entries_arrive_with_times() {
    let layer =
        Layer::new().dir("etc/").file("etc/motd", "hello").symlink("lib", "usr/lib").file("lib/x", "x");
    let plain = Layer::new()
        .dir("etc/")
        .file("etc/motd", "hello")
        .symlink("lib", "usr/lib")
        .file("lib/x", "x")
        .bytes();
    let (dir, outcome) = unpacked(layer);
    assert_eq!(outcome.unwrap(), digest_of(&plain));
    let root = dir.path().join("root");
    assert_eq!(std::fs::read_to_string(root.join("etc/motd")).unwrap(), "hello");
    assert_eq!(std::fs::metadata(root.join("etc")).unwrap().mtime(), 1_000_000);
    assert_eq!(std::fs::metadata(root.join("etc/motd")).unwrap().mtime(), 1_000_000);
}

fn compressed_archives_have_the_digest_of_the_plain_one() {
    let plain = Layer::new().file("a", "content").bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for packed in [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unpack::unpack(packed.as_slice(), dir.path()).unwrap(), digest_of(&plain));
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "content");
    }
}

fn names_that_lead_upwards_are_refused() {
    for path in ["../secret", "a/../../secret", "/../secret"] {
        let (_dir, outcome) = unpacked(Layer::new().file(path, "overwritten"));
        assert!(outcome.is_err(), "{path}");
    }
}

fn links_do_not_lead_out() {
    let (dir, outcome) = unpacked(Layer::new().symlink("up", "..").file("up/secret", "overwritten"));
    outcome.unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("root/secret")).unwrap(), "overwritten");
    let (_dir, outcome) = unpacked(Layer::new().symlink("secret", "../secret").file("secret", "overwritten"));
    outcome.unwrap();
    let (_dir, outcome) =
        unpacked(Layer::new().symlink("abs", "/").symlink("abs/x", "/etc").file("x/passwd", "mine"));
    outcome.unwrap();
    let (_dir, outcome) = unpacked(
        Layer::new().entry(tar::EntryType::Link, "stolen", "../secret", b"").file("stolen", "overwritten"),
    );
    assert!(outcome.is_err());
    let (_dir, outcome) = unpacked(
        Layer::new()
            .symlink("up", "..")
            .entry(tar::EntryType::Link, "stolen", "up/secret", b"")
            .file("stolen", "x"),
    );
    assert!(outcome.is_err());
}

fn whiteouts_become_what_the_overlay_reads() {
    let (dir, outcome) = unpacked(
        Layer::new().file("etc/.wh.gone", "").dir("var/").file("var/.wh..wh..opq", "").file(".wh...", ""),
    );
    outcome.unwrap();
    let gone = std::fs::symlink_metadata(dir.path().join("root/etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    let mut value = [0u8; 8];
    let n =
        rustix::fs::getxattr(dir.path().join("root/var"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"y");
}

fn later_entries_replace_earlier_ones() {
    let (dir, outcome) = unpacked(Layer::new().dir("a/").file("a/b", "1").file("a", "2").file("a", "3"));
    outcome.unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("root/a")).unwrap(), "3");
}

fn a_fifo_without_device_numbers_is_made() {
    let (dir, outcome) = unpacked(Layer::new().entry(tar::EntryType::Fifo, "pipe", "", b""));
    outcome.unwrap();
    assert!(std::fs::symlink_metadata(dir.path().join("root/pipe")).unwrap().file_type().is_fifo());
}

fn store(dir: &Path, owner: &str) -> Arc<ImageStore> {
    ImageStore::open(ImageStoreConfig {
        content: dir.to_owned(),
        owner: owner.to_owned(),
        mirrors: BTreeMap::new(),
        plain_http: Vec::new(),
        parallel_layers: 3,
    })
    .unwrap()
}

fn docker_archive(dir: &Path, tag: &str, body: &str) -> PathBuf {
    let layer = Layer::new().file("hello", body).bytes();
    let config = format!(
        r#"{{"architecture":"{ARCHITECTURE}","os":"linux","config":{{"Cmd":["/hello"],"User":"7"}},
            "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest_of(&layer)
    );
    let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["{tag}"],"Layers":["l/layer.tar"]}}]"#);
    let archive = Layer::new().file("manifest.json", &manifest).file("c.json", &config).dir("l/");
    let archive = archive.entry(tar::EntryType::Regular, "l/layer.tar", "", &layer).bytes();
    let path = dir.join("image.tar");
    std::fs::write(&path, archive).unwrap();
    path
}

/// As Go's `archive/tar` reads them.
fn blank_numbers_count_as_zero() {
    for blank in [b' ', 0] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(5);
        header.as_mut_bytes()[..5].copy_from_slice(b"blank");
        // User, group and time.
        header.as_mut_bytes()[108..124].fill(blank);
        header.as_mut_bytes()[136..148].fill(blank);
        header.set_cksum();
        let mut layer = Layer::new();
        layer.0.append(&header, &b"hello"[..]).unwrap();
        header.as_mut_bytes()[..6].copy_from_slice(b"device");
        header.set_entry_type(tar::EntryType::Char);
        header.set_size(0);
        header.as_mut_bytes()[100..108].fill(blank);
        header.as_mut_bytes()[329..345].fill(blank);
        header.set_cksum();
        layer.0.append(&header, &b""[..]).unwrap();
        let (dir, outcome) = unpacked(layer);
        outcome.unwrap();
        let file = dir.path().join("root/blank").metadata().unwrap();
        assert_eq!((file.uid(), file.gid(), file.mtime()), (0, 0, 0));
        let device = dir.path().join("root/device").metadata().unwrap();
        assert_eq!((device.rdev(), device.mode() & 0o7777), (0, 0));
    }
}

fn docker_archives_are_loaded_found_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let content = dir.path().join("content");
    let images = store(&content, "node-1");
    let loaded = images.load_archive(&docker_archive(dir.path(), "hello:1", "one")).unwrap();
    assert_eq!(loaded[0].tags, ["docker.io/library/hello:1"]);
    assert_eq!(images.find("hello:1").unwrap().unwrap().run.user, "7");
    assert_eq!(images.find(&loaded[0].id).unwrap().unwrap().id, loaded[0].id);
    assert_eq!(images.find("hello:2").unwrap(), None);

    let newer = images.load_archive(&docker_archive(dir.path(), "hello:1", "two")).unwrap();
    assert_ne!(newer[0].id, loaded[0].id);
    assert_eq!(images.find("hello:1").unwrap().unwrap().id, newer[0].id);
    assert!(images.find(&loaded[0].id).unwrap().unwrap().tags.is_empty());

    drop(images);
    let images = store(&content, "node-1");
    assert_eq!(images.list().len(), 2);
    images.remove(&loaded[0].id).unwrap();
    let layers = || std::fs::read_dir(content.join("layers")).unwrap().count();
    assert_eq!(layers(), 2, "the other image's layer and the empty one");
    images.remove("hello:1").unwrap();
    assert_eq!(layers(), 1);
}

fn content_is_shared_between_nodes_and_kept_while_any_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let content = dir.path().join("content");
    let (one, two) = (store(&content, "node-1"), store(&content, "node-2"));
    let archive = docker_archive(dir.path(), "hello:1", "one");
    let first = one.load_archive(&archive).unwrap();
    let second = two.load_archive(&archive).unwrap();
    assert_eq!(first[0].layers, second[0].layers);
    one.remove("hello:1").unwrap();
    drop(one);
    two.touch(&second[0].id, Timestamp::UNIX_EPOCH);
    assert!(two.layers_dir().join(&second[0].layers[0]).join("hello").exists());
    two.remove("hello:1").unwrap();
    assert!(!two.layers_dir().join(&second[0].layers[0]).exists());
}

fn a_layer_that_is_not_what_it_claims_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let images = store(&dir.path().join("content"), "node-1");
    let (honest, config) =
        (Layer::new().file("hello", "one").bytes(), docker_archive(dir.path(), "a:1", "one"));
    assert!(images.load_archive(&config).is_ok());
    let text = std::fs::read(&config).unwrap();
    let claim = digest_of(&honest).into_bytes();
    let at = text.windows(claim.len()).position(|window| window == claim).unwrap();
    let mut forged = text.clone();
    forged[at + 10] = if forged[at + 10] == b'0' { b'1' } else { b'0' };
    std::fs::write(&config, forged).unwrap();
    assert!(matches!(images.load_archive(&config), Err(ImageError::Malformed(_))));
    assert_eq!(std::fs::read_dir(dir.path().join("content/tmp")).unwrap().count(), 0);
    let junk = dir.path().join("junk");
    std::fs::write(&junk, "not an archive").unwrap();
    assert!(images.load_archive(&junk).is_err());
}

fn another_process_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let content = dir.path().join("content");
    let (agent, loader) = (store(&content, "node-1"), store(&content, "node-1"));
    assert_eq!(agent.find("hello:1").unwrap(), None);
    loader.load_archive(&docker_archive(dir.path(), "hello:1", "one")).unwrap();
    assert!(agent.find("hello:1").unwrap().is_some());
}

fn this_executable_packs_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (store(&dir.path().join("a"), "n"), store(&dir.path().join("b"), "n"));
    let image = SelfImage { reference: "orlop.dev/demo:v1".to_owned(), ..SelfImage::default() };
    let first = one.pack_self(&image).unwrap();
    assert_eq!(first.id, two.pack_self(&image).unwrap().id);
    assert_eq!(first.id, one.pack_self(&image).unwrap().id);
    let labels = BTreeMap::from([("version".to_owned(), "2".to_owned())]);
    let other = SelfImage { reference: "orlop.dev/demo:v2".to_owned(), labels, ..SelfImage::default() };
    let second = one.pack_self(&other).unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(first.layers, second.layers);
    assert!(one.layers_dir().join(&first.layers[0]).join("orlop").exists());
}

/// A registry on loopback that wants a bearer token and breaks the first download of a layer off.
struct Registry {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    fn start(blobs: BTreeMap<String, Vec<u8>>, manifest: Vec<u8>, layer: String) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, own) = (Arc::clone(&requests), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &own, &blobs, &manifest, &layer, &log);
            }
        });
        Registry { address, requests }
    }

    fn count(&self, part: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

fn answer(
    mut stream: TcpStream,
    own: &str,
    blobs: &BTreeMap<String, Vec<u8>>,
    manifest: &[u8],
    layer: &str,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut range, mut token) = (String::new(), None, false);
    reader.read_line(&mut line)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let header = header.to_ascii_lowercase();
        if let Some(from) = header.strip_prefix("range: bytes=") {
            range = from.split('-').next().and_then(|from| from.parse::<usize>().ok());
        }
        token |= header.trim() == "authorization: bearer secret";
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let broken_before = log.lock().unwrap().iter().any(|line| line.contains(layer));
    if !path.starts_with("/token") && token {
        log.lock().unwrap().push(format!("{path} {range:?}"));
    }
    let mut send = |status: &str, headers: &str, body: &[u8], promised: usize| {
        write!(
            stream,
            "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {promised}\r\n\r\n"
        )?;
        stream.write_all(body)
    };
    if path.starts_with("/token") {
        let body = br#"{"token":"secret","expires_in":300}"#;
        return send("200 OK", "content-type: application/json\r\n", body, body.len());
    }
    if !token {
        let ask = format!("www-authenticate: Bearer realm=\"http://{own}/token\",service=\"test\"\r\n");
        return send("401 Unauthorized", &ask, b"", 0);
    }
    if path.contains("/manifests/v1") {
        let kind = "content-type: application/vnd.oci.image.manifest.v1+json\r\n";
        return send("200 OK", kind, manifest, manifest.len());
    }
    match path.rsplit('/').next().and_then(|digest| blobs.get_key_value(digest)) {
        Some((digest, body)) if digest == layer && !broken_before => {
            send("200 OK", "", &body[..body.len() / 2], body.len())
        }
        Some((_, body)) => match range {
            Some(from) => send("206 Partial Content", "", &body[from..], body.len() - from),
            None => send("200 OK", "", body, body.len()),
        },
        None if path == "/v2/" => send("200 OK", "", b"", 0),
        None => {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            send("404 Not Found", "", body, body.len())
        }
    }
}

fn registry() -> Registry {
    let noise: String =
        (0..200_000u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 28) as u8)).collect();
    let plain = Layer::new().file("hello", &noise).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let layer = gzip.finish().unwrap();
    let config = format!(
        r#"{{"architecture":"{ARCHITECTURE}","os":"linux","config":{{"Cmd":["/hello"]}},
            "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest_of(&plain)
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{}}}]}}"#,
        digest_of(config.as_bytes()),
        config.len(),
        digest_of(&layer),
        layer.len()
    );
    let name = digest_of(&layer);
    let blobs = BTreeMap::from([(digest_of(config.as_bytes()), config.into_bytes()), (name.clone(), layer)]);
    Registry::start(blobs, manifest.into_bytes(), name)
}

fn in_runtime<T>(work: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

fn pulls_are_resumed_authorised_and_shared() {
    let dir = tempfile::tempdir().unwrap();
    let (images, registry) = (store(&dir.path().join("content"), "node-1"), registry());
    let name = format!("{}/team/hello:v1", registry.address);
    let (one, two) =
        in_runtime(async { futures::future::join(images.pull(&name, None), images.pull(&name, None)).await });
    let record = one.unwrap();
    assert_eq!(record.id, two.unwrap().id);
    assert_eq!(registry.count("/manifests/v1"), 1, "two pulls of one image are one");
    assert!(registry.count("Some(") >= 1, "the download was not resumed");
    assert_eq!(images.find(&name).unwrap().unwrap().id, record.id);
    assert!(record.digests[0].starts_with(&format!("{}/team/hello@sha256:", registry.address)));
    let text = std::fs::read_to_string(images.layers_dir().join(&record.layers[0]).join("hello")).unwrap();
    assert_eq!(text.len(), 200_000);
    assert_eq!(images.find(&record.digests[0]).unwrap().unwrap().id, record.id);
}

fn what_a_registry_refuses_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (images, registry) = (store(&dir.path().join("content"), "node-1"), registry());
    let name = format!("{}/team/hello:v2", registry.address);
    let error = in_runtime(images.pull(&name, None)).unwrap_err();
    assert!(
        matches!(&error, ImageError::Registry(text) if text.to_lowercase().contains("manifest unknown")),
        "{error:?}"
    );
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = in_runtime(images.pull(&format!("{free}/x:v1"), None)).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
}
