//! Shows the steps as they go, and a table of what was seen at the end.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// The steps so far.
pub struct Board {
    rows: Vec<Row>,
    colours: bool,
}

struct Row {
    what: &'static str,
    seen: Result<String, String>,
    took: Duration,
}

/// What a step gives back: something to go on with, and what was seen.
pub trait Outcome {
    /// Something to go on with.
    type Value;
    /// Takes it apart.
    fn split(self) -> (Self::Value, String);
}

impl Outcome for String {
    type Value = ();

    fn split(self) -> ((), String) {
        ((), self)
    }
}

impl<T> Outcome for (T, String) {
    type Value = T;

    fn split(self) -> (T, String) {
        self
    }
}

impl Board {
    /// An empty board. Talk goes to standard error, the table to standard output.
    pub fn new() -> Board {
        Board { rows: Vec::new(), colours: std::io::stdout().is_terminal() }
    }

    /// Does one step. `None` when it failed; later steps may still be tried.
    pub async fn step<T: Outcome>(
        &mut self,
        what: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Option<T::Value> {
        let spinner = std::io::stderr().is_terminal().then(|| spinner(what));
        if spinner.is_none() {
            eprintln!("… {what}");
        }
        let started = Instant::now();
        let outcome = work.await;
        let took = started.elapsed();
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let (value, seen) = match outcome.map(Outcome::split) {
            Ok((value, seen)) => (Some(value), Ok(seen)),
            Err(error) => (None, Err(format!("{error:#}"))),
        };
        match &seen {
            Ok(seen) => eprintln!("✓ {what}: {seen} ({:.1} s)", took.as_secs_f64()),
            Err(error) => eprintln!("✗ {what}: {error} ({:.1} s)", took.as_secs_f64()),
        }
        self.rows.push(Row { what, seen, took });
        value
    }

    /// Prints the table. True if every step was seen to be true.
    pub fn finish(self) -> bool {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        println!();
        for row in &self.rows {
            let (mark, colour, seen) = match &row.seen {
                Ok(seen) => ("✓", "\x1b[32m", seen),
                Err(error) => ("✗", "\x1b[31m", error),
            };
            let (colour, plain) = if self.colours { (colour, "\x1b[0m") } else { ("", "") };
            println!("{colour}{mark}{plain} {:<width$}  {:>6.1} s  {seen}", row.what, row.took.as_secs_f64());
        }
        let succeeded = self.rows.iter().all(|row| row.seen.is_ok());
        let total: Duration = self.rows.iter().map(|row| row.took).sum();
        let verdict =
            if succeeded { "every step was seen to be true" } else { "not every step was seen to be true" };
        println!("\n{verdict}; {:.0} s in all", total.as_secs_f64());
        succeeded
    }
}

fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
