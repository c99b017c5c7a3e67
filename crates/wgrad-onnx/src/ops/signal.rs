//! Fourier transforms, and the windows and weights that go with them.

use std::f64::consts::PI;

use wgrad::{DType, Graph, Tensor, Value};

use super::Family;
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("BlackmanWindow", window),
    ("DFT", dft),
    ("HammingWindow", window),
    ("HannWindow", window),
    ("MelWeightMatrix", mel_weights),
    ("STFT", stft),
];

/// Elements of the matrix of a transform.
const MOST: usize = 1 << 26;

/// A discrete Fourier transform of some length.
struct Transform {
    length: usize,
    inverse: bool,
    onesided: bool,
}

impl Transform {
    /// The transform of the last axis but one of `x` `[.., n, 1 or 2]`, real or complex numbers, which are cut or
    /// filled with zeros to the length: a product with the matrix of the transform.
    fn of(&self, graph: &Graph, x: &Value) -> Result<Value> {
        let (n, parts) = (x.dim(-2), x.dim(-1));
        if !matches!(parts, 1 | 2) {
            return Err(format!("the last axis of {} is not that of real or complex numbers", x.ty()).into());
        }
        let length = self.length;
        if length == 0 {
            return Err("a transform of length 0 has no values".into());
        }
        // Of one side, the inverse makes real numbers.
        let real = self.inverse && self.onesided;
        let (given, bins) = (if real { length / 2 + 1 } else { length }, length / 2 + 1);
        let results = if self.onesided && !self.inverse { bins } else { length };
        let (used, to) = (n.min(given), if real { 1 } else { 2 });
        if (used * parts).saturating_mul(results * to) > MOST {
            return Err(format!("a transform of length {length} is too long").into());
        }
        let mut matrix = Vec::with_capacity(used * parts * results * to);
        for at in 0..used {
            for part in 0..parts {
                for k in 0..results {
                    let angle = 2.0 * PI * ((at * k) % length) as f64 / length as f64;
                    let (cos, sin) = (angle.cos(), if self.inverse { -angle.sin() } else { angle.sin() });
                    if real {
                        // The other side is the conjugate.
                        let times = if at == 0 || 2 * at == length { 1.0 } else { 2.0 };
                        matrix.push(times * if part == 0 { cos } else { sin } / length as f64);
                        continue;
                    }
                    let scale = if self.inverse { 1.0 / length as f64 } else { 1.0 };
                    // (x + i y) (cos - i sin)
                    let pair = if part == 0 { [cos, -sin] } else { [sin, cos] };
                    matrix.extend(pair.map(|x| x * scale));
                }
            }
        }
        let matrix = Tensor::new([used * parts, results * to], matrix).map_err(|error| error.to_string())?;
        let mut shape = x.shape().to_vec();
        let rank = shape.len();
        let outer: usize = shape[..rank - 2].iter().product();
        (shape[rank - 2], shape[rank - 1]) = (results, to);
        let x = x.cast(DType::F32).slice(-2, 0, used, 1).reshape(&signed(&[outer, used * parts]));
        Ok(x.matmul(&graph.constant(matrix.cast(DType::F32))).reshape(&signed(&shape)))
    }
}

