//! Operators on single elements, with broadcasting.

use wgrad::{DType, Value};

use super::Family;
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result};
use crate::small_float::power_of_two;
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("Abs", unary),
    ("Acos", unary),
    ("Acosh", unary),
    ("Add", arithmetic),
    ("And", logic),
    ("Asin", unary),
    ("Asinh", unary),
    ("Atan", unary),
    ("Atanh", unary),
    ("BitShift", bit_shift),
    ("BitwiseAnd", arithmetic),
    ("BitwiseNot", unary),
    ("BitwiseOr", arithmetic),
    ("BitwiseXor", arithmetic),
    ("Cast", cast),
    ("CastLike", cast_like),
    ("Ceil", unary),
    ("Celu", unary),
    ("Clip", clip),
    ("Cos", unary),
    ("Cosh", unary),
    ("Div", arithmetic),
    ("Dropout", dropout),
    ("Elu", unary),
    ("Equal", compare),
    ("Erf", unary),
    ("Exp", unary),
    ("Floor", unary),
    ("Gelu", gelu),
    ("Greater", compare),
    ("GreaterOrEqual", compare),
    ("HardSigmoid", unary),
    ("HardSwish", unary),
    ("Identity", identity),
    ("IsInf", is_inf),
    ("IsNaN", is_nan),
    ("LeakyRelu", unary),
    ("Less", compare),
    ("LessOrEqual", compare),
    ("Log", unary),
    ("Max", variadic),
    ("Mean", variadic),
    ("Min", variadic),
    ("Mish", unary),
    ("Mod", modulo),
    ("Mul", arithmetic),
    ("Neg", unary),
    ("Not", not),
    ("Or", logic),
    ("PRelu", prelu),
    ("Pow", pow),
    ("Reciprocal", unary),
    ("Relu", unary),
    ("Round", unary),
    ("Selu", unary),
    ("Shrink", shrink),
    ("Sigmoid", unary),
    ("Sign", unary),
    ("Sin", unary),
    ("Sinh", unary),
    ("Softplus", unary),
    ("Softsign", unary),
    ("Sqrt", unary),
    ("Sub", arithmetic),
    ("Sum", variadic),
    ("Swish", unary),
    ("Tan", unary),
    ("Tanh", unary),
    ("ThresholdedRelu", unary),
    ("Where", choose),
    ("Xor", logic),
    ("com.microsoft.Gelu", gelu),
    ("com.microsoft.QuickGelu", unary),
];

