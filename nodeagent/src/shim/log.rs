//! Writes what a container prints in the CRI log format: `time stream F|P text`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// Longer lines are written in parts, tagged `P`.
const MAX_LINE: usize = 16 * 1024;

/// Which stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// An open log.
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    held: [Vec<u8>; 2],
    out: Vec<u8>,
}

impl Log {
    /// Opens (appends to) the file.
    pub fn open(path: PathBuf) -> io::Result<Log> {
        let file = open(&path)?;
        Ok(Log { path, file: Some(file), held: [Vec::new(), Vec::new()], out: Vec::new() })
    }

    /// Opens the path anew after somebody has moved the file away.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(open(&self.path)?);
        Ok(())
    }

    /// Takes bytes that the process wrote at `now` (nanoseconds since 1970).
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: i64) {
        let stamp = timestamp(now);
        let held = &mut self.held[stream as usize];
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            let mut line = line;
            while held.len() + line.len() > MAX_LINE {
                let (part, tail) = line.split_at(MAX_LINE - held.len());
                entry(&mut self.out, &stamp, stream, b'P', held, part);
                held.clear();
                line = tail;
            }
            entry(&mut self.out, &stamp, stream, b'F', held, line);
            held.clear();
        }
        while held.len() + rest.len() >= MAX_LINE {
            let (part, tail) = rest.split_at(MAX_LINE - held.len());
            entry(&mut self.out, &stamp, stream, b'P', held, part);
            held.clear();
            rest = tail;
        }
        held.extend_from_slice(rest);
        self.flush();
    }

    /// The stream has ended: an unfinished line is written as it is.
    pub fn end(&mut self, stream: Stream, now: i64) {
        let held = std::mem::take(&mut self.held[stream as usize]);
        if !held.is_empty() {
            entry(&mut self.out, &timestamp(now), stream, b'F', &held, b"");
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            // A full disk loses log lines; it must not stop the container.
            let _ = file.write_all(&self.out);
        }
        self.out.clear();
        if self.out.capacity() > 64 * 1024 {
            self.out.shrink_to(MAX_LINE);
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o640).custom_flags(libc::O_CLOEXEC).open(path)
}

fn entry(out: &mut Vec<u8>, stamp: &str, stream: Stream, tag: u8, head: &[u8], tail: &[u8]) {
    out.extend_from_slice(stamp.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.push(b' ');
    out.push(tag);
    out.push(b' ');
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
    out.push(b'\n');
}

/// RFC 3339 with nanoseconds, in UTC.
fn timestamp(now: i64) -> String {
    let (seconds, nanos) = (now.div_euclid(1_000_000_000), now.rem_euclid(1_000_000_000));
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: &[(Stream, &[u8])]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(path.clone()).unwrap();
        for (stream, bytes) in parts {
            log.write(*stream, bytes, 0);
        }
        log.end(Stream::Stdout, 0);
        log.end(Stream::Stderr, 0);
        String::from_utf8(std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn time_is_rfc3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(1_709_210_096_000_000_789), "2024-02-29T12:34:56.000000789Z");
        assert_eq!(timestamp(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999999999Z");
        for ns in [951_782_400_000_000_000i64, 4_102_444_800_123_456_789, 1_763_717_000_000_000_001] {
            let jiff = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap();
            assert_eq!(timestamp(ns), format!("{jiff:.9}"));
        }
    }

    #[test]
    fn lines_are_kept_whole_over_writes() {
        let text = written(&[(Stream::Stdout, b"a"), (Stream::Stderr, b"x\n"), (Stream::Stdout, b"b\nc")]);
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000000000Z stderr F x\n1970-01-01T00:00:00.000000000Z stdout F ab\n\
             1970-01-01T00:00:00.000000000Z stdout F c\n"
        );
    }

    #[test]
    fn long_lines_come_in_parts() {
        let mut long = vec![b'a'; MAX_LINE * 2 + 5];
        long.push(b'\n');
        let text = written(&[(Stream::Stdout, &long)]);
        let tags: Vec<_> = text.lines().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect();
        assert_eq!(tags, ["P", "P", "F"]);
        let total: usize = text.lines().map(|line| line.split(' ').nth(3).unwrap().len()).sum();
        assert_eq!(total, MAX_LINE * 2 + 5);
    }
}
