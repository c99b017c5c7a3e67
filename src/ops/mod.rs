//! The ops, one file a family. [`families`] is the registry: the one list of what there is.

pub mod concat;
pub mod conv2d;
pub mod cross_entropy;
pub mod cumsum;
pub mod elementwise;
pub mod generate;
pub mod matmul;
pub mod pad;
pub mod pool2d;
pub mod reduce;
pub mod softmax;
pub mod view;

use crate::op::Case;

/// A family of ops: a file here, its cases, and (unless pointwise) a shader of the same name.
pub struct Family {
    /// The file's name.
    pub name: &'static str,
    /// Its cases, in a fixed order.
    pub cases: fn() -> Vec<Case>,
}

/// Every family of ops.
pub fn families() -> Vec<Family> {
    vec![
        Family { name: "concat", cases: concat::cases },
        Family { name: "conv2d", cases: conv2d::cases },
        Family { name: "cross_entropy", cases: cross_entropy::cases },
        Family { name: "cumsum", cases: cumsum::cases },
        Family { name: "elementwise", cases: elementwise::cases },
        Family { name: "generate", cases: generate::cases },
        Family { name: "matmul", cases: matmul::cases },
        Family { name: "pad", cases: pad::cases },
        Family { name: "pool2d", cases: pool2d::cases },
        Family { name: "reduce", cases: reduce::cases },
        Family { name: "softmax", cases: softmax::cases },
        Family { name: "view", cases: view::cases },
    ]
}

/// Every case of every family, in a fixed order.
pub fn cases() -> Vec<Case> {
    families().iter().flat_map(|family| (family.cases)()).collect()
}
