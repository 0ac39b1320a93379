//! Has this server follow the keys that the cluster agreed on, say what it has, and, while it leads, take the next step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::status::Status;
use apiserver_core::authn::jwt::SigningKey;
use apiserver_core::cluster::RotationRequest;
use apiserver_core::failure::Refused;
use apiserver_core::keyring::{Holders, Keyring, Named as _, Report};
use apiserver_core::{failure, keys};
use jiff::Timestamp;
use store::{Expect, Outcome, Txn};

use crate::pki::{self, PkiError};
use crate::shell::Shell;

/// How often it is looked whether there is something to do.
const LOOK: Duration = Duration::from_secs(1);
/// While files of an earlier key of the store stay, another checkpoint is asked for this often.
const REKEY_AGAIN: Duration = Duration::from_secs(30);
/// How often a change is planned anew because the keys were changed meanwhile.
const MAX_PLANS: usize = 16;

/// The names of the keys in paths.
const AUTHORITY: &str = "authority";
const SERVICE_ACCOUNT: &str = "service-account";
const STORE: &str = "store";

/// What was done already.
#[derive(Default)]
pub(crate) struct Seen {
    /// The revision of the keys that were taken over.
    revision: u64,
    /// What was said last.
    report: Option<Report>,
    /// When the store was last asked to write files with its newest key.
    rekeyed: Option<Instant>,
}

