//! The contract of an op: what it means (types, gradient, reference), how it runs (a pointwise
//! function, a view, or kernels with variants), and the cases that hold one against the other.

use std::fmt;
use std::sync::Arc;

use crate::profile::Profile;
use crate::shape::View;
use crate::{DType, Tensor, TensorType, Value};

/// One operation of the graph. See ARCHITECTURE.md for how to add one.
pub trait Op: fmt::Debug + Send + Sync + 'static {
    /// The name that messages, reports and patterns use, such as `conv2d`.
    fn name(&self) -> &'static str;

    /// Types of the outputs, or what was expected and the way out. The message need not repeat
    /// the op's name and the input types: the graph adds them.
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String>;

    /// Gradients with respect to the inputs, built as graph nodes: one entry for each input,
    /// `None` where there is none (integers, or `needs` says that nobody asks).
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>>;

    /// The reference: what it computes, in plain loops, floats in f64, integers wrapping in their
    /// own width. Inputs are contiguous; floats come as [`crate::Data::F64`] and must leave so.
    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor>;

    /// How the device may round, which gives the bound that [`crate::check`] allows.
    fn rounding(&self, inputs: &[&TensorType]) -> Rounding;

    /// How it runs on a device.
    fn lowering(&self) -> Lowering<'_>;

    /// The terms that are summed for each element of the first output, about: by these steps are cut into
    /// submissions, and tuning is planned.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        match self.rounding(inputs) {
            Rounding::Sum(terms) | Rounding::Runs(terms) => terms,
            _ => 1,
        }
    }

    /// The number that every element of the output is, where that is known when the graph is built.
    fn fill_value(&self) -> Option<f64> {
        None
    }

    /// The number that as either operand of two leaves the other one as it is.
    fn identity(&self) -> Option<f64> {
        None
    }

    /// What a NaN in input number `input` gives.
    fn nan(&self, _input: usize) -> Nan {
        Nan::Spreads
    }

    /// Whether it reads subnormal numbers as what they are. Others may take them for 0, as WGSL allows.
    fn reads_subnormals(&self) -> bool {
        false
    }

    /// For an input of indices: they must lie in `0..bound`. Checked on upload and by the
    /// reference; kernels guard against the rest.
    fn index_bound(&self, _input: usize, _inputs: &[&TensorType]) -> Option<usize> {
        None
    }
}

/// What an op promises about NaN in an input of floats, on every device; `wgrad ops` tells it op by op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nan {
    /// Each element of the output that depends on one is NaN.
    Spreads,
    /// It counts as the extreme that is looked for, or as the largest number where all are put in order; one is as
    /// large as another.
    Extreme,
    /// The comparison is that.
    Compares(bool),
    /// It becomes 0 as an integer, and true as a bool.
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

/// What a gradient rule is given.
pub struct Backward<'a> {
    /// The op's inputs.
    pub inputs: &'a [Value],
    /// The op's outputs.
    pub outputs: &'a [Value],
    /// For each output the gradient that flows in; `None` where nothing does.
    pub dys: &'a [Option<Value>],
    /// For each input whether somebody asks for its gradient.
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

    /// The gradient of the only output. The reverse walk calls a gradient rule only where some
    /// output has one; for ops of several outputs use `dys`.
    pub fn dy(&self) -> Value {
        match self.dys.first() {
            Some(Some(dy)) => dy.clone(),
            _ => self.outputs[0].zeros_like(),
        }
    }

    /// `Some(gradient())` where input `i` needs one.
    pub fn when(&self, i: usize, gradient: impl FnOnce() -> Value) -> Option<Value> {
        self.needs.get(i).copied().unwrap_or(false).then(gradient)
    }
}

/// The unit roundoff of f32: half the distance from 1 to the next number.
pub const F32_UNIT_ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

/// How far a correct device result may lie from the exact value, for exact inputs.
pub enum Rounding {
    /// Bit-equal: copies, integers, comparisons, selections.
    Exact,
    /// Pointwise arithmetic, off by so many units in the last place of the result, and so much
    /// absolutely (for results that cancel or underflow).
    Ulps(f64, f64),
    /// A sum of so many products, linear in its inputs: `gamma(terms) * reference(|inputs|)`, the
    /// bound of any order of summation (see [`gamma`]).
    Sum(usize),
    /// A sum of so many terms, linear in its inputs, added in runs: `gamma_of_runs(terms) * reference(|inputs|)`,
    /// which a plain running sum of many terms does not keep to (see [`gamma_of_runs`]).
    Runs(usize),
    /// An absolute bound for each element of each output, from inputs and exact outputs.
    Bound(Box<BoundOf>),
}

