//! `wgrad mutate`: shaders are altered at random, one small change at a time, and the cases that use
//! them are run. A mutant that no case notices shows where the cases are too weak, or that the
//! change makes no difference.
//!
//! The work is done by a process of its own for each shader, with bounds-checked shaders, so that a
//! mutant that brings the driver down is counted (as killed) and the next one tried.

mod mutant;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use mutant::{Key, Parsed};
use wgrad::check::faults::plan;
use wgrad::check::{CaseGraph, ways};
use wgrad::op::Case;
use wgrad::plan::Options;
use wgrad::{Device, Profile, Session, Tensor, Value};

use crate::check;
use crate::output::{Out, Stop, matches};

/// What the command line says.
#[derive(clap::Args)]
pub struct MutateArgs {
    /// An adapter's number in `wgrad devices`, or a part of its name
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only shaders whose name contains this; with `*` it must match the whole name
    #[arg(long, value_name = "PATTERN")]
    shader: Option<String>,
    /// How many mutants of each shader to try; all without it
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// How many runs of cases a mutant must outlive to count as a survivor
    #[arg(long, value_name = "N", default_value_t = 400)]
    runs: usize,
    /// Seed of the sample
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Tries the mutants of the shader from this one on, and reports to the process that asked
    #[arg(long, value_name = "N", hide = true)]
    worker: Option<usize>,
}

/// How long one mutant may take before it counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// The code that the plan writes around the functions of scalar.wgsl.
const GENERATED: &str = "generated";

/// What became of a shader's mutants.
#[derive(Default)]
struct Score {
    tried: usize,
    of: usize,
    killed: usize,
    crashed: usize,
    survivors: Vec<String>,
}

/// Tries mutants of the shaders, and reports the share that was noticed.
pub fn run(args: &MutateArgs, out: &mut Out) -> Result<bool, Stop> {
    let device = check::open(args.device.as_deref())?;
    let pattern = args.shader.as_deref().unwrap_or("*");
    if let Some(first) = args.worker {
        return Worker::new(device, pattern)?.run(pattern, args, first, out);
    }
    let texts = texts(&device, |shader| matches(pattern, shader))?;
    if texts.is_empty() {
        return Err(Stop::Error(format!("no shader that this device runs matches `{pattern}`")));
    }
    out.line(format!("device: {device}, driver {}", device.profile().driver))?;
    drop(device);
    let (mut killed, mut tried) = (0, 0);
    for shader in texts.keys() {
        let score = supervise(shader, args)?;
        let share = 100.0 * score.killed as f64 / score.tried.max(1) as f64;
        let Score { tried: n, of, killed: k, crashed, .. } = score;
        out.line(format!(
            "{shader:<32} {k:>5} of {n:>5} killed ({share:.1} %), {crashed} by a crash; {of} mutants in all"
        ))?;
        for survivor in &score.survivors {
            out.line(format!("    survived {survivor}"))?;
        }
        killed += k;
        tried += n;
    }
    out.line(format!("killed {killed} of {tried} ({:.1} %)", 100.0 * killed as f64 / tried.max(1) as f64))?;
    Ok(true)
}

/// Lets workers try a shader's mutants, and goes on behind those that break a worker.
fn supervise(shader: &str, args: &MutateArgs) -> Result<Score, Stop> {
    let mut score = Score::default();
    let mut next = 0;
    loop {
        let mut child = spawn(shader, args, next)?;
        let stdout = child.stdout.take().ok_or_else(|| Stop::Error("a worker has no output".into()))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut open = None;
        let mut done = false;
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "mutants" => score.of = rest.parse().unwrap_or(0),
                "trying" => open = Some(()),
                "killed" | "survived" => {
                    (open, next) = (None, next + 1);
                    score.tried += 1;
                    score.killed += usize::from(word == "killed");
                    if word == "survived" {
                        score.survivors.push(rest.to_owned());
                    }
                }
                "done" => done = true,
                _ => {}
            }
        }
        // Gone, or hanging: then it has to be ended.
        let _ = child.kill();
        let status = child.wait().map_err(|error| Stop::Error(format!("a worker: {error}")))?;
        if done {
            return Ok(score);
        }
        if open.is_none() {
            return Err(Stop::Error(format!("the worker for {shader} ended ({status}) before it tried anything")));
        }
        next += 1;
        score.tried += 1;
        score.killed += 1;
        score.crashed += 1;
    }
}

