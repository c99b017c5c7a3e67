//! Operators of ONNX Runtime (`com.microsoft`), which its optimiser and quantiser write.

use wgrad::{DType, Tensor, Value};

use super::Family;
use super::linear::product;
use super::quantize::rounded;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("SimplifiedLayerNormalization", simplified_layer_norm),
    ("com.microsoft.BiasGelu", gelu_of_sum),
    ("com.microsoft.FastGelu", gelu_of_sum),
    ("com.microsoft.FusedMatMul", fused_matmul),
    ("com.microsoft.MatMulNBits", matmul_bits),
    ("com.microsoft.QLinearAdd", quantized_pair),
    ("com.microsoft.QLinearConcat", quantized_concat),
    ("com.microsoft.QLinearGlobalAveragePool", quantized_function),
    ("com.microsoft.QLinearLeakyRelu", quantized_function),
    ("com.microsoft.QLinearMul", quantized_pair),
    ("com.microsoft.QLinearSigmoid", quantized_function),
    ("com.microsoft.SimplifiedLayerNormalization", simplified_layer_norm),
    ("com.microsoft.SkipLayerNormalization", skip_layer_norm),
    ("com.microsoft.SkipSimplifiedLayerNormalization", skip_layer_norm),
];

/// GELU of data and a bias: exact, or by tanh if it is fast.
fn gelu_of_sum(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (mut x, ty) = (node.value(0)?, node.input(0)?.ty());
    if let Some(bias) = node.optional_value(1)? {
        x = x + bias;
    }
    let y = node.checked(if node.op() == "FastGelu" { x.gelu_tanh() } else { x.gelu() })?;
    Ok(vec![node.result(y, ty)])
}

fn fused_matmul(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let (alpha, turns) = (node.number("alpha", 1.0), [node.flag("transA", false), node.flag("transB", false)]);
    if node.flag("transBatchA", false) || node.flag("transBatchB", false) {
        return Err("transBatchA and transBatchB are not supported; transpose the inputs before".into());
    }
    // As in NumPy, vectors have nothing to transpose.
    let turned = |x: Value, turn: bool| match x.shape().rank() as isize {
        rank if turn && rank > 1 => {
            let mut axes: Vec<isize> = (0..rank).collect();
            axes.swap(rank as usize - 1, rank as usize - 2);
            x.permute(&axes)
        }
        _ => x,
    };
    let y = product(&turned(a, turns[0]), &turned(b, turns[1]));
    let y = node.checked(if alpha == 1.0 { y } else { y * alpha })?;
    Ok(vec![node.result(y, ty)])
}

/// RMS normalisation over the axes from `axis` on.
fn simplified_layer_norm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, eps) = (node.value(0)?, node.input(0)?.ty(), node.number("epsilon", 1e-5));
    node.attribute("stash_type");
    let axis = node.int("axis", -1);
    let axis = node.axis(axis, x.shape().rank())?;
    let (scale, normalized) = (node.value(1)?, x.shape()[axis..].to_vec());
    let scale = scale.reshape(&signed(&normalized));
    let y = node.checked(x.rms_norm(&normalized, Some(&scale), eps))?;
    let axes: Vec<isize> = (axis as isize..x.shape().rank() as isize).collect();
    let deviation = node.checked((x.cast(DType::F32).square().mean(&axes, true) + eps).rsqrt())?;
    Ok(vec![node.result(y, ty), node.result(deviation, ElemType::F32)])
}

/// Layer or RMS normalisation of a sum, which is a result, too.
fn skip_layer_norm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let simplified = node.op() == "SkipSimplifiedLayerNormalization";
    let (x, skip, gamma, ty) = (node.value(0)?, node.value(1)?, node.value(2)?, node.input(0)?.ty());
    let eps = node.number("epsilon", 1e-12);
    let (beta, bias) = match simplified {
        true => (None, node.optional_value(3)?),
        false => (node.optional_value(3)?, node.optional_value(4)?),
    };
    let mut sum = &x + skip;
    if let Some(bias) = bias {
        sum = sum + bias;
    }
    let sum = node.checked(sum)?;
    let last = [sum.dim(-1)];
    let y = match simplified {
        true => sum.rms_norm(&last, Some(&gamma), eps),
        false => sum.layer_norm(&last, Some(&gamma), beta.as_ref(), eps),
    };
    let wide = sum.cast(DType::F32);
    let (mean, spread) = match simplified {
        true => (wide.zeros_like().mean(&[-1], true), wide.square().mean(&[-1], true)),
        false => (wide.mean(&[-1], true), wide.var(&[-1], 0, true)),
    };
    let (y, deviation) = (node.checked(y)?, (spread + eps).rsqrt());
    let stats = ElemType::F32;
    Ok(vec![node.result(y, ty), node.result(mean, stats), node.result(deviation, stats), node.result(sum, ty)])
}