/// Inputs and exact outputs to an absolute bound for each element of each output.
pub type BoundOf = dyn Fn(&[&Tensor], &[Tensor]) -> Vec<Vec<f64>>;

impl Rounding {
    /// An absolute bound for each element of each output, from inputs and exact outputs.
    pub fn bound(of: impl Fn(&[&Tensor], &[Tensor]) -> Vec<Vec<f64>> + 'static) -> Rounding {
        Rounding::Bound(Box::new(of))
    }
}

/// The relative error bound of a sum of `terms` products in f32, times the sum of magnitudes.
///
/// The worst case is `terms * F32_UNIT_ROUNDOFF`; for long sums the probabilistic bound `8 sqrt(terms) * F32_UNIT_ROUNDOFF`
/// holds with overwhelming probability (Higham and Mary, *A New Approach to Probabilistic Rounding
/// Error Analysis*, SIAM J. Sci. Comput. 41, 2019), and is sharp enough to see a dropped term.
pub fn gamma(terms: usize) -> f64 {
    let n = terms as f64 + 2.0;
    n.min(8.0 * n.sqrt()) * F32_UNIT_ROUNDOFF
}

/// The relative error bound of a sum of `terms` in f32 that is added in runs of 64 terms, then runs of 64 such sums
/// and so on, times the sum of magnitudes: that of a sum of as many terms as are added one after the other on the
/// way to the result (Higham, *The Accuracy of Floating Point Summation*, SIAM J. Sci. Comput. 14, 1993).
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
    /// One function of `shaders/scalar.wgsl` for each element; fused with its neighbours.
    Pointwise(Pointwise),
    /// No work: the output is the input seen through other strides, where they can say it.
    View(&'a dyn Strided),
    /// Kernels of its own.
    Kernel(&'a dyn Kernel),
}

/// An op that may be a mere change of strides.
pub trait Strided {
    /// The output as a view of the buffer that the input is a view of, or `None` when the input
    /// must be made contiguous first (it then must succeed).
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

/// An argument of a pointwise function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// The element of the op's input with that number.
    Input(usize),
    /// The row-major number of the element, as u32.
    Index,
    /// A number, rounded once to f32.
    F32(f64),
    /// A number.
    I32(i32),
    /// A number.
    U32(u32),
}

/// An op with kernels of its own.
pub trait Kernel {
    /// Its variants, best first: the first that a device can run and `suits` is taken.
    fn variants(&self) -> &'static [Variant];

    /// Whether the heuristic takes this variant for these shapes on this device, given that the
    /// device can run it. The last variant of the list must suit always and need nothing.
    fn suits(&self, _variant: &Variant, _args: &Args<'_>) -> bool {
        true
    }

    /// Whether the variant can compute these shapes at all. The last variant must always.
    fn supports(&self, _variant: &Variant, _args: &Args<'_>) -> bool {
        true
    }

    /// Whether the variants read input number `input` through these strides; otherwise the plan
    /// makes a contiguous copy first.
    fn reads(&self, _input: usize, view: &View) -> bool {
        view.is_contiguous()
    }

    /// The variants that the device can run and that compute the shapes, best first.
    fn runnable(&self, args: &Args<'_>) -> Vec<&'static Variant> {
        self.variants().iter().filter(|v| v.lacking(args.profile).is_none() && self.supports(v, args)).collect()
    }

    /// What is taken of the [`runnable`](Kernel::runnable) ones where nobody wishes or has measured anything:
    /// the first that suits, else the last.
    fn heuristic(&self, runnable: &[&'static Variant], args: &Args<'_>) -> Option<&'static Variant> {
        let suits = |v: &&&'static Variant| (!v.software || args.profile.software) && self.suits(v, args);
        runnable.iter().find(suits).or(runnable.last()).copied()
    }

    /// The launches. None is asked for where every output is empty.
    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String>;
}

/// One way to compute an op on a device.
#[derive(Debug, PartialEq)]
pub struct Variant {
    /// Its name, such as `tile64`.
    pub name: &'static str,
    /// Workgroup memory it needs, in bytes.
    pub workgroup_memory: u32,
    /// Invocations in its workgroup; of a text that adapts to the device, the fewest.
    pub invocations: u32,
    /// The subgroup size it is written for (smallest and largest equal to it), if any.
    pub subgroup: Option<u32>,
    /// Whether the heuristic would take it on software adapters alone.
    pub software: bool,
    /// Whether the text of its last launch has the slot `fn epilogue(v: f32, i: u32) -> f32`, called once for each
    /// element of its first output with the value and its row-major number; or the slot
    /// [`EPILOGUE4`](crate::shader::EPILOGUE4), called for four neighbours at a time.
    pub epilogue: bool,
}

impl Variant {
    /// A variant for any device, without an epilogue: 64 invocations, no workgroup memory.
    pub const fn plain(name: &'static str) -> Self {
        Variant { name, workgroup_memory: 0, invocations: 64, subgroup: None, software: false, epilogue: false }
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

/// What a kernel is lowered for.
pub struct Args<'a> {
    /// Types of the inputs.
    pub inputs: &'a [&'a TensorType],
    /// How each input lies in its buffer.
    pub views: &'a [View],
    /// Types of the outputs; outputs are contiguous.
    pub outputs: &'a [TensorType],
    /// The device.
    pub profile: &'a Profile,
}

/// A kernel's launches, run in order, and the scratch buffers they share (sizes in bytes).
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
    /// What reports and profiles call it: the entry point, and the variant where there are several.
    pub label: String,
    /// The complete WGSL.
    pub wgsl: Arc<str>,
    /// The entry point.
    pub entry: &'static str,
    /// The bindings of group 0: entry number = binding number.
    pub bindings: Vec<Binding>,
    /// The grid.
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
    /// `var<storage, read_write> array<atomic<u32>, 4>`: a kernel that meets an index out of range
    /// stores 1 in the first word; the run then ends with an error.
    Status,
}

/// A tensor as a kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The op's input with that number.
    Input(usize),
    /// The op's output with that number.
    Output(usize),
    /// A scratch buffer of the op.
    Scratch(usize),
}

