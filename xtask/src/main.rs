//! Project automation: `tidy` and `layers` hold the shape of the code.

mod layers;
mod sources;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let checked = match task.as_str() {
        "tidy" => tidy::check(),
        "layers" => layers::check(),
        _ => {
            eprintln!("usage: cargo run -p xtask -- tidy|layers");
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
