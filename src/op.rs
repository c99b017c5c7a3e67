//! The interface of an op: its semantics (types, gradient, reference), its implementation (a pointwise
//! function, a view, or kernels with variants), and the cases that compare the two.

mod cost;

use std::fmt;
use std::sync::Arc;

pub use cost::{Cost, Machine, Style, Work};

use crate::profile::Profile;
use crate::shape::View;
use crate::{DType, Tensor, TensorType, Value};

/// One operation of the graph. See ARCHITECTURE.md for how to add one.
pub trait Op: fmt::Debug + Send + Sync + 'static {
    /// The name used in messages, reports and patterns, such as `conv2d`.
    fn name(&self) -> &'static str;

    /// Output types, or an error that says what was expected and how to fix it. The message need not
    /// repeat the op's name and input types: the graph adds them.
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String>;

    /// Gradients with respect to the inputs, built as graph nodes: one entry per input,
    /// `None` where there is none (integer inputs, or inputs that `needs` marks as not required).
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>>;

    /// The CPU reference, in plain loops: floats in f64, integers wrapping at their own width. Inputs are
    /// contiguous; float inputs and outputs are [`crate::Data::F64`].
    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor>;

    /// How the device may round; [`crate::check`] derives its error bound from this.
    fn rounding(&self, inputs: &[&TensorType]) -> Rounding;

    /// How the op runs on a device.
    fn lowering(&self) -> Lowering<'_>;

    /// Approximate reduction length per element of the first output; used to split long steps into several
    /// submissions and to plan tuning.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        match self.rounding(inputs) {
            Rounding::Sum(terms) | Rounding::Runs(terms) => terms,
            _ => 1,
        }
    }

    /// The value of every output element, if it is one constant known when the graph is built.
    fn fill_value(&self) -> Option<f64> {
        None
    }

    /// The identity element of a binary op (on either side), if it has one.
    fn identity(&self) -> Option<f64> {
        None
    }

    /// The result of a NaN in input `input`.
    fn nan(&self, _input: usize) -> Nan {
        Nan::Spreads
    }

    /// Whether the op preserves subnormal inputs. Other ops may flush them to 0, as WGSL allows.
    fn reads_subnormals(&self) -> bool {
        false
    }

    /// For an index input, the exclusive upper bound: indices must be in `0..bound`. The upload and the
    /// reference check them; kernels guard against indices computed on the device.
    fn index_bound(&self, _input: usize, _inputs: &[&TensorType]) -> Option<usize> {
        None
    }
}

/// What an op guarantees for NaN in a float input, on every device. `wgrad ops` lists it for each op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nan {
    /// NaN propagates: every output element that depends on one is NaN.
    Spreads,
    /// NaN counts as the minimum or maximum that is searched for, or sorts as the largest number. All NaNs are equal.
    Extreme,
    /// A comparison with NaN gives this result.
    Compares(bool),
    /// NaN is cast to 0 (integer) or true (bool).
    Casts,
}

impl fmt::Display for Nan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nan::Spreads => f.write_str("spreads"),
            Nan::Extreme => f.write_str("is the extreme"),
            Nan::Compares(result) => write!(f, "gives {result}"),
            Nan::Casts => f.write_str("gives 0, true"),
        }
    }
}

/// The arguments of a gradient rule.
pub struct Backward<'a> {
    /// The op's inputs.
    pub inputs: &'a [Value],
    /// The op's outputs.
    pub outputs: &'a [Value],
    /// For each output, its incoming gradient; `None` if there is none.
    pub dys: &'a [Option<Value>],
    /// For each input, whether its gradient is required.
    pub needs: &'a [bool],
}