/// Values for a case's input.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Uniform floats in that range.
    Uniform(f64, f64),
    /// Uniform floats in that range, with these values first.
    Special(&'static [f64], f64, f64),
    /// Distinct floats, no two closer than a hundredth: for maxima, where ties have no gradient.
    Distinct,
    /// Integers from 0 to below the bound; for U32 and I32.
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

/// Builds a case's graph: inputs to outputs.
pub type Build = dyn Fn(&[Value]) -> Vec<Value> + Send + Sync;

/// An example of an op: used by tests, gradient checks, `wgrad check` and benches alike.
pub struct Case {
    /// The op's name.
    pub op: &'static str,
    /// What distinguishes it, such as `3x3 stride 2`.
    pub name: String,
    /// Its inputs.
    pub inputs: Vec<CaseInput>,
    /// Its graph.
    pub build: Box<Build>,
    /// Whether its gradients are checked too: by finite differences, and on the device.
    pub differentiable: bool,
}

impl Case {
    /// A differentiable case without inputs yet.
    pub fn new(
        op: &'static str,
        name: impl Into<String>,
        build: impl Fn(&[Value]) -> Vec<Value> + Send + Sync + 'static,
    ) -> Self {
        Case { op, name: name.into(), inputs: Vec::new(), build: Box::new(build), differentiable: true }
    }

    /// Adds an input of floats, uniform in [-1, 1].
    pub fn float(self, name: &'static str, shape: impl Into<crate::Shape>) -> Self {
        self.input(name, TensorType::new(DType::F32, shape), Fill::Uniform(-1.0, 1.0))
    }

    /// Adds an input.
    pub fn input(mut self, name: &'static str, ty: TensorType, fill: Fill) -> Self {
        self.inputs.push(CaseInput { name, ty, fill });
        self
    }

    /// Leaves the gradient out: for integers, comparisons, and inputs on kinks.
    pub fn forward_only(mut self) -> Self {
        self.differentiable = false;
        self
    }
}
