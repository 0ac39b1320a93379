//! Which resources the API server has.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Client, Error};
use client_core::object::ResourceType;
use controller_core::namespace::Discovery;
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList};
use tokio_util::sync::CancellationToken;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// For namespaces being deleted.
    pub(crate) namespaced: Discovery,
    /// Resources by apiVersion and kind.
    pub(crate) kinds: BTreeMap<(String, String), ResourceType>,
    /// Resources whose objects can be watched and deleted.
    pub(crate) deletable: Vec<ResourceType>,
}

/// Asks until there is an answer, or the caller stops.
pub(crate) async fn find(client: &Client, stop: &CancellationToken) -> Found {
    let mut delay = Duration::from_millis(50);
    loop {
        match try_find(client).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(%error, "resources are not known yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return Found::default(),
            () = tokio::time::sleep(delay) => {}
        }
        delay = (delay * 2).min(Duration::from_secs(10));
    }
}

async fn try_find(client: &Client) -> Result<Found, Error> {
    let mut found = Found::default();
    let core: APIResourceList = get(client, "/api/v1").await?;
    found.take("", "v1", true, core);
    let groups: APIGroupList = get(client, "/apis").await?;
    for group in groups.groups {
        let preferred = group.preferred_version.as_ref().map(|preferred| preferred.version.clone());
        for version in group.versions {
            let list: Result<APIResourceList, Error> =
                get(client, &format!("/apis/{}", version.group_version)).await;
            match list {
                Ok(list) => {
                    let is_preferred =
                        preferred.as_ref().is_none_or(|preferred| *preferred == version.version);
                    found.take(&group.name, &version.version, is_preferred, list);
                }
                Err(error) => found.namespaced.failure = Some(format!("{}: {error}", version.group_version)),
            }
        }
    }
    Ok(found)
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T, Error> {
    client.request(Client::build(Method::GET, path)?).await
}

impl Found {
    fn take(&mut self, group: &str, version: &str, is_preferred: bool, list: APIResourceList) {
        for resource in list.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
            let can = |verb: &str| resource.verbs.iter().any(|each| each == verb);
            let found = ResourceType::new(
                group,
                version,
                resource.kind.as_str(),
                resource.name.as_str(),
                resource.namespaced,
            );
            let api_version = found.api_version();
            self.kinds.insert((api_version, resource.kind.clone()), found.clone());
            if !is_preferred || !can("delete") || !can("list") {
                continue;
            }
            if resource.namespaced {
                self.namespaced.resources.push(found.clone());
            }
            // Events come and go by themselves.
            if can("watch") && resource.name != "events" {
                self.deletable.push(found);
            }
        }
    }
}
