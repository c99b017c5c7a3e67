//! `wgrad check`: cases of every op, forward and backward, with every variant, fused and not,
//! launch by launch against the reference.

mod findings;
mod html;
mod kernel;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value as Json;
use wgrad::check::sweep::{self, LARGE, Numbered, RANDOM};
use wgrad::check::{Extras, check_case_with, repeat_training};
use wgrad::{Device, NO_ADAPTER};

use crate::output::{Out, Stop, matches};
use findings::{About, Findings, OpTally, What};

/// What to check, and where to report.
pub struct Request<'a> {
    pub device: Option<&'a str>,
    pub pattern: Option<&'a str>,
    /// Only the cases of that number.
    pub case: Option<u64>,
    pub seed: u64,
    /// Everything, rather than what fits the time.
    pub full: bool,
    /// How long a quick check may take, in seconds.
    pub seconds: f64,
    /// Where the report goes; `-` is standard output.
    pub json: Option<&'a Path>,
    pub html: Option<&'a Path>,
}

/// Random cases of each family: in a full check, and at most in a quick one.
const SWEEPS: [u64; 2] = [60, 12];

/// Lines about failures of one op on the terminal; the reports have all.
const SHOWN: usize = 8;

/// Checks.
pub fn run(request: &Request<'_>, out: &mut Out) -> Result<bool, Stop> {
    let started = Instant::now();
    let listed = select(request, sweep::listed())?;
    let count = listed.len();
    let (tasks, must) = schedule(request, listed)?;
    let to_stdout = request.json.is_some_and(|path| path == Path::new("-"));
    let device = open(request.device)?;
    for path in [request.json, request.html].into_iter().flatten().filter(|path| *path != Path::new("-")) {
        writable(path)?;
    }
    let stop = interruption()?;
    if !to_stdout {
        out.line(format!("device: {device}, driver {}", device.profile().driver))?;
    }
    let mut findings = Findings::default();
    let bar = progress(tasks.len() as u64);
    let (mut ran, mut interrupted) = (0, false);
    for (at, numbered) in tasks.iter().enumerate() {
        interrupted = stop.load(Ordering::Relaxed);
        let late = !request.full && request.case.is_none() && started.elapsed().as_secs_f64() > request.seconds;
        if interrupted || (at >= must && late) {
            break;
        }
        bar.set_message(format!("{} ({})", numbered.case.op, shortened(&numbered.case.name)));
        let random = numbered.number >= RANDOM;
        let extras = Extras {
            repeat: true,
            // Finite differences of random cases would need a condition number to be judged by.
            gradients: (numbered.number < LARGE).then_some(if request.full { 24 } else { 6 }),
            every_way: request.full && numbered.number < LARGE,
            // Another order is another pipeline: a quick check makes one for each op.
            permuted: match request.full {
                true => numbered.number < LARGE,
                false => request.case.is_some() || findings.permuted(numbered.case.op) == 0,
            },
        };
        let checked = check_case_with(&device, &numbered.case, numbered.seed(request.seed), &extras);
        ran += usize::from(!random && numbered.number < LARGE);
        findings.add(numbered, checked, device.profile(), &command(request, numbered));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if request.pattern.is_none() && !interrupted {
        findings.training = Some(repeat_training(&device)?);
    }
    let order: Vec<&str> = sweep::listed().iter().map(|numbered| numbered.case.op).collect();
    findings.ops.sort_by_key(|tally| order.iter().position(|op| *op == tally.op));
    let about = About {
        device: device.profile(),
        command: std::iter::once("wgrad".to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" "),
        mode: if request.full { "full" } else { "quick" },
        seed: request.seed,
        seconds: started.elapsed().as_secs_f64(),
        interrupted,
        listed: count,
        ran,
    };
    if !to_stdout {
        show(&findings, &about, out)?;
    }
    report(request, &findings.json(&about), out)?;
    if !to_stdout {
        summary(&findings, &about, out)?;
    }
    if interrupted && findings.passed() {
        return Err(Stop::Error("interrupted; what ran was right, and is reported".to_owned()));
    }
    Ok(findings.passed())
}

pub fn open(name: Option<&str>) -> Result<Device, Stop> {
    let device = Device::open(name)?;
    if !device.is_cpu() {
        return Ok(device);
    }
    Err(Stop::Error(if Device::list().is_empty() {
        format!("{NO_ADAPTER}. There is nothing to check but the reference itself: `wgrad check --golden DIR`")
    } else {
        "cpu is the reference, which all devices are held against; name a GPU with --device, or check the \
         reference itself with --golden DIR"
            .to_owned()
    }))
}

/// Whether a report can be written is told before the check, not after it.
fn writable(path: &Path) -> Result<(), Stop> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        return Err(Stop::Error(format!("{}: no report can be written there", path.display())));
    }
    Ok(())
}

