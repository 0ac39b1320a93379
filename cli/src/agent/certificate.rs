//! The certificate of an agent: taken over when its files change, and told to the cluster, which shows when it ends and waits
//! for all agents when it rotates its authority.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use apiserver::keys::{ANNOTATION, Report};
use apiserver::pki;
use client::Client;
use client::core::object::{ObjectKey, ResourceType, Target};
use client::core::plan::PatchKind;
use client::params::{Patch, WriteParams};
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{AgentFile, Role};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Follows the files until told to stop. Requests on their way keep the certificate that they began with.
pub async fn follow(file: AgentFile, client: Client, shutdown: CancellationToken) {
    let mut used = modified(&file);
    let mut told = None;
    loop {
        let found = modified(&file);
        if found != used {
            match take_over(&file, &client) {
                Ok(()) => used = found,
                // Between the writing of two files they do not fit.
                Err(error) => warn!("the renewed certificate cannot be used yet: {error:#}"),
            }
        }
        if told != Some(used) {
            match tell(&file, &client).await {
                Ok(()) => told = Some(used),
                Err(error) => debug!("the cluster was not told of the certificate yet: {error:#}"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// When each of the files was written.
fn modified(file: &AgentFile) -> [Option<SystemTime>; 3] {
    [&file.authority, &file.certificate, &file.key]
        .map(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok())
}

fn take_over(file: &AgentFile, client: &Client) -> Result<()> {
    client.replace_identity(&read(&file.authority)?, &read(&file.certificate)?, &read(&file.key)?)?;
    Ok(())
}

/// Writes into the Node what its agent accepts and has.
async fn tell(file: &AgentFile, client: &Client) -> Result<()> {
    // Hollow nodes share one certificate, and have nothing to lose.
    let Role::Embedded { name, .. } = &file.role else { return Ok(()) };
    let (bundle, certificate) = (read(&file.authority)?, read(&file.certificate)?);
    let (_, expires) = pki::validity(&certificate).context("the certificate is none")?;
    let report = Report {
        accepts: pki::ids(&bundle),
        issuer: pki::issuer_of(&certificate, &bundle).context("the certificate is of another cluster")?,
        expires: Timestamp::try_from(expires)?,
        token_keys: Vec::new(),
        store_keys: Vec::new(),
    };
    let annotations = json!({ANNOTATION: serde_json::to_string(&report)?});
    let target = Target {
        resource: ResourceType::new("", "v1", "Node", "nodes", false),
        key: ObjectKey::cluster(name.as_str()),
    };
    let patch = Patch {
        kind: PatchKind::Merge,
        body: json!({"metadata": {"annotations": annotations}}),
        subresource: None,
        params: WriteParams::default(),
    };
    client.patch_object(&target, &patch).await?;
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
