//! Converts what watchers are told of custom resources, once for all who watch in the same version.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use apiserver_core::convert::{Conversion, Converted, convert};
use apiserver_core::{Answers, Response, World, failure};
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::hub::Convert;
use crate::shell::Shell;

/// So many bytes of converted objects are remembered for each version of a resource.
const REMEMBERED: usize = 4 * 1024 * 1024;
/// The webhook of a definition may be asked so often for one batch of objects.
const MAX_ASKS: usize = 4;

/// What was converted lately, by group, version and plural.
#[derive(Default)]
pub(crate) struct Conversions {
    memos: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Memo>>>>,
}

#[derive(Default)]
struct Memo {
    /// The definitions under which it was converted.
    revision: u64,
    converted: Converted,
    bytes: usize,
}

// === impl Conversions ===

impl Conversions {
    fn memo(&self, path: (&str, &str, &str)) -> Arc<tokio::sync::Mutex<Memo>> {
        let key = [path.0, path.1, path.2].join("/");
        self.memos.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }
}

// === impl Memo ===

impl Memo {
    fn renew(&mut self, revision: u64) {
        if self.revision != revision || self.bytes > REMEMBERED {
            *self = Memo { revision, ..Memo::default() };
        }
    }

    fn put(&mut self, stored: Bytes, converted: Bytes) {
        self.bytes += stored.len() + converted.len();
        self.converted.insert(stored, converted);
    }
}

// === impl Shell ===

impl Shell {
    /// Stored objects in the version of the resource at `path`. Who comes second waits, and finds what the first has asked for.
    async fn converted(&self, path: (&str, &str, &str), stored: Vec<Bytes>) -> Result<Converted, Response> {
        let memo = self.conversions.memo(path);
        let mut memo = memo.lock().await;
        memo.renew(self.derived.load().customs().revision());
        let open: Vec<Bytes> =
            stored.iter().filter(|stored| !memo.converted.contains_key(*stored)).cloned().collect();
        let mut answers = Answers::default();
        for _ in 0..MAX_ASKS {
            let planned = {
                let (snapshot, derived) = (self.store.snapshot(), self.derived.load());
                let config = self.config.load();
                let world = World { snapshot: &snapshot, derived: &derived, config: &config };
                convert(&world, path, &open, &answers)
            };
            match planned {
                Conversion::Ask(ask) => self.webhooks.ask(&self.tunnels, ask, &mut answers).await,
                Conversion::Failed(response) => return Err(response),
                Conversion::Done(converted) => {
                    converted.into_iter().for_each(|(stored, converted)| memo.put(stored, converted));
                    let found = stored.into_iter().filter_map(|stored| {
                        let converted = memo.converted.get(&stored)?.clone();
                        Some((stored, converted))
                    });
                    return Ok(found.collect());
                }
            }
        }
        Err(*failure::internal("the webhook that converts objects was asked again and again"))
    }
}

impl Convert for Arc<Shell> {
    fn convert(
        &self,
        path: (&str, &str, &str),
        stored: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Converted, Response>> {
        let (shell, path) = (self.clone(), (path.0.to_owned(), path.1.to_owned(), path.2.to_owned()));
        Box::pin(async move { shell.converted((&path.0, &path.1, &path.2), stored).await })
    }
}
