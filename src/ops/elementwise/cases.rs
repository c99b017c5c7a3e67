//! Test cases of the elementwise ops and of functions composed of them.

use super::row::Row;
use super::rows;
use crate::autodiff::gradients_of;
use crate::op::{Case, Fill};
use crate::{DType, Shape, Tensor, TensorType, Value};

/// NaN, infinities, zeros of both signs, and ordinary numbers.
pub(super) const HARD: [f64; 12] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0];

/// The first or second element of every pair of [`HARD`] numbers.
const fn paired(second: bool) -> [f64; HARD.len() * HARD.len()] {
    let mut x = [0.0; HARD.len() * HARD.len()];
    let mut k = 0;
    while k < x.len() {
        x[k] = HARD[if second { k % HARD.len() } else { k / HARD.len() }];
        k += 1;
    }
    x
}
const PAIRED: [&[f64]; 2] = [&paired(false), &paired(true)];

/// Cases of every row: one vector, one with special values, one with NaN and infinities, and for several operands
/// one that broadcasts.
pub fn cases() -> Vec<Case> {
    rows::ALL.iter().flat_map(|row| row_cases(row)).chain(composed_cases()).collect()
}

fn row_cases(row: &'static Row) -> Vec<Case> {
    let attributes: &'static [f64] = match row.name {
        "leaky_relu" => &[0.01],
        "elu" => &[1.5],
        "clamp" => &[-0.53, 0.77],
        "powf" => &[-1.5],
        _ => &[],
    };
    let build = move |x: &[Value]| {
        let others: Vec<&Value> = x[1..].iter().collect();
        vec![x[0].elementwise(row, &others, attributes)]
    };
    let ((low, high), arity) = (row.domain, row.arity());
    let mut cases = Vec::new();
    for &dtype in row.dtypes() {
        let case = |name: &str, shapes: [Shape; 3], floats: Fill| {
            let fill = match dtype {
                DType::F32 => floats,
                DType::Bool => Fill::Coin,
                _ => Fill::Index(1000),
            };
            let case = Case::new(row.name, format!("{dtype} {name}"), build);
            let case = shapes.into_iter().take(arity).enumerate().fold(case, |case, (i, shape)| {
                let is_condition = row.is_select() && i == 0;
                let (dtype, fill) = if is_condition { (DType::Bool, Fill::Coin) } else { (dtype, fill.clone()) };
                case.input(["a", "b", "c"][i], TensorType::new(dtype, shape), fill)
            });
            if dtype == DType::F32 && row.differentiable() { case } else { case.forward_only() }
        };
        let flat = |n: usize| [[n].into(), [n].into(), [n].into()];
        cases.push(case("values", flat(37), Fill::Uniform(low, high)));
        if !row.special.is_empty() && dtype == DType::F32 {
            // At kinks and in saturation the derivative is a convention, which finite differences cannot check:
            // these gradients are compared with PyTorch's.
            cases.push(case("special values", flat(33), Fill::Special(row.special, low, high)).forward_only());
        }
        if dtype == DType::F32 {
            // The branches of a selection are operands 1 and 2.
            let operands = arity - usize::from(row.is_select());
            let n = HARD.len().pow(operands as u32) + 1;
            let mut case = case("NaN and infinities", flat(n), Fill::Special(&HARD, low, high)).forward_only();
            let floats = case.inputs.iter_mut().filter(|input| input.ty.dtype == DType::F32);
            floats.zip(PAIRED).for_each(|(input, pairs)| {
                if operands == 2 {
                    input.fill = Fill::Special(pairs, low, high);
                }
            });
            cases.push(case);
        }
        if arity > 1 {
            let shapes = [[3, 1, 5].into(), [4, 1].into(), [5].into()];
            cases.push(case("broadcast", shapes, Fill::Uniform(low, high)));
        }
    }
    cases
}

