//! The layers of transformers (Vaswani et al., *Attention is all you need*, 2017), with PyTorch's names.

use std::panic::Location;

use super::layers::{Dropout, Layer, Linear};
use super::norm::LayerNorm;
use super::{MultiheadAttention, Scope};
use crate::Value;
use crate::ops::attention::Attention;

/// A function applied to each element, such as [`Value::relu`].
type Activation = fn(&Value) -> Value;

/// Self-attention, then two linear layers, each with a shortcut and a norm. For data `[N, L, d_model]`:
/// `x = norm1(x + drop(self_attn(x)))`, then `norm2(x + drop(linear2(drop(relu(linear1(x))))))`.
///
/// With [`norm_first`](TransformerEncoderLayer::norm_first), the norms move to the start of the branches:
/// `x + drop(self_attn(norm1(x)))`, then `x + drop(linear2(drop(relu(linear1(norm2(x))))))`, which trains without
/// learning-rate warm-up (Xiong et al., *On layer normalization in the transformer architecture*, 2020). With
/// [`causal`](TransformerEncoderLayer::causal), this is the block of a decoder-only model.
///
/// Names, layouts and defaults match PyTorch's `TransformerEncoderLayer` with `batch_first`: `self_attn`
/// ([`MultiheadAttention`]), `linear1`, `linear2`, `norm1`, `norm2`. In training, PyTorch also drops attention weights.
///
/// ```
/// use wgrad::nn::{Layer, Scope, TransformerEncoderLayer};
/// use wgrad::{DType, Graph, Value};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [8, 20, 64]);
/// let nn = Scope::train(&graph, 0);
/// let layer = TransformerEncoderLayer::new(&nn, "block", 64, 4, 256, 0.1);
/// let layer = layer.norm_first().activation(Value::gelu).causal();
/// assert_eq!(layer.forward(&x).shape()[..], [8, 20, 64]);
/// ```
#[derive(Clone, Debug)]
pub struct TransformerEncoderLayer {
    /// Self-attention, with its mask.
    pub self_attn: MultiheadAttention,
    /// From `d_model` to `dim_feedforward`.
    pub linear1: Linear,
    /// From `dim_feedforward` to `d_model`.
    pub linear2: Linear,
    /// The norm of the attention.
    pub norm1: LayerNorm,
    /// The norm of the linear layers.
    pub norm2: LayerNorm,
    dropout: Dropout,
    activation: Activation,
    norm_first: bool,
}

impl TransformerEncoderLayer {
    /// Declares the parameters. `dropout` is a probability.
    #[track_caller]
    pub fn new(
        nn: &Scope,
        name: &str,
        d_model: usize,
        num_heads: usize,
        dim_feedforward: usize,
        dropout: f64,
    ) -> TransformerEncoderLayer {
        let part = nn.part(name);
        TransformerEncoderLayer {
            self_attn: MultiheadAttention::new(&part, "self_attn", d_model, num_heads),
            linear1: Linear::new(&part, "linear1", d_model, dim_feedforward),
            linear2: Linear::new(&part, "linear2", dim_feedforward, d_model),
            norm1: LayerNorm::new(&part, "norm1", &[d_model]),
            norm2: LayerNorm::new(&part, "norm2", &[d_model]),
            dropout: Dropout::new(&part, dropout),
            activation: Value::relu,
            norm_first: false,
        }
    }

    /// Normalises the input of each branch instead of the sums.
    pub fn norm_first(self) -> TransformerEncoderLayer {
        TransformerEncoderLayer { norm_first: true, ..self }
    }

    /// Sets the function between the linear layers; the default is [`Value::relu`].
    pub fn activation(self, activation: Activation) -> TransformerEncoderLayer {
        TransformerEncoderLayer { activation, ..self }
    }

    /// Each position attends only to itself and earlier positions.
    pub fn causal(self) -> TransformerEncoderLayer {
        TransformerEncoderLayer { self_attn: self.self_attn.causal(), ..self }
    }

    /// Masks the attention, for example padding; see [`MultiheadAttention::mask`].
    pub fn mask(self, mask: &Value) -> TransformerEncoderLayer {
        TransformerEncoderLayer { self_attn: self.self_attn.mask(mask), ..self }
    }
}

impl Layer for TransformerEncoderLayer {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.graph().at(Location::caller(), || {
            let drop = |x: Value| self.dropout.forward(&x);
            let x = shortcut(x, &self.norm1, self.norm_first, |x| drop(self.self_attn.forward(x)));
            let inner = |x: &Value| drop((self.activation)(&self.linear1.forward(x)));
            shortcut(&x, &self.norm2, self.norm_first, |x| drop(self.linear2.forward(&inner(x))))
        })
    }
}

/// `x + branch(norm(x))` or `norm(x + branch(x))`.
fn shortcut(x: &Value, norm: &LayerNorm, first: bool, branch: impl Fn(&Value) -> Value) -> Value {
    if first { x + branch(&norm.forward(x)) } else { norm.forward(&(x + branch(x))) }
}

