//! A short sweep: some seeds of each level hold every invariant. `cargo xtask sim-sweep` is the long one.

use sim::run::{Level, Options, run};

fn sweep(level: Level, seeds: std::ops::Range<u64>, duration: u64) {
    for seed in seeds {
        let report = run(Options { seed, level, duration, focus: None, trace: false });
        let name = level.name();
        assert_eq!(
            report.violation, None,
            "cargo run --release -p sim -- --seed {seed} --level {name} --duration {duration}\n{:#?}",
            report.last_lines
        );
    }
}

#[test]
fn the_store_holds_its_invariants() {
    sweep(Level::Store, 100..140, 40);
}

#[test]
fn the_cluster_holds_its_invariants() {
    sweep(Level::Cluster, 100..116, 40);
}
