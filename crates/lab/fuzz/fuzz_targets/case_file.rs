//! libFuzzer's entry point of the target `case_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wgrad_fuzz::case_file::run(bytes));
