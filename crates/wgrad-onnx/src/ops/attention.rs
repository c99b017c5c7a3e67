//! Attention and what belongs to transformers.

use wgrad::ops::attention::Attention;
use wgrad::{DType, Value};

use super::Family;
use super::index::from_zero;
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("Attention", attention),
    ("CausalConvWithState", causal_conv),
    ("LinearAttention", linear_attention),
    ("RotaryEmbedding", rotary),
    ("SwiGLU", swiglu),
    ("ai.onnx.preview.FlexAttention", flex_attention),
    ("com.microsoft.GroupQueryAttention", group_query_attention),
    ("com.microsoft.MultiHeadAttention", multi_head_attention),
    ("com.microsoft.RotaryEmbedding", rotary_of_microsoft),
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

/// How the scores of attention become weights.
struct Scores {
    scale: f64,
    /// The limit of scores; 0 for none.
    softcap: f64,
    /// Added to the scores.
    bias: Option<Value>,
    /// Which keys a query may attend to.
    allowed: Option<Value>,
    /// Which scores are a result: the products, those with a limit, those with a mask, or the weights.
    mode: i64,
}

/// Attention by products, softmax and sums, for what the fused op does not have. Returns also the scores.
fn weighted(q: &Value, key: &Value, value: &Value, options: &Scores) -> (Value, Value) {
    let Scores { scale, softcap, bias, allowed, mode } = options;
    let root = scale.sqrt();
    let product = (q * root).matmul(&(key * root).permute(&[0, 1, 3, 2]));
    let capped = if *softcap > 0.0 { (&product / *softcap).tanh() * *softcap } else { product.clone() };
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
    let y = weights.matmul(value);
    let scores = match mode {
        0 => product,
        1 => capped,
        2 => scores,
        _ => weights,
    };
    (y, scores)
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
        let (y, scores) = weighted(&q, &wide_key, &wide_value, &Scores { scale, softcap, bias, allowed, mode });
        scores_out = Some(scores);
        y
    };
    let y = node.checked(if flat { joined(&y) } else { y })?;
    let mut outputs = vec![node.result(y, ty), node.result(key, ty), node.result(value, ty)];
    if let Some(scores) = scores_out {
        let scores = node.checked(scores)?;
        outputs.push(node.result(scores, ty));
    }
    Ok(outputs)
}

/// Pairs of numbers, turned by angles: neighbours, or those half of the width apart.
fn turned(x: &Value, cos: &Value, sin: &Value, interleaved: bool) -> Value {
    let width = x.dim(3);
    let half = width / 2;
    let (a, b) = match interleaved {
        true => (x.slice(3, 0, width, 2), x.slice(3, 1, width, 2)),
        false => (x.slice(3, 0, half, 1), x.slice(3, half, width, 1)),
    };
    let (real, imaginary) = (cos * &a - sin * &b, sin * &a + cos * &b);
    match interleaved {
        true => {
            let mut shape = real.shape().to_vec();
            shape.push(1);
            let pair = real.reshape(&signed(&shape)).concat(&[&imaginary.reshape(&signed(&shape))], 4);
            pair.reshape(&signed(x.shape()))
        }
        false => real.concat(&[&imaginary], 3),
    }
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
    let turned = turned(&turning, &cos, &sin, interleaved);
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

/// Attention whose scores and weights are changed by graphs.
fn flex_attention(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let (q, k, v) = (node.value(0)?, node.value(1)?, node.value(2)?);
    let four = [&q, &k, &v].iter().all(|x| x.shape().rank() == 4);
    if !four || k.dim(1) == 0 || !q.dim(1).is_multiple_of(k.dim(1)) {
        return Err(format!("queries {}, keys {} and values {} do not fit", q.ty(), k.ty(), v.ty()).into());
    }
    let scale = node.optional_attribute_number("scale").unwrap_or_else(|| 1.0 / (q.dim(3) as f64).sqrt());
    let default = if ty == ElemType::F64 { ElemType::F64 } else { ElemType::F32 };
    let precision = node.elem_type("softmax_precision", default)?;
    let heads = q.dim(1) / k.dim(1);
    let (key, value) = (repeated(&k, heads), repeated(&v, heads));
    let scores = q.cast(DType::F32).matmul(&key.cast(DType::F32).permute(&[0, 1, 3, 2])) * scale;
    let mut scores = node.stored(scores, precision);
    let mut change = |name: &'static str, x: Value| -> Result<Value> {
        if node.attribute(name).is_none() {
            return Ok(x);
        }
        let graph = node.subgraph(name)?;
        let shape = x.shape().to_vec();
        let inputs = [Val::graph(node.checked(x)?, precision)];
        let found = node.builder.subgraph(&graph, &inputs)?.ok_or(crate::node::Why::AfterProblem)?;
        let [found] = &found[..] else { return Err(format!("its {name} does not have one output").into()) };
        if found.shape() != shape || found.ty() != precision {
            return Err(format!("its {name} changes the shape or the type of what it is given").into());
        }
        node.value_of(found)
    };
    scores = change("score_mod", scores)?;
    let weights = change("prob_mod", scores.softmax(3))?;
    let y = node.checked(weights.cast(DType::F32).matmul(&value.cast(DType::F32)))?;
    Ok(vec![node.result(y, ty)])
}

