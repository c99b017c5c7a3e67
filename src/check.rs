//! Compares a device with the reference, launch by launch.
//!
//! Each kernel call of a plan runs alone. Its inputs are read back, the graph nodes that it computes are
//! evaluated on the reference from exactly these inputs, and its outputs are compared within a bound derived
//! from floating-point rounding (see [`bound`]). Errors therefore do not accumulate along a chain, and rounding
//! in one launch cannot flip a relu's mask or a pool's winner in the next. Before the launch, outputs and
//! scratch buffers are poisoned with NaN, and sentinels are written past the end of each output, inside the
//! binding: stale, missing and stray writes all fail. The memory past an input's end is NaN too: a kernel may
//! read it, but must not use it. The status word must be raised if an index is out of range, and only then.
//!
//! A number is right if it is within its bound. Where NaN is expected, only NaN is right; if it has the bits of
//! the poison, the element was not written. Infinities must agree in sign; an infinity is accepted for a finite
//! number only if that number, moved by its bound, exceeds the largest f32. The bound depends on the op's
//! *tolerance class*, [`Rounding`](crate::op::Rounding):
//!
//! | class | for | reason |
//! | --- | --- | --- |
//! | exact | copies, integers, comparisons, selections | nothing is rounded |
//! | ulps | pointwise formulas | half an ulp per rounding; quotients and roots as the accuracy table of the WGSL specification allows (section 15.7.4); our own transcendentals as measured by `tests/ops/scalar.rs` |
//! | sum | sums of k products | [`gamma(k)`](crate::op::gamma) times the sum of magnitudes: any order of summation passes, a dropped term fails; for reductions, running sums and sums by index [`gamma_of_runs(k)`](crate::op::gamma_of_runs), which a plain sequential sum of many terms exceeds |
//! | bound | softmax, cross-entropy and similar ops | a specific formula, derived next to the op |
//!
//! [`check_case_with`] checks more than single launches: see [`Extras`].

pub mod bound;
mod cases;
mod examine;
mod exchanged;
mod histogram;
mod nan;
mod permute;
mod replay;
mod shadow;
pub mod sweep;

pub use cases::{CaseGraph, draw};
pub use examine::{
    CaseReport, Extras, Gradients, Missing, all_variants, check_case, check_case_async, check_case_in, check_case_with,
    differs, differs_beyond_nan, not_runnable, tolerance, variants, ways,
};
pub use histogram::{ENDS, Histogram, ulps};
pub use nan::{NonFinite, Range};
pub use permute::permute;
pub use replay::{Expected, KernelCase};
pub use shadow::Divergence;

use exchanged::Runner;

use std::collections::HashMap;

use crate::gpu::{Program as Engine, block_on};
use crate::graph::{Nodes, ValueId};
use crate::plan::{Bound, BufferId, Dispatch, KernelCall, Plan, Stored};
use crate::{Data, Error, Result, Session, Tensor, TensorType};

/// The result of checking one kernel call of a plan. Example: [`Report`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallReport {
    /// What the kernel call computes, such as `matmul.tile64 + add + relu`.
    pub label: String,
    /// The kernel's op and variant, if it has one.
    pub kernel: Option<(&'static str, &'static str)>,
    /// Number of elements compared.
    pub compared: usize,
    /// The element closest to (or farthest over) its bound.
    pub worst: Option<Element>,
    /// Number of elements over their bound.
    pub wrong: usize,
    /// A write past the end of a tensor or scratch buffer, or an element that was not written: which, and
    /// where.
    pub stray: Option<String>,
    /// Set if the status word was raised without reason, or not raised although an index is out of range.
    pub status: Option<String>,
    /// Errors of the float elements, in ulps.
    pub histogram: Histogram,
    /// The types of its inputs.
    pub reads: Vec<TensorType>,
    /// Number of workgroups of its largest dispatch.
    pub workgroups: u64,
    /// Its dispatches with their shaders, if something failed.
    pub dispatches: Vec<Dispatch>,
}

impl CallReport {
    /// Whether everything agreed.
    pub fn passed(&self) -> bool {
        self.wrong == 0 && self.stray.is_none() && self.status.is_none()
    }
}

/// A compared element. Example: [`Report`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Element {
    /// The op that computes the tensor, and the user's line that created it.
    pub node: String,
    /// The tensor's type.
    pub ty: TensorType,
    /// The element's index.
    pub index: Vec<usize>,
    /// The device's result.
    pub got: f64,
    /// The reference's result.
    pub want: f64,
    /// The allowed difference.
    pub bound: f64,
}

