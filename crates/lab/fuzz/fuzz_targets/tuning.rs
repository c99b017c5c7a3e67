//! libFuzzer's entry point of the target `tuning`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wgrad_fuzz::tuning::run(bytes));
