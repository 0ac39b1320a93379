//! What an agent writes to the API of a pod: its status, and that it is gone.

use client::Client;
use client::core::object::Target;
use client::core::plan::{PatchKind, Precondition};
use client::params::DeleteOptions;
use k8s_openapi::api::core::v1::Pod;
use nodeagent_core::lifecycle::PatchFailure;
use nodeagent_core::pod;

/// Sends a status patch; answers with the object's revision.
pub(crate) async fn patch_status(client: &Client, of: &Pod, body: String) -> Result<u64, PatchFailure> {
    #[derive(serde::Deserialize)]
    struct Answer {
        metadata: Meta,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        resource_version: String,
    }
    let path = Target::to(of).path(Some("status"));
    let request = Client::build_with(http::Method::PATCH, &path, PatchKind::Strategic.content_type(), body)
        .map_err(|_| PatchFailure::Transient)?;
    match client.request::<Answer>(request).await {
        Ok(answer) => Ok(answer.metadata.resource_version.parse().unwrap_or(u64::MAX)),
        Err(error) if error.is_not_found() || error.is_conflict() => {
            tracing::debug!(pod = pod::full_name(of), %error, "the pod of this status is gone");
            // A conflict without a revision in the patch means another uid.
            Err(if error.is_not_found() { PatchFailure::Gone } else { PatchFailure::Transient })
        }
        Err(error) => {
            tracing::warn!(pod = pod::full_name(of), %error, "the pod's status was not accepted");
            Err(PatchFailure::Transient)
        }
    }
}

/// Deletes a pod that has ended here.
pub(crate) async fn delete_pod(client: &Client, of: &Pod, uid: String) -> Result<(), String> {
    let options = DeleteOptions {
        precondition: Precondition { uid: Some(uid), resource_version: None },
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    match client.delete_object(&Target::to(of), &options).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
