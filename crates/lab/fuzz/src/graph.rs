//! Graphs built from bytes (`tests/common/graphs.rs`, also used by `tests/ops/random_graphs.rs` to check a device):
//! building, differentiating, planning and running on the reference never panic.

// Only device tests use the graph itself.
#[allow(dead_code)]
#[path = "../../../../tests/common/graphs.rs"]
mod graphs;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((kind, bytes)) if kind % 4 == 0 => {
            let sound = graphs::sound(bytes, 8);
            assert!(sound.feeds.len() >= 4 && sound.outputs.iter().all(wgrad::Value::is_valid));
        }
        Some((_, bytes)) => graphs::wild(bytes, 20),
        None => {}
    }
}
