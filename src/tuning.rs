//! Tuning: measures which variant of each kernel is fastest on this device. Opt-in and limited in time.
//!
//! Without tuning, the estimated costs decide, from the adapter's declared properties, so that the same machine always
//! gets the same plan. [`Session::tune`] takes the kernels of a graph that have several variants, one for each
//! shape class (see [`Choices`](crate::plan::Choices)), and times up to six variants that the device can run:
//! the kernel alone, on random data with the layout it has in the graph, alternating with the others. A variant
//! must first agree with the reference, as in [`Session::check`]. It replaces the default choice if its
//! median is smaller by more than the spread. Programs compiled afterwards use the results; those compiled
//! before keep their plan, so one program gives the same bits throughout.

mod cache;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::check::bound::{self, Bounded};
use crate::check::{check_call, draw};
use crate::gpu::block_on;
use crate::graph::{NodeKind, ValueId};
use crate::op::{Fill, Precision};
use crate::plan::sites::{Site, sites};
use crate::plan::{Options, Plan};
use crate::time::{Duration, Instant};
use crate::timing::seconds_of;
use crate::{DType, Device, Error, Graph, Program, Result, Session, Tensor, Value};

pub use cache::cache_file;

/// Maximum number of candidates per shape class.
const MAX_CANDIDATES: usize = 6;
/// Minimum and maximum number of timings per candidate.
const ROUNDS: (usize, usize) = (5, 50);
/// After this many seconds, a class gets no more than the minimum number of timings.
const ENOUGH: f64 = 2.0;
/// After two rounds, a candidate slower than the best by this factor is not run again.
const HOPELESS: f64 = 3.0;
/// Minimum gain over the default choice, as a fraction of its time.
const MIN_GAIN: f64 = 0.03;
/// The side of the matrix product with which the speed of the reference is measured; it takes some milliseconds.
const PROBE: usize = 192;

/// The result of tuning.
///
/// ```
/// use std::time::Duration;
/// use wgrad::{DType, Device, Graph, Session};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [64, 64]);
/// let tuned = Session::new(Device::cpu()).tune(&graph, &[&x.matmul(&x)], Duration::from_secs(20))?;
/// assert!(tuned.kernels.is_empty() && tuned.notes[0].contains("reference")); // a GPU has kernels to tune
/// println!("{tuned}");
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tuned {
    /// The shape classes that were timed.
    pub kernels: Vec<TunedKernel>,
    /// Number of classes that were known already, from an earlier tuning or from the file.
    pub known: usize,
    /// The classes for which there was no time, by op and class. The estimated costs decide there.
    pub left: Vec<(&'static str, String)>,
    /// What was ignored in the file, and why; or why it could not be written.
    pub notes: Vec<String>,
    /// Duration in seconds.
    pub seconds: f64,
}

/// The result for the kernels of one shape class. Example: [`Tuned`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TunedKernel {
    /// The op.
    pub op: &'static str,
    /// The shape class.
    pub class: String,
    /// The default choice: the variant with the lowest estimated cost.
    pub default: &'static str,
    /// The variant used from now on; `None` if no candidate was right.
    pub chosen: Option<&'static str>,
    /// The candidates, the default choice first.
    pub candidates: Vec<Candidate>,
}

/// A variant that was tried. Example: [`Tuned`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// Its name.
    pub variant: &'static str,
    /// Its result.
    pub outcome: Outcome,
}

/// The result of a candidate. Example: [`Tuned`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It agrees with the reference.
    Timed {
        /// The median time of a run, in seconds.
        median: f64,
        /// The interquartile range of the runs, in seconds.
        spread: f64,
    },
    /// It does not agree with the reference, or did not run.
    Rejected(String),
}

impl TunedKernel {
    /// Whether the chosen variant is not the default.
    pub fn changed(&self) -> bool {
        self.chosen.is_some_and(|chosen| chosen != self.default)
    }
}

impl fmt::Display for TunedKernel {
    /// `matmul f32[64,64] ...: tile64 1.204 ms, register8 0.911 ms; register8 instead of tile64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcomes = self.candidates.iter().map(|candidate| match &candidate.outcome {
            Outcome::Timed { median, .. } => format!("{} {:.3} ms", candidate.variant, median * 1e3),
            Outcome::Rejected(why) => format!("{} REJECTED ({why})", candidate.variant),
        });
        write!(f, "{} {}: {}", self.op, self.class, outcomes.collect::<Vec<_>>().join(", "))?;
        match self.chosen {
            Some(chosen) if self.changed() => write!(f, "; {chosen} instead of {}", self.default),
            Some(_) => Ok(()),
            None => write!(f, "; none is right"),
        }
    }
}

