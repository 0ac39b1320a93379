//! Hosts the election machine: stands for election until told to stop.

use client_core::election::{Action, Config, Election, Event, Role};
use k8s_openapi::api::coordination::v1::Lease;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Client;

/// Starts a candidate. Its role is told through the returned channel; the channel closes when the candidate has stopped.
/// On shutdown a held lease is given back.
pub fn stand(client: Client, config: Config, shutdown: CancellationToken) -> watch::Receiver<Role> {
    let (role, receiver) = watch::channel(Role::Follower { leader: None });
    tokio::spawn(run(client, config, shutdown, role));
    receiver
}

async fn run(client: Client, config: Config, shutdown: CancellationToken, role: watch::Sender<Role>) {
    let mut rng = StdRng::from_os_rng();
    let lease = config.lease.clone();
    let mut election = Election::new(config);
    let mut request: Option<futures::future::BoxFuture<'static, Event>> = None;
    let mut stopping = false;
    loop {
        if request.is_none()
            && let Some(action) = election.poll_action(crate::clock::now())
        {
            let client = client.clone();
            let lease = lease.clone();
            request = Some(Box::pin(perform(client, lease, action)));
        }
        if stopping && request.is_none() {
            return;
        }
        let event = tokio::select! {
            event = answer(&mut request) => {
                request = None;
                event
            }
            () = crate::clock::sleep_until(election.poll_timeout()) => Event::Timeout,
            () = shutdown.cancelled(), if !stopping => {
                stopping = true;
                request = None;
                Event::Release
            }
        };
        election.handle(event, crate::clock::now(), &mut rng);
        role.send_if_modified(|known| {
            let changed = known != election.role();
            if changed {
                known.clone_from(election.role());
            }
            changed
        });
    }
}

async fn answer(request: &mut Option<futures::future::BoxFuture<'static, Event>>) -> Event {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

async fn perform(client: Client, key: client_core::object::ObjectKey, action: Action) -> Event {
    let written = match action {
        Action::Read => {
            return match client.get_opt::<Lease>(key.namespace_opt(), &key.name).await {
                Ok(lease) => Event::Read(lease.map(Box::new)),
                Err(error) => {
                    tracing::debug!(lease = %key, %error, "lease not read");
                    Event::Failed
                }
            };
        }
        Action::Create(lease) => client.create(&*lease).await,
        Action::Update(lease) => client.replace(&*lease).await,
    };
    match written {
        Ok(lease) => Event::Written(Box::new(lease)),
        Err(error) => {
            tracing::debug!(lease = %key, %error, "lease not written");
            Event::Failed
        }
    }
}