/// Kernels with several outputs, with one, two and three elements after the last whole vec4.
fn several_outputs(n: usize) -> [Case; 2] {
    let integers = Case::new("abs", format!("{n} negative integers, with the other functions of a sign"), |x| {
        let (a, b) = (&x[0] - 500.0, &x[1] - 500.0);
        vec![a.abs(), a.neg(), a.minimum(&b), a.maximum(&b), &a * &b, a.lt(&b), a.ge(&b)]
    });
    let input = |case: Case, name| case.input(name, TensorType::new(DType::I32, [n]), Fill::Index(1000));
    let floats = Case::new("sub", format!("{n} elements, with sum and product"), |x| {
        vec![&x[0] - &x[1], &x[0] + &x[1], &x[0] * &x[1]]
    });
    let integers = input(input(integers, "a"), "b").forward_only();
    [integers, floats.float("a", [n]).float("b", [n]).forward_only()]
}

/// Integer quotients and remainders: all signs, divisor 0, the ends of the range, and random numbers from all of it.
fn integer_divisions() -> Vec<Case> {
    const ENDS: [i32; 13] =
        [i32::MIN, i32::MIN + 1, -(1 << 24) - 1, -7, -2, -1, 0, 1, 2, 7, (1 << 24) + 1, i32::MAX - 1, i32::MAX];
    type Division = fn(&Value, &Value) -> Value;
    let divisions: [(&'static str, Division); 6] = [
        ("div_trunc", Value::div_trunc),
        ("div_floor", Value::div_floor),
        ("div_euclid", Value::div_euclid),
        ("fmod", Value::fmod),
        ("remainder", Value::remainder),
        ("rem_euclid", Value::rem_euclid),
    ];
    let mut cases = Vec::new();
    for (name, divide) in divisions {
        for dtype in [DType::I32, DType::U32] {
            let ends = Case::new(name, format!("{dtype}, the ends of the range by each other"), move |x| {
                // Adds an input, so that the device computes the result.
                let ends = x[0].graph().constant(Tensor::of(&Shape::from([13]), ENDS.to_vec())).cast(dtype);
                vec![divide(&(ends.reshape(&[13, 1]) + &x[0]), &(&ends + &x[0]))]
            });
            cases.push(ends.input("zero", TensorType::new(dtype, []), Fill::Index(1)).forward_only());
            let drawn = Case::new(name, format!("{dtype} drawn from all, by such, and by few"), move |x| {
                vec![divide(&x[0], &x[1]), divide(&x[0], &(&x[2] - x[2].full_like(3.0)))]
            });
            let input = |case: Case, name, bound| case.input(name, TensorType::new(dtype, [101]), Fill::Index(bound));
            cases.push(input(input(input(drawn, "a", u32::MAX), "b", u32::MAX), "few", 7).forward_only());
        }
    }
    cases
}

/// Bits of integers drawn from all, and shifts by -3 to 36.
fn bits() -> Vec<Case> {
    type Function = fn(&Value, &Value) -> Value;
    let functions: [(&'static str, Function); 5] = [
        ("bit_and", Value::bit_and),
        ("bit_or", Value::bit_or),
        ("bit_xor", |a, b| a.bit_xor(&b.bit_not())),
        ("shift_left", |a, b| a.shift_left(&(b % 40.0 - 3.0))),
        ("shift_right", |a, b| a.shift_right(&(b % 40.0 - 3.0))),
    ];
    let mut cases = Vec::new();
    for (name, function) in functions {
        for dtype in [DType::I32, DType::U32] {
            let case = Case::new(name, format!("{dtype} drawn from all"), move |x| vec![function(&x[0], &x[1])]);
            let input = |case: Case, name| case.input(name, TensorType::new(dtype, [101]), Fill::Index(u32::MAX));
            cases.push(input(input(case, "a"), "b").forward_only());
        }
    }
    cases
}

/// The gradients of `f` for operands of which some are equal.
fn gradients_at_ties(op: &'static str, f: fn(&Value, &Value) -> Value) -> Case {
    let case = Case::new(op, "gradients at ties", move |x| gradients_of(&[(&f(&x[0], &x[1]), &x[2])], &[&x[0], &x[1]]));
    let few = |case: Case, name| case.input(name, TensorType::new(DType::F32, [37]), Fill::Index(3));
    few(few(case, "a"), "b").float("dy", [37]).forward_only()
}

fn composed_cases() -> Vec<Case> {
    let chain = |op: &'static str, f: fn(&Value) -> Value| {
        let ty = TensorType::new(DType::F32, [5, 7]);
        let far = Fill::Special(&[0.0, 1.0, -1.0, 20.0, -20.0, 100.0, -100.0], -3.0, 3.0);
        Case::new(op, "chain, including the tails", move |x| vec![f(&x[0])]).input("x", ty, far)
    };
    let powf = |exponent: f64| {
        let ty = TensorType::new(DType::F32, [33]);
        let special = Fill::Special(&[2.0, -2.0, 1.0, -1.0, -0.5, 3.0, -3.0], 0.3, 2.0);
        Case::new("powf", format!("to the power {exponent}"), move |x| vec![x[0].powf(exponent)])
            .input("x", ty, special)
    };
    let mut cases = vec![
        chain("gelu", Value::gelu),
        chain("gelu_tanh", Value::gelu_tanh),
        chain("silu", Value::silu),
        chain("selu", Value::selu).forward_only(), // the slope at 0 is a convention
        Case::new("selu", "either side", |x| vec![x[0].selu()]).float("x", [37]),
        chain("mish", Value::mish),
        chain("hardswish", Value::hardswish),
        Case::new("glu", "last axis", |x| vec![x[0].glu(-1)]).float("x", [3, 10]),
        Case::new("swiglu", "middle axis", |x| vec![x[0].swiglu(1)]).float("x", [2, 6, 5]),
        Case::new("prelu", "a slope for each channel", |x| vec![x[0].prelu(&x[1])])
            .float("x", [3, 4, 5])
            .float("w", [4]),
        Case::new("prelu", "one slope, and of a vector", |x| vec![x[0].prelu(&x[1]), x[2].prelu(&x[2])])
            .float("x", [6, 3])
            .float("w", [1])
            .float("v", [5]),
        powf(-2.0),
        powf(-1.0),
        powf(0.0),
        powf(1.0),
        powf(2.0),
        powf(3.0),
        powf(4.0),
        Case::new("pow", "negative bases to whole powers", |x| vec![x[0].pow(&x[1].round())])
            .input("a", TensorType::new(DType::F32, [65]), Fill::Uniform(-2.0, -0.3))
            .input("b", TensorType::new(DType::F32, [65]), Fill::Uniform(-4.4, 4.4))
            .forward_only(),
        Case::new("clamp", "i32 from both sides, and from one", |x| {
            let x = &x[0] - 500.0;
            vec![x.clamp(-7.0, 100.0), x.clamp(f64::NEG_INFINITY, 3.0), x.clamp(-3.0, f64::INFINITY)]
        })
        .input("x", TensorType::new(DType::I32, [101]), Fill::Index(1000))
        .forward_only(),
        Case::new("relu", "empty", |x| vec![x[0].relu()]).float("x", [0]),
        Case::new("relu", "70,001 elements", |x| vec![x[0].relu()])
            .input("x", TensorType::new(DType::F32, [70_001]), Fill::Distinct)
            .forward_only(),
        Case::new("add", "empty", |x| vec![&x[0] + &x[1]]).float("a", [0, 3]).float("b", [3]),
        Case::new("mul", "permuted and sliced operands", |x| {
            vec![x[0].permute(&[1, 0]) * x[1].slice(0, 1, 9, 2) + 1.0]
        })
        .float("a", [6, 4])
        .float("b", [9, 6]),
        Case::new("mul", "by 1, on either side, then used", |x| {
            let (right, left) = (&x[0] * 1.0, x[1].ones_like() * &x[1]);
            vec![(&right - &left).exp(), right * left.tanh(), &x[1] * 1.0]
        })
        .float("a", [6, 4])
        .float("b", [6, 4]),
        Case::new("add", "large, two outputs of one chain", |x| {
            let y = (&x[0] + &x[1]).relu();
            vec![y.square(), y]
        })
        .float("a", [70_001])
        .float("b", [1])
        .forward_only(),
    ];
    cases.extend(integer_divisions());
    cases.extend(bits());
    cases.extend([41, 42, 43].into_iter().flat_map(several_outputs));
    cases.push(gradients_at_ties("maximum", |a, b| a.maximum(b)));
    cases.push(gradients_at_ties("minimum", |a, b| a.minimum(b)));
    cases
}