impl fmt::Display for Tuned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = self.kernels.iter().filter(|kernel| kernel.changed()).count();
        let (timed, known, left) = (self.kernels.len(), self.known, self.left.len());
        write!(f, "tuning: {timed} shape classes timed in {:.1} s, {changed} changed", self.seconds)?;
        write!(f, "; {known} known already, {left} skipped for lack of time")?;
        self.kernels.iter().try_for_each(|kernel| write!(f, "\n  {kernel}"))?;
        self.notes.iter().try_for_each(|note| write!(f, "\n  note: {note}"))
    }
}

impl Session {
    /// Times the variants of the graph's kernels on this session's device; programs compiled from now on use
    /// the fastest. Starts from the file of earlier tunings ([`tuning::cache_file`]), times only what is not
    /// known, and adds the results to the file. Stale or corrupt parts of the file, and a file that cannot be
    /// written, are ignored with a note in the result.
    ///
    /// `budget` limits the time. When it ends, a candidate that is being prepared or compared is finished, but
    /// no other is started. A kernel that the reference cannot compute in the remaining time is not timed,
    /// because only a variant that was compared can win. On the reference there is nothing to tune, and the
    /// result says so.
    ///
    /// [`tuning::cache_file`]: crate::tuning::cache_file
    ///
    /// # Errors
    /// As [`Session::compile`]; [`Error::DeviceLost`].
    pub fn tune(&mut self, graph: &Graph, outputs: &[&Value], budget: Duration) -> Result<Tuned> {
        self.tune_in(cache_file().as_deref(), graph, outputs, budget)
    }

    /// [`Session::tune`] with another file, or none.
    ///
    /// # Errors
    /// As [`Session::tune`].
    pub fn tune_in(
        &mut self,
        file: Option<&Path>,
        graph: &Graph,
        outputs: &[&Value],
        budget: Duration,
    ) -> Result<Tuned> {
        self.tune_edited(file, graph, outputs, budget, &|_, _| Ok(()))
    }

    /// [`Session::tune_in`] with the plan of each candidate altered before it is compared: to test that a wrong
    /// one does not win.
    #[doc(hidden)]
    pub fn tune_edited(
        &mut self,
        file: Option<&Path>,
        graph: &Graph,
        outputs: &[&Value],
        budget: Duration,
        edit: &dyn Fn(&str, &mut Plan) -> Result<()>,
    ) -> Result<Tuned> {
        let begin = Instant::now();
        let (nodes, targets) = Session::accepted(graph, outputs)?;
        let mut tuned = Tuned::default();
        if self.device().is_cpu() {
            tuned.notes.push("the reference has no variants to choose from; open a GPU device".into());
            return Ok(tuned);
        }
        if let Some(file) = file {
            tuned.notes = self.load_tuning(file);
        }
        let mut open = Vec::new();
        for site in sites(nodes, &targets, self.device().profile(), MAX_CANDIDATES) {
            let known = self.choices().get(site.op, &site.class);
            match site.candidates.iter().any(|v| known == Some(v.name)) {
                true => tuned.known += 1,
                false => open.push(site),
            }
        }
        // Most work first: it gains the most if there is no time for all.
        open.sort_by(|a: &Site, b: &Site| b.work.total_cmp(&a.work));
        let mut choices = self.choices().clone();
        let rate = if open.is_empty() || budget.is_zero() { f64::MIN_POSITIVE } else { reference_rate()? };
        let mut tuner = Tuner { device: self.device().clone(), begin, budget, rate, edit };
        let count = open.len();
        for (number, site) in open.into_iter().enumerate() {
            match tuner.kernel(&site, count - number)? {
                Some(kernel) => {
                    kernel.chosen.iter().for_each(|variant| choices.set(site.op, &site.class, variant));
                    tuned.kernels.push(kernel);
                }
                None => tuned.left.push((site.op, site.class)),
            }
        }
        self.set_choices(choices);
        if let Some(file) = file.filter(|_| !tuned.kernels.is_empty())
            && let Err(error) = self.save_tuning(file)
        {
            tuned.notes.push(format!("the results were not saved: {error}"));
        }
        tuned.seconds = begin.elapsed().as_secs_f64();
        Ok(tuned)
    }
}

