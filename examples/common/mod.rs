//! Shared by the examples: the command line and helper functions.
#![allow(dead_code)] // no example uses all of it

pub mod picture;
pub mod plot;
pub mod wav;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use wgrad::train::{Dataset, Trainer};
use wgrad::{Device, Error, NO_ADAPTER, Program, Result, Session, StepProfile, Tensor};

/// The command line of every example.
#[derive(Parser)]
#[group(skip)] // lets examples flatten these into their own `Options`
pub struct Options {
    /// Device: index, part of a name, backend, or `cpu` [default: the best one]
    #[arg(long)]
    pub device: Option<String>,
    /// Random seed for splits, initial weights, order and dropout
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Do a short run, to check that everything works
    #[arg(long)]
    pub quick: bool,
    #[command(flatten)]
    pub steps: Steps,
}

impl Options {
    /// A session on the selected device.
    pub fn session(&self) -> Result<Session> {
        let device = Device::open(self.device.as_deref())?;
        println!("device: {device}");
        if device.is_cpu() && self.device.is_none() {
            println!("{NO_ADAPTER}.\nUsing the CPU reference instead.");
        }
        Ok(Session::new(device))
    }
}

/// The command line of an example with plots and no options of its own.
#[derive(Parser)]
pub struct WithDrawings {
    #[command(flatten)]
    pub common: Options,
    #[command(flatten)]
    pub drawings: Drawings,
}

/// Parses the command line of an example; `--help` begins with `about`.
pub fn parse<T: Parser>(about: &'static str) -> T {
    let mut matches = T::command().about(about).get_matches();
    T::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
}

/// Options for plots.
#[derive(Args)]
pub struct Drawings {
    /// Folder for the plots
    #[arg(long, default_value = "plots")]
    pub plots: PathBuf,
}

/// The path of a file in `examples/data`.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

/// Solves `a x = b` for a symmetric positive definite `a` `[n, n]`, in f64: with `a = l l^T`
/// (Cholesky), first `l y = b`, then `l^T x = y`.
pub fn solve(a: &[f64], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let rest = a[i * n + j] - (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum::<f64>();
            l[i * n + j] = if i == j { rest.sqrt() } else { rest / l[j * n + j] };
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        x[i] = (x[i] - (0..i).map(|k| l[i * n + k] * x[k]).sum::<f64>()) / l[i * n + i];
    }
    for i in (0..n).rev() {
        x[i] = (x[i] - (i + 1..n).map(|k| l[k * n + i] * x[k]).sum::<f64>()) / l[i * n + i];
    }
    x
}

/// How the steps of an example are run: `--shadow` compares each with the reference, `--find-nan` finds the origin of
/// the first NaN or infinity.
#[derive(Args)]
pub struct Steps {
    /// Compare every kernel call of every step with the reference; stop at the first divergence
    #[arg(long, conflicts_with = "find_nan")]
    pub shadow: bool,
    /// Look for NaN and infinity in every step; stop at the first
    #[arg(long)]
    pub find_nan: bool,
    /// Show where the time of the first step goes, launch by launch, and write it to trace.json for ui.perfetto.dev
    #[arg(long)]
    pub profile: bool,
    #[arg(skip)]
    profiled: Cell<bool>,
    #[arg(skip)]
    numbers: usize,
    #[arg(skip)]
    launches: usize,
    #[arg(skip)]
    steps: usize,
}

impl Steps {
    /// Runs a step. Exits if `--shadow` or `--find-nan` finds a problem.
    pub fn run(&mut self, session: &mut Session, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Vec<Tensor>> {
        if self.profile && !self.profiled.replace(true) {
            show_profile(&session.profile(program, feeds)?)?;
        }
        let (outputs, found) = if self.shadow {
            let (outputs, report) = session.run_checked(program, feeds)?;
            self.numbers += report.compared();
            self.launches += report.calls.len();
            (outputs, report.divergence.map(|divergence| divergence.to_string()))
        } else if self.find_nan {
            let (outputs, found) = session.find_nan(program, feeds)?;
            (outputs, found.map(|found| found.to_string()))
        } else {
            (session.run(program, feeds)?, None)
        };
        if let Some(found) = found {
            eprintln!("{found}");
            std::process::exit(1);
        }
        self.steps += 1;
        Ok(outputs)
    }

    /// Applies the options to a trainer. `--profile` shows the first step of the first trainer.
    pub fn inspect(&self, trainer: Trainer, session: &Session, data: &dyn Dataset) -> Result<Trainer> {
        let mut trainer = trainer.shadow(self.shadow).find_nan(self.find_nan);
        if self.profile && !self.profiled.replace(true) {
            show_profile(&trainer.profile(session, data)?)?;
        }
        Ok(trainer)
    }

    /// Prints what was compared.
    pub fn summary(&self) {
        if self.shadow {
            let Steps { steps, launches, numbers, .. } = self;
            println!("shadow: {steps} steps correct, {launches} kernel calls, {numbers} numbers compared");
        }
        if self.find_nan {
            println!("find-nan: no NaN or infinity in {} steps", self.steps);
        }
    }
}

/// A picture of a digit in the format of MNIST: 28 by 28, light on dark.
pub fn picture(path: &Path) -> Result<Tensor> {
    let image = image::open(path).map_err(|e| Error::Input(format!("{}: {e}", path.display())))?;
    let grey = image.resize_exact(28, 28, image::imageops::FilterType::Triangle).to_luma8();
    let pixels: Vec<f32> = grey.pixels().map(|p| f32::from(p.0[0]) / 255.0).collect();
    let dark_on_light = pixels.iter().sum::<f32>() > 0.5 * pixels.len() as f32;
    let pixels: Vec<f32> = pixels.into_iter().map(|p| if dark_on_light { 1.0 - p } else { p }).collect();
    Tensor::new([1, 1, 28, 28], pixels)
}

/// Prints the probabilities of classes as bars, and returns the most likely class.
pub fn most_likely(probabilities: &Tensor) -> usize {
    let p = probabilities.to_f64();
    for (class, p) in p.iter().enumerate() {
        println!("{class}  {:5.1}%  {}", 100.0 * p, "#".repeat((p * 40.0).round() as usize));
    }
    (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap_or(0)
}

/// Prints the profile of a step, and writes its trace. (Steps that are profiled are steps of the training, too.)
fn show_profile(profile: &StepProfile) -> Result<()> {
    println!("{profile}");
    wgrad::io::write_atomically("trace.json", profile.to_chrome_trace().as_bytes())?;
    println!("trace.json: open it in ui.perfetto.dev");
    Ok(())
}
