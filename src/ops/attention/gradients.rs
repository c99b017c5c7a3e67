//! The gradients of attention, with the weights recomputed. `stats` `[N, H, L, 2]` holds the log-sum-exp `lse` of
//! each query's scores and `delta`, defined at the gradient of the forward op.

use super::kernels::{self, Products};
use super::{MIN_SCORE, Scores, four, reference};
use crate::autodiff::gradients_of;
use crate::op::{Args, Attributes, Backward, Cost, Kernel, Lowered, Lowering, Op, Rounding, Variant};
use crate::shape::View;
use crate::{DType, Tensor, TensorType, Value};

/// `dq` from q, k, v, dy, stats and an optional mask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AttentionQueryGrad(pub Scores);

/// `dk` and `dv` concatenated, `[N, H, S, E + Ev]`, from the same inputs. Two outputs and a mask would exceed the
/// number of storage buffers that every device can bind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AttentionKeyGrad(pub Scores);

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
}

fn check(scores: &Scores, inputs: &[&TensorType]) -> Result<(), String> {
    scores.check(inputs, 2)?;
    let [n, h, l, _] = four(&inputs[0].shape);
    if inputs[3].shape[..] != [n, h, l, inputs[2].shape[3]] || inputs[4].shape[..] != [n, h, l, 2] {
        return Err("expected dy [N, H, L, Ev] and stats [N, H, L, 2]".into());
    }
    Ok(())
}

/// The gradients of `build(inputs)`: the gradient of a gradient.
fn again(g: &Backward<'_>, build: impl FnOnce(&[Value]) -> Value) -> Vec<Option<Value>> {
    // Stops the backward pass at the inputs, as one may be computed from another.
    let inputs: Vec<Value> = g.inputs.iter().map(Value::stop_gradient).collect();
    let gradients = gradients_of(&[(&build(&inputs), &g.dy())], &inputs.iter().collect::<Vec<_>>());
    gradients.into_iter().zip(g.needs).map(|(gradient, &needed)| needed.then_some(gradient)).collect()
}

impl Op for AttentionQueryGrad {
    fn name(&self) -> &'static str {
        "attention_query_grad"
    }

    fn attributes(&self) -> Attributes {
        self.0.attributes()
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check(&self.0, inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        again(g, |x| Recomputed::new(&self.0, x).score_gradient.matmul(&x[1]) * self.0.scale.0)
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        vec![Tensor::of(&outputs[0].shape, reference::query_gradient(&self.0, inputs))]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        let scores = self.0.clone();
        Rounding::bound_at(move |inputs, _, precision| {
            vec![reference::query_gradient_bound(&scores, inputs, precision)]
        })
    }

    /// Per key, the score, its gradient and the key's contribution to each output element.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        let ([.., keys, e], width) = (four(&inputs[1].shape), inputs[2].shape[3]);
        keys * (2 * e + width).div_ceil(e.max(1))
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for AttentionQueryGrad {
    fn variants(&self) -> &'static [Variant] {
        kernels::VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let [[.., queries, e], [.., keys, width]] = [0, 2].map(|i| four(&args.inputs[i].shape));
        let products = Products { rows: queries, others: keys, numbers: e + width, width: e, results: 1 };
        kernels::cost(variant, args, &products)
    }

    fn reads(&self, input: usize, view: &View) -> bool {
        reads(input, view)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        kernels::query_gradient(&self.0, variant, args)
    }
}

fn reads(input: usize, view: &View) -> bool {
    match input {
        4 => view.is_contiguous(),
        5 => true,
        _ => kernels::reads(view),
    }
}

impl Op for AttentionKeyGrad {
    fn name(&self) -> &'static str {
        "attention_key_grad"
    }

    fn attributes(&self) -> Attributes {
        self.0.attributes()
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check(&self.0, inputs)?;
        let [n, h, s, e] = four(&inputs[1].shape);
        Ok(vec![TensorType::new(DType::F32, [n, h, s, e + inputs[2].shape[3]])])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        again(g, |x| {
            let Recomputed { weights, score_gradient } = Recomputed::new(&self.0, x);
            let dk = score_gradient.t().matmul(&x[0]) * self.0.scale.0;
            dk.concat(&[&weights.t().matmul(&x[3])], -1)
        })
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        vec![Tensor::of(&outputs[0].shape, reference::key_gradient(&self.0, inputs))]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        let scores = self.0.clone();
        Rounding::bound_at(move |inputs, _, precision| vec![reference::key_gradient_bound(&scores, inputs, precision)])
    }

    /// Per query, the score, its gradient and the query's contribution to each element of dk and dv.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        2 * inputs[0].shape[2]
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for AttentionKeyGrad {
    fn variants(&self) -> &'static [Variant] {
        kernels::VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let [[.., queries, e], [.., keys, width]] = [0, 2].map(|i| four(&args.inputs[i].shape));
        let products = Products { rows: keys, others: queries, numbers: e + width, width: e.max(width), results: 2 };
        kernels::cost(variant, args, &products)
    }

    fn reads(&self, input: usize, view: &View) -> bool {
        reads(input, view)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        kernels::key_gradient(&self.0, variant, args)
    }
}
