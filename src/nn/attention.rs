//! Multi-head attention and position encodings.

use super::layers::{Layer, Linear};
use super::{Scope, init};
use crate::ops::attention::Attention;
use crate::{Graph, Tensor, Value};

/// Multi-head attention (Vaswani et al., *Attention is all you need*, 2017): projects query, key and value to
/// `embed_dim` features, splits them into heads, applies [`Value::scaled_dot_product_attention`] per head,
/// concatenates the heads and projects the result.
///
/// Parameter names and initial values match PyTorch: `NAME.in_proj_weight` `[3 embed_dim, embed_dim]` (the
/// projections of query, key and value, concatenated), `NAME.in_proj_bias` `[3 embed_dim]`,
/// `NAME.out_proj.weight` `[embed_dim, embed_dim]`, `NAME.out_proj.bias` `[embed_dim]`. Data is `[N, L, embed_dim]`
/// (PyTorch's `batch_first`). PyTorch's `dropout` applies to the weights, which the fused kernel never stores; apply
/// dropout to the output instead, as
/// [`TransformerEncoderLayer`](super::TransformerEncoderLayer) does.
///
/// ```
/// use wgrad::nn::{Layer, MultiheadAttention, Scope};
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [8, 20, 64]);
/// let attention = MultiheadAttention::new(&Scope::train(&graph, 0), "attn", 64, 4).causal();
/// assert_eq!(attention.forward(&x).shape().to_vec(), [8, 20, 64]);
/// ```
#[derive(Clone, Debug)]
pub struct MultiheadAttention {
    /// `[3 embed_dim, embed_dim]`.
    pub in_proj_weight: Value,
    /// `[3 embed_dim]`; `None` for no bias.
    pub in_proj_bias: Option<Value>,
    /// The output projection.
    pub out_proj: Linear,
    /// Number of heads; must divide `embed_dim`.
    pub num_heads: usize,
    /// Mask, causality and scale of [`MultiheadAttention::forward`].
    pub options: Attention,
    /// The base of [`rotary`] position embeddings; `None` for none.
    pub rotary_base: Option<f64>,
}

impl MultiheadAttention {
    /// Declares the parameters. Every position attends to every position unless restricted by
    /// [`MultiheadAttention::causal`] or the options of [`MultiheadAttention::attend`].
    #[track_caller]
    pub fn new(nn: &Scope, name: &str, embed_dim: usize, num_heads: usize) -> MultiheadAttention {
        let part = nn.part(name);
        let out_proj = Linear {
            weight: part.parameter("out_proj.weight", [embed_dim, embed_dim], init::kaiming_uniform(5f64.sqrt())),
            bias: part.bias("out_proj.bias", [embed_dim], init::zeros()),
        };
        MultiheadAttention {
            in_proj_weight: part.parameter(
                "in_proj_weight",
                [embed_dim.saturating_mul(3), embed_dim],
                init::xavier_uniform(1.0),
            ),
            in_proj_bias: part.bias("in_proj_bias", [embed_dim.saturating_mul(3)], init::zeros()),
            out_proj,
            num_heads,
            options: Attention::default(),
            rotary_base: None,
        }
    }

    /// Each position attends only to itself and earlier positions.
    pub fn causal(self) -> MultiheadAttention {
        MultiheadAttention { options: Attention { is_causal: true, ..self.options }, ..self }
    }

    /// Masks the attention of [`MultiheadAttention::forward`]: `mask` broadcasts to `[N, heads, L, L]`; see
    /// [`Attention::attn_mask`].
    pub fn mask(self, mask: &Value) -> MultiheadAttention {
        MultiheadAttention { options: Attention { attn_mask: Some(mask.clone()), ..self.options }, ..self }
    }

    /// Rotates queries and keys by their positions; see [`rotary`].
    pub fn rotary(self, base: f64) -> MultiheadAttention {
        MultiheadAttention { rotary_base: Some(base), ..self }
    }

    /// Attention from queries `[N, L, embed_dim]` to keys and values `[N, S, embed_dim]`; the result is
    /// `[N, L, embed_dim]`. A mask broadcasts to `[N, heads, L, S]`.
    #[track_caller]
    pub fn attend(&self, query: &Value, key: &Value, value: &Value, options: &Attention) -> Value {
        let inputs = [query, key, value];
        if let Err(invalid) = query.graph().admit("multi_head_attention", &[query, key, value, &self.in_proj_weight]) {
            return invalid;
        }
        let width = self.in_proj_weight.dim(-1);
        let fits = |x: &Value| x.shape().rank() == 3 && x.dim(-1) == width;
        if !inputs.iter().all(|x| fits(x)) || self.num_heads == 0 || !width.is_multiple_of(self.num_heads) {
            let why = format!(
                "expected query, key and value [N, L, {width}] and a number of heads that divides {width}, not {}",
                self.num_heads
            );
            return query.graph().error("multi_head_attention", &inputs, why);
        }
        let attend = || {
            let [q, k, v] = self.projected(inputs).map(|x| self.heads(&x));
            let turn = |x: &Value| self.rotary_base.map_or_else(|| x.clone(), |base| rotary(x, base));
            let y = turn(&q).scaled_dot_product_attention(&turn(&k), &v, options);
            let sizes = [query.dim(0), query.dim(1), width].map(|size| size as isize);
            self.out_proj.forward(&y.permute(&[0, 2, 1, 3]).reshape(&sizes))
        };
        query.graph().at(std::panic::Location::caller(), attend)
    }

