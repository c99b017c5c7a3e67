//! libFuzzer's entry point of the target `idx`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wgrad_fuzz::idx::run(bytes));
