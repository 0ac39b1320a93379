//! Writes events without ever making their author wait.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client_core::events::{Correlated, Correlator, EventNote, EventRecord, EventType, Limits};
use client_core::object::{Kind, ObjectKey, ResourceType, Target};
use client_core::plan::PatchKind;
use http::Method;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::params::{Patch, WriteParams};
use crate::{Client, Error};

/// Events of one object are written one after another; this many objects' at once.
const LANES: usize = 16;

/// How many notes of one lane may wait; what comes beyond is dropped.
const WAITING: usize = 2048;

/// How often a write is tried when the server is not reachable or busy.
const TRIES: u32 = 4;

/// Takes notes and writes them as Events in the background. Clones share everything; the writers end with the last clone.
#[derive(Clone)]
pub struct Recorder {
    /// `None`: nothing is written.
    shared: Option<Arc<Shared>>,
    dropped: Arc<AtomicU64>,
}

struct Shared {
    client: Client,
    source: EventSource,
    instance: String,
    runtime: Handle,
    /// Each is started by its first note: there are many recorders, and most have little to say.
    lanes: [OnceLock<mpsc::Sender<Message>>; LANES],
}

enum Message {
    Note(Box<EventNote>),
    Flush(oneshot::Sender<()>),
}

/// Writes the events of one lane.
struct Writer {
    client: Client,
    source: EventSource,
    instance: String,
    correlator: Correlator,
}

// === impl Recorder ===

impl Recorder {
    /// A recorder for a component (for example `default-scheduler`), on a host if that matters. Must be called within a runtime.
    pub fn new(client: &Client, component: &str, host: Option<&str>) -> Self {
        let shared = Shared {
            client: client.clone(),
            source: EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) },
            instance: host.unwrap_or(component).to_owned(),
            runtime: Handle::current(),
            lanes: [const { OnceLock::new() }; LANES],
        };
        Self { shared: Some(Arc::new(shared)), dropped: Arc::default() }
    }

    /// A recorder that writes nothing.
    pub fn disabled() -> Self {
        Self { shared: None, dropped: Arc::default() }
    }

    /// Takes a note. Never waits: with too many waiting it is dropped.
    pub fn note(&self, note: EventNote) {
        let Some(shared) = &self.shared else { return };
        let mut hasher = DefaultHasher::new();
        (&note.regarding.namespace, &note.regarding.name, &note.regarding.kind).hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or_default();
        let lane = shared.lanes.get(lane).map(|lane| lane.get_or_init(|| shared.start()));
        let sent = lane.map(|lane| lane.try_send(Message::Note(Box::new(note))));
        if !matches!(sent, Some(Ok(()))) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a note about an object of a typed kind.
    pub fn event<K: Kind>(&self, object: &K, kind: EventType, reason: &str, message: impl Into<String>) {
        self.note(EventNote::about(object, kind, reason, message));
    }

    /// How many notes were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything noted so far is written or given up.
    pub async fn flush(&self) {
        let lanes = self.shared.iter().flat_map(|shared| &shared.lanes);
        for lane in lanes.filter_map(OnceLock::get) {
            let (sender, receiver) = oneshot::channel();
            if lane.send(Message::Flush(sender)).await.is_ok() {
                // An error means that the writer has ended: nothing is left to wait for.
                let _ = receiver.await;
            }
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn start(&self) -> mpsc::Sender<Message> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let limits = Limits { remembered: 4096 / LANES, ..Limits::default() };
        let writer = Writer {
            client: self.client.clone(),
            source: self.source.clone(),
            instance: self.instance.clone(),
            correlator: Correlator::new(limits),
        };
        self.runtime.spawn(writer.run(receiver));
        sender
    }
}

// === impl Writer ===

impl Writer {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Note(note) => self.note(*note).await,
                Message::Flush(done) => {
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
            }
        }
    }

    async fn note(&mut self, note: EventNote) {
        let (record, written) = match self.correlator.note(note, crate::clock::now()) {
            Correlated::Dropped => return,
            Correlated::Create(record) => {
                let written = self.create(&record).await;
                (record, written)
            }
            Correlated::Update(record) => {
                let written = match self.update(&record).await {
                    // The event has expired meanwhile.
                    Err(error) if error.is_not_found() => self.create(&record).await,
                    other => other,
                };
                (record, written)
            }
        };
        if let Err(error) = written {
            self.correlator.forget(&record);
            let object = record.note.regarding.name.as_deref().unwrap_or_default();
            tracing::debug!(object, reason = record.note.reason, %error, "event not written");
        }
    }

    async fn create(&self, record: &EventRecord) -> Result<(), Error> {
        let path = ResourceType::of::<Event>().collection_path(Some(namespace(record)));
        let event = self.object(record);
        let params = WriteParams::default();
        self.tried(|| self.client.send_bytes(Method::POST, path.clone(), &event, &params)).await
    }

    async fn update(&self, record: &EventRecord) -> Result<(), Error> {
        let target = Target::of::<Event>(ObjectKey::new(namespace(record), record.name.as_str()));
        let body = json!({
            "count": record.count,
            "lastTimestamp": Time(record.last),
            "message": record.note.message,
        });
        let patch = Patch::new(PatchKind::Merge, body);
        self.tried(|| self.client.patch_bytes(&target, &patch)).await
    }

    /// Tries again after a while what may succeed later.
    async fn tried<F, T>(&self, request: impl Fn() -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut delay = Duration::from_millis(250);
        let mut tries = 1;
        loop {
            match request().await {
                Ok(_) => return Ok(()),
                // An earlier try got through.
                Err(error) if tries > 1 && error.is_already_exists() => return Ok(()),
                Err(error) if tries < TRIES && error.is_transient() => {
                    tokio::time::sleep(delay).await;
                    delay *= 4;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn object(&self, record: &EventRecord) -> Event {
        let note = &record.note;
        Event {
            metadata: ObjectMeta {
                namespace: Some(namespace(record).to_owned()),
                name: Some(record.name.clone()),
                ..ObjectMeta::default()
            },
            involved_object: note.regarding.clone(),
            reason: Some(note.reason.clone()),
            message: Some(note.message.clone()),
            action: (!note.action.is_empty()).then(|| note.action.clone()),
            type_: Some(note.kind.as_str().to_owned()),
            count: Some(record.count),
            first_timestamp: Some(Time(record.first)),
            last_timestamp: Some(Time(record.last)),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// Events about cluster-scoped objects live in `default`.
fn namespace(record: &EventRecord) -> &str {
    record.note.regarding.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}

#[cfg(test)]
mod tests;