impl Element {
    /// The difference divided by the bound: above 1 is wrong. Infinite if only one of the two is NaN, and for
    /// any difference if none is allowed.
    pub fn ratio(&self) -> f64 {
        ratio(self.got, self.want, self.bound)
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

/// The result of checking a whole step.
///
/// ```
/// use wgrad::{DType, Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, [4]).exp();
/// let mut session = Session::new(Device::open(None)?);
/// let program = session.compile(&graph, &[&y])?;
/// if !session.device().is_cpu() {
///     let (_outputs, report) = session.run_checked(&program, &[("x", &Tensor::new([4], [0.0f32, 1.0, 2.0, 3.0])?)])?;
///     assert!(report.passed() && report.compared() == 4);
/// }
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The kernel calls, in order.
    pub calls: Vec<CallReport>,
    /// The first kernel call that differs from the reference, with everything needed to run it again.
    pub divergence: Option<Box<Divergence>>,
}

impl Report {
    /// Whether every kernel call agreed. True if nothing was compared; see [`Report::compared`].
    pub fn passed(&self) -> bool {
        self.calls.iter().all(CallReport::passed)
    }

    /// Number of elements compared.
    pub fn compared(&self) -> usize {
        self.calls.iter().map(|call| call.compared).sum()
    }

    /// The kernel call with the element closest to (or farthest over) its bound.
    pub fn worst(&self) -> Option<(&CallReport, &Element)> {
        let elements = self.calls.iter().filter_map(|call| Some((call, call.worst.as_ref()?)));
        elements.max_by(|a, b| a.1.ratio().total_cmp(&b.1.ratio()))
    }
}

/// The state of the device after a kernel call.
struct DeviceOutput {
    /// All words of the outputs' buffers.
    written: Vec<(Stored, Vec<u32>)>,
    /// The scratch buffers: how many words the kernel call uses, and all words.
    scratch: Vec<(usize, Vec<u32>)>,
    /// The word written past the end of the outputs.
    sentinel: u32,
    /// Whether it reported an index out of range; `None` if it cannot.
    raised: Option<bool>,
}

/// The complaint about a status word that was raised without reason.
const RAISED: &str = "an index out of range was reported, but all are in range";

/// Compares the output of one kernel call with the reference.
///
/// # Errors
/// The reference's error, if an index is out of range and the kernel call reported it.
fn compare(
    plan: &Plan,
    call: &KernelCall,
    reads: &[(Stored, Tensor)],
    scalars: &[(ValueId, Tensor)],
    got: &DeviceOutput,
) -> Result<CallReport> {
    let (expected, status) = match (expect(plan, call, reads, scalars), got.raised) {
        (Ok(expected), Some(true)) => (expected, Some(RAISED.to_owned())),
        (Ok(expected), _) => (expected, None),
        (Err(Error::Input(why)), Some(false)) => (HashMap::new(), Some(format!("it was not reported that {why}"))),
        (Err(error), _) => return Err(error),
    };
    let mut report = judge(plan, call, &expected, status, got);
    report.reads = reads.iter().map(|(stored, _)| stored.ty.clone()).collect();
    Ok(report)
}

/// Compares the output of one kernel call with the expected values.
fn judge(
    plan: &Plan,
    call: &KernelCall,
    expected: &HashMap<ValueId, bound::Bounded>,
    status: Option<String>,
    got: &DeviceOutput,
) -> CallReport {
    let workgroups = |dispatch: &Dispatch| dispatch.workgroups.iter().map(|&n| u64::from(n)).product();
    let mut report = CallReport::new(call.label.clone(), call.kernel);
    report.workgroups = call.dispatches.iter().map(workgroups).max().unwrap_or(0);
    report.status = status;
    for (stored, words) in &got.written {
        if let Some(expected) = expected.get(&stored.value) {
            report.compare(&built(&plan.nodes, stored), &stored.ty, (words, got.sentinel), expected);
        }
    }
    for (number, (used, words)) in got.scratch.iter().enumerate() {
        if let Some(at) = words[*used..].iter().position(|&word| word != POISON) {
            report.stray = Some(format!("scratch buffer {number} was written {at} words past its end"));
        }
    }
    if !report.passed() {
        report.dispatches = call.dispatches.clone();
    }
    report
}

/// For tuning: runs one kernel call on the current contents of its input buffers, with poisoned outputs and
/// sentinels, and compares with `expected`. All indices must be in range.
pub(crate) async fn check_call(
    gpu: &Engine,
    plan: &Plan,
    number: usize,
    expected: &HashMap<ValueId, bound::Bounded>,
) -> Result<CallReport> {
    let call = &plan.calls[number];
    poison(gpu, plan, call, sentinel(number))?;
    gpu.run_call(number).await?;
    let got = DeviceOutput::read(gpu, call, sentinel(number)).await?;
    let raised = got.raised == Some(true);
    Ok(judge(plan, call, expected, raised.then(|| RAISED.to_owned()), &got))
}

/// The expected outputs of a kernel call, computed by the reference from its inputs.
fn expect(
    plan: &Plan,
    call: &KernelCall,
    reads: &[(Stored, Tensor)],
    scalars: &[(ValueId, Tensor)],
) -> Result<HashMap<ValueId, bound::Bounded>> {
    let feeds = reads.iter().map(|(stored, tensor)| (stored.value, tensor.to_reference()));
    let feeds = feeds.chain(scalars.iter().cloned()).collect();
    let targets: Vec<_> = call.writes.iter().map(|stored| stored.value).collect();
    bound::evaluate(&plan.nodes, &targets, feeds, call.precision())
}

/// The op that computes a value, and the user's line that created it.
fn built(nodes: &Nodes, stored: &Stored) -> String {
    let node = &nodes.nodes[stored.value.node];
    format!("{} (built at {})", node.name(), node.location)
}

/// Fills outputs and scratch buffers before a launch, and the words past a scratch buffer's end.
const POISON: u32 = 0x7fc0_dead;

/// The word past the end of the tensors that a kernel call writes: a different NaN for each call, because a NaN
/// that is read past another tensor's end keeps its bits in additions.
fn sentinel(call: usize) -> u32 {
    0x7fc5_0000 | (call as u32 & 0xffff)
}

impl CallReport {
    fn new(label: String, kernel: Option<(&'static str, &'static str)>) -> CallReport {
        CallReport {
            label,
            kernel,
            compared: 0,
            worst: None,
            wrong: 0,
            stray: None,
            status: None,
            histogram: Histogram::default(),
            reads: Vec::new(),
            workgroups: 0,
            dispatches: Vec::new(),
        }
    }