fn spawn(shader: &str, args: &MutateArgs, first: usize) -> Result<Child, Stop> {
    let failed = |error: std::io::Error| Stop::Error(format!("a worker cannot be started: {error}"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["mutate", "--shader", shader, "--worker", &first.to_string()]);
    command.args(["--seed", &args.seed.to_string(), "--runs", &args.runs.to_string()]);
    if let Some(n) = args.sample {
        command.args(["--sample", &n.to_string()]);
    }
    if let Some(device) = &args.device {
        command.args(["--device", device]);
    }
    command.env("WGRAD_CHECKED_SHADERS", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().map_err(failed)
}

/// A specialization of a shader, and the runs of cases that use it, the cheapest first.
struct Text {
    wgsl: Arc<str>,
    runs: Vec<Run>,
}

/// A case and a way to run it.
#[derive(Clone)]
struct Run {
    case: usize,
    options: Options,
    /// On the device of few workgroups.
    narrow: bool,
    cost: usize,
}

/// A grid folds where it has more workgroups in a line than this. Real devices take 65,535, which
/// only large cases exceed.
const NARROW: u32 = 8;

/// The texts of all cases by the shaders that they hold parts of.
fn texts(device: &Device, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<Text>>, Stop> {
    let mut found: BTreeMap<String, Vec<Text>> = BTreeMap::new();
    let mut known: HashMap<Arc<str>, Vec<Run>> = HashMap::new();
    let mut entries: BTreeMap<Arc<str>, String> = BTreeMap::new();
    for (number, case) in wgrad::ops::cases().iter().enumerate() {
        let graph = CaseGraph::new(case)?;
        let values = graph.inputs.iter().map(|(_, v, _)| v).chain(graph.outputs.iter().map(|(_, v)| v));
        let cost = values.map(|v: &Value| v.shape().numel()).sum();
        let mut seen = HashSet::new();
        let narrow = Profile { max_workgroups: NARROW, ..device.profile().clone() };
        for (profile, narrow) in [(device.profile(), false), (&narrow, true)] {
            for options in ways(&graph, device.profile()) {
                let outputs = graph.outputs.iter().map(|(_, value)| value);
                let plan = match plan(&graph.graph, outputs, profile, &options) {
                    Err(_) if narrow => continue, // too large for it
                    plan => plan?,
                };
                if !seen.insert(plan.fingerprint()) {
                    continue;
                }
                let dispatches: BTreeMap<&Arc<str>, &str> = plan
                    .units
                    .iter()
                    .flat_map(|unit| &unit.dispatches)
                    .filter(|d| !narrow || d.workgroups[1] > 1)
                    .map(|d| (&d.wgsl, d.entry.as_str()))
                    .collect();
                for (wgsl, entry) in dispatches {
                    entries.insert(wgsl.clone(), entry.to_owned());
                    let run = Run { case: number, options: options.clone(), narrow, cost };
                    known.entry(wgsl.clone()).or_default().push(run);
                }
            }
        }
    }
    for (wgsl, entry) in entries {
        let mut runs: Vec<Run> = known.remove(&wgsl).unwrap_or_default();
        // The cheapest first, and a narrow one after each other one.
        let mut ranks = [0; 2];
        runs.sort_by_key(|run| run.cost);
        let mut ranked: Vec<(usize, Run)> = Vec::with_capacity(runs.len());
        for run in runs {
            let rank = &mut ranks[usize::from(run.narrow)];
            ranked.push((2 * *rank + usize::from(run.narrow), run));
            *rank += 1;
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        let runs: Vec<Run> = ranked.into_iter().map(|(_, run)| run).collect();
        for shader in shaders_of(&entry, &wgsl).into_iter().filter(|shader| wanted(shader)) {
            found.entry(shader).or_default().push(Text { wgsl: wgsl.clone(), runs: runs.clone() });
        }
    }
    found.values_mut().for_each(|texts| texts.sort_by_key(|text| text.runs.first().map_or(0, |run| run.cost)));
    Ok(found)
}

const SCALAR: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/scalar.wgsl"));
const OPERANDS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/matmul_operands.wgsl"));

fn shaders_of(entry: &str, wgsl: &str) -> Vec<String> {
    let names = match entry {
        "pointwise" => vec!["scalar", GENERATED],
        _ if wgsl.contains("fn rows_of_a(") => vec![entry, "matmul_operands"],
        _ => vec![entry],
    };
    names.into_iter().map(str::to_owned).collect()
}

/// Whether `function` of a text with that entry point comes from the shader. Functions of
/// scalar.wgsl are tried in pointwise kernels alone, generated epilogues not at all.
fn belongs(function: &str, shader: &str) -> bool {
    let within = |text: &str| text.contains(&format!("\nfn {function}("));
    match shader {
        "scalar" => within(SCALAR),
        "matmul_operands" => within(OPERANDS),
        GENERATED => !within(SCALAR),
        _ => !within(SCALAR) && !within(OPERANDS) && !function.starts_with("epilogue"),
    }
}

/// The same device with few workgroups in a line.
fn narrow(device: &Device) -> wgrad::Result<Device> {
    let limits = Profile { max_workgroups: NARROW, ..device.profile().clone() };
    Device::open_within(Some(&device.profile().name), Some(&limits))
}

/// Tries the mutants of one shader.
struct Worker {
    device: Device,
    narrow: Device,
    cases: Vec<Case>,
    texts: Vec<Text>,
    graphs: HashMap<usize, (CaseGraph, Vec<Tensor>)>,
}

impl Worker {
    fn new(device: Device, shader: &str) -> Result<Worker, Stop> {
        let texts = texts(&device, |known| known == shader)?;
        let texts = texts.into_values().next().unwrap_or_default();
        let narrow = narrow(&device)?;
        Ok(Worker { device, narrow, cases: wgrad::ops::cases(), texts, graphs: HashMap::new() })
    }

    fn run(mut self, shader: &str, args: &MutateArgs, first: usize, out: &mut Out) -> Result<bool, Stop> {
        let parsed: Vec<Option<Parsed>> = self.texts.iter().map(|text| Parsed::new(&text.wgsl)).collect();
        let mut places = BTreeMap::<Key, Vec<_>>::new();
        for (number, parsed) in parsed.iter().enumerate() {
            for (key, place) in parsed.iter().flat_map(|parsed| parsed.mutations(|name| belongs(name, shader))) {
                places.entry(key).or_default().push((number, place));
            }
        }
        let mut keys: Vec<&Key> = places.keys().collect();
        out.line(format!("mutants {}", keys.len()))?;
        let mut rng = StdRng::seed_from_u64(args.seed);
        for i in (1..keys.len()).rev() {
            keys.swap(i, rng.random_range(0..=i));
        }
        let wanted = args.sample.unwrap_or(keys.len());
        let mut sound: HashMap<usize, bool> = HashMap::new();
        let mut tried = 0;
        for key in keys {
            // Only what is valid and changes something counts.
            let mutants: Vec<(usize, String)> = places[key]
                .iter()
                .filter_map(|&(number, place)| Some((number, parsed[number].as_ref()?.mutated(place, key.change)?)))
                .collect();
            if mutants.is_empty() {
                continue;
            }
            if tried == wanted {
                break;
            }
            tried += 1;
            if tried <= first {
                continue;
            }
            out.line(format!("trying {key}"))?;
            let killed = self.is_killed(&mutants, &parsed, &mut sound, args.runs)?;
            out.line(format!("{} {key}", if killed { "killed" } else { "survived" }))?;
        }
        out.line("done")?;
        Ok(true)
    }

    /// Whether some run of a case notices the mutant: one run of each text, then the next ones.
    fn is_killed(
        &mut self,
        mutants: &[(usize, String)],
        parsed: &[Option<Parsed>],
        sound: &mut HashMap<usize, bool>,
        most: usize,
    ) -> Result<bool, Stop> {
        let longest = mutants.iter().map(|(number, _)| self.texts[*number].runs.len()).max().unwrap_or(0);
        let mut runs = 0;
        for round in 0..longest {
            for (number, mutated) in mutants {
                let Some(run) = self.texts[*number].runs.get(round).cloned() else { continue };
                if !sound.contains_key(number) {
                    let written = parsed[*number].as_ref().map_or("", |parsed| &parsed.written).to_owned();
                    let passes = self.passes(*number, &run, &written);
                    sound.insert(*number, passes);
                    if !passes {
                        writeln!(std::io::stderr(), "unmutated, but written by naga, a text fails").unwrap_or(());
                    }
                }
                if !sound[number] {
                    continue;
                }
                if !self.passes(*number, &run, mutated) {
                    return Ok(true);
                }
                runs += 1;
                if runs == most {
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    /// Whether a case agrees with the reference with one text replaced.
    fn passes(&mut self, number: usize, run: &Run, with: &str) -> bool {
        let text = self.texts[number].wgsl.clone();
        match self.check(&text, run, with) {
            Ok(passed) => passed,
            Err(_) => {
                // What the driver refused must not be laid at the next one's door.
                let opened = Device::open(Some(&self.device.profile().name));
                if let Ok((device, narrow)) = opened.and_then(|device| Ok((device.clone(), narrow(&device)?))) {
                    (self.device, self.narrow) = (device, narrow);
                }
                false
            }
        }
    }

    fn check(&mut self, text: &Arc<str>, run: &Run, with: &str) -> wgrad::Result<bool> {
        let case = &self.cases[run.case];
        if let Entry::Vacant(vacant) = self.graphs.entry(run.case) {
            let graph = CaseGraph::new(case)?;
            let inputs = graph.sample(run.case as u64);
            vacant.insert((graph, inputs));
        }
        let (graph, inputs) = &self.graphs[&run.case];
        let feeds: Vec<(&str, &Tensor)> =
            graph.inputs.iter().zip(inputs).map(|((name, ..), tensor)| (name.as_str(), tensor)).collect();
        let outputs: Vec<&Value> = graph.outputs.iter().map(|(_, value)| value).collect();
        let with: Arc<str> = with.into();
        let mut session = Session::new(if run.narrow { &self.narrow } else { &self.device }.clone());
        let program = session.compile_edited(&graph.graph, &outputs, &run.options, |plan| {
            for dispatch in plan.units.iter_mut().flat_map(|unit| &mut unit.dispatches) {
                if dispatch.wgsl == *text {
                    dispatch.wgsl = with.clone();
                }
            }
            Ok(())
        })?;
        Ok(session.check(&program, &feeds)?.1.passed())
    }
}
