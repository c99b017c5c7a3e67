//! Elementwise ops as operators of ONNX.

use wgrad::DType;
use wgrad::graph::ValueId;

use super::site::{Found, Site};
use super::writer::{Writer, elem_type, float, int, text};

/// Ops that are an operator with the same operands and no attributes.
const SAME: &[(&str, &str)] = &[
    ("abs", "Abs"),
    ("acos", "Acos"),
    ("acosh", "Acosh"),
    ("add", "Add"),
    ("and", "And"),
    ("asin", "Asin"),
    ("asinh", "Asinh"),
    ("atan", "Atan"),
    ("atanh", "Atanh"),
    ("bit_and", "BitwiseAnd"),
    ("bit_not", "BitwiseNot"),
    ("bit_or", "BitwiseOr"),
    ("bit_xor", "BitwiseXor"),
    ("cos", "Cos"),
    ("cosh", "Cosh"),
    ("div", "Div"),
    ("div_trunc", "Div"),
    ("eq", "Equal"),
    ("erf", "Erf"),
    ("exp", "Exp"),
    ("floor", "Floor"),
    ("ge", "GreaterOrEqual"),
    ("gt", "Greater"),
    ("le", "LessOrEqual"),
    ("log", "Log"),
    ("lt", "Less"),
    ("maximum", "Max"),
    ("minimum", "Min"),
    ("mul", "Mul"),
    ("not", "Not"),
    ("or", "Or"),
    ("pow", "Pow"),
    ("reciprocal", "Reciprocal"),
    ("relu", "Relu"),
    ("round", "Round"),
    ("select", "Where"),
    ("sigmoid", "Sigmoid"),
    ("sign", "Sign"),
    ("sin", "Sin"),
    ("sinh", "Sinh"),
    ("softplus", "Softplus"),
    ("softsign", "Softsign"),
    ("sqrt", "Sqrt"),
    ("sub", "Sub"),
    ("tan", "Tan"),
    ("tanh", "Tanh"),
];

pub(super) fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// The operands of an op that broadcasts as NumPy does, before they are broadcast, as long as one has the whole shape.
fn operands(w: &mut Writer<'_>, site: &Site<'_>) -> Found<Vec<String>> {
    let is_lazy = |w: &Writer<'_>, id: ValueId| matches!(w.maker(id).node.name(), "broadcast" | "full");
    let mut has_whole = site.node.inputs.iter().any(|&id| !is_lazy(w, id));
    let mut names = Vec::new();
    for &id in &site.node.inputs {
        let maker = w.maker(id);
        names.push(match maker.node.name() {
            "broadcast" if has_whole => w.input(&maker, 0)?,
            "full" if has_whole => w.number(maker.node.outputs[0].dtype, maker.float("value")?)?,
            _ => w.value(id)?,
        });
        has_whole = true;
    }
    Ok(names)
}

