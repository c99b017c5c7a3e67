//! Random test cases: shapes around tile edges, extreme values, and strided inputs.

use rand::Rng;
use rand::rngs::StdRng;

use super::attention::Attention;
use super::conv2d::{Conv2d, output_shape};
use super::pool2d::Pool2d;
use super::quantized_matmul;
use super::recurrent::{self, Activation, Cell, Form, With};
use crate::op::{Case, CaseInput, Fill};
use crate::{DType, Shape, TensorType, Value};

/// Sizes at which kernels change behaviour: the limits of vectors, tiles and workgroups with both neighbours, primes,
/// one.
const EDGES: &[usize] = &[
    1, 1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 23, 31, 32, 33, 37, 63, 64, 65, 97, 127, 128, 129, 131, 251, 255,
    256, 257, 509, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097,
];

/// Maximum elements per input: the reference is slow, and edges occur at small sizes.
const MAX: usize = 1 << 14;

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// A size up to `most`; rarely 0.
fn size(rng: &mut StdRng, most: usize) -> usize {
    if rng.random_range(0..40) == 0 { 0 } else { edge(rng, most) }
}

/// A size from 1 to `most`.
fn edge(rng: &mut StdRng, most: usize) -> usize {
    let below = EDGES.partition_point(|&size| size <= most.max(1));
    pick(rng, &EDGES[..below])
}

/// A shape of this rank; the product of the sizes stays below [`MAX`].
fn shape(rng: &mut StdRng, rank: usize) -> Vec<usize> {
    let mut left = MAX;
    let mut shape: Vec<usize> = (0..rank)
        .map(|_| {
            let size = size(rng, left.min(4097));
            left /= size.max(1);
            size
        })
        .collect();
    // The size drawn first may be the largest: shuffle.
    (1..rank).for_each(|i| shape.swap(i, rng.random_range(0..=i)));
    shape
}

/// Floats for sums and products: mostly ordinary, sometimes large, sometimes subnormal.
fn values(rng: &mut StdRng) -> Fill {
    const HARD: &[f64] = &[1e-40, -1e-40, 1e-45, 1.2e-38, -1.2e-38, 0.0, -0.0, 100.0, -100.0];
    match rng.random_range(0..8) {
        0 => Fill::Uniform(-100.0, 100.0),
        1 | 2 => Fill::Special(HARD, -1.0, 1.0),
        _ => Fill::Uniform(-1.0, 1.0),
    }
}

/// Logits: mostly ordinary, sometimes saturating.
fn logits(rng: &mut StdRng) -> Fill {
    match rng.random_range(0..4) {
        0 => Fill::Special(&[100.0, -100.0, 100.0, 99.0, 0.0, -0.0, 1e-40], -100.0, 100.0),
        _ => Fill::Uniform(-2.0, 2.0),
    }
}

fn floats(shape: &[usize]) -> TensorType {
    TensorType::new(DType::F32, shape)
}

/// A numeric element type, mostly f32.
fn numbers(rng: &mut StdRng) -> DType {
    pick(rng, &[DType::F32, DType::F32, DType::F32, DType::I32, DType::U32])
}

/// Adds a numeric input to the case: floats as [`values`] draws them, or any integers, which make the case
/// forward-only.
fn input(case: Case, name: &'static str, dtype: DType, shape: &[usize], rng: &mut StdRng) -> Case {
    let ty = TensorType::new(dtype, shape);
    match dtype {
        DType::F32 => case.input(name, ty, values(rng)),
        _ => case.input(name, ty, Fill::Index(u32::MAX)).forward_only(),
    }
}

/// A rank, sometimes unusually high.
fn rank(rng: &mut StdRng) -> usize {
    if rng.random_range(0..4) == 0 { rng.random_range(5..10) } else { rng.random_range(1..5) }
}

