//! `wgrad check`: runs cases of every op, forward and backward, with every variant, fused and unfused, and compares
//! every launch with the reference.

pub mod findings;
pub mod html;
pub mod kernel;
mod progress;
mod training;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value as Json;
use wgrad::check::sweep::{self, LARGE, NARROW, Numbered, RANDOM};
use wgrad::check::{CaseGraph, Missing, not_runnable};
use wgrad::op::Case;
use wgrad::plan::{Options, Plan};
use wgrad::{DType, OpenOptions, Precision, Profile};

use findings::{About, Findings, OpTally, What};
use wgrad_lab::output::{Out, Stop, check_files, matches, open_gpu_with};
use work::{End, Work};

/// What to check, and where to report.
#[derive(Clone)]
pub struct Request {
    pub device: Option<String>,
    pub pattern: Option<String>,
    /// The type of the float inputs, instead of f32.
    pub dtype: Option<DType>,
    /// The precision of matrix products: mixed enables cooperative matrices.
    pub precision: Precision,
    /// Only the case of this number.
    pub case: Option<u64>,
    pub seed: u64,
    /// All cases, not only those that fit in the time limit.
    pub full: bool,
    /// Time limit of a quick check, in seconds.
    pub seconds: f64,
    /// Path of the JSON report; `-` is standard output.
    pub json: Option<PathBuf>,
    pub html: Option<PathBuf>,
}

impl Request {
    /// The path of the JSON report, unless it goes to standard output.
    fn json_file(&self) -> Option<&Path> {
        self.json.as_deref().filter(|path| *path != Path::new("-"))
    }
}

/// Random cases per family: in a full check, and the maximum in a quick one.
const SWEEPS: [u64; 2] = [60, 12];

/// Maximum failures per op, and ops in the last line, on the terminal; the reports list all.
const SHOWN: usize = 8;

/// Runs the check; true if it passed.
pub fn run(request: Request, out: &mut Out) -> Result<bool, Stop> {
    let started = Instant::now();
    let listed = select(&request, in_type(request.dtype, sweep::listed()))?;
    let count = listed.len();
    let (mut tasks, must) = schedule(&request, listed)?;
    check_files(&[], &[("--json", request.json_file()), ("--html", request.html.as_deref())])?;
    let to_stdout = request.json.is_some() && request.json_file().is_none();
    let device = open_gpu_with(request.device.as_deref(), &OpenOptions::of(request.precision))?;
    if !to_stdout {
        out.line(format!("device: {device}, driver {}", device.profile().driver))?;
    }
    if !request.full {
        // Where compiling is slow, running the shortest kernels first covers the most ops.
        tasks[..must].sort_by_cached_key(|numbered| length(&numbered.case, device.profile()));
    }
    let (runnable, missing) = new_variants_first(&mut tasks, must, device.profile());
    let wanted = RequiredOps::of(&tasks[..must]);
    let (found, end) = Work {
        request: request.clone(),
        device: device.clone(),
        tasks,
        must,
        started,
        stop: false.into(),
        found: Default::default(),
    }
    .run()?;
    let mut findings = found.findings;
    (findings.runnable, findings.missing) = (runnable, missing);
    let known = sweep::listed();
    let order: Vec<&str> = known.iter().map(|numbered| numbered.case.op).collect();
    let all = RequiredOps::of(&known);
    let left = wanted.left(&findings);
    findings.add_missing(&left[0]);
    findings.ops.sort_by_key(|tally| order.iter().position(|op| *op == tally.op));
    let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let interrupted = end == End::Interrupted;
    let about = About {
        device: device.profile(),
        command: std::iter::once("wgrad".to_owned()).chain(arguments).collect::<Vec<_>>().join(" "),
        mode: if request.full { "full" } else { "quick" },
        seed: request.seed,
        seconds: started.elapsed().as_secs_f64(),
        interrupted,
        listed: count,
        ran: found.ran,
        all: [all.forward.len(), all.backward.len()],
        left,
    };
    let json = findings.json(&about);
    // Files first: standard output may be closed.
    let written = report(&request, &json);
    if to_stdout {
        out.line(format!("{json:#}"))?;
    } else {
        show(&findings, &about, out)?;
        for path in written.as_deref().unwrap_or_default() {
            out.line(format!("report: {}", path.display()))?;
        }
        summary(&findings, &about, out)?;
    }
    written?;
    if !findings.passed() {
        return Ok(false);
    }
    let seconds = request.seconds;
    match interrupted {
        true => Err(Stop::Error("interrupted; the finished cases passed and are reported".to_owned())),
        false if findings.sum(|tally| tally.compared) > 0 => Ok(true),
        false => Err(Stop::Error(match request.case {
            Some(number) => format!("nothing was compared: the results of case {number} have no elements"),
            None => format!("nothing was compared in {seconds} s; increase --seconds"),
        })),
    }
}

