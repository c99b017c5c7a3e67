//! Runs cases in every way that a device supports, and compares each with the reference.

use crate::gpu::block_on;
use crate::graph::{NodeKind, Nodes};
use crate::op::{Args, Case, Lowering, Precision, Rounding, Variant};
use crate::plan::Options;
use crate::profile::Profile;
use crate::{DType, Device, Result, Session, Tensor, TensorType};

use super::permute::permute;
use super::{CaseGraph, Report};

/// Calls `f` for each variant of each kernel of a graph, with the op's name and whether the variant supports
/// the shapes.
fn each_variant(nodes: &Nodes, profile: &Profile, mut f: impl FnMut(&'static str, &'static Variant, bool)) {
    for node in &nodes.nodes {
        let NodeKind::Op(op) = &node.kind else { continue };
        if let Lowering::Kernel(kernel) = op.lowering() {
            let inputs: Vec<&TensorType> = node.inputs.iter().map(|&id| nodes.ty(id)).collect();
            let views: Vec<_> = inputs.iter().map(|ty| crate::View::contiguous(&ty.shape)).collect();
            let stored: Vec<DType> = inputs.iter().map(|ty| ty.dtype).collect();
            let args = Args { inputs: &inputs, stored: &stored, views: &views, outputs: &node.outputs, profile };
            kernel.variants().iter().for_each(|v| f(op.name(), v, kernel.cost(v, &args).is_some()));
        }
    }
}

/// The names of the variants of a graph's kernels that the device can run.
pub fn variants(nodes: &Nodes, profile: &Profile) -> Vec<&'static str> {
    let mut names = Vec::new();
    each_variant(nodes, profile, |_, variant, supports| {
        if supports && variant.lacking(profile).is_none() {
            names.push(variant.name);
        }
    });
    names.sort_unstable();
    names.dedup();
    names
}

/// The names of all variants of a graph's kernels, whatever they require.
pub fn all_variants(nodes: &Nodes) -> Vec<&'static str> {
    let mut names = Vec::new();
    each_variant(nodes, &Profile::webgpu_defaults(), |_, variant, _| names.push(variant.name));
    names
}

/// The ways to run a case on a device: fused and unfused with the default choice, and with each variant
/// that the device can run. If cooperative matrices are enabled, matrix products may use them.
pub fn ways(graph: &CaseGraph, profile: &Profile) -> Vec<Options> {
    let precision = if profile.cooperative_matrices.is_empty() { Precision::Highest } else { Precision::Mixed };
    let options = Options { precision, ..Options::default() };
    let mut ways = vec![options.clone(), Options { fuse: false, ..options.clone() }];
    let names = variants(&graph.graph.nodes(), profile);
    if names.len() > 1 {
        ways.extend(names.into_iter().map(|name| Options { variant: Some(name.to_owned()), ..options.clone() }));
    }
    ways
}

/// Checks of a case beyond single launches. Example: [`check_case`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// Runs each program three times (launch by launch, then twice as a step); all must give the same bits.
    pub repeat: bool,
    /// Compares gradients end to end: fused, unfused and reference with each other, and the reference with
    /// finite differences at this many elements of each input.
    pub gradients: Option<usize>,
    /// Also runs each variant unfused, not only the default choice.
    pub every_way: bool,
    /// Runs each program whose dispatches have several workgroups again with the workgroups in reverse order.
    /// The bits must be the same: a result that depends on the order is a race.
    pub permuted: bool,
}

/// How well gradients agreed end to end.
///
/// Each launch is compared within its bound on its own inputs. Over a whole chain errors accumulate, so only a
/// gross difference fails here: more than [`Gradients::most`] of the largest element.
///
/// Example: [`check_case`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Gradients {
    /// Elements compared three ways: device fused, device unfused, reference.
    pub compared: usize,
    /// Elements of the reference compared with finite differences.
    pub finite: usize,
    /// The largest difference between any two, relative to the gradient's largest element.
    pub spread: f64,
}

impl Gradients {
    /// The largest spread that passes. Rounding an operand to f16 moves a product by 2^-11.
    pub fn most(precision: Precision) -> f64 {
        match precision {
            Precision::Highest => 1e-3,
            Precision::Mixed => 1e-2,
        }
    }
}

