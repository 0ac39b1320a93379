//! Makes a cluster of what is left of one: of a backup, or of the data of one server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use apiserver::join::BackupFacts;
use apiserver::keys::{Keyring, Succession};
use apiserver::pki::{self, Authority};
use base64::Engine as _;
use jiff::Timestamp;
use store::Keys;
use store::backup::{self, BackupError};
use store_core::checkpoint::Image;
use store_core::members::Member;

use crate::control_plane;
use crate::layout::Layout;
use crate::lock;
use crate::server::ServerFile;

/// What a backup holds.
pub struct Contents {
    /// What it says of the cluster.
    pub facts: BackupFacts,
    /// The state.
    pub image: Image,
}

/// What came of a recovery.
pub struct Recovered {
    /// The server that is left.
    pub file: ServerFile,
    /// The servers that are no more.
    pub gone: Vec<String>,
    /// How many objects there are.
    pub objects: usize,
    /// Where the data of before was moved to.
    pub before: PathBuf,
}

/// Reads and checks a backup.
///
/// # Errors
/// When it or its key cannot be read, or it is damaged.
pub fn open(file: &Path, key_file: &Path) -> Result<Contents> {
    let key = read_key(key_file)?;
    let read = backup::read(file, key).map_err(|error| match error {
        BackupError::Crypt(store_core::crypt::CryptError::WrongKey { .. }) => {
            anyhow::anyhow!("{} is not the key of {}", key_file.display(), file.display())
        }
        error => anyhow::Error::from(error),
    });
    let (facts, image) = read.with_context(|| format!("reading {}", file.display()))?;
    let facts = serde_json::from_slice(&facts).context("the backup is of an unknown form")?;
    Ok(Contents { facts, image })
}

/// Reads a key: 64 hexadecimal digits.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn read_key(path: &Path) -> Result<[u8; 32]> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading the key {}", path.display()))?;
    let bytes = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.with_context(|| format!("{} holds no key: it should be 64 hexadecimal digits", path.display()))
}

/// Makes the first server of a new cluster from a backup, in a directory without data.
///
/// # Errors
/// When there is data already, or it cannot be written.
pub fn restore(contents: Contents, data_dir: &Path, name: String, address: SocketAddr) -> Result<ServerFile> {
    let layout = Layout::new(data_dir);
    let Contents { facts, image } = contents;
    for taken in [layout.server(), layout.store(), layout.servers(), layout.pki()] {
        if taken.exists() {
            bail!(
                "{} holds a cluster already ({}): a backup is restored into an empty directory",
                data_dir.display(),
                taken.display()
            );
        }
    }
    let networks = serde_json::from_value(facts.cluster).context("the backup is of an unknown form")?;
    let seed = base64::engine::general_purpose::STANDARD
        .decode(&facts.token_seed)
        .ok()
        .and_then(|seed| <[u8; 32]>::try_from(seed).ok())
        .context("the backup is of an unknown form: tokenSeed")?;
    let keyring = Keyring {
        authority: Succession::of(pki::authority_key(&facts.authority, &facts.authority_key)?),
        token_key: Succession::of(pki::token_key(&seed)?),
        store_key: 0,
    };
    std::fs::create_dir_all(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
    Authority::install(&layout.pki(), &keyring)?;
    let authority = Authority::load_or_create(&layout.pki())?;
    let member = image.members.fresh_id();
    let known = Member { name: name.clone(), address: address.to_string() };
    store::offline::found(&layout.store(), &store_keys(&authority)?, image, member, known)?;
    let file = ServerFile { name, member, address, joined: false, networks };
    // Written last: with it the directory is a server's.
    file.write(&layout)?;
    Ok(file)
}

/// Makes the server in `data_dir` the only one of its cluster. What it had is kept beside.
///
/// # Errors
/// When it runs, or its data cannot be read.
pub fn recover(data_dir: &Path) -> Result<Recovered> {
    let layout = Layout::new(data_dir);
    let Some(file) = ServerFile::read(&layout)? else {
        bail!("{} is not the data directory of an `orlop server`", data_dir.display());
    };
    let Some(_lock) = lock::take(&layout.lock())? else {
        bail!("the server in {} runs; stop it first", data_dir.display());
    };
    let authority = Authority::load_or_create(&layout.pki())?;
    let keys = store_keys(&authority)?;
    let image = store::offline::salvage(&layout.store(), &keys, file.member)?;
    let others = image.members.iter().filter(|(id, _)| *id != file.member);
    let gone = others.map(|(_, member)| member.name.clone()).collect();
    let objects = image.snapshot.len();
    let before = data_dir.join(format!("store.before-{}", Timestamp::now().as_second()));
    std::fs::rename(layout.store(), &before).context("moving the data aside")?;
    let known = Member { name: file.name.clone(), address: file.address.to_string() };
    if let Err(error) = store::offline::found(&layout.store(), &keys, image, file.member, known) {
        // As it was: nothing is half done.
        let _ = std::fs::remove_dir_all(layout.store());
        std::fs::rename(&before, layout.store()).context("moving the data back")?;
        return Err(error.into());
    }
    let file = ServerFile { joined: false, ..file };
    file.write(&layout)?;
    Ok(Recovered { file, gone, objects, before })
}

fn store_keys(authority: &Authority) -> Result<Keys> {
    let mut keys = control_plane::store_keys(authority).into_iter();
    let active = keys.next().context("the store has no key")?;
    Ok(Keys::new(active, keys.collect()))
}