/// The ops that the check must cover, forward and backward.
struct RequiredOps {
    forward: Vec<&'static str>,
    backward: Vec<&'static str>,
}

impl RequiredOps {
    fn of(tasks: &[Numbered]) -> RequiredOps {
        let ops = |wanted: &dyn Fn(&Case) -> bool| {
            let mut ops: Vec<_> = tasks.iter().filter(|n| wanted(&n.case)).map(|n| n.case.op).collect();
            ops.sort_unstable();
            ops.dedup();
            ops
        };
        RequiredOps { forward: ops(&|_| true), backward: ops(&|case| case.differentiable) }
    }

    /// The ops of which nothing was compared, then those of which no case was differentiated.
    fn left(&self, findings: &Findings) -> [Vec<&'static str>; 2] {
        let left = |wanted: &[&'static str], done: &dyn Fn(&OpTally) -> bool| {
            let done: HashSet<&str> = findings.ops.iter().filter(|tally| done(tally)).map(|tally| tally.op).collect();
            wanted.iter().copied().filter(|op| !done.contains(op)).collect()
        };
        let seen = |tally: &OpTally| tally.compared > 0 || !tally.failures.is_empty();
        [left(&self.forward, &seen), left(&self.backward, &|tally| tally.backward > 0 && seen(tally))]
    }
}

/// Total length of the shaders that a case compiles with the default variants; estimates its cost.
fn length(case: &Case, profile: &Profile) -> usize {
    let Ok(graph) = CaseGraph::new(case) else { return 0 };
    let outputs: Vec<_> = graph.outputs.iter().map(|(_, value)| value).collect();
    let Ok((plan, _)) = Plan::of(&graph.graph, &outputs, profile, &Options::default()) else { return 0 };
    let dispatches = plan.calls.iter().flat_map(|call| &call.dispatches);
    let texts: HashSet<&str> = dispatches.map(|dispatch| &*dispatch.wgsl.text).collect();
    texts.into_iter().map(str::len).sum()
}

/// The cases with floats of the requested type, without those that have none.
fn in_type(dtype: Option<DType>, cases: Vec<Numbered>) -> Vec<Numbered> {
    let Some(dtype) = dtype else { return cases };
    let case = |Numbered { number, case }| Some(Numbered { number, case: case.with_floats(dtype)? });
    cases.into_iter().filter(|numbered| numbered.number < NARROW || numbered.number >= LARGE).filter_map(case).collect()
}

/// The cases of the ops that match the pattern, restricted to the requested number.
fn select(request: &Request, cases: Vec<Numbered>) -> Result<Vec<Numbered>, Stop> {
    let Some(pattern) = request.pattern.as_deref() else { return Ok(cases) };
    let mut names: Vec<&str> = cases.iter().map(|numbered| numbered.case.op).collect();
    names.sort_unstable();
    names.dedup();
    // A case number belongs to one op: an exact name must not match others as a pattern.
    let alone = request.case.is_some() && names.contains(&pattern);
    let selected = |op: &str| if alone { op == pattern } else { matches(pattern, op) };
    if !names.iter().any(|op| selected(op)) {
        return Err(Stop::Error(format!("no op matches `{pattern}`; there are {}", names.join(", "))));
    }
    Ok(cases.into_iter().filter(|numbered| selected(numbered.case.op)).collect())
}