/// [`TransformerEncoderLayer`]s in sequence, and optionally a last norm, which models with
/// [`norm_first`](TransformerEncoderLayer::norm_first) need.
///
/// ```
/// use wgrad::nn::{Layer, LayerNorm, Scope, TransformerEncoder, TransformerEncoderLayer};
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let nn = Scope::train(&graph, 0);
/// let encoder = TransformerEncoder::new(&nn, "encoder", 6, |nn, name| {
///     TransformerEncoderLayer::new(nn, name, 64, 4, 256, 0.1).norm_first()
/// })
/// .norm(LayerNorm::new(&nn, "encoder.norm", &[64]));
/// assert_eq!(encoder.forward(&graph.input("x", DType::F32, [8, 20, 64])).shape()[..], [8, 20, 64]);
/// let names: Vec<String> = graph.parameters().into_iter().map(|(name, _)| name).collect();
/// assert!(names.contains(&"encoder.layers.5.self_attn.out_proj.weight".to_owned()));
/// ```
#[derive(Clone, Debug)]
pub struct TransformerEncoder {
    /// The layers, named `NAME.layers.0`, `NAME.layers.1`, ...
    pub layers: Vec<TransformerEncoderLayer>,
    /// Applied to the output of the last layer.
    pub norm: Option<LayerNorm>,
}

impl TransformerEncoder {
    /// `count` layers; `layer` makes each from a scope and a name.
    pub fn new(
        nn: &Scope,
        name: &str,
        count: usize,
        layer: impl Fn(&Scope, &str) -> TransformerEncoderLayer,
    ) -> TransformerEncoder {
        let part = nn.part(name).part("layers");
        TransformerEncoder { layers: (0..count).map(|i| layer(&part, &i.to_string())).collect(), norm: None }
    }

    /// Applies a norm to the output of the last layer. PyTorch's name for it is `NAME.norm`.
    pub fn norm(self, norm: LayerNorm) -> TransformerEncoder {
        TransformerEncoder { norm: Some(norm), ..self }
    }
}

impl Layer for TransformerEncoder {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.graph().at(Location::caller(), || {
            let x = self.layers.iter().fold(x.clone(), |x, layer| layer.forward(&x));
            self.norm.as_ref().map_or(x.clone(), |norm| norm.forward(&x))
        })
    }
}

/// Self-attention, attention to the output of an encoder (the memory), then two linear layers, each with a shortcut and
/// a norm, for data `[N, L, d_model]` and memory `[N, S, d_model]`.
///
/// Names, layouts and defaults match PyTorch's `TransformerDecoderLayer` with `batch_first`: `self_attn` and
/// `multihead_attn` ([`MultiheadAttention`]), `linear1`, `linear2`, `norm1`, `norm2`, `norm3`. In training, PyTorch also
/// drops attention weights.
///
/// ```
/// use wgrad::nn::{Scope, TransformerDecoderLayer};
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [8, 20, 64]);
/// let memory = graph.input("memory", DType::F32, [8, 50, 64]);
/// let layer = TransformerDecoderLayer::new(&Scope::train(&graph, 0), "block", 64, 4, 256, 0.1).causal();
/// assert_eq!(layer.forward(&x, &memory).shape()[..], [8, 20, 64]);
/// ```
#[derive(Clone, Debug)]
pub struct TransformerDecoderLayer {
    /// Self-attention, with its mask.
    pub self_attn: MultiheadAttention,
    /// Attention to the memory, with its mask.
    pub multihead_attn: MultiheadAttention,
    /// From `d_model` to `dim_feedforward`.
    pub linear1: Linear,
    /// From `dim_feedforward` to `d_model`.
    pub linear2: Linear,
    /// The norm of the self-attention.
    pub norm1: LayerNorm,
    /// The norm of the attention to the memory.
    pub norm2: LayerNorm,
    /// The norm of the linear layers.
    pub norm3: LayerNorm,
    dropout: Dropout,
    activation: Activation,
    norm_first: bool,
}

impl TransformerDecoderLayer {
    /// Declares the parameters. `dropout` is a probability.
    #[track_caller]
    pub fn new(
        nn: &Scope,
        name: &str,
        d_model: usize,
        num_heads: usize,
        dim_feedforward: usize,
        dropout: f64,
    ) -> TransformerDecoderLayer {
        let part = nn.part(name);
        TransformerDecoderLayer {
            self_attn: MultiheadAttention::new(&part, "self_attn", d_model, num_heads),
            multihead_attn: MultiheadAttention::new(&part, "multihead_attn", d_model, num_heads),
            linear1: Linear::new(&part, "linear1", d_model, dim_feedforward),
            linear2: Linear::new(&part, "linear2", dim_feedforward, d_model),
            norm1: LayerNorm::new(&part, "norm1", &[d_model]),
            norm2: LayerNorm::new(&part, "norm2", &[d_model]),
            norm3: LayerNorm::new(&part, "norm3", &[d_model]),
            dropout: Dropout::new(&part, dropout),
            activation: Value::relu,
            norm_first: false,
        }
    }

