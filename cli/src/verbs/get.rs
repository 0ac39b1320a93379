//! `get`: objects as tables, JSON, YAML, names, templates; once, or as they change.

use std::io::Write as _;

use clap::Args;
use client::Client;
use client::params::ListParams;
use client::watch::RawEvent;
use http::{Method, header};
use serde_json::Value;

use super::discovery::ApiResource;
use super::error::{Error, Result, message};
use super::jsonpath::Template;
use super::output::{Output, in_columns, list_of, without_managed_fields, write_json};
use super::select::{self, PAGE, Selection, Words};
use super::session::{Connection, Session, text_at};
use super::table::{self, Printer, Table, View};
use super::{manifest, yaml};

const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Display one or many objects
#[derive(Args, Debug)]
pub struct Get {
    #[command(flatten)]
    selection: Selection,
    /// wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=SPEC, …
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// After the list, print changes
    #[arg(short, long)]
    watch: bool,
    /// Print changes only
    #[arg(long)]
    watch_only: bool,
    /// Sort by what a JSONPath finds in each object
    #[arg(long, value_name = "PATH")]
    sort_by: Option<String>,
    /// No titles of columns
    #[arg(long)]
    no_headers: bool,
    /// A last column with all labels
    #[arg(long)]
    show_labels: bool,
    /// Columns with the values of these labels
    #[arg(short = 'L', long, value_delimiter = ',', value_name = "LABELS")]
    label_columns: Vec<String>,
    /// Names carry their kind
    #[arg(long)]
    show_kind: bool,
    /// Also print managedFields
    #[arg(long)]
    show_managed_fields: bool,
    /// It is no failure when an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// How many objects are asked for at once; 0 is all
    #[arg(long, default_value_t = PAGE)]
    chunk_size: u32,
    /// Print a path of the API as the server answers it
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// What is asked for: a collection, or one object of it.
struct Wanted {
    api: ApiResource,
    namespace: Option<String>,
    name: Option<String>,
}

/// Runs `get`.
pub async fn run(arguments: &Get) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    if let Some(path) = &arguments.raw {
        let text = session.client.request_bytes(Client::build(Method::GET, path)?).await;
        std::io::stdout().write_all(&text.map_err(|error| session.refused(error.into()))?)?;
        return Ok(());
    }
    let output = Output::parse(arguments.output.as_deref())?;
    let wanted = wanted(arguments, &session).await?;
    let get = Run { arguments, session: &session, output: &output };
    if arguments.watch || arguments.watch_only {
        return match wanted.as_slice() {
            [one] => get.watch(one).await,
            _ => message("you may only specify a single resource type"),
        };
    }
    if output.is_table() { get.tables(&wanted).await } else { get.objects(&wanted).await }
}

async fn wanted(arguments: &Get, session: &Session) -> Result<Vec<Wanted>> {
    let selection = &arguments.selection;
    if !selection.files.is_empty() {
        let resolved = manifest::resolve(session, selection.files.read()?).await?;
        return Ok(resolved
            .into_iter()
            .map(|one| Wanted {
                namespace: one.target.key.namespace_opt().map(str::to_owned),
                name: Some(one.target.key.name.to_string()),
                api: one.api,
            })
            .collect());
    }
    let scope = session.scope(selection.all_namespaces).map(str::to_owned);
    match select::read_words(session.discovery().await?, &selection.words)? {
        Words::Types(types) => {
            Ok(types.into_iter().map(|api| Wanted { api, namespace: scope.clone(), name: None }).collect())
        }
        Words::Names(_) if selection.selector.is_some() => {
            message("name cannot be provided when a selector is specified")
        }
        Words::Names(_) if selection.all_namespaces => {
            message("a resource cannot be retrieved by name across all namespaces")
        }
        Words::Names(pairs) => Ok(pairs
            .into_iter()
            .map(|(api, name)| Wanted { api, namespace: scope.clone(), name: Some(name) })
            .collect()),
    }
}

struct Run<'a> {
    arguments: &'a Get,
    session: &'a Session,
    output: &'a Output,
}

// === impl Run ===

