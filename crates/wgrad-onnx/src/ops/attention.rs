//! Attention and what belongs to transformers.

use wgrad::ops::attention::Attention;
use wgrad::{DType, Value};

use super::Family;
use super::index::from_zero;
use crate::constant::{Constant, ElemType};
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("Attention", attention),
    ("CausalConvWithState", causal_conv),
    ("LinearAttention", linear_attention),
    ("RotaryEmbedding", rotary),
    ("SwiGLU", swiglu),
];

/// `[n, length, heads * d]` as `[n, heads, length, d]`.
fn by_head(x: &Value, heads: i64) -> Result<Value> {
    let &[n, length, width] = &x.shape()[..] else { return Ok(x.clone()) };
    let heads = usize::try_from(heads).ok().filter(|&heads| heads > 0 && width.is_multiple_of(heads));
    let heads = heads.ok_or_else(|| format!("{width} numbers do not divide into heads"))?;
    Ok(x.reshape(&signed(&[n, length, heads, width / heads])).permute(&[0, 2, 1, 3]))
}

/// The inverse of [`by_head`].
fn joined(x: &Value) -> Value {
    let (n, heads, length, width) = (x.dim(0), x.dim(1), x.dim(2), x.dim(3));
    x.permute(&[0, 2, 1, 3]).reshape(&signed(&[n, length, heads * width]))
}

/// Each head `count` times in a row.
fn repeated(x: &Value, count: usize) -> Value {
    let (n, heads, length, width) = (x.dim(0), x.dim(1), x.dim(2), x.dim(3));
    if count == 1 {
        return x.clone();
    }
    let wide = x.reshape(&signed(&[n, heads, 1, length, width])).broadcast_to(&[n, heads, count, length, width].into());
    wide.reshape(&signed(&[n, heads * count, length, width]))
}

/// The axes of a mask, right-aligned to four.
fn four_axes(x: &Value) -> Value {
    let mut shape = vec![1isize; 4usize.saturating_sub(x.shape().rank())];
    shape.extend(x.shape().iter().map(|&size| size as isize));
    x.reshape(&shape)
}

