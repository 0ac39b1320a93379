//! A seed decides a run to the last line of its trace.

use sim::run::{Level, Options, run};

fn hash(level: Level, seed: u64) -> u64 {
    let report = run(Options { seed, level, duration: 15, focus: None, trace: false });
    assert_eq!(report.violation, None, "seed {seed}: {:#?}", report.last_lines);
    assert!(report.operations > 0);
    report.hash
}

#[test]
fn the_same_seed_does_the_same_and_another_does_something_else() {
    for level in [Level::Store, Level::Cluster] {
        let first = hash(level, 7);
        assert_eq!(first, hash(level, 7), "{level:?}");
        assert_ne!(first, hash(level, 8), "{level:?}");
    }
}
