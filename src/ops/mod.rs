//! The ops, one file per family. [`families`] is the registry.

pub mod adaptive_pool;
pub mod all_reduce;
pub mod argmax;
pub mod attention;
pub mod cast;
pub mod concat;
pub mod conv1d;
pub mod conv2d;
mod cooperative;
pub mod cross_entropy;
pub mod cumsum;
pub mod einsum;
pub mod elementwise;
pub mod flip;
pub mod gather;
pub mod generate;
pub mod interpolate;
pub mod mask;
pub mod matmul;
pub mod norm;
pub mod one_hot;
pub mod pad;
pub mod pool2d;
pub mod quantized_matmul;
pub mod random;
pub mod recurrent;
pub mod reduce;
pub mod scatter;
pub mod softmax;
pub mod sort;
mod sweep;
pub mod view;

use std::collections::HashSet;

use rand::rngs::StdRng;

use crate::DType;
use crate::op::Case;

/// A family of ops: a file in this folder, its test cases and (unless pointwise) a shader of the same name.
///
/// Example: [`check_case`](crate::check::check_case).
pub struct Family {
    /// The name of the file.
    pub name: &'static str,
    /// The test cases, in a fixed order.
    pub cases: fn() -> Vec<Case>,
    /// Generates a random case, with shapes at tile boundaries, special values and views.
    pub sweep: Option<fn(&mut StdRng) -> Case>,
}

/// Every family of ops.
pub fn families() -> Vec<Family> {
    vec![
        Family { name: "adaptive_pool", cases: adaptive_pool::cases, sweep: None },
        Family { name: "all_reduce", cases: all_reduce::cases, sweep: None },
        Family { name: "argmax", cases: argmax::cases, sweep: Some(sweep::argmax) },
        Family { name: "attention", cases: attention::cases, sweep: Some(sweep::attention) },
        Family { name: "cast", cases: cast::cases, sweep: None },
        Family { name: "concat", cases: concat::cases, sweep: Some(sweep::concat) },
        Family { name: "conv1d", cases: conv1d::cases, sweep: None },
        Family { name: "conv2d", cases: conv2d::cases, sweep: Some(sweep::conv2d) },
        Family { name: "cross_entropy", cases: cross_entropy::cases, sweep: Some(sweep::cross_entropy) },
        Family { name: "cumsum", cases: cumsum::cases, sweep: Some(sweep::cumsum) },
        Family { name: "einsum", cases: einsum::cases, sweep: Some(sweep::einsum) },
        Family { name: "elementwise", cases: elementwise::cases, sweep: Some(sweep::elementwise) },
        Family { name: "flip", cases: flip::cases, sweep: Some(sweep::flip) },
        Family { name: "gather", cases: gather::cases, sweep: Some(sweep::gather) },
        Family { name: "generate", cases: generate::cases, sweep: None },
        Family { name: "interpolate", cases: interpolate::cases, sweep: None },
        Family { name: "mask", cases: mask::cases, sweep: None },
        Family { name: "matmul", cases: matmul::cases, sweep: Some(sweep::matmul) },
        Family { name: "norm", cases: norm::cases, sweep: Some(sweep::norm) },
        Family { name: "one_hot", cases: one_hot::cases, sweep: None },
        Family { name: "pad", cases: pad::cases, sweep: Some(sweep::pad) },
        Family { name: "pool2d", cases: pool2d::cases, sweep: Some(sweep::pool2d) },
        Family { name: "quantized_matmul", cases: quantized_matmul::cases, sweep: Some(sweep::quantized_matmul) },
        Family { name: "random", cases: random::cases, sweep: None },
        Family { name: "recurrent", cases: recurrent::cases, sweep: Some(sweep::recurrent) },
        Family { name: "reduce", cases: reduce::cases, sweep: Some(sweep::reduce) },
        Family { name: "scatter", cases: scatter::cases, sweep: Some(sweep::scatter) },
        Family { name: "softmax", cases: softmax::cases, sweep: Some(sweep::softmax) },
        Family { name: "sort", cases: sort::cases, sweep: Some(sweep::argsort) },
        Family { name: "view", cases: view::cases, sweep: Some(sweep::view) },
    ]
}

/// Every case of every family, in a fixed order.
pub fn cases() -> Vec<Case> {
    families().iter().flat_map(|family| (family.cases)()).collect()
}

/// For every op of floats, its first case in f16 and its last in bf16.
pub fn narrow_cases() -> Vec<Case> {
    fn narrow(cases: impl Iterator<Item = Case>, dtype: DType) -> impl Iterator<Item = Case> {
        let mut seen = HashSet::new();
        cases.filter_map(move |case| case.with_floats(dtype)).filter(move |case| seen.insert(case.op))
    }
    let (first, last) = (cases().into_iter(), cases().into_iter().rev());
    narrow(first, DType::F16).chain(narrow(last, DType::BF16)).collect()
}

/// Cases whose out-of-range index is computed on the device, where the host cannot check it: every run must fail.
pub fn out_of_range_cases() -> Vec<Case> {
    [cross_entropy::out_of_range, gather::out_of_range, one_hot::out_of_range, scatter::out_of_range]
        .into_iter()
        .flat_map(|cases| cases())
        .collect()
}

/// Cases of more than 65,535 workgroups, the limit of one dispatch dimension. Slow.
pub fn large_cases() -> Vec<Case> {
    sweep::large()
}