fn dft(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let rank = x.shape().rank();
    let axis = match node.version() < 20 {
        true => node.int("axis", 1),
        false => node.optional_ints(2)?.and_then(|ints| ints.first().copied()).unwrap_or(-2),
    };
    let axis = node.axis(axis, rank)?;
    if axis + 1 == rank {
        return Err("the last axis has the parts of complex numbers, and cannot be transformed".into());
    }
    let (inverse, onesided) = (node.flag("inverse", false), node.flag("onesided", false));
    if onesided && !inverse && x.dim(-1) == 2 {
        return Err("of complex numbers, a transform has two sides; set onesided = 0".into());
    }
    let size = x.shape()[axis];
    let default = if inverse && onesided { 2 * (size.max(1) - 1) } else { size };
    let length = match node.optional_number(1)? {
        Some(length) if length >= 1.0 => length as usize,
        Some(length) => return Err(format!("a transform of length {length} has no values").into()),
        None => default,
    };
    // The axis to the last place but one, and back.
    let mut order: Vec<usize> = (0..rank).filter(|&other| other != axis).collect();
    order.insert(rank - 2, axis);
    let mut back = vec![0; rank];
    order.iter().enumerate().for_each(|(at, &from)| back[from] = at);
    let transform = Transform { length, inverse, onesided };
    let y = transform.of(node.graph(), &x.permute(&signed(&order)))?.permute(&signed(&back));
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// Transforms of windows that move along a signal.
fn stft(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (mut x, ty) = (node.value(0)?, node.input(0)?.ty());
    if x.shape().rank() == 2 {
        x = x.reshape(&signed(&[x.dim(0), x.dim(1), 1]));
    }
    let step = node.known_ints(1)?.first().copied().unwrap_or(0);
    let given = node.optional_number(3)?.map(|length| length.max(0.0) as usize);
    let onesided = node.flag("onesided", true);
    let window = node.optional_value(2)?;
    let of_window = window.as_ref().map(|window| window.shape().numel());
    let length = given.or(of_window).ok_or("it needs a window or a length of its frames")?;
    let &[n, size, parts] = &x.shape()[..] else { return Err(format!("{} is no batch of signals", x.ty()).into()) };
    if of_window.is_some_and(|count| count != length) {
        return Err(format!("its window has {} elements, and its frames {length}", of_window.unwrap_or(0)).into());
    }
    if step < 1 || length == 0 || length > size {
        return Err(format!("frames of {length} elements by {step} do not fit a signal of {size}").into());
    }
    if onesided && parts == 2 {
        return Err("of complex numbers, a transform has two sides; set onesided = 0".into());
    }
    let step = step as usize;
    let frames = (size - length) / step + 1;
    let places =
        (0..frames).flat_map(|frame| (0..length).map(move |at| (frame * step + at) as i32)).collect::<Vec<_>>();
    let places = Tensor::new([places.len()], places).map_err(|error| error.to_string())?;
    let wide = x.cast(DType::F32).index_select(1, &node.graph().constant(places));
    let mut wide = wide.reshape(&signed(&[n, frames, length, parts]));
    if let Some(window) = window {
        wide = wide * window.cast(DType::F32).reshape(&[-1, 1]);
    }
    let y = Transform { length, inverse: false, onesided }.of(node.graph(), &wide)?;
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// Sums of cosines.
fn window(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let size = node.known_ints(0)?.first().copied().unwrap_or(0);
    let ty = node.elem_type("output_datatype", ElemType::F32)?;
    let periodic = node.flag("periodic", true);
    if !(0..=1 << 26).contains(&size) || (!periodic && size == 1) {
        return Err(format!("a window of {size} elements is not supported").into());
    }
    let period = if periodic { size } else { size - 1 } as f64;
    let weights = match node.op() {
        "HannWindow" => [0.5, -0.5, 0.0],
        "HammingWindow" => [25.0 / 46.0, -21.0 / 46.0, 0.0],
        _ => [0.42, -0.5, 0.08],
    };
    let at = |n: i64| (0..3).map(|k| weights[k] * (2.0 * PI * k as f64 * n as f64 / period).cos()).sum();
    let values = (0..size).map(at).collect();
    Ok(vec![Val::constant(Constant::floats(ty, vec![size as usize], values))])
}

/// Triangles that are spaced evenly on the mel scale: `[bins of a transform, triangles]`.
fn mel_weights(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let integer = |at: usize| -> Result<i64> { Ok(node.known_ints(at)?.first().copied().unwrap_or(0)) };
    let (count, length, rate) = (integer(0)?, integer(1)?, integer(2)?);
    let edges = [3, 4].map(|at| node.optional_number(at));
    let [low, high] = edges;
    let (low, high) = (low?.unwrap_or(0.0), high?.unwrap_or(0.0));
    let ty = node.elem_type("output_datatype", ElemType::F32)?;
    if count < 1 || length < 1 || rate < 1 || count.saturating_mul(length) > 1 << 26 {
        return Err(format!("{count} triangles for transforms of length {length} are not supported").into());
    }
    let bins = (length / 2 + 1) as usize;
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let step = (mel(high) - mel(low)) / (count + 2) as f64;
    let place = |at: i64| {
        let hertz = 700.0 * (10f64.powf((mel(low) + at as f64 * step) / 2595.0) - 1.0);
        ((length + 1) as f64 * hertz / rate as f64).floor() as i64
    };
    let places: Vec<i64> = (0..count + 2).map(place).collect();
    if places.iter().any(|place| !(0..=bins as i64).contains(place)) {
        return Err(format!("its edges, {low} and {high} Hz, are beyond half of the sample rate {rate} Hz").into());
    }
    let mut values = vec![0.0; bins * count as usize];
    let mut set = |bin: i64, triangle: usize, value: f64| {
        if let Some(found) = values.get_mut(bin as usize * count as usize + triangle) {
            *found = value;
        }
    };
    for (triangle, corner) in places.windows(3).enumerate() {
        let (left, center, right) = (corner[0], corner[1], corner[2]);
        match center - left {
            0 => set(center, triangle, 1.0),
            wide => (left..=center).for_each(|bin| set(bin, triangle, (bin - left) as f64 / wide as f64)),
        }
        (center..right).for_each(|bin| set(bin, triangle, (right - bin) as f64 / (right - center) as f64));
    }
    Ok(vec![Val::constant(Constant::floats(ty, vec![bins, count as usize], values))])
}