    /// Compares all words of an output's buffer: the tensor, and the sentinels past its end.
    fn compare(&mut self, node: &str, ty: &TensorType, (words, sentinel): (&[u32], u32), want: &bound::Bounded) {
        let n = ty.words();
        if let Some(at) = words[n..].iter().position(|&word| word != sentinel) {
            self.stray = Some(format!("{ty} was written {at} words past its end"));
        }
        // Any NaN may be a result, except the poison.
        let unwritten = |(at, exact): (usize, &f64)| {
            words[at / ty.dtype.per_word()] == POISON && (exact.is_nan() || want.allows_nan(at))
        };
        if let Some(at) = want.value.to_f64().iter().enumerate().position(unwritten) {
            self.stray = Some(format!("{ty} was not written at {:?}", ty.shape.unravel(at)));
        }
        self.add(node, ty, &Tensor::from_device_words(ty, &words[..n]), want);
    }

    fn add(&mut self, node: &str, ty: &TensorType, device: &Tensor, want: &bound::Bounded) {
        let (got, expected) = (device.to_f64(), want.value.to_f64());
        let float = matches!(want.value.data(), Data::F64(_));
        for (i, (&got, &exact)) in got.iter().zip(&expected).enumerate() {
            let allowed = want.error.as_ref().map_or(0.0, |e| e[i]);
            let may_be_nan = got.is_nan() && want.allows_nan(i);
            let right = match float {
                true => may_be_nan || agrees(got, exact, allowed),
                false => (got - exact).abs() <= allowed,
            };
            // A right infinity or NaN counts as exact; a wrong infinity is compared with the expected value as f32.
            let wanted = match got.is_infinite() {
                _ if may_be_nan => got,
                true if right => got,
                true if float => f64::from(exact as f32),
                _ => exact,
            };
            if float {
                self.histogram.add(got, wanted);
            }
            self.compared += 1;
            self.wrong += usize::from(!right);
            let ratio = ratio(got, wanted, allowed);
            let worse = self.worst.as_ref().is_none_or(|w| !(ratio <= w.ratio()));
            if worse || (!right && self.wrong == 1) {
                self.worst = Some(Element {
                    node: node.to_owned(),
                    ty: ty.clone(),
                    index: ty.shape.unravel(i),
                    got,
                    want: wanted,
                    bound: allowed,
                });
            }
        }
    }
}

/// Whether a device's float is within `allowed` of the exact one. NaN agrees with NaN alone; an infinity agrees with
/// exact values that may round to it.
pub fn agrees(got: f64, exact: f64, allowed: f64) -> bool {
    if got.is_infinite() {
        // Mirror to positive infinity: an exact infinity of the other sign becomes negative.
        let most = exact * got.signum() + allowed;
        return (most as f32) == f32::INFINITY;
    }
    if exact.is_nan() {
        return got.is_nan();
    }
    exact.is_finite() && (got - exact).abs() <= allowed
}

/// Whether two numbers are equal, or both NaN.
pub fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

fn ratio(got: f64, want: f64, bound: f64) -> f64 {
    let difference = (got - want).abs();
    if same(got, want) {
        0.0
    } else if difference.is_nan() || bound == 0.0 {
        f64::INFINITY
    } else {
        difference / bound
    }
}

impl Session {
    /// Runs a step as [`Session::run`] does, but one kernel call at a time, and compares each with the reference.
    /// Returns the outputs and a report.
    ///
    /// # Errors
    /// As [`Session::run`]; and if the session runs on the reference itself.
    pub fn check(&mut self, program: &crate::Program, feeds: &[(&str, &Tensor)]) -> Result<(Vec<Tensor>, Report)> {
        block_on(self.check_async(program, feeds))
    }

