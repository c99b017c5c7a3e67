//! Fused scaled dot-product attention: scores are computed tile by tile, never stored, and recomputed for the gradients.
//! The gradients of the scores are stored for a part of the queries at a time, so memory grows linearly with the
//! sequence length.

mod cases;
mod gradients;
mod kernels;
mod reference;

use crate::op::{Args, Attributes, Backward, Bits, Cost, Kernel, Lowered, Lowering, Op, Rounding, Variant};
use crate::shape::View;
use crate::{DType, Shape, Tensor, TensorType, Value};

pub use cases::cases;
use gradients::{AttentionGrad, OF_BOTH, OF_KEYS, OF_QUERIES, Of, Recomputed};
use kernels::Products;

/// Options of [`Value::scaled_dot_product_attention`], named as in PyTorch.
/// Example: [`Value::scaled_dot_product_attention`].
#[derive(Clone, Debug, Default)]
pub struct Attention {
    /// Broadcasts to `[.., L, S]`. A float mask is added to the scaled scores; in a bool mask, `true` lets the
    /// query attend to the key.
    pub attn_mask: Option<Value>,
    /// Query `i` attends only to keys `0..=i`.
    pub is_causal: bool,
    /// Factor of the scores; `None` means `1 / sqrt(E)`.
    pub scale: Option<f64>,
}

/// A key whose score is below this is masked: its weight is exactly 0.
const MIN_SCORE: f64 = -1e29;

/// The score of a masked key; finite, because kernels may assume that no infinities occur.
const LEFT_OUT: f64 = -1e30f32 as f64;

/// Parameters shared by the fused op and its gradients. Queries are `[N, H, L, E]`, keys `[N, H, S, E]`,
/// values `[N, H, S, Ev]` and the optional mask `[N, H, L, S]`; E and Ev are multiples of 4.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scores {
    scale: Bits,
    causal: bool,
}

/// Maximum row length (E or Ev) of one head: a tile's loops must end before the driver's timeout.
const MAX_NUMBERS: usize = 4096;

impl Scores {
    fn attributes(&self) -> Attributes {
        vec![("scale", self.scale.0.into()), ("causal", self.causal.into())]
    }

    /// Checks queries, keys, values and the mask, which follows `others` further inputs.
    fn check(&self, inputs: &[&TensorType], others: usize) -> Result<(), String> {
        if inputs.iter().any(|ty| ty.dtype != DType::F32 || ty.shape.rank() != 4) {
            return Err("expected f32 tensors with four axes".into());
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

/// `softmax(scale q k^T + mask) v` and the log-sum-exp of each query's scores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ScaledDotProduct(Scores);

impl Op for ScaledDotProduct {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn attributes(&self) -> Attributes {
        self.0.attributes()
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        self.0.check(inputs, 0)?;
        let [n, h, l, _] = four(&inputs[0].shape);
        let width = inputs[2].shape[3];
        Ok(vec![TensorType::new(DType::F32, [n, h, l, width]), TensorType::new(DType::F32, [n, h, l])])
    }

    /// With weights `w` and their gradient `dw = dy v^T`, the gradient of the scores is `w (dw - delta)`, where
    /// `delta = sum_j w_j dw_j = dy . y` (Dao et al., section 3.1) minus the gradient of the log-sum-exp, whose
    /// derivatives are the weights.
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
        let x: Vec<&Value> = std::iter::once(g.x(0)).chain(inputs.iter().copied()).collect();
        let outputs = match (g.needs[0], g.needs[1] || g.needs[2]) {
            (true, true) => OF_BOTH,
            (true, false) => OF_QUERIES,
            (false, true) => OF_KEYS,
            (false, false) => &[],
        };
        let values = match outputs {
            [] => Vec::new(),
            _ => y.graph().apply(AttentionGrad { scores: self.0.clone(), outputs }, &x),
        };
        let value = |of: Of| outputs.iter().zip(&values).find(|(output, _)| **output == of).map(|(_, value)| value);
        let (dq, dkv, e) = (value(Of::Queries).cloned(), value(Of::Keys), g.x(1).dim(-1));
        let dk = dkv.and_then(|dkv| g.when(1, || dkv.slice(-1, 0, e, 1)));
        let dv = dkv.and_then(|dkv| g.when(2, || dkv.slice(-1, e, dkv.dim(-1), 1)));
        // The mask's gradient is as large as the scores, so fusing it would save nothing.
        let of_mask = || {
            let inputs: Vec<Value> = x.iter().copied().cloned().collect();
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
        Rounding::bound_at(move |inputs, outputs, precision| {
            reference::attention_bound(&scores, inputs, outputs, precision)
        })
    }

    /// Per key, the score and the key's contribution to each output element.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        let ([.., keys, e], width) = (four(&inputs[1].shape), inputs[2].shape[3]);
        keys * (e + width).div_ceil(width.max(1))
    }

    /// Of all keys, also if the attention is causal.
    fn multiply_adds(&self, inputs: &[&TensorType], _: &[TensorType]) -> u64 {
        let ([n, h, l, e], [.., s, ev]) = (four(&inputs[0].shape), four(&inputs[2].shape));
        [n, h, l, s, e + ev].map(|size| size as u64).into_iter().product()
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for ScaledDotProduct {
    fn variants(&self) -> &'static [Variant] {
        kernels::VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let [[.., queries, e], [.., keys, width]] = [0, 2].map(|i| four(&args.inputs[i].shape));
        let products = Products { rows: queries, others: keys, numbers: e, width, results: 1, stored: false };
        kernels::cost(variant, args, &products)
    }

    fn reads(&self, input: usize, view: &View) -> bool {
        input == 3 || kernels::reads(view)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        kernels::forward(&self.0, variant, args)
    }
}

impl Value {
    /// `softmax(scale q k^T + mask) v`, with the softmax over the keys, for queries `[.., L, E]` (`self`), keys
    /// `[.., S, E]` and values `[.., S, Ev]`; the result is `[.., L, Ev]`. The leading axes are batch and heads;
    /// they broadcast, so heads can share keys and values. f32 only; all operands have gradients, including a
    /// float mask (Vaswani et al., *Attention is all you need*, 2017).
    ///
    /// A score below -1e29, for example from a mask of minus infinity, masks the key; a query with all keys
    /// masked gets 0 and passes no gradient, as in PyTorch. A NaN in a masked key or value may still
    /// propagate, as in 0 times NaN. PyTorch's `dropout_p` is not supported.
    ///
    /// The kernel is fused: it uses an online softmax (Milakov and Gimelshein, *Online normalizer calculation for
    /// softmax*, 2018), and the backward pass recomputes the weights (Dao et al., *FlashAttention*, 2022), so the
    /// `L x S` scores are never stored. Their gradients may be stored for a part of the queries at a time, in at most
    /// 256 MiB. If Ev exceeds 64 (on GPUs 128), the scores are computed once per that many columns of v. With
    /// [`Precision::Mixed`](crate::Precision), the products may run on matrix units. If E or Ev exceeds 4096, it falls
    /// back to matrix products and [`Value::softmax`], which store the scores.
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
    /// // The second query weights the keys by e^0 and e^1.
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
                return self.graph().error_at(location, op, &[self, key, value], why);
            }
        };
        self.graph().at(location, || {
            let y = attend(&self.widen(), &key.widen(), &value.widen(), options, &batch);
            let common = self.dtype() == key.dtype() && self.dtype() == value.dtype();
            if common { y.cast(self.dtype()) } else { y }
        })
    }
}

