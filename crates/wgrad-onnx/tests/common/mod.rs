//! What the tests share.

#![allow(dead_code)]

pub mod op;

use std::path::Path;
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use tempfile::TempDir;
use wgrad::Device;

/// 1,005 small tests of operators by the ONNX project (Apache 2.0), unpacked; `tests/README.md` tells which.
pub fn node_tests() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = include_bytes!("../nodes.tar.gz");
        tar::Archive::new(GzDecoder::new(&archive[..])).unpack(&folder).expect("the archive");
        folder
    });
    Box::leak(folder.path().join("nodes").into_boxed_path())
}

/// Their models: names and bytes.
pub fn node_models() -> Vec<(String, Vec<u8>)> {
    let mut models: Vec<(String, Vec<u8>)> = std::fs::read_dir(node_tests())
        .expect("a folder")
        .flatten()
        .filter_map(|entry| {
            let bytes = std::fs::read(entry.path().join("model.onnx")).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), bytes))
        })
        .collect();
    models.sort();
    models
}

/// The reference, and the adapter if there is one.
pub fn devices() -> Vec<Device> {
    let device = Device::open(None).expect("a device");
    if device.is_cpu() { vec![device] } else { vec![Device::cpu(), device] }
}