/// The numbers that quantised ones stand for; inputs `at`, and its scale and zero point after it.
fn real(node: &Node<'_, '_>, at: usize) -> Result<Value> {
    let x = node.value(at)?.cast(DType::I32);
    let x = match node.optional_value(at + 2)? {
        Some(zero) => x - zero.cast(DType::I32).reshape(&[]),
        None => x,
    };
    Ok(x.cast(DType::F32) * node.value(at + 1)?.cast(DType::F32).reshape(&[]))
}

/// A number as quantised one, with the scale in input `at`, and the zero point after it.
fn quantized(node: &Node<'_, '_>, y: &Value, at: usize, ty: ElemType) -> Result<Val> {
    let mut y = (y / node.value(at)?.cast(DType::F32).reshape(&[])).round();
    if let Some(zero) = node.optional_value(at + 1)? {
        y = y + zero.cast(DType::F32).reshape(&[]);
    }
    let y = node.checked(rounded(&y, ty))?;
    Ok(node.result(y, ty))
}

fn quantized_pair(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let (a, b) = (real(node, 0)?, real(node, 3)?);
    let y = if node.op() == "QLinearAdd" { a + b } else { a * b };
    Ok(vec![quantized(node, &y, 6, ty)?])
}

fn quantized_function(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (real(node, 0)?, node.input(0)?.ty());
    let rank = x.shape().rank() as isize;
    let y = match node.op() {
        "QLinearSigmoid" => x.sigmoid(),
        "QLinearLeakyRelu" => x.leaky_relu(node.number("alpha", 0.01)),
        _ => {
            let axes: Vec<isize> =
                if node.flag("channels_last", false) { (1..rank - 1).collect() } else { (2..rank).collect() };
            x.mean(&axes, true)
        }
    };
    Ok(vec![quantized(node, &y, 3, ty)?])
}

fn quantized_concat(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (axis, ty, count) = (node.int("axis", 0), node.input(2)?.ty(), node.inputs().len());
    if count < 5 || !(count - 2).is_multiple_of(3) {
        return Err(format!("{count} inputs are not a scale and a zero point, and three for each tensor").into());
    }
    let parts = (2..count).step_by(3).map(|at| real(node, at)).collect::<Result<Vec<_>>>()?;
    let axis = node.axis(axis, parts[0].shape().rank())?;
    let y = node.checked(parts[0].concat(&parts[1..].iter().collect::<Vec<_>>(), axis as isize))?;
    Ok(vec![quantized(node, &y, 0, ty)?])
}

/// Unsigned integers of `bits` bits in the bytes of the last axis, lowest first, of which `count` are used.
fn unpacked(bytes: &Value, bits: usize, count: usize) -> Value {
    let bytes = bytes.cast(DType::U32);
    let shape = bytes.shape().to_vec();
    let apart = bytes.reshape(&signed(&[&shape[..], &[1]].concat()));
    let rank = apart.shape().rank();
    let mut one = vec![1; rank];
    one[rank - 1] = 8 / bits;
    let shift = bytes.graph().iota(DType::U32, one, -1) * bits as f64;
    let numbers = apart.shift_right(&shift).bit_and(&bytes.graph().full(
        DType::U32,
        vec![1; rank],
        f64::from((1u32 << bits) - 1),
    ));
    let Some((last, outer)) = shape.split_last() else { return bytes };
    let whole = [outer, &[last * (8 / bits)]].concat();
    numbers.reshape(&signed(&whole)).slice(-1, 0, count, 1)
}

