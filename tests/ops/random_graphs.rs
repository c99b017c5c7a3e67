//! Random graphs: building and compiling never panics, and graphs that compile agree with the reference
//! on the device. `WGRAD_RANDOM_GRAPHS` sets the number of graphs, `WGRAD_RANDOM_SEED` the first seed.

use crate::common;
use crate::graphs;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use wgrad::plan::Options;
use wgrad::{Session, Tensor, Value};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

#[test]
fn building_and_compiling_never_panics() {
    let first = number("WGRAD_RANDOM_SEED", 0);
    for seed in first..first + 50 * number("WGRAD_RANDOM_GRAPHS", 40) {
        let caught = std::panic::catch_unwind(|| graphs::wild(&bytes(seed, 400), 30));
        assert!(caught.is_ok(), "WGRAD_RANDOM_SEED={seed} WGRAD_RANDOM_GRAPHS=1 panics");
    }
}

#[test]
fn compiled_graphs_agree_with_the_reference() {
    let Some(device) = common::device() else { return };
    let first = number("WGRAD_RANDOM_SEED", 0);
    let (mut compared, mut wrong) = (0, Vec::new());
    for seed in first..first + number("WGRAD_RANDOM_GRAPHS", 40) {
        let sound = graphs::sound(&bytes(seed, 800), 12);
        let outputs: Vec<&Value> = sound.outputs.iter().collect();
        let feeds: Vec<(&str, &Tensor)> = sound.feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        for fuse in [true, false] {
            let mut session = Session::new(device.clone());
            let options = Options { fuse, ..Options::default() };
            let program = session
                .compile_with(&sound.graph, &outputs, &options)
                .unwrap_or_else(|e| panic!("seed {seed}: the reference compiles it, the device does not: {e}"));
            let (_, report) = session.check(&program, &feeds).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            compared += report.compared();
            for call in report.calls.iter().filter(|call| !call.passed()) {
                let worst = call.worst.as_ref().map_or(String::new(), ToString::to_string);
                let stray = call.stray.as_deref().unwrap_or("");
                wrong.push(format!("seed {seed}, fuse {fuse}: {}: {} wrong; {worst} {stray}", call.label, call.wrong));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 1000, "only {compared} numbers were compared");
}
