//! The `orlop` binary: server roles and kubectl-style verbs.

mod doctor;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A cluster orchestrator in one binary that speaks the Kubernetes API.
#[derive(Parser)]
#[command(name = "orlop", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check whether this host can run a node.
    Doctor,
    /// What Orlop starts by itself.
    #[command(hide = true, subcommand)]
    Internal(Internal),
}

#[derive(Subcommand)]
enum Internal {
    /// The demo workload.
    Workload(workload::Workload),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("orlop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Doctor => Ok(show_checks(&doctor::run())),
        Command::Internal(Internal::Workload(arguments)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(workload::run(arguments))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show_checks(checks: &[doctor::Check]) -> ExitCode {
    let mut healthy = true;
    for check in checks {
        match &check.result {
            Ok(found) => println!("ok    {}: {found}", check.name),
            Err(problem) => {
                healthy = false;
                println!("FAIL  {}: {}\n      fix: {}", check.name, problem.what, problem.fix);
            }
        }
    }
    if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