impl Backward<'_> {
    /// Input number `i`.
    pub fn x(&self, i: usize) -> &Value {
        &self.inputs[i]
    }

    /// The only output.
    pub fn y(&self) -> &Value {
        &self.outputs[0]
    }

    /// The gradient of the only output. Gradient rules are called only if some output has a
    /// gradient; ops with several outputs use `dys`.
    pub fn dy(&self) -> Value {
        match self.dys.first() {
            Some(Some(dy)) => dy.clone(),
            _ => self.outputs[0].zeros_like(),
        }
    }

    /// `Some(gradient())` if the gradient of input `i` is required.
    pub fn when(&self, i: usize, gradient: impl FnOnce() -> Value) -> Option<Value> {
        self.needs.get(i).copied().unwrap_or(false).then(gradient)
    }
}

/// The unit roundoff of f32: half the distance from 1 to the next number.
pub const F32_UNIT_ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

/// How far a correct device result may be from the exact value, given exact inputs.
pub enum Rounding {
    /// Bit-equal: copies, integers, comparisons, selections.
    Exact,
    /// Pointwise arithmetic: an error in units in the last place (ulp) of the result, plus an absolute
    /// error (for results that cancel or underflow).
    Ulps(f64, f64),
    /// A sum of that many products, linear in its inputs: `gamma(terms) * reference(|inputs|)`, which
    /// bounds any order of summation (see [`gamma`]).
    Sum(usize),
    /// A sum of that many terms, linear in its inputs, by blocked summation: `gamma_of_runs(terms) *
    /// reference(|inputs|)`, which a plain running sum of many terms exceeds (see [`gamma_of_runs`]).
    Runs(usize),
    /// An absolute bound for each element of each output, computed from inputs and exact outputs.
    Bound(Box<BoundOf>),
}

/// Computes an absolute bound for each element of each output from inputs and exact outputs.
pub type BoundOf = dyn Fn(&[&Tensor], &[Tensor]) -> Vec<Vec<f64>>;

impl Rounding {
    /// [`Rounding::Bound`] with this function.
    pub fn bound(of: impl Fn(&[&Tensor], &[Tensor]) -> Vec<Vec<f64>> + 'static) -> Rounding {
        Rounding::Bound(Box::new(of))
    }
}

/// The error bound of a sum of `terms` products in f32, relative to the sum of magnitudes.
///
/// The worst case is `terms * F32_UNIT_ROUNDOFF`. For long sums, the probabilistic bound
/// `8 sqrt(terms) * F32_UNIT_ROUNDOFF` holds with overwhelming probability (Higham and Mary, *A New Approach to
/// Probabilistic Rounding Error Analysis*, SIAM J. Sci. Comput. 41, 2019) and is tight enough to detect a dropped term.
pub fn gamma(terms: usize) -> f64 {
    let n = terms as f64 + 2.0;
    n.min(8.0 * n.sqrt()) * F32_UNIT_ROUNDOFF
}

/// The error bound of blocked summation in f32, relative to the sum of magnitudes: runs of 64 terms are added, then
/// runs of 64 such sums, and so on. It is the bound of a sum with as many terms as the longest chain of additions
/// (Higham, *The Accuracy of Floating Point Summation*, SIAM J. Sci. Comput. 14, 1993).
pub fn gamma_of_runs(terms: usize) -> f64 {
    const RUN: usize = 64;
    let (mut left, mut depth) = (terms, 0);
    while left > RUN {
        depth += RUN;
        left = left.div_ceil(RUN);
    }
    gamma(depth + left)
}

/// How an op runs on a device.
pub enum Lowering<'a> {
    /// A function of `shaders/scalar.wgsl` applied to each element; fused with neighbouring ops.
    Pointwise(Pointwise),
    /// A view of the input with other strides, if strides can express it; no computation.
    View(&'a dyn Strided),
    /// Dedicated kernels.
    Kernel(&'a dyn Kernel),
}

/// An op that only changes strides where possible.
pub trait Strided {
    /// The output as a view of the input's buffer, or `None` if the input must be made contiguous
    /// first. Must succeed for a contiguous input.
    fn view(&self, input: &View) -> Option<View>;
}

/// A call of a function in `shaders/scalar.wgsl`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointwise {
    /// The function's name.
    pub function: String,
    /// Its arguments.
    pub args: Vec<Arg>,
}

