//! `wgrad bench`: measures kernels and training steps, and compares them with the adapter's peak.
//!
//! Each task runs in its own process, like the benchmark programs of the peer libraries, so that memory use and
//! first-run time are per task. This process starts the tasks and reports the results.

mod allreduce;
mod compare;
mod cores;
mod items;
mod one;
mod peak;
mod profile;
mod replace;
mod roofline;
mod sample;
mod table;
pub(crate) mod tasks;
mod times;
mod verify;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value as Json, json};
use wgrad::check::CaseGraph;
use wgrad::plan::Options;
use wgrad::{DType, Precision};

use crate::signals;
use items::Item;
use one::extend;
use replace::Replacement;
use tasks::{TASKS, find};
use wgrad_lab::output::{self, Out, Stop, check_files};

#[derive(clap::Args)]
#[command(after_help = tasks_help())]
pub struct BenchArgs {
    /// Tasks, each optionally followed by shapes; default: `all`
    #[arg(value_name = "TASK [SHAPE]")]
    tasks: Vec<String>,
    /// Adapter: a number from `wgrad devices`, part of a name, or `cpu` for the reference
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Measuring time per task, after warm-up
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = output::seconds)]
    seconds: f64,
    /// The type in which floats are stored, instead of f32: f16 or bf16; in training steps that of inputs
    /// and activations
    #[arg(long, value_name = "TYPE", value_parser = output::narrow_float)]
    dtype: Option<DType>,
    /// Use this variant for every op that has one of this name
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Precision of matrix products: mixed allows kernels for cooperative matrices (f16 operands, f32 sums)
    #[arg(long, value_name = "PRECISION", default_value_t)]
    precision: Precision,
    /// First time the variants of each task's kernels, for at most this long, and use the fastest
    /// correct ones; results are kept for later runs with --tune
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "20",
        conflicts_with = "variant", value_parser = output::seconds)]
    tune: Option<f64>,
    /// Run a file's WGSL in place of a launch of the task, by its number in `wgrad shaders --task`; may be
    /// repeated. The entry point, bindings and number of workgroups stay
    #[arg(long, value_name = "LAUNCH=FILE", conflicts_with = "tune")]
    replace: Vec<Replacement>,
    /// Run every task with empty driver and wgrad caches
    #[arg(long)]
    cold: bool,
    /// Also time each kernel call of a task's plan separately
    #[arg(long)]
    profile: bool,
    /// Skip the comparison with the reference: for shapes that take the reference minutes.
    /// The records then have no `verified` field
    #[arg(long)]
    no_verify: bool,
    /// Do not measure the adapter's peak; tasks then have no share of it
    #[arg(long)]
    no_peak: bool,
    /// Print one line of JSON per task instead of the table
    #[arg(long)]
    json: bool,
    /// Write the JSON lines to a file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with a file of JSON lines: an earlier run, or another library's
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Draw a roofline plot of the kernels
    #[arg(long, value_name = "FILE.svg", conflicts_with = "no_peak")]
    roofline: Option<PathBuf>,
    /// Internal: run one task in this process
    #[arg(long, hide = true)]
    in_process: bool,
}

impl BenchArgs {
    /// How the programs of the tasks are compiled.
    fn options(&self) -> Options {
        Options { variant: self.variant.clone(), precision: self.precision, ..Options::default() }
    }

    /// Rejects a variant that no op has: it would silently change nothing.
    fn known_variant(&self) -> Result<(), Stop> {
        let Some(name) = &self.variant else { return Ok(()) };
        let mut names: Vec<&str> = Vec::new();
        for case in wgrad::ops::cases() {
            names.extend(wgrad::check::all_variants(&CaseGraph::new(&case)?.graph.nodes()));
        }
        names.sort_unstable();
        names.dedup();
        if names.contains(&&**name) {
            return Ok(());
        }
        Err(Stop::Error(format!("no op has a variant `{name}`; there are {}", names.join(", "))))
    }

    /// Rejects bad arguments of `allreduce`, and options that it does not support. It never measures the peak or
    /// compares with the reference, so it accepts `--no-peak` and `--no-verify`.
    fn check_for_allreduce(&self) -> Result<(), Stop> {
        let others = [
            ("--tune", self.tune.is_some()),
            ("--replace", !self.replace.is_empty()),
            ("--cold", self.cold),
            ("--profile", self.profile),
            ("--compare", self.compare.is_some()),
            ("--roofline", self.roofline.is_some()),
        ];
        if let Some((name, _)) = others.iter().find(|(_, given)| *given) {
            return Err(Stop::Error(format!("`allreduce` does not support {name}")));
        }
        self.known_variant()?;
        check_files(&[], &[("--save", self.save.as_deref())])
    }
}

