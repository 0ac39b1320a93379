//! What a container may do: pod and container `securityContext` laid over each other.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use crate::pod;
use crate::runtime::{Image, Seccomp, Security};

/// Why a container must not be created. Shown as `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The pod itself asks for root.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunAsUser {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The image runs as root.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    RootImage {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The image names its user, so that nobody knows whether it is root.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    NamedUser {
        /// As the image has it.
        user: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// A profile's path leaves the directory of profiles.
    #[error("invalid seccomp profile path {0:?}")]
    Profile(String),
}

/// The settings that count. `profiles`: where `Localhost` seccomp profiles live.
///
/// # Errors
/// When the settings contradict `runAsNonRoot`.
pub fn merge(pod: &Pod, container: &Container, image: &Image, profiles: &Path) -> Result<Security, Error> {
    let outer = pod::spec(pod).security_context.clone().unwrap_or_default();
    let inner = container.security_context.clone().unwrap_or_default();
    let privileged = inner.privileged.unwrap_or(false);
    let capabilities = inner.capabilities.unwrap_or_default();
    let run_as_user = inner.run_as_user.or(outer.run_as_user);
    let non_root = inner.run_as_non_root.or(outer.run_as_non_root).unwrap_or(false);
    if non_root {
        check_non_root(pod, container, run_as_user, image)?;
    }
    let profile = inner.seccomp_profile.as_ref().or(outer.seccomp_profile.as_ref());
    let mut groups: Vec<i64> = outer.supplemental_groups.unwrap_or_default();
    groups.extend(outer.fs_group);
    let plain = |names: Option<Vec<String>>| -> Vec<String> {
        names.into_iter().flatten().map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
    };
    Ok(Security {
        run_as_user,
        run_as_group: inner.run_as_group.or(outer.run_as_group),
        run_as_non_root: non_root,
        supplemental_groups: groups,
        privileged,
        read_only_root: inner.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: inner.allow_privilege_escalation == Some(false),
        capabilities_add: plain(capabilities.add),
        capabilities_drop: plain(capabilities.drop),
        seccomp: if privileged && profile.is_none() {
            Seccomp::Unconfined
        } else {
            seccomp(profile, profiles)?
        },
    })
}

fn seccomp(profile: Option<&SeccompProfile>, profiles: &Path) -> Result<Seccomp, Error> {
    let Some(profile) = profile else { return Ok(Seccomp::RuntimeDefault) };
    match profile.type_.as_str() {
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => {
            let name = profile.localhost_profile.clone().unwrap_or_default();
            let path = PathBuf::from(&name);
            let inside = path.components().all(|it| matches!(it, std::path::Component::Normal(_)));
            if name.is_empty() || !inside {
                return Err(Error::Profile(name));
            }
            Ok(Seccomp::Localhost(profiles.join(path)))
        }
        _ => Ok(Seccomp::RuntimeDefault),
    }
}

fn check_non_root(pod: &Pod, container: &Container, user: Option<i64>, image: &Image) -> Result<(), Error> {
    let (pod, container) = (pod::full_name(pod), container.name.clone());
    if let Some(user) = user {
        return if user == 0 { Err(Error::RunAsUser { pod, container }) } else { Ok(()) };
    }
    let name = image.user.split(':').next().unwrap_or_default();
    match name.parse::<i64>() {
        Ok(0) => Err(Error::RootImage { pod, container }),
        Ok(_) => Ok(()),
        Err(_) if name.is_empty() => Err(Error::RootImage { pod, container }),
        Err(_) => Err(Error::NamedUser { user: name.to_owned(), pod, container }),
    }
}