/// The cases to run, in order, and how many of them a quick check must run.
///
/// A quick check starts with one case, chosen by the seed, of every op and direction that has elements to compare,
/// and continues with the rest in an order that the seed determines; see also [`new_variants_first`].
fn schedule(request: &Request, listed: Vec<Numbered>) -> Result<(Vec<Numbered>, usize), Stop> {
    let ops: HashSet<&str> = listed.iter().map(|numbered| numbered.case.op).collect();
    let known = |cases: Vec<Numbered>| cases.into_iter().filter(|n| ops.contains(n.case.op)).collect::<Vec<_>>();
    if let Some(number) = request.case {
        let cases = match number {
            RANDOM.. => known(in_type(request.dtype, sweep::random(request.seed, number - RANDOM))),
            LARGE.. => known(in_type(request.dtype, sweep::large())),
            _ => listed,
        };
        let cases: Vec<Numbered> = cases.into_iter().filter(|n| n.number == number).collect();
        if cases.is_empty() {
            let what = request
                .pattern
                .as_ref()
                .map_or("no op".to_owned(), |pattern| format!("no op that matches `{pattern}`"));
            return Err(Stop::Error(format!("{what} has a case of number {number}")));
        }
        let must = cases.len();
        return Ok((cases, must));
    }
    let sweeps = SWEEPS[usize::from(!request.full)];
    let random = (0..sweeps).flat_map(|k| sweep::random(request.seed, k)).collect();
    let random = known(in_type(request.dtype, random));
    if request.full {
        let mut all = listed;
        all.extend(random);
        all.extend(known(in_type(request.dtype, sweep::large())));
        let must = all.len();
        return Ok((all, must));
    }
    let mut rest = listed;
    rest.extend(random);
    rest.shuffle(&mut StdRng::seed_from_u64(request.seed));
    // A stable sort: the first case of each op, and its first backward one, come first.
    let mut seen = HashSet::new();
    let mut ranked: Vec<(bool, Numbered)> = Vec::new();
    for numbered in rest {
        let new = numbered.number < NARROW
            && has_elements(&numbered.case)
            && seen.insert((numbered.case.op, numbered.case.differentiable));
        ranked.push((!new, numbered));
    }
    ranked.sort_by_key(|(later, _)| *later);
    let must = ranked.iter().filter(|(later, _)| !later).count();
    Ok((ranked.into_iter().map(|(_, numbered)| numbered).collect(), must))
}

fn has_elements(case: &Case) -> bool {
    case.inputs.iter().all(|input| input.ty.shape.numel() > 0)
}

/// Reorders the tasks after the first `must`, so that cases with kernel variants that earlier cases lack come first.
/// Returns the variants of all tasks that the device can run, with their ops, and those that it cannot.
fn new_variants_first(
    tasks: &mut [Numbered],
    must: usize,
    profile: &Profile,
) -> (BTreeSet<(&'static str, &'static str)>, BTreeSet<Missing>) {
    let mut lacking = BTreeSet::new();
    let mut variants = |numbered: &Numbered| match CaseGraph::new(&numbered.case) {
        Ok(graph) if has_elements(&numbered.case) => {
            let (runs, missing) = not_runnable(&graph.graph.nodes(), profile);
            lacking.extend(missing);
            runs
        }
        _ => Vec::new(),
    };
    let (first, rest) = tasks.split_at_mut(must);
    let mut seen: BTreeSet<_> = first.iter().flat_map(&mut variants).collect();
    rest.sort_by_cached_key(|numbered| variants(numbered).into_iter().filter(|pair| seen.insert(*pair)).count() == 0);
    (seen, lacking)
}

/// The command that reruns this case.
fn command(request: &Request, numbered: &Numbered) -> String {
    let Numbered { number, case } = numbered;
    let mut command = format!("wgrad check --op {} --case {number} --seed {}", case.op, request.seed);
    if let Some(dtype) = request.dtype {
        command.push_str(&format!(" --dtype {dtype}"));
    }
    if request.precision != Precision::default() {
        command.push_str(&format!(" --precision {}", request.precision));
    }
    if request.full {
        command.push_str(" --full");
    }
    if let Some(device) = &request.device {
        command.push_str(&format!(" --device \"{device}\""));
    }
    command
}

