//! The operators: for each, how it becomes nodes of a graph.

mod attention;
mod control;
pub(crate) mod convolution;
mod elementwise;
mod image;
mod index;
mod linear;
mod loss;
mod microsoft;
mod ml;
mod norm;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
pub(crate) mod shape;
mod signal;

pub(crate) use self::elementwise::small_floats;
use crate::node::{Node, Result};
use crate::value::Val;

/// Builds a node: adds to the graph, and returns the outputs.
pub(crate) type Lower = fn(&mut Node<'_, '_>) -> Result<Vec<Val>>;

/// Operators whose results differ each time.
pub(crate) const RANDOM: &[&str] =
    &["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"];

/// Elements of a tensor: wgrad's limit.
pub(crate) const MOST: usize = (1 << 31) - 1;

/// Numbers that may be computed at import for one value.
pub(crate) const MANY: usize = 1 << 24;

/// Operators that move or convert elements, and so are right for all types.
pub(crate) const MOVES: &[&str] = &[
    "Cast",
    "CastLike",
    "Concat",
    "DequantizeLinear",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "If",
    "Loop",
    "QuantizeLinear",
    "Reshape",
    "Scan",
    "Shape",
    "Size",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// A family of operators: names, and how they are built.
pub(crate) type Family = &'static [(&'static str, Lower)];

const FAMILIES: &[Family] = &[
    attention::FAMILY,
    control::FAMILY,
    convolution::FAMILY,
    elementwise::FAMILY,
    image::FAMILY,
    index::FAMILY,
    linear::FAMILY,
    loss::FAMILY,
    microsoft::FAMILY,
    ml::FAMILY,
    norm::FAMILY,
    pool::FAMILY,
    quantize::FAMILY,
    recurrent::FAMILY,
    reduce::FAMILY,
    resize::FAMILY,
    shape::FAMILY,
    signal::FAMILY,
];

/// How an operator is built: `Conv`, `com.microsoft.Gelu`.
pub(crate) fn find(op: &str) -> Option<Lower> {
    FAMILIES.iter().flat_map(|family| family.iter()).find(|(name, _)| *name == op).map(|(_, lower)| *lower)
}

/// The names of all operators that are supported.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = FAMILIES.iter().flat_map(|family| family.iter()).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names
}
