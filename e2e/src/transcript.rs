//! Transcripts: command lines and what they must print, as text files that are cheap to read and to extend.
//!
//! ```text
//! # a remark
//! $ kubectl get pod none
//! Error from server (NotFound): pods "none" not found
//! [1]
//!
//! $ (1.24-1.29) eventually kubectl get pod web -o name
//! pod/…
//! ```
//!
//! A command is a line of shell; lines that begin with `> ` belong to it. In brackets stand the versions of kubectl that
//! it is meant for, either end left open. `eventually` tries again until the output is as it should be. Output is
//! standard output and standard error together; runs of blanks count as one; `…` stands for anything within a line, and
//! alone for any lines; the exit status follows in brackets when it is not zero.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::wait;

/// Stands for anything.
const ANYTHING: &str = "…";
/// How long `eventually` tries.
const PATIENCE: Duration = Duration::from_secs(60);

/// A version of kubectl: major and minor.
pub type Version = (u32, u32);

/// One command and what it must print.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line in the file.
    pub line: usize,
    /// The versions that it is meant for, both ends included.
    pub versions: (Version, Version),
    /// Whether it may take some tries.
    pub eventually: bool,
    /// The shell's words.
    pub command: String,
    /// The lines that it prints.
    pub expected: Vec<String>,
}

/// Where the commands of a transcript run.
pub struct Place<'a> {
    /// The working directory.
    pub folder: &'a Path,
    /// The environment; nothing else is in it.
    pub environment: &'a [(&'a str, String)],
    /// The version of kubectl that is run.
    pub version: Version,
    /// Lines that begin so are not looked at.
    pub ignored: &'a str,
}

/// Reads a transcript.
///
/// # Errors
/// When a line is none of a transcript.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    // Whether lines still belong to the last command or to its output.
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(rest) = line.strip_prefix("$ ") {
            steps.push(head(number, rest).with_context(|| format!("line {number}"))?);
            open = true;
        } else if line.is_empty() || line.starts_with("# ") {
            open = false;
        } else {
            let step =
                steps.last_mut().filter(|_| open).with_context(|| format!("line {number}: no command"))?;
            match line.strip_prefix("> ").filter(|_| step.expected.is_empty()) {
                Some(more) => step.command.extend(["\n", more]),
                None => step.expected.push(line.to_owned()),
            }
        }
    }
    Ok(steps)
}

