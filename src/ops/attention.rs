//! Scaled dot-product attention, fused: scores are computed by tiles, never stored whole, and
//! computed again for the gradients, so that memory grows with the length, not with its square.

mod cases;
mod gradients;
mod kernels;
mod reference;

use crate::op::{Args, Backward, Kernel, Lowered, Lowering, Op, Rounding, Variant};
use crate::shape::View;
use crate::{DType, Shape, Tensor, TensorType, Value};

pub use cases::cases;
use gradients::{AttentionKeyGrad, AttentionQueryGrad, Recomputed};

/// Options of [`Value::scaled_dot_product_attention`], with PyTorch's names.
#[derive(Clone, Debug, Default)]
pub struct Attention {
    /// Broadcasts to `[.., L, S]`. Floats are added to the scaled scores; of bools, `true` lets the
    /// query see the key.
    pub attn_mask: Option<Value>,
    /// Query `i` sees keys `0..=i` alone.
    pub is_causal: bool,
    /// Scores are multiplied by it; `None`: `1 / sqrt(E)`.
    pub scale: Option<f64>,
}

/// A score below it says that the query does not see the key: the weight is 0 exactly.
const MIN_SCORE: f64 = -1e29;

/// The score of a key that is left out: finite, because kernels may assume that there is no infinity.
const LEFT_OUT: f64 = -1e30f32 as f64;

/// What the fused op and its gradients have in common. Queries `[N, H, L, E]`, keys `[N, H, S, E]`,
/// values `[N, H, S, Ev]` and, where there is one, a mask `[N, H, L, S]`; E and Ev are multiples of 4.
#[derive(Clone, Debug)]
struct Scores {
    scale: f64,
    causal: bool,
}

/// Numbers of one head's row, at most: a tile's loops must end before drivers lose patience.
const MAX_NUMBERS: usize = 4096;

impl Scores {
    /// Checks queries, keys, values and a mask behind `others`.
    fn check(&self, inputs: &[&TensorType], others: usize) -> Result<(), String> {
        if inputs.iter().any(|ty| ty.dtype != DType::F32 || ty.shape.rank() != 4) {
            return Err("expected f32 tensors of four axes".into());
        }
        let [n, h, l, e] = four(&inputs[0].shape);
        let [.., s, ev] = four(&inputs[2].shape);
        let whole = |size: &usize| size.is_multiple_of(4) && (1..=MAX_NUMBERS).contains(size);
        if [n, h, l, s].contains(&0) || ![e, ev].iter().all(whole) {
            return Err(format!("expected sizes above 0, E and Ev multiples of 4 up to {MAX_NUMBERS}"));
        }
        let mask = inputs.get(3 + others);
        if inputs[1].shape[..] != [n, h, s, e]
            || inputs[2].shape[..2] != [n, h]
            || mask.is_some_and(|mask| mask.shape[..] != [n, h, l, s])
        {
            return Err("expected q [N, H, L, E], k [N, H, S, E], v [N, H, S, Ev], mask [N, H, L, S]".into());
        }
        Ok(())
    }
}

fn four(shape: &Shape) -> [usize; 4] {
    std::array::from_fn(|axis| shape.get(axis).copied().unwrap_or(0))
}

/// `softmax(scale q k^T + mask) v`, and for each query the logarithm of what the softmax divides by.
#[derive(Clone, Debug)]
struct ScaledDotProduct(Scores);

