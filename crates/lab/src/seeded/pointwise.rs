//! Faults in pointwise kernels and in updates of variables.

use super::fault;
use crate::faults::{Change, Fault, Subject};
use wgrad::{DType, Graph, Result, Tensor, gradients};

use Change::{Constant, Late, Text};

/// A fault in a dedicated graph.
fn own(
    what: &'static str,
    op: &'static str,
    kernel: &'static str,
    change: Change,
    build: fn() -> Result<Subject>,
) -> Fault {
    Fault { what, op, case: "", variant: None, kernel, change, build: Some(build) }
}

pub(super) fn pointwise() -> Vec<Fault> {
    vec![
        fault(
            "tanh as (e^2x - 1) / (e^2x + 1), unclamped",
            ["tanh", "f32 special values"],
            "",
            "pointwise",
            Text(
                "let e = expm1_of_negative(-2.0 * abs(x));\n  let y = -e / (2.0 + e);",
                "let e = exp(2.0 * abs(x));\n  let y = (e - 1.0) / (e + 1.0);",
            ),
        ),
        fault(
            "< instead of <=",
            ["le", "f32 special values"],
            "",
            "pointwise",
            Text("return a <= b &&", "return a < b &&"),
        ),
        fault(
            "floats are rounded to integers, not truncated",
            ["cast", "f32 to each"],
            "",
            "pointwise",
            Text("u32(clamp(x,", "u32(clamp(round(x),"),
        ),
        fault(
            "f16 is rounded towards 0",
            ["cast", "24 f32 to f16 and back"],
            "",
            "pointwise",
            Text(
                "let rounded = bits + ((1u << (surplus - 1u)) - 1u) + ((bits >> surplus) & 1u);",
                "let rounded = bits;",
            ),
        ),
        fault(
            "f16 halfway between two values is rounded away from 0",
            ["cast", "25 f32 to f16 and back"],
            "",
            "pointwise",
            Text("+ ((bits >> surplus) & 1u)", "+ 1u"),
        ),
        fault(
            "numbers beyond f16 become its largest",
            ["cast", "26 f32 to f16 and back"],
            "",
            "pointwise",
            Text("select(y, INFINITY_BITS, y > 0x477fe000u)", "min(y, 0x477fe000u)"),
        ),
        fault(
            "f16 below the least one become 0",
            ["cast", "27 f32 to f16 and back"],
            "",
            "pointwise",
            Text("select(0u, 0x33800000u, bits > 0x33000000u)", "0u"),
        ),
        fault(
            "subnormal f16 are stored as 0",
            ["cast", "24 f32 to f16 and back"],
            "",
            "pointwise",
            Text("u32(abs(x) * 16777216.0)", "0u"),
        ),
        fault(
            "the halves of a word are swapped",
            ["cast", "24 f32 to bf16 and back"],
            "",
            "pointwise",
            Text(
                "(bitcast<u32>(x.x) >> 16u) | (bitcast<u32>(x.y) & 0xffff0000u)",
                "(bitcast<u32>(x.y) >> 16u) | (bitcast<u32>(x.x) & 0xffff0000u)",
            ),
        ),
        fault(
            "the other half of a word is loaded",
            ["cast", "views of f16"],
            "",
            "pointwise",
            Text("unpack_f16(word >> (16u * (i & 1u)))", "unpack_f16(word >> (16u - 16u * (i & 1u)))"),
        ),
        fault(
            "i8 is loaded without its sign",
            ["cast", "views of i8"],
            "",
            "pointwise",
            Text(
                "bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u)",
                "bitcast<vec4<i32>>((vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u))",
            ),
        ),
        fault(
            "u8 past the last are not masked",
            ["cast", "25 u32 to u8 and back"],
            "",
            "pointwise",
            Text("return x & 0xffu;", "return x;"),
        ),
        fault(
            "one wrong bit in the hash constant",
            ["random_bits", "bit for bit"],
            "",
            "pointwise",
            Text("0x85ebca6bu", "0x85ebca69u"),
        ),
        fault(
            "elements past the last are written",
            ["add", "large, two outputs of one chain"],
            "",
            "pointwise",
            Text("let quads = (args[0].x + 3u) / 4u;", "let quads = (args[0].x + 7u) / 4u;"),
        ),
        fault(
            "the logarithm treats subnormal numbers as normal",
            ["log", "f32 special values"],
            "",
            "pointwise",
            Text("let small = bits < SMALLEST_NORMAL_BITS;", "let small = false;"),
        ),
        fault(
            "relu turns NaN into 0",
            ["relu", "f32 NaN and infinities"],
            "",
            "pointwise",
            Text("select(x, 0.0, bitcast<i32>(x) <= -8388608)", "select(0.0, x, x > 0.0)"),
        ),
        own(
            "relu has slope 1 at 0",
            "a dedicated graph",
            "pointwise",
            Text("return a <= b &&", "return a < b &&"),
            relu_at_zero,
        ),
    ]
}

