//! The command line of wgrad: lists adapters, checks their results, measures their speed and shows trainings.

mod adapter;
mod bench;
pub mod check;
mod devices;
mod install;
mod lint;
mod onnx;
mod ops;
mod replay;
mod report;
mod self_test;
mod shaders;
mod signals;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use wgrad::OpenOptions;
use wgrad::plan::Options;
use wgrad_lab::golden;
use wgrad_lab::output::{self, Out, Stop};

/// A deep-learning compute engine on wgpu: lists adapters, checks what they compute and times it.
#[derive(Parser)]
#[command(
    name = "wgrad",
    version,
    after_help = "\
Exit codes:
  0  success; a check passed
  1  a check found a failure: wrong results, a fault that no test caught, a model that does not fit a device
  2  the command could not run, was interrupted, or compared nothing

WGRAD_DEVICE selects the device if --device is not given."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List every adapter with its backend, driver, type, limits and features
    Devices {
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Time kernels, training steps and startup, and compare them with the adapter's peak
    Bench(bench::BenchArgs),
    /// Compare a device with the f64 reference on every case of every op, or with golden vectors
    Check(CheckArgs),
    /// Print a script that completes this command line in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Check whether the models fit the limits of other devices, which need not be present
    Lint {
        /// Device profile; default: webgpu, webgpu-compat, phone and metal
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
        /// Model name; default: all
        model: Option<String>,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Print the manual page of wgrad, in the format of `man`
    Man {
        /// Write the page and one per subcommand to this folder instead; created if it does not exist
        #[arg(long, short, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Inspect, run, check and time ONNX models
    Onnx(onnx::OnnxArgs),
    /// List every op: types, kernels, gradient and tolerance class, as Markdown (this is docs/OPS.md)
    Ops {
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Write a page about a training, or a comparison of several: curves, metrics, settings
    Report(report::ReportArgs),
    /// Write the WGSL that ships, one complete shader per file, or show the plan of a task and the WGSL of a launch
    Shaders {
        /// Output folder; created if it does not exist
        #[arg(long, value_name = "DIR", required_unless_present = "task")]
        dump: Option<PathBuf>,
        /// Only shaders of ops whose name contains this; with `*` it must match the whole name
        #[arg(long, value_name = "PATTERN", conflicts_with = "task")]
        op: Option<String>,
        /// Also write each shader as SPIR-V, translated by naga for Vulkan
        #[arg(long, conflicts_with = "task")]
        spirv: bool,
        /// Show the plan of this task of `wgrad bench` instead: its launches, with numbers
        #[arg(long, value_name = "TASK", conflicts_with = "dump")]
        task: Option<String>,
        /// The task's shape; default: the first that `wgrad bench` uses
        #[arg(long, value_name = "SHAPE", requires = "task", conflicts_with = "dump")]
        shape: Option<String>,
        /// Print the WGSL of the launch with this number
        #[arg(long, value_name = "N", requires = "task", conflicts_with = "dump")]
        launch: Option<usize>,
        /// Plan for this device profile, as for `wgrad lint`, instead of an adapter
        #[arg(long, value_name = "NAME", requires = "task", conflicts_with_all = ["dump", "device"])]
        profile: Option<String>,
        /// Adapter to plan for: a number from `wgrad devices` or part of a name
        #[arg(long, value_name = "DEVICE", requires = "task", conflicts_with = "dump")]
        device: Option<String>,
        #[command(flatten)]
        planned: Planned,
    },
}

/// Options that change the plan of a task.
#[derive(clap::Args)]
struct Planned {
    /// The type in which floats are stored, as for `wgrad bench`
    #[arg(long, value_name = "TYPE", requires = "task", conflicts_with = "dump", value_parser = output::narrow_float)]
    dtype: Option<wgrad::DType>,
    /// Use this variant for every op that has one of this name
    #[arg(long, value_name = "NAME", requires = "task", conflicts_with = "dump")]
    variant: Option<String>,
    /// Precision of matrix products: mixed allows kernels for cooperative matrices
    #[arg(long, value_name = "PRECISION", requires = "task", conflicts_with = "dump", default_value_t)]
    precision: wgrad::Precision,
}

#[derive(clap::Args)]
struct CheckArgs {
    /// Adapter: a number from `wgrad devices`, part of a name, or `cpu`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only ops whose name contains this; with `*` it must match the whole name
    #[arg(long, value_name = "PATTERN")]
    op: Option<String>,
    /// The type of float inputs, instead of f32: f16 or bf16
    #[arg(long, value_name = "TYPE", value_parser = output::narrow_float, conflicts_with_all = ["golden", "self_test", "replay"])]
    dtype: Option<wgrad::DType>,
    /// Precision of products: mixed also runs kernels for cooperative matrices (f16 operands, f32 sums)
    #[arg(long, value_name = "PRECISION", default_value_t, conflicts_with = "golden")]
    precision: wgrad::Precision,
    /// Seed of the random inputs
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "golden")]
    seed: u64,
    /// Compare with the golden vectors in this folder instead
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,
    /// Rerun one launch from a case file saved by a shadow run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["golden", "op", "seed", "html", "case", "full", "quick"])]
    replay: Option<PathBuf>,
    /// Inject known faults into kernels and report whether each is caught
    #[arg(long, conflicts_with_all = ["op", "seed", "golden", "json", "html", "case", "full", "quick"])]
    self_test: bool,
    /// One case per op, direction and kernel variant, then as many as fit in the time limit (the default)
    #[arg(long, conflicts_with_all = ["full", "golden"])]
    quick: bool,
    /// All cases and modes, then random ones, and dispatches of more than 65,535 workgroups
    #[arg(long, conflicts_with = "golden")]
    full: bool,
    /// Time limit for starting cases in a quick check; it ends before twice this time
    #[arg(long, value_name = "SECONDS", default_value_t = 50.0, conflicts_with_all = ["full", "golden"],
        value_parser = output::seconds)]
    seconds: f64,
    /// Only the case with this number, as shown in reports
    #[arg(long, value_name = "N", conflicts_with = "golden")]
    case: Option<u64>,
    /// Write the report as JSON to this file; `-` or no name: to standard output, instead of the text
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Write the report as a self-contained HTML page, for example for a bug report
    #[arg(long, value_name = "FILE", conflicts_with = "golden")]
    html: Option<PathBuf>,
}