/// Randomly replaces inputs of the case by views of larger tensors: transposed, sliced with offset and step, or both.
fn viewed(case: Case, rng: &mut StdRng) -> Case {
    let mut inputs = Vec::new();
    let mut views: Vec<RandomView> = Vec::new();
    for CaseInput { name, ty, fill } in case.inputs {
        let mut sizes = ty.shape.to_vec();
        let mut view = RandomView::default();
        if !sizes.is_empty() && rng.random_range(0..4) == 0 {
            let (axis, before, step) =
                (rng.random_range(0..sizes.len()), rng.random_range(0..4), rng.random_range(1..4));
            let end = before + (sizes[axis] * step).saturating_sub(rng.random_range(0..step));
            sizes[axis] = end + rng.random_range(0..3);
            view.slice = Some((axis as isize, before, end, step));
        }
        if sizes.len() > 1 && rng.random_range(0..3) == 0 {
            let mut axes: Vec<usize> = (0..sizes.len()).collect();
            (1..axes.len()).for_each(|i| axes.swap(i, rng.random_range(0..=i)));
            // The input has its axes in this order; the view restores the original order.
            sizes = axes.iter().map(|&axis| sizes[axis]).collect();
            let back = (0..axes.len()).map(|axis| axes.iter().position(|&a| a == axis).unwrap_or(axis) as isize);
            view.permute = Some(back.collect());
        }
        inputs.push(CaseInput { name, ty: TensorType::new(ty.dtype, sizes), fill });
        views.push(view);
    }
    let seen: Vec<&str> = inputs.iter().zip(&views).filter(|(_, v)| v.is_some()).map(|(i, _)| i.name).collect();
    let name = if seen.is_empty() { case.name } else { format!("{}, through views {}", case.name, seen.join(" ")) };
    let build = case.build;
    Case {
        op: case.op,
        name,
        inputs,
        build: Box::new(move |x| build(&x.iter().zip(&views).map(|(x, view)| view.of(x)).collect::<Vec<_>>())),
        differentiable: case.differentiable,
        ill_conditioned: case.ill_conditioned,
    }
}

/// A random view of an input.
#[derive(Default)]
struct RandomView {
    permute: Option<Vec<isize>>,
    /// Axis, start, end, step.
    slice: Option<(isize, usize, usize, usize)>,
}

impl RandomView {
    fn is_some(&self) -> bool {
        self.permute.is_some() || self.slice.is_some()
    }

    fn of(&self, x: &Value) -> Value {
        let x = self.permute.as_ref().map_or_else(|| x.clone(), |axes| x.permute(axes));
        self.slice.map_or_else(|| x.clone(), |(axis, start, end, step)| x.slice(axis, start, end, step))
    }
}

pub fn matmul(rng: &mut StdRng) -> Case {
    let n = edge(rng, 257);
    let k = size(rng, 1025.min(MAX / n));
    let m = size(rng, 257.min(MAX / n.max(k)));
    let (a, b) = match rng.random_range(0..6) {
        0 if k > 0 => (vec![m, k], vec![k]),
        1 => (vec![k], vec![k, n]),
        2 => (vec![3, 1, m.min(33), k], vec![2, k, n]),
        3 => (vec![2, m.min(65), k], vec![k, n]),
        _ => (vec![m, k], vec![k, n]),
    };
    let dtype = numbers(rng);
    let case = Case::new("matmul", format!("random {dtype} {a:?} x {b:?}"), |x| vec![x[0].matmul(&x[1])]);
    let case = input(case, "a", dtype, &a, rng);
    viewed(input(case, "b", dtype, &b, rng), rng)
}

pub fn quantized_matmul(rng: &mut StdRng) -> Case {
    let rows = edge(rng, 257);
    let columns = size(rng, 1025.min(MAX / rows));
    let m = size(rng, 257.min(MAX / rows.max(columns)));
    let x = pick(rng, &[&[m, columns][..], &[1, columns], &[columns], &[2, m.min(5), columns]]).to_vec();
    let (bits, zeros) = (pick(rng, &[4, 8]), rng.random());
    let scales = pick(rng, &[DType::F32, DType::F16, DType::BF16]);
    let name = format!("random {x:?} x {rows}, {bits} bits, zero points {zeros}, scales {scales}");
    let mut case = quantized_matmul::product(name, &x, rows, bits, zeros, scales);
    case.inputs[0].fill = values(rng);
    viewed(case, rng)
}