pub(super) fn updates() -> Vec<Fault> {
    let late = own("a reader of the old value runs after the update", "assign", "matmul_register", Late, old_and_new);
    vec![
        own("wrong epsilon", "adam", "pointwise", Constant(1e-8f32.to_bits(), 1e-5f32.to_bits()), adam),
        own("gradient ascent instead of descent", "sgd", "pointwise", Text("return a - b;", "return a + b;"), sgd),
        Fault { variant: Some("register4"), ..late },
    ]
}

/// The gradient of relu at 0, which is 0 by convention, as in PyTorch.
fn relu_at_zero() -> Result<Subject> {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [5]);
    let dx = gradients(&x.relu().sum_all(), &[&x]);
    let values = Tensor::new([5], [0.0f32, -1.0, 2.0, -0.0, 1e-30])?;
    Ok(Subject { graph, outputs: dx, feeds: vec![("x".into(), values)], out_of_range: false })
}

fn adam() -> Result<Subject> {
    let graph = Graph::new();
    let p = graph.parameter("p", Tensor::new([4], [0.5f32, -1.0, 0.0, 2.0])?);
    let m = graph.variable("m", Tensor::new([4], [0.1f32, -0.1, 0.3, 0.2])?);
    let v = graph.variable("v", Tensor::new([4], [1e-6f32, 0.3, 0.1, 1e-3])?);
    let g = graph.input("g", DType::F32, [4]);
    let (mean, square) = (&m * 0.9 + &g * 0.1, &v * 0.999 + g.square() * 0.001);
    graph.assign(&m, &mean);
    graph.assign(&v, &square);
    graph.assign(&p, &(&p - &mean / (square.sqrt() + 1e-8)));
    let gradient = Tensor::new([4], [1e-3f32, 0.2, -0.3, 0.0])?;
    Ok(Subject { graph, outputs: vec![], feeds: vec![("g".into(), gradient)], out_of_range: false })
}

fn sgd() -> Result<Subject> {
    let graph = Graph::new();
    let p = graph.parameter("p", Tensor::new([4], [0.5f32, -1.0, 0.0, 2.0])?);
    let g = graph.input("g", DType::F32, [4]);
    graph.assign(&p, &(&p - g * 0.1));
    let gradient = Tensor::new([4], [1e-3f32, 0.2, -0.3, 0.0])?;
    Ok(Subject { graph, outputs: vec![], feeds: vec![("g".into(), gradient)], out_of_range: false })
}

/// A variable that a matrix product reads and the same step updates.
fn old_and_new() -> Result<Subject> {
    let graph = Graph::new();
    let w = graph.variable("w", Tensor::new([2, 2], [1.0f32, 2.0, 3.0, 4.0])?);
    let x = graph.input("x", DType::F32, [2, 2]);
    let y = x.matmul(&w);
    graph.assign(&w, &(&w * 0.25));
    let values = Tensor::new([2, 2], [1.0f32, 1.0, 0.5, 2.0])?;
    Ok(Subject { graph, outputs: vec![y], feeds: vec![("x".into(), values)], out_of_range: false })
}
