//! Requests on typed kinds.

use bytes::Bytes;
use client_core::object::{Kind, ObjectKey, ResourceType, Target};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::params::{DeleteOptions, ListParams, Patch, Query, WriteParams};
use crate::{Client, Error};

/// A whole collection.
#[derive(Debug)]
pub struct Listed<K> {
    /// Its version.
    pub resource_version: String,
    /// Its objects.
    pub items: Vec<K>,
}

#[derive(Deserialize)]
struct ListPage<K> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<K>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

// === impl Client ===

impl Client {
    /// Reads one object. `namespace` is ignored for cluster-scoped kinds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get<K: Kind>(&self, namespace: Option<&str>, name: &str) -> Result<K, Error> {
        self.get_path(&ResourceType::of::<K>().object_path(namespace, name, None)).await
    }

    /// Reads one object, or finds that there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_opt<K: Kind>(&self, namespace: Option<&str>, name: &str) -> Result<Option<K>, Error> {
        match self.get(namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a whole collection, page by page: of one namespace, or of all.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list<K: Kind>(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Listed<K>, Error> {
        let path = ResourceType::of::<K>().collection_path(namespace);
        let mut params = params.clone();
        params.limit.get_or_insert(client_core::cache::PAGE_SIZE);
        let mut items = Vec::new();
        loop {
            let mut query = Query::new(path.clone());
            params.add_to(&mut query);
            let page: ListPage<K> = self.get_path(&query.finish()).await?;
            items.extend(page.items);
            match page.metadata.continue_token.filter(|token| !token.is_empty()) {
                Some(token) => {
                    params.continue_token = Some(token);
                    params.resource_version = None;
                    params.resource_version_match = None;
                }
                None => {
                    let resource_version = page.metadata.resource_version.unwrap_or_default();
                    return Ok(Listed { resource_version, items });
                }
            }
        }
    }

    /// Creates an object in its own namespace.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create<K: Kind>(&self, object: &K) -> Result<K, Error> {
        let path = ResourceType::of::<K>()
            .collection_path(client_core::object::Object::metadata(object).namespace.as_deref());
        decode(&self.send_bytes(Method::POST, path, object, &WriteParams::default()).await?)
    }

    /// Replaces an object, if it still has the version that it carries. A typed struct drops fields that it does not know:
    /// only for kinds that are wholly ours, such as Leases.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn replace<K: Kind>(&self, object: &K) -> Result<K, Error> {
        let path = Target::to(object).path(None);
        decode(&self.send_bytes(Method::PUT, path, object, &WriteParams::default()).await?)
    }

    /// Patches an object, or a subresource of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn patch<K: Kind>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &Patch,
    ) -> Result<K, Error> {
        decode(&self.patch_bytes(&target::<K>(namespace, name), patch).await?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete<K: Kind>(
        &self,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        self.delete_bytes(&target::<K>(namespace, name).path(None), options).await.map(drop)
    }

    /// Binds a pod to a node, if it is still the same pod.
    ///
    /// # Errors
    /// See [`Error`]; a conflict when it is bound already.
    pub async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), Error> {
        let mut binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": &*pod.namespace, "name": &*pod.name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        if !uid.is_empty() {
            binding["metadata"]["uid"] = json!(uid);
        }
        self.post_subresource(pod, "binding", &binding).await.map(drop)
    }

    /// Evicts a pod: deletes it unless a disruption budget forbids it.
    ///
    /// # Errors
    /// See [`Error`]; code 429 when a budget forbids it.
    pub async fn evict(&self, pod: &ObjectKey, options: &DeleteOptions) -> Result<(), Error> {
        let delete = client_core::plan::delete_options(
            &options.precondition,
            options.grace_period_seconds,
            options.propagation,
        );
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": &*pod.namespace, "name": &*pod.name},
            "deleteOptions": delete,
        });
        self.post_subresource(pod, "eviction", &eviction).await.map(drop)
    }

    async fn post_subresource(
        &self,
        pod: &ObjectKey,
        subresource: &str,
        body: &Value,
    ) -> Result<Bytes, Error> {
        let path = Target::of::<Pod>(pod.clone()).path(Some(subresource));
        self.send_bytes(Method::POST, path, body, &WriteParams::default()).await
    }
}

fn target<K: Kind>(namespace: Option<&str>, name: &str) -> Target {
    Target::of::<K>(ObjectKey::new(namespace.unwrap_or_default(), name))
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(Error::Decode)
}