pub fn conv2d(rng: &mut StdRng) -> Case {
    loop {
        let groups = pick(rng, &[1, 1, 1, 2, 3]);
        let (ci, co) = (edge(rng, 17), edge(rng, 17));
        let kernel = [pick(rng, &[1, 2, 3, 3, 5, 7]), pick(rng, &[1, 2, 3, 3, 4])];
        let options = Conv2d::default()
            .stride([pick(rng, &[1, 1, 2, 3]), pick(rng, &[1, 1, 2])])
            .padding([rng.random_range(0..=kernel[0] / 2), rng.random_range(0..=kernel[1] / 2)])
            .dilation([pick(rng, &[1, 1, 1, 2]), pick(rng, &[1, 1, 1, 3])])
            .groups(groups);
        let x = [size(rng, 3), ci * groups, edge(rng, 17), edge(rng, 33)];
        let weight = [co * groups, ci, kernel[0], kernel[1]];
        let Ok(y) = output_shape(&x, &weight, options) else { continue };
        if y.iter().product::<usize>() * ci * kernel[0] * kernel[1] > 1 << 20 {
            continue;
        }
        if y[2] > 0 && rng.random_range(0..4) == 0 {
            let extra = [0, 1].map(|i| rng.random_range(0..options.stride[i].max(options.dilation[i])));
            let name = format!("random {y:?} * {weight:?}, {options:?}, output padding {extra:?}");
            let case =
                Case::new("conv_transpose2d", name, move |v| vec![v[0].conv_transpose2d(&v[1], None, options, extra)]);
            let case = case.input("x", floats(&y), values(rng)).input("weight", floats(&weight), values(rng));
            return viewed(case, rng);
        }
        let name = format!("random {x:?} * {weight:?}, {options:?}");
        let case = Case::new("conv2d", name, move |v| vec![v[0].conv2d(&v[1], None, options)]);
        let case = case.input("x", floats(&x), values(rng)).input("weight", floats(&weight), values(rng));
        return viewed(case, rng);
    }
}

pub fn pool2d(rng: &mut StdRng) -> Case {
    let kernel: [usize; 2] = [pick(rng, &[1, 2, 2, 3, 5]), pick(rng, &[1, 2, 2, 3, 4])];
    let options = Pool2d::new(kernel)
        .stride([pick(rng, &[1, 2, 2, 3]), pick(rng, &[1, 2, 2, 3])])
        .padding(kernel.map(|k| rng.random_range(0..=k / 2)))
        .count_include_pad(rng.random());
    let x = [size(rng, 3), edge(rng, 9), edge(rng, 33).max(kernel[0]), edge(rng, 33).max(kernel[1])];
    let name = format!("random {x:?}, {options:?}");
    let case = match rng.random::<bool>() {
        // At ties the gradient is a convention.
        true => Case::new("max_pool2d", name, move |v| vec![v[0].max_pool2d(options)]).input(
            "x",
            floats(&x),
            Fill::Distinct,
        ),
        false => {
            Case::new("avg_pool2d", name, move |v| vec![v[0].avg_pool2d(options)]).input("x", floats(&x), values(rng))
        }
    };
    viewed(case, rng)
}

/// Some of the axes, sorted, at least one.
fn axes(rng: &mut StdRng, rank: usize) -> Vec<isize> {
    let first = rng.random_range(0..rank);
    (0..rank).filter(|&axis| axis == first || rng.random_range(0..3) == 0).map(|axis| axis as isize).collect()
}

pub fn reduce(rng: &mut StdRng) -> Case {
    let rank = rank(rng);
    let (mut x, axes, keep) = (shape(rng, rank), axes(rng, rank), rng.random());
    let what = pick(rng, &["sum", "mean", "var", "max", "min", "logsumexp"]);
    if what != "sum" {
        x.iter_mut().for_each(|size| *size = (*size).max(1)); // undefined for empty input
    }
    if what == "var" {
        // If every reduced axis has size 1, the deviation is exactly 0.
        x[axes[0] as usize] = x[axes[0] as usize].max(2);
    }
    let name = format!("random {x:?} over {axes:?}");
    let fill = match what {
        "sum" | "mean" => values(rng),
        "logsumexp" => logits(rng),
        "var" => Fill::Uniform(-1.0, 1.0),
        _ => Fill::Distinct,
    };
    let build = move |x: &[Value]| {
        vec![match what {
            "sum" => x[0].sum(&axes, keep),
            "mean" => x[0].mean(&axes, keep),
            "var" => x[0].var(&axes, 0, keep),
            "max" => x[0].max(&axes, keep),
            "min" => x[0].min(&axes, keep),
            _ => x[0].logsumexp(&axes, keep),
        }]
    };
    viewed(Case::new(what, name, build).input("x", floats(&x), fill), rng)
}

