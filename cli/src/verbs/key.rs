//! `key`: the keys that a cluster lives by, and how one takes the place of another while everything goes on.

use std::io::Write as _;
use std::time::Duration;

use apiserver::join::{KEYRING, RotationRequest};
use apiserver::keys::{KeyringStatus, SuccessionStatus};
use clap::{Args, Subcommand, ValueEnum};
use client::Client;
use http::Method;
use serde_json::Value;

use super::error::{Error, Result};
use super::session::{Connection, Session};
use super::{tabs, watching};

/// How often it is looked whether a rotation has come further.
const PACE: Duration = Duration::from_secs(1);

/// List and rotate the keys of a cluster
#[derive(Args, Debug)]
pub struct Key {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show the keys, and what a rotation waits for
    List(Listing),
    /// Put a new key in the place of one; certificates, tokens and requests of before stay good meanwhile
    Rotate(Rotate),
    /// Accept keys no longer that were replaced: before their time, when nobody needs them any more
    DropOld(DropOld),
}

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Signs the certificates of servers, nodes and administrators
    Authority,
    /// Signs the tokens of ServiceAccounts
    ServiceAccount,
    /// Encrypts what servers keep on their disks
    Store,
}

#[derive(Args, Debug)]
struct Listing {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args, Debug)]
struct Rotate {
    /// Which key
    kind: Kind,
    /// For how long the key before is accepted once the new one is used
    #[arg(long, default_value = "24h", value_parser = watching::duration)]
    keep_old_for: Duration,
    /// Return when the new key is in use everywhere
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args, Debug)]
struct DropOld {
    /// Which key
    kind: Kind,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `key`.
pub async fn run(arguments: &Key) -> Result<()> {
    match &arguments.what {
        What::List(arguments) => list(arguments).await,
        What::Rotate(arguments) => rotate(arguments).await,
        What::DropOld(arguments) => drop_old(arguments).await,
    }
}

// === impl Kind ===

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Authority => "authority",
            Kind::ServiceAccount => "service-account",
            Kind::Store => "store",
        }
    }

    fn of(self, status: &KeyringStatus) -> &SuccessionStatus {
        match self {
            Kind::Authority => &status.authority,
            Kind::ServiceAccount => &status.token_key,
            Kind::Store => &status.store_key,
        }
    }
}

async fn list(arguments: &Listing) -> Result<()> {
    let session = Session::open(&arguments.connection, "orlop").await?;
    let status = status(&session).await?;
    let mut text = "KEY\tIN USE\tANNOUNCED\tSTILL ACCEPTED\tWAITS FOR\n".to_owned();
    for kind in [Kind::Authority, Kind::ServiceAccount, Kind::Store] {
        let of = kind.of(&status);
        let former: Vec<String> =
            of.former.iter().map(|(id, until)| format!("{id} until {until:.0}")).collect();
        let next = of.next.as_deref().unwrap_or_default();
        let line = [kind.name(), &of.current, next, &former.join(", "), &of.waits_for.join(", ")].join("\t");
        text.push_str(&format!("{line}\n"));
    }
    std::io::stdout().lock().write_all(tabs::align(&text, tabs::TABLE).as_bytes())?;
    Ok(())
}

async fn status(session: &Session) -> Result<KeyringStatus> {
    session.client.get_path(KEYRING).await.map_err(|error| session.refused(error.into()))
}

async fn rotate(arguments: &Rotate) -> Result<()> {
    let session = Session::open(&arguments.connection, "orlop").await?;
    let (kind, name) = (arguments.kind, arguments.kind.name());
    let before = status(&session).await?;
    let request = RotationRequest { keep_old_seconds: arguments.keep_old_for.as_secs() };
    let body = serde_json::to_vec(&request).map_err(|error| Error::Message(error.to_string()))?;
    post(&session, &format!("{KEYRING}/{name}/rotate"), body).await?;
    if !arguments.wait {
        eprintln!("the {name} key is being rotated; `orlop status` shows what that waits for");
        return Ok(());
    }
    let mut told = String::new();
    loop {
        // A server that is asked may not have heard of it yet, or may be started anew meanwhile.
        if let Ok(now) = status(&session).await {
            let of = kind.of(&now);
            if of.current != kind.of(&before).current && of.next.is_none() && of.waits_for.is_empty() {
                eprintln!("the {name} key was rotated: {} is in use", of.current);
                return Ok(());
            }
            let waits = of.waits_for.join(", ");
            if !waits.is_empty() && waits != told {
                eprintln!("waiting for {waits}");
                told = waits;
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn drop_old(arguments: &DropOld) -> Result<()> {
    let session = Session::open(&arguments.connection, "orlop").await?;
    let name = arguments.kind.name();
    if arguments.kind == Kind::Store {
        let message = "a server forgets the store's old key by itself, as soon as no file needs it";
        return Err(Error::Message(message.to_owned()));
    }
    post(&session, &format!("{KEYRING}/{name}/drop-old"), Vec::new()).await?;
    eprintln!("{name} keys of before are accepted no longer than somebody has certificates of them");
    Ok(())
}

async fn post(session: &Session, path: &str, body: Vec<u8>) -> Result<()> {
    let request = Client::build_with(Method::POST, path, "application/json", body)?;
    let _: Value = session.client.request(request).await?;
    Ok(())
}