/// The broadcast shape of the leading (batch and head) axes, or an error message.
fn batch_of(q: &Value, k: &Value, v: &Value, options: &Attention) -> Result<Shape, String> {
    let operands = [q, k, v];
    if operands.iter().any(|x| !x.dtype().is_float() || x.shape().rank() < 2) {
        return Err("expected float queries [.., L, E], keys [.., S, E] and values [.., S, Ev]".into());
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
        return Err(format!("the scale must be a finite f32, not {scale:?}"));
    }
    let before = |shape: &Shape| Shape::from(&shape[..shape.rank() - 2]);
    let mut batch = before(q.shape());
    for x in [k, v] {
        let both = batch.broadcast(&before(x.shape()));
        batch = both.ok_or("the leading axes do not broadcast: sizes must be equal or 1")?;
    }
    if let Some(mask) = &options.attn_mask {
        let scores: Shape = batch.iter().copied().chain([q.dim(-2), k.dim(-2)]).collect();
        if !mask.dtype().is_float() && mask.dtype() != DType::Bool {
            return Err("expected a bool mask, or a float mask to add to the scores".into());
        }
        if mask.shape().broadcast(&scores).as_ref() != Some(&scores) {
            return Err(format!("the mask {} does not broadcast to the scores {scores}", mask.shape()));
        }
    }
    Ok(batch)
}

/// The fused op on `[N, H, .., ..]`, with rows padded to whole vec4; or its unfused equivalent.
fn attend(q: &Value, k: &Value, v: &Value, options: &Attention, batch: &Shape) -> Value {
    let (queries, keys, e, width) = (q.dim(-2), k.dim(-2), q.dim(-1), v.dim(-1));
    let scores = Scores {
        scale: Bits(options.scale.unwrap_or_else(|| 1.0 / (e.max(1) as f64).sqrt())),
        causal: options.is_causal,
    };
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
            _ => mask.widen(),
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

/// Zero-pads the rows to a multiple of 4.
fn whole(x: &Value) -> Value {
    let size = x.dim(-1);
    x.pad(&[(0, 0), (0, 0), (0, 0), (0, size.next_multiple_of(4) - size)], 0.0)
}

impl Scores {
    /// The scores as a tensor, [`LEFT_OUT`] for masked keys.
    fn composed(&self, q: &Value, k: &Value, mask: Option<&Value>) -> Value {
        let mut scores = q.matmul(&k.t()) * self.scale.0;
        if let Some(mask) = mask {
            // Clamps minus infinity before the addition, as the kernels do.
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
