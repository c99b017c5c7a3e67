//! Holds a device against the reference, launch by launch.
//!
//! Each unit of a plan is run alone. Its inputs are read back as they were, the graph nodes that
//! it stands for are evaluated on the reference from exactly these, and its outputs are compared
//! within a bound that follows from how floating point rounds (see [`bound`]). So errors do not
//! pile up over a chain, and honest rounding cannot flip a relu's mask unnoticed or a pool's
//! winner. Outputs are poisoned with NaN before the launch and sentinels stand inside the binding,
//! behind the tensor's end: stale, missing and stray writes all fail.

pub mod bound;
mod cases;
pub mod faults;
mod nan;
mod replay;
mod seeded;
mod shadow;
mod shipped;

pub use cases::{CaseGraph, draw};
pub use faults::permuted;
pub use nan::{NonFinite, Range};
pub use replay::{Expected, UnitCase};
pub use shadow::Divergence;
pub use shipped::{Shipped, shipped};

use std::collections::HashMap;

use crate::graph::{NodeKind, Nodes, ValueId};
use crate::op::{Args, Case, Lowering};
use crate::plan::{Options, Plan, Stored, Unit};
use crate::profile::Profile;
use crate::{Data, Device, Error, Result, Session, Tensor, TensorType};

/// What a check found in one unit of a plan.
#[derive(Clone, Debug)]
pub struct UnitReport {
    /// What the unit computes, such as `matmul.tile64 + add + relu`.
    pub label: String,
    /// The kernel's op and variant, if it has one.
    pub kernel: Option<(&'static str, &'static str)>,
    /// How many elements were compared.
    pub compared: usize,
    /// The element closest to (or farthest over) its bound.
    pub worst: Option<Element>,
    /// How many elements were over their bound.
    pub wrong: usize,
    /// Words behind a tensor's end that were overwritten: buffer's value and word.
    pub stray: Option<String>,
}

impl UnitReport {
    /// Whether everything agreed.
    pub fn passed(&self) -> bool {
        self.wrong == 0 && self.stray.is_none()
    }
}

/// A compared element.
#[derive(Clone, Debug)]
pub struct Element {
    /// The op whose output it is of, and the user's line that made it.
    pub node: String,
    /// The tensor's type.
    pub ty: TensorType,
    /// Its index.
    pub index: Vec<usize>,
    /// What the device computed.
    pub got: f64,
    /// What the reference says.
    pub want: f64,
    /// How far they may differ.
    pub bound: f64,
}

impl Element {
    /// The difference over the bound: above 1 is wrong; infinite for NaN, and for any difference
    /// where none is allowed.
    pub fn ratio(&self) -> f64 {
        let difference = (self.got - self.want).abs();
        if self.got == self.want {
            0.0
        } else if difference.is_nan() || self.bound == 0.0 {
            f64::INFINITY
        } else {
            difference / self.bound
        }
    }
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} at {:?}: got {:e}, expected {:e} within {:.1e}",
            self.node, self.ty, self.index, self.got, self.want, self.bound
        )
    }
}

/// What a check of a whole step found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The units, in order.
    pub units: Vec<UnitReport>,
    /// The first unit that is not as the reference says, with all that it takes to run it again.
    pub divergence: Option<Box<Divergence>>,
}

impl Report {
    /// Whether every unit agreed, and anything was compared at all.
    pub fn passed(&self) -> bool {
        self.units.iter().all(UnitReport::passed)
    }

    /// How many elements were compared.
    pub fn compared(&self) -> usize {
        self.units.iter().map(|unit| unit.compared).sum()
    }

    /// The unit with the element closest to (or farthest over) its bound.
    pub fn worst(&self) -> Option<(&UnitReport, &Element)> {
        let elements = self.units.iter().filter_map(|unit| Some((unit, unit.worst.as_ref()?)));
        elements.max_by(|a, b| a.1.ratio().total_cmp(&b.1.ratio()))
    }
}