fn attention(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let (q, k, v) = (node.value(0)?, node.value(1)?, node.value(2)?);
    let (q_heads, kv_heads) = (node.int("q_num_heads", 0), node.int("kv_num_heads", 0));
    let flat = q.shape().rank() == 3;
    let [q, k, v] = [by_head(&q, q_heads)?, by_head(&k, kv_heads)?, by_head(&v, kv_heads)?];
    if [&q, &k, &v].iter().any(|x| x.shape().rank() != 4) {
        return Err("queries, keys and values must have 3 or 4 axes".into());
    }
    let past = [node.optional_value(4)?, node.optional_value(5)?];
    let past_length = past[0].as_ref().map_or(0, |past| past.dim(2));
    let [past_key, past_value] = past;
    let key = past_key.map_or(k.clone(), |past| past.concat(&[&k], 2));
    let value = past_value.map_or(v.clone(), |past| past.concat(&[&v], 2));
    let (length, keys) = (q.dim(2), key.dim(2));

    let lengths = node.optional_value(6)?;
    let scale = node.optional_attribute_number("scale").unwrap_or_else(|| 1.0 / (q.dim(3) as f64).sqrt());
    let (causal, softcap) = (node.flag("is_causal", false), node.number("softcap", 0.0));
    let (left, right) = (node.int("left_window_size", -1), node.int("right_window_size", -1));
    let mode = node.int("qk_matmul_output_mode", 0);
    node.attribute("softmax_precision");
    let wants_scores = node.proto.output.get(3).is_some_and(|name| !name.is_empty());

    // Which keys a query may attend to.
    let graph = node.graph().clone();
    let place = |axis: isize| graph.iota(DType::I32, [1, 1, length, keys], axis);
    let first = match &lengths {
        Some(lengths) if past_length == 0 => lengths.cast(DType::I32).reshape(&[-1, 1, 1, 1]) - length as f64,
        _ => graph.full(DType::I32, [1, 1, 1, 1], past_length as f64),
    };
    let mut allowed: Option<Value> = None;
    let mut allow = |more: Value| {
        allowed = Some(match allowed.take() {
            Some(allowed) => allowed.and(&more),
            None => more,
        });
    };
    if causal {
        allow(place(3).le(&(place(2) + &first)));
    }
    let ahead = place(2) + &first - place(3);
    if left >= 0 {
        allow(ahead.le(&ahead.full_like(left as f64)));
    }
    if right >= 0 {
        allow((-&ahead).le(&ahead.full_like(right as f64)));
    }
    if let Some(lengths) = &lengths {
        allow(place(3).lt(&lengths.cast(DType::I32).reshape(&[-1, 1, 1, 1])));
    }
    let mut bias: Option<Value> = None;
    if let Some(mask) = node.optional_value(3)? {
        let missing = keys.saturating_sub(mask.dim(-1));
        let mask = if missing == 0 {
            mask
        } else {
            let mut shape = mask.shape().to_vec();
            *shape.last_mut().ok_or("its mask is a scalar")? = missing;
            let border = if mask.dtype() == DType::Bool { 0.0 } else { f64::NEG_INFINITY };
            mask.concat(&[&graph.full(mask.dtype(), shape, border)], -1)
        };
        match mask.dtype() {
            DType::Bool => allow(four_axes(&mask)),
            _ => bias = Some(four_axes(&mask)),
        }
    }

    let heads = q.dim(1) / key.dim(1).max(1);
    let (wide_key, wide_value) = (repeated(&key, heads), repeated(&value, heads));
    let plain = softcap == 0.0 && !wants_scores && bias.is_none() && ty != ElemType::F64;
    let only_causal =
        causal && left < 0 && right < 0 && lengths.is_none() && past_length == 0 && node.optional(3).is_none();
    let mut scores_out = None;
    let y = if plain && (allowed.is_none() || only_causal) {
        let options = Attention { attn_mask: None, is_causal: causal, scale: Some(scale) };
        q.scaled_dot_product_attention(&wide_key, &wide_value, &options)
    } else {
        let root = scale.sqrt();
        let product = (&q * root).matmul(&(&wide_key * root).permute(&[0, 1, 3, 2]));
        let capped = if softcap > 0.0 { (&product / softcap).tanh() * softcap } else { product.clone() };
        let mut scores = capped.clone();
        if let Some(bias) = bias {
            scores = scores + bias;
        }
        if let Some(allowed) = allowed {
            scores = allowed.where_(&scores, &scores.full_like(f64::NEG_INFINITY));
        }
        // A query without keys has weights of 0.
        let most = scores.max(&[3], true);
        let empty = most.eq(&most.full_like(f64::NEG_INFINITY));
        let most = empty.where_(&most.zeros_like(), &most);
        let powers = (&scores - most).exp();
        let total = powers.sum(&[3], true);
        let weights = powers / empty.where_(&total.ones_like(), &total);
        scores_out = Some(match mode {
            0 => product,
            1 => capped,
            2 => scores,
            _ => weights.clone(),
        });
        weights.matmul(&wide_value)
    };
    let y = node.checked(if flat { joined(&y) } else { y })?;
    let mut outputs = vec![node.result(y, ty), node.result(key, ty), node.result(value, ty)];
    if let Some(scores) = scores_out {
        let scores = node.checked(scores)?;
        outputs.push(node.result(scores, ty));
    }
    Ok(outputs)
}

fn rotary(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let (interleaved, rotated, heads) =
        (node.flag("interleaved", false), node.int("rotary_embedding_dim", 0), node.int("num_heads", 0));
    let flat = x.shape().rank() == 3;
    let by_heads = by_head(&x, heads)?;
    if by_heads.shape().rank() != 4 {
        return Err("its input must have 3 or 4 axes".into());
    }
    let width = by_heads.dim(3);
    let rotated = if rotated == 0 { width } else { (rotated.max(0) as usize).min(width) };
    let table = |at: usize| -> Result<Value> {
        let table = node.value(at)?;
        let table = match node.optional_value(3)? {
            Some(places) => {
                let shape = [places.shape().to_vec(), vec![table.dim(-1)]].concat();
                let places = from_zero(&places, table.dim(0)).reshape(&[-1]);
                table.index_select(0, &places).reshape(&signed(&shape))
            }
            None => table,
        };
        // [n, length, width] to [n, 1, length, width].
        let shape = table.shape().to_vec();
        Ok(table.reshape(&signed(&[shape[0], 1, shape[1], shape[2]])))
    };
    let (cos, sin) = (table(1)?, table(2)?);
    let (turning, rest) = (by_heads.slice(3, 0, rotated, 1), by_heads.slice(3, rotated, width, 1));
    let half = rotated / 2;
    let (a, b) = match interleaved {
        true => (turning.slice(3, 0, rotated, 2), turning.slice(3, 1, rotated, 2)),
        false => (turning.slice(3, 0, half, 1), turning.slice(3, half, rotated, 1)),
    };
    let (real, imaginary) = (&cos * &a - &sin * &b, &sin * &a + &cos * &b);
    let turned = match interleaved {
        true => {
            let mut shape = real.shape().to_vec();
            shape.push(1);
            let pair = real.reshape(&signed(&shape)).concat(&[&imaginary.reshape(&signed(&shape))], 4);
            pair.reshape(&signed(turning.shape()))
        }
        false => real.concat(&[&imaginary], 3),
    };
    let y = if rotated == width { turned } else { turned.concat(&[&rest], 3) };
    let y = node.checked(if flat { joined(&y) } else { y })?;
    Ok(vec![node.result(y, ty)])
}