    /// Normalises the input of each branch instead of the sums.
    pub fn norm_first(self) -> TransformerDecoderLayer {
        TransformerDecoderLayer { norm_first: true, ..self }
    }

    /// Sets the function between the linear layers; the default is [`Value::relu`].
    pub fn activation(self, activation: Activation) -> TransformerDecoderLayer {
        TransformerDecoderLayer { activation, ..self }
    }

    /// Each position attends only to itself and earlier positions of the data, and to all of the memory.
    pub fn causal(self) -> TransformerDecoderLayer {
        TransformerDecoderLayer { self_attn: self.self_attn.causal(), ..self }
    }

    /// Masks the self-attention; see [`MultiheadAttention::mask`].
    pub fn mask(self, mask: &Value) -> TransformerDecoderLayer {
        TransformerDecoderLayer { self_attn: self.self_attn.mask(mask), ..self }
    }

    /// Masks the attention to the memory: the mask broadcasts to `[N, heads, L, S]`.
    pub fn memory_mask(self, mask: &Value) -> TransformerDecoderLayer {
        let options = Attention { attn_mask: Some(mask.clone()), ..self.multihead_attn.options };
        TransformerDecoderLayer { multihead_attn: MultiheadAttention { options, ..self.multihead_attn }, ..self }
    }

    /// The output `[N, L, d_model]` for data `[N, L, d_model]` and memory `[N, S, d_model]`.
    #[track_caller]
    pub fn forward(&self, x: &Value, memory: &Value) -> Value {
        x.graph().at(Location::caller(), || {
            let drop = |x: Value| self.dropout.forward(&x);
            let x = shortcut(x, &self.norm1, self.norm_first, |x| drop(self.self_attn.forward(x)));
            let attend = |x: &Value| self.multihead_attn.attend(x, memory, memory, &self.multihead_attn.options);
            let x = shortcut(&x, &self.norm2, self.norm_first, |x| drop(attend(x)));
            let inner = |x: &Value| drop((self.activation)(&self.linear1.forward(x)));
            shortcut(&x, &self.norm3, self.norm_first, |x| drop(self.linear2.forward(&inner(x))))
        })
    }
}

/// [`TransformerDecoderLayer`]s in sequence, all with the same memory, and optionally a last norm. Made like a
/// [`TransformerEncoder`].
///
/// ```
/// use wgrad::nn::{LayerNorm, TransformerDecoder, TransformerDecoderLayer};
/// use wgrad::prelude::*;
/// let graph = Graph::new();
/// let nn = Scope::train(&graph, 0).part("decoder");
/// let layer = |i| TransformerDecoderLayer::new(&nn, &format!("layers.{i}"), 64, 4, 256, 0.1).causal();
/// let norm = LayerNorm::new(&nn, "norm", &[64]);
/// let decoder = TransformerDecoder { layers: (0..2).map(layer).collect(), norm: Some(norm) };
/// let [x, memory] = [("x", 20), ("memory", 50)].map(|(name, length)| graph.input(name, DType::F32, [8, length, 64]));
/// assert_eq!(decoder.forward(&x, &memory).shape()[..], [8, 20, 64]);
/// ```
#[derive(Clone, Debug)]
pub struct TransformerDecoder {
    /// The layers, named `NAME.layers.0`, `NAME.layers.1`, ...
    pub layers: Vec<TransformerDecoderLayer>,
    /// Applied to the output of the last layer.
    pub norm: Option<LayerNorm>,
}

impl TransformerDecoder {
    /// `count` layers; `layer` makes each from a scope and a name.
    pub fn new(
        nn: &Scope,
        name: &str,
        count: usize,
        layer: impl Fn(&Scope, &str) -> TransformerDecoderLayer,
    ) -> TransformerDecoder {
        let part = nn.part(name).part("layers");
        TransformerDecoder { layers: (0..count).map(|i| layer(&part, &i.to_string())).collect(), norm: None }
    }

    /// Applies a norm to the output of the last layer. PyTorch's name for it is `NAME.norm`.
    pub fn norm(self, norm: LayerNorm) -> TransformerDecoder {
        TransformerDecoder { norm: Some(norm), ..self }
    }

    /// The output `[N, L, d_model]` for data `[N, L, d_model]` and memory `[N, S, d_model]`.
    #[track_caller]
    pub fn forward(&self, x: &Value, memory: &Value) -> Value {
        x.graph().at(Location::caller(), || {
            let x = self.layers.iter().fold(x.clone(), |x, layer| layer.forward(&x, memory));
            self.norm.as_ref().map_or(x.clone(), |norm| norm.forward(&x))
        })
    }
}