/// Why a step could not be taken; it is tried again.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the keys of the cluster cannot be used")]
    Pki(#[from] PkiError),
    #[error("the server's certificate cannot be made")]
    Tls(#[from] crate::tls::TlsError),
    #[error("the store")]
    Commit(#[from] store::CommitError),
    #[error("the store's key was not replaced")]
    Rekey(#[from] store::RekeyError),
    #[error("what the server says of its keys cannot be written")]
    Json(#[from] serde_json::Error),
}

/// Follows the keys until the server stops.
pub(crate) async fn follow(shell: Arc<Shell>) {
    let mut seen = Seen::default();
    loop {
        tokio::select! {
            () = shell.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        look(&shell, &mut seen).await;
    }
}

/// Looks once. What fails is tried again at the next look.
pub(crate) async fn look(shell: &Shell, seen: &mut Seen) {
    if let Err(error) = step(shell, seen).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the keys of the cluster are not followed yet"
        );
    }
}

async fn step(shell: &Shell, seen: &mut Seen) -> Result<(), StepError> {
    let snapshot = shell.store.snapshot();
    let agreed = Keyring::read(&snapshot);
    if let Some((revision, keyring)) = agreed.as_ref().filter(|(revision, _)| *revision != seen.revision) {
        if shell.authority.adopt(keyring)? {
            shell.tls.renew()?;
            let mut config = (*shell.config.load_full()).clone();
            config.signing_keys = shell.authority.signing_keys();
            shell.config.store(Arc::new(config));
        }
        if shell.authority.store_keys().first().is_none_or(|key| key.number < keyring.store_key) {
            // On the disk before anything is written with it.
            shell.authority.make_store_key(keyring.store_key)?;
        }
        seen.revision = *revision;
    }
    follow_store_key(shell, seen).await?;
    let member = shell.store.leadership().borrow().member;
    let report = report(shell);
    if seen.report.as_ref() != Some(&report) {
        shell.store.commit(Txn::put(keys::key_report(member), serde_json::to_vec(&report)?)).await?;
        seen.report = Some(report);
    }
    let Some((revision, keyring)) = agreed else { return Ok(()) };
    let moves = keyring.authority.next.is_some()
        || keyring.token_key.next.is_some()
        || !keyring.authority.former.is_empty()
        || !keyring.token_key.former.is_empty();
    if !moves || !shell.store.leadership().borrow().leads() {
        return Ok(());
    }
    let holders = holders(shell).await;
    if let Some(next) = keyring.advanced(&holders, Timestamp::now()) {
        // On a conflict the keys have changed: the next look sees them.
        write(shell, &next, Expect::Revision(revision)).await?;
    }
    Ok(())
}

/// Has the store use its newest key, and forgets those that no file needs any more.
async fn follow_store_key(shell: &Shell, seen: &mut Seen) -> Result<(), StepError> {
    let known = shell.authority.store_keys();
    let [newest, _, ..] = &known[..] else { return Ok(()) };
    if seen.rekeyed.is_none_or(|at| at.elapsed() >= REKEY_AGAIN) {
        seen.rekeyed = Some(Instant::now());
        shell.store.rekey(store::Key::new(newest.id(), *newest.material)).await?;
    }
    let in_use = shell.store.key_ids().await?;
    if known.iter().skip(1).any(|key| !in_use.contains(&key.id())) {
        shell.authority.drop_store_keys(|key| !in_use.contains(&key.id()))?;
        seen.rekeyed = None;
    }
    Ok(())
}

/// What this server has.
fn report(shell: &Shell) -> Report {
    let keyring = shell.authority.keyring();
    let certificate = shell.tls.certificate();
    Report {
        accepts: keyring.authority.accepted().map(|key| key.id().to_owned()).collect(),
        issuer: certificate.issuer,
        expires: Timestamp::try_from(certificate.not_after).unwrap_or(Timestamp::MAX),
        token_keys: shell
            .config
            .load()
            .signing_keys
            .iter()
            .map(|key: &SigningKey| key.id().to_owned())
            .collect(),
        store_keys: shell.authority.store_keys().iter().map(|key| key.number).collect(),
    }
}

/// Who has keys, and what each has said.
pub(crate) async fn holders(shell: &Shell) -> Holders {
    let members: Vec<(u64, String)> =
        shell.store.members().await.into_iter().map(|member| (member.id, member.name)).collect();
    Holders::read(&shell.store.snapshot(), &members)
}

async fn write(shell: &Shell, keyring: &Keyring, expect: Expect) -> Result<bool, StepError> {
    let txn = Txn::put(keys::KEYRING, serde_json::to_vec(keyring)?).when(keys::KEYRING, expect);
    Ok(matches!(shell.store.commit(txn).await?, Outcome::Committed { .. }))
}

/// Begins to rotate a key, or ends the time of those before it (`drop_old`).
pub(crate) async fn change(
    shell: &Shell,
    kind: &str,
    request: &RotationRequest,
    drop_old: bool,
) -> Result<(), Refused> {
    let internal = |error: &dyn std::error::Error| failure::internal(&error.to_string());
    for _ in 0..MAX_PLANS {
        let snapshot = shell.store.linearizable().await;
        let snapshot = snapshot.map_err(|error| Status::unavailable(error.to_string()))?;
        let (expect, mut keyring) = match Keyring::read(&snapshot) {
            Some((revision, keyring)) => (Expect::Revision(revision), keyring),
            None => (Expect::Absent, shell.authority.keyring()),
        };
        if keyring.authority.current != shell.authority.keyring().authority.current {
            // The next one could not be vouched for by the right one.
            let message = "this server has not taken over the newest keys yet, please try again";
            return Err(Status::unavailable(message).into());
        }
        let now = Timestamp::now();
        let began = match (kind, drop_old) {
            (AUTHORITY, false) => {
                let next = shell.authority.successor().map_err(|error| internal(&error))?;
                keyring.authority.announce(next, request.keep_old_seconds)
            }
            (SERVICE_ACCOUNT, false) => {
                let next = pki::new_token_key().map_err(|error| internal(&error))?;
                keyring.token_key.announce(next, request.keep_old_seconds)
            }
            (STORE, false) => {
                keyring.store_key += 1;
                true
            }
            (AUTHORITY, true) => {
                keyring.authority.expire_former(now);
                true
            }
            (SERVICE_ACCOUNT, true) => {
                keyring.token_key.expire_former(now);
                true
            }
            _ => return Err(failure::no_such_path()),
        };
        if !began {
            let message =
                format!("the {kind} key is being rotated already: `orlop status` shows what that waits for");
            return Err(failure::conflict(&message));
        }
        if write(shell, &keyring, expect).await.map_err(|error| internal(&error))? {
            return Ok(());
        }
    }
    Err(failure::conflict("the keys of the cluster were changed again and again meanwhile"))
}
