//! Container logs on the node's disk: reading with follow, rotation.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodeagent_core::logs::{self, Filter, Printer};
use tokio::sync::mpsc;

/// A log file is rotated when it is larger.
pub(crate) const MAX_BYTES: u64 = 10 << 20;
/// So many files are kept for a container, the current one included.
pub(crate) const MAX_FILES: usize = 5;

const CHUNK: usize = 32 * 1024;
/// A follower looks again after this long, longer and longer while nothing is written.
const FOLLOW_PAUSE: Duration = Duration::from_millis(25);
const FOLLOW_PAUSE_MAX: Duration = Duration::from_millis(400);

/// The last `bytes` of a file, from the beginning of a line.
pub(crate) fn end_of(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(bytes);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    if start > 0 {
        let first = end.iter().position(|byte| *byte == b'\n').map_or(end.len(), |at| at + 1);
        end.drain(..first);
    }
    Ok(end)
}

/// The rotated files of a log, oldest first, then the log itself.
fn files(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = path.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|it| it.file_name().is_some_and(|it| it.to_string_lossy().starts_with(&format!("{name}."))))
        .collect();
    all.sort();
    all.push(path.to_owned());
    all
}

/// Where reading begins: file and offset of the last `lines` lines.
fn tail(files: &[PathBuf], lines: u64) -> io::Result<(usize, u64)> {
    let Some(last) = files.len().checked_sub(1) else { return Ok((0, 0)) };
    let length = fs::metadata(&files[last])?.len();
    let mut window: u64 = 64 * 1024;
    loop {
        let end = end_of(&files[last], window)?;
        if let Some(at) = logs::tail_start(&end, lines) {
            return Ok((last, length.saturating_sub((end.len() - at) as u64)));
        }
        if window >= length {
            return Ok((0, 0));
        }
        window *= 4;
    }
}

/// Reads a log into `out` until its end; with `follow` until `ended` says that nothing more will come.
/// Runs on a blocking thread.
pub(crate) fn read(
    path: &Path,
    filter: Filter,
    follow: bool,
    ended: impl Fn() -> bool,
    out: &mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let files = files(path);
    let (first, offset) = match filter.tail_lines {
        Some(lines) => tail(&files, lines)?,
        None => (0, 0),
    };
    let mut printer = Printer::new(filter);
    let mut chunk = Vec::with_capacity(CHUNK);
    for (index, file) in files.iter().enumerate().skip(first) {
        let mut opened = File::open(file)?;
        opened.seek(SeekFrom::Start(if index == first { offset } else { 0 }))?;
        let is_last = index + 1 == files.len();
        let mut reader = BufReader::with_capacity(CHUNK, opened);
        let mut line = Vec::new();
        let mut pause = FOLLOW_PAUSE;
        loop {
            let read = reader.read_until(b'\n', &mut line)?;
            if line.ends_with(b"\n") {
                line.pop();
                printer.print(&line, &mut chunk);
                line.clear();
            }
            let idle = read == 0;
            if (idle || chunk.len() >= CHUNK || printer.is_full())
                && !chunk.is_empty()
                && out.blocking_send(std::mem::take(&mut chunk)).is_err()
            {
                return Ok(());
            }
            if printer.is_full() {
                return Ok(());
            }
            if !idle {
                pause = FOLLOW_PAUSE;
                continue;
            }
            if !(is_last && follow) {
                break;
            }
            if out.is_closed() {
                return Ok(());
            }
            let over = ended();
            if rotated(file, reader.get_ref()) {
                reader = BufReader::with_capacity(CHUNK, File::open(file)?);
                continue;
            }
            if over && reader.fill_buf()?.is_empty() {
                return Ok(());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(FOLLOW_PAUSE_MAX);
        }
    }
    Ok(())
}

fn rotated(path: &Path, open: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(path), open.metadata()) {
        (Ok(named), Ok(open)) => named.ino() != open.ino(),
        _ => false,
    }
}

/// Puts a log that has grown too large aside. Answers whether the writer must open a new file.
pub(crate) fn rotate(path: &Path, stamp: &str) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_BYTES => {}
        _ => return Ok(false),
    }
    let mut old = files(path);
    old.pop();
    while old.len() + 2 > MAX_FILES {
        fs::remove_file(old.remove(0))?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    fs::rename(path, path.with_file_name(format!("{name}.{stamp}")))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(path: &Path, filter: Filter) -> String {
        let (sender, mut receiver) = mpsc::channel(64);
        read(path, filter, false, || true, &sender).expect("read");
        drop(sender);
        let mut text = Vec::new();
        while let Some(chunk) = receiver.blocking_recv() {
            text.extend(chunk);
        }
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn a_follower_ends_when_nobody_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        fs::write(&path, "2026-01-01T00:00:01Z stdout F a\n").expect("written");
        let (sender, mut receiver) = mpsc::channel(64);
        let follower = std::thread::spawn(move || read(&path, Filter::default(), true, || false, &sender));
        assert_eq!(receiver.blocking_recv().expect("a line"), b"a\n");
        drop(receiver);
        follower.join().expect("ended").expect("read");
    }

    #[test]
    fn reads_over_rotated_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        fs::write(dir.path().join("0.log.1"), "2026-01-01T00:00:01Z stdout F a\n").expect("written");
        fs::write(&path, "2026-01-01T00:00:02Z stdout F b\n2026-01-01T00:00:03Z stdout F c\n")
            .expect("written");
        assert_eq!(read_all(&path, Filter::default()), "a\nb\nc\n");
        assert_eq!(read_all(&path, Filter { tail_lines: Some(1), ..Filter::default() }), "c\n");
        assert!(!rotate(&path, "2").expect("looked"));
    }
}
