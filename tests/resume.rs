//! A training that is killed at random moments and resumed ends with the bits of one that ran through. In a binary of
//! its own, since it starts itself as the process that is killed.
//!
//! Kills 20 times; `WGRAD_KILLS=100` sets the number, `WGRAD_KILL_DEVICE` the device (default: the reference).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wgrad::data::Augment;
use wgrad::io::safetensors;
use wgrad::optim::schedule::{Cosine, Schedule};
use wgrad::prelude::*;
use wgrad::train::{Dataset, Metric, Model, Trainer};

/// The folder of the run, in the environment of the process that trains.
const FOLDER: &str = "WGRAD_KILL_FOLDER";
const EPOCHS: u64 = 12;

fn device() -> Device {
    let name = std::env::var("WGRAD_KILL_DEVICE").unwrap_or_else(|_| "cpu".into());
    Device::open(Some(&name)).expect("the device")
}

/// Pictures of 6 x 6 pixels in three classes: what the random numbers say, with a bright stripe in one of three places.
fn pictures(count: usize) -> (Tensor, Tensor) {
    let mut x = 7u32;
    let mut pixels = Vec::new();
    let labels: Vec<i32> = (0..count).map(|i| (i * 7 % 3) as i32).collect();
    for label in &labels {
        for pixel in 0..36 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let stripe = if pixel / 12 == *label { 0.5 } else { 0.0 };
            pixels.push((x >> 8) as f32 / (1 << 24) as f32 + stripe);
        }
    }
    (Tensor::new([count, 1, 6, 6], pixels).expect("pictures"), Tensor::new([count], labels).expect("labels"))
}

/// Trains with all that a checkpoint must continue: worker threads, augmentation, dropout, batch norm, accumulation, a
/// partial last batch, a schedule, moving averages.
fn train(folder: &Path) {
    let model = Model::new([1, 6, 6], |nn: &Scope, x: &Value| {
        let x = nn.batch_norm("bn", x).flatten(1);
        let x = nn.linear("fc1", &x, 12).relu();
        nn.linear("fc2", &nn.dropout(&x, 0.2), 3)
    });
    let augment = Augment::new(1).shift(1).noise(0.05);
    let data = pictures(61).map(move |mut batch, step| {
        batch.insert("x".into(), augment.apply(&batch["x"], step)?);
        Ok(batch)
    });
    let mut session = Session::new(device());
    Trainer::new(&model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
        .optimizer(AdamW::new())
        .schedule(|steps| Cosine { lr: 0.02, last: 0.001, steps }.after_warm_up(5))
        .epochs(EPOCHS)
        .batch(4)
        .accumulate(3)
        .average(0.95)
        .workers(2)
        .metrics([Metric::Accuracy])
        .checkpoint_every(1)
        .folder(folder)
        .resume(true)
        .quiet()
        .fit(&mut session, &data, Some(&pictures(20)))
        .expect("trains");
    session.save(folder.join("final.safetensors")).expect("saves");
}

/// The process that is killed: this test trains if the environment names a folder.
#[test]
fn the_process_that_trains() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        train(&PathBuf::from(folder));
    }
}

fn start(folder: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["the_process_that_trains", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("starts")
}

/// The lines of the log that tell of epochs, without what depends on time.
fn epochs(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("a log");
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut line: serde_json::Value = serde_json::from_str(line).expect("whole lines of JSON");
        for timed in ["seconds", "waiting", "rows_per_second"] {
            line.as_object_mut().expect("an object").remove(timed);
        }
        lines.push(line.to_string());
    }
    lines
}

#[test]
fn a_killed_training_ends_with_the_bits_of_an_uninterrupted_one() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let kills: usize = std::env::var("WGRAD_KILLS").map_or(20, |n| n.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    let started = Instant::now();
    assert!(start(&whole).wait().expect("ends").success());
    let duration = started.elapsed();
    let contents = |folder: &Path| -> (BTreeMap<String, Tensor>, BTreeMap<String, String>) {
        let read = safetensors::read(folder.join("final.safetensors")).expect("a file");
        (read.tensors, read.metadata)
    };
    let mut random = 12345u64;
    let (mut killed, mut run) = (0, 0);
    while killed < kills {
        run += 1;
        let parts = folder.path().join(format!("parts{run}"));
        // Up to five kills per training, then it ends.
        for kill in 0..=5 {
            let mut process = start(&parts);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let share = (random >> 33) as f64 / f64::from(1u32 << 31);
            let end = Instant::now() + duration.mul_f64(if kill < 5 { share * 0.6 } else { 1e6 });
            let mut done = None;
            while done.is_none() && Instant::now() < end {
                done = process.try_wait().expect("a process");
                std::thread::sleep(Duration::from_millis(1));
            }
            match done {
                Some(status) => {
                    assert!(status.success(), "a resumed training failed");
                    break;
                }
                None => {
                    process.kill().expect("kills"); // SIGKILL
                    process.wait().expect("ends");
                    killed += 1;
                }
            }
        }
        assert_eq!(epochs(&parts), epochs(&whole));
        assert_eq!(contents(&parts), contents(&whole));
    }
    let epochs = epochs(&whole);
    assert_eq!(epochs.iter().filter(|line| line.contains("validation")).count() as u64, EPOCHS);
    println!("killed {killed} times in {run} trainings");
}
