//! Container logs: lines as CRI writes them (`time stream P|F content`), and which of them were asked for.

use jiff::Timestamp;

/// Which lines are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only lines from this moment on.
    pub since: Option<Timestamp>,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// With the time before each line.
    pub timestamps: bool,
}

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// As written, for example `2026-11-21T10:00:00.123456789Z`.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// The line goes on in the next entry.
    pub partial: bool,
    /// What the container wrote.
    pub content: &'a [u8],
}

/// Reads one line, without its line end. `None` when it is not in the CRI format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let partial = match parts.next()? {
        b"P" => true,
        b"F" => false,
        other if other.starts_with(b"P:") => true,
        other if other.starts_with(b"F:") => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, content: parts.next().unwrap_or_default() })
}

/// Turns lines into what a reader gets, until the limit is met.
#[derive(Clone, Debug)]
pub struct Printer {
    filter: Filter,
    left: Option<u64>,
    /// The entry before was partial and was printed: no time before the next one.
    continues: bool,
}

// === impl Printer ===

impl Printer {
    /// A printer of the lines that `filter` asks for (`tail_lines` is for whoever finds the start, see [`tail_start`]).
    pub fn new(filter: Filter) -> Self {
        Self { left: filter.limit_bytes, filter, continues: false }
    }

    /// Whether nothing more will be printed.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Adds to `out` what the reader gets of this line (without its line end).
    pub fn print(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(raw) else { return };
        if let Some(since) = self.filter.since
            && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        if self.filter.timestamps && !self.continues {
            self.put(line.time.as_bytes(), out);
            self.put(b" ", out);
        }
        self.put(line.content, out);
        if !line.partial {
            self.put(b"\n", out);
        }
        self.continues = line.partial;
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let room = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let taken = &bytes[..bytes.len().min(room)];
        out.extend_from_slice(taken);
        if let Some(left) = &mut self.left {
            *left -= taken.len() as u64;
        }
    }
}

/// Where in this end of a log file its last `lines` whole lines begin; `None` when it holds fewer.
pub fn tail_start(end: &[u8], lines: u64) -> Option<usize> {
    if lines == 0 {
        return Some(end.len());
    }
    let mut found = 0;
    let mut at = end.len();
    while let Some(start) = line_before(end, at) {
        let full = parse(&end[start..at]).is_none_or(|line| !line.partial);
        if full {
            if found == lines {
                return Some(at);
            }
            found += 1;
        }
        at = start;
        if start == 0 {
            break;
        }
    }
    None
}

fn line_before(bytes: &[u8], at: usize) -> Option<usize> {
    let body = bytes[..at].strip_suffix(b"\n").unwrap_or(&bytes[..at]);
    if at == 0 {
        return None;
    }
    Some(body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1))
}

/// The end of a container's output as its termination message: the last 80 lines, at most 2048 bytes.
pub fn termination_fallback(log: &[u8]) -> String {
    let start = tail_start(log, 80).unwrap_or(0);
    let mut printer = Printer::new(Filter::default());
    let mut out = Vec::new();
    for line in log[start..].split(|byte| *byte == b'\n') {
        printer.print(line, &mut out);
    }
    let cut = out.len().saturating_sub(2048);
    String::from_utf8_lossy(&out[cut..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout P tw\n2026-01-01T00:00:02Z stdout F o\n2026-01-01T00:00:03Z stderr F three\n";

    fn check(filter: Filter, expected: &str) {
        let start = filter.tail_lines.and_then(|lines| tail_start(LOG, lines)).unwrap_or(0);
        let mut printer = Printer::new(filter);
        let mut out = Vec::new();
        for line in LOG[start..].split(|byte| *byte == b'\n') {
            printer.print(line, &mut out);
        }
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn filters() {
        check(Filter::default(), "one\ntwo\nthree\n");
        check(Filter { tail_lines: Some(2), ..Filter::default() }, "two\nthree\n");
        check(Filter { tail_lines: Some(0), ..Filter::default() }, "");
        check(Filter { tail_lines: Some(9), ..Filter::default() }, "one\ntwo\nthree\n");
        check(Filter { limit_bytes: Some(5), ..Filter::default() }, "one\nt");
        let since = "2026-01-01T00:00:02Z".parse().ok();
        check(
            Filter { since, timestamps: true, ..Filter::default() },
            "2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n",
        );
    }
}
