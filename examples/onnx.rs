//! Finds speech in a sound: an ONNX model with a state, frame by frame.
//!
//! ```text
//! cargo run --release --example onnx
//! cargo run --release --example onnx -- --wav recording.wav
//! ```
//!
//! [Silero VAD](https://github.com/snakers4/silero-vad) (MIT) takes 32 ms of sound with the last 4 ms before them, and
//! returns the probability that someone speaks, and a state for the next frame. Before it runs, every kernel call of a
//! frame is compared with the CPU reference.

mod common;

use std::path::PathBuf;

use clap::Parser;
use common::wav;
use wgrad::{Graph, Result, Session, Tensor};
use wgrad_onnx::{BuildOptions, Constant, ElemType, Model};

/// Finds speech in a sound with an ONNX model.
#[derive(Parser)]
struct Options {
    /// A WAV file: 8 or 16 kHz, 16 bits, one channel [default: three spoken numbers between silence]
    #[arg(long)]
    wav: Option<PathBuf>,
    #[command(flatten)]
    common: common::Options,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (rate, sound) = match &options.wav {
        Some(path) => wav::read(path)?,
        None => spoken_numbers()?,
    };
    // The model takes 16 kHz: 32 ms, and the 4 ms before them.
    let (rate, sound) = if rate == 8000 { (16_000, doubled(&sound)) } else { (rate, sound) };
    let (frame, context) = (512, 64);

    let model = Model::load(common::data("onnx/silero_vad.onnx"))?;
    let rate_input = Constant::from_ints(ElemType::I64, vec![], vec![rate as i64])?;
    let shapes = BuildOptions::new().shape("input", [1, context + frame]).shape("state", [2, 1, 128]);
    let graph = Graph::new();
    let built = model.build(&graph, &shapes.constant("sr", rate_input))?;
    let mut session: Session = options.common.session()?;
    let program = session.compile(&graph, &[built.output("output")?, built.output("stateN")?])?;

    let mut state = Tensor::new([2, 1, 128], vec![0.0f32; 256])?;
    if !session.device().is_cpu() {
        let x = Tensor::new([1, context + frame], vec![0.01f32; context + frame])?;
        let (_, report) = session.run_checked(&program, &[("input", &x), ("state", &state)])?;
        assert!(report.passed(), "{}", report.divergence.map_or_else(String::new, |found| found.to_string()));
        println!("check: {} kernel calls correct, {} numbers compared", report.calls.len(), report.compared());
    }
    let padded: Vec<f32> = std::iter::repeat_n(0.0, context).chain(sound).collect();
    let mut probabilities = Vec::new();
    for start in (0..padded.len().saturating_sub(context + frame - 1)).step_by(frame) {
        let x = Tensor::new([1, context + frame], padded[start..start + context + frame].to_vec())?;
        let outputs = session.run(&program, &[("input", &x), ("state", &state)])?;
        probabilities.push(outputs[0].item()?);
        state = outputs[1].clone();
    }
    show(&probabilities);
    if options.wav.is_none() {
        let spoken = speech(&probabilities);
        assert_eq!(spoken.len(), 3, "three numbers are spoken");
    }
    Ok(())
}

const SECONDS_PER_FRAME: f64 = 0.032;

/// Runs of frames in which someone speaks: from a probability of 0.5 to 0.35, as in the model's own code.
fn speech(probabilities: &[f64]) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut speaks = false;
    for (at, &p) in probabilities.iter().enumerate() {
        let now = p >= if speaks { 0.35 } else { 0.5 };
        match (speaks, now) {
            (false, true) => found.push((at, at + 1)),
            (true, true) => found.last_mut().expect("began").1 = at + 1,
            _ => {}
        }
        speaks = now;
    }
    found
}

/// A bar for each frame, and the times of speech.
fn show(probabilities: &[f64]) {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    for line in probabilities.chunks(80) {
        println!("{}", line.iter().map(|p| BARS[(p * 8.0).round() as usize]).collect::<String>());
    }
    for (start, end) in speech(probabilities) {
        println!("speech from {:.1} s to {:.1} s", start as f64 * SECONDS_PER_FRAME, end as f64 * SECONDS_PER_FRAME);
    }
}

/// The sound at twice the rate, by linear interpolation.
fn doubled(sound: &[f32]) -> Vec<f32> {
    let next = sound.iter().skip(1).chain(sound.last());
    sound.iter().zip(next).flat_map(|(a, b)| [*a, (a + b) / 2.0]).collect()
}

/// Three numbers with 0.6 s of silence before, between and after them.
fn spoken_numbers() -> Result<(usize, Vec<f32>)> {
    let silence = vec![0.0f32; 4800];
    let mut sound = silence.clone();
    for name in ["3", "7", "16"] {
        sound.extend(wav::read(&common::data(&format!("speech/{name}.wav")))?.1);
        sound.extend(&silence);
    }
    Ok((8000, sound))
}
