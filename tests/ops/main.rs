//! The ops on the reference and on the device: values, gradients, special values, limits.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/graphs.rs"]
mod graphs;

mod attention;
mod broadcast_props;
mod composed;
mod conv2d_props;
mod cooperative;
mod cooperative_attention;
mod indices;
mod integers;
mod kernels;
mod limits;
mod long_loops;
mod losses;
mod matmul_props;
mod nan;
mod narrow;
mod norm;
mod numbers;
mod random_graphs;
mod recurrent;
mod reduce_props;
mod reference;
mod scalar;
mod sums;
