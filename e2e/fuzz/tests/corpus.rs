//! The kept corpus of each target, and some mutations of it: always the same ones.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many mutations of the corpus are tried for each target.
const MUTATIONS: usize = 2000;
/// Longer inputs find nothing that shorter ones do not.
const LENGTH_MAX: usize = 4096;

/// What a mutation puts in besides random bytes.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "null",
    "true",
    "-1",
    "1e999",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "é",
    "$patch",
    "delete",
    "$retainKeys",
    "metadata",
    "name",
    "spec",
    "op",
    "path",
    "/-",
    "~1",
    "&a",
    "*a",
    "<<",
    "|\n",
    "---\n",
    " in (",
    "!=",
    "self",
    "oldSelf",
    ".all(x, ",
    "size(",
    "k8s\0",
    "\n---\n",
];

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("readable"))).collect()
}

fn mutate(input: &mut Vec<u8>, others: &[(PathBuf, Vec<u8>)], rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..6) {
            0 if at < input.len() => input[at] = rng.random(),
            1 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            2 => drop(input.drain(at..(at + rng.random_range(0..16)).min(input.len()))),
            3 => drop(input.splice(at..at, WORDS[rng.random_range(0..WORDS.len())].bytes())),
            4 => {
                let other = &others[rng.random_range(0..others.len())].1;
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
            _ => {
                let piece: Vec<u8> = input[at..(at + rng.random_range(0..64)).min(input.len())].to_vec();
                drop(input.splice(at..at, piece));
            }
        }
        input.truncate(LENGTH_MAX);
    }
}

fn survives(name: &str) {
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "corpus/{name} is empty");
    for (path, input) in &inputs {
        let run = catch_unwind(AssertUnwindSafe(|| fuzz::run(name, input)));
        assert!(run.is_ok(), "{} fails", path.display());
    }
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..MUTATIONS {
        let mut input = inputs[rng.random_range(0..inputs.len())].1.clone();
        mutate(&mut input, &inputs, &mut rng);
        let run = catch_unwind(AssertUnwindSafe(|| fuzz::run(name, &input)));
        assert!(run.is_ok(), "{name} fails for \"{}\"", input.escape_ascii());
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            survives(stringify!($name));
        })*

        #[test]
        fn every_target_is_here() {
            let here = [$(stringify!($name)),*];
            assert_eq!(fuzz::TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), here);
        }
    };
}

targets!(decode patch apply selector cel protobuf spdy);