/// The result of a case on a device. Example: [`check_case`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CaseReport {
    /// The options of each run, and its report.
    pub ways: Vec<(Options, Report)>,
    /// Elements compared that no launch computed: outputs that are views of inputs.
    pub viewed: usize,
    /// Number of programs that were run three times.
    pub repeated: usize,
    /// Number of programs that were run with their workgroups in reverse order.
    pub permuted: usize,
    /// How well its gradients agreed.
    pub gradients: Gradients,
    /// Failures that no single launch shows.
    pub complaints: Vec<String>,
}

impl CaseReport {
    /// Whether everything agreed with the reference.
    pub fn passed(&self) -> bool {
        self.complaints.is_empty() && self.ways.iter().all(|(_, report)| report.passed())
    }

    /// Number of elements compared.
    pub fn compared(&self) -> usize {
        self.viewed + self.ways.iter().map(|(_, report)| report.compared()).sum::<usize>()
    }
}

/// Runs a case on a device in all [`ways`], and compares launch by launch. Identical plans run once.
///
/// ```no_run
/// use wgrad::Device;
/// use wgrad::check::check_case;
/// use wgrad::op::Case;
/// let device = Device::open(None)?; // needs an adapter
/// let case = Case::new("softmax", "of a product", |x| vec![x[0].matmul(&x[1]).softmax(1)]);
/// let report = check_case(&device, &case.float("a", [3, 40]).float("b", [40, 5]), 7)?;
/// assert!(report.passed() && report.compared() > 0);
/// for (options, report) in &report.ways {
///     println!("{options:?}: {} kernel calls", report.calls.len());
/// }
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// When the case does not build, or the device fails.
pub fn check_case(device: &Device, case: &Case, seed: u64) -> Result<CaseReport> {
    check_case_with(device, case, seed, &Extras::default())
}

/// [`check_case`] with additional checks.
///
/// # Errors
/// As [`check_case`].
pub fn check_case_with(device: &Device, case: &Case, seed: u64, extras: &Extras) -> Result<CaseReport> {
    check_case_in(device, case, seed, extras, |ways| ways)
}

/// [`check_case_with`] in those of the [`ways`] that `select` keeps.
///
/// # Errors
/// As [`check_case`].
pub fn check_case_in(
    device: &Device,
    case: &Case,
    seed: u64,
    extras: &Extras,
    select: impl FnOnce(Vec<Options>) -> Vec<Options>,
) -> Result<CaseReport> {
    block_on(check_case_async(device, case, seed, extras, select))
}

