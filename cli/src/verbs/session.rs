//! The way to one API server for one run of a verb: kubeconfig, context, namespace, what the server serves.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use client::Client;
use client::core::object::{ObjectKey, Target};
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::discovery::{ApiResource, Discovery};
use super::error::{Error, Result};

/// Where the cluster on this machine keeps its kubeconfig, unless it was told another place.
const DATA_DIR: &str = "/var/lib/orlop";

/// Which server, as whom, in which namespace.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    /// Path to the kubeconfig file
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub context: Option<String>,
    /// The kubeconfig cluster to use
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub cluster: Option<String>,
    /// The namespace
    #[arg(short, long, global = true, value_name = "NAMESPACE", help_heading = "Connection")]
    pub namespace: Option<String>,
    /// The address of the API server
    #[arg(short, long, global = true, value_name = "URL", help_heading = "Connection")]
    pub server: Option<String>,
    /// Bearer token for authentication
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Connection")]
    pub token: Option<String>,
    /// How long one answer may take; 0 is the usual
    #[arg(long, global = true, value_name = "DURATION", default_value = "0", value_parser = super::watching::duration, help_heading = "Connection")]
    pub request_timeout: std::time::Duration,
    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "USER", help_heading = "Connection")]
    pub impersonate: Option<String>,
    /// Groups to impersonate
    #[arg(long = "as-group", global = true, value_name = "GROUP", help_heading = "Connection")]
    pub impersonate_groups: Vec<String>,
}

/// The way to one API server.
pub struct Session {
    /// Carries requests.
    pub client: Client,
    /// Where namespaced objects are looked for.
    pub namespace: String,
    /// Whether the namespace was named on the command line.
    pub namespace_given: bool,
    discovery: OnceCell<Discovery>,
}

// === impl Connection ===

impl Connection {
    /// The files that make up the kubeconfig, first one first; those that `$KUBECONFIG` names need not exist.
    pub fn files(&self) -> Vec<PathBuf> {
        if let Some(path) = &self.kubeconfig {
            return vec![path.clone()];
        }
        let named: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
            .map(|paths| std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        if !named.is_empty() {
            return named;
        }
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        let data = PathBuf::from(std::env::var_os("ORLOP_DATA_DIR").unwrap_or_else(|| DATA_DIR.into()));
        let ours = data.join("kubeconfig");
        match home {
            Some(home) if home.exists() || !ours.exists() => vec![home],
            _ => vec![ours],
        }
    }

    /// The merged kubeconfig; `None` when no file exists.
    pub fn read(&self) -> Result<Option<Kubeconfig>> {
        let mut merged: Option<Kubeconfig> = None;
        for path in self.files() {
            if self.kubeconfig.is_none() && !path.exists() {
                continue;
            }
            let next = Kubeconfig::read_from(&path).map_err(|error| unreadable(&path, error))?;
            merged = Some(match merged {
                Some(before) => before.merge(next).map_err(|error| unreadable(&path, error))?,
                None => next,
            });
        }
        Ok(merged)
    }

    async fn config(&self) -> Result<kube::Config> {
        let options =
            KubeConfigOptions { context: self.context.clone(), cluster: self.cluster.clone(), user: None };
        let mut config = match self.read()? {
            Some(kubeconfig) => match kube::Config::from_custom_kubeconfig(kubeconfig, &options).await {
                Ok(config) => config,
                Err(error) => return Err(self.unusable(error)),
            },
            None => match (&self.server, kube::Config::incluster()) {
                (_, Ok(config)) => config,
                (Some(server), Err(_)) => kube::Config::new(parse_url(server)?),
                (None, Err(_)) => return Err(Error::Plain(NOWHERE.to_owned())),
            },
        };
        if let Some(server) = &self.server {
            config.cluster_url = parse_url(server)?;
        }
        if !self.request_timeout.is_zero() {
            config.connect_timeout = Some(self.request_timeout);
            config.read_timeout = Some(self.request_timeout);
        }
        if let Some(token) = &self.token {
            config.auth_info.token = Some(token.clone().into());
        }
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        if !self.impersonate_groups.is_empty() {
            config.auth_info.impersonate_groups = Some(self.impersonate_groups.clone());
        }
        if let Some(namespace) = &self.namespace {
            config.default_namespace = namespace.clone();
        }
        Ok(config)
    }

    /// When the certificate that it proves itself with ends; `None` when it has none.
    pub async fn certificate(&self) -> Result<Option<Timestamp>> {
        let auth = self.config().await?.auth_info;
        let pem = match (auth.client_certificate_data, auth.client_certificate) {
            (Some(data), _) => STANDARD.decode(data).ok().and_then(|pem| String::from_utf8(pem).ok()),
            (None, Some(path)) => std::fs::read_to_string(path).ok(),
            (None, None) => None,
        };
        Ok(pem.and_then(|pem| super::status::end_of(&pem)))
    }

    fn unusable(&self, error: kube::config::KubeconfigError) -> Error {
        use kube::config::KubeconfigError as Kind;
        match (&self.context, error) {
            (Some(context), Kind::LoadContext(_)) => {
                Error::Message(format!("context \"{context}\" does not exist"))
            }
            (None, Kind::CurrentContextNotSet) => Error::Plain(NOWHERE.to_owned()),
            (_, error) => Error::Connect(error.into()),
        }
    }
}

const NOWHERE: &str = "No cluster to talk to: there is no kubeconfig. Start a cluster with `orlop up`, or name one with --kubeconfig or $KUBECONFIG.";

fn unreadable(path: &Path, error: kube::config::KubeconfigError) -> Error {
    Error::Message(format!("error loading config file \"{}\": {error}", path.display()))
}

fn parse_url(text: &str) -> Result<http::Uri> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    full.parse().map_err(|_| Error::Message(format!("\"{text}\" is not the address of a server")))
}