/// Writes an elementwise op; `None` for other ops.
pub(super) fn write(w: &mut Writer<'_>, site: &Site<'_>) -> Found<Option<String>> {
    let name = site.node.name();
    if let Some(&(_, operator)) = SAME.iter().find(|(op, _)| *op == name) {
        let operands = operands(w, site)?;
        return Ok(Some(w.node(operator, &refs(&operands))));
    }
    let known = [
        "bce",
        "clamp",
        "div_euclid",
        "div_floor",
        "elu",
        "fmod",
        "hardsigmoid",
        "neg",
        "leaky_relu",
        "ne",
        "normal_cdf",
        "powf",
        "rem_euclid",
        "remainder",
        "rsqrt",
        "shift_left",
        "shift_right",
        "square",
        "trunc",
    ];
    if !known.contains(&name) {
        return Ok(None);
    }
    let operands = operands(w, site)?;
    let operands = refs(&operands);
    let (x, other) = (operands[0], operands.get(1).copied().unwrap_or_default());
    let dtype = site.node.outputs[0].dtype;
    let value = |number: usize| -> Found<f64> {
        site.floats("values")?.get(number).copied().ok_or_else(|| "it lacks an attribute".into())
    };
    Ok(Some(match name {
        "bce" => {
            let (zero, one, least) = (w.number(dtype, 0.0)?, w.number(dtype, 1.0)?, w.number(dtype, -100.0)?);
            let bounded = |w: &mut Writer<'_>, x: &str| {
                let positive = w.node("Max", &[x, &zero]);
                let log = w.node("Log", &[&positive]);
                w.node("Max", &[&log, &least])
            };
            let (rest, target) = (w.node("Sub", &[&one, x]), w.node("Sub", &[&one, other]));
            let (a, b) = (bounded(w, x), bounded(w, &rest));
            let (a, b) = (w.node("Mul", &[other, &a]), w.node("Mul", &[&target, &b]));
            let sum = w.node("Add", &[&a, &b]);
            w.node("Neg", &[&sum])
        }
        "clamp" => {
            let (low, high) = (w.number(dtype, value(0)?)?, w.number(dtype, value(1)?)?);
            w.node("Clip", &[x, &low, &high])
        }
        "elu" => w.node_with("Elu", &[x], &[("alpha", float(value(0)?))]),
        "fmod" => w.node_with("Mod", &[x, other], &[("fmod", int(1))]),
        "hardsigmoid" => w.node_with("HardSigmoid", &[x], &[("alpha", float(1.0 / 6.0)), ("beta", float(0.5))]),
        "leaky_relu" => w.node_with("LeakyRelu", &[x], &[("alpha", float(value(0)?))]),
        "ne" => {
            let equal = w.node("Equal", &[x, other]);
            w.node("Not", &[&equal])
        }
        "neg" if dtype == DType::U32 => {
            let zero = w.number(dtype, 0.0)?;
            w.node("Sub", &[&zero, x])
        }
        "neg" => w.node("Neg", &[x]),
        "normal_cdf" => {
            let (root, one, half) =
                (w.number(dtype, std::f64::consts::FRAC_1_SQRT_2)?, w.number(dtype, 1.0)?, w.number(dtype, 0.5)?);
            let scaled = w.node("Mul", &[x, &root]);
            let erf = w.node("Erf", &[&scaled]);
            let sum = w.node("Add", &[&erf, &one]);
            w.node("Mul", &[&sum, &half])
        }
        "powf" => {
            let exponent = w.number(dtype, value(0)?)?;
            w.node("Pow", &[x, &exponent])
        }
        // The sign of ONNX's remainder is that of the divisor, or of the dividend with `fmod`.
        "remainder" => w.node_with("Mod", &[x, other], &[("fmod", int(0))]),
        "div_euclid" | "div_floor" | "rem_euclid" => {
            let zero = w.number(dtype, 0.0)?;
            let rest = w.node_with("Mod", &[x, other], &[("fmod", int(1))]);
            let (below, divisor_below) = (w.node("Less", &[&rest, &zero]), w.node("Less", &[other, &zero]));
            if name == "rem_euclid" {
                let (minus, plus) = (w.node("Sub", &[&rest, other]), w.node("Add", &[&rest, other]));
                let next = w.node("Where", &[&divisor_below, &minus, &plus]);
                return Ok(Some(w.node("Where", &[&below, &next, &rest])));
            }
            let quotient = w.node("Div", &[x, other]);
            let step = match name {
                // One less if there is a rest, whose sign is not that of the divisor.
                "div_floor" => {
                    let (is_zero, differs) =
                        (w.node("Equal", &[&rest, &zero]), w.node("Xor", &[&below, &divisor_below]));
                    let is_not = w.node("Not", &[&is_zero]);
                    let off = w.node("And", &[&is_not, &differs]);
                    w.cast(&off, elem_type(dtype)?)
                }
                // The rest is never below 0.
                _ => {
                    let (sign, off) = (w.node("Sign", &[other]), w.cast(&below, elem_type(dtype)?));
                    w.node("Mul", &[&sign, &off])
                }
            };
            w.node("Sub", &[&quotient, &step])
        }
        "rsqrt" => {
            let root = w.node("Sqrt", &[x]);
            w.node("Reciprocal", &[&root])
        }
        "shift_left" | "shift_right" => {
            if dtype != DType::U32 {
                return Err(format!("ONNX shifts unsigned integers only, not {dtype}"));
            }
            let direction = if name == "shift_left" { "LEFT" } else { "RIGHT" };
            w.node_with("BitShift", &[x, other], &[("direction", text(direction))])
        }
        "square" => w.node("Mul", &[x, x]),
        _ => {
            let (sign, magnitude) = (w.node("Sign", &[x]), w.node("Abs", &[x]));
            let floor = w.node("Floor", &[&magnitude]);
            w.node("Mul", &[&sign, &floor])
        }
    }))
}
