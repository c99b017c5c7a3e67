//! `wgrad check --golden`: compares ops and training runs with golden vectors.

mod attrs;
mod compare;
pub mod files;
mod ops;
mod train;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};
use wgrad::{DType, Device, Graph, Session, Tensor, Value, gradients_of};

use crate::output::{Out, Stop, matches};
use attrs::{Attrs, Refusal};
use compare::{Comparison, Failure};
use files::{OpCase, Tensors};
use ops::Call;

/// Whether a case was run.
enum Outcome {
    /// It was run; see the comparison.
    Compared,
    /// wgrad lacks the op, or the named attribute or input of the case.
    Unknown(String),
}

/// The result of one case or training run.
struct Verdict {
    name: String,
    op: String,
    outcome: Outcome,
    comparison: Comparison,
}

/// All results.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<(String, Vec<Failure>)>,
    /// Unknown ops, attributes and inputs, with the names of their cases.
    unknown: BTreeMap<String, Vec<String>>,
    compared: usize,
    /// The largest fraction of a tolerance used, and by what.
    worst: (f64, String),
}

/// Runs everything in the folder, or the op cases that match `pattern`.
pub fn run(
    folder: &Path,
    device: Option<&str>,
    pattern: Option<&str>,
    json: bool,
    out: &mut Out,
) -> Result<bool, Stop> {
    let golden = files::load(folder)?;
    let ops = golden.ops.iter().flat_map(|(ops, tensors)| ops.cases.iter().map(move |case| (case, tensors)));
    let ops: Vec<_> = ops.filter(|(case, _)| pattern.is_none_or(|p| matches(p, &case.op))).collect();
    let train = golden.train.as_ref().filter(|_| pattern.is_none());
    if ops.is_empty() && train.is_none_or(|(train, _)| train.runs.is_empty()) {
        let which = pattern.map_or(String::new(), |p| format!(" of an op that matches `{p}`"));
        return Err(Stop::Error(format!("{}: there is no case{which}", folder.display())));
    }
    let device = Device::open(device)?;
    if !json {
        out.line(format!("device: {device}"))?;
    }
    let mut tally = Tally::default();
    let mut session = Session::new(device.clone());
    for (case, tensors) in ops {
        tally.add(check(case, tensors, &mut session, device.is_cpu()), json, out)?;
    }
    if let Some((train, tensors)) = train {
        for run in &train.runs {
            tally.add(train::check(run, &train.models[&run.model], tensors, &device), json, out)?;
        }
    }
    tally.report(&device, json, out)?;
    Ok(tally.failed.is_empty())
}

/// Runs one op case.
fn check(case: &OpCase, tensors: &Tensors, session: &mut Session, reference: bool) -> Verdict {
    let mut comparison = Comparison::default();
    let outcome = match compare(case, tensors, session, reference, &mut comparison) {
        Ok(()) => Outcome::Compared,
        Err(Refusal::Unknown(why)) => Outcome::Unknown(why),
        Err(Refusal::Malformed(why)) => {
            comparison.failures.push(Failure::other("case", why));
            Outcome::Compared
        }
    };
    Verdict { name: case.name.clone(), op: case.op.clone(), outcome, comparison }
}