/// An argument of a [`Pointwise`] call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// The element of that op input.
    Input(usize),
    /// The element's row-major index, as u32.
    Index,
    /// An f32 constant, rounded once.
    F32(f64),
    /// An i32 constant.
    I32(i32),
    /// A u32 constant.
    U32(u32),
}

/// An op with dedicated kernels.
pub trait Kernel {
    /// Its variants. If several cost the same, the planner takes the first. At least one must support all shapes and
    /// need no optional feature.
    fn variants(&self) -> &'static [Variant];

    /// The estimated time of a variant for these shapes on this device, or `None` if it does not support the shapes.
    /// Whether the device can run the variant is another question: see [`Variant::lacking`].
    ///
    /// Only the comparison with the op's other variants matters. The default is one launch that reads the inputs and
    /// writes the outputs.
    fn cost(&self, _variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let bytes: usize = args.inputs.iter().copied().chain(args.outputs).map(TensorType::bytes).sum();
        Some(args.cost(&Work { bytes: bytes as f64, ..Work::default() }))
    }

    /// Whether the variants can read input `input` with these strides; otherwise the plan makes a
    /// contiguous copy first.
    fn reads(&self, _input: usize, view: &View) -> bool {
        view.is_contiguous()
    }

    /// The variants that the device can run and that support these shapes, cheapest first. The planner takes the first
    /// unless an option or a tuning result names another.
    fn candidates(&self, args: &Args<'_>) -> Vec<(&'static Variant, Cost)> {
        let able = self.variants().iter().filter(|variant| variant.lacking(args.profile).is_none());
        let mut candidates: Vec<_> = able.filter_map(|v| Some((v, self.cost(v, args)?))).collect();
        // Costs that differ by rounding only are equal. The sort is stable.
        candidates.sort_by(|(_, a), (_, b)| (a.0 as f32).total_cmp(&(b.0 as f32)));
        candidates
    }

    /// The launches. Not called if every output is empty.
    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String>;
}

/// One way to compute an op on a device.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name, such as `tile64`.
    pub name: &'static str,
    /// Workgroup memory it needs, in bytes.
    pub workgroup_memory: u32,
    /// Invocations per workgroup; the minimum, if the shader adapts to the device.
    pub invocations: u32,
    /// The subgroup size it requires, if any: the device's smallest and largest size must both equal it.
    pub subgroup: Option<u32>,
    /// Whether the shader of its last launch calls `epilogue(v, i)` of `shaders/prelude.wgsl` once per element of its
    /// first output, with the value and its row-major index, and stores the result; or `epilogue4`, for four
    /// consecutive elements at a time. The plan puts fused pointwise ops there.
    pub epilogue: bool,
}

impl Variant {
    /// A variant that runs on any device, without an epilogue: 64 invocations, no workgroup memory.
    pub const fn plain(name: &'static str) -> Self {
        Variant { name, workgroup_memory: 0, invocations: 64, subgroup: None, epilogue: false }
    }

    /// What the device lacks to run it, if anything.
    pub fn lacking(&self, profile: &Profile) -> Option<String> {
        if self.workgroup_memory > profile.max_workgroup_memory {
            return Some(format!("{} bytes of workgroup memory", self.workgroup_memory));
        }
        if self.invocations > profile.max_invocations {
            return Some(format!("{} invocations per workgroup", self.invocations));
        }
        match self.subgroup {
            Some(size) if profile.subgroups != Some((size, size)) => Some(format!("subgroups of {size}")),
            _ => None,
        }
    }
}

/// The arguments for lowering a kernel.
pub struct Args<'a> {
    /// Types of the inputs.
    pub inputs: &'a [&'a TensorType],
    /// The layout of each input in its buffer.
    pub views: &'a [View],
    /// Types of the outputs, which are contiguous.
    pub outputs: &'a [TensorType],
    /// The device.
    pub profile: &'a Profile,
}

