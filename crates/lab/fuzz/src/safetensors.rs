//! Safetensors files: whatever loads survives a save and load unchanged, and loads into a session or gives an error.

use wgrad::io::safetensors;
use wgrad::{Device, Graph, Session, Tensor};

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x");
    std::fs::write(&path, bytes).expect("writable");
    let graph = Graph::new();
    graph.parameter("w", Tensor::new([2], [1.0f32, 2.0]).expect("two"));
    let mut session = Session::new(Device::cpu());
    session.compile(&graph, &[]).expect("compiles");
    let loaded = [session.load(&path), session.load_weights(&path, &graph)];
    match safetensors::read(&path) {
        Ok(contents) => {
            let again = folder.path().join("again");
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
}