pub fn softmax(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..4);
    let (x, axis, log) = (shape(rng, rank), rng.random_range(0..rank) as isize, rng.random());
    let op = if log { "log_softmax" } else { "softmax" };
    let build = move |x: &[Value]| vec![if log { x[0].log_softmax(axis) } else { x[0].softmax(axis) }];
    viewed(Case::new(op, format!("random {x:?} along {axis}"), build).input("x", floats(&x), logits(rng)), rng)
}

pub fn norm(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(2..5);
    let mut x = shape(rng, rank);
    x.iter_mut().for_each(|size| *size = (*size).max(1));
    x[0] = x[0].max(2);
    let (op, last) = (pick(rng, &["layer_norm", "rms_norm", "group_norm", "batch_norm"]), x[rank - 1]);
    let row = match op {
        "group_norm" => x[1..].iter().product(),
        "batch_norm" => x.iter().product::<usize>() / x[1],
        _ => last,
    };
    // With a small eps, short rows have the same result for any data, and their gradient is pure rounding error.
    let (eps, fill) = match rng.random_range(0..4) {
        _ if row < 8 => (1.0, Fill::Uniform(-1.0, 1.0)),
        0 => (1e-3, Fill::Uniform(99.0, 101.0)),
        1 => (1e-3, Fill::Special(&[100.0, -100.0, 1e-20, 0.0, 1e-40], -1.0, 1.0)),
        _ => (1e-5, Fill::Uniform(-1.0, 1.0)),
    };
    let case = Case::new(op, format!("random {x:?}, eps {eps}"), move |x| {
        vec![match op {
            "layer_norm" => x[0].layer_norm(&[last], None, None, eps),
            "rms_norm" => x[0].rms_norm(&[last], None, eps),
            "group_norm" => x[0].group_norm(1, None, None, eps),
            _ => x[0].batch_norm_training(None, None, eps).y,
        }]
    });
    viewed(case.input("x", floats(&x), fill), rng)
}

pub fn cross_entropy(rng: &mut StdRng) -> Case {
    let classes = edge(rng, 1025);
    let mut x = vec![size(rng, 129.min(MAX / classes)), classes];
    if rng.random_range(0..3) == 0 {
        x.extend([rng.random_range(1..4), rng.random_range(1..4)]);
    }
    let rows: Vec<usize> = [&x[..1], &x[2..]].concat();
    let dtype = pick(rng, &[DType::I32, DType::U32]);
    let case = Case::new("cross_entropy", format!("random {x:?}"), |x| vec![x[0].cross_entropy_losses(&x[1])]);
    let case = case.input("x", floats(&x), logits(rng));
    viewed(case.input("class", TensorType::new(dtype, rows), Fill::Index(classes as u32)), rng)
}

pub fn attention(rng: &mut StdRng) -> Case {
    let (n, h) = (rng.random_range(1..3), rng.random_range(1..4));
    // With a single key, the gradient of the query is 0, and there is nothing to compare rounding errors with.
    let [l, s] = [0, 1].map(|_| edge(rng, 130).max(2));
    let [e, width] = [0, 1].map(|_| edge(rng, 140.min(MAX / (n * h * l.max(s)))));
    let (is_causal, scale) = (rng.random(), pick(rng, &[None, Some(1.0), Some(-0.3)]));
    let mask = [pick(rng, &[1, n]), pick(rng, &[1, h]), pick(rng, &[1, l]), s];
    let masked = rng.random_range(0..3) == 0;
    let name = format!("random {n} x {h} of {l} queries, {s} keys, {e} and {width} elements, causal {is_causal}");
    let case = Case::new("attention", name, move |x| {
        let options = Attention { attn_mask: x.get(3).cloned(), is_causal, scale };
        vec![x[0].scaled_dot_product_attention(&x[1], &x[2], &options)]
    });
    let case =
        case.float("q", [n, h, l, e]).float("k", [n, h, s, e]).input("v", floats(&[n, h, s, width]), values(rng));
    viewed(if masked { case.input("mask", floats(&mask), Fill::Uniform(-3.0, 3.0)) } else { case }, rng)
}