/// Ctrl-C ends the check after the case that runs; a second one ends the program.
fn interruption() -> Result<Arc<AtomicBool>, Stop> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let handler = move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Stop::Error(format!("Ctrl-C cannot be watched: {error}")))?;
    Ok(stop)
}

/// On stderr; invisible where that is no terminal.
fn progress(tasks: u64) -> ProgressBar {
    let bar = ProgressBar::new(tasks);
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} cases, {elapsed} gone, about {eta} left  {wide_msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn shortened(name: &str) -> String {
    name.chars().take(40).collect()
}

/// The cases of the ops that the pattern selects, and of them those of the wanted number.
fn select(request: &Request<'_>, cases: Vec<Numbered>) -> Result<Vec<Numbered>, Stop> {
    let Some(pattern) = request.pattern else { return Ok(cases) };
    let mut names: Vec<&str> = cases.iter().map(|numbered| numbered.case.op).collect();
    names.sort_unstable();
    names.dedup();
    // A number belongs to one op; a pattern would bring others in.
    let alone = request.case.is_some() && names.contains(&pattern);
    let selected = |op: &str| if alone { op == pattern } else { matches(pattern, op) };
    if !names.iter().any(|op| selected(op)) {
        return Err(Stop::Error(format!("no op matches `{pattern}`; there are {}", names.join(", "))));
    }
    Ok(cases.into_iter().filter(|numbered| selected(numbered.case.op)).collect())
}

/// The cases to run in order, and how many of them run whatever the time.
///
/// A quick check starts with one case of every op and direction that has elements to compare, which the seed
/// chooses, and goes on with the rest in an order that the seed chooses too.
fn schedule(request: &Request<'_>, listed: Vec<Numbered>) -> Result<(Vec<Numbered>, usize), Stop> {
    let ops: HashSet<&str> = listed.iter().map(|numbered| numbered.case.op).collect();
    let known = |cases: Vec<Numbered>| cases.into_iter().filter(|n| ops.contains(n.case.op)).collect::<Vec<_>>();
    if let Some(number) = request.case {
        let cases = match number {
            RANDOM.. => known(sweep::random(request.seed, number - RANDOM)),
            LARGE.. => known(sweep::large()),
            _ => listed,
        };
        let cases: Vec<Numbered> = cases.into_iter().filter(|n| n.number == number).collect();
        if cases.is_empty() {
            let what = request.pattern.map_or("no op".to_owned(), |pattern| format!("no op that matches `{pattern}`"));
            return Err(Stop::Error(format!("{what} has a case of number {number}")));
        }
        let must = cases.len();
        return Ok((cases, must));
    }
    let sweeps = SWEEPS[usize::from(!request.full)];
    let random = known((0..sweeps).flat_map(|k| sweep::random(request.seed, k)).collect());
    if request.full {
        let mut all = listed;
        all.extend(random);
        all.extend(known(sweep::large()));
        let must = all.len();
        return Ok((all, must));
    }
    let mut rest = listed;
    rest.extend(random);
    rest.shuffle(&mut StdRng::seed_from_u64(request.seed));
    // A stable sort: what is first of its op, or its first backward, comes first of all.
    let mut seen = HashSet::new();
    let mut ranked: Vec<(bool, Numbered)> = Vec::new();
    for numbered in rest {
        let full = numbered.case.inputs.iter().all(|input| input.ty.shape.numel() > 0);
        let new = numbered.number < LARGE && full && seen.insert((numbered.case.op, numbered.case.differentiable));
        ranked.push((!new, numbered));
    }
    ranked.sort_by_key(|(later, _)| *later);
    let must = ranked.iter().filter(|(later, _)| !later).count();
    Ok((ranked.into_iter().map(|(_, numbered)| numbered).collect(), must))
}

/// The command that runs a case alone.
fn command(request: &Request<'_>, numbered: &Numbered) -> String {
    let Numbered { number, case } = numbered;
    let mut command = format!("wgrad check --op {} --case {number} --seed {}", case.op, request.seed);
    if request.full {
        command.push_str(" --full");
    }
    if let Some(device) = request.device {
        command.push_str(&format!(" --device \"{device}\""));
    }
    command
}

fn row(cells: [&str; 7]) -> String {
    let [op, cases, compared, half, most, worst, source] = cells;
    format!("{op:<22} {cases:>5} {compared:>11} {half:>9} {most:>9} {worst:>15}  {source}").trim_end().to_owned()
}

/// Short, with infinity as a word.
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
    for tally in &findings.ops {
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
    for missing in &findings.missing {
        out.line(format!("not runnable here: {}.{} ({})", missing.op, missing.variant, missing.lacks))?;
    }
    if let Some(Err(why)) = &findings.training {
        out.line(format!("  FAILED training: {why}"))?;
    }
    let all = findings.ops.len();
    let differentiated = findings.sum(|tally| usize::from(tally.backward > 0));
    out.line(format!(
        "coverage: {} of {} listed cases, {} random ones; {all} ops forward, {differentiated} backward; \
         {} of {} variants that this device can run; dispatches of up to {} workgroups",
        about.ran,
        about.listed,
        findings.sum(|tally| tally.random),
        findings.runnable.intersection(&findings.ran).count(),
        findings.runnable.len(),
        findings.workgroups,
    ))?;
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
            What::Unit(unit) => {
                let (label, wrong, compared) = (&unit.label, unit.wrong, unit.compared);
                out.line(format!("  FAILED {op} ({case}), {way}, in {label}: {wrong} of {compared} elements"))?;
                let others = unit.stray.iter().chain(&unit.status).cloned();
                for line in unit.worst.iter().map(ToString::to_string).chain(others) {
                    out.line(format!("    {line}"))?;
                }
            }
        }
        out.line(format!("    again: {}", failure.command))?;
    }
    let more = tally.failures.len().saturating_sub(SHOWN);
    if more > 0 { out.line(format!("  and {more} more")) } else { Ok(()) }
}