/// Compares one unit's outputs with the reference.
pub(crate) fn compare(
    plan: &Plan,
    unit: &Unit,
    reads: &[(Stored, Tensor)],
    scalars: &[(ValueId, Tensor)],
    got: &[(Stored, Vec<u32>)],
) -> Result<UnitReport> {
    let expected = expect(plan, unit, reads, scalars)?;
    let mut report = UnitReport::new(unit.label.clone(), unit.kernel);
    for (stored, words) in got {
        report.compare(&built(&plan.nodes, stored), &stored.ty, words, &expected[&stored.value]);
    }
    Ok(report)
}

/// What the reference says a unit writes, from what the unit reads.
fn expect(
    plan: &Plan,
    unit: &Unit,
    reads: &[(Stored, Tensor)],
    scalars: &[(ValueId, Tensor)],
) -> Result<HashMap<ValueId, bound::Bounded>> {
    let feeds = reads.iter().map(|(stored, tensor)| (stored.value, tensor.widened()));
    let feeds = feeds.chain(scalars.iter().cloned()).collect();
    let targets: Vec<_> = unit.writes.iter().map(|stored| stored.value).collect();
    bound::evaluate(&plan.nodes, &targets, feeds)
}

/// The op that a value comes from, and the user's line that made it.
fn built(nodes: &Nodes, stored: &Stored) -> String {
    let node = &nodes.nodes[stored.value.node];
    format!("{} (built at {})", node.name(), node.location)
}

/// What stands behind a tensor's end during a check, and what fills an output before.
pub(crate) const SENTINEL: u32 = 0x7fc5_a5a5;
pub(crate) const POISON: u32 = 0x7fc0_dead;

impl UnitReport {
    fn new(label: String, kernel: Option<(&'static str, &'static str)>) -> UnitReport {
        UnitReport { label, kernel, compared: 0, worst: None, wrong: 0, stray: None }
    }

    /// Compares all words of an output's buffer: the tensor's, and the sentinels behind it.
    fn compare(&mut self, node: &str, ty: &TensorType, words: &[u32], want: &bound::Bounded) {
        let n = ty.shape.numel();
        if let Some(at) = words[n..].iter().position(|&word| word != SENTINEL) {
            self.stray = Some(format!("{ty} was written {at} words behind its end"));
        }
        self.add(node, ty, &Tensor::from_device_words(ty, &words[..n]), want);
    }

    fn add(&mut self, node: &str, ty: &TensorType, device: &Tensor, want: &bound::Bounded) {
        let (got, expected) = (device.to_f64(), want.value.to_f64());
        let float = matches!(want.value.data(), Data::F64(_));
        for (i, (&got, &want_exact)) in got.iter().zip(&expected).enumerate() {
            // Beyond the largest f32 the device's infinity is right.
            let overflows = float && (want_exact as f32).is_infinite();
            let wanted = if overflows { f64::from(want_exact as f32) } else { want_exact };
            let allowed = want.error.as_ref().map_or(0.0, |e| e[i]);
            let element = || Element {
                node: node.to_owned(),
                ty: ty.clone(),
                index: ty.shape.unravel(i),
                got,
                want: wanted,
                bound: allowed,
            };
            self.compared += 1;
            let right = got == wanted || (got - wanted).abs() <= allowed;
            if !right {
                self.wrong += 1;
            }
            let ratio = if got == wanted { 0.0 } else { (got - wanted).abs() / allowed };
            let worse = self.worst.as_ref().is_none_or(|w| !(ratio <= w.ratio()));
            if worse || (!right && self.wrong == 1) {
                self.worst = Some(element());
            }
        }
    }
}

