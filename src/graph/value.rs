//! Values: outputs of nodes.

use super::{Graph, INVALID, ValueId};
use crate::op::Op;
use crate::{DType, Shape, TensorType};

/// A value of the graph: an output of a node and its type. Cheap to clone.
///
/// ```
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [4, 3]);
/// let y = (&x * 2.0 + 1.0).relu().sum(&[1], false);
/// assert_eq!((y.ty().to_string(), y.dim(0)), ("f32[4]".to_owned(), 4));
/// assert!(!x.matmul(&x).is_valid()); // a mistake, which compile reports
/// ```
#[derive(Clone)]
pub struct Value {
    pub(super) graph: Graph,
    pub(super) id: ValueId,
    pub(super) ty: TensorType,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_valid() {
            write!(f, "%{}.{}: {}", self.id.node, self.id.output, self.ty)
        } else {
            write!(f, "invalid")
        }
    }
}

impl Value {
    /// The graph it belongs to.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The node and output it refers to. Meaningless for a value that is not [valid](Value::is_valid).
    pub fn id(&self) -> ValueId {
        self.id
    }

    /// Whether it was created without a mistake.
    pub fn is_valid(&self) -> bool {
        self.id != INVALID
    }

    /// Element type and shape.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    /// The sizes of the axes; `[]` for an invalid value.
    pub fn shape(&self) -> &Shape {
        &self.ty.shape
    }

    /// The size of an axis, which may count from the end (`-1`); 0 if there is no such axis.
    pub fn dim(&self, axis: isize) -> usize {
        self.shape().axis(axis).map_or(0, |axis| self.shape()[axis])
    }

    /// Adds an op with one output, with this value and `others` as inputs.
    #[track_caller]
    pub(crate) fn op(&self, op: impl Op, others: &[&Value]) -> Value {
        let inputs: Vec<&Value> = std::iter::once(self).chain(others.iter().copied()).collect();
        self.graph.apply1(op, &inputs)
    }
}