/// A recurrence over matrices: `S = exp(decay) S + k (v - beta S^T k)^T`, `y = scale S^T q`.
fn linear_attention(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let (q_heads, kv_heads) = (node.int("q_num_heads", 0), node.int("kv_num_heads", 0));
    let rule = node.text("update_rule", "gated_delta");
    node.attribute("chunk_size");
    let wide = |value: Value| value.cast(DType::F32);
    let q = by_head(&wide(node.value(0)?), q_heads)?;
    let k = by_head(&wide(node.value(1)?), kv_heads)?;
    let v = by_head(&wide(node.value(2)?), kv_heads)?;
    let (n, heads, length, dk, dv) = (k.dim(0), k.dim(1), k.dim(2), k.dim(3), v.dim(3));
    const LONGEST: usize = 256;
    if length > LONGEST {
        return Err(format!("{length} steps are unrolled; at most {LONGEST} are supported").into());
    }
    let scale = node.optional_attribute_number("scale").filter(|scale| *scale != 0.0);
    let scale = scale.unwrap_or_else(|| 1.0 / (dk as f64).sqrt());
    let part = |at: usize| -> Result<Option<Value>> {
        let Some(x) = node.optional_value(at)? else { return Ok(None) };
        let x = wide(x);
        let heads = if x.dim(-1) == 1 { 1 } else { kv_heads };
        by_head(&x, heads).map(Some)
    };
    let (decay, beta) = (part(4)?, part(5)?);
    let state_ty = node.optional(3).map_or(ty, |state| state.ty());
    let mut state = match node.optional_value(3)? {
        Some(state) => wide(state),
        None => node.graph().full(DType::F32, [n, heads, dk, dv], 0.0),
    };
    let at = |x: &Value, step: usize| x.slice(2, step, step + 1, 1);
    let mut outputs: Vec<Value> = Vec::new();
    for step in 0..length {
        if let Some(decay) = decay.as_ref().filter(|_| rule.starts_with("gated")) {
            state = state * at(decay, step).exp().permute(&[0, 1, 3, 2]);
        }
        let key = at(&k, step);
        let mut value = at(&v, step);
        if let Some(beta) = beta.as_ref().filter(|_| rule.ends_with("delta")) {
            value = at(beta, step) * (value - key.matmul(&state));
        }
        state = state + key.permute(&[0, 1, 3, 2]).matmul(&value);
        outputs.push(at(&q, step).matmul(&repeated(&state, q.dim(1) / heads.max(1))) * scale);
    }
    let y = match &outputs[..] {
        [] => return Err("it has no steps".into()),
        [first, others @ ..] => first.concat(&others.iter().collect::<Vec<_>>(), 2),
    };
    let (y, state) = (node.checked(joined(&y))?, node.checked(state)?);
    Ok(vec![node.result(y, ty), node.result(state, state_ty)])
}

/// A depthwise convolution over what came before, with the last inputs as state.
fn causal_conv(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, w, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    if x.shape().rank() != 3 || w.shape().rank() != 3 {
        return Err("its input and weights must have 3 axes".into());
    }
    let (n, channels, before) = (x.dim(0), x.dim(1), w.dim(2) - 1);
    let past = match node.optional_value(3)? {
        Some(past) => past,
        None => node.graph().full(x.dtype(), [n, channels, before], 0.0),
    };
    let padded = if before == 0 { x.clone() } else { past.concat(&[&x], 2) };
    let window = super::convolution::Window { kernel: before + 1, stride: 1, dilation: 1, before: 0, after: 0 };
    let mut y = super::convolution::convolved(&padded, &w, &[window], channels)?;
    if let Some(bias) = node.optional_value(2)? {
        y = y + bias.reshape(&[1, -1, 1]);
    }
    let y = match node.text("activation", "none").as_str() {
        "none" => y,
        "silu" | "swish" => y.silu(),
        other => return Err(format!("the activation `{other}` is unknown").into()),
    };
    let y = node.checked(y)?;
    let state = match before {
        0 => Val::constant(Constant::floats(ty, vec![n, channels, 0], vec![])),
        _ => node.result(padded.slice(2, padded.dim(2) - before, padded.dim(2), 1), ty),
    };
    Ok(vec![node.result(y, ty), state])
}

/// `a sigmoid(alpha a) b`.
fn swiglu(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let alpha = node.number("alpha", 1.0);
    let y = node.checked(&a * (&a * alpha).sigmoid() * b)?;
    Ok(vec![node.result(y, ty)])
}
