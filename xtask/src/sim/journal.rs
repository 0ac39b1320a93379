//! A file that a long search writes down what it has done in, a line of JSON each, and goes on from.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The lines of earlier invocations, and of this one.
pub(super) struct Journal<T> {
    path: PathBuf,
    file: Mutex<File>,
    lines: Mutex<Vec<T>>,
}

impl<T: Clone + Serialize + DeserializeOwned> Journal<T> {
    /// Opens a journal, or begins one.
    ///
    /// # Errors
    /// When it cannot be written, or holds something else. A last line that was never finished is left out.
    pub(super) fn open(path: &Path) -> Result<Journal<T>> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path);
        let mut file = file.with_context(|| format!("opening {}", path.display()))?;
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let lines = text[..whole]
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display())))
            .collect::<Result<Vec<T>>>()?;
        if whole < text.len() {
            file.set_len(whole as u64).with_context(|| format!("mending {}", path.display()))?;
        }
        file.flush()?;
        Ok(Journal { path: path.to_owned(), file: Mutex::new(file), lines: Mutex::new(lines) })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn add(&self, line: T) -> Result<()> {
        let text = serde_json::to_string(&line)? + "\n";
        let written = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes());
        written.with_context(|| format!("writing {}", self.path.display()))?;
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        Ok(())
    }

    /// All lines.
    pub(super) fn lines(&self) -> Vec<T> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_goes_on_behind_its_last_whole_line() {
        let path = std::env::temp_dir().join(format!("xtask-journal-{}", std::process::id()));
        std::fs::write(&path, "1\n2\n3").unwrap();
        Journal::<u64>::open(&path).unwrap().add(4).unwrap();
        let again = Journal::<u64>::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(again.lines(), [1, 2, 4]);
    }
}
