//! Project automation: `tidy` and `layers` hold the shape of the code, `codegen` makes the built-in schemas.

mod codegen;
mod layers;
mod sources;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let task = arguments.first().map(String::as_str).unwrap_or_default();
    let done = match task {
        "tidy" => tidy::check().map(report),
        "layers" => layers::check().map(report),
        "codegen" => codegen::run(arguments.get(1..).unwrap_or_default()).map(|()| ExitCode::SUCCESS),
        _ => {
            eprintln!("usage: cargo run -p xtask -- tidy | layers | codegen API_TYPES.json MERGE_METADATA.json");
            return ExitCode::from(2);
        }
    };
    failed_on_error(task, done)
}

fn report(violations: Vec<String>) -> ExitCode {
    violations.iter().for_each(|violation| eprintln!("{violation}"));
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed_on_error(task: &str, done: Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        eprintln!("xtask {task}: {error:#}");
        ExitCode::FAILURE
    })
}