fn row(cells: [&str; 7]) -> String {
    let [op, cases, compared, half, most, worst, source] = cells;
    format!("{op:<22} {cases:>5} {compared:>11} {half:>9} {most:>9} {worst:>15}  {source}").trim_end().to_owned()
}

/// A short form, with infinity as a word.
fn short(x: f64) -> String {
    match x {
        _ if x.is_infinite() => "inf".to_owned(),
        _ if x >= 1000.0 => format!("{x:.0e}"),
        _ if x.fract() == 0.0 => format!("{x}"),
        _ => format!("{x:.3}"),
    }
}

fn show(findings: &Findings, about: &About<'_>, out: &mut Out) -> Result<(), Stop> {
    out.line(row(["op", "cases", "comparisons", "99% ulp", "most ulp", "error/tolerance", "worst in"]))?;
    // Ops of which no case ran are listed below the table.
    for tally in findings.ops.iter().filter(|tally| tally.cases > 0) {
        let cases = tally.cases.to_string();
        if let Some(why) = tally.not_compared() {
            out.line(row([tally.op, &cases, "none", "-", "-", "not compared", why]))?;
            continue;
        }
        let compared = tally.compared.to_string();
        let (half, most) = (short(tally.histogram.quantile(0.99)), short(tally.histogram.most));
        out.line(row([tally.op, &cases, &compared, &half, &most, &short(tally.worst), &tally.source]))?;
        show_failures(tally, out)?;
    }
    // A line for each reason.
    let mut lacking: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for missing in &findings.missing {
        lacking.entry(&missing.lacks).or_default().push(format!("{}.{}", missing.op, missing.variant));
    }
    for (lacks, variants) in lacking {
        out.line(format!("not runnable here, for lack of {lacks}: {}", variants.join(", ")))?;
    }
    if let Some(Err(why)) = &findings.training {
        out.line(format!("  FAILED training: {why}"))?;
    }
    let (checked, [all, differentiable]) = (findings.checked(), about.all);
    let differentiated = findings.sum(|tally| usize::from(tally.backward > 0));
    out.line(format!(
        "coverage: {checked} of {all} ops forward, {differentiated} of {differentiable} backward; \
         {} of {} listed cases, {} random ones; {} of {} variants that this device can run; \
         dispatches of up to {} workgroups",
        about.ran,
        about.listed,
        findings.sum(|tally| tally.random),
        findings.runnable.intersection(&findings.ran).count(),
        findings.runnable.len(),
        findings.workgroups,
    ))?;
    let [forward, backward] = &about.left;
    for (what, ops) in [("nothing compared of", forward), ("not differentiated:", backward)] {
        if !ops.is_empty() {
            out.line(format!("NOT COVERED, {what} {} ops: {}", ops.len(), ops.join(", ")))?;
        }
    }
    if about.mode == "quick" && !about.interrupted && about.left.iter().any(|ops| !ops.is_empty()) {
        out.line("time was up: run the check again, which is faster if the driver caches compiled kernels, or increase --seconds")?;
    }
    let spread = findings.ops.iter().fold(0f64, |most, tally| most.max(tally.gradients.spread));
    out.line(format!(
        "gradients: {} elements fused, unfused and by the reference, at most {spread:.1e} apart; {} by finite differences",
        findings.sum(|tally| tally.gradients.compared),
        findings.sum(|tally| tally.gradients.finite),
    ))?;
    let trained = match &findings.training {
        Some(Ok(elements)) => format!("; two trainings of 3 steps, {elements} elements the same"),
        _ => String::new(),
    };
    out.line(format!(
        "determinism: {} programs run three times, {} (of {} ops) once more with the workgroups in another order{trained}",
        findings.sum(|tally| tally.repeated),
        findings.sum(|tally| tally.permuted),
        findings.ops.iter().filter(|tally| tally.permuted > 0).count(),
    ))
}

