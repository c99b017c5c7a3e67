//! The interface of an op: its semantics (types, gradient, reference), its implementation (a pointwise
//! function, a view, or kernels with variants), and the cases that compare the two.
//!
#![doc = include_str!("../docs/guide/ops.md")]

mod attribute;
mod case;
mod cost;
mod kernel;

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};

pub use attribute::{Attribute, Attributes};
pub use case::{Build, Case, CaseInput, Fill};
pub use cost::{Cost, Machine, Style, Work};
pub use kernel::{Args, Binding, Kernel, Launch, Lowered, Precision, Slot, Variant};

use crate::shape::View;
use crate::{Tensor, TensorType, Value};

/// One operation of the graph. See ARCHITECTURE.md for how to add one.
///
/// Ops that are equal (see [`Key`]) and have equal inputs are computed once.
///
/// Example: [the module `op`](crate::op).
pub trait Op: fmt::Debug + Key + Any + Send + Sync {
    /// The name used in messages, reports and patterns, such as `conv2d`.
    fn name(&self) -> &'static str;

    /// The attributes as data, for printed graphs and for export: together with the name and the types of inputs and
    /// outputs, they determine the op. Empty by default, for ops without fields.
    fn attributes(&self) -> Attributes {
        Vec::new()
    }

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

    /// How the values of the ranks of a job are combined, for ops that the host computes between launches, which have a
    /// kernel without launches. Operand and result have the same type, f32.
    fn exchange(&self) -> Option<Exchange> {
        None
    }

    /// Approximate reduction length per element of the first output; used to split long steps into several
    /// submissions and to plan tuning.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        match self.rounding(inputs) {
            Rounding::Sum(terms) | Rounding::Runs(terms) => terms,
            _ => 1,
        }
    }

    /// Multiply-adds, for the summary of a model: of products of matrices, convolutions, attention and recurrences. 0 for
    /// all other ops, and for gradients that are ops of their own.
    fn multiply_adds(&self, _inputs: &[&TensorType], _outputs: &[TensorType]) -> u64 {
        0
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

    /// The elements of the first output that may as well be NaN with these inputs, if there are some.
    fn may_be_nan(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Option<Vec<bool>> {
        None
    }

    /// Whether every float of the result is an element of a float operand, its negative, or 0, so that rounding it to
    /// the type of the operands changes nothing.
    fn selects(&self) -> bool {
        false
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

/// The identity of an op: its type and its attributes. Every type that is `Eq` and `Hash` has it. An op derives both,
/// and stores float attributes as [`Bits`].
///
/// Example: [the module `op`](crate::op).
pub trait Key {
    /// Whether `other` is of the same type and has equal attributes.
    fn equals(&self, other: &dyn Any) -> bool;

    /// Hashes the attributes.
    fn hash_attributes(&self, hasher: &mut dyn Hasher);
}

impl<T: Any + Eq + Hash> Key for T {
    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }

    fn hash_attributes(&self, mut hasher: &mut dyn Hasher) {
        self.hash(&mut hasher);
    }
}

impl PartialEq for dyn Op {
    fn eq(&self, other: &dyn Op) -> bool {
        self.equals(other)
    }
}

impl Eq for dyn Op {}

impl Hash for dyn Op {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.type_id().hash(hasher);
        self.hash_attributes(hasher);
    }
}

/// A float attribute of an op. Equal are numbers of the same bits: 0 and -0 differ, and NaN equals itself.
///
/// Example: [the module `op`](crate::op).
#[derive(Clone, Copy, Debug)]
pub struct Bits(pub f64);

impl PartialEq for Bits {
    fn eq(&self, other: &Bits) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Bits {}

impl Hash for Bits {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.to_bits().hash(hasher);
    }
}

/// What an op guarantees for NaN in a float input, on every device. `wgrad ops` lists it for each op.
///
/// Example: [the module `op`](crate::op).
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

/// The arguments of a gradient rule. Example: [the module `op`](crate::op).
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
///
/// Example: [the module `op`](crate::op).
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

/// Computes an absolute bound for each element of each output from inputs, exact outputs and the precision of products.
///
/// Example: [the module `op`](crate::op).
pub type BoundOf = dyn Fn(&[&Tensor], &[Tensor], Precision) -> Vec<Vec<f64>>;

impl Rounding {
    /// [`Rounding::Bound`] with this function, for ops without variants of less than the highest precision.
    pub fn bound(of: impl Fn(&[&Tensor], &[Tensor]) -> Vec<Vec<f64>> + 'static) -> Rounding {
        Rounding::bound_at(move |inputs, outputs, _| of(inputs, outputs))
    }

    /// [`Rounding::Bound`] with this function.
    pub fn bound_at(of: impl Fn(&[&Tensor], &[Tensor], Precision) -> Vec<Vec<f64>> + 'static) -> Rounding {
        Rounding::Bound(Box::new(of))
    }
}

/// How far a number moves at most when it is rounded to the nearest f16; finite numbers beyond the range become its end.
pub fn rounding_to_f16(x: f64) -> f64 {
    const MAX: f64 = 65_504.0;
    if !x.is_finite() || half::f16::from_f64(x).to_f64() == x {
        return 0.0;
    }
    // Half a unit in the last place; subnormal numbers have 2^-24.
    let half_ulp = 2f64.powf(x.abs().log2().floor().max(-14.0) - 11.0);
    half_ulp.max(x.abs() - MAX)
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

/// How the values of the ranks of a job are combined: see [`AllReduce`](crate::ops::all_reduce::AllReduce).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whether the sum is divided by the number of ranks.
    pub mean: bool,
    /// Whether values are sent as f16.
    pub compressed: bool,
}

/// How an op runs on a device. Example: [the module `op`](crate::op).
pub enum Lowering<'a> {
    /// A function of `shaders/scalar.wgsl` applied to each element; fused with neighbouring ops.
    Pointwise(Pointwise),
    /// A view of the input with other strides, if strides can express it; no computation.
    View(&'a dyn Strided),
    /// Dedicated kernels.
    Kernel(&'a dyn Kernel),
}

/// An op that only changes strides where possible. Example: [the module `op`](crate::op).
pub trait Strided {
    /// The output as a view of the input's buffer, or `None` if the input must be made contiguous
    /// first. Must succeed for a contiguous input.
    fn view(&self, input: &View) -> Option<View>;
}

/// A call of a function in `shaders/scalar.wgsl`. Example: [the module `op`](crate::op).
#[derive(Clone, Debug, PartialEq)]
pub struct Pointwise {
    /// The function's name.
    pub function: String,
    /// Its arguments.
    pub args: Vec<Arg>,
}

/// An argument of a [`Pointwise`] call. Example: [the module `op`](crate::op).
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
