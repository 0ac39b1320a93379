//! Project automation: `tidy` and `layers` hold the shape of the code, `codegen` makes the schema engine's table,
//! `sim-sweep` and `sim-bugs` run the simulator at large, `fuzz` the fuzz targets.

mod codegen;
mod fuzz;
mod layers;
mod sim;
mod sources;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let task = arguments.first().map(String::as_str).unwrap_or_default();
    let checked = match task {
        "tidy" => tidy::check(),
        "layers" => layers::check(),
        "codegen" => codegen::run(arguments.get(1..).unwrap_or_default()).map(|()| Vec::new()),
        "sim-sweep" => sim::sweep(arguments.get(1..).unwrap_or_default()),
        "fuzz" => fuzz::run(arguments.get(1..).unwrap_or_default()),
        "sim-bugs" => sim::bugs(arguments.get(1..).unwrap_or_default()),
        _ => {
            eprintln!(
                "usage: cargo run -p xtask -- tidy | layers | codegen API_TYPES.json MERGE_METADATA.json"
            );
            eprintln!("       | sim-sweep [--minutes M] [--from SEED] [--jobs N] [--journal FILE]");
            eprintln!(
                "       | sim-bugs [--trials N] [--seeds N] [--minutes M] [--jobs N] [--only NAME,NAME] [--target DIR] [--journal FILE]"
            );
            eprintln!("       | fuzz [--minutes M] [--only NAME]");
            return ExitCode::from(2);
        }
    };
    match checked {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(violations) => {
            violations.iter().for_each(|violation| eprintln!("{violation}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("xtask {task}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