// === impl Session ===

impl Session {
    /// Opens the way; writes will name `manager`.
    pub async fn open(connection: &Connection, manager: &str) -> Result<Self> {
        let client = Client::from_config(connection.config().await?)?;
        Ok(Self {
            namespace: client.default_namespace().to_owned(),
            namespace_given: connection.namespace.is_some(),
            client: client.with_field_manager(manager),
            discovery: OnceCell::new(),
        })
    }

    /// What the server serves; asked once.
    pub async fn discovery(&self) -> Result<&Discovery> {
        self.discovery
            .get_or_try_init(|| Discovery::fetch(&self.client))
            .await
            .map_err(|error| self.refused(error))
    }

    /// A connection that was refused, in words that name the server.
    pub fn refused(&self, error: Error) -> Error {
        let Error::Server(client::Error::Transport(source)) = &error else { return error };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::ConnectionRefused
            {
                let url = self.client.server_url().unwrap_or_default();
                let host = url.split("://").nth(1).unwrap_or(&url).trim_end_matches('/');
                return Error::Plain(format!(
                    "The connection to the server {host} was refused - did you specify the right host or port?"
                ));
            }
            cause = error.source();
        }
        error
    }

    /// The resource that a word names.
    pub async fn find(&self, word: &str) -> Result<ApiResource> {
        Ok(self.discovery().await?.find(word)?.clone())
    }

    /// The object of that name, in the session's namespace when its kind has one.
    pub fn target(&self, api: &ApiResource, name: &str) -> Target {
        let namespace = if api.resource.namespaced { &*self.namespace } else { "" };
        Target { resource: api.resource.clone(), key: ObjectKey::new(namespace, name) }
    }

    /// The namespace for a list: `None` for all.
    pub fn scope(&self, all_namespaces: bool) -> Option<&str> {
        (!all_namespaces).then_some(&*self.namespace)
    }
}

/// Text at a path such as `/metadata/name`, or nothing.
pub fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