fn head(line: usize, rest: &str) -> Result<Step> {
    let mut command = rest;
    let mut versions = ((0, 0), (u32::MAX, u32::MAX));
    let is_range = |range: &str| range.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
    if let Some((range, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(") "))
        && let Some((low, high)) = range.split_once('-').filter(|_| is_range(range))
    {
        if !low.is_empty() {
            versions.0 = version(low)?;
        }
        if !high.is_empty() {
            versions.1 = version(high)?;
        }
        command = after;
    }
    let patient = command.strip_prefix("eventually ");
    Ok(Step {
        line,
        versions,
        eventually: patient.is_some(),
        command: patient.unwrap_or(command).to_owned(),
        expected: Vec::new(),
    })
}

/// Reads `1.20`, or the version in a longer text such as `v1.20.2`.
///
/// # Errors
/// When there is none in it.
pub fn version(text: &str) -> Result<Version> {
    let mut numbers = text.trim_start_matches('v').split('.');
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    next().zip(next()).with_context(|| format!("{text:?} is no version"))
}

/// Whether `found` is what is expected.
fn matches(expected: &[String], found: &[&str]) -> bool {
    match (expected.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == ANYTHING => {
            (0..=found.len()).any(|skipped| matches(rest, &found[skipped..]))
        }
        (Some((first, rest)), Some((line, others))) => line_matches(first, line) && matches(rest, others),
        _ => false,
    }
}

fn line_matches(expected: &str, found: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (expected, found) = (plain(expected), plain(found));
    let mut parts = expected.split(ANYTHING);
    let Some(mut rest) = parts.next().and_then(|first| found.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

// === impl Step ===

impl Step {
    /// Whether it is meant for a version.
    pub fn is_for(&self, version: Version) -> bool {
        (self.versions.0..=self.versions.1).contains(&version)
    }

    /// Runs it.
    ///
    /// # Errors
    /// When it prints something else.
    pub fn run(&self, place: &Place<'_>) -> Result<()> {
        match self.eventually {
            true => wait::eventually_within(PATIENCE, &self.command, || self.once(place)),
            false => self.once(place),
        }
    }

    fn once(&self, place: &Place<'_>) -> Result<()> {
        // One pipe for both, so that lines come in the order in which they were written.
        let output = Command::new("bash")
            .args(["-c", &format!("exec 2>&1\n{}", self.command)])
            .current_dir(place.folder)
            .env_clear()
            .envs(place.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .context("starting a shell")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let code = output.status.code().unwrap_or(-1);
            let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            text = format!("{text}{newline}[{code}]\n");
        }
        let is_ignored = |line: &&str| !place.ignored.is_empty() && line.starts_with(place.ignored);
        // Empty lines are the transcript's own.
        let found: Vec<&str> =
            text.lines().filter(|line| !line.trim().is_empty() && !is_ignored(line)).collect();
        if matches(&self.expected, &found) {
            return Ok(());
        }
        bail!(
            "$ {}\n--- expected\n{}\n--- found\n{}",
            self.command,
            self.expected.join("\n"),
            found.join("\n")
        )
    }
}

/// Runs all steps of a transcript that are meant for the version; the number of those that ran.
///
/// # Errors
/// With every step that printed something else: one that fails does not keep the others from running.
pub fn run(text: &str, place: &Place<'_>) -> Result<usize> {
    let steps = parse(text)?;
    let mut failed = Vec::new();
    let mut count = 0;
    for step in steps.iter().filter(|step| step.is_for(place.version)) {
        count += 1;
        if let Err(error) = step.run(place) {
            failed.push(format!("line {}: {error:#}", step.line));
        }
    }
    match failed.is_empty() {
        true => Ok(count),
        false => Err(anyhow!("{} of {count} commands:\n{}", failed.len(), failed.join("\n\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place<'static> {
        Place { folder: Path::new("/"), environment: &[], version: (1, 30), ignored: "remark" }
    }

    #[track_caller]
    fn check(expected: &str, found: &str, result: bool) {
        let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
        let found: Vec<&str> = found.lines().collect();
        assert_eq!(matches(&expected, &found), result);
    }

    #[test]
    fn lines_are_compared() {
        check("a b\nc", "a   b\nc", true);
        check("a b\nc", "a b", false);
        check("a b", "a b\nc", false);
        check("pod/… made …", "pod/x made now", true);
        check("pod/… made", "pod/x made now", false);
        check("a…a", "a", false);
        check("a\n…\nz", "a\nb\nc\nz", true);
        check("a\n…", "a", true);
        check("…\nz", "a\nb", false);
        check("", "", true);
    }

    #[test]
    fn transcripts_are_read() {
        let steps =
            parse("# title\n$ (1.24-) one <<'END'\n> two\n> END\nout\n\n$ eventually three\n").unwrap();
        assert_eq!(steps[0].command, "one <<'END'\ntwo\nEND");
        assert_eq!(steps[0].expected, ["out"]);
        assert_eq!([(1, 23), (1, 24), (1, 40)].map(|version| steps[0].is_for(version)), [false, true, true]);
        assert!(steps[1].eventually && steps[1].command == "three" && steps[1].is_for((1, 20)));
        assert!(parse("out").is_err());
        assert_eq!(parse("$ (cd x-y; ls) | sort").unwrap()[0].command, "(cd x-y; ls) | sort");
    }

    #[test]
    fn what_a_command_says_is_told_from_what_it_should_say() {
        let text = "$ echo a; echo remark; echo b >&2; exit 3\na\nb\n[3]\n\n$ (-1.29) echo never\n";
        assert_eq!(run(text, &place()).unwrap(), 1);
        let wrong = run("$ echo a\nb\n\n$ true\n", &place()).unwrap_err().to_string();
        assert!(wrong.starts_with("1 of 2 commands:\nline 1: $ echo a\n--- expected\nb"), "{wrong}");
    }
}
