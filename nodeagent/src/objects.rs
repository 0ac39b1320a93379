//! ConfigMaps and Secrets that pods of this node name, fetched one by one and kept for a short time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::Client;
use client::core::object::Kind;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

const FRESH: Duration = Duration::from_secs(45);

type Entry<K> = (Instant, Option<Arc<K>>);

/// One kind of object.
pub(crate) struct Cache<K> {
    client: Client,
    entries: Mutex<BTreeMap<(String, String), Entry<K>>>,
}

/// What pods may refer to.
pub(crate) struct Objects {
    pub(crate) config_maps: Cache<ConfigMap>,
    pub(crate) secrets: Cache<Secret>,
}

// === impl Objects ===

impl Objects {
    pub(crate) fn new(client: &Client) -> Self {
        Self { config_maps: Cache::new(client.clone()), secrets: Cache::new(client.clone()) }
    }
}

// === impl Cache ===

impl<K: Kind> Cache<K> {
    fn new(client: Client) -> Self {
        Self { client, entries: Mutex::default() }
    }

    /// The object, at most 45 s old; `None` when it does not exist. What exists is told from memory when the API cannot be reached.
    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, client::Error> {
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.lock().get(&key).cloned();
        if let Some((at, Some(object))) = &known
            && at.elapsed() < FRESH
        {
            return Ok(Some(object.clone()));
        }
        let object = match self.client.get_opt::<K>(Some(namespace), name).await {
            Ok(object) => object.map(Arc::new),
            Err(error) => match known {
                Some((_, Some(object))) if error.is_transient() => return Ok(Some(object)),
                _ => return Err(error),
            },
        };
        let mut entries = self.lock();
        entries.retain(|_, (at, _)| at.elapsed() < FRESH * 10);
        entries.insert(key, (Instant::now(), object.clone()));
        Ok(object)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Entry<K>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