fn unary(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    node.attribute("consumed_inputs");
    let (ty, x) = (node.input(0)?.ty(), node.value(0)?);
    let y = match node.op() {
        "Abs" if matches!(x.dtype(), DType::U32 | DType::U8) => x,
        "Abs" => x.abs(),
        "Acos" => x.acos(),
        "Acosh" => x.acosh(),
        "Asin" => x.asin(),
        "Asinh" => x.asinh(),
        "Atan" => x.atan(),
        "Atanh" => x.atanh(),
        "BitwiseNot" if ty == ElemType::U64 => {
            return Err("devices have 32 bits; of uint64, the upper ones would be missing".into());
        }
        "BitwiseNot" => x.bit_not(),
        "Ceil" if !ty.is_float() => x,
        "Ceil" => -((-x).floor()),
        "Celu" => {
            let alpha = node.number("alpha", 1.0);
            x.relu() + ((&x / alpha).elu(1.0) * alpha).minimum(&x.zeros_like())
        }
        "Cos" => x.cos(),
        "Cosh" => x.cosh(),
        "Elu" => x.elu(node.number("alpha", 1.0)),
        "Erf" => x.erf(),
        "Exp" => x.exp(),
        "Floor" => x.floor(),
        "HardSigmoid" => {
            let (alpha, beta) = (node.number("alpha", 0.2), node.number("beta", 0.5));
            (x * alpha + beta).clamp(0.0, 1.0)
        }
        "HardSwish" => x.hardswish(),
        "LeakyRelu" => x.leaky_relu(node.number("alpha", 0.01)),
        "Log" => x.log(),
        "Mish" => x.mish(),
        "Neg" => -x,
        "QuickGelu" => {
            let alpha = node.number("alpha", 1.702);
            &x * (&x * alpha).sigmoid()
        }
        "Reciprocal" => x.reciprocal(),
        "Relu" => x.relu(),
        "Round" => x.round(),
        "Selu" => {
            let (alpha, gamma) =
                (node.number("alpha", 1.673_263_192_176_818_8), node.number("gamma", 1.050_701_022_148_132_3));
            x.elu(alpha) * gamma
        }
        "Sigmoid" => x.sigmoid(),
        "Sign" if !x.dtype().is_float() => {
            let positive = x.gt(&x.zeros_like()).cast(DType::I32);
            positive - x.lt(&x.zeros_like()).cast(DType::I32)
        }
        "Sign" => x.sign(),
        "Sin" => x.sin(),
        "Sinh" => x.sinh(),
        "Softplus" => x.softplus(),
        "Softsign" => x.softsign(),
        "Sqrt" => x.sqrt(),
        "Swish" => {
            let alpha = node.number("alpha", 1.0);
            &x * (&x * alpha).sigmoid()
        }
        "Tan" => x.tan(),
        "Tanh" => x.tanh(),
        "ThresholdedRelu" => {
            let alpha = node.number("alpha", 1.0);
            x.gt(&x.full_like(alpha)).where_(&x, &x.zeros_like())
        }
        other => return Err(format!("internal: {other} is no function of one tensor").into()),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// Two inputs; before opset 7, the second is aligned to an axis of the first.
fn pair(node: &mut Node<'_, '_>) -> Result<(Value, Value, ElemType)> {
    let (a, b, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    if ty != node.input(1)?.ty() {
        return Err(format!("its inputs have the types {ty} and {}", node.input(1)?.ty()).into());
    }
    let (axis, explicit) = (node.attribute("axis").and_then(|attribute| attribute.i), node.flag("broadcast", false));
    let b = match axis.filter(|_| explicit && node.version() < 7) {
        Some(axis) => {
            let (axis, rank) = (node.axis(axis, a.shape().rank())?, a.shape().rank());
            let mut shape = vec![1isize; axis];
            shape.extend(b.shape().iter().map(|&size| size as isize));
            shape.resize(rank, 1);
            b.reshape(&shape)
        }
        None => b,
    };
    Ok((a, b, ty))
}

fn arithmetic(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    node.attribute("consumed_inputs");
    let (a, b, ty) = pair(node)?;
    let y = match node.op() {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "BitwiseAnd" => a.bit_and(&b),
        "BitwiseOr" => a.bit_or(&b),
        "BitwiseXor" => a.bit_xor(&b),
        _ if ty.is_float() => a / b,
        _ => a.div_trunc(&b),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn compare(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b, ty) = pair(node)?;
    let (a, b) = if ty == ElemType::Bool { (a.cast(DType::I32), b.cast(DType::I32)) } else { (a, b) };
    let y = match node.op() {
        "Equal" => a.eq(&b),
        "Less" => a.lt(&b),
        "LessOrEqual" => a.le(&b),
        "Greater" => a.gt(&b),
        _ => a.ge(&b),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ElemType::Bool)])
}

/// Whether two truth values differ.
fn differ(a: &Value, b: &Value) -> Value {
    a.cast(DType::I32).ne(&b.cast(DType::I32))
}

fn logic(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b, _) = pair(node)?;
    let y = match node.op() {
        "And" => a.and(&b),
        "Or" => a.or(&b),
        _ => differ(&a, &b),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ElemType::Bool)])
}

fn not(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let y = node.checked(node.value(0)?.not())?;
    Ok(vec![node.result(y, ElemType::Bool)])
}