/// [`check_case_in`] for use with an async executor.
///
/// # Errors
/// As [`check_case`].
pub async fn check_case_async(
    device: &Device,
    case: &Case,
    seed: u64,
    extras: &Extras,
    select: impl FnOnce(Vec<Options>) -> Vec<Options>,
) -> Result<CaseReport> {
    let graph = CaseGraph::new(case)?;
    let inputs = graph.sample(seed);
    let feeds: Vec<(&str, &Tensor)> =
        graph.inputs.iter().zip(&inputs).map(|((name, ..), t)| (name.as_str(), t)).collect();
    let outputs: Vec<_> = graph.outputs.iter().map(|(_, value)| value).collect();
    let mut report = CaseReport::default();
    let mut seen = Vec::new();
    // End-to-end outputs of the runs with the default choice.
    let mut whole: Vec<Vec<Tensor>> = Vec::new();
    let mut ways = select(ways(&graph, device.profile()));
    if extras.every_way {
        let unfused = ways.iter().filter(|way| way.variant.is_some());
        let unfused: Vec<Options> = unfused.map(|way| Options { fuse: false, ..way.clone() }).collect();
        ways.extend(unfused);
    }
    for options in ways {
        let mut session = Session::new(device.clone());
        let program = session.compile_with_async(&graph.graph, &outputs, &options).await?;
        let fingerprint = program.plan().fingerprint();
        if seen.contains(&fingerprint) {
            continue;
        }
        seen.push(fingerprint);
        let (first, found) = session.check_async(&program, &feeds).await?;
        report.ways.push((options.clone(), found));
        if extras.repeat {
            for way in ["as one step instead of launch by launch", "again"] {
                session.restart();
                let outputs = session.run_async(&program, &feeds).await?;
                if let Some(output) = differs(&first, &outputs) {
                    let name = &graph.outputs[output].0;
                    let way = if options.fuse { way.to_owned() } else { format!("unfused, {way}") };
                    report.complaints.push(format!("{name} has different bits when run {way}"));
                }
            }
            report.repeated += 1;
        }
        let dispatches = program.plan().calls.iter().flat_map(|call| &call.dispatches);
        if extras.permuted && dispatches.into_iter().any(|dispatch| dispatch.workgroups != [1; 3]) {
            let mut session = Session::new(device.clone());
            let turned = session.compile_edited_async(&graph.graph, &outputs, &options, permute).await?;
            // The altered text may be compiled differently, and no language defines which NaN an operation gives.
            if let Some(output) = differs_beyond_nan(&first, &session.run_async(&turned, &feeds).await?) {
                let (name, fused) = (&graph.outputs[output].0, if options.fuse { "" } else { ", unfused" });
                let variant = options.variant.as_deref().map_or_else(String::new, |name| format!(", variant {name}"));
                report.complaints.push(format!(
                    "{name} has different bits with the workgroups in reverse order: a race{fused}{variant}"
                ));
            }
            report.permuted += 1;
        }
        if options.variant.is_none() {
            whole.push(first);
        }
    }
    if report.compared() == 0 {
        report.compare_views(&graph, &inputs, whole.first())?;
    }
    // Rounding to a narrow type differs between fused and unfused, and has no derivative.
    let wide = graph.inputs.iter().all(|(_, value, _)| !value.dtype().is_narrow());
    if let Some(most) = extras.gradients.filter(|_| case.differentiable && wide) {
        let precision = report.ways.iter().map(|(way, _)| way.precision).max().unwrap_or_default();
        if precision == Precision::Highest || !case.ill_conditioned {
            report.compare_gradients(&graph, &inputs, &whole, Gradients::most(precision))?;
        }
        match graph.check_gradients(seed, most) {
            Ok(compared) => report.gradients.finite = compared,
            Err(why) => report.complaints.push(format!("the reference contradicts itself: {why}")),
        }
    }
    Ok(report)
}

/// Whether two tensors of the same shape hold the same numbers; NaN equals NaN.
fn all_same(a: &Tensor, b: &Tensor) -> bool {
    a.to_f64().into_iter().zip(b.to_f64()).all(|(a, b)| super::same(a, b))
}

/// The index of the first tensor that differs in shape or in the bits of an element.
pub fn differs(a: &[Tensor], b: &[Tensor]) -> Option<usize> {
    first_different(a, b, |a, b| a.device_words() == b.device_words())
}