impl Run<'_> {
    fn view(&self, with_kind: Option<String>, api: &ApiResource) -> View {
        View {
            wide: matches!(self.output, Output::Table { wide: true }),
            with_namespace: self.arguments.selection.all_namespaces && api.resource.namespaced,
            with_kind: with_kind.or_else(|| self.arguments.show_kind.then(|| api.qualified_kind())),
            show_labels: self.arguments.show_labels,
            label_columns: self.arguments.label_columns.clone(),
            no_headers: self.arguments.no_headers,
        }
    }

    fn params(&self, wanted: &Wanted) -> ListParams {
        let chunk = self.arguments.chunk_size;
        let mut params =
            ListParams { limit: (chunk > 0).then_some(chunk), ..self.arguments.selection.params() };
        if let Some(name) = &wanted.name {
            params.field_selector = Some(format!("metadata.name={name}"));
        }
        params
    }

    async fn tables(&self, wanted: &[Wanted]) -> Result<()> {
        let mut errors = Vec::new();
        let mut printed = false;
        let mut at = 0;
        let several = wanted.first().is_some_and(|first| wanted.iter().any(|one| one.api != first.api));
        while let Some(first) = wanted.get(at) {
            // Objects of one type in a row share a table.
            let run =
                wanted.get(at..).unwrap_or_default().iter().take_while(|one| one.api == first.api).count();
            let view = self.view(several.then(|| first.api.qualified_kind()), &first.api);
            let mut printer = Printer::default();
            for one in wanted.get(at..at + run).unwrap_or_default() {
                match self.fill(one, &view, &mut printer).await {
                    Err(error) if error.is_not_found() && self.arguments.ignore_not_found => {}
                    Err(error) => errors.push(self.session.refused(error)),
                    Ok(()) => {}
                }
            }
            if !printer.is_empty() {
                let mut out = std::io::stdout().lock();
                if printed {
                    writeln!(out)?;
                }
                out.write_all(printer.take().as_bytes())?;
                printed = true;
            }
            at += run;
        }
        if !printed && errors.is_empty() && !self.arguments.ignore_not_found {
            self.tell_empty(wanted);
        }
        Error::all(errors)
    }

    fn tell_empty(&self, wanted: &[Wanted]) {
        let namespaced = wanted.iter().any(|one| one.api.resource.namespaced);
        if namespaced && !self.arguments.selection.all_namespaces {
            eprintln!("No resources found in {} namespace.", self.session.namespace);
        } else {
            eprintln!("No resources found");
        }
    }

    /// Reads the pages of one collection (or one object) into the printer.
    async fn fill(&self, wanted: &Wanted, view: &View, printer: &mut Printer) -> Result<()> {
        let mut params = self.params(wanted);
        let sort = self.arguments.sort_by.as_deref().map(Template::relaxed).transpose()?;
        let mut kept: Option<Table> = None;
        loop {
            let mut page = self.page(wanted, &params, sort.is_some()).await?;
            let token = std::mem::take(&mut page.metadata.continue_token);
            match (&sort, &mut kept) {
                (None, _) => printer.add(page, view),
                (Some(_), None) => kept = Some(page),
                (Some(_), Some(kept)) => kept.rows.append(&mut page.rows),
            }
            if token.is_empty() {
                break;
            }
            params.continue_token = Some(token);
        }
        if let (Some(path), Some(mut table)) = (&sort, kept) {
            table::sort(&mut table.rows, path)?;
            printer.add(table, view);
        }
        Ok(())
    }

    async fn page(&self, wanted: &Wanted, params: &ListParams, whole: bool) -> Result<Table> {
        let resource = &wanted.api.resource;
        let namespace = wanted.namespace.as_deref();
        let include = if whole { "Object" } else { "Metadata" };
        let path = match &wanted.name {
            Some(name) => format!("{}?includeObject={include}", resource.object_path(namespace, name, None)),
            None => {
                let mut path = format!("{}?includeObject={include}", resource.collection_path(namespace));
                for (name, value) in [
                    ("labelSelector", params.label_selector.clone()),
                    ("fieldSelector", params.field_selector.clone()),
                    ("limit", params.limit.map(|limit| limit.to_string())),
                    ("continue", params.continue_token.clone()),
                ] {
                    if let Some(value) = value {
                        path.push_str(&format!("&{name}={}", encoded(&value)));
                    }
                }
                path
            }
        };
        let mut request = Client::build(Method::GET, &path)?;
        request.headers_mut().insert(header::ACCEPT, http::HeaderValue::from_static(AS_TABLE));
        let bytes = self.session.client.request_bytes(request).await?;
        let table: Table = serde_json::from_slice(&bytes).map_err(client::Error::Decode)?;
        if table.column_definitions.is_empty() && table.rows.is_empty() {
            return plain_table(&bytes);
        }
        Ok(table)
    }

    async fn objects(&self, wanted: &[Wanted]) -> Result<()> {
        let mut items = Vec::new();
        let mut errors = Vec::new();
        for one in wanted {
            match self.collect(one, &mut items).await {
                Err(error) if error.is_not_found() && self.arguments.ignore_not_found => {}
                Err(error) => errors.push(self.session.refused(error)),
                Ok(()) => {}
            }
        }
        let single = wanted.len() == 1 && wanted.iter().all(|one| one.name.is_some());
        if let Some(path) = self.arguments.sort_by.as_deref().map(Template::relaxed).transpose()? {
            items.sort_by(|left: &Value, right| {
                let key = |value| path.find(value).ok().and_then(|found: Vec<&Value>| found.first().copied());
                table::compare(key(left), key(right))
            });
        }
        let answer = match (single, items.len()) {
            (true, 0) => None,
            (true, _) => items.pop(),
            (false, _) if items.is_empty() && !errors.is_empty() => None,
            (false, _) => Some(list_of(items)),
        };
        if let Some(mut answer) = answer {
            if !self.arguments.show_managed_fields {
                without_managed_fields(&mut answer);
            }
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            match self.output {
                Output::Columns(columns) => {
                    out.write_all(in_columns(columns, &answer, !self.arguments.no_headers)?.as_bytes())?;
                }
                output => output.print(&answer, &mut out)?,
            }
            out.flush()?;
        }
        Error::all(errors)
    }

    async fn collect(&self, wanted: &Wanted, items: &mut Vec<Value>) -> Result<()> {
        let client = &self.session.client;
        match &wanted.name {
            Some(name) => {
                let path = wanted.api.resource.object_path(wanted.namespace.as_deref(), name, None);
                items.push(client.get_path(&path).await?);
                Ok(())
            }
            None => {
                let params = self.params(wanted);
                select::each(self.session, &wanted.api, wanted.namespace.as_deref(), params, |item| {
                    items.push(item);
                    Ok(())
                })
                .await
            }
        }
    }

    /// The list, then its changes, until interrupted.
    async fn watch(&self, wanted: &Wanted) -> Result<()> {
        let view = self.view(None, &wanted.api);
        let mut printer = Printer::default();
        let params = ListParams { limit: None, ..self.params(wanted) };
        let mut version = self.watch_start(wanted, &params, &view, &mut printer).await?;
        loop {
            let params = ListParams { resource_version: Some(version.clone()), ..params.clone() };
            let accept = if self.output.is_table() { AS_TABLE } else { "application/json" };
            let resource = &wanted.api.resource;
            let watch =
                self.session.client.watch_as(resource, wanted.namespace.as_deref(), &params, None, accept);
            let mut lines = watch.await?;
            while let Some(batch) = lines.next_batch().await? {
                for line in batch {
                    let event = RawEvent::parse(&line)?;
                    if event.kind == "ERROR" {
                        let status: Value = serde_json::from_str(event.object.get()).unwrap_or_default();
                        return message(text_at(&status, "/message"));
                    }
                    if let Some(seen) = self.print_event(&event, &wanted.api, &view, &mut printer)? {
                        version = seen;
                    }
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }

    /// Prints the list that a watch starts from, and returns its version.
    async fn watch_start(
        &self,
        wanted: &Wanted,
        params: &ListParams,
        view: &View,
        printer: &mut Printer,
    ) -> Result<String> {
        let namespace = wanted.namespace.as_deref();
        if let Some(name) = &wanted.name {
            // An object that does not exist is told at once, and not waited for.
            let path = wanted.api.resource.object_path(namespace, name, None);
            let _: Value = self.session.client.get_path(&path).await?;
        }
        if self.output.is_table() {
            let list = Wanted { api: wanted.api.clone(), namespace: wanted.namespace.clone(), name: None };
            let mut page = self.page(&list, params, false).await?;
            let version = std::mem::take(&mut page.metadata.resource_version);
            if self.arguments.watch_only {
                page.rows.clear();
            }
            let empty = page.rows.is_empty();
            printer.add(page, view);
            if !empty {
                std::io::stdout().write_all(printer.take().as_bytes())?;
            }
            return Ok(version);
        }
        let list = self.session.client.list_page(&wanted.api.resource, namespace, params).await?;
        if !self.arguments.watch_only {
            for item in list.get("items").and_then(Value::as_array).into_iter().flatten() {
                self.print_object(item.clone(), &wanted.api)?;
            }
        }
        Ok(text_at(&list, "/metadata/resourceVersion").to_owned())
    }

    fn print_object(&self, mut item: Value, api: &ApiResource) -> Result<()> {
        if let Value::Object(map) = &mut item {
            map.entry("apiVersion").or_insert_with(|| Value::String(api.resource.api_version()));
            map.entry("kind").or_insert_with(|| Value::String(api.resource.kind.to_string()));
        }
        if !self.arguments.show_managed_fields {
            without_managed_fields(&mut item);
        }
        let mut out = std::io::stdout().lock();
        match self.output {
            Output::Yaml => writeln!(out, "---\n{}", yaml::to_string(&item).trim_end())?,
            Output::Json => write_json(&item, &mut out)?,
            Output::Columns(columns) => out.write_all(in_columns(columns, &item, false)?.as_bytes())?,
            output => output.print(&item, &mut out)?,
        }
        Ok(())
    }

    /// Prints one event; returns the version that the watch has reached.
    fn print_event(
        &self,
        event: &RawEvent,
        api: &ApiResource,
        view: &View,
        printer: &mut Printer,
    ) -> Result<Option<String>> {
        let object: Value = serde_json::from_str(event.object.get()).map_err(client::Error::Decode)?;
        let version = [
            text_at(&object, "/metadata/resourceVersion"),
            text_at(&object, "/rows/0/object/metadata/resourceVersion"),
        ]
        .into_iter()
        .find(|version| !version.is_empty())
        .map(str::to_owned);
        if event.kind == "BOOKMARK" {
            return Ok(version);
        }
        if self.output.is_table() {
            let table: Table = serde_json::from_value(object).map_err(client::Error::Decode)?;
            printer.add(table, view);
            std::io::stdout().write_all(printer.take().as_bytes())?;
        } else {
            self.print_object(object, api)?;
        }
        Ok(version)
    }
}

/// A table of names and ages, for a server that makes none.
fn plain_table(bytes: &[u8]) -> Result<Table> {
    let answer: Value = serde_json::from_slice(bytes).map_err(client::Error::Decode)?;
    if text_at(&answer, "/kind") == "Table" {
        return serde_json::from_value(answer).map_err(|error| client::Error::Decode(error).into());
    }
    let now = jiff::Timestamp::now();
    let rows = super::output::items(&answer).into_iter().map(|item| {
        let age = super::describe::age_of(text_at(item, "/metadata/creationTimestamp"), now);
        table::Row {
            cells: vec![Value::from(text_at(item, "/metadata/name")), Value::from(age)],
            object: item.clone(),
        }
    });
    Ok(Table {
        column_definitions: ["Name", "Age"]
            .map(|name| table::Column { name: name.to_owned(), priority: 0 })
            .to_vec(),
        rows: rows.collect(),
        metadata: answer
            .get("metadata")
            .cloned()
            .and_then(|meta| serde_json::from_value(meta).ok())
            .unwrap_or_default(),
    })
}

/// Percent-encodes what a query cannot carry.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