/// Numbers in a block of wgrad's quantised weights.
const BLOCK: usize = 32;

/// `x W^T` with weights of a few bits, in blocks with a scale and a zero point each.
fn matmul_bits(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let sizes = [node.int("K", 0), node.int("N", 0), node.int("bits", 4), node.int("block_size", 32)];
    let [columns, rows, bits, block] = sizes.map(|size| size.clamp(0, 1 << 30) as usize);
    node.attribute("accuracy_level");
    if !matches!(bits, 2 | 4 | 8) || block < 16 || !block.is_power_of_two() || columns == 0 || rows == 0 {
        return Err(
            format!("{rows} rows of {columns} numbers of {bits} bits in blocks of {block} are not supported").into()
        );
    }
    if node.optional(4).is_some() {
        return Err("g_idx is not supported; quantise without reordering".into());
    }
    let (blocks, bytes) = (columns.div_ceil(block), block * bits / 8);
    let weights = node.input(1)?;
    if weights.ty() != ElemType::U8 || weights.numel() != rows * blocks * bytes || x.dim(-1) != columns {
        return Err(format!(
            "data {} and weights {:?} do not fit K = {columns} and N = {rows}",
            x.ty(),
            weights.shape()
        )
        .into());
    }
    let scales = node.value(2)?;
    if scales.shape().numel() != rows * blocks {
        return Err(format!("scales {} do not fit {rows} rows of {blocks} blocks", scales.ty()).into());
    }
    let scales = scales.reshape(&signed(&[rows, blocks]));
    // Zero points are packed like the weights, or floats.
    let zeros = match node.optional_value(3)? {
        None => None,
        Some(zeros) if zeros.dtype().is_float() && zeros.shape().numel() == rows * blocks => {
            Some(zeros.reshape(&signed(&[rows, blocks])))
        }
        Some(zeros) if zeros.shape().numel() == rows * (blocks * bits).div_ceil(8) && zeros.dtype() == DType::U8 => {
            Some(unpacked(&zeros.reshape(&signed(&[rows, (blocks * bits).div_ceil(8)])), bits, blocks))
        }
        Some(zeros) => {
            return Err(format!("zero points {} do not fit {rows} rows of {blocks} blocks", zeros.ty()).into());
        }
    };
    let known = weights.known().and_then(|known| known.to_ints());
    let whole = zeros.as_ref().is_none_or(|zeros| !zeros.dtype().is_float());
    let y = match known.filter(|_| bits != 2 && block.is_multiple_of(BLOCK) && whole) {
        // The bytes are the words of wgrad's own format, whose blocks have 32 numbers.
        Some(bytes) => {
            let words: Vec<u32> = bytes
                .chunks_exact(4)
                .map(|four| u32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8]))
                .collect();
            let words = Tensor::new([rows, blocks * block * bits / 32], words).map_err(|error| error.to_string())?;
            let own = columns.div_ceil(BLOCK);
            let words = node.graph().constant(words).slice(1, 0, own * bits, 1);
            let spread = |x: &Value| {
                let times = block / BLOCK;
                let wide = x.reshape(&signed(&[rows, blocks, 1])).broadcast_to(&[rows, blocks, times].into());
                wide.reshape(&signed(&[rows, blocks * times])).slice(1, 0, own, 1)
            };
            x.quantized_matmul(&words, &spread(&scales), zeros.as_ref().map(spread).as_ref())
        }
        None => {
            let bytes = node.value(1)?.reshape(&signed(&[rows, blocks, bytes]));
            let numbers = unpacked(&bytes, bits, block).cast(DType::F32);
            let apart = |x: &Value| x.cast(DType::F32).reshape(&signed(&[rows, blocks, 1]));
            let centered = match &zeros {
                Some(zeros) => numbers - apart(zeros),
                None => numbers - f64::from(1u32 << (bits - 1)),
            };
            let weights = (centered * apart(&scales)).reshape(&signed(&[rows, blocks * block]));
            x.cast(DType::F32).matmul(&weights.slice(1, 0, columns, 1).t())
        }
    };
    let y = match node.optional_value(5)? {
        Some(bias) => y.cast(DType::F32) + bias.cast(DType::F32),
        None => y,
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}