/// Products that the reference computes per second, with their error bounds.
fn reference_rate() -> Result<f64> {
    let graph = Graph::new();
    let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [PROBE, PROBE]));
    let (nodes, targets) = Session::accepted(&graph, &[&a.matmul(&b)])?;
    let mut rng = StdRng::seed_from_u64(0);
    let feeds = [&a, &b].map(|x| (x.id(), draw(x.ty(), &Fill::Uniform(-1.0, 1.0), &mut rng).to_reference()));
    let start = Instant::now();
    bound::evaluate(&nodes, &targets, HashMap::from(feeds), Precision::Highest)?;
    Ok((PROBE as f64).powi(3) / start.elapsed().as_secs_f64())
}

/// A tuning in progress.
struct Tuner<'a> {
    device: Device,
    begin: Instant,
    budget: Duration,
    /// Products that the reference computes per second.
    rate: f64,
    edit: &'a dyn Fn(&str, &mut Plan) -> Result<()>,
}

/// The reference's outputs of a site.
type Expected = HashMap<ValueId, Bounded>;

/// A candidate that agrees with the reference.
struct Runner {
    variant: &'static str,
    program: Program,
    /// The index of its kernel call.
    call: usize,
    times: Vec<f64>,
}

impl Tuner<'_> {
    /// The rest of the budget, in seconds; negative when it is used up.
    fn left(&self) -> f64 {
        self.budget.as_secs_f64() - self.begin.elapsed().as_secs_f64()
    }

    /// Compares and times the candidates of a site, one of `sharing` sites that share the rest of the budget.
    /// `None` if that is too little.
    fn kernel(&mut self, site: &Site, sharing: usize) -> Result<Option<TunedKernel>> {
        if site.work / self.rate > self.left() {
            return Ok(None);
        }
        let until = self.left() * (1.0 - 1.0 / sharing as f64); // reserved for the others
        let mut session = Session::new(self.device.clone());
        let (mut runners, mut rejected) = (Vec::new(), Vec::new());
        let (inputs, expected) = self.reference(site)?;
        let feeds: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        for variant in &site.candidates {
            if self.left() <= 0.0 {
                return Ok(None);
            }
            match self.runner(site, variant.name, &mut session, &feeds, &expected) {
                Ok(Ok(runner)) => runners.push(runner),
                Ok(Err(why)) => rejected.push((variant.name, why)),
                Err(why @ (Error::Limit(_) | Error::OutOfMemory(_) | Error::Gpu(_))) => {
                    rejected.push((variant.name, why.to_string()));
                }
                Err(other) => return Err(other),
            }
        }
        if runners.len() > 1 && !self.time(&mut runners, until)? {
            return Ok(None);
        }
        Ok(Some(TunedKernel::new(site, &runners, &rejected)))
    }

    /// Random inputs for the site, and the reference's outputs for them.
    fn reference(&mut self, site: &Site) -> Result<(Vec<(String, Tensor)>, Expected)> {
        let mut rng = StdRng::seed_from_u64(0);
        let (plan, _) = Plan::draft(site.nodes.clone(), &site.targets, self.device.profile(), &Options::default())?;
        let (mut inputs, mut feeds) = (Vec::new(), HashMap::new());
        for (node, leaf) in site.nodes.nodes.iter().enumerate() {
            let NodeKind::Input(name) = &leaf.kind else { continue };
            let bound = plan.inputs.iter().find(|input| input.name == *name).and_then(|input| input.bound);
            let most = match leaf.outputs[0].dtype {
                DType::I8 => 1 << 7,
                DType::U8 => 1 << 8,
                _ => u32::MAX as usize,
            };
            let fill = match leaf.outputs[0].dtype.is_float() {
                true => Fill::Uniform(-1.0, 1.0),
                false => Fill::Index(bound.unwrap_or(100).min(most) as u32),
            };
            let tensor = draw(&leaf.outputs[0], &fill, &mut rng);
            feeds.insert(ValueId { node, output: 0 }, tensor.to_reference());
            inputs.push((name.clone(), tensor));
        }
        let start = Instant::now();
        let expected = bound::evaluate(&site.nodes, &site.targets, feeds, Precision::Highest)?;
        if site.work > 1e6 {
            self.rate = site.work / start.elapsed().as_secs_f64();
        }
        Ok((inputs, expected))
    }

    /// Compiles a candidate and compares it with the reference; the inner error says why it is rejected.
    fn runner(
        &self,
        site: &Site,
        variant: &'static str,
        session: &mut Session,
        feeds: &[(&str, &Tensor)],
        expected: &Expected,
    ) -> Result<std::result::Result<Runner, String>> {
        let options = Options { variant: Some(variant.to_owned()), ..Options::default() };
        let edit = |plan: &mut Plan| (self.edit)(variant, plan);
        let program = block_on(session.compile_nodes(site.nodes.clone(), site.targets.clone(), &options, edit))?;
        let calls = &program.plan().calls;
        let Some(call) = calls.iter().position(|call| call.kernel == Some((site.op, variant))) else {
            return Ok(Err("the plan does not use it".into()));
        };
        let (gpu, _) = session.start_check(&program, feeds)?;
        let found = block_on(check_call(gpu, program.plan(), call, expected))?;
        if !found.passed() || found.compared == 0 {
            let worst = found.worst.as_ref().map(ToString::to_string);
            let why = found.stray.or(found.status).or(worst).unwrap_or("nothing was compared".into());
            return Ok(Err(why));
        }
        Ok(Ok(Runner { variant, program, call, times: Vec::new() }))
    }

    /// Times all candidates in turn until only `until` seconds of the budget are left; false if that was too
    /// little.
    fn time(&self, runners: &mut [Runner], until: f64) -> Result<bool> {
        let start = Instant::now();
        let mut clock = || start.elapsed().as_secs_f64();
        let least = |runner: &Runner| runner.times.iter().copied().fold(f64::INFINITY, f64::min);
        for round in 0..ROUNDS.1 {
            if round >= ROUNDS.0 && (self.left() <= until.max(0.0) || clock() > ENOUGH) {
                break;
            }
            let best = runners.iter().map(least).fold(f64::INFINITY, f64::min);
            // Each round begins with another candidate.
            let first = round % runners.len();
            let (head, tail) = runners.split_at_mut(first);
            for runner in tail.iter_mut().chain(head) {
                if self.left() <= 0.0 {
                    return Ok(round >= ROUNDS.0);
                }
                if round < 2 || least(runner) <= HOPELESS * best {
                    let gpu = runner.program.engine()?;
                    runner.times.push(seconds_of(self.device.profile(), gpu, runner.call, &mut clock)?);
                }
            }
        }
        Ok(true)
    }
}

