//! `wgrad check`: every case of every op, forward and backward, with every variant, fused and not,
//! launch by launch against the reference.

use serde_json::{Value as Json, json};
use wgrad::check::{CaseGraph, CaseReport, Element, UnitReport, check_case};
use wgrad::op::Case;
use wgrad::plan::Options;
use wgrad::{Device, NO_ADAPTER, Session, Tensor};

use crate::output::{Out, Stop, matches};

/// What was found in the cases of one op.
#[derive(Default)]
struct OpTally {
    cases: usize,
    compared: usize,
    /// The largest error over its tolerance.
    worst: f64,
    /// The kernel and the case that had it.
    source: String,
    failures: Vec<Failure>,
}

/// A unit of a case that is not as the reference says.
struct Failure {
    case: String,
    /// How the case was run.
    way: String,
    what: What,
}

enum What {
    Unit(Box<UnitReport>),
    Message(String),
}

/// Checks the ops that match `pattern`.
pub fn run(device: Option<&str>, pattern: Option<&str>, seed: u64, json: bool, out: &mut Out) -> Result<bool, Stop> {
    let ops = select(pattern)?;
    let device = open(device)?;
    if !json {
        out.line(format!("device: {device}, driver {}", device.profile().driver))?;
        out.line(row(["op", "cases", "comparisons", "error/tolerance", "worst in"]))?;
    }
    let mut tallies = Vec::new();
    for (op, cases) in &ops {
        let mut tally = OpTally::default();
        for (number, case) in cases {
            let seed = seed.wrapping_add(*number);
            tally.add(case, check_case(&device, case, seed), || compare_outputs(&device, case, seed));
        }
        if !json {
            tally.show(op, out)?;
        }
        tallies.push((*op, tally));
    }
    let failed = tallies.iter().any(|(_, tally)| !tally.failures.is_empty());
    if json {
        out.line(format!("{:#}", as_json(&device, seed, &tallies)))?;
    } else {
        summary(&tallies, out)?;
    }
    Ok(!failed)
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

type Numbered = (u64, Case);

/// The cases by op, in the order of the registry, each with its number there.
fn select(pattern: Option<&str>) -> Result<Vec<(&'static str, Vec<Numbered>)>, Stop> {
    let mut ops: Vec<(&'static str, Vec<Numbered>)> = Vec::new();
    let mut names = Vec::new();
    for numbered in (0u64..).zip(wgrad::ops::cases()) {
        let op = numbered.1.op;
        if !names.contains(&op) {
            names.push(op);
        }
        if !pattern.is_none_or(|pattern| matches(pattern, op)) {
            continue;
        }
        match ops.iter_mut().find(|(known, _)| *known == op) {
            Some((_, cases)) => cases.push(numbered),
            None => ops.push((op, vec![numbered])),
        }
    }
    match pattern {
        Some(pattern) if ops.is_empty() => {
            names.sort_unstable();
            Err(Stop::Error(format!("no op matches `{pattern}`; there are {}", names.join(", "))))
        }
        _ => Ok(ops),
    }
}

fn row(cells: [&str; 5]) -> String {
    let [op, cases, compared, worst, source] = cells;
    format!("{op:<24} {cases:>5} {compared:>12} {worst:>16}  {source}").trim_end().to_owned()
}

fn way(options: &Options) -> String {
    match (&options.variant, options.fuse) {
        (Some(variant), _) => format!("with variant {variant}"),
        (None, true) => "fused".to_owned(),
        (None, false) => "unfused".to_owned(),
    }
}

/// For a case that launches nothing, a mere view of its input: what is read back must be the
/// reference's to the bit. Gives the number of elements.
fn compare_outputs(device: &Device, case: &Case, seed: u64) -> Result<usize, String> {
    let run = || -> wgrad::Result<(Vec<Tensor>, Vec<Tensor>)> {
        let graph = CaseGraph::new(case)?;
        let inputs = graph.sample(seed);
        let names = graph.inputs.iter().map(|(name, ..)| name.as_str());
        let feeds: Vec<(&str, &Tensor)> = names.zip(&inputs).collect();
        let outputs: Vec<_> = graph.outputs.iter().map(|(_, value)| value).collect();
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph.graph, &outputs)?;
        Ok((session.run(&program, &feeds)?, graph.reference(&inputs)?))
    };
    let (got, want) = run().map_err(|error| error.to_string())?;
    for (number, (got, want)) in got.iter().zip(&want).enumerate() {
        if got.shape() != want.shape() || got.to_f64() != want.to_f64() {
            return Err(format!("output {number} is not a copy of what it should be"));
        }
    }
    Ok(want.iter().map(Tensor::numel).sum())
}

impl OpTally {
    fn add(
        &mut self,
        case: &Case,
        checked: wgrad::Result<CaseReport>,
        outputs: impl FnOnce() -> Result<usize, String>,
    ) {
        self.cases += 1;
        let mut fail = |way: String, what| self.failures.push(Failure { case: case.name.clone(), way, what });
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) => return fail("run".to_owned(), What::Message(error.to_string())),
        };
        if checked.compared() == 0 {
            match outputs() {
                Ok(compared) => self.compared += compared,
                Err(message) => fail("run".to_owned(), What::Message(message)),
            }
        }
        for (options, report) in checked.ways {
            self.compared += report.compared();
            for unit in report.units {
                let ratio = unit.worst.as_ref().map_or(0.0, Element::ratio);
                if ratio > self.worst {
                    self.worst = ratio;
                    self.source = format!("{} ({})", unit.label, case.name);
                }
                if !unit.passed() {
                    let what = What::Unit(Box::new(unit));
                    self.failures.push(Failure { case: case.name.clone(), way: way(&options), what });
                }
            }
        }
    }

    fn show(&self, op: &str, out: &mut Out) -> Result<(), Stop> {
        let worst = if self.worst.is_finite() { format!("{:.3}", self.worst) } else { "inf".to_owned() };
        out.line(row([op, &self.cases.to_string(), &self.compared.to_string(), &worst, &self.source]))?;
        for Failure { case, way, what } in &self.failures {
            match what {
                What::Message(message) => out.line(format!("  FAILED {op} ({case}), {way}: {message}"))?,
                What::Unit(unit) => {
                    out.line(format!(
                        "  FAILED {op} ({case}), {way}, in {}: {} of {} elements",
                        unit.label, unit.wrong, unit.compared
                    ))?;
                    for line in unit.worst.iter().map(ToString::to_string).chain(unit.stray.clone()) {
                        out.line(format!("    {line}"))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn failed_cases(tally: &OpTally) -> usize {
    let mut cases: Vec<&str> = tally.failures.iter().map(|failure| failure.case.as_str()).collect();
    cases.sort_unstable();
    cases.dedup();
    cases.len()
}

fn summary(tallies: &[(&str, OpTally)], out: &mut Out) -> Result<(), Stop> {
    let sum = |count: fn(&OpTally) -> usize| tallies.iter().map(|(_, tally)| count(tally)).sum::<usize>();
    let (cases, failed, compared) = (sum(|t| t.cases), sum(failed_cases), sum(|t| t.compared));
    let ops = tallies.len();
    out.line(format!("check: {} cases of {ops} ops passed, {failed} failed, {compared} comparisons", cases - failed))
}

/// JSON has no NaN and no infinity; as texts they stay visible.
fn number(x: f64) -> Json {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

fn as_json(device: &Device, seed: u64, tallies: &[(&str, OpTally)]) -> Json {
    let profile = device.profile();
    let ops = tallies.iter().map(|(op, tally)| {
        json!({
            "op": op,
            "cases": tally.cases,
            "failed_cases": failed_cases(tally),
            "comparisons": tally.compared,
            "worst_error_over_tolerance": number(tally.worst),
            "worst_in": tally.source,
        })
    });
    let failures = tallies.iter().flat_map(|(op, tally)| tally.failures.iter().map(|failure| failure.json(op)));
    json!({
        "device": {"name": profile.name, "backend": profile.backend, "driver": profile.driver},
        "seed": seed,
        "ops": ops.collect::<Vec<_>>(),
        "failures": failures.collect::<Vec<_>>(),
    })
}

impl Failure {
    fn json(&self, op: &str) -> Json {
        let mut object = json!({"op": op, "case": self.case, "way": self.way});
        let unit = match &self.what {
            What::Unit(unit) => unit,
            What::Message(message) => {
                object["message"] = json!(message);
                return object;
            }
        };
        object["unit"] = json!(unit.label);
        object["wrong"] = json!(unit.wrong);
        object["compared"] = json!(unit.compared);
        object["stray"] = json!(unit.stray);
        if let Some(element) = &unit.worst {
            object["element"] = json!({
                "node": element.node,
                "type": element.ty.to_string(),
                "index": element.index,
                "got": number(element.got),
                "want": number(element.want),
                "bound": number(element.bound),
            });
        }
        object
    }
}
