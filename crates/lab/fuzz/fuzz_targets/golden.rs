//! libFuzzer's entry point of the target `golden`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wgrad_fuzz::golden::run(bytes));
