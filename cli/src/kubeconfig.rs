//! `orlop kubeconfig`: a way in for one user, signed with the authority of the server whose data directory is here.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::pki::{ADMIN_LIFETIME, Authority, kubeconfig};
use clap::Args;

use crate::layout::{self, Layout};
use crate::verbs::watching::duration;

/// Print a kubeconfig for a user, on a host that has the cluster's authority.
#[derive(Args, Clone, Debug)]
pub struct Kubeconfig {
    /// The user's name, for instance system:kube-scheduler
    #[arg(long, value_name = "USER")]
    client_name: String,
    /// The user's group
    #[arg(long, value_name = "GROUP")]
    org: Option<String>,
    /// For how long its certificate is good
    #[arg(long, value_parser = duration, default_value = "8760h")]
    validity_period: Duration,
    /// URL of the server that it names; that of the administrator's kubeconfig unless given
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Where the server keeps its data
    #[arg(long, env = layout::DATA_DIR_VARIABLE, default_value = layout::DATA_DIR)]
    data_dir: PathBuf,
}

/// Runs `orlop kubeconfig`.
pub fn run(arguments: &Kubeconfig) -> Result<()> {
    let layout = Layout::new(&arguments.data_dir);
    if arguments.client_name.is_empty() {
        bail!("--client-name is empty: name the user");
    }
    if arguments.validity_period > ADMIN_LIFETIME {
        bail!("--validity-period is longer than a year (8760h)");
    }
    if !layout.pki().join("ca.crt").exists() {
        bail!(
            "{} holds no authority of a cluster; name the server's directory with --data-dir",
            layout.pki().display()
        );
    }
    let authority = Authority::load_or_create(&layout.pki())?;
    let server = match &arguments.server {
        Some(server) => server.clone(),
        None => administrators_server(&layout)?,
    };
    let issued = authority.issue_client(
        &arguments.client_name,
        arguments.org.as_deref(),
        arguments.validity_period,
    )?;
    let text = kubeconfig::render("orlop", &arguments.client_name, &server, &authority.ca_pem(), &issued);
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).context("writing the kubeconfig")?;
    output.flush().context("writing the kubeconfig")
}

fn administrators_server(layout: &Layout) -> Result<String> {
    let path = layout.kubeconfig();
    let read = client::kube::config::Kubeconfig::read_from(&path)
        .with_context(|| format!("reading {}; name a server with --server", path.display()))?;
    let server = read.clusters.into_iter().find_map(|cluster| cluster.cluster?.server);
    server.with_context(|| format!("{} names no server; name one with --server", path.display()))
}
