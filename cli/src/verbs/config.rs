//! `config`: what the kubeconfig says, and which context it uses.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::apply::say;
use super::error::{Error, Result, message};
use super::output::Output;
use super::session::{Connection, text_at};
use super::{tabs, yaml};

/// Show and change the kubeconfig
#[derive(Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Display the merged kubeconfig
    View {
        /// With certificates and keys
        #[arg(long)]
        raw: bool,
        /// Only what the current context needs
        #[arg(long)]
        minify: bool,
        /// yaml, json, jsonpath=TEMPLATE
        #[arg(short, long, default_value = "yaml")]
        output: String,
    },
    /// Display the current context
    CurrentContext,
    /// Set the current context
    UseContext {
        /// Its name
        name: String,
    },
    /// Display the contexts
    GetContexts {
        /// name
        #[arg(short, long)]
        output: Option<String>,
        /// No titles of columns
        #[arg(long)]
        no_headers: bool,
    },
    /// Change the current context: its namespace
    SetContext {
        /// Its name
        name: Option<String>,
        /// The current one
        #[arg(long)]
        current: bool,
    },
}

const SECRETS: [&str; 5] =
    ["certificate-authority-data", "client-certificate-data", "client-key-data", "token", "password"];

/// Runs `config`.
pub async fn run(arguments: &Config) -> Result<()> {
    let connection = &arguments.connection;
    match &arguments.action {
        Action::View { raw, minify, output } => view(connection, *raw, *minify, output),
        Action::CurrentContext => match current(&merged(connection)?) {
            "" => message("current-context is not set"),
            name => say(name),
        },
        Action::UseContext { name } => {
            if !contexts(&merged(connection)?).iter().any(|context| text_at(context, "/name") == name) {
                return message(format!("no context exists with the name: \"{name}\""));
            }
            change(connection, |config| {
                config["current-context"] = Value::from(&**name);
                true
            })?;
            say(&format!("Switched to context \"{name}\"."))
        }
        Action::GetContexts { output, no_headers } => {
            get_contexts(connection, output.as_deref(), *no_headers)
        }
        Action::SetContext { name, current: use_current } => {
            let config = merged(connection)?;
            let name = match (name, use_current) {
                (Some(name), false) => name.clone(),
                (None, true) => current(&config).to_owned(),
                _ => return message("you must specify a non-empty context name or --current"),
            };
            let Some(namespace) = &connection.namespace else {
                return message("nothing to set: use --namespace");
            };
            change(connection, |config| {
                let Some(Value::Array(all)) = config.get_mut("contexts") else { return false };
                let found = all.iter_mut().find(|context| text_at(context, "/name") == name);
                let Some(context) = found else { return false };
                context["context"]["namespace"] = Value::from(&**namespace);
                true
            })?;
            say(&format!("Context \"{name}\" modified."))
        }
    }
}

/// The merged kubeconfig as a document.
fn merged(connection: &Connection) -> Result<Value> {
    let config = connection.read()?.unwrap_or_default();
    let mut value = serde_json::to_value(&config).map_err(std::io::Error::from)?;
    strip_nulls(&mut value);
    Ok(value)
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn current(config: &Value) -> &str {
    text_at(config, "/current-context")
}

fn contexts(config: &Value) -> Vec<&Value> {
    config.get("contexts").and_then(Value::as_array).into_iter().flatten().collect()
}

fn view(connection: &Connection, raw: bool, minify: bool, output: &str) -> Result<()> {
    let mut config = merged(connection)?;
    if minify {
        let name = connection.context.clone().unwrap_or_else(|| current(&config).to_owned());
        shrink(&mut config, &name)?;
    }
    if !raw {
        hide(&mut config);
    }
    if let Value::Object(map) = &mut config {
        map.entry("apiVersion").or_insert_with(|| Value::from("v1"));
        map.entry("kind").or_insert_with(|| Value::from("Config"));
    }
    Output::parse(Some(output))?.print(&config, &mut std::io::stdout().lock())
}

/// Keeps one context with its cluster and user.
fn shrink(config: &mut Value, name: &str) -> Result<()> {
    let found = contexts(config).into_iter().find(|context| text_at(context, "/name") == name).cloned();
    let Some(context) = found else { return message("current-context must exist in order to minify") };
    let keep = [
        ("contexts", name),
        ("clusters", text_at(&context, "/context/cluster")),
        ("users", text_at(&context, "/context/user")),
    ];
    for (list, name) in keep {
        if let Some(Value::Array(all)) = config.get_mut(list) {
            all.retain(|one| text_at(one, "/name") == name);
        }
    }
    config["current-context"] = Value::from(name);
    Ok(())
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match name.as_str() {
                    "certificate-authority-data" | "client-certificate-data" | "client-key-data" => {
                        *value = Value::from("DATA+OMITTED");
                    }
                    name if SECRETS.contains(&name) => *value = Value::from("REDACTED"),
                    _ => hide(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

fn get_contexts(connection: &Connection, output: Option<&str>, no_headers: bool) -> Result<()> {
    let config = merged(connection)?;
    let current = current(&config);
    let mut text = String::new();
    if !no_headers {
        text.push_str("CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n");
    }
    for context in contexts(&config) {
        let name = text_at(context, "/name");
        if output == Some("name") {
            say(name)?;
            continue;
        }
        let mark = if name == current { "*" } else { "" };
        text.push_str(&format!(
            "{mark}\t{name}\t{}\t{}\t{}\n",
            text_at(context, "/context/cluster"),
            text_at(context, "/context/user"),
            text_at(context, "/context/namespace")
        ));
    }
    if output == Some("name") {
        return Ok(());
    }
    std::io::stdout().write_all(tabs::align(&text, tabs::TABLE).as_bytes())?;
    Ok(())
}

/// Changes the first file in which the change has a place, and replaces it as a whole.
fn change(connection: &Connection, edit: impl Fn(&mut Value) -> bool) -> Result<()> {
    for path in connection.files() {
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text?,
        };
        let mut documents = yaml::parse(&text).map_err(|error| {
            Error::Message(format!("error loading config file \"{}\": {error}", path.display()))
        })?;
        let Some(config) = documents.first_mut() else { continue };
        if !edit(config) {
            continue;
        }
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(yaml::to_string(config).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        return Ok(());
    }
    message("no kubeconfig has such a context")
}
