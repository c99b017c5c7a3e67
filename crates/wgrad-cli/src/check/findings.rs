//! The results of a check per op, and the JSON report; the HTML page is generated from the JSON.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use wgrad::Profile;
use wgrad::check::sweep::{Numbered, RANDOM};
use wgrad::check::{CallReport, CaseGraph, CaseReport, ENDS, Element, Gradients, Histogram, Missing, tolerance};
use wgrad::plan::Options;

use super::kernel;
use crate::adapter;

/// Maximum number of failures reported with kernel source. The rest omit it: a report from a device on which
/// nothing works would be too large to send.
const WITH_TEXTS: usize = 40;

/// Results of all cases of one op.
#[derive(Default)]
pub struct OpTally {
    pub op: &'static str,
    pub cases: usize,
    /// Number of random cases.
    pub random: usize,
    /// Number of cases whose results have no elements.
    pub empty: usize,
    /// Number of differentiated cases with elements.
    pub backward: usize,
    pub compared: usize,
    pub histogram: Histogram,
    /// Largest error divided by its tolerance.
    pub worst: f64,
    /// The kernel and case of the largest error.
    pub source: String,
    pub tolerance: BTreeSet<String>,
    pub gradients: Gradients,
    /// Number of programs run three times.
    pub repeated: usize,
    /// Number of programs run with permuted workgroups.
    pub permuted: usize,
    pub failures: Vec<Failure>,
}

/// A kernel call that differs from the reference, or another failure of a case.
pub struct Failure {
    pub case: String,
    pub number: u64,
    /// How the case was run.
    pub way: String,
    pub what: What,
    /// The command that reruns this case.
    pub command: String,
}

pub enum What {
    Call(Box<CallReport>),
    Message(String),
}

/// All results of a check.
#[derive(Default)]
pub struct Findings {
    /// Per op, in registry order.
    pub ops: Vec<OpTally>,
    /// Ops and variants that ran.
    pub ran: BTreeSet<(&'static str, &'static str)>,
    /// Variants of the listed cases that the device supports.
    pub runnable: BTreeSet<(&'static str, &'static str)>,
    /// Variants of these cases that it does not support.
    pub missing: BTreeSet<Missing>,
    /// Workgroup count of the largest dispatch.
    pub workgroups: u64,
    /// Elements compared between two trainings from the same start, or how they differ.
    pub training: Option<Result<usize, String>>,
}

/// Other fields of the report.
pub struct About<'a> {
    pub device: &'a Profile,
    pub command: String,
    pub mode: &'static str,
    pub seed: u64,
    pub seconds: f64,
    pub interrupted: bool,
    /// Number of listed cases that match the pattern.
    pub listed: usize,
    /// How many of them ran.
    pub ran: usize,
    /// Number of all ops that have cases; then of those that have differentiable cases.
    pub all: [usize; 2],
    /// Requested ops of which nothing was compared; then those of which no case was differentiated.
    pub left: [Vec<&'static str>; 2],
}

