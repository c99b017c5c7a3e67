//! ONNX models. The seeds are models of ONNX's tests of operators (Apache 2.0).

use wgrad::Graph;
use wgrad_onnx::{BuildOptions, Model};

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    match Model::from_bytes(bytes.to_vec(), "") {
        Ok(model) => {
            let graph = Graph::new();
            match model.try_build(&graph, &BuildOptions::new().default_dim(2)) {
                Ok(built) => assert!(built.values().iter().all(|value| value.is_valid())),
                Err(problems) => assert!(problems.iter().all(|problem| !problem.why.is_empty())),
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