fn identity(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    Ok(vec![node.input(0)?])
}

/// In inference, dropout changes nothing.
fn dropout(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    for ignored in ["ratio", "seed", "is_test", "consumed_inputs"] {
        node.attribute(ignored);
    }
    let training = node.optional(2).is_some() && node.known_ints(2)? != [0];
    if training && node.optional_number(1)?.unwrap_or(0.5) > 0.0 {
        return Err(
            "it is set to training mode, in which its results are random; export the model for inference".into()
        );
    }
    let x = node.input(0)?;
    let mask = Constant::ints(ElemType::Bool, x.shape().to_vec(), vec![1; x.numel()]);
    Ok(vec![x, Val::constant(mask)])
}

fn cast(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let to = node.elem_type("to", ElemType::F32)?;
    convert(node, to)
}

fn cast_like(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let to = node.input(1)?.ty();
    convert(node, to)
}

fn convert(node: &mut Node<'_, '_>, to: ElemType) -> Result<Vec<Val>> {
    let (x, from) = (node.input(0)?, node.input(0)?.ty());
    let saturates = node.flag("saturate", true);
    let mode = node.text("round_mode", "up");
    if from == to {
        return Ok(vec![x]);
    }
    if to.is_small_float() {
        let known = node.known(0)?;
        if to == ElemType::F8E8M0 {
            let values = known.to_floats().into_iter().map(|x| power_of_two(x, &mode, saturates));
            let values = values.collect::<std::result::Result<Vec<f64>, String>>()?;
            return Ok(vec![Val::constant(Constant::floats(to, known.shape().to_vec(), values))]);
        }
        return Ok(vec![Val::constant(small_floats(to, known.shape().to_vec(), known.to_floats(), saturates)?)]);
    }
    // A weight in another precision stays one.
    let value = node.value(0)?;
    let value = match (from.is_float(), to) {
        // WGSL has no defined result for negative floats as unsigned integers.
        (true, ElemType::U8 | ElemType::U16 | ElemType::U4 | ElemType::U2) => value.cast(DType::I32),
        _ => value,
    };
    Ok(vec![node.result(value, to)])
}

/// Numbers rounded to a float type of few bits.
pub(crate) fn small_floats(to: ElemType, shape: Vec<usize>, x: Vec<f64>, saturates: bool) -> Result<Constant> {
    if to == ElemType::F8E8M0 {
        return Err("powers of two of 8 bits are not supported as a result".into());
    }
    if to == ElemType::F4E2M1 && x.iter().any(|x| x.is_nan()) {
        return Err(format!("{to} has no NaN").into());
    }
    let saturates = saturates || to == ElemType::F4E2M1;
    let values = x.into_iter().map(|x| crate::small_float::rounded(to, x, saturates)).collect();
    Ok(Constant::floats(to, shape, values))
}

