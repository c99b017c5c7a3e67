//! `wgrad-lab mutate`: makes one small random change to a shader at a time and runs the cases that use it. A mutant
//! that no case detects shows that the cases are too weak, or that the change makes no difference; mutants known to
//! be equivalent are listed in `equivalent.txt`.
//!
//! A separate process tests each shader, with bounds checks enabled, so that a mutant that crashes the driver counts
//! as killed and the next one is tried.

mod mutant;
mod texts;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::output::{Out, Stop, matches, open_gpu};
use texts::Text;
use worker::Worker;

/// Arguments of `mutate`.
#[derive(clap::Args)]
pub struct MutateArgs {
    /// Adapter: a number from `wgrad devices`, or part of a name
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only shaders whose name contains this; with `*` it must match the whole name
    #[arg(long, value_name = "PATTERN")]
    shader: Option<String>,
    /// Number of mutants per shader; default: all
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Only mutants whose name contains this; with `*` it must match the whole name
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Number of runs that a mutant must pass to count as a survivor
    #[arg(long, value_name = "N", default_value_t = 400)]
    runs: usize,
    /// Seed of the sample
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Internal: test the shader's mutants from this one on, and report to the parent process
    #[arg(long, value_name = "N", hide = true)]
    worker: Option<usize>,
    /// Internal: the cases that use the worker's shader
    #[arg(long, value_name = "N", hide = true, value_delimiter = ',')]
    cases: Vec<usize>,
}

/// Time without output after which a worker counts as hanging: it prints a line before each run of a case.
const PATIENCE: Duration = Duration::from_secs(60);

/// Results for a shader's mutants.
#[derive(Default)]
struct Score {
    of: usize,
    killed: usize,
    /// How many of the killed ones crashed.
    crashed: usize,
    equivalent: usize,
    survivors: Vec<String>,
}

impl Score {
    fn tried(&self) -> usize {
        self.killed + self.equivalent + self.survivors.len()
    }

    /// A row of the table in docs/MUTATION.md.
    fn row(&self, shader: &str) -> String {
        let Score { of, killed, equivalent, .. } = self;
        let tried = self.tried();
        let share = 100.0 * *killed as f64 / (tried - equivalent).max(1) as f64;
        format!("| {shader} | {killed} | {equivalent} | {tried} | {of} | {share:.1} % |")
    }
}

/// Tests mutants of the shaders and reports the share that was detected.
pub fn run(args: &MutateArgs, out: &mut Out) -> Result<bool, Stop> {
    let device = open_gpu(args.device.as_deref())?;
    let pattern = args.shader.as_deref().unwrap_or("*");
    if let Some(first) = args.worker {
        return Worker::new(device, pattern, &args.cases)?.run(args, first, out);
    }
    let known = texts::texts(&device, &[], |shader| matches(pattern, shader))?;
    let cases_of = |texts: Vec<Text>| texts.iter().flat_map(|text| text.runs.iter().map(|run| run.case)).collect();
    let shaders: BTreeMap<String, BTreeSet<usize>> = known.into_iter().map(|(s, texts)| (s, cases_of(texts))).collect();
    if shaders.is_empty() {
        return Err(Stop::Error(format!("no shader for this device matches `{pattern}`")));
    }
    out.line(format!("device: {device}, driver {}", device.profile().driver))?;
    drop(device);
    out.line("| shader | killed | equivalent | tried | of | score |\n| --- | --- | --- | --- | --- | --- |")?;
    let mut sum = Score::default();
    for (shader, cases) in shaders {
        let score = supervise(&shader, &cases, args)?;
        out.line(score.row(&shader))?;
        for survivor in &score.survivors {
            out.line(format!("    survived {shader}/{survivor}"))?;
        }
        sum.of += score.of;
        sum.killed += score.killed;
        sum.crashed += score.crashed;
        sum.equivalent += score.equivalent;
        sum.survivors.extend(score.survivors);
    }
    out.line(sum.row("sum"))?;
    let Score { killed, crashed, equivalent, .. } = sum;
    let different = sum.tried() - equivalent;
    out.line(format!("killed {killed} of {different} not known to be equivalent, {crashed} by a crash"))?;
    Ok(true)
}

/// Equivalent mutants, each with its shader, in the form of the output (`*` matches anything), under a line with the
/// reason.
const EQUIVALENT: &str = include_str!("mutate/equivalent.txt");

/// Whether the mutant is known to be equivalent.
fn is_equivalent(shader: &str, mutant: &str) -> bool {
    let name = format!("{shader}/{mutant}");
    let mut known = EQUIVALENT.lines().filter_map(|line| line.strip_prefix("  "));
    known.any(|pattern| if pattern.contains('*') { matches(pattern, &name) } else { pattern == name })
}

/// Runs workers on a shader's mutants, and restarts after a mutant that crashes a worker.
fn supervise(shader: &str, cases: &BTreeSet<usize>, args: &MutateArgs) -> Result<Score, Stop> {
    let mut score = Score::default();
    loop {
        let mut child = spawn(shader, cases, args, score.tried())?;
        let stdout = child.stdout.take().ok_or_else(|| Stop::Error("a worker has no output".into()))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (mut open, mut done, mut patience) = (false, false, 10 * PATIENCE); // until everything is planned
        while let Ok(line) = lines.recv_timeout(patience) {
            patience = PATIENCE;
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "mutants" => score.of = rest.parse().unwrap_or(0),
                "trying" => open = true,
                "killed" => score.killed += 1,
                "equivalent" => score.equivalent += 1,
                "survived" => score.survivors.push(rest.to_owned()),
                "done" => done = true,
                _ => {}
            }
            open &= !matches!(word, "killed" | "survived");
        }
        // The worker has exited, or hangs and must be killed.
        let _ = child.kill();
        let status = child.wait().map_err(|error| Stop::Error(format!("a worker: {error}")))?;
        if done {
            return Ok(score);
        }
        if !open {
            return Err(Stop::Error(format!("the worker for {shader} exited ({status}) before it tested a mutant")));
        }
        score.killed += 1;
        score.crashed += 1;
    }
}

fn spawn(shader: &str, cases: &BTreeSet<usize>, args: &MutateArgs, first: usize) -> Result<Child, Stop> {
    let failed = |error: std::io::Error| Stop::Error(format!("cannot start a worker: {error}"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["mutate", "--shader", shader, "--worker", &first.to_string()]);
    let cases: Vec<String> = cases.iter().map(usize::to_string).collect();
    command.args(["--cases", &cases.join(",")]);
    command.args(["--seed", &args.seed.to_string(), "--runs", &args.runs.to_string()]);
    if let Some(n) = args.sample {
        command.args(["--sample", &n.to_string()]);
    }
    if let Some(only) = &args.only {
        command.args(["--only", only]);
    }
    if let Some(device) = &args.device {
        command.args(["--device", device]);
    }
    command.env("WGRAD_CHECKED_SHADERS", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().map_err(failed)
}
