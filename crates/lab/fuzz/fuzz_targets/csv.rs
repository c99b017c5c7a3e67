//! libFuzzer's entry point of the target `csv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wgrad_fuzz::csv::run(bytes));
