//! Damaged models are refused with an error, whatever the damage.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgrad::Graph;
use wgrad_onnx::{BuildOptions, Model};

mod common;

/// Reads and builds a model.
fn build(bytes: Vec<u8>) {
    if let Ok(model) = Model::from_bytes(bytes, "") {
        let _ = model.operators();
        let _ = model.try_build(&Graph::new(), &BuildOptions::new().default_dim(2));
    }
}

#[test]
fn truncated_and_altered_models_are_errors() {
    let mut random = StdRng::seed_from_u64(7);
    // By place, so that each is seen at once.
    static PLACES: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let rounds = if std::env::var_os("WGRAD_THOROUGH").is_some() { 2000 } else { 20 };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        *PLACES.lock().expect("not poisoned").entry(place).or_default() += 1;
    }));
    let models = common::node_models();
    assert!(models.len() > 300);
    for (_, model) in &models {
        for round in 0..rounds {
            let mut bytes = model.clone();
            if round % 4 == 0 {
                bytes.truncate(random.random_range(0..bytes.len()));
            } else {
                for _ in 0..random.random_range(1..4) {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] = match random.random_range(0..4) {
                        0 => random.random(),
                        1 => bytes[at].wrapping_add(1),
                        2 => 0xff,
                        _ => bytes[at] ^ (1 << random.random_range(0..8)),
                    };
                }
            }
            let _ = catch_unwind(AssertUnwindSafe(|| build(bytes)));
        }
    }
    let _ = std::panic::take_hook();
    let places = PLACES.lock().expect("not poisoned");
    assert!(places.is_empty(), "panics: {places:#?}");
}

#[test]
fn deep_and_large_claims_are_errors() {
    // A length that is larger than the file, and graphs in graphs in graphs.
    for bytes in [vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0x7f], vec![0x3a; 100], vec![0xff; 100], vec![]] {
        assert!(Model::from_bytes(bytes, "").is_err());
    }
    let nest = |field: u8, inner: Vec<u8>| {
        let mut length = inner.len();
        let mut bytes = vec![field << 3 | 2];
        loop {
            bytes.push((length & 0x7f) as u8 | if length > 0x7f { 0x80 } else { 0 });
            length >>= 7;
            if length == 0 {
                break;
            }
        }
        bytes.extend(inner);
        bytes
    };
    let mut graph = Vec::new();
    for _ in 0..10_000 {
        graph = nest(1, nest(5, nest(6, graph)));
    }
    assert!(Model::from_bytes(nest(7, graph), "").is_err());
}