pub fn recurrent(rng: &mut StdRng) -> Case {
    let cell = pick(rng, &[Cell::Rnn, Cell::Lstm, Cell::Gru]);
    let hidden = edge(rng, 257);
    // A step multiplies by all weights, and the reference computes it many times.
    let steps = edge(rng, (MAX / hidden).min(65));
    let rows = (1 << 19) / (steps * hidden * hidden);
    let form = Form { batch: size(rng, rows.clamp(1, 65)), steps, inputs: size(rng, 33), hidden };
    let with = With {
        activation: pick(rng, &[Activation::Tanh, Activation::Tanh, Activation::Relu]),
        reverse: rng.random(),
        bias: rng.random(),
        state: rng.random(),
        ends: rng.random_range(0..4) == 0,
    };
    viewed(recurrent::case(cell, format!("random {form:?}, {with:?}"), form, with), rng)
}

pub fn cumsum(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..4);
    let (x, axis) = (shape(rng, rank), rng.random_range(0..rank) as isize);
    let dtype = numbers(rng);
    let case = Case::new("cumsum", format!("random {dtype}{x:?} along {axis}"), move |x| vec![x[0].cumsum(axis)]);
    viewed(input(case, "x", dtype, &x, rng), rng)
}

pub fn argmax(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..4);
    let (x, axis, keep) = (shape(rng, rank), rng.random_range(0..rank) as isize, rng.random());
    let x: Vec<usize> = x.into_iter().map(|size| size.max(1)).collect();
    let fill = pick(rng, &[0, 1]);
    let fill = if fill == 0 { Fill::Distinct } else { Fill::Index(50) };
    let case = Case::new("argmax", format!("random {x:?} along {axis}"), move |x| vec![x[0].argmax(axis, keep)]);
    viewed(case.input("x", floats(&x), fill).forward_only(), rng)
}

pub fn argsort(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..4);
    let (x, axis, down) = (shape(rng, rank), rng.random_range(0..rank) as isize, rng.random());
    let fill = if rng.random() { Fill::Distinct } else { Fill::Index(50) };
    let case = Case::new("argsort", format!("random {x:?} along {axis}"), move |x| vec![x[0].argsort(axis, down)]);
    viewed(case.input("x", floats(&x), fill).forward_only(), rng)
}

/// An index no larger than `x` on the other axes, and a source no smaller on any axis.
pub fn scatter(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..4);
    let (mut x, axis) = (shape(rng, rank), rng.random_range(0..rank));
    x[axis] = x[axis].max(1);
    let mut index: Vec<usize> = x.iter().map(|&size| size - rng.random_range(0..=size.min(2))).collect();
    index[axis] = size(rng, (MAX / index.iter().product::<usize>().max(1)).clamp(1, 1025));
    let src: Vec<usize> = index.iter().map(|&size| size + rng.random_range(0..2)).collect();
    let name = format!("random {index:?} into {x:?} along {axis}");
    let case = Case::new("scatter_sum", name, move |v| vec![v[0].scatter_add(axis as isize, &v[1], &v[2])]);
    let index = TensorType::new(pick(rng, &[DType::I32, DType::U32]), index);
    let case = case.input("x", floats(&x), values(rng)).input("index", index, Fill::Index(x[axis] as u32));
    viewed(case.input("src", floats(&src), values(rng)), rng)
}