impl Op for ScaledDotProduct {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        self.0.check(inputs, 0)?;
        let [n, h, l, _] = four(&inputs[0].shape);
        let width = inputs[2].shape[3];
        Ok(vec![TensorType::new(DType::F32, [n, h, l, width]), TensorType::new(DType::F32, [n, h, l])])
    }

    /// With `w` the weights and `dw = dy v^T` the gradient that flows into them, that of the scores is
    /// `w (dw - delta)`, `delta = sum_j w_j dw_j = dy . y` (Dao et al., section 3.1), less what flows into
    /// the logarithm, whose slopes the weights are.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let (y, lse) = (&g.outputs[0], &g.outputs[1]);
        let dy = g.dys[0].clone().unwrap_or_else(|| y.zeros_like());
        let mut delta = (&dy * y).sum(&[-1], false);
        if let Some(dlse) = &g.dys[1] {
            delta = delta - dlse;
        }
        let column: Vec<isize> = lse.shape().iter().map(|&size| size as isize).chain([1]).collect();
        let stats = lse.reshape(&column).concat(&[&delta.reshape(&column)], -1);
        let mut inputs = vec![g.x(1), g.x(2), &dy, &stats];
        inputs.extend(g.inputs.get(3));
        let dq = g.when(0, || g.x(0).op(AttentionQueryGrad(self.0.clone()), &inputs));
        let (mut dk, mut dv) = (None, None);
        if g.needs[1] || g.needs[2] {
            let dkv = g.x(0).op(AttentionKeyGrad(self.0.clone()), &inputs);
            let (e, both) = (g.x(1).dim(-1), dkv.dim(-1));
            dk = g.when(1, || dkv.slice(-1, 0, e, 1));
            dv = g.when(2, || dkv.slice(-1, e, both, 1));
        }
        // As large as the mask is, so that it may as well be composed.
        let of_mask = || {
            let inputs: Vec<Value> = std::iter::once(g.x(0)).chain(inputs.iter().copied()).cloned().collect();
            Recomputed::new(&self.0, &inputs).score_gradient
        };
        let mut gradients = vec![dq, dk, dv];
        gradients.extend(g.inputs.get(3).map(|_| g.when(3, of_mask)));
        gradients
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        reference::attention(&self.0, inputs, outputs)
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        let scores = self.0.clone();
        Rounding::bound(move |inputs, outputs| reference::attention_bound(&scores, inputs, outputs))
    }

    /// For each key its score, and its share of each number.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        let ([.., keys, e], width) = (four(&inputs[1].shape), inputs[2].shape[3]);
        keys * (e + width).div_ceil(width.max(1))
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for ScaledDotProduct {
    fn variants(&self) -> &'static [Variant] {
        kernels::VARIANTS
    }

    fn suits(&self, variant: &Variant, args: &Args<'_>) -> bool {
        kernels::suits(variant, args)
    }

    fn reads(&self, input: usize, view: &View) -> bool {
        input == 3 || kernels::reads(view)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        kernels::forward(&self.0, variant, args)
    }
}

impl Value {
    /// `softmax(scale q k^T + mask) v` along the keys, for queries `[.., L, E]` (`self`), keys `[.., S, E]`
    /// and values `[.., S, Ev]`; the result is `[.., L, Ev]`. The axes before are batches and heads; they
    /// broadcast, so that heads may share keys and values. f32; gradients for all, the mask too
    /// (Vaswani et al., *Attention is all you need*, 2017).
    ///
    /// A score below -1e29, such as a mask of minus infinity makes, leaves the key out; a query that sees no
    /// key gets 0 and passes no gradient, as in PyTorch. A NaN in a key or value that is left out may still
    /// spread, as 0 times NaN does. PyTorch's `dropout_p`, which drops weights, is not
    /// offered.
    ///
    /// Fused, with an online softmax (Milakov and Gimelshein, *Online normalizer calculation for softmax*,
    /// 2018) and a backward pass that computes the weights again (Dao et al., *FlashAttention*, 2022): the
    /// `L x S` scores are never stored. For more than 64 numbers in a row of v the scores are
    /// computed once for each 64 of them. Composed of matrix products and [`Value::softmax`], and thus
    /// stored, where E or Ev exceeds 4096.
    ///
    /// ```
    /// use wgrad::ops::attention::Attention;
    /// use wgrad::{Device, DType, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [2, 1]);
    /// let y = x.scaled_dot_product_attention(&x, &x, &Attention { is_causal: true, ..Attention::default() });
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&y])?;
    /// let y = session.run(&program, &[("x", &Tensor::new([2, 1], [0.0f32, 1.0])?)])?;
    /// // The second query weighs the keys with e^0 and e^1.
    /// let e = 1f64.exp();
    /// assert_eq!(y[0].to_f64(), [0.0, e / (1.0 + e)]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn scaled_dot_product_attention(&self, key: &Value, value: &Value, options: &Attention) -> Value {
        let operands: Vec<&Value> = [self, key, value].into_iter().chain(&options.attn_mask).collect();
        if let Err(invalid) = self.graph().admit("scaled_dot_product_attention", &operands) {
            return invalid;
        }
        let location = std::panic::Location::caller();
        let batch = match batch_of(self, key, value, options) {
            Ok(batch) => batch,
            Err(why) => {
                let op = "scaled_dot_product_attention";
                return self.graph().mistake_at(location, op, &[self, key, value], why);
            }
        };
        self.graph().at(location, || attend(self, key, value, options, &batch))
    }
}

