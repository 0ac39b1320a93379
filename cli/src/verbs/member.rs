//! `member`: the servers of a cluster.

use std::io::Write as _;
use std::path::PathBuf;

use apiserver::join::{MEMBERS, Member as Server};
use clap::{Args, Subcommand};
use client::Client;
use http::Method;
use serde_json::Value;

use super::backup::told;
use super::error::{Error, Result};
use super::output::write_json;
use super::session::{Connection, Session};
use super::tabs;
use crate::layout;

/// List and change the servers of a cluster
#[derive(Args, Debug)]
pub struct Member {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// List the servers
    List(Listing),
    /// Remove a server for good
    Remove(Which),
    /// Let a server vote without waiting until it has caught up
    Promote(Which),
    /// Hand the lead to a server
    TransferLeader(Which),
    /// When most servers are lost for good: make the one on this host, which is stopped, the only one of the cluster
    Recover(Recover),
}

#[derive(Args, Debug)]
struct Recover {
    /// Where the server keeps its data
    #[arg(long, env = layout::DATA_DIR_VARIABLE, default_value = layout::DATA_DIR)]
    data_dir: PathBuf,
    /// The other servers are lost for good, and what only they have acknowledged may be lost
    #[arg(long)]
    others_are_lost: bool,
}

#[derive(Args, Debug)]
struct Listing {
    /// json
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args, Debug)]
struct Which {
    /// Its name or id
    member: String,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `member`.
pub async fn run(arguments: &Member) -> Result<()> {
    match &arguments.what {
        What::List(arguments) => list(arguments).await,
        What::Remove(which) => {
            change(which, Method::DELETE, "", "removed; its data directory can be deleted").await
        }
        What::Promote(which) => change(which, Method::POST, "/promote", "votes").await,
        What::TransferLeader(which) => change(which, Method::POST, "/transfer-leader", "leads").await,
        What::Recover(arguments) => recover(arguments),
    }
}

async fn members(session: &Session) -> Result<Vec<Server>> {
    session.client.get_path(MEMBERS).await.map_err(|error| session.refused(error.into()))
}

async fn list(arguments: &Listing) -> Result<()> {
    let session = Session::open(&arguments.connection, "orlop").await?;
    let members = members(&session).await?;
    let mut out = std::io::stdout().lock();
    if arguments.output.is_some() {
        let value = serde_json::to_value(&members).map_err(|error| Error::Message(error.to_string()))?;
        return write_json(&value, &mut out);
    }
    let mut text = "ID\tNAME\tROLE\tLEADER\tADDRESS\tAPPLIED\n".to_owned();
    for member in members {
        let applied = member.applied_index.map_or("<unreachable>".to_owned(), |index| index.to_string());
        let leader = if member.leader { "yes" } else { "" };
        text.push_str(&format!(
            "{}\t{}\t{}\t{leader}\t{}\t{applied}\n",
            member.id, member.name, member.role, member.address
        ));
    }
    out.write_all(tabs::align(&text, tabs::TABLE).as_bytes())?;
    Ok(())
}

async fn change(which: &Which, method: Method, action: &str, done: &str) -> Result<()> {
    let session = Session::open(&which.connection, "orlop").await?;
    let members = members(&session).await?;
    let named: Vec<&Server> = members
        .iter()
        .filter(|member| member.name == which.member || member.id.to_string() == which.member)
        .collect();
    let [member] = named[..] else {
        let why = if named.is_empty() { "there is no server" } else { "there are several servers" };
        return Err(Error::Message(format!("{why} {:?}: see `orlop member list`", which.member)));
    };
    let request =
        Client::build_with(method, &format!("{MEMBERS}/{}{action}", member.id), "application/json", "")?;
    let _: Value = session.client.request(request).await?;
    eprintln!("server {} (id {}) {done}", member.name, member.id);
    Ok(())
}

fn recover(arguments: &Recover) -> Result<()> {
    if !arguments.others_are_lost {
        return Err(Error::Message(
            "this makes a cluster of one server: what it has not got is lost, and the other servers can never come back with their data. \
             If they are lost for good, say so with --others-are-lost"
                .to_owned(),
        ));
    }
    let recovered = crate::recover::recover(&arguments.data_dir).map_err(told)?;
    let gone = if recovered.gone.is_empty() { "nobody".to_owned() } else { recovered.gone.join(", ") };
    eprintln!(
        "WARNING: server {} is the only server of the cluster now. Gone for good: {gone}.",
        recovered.file.name
    );
    eprintln!("WARNING: it has {} objects; writes that it had not received are lost.", recovered.objects);
    eprintln!("what it had before is kept in {}", recovered.before.display());
    println!("orlop server --data-dir {}", arguments.data_dir.display());
    Ok(())
}