/// Runs the requested tasks. False if a kernel exceeds the measured peak.
pub fn run(args: &BenchArgs, out: &mut Out) -> Result<bool, Stop> {
    if args.tasks == ["allreduce"] {
        args.check_for_allreduce()?;
        return allreduce::run(args, out);
    }
    let items = items::parse(&args.tasks)?;
    if args.in_process {
        let line = alone(args, &items)?;
        out.line(line.to_string())?;
        return Ok(true);
    }
    // Report bad arguments before anything runs.
    if args.no_peak && args.tasks.iter().any(|word| word == "peak") {
        return Err(Stop::Error("`peak` and --no-peak contradict each other".into()));
    }
    args.known_variant()?;
    if !args.replace.is_empty() && !matches!(items[..], [Item::Kernel(..)]) {
        return Err(Stop::Error("--replace needs exactly one task with one shape".into()));
    }
    let other = args.compare.as_deref().map(compare::read).transpose()?;
    let writes = [("--save", args.save.as_deref()), ("--roofline", args.roofline.as_deref())];
    check_files(&[("--compare", args.compare.as_deref())], &writes)?;
    let running = Running::default();
    let stopped = running.clone();
    signals::watch(move || stopped.stop())?;
    Bench { args, out, running, records: Vec::new(), ceilings: None }.run(&items, other.as_deref())
}

/// The text after the options in the help.
fn tasks_help() -> String {
    let others = [
        ("startup", "a new process: one 64x64 matmul read back, three times"),
        ("peak", "the adapter's peak rates; fails if a kernel exceeds them"),
        ("gpu", "tasks of sizes that fill a GPU; use --no-verify, since the reference takes minutes for most of them"),
        ("allreduce", "alone: sums over the ranks of an MPI job and training steps with them; start it with mpirun"),
        ("all", "everything but `gpu` and `allreduce`"),
    ];
    let tasks = TASKS.iter().map(|task| (task.name, task.form)).chain(others);
    let lines: String = tasks.map(|(name, what)| format!("  {name:17} {what}\n")).collect();
    format!(
        "Tasks and their shapes; without a shape, a task runs with its default shapes:\n{lines}\
         conv2d_bwd is forward, input and weight gradient. Kernel timings include a wait for the device. A training step (mlp_step, cnn_step, lstm_step) \
         uses Adam and reads back its loss; mlp_step_nosync reads the loss of every 20th step. plan_* tasks only plan a graph of NODES nodes \
         and launch nothing.\n\
         Exit codes: 0 done, 1 a wrong result, or a kernel above the measured peak, 2 the command could not run."
    )
}

/// Runs one task in this process.
fn alone(args: &BenchArgs, items: &[Item]) -> Result<Json, Stop> {
    let device = args.device.as_deref();
    let how = one::How {
        device,
        seconds: args.seconds,
        options: args.options(),
        profile: args.profile,
        tune: args.tune,
        dtype: args.dtype.unwrap_or(DType::F32),
        replace: &args.replace,
        verify: !args.no_verify,
    };
    match items {
        [Item::Kernel(name, shape)] => {
            let task = find(name).ok_or_else(|| Stop::Error(format!("no task `{name}`")))?;
            one::run(task, shape, &how)
        }
        [Item::Startup] => one::startup(device),
        [Item::Peak, ..] => peak::run(device),
        _ => Err(Stop::Error("expected exactly one task".into())),
    }
}

/// The message after a signal ended a run.
const INTERRUPTED: &str = "interrupted; the finished tasks are reported";

/// The child process that runs a task, and whether a signal has stopped the run.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<(Option<Child>, bool)>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, (Option<Child>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the child process and prevents further ones.
    fn stop(&self) {
        let mut running = self.lock();
        running.1 = true;
        if let Some(child) = &mut running.0 {
            let _ = child.kill();
        }
    }

    fn is_stopped(&self) -> bool {
        self.lock().1
    }

    /// Runs a process to completion and returns its status and output; `None` if a signal came.
    fn output(&self, command: &mut Command) -> std::io::Result<Option<Output>> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The terminal sends Ctrl-C to the whole process group; only this process should handle it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let mut running = self.lock();
        if running.1 {
            return Ok(None);
        }
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        running.0 = Some(child);
        drop(running);
        let messages = std::thread::spawn(move || all(stderr));
        let lines = all(stdout);
        let messages = messages.join().unwrap_or_else(|_| Ok(Vec::new()));
        // Its pipes are closed, so it has exited or is about to.
        let child = self.lock().0.take();
        let status = child.map(|mut child| child.wait()).transpose()?;
        Ok(match status {
            Some(status) if !self.is_stopped() => Some(Output { status, stdout: lines?, stderr: messages? }),
            _ => None,
        })
    }
}

fn all(pipe: Option<impl Read>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes))?;
    Ok(bytes)
}

