//! The volumes of pods on this node's disk: made before the first container, kept up to date, taken down with the pod.

mod atomic;
mod subpath;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Container, HostPathVolumeSource, Pod, ProjectedVolumeSource, Volume, VolumeProjection,
};
use nix::mount::{MsFlags, mount};
use nodeagent_core::fields::FieldContext;
use nodeagent_core::projection::{self, File, Files};
use nodeagent_core::runtime::{Mount, Propagation};
use nodeagent_core::{env, pod};

use crate::hands::Node;

/// Why a volume is not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Files { volume: String, source: projection::Error },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Api { volume: String, source: client::Error },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Disk { volume: String, source: io::Error },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : hostPath type check failed: {detail}")]
    HostPath { volume: String, detail: String },
    #[error(
        "MountVolume.SetUp failed for volume \"{volume}\" : its source is of a type that this node does not know"
    )]
    Unknown { volume: String },
    #[error(
        "MountVolume.SetUp failed for volume \"{volume}\" : projected source {index} ({kind}) is of a type that this node does not know"
    )]
    UnknownPart { volume: String, index: usize, kind: &'static str },
}

/// The directory of everything that belongs to one pod.
pub(crate) fn pod_dir(node: &Node, uid: &str) -> PathBuf {
    node.config.data_dir.join("pods").join(uid)
}

fn volume_dir(node: &Node, uid: &str, volume: &str) -> PathBuf {
    pod_dir(node, uid).join("volumes").join(volume)
}

fn group(of: &Pod) -> Option<u32> {
    pod::spec(of).security_context.as_ref().and_then(|it| it.fs_group).and_then(|it| u32::try_from(it).ok())
}

fn mode(stated: Option<i32>) -> u32 {
    stated.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
}

/// Makes all volumes of a pod ready; done again it brings their contents up to date.
pub(crate) async fn set_up(node: &Node, of: &Pod) -> Result<(), Error> {
    let uid = pod::uid(of).to_owned();
    let root = pod_dir(node, &uid);
    fs::create_dir_all(root.join("volumes"))
        .map_err(|source| Error::Disk { volume: String::new(), source })?;
    for volume in pod::spec(of).volumes.iter().flatten() {
        set_up_one(node, of, volume, &volume_dir(node, &uid, &volume.name)).await?;
    }
    Ok(())
}

async fn set_up_one(node: &Node, of: &Pod, volume: &Volume, dir: &Path) -> Result<(), Error> {
    let name = || volume.name.clone();
    let disk = |source| Error::Disk { volume: volume.name.clone(), source };
    if let Some(source) = &volume.empty_dir {
        let size =
            source.size_limit.as_ref().and_then(|it| it.0.parse::<Quantity>().ok()).map(|it| it.value());
        return empty_dir(dir, source.medium.as_deref() == Some("Memory"), size, group(of)).map_err(disk);
    }
    if let Some(source) = &volume.host_path {
        return host_path(source).map_err(|detail| Error::HostPath { volume: name(), detail });
    }
    let files = match files(node, of, volume).await? {
        Some(files) => files,
        None => return Err(Error::Unknown { volume: name() }),
    };
    if is_kept_in_memory(volume) {
        memory(dir).map_err(disk)?;
    }
    atomic::write(dir, &files, group(of)).map_err(disk).map(|_| ())
}

/// Secrets and tokens never reach the disk; ConfigMaps are not secret.
fn is_kept_in_memory(volume: &Volume) -> bool {
    volume.secret.is_some() || volume.projected.is_some() || volume.downward_api.is_some()
}

/// Makes `dir` a file system in memory, never swapped out where the kernel can promise that.
fn memory(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if is_mount(dir)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let make = |options: &str| mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options));
    match make("mode=0755,noswap") {
        // Kernels before 6.4 do not know the option.
        Err(nix::Error::EINVAL) => Ok(make("mode=0755")?),
        outcome => Ok(outcome?),
    }
}

