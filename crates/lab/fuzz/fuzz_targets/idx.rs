//! IDX files, plain and gzipped. The first byte is the number of axes requested.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wgrad::data::idx;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));
static PATH: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.path().join("x"));

fuzz_target!(|bytes: &[u8]| {
    let Some((&axes, bytes)) = bytes.split_first() else { return };
    std::fs::write(&*PATH, bytes).expect("writable");
    match idx::read(&*PATH, axes) {
        Ok((shape, elements)) => assert_eq!(shape.numel(), elements.len()),
        Err(error) => assert!(error.to_string().contains("/x: "), "{error}"),
    }
});
