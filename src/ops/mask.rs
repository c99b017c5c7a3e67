//! Triangular masks and `masked_fill`, composed of `iota`, comparison and `where_`. The plan fuses them into
//! neighbouring ops: no kernel of their own, and no memory for the mask.

use crate::op::{Case, Fill};
use crate::{DType, TensorType, Value};

impl Value {
    /// A boolean mask, true where `column - row <= diagonal` in the last two axes: a lower triangle.
    #[track_caller]
    fn below(&self, op: &str, diagonal: isize) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        let rank = self.shape().rank();
        let (Ok(diagonal), true) = (i32::try_from(diagonal), rank >= 2) else {
            let why = "expected at least two axes and a diagonal that fits in 32 bits";
            return self.graph().error(op, &[self], why);
        };
        let rows = self.graph().iota(DType::I32, self.shape(), -2);
        let columns = self.graph().iota(DType::I32, self.shape(), -1);
        (columns - rows).le(&self.graph().full(DType::I32, self.shape(), f64::from(diagonal)))
    }

    /// The lower triangle of the last two axes, zeros above: `x[.., i, j]` where `j - i <= diagonal`. 0 keeps the main
    /// diagonal, -1 excludes it.
    ///
    /// ```
    /// use wgrad::{DType, Device, Graph, Session};
    /// let graph = Graph::new();
    /// let mask = graph.full(DType::F32, [2, 3], 1.0).tril(0);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&mask])?;
    /// assert_eq!(session.run(&program, &[])?[0].to_f32(), [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn tril(&self, diagonal: isize) -> Value {
        self.below("tril", diagonal).where_(self, &self.zeros_like())
    }

    /// The upper triangle of the last two axes, zeros below: `x[.., i, j]` where `j - i >= diagonal`. 0 keeps the main
    /// diagonal, 1 excludes it.
    #[track_caller]
    pub fn triu(&self, diagonal: isize) -> Value {
        self.below("triu", diagonal.saturating_sub(1)).where_(&self.zeros_like(), self)
    }

    /// `value` where the mask (bool, broadcast) is true, this value elsewhere. No gradient flows to the masked
    /// elements.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Value, value: f64) -> Value {
        mask.where_(&self.full_like(value), self)
    }
}

/// Test cases of these ops.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, diagonal) in
        [(&[4, 4][..], 0), (&[3, 5], 1), (&[2, 5, 3], -1), (&[4, 3], -7), (&[4, 3], 7), (&[0, 3], 0)]
    {
        cases.push(
            Case::new("tril", format!("{shape:?} and triu, diagonal {diagonal}"), move |x| {
                vec![x[0].tril(diagonal), x[0].triu(diagonal)]
            })
            .float("x", shape),
        );
    }
    cases.push(
        Case::new("tril", "i32 and triu", |x| vec![x[0].tril(0), x[0].triu(1)])
            .input("x", TensorType::new(DType::I32, [5, 6]), Fill::Index(1000))
            .forward_only(),
    );
    cases.push(
        Case::new("masked_fill", "with a mask that broadcasts", |x| vec![x[0].masked_fill(&x[1], -10000.0)])
            .float("x", [3, 4, 5])
            .input("mask", TensorType::new(DType::Bool, [4, 1]), Fill::Coin),
    );
    cases
}