/// A run of several tasks.
struct Bench<'a> {
    args: &'a BenchArgs,
    out: &'a mut Out,
    running: Running,
    records: Vec<Json>,
    /// The peak rates that the microkernels reached.
    ceilings: Option<Json>,
}

impl Bench<'_> {
    fn run(mut self, items: &[Item], other: Option<&[Json]>) -> Result<bool, Stop> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        if let Some(load) = one::load().filter(|load| *load > cores / 4.0) {
            let busy = format!(
                "the machine is busy (load {load} on {cores} cores): expect inflated times and unreliable ratios"
            );
            if self.args.json { output::note(busy) } else { self.out.line(busy)? }
        }
        if items.iter().any(|item| *item != Item::Startup) && !self.args.no_peak {
            self.peak()?;
        }
        let mut header = false;
        let (mut failed, mut wrong, mut closed) = (Vec::new(), false, false);
        for item in items {
            let done = match item {
                Item::Peak => Ok(()),
                Item::Startup => self.startup(),
                Item::Kernel(..) if !header && !self.args.json => {
                    header = true;
                    self.out.line(table::header()).and_then(|()| self.kernel(item))
                }
                Item::Kernel(..) => self.kernel(item),
            };
            if self.running.is_stopped() {
                break;
            }
            // A failing task does not discard the results of the others.
            match done {
                Ok(()) => {}
                Err(Stop::Wrong(why)) => {
                    wrong = true;
                    failed.push(why);
                }
                Err(Stop::Error(why)) => failed.push(why),
                Err(Stop::Closed) => {
                    closed = true;
                    break;
                }
            }
        }
        // Files first: standard output may be closed.
        let written = self.save();
        if closed {
            return written.and(Err(Stop::Closed));
        }
        let strong = self.hold_peak(items.contains(&Item::Peak))?;
        self.compare(other)?;
        for path in written?.iter().filter(|_| !self.args.json) {
            self.out.line(format!("written: {}", path.display()))?;
        }
        if self.running.is_stopped() {
            failed.push(INTERRUPTED.to_owned());
        }
        match failed.join("\n") {
            none if none.is_empty() => Ok(strong),
            all if wrong => Err(Stop::Wrong(all)),
            all => Err(Stop::Error(all)),
        }
    }

    /// Measures the adapter's peak.
    fn peak(&mut self) -> Result<(), Stop> {
        let record = self.child(&["peak"], None)?;
        let named = self.args.tasks.iter().any(|word| word == "peak");
        if record["gflops"].is_null() && (named || self.args.roofline.is_some()) {
            return Err(Stop::Error("the reference has no peak; name a GPU with --device".into()));
        }
        self.ceilings = Some(record.clone());
        self.show(record)
    }

    fn kernel(&mut self, item: &Item) -> Result<(), Stop> {
        let Item::Kernel(task, shape) = item else { return Ok(()) };
        let mut record = self.child(&[task, shape], None)?;
        if let Some(share) = self.share(&record) {
            extend(&mut record, json!({ "peak_share": times::rounded(share) }));
        }
        self.show(record)
    }

    /// Starts three processes, the first with empty caches.
    fn startup(&mut self) -> Result<(), Stop> {
        let folder = tempfile::tempdir().map_err(|e| Stop::Error(format!("cannot create a cache folder: {e}")))?;
        for which in ["first", "second", "third"] {
            let begin = std::time::Instant::now();
            let mut record = self.child(&["startup"], Some(folder.path()))?;
            let wall = times::rounded(begin.elapsed().as_secs_f64());
            extend(
                &mut record,
                json!({ "params": { "run": which }, "wall_s": wall, "median_s": wall, "min_s": wall, "runs": 1 }),
            );
            self.show(record)?;
        }
        Ok(())
    }

    /// Runs one task in a child process; `caches` is the folder for driver and wgrad caches.
    fn child(&self, task: &[&str], caches: Option<&Path>) -> Result<Json, Stop> {
        let failed = |e: std::io::Error| Stop::Error(format!("cannot start a process for {}: {e}", task[0]));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("bench").args(task).arg("--in-process").arg(format!("--seconds={}", self.args.seconds));
        command.args(self.args.device.iter().flat_map(|name| ["--device", name]));
        command.args(self.args.dtype.iter().flat_map(|dtype| ["--dtype", dtype.name()]));
        command.args(self.args.variant.iter().flat_map(|name| ["--variant", name]));
        command.args(self.args.replace.iter().flat_map(|replacement| ["--replace".into(), replacement.to_string()]));
        command.arg(format!("--precision={}", self.args.precision));
        if self.args.profile {
            command.arg("--profile");
        }
        command.args(self.args.no_verify.then_some("--no-verify"));
        command.args(self.args.tune.iter().map(|seconds| format!("--tune={seconds}")));
        let empty = tempfile::tempdir().map_err(|e| Stop::Error(format!("cannot create a cache folder: {e}")))?;
        if let Some(folder) = caches.or(self.args.cold.then(|| empty.path())) {
            command.env("XDG_CACHE_HOME", folder).env("MESA_SHADER_CACHE_DIR", folder).env("WGRAD_CACHE", folder);
        }
        let output = self.running.output(&mut command).map_err(failed)?;
        let Output { status, stdout, stderr } = output.ok_or_else(|| Stop::Error(INTERRUPTED.to_owned()))?;
        let text = String::from_utf8_lossy(&stderr);
        // From the first line that begins so; what precedes it are messages of drivers.
        let message = text.strip_prefix("error: ").or_else(|| Some(text.split_once("\nerror: ")?.1));
        let message = || format!("{}: {}", task.join(" "), message.unwrap_or(&text).trim());
        match status.code() {
            Some(0) => {}
            Some(1) => return Err(Stop::Wrong(message())),
            Some(2) => return Err(Stop::Error(message())),
            _ => return Err(Stop::Error(format!("{}: the process exited with {status}", task.join(" ")))),
        }
        let line = String::from_utf8_lossy(&stdout);
        let mut record: Json = serde_json::from_str(line.trim())
            .map_err(|e| Stop::Error(format!("{}: invalid output of the process: {e}", task.join(" "))))?;
        extend(&mut record, json!({ "cold": self.args.cold }));
        Ok(record)
    }

    /// The fraction of the microkernels' rate that a task reaches. A single run on a GPU is mostly waiting, so there
    /// device timestamps count, or the time per run of a batch.
    fn share(&self, record: &Json) -> Option<f64> {
        let ceilings = self.ceilings.as_ref()?;
        let of = |field: &str| Some(record[field].as_f64()? / ceilings[field].as_f64()?);
        let alone = of("gflops").or_else(|| of("gb_s"))?;
        let busy = record["device_s"].as_f64().or(record["batch_s"].as_f64());
        let hidden = || Some(record["median_s"].as_f64()? / busy?);
        let software = record["software"] == true;
        Some(if software { alone } else { alone * hidden().unwrap_or(1.0) })
    }

    fn show(&mut self, record: Json) -> Result<(), Stop> {
        let lines = match self.args.json {
            true => vec![record.to_string()],
            false => [table::lines(&record), table::tuned(&record), profile::lines(&record)].concat(),
        };
        self.records.push(record);
        lines.into_iter().try_for_each(|line| self.out.line(line))
    }

    /// Reports kernels that exceed the measured peak. False if there are any and `peak` was requested.
    fn hold_peak(&mut self, asked: bool) -> Result<bool, Stop> {
        let beyond = |record: &&Json| record["peak_share"].as_f64().is_some_and(|share| share > 1.0);
        let lines: Vec<String> = self
            .records
            .iter()
            .filter(beyond)
            .map(|record| {
                let share = record["peak_share"].as_f64().unwrap_or(0.0) * 100.0;
                format!(
                    "{} {} reaches {share:.0}% of the microkernels' rate: they underestimate this adapter",
                    record["task"].as_str().unwrap_or(""),
                    table::shape(record)
                )
            })
            .collect();
        let seen = self.ceilings.as_ref().filter(|_| !lines.is_empty()).map(|c| peak::raised(c, &self.records));
        let seen =
            seen.map(|c| format!("including the kernels, the peak is {} GFLOP/s, {} GB/s", c["gflops"], c["gb_s"]));
        for line in lines.iter().chain(&seen) {
            if self.args.json { output::note(line) } else { self.out.line(line)? }
        }
        Ok(!asked || lines.is_empty())
    }

    fn compare(&mut self, other: Option<&[Json]>) -> Result<(), Stop> {
        for line in other.iter().flat_map(|other| compare::lines(&self.records, other)) {
            if self.args.json { output::note(line) } else { self.out.line(line)? }
        }
        Ok(())
    }

    /// Writes the files and returns their paths. Without records, existing files stay.
    fn save(&self) -> Result<Vec<PathBuf>, Stop> {
        let mut written = Vec::new();
        if let Some(path) = self.args.save.as_ref().filter(|_| !self.records.is_empty()) {
            let lines: String = self.records.iter().map(|record| format!("{record}\n")).collect();
            wgrad::io::write_atomically(path, lines.as_bytes())?;
            written.push(path.clone());
        }
        if let (Some(path), Some(ceilings)) = (&self.args.roofline, &self.ceilings) {
            let seen = peak::raised(ceilings, &self.records);
            wgrad::io::write_atomically(path, roofline::draw(&seen, &self.records).as_bytes())?;
            written.push(path.clone());
        }
        Ok(written)
    }
}
