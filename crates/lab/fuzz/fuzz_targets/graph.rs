//! libFuzzer's entry point of the target `graph`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wgrad_fuzz::graph::run(bytes));