    /// [`Session::check`] for use with an async executor. In a browser it takes the place of [`Session::run_checked`],
    /// which writes files.
    ///
    /// # Errors
    /// As [`Session::check`].
    pub async fn check_async(
        &mut self,
        program: &crate::Program,
        feeds: &[(&str, &Tensor)],
    ) -> Result<(Vec<Tensor>, Report)> {
        let (gpu, scalars) = self.start_check(program, feeds)?;
        let plan = program.plan();
        let mut report = Report::default();
        let mut runner = Runner::new(self, gpu, plan);
        for (number, call) in plan.calls.iter().enumerate() {
            runner.prepare(number)?;
            let mut reads = Vec::with_capacity(call.reads.len());
            for stored in &call.reads {
                let words = gpu.read_buffer(stored.buffer).await?;
                let tensor = Tensor::from_device_words(&stored.ty, &words[..stored.ty.words()]);
                reads.push((stored.clone(), tensor));
            }
            poison(gpu, plan, call, sentinel(number))?;
            let exchanged = runner.run(number).await?;
            let got = DeviceOutput::read(gpu, call, sentinel(number)).await?;
            let found = match exchanged {
                Some(expected) => judge(plan, call, &expected, None, &got),
                None => compare(plan, call, &reads, &scalars, &got)?,
            };
            // If the reference has no result, there is nothing to run again.
            if !found.passed() && found.compared > 0 && report.divergence.is_none() {
                let divergence = Divergence::new(&self.device().to_string(), plan, number, &found, &reads, &scalars)?;
                report.divergence = Some(Box::new(divergence));
            }
            report.calls.push(found);
        }
        Ok((self.finish_check(program, gpu).await?, report))
    }
}

/// Fills the outputs of a kernel call with NaN, and writes sentinels past their end and NaN past the end of its
/// inputs.
fn poison(gpu: &Engine, plan: &Plan, call: &KernelCall, sentinel: u32) -> Result<()> {
    let size = |buffer: BufferId| (plan.buffers[buffer].bytes / 4) as usize;
    for stored in &call.reads {
        let same = call.reads.iter().filter(|read| read.buffer == stored.buffer);
        let n = same.map(|read| read.ty.words()).max().unwrap_or(0);
        gpu.write_buffer(stored.buffer, n, &vec![POISON; size(stored.buffer) - n])?;
    }
    for stored in &call.writes {
        let n = stored.ty.words();
        if !call.reads.iter().any(|read| read.buffer == stored.buffer) {
            gpu.write_buffer(stored.buffer, 0, &vec![POISON; n])?;
        }
        gpu.write_buffer(stored.buffer, n, &vec![sentinel; size(stored.buffer) - n])?;
    }
    for &(buffer, _) in &call.scratch {
        gpu.write_buffer(buffer, 0, &vec![POISON; size(buffer)])?;
    }
    gpu.clear_status()
}

impl DeviceOutput {
    async fn read(gpu: &Engine, call: &KernelCall, sentinel: u32) -> Result<DeviceOutput> {
        let (mut written, mut scratch) = (Vec::new(), Vec::new());
        for stored in &call.writes {
            written.push((stored.clone(), gpu.read_buffer(stored.buffer).await?));
        }
        for &(buffer, bytes) in &call.scratch {
            scratch.push((bytes / 4, gpu.read_buffer(buffer).await?));
        }
        let mut bindings = call.dispatches.iter().flat_map(|dispatch| &dispatch.bindings);
        let raised = match bindings.any(|bound| *bound == Bound::Status) {
            true => Some(gpu.raised().await?),
            false => None,
        };
        // The report covers what was raised here; clear it so that the step's own check at the end does not fail.
        gpu.clear_status()?;
        Ok(DeviceOutput { written, scratch, sentinel, raised })
    }
}
