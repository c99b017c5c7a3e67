//! IDX files, plain and gzipped. The first byte is the number of axes requested.

use wgrad::data::idx;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x");
    let Some((&axes, bytes)) = bytes.split_first() else { return };
    std::fs::write(&path, bytes).expect("writable");
    match idx::read(&path, axes) {
        Ok((shape, elements)) => assert_eq!(shape.numel(), elements.len()),
        Err(error) => assert!(error.to_string().contains("/x: "), "{error}"),
    }
}
