//! `status`: the health of the cluster at a glance.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use apiserver::join;
use clap::Args;
use client::Client;
use client::core::object::ResourceType;
use client::params::ListParams;
use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::error::Result;
use super::session::{Connection, Session};

mod summary;

use summary::View;

/// How often the view is computed anew.
const REFRESH: Duration = Duration::from_secs(1);

/// Show the health of the cluster at a glance
#[derive(Args, Debug)]
pub struct Status {
    /// Show it anew whenever it changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `status`.
pub async fn run(arguments: &Status) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let own = arguments.connection.certificate().await?;
    let terminal = std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let view = view(&session, own).await?;
        let text = summary::summary(&view, Timestamp::now(), terminal);
        if text != last {
            let mut out = std::io::stdout().lock();
            if terminal && arguments.watch {
                // Home, clear below: the new view takes the old one's place.
                write!(out, "\x1b[H\x1b[2J")?;
            }
            out.write_all(text.as_bytes())?;
            out.flush()?;
            last = text;
        }
        if !arguments.watch {
            return Ok(());
        }
        tokio::time::sleep(REFRESH).await;
    }
}

async fn view(session: &Session, own: Option<Timestamp>) -> Result<View> {
    let version: Value =
        session.client.get_path("/version").await.map_err(|error| session.refused(error.into()))?;
    let readyz = session.client.request_text(Client::build(Method::GET, "/readyz?verbose")?).await;
    // Other clusters than Orlop's know neither; those who may not ask are not told.
    let members = session.client.get_path(join::MEMBERS).await.unwrap_or_default();
    let authority = session.client.request_text(Client::build(Method::GET, join::AUTHORITY)?).await.ok();
    let authority = authority.and_then(|pem| end_of(&pem));
    let keys = session.client.get_path(join::KEYRING).await.unwrap_or_default();
    let certificates = [("authority", authority), ("your certificate", own)];
    let all = |group: &'static str, kind: &'static str, plural: &'static str| async move {
        let resource = ResourceType::new(group, "v1", kind, plural, true);
        // What may not be read is left out: the rest is still worth showing.
        match session.client.list_page(&resource, None, &ListParams::all()).await {
            Ok(mut page) => match page.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
            Err(_) => Vec::new(),
        }
    };
    let (nodes, pods, deployments, daemon_sets, stateful_sets, events) = futures::join!(
        all("", "Node", "nodes"),
        all("", "Pod", "pods"),
        all("apps", "Deployment", "deployments"),
        all("apps", "DaemonSet", "daemonsets"),
        all("apps", "StatefulSet", "statefulsets"),
        all("", "Event", "events"),
    );
    Ok(View {
        server: session.client.server_url().unwrap_or_default(),
        version,
        members,
        certificates: certificates.into_iter().filter_map(|(of, until)| Some((of, until?))).collect(),
        keys,
        readyz: match readyz {
            Ok(text) => text,
            Err(client::Error::Status(status)) => status.message.unwrap_or_default(),
            Err(error) => error.to_string(),
        },
        nodes,
        pods,
        deployments,
        daemon_sets,
        stateful_sets,
        events,
    })
}

/// When a certificate (PEM) ends.
pub fn end_of(pem: &str) -> Option<Timestamp> {
    Timestamp::try_from(apiserver::pki::validity(pem)?.1).ok()
}