impl Findings {
    /// Adds a case's result. `command` reruns the case.
    pub fn add(&mut self, numbered: &Numbered, checked: wgrad::Result<CaseReport>, command: &str) {
        let Numbered { number, case } = numbered;
        let at = self.ops.iter().position(|tally| tally.op == case.op).unwrap_or_else(|| {
            self.ops.push(OpTally { op: case.op, ..OpTally::default() });
            self.ops.len() - 1
        });
        let tally = &mut self.ops[at];
        tally.cases += 1;
        tally.random += usize::from(*number >= RANDOM);
        let mut fail = |way: String, what| {
            let (case, command) = (case.name.clone(), command.to_owned());
            tally.failures.push(Failure { case, number: *number, way, what, command });
        };
        if let Ok(graph) = CaseGraph::new(case) {
            let nodes = graph.graph.nodes();
            tally.tolerance.extend(tolerance(&nodes, case.op));
        }
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) => return fail("run".to_owned(), What::Message(error.to_string())),
        };
        for complaint in &checked.complaints {
            fail("whole".to_owned(), What::Message(complaint.clone()));
        }
        let compared = checked.compared();
        tally.empty += usize::from(compared == 0 && checked.passed());
        tally.backward += usize::from(case.differentiable && compared > 0);
        tally.compared += compared;
        tally.repeated += checked.repeated;
        tally.permuted += checked.permuted;
        tally.gradients.compared += checked.gradients.compared;
        tally.gradients.finite += checked.gradients.finite;
        tally.gradients.spread = tally.gradients.spread.max(checked.gradients.spread);
        for (options, report) in checked.ways {
            for call in report.calls {
                self.ran.extend(call.kernel);
                self.workgroups = self.workgroups.max(call.workgroups);
                tally.histogram.merge(&call.histogram);
                let ratio = call.worst.as_ref().map_or(0.0, Element::ratio);
                if ratio > tally.worst {
                    tally.worst = ratio;
                    tally.source = format!("{} ({})", call.label, case.name);
                }
                if !call.passed() {
                    let (case, command) = (case.name.clone(), command.to_owned());
                    let what = What::Call(Box::new(call));
                    tally.failures.push(Failure { case, number: *number, way: way(&options), what, command });
                }
            }
        }
    }

    /// Adds a tally without cases for each of these ops that has none, so that the reports show it.
    pub fn add_missing(&mut self, ops: &[&'static str]) {
        for &op in ops {
            if self.ops.iter().all(|tally| tally.op != op) {
                self.ops.push(OpTally { op, ..OpTally::default() });
            }
        }
    }

    /// Number of ops with a comparison or a failure.
    pub fn checked(&self) -> usize {
        self.sum(|tally| usize::from(tally.not_compared().is_none()))
    }

    /// Whether everything passed.
    pub fn passed(&self) -> bool {
        !matches!(self.training, Some(Err(_))) && self.ops.iter().all(|tally| tally.failures.is_empty())
    }

    /// Sums a count over all ops.
    pub fn sum(&self, count: impl Fn(&OpTally) -> usize) -> usize {
        self.ops.iter().map(count).sum()
    }

    /// The JSON report.
    pub fn json(&self, about: &About<'_>) -> Json {
        let failures = self.ops.iter().flat_map(|tally| tally.failures.iter().map(|failure| (tally.op, failure)));
        // The worst first; a failure without numbers is as bad as an infinite error.
        let mut failures: Vec<_> = failures.collect();
        failures.sort_by(|(_, a), (_, b)| b.ratio().total_cmp(&a.ratio()));
        let failures =
            failures.into_iter().enumerate().map(|(i, (op, f))| f.json(op, &about.device.backend, i < WITH_TEXTS));
        let spread = self.ops.iter().fold(0f64, |most, tally| most.max(tally.gradients.spread));
        let names = |set: &BTreeSet<(&str, &str)>| set.iter().map(|(op, v)| format!("{op}.{v}")).collect::<Vec<_>>();
        json!({
            "wgrad": env!("CARGO_PKG_VERSION"),
            "wgpu": wgpu_version(),
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "device": adapter::declared(about.device),
            "command": about.command,
            "mode": about.mode,
            "seed": about.seed,
            "seconds": (about.seconds * 10.0).round() / 10.0,
            "interrupted": about.interrupted,
            "passed": self.passed() && self.sum(|tally| tally.compared) > 0,
            "comparisons": self.sum(|tally| tally.compared),
            "coverage": {
                "listed_cases": about.listed,
                "listed_cases_run": about.ran,
                "random_cases_run": self.sum(|tally| tally.random),
                "ops": about.all[0],
                "ops_compared": self.checked(),
                "ops_not_compared": about.left[0],
                "ops_differentiable": about.all[1],
                "ops_differentiated": self.sum(|tally| usize::from(tally.backward > 0)),
                "ops_not_differentiated": about.left[1],
                "variants_run": names(&self.ran),
                "variants_runnable": names(&self.runnable),
                "largest_dispatch_workgroups": self.workgroups,
            },
            "not_runnable_here": self.missing.iter().map(|m| json!({
                "op": m.op, "variant": m.variant, "lacks": m.lacks,
            })).collect::<Vec<_>>(),
            "gradients": {
                "compared_fused_unfused_reference": self.sum(|tally| tally.gradients.compared),
                "compared_with_finite_differences": self.sum(|tally| tally.gradients.finite),
                "largest_spread": number(spread),
            },
            "determinism": {
                "programs_run_three_times": self.sum(|tally| tally.repeated),
                "programs_permuted": self.sum(|tally| tally.permuted),
                "elements_of_two_trainings": self.training.as_ref().and_then(|t| t.as_ref().ok()),
                "training_differs": self.training.as_ref().and_then(|t| t.as_ref().err()),
            },
            "histogram_ends_in_ulp": ENDS,
            "ops": self.ops.iter().map(OpTally::json).collect::<Vec<_>>(),
            "failures": failures.collect::<Vec<_>>(),
        })
    }
}