/// The files of a volume that is made of objects; `None` for other volumes.
async fn files(node: &Node, of: &Pod, volume: &Volume) -> Result<Option<Files>, Error> {
    let bad = |source| Error::Files { volume: volume.name.clone(), source };
    let api = |source| Error::Api { volume: volume.name.clone(), source };
    let namespace = pod::namespace(of);
    if let Some(source) = &volume.config_map {
        let object = node.objects.config_maps.get(namespace, &source.name).await.map_err(api)?;
        let optional = source.optional.unwrap_or(false);
        let items = source.items.as_deref();
        let mode = mode(source.default_mode);
        return projection::config_map(&source.name, object.as_deref(), items, optional, mode)
            .map(Some)
            .map_err(bad);
    }
    if let Some(source) = &volume.secret {
        let wanted = source.secret_name.as_deref().unwrap_or_default();
        let object = node.objects.secrets.get(namespace, wanted).await.map_err(api)?;
        let optional = source.optional.unwrap_or(false);
        let items = source.items.as_deref();
        return projection::secret(wanted, object.as_deref(), items, optional, mode(source.default_mode))
            .map(Some)
            .map_err(bad);
    }
    if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        let ips = node.pod_ips(of);
        let context = node.fields(of, &ips);
        return projection::downward(&context, items, mode(source.default_mode)).map(Some).map_err(bad);
    }
    match &volume.projected {
        Some(source) => projected(node, of, volume, source).await.map(Some),
        None => Ok(None),
    }
}

async fn projected(
    node: &Node,
    of: &Pod,
    volume: &Volume,
    source: &ProjectedVolumeSource,
) -> Result<Files, Error> {
    let bad = |source| Error::Files { volume: volume.name.clone(), source };
    let api = |source| Error::Api { volume: volume.name.clone(), source };
    let mode = mode(source.default_mode);
    let namespace = pod::namespace(of);
    let mut all = Files::new();
    for (index, part) in source.sources.iter().flatten().enumerate() {
        if let Some(kind) = unknown_part(part) {
            return Err(Error::UnknownPart { volume: volume.name.clone(), index, kind });
        }
        if let Some(it) = &part.config_map {
            let object = node.objects.config_maps.get(namespace, &it.name).await.map_err(api)?;
            let optional = it.optional.unwrap_or(false);
            let items = it.items.as_deref();
            all.extend(
                projection::config_map(&it.name, object.as_deref(), items, optional, mode).map_err(bad)?,
            );
        }
        if let Some(it) = &part.secret {
            let object = node.objects.secrets.get(namespace, &it.name).await.map_err(api)?;
            let optional = it.optional.unwrap_or(false);
            let items = it.items.as_deref();
            all.extend(projection::secret(&it.name, object.as_deref(), items, optional, mode).map_err(bad)?);
        }
        if let Some(it) = &part.downward_api {
            let ips = node.pod_ips(of);
            let context: FieldContext<'_> = node.fields(of, &ips);
            all.extend(
                projection::downward(&context, it.items.as_deref().unwrap_or_default(), mode).map_err(bad)?,
            );
        }
        if let Some(it) = &part.service_account_token {
            let seconds = it.expiration_seconds.unwrap_or(3600);
            let audience = it.audience.as_deref().unwrap_or_default();
            let token = node.tokens.get(of, audience, seconds).await.map_err(api)?;
            let path = projection::checked(&it.path).map_err(bad)?;
            let (mode, owner) = projection::token_access(of, mode);
            all.insert(path, File { content: token.as_bytes().to_vec(), mode, owner });
        }
    }
    Ok(all)
}

/// The kind of a source that this node cannot make files from. A file that is silently missing would be worse than no pod.
fn unknown_part(part: &VolumeProjection) -> Option<&'static str> {
    if part.cluster_trust_bundle.is_some() {
        return Some("clusterTrustBundle");
    }
    if part.pod_certificate.is_some() {
        return Some("podCertificate");
    }
    let known = part.config_map.is_some()
        || part.secret.is_some()
        || part.downward_api.is_some()
        || part.service_account_token.is_some();
    (!known).then_some("unknown")
}

fn empty_dir(dir: &Path, memory: bool, size: Option<i64>, group: Option<u32>) -> io::Result<()> {
    let fresh = !dir.exists();
    fs::create_dir_all(dir)?;
    if memory && !is_mount(dir)? {
        let options = match size.filter(|size| *size > 0) {
            Some(size) => format!("mode=0777,size={size}"),
            None => "mode=0777".to_owned(),
        };
        mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )?;
    } else if !fresh {
        return Ok(());
    }
    let bits = if group.is_some() { 0o2777 } else { 0o777 };
    if let Some(group) = group {
        std::os::unix::fs::chown(dir, None, Some(group))?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(bits))
}

