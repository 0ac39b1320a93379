//! The command line: `cargo run --release -p sim -- --seed S`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sim::kernel::SECOND;
use sim::run::{Level, Options, Report, run};

/// Simulates a cluster under faults. The same arguments do the same again.
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
    #[arg(long, value_enum, default_value_t = Level::Store)]
    level: Level,
    /// How long things go wrong, in simulated seconds.
    #[arg(long, default_value_t = 60)]
    duration: u64,
    /// Print the trace as it grows.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let Arguments { seed, seeds, level, duration, trace } = Arguments::parse();
    let mut simulated = 0;
    for seed in seed..seed.saturating_add(seeds) {
        let report = run(Options { seed, level, duration, trace });
        simulated += report.simulated;
        let failed = report.violation.is_some();
        if failed {
            explain(seed, level, duration, &report);
        }
        if failed || seeds == 1 {
            println!(
                "seed {seed}: simulated {} s in {} steps, {} operations served",
                report.simulated / SECOND,
                report.steps,
                report.operations
            );
        }
        if failed || seeds == 1 {
            cost(simulated);
            println!("trace {:016x}", report.hash);
        }
        if failed {
            return ExitCode::FAILURE;
        }
    }
    if seeds > 1 {
        println!("{seeds} seeds, no violation");
        cost(simulated);
    }
    ExitCode::SUCCESS
}

fn explain(seed: u64, level: Level, duration: u64, report: &Report) {
    let Some(violation) = &report.violation else { return };
    report.last_lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed} breaks {}: {}", violation.checker, violation.message);
    println!("commit {}", option_env!("SIM_COMMIT").unwrap_or("unknown"));
    println!("replay: cargo run --release -p sim -- --seed {seed} --level {level:?} --duration {duration}");
}

fn cost(simulated: u64) {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let spent = Duration::new(spent.tv_sec.cast_unsigned(), u32::try_from(spent.tv_nsec).unwrap_or(0));
    let hours = simulated as f64 / SECOND as f64 / spent.as_secs_f64().max(1e-9);
    println!("{:.2} CPU seconds, {hours:.0} cluster-hours per CPU hour", spent.as_secs_f64());
}