/// The names of the variants that a graph's kernels have and that the device can run.
pub fn variants(nodes: &Nodes, profile: &Profile) -> Vec<&'static str> {
    let mut names = Vec::new();
    for node in &nodes.nodes {
        let NodeKind::Op(op) = &node.kind else { continue };
        if let Lowering::Kernel(kernel) = op.lowering() {
            let inputs: Vec<&TensorType> = node.inputs.iter().map(|&id| nodes.ty(id)).collect();
            let views: Vec<_> = inputs.iter().map(|ty| crate::View::contiguous(&ty.shape)).collect();
            let args = Args { inputs: &inputs, views: &views, outputs: &node.outputs, profile };
            let runs = kernel.variants().iter().filter(|v| v.lacking(profile).is_none() && kernel.supports(v, &args));
            names.extend(runs.map(|v| v.name));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The ways in which a case is run on a device: fused and unfused as the heuristic has it, and
/// with each variant that the device can run.
pub fn ways(graph: &CaseGraph, profile: &Profile) -> Vec<Options> {
    let mut ways = vec![Options::default(), Options { fuse: false, variant: None }];
    let names = variants(&graph.graph.nodes(), profile);
    if names.len() > 1 {
        ways.extend(names.into_iter().map(|name| Options { fuse: true, variant: Some(name.to_owned()) }));
    }
    ways
}

/// A case's result on a device.
#[derive(Debug)]
pub struct CaseReport {
    /// How it was run, and what was found.
    pub ways: Vec<(Options, Report)>,
}

impl CaseReport {
    /// Whether all ways agreed with the reference.
    pub fn passed(&self) -> bool {
        self.ways.iter().all(|(_, report)| report.passed())
    }

    /// How many elements were compared.
    pub fn compared(&self) -> usize {
        self.ways.iter().map(|(_, report)| report.compared()).sum()
    }
}

/// Runs a case on a device in all [`ways`], and compares launch by launch. Two plans that come
/// out the same are run once.
///
/// # Errors
/// When the case does not build, or the device fails.
pub fn check_case(device: &Device, case: &Case, seed: u64) -> Result<CaseReport> {
    let graph = CaseGraph::new(case)?;
    let inputs = graph.sample(seed);
    let feeds: Vec<(&str, &Tensor)> =
        graph.inputs.iter().zip(&inputs).map(|((name, ..), t)| (name.as_str(), t)).collect();
    let outputs: Vec<_> = graph.outputs.iter().map(|(_, value)| value).collect();
    let mut report = CaseReport { ways: Vec::new() };
    let mut seen = Vec::new();
    for options in ways(&graph, device.profile()) {
        let mut session = Session::new(device.clone());
        let program = session.compile_with(&graph.graph, &outputs, &options)?;
        let fingerprint = program.plan().fingerprint();
        if !seen.contains(&fingerprint) {
            seen.push(fingerprint);
            report.ways.push((options, session.check(&program, &feeds)?.1));
        }
    }
    Ok(report)
}

impl Session {
    /// Runs a step as [`Session::run`] does, but unit by unit, comparing each with the reference.
    /// Returns the outputs and what was found.
    ///
    /// # Errors
    /// As [`Session::run`]; and when the session computes on the reference itself.
    pub fn check(&mut self, program: &crate::Program, feeds: &[(&str, &Tensor)]) -> Result<(Vec<Tensor>, Report)> {
        let (gpu, scalars) = self.start_check(program, feeds)?;
        let plan = program.plan();
        let mut report = Report::default();
        for (number, unit) in plan.units.iter().enumerate() {
            let mut reads = Vec::with_capacity(unit.reads.len());
            for stored in &unit.reads {
                let words = gpu.read_buffer(stored.buffer)?;
                let tensor = Tensor::from_device_words(&stored.ty, &words[..stored.ty.shape.numel()]);
                reads.push((stored.clone(), tensor));
            }
            for stored in &unit.writes {
                let n = stored.ty.shape.numel();
                let size = (plan.buffers[stored.buffer].bytes / 4) as usize;
                if !unit.reads.iter().any(|read| read.buffer == stored.buffer) {
                    gpu.write_buffer(stored.buffer, 0, &vec![POISON; n]);
                }
                gpu.write_buffer(stored.buffer, n, &vec![SENTINEL; size - n]);
            }
            gpu.run_unit(number)?;
            let mut got = Vec::with_capacity(unit.writes.len());
            for stored in &unit.writes {
                got.push((stored.clone(), gpu.read_buffer(stored.buffer)?));
            }
            let found = compare(plan, unit, &reads, &scalars, &got)?;
            if !found.passed() && report.divergence.is_none() {
                let divergence = Divergence::new(&self.device().to_string(), plan, number, &found, &reads, &scalars)?;
                report.divergence = Some(Box::new(divergence));
            }
            report.units.push(found);
        }
        Ok((self.finish_check(program, gpu)?, report))
    }
}

/// The complaint of [`Session::check`] on the reference.
pub(crate) fn nothing_to_check() -> Error {
    Error::Device("the reference has nothing to be checked against; open a GPU device".into())
}