/// `wgrad check` without golden vectors.
fn check(args: &CheckArgs, out: &mut Out) -> Result<bool, Stop> {
    let request = check::Request {
        device: args.device.clone(),
        pattern: args.op.clone(),
        case: args.case,
        dtype: args.dtype,
        precision: args.precision,
        seed: args.seed,
        full: args.full && !args.quick,
        seconds: args.seconds,
        json: args.json.clone(),
        html: args.html.clone(),
    };
    check::run(request, out)
}

/// Whether to print JSON, for reports that can only go to standard output.
fn on_stdout(json: Option<&Path>) -> Result<bool, Stop> {
    if json.is_some_and(|path| path != Path::new("-")) {
        let why = "with --golden or --replay, --json writes to standard output; do not name a file";
        return Err(Stop::Error(why.to_owned()));
    }
    Ok(json.is_some())
}

/// `wgrad check --golden`.
fn golden(folder: &Path, args: &CheckArgs, out: &mut Out) -> Result<bool, Stop> {
    golden::run(folder, args.device.as_deref(), args.op.as_deref(), on_stdout(args.json.as_deref())?, out)
}

/// Runs the command line of this process. The exit code is 0 on success, 1 if a check found a failure, and 2 if the
/// command could not run; `wgrad --help` says more.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::stdout();
    let done = match cli.command {
        Command::Bench(args) => bench::run(&args, &mut out),
        Command::Devices { json } => devices::run(json, &mut out),
        Command::Completions { shell } => install::completions(shell, &mut out),
        Command::Man { output } => install::man(output.as_deref(), &mut out),
        Command::Check(CheckArgs { replay: Some(file), device, precision, json, .. }) => on_stdout(json.as_deref())
            .and_then(|json| replay::run(&file, device.as_deref(), &OpenOptions::of(precision), json, &mut out)),
        Command::Check(args) if args.self_test => {
            self_test::run(args.device.as_deref(), &OpenOptions::of(args.precision), &mut out)
        }
        Command::Check(args) => match &args.golden {
            Some(folder) => golden(folder, &args, &mut out),
            None => check(&args, &mut out),
        },
        Command::Lint { profile, model, json } => lint::run(profile.as_deref(), model.as_deref(), json, &mut out),
        Command::Onnx(args) => onnx::run(&args, &mut out),
        Command::Ops { json } => ops::run(json, &mut out),
        Command::Shaders { dump: Some(dump), op, spirv, .. } => shaders::run(&dump, op.as_deref(), spirv, &mut out),
        Command::Shaders {
            task,
            shape,
            launch,
            profile,
            device,
            planned: Planned { dtype, variant, precision },
            ..
        } => {
            let task = task.unwrap_or_default();
            let options = Options { variant, precision, ..Options::default() };
            let profile = shaders::profile(profile.as_deref(), device.as_deref(), precision);
            let work = shaders::work(&task, shape.as_deref(), dtype);
            work.and_then(|work| shaders::of_task(&work, launch, &profile?, &options, &mut out))
        }
        Command::Report(args) => report::run(&args, &mut out),
    };
    signals::leave(match done {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(Stop::Closed) => 2,
        Err(Stop::Wrong(message)) => {
            output::note(format!("error: {message}"));
            1
        }
        Err(Stop::Error(message)) => {
            output::note(format!("error: {message}"));
            2
        }
    })
}
