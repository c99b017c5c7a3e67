//! Safetensors files: whatever loads survives a save and load unchanged, and loads into a session or gives an error.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wgrad::io::safetensors;
use wgrad::{Device, Graph, Session, Tensor};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));
static PATH: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.path().join("x"));

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*PATH, bytes).expect("writable");
    let graph = Graph::new();
    graph.parameter("w", Tensor::new([2], [1.0f32, 2.0]).expect("two"));
    let mut session = Session::new(Device::cpu());
    session.compile(&graph, &[]).expect("compiles");
    let loaded = [session.load(&*PATH), session.load_weights(&*PATH, &graph)];
    match safetensors::read(&*PATH) {
        Ok(contents) => {
            let again = FOLDER.path().join("again");
            safetensors::save(&again, &contents.tensors, &contents.metadata).expect("saves what it has loaded");
            let back = safetensors::read(&again).expect("loads what it has saved");
            assert_eq!(back.metadata, contents.metadata);
            // Compared as text, since NaN differs from itself.
            assert_eq!(format!("{:?}", back.tensors), format!("{:?}", contents.tensors));
        }
        Err(error) => {
            assert!(error.to_string().contains("/x: "), "{error}");
            assert!(loaded.iter().all(Result::is_err));
        }
    }
});