fn compare(
    case: &OpCase,
    tensors: &Tensors,
    session: &mut Session,
    reference: bool,
    comparison: &mut Comparison,
) -> Result<(), Refusal> {
    let stored = |part: &str| tensors.get(&format!("{}/{part}", case.name)).map_err(Refusal::Malformed);
    let graph = Graph::new();
    let mut feeds: Vec<(String, Tensor)> = Vec::new();
    let mut inputs: Vec<(String, Value)> = Vec::new();
    for name in &case.inputs {
        let tensor = stored(name)?.tensor().map_err(Refusal::Malformed)?;
        inputs.push((name.clone(), graph.input(name, tensor.dtype(), tensor.shape())));
        feeds.push((name.clone(), tensor));
    }
    let expression = ops::build(&case.op, &Call::new(Attrs::new(&case.attrs), inputs.clone(), &feeds))?;
    if expression.outputs.len() != case.outputs.len() {
        let why = format!("{} outputs are named, the op has {}", case.outputs.len(), expression.outputs.len());
        return Err(Refusal::Malformed(why));
    }

    // Name, value and kind of comparison of each result.
    let outputs = case.outputs.iter().zip(&expression.outputs);
    let mut targets: Vec<(String, Value, compare::Kind)> =
        outputs.clone().map(|(name, y)| (name.clone(), y.clone(), expression.kind)).collect();
    let mut seeds: Vec<(&Value, Value)> = Vec::new();
    for (name, y) in outputs.filter(|_| !case.grads.is_empty()) {
        let key = format!("d_{name}");
        let Ok(seed) = stored(&key) else { continue };
        seeds.push((y, graph.input(&key, DType::F32, &seed.shape)));
        feeds.push((key, seed.tensor().map_err(Refusal::Malformed)?));
    }
    let seeds: Vec<(&Value, &Value)> = seeds.iter().map(|(y, seed)| (*y, seed)).collect();
    let wrt: Vec<(&String, &Value)> =
        inputs.iter().filter(|(name, _)| case.grads.contains(name)).map(|(name, x)| (name, x)).collect();
    let gradients = gradients_of(&seeds, &wrt.iter().map(|(_, x)| *x).collect::<Vec<_>>());
    let named = wrt.iter().zip(gradients).map(|((name, _), d)| (format!("grad_{name}"), d, expression.gradient_kind));
    targets.extend(named);

    let malformed = |error: wgrad::Error| Refusal::Malformed(error.to_string());
    let values: Vec<&Value> = targets.iter().map(|(_, value, _)| value).collect();
    let program = session.compile(&graph, &values).map_err(malformed)?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let results = session.run(&program, &feeds).map_err(malformed)?;
    let mut expected = 0;
    for ((name, _, kind), got) in targets.iter().zip(&results) {
        let want = stored(name)?;
        expected += want.shape.numel();
        comparison.add(name, got, &want.shape, &want.to_f64(), *kind, reference);
    }
    if comparison.compared == 0 && (expected > 0 || targets.is_empty()) && comparison.failures.is_empty() {
        comparison.failures.push(Failure::other("case", "nothing was compared"));
    }
    Ok(())
}

impl Tally {
    fn unknown(&self) -> usize {
        self.unknown.values().map(Vec::len).sum()
    }

    /// Counts a verdict; failures are printed at once.
    fn add(&mut self, verdict: Verdict, json: bool, out: &mut Out) -> Result<(), Stop> {
        let Verdict { name, op, outcome, comparison } = verdict;
        if let Outcome::Unknown(why) = outcome {
            let what = if why.is_empty() { op } else { format!("{op}: {why}") };
            self.unknown.entry(what).or_default().push(name);
            return Ok(());
        }
        self.compared += comparison.compared;
        if comparison.worst > self.worst.0 {
            self.worst = (comparison.worst, name.clone());
        }
        if comparison.failures.is_empty() {
            self.passed += 1;
            return Ok(());
        }
        for failure in comparison.failures.iter().filter(|_| !json) {
            out.line(format!("FAILED {name} ({op}): {failure}"))?;
        }
        self.failed.push((name, comparison.failures));
        Ok(())
    }

    /// Prints the summary; scripts read its last line.
    fn report(&self, device: &Device, json: bool, out: &mut Out) -> Result<(), Stop> {
        if json {
            return out.line(format!("{:#}", self.json(device)));
        }
        for (what, names) in &self.unknown {
            out.line(format!("unknown {what} ({})", names.join(", ")))?;
        }
        let (used, name) = &self.worst;
        let worst =
            if name.is_empty() { String::new() } else { format!("; worst: {used:.3} of the tolerance, in {name}") };
        out.line(format!("{} numbers compared{worst}", self.compared))?;
        let (passed, failed, unknown) = (self.passed, self.failed.len(), self.unknown());
        out.line(format!("golden: {passed} passed, {failed} failed, {unknown} unknown"))
    }

    fn json(&self, device: &Device) -> Json {
        let failure = |name: &String, failure: &Failure| {
            let mut object = failure.json();
            object["case"] = json!(name);
            object
        };
        let failures: Vec<Json> =
            self.failed.iter().flat_map(|(name, all)| all.iter().map(move |f| failure(name, f))).collect();
        let (used, name) = &self.worst;
        json!({
            "device": {"name": device.profile().name, "backend": device.profile().backend},
            "passed": self.passed,
            "failed": self.failed.len(),
            "unknown": self.unknown(),
            "compared": self.compared,
            "worst": {"case": name, "of_tolerance": if used.is_finite() { json!(used) } else { json!("inf") }},
            "failures": failures,
            "unknown_cases": self.unknown,
        })
    }
}