pub fn gather(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..4);
    let (mut x, axis, whole) = (shape(rng, rank), rng.random_range(0..rank), rng.random::<bool>());
    x[axis] = x[axis].max(1);
    let mut index: Vec<usize> = x.iter().map(|&size| size - rng.random_range(0..=size.min(2))).collect();
    let around: usize = if whole { x.iter().product::<usize>() / x[axis] } else { index.iter().product() };
    index[axis] = size(rng, (MAX / around.max(1)).clamp(1, 1025));
    let index = if whole { vec![index[axis]] } else { index };
    let name = format!("random {index:?} of {x:?} along {axis}");
    let case = Case::new("gather", name, move |v| {
        let axis = axis as isize;
        vec![if whole { v[0].index_select(axis, &v[1]) } else { v[0].gather(axis, &v[1]) }]
    });
    let index = TensorType::new(pick(rng, &[DType::I32, DType::U32]), index);
    viewed(case.input("x", floats(&x), values(rng)).input("index", index, Fill::Index(x[axis] as u32)), rng)
}

pub fn flip(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..5);
    let (x, axes) = (shape(rng, rank), axes(rng, rank));
    let case = Case::new("flip", format!("random {x:?} along {axes:?}"), move |x| vec![x[0].flip(&axes)]);
    viewed(case.input("x", floats(&x), values(rng)), rng)
}

pub fn concat(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..5);
    let (whole, axis) = (shape(rng, rank), rng.random_range(0..rank));
    let names = &["a", "b", "c", "d"][..rng.random_range(2..5)];
    let mut case = Case::new("concat", format!("random {whole:?} along {axis}"), move |x| {
        vec![x[0].concat(&x[1..].iter().collect::<Vec<_>>(), axis as isize)]
    });
    for name in names {
        let mut part = whole.clone();
        part[axis] = size(rng, whole[axis].max(1));
        case = case.input(name, floats(&part), values(rng));
    }
    viewed(case, rng)
}

/// Operands with letters that occur once or twice, some with `...` for broadcast axes.
pub fn einsum(rng: &mut StdRng) -> Case {
    let size_of = ['a', 'b', 'c', 'd'].map(|letter| (letter, pick(rng, &[1, 2, 3, 4, 5, 8])));
    let before = [pick(rng, &[1, 2, 3]), pick(rng, &[1, 4])];
    let (mut equation, mut shapes, mut named, mut dots) = (String::new(), Vec::new(), Vec::new(), false);
    for operand in 0..rng.random_range(1..4) {
        let letters: Vec<(char, usize)> = (0..rng.random_range(1..4)).map(|_| pick(rng, &size_of)).collect();
        let (at, with) = (rng.random_range(0..=letters.len()), rng.random_range(0..3) == 0);
        let rest: &[usize] = if with { &before[rng.random_range(0..3)..] } else { &[] };
        let rest: Vec<usize> = rest.iter().map(|&size| if rng.random_range(0..3) == 0 { 1 } else { size }).collect();
        equation += if operand > 0 { "," } else { "" };
        equation.extend(letters[..at].iter().map(|(letter, _)| letter));
        equation += if with { "..." } else { "" };
        equation.extend(letters[at..].iter().map(|(letter, _)| letter));
        let sizes = |letters: &[(char, usize)]| letters.iter().map(|(_, size)| *size).collect::<Vec<_>>();
        shapes.push([sizes(&letters[..at]), rest, sizes(&letters[at..])].concat());
        named.extend(letters.iter().map(|(letter, _)| *letter));
        dots |= with;
    }
    named.sort_unstable();
    named.dedup();
    named.retain(|_| rng.random_range(0..2) == 0);
    if rng.random_range(0..5) > 0 {
        equation += if dots && rng.random_range(0..3) > 0 { "->..." } else { "->" };
        equation.extend(named);
    }
    let text = equation.clone();
    let case = Case::new("einsum", format!("random {equation} of {shapes:?}"), move |x| {
        vec![x[0].graph().einsum(&text, &x.iter().collect::<Vec<_>>())]
    });
    let operands = ["a", "b", "c"].into_iter().zip(&shapes);
    viewed(operands.fold(case, |case, (name, shape)| case.float(name, shape.as_slice())), rng)
}