/// How a case was run.
pub fn way(options: &Options) -> String {
    let fused = if options.fuse { "fused" } else { "unfused" };
    options.variant.as_ref().map_or_else(|| fused.to_owned(), |variant| format!("{fused}, variant {variant}"))
}

/// JSON has no NaN or infinity; they are written as strings.
fn number(x: f64) -> Json {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

/// The wgpu version of this build.
fn wgpu_version() -> &'static str {
    let lock = include_str!("../../../../Cargo.lock");
    let after = lock.split("name = \"wgpu\"\nversion = \"").nth(1).unwrap_or("");
    after.split('"').next().unwrap_or("")
}

impl OpTally {
    /// Why nothing was compared, if so; `None` if something failed, since the failure says why.
    pub fn not_compared(&self) -> Option<&'static str> {
        let none = self.compared == 0 && self.failures.is_empty();
        none.then_some(match self.cases {
            0 => "no case ran before the check ended",
            _ => "the results of the cases that ran have no elements",
        })
    }

    /// Number of cases that passed: with elements, all as the reference.
    pub fn passed_cases(&self) -> usize {
        self.cases - self.failed_cases() - self.empty
    }

    /// Number of cases with a failure.
    pub fn failed_cases(&self) -> usize {
        self.failures.iter().map(|failure| failure.number).collect::<BTreeSet<_>>().len()
    }

    fn json(&self) -> Json {
        json!({
            "op": self.op,
            "cases": self.cases,
            "random_cases": self.random,
            "differentiated_cases": self.backward,
            "passed_cases": self.passed_cases(),
            "failed_cases": self.failed_cases(),
            "cases_without_elements": self.empty,
            "comparisons": self.compared,
            "not_compared": self.not_compared(),
            "tolerance": self.tolerance,
            "worst_error_over_tolerance": number(self.worst),
            "worst_in": self.source,
            "histogram": self.histogram.counts,
            "worst_ulp": number(self.histogram.most),
            "gradients_compared": self.gradients.compared,
            "finite_differences": self.gradients.finite,
            "gradient_spread": number(self.gradients.spread),
        })
    }
}

impl Failure {
    /// The largest error divided by its tolerance; infinite if the failure is not an error of a number.
    fn ratio(&self) -> f64 {
        match &self.what {
            What::Call(call) if call.wrong > 0 => call.worst.as_ref().map_or(f64::INFINITY, Element::ratio),
            _ => f64::INFINITY,
        }
    }

    fn json(&self, op: &str, backend: &str, texts: bool) -> Json {
        let mut object = json!({
            "op": op, "case": self.case, "number": self.number, "way": self.way, "reproduce": self.command,
        });
        let call = match &self.what {
            What::Call(call) => call,
            What::Message(message) => {
                object["message"] = json!(message);
                return object;
            }
        };
        object["call"] = json!(call.label);
        object["variant"] = json!(call.kernel.map(|(op, variant)| format!("{op}.{variant}")));
        object["reads"] = json!(call.reads.iter().map(ToString::to_string).collect::<Vec<_>>());
        object["wrong"] = json!(call.wrong);
        object["compared"] = json!(call.compared);
        object["stray"] = json!(call.stray);
        object["status"] = json!(call.status);
        if let Some(element) = &call.worst {
            object["element"] = json!({
                "node": element.node,
                "type": element.ty.to_string(),
                "index": element.index,
                "got": number(element.got),
                "want": number(element.want),
                "bound": number(element.bound),
                "error_over_tolerance": number(element.ratio()),
                "ulps": number(wgrad::check::ulps(element.got, element.want)),
            });
        }
        let kernels = call.dispatches.iter().filter(|_| texts).map(|dispatch| {
            let (language, text) = kernel::translated(&dispatch.wgsl.text, &dispatch.entry, backend);
            json!({
                "label": dispatch.label,
                "entry": dispatch.entry,
                "workgroups": dispatch.workgroups,
                "wgsl": &*dispatch.wgsl.text,
                "language": language,
                "translated": text,
            })
        });
        object["kernels"] = json!(kernels.collect::<Vec<_>>());
        object
    }
}