fn is_mount(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}

fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt;
    let path = Path::new(&source.path);
    let found = fs::metadata(path);
    let is = |test: fn(&fs::Metadata) -> bool| found.as_ref().is_ok_and(test);
    let text = |error: io::Error| format!("{}: {error}", source.path);
    let ok = match source.type_.as_deref().unwrap_or_default() {
        "" => true,
        "DirectoryOrCreate" => {
            if found.is_err() {
                fs::create_dir_all(path).map_err(text)?;
            }
            path.is_dir()
        }
        "FileOrCreate" => {
            if found.is_err() {
                fs::OpenOptions::new().create(true).append(true).open(path).map_err(text)?;
            }
            path.is_file()
        }
        "Directory" => is(fs::Metadata::is_dir),
        "File" => is(fs::Metadata::is_file),
        "Socket" => is(|it| it.file_type().is_socket()),
        "CharDevice" => is(|it| it.file_type().is_char_device()),
        "BlockDevice" => is(|it| it.file_type().is_block_device()),
        other => return Err(format!("unknown type {other}")),
    };
    if ok {
        Ok(())
    } else {
        Err(format!("{} is not a {}", source.path, source.type_.as_deref().unwrap_or("path")))
    }
}

/// The mounts of a container for the volumes that it names.
pub(crate) fn mounts(
    node: &Node,
    of: &Pod,
    container: &Container,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let uid = pod::uid(of);
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = pod::spec(of).volumes.iter().flatten().find(|volume| volume.name == wanted.name);
        let volume = volume.ok_or_else(|| format!("volume \"{}\" not found", wanted.name))?;
        let mut host_path = match &volume.host_path {
            Some(source) => PathBuf::from(&source.path),
            None => volume_dir(node, uid, &volume.name),
        };
        let expression = wanted.sub_path_expr.as_deref().filter(|it| !it.is_empty()).map(|text| {
            env::expand(text, |name| {
                environment.iter().rev().find(|(key, _)| key == name).map(|(_, it)| it.clone())
            })
        });
        if let Some(path) = expression.or_else(|| wanted.sub_path.clone()).filter(|path| !path.is_empty()) {
            let target = pod_dir(node, uid).join("subpaths").join(&container.name).join(index.to_string());
            let failed = |error: io::Error| {
                format!("failed to prepare subPath for volumeMount \"{}\": {error}", wanted.name)
            };
            crate::netns::unmount(&target).map_err(failed)?;
            let found = subpath::open(&host_path, &path).map_err(failed)?;
            subpath::bind(&found, &target).map_err(failed)?;
            host_path = target;
        }
        let by_objects = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some();
        mounts.push(Mount {
            host_path,
            container_path: PathBuf::from(&wanted.mount_path),
            read_only: wanted.read_only.unwrap_or(false) || by_objects,
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::None,
            },
        });
    }
    Ok(mounts)
}

/// Takes down everything that a pod has on the disk, but its logs.
///
/// While anything is mounted below, nothing is removed: behind a bind mount lie files that are not the pod's.
pub(crate) fn tear_down(dir: &Path) -> io::Result<()> {
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    crate::netns::unmount_below(&dir)?;
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projected_sources_that_nobody_makes_are_named() {
        let check = |text: &str, expected: Option<&str>| {
            let part: VolumeProjection = serde_json::from_str(text).expect("a source");
            assert_eq!(unknown_part(&part), expected, "{text}");
        };
        check(r#"{"configMap":{"name":"a"}}"#, None);
        check(r#"{"serviceAccountToken":{"path":"token"}}"#, None);
        check(r#"{"clusterTrustBundle":{"path":"ca.pem","name":"a"}}"#, Some("clusterTrustBundle"));
        check(r#"{"podCertificate":{"signerName":"a/b","keyType":"ED25519"}}"#, Some("podCertificate"));
        check("{}", Some("unknown"));
    }
}
