//! Each fuzz target on its seeds and on random mutations of them, for two seconds. The inputs do not depend on the
//! machine, only their number does. `scripts/fuzz` is the thorough form.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgrad_fuzz::TARGETS;

const TIME: Duration = Duration::from_secs(2);

/// Numbers at which parsers and sizes often fail.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "1e999",
    "NaN",
    "null",
];

fn folder(kind: &str, target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(kind).join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder("seeds", target)).expect("a folder of seeds");
    let paths: BTreeSet<PathBuf> = files.map(|file| file.expect("readable").path()).collect();
    paths.iter().map(|path| fs::read(path).expect("readable")).collect()
}

/// A random part of `bytes`, at most 64 long.
fn part(bytes: &[u8], rng: &mut StdRng) -> std::ops::Range<usize> {
    let start = rng.random_range(0..=bytes.len());
    start..start + rng.random_range(0..=(bytes.len() - start).min(64))
}

/// Changes `bytes` in one place.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut StdRng) {
    let range = part(bytes, rng);
    match rng.random_range(0..8) {
        0 => drop(bytes.drain(range)),
        1 => bytes.truncate(range.start),
        2 => {
            let copy = bytes[range.clone()].to_vec();
            bytes.splice(range.start..range.start, copy);
        }
        3 => {
            let copy = other[part(other, rng)].to_vec();
            bytes.splice(range, copy);
        }
        4 => bytes[range].iter_mut().take(8).for_each(|byte| *byte = rng.random()),
        // The first number of text after a random place.
        5 => {
            let is_digit = |at: &usize| bytes[*at].is_ascii_digit();
            let Some(start) = (range.start..bytes.len()).find(is_digit) else { return };
            let end = (start..bytes.len()).find(|at| !is_digit(at)).unwrap_or(bytes.len());
            bytes.splice(start..end, NUMBERS[rng.random_range(0..NUMBERS.len())].bytes());
        }
        _ => {
            if let Some(byte) = bytes.get_mut(range.start) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
    }
}

/// Runs one target; if it panics, saves the input and fails.
fn run(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(other, _)| *other == name).expect("a target");
    let checked = |bytes: &[u8]| {
        if catch_unwind(|| target(bytes)).is_err() {
            let artifacts = folder("artifacts", name);
            fs::create_dir_all(&artifacts).expect("writable");
            let path = artifacts.join("mutation");
            fs::write(&path, bytes).expect("writable");
            panic!("{name}: an input fails, saved as {}", path.display());
        }
    };
    let seeds = seeds(name);
    assert!(seeds.len() > 1, "{name}: {} seeds", seeds.len());
    seeds.iter().for_each(|seed| checked(seed));
    let mut rng = StdRng::seed_from_u64(1);
    let begin = Instant::now();
    let mut inputs = 0;
    while begin.elapsed() < TIME {
        let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
        for _ in 0..rng.random_range(1..6) {
            mutate(&mut bytes, &seeds[rng.random_range(0..seeds.len())], &mut rng);
        }
        checked(&bytes);
        inputs += 1;
    }
    println!("{name}: {inputs} inputs");
    assert!(inputs >= 10, "{name}: only {inputs} inputs");
}

#[test]
fn case_files() {
    run("case_file");
}

#[test]
fn csv_files() {
    run("csv");
}

#[test]
fn golden_files() {
    run("golden");
}

#[test]
fn graphs() {
    run("graph");
}

#[test]
fn idx_files() {
    run("idx");
}

#[test]
fn onnx_files() {
    run("onnx");
}

#[test]
fn safetensors_files() {
    run("safetensors");
}

#[test]
fn tuning_files() {
    run("tuning");
}

#[test]
fn every_target_is_tested() {
    let text = include_str!("mutations.rs");
    for (name, _) in TARGETS {
        assert!(text.contains(&format!("run(\"{name}\")")), "{name}");
        assert!(folder("fuzz_targets", "").join(format!("{name}.rs")).exists(), "{name} in libFuzzer");
    }
}
