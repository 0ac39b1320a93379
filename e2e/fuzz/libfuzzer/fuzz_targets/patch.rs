//! The target `patch` of `e2e/fuzz`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::run("patch", input));