impl TunedKernel {
    /// Chooses among the candidates that are right.
    fn new(site: &Site, runners: &[Runner], rejected: &[(&'static str, String)]) -> TunedKernel {
        let (mut right, mut candidates) = (Vec::new(), Vec::new());
        for variant in site.candidates.iter().map(|variant| variant.name) {
            let why = rejected.iter().find(|(name, _)| *name == variant).map(|(_, why)| why.clone());
            let runner = runners.iter().find(|runner| runner.variant == variant);
            let outcome = match (runner, why) {
                (Some(runner), None) => {
                    let (median, spread) = quartiles(&runner.times);
                    right.push((variant, median, spread));
                    Outcome::Timed { median, spread }
                }
                (_, why) => Outcome::Rejected(why.unwrap_or_default()),
            };
            candidates.push(Candidate { variant, outcome });
        }
        let default = site.candidates[0].name;
        let chosen = winner(default, &right);
        TunedKernel { op: site.op, class: site.class.clone(), default, chosen, candidates }
    }
}

/// The fastest of the variants, given their medians and spreads; the default, unless the gain over it
/// exceeds both spreads and [`MIN_GAIN`]. Public for tests.
#[doc(hidden)]
pub fn winner(default: &'static str, right: &[(&'static str, f64, f64)]) -> Option<&'static str> {
    let fastest = right.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let Some(usual) = right.iter().find(|(name, ..)| *name == default) else { return Some(fastest.0) };
    let gain = usual.1 - fastest.1;
    let clear = gain > usual.2.max(fastest.2) && gain > MIN_GAIN * usual.1;
    Some(if clear { fastest.0 } else { default })
}

/// The median and the interquartile range; 0 without times, as for a single candidate. Public for tests.
#[doc(hidden)]
pub fn quartiles(times: &[f64]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |q: f64| sorted.get((q * (sorted.len().max(1) - 1) as f64).round() as usize).copied().unwrap_or(0.0);
    (at(0.5), at(0.75) - at(0.25))
}