fn show_failures(tally: &OpTally, out: &mut Out) -> Result<(), Stop> {
    for failure in tally.failures.iter().take(SHOWN) {
        let (op, case, way) = (tally.op, &failure.case, &failure.way);
        match &failure.what {
            What::Message(message) => out.line(format!("  FAILED {op} ({case}), {way}: {message}"))?,
            What::Call(call) => {
                let (label, wrong, compared) = (&call.label, call.wrong, call.compared);
                out.line(format!("  FAILED {op} ({case}), {way}, in {label}: {wrong} of {compared} elements"))?;
                let others = call.stray.iter().chain(&call.status).cloned();
                for line in call.worst.iter().map(ToString::to_string).chain(others) {
                    out.line(format!("    {line}"))?;
                }
            }
        }
        out.line(format!("    again: {}", failure.command))?;
    }
    let more = tally.failures.len().saturating_sub(SHOWN);
    if more > 0 { out.line(format!("  and {more} more")) } else { Ok(()) }
}

/// Writes the report files and returns their paths.
fn report(request: &Request, report: &Json) -> Result<Vec<PathBuf>, Stop> {
    let mut written = Vec::new();
    if let Some(path) = request.json_file() {
        wgrad::io::write_atomically(path, format!("{report:#}\n").as_bytes())?;
        written.push(path.to_owned());
    }
    if let Some(path) = &request.html {
        wgrad::io::write_atomically(path, html::page(report).as_bytes())?;
        written.push(path.to_owned());
    }
    Ok(written)
}

fn summary(findings: &Findings, about: &About<'_>, out: &mut Out) -> Result<(), Stop> {
    let (passed, failed) = (findings.sum(OpTally::passed_cases), findings.sum(OpTally::failed_cases));
    let (ops, compared, seconds) = (findings.checked(), findings.sum(|tally| tally.compared), about.seconds);
    let mut rest = String::new();
    let empty = findings.sum(|tally| tally.empty);
    if empty > 0 {
        let unit = if empty == 1 { "case" } else { "cases" };
        rest.push_str(&format!("; {empty} {unit} without elements"));
    }
    let left = findings.ops.iter().filter(|tally| tally.not_compared().is_some());
    let left: Vec<&str> = left.map(|tally| tally.op).collect();
    if left.len() > SHOWN {
        rest.push_str(&format!("; {} ops not compared", left.len()));
    } else if !left.is_empty() {
        rest.push_str(&format!("; not compared: {}", left.join(", ")));
    }
    out.line(format!(
        "check: {passed} cases of {ops} ops passed, {failed} failed, {compared} comparisons, {seconds:.0} s{rest}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_with_new_variants_come_first() {
        let gpu = Profile { subgroups: Some((32, 32)), max_workgroup_memory: 48 << 10, ..Profile::webgpu_defaults() };
        let software = Profile { software: true, subgroups: Some((8, 8)), ..Profile::webgpu_defaults() };
        for (profile, of_matmul) in [(gpu, "tile128x32"), (software, "shuffle32")] {
            let (mut tasks, must) = (sweep::listed(), 50);
            let first: Vec<u64> = tasks[..must].iter().map(|numbered| numbered.number).collect();
            let (all, _) = new_variants_first(&mut tasks, must, &profile);
            assert!(all.contains(&("matmul", of_matmul)), "{all:?}");
            assert!(tasks[..must].iter().map(|numbered| numbered.number).eq(first));
            let mut seen = BTreeSet::new();
            let mut has_new = |numbered: &Numbered| {
                let (before, graph) = (seen.len(), CaseGraph::new(&numbered.case).expect("a case"));
                seen.extend(not_runnable(&graph.graph.nodes(), &profile).0);
                seen.len() > before
            };
            for numbered in &tasks[..must] {
                has_new(numbered);
            }
            let new = tasks[must..].iter().take_while(|numbered| has_new(numbered)).count();
            assert!(new > 20, "{new}");
            assert_eq!(seen, all);
        }
    }
}