/// Rotary embedding of heads `[n, heads, length, d]` by tables `[places, d / 2]` at places `[n or 1, length]`.
fn rotated(x: &Value, cos: &Value, sin: &Value, places: &Value, interleaved: bool) -> Value {
    let half = cos.dim(1);
    let (width, of_places) = (x.dim(3), places.shape().to_vec());
    let table = |table: &Value| {
        let found = table.cast(x.dtype()).index_select(0, &places.reshape(&[-1]));
        found.reshape(&signed(&[of_places[0], 1, of_places[1], half]))
    };
    let (turning, rest) = (x.slice(3, 0, 2 * half, 1), x.slice(3, 2 * half, width, 1));
    let turned = turned(&turning, &table(cos), &table(sin), interleaved);
    if 2 * half == width { turned } else { turned.concat(&[&rest], 3) }
}

fn rotary_of_microsoft(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let (places, cos, sin) = (node.value(1)?.cast(DType::I32), node.value(2)?, node.value(3)?);
    let (interleaved, dims, heads) =
        (node.flag("interleaved", false), node.int("rotary_embedding_dim", 0), node.int("num_heads", 0));
    node.attribute("scale");
    if node.flag("is_packed_batching", false) {
        return Err("is_packed_batching is not supported; give each sequence a row of the batch".into());
    }
    if cos.shape().rank() != 2 || cos.shape() != sin.shape() || cos.dim(1) == 0 {
        return Err(format!("the tables {} and {} do not fit", cos.ty(), sin.ty()).into());
    }
    let half = cos.dim(1);
    if dims != 0 && dims != 2 * half as i64 {
        return Err(format!("rotary_embedding_dim = {dims} does not fit tables of {half} angles").into());
    }
    let flat = x.shape().rank() == 3;
    let by_heads = match flat {
        true if heads > 0 => by_head(&x, heads)?,
        true => by_head(&x, (x.dim(2) / (2 * half)) as i64)?,
        false => x.clone(),
    };
    if by_heads.shape().rank() != 4 || by_heads.dim(3) < 2 * half {
        return Err(format!("{} does not have heads for tables of {half} angles", x.ty()).into());
    }
    let length = by_heads.dim(2);
    let places = match places.shape().numel() == 1 && places.shape().rank() < 2 {
        true => node.graph().iota(DType::I32, [1, length], 1) + places.reshape(&[1, 1]),
        false => places,
    };
    if places.shape().to_vec() != [by_heads.dim(0), length] && places.shape().to_vec() != [1, length] {
        return Err(format!("positions {} do not fit {}", places.ty(), x.ty()).into());
    }
    let y = rotated(&by_heads, &cos, &sin, &places, interleaved);
    let y = node.checked(if flat { joined(&y) } else { y })?;
    Ok(vec![node.result(y, ty)])
}

/// Outputs after the first `most` are not supported.
fn no_more_outputs(node: &Node<'_, '_>, most: usize) -> Result<()> {
    match node.proto.output.iter().skip(most).find(|name| !name.is_empty()) {
        Some(name) => Err(format!("its output `{name}` is not supported").into()),
        None => Ok(()),
    }
}