impl Args<'_> {
    /// The time that the device takes for this work.
    pub fn cost(&self, work: &Work) -> Cost {
        Machine::of(self.profile).cost(work)
    }
}

/// A kernel's launches, run in order, and the scratch buffers they share.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// The launches.
    pub launches: Vec<Launch>,
    /// Sizes of the scratch buffers, in bytes.
    pub scratch: Vec<usize>,
}

impl From<Launch> for Lowered {
    fn from(launch: Launch) -> Self {
        Lowered { launches: vec![launch], scratch: Vec::new() }
    }
}

/// One dispatch as plain data.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The name in reports and profiles: the entry point, plus the variant if there are several.
    pub label: String,
    /// The complete WGSL.
    pub wgsl: Arc<str>,
    /// The entry point.
    pub entry: &'static str,
    /// The bindings of group 0, by binding number.
    pub bindings: Vec<Binding>,
    /// The grid, in workgroups.
    pub workgroups: [u32; 3],
}

/// What a launch binds.
#[derive(Clone, Debug, PartialEq)]
pub enum Binding {
    /// `var<uniform>`: a struct of four-byte members, or an array of vec4, as words.
    Uniform(Vec<u32>),
    /// `var<storage, read>`.
    Read(Slot),
    /// `var<storage, read_write>`.
    Write(Slot),
    /// `var<storage, read_write> array<atomic<u32>, 4>`: a kernel that finds an index out of range
    /// stores 1 in the first word, and the run returns an error.
    Status,
}

/// A tensor that a kernel binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// An input of the op, by index.
    Input(usize),
    /// An output of the op, by index.
    Output(usize),
    /// A scratch buffer of the op, by index.
    Scratch(usize),
}

/// How to fill a case's input.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Uniform floats in that range.
    Uniform(f64, f64),
    /// Uniform floats in that range, with these values first.
    Special(&'static [f64], f64, f64),
    /// Distinct floats at least 0.01 apart: for maxima, which have no gradient at ties.
    Distinct,
    /// Integers in `0..bound`, for U32 and I32.
    Index(u32),
    /// Random truth values.
    Coin,
}

/// One input of a case.
#[derive(Clone, Debug)]
pub struct CaseInput {
    /// Its name in reports.
    pub name: &'static str,
    /// Its type.
    pub ty: TensorType,
    /// Its values.
    pub fill: Fill,
}

/// Builds a case's graph: from inputs to outputs.
pub type Build = dyn Fn(&[Value]) -> Vec<Value> + Send + Sync;

/// An example of an op, used by tests, gradient checks, `wgrad check` and benchmarks.
pub struct Case {
    /// The op's name.
    pub op: &'static str,
    /// What distinguishes this case, such as `3x3 stride 2`.
    pub name: String,
    /// Its inputs.
    pub inputs: Vec<CaseInput>,
    /// Its graph.
    pub build: Box<Build>,
    /// Whether its gradients are also checked: by finite differences, and on the device.
    pub differentiable: bool,
}

impl Case {
    /// A differentiable case, still without inputs.
    pub fn new(
        op: &'static str,
        name: impl Into<String>,
        build: impl Fn(&[Value]) -> Vec<Value> + Send + Sync + 'static,
    ) -> Self {
        Case { op, name: name.into(), inputs: Vec::new(), build: Box::new(build), differentiable: true }
    }

    /// Adds a float input, uniform in [-1, 1].
    pub fn float(self, name: &'static str, shape: impl Into<crate::Shape>) -> Self {
        self.input(name, TensorType::new(DType::F32, shape), Fill::Uniform(-1.0, 1.0))
    }

    /// Adds an input.
    pub fn input(mut self, name: &'static str, ty: TensorType, fill: Fill) -> Self {
        self.inputs.push(CaseInput { name, ty, fill });
        self
    }

    /// Skips the gradient check: for integers, comparisons, and inputs where the op is not differentiable.
    pub fn forward_only(mut self) -> Self {
        self.differentiable = false;
        self
    }
}
