//! `api-resources`, `api-versions`, `cluster-info`, `version`: what a cluster is and serves.

use std::io::Write as _;

use clap::Args;
use client::core::object::ResourceType;
use client::params::ListParams;
use serde_json::{Value, json};

use super::apply::say;
use super::error::{Result, message};
use super::output::write_json;
use super::session::{Connection, Session, text_at};
use super::{tabs, yaml};

/// Print the supported API resources
#[derive(Args, Debug)]
pub struct ApiResources {
    /// wide or name
    #[arg(short, long)]
    output: Option<String>,
    /// Only those of this group
    #[arg(long)]
    api_group: Option<String>,
    /// Only those in namespaces, or only those that are not
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    namespaced: Option<bool>,
    /// Only those with all these verbs
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only those of all these categories
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// name or kind
    #[arg(long)]
    sort_by: Option<String>,
    /// No titles of columns
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Print the supported API versions
#[derive(Args, Debug)]
pub struct ApiVersions {
    #[command(flatten)]
    connection: Connection,
}

/// Show where the cluster's services are
#[derive(Args, Debug)]
pub struct ClusterInfo {
    #[command(flatten)]
    connection: Connection,
}

/// Print the versions of client and server
#[derive(Args, Debug)]
pub struct Version {
    /// Only ours
    #[arg(long)]
    client: bool,
    /// yaml or json
    #[arg(short, long)]
    output: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `api-resources`.
pub async fn api_resources(arguments: &ApiResources) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let mut found: Vec<_> = session
        .discovery()
        .await?
        .resources
        .iter()
        .filter(|known| known.preferred && !known.verbs.is_empty())
        .filter(|known| arguments.api_group.as_ref().is_none_or(|group| *group == known.resource.group))
        .filter(|known| arguments.namespaced.is_none_or(|wanted| wanted == known.resource.namespaced))
        .filter(|known| arguments.verbs.iter().all(|verb| known.can(verb)))
        .filter(|known| arguments.categories.iter().all(|category| known.categories.contains(category)))
        .collect();
    match arguments.sort_by.as_deref() {
        Some("kind") => found.sort_by_key(|known| known.resource.kind.to_string()),
        Some("name") => found.sort_by_key(|known| known.resource.plural.to_string()),
        Some(_) => return message("--sort-by accepts only name or kind"),
        None => {
            found.sort_by_key(|known| (known.resource.group.to_string(), known.resource.plural.to_string()))
        }
    }
    let wide = match arguments.output.as_deref() {
        None => false,
        Some("wide") => true,
        Some("name") => {
            return found.iter().try_for_each(|known| say(&known.qualified_plural()));
        }
        Some(other) => return message(format!("--output {other} is not available in api-resources")),
    };
    let mut text = String::new();
    if !arguments.no_headers {
        text.push_str("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND");
        text.push_str(if wide { "\tVERBS\tCATEGORIES\n" } else { "\n" });
    }
    for known in found {
        let resource = &known.resource;
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}",
            resource.plural,
            known.short_names.join(","),
            resource.api_version(),
            resource.namespaced,
            resource.kind
        ));
        if wide {
            text.push_str(&format!("\t{}\t{}", known.verbs.join(","), known.categories.join(",")));
        }
        text.push('\n');
    }
    std::io::stdout().write_all(tabs::align(&text, tabs::TABLE).as_bytes())?;
    Ok(())
}

/// Runs `api-versions`.
pub async fn api_versions(arguments: &ApiVersions) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let resources = &session.discovery().await?.resources;
    let mut versions: Vec<String> = resources.iter().map(|known| known.resource.api_version()).collect();
    versions.sort();
    versions.dedup();
    versions.iter().try_for_each(|version| say(version))
}

/// Runs `cluster-info`.
pub async fn cluster_info(arguments: &ClusterInfo) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let url = session.client.server_url().unwrap_or_default();
    let url = url.trim_end_matches('/');
    let services = ResourceType::new("", "v1", "Service", "services", true);
    let params = ListParams::all().labels("kubernetes.io/cluster-service=true");
    let list = session.client.list_page(&services, Some("kube-system"), &params).await;
    let list = list.map_err(|error| session.refused(error.into()))?;
    say(&format!("Kubernetes control plane is running at {url}"))?;
    for service in list.get("items").and_then(Value::as_array).into_iter().flatten() {
        let name = match text_at(service, "/metadata/labels/kubernetes.io~1name") {
            "" => text_at(service, "/metadata/name"),
            name => name,
        };
        let port = match text_at(service, "/spec/ports/0/name") {
            "" => String::new(),
            port => format!(":{port}"),
        };
        say(&format!(
            "{name} is running at {url}/api/v1/namespaces/kube-system/services/{}{port}/proxy",
            text_at(service, "/metadata/name")
        ))?;
    }
    Ok(())
}

/// Runs `version`.
pub async fn version(arguments: &Version) -> Result<()> {
    let ours = concat!("v", env!("CARGO_PKG_VERSION"));
    let server: Option<Value> = if arguments.client {
        None
    } else {
        let session = Session::open(&arguments.connection, "kubectl").await?;
        let answer = session.client.get_path("/version").await;
        Some(answer.map_err(|error| session.refused(error.into()))?)
    };
    let mut all = json!({"clientVersion": {"gitVersion": ours}});
    if let Some(server) = &server {
        all["serverVersion"] = server.clone();
    }
    match arguments.output.as_deref() {
        Some("json") => write_json(&all, &mut std::io::stdout().lock()),
        Some("yaml") => say(yaml::to_string(&all).trim_end()),
        Some(_) => message("--output must be 'yaml' or 'json'"),
        None => {
            say(&format!("Client Version: {ours}"))?;
            match &server {
                Some(server) => say(&format!("Server Version: {}", text_at(server, "/gitVersion"))),
                None => Ok(()),
            }
        }
    }
}
