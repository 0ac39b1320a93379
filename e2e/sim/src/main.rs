//! The command line: `cargo run --release -p sim -- --seed S`.

use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, ValueEnum as _};
use sim::faults::focus::Focus;
use sim::kernel::SECOND;
use sim::run::{Level, Options, Report, run};

/// Simulates a cluster under faults. The same arguments do the same again.
///
/// The last line of the output is the hash of the trace: of everything that happened.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Decides everything that is left to chance.
    #[arg(long)]
    seed: u64,
    /// So many seeds, one after the other, until one fails.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// What is simulated.
    #[arg(long, value_enum, default_value_t = Level::Cluster)]
    level: Level,
    /// How long things go wrong, in simulated seconds.
    #[arg(long, default_value_t = 60)]
    duration: u64,
    /// What the run is about; drawn from the seed when that is not given.
    #[arg(long, value_enum)]
    focus: Option<Focus>,
    /// Print the trace as it grows, to standard error.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let Arguments { seed: first, seeds, level, duration, focus, trace } = Arguments::parse();
    let (mut simulated, mut steps, mut operations, mut hash, mut ran) = (0, 0, 0, 0, 0);
    let mut failed = None;
    for seed in first..first.saturating_add(seeds) {
        let options = Options { seed, level, duration, focus, trace };
        let report = run(options);
        ran += 1;
        simulated += report.simulated;
        steps += report.steps;
        operations += report.operations;
        hash = if seed == first { report.hash } else { report.hash ^ u64::rotate_left(hash, 1) };
        if report.violation.is_some() {
            failed = Some((options, report));
            break;
        }
    }
    if let Some((options, report)) = &failed {
        explain(*options, report);
    }
    let spent = cpu();
    let hours = simulated as f64 / SECOND as f64 / spent.as_secs_f64().max(1e-9);
    let simulated = simulated / SECOND;
    println!("simulated {simulated} s in {steps} steps, {operations} operations served");
    println!("spent {:.2} CPU s: {hours:.0} cluster-hours per CPU hour", spent.as_secs_f64());
    println!("ran {ran} seeds");
    println!("trace {hash:016x}");
    if failed.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn explain(options: Options, report: &Report) {
    let Some(violation) = &report.violation else { return };
    report.last_lines.iter().for_each(|line| println!("{line}"));
    let Options { seed, level, duration, focus, .. } = options;
    let focus = focus.and_then(|focus| focus.to_possible_value());
    let focus = focus.map_or(String::new(), |focus| format!(" --focus {}", focus.get_name()));
    println!("seed {seed} breaks {}: {}", violation.checker, violation.message);
    println!("commit {}", commit());
    println!(
        "replay: cargo run --release -p sim -- --seed {seed} --level {} --duration {duration}{focus}",
        level.name()
    );
}

/// The commit that is checked out, marked when something was changed since.
fn commit() -> String {
    let describe = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=40"];
    let output = Command::new("git").args(describe).output().ok().filter(|output| output.status.success());
    output.map_or("unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.cast_unsigned(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}
