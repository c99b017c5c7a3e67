//! libFuzzer's entry point of the target `safetensors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wgrad_fuzz::safetensors::run(bytes));
