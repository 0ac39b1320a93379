//! Opens a directory, recovers what is in it, and starts the store's thread.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::process::setpriority_process;
use store_core::disk::{Disk, DiskError};
use store_core::files::FilesError;
use store_core::history::History;
use store_core::host::{Host, HostError, HostSettings, Output, Stopped};
use store_core::members::Members;
use store_core::node::Settings;
use store_core::recovery::{self, RecoveryError};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use super::{Driver, now_ms};
use crate::answers::Answers;
use crate::handle::{Request, Started};
use crate::membership::Leadership;
use crate::options::{FatalHandler, Start};
use crate::peer_service::PeerService;
use crate::peers::{Addresses, Peers, Runtimes};
use crate::published::Published;
use crate::real_disk::{DirLock, RealDisk};
use crate::{FatalError, OpenError, Options};

/// The thread of a store with peers does little at a time, and everybody waits for it: on a machine that is busy with workloads
/// it goes first, and a leader's signs of life come in time. One without peers goes with everybody else: the later it runs,
/// the more writes share a sync.
const NICE: i32 = -10;

/// Opens the directory, recovers, and starts the thread.
pub(crate) fn start(options: Options) -> Result<Started, OpenError> {
    let answering = Handle::try_current().ok();
    let shared = match &options.peers {
        Some(_) => Some(answering.clone().ok_or(OpenError::NoRuntime)?),
        None => None,
    };
    let (disk, lock) = RealDisk::open(&options.dir)?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let disk = options.disk_layer.as_ref().map_or(disk.clone(), |layer| layer(disk));
    let now = now_ms();
    let opened = Host::open(disk, options.keys(), &host_settings(&options, now), now);
    let (mut host, notes) = opened.map_err(|error| open_error(&options, error))?;
    for note in notes {
        tracing::warn!(dir = %options.dir.display(), "{note}");
    }
    let outputs = host.take_outputs();
    let first = outputs.iter().find_map(|output| match output {
        Output::Publish(batch) => Some(batch.events.first()?.revision - 1),
        _ => None,
    });
    let begin = first.unwrap_or(host.snapshot().revision());
    let history = History::new(begin, options.history);
    let published = Arc::new(Published::new(host.snapshot().clone(), history));
    let (requests, waiting) = unbounded_channel();
    let (member, address) = (options.member, options.start.member().address);
    let addresses = Arc::new(Addresses::default());
    let members = Arc::new(ArcSwap::from_pointee(Members::default()));
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| OpenError::Thread { reason: error.to_string() })?;
    let own = runtime.handle().clone();
    let service = PeerService::new(member, requests.clone(), members.clone(), addresses.clone(), own.clone());
    let peers = options.peers.zip(shared).map(|(connector, shared)| {
        let runtimes = Runtimes { own, shared };
        Peers::new(member, address, connector, addresses.clone(), requests.clone(), runtimes)
    });
    let (leadership, leaderships) = watch::channel(Leadership { member, ..Leadership::default() });
    let driver = Driver {
        member,
        host,
        peers,
        members,
        addresses: addresses.clone(),
        leadership,
        changes: HashMap::new(),
        closing: None,
        published: published.clone(),
        requests: requests.clone(),
        writers: HashMap::new(),
        readers: HashMap::new(),
        answers: Answers::new(answering.as_ref()),
        next_ticket: 1,
        jobs: Vec::new(),
    };
    spawn(driver, outputs, waiting, lock, runtime, options.on_fatal)?;
    Ok(Started { published, requests, leadership: leaderships, service, addresses })
}

fn host_settings(options: &Options, now_ms: i64) -> HostSettings {
    let mut node = Settings::new(options.member);
    node.checkpoint_log_bytes = options.checkpoint_log_bytes;
    let start = match &options.start {
        Start::First { .. } => recovery::Start::First(options.start.member()),
        Start::Join { .. } => recovery::Start::Join(options.start.member()),
    };
    HostSettings {
        node,
        start,
        segment_bytes: options.segment_bytes,
        boot: now_ms.max(1).cast_unsigned(),
        seed: rand::random(),
    }
}

fn spawn(
    mut driver: Driver,
    outputs: Vec<Output>,
    mut waiting: UnboundedReceiver<Request>,
    lock: DirLock,
    runtime: Runtime,
    on_fatal: FatalHandler,
) -> Result<(), OpenError> {
    driver.perform(outputs, now_ms());
    // Not moved in: dropped with a closure that found no thread, a runtime would wait for its tasks, and panic.
    let (hand_over, handed_over) = std::sync::mpsc::channel::<Runtime>();
    let body = move || {
        let Ok(runtime) = handed_over.recv() else { return };
        if driver.peers.is_some() {
            // Refused without the capability for it: then it goes with everybody else.
            let _ = setpriority_process(None, NICE);
        }
        let published = driver.published.clone();
        // A task, and not what the runtime blocks on: a task of this thread that wakes that calls the kernel each time.
        let work = runtime.spawn(async move {
            let ended = driver.run(&mut waiting).await;
            (driver, waiting, ended)
        });
        let ended = runtime.block_on(work);
        // Nobody confirms any more that what is published is the newest.
        published.confirm(false);
        let (mut driver, mut waiting, closing) = match ended {
            Ok((driver, waiting, Ok(closing))) => (driver, waiting, closing),
            Ok((_, _, Err(stopped))) => {
                on_fatal(&FatalError { reason: stopped.to_string() });
                return;
            }
            // A panic must not leave a store behind that looks alive: it ends like any other fatal error.
            Err(panicked) => {
                on_fatal(&FatalError { reason: panicked.to_string() });
                return;
            }
        };
        driver.finish(&mut waiting);
        drop((driver, waiting, runtime, lock));
        for done in closing {
            // Who closed may have stopped waiting.
            let _ = done.send(());
        }
    };
    match std::thread::Builder::new().name("store".into()).spawn(body) {
        Ok(_) => {
            // The thread waits for it.
            let _ = hand_over.send(runtime);
            Ok(())
        }
        Err(error) => {
            runtime.shutdown_background();
            Err(OpenError::Thread { reason: error.to_string() })
        }
    }
}

fn open_error(options: &Options, error: HostError) -> OpenError {
    match error {
        HostError::Recovery(RecoveryError::Disk(error)) => OpenError::Disk(error),
        HostError::Stopped(Stopped::Log(FilesError::Disk(error @ DiskError::Full))) => OpenError::Disk(error),
        other => OpenError::Recovery { dir: options.dir.clone(), reason: other.to_string() },
    }
}
