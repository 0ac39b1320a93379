//! The embedded runtime on a real kernel: containers, exec, logs, limits, network, re-adoption, clean-up.
//!
//! Without harness: the executable must be able to become a shim before any thread exists, and it packs itself as the
//! image whose containers it then looks into. Needs root; reports its tests as ignored otherwise.

#[path = "runtime/cases.rs"]
mod cases;
#[path = "runtime/measure.rs"]
mod measure;
#[path = "runtime/workload.rs"]
mod workload;
#[path = "runtime/world.rs"]
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = nodeagent::shim::dispatch() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|word| word == "workload") {
        return workload::run(&args[1..]);
    }
    let tests = cases::all();
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    let chosen: Vec<_> = tests
        .into_iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted.as_str())))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    let missing = world::missing();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, test) in chosen {
        if let Some(reason) = &missing {
            println!("test {name} ... ignored, {reason}");
            ignored += 1;
            continue;
        }
        match world::run(test) {
            Ok(()) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED\n    {error}");
                failed += 1;
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out\n"
    );
    ExitCode::from(u8::from(failed > 0))
}
