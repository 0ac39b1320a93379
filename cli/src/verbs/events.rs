//! `events`: what happened, oldest first.

use std::io::Write as _;

use clap::Args;
use client::params::ListParams;
use client::watch::RawEvent;
use jiff::Timestamp;
use serde_json::Value;

use super::describe::event;
use super::error::Result;
use super::output::{Output, list_of, without_managed_fields};
use super::session::{Connection, Session, text_at};
use super::tabs;

/// List events
#[derive(Args, Debug)]
pub struct Events {
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those about TYPE/NAME
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Only of these types: Normal, Warning
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// After the list, print what happens
    #[arg(short, long)]
    watch: bool,
    /// yaml, json, …
    #[arg(short, long)]
    output: Option<String>,
    /// No titles of columns
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `events`.
pub async fn run(arguments: &Events) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let output = Output::parse(arguments.output.as_deref())?;
    let mut params = ListParams::all();
    if let Some((kind, name)) = arguments.about.as_deref().and_then(|about| about.split_once('/')) {
        let api = session.find(kind).await?;
        params =
            params.fields(format!("involvedObject.kind={},involvedObject.name={name}", api.resource.kind));
    }
    let resource = event::resource();
    let scope = session.scope(arguments.all_namespaces);
    let list = session.client.list_page(&resource, scope, &params).await;
    let mut list = list.map_err(|error| session.refused(error.into()))?;
    let wanted = |event: &Value| {
        arguments.types.is_empty()
            || arguments.types.iter().any(|kind| kind.eq_ignore_ascii_case(text_at(event, "/type")))
    };
    let mut events = match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    events.retain(wanted);
    events.sort_by_key(|event| event::last_seen(event).to_owned());
    if !output.is_table() {
        let mut all = list_of(events);
        without_managed_fields(&mut all);
        return output.print(&all, &mut std::io::stdout().lock());
    }
    if events.is_empty() && !arguments.watch {
        match scope {
            Some(namespace) => eprintln!("No events found in {namespace} namespace."),
            None => eprintln!("No events found."),
        }
        return Ok(());
    }
    arguments.print(&events, !arguments.no_headers)?;
    if !arguments.watch {
        return Ok(());
    }
    params.resource_version = Some(text_at(&list, "/metadata/resourceVersion").to_owned());
    let mut lines = session.client.watch(&resource, scope, &params, None).await?;
    while let Some(batch) = lines.next_batch().await? {
        for line in batch {
            let change = RawEvent::parse(&line)?;
            let event: Value = serde_json::from_str(change.object.get()).map_err(client::Error::Decode)?;
            if matches!(&*change.kind, "ADDED" | "MODIFIED") && wanted(&event) {
                arguments.print(&[event], false)?;
            }
        }
    }
    Ok(())
}

// === impl Events ===

impl Events {
    fn print(&self, events: &[Value], titles: bool) -> Result<()> {
        let now = Timestamp::now();
        let place = |text: &str| if self.all_namespaces { format!("{text}\t") } else { String::new() };
        let mut text = String::new();
        if titles {
            text.push_str(&format!("{}LAST SEEN\tTYPE\tREASON\tOBJECT\tMESSAGE\n", place("NAMESPACE")));
        }
        for event in events {
            text.push_str(&format!(
                "{}{}\t{}\t{}\t{}/{}\t{}\n",
                place(text_at(event, "/metadata/namespace")),
                event::age(event, now),
                text_at(event, "/type"),
                text_at(event, "/reason"),
                text_at(event, "/involvedObject/kind"),
                text_at(event, "/involvedObject/name"),
                text_at(event, "/message").trim().replace('\n', " ")
            ));
        }
        std::io::stdout().write_all(tabs::align(&text, tabs::TABLE).as_bytes())?;
        Ok(())
    }
}