pub fn pad(rng: &mut StdRng) -> Case {
    let rank = rank(rng);
    let x = shape(rng, rank);
    // Padding all of many axes would make gigabytes.
    let mut count: usize = x.iter().map(|&size| size.max(1)).product();
    let pads = x.iter().map(|&size| {
        let pad @ (before, after) = (pick(rng, &[0, 0, 1, 2, 5]), pick(rng, &[0, 0, 1, 3, 4]));
        let padded = count / size.max(1) * (before + size + after);
        if padded > 8 * MAX {
            return (0, 0);
        }
        count = padded;
        pad
    });
    let pads: Vec<(usize, usize)> = pads.collect();
    let case = Case::new("pad", format!("random {x:?} by {pads:?}"), move |x| vec![x[0].pad(&pads, 0.5)]);
    viewed(case.input("x", floats(&x), values(rng)), rng)
}

pub fn view(rng: &mut StdRng) -> Case {
    let rank = rng.random_range(1..5);
    let x = shape(rng, rank);
    let case = Case::new("reshape", format!("random {x:?}, read through what it was"), |x| {
        // The sum of two different views of one tensor, one of which needs a copy.
        let flat = x[0].reshape(&[-1]);
        let backwards: Vec<isize> = (0..x[0].shape().rank() as isize).rev().collect();
        vec![&flat + x[0].permute(&backwards).reshape(&[-1]), flat]
    });
    // The size cannot be inferred without elements.
    let x: Vec<usize> = x.into_iter().map(|size| size.max(1)).collect();
    viewed(case.input("x", floats(&x), values(rng)), rng)
}

/// One of the elementwise cases with random shapes that broadcast.
pub fn elementwise(rng: &mut StdRng) -> Case {
    let cases = super::elementwise::cases();
    let mut rows: Vec<Case> = cases.into_iter().filter(|case| case.name.ends_with(" values")).collect();
    let mut case = rows.swap_remove(rng.random_range(0..rows.len()));
    let rank = rng.random_range(0..5);
    let whole = shape(rng, rank);
    for input in &mut case.inputs {
        let dropped = if rng.random_range(0..4) == 0 { rng.random_range(0..=rank) } else { 0 };
        let sizes = whole[dropped..].iter().map(|&size| if rng.random_range(0..5) == 0 { 1 } else { size });
        input.ty.shape = Shape::from(sizes.collect::<Vec<usize>>());
    }
    let name = format!("random {}, {whole:?}", case.name);
    viewed(Case { name, ..case }, rng)
}

/// Cases with more workgroups than one dispatch dimension allows.
pub fn large() -> Vec<Case> {
    const MANY: usize = 65_537;
    let rows = || format!("{MANY} rows");
    let batch = || format!("a batch of {MANY}");
    let classes = TensorType::new(DType::I32, [MANY]);
    vec![
        Case::new("softmax", rows(), |x| vec![x[0].softmax(-1)]).float("x", [MANY, 3]),
        Case::new("cross_entropy", rows(), |x| vec![x[0].cross_entropy_losses(&x[1])]).float("x", [MANY, 3]).input(
            "class",
            classes,
            Fill::Index(3),
        ),
        Case::new("sum", rows(), |x| vec![x[0].sum(&[1], false)]).float("x", [MANY, 5]),
        Case::new("max", rows(), |x| vec![x[0].max(&[1], false)]).input("x", floats(&[MANY, 3]), Fill::Distinct),
        Case::new("argmax", rows(), |x| vec![x[0].argmax(1, false)])
            .input("x", floats(&[MANY, 3]), Fill::Index(9))
            .forward_only(),
        Case::new("matmul", batch(), |x| vec![x[0].matmul(&x[1])]).float("a", [MANY, 2, 3]).float("b", [MANY, 3, 1]),
        Case::new("conv2d", batch(), |x| vec![x[0].conv2d(&x[1], None, Conv2d::default())])
            .float("x", [MANY, 1, 2, 2])
            .float("weight", [2, 1, 2, 2]),
        Case::new("max_pool2d", batch(), |x| vec![x[0].max_pool2d(2)]).input(
            "x",
            floats(&[MANY, 1, 2, 2]),
            Fill::Distinct,
        ),
        Case::new("relu", "17 million elements", |x| vec![x[0].relu()]).float("x", [17_000_003]).forward_only(),
        Case::new("pad", "4 million rows", |x| vec![x[0].pad(&[(1, 0), (0, 2)], 0.5)])
            .float("x", [4_200_000, 2])
            .forward_only(),
    ]
}
