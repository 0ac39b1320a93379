//! `token`: what machines join a cluster with.
//!
//! A token is a Secret `bootstrap-token-ID` in kube-system, so it can be seen and deleted with every client.

use std::io::Write as _;
use std::time::Duration;

use apiserver::{bootstrap, join};
use clap::{Args, Subcommand};
use client::Client;
use client::core::object::{ObjectKey, ResourceType, Target};
use client::params::{DeleteOptions, ListParams, WriteParams};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use serde_json::{Value, json};

use super::error::{Error, Result};
use super::session::{Connection, Session, text_at};
use super::{tabs, watching};
use crate::join::JoinToken;

const NAMESPACE: &str = "kube-system";

/// Make, list and revoke the tokens that machines join with
#[derive(Args, Debug)]
pub struct Token {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Make a token and print the command that joins a machine with it
    Create(Create),
    /// List the tokens; secrets are not shown
    List(Listing),
    /// Revoke tokens
    Delete(Delete),
}

#[derive(Args, Debug)]
struct Create {
    /// For how long it can be used
    #[arg(long, default_value = "24h", value_parser = watching::duration)]
    ttl: Duration,
    /// For a server; otherwise for a node
    #[arg(long)]
    for_server: bool,
    /// Print nothing but the token
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args, Debug)]
struct Listing {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args, Debug)]
struct Delete {
    /// The ids, as `token list` shows them
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `token`.
pub async fn run(arguments: &Token) -> Result<()> {
    match &arguments.what {
        What::Create(arguments) => create(arguments).await,
        What::List(arguments) => list(arguments).await,
        What::Delete(arguments) => delete(arguments).await,
    }
}

fn secrets() -> ResourceType {
    ResourceType::new("", "v1", "Secret", "secrets", true)
}

fn target(id: &str) -> Target {
    Target {
        resource: secrets(),
        key: ObjectKey::new(NAMESPACE, format!("{}{id}", bootstrap::SECRET_PREFIX)),
    }
}

async fn create(arguments: &Create) -> Result<()> {
    let session = Session::open(&arguments.connection, "orlop").await?;
    let token = mint(&session.client, arguments.for_server, arguments.ttl).await;
    let token = token.map_err(|error| session.refused(error))?;
    let mut out = std::io::stdout().lock();
    if arguments.quiet {
        writeln!(out, "{token}")?;
        return Ok(());
    }
    let role = if arguments.for_server { "server" } else { "agent" };
    writeln!(out, "orlop {role} --join {} --token {token}", address(&session).await?)?;
    Ok(())
}

/// Makes a token that lasts as long as `ttl`.
///
/// # Errors
/// When the cluster refuses.
pub async fn mint(client: &Client, for_server: bool, ttl: Duration) -> Result<JoinToken> {
    let expiration = SignedDuration::try_from(ttl)
        .ok()
        .and_then(|ttl| Timestamp::now().checked_add(ttl).ok())
        .ok_or_else(|| Error::Message("--ttl: so long nothing lasts".to_owned()))?;
    let (id, secret) = (random(6), random(16));
    let group = if for_server { join::SERVER_BOOTSTRAPPERS } else { join::NODE_BOOTSTRAPPERS };
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("{}{id}", bootstrap::SECRET_PREFIX), "namespace": NAMESPACE},
        "type": bootstrap::SECRET_TYPE,
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": expiration.to_string(),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": group,
        },
    });
    let authority = client.request_text(Client::build(Method::GET, join::AUTHORITY)?).await?;
    client.create_object(&secrets(), Some(NAMESPACE), &object, &WriteParams::default()).await?;
    JoinToken::new(format!("{id}.{secret}"), &authority).map_err(|error| Error::Message(error.to_string()))
}

/// Where a server of the cluster is reached from other machines.
async fn address(session: &Session) -> Result<String> {
    let members: Vec<join::Member> = session.client.get_path(join::MEMBERS).await?;
    let leader = members.iter().find(|member| member.leader).or(members.first());
    match leader {
        Some(member) if !member.address.is_empty() => Ok(member.address.clone()),
        _ => {
            let url = session.client.server_url().unwrap_or_default();
            Ok(url.trim_start_matches("https://").trim_end_matches('/').to_owned())
        }
    }
}

/// Lower-case letters and digits.
fn random(length: usize) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

async fn list(arguments: &Listing) -> Result<()> {
    let session = Session::open(&arguments.connection, "orlop").await?;
    let params = ListParams::all().fields(format!("type={}", bootstrap::SECRET_TYPE));
    let page = session.client.list_page(&secrets(), Some(NAMESPACE), &params).await;
    let page = page.map_err(|error| session.refused(error.into()))?;
    let mut text = "ID\tFOR\tEXPIRES\n".to_owned();
    for secret in page["items"].as_array().into_iter().flatten() {
        let data = |field: &str| decoded(text_at(secret, &format!("/data/{field}")));
        let groups = data("auth-extra-groups");
        let role = match groups.as_str() {
            join::SERVER_BOOTSTRAPPERS => "server",
            join::NODE_BOOTSTRAPPERS => "node",
            other => other,
        };
        let expires = data("expiration");
        let expires = if expires.is_empty() { "never" } else { &expires };
        text.push_str(&format!("{}\t{role}\t{expires}\n", data("token-id")));
    }
    std::io::stdout().lock().write_all(tabs::align(&text, tabs::TABLE).as_bytes())?;
    Ok(())
}

fn decoded(base64: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

async fn delete(arguments: &Delete) -> Result<()> {
    let session = Session::open(&arguments.connection, "orlop").await?;
    for id in &arguments.ids {
        // The whole token names itself as well as its id does.
        let id = id.split('.').next().unwrap_or_default();
        let _: Value = session.client.delete_object(&target(id), &DeleteOptions::default()).await?;
        eprintln!("token {id} revoked");
    }
    Ok(())
}