    /// The three projections; a single product if all inputs are the same value.
    fn projected(&self, inputs: [&Value; 3]) -> [Value; 3] {
        let width = self.in_proj_weight.dim(-1);
        let part = |x: &Value, axis: isize, i: usize| x.slice(axis, i * width, (i + 1) * width, 1);
        let bias = self.in_proj_bias.as_ref();
        if inputs.iter().all(|x| x.id() == inputs[0].id()) {
            let all = Linear { weight: self.in_proj_weight.clone(), bias: bias.cloned() }.forward(inputs[0]);
            return std::array::from_fn(|i| part(&all, -1, i));
        }
        std::array::from_fn(|i| {
            let bias = bias.map(|bias| part(bias, 0, i));
            Linear { weight: part(&self.in_proj_weight, 0, i), bias }.forward(inputs[i])
        })
    }

    /// `[N, L, heads * D]` to `[N, heads, L, D]`.
    fn heads(&self, x: &Value) -> Value {
        let sizes = [x.dim(0), x.dim(1), self.num_heads, x.dim(2) / self.num_heads];
        x.reshape(&sizes.map(|size| size as isize)).permute(&[0, 2, 1, 3])
    }
}

impl Layer for MultiheadAttention {
    /// Self-attention for data `[N, L, embed_dim]`.
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        self.attend(x, x, x, &self.options)
    }
}

/// Sinusoidal position encodings, a constant `[length, width]` to add to a sequence: for position `t` and pair `i`,
/// the sine (at `2 i`) and cosine (at `2 i + 1`) of `t / 10000^(2 i / width)` (Vaswani et al., *Attention is all you
/// need*, 2017, section 3.5).
///
/// ```
/// use wgrad::{DType, Graph, nn};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [8, 20, 64]);
/// let x = &x + nn::sinusoidal_positions(&graph, 20, 64);
/// assert_eq!(x.shape().to_vec(), [8, 20, 64]);
/// ```
#[track_caller]
pub fn sinusoidal_positions(graph: &Graph, length: usize, width: usize) -> Value {
    if length.saturating_mul(width) >= 1 << 31 {
        return graph.error("sinusoidal_positions", &[], format!("{length} x {width} is too large"));
    }
    let values = (0..length * width).map(|at| {
        let (place, number) = (at / width, at % width);
        let angle = place as f64 / 10_000f64.powf((number / 2 * 2) as f64 / width as f64);
        if number % 2 == 0 { angle.sin() } else { angle.cos() }
    });
    constant(graph, [length, width], values)
}

/// Rotates queries or keys `[.., L, D]` by their positions, so that their products depend on relative positions (Su
/// et al., *RoFormer: enhanced transformer with rotary position embedding*, 2021). With `h = D / 2` and the angle
/// `a = t / base^(i / h)`, the elements `x[i]` and `x[i + h]` at position `t` become `x[i] cos a - x[i + h] sin a` and
/// `x[i + h] cos a + x[i] sin a`. `base` is usually 10,000; D must be even. (The paper pairs `2 i` and `2 i + 1`;
/// pairing halves, like most published models, is equivalent up to the order of the elements.)
#[track_caller]
pub fn rotary(x: &Value, base: f64) -> Value {
    if !x.is_valid() {
        return x.clone();
    }
    let (length, width) = (x.dim(-2), x.dim(-1));
    let sound = x.dtype().is_float() && x.shape().rank() >= 2 && width.is_multiple_of(2);
    if !(sound && base > 0.0 && base.is_finite()) {
        return x.graph().error("rotary", &[x], "expected floats [.., L, D] with an even D, and a base above 0");
    }
    let half = width / 2;
    let angle = |at: usize| (at / half) as f64 / base.powf((at % half) as f64 / half as f64);
    x.widely(|x| {
        let cos = constant(x.graph(), [length, half], (0..length * half).map(|at| angle(at).cos()));
        let sin = constant(x.graph(), [length, half], (0..length * half).map(|at| angle(at).sin()));
        let (a, b) = (x.slice(-1, 0, half, 1), x.slice(-1, half, width, 1));
        (&a * &cos - &b * &sin).concat(&[&(b * cos + a * sin)], -1)
    })
}

fn constant(graph: &Graph, shape: [usize; 2], values: impl Iterator<Item = f64>) -> Value {
    graph.constant(Tensor::of(&shape.into(), values.collect::<Vec<f64>>()))
}