/// [`differs`], but all NaNs are equal.
pub fn differs_beyond_nan(a: &[Tensor], b: &[Tensor]) -> Option<usize> {
    let same = |(a, b): (f64, f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    first_different(a, b, |a, b| a.to_f64().into_iter().zip(b.to_f64()).all(same))
}

fn first_different(a: &[Tensor], b: &[Tensor], same: impl Fn(&Tensor, &Tensor) -> bool) -> Option<usize> {
    (0..a.len().max(b.len())).find(|&i| match (a.get(i), b.get(i)) {
        (Some(a), Some(b)) => a.shape() != b.shape() || !same(a, b),
        _ => true,
    })
}

impl CaseReport {
    /// For a case that launches nothing, because it is only a view of its input: the output must equal the
    /// reference exactly.
    fn compare_views(&mut self, graph: &CaseGraph, inputs: &[Tensor], got: Option<&Vec<Tensor>>) -> Result<()> {
        let want = graph.reference(inputs)?;
        let got = got.map_or(&[][..], |got| got);
        for (number, want) in want.iter().enumerate() {
            let name = &graph.outputs[number].0;
            match got.get(number) {
                Some(got) if got.shape() == want.shape() && all_same(got, want) => self.viewed += got.numel(),
                _ => self.complaints.push(format!("{name} differs from the reference")),
            }
        }
        if self.viewed == 0 && want.iter().any(|tensor| tensor.numel() > 0) {
            self.complaints.push("nothing was compared".to_owned());
        }
        Ok(())
    }

    /// Compares fused, unfused and reference end to end.
    fn compare_gradients(
        &mut self,
        graph: &CaseGraph,
        inputs: &[Tensor],
        whole: &[Vec<Tensor>],
        most: f64,
    ) -> Result<()> {
        let reference = graph.reference(inputs)?;
        let gradients = graph.own.1..graph.outputs.len();
        let largest_of = |number: usize| reference[number].to_f64().iter().fold(0f64, |most, x| most.max(x.abs()));
        let largest_of_all = gradients.clone().map(largest_of).fold(0f64, f64::max);
        for number in gradients {
            let want = reference[number].to_f64();
            // A gradient that is 0 everywhere, because its terms cancel, has no scale.
            let own = largest_of(number);
            let largest = if own == 0.0 { largest_of_all } else { own }.max(f64::from(f32::MIN_POSITIVE));
            // If both plans are identical, there is only one run.
            let ways: Vec<Vec<f64>> = whole.iter().map(|outputs| outputs[number].to_f64()).collect();
            for (at, &want) in want.iter().enumerate().filter(|(_, x)| x.is_finite() && x.abs() < 1e38) {
                let (low, high) = ways.iter().fold((want, want), |(low, high), way| {
                    let x = if way[at].is_finite() { way[at] } else { f64::INFINITY };
                    (low.min(x), high.max(x))
                });
                self.gradients.compared += 1;
                let spread = (high - low) / largest;
                self.gradients.spread = self.gradients.spread.max(spread);
                if spread > most {
                    let index = reference[number].shape().unravel(at);
                    let got: Vec<String> = ways.iter().map(|way| format!("{:e}", way[at])).collect();
                    let got = match &got[..] {
                        [fused, plain] => format!("{fused} fused and {plain} unfused"),
                        one => one.concat(),
                    };
                    self.complaints.push(format!(
                        "{}{index:?} is {want:e} on the reference and {got} on the device",
                        graph.outputs[number].0
                    ));
                    break;
                }
            }
        }
        Ok(())
    }
}

/// A variant that a device cannot run. Example: [`check_case`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Missing {
    /// The op.
    pub op: &'static str,
    /// The variant.
    pub variant: &'static str,
    /// What the device lacks.
    pub lacks: String,
}

/// The variants of a graph's kernels that the device can run, by op, and those that it cannot.
pub fn not_runnable(nodes: &Nodes, profile: &Profile) -> (Vec<(&'static str, &'static str)>, Vec<Missing>) {
    let (mut runs, mut missing) = (Vec::new(), Vec::new());
    each_variant(nodes, profile, |op, variant, supports| match variant.lacking(profile) {
        Some(lacks) => missing.push(Missing { op, variant: variant.name, lacks }),
        None if supports => runs.push((op, variant.name)),
        None => {}
    });
    runs.sort_unstable();
    runs.dedup();
    missing.sort_unstable();
    missing.dedup();
    (runs, missing)
}

/// The tolerance classes of an op in a graph, such as `2.5 ulp`; for a composed op, those of its parts.
pub fn tolerance(nodes: &Nodes, op: &str) -> Vec<String> {
    let class = |node: &crate::graph::Node| {
        let NodeKind::Op(op) = &node.kind else { return None };
        let inputs: Vec<&TensorType> = node.inputs.iter().map(|&id| nodes.ty(id)).collect();
        Some(match op.rounding(&inputs) {
            Rounding::Exact => "exact".to_owned(),
            Rounding::Ulps(ulps, 0.0) => format!("{ulps} ulp"),
            Rounding::Ulps(ulps, absolute) => format!("{ulps} ulp + {absolute:e}"),
            Rounding::Sum(_) | Rounding::Runs(_) => "sum".to_owned(),
            Rounding::Bound(_) => "bound".to_owned(),
        })
    };
    let own: Vec<String> = nodes.nodes.iter().filter(|node| node.name() == op).filter_map(class).collect();
    let mut classes = if own.is_empty() { nodes.nodes.iter().filter_map(class).collect() } else { own };
    classes.sort_unstable();
    classes.dedup();
    classes
}