fn multi_head_attention(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let heads = node.int("num_heads", 0);
    let filter = node.number("mask_filter_value", -10_000.0);
    let (scale, causal) = (node.optional_attribute_number("scale"), node.flag("unidirectional", false));
    no_more_outputs(node, 3)?;
    if node.optional(8).is_some() || node.optional(9).is_some() {
        return Err("a cache that is shared or has beams is not supported; export the model without it".into());
    }
    let (q, bias) = (node.value(0)?, node.optional_value(3)?);
    // [n, length, heads, parts, d] to the parts by head.
    let part = |x: &Value, at: usize| {
        let (n, length, heads, d) = (x.dim(0), x.dim(1), x.dim(2), x.dim(4));
        x.slice(3, at, at + 1, 1).reshape(&signed(&[n, length, heads, d])).permute(&[0, 2, 1, 3])
    };
    let mut start = 0;
    let mut with_bias = |x: Value| -> Value {
        let Some(bias) = &bias else { return x };
        let width = x.dim(-1);
        let y = &x + bias.reshape(&[-1]).slice(0, start, start + width, 1);
        start += width;
        y
    };
    let [q, k, v] = match (q.shape().rank(), node.optional_value(1)?, node.optional_value(2)?) {
        (5, None, None) if bias.is_none() => [part(&q, 0), part(&q, 1), part(&q, 2)],
        (3, Some(k), None) if k.shape().rank() == 5 && bias.is_none() => {
            [by_head(&q, heads)?, part(&k, 0), part(&k, 1)]
        }
        (3, Some(k), Some(v)) if k.shape().rank() == 4 && v.shape().rank() == 4 && bias.is_none() => {
            [by_head(&q, heads)?, k, v]
        }
        (3, Some(k), Some(v)) if k.shape().rank() == 3 && v.shape().rank() == 3 => {
            let all = [with_bias(q), with_bias(k), with_bias(v)];
            let [q, k, v] = all.each_ref().map(|x| by_head(x, heads));
            [q?, k?, v?]
        }
        _ => return Err("its queries, keys and values do not have shapes that are supported".into()),
    };
    let past = [node.optional_value(6)?, node.optional_value(7)?];
    let past_length = past[0].as_ref().map_or(0, |past| past.dim(2));
    let [past_key, past_value] = past;
    let key = past_key.map_or(k.clone(), |past| past.concat(&[&k], 2));
    let value = past_value.map_or(v.clone(), |past| past.concat(&[&v], 2));
    let (n, length, keys) = (q.dim(0), q.dim(2), key.dim(2));
    let graph = node.graph().clone();
    let place = |axis: isize| graph.iota(DType::I32, [1, 1, length, keys], axis);
    let allowed = causal.then(|| place(3).le(&(place(2) + past_length as f64)));
    let mut added = node.optional_value(5)?.map(|bias| four_axes(&bias));
    if let Some(mask) = node.optional_value(4)? {
        let mask = mask.cast(DType::I32);
        let shape = mask.shape().to_vec();
        let keeps = match shape[..] {
            [count] if count == n => place(3).lt(&mask.reshape(&[-1, 1, 1, 1])),
            [a, b] if a == n && b == keys => mask.reshape(&signed(&[n, 1, 1, keys])).gt(&place(3).zeros_like()),
            [a, b, c] if a == n && b == length && c == keys => {
                mask.reshape(&signed(&[n, 1, length, keys])).gt(&place(3).zeros_like())
            }
            _ => return Err(format!("a mask of the shape {shape:?} is not supported").into()),
        };
        let zero = graph.full(q.dtype(), [1, 1, 1, 1], 0.0);
        let mask =
            keeps.where_(&zero, &zero.full_like(filter.max(if ty == ElemType::F16 { -65504.0 } else { filter })));
        added = Some(added.map_or(mask.clone(), |added| added + mask));
    }
    let scale = scale.filter(|scale| *scale != 0.0).unwrap_or_else(|| 1.0 / (q.dim(3) as f64).sqrt());
    let y = match (&added, causal && past_length > 0) {
        (None, false) if ty != ElemType::F64 && (!causal || keys == length) => q.scaled_dot_product_attention(
            &key,
            &value,
            &Attention { attn_mask: None, is_causal: causal, scale: Some(scale) },
        ),
        _ => weighted(&q, &key, &value, &Scores { scale, softcap: 0.0, bias: added, allowed, mode: 0 }).0,
    };
    let y = node.checked(joined(&y))?;
    Ok(vec![node.result(y, ty), node.result(key, ty), node.result(value, ty)])
}