fn clip(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (ty, x) = (node.input(0)?.ty(), node.value(0)?);
    node.attribute("consumed_inputs");
    let limits = match (node.optional_attribute_number("min"), node.optional_attribute_number("max")) {
        (None, None) => [node.optional_value(1)?, node.optional_value(2)?],
        (low, high) => [low, high].map(|limit| limit.map(|limit| x.full_like(limit))),
    };
    let [low, high] = limits;
    let y = low.map_or(x.clone(), |low| x.maximum(&low));
    let y = high.map_or(y.clone(), |high| y.minimum(&high));
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn gelu(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (ty, x) = (node.input(0)?.ty(), node.value(0)?);
    let y = match node.text("approximate", "none").as_str() {
        "none" => x.gelu(),
        "tanh" => x.gelu_tanh(),
        other => return Err(format!("the approximation `{other}` is unknown").into()),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn is_nan(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.value(0)?;
    Ok(vec![node.result(x.ne(&x), ElemType::Bool)])
}

fn is_inf(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.value(0)?;
    let (negative, positive) = (node.flag("detect_negative", true), node.flag("detect_positive", true));
    let is = |limit: f64| x.eq(&x.full_like(limit));
    let y = match (negative, positive) {
        (true, true) => is(f64::NEG_INFINITY).or(&is(f64::INFINITY)),
        (true, false) => is(f64::NEG_INFINITY),
        (false, true) => is(f64::INFINITY),
        (false, false) => x.ne(&x).and(&x.eq(&x)),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ElemType::Bool)])
}

fn variadic(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    node.attribute("consumed_inputs");
    let ty = node.input(0)?.ty();
    let values = (0..node.inputs().len()).map(|at| node.value(at)).collect::<Result<Vec<_>>>()?;
    let (first, others) = values.split_first().ok_or("it has no inputs")?;
    let y = others.iter().fold(first.clone(), |y, x| match node.op() {
        "Max" => y.maximum(x),
        "Min" => y.minimum(x),
        _ => y + x,
    });
    let y = if node.op() == "Mean" { y / values.len() as f64 } else { y };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn modulo(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b, ty) = pair(node)?;
    let y = match (ty.is_float(), node.flag("fmod", false)) {
        (false, false) => a.remainder(&b),
        (false, true) => a.fmod(&b),
        (true, truncated) => {
            let (a, b) = (a.cast(DType::F32), b.cast(DType::F32));
            let whole = (&a / &b).trunc();
            // A number is less than infinity.
            let infinite = b.abs().eq(&b.full_like(f64::INFINITY)).and(&a.abs().lt(&a.full_like(f64::INFINITY)));
            let rest = infinite.where_(&a, &(&a - whole * &b));
            // A quotient that is rounded to the next whole number leaves a rest of the other sign.
            let zero = rest.zeros_like();
            let over = differ(&rest.lt(&zero), &a.lt(&zero)).and(&rest.ne(&zero));
            let rest = over.where_(&(&rest + b.abs() * a.sign()), &rest);
            let other = differ(&rest.lt(&zero), &b.lt(&zero)).and(&rest.ne(&zero));
            if truncated { rest } else { other.where_(&(&rest + &b), &rest) }
        }
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn pow(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, exponent, ty) = (node.input(0)?, node.input(1)?, node.input(0)?.ty());
    let single = exponent.known().filter(|known| known.numel() == 1 && x.rank() >= exponent.rank());
    let single = single.map(|known| known.to_floats()[0]);
    let a = node.float(0)?;
    let y = match single {
        Some(2.0) => a.square(),
        Some(0.5) => a.sqrt(),
        Some(1.0) => a,
        Some(power) => a.powf(power),
        None => a.pow(&node.float(1)?),
    };
    // Powers of integers are computed in f32, which is exact up to 2^24.
    let y = if ty.is_float() { y } else { y.round() };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn prelu(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, slope, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let zero = x.zeros_like();
    let y = x.lt(&zero).where_(&(&x * slope), &x);
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// `x - bias` above `lambd`, `x + bias` below `-lambd`, else 0.
fn shrink(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.float(0)?, node.input(0)?.ty());
    let (bias, limit) = (node.number("bias", 0.0), node.number("lambd", 0.5));
    let above = x.gt(&x.full_like(limit)).where_(&(&x - bias), &x.zeros_like());
    let y = x.lt(&x.full_like(-limit)).where_(&(&x + bias), &above);
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn choose(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (condition, a, b, ty) = (node.value(0)?, node.value(1)?, node.value(2)?, node.input(1)?.ty());
    let y = node.checked(condition.where_(&a, &b))?;
    Ok(vec![node.result(y, ty)])
}

/// Shifts; those to the right keep the sign.
fn bit_shift(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b, ty) = pair(node)?;
    let y = match node.text("direction", "").as_str() {
        "LEFT" => a.shift_left(&b),
        "RIGHT" => a.shift_right(&b),
        other => return Err(format!("the direction `{other}` is unknown").into()),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}
