//! The gradients of attention, with the weights recomputed. `stats` `[N, H, L, 2]` holds the log-sum-exp `lse` of
//! each query's scores and `delta`, defined at the gradient of the forward op.

use super::kernels::{self, Products};
use super::{MIN_SCORE, Scores, four, reference};
use crate::autodiff::gradients_of;
use crate::op::{Args, Attributes, Backward, Cost, Kernel, Lowered, Lowering, Op, Rounding, Variant};
use crate::shape::View;
use crate::{DType, Tensor, TensorType, Value};

/// Gradients from q, k, v, dy, stats and an optional mask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AttentionGrad {
    pub scores: Scores,
    pub outputs: &'static [Of],
}

/// An output: `dq`, or `dk` and `dv` concatenated, `[N, H, S, E + Ev]`. Two outputs and a mask would exceed the number
/// of storage buffers that every device can bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Of {
    Queries,
    Keys,
}

/// The outputs of an op for each subset that is needed.
pub(super) const OF_QUERIES: &[Of] = &[Of::Queries];
pub(super) const OF_KEYS: &[Of] = &[Of::Keys];
pub(super) const OF_BOTH: &[Of] = &[Of::Queries, Of::Keys];

/// The weights and the gradient of the scores as tensors, for second derivatives.
pub(super) struct Recomputed {
    pub weights: Value,
    pub score_gradient: Value,
}

impl Recomputed {
    /// From q, k, v, dy, stats and an optional mask.
    pub(super) fn new(scores: &Scores, inputs: &[Value]) -> Recomputed {
        let [q, k, v, dy, stats] = std::array::from_fn(|i| &inputs[i]);
        let score = scores.composed(q, k, inputs.get(5));
        let (lse, delta) = (stats.slice(-1, 0, 1, 1), stats.slice(-1, 1, 2, 1));
        let left_out = score.lt(&score.full_like(MIN_SCORE));
        // If all keys of a query are masked, both score and lse are about -1e30.
        let weights = left_out.where_(&score.zeros_like(), &(score - lse).exp());
        let score_gradient = &weights * (dy.matmul(&v.t()) - delta);
        Recomputed { weights, score_gradient }
    }

    /// An output, from the inputs.
    fn output(&self, of: Of, scale: f64, inputs: &[Value]) -> Value {
        match of {
            Of::Queries => self.score_gradient.matmul(&inputs[1]) * scale,
            Of::Keys => {
                let dk = self.score_gradient.t().matmul(&inputs[0]) * scale;
                dk.concat(&[&self.weights.t().matmul(&inputs[3])], -1)
            }
        }
    }
}

impl Op for AttentionGrad {
    fn name(&self) -> &'static str {
        "attention_grad"
    }

    fn attributes(&self) -> Attributes {
        let outputs = match self.outputs {
            [Of::Queries] => "dq",
            [Of::Keys] => "dk and dv",
            _ => "dq, dk and dv",
        };
        let mut attributes = self.scores.attributes();
        attributes.push(("of", outputs.into()));
        attributes
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        self.scores.check(inputs, 2)?;
        let ([n, h, l, _], [.., s, e]) = (four(&inputs[0].shape), four(&inputs[1].shape));
        let width = inputs[2].shape[3];
        if inputs[3].shape[..] != [n, h, l, width] || inputs[4].shape[..] != [n, h, l, 2] {
            return Err("expected dy [N, H, L, Ev] and stats [N, H, L, 2]".into());
        }
        let output = |of: &Of| match of {
            Of::Queries => inputs[0].clone(),
            Of::Keys => TensorType::new(DType::F32, [n, h, s, e + width]),
        };
        Ok(self.outputs.iter().map(output).collect())
    }

    /// The gradient of a gradient.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        // Stops the backward pass at the inputs, as one may be computed from another.
        let inputs: Vec<Value> = g.inputs.iter().map(Value::stop_gradient).collect();
        let recomputed = Recomputed::new(&self.scores, &inputs);
        let output = |of: &Of| recomputed.output(*of, self.scores.scale.0, &inputs);
        let outputs: Vec<Value> = self.outputs.iter().map(output).collect();
        let known = outputs.iter().zip(g.dys).filter_map(|(y, dy)| Some((y, dy.as_ref()?)));
        let gradients = gradients_of(&known.collect::<Vec<_>>(), &inputs.iter().collect::<Vec<_>>());
        gradients.into_iter().zip(g.needs).map(|(gradient, &needed)| needed.then_some(gradient)).collect()
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let gradient = |of: &Of| match of {
            Of::Queries => reference::query_gradient(&self.scores, inputs),
            Of::Keys => reference::key_gradient(&self.scores, inputs),
        };
        self.outputs.iter().zip(outputs).map(|(of, ty)| Tensor::of(&ty.shape, gradient(of))).collect()
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        let AttentionGrad { scores, outputs } = self.clone();
        Rounding::bound_at(move |inputs, _, precision| {
            let bound = |of: &Of| match of {
                Of::Queries => reference::query_gradient_bound(&scores, inputs, precision),
                Of::Keys => reference::key_gradient_bound(&scores, inputs, precision),
            };
            outputs.iter().map(bound).collect()
        })
    }

    /// Per key, the score, its gradient and the key's contribution to each element of dq; per query, the same for dk and
    /// dv.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        let ([.., keys, e], width) = (four(&inputs[1].shape), inputs[2].shape[3]);
        let length = |of: &Of| match of {
            Of::Queries => keys * (2 * e + width).div_ceil(e.max(1)),
            Of::Keys => 2 * inputs[0].shape[2],
        };
        self.outputs.iter().map(length).max().unwrap_or(0)
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for AttentionGrad {
    fn variants(&self) -> &'static [Variant] {
        kernels::VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        match self.outputs {
            [Of::Queries] => kernels::cost(variant, args, &Products::of_queries(args)),
            [Of::Keys] => kernels::cost(variant, args, &Products::of_keys(args)),
            _ => Some(kernels::gradients_cost(variant, args)?.0),
        }
    }

    fn reads(&self, input: usize, view: &View) -> bool {
        match input {
            4 => view.is_contiguous(),
            5 => true,
            _ => kernels::reads(view),
        }
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        match self.outputs {
            [Of::Queries] => kernels::query_gradient(&self.scores, variant, args),
            [Of::Keys] => kernels::key_gradient(&self.scores, variant, args),
            _ => kernels::gradients(&self.scores, variant, args),
        }
    }
}