/// The axes before the rows, all operands broadcast; or why there are none.
fn batch_of(q: &Value, k: &Value, v: &Value, options: &Attention) -> Result<Shape, String> {
    let operands = [q, k, v];
    if operands.iter().any(|x| x.dtype() != DType::F32 || x.shape().rank() < 2) {
        return Err("expected f32 queries [.., L, E], keys [.., S, E] and values [.., S, Ev]".into());
    }
    if q.dim(-1) != k.dim(-1) || k.dim(-2) != v.dim(-2) {
        return Err(format!(
            "expected queries [.., L, E], keys [.., S, E] and values [.., S, Ev]: E is {} and {}, S is {} and {}",
            q.dim(-1),
            k.dim(-1),
            k.dim(-2),
            v.dim(-2)
        ));
    }
    if let Some(scale) = options.scale.filter(|&scale| !scale.is_finite() || DType::F32.check(scale).is_err()) {
        return Err(format!("the scale must be a finite number of f32, not {scale}"));
    }
    let before = |shape: &Shape| Shape::from(&shape[..shape.rank() - 2]);
    let mut batch = before(q.shape());
    for x in [k, v] {
        let both = batch.broadcast(&before(x.shape()));
        batch = both.ok_or("the axes before the last two do not broadcast: sizes must be equal or 1")?;
    }
    if let Some(mask) = &options.attn_mask {
        let scores: Shape = batch.iter().copied().chain([q.dim(-2), k.dim(-2)]).collect();
        if !matches!(mask.dtype(), DType::F32 | DType::Bool) {
            return Err("expected a mask of f32, which is added to the scores, or of bool".into());
        }
        if mask.shape().broadcast(&scores).as_ref() != Some(&scores) {
            return Err(format!("the mask {} does not broadcast to the scores {scores}", mask.shape()));
        }
    }
    Ok(batch)
}

/// The fused op on `[N, H, .., ..]`, rows filled up to whole vec4; or what it is composed of.
fn attend(q: &Value, k: &Value, v: &Value, options: &Attention, batch: &Shape) -> Value {
    let (queries, keys, e, width) = (q.dim(-2), k.dim(-2), q.dim(-1), v.dim(-1));
    let scores =
        Scores { scale: options.scale.unwrap_or_else(|| 1.0 / (e.max(1) as f64).sqrt()), causal: options.is_causal };
    let heads = batch.last().copied().unwrap_or(1);
    let images = batch.iter().rev().skip(1).product::<usize>();
    let of = |x: &Value, rows: usize, columns: usize| {
        let full: Shape = batch.iter().copied().chain([rows, columns]).collect();
        let sizes = [images, heads, rows, columns].map(|size| size as isize);
        x.broadcast_to(&full).reshape(&sizes)
    };
    let mask = options.attn_mask.as_ref().map(|mask| {
        let added = match mask.dtype() {
            DType::Bool => {
                let seen = mask.graph().full(DType::F32, mask.shape(), 0.0);
                mask.where_(&seen, &seen.full_like(LEFT_OUT))
            }
            _ => mask.clone(),
        };
        of(&added, queries, keys)
    });
    let [q, k, v] = [of(q, queries, e), of(k, keys, e), of(v, keys, width)];
    let empty = [images, heads, queries, keys, e, width].contains(&0);
    let y = if empty || e.max(width) > MAX_NUMBERS {
        let scores = scores.composed(&q, &k, mask.as_ref());
        let none = scores.zeros_like();
        scores.lt(&scores.full_like(MIN_SCORE)).where_(&none, &scores.softmax(-1)).matmul(&v)
    } else {
        let (k, v) = (whole(&k), whole(&v));
        let mut others = vec![&k, &v];
        others.extend(&mask);
        let y = whole(&q).op(ScaledDotProduct(scores), &others);
        if y.dim(-1) == width { y } else { y.slice(-1, 0, width, 1) }
    };
    let sizes: Vec<isize> = batch.iter().copied().chain([queries, width]).map(|size| size as isize).collect();
    y.reshape(&sizes)
}

/// Rows with zeros behind, up to a multiple of 4.
fn whole(x: &Value) -> Value {
    let size = x.dim(-1);
    x.pad(&[(0, 0), (0, 0), (0, 0), (0, size.next_multiple_of(4) - size)], 0.0)
}

impl Scores {
    /// The scores as a tensor, [`LEFT_OUT`] where the query does not see the key.
    fn composed(&self, q: &Value, k: &Value, mask: Option<&Value>) -> Value {
        let mut scores = q.matmul(&k.t()) * self.scale;
        if let Some(mask) = mask {
            // Minus infinity is met before the arithmetic, as in the kernels.
            scores = scores + mask.maximum(&mask.full_like(LEFT_OUT));
        }
        if self.causal {
            let sides = [q.dim(-2), k.dim(-2)];
            let [query, key] = [0, 1].map(|axis| q.graph().iota(DType::I32, sides, axis));
            let left_out = scores.full_like(LEFT_OUT);
            scores = key.gt(&query).broadcast_to(scores.shape()).where_(&left_out, &scores);
        }
        scores
    }
}
