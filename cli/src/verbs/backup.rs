//! `backup`: the whole cluster in one file, and a cluster from such a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use apiserver::join::{BACKUP, BackupRequest};
use clap::{Args, Subcommand};
use client::Client;
use http::Method;
use http_body_util::BodyExt as _;
use rand::Rng as _;
use store_core::members::Member;

use super::error::{Error, Result};
use super::session::{Connection, Session};
use super::tabs;
use crate::layout;
use crate::recover::{self, Contents};
use crate::server;

/// Back up a cluster, look into a backup, or restore one
#[derive(Args, Debug)]
pub struct Backup {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Write everything that the cluster holds into one encrypted file, while it runs
    Create(Create),
    /// Check a backup and say what is in it
    Inspect(Inspect),
    /// Make the first server of a new cluster from a backup, in an empty data directory
    Restore(Restore),
}

#[derive(Args, Debug)]
struct Create {
    /// The file to write
    file: PathBuf,
    /// The file with the key; made when it is not there. Keep it apart from the backups: without it they are lost
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The version of its format; the version before the newest is for going back to the program before
    #[arg(long, value_name = "VERSION")]
    format: Option<u32>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args, Debug)]
struct Inspect {
    /// The backup
    file: PathBuf,
    /// The file with its key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Args, Debug)]
struct Restore {
    /// The backup
    file: PathBuf,
    /// The file with its key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the server will keep its data
    #[arg(long, env = layout::DATA_DIR_VARIABLE, default_value = layout::DATA_DIR)]
    data_dir: PathBuf,
    /// The server's name; the host's name unless given
    #[arg(long)]
    name: Option<String>,
    /// The address at which other machines reach the server
    #[arg(long)]
    advertise: Option<IpAddr>,
    /// The port of the server
    #[arg(long, default_value_t = 6443)]
    port: u16,
}

/// Runs `backup`.
pub async fn run(arguments: &Backup) -> Result<()> {
    match &arguments.what {
        What::Create(arguments) => create(arguments).await,
        What::Inspect(arguments) => inspect(arguments),
        What::Restore(arguments) => restore(arguments),
    }
}

async fn create(arguments: &Create) -> Result<()> {
    let session = Session::open(&arguments.connection, "orlop").await?;
    if arguments.file.exists() {
        return Err(Error::Message(format!("{} exists already", arguments.file.display())));
    }
    if !arguments.key.exists() {
        let key: [u8; 32] = rand::rng().random();
        apiserver::pki::write_private(&arguments.key, format!("{}\n", hex::encode(key)).as_bytes())
            .map_err(told)?;
        eprintln!(
            "made the key {}: keep it apart from the backups, which are lost without it",
            arguments.key.display()
        );
    }
    let key = hex::encode(recover::read_key(&arguments.key).map_err(told)?);
    let body = serde_json::to_vec(&BackupRequest { key, format: arguments.format }).map_err(told)?;
    let request = Client::build_with(Method::POST, BACKUP, "application/json", body)?;
    let answer = session.client.stream(request).await.map_err(|error| session.refused(error.into()))?;
    let partial = arguments.file.with_extension("partial");
    let written = write(&partial, answer.into_body()).await;
    // Only what can be read is a backup.
    let checked = written.and_then(|()| recover::open(&partial, &arguments.key).map_err(told));
    match checked {
        Ok(contents) => {
            std::fs::rename(&partial, &arguments.file)?;
            eprintln!("{}: {}", arguments.file.display(), summary(&contents));
            Ok(())
        }
        Err(error) => {
            // What came of it is of no use.
            let _ = std::fs::remove_file(&partial);
            Err(error)
        }
    }
}

async fn write(path: &Path, mut body: client::ResponseBody) -> Result<()> {
    let mut file = File::create(path)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::Message(format!("the backup broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            file.write_all(&data)?;
        }
    }
    Ok(file.sync_all()?)
}

fn summary(contents: &Contents) -> String {
    let snapshot = &contents.image.snapshot;
    format!(
        "{} objects, {} MiB, as of revision {}, made {}",
        snapshot.len(),
        snapshot.data_bytes().div_ceil(1 << 20),
        snapshot.revision(),
        contents.facts.created
    )
}

fn inspect(arguments: &Inspect) -> Result<()> {
    let contents = recover::open(&arguments.file, &arguments.key).map_err(told)?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (key, _) in contents.image.snapshot.prefix(b"/") {
        let key = String::from_utf8_lossy(key);
        let kind: Vec<&str> = key.split('/').skip(1).take(2).collect();
        *counts.entry(kind.join("/")).or_default() += 1;
    }
    let mut text = "RESOURCE\tOBJECTS\n".to_owned();
    for (kind, count) in counts {
        text.push_str(&format!("{kind}\t{count}\n"));
    }
    eprintln!("{}: sound; {}", arguments.file.display(), summary(&contents));
    // The format before knows them by their ids.
    let name = |(id, member): (u64, &Member)| match member.name.is_empty() {
        true => id.to_string(),
        false => member.name.clone(),
    };
    let members: Vec<String> = contents.image.members.iter().map(name).collect();
    eprintln!("servers: {}", members.join(", "));
    std::io::stdout().lock().write_all(tabs::align(&text, tabs::TABLE).as_bytes())?;
    Ok(())
}

fn restore(arguments: &Restore) -> Result<()> {
    let contents = recover::open(&arguments.file, &arguments.key).map_err(told)?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => server::hostname().map_err(told)?,
    };
    let address = SocketAddr::new(server::advertised(arguments.advertise), arguments.port);
    let what = summary(&contents);
    let file = recover::restore(contents, &arguments.data_dir, name, address).map_err(told)?;
    eprintln!("restored {what}, as server {} (id {}) at {}", file.name, file.member, file.address);
    println!("orlop server --data-dir {}", arguments.data_dir.display());
    Ok(())
}

/// An error of what is done on this machine, with its reasons.
pub fn told(error: impl Into<anyhow::Error>) -> Error {
    Error::Message(format!("{:#}", error.into()))
}
