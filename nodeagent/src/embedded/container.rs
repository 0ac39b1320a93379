//! Containers: made from a pod's configuration and an image, handed to a shim, watched, stopped, removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nodeagent_core::runtime::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Propagation, Resources, RuntimeError,
    SandboxId, Seccomp,
};

use super::shims::{self, ShimError};
use super::state::{ContainerRecord, Phase, SandboxRecord, new_id, write};
use super::{Container, EmbeddedRuntime, blocking, internal, seccomp, session, spec};
use crate::images::Record;
use crate::shim::protocol::Kind;
use crate::shim::task::{self, Exited, Process, Task};

/// How long a killed container may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// The status that a container's record and phase add up to.
pub(super) fn status(container: &Container) -> ContainerStatus {
    let record = &container.record;
    ContainerStatus {
        id: ContainerId(record.id.clone()),
        sandbox: SandboxId(record.sandbox.clone()),
        name: record.name.clone(),
        attempt: record.attempt,
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        state: state(&container.phase),
        log_path: record.log_path.clone(),
        labels: record.labels.clone(),
    }
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn state(phase: &Phase) -> ContainerState {
    match phase {
        Phase::Created => ContainerState::Created,
        Phase::Running { started_at, .. } => ContainerState::Running { started_at: time(*started_at) },
        Phase::Exited { started_at, exited } => {
            let reason = match exited {
                Exited { lost: true, .. } => "ContainerStatusUnknown",
                Exited { start_error: Some(_), .. } => "StartError",
                Exited { oom_killed: true, .. } => "OOMKilled",
                Exited { code: 0, .. } => "Completed",
                _ => "Error",
            };
            let message = match exited {
                Exited { lost: true, .. } => {
                    "The container could not be located when the pod was terminated".to_owned()
                }
                _ => exited.start_error.clone().unwrap_or_default(),
            };
            ContainerState::Exited {
                started_at: started_at.map(time),
                finished_at: time(exited.at),
                exit_code: exited.code,
                oom_killed: exited.oom_killed,
                reason: reason.to_owned(),
                message,
            }
        }
    }
}

fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// `SIGTERM`, `TERM`, `15` or `RTMIN+3`; SIGTERM when it is none of these.
fn signal_number(name: &str) -> i32 {
    let name = name.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=64).contains(&number) { number } else { libc::SIGTERM };
    }
    let full = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    if let Some(offset) = full.strip_prefix("SIGRTMIN+").and_then(|offset| offset.parse::<i32>().ok()) {
        return libc::SIGRTMIN() + offset;
    }
    full.parse::<nix::sys::signal::Signal>().map_or(libc::SIGTERM, |signal| signal as i32)
}

impl EmbeddedRuntime {
    /// Makes a container; it does not run yet.
    pub(super) async fn create_container_now(
        &self,
        sandbox: &str,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let sandbox = self.ready_sandbox(sandbox)?;
        let found = self.config.images.find(&config.image_id);
        let image = found
            .map_err(|error| error.into_runtime(&config.image_id))?
            .ok_or_else(|| RuntimeError::NotFound { what: format!("image {:?}", config.image_id) })?;
        let Some(this) = self.this.upgrade() else {
            return Err(RuntimeError::Internal("the runtime is closing".to_owned()));
        };
        let record = blocking(move || this.make_container(&sandbox, config, &image)).await?;
        let id = record.id.clone();
        let pod_uid = record.pod_uid.clone();
        self.lock().containers.insert(id.clone(), Container { record, phase: Phase::Created });
        self.changed(&pod_uid);
        Ok(ContainerId(id))
    }