/// Writes the reports.
fn report(request: &Request<'_>, report: &Json, out: &mut Out) -> Result<(), Stop> {
    let mut written: Vec<PathBuf> = Vec::new();
    if let Some(path) = request.json {
        if path == Path::new("-") {
            out.line(format!("{report:#}"))?;
        } else {
            wgrad::io::write_atomically(path, format!("{report:#}\n").as_bytes())?;
            written.push(path.to_owned());
        }
    }
    if let Some(path) = request.html {
        wgrad::io::write_atomically(path, html::page(report).as_bytes())?;
        written.push(path.to_owned());
    }
    for path in written.iter().filter(|_| request.json != Some(Path::new("-"))) {
        out.line(format!("report: {}", path.display()))?;
    }
    Ok(())
}

fn summary(findings: &Findings, about: &About<'_>, out: &mut Out) -> Result<(), Stop> {
    let checked = |tally: &OpTally| tally.not_compared().is_none();
    let cases = findings.sum(|t| if checked(t) { t.cases } else { 0 });
    let (ops, failed) = (findings.sum(|t| usize::from(checked(t))), findings.sum(OpTally::failed_cases));
    let (compared, passed, seconds) = (findings.sum(|t| t.compared), cases - failed, about.seconds);
    let left: Vec<&str> = findings.ops.iter().filter(|t| !checked(t)).map(|t| t.op).collect();
    let left = if left.is_empty() { String::new() } else { format!("; not compared: {}", left.join(", ")) };
    out.line(format!(
        "check: {passed} cases of {ops} ops passed, {failed} failed, {compared} comparisons, {seconds:.0} s{left}"
    ))
}
