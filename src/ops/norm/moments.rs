//! Mean and variance, or standard deviation, as an op.

use super::{FLOOR, NormKind, moment_errors, per_row, rows_of};
use crate::op::{Backward, Bits, F32_UNIT_ROUNDOFF, Lowering, Op, Rounding};
use crate::{DType, Tensor, TensorType, Value};

/// The mean and biased variance of each row of `x` `[outer, rows, inner]`, as `[2, rows]`. With `root`, the standard
/// deviation in place of the variance, correct even where the variance itself leaves the range of f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Moments {
    pub(super) root: bool,
}

impl Op for Moments {
    fn name(&self) -> &'static str {
        if self.root { "std" } else { "var" }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs[0].dtype != DType::F32 || inputs[0].shape.rank() != 3 {
            return Err("expected f32 data [outer, rows, inner]; cast() it first".into());
        }
        Ok(vec![TensorType::new(DType::F32, [2, inputs[0].shape[1]])])
    }

    /// The mean is sum(x) / n, the variance sum((x - mean)^2) / n. The square root has no derivative at 0: the
    /// gradient is 0 there, as in PyTorch.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let (x, dy) = (g.x(0), g.dy());
        let n = (x.dim(0) * x.dim(2)) as f64;
        let difference = x - per_row(g.y(), 0);
        let of_spread = if self.root {
            let root = per_row(g.y(), 1);
            let none = root.zeros_like();
            let flat = root.eq(&none);
            let slope = flat.where_(&none, &(per_row(&dy, 1) / flat.where_(&root.ones_like(), &root)));
            difference * slope * (1.0 / n)
        } else {
            difference * (per_row(&dy, 1) * (2.0 / n))
        };
        vec![Some(of_spread + per_row(&dy, 0) * (1.0 / n))]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let kind = NormKind { centered: true, eps: Bits(0.0) };
        let moments: Vec<[f64; 2]> = rows_of(inputs[0].f64s(), inputs[0].shape()).map(|x| kind.moments(&x)).collect();
        let spread = |var: f64| if self.root { var.sqrt() } else { var };
        let stats = moments.iter().map(|m| m[0]).chain(moments.iter().map(|m| spread(m[1])));
        vec![Tensor::of(&outputs[0].shape, stats.collect::<Vec<f64>>())]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        let root = self.root;
        Rounding::bound(move |inputs, _| {
            let kind = NormKind { centered: true, eps: Bits(0.0) };
            let errors: Vec<[f64; 2]> = rows_of(&inputs[0].to_f64(), inputs[0].shape())
                .map(|x| {
                    let [center, var] = kind.moments(&x);
                    let [mean_off, var_off] = moment_errors(&x, [center, var]);
                    // The range of the square root over the variance's error interval.
                    let off =
                        (var + var_off).sqrt() - (var - var_off).max(0.0).sqrt() + 4.0 * F32_UNIT_ROUNDOFF * var.sqrt();
                    [mean_off, if root { off + FLOOR } else { var_off + FLOOR }]
                })
                .collect();
            vec![(0..2).flat_map(|i| errors.iter().map(move |e| e[i])).collect()]
        })
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}