    fn make_container(
        &self,
        sandbox: &SandboxRecord,
        config: ContainerConfig,
        image: &Record,
    ) -> Result<ContainerRecord, RuntimeError> {
        let id = new_id();
        let cgroup_path = format!("{}/{id}", sandbox.cgroup_path);
        let mut process = spec::process(&config, &image.run, &sandbox.hostname)?;
        process.seccomp = self.filters(&config, &process, &id)?;
        let dir = self.layout.container(&id);
        let record = ContainerRecord {
            sandbox: sandbox.id.clone(),
            pod_uid: sandbox.pod_uid.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            image: image.tags.first().or(image.digests.first()).unwrap_or(&image.id).clone(),
            image_id: image.id.clone(),
            log_path: config.log_path.clone(),
            labels: config.labels.clone(),
            cgroup_path: cgroup_path.clone(),
            stop_signal: signal_number(&image.run.stop_signal),
            created_at: Timestamp::now(),
            id,
        };
        let outcome = self.write_container(&dir, sandbox, &config, image, process, &record);
        if let Err(error) = outcome {
            let _ = fs::remove_dir_all(&dir);
            let _ = self.cgroups.remove(&cgroup_path);
            return Err(error);
        }
        self.config.images.touch(&image.id, Timestamp::now());
        Ok(record)
    }

