//! Replaces the files of a volume all at once: they lie in a dated directory, `..data` points to it and is swapped by a rename.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nodeagent_core::projection::Files;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `dir` show exactly `files`. Answers whether anything changed.
pub(crate) fn write(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && same(&dir.join(old), files)
    {
        return Ok(false);
    }
    let version = tempfile::Builder::new().prefix("..v").tempdir_in(dir)?;
    fs::set_permissions(version.path(), fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let target = version.path().join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        out.write_all(&file.content)?;
        out.set_permissions(fs::Permissions::from_mode(mode))?;
        if group.is_some() || file.owner.is_some() {
            std::os::unix::fs::fchown(&out, file.owner, group)?;
        }
    }
    let version = version.keep();
    let name = version.file_name().unwrap_or_default();
    let next = dir.join(NEXT);
    if fs::symlink_metadata(&next).is_ok() {
        fs::remove_file(&next)?;
    }
    symlink(name, &next)?;
    fs::rename(&next, dir.join(DATA))?;
    link_names(dir, files)?;
    if let Some(old) = old {
        // What still holds the old directory open keeps its files.
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

fn same(version: &Path, files: &Files) -> bool {
    let mut found = 0;
    let all_there = files.iter().all(|(path, file)| {
        found += 1;
        fs::read(version.join(path)).is_ok_and(|content| content == file.content)
    });
    all_there && count(version) == found
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let tops: std::collections::BTreeSet<&str> =
        files.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let link = dir.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(top), link)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(&*name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodeagent_core::projection::File;

    #[test]
    fn swaps_all_files_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = |entries: &[(&str, &str)]| -> Files {
            entries
                .iter()
                .map(|(path, text)| {
                    ((*path).to_owned(), File { content: (*text).into(), mode: 0o640, owner: None })
                })
                .collect()
        };
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        assert!(write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).expect("written"));
        assert_eq!((read("a").as_deref(), read("d/b").as_deref()), (Some("1"), Some("2")));
        let mode = fs::metadata(dir.path().join("a")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let before = fs::read_link(dir.path().join(DATA)).expect("a link");
        assert!(!write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).expect("written"));
        assert_eq!(fs::read_link(dir.path().join(DATA)).expect("a link"), before, "nothing changed");
        assert!(write(dir.path(), &files(&[("a", "3")]), None).expect("written"));
        assert_eq!((read("a").as_deref(), read("d/b")), (Some("3"), None));
        let left = fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(left, 3, "one version, ..data and one name");
    }
}