/// Attention whose queries share keys, with a cache that grows by the keys of each call.
fn group_query_attention(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let (heads, kv_heads) = (node.int("num_heads", 0), node.int("kv_num_heads", 0));
    let (scale, softcap) = (node.optional_attribute_number("scale"), node.number("softcap", 0.0));
    let (window, rotary) = (node.int("local_window_size", -1), node.flag("do_rotary", false));
    let interleaved = node.flag("rotary_interleaved", false);
    for unsupported in ["smooth_softmax", "qk_output", "k_quant_type", "v_quant_type", "kv_cache_bit_width"] {
        let given = node.attribute(unsupported);
        if given.is_some_and(|given| {
            given.i.is_some_and(|i| i != 0 && (unsupported != "smooth_softmax" || i > 0))
                || given.s.is_some_and(|s| s != b"NONE"[..])
        }) {
            return Err(format!("its attribute {unsupported} is not supported").into());
        }
    }
    if let Some(at) = (10..node.inputs().len()).find(|&at| node.optional(at).is_some()) {
        return Err(format!("its input {at} is not supported").into());
    }
    no_more_outputs(node, 3)?;
    if heads < 1 || kv_heads < 1 || heads % kv_heads != 0 {
        return Err(format!("{heads} heads cannot share {kv_heads} keys").into());
    }
    let q = node.value(0)?;
    let [q, k, v] = match (node.optional_value(1)?, node.optional_value(2)?) {
        (Some(k), Some(v)) => [by_head(&q, heads)?, by_head(&k, kv_heads)?, by_head(&v, kv_heads)?],
        (None, None) => {
            let all = by_head(&q, heads + 2 * kv_heads)?;
            let (a, b) = (heads as usize, kv_heads as usize);
            [all.slice(1, 0, a, 1), all.slice(1, a, a + b, 1), all.slice(1, a + b, a + 2 * b, 1)]
        }
        _ => return Err("it has keys without values, or values without keys".into()),
    };
    if [&q, &k, &v].iter().any(|x| x.shape().rank() != 4) {
        return Err("queries, keys and values must have 3 axes".into());
    }
    let (n, length) = (q.dim(0), q.dim(2));
    let past = [node.optional_value(3)?, node.optional_value(4)?];
    let before = past[0].as_ref().map_or(0, |past| past.dim(2));
    let total = node.known_ints(6)?.first().copied().unwrap_or(0);
    if total != (before + length) as i64 {
        return Err(format!(
            "a cache of {before} places that {length} more extend must give a total of {}, not {total}; \
             a cache with places in reserve is not supported",
            before + length
        )
        .into());
    }
    // Rows of a batch with fewer keys would have gaps in the cache.
    if before > 0 && n > 1 && node.known_ints(5)?.iter().any(|&last| last != total - 1) {
        return Err("rows of a batch with caches of different lengths are not supported".into());
    }
    let graph = node.graph().clone();
    let (q, k) = match rotary {
        false => (q, k),
        true => {
            let (cos, sin) = (node.value(7)?, node.value(8)?);
            let places = match node.optional_value(9)? {
                Some(places) => places.cast(DType::I32),
                None => graph.iota(DType::I32, [1, length], 1) + before as f64,
            };
            if cos.shape().rank() != 2 || 2 * cos.dim(1) > q.dim(3) || places.shape().rank() != 2 {
                return Err(format!("the tables {} do not fit heads {}", cos.ty(), q.ty()).into());
            }
            let turn = |x: &Value| rotated(x, &cos, &sin, &places, interleaved);
            (turn(&q), turn(&k))
        }
    };
    let [past_key, past_value] = past;
    let key = past_key.map_or(k.clone(), |past| past.concat(&[&k], 2));
    let value = past_value.map_or(v.clone(), |past| past.concat(&[&v], 2));
    let keys = key.dim(2);
    let repeats = (heads / kv_heads) as usize;
    let (wide_key, wide_value) = (repeated(&key, repeats), repeated(&value, repeats));
    let scale = scale.filter(|scale| *scale != 0.0).unwrap_or_else(|| 1.0 / (q.dim(3) as f64).sqrt());
    let y = match before == 0 && window < 0 && softcap == 0.0 && ty != ElemType::F64 {
        true => {
            let options = Attention { attn_mask: None, is_causal: true, scale: Some(scale) };
            q.scaled_dot_product_attention(&wide_key, &wide_value, &options)
        }
        false => {
            let place = |axis: isize| graph.iota(DType::I32, [1, 1, length, keys], axis);
            let ahead = place(2) + before as f64 - place(3);
            let mut allowed = ahead.ge(&ahead.zeros_like());
            if window >= 0 {
                allowed = allowed.and(&ahead.lt(&ahead.full_like(window as f64)));
            }
            let options = Scores { scale, softcap, bias: None, allowed: Some(allowed), mode: 0 };
            weighted(&q, &wide_key, &wide_value, &options).0
        }
    };
    let y = node.checked(joined(&y))?;
    Ok(vec![node.result(y, ty), node.result(key, ty), node.result(value, ty)])
}