    fn write_container(
        &self,
        dir: &Path,
        sandbox: &SandboxRecord,
        config: &ContainerConfig,
        image: &Record,
        process: Process,
        record: &ContainerRecord,
    ) -> Result<(), RuntimeError> {
        let failed = || internal("container directory");
        for part in ["rootfs", "upper", "work"] {
            fs::create_dir_all(dir.join(part)).map_err(failed())?;
        }
        self.cgroups.create(&record.cgroup_path, &config.resources).map_err(internal("container cgroup"))?;
        if !config.security.privileged {
            self.cgroups.restrict_devices(&record.cgroup_path);
        }
        if let Some(parent) = config.log_path.parent() {
            fs::create_dir_all(parent).map_err(internal("log directory"))?;
        }
        let looks_into = match &config.processes_of {
            None => None,
            Some(target) => Some(self.first_process(&sandbox.id, target).ok_or_else(|| {
                RuntimeError::InvalidConfig(format!("target container {target:?} is not running"))
            })?),
        };
        let specification = spec::runtime_spec(
            config,
            sandbox,
            &self.layout.sandbox(&sandbox.id),
            &record.cgroup_path,
            looks_into,
        );
        write(&dir.join("config.json"), &specification).map_err(failed())?;
        let task = Task {
            layers: image.layers.iter().rev().cloned().collect(),
            layers_dir: self.config.images.layers_dir(),
            process,
            cgroups: self.cgroups.dirs(&record.cgroup_path),
            cgroup_path: record.cgroup_path.clone(),
            oom_score_adj: config.resources.oom_score_adj,
            log_path: config.log_path.clone(),
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            shared_mounts: config.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional),
            own_pid_namespace: !sandbox.host_pid && !sandbox.share_pid && looks_into.is_none(),
            boot_id: self.boot_id.clone(),
        };
        write(&dir.join(task::TASK_FILE), &task).map_err(failed())?;
        self.layout.save_container(record).map_err(failed())
    }

    /// Gives a running container, and its sandbox, other limits.
    pub(super) async fn resize_container_now(
        &self,
        id: &str,
        container: Resources,
        pod: Resources,
    ) -> Result<(), RuntimeError> {
        let absent = || RuntimeError::NotFound { what: format!("container {id:?}") };
        let path =
            self.lock().containers.get(id).map(|it| it.record.cgroup_path.clone()).ok_or_else(absent)?;
        let cgroups = self.cgroups.clone();
        blocking(move || {
            let around = path.rsplit_once('/').map_or("", |(around, _)| around);
            // No part may have more than the whole: for more the whole comes first, for less the part.
            let before = cgroups.limit(around, &pod);
            cgroups.limit(&path, &container).map_err(internal("container size"))?;
            before.or_else(|_| cgroups.limit(around, &pod)).map_err(internal("pod size"))
        })
        .await
    }

    /// The first process of the running container of that name in a sandbox.
    fn first_process(&self, sandbox: &str, name: &str) -> Option<i32> {
        let state = self.lock();
        let mut named =
            state.containers.values().filter(|it| it.record.sandbox == sandbox && it.record.name == name);
        named.find_map(|it| match it.phase {
            Phase::Running { pid, .. } => Some(pid),
            _ => None,
        })
    }

    fn filters(
        &self,
        config: &ContainerConfig,
        process: &Process,
        id: &str,
    ) -> Result<Vec<PathBuf>, RuntimeError> {
        if config.security.privileged {
            return Ok(Vec::new());
        }
        let made = match &config.security.seccomp {
            Seccomp::Unconfined => return Ok(Vec::new()),
            Seccomp::RuntimeDefault => seccomp::runtime_default(&self.layout.seccomp(), process.capabilities),
            Seccomp::Localhost(path) => seccomp::from_profile(&self.layout.container(id), path, "profile"),
        };
        made.map_err(|error| RuntimeError::InvalidConfig(error.to_string()))
    }

    /// Starts a created container.
    pub(super) async fn start_container_now(&self, id: &str) -> Result<(), RuntimeError> {
        match self.container(id)?.phase {
            Phase::Created => {}
            Phase::Running { .. } => return Ok(()),
            Phase::Exited { .. } => {
                return Err(RuntimeError::InvalidConfig(format!("container {id} has ended")));
            }
        }
        let Some(this) = self.this.upgrade() else {
            return Err(RuntimeError::Internal("the runtime is closing".to_owned()));
        };
        let dir = self.layout.container(id);
        let shim_dir = dir.clone();
        blocking(move || this.zygote.start_shim(&shim_dir).map_err(internal("start the container's shim")))
            .await?;
        let outcome = shims::request(&dir, Kind::Start, b"").await;
        self.refresh(id);
        match outcome {
            Ok(_) => {
                self.watch_exit(id.to_owned());
                Ok(())
            }
            Err(ShimError::Refused(text)) => Err(RuntimeError::Start(text)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads where the container is; tells everybody when that has changed.
    fn refresh(&self, id: &str) {
        let Ok(container) = self.container(id) else { return };
        let phase = match self.layout.phase(id, &self.boot_id) {
            Some(phase) => phase,
            None => self.lost(&container.record),
        };
        if phase == container.phase {
            return;
        }
        if let Some(known) = self.lock().containers.get_mut(id) {
            known.phase = phase;
        }
        self.changed(&container.record.pod_uid);
    }

    /// A container whose shim is gone: what is left of it is killed, and it counts as ended.
    pub(super) fn lost(&self, record: &ContainerRecord) -> Phase {
        self.cgroups.kill(&record.cgroup_path);
        let dir = self.layout.container(&record.id);
        let started: Option<task::Started> = super::state::read(&dir.join(task::STARTED_FILE));
        let exited = Exited { code: 137, at: now_ns(), oom_killed: false, start_error: None, lost: true };
        if let Err(error) = write(&dir.join(task::EXITED_FILE), &exited) {
            tracing::warn!(container = record.id, %error, "cannot note that a container was lost");
        }
        Phase::Exited { started_at: started.map(|started| started.at), exited }
    }

    /// Waits, beside everything else, for a running container to end.
    pub(super) fn watch_exit(&self, id: String) {
        let (this, dir) = (self.this.clone(), self.layout.container(&id));
        tokio::spawn(async move {
            loop {
                if let Ok(mut connection) = shims::request(&dir, Kind::Wait, b"").await {
                    // Whatever ends the wait: the files tell what has happened.
                    let _ = shims::next_frame(&mut connection.stream, &mut connection.rest).await;
                }
                let Some(this) = this.upgrade() else { return };
                this.refresh(&id);
                match this.container(&id) {
                    Ok(container) if matches!(container.phase, Phase::Running { .. }) => {}
                    _ => return,
                }
                drop(this);
                // A killed shim closes its socket a moment before it counts as gone.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    /// Sends the stop signal, waits for `grace`, then kills.
    pub(super) async fn stop_container_now(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        match container.phase {
            Phase::Exited { .. } => return Ok(()),
            Phase::Created => {
                let exited =
                    Exited { code: 0, at: now_ns(), oom_killed: false, start_error: None, lost: false };
                write(&self.layout.container(id).join(task::EXITED_FILE), &exited)
                    .map_err(internal("container state"))?;
                self.refresh(id);
                return Ok(());
            }
            Phase::Running { .. } => {}
        }
        let dir = self.layout.container(id);
        if !grace.is_zero() {
            let signal = [container.record.stop_signal as u8];
            if shims::request(&dir, Kind::Signal, &signal).await.is_ok() && self.ended_within(id, grace).await
            {
                return Ok(());
            }
        }
        // Failing that, the cgroup is killed below.
        let _ = shims::request(&dir, Kind::Signal, &[libc::SIGKILL as u8]).await;
        if self.ended_within(id, KILL_WAIT).await {
            return Ok(());
        }
        let phase = self.lost(&container.record);
        if let Some(known) = self.lock().containers.get_mut(id) {
            known.phase = phase;
        }
        self.changed(&container.record.pod_uid);
        Ok(())
    }

    async fn ended_within(&self, id: &str, time: Duration) -> bool {
        let mut changes = self.changes.subscribe();
        let ended = async {
            loop {
                changes.borrow_and_update();
                match self.container(id) {
                    Ok(container) if matches!(container.phase, Phase::Running { .. }) => {}
                    _ => return,
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(time, ended).await.is_ok()
    }

    /// Removes a container, not its log. One that runs is killed.
    pub(super) async fn remove_container_now(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_container_now(id, Duration::ZERO).await?;
        let Ok(container) = self.container(id) else { return Ok(()) };
        let (cgroups, dir) = (self.cgroups.clone(), self.layout.container(id));
        blocking(move || {
            cgroups.remove(&container.record.cgroup_path).map_err(internal("container cgroup"))?;
            crate::netns::unmount(&dir.join("rootfs")).map_err(internal("container root"))?;
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(internal("container directory")(error))
                }
                _ => Ok(()),
            }
        })
        .await?;
        self.lock().containers.remove(id);
        Ok(())
    }

    /// Starts a new log file after rotation.
    pub(super) async fn reopen_log_now(&self, id: &str) -> Result<(), RuntimeError> {
        let dir = self.running_dir(id)?;
        shims::request(&dir, Kind::ReopenLog, b"").await?;
        Ok(())
    }

    /// Directory of a container that runs.
    pub(super) fn running_dir(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        match self.container(id)?.phase {
            Phase::Running { .. } => Ok(self.layout.container(id)),
            _ => Err(session::ended()),
        }
    }

    fn container(&self, id: &str) -> Result<Container, RuntimeError> {
        let found = self.lock().containers.get(id).cloned();
        found.ok_or_else(|| RuntimeError::NotFound { what: format!("container {id}") })
    }
}

/// Keeps the compiler honest about what is shared between tasks.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<EmbeddedRuntime>>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_names_or_numbers() {
        for (name, expected) in [
            ("", libc::SIGTERM),
            ("SIGQUIT", libc::SIGQUIT),
            ("quit", libc::SIGQUIT),
            ("9", libc::SIGKILL),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("99", libc::SIGTERM),
        ] {
            assert_eq!(signal_number(name), expected, "{name:?}");
        }
    }

    #[test]
    fn reasons_are_those_that_users_know() {
        let exited = |code, oom_killed, start_error: Option<&str>, lost| {
            let exited =
                Exited { code, at: 0, oom_killed, start_error: start_error.map(str::to_owned), lost };
            match state(&Phase::Exited { started_at: None, exited }) {
                ContainerState::Exited { reason, .. } => reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(exited(0, false, None, false), "Completed");
        assert_eq!(exited(1, false, None, false), "Error");
        assert_eq!(exited(137, true, None, false), "OOMKilled");
        assert_eq!(exited(128, false, Some("no such file"), false), "StartError");
        assert_eq!(exited(137, false, None, true), "ContainerStatusUnknown");
    }
}
