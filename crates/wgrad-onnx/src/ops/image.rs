//! Operators that sample images at positions, and boxes on images.

use wgrad::{DType, Tensor, Value};

use super::Family;
use super::convolution::windows;
use super::norm::by_channel;
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("AffineGrid", affine_grid),
    ("DeformConv", deform_conv),
    ("GridSample", grid_sample),
    ("NonMaxSuppression", non_max_suppression),
    ("RoiAlign", roi_align),
];

/// Positions on a grid from -1 to 1, times matrices `[n, k, k + 1]`.
fn affine_grid(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (theta, ty, size) = (node.value(0)?, node.input(0)?.ty(), node.known_ints(1)?);
    let align = node.flag("align_corners", false);
    let Some(sizes) = size.get(2..).filter(|sizes| matches!(sizes.len(), 2 | 3)) else {
        return Err(format!("its size {size:?} is not that of a batch of images or volumes").into());
    };
    let sizes: Vec<usize> = sizes.iter().map(|&size| size.max(0) as usize).collect();
    let axes = sizes.len();
    if theta.shape().to_vec() != [size[0].max(0) as usize, axes, axes + 1] {
        return Err(format!("its matrices {} do not fit a size of {size:?}", theta.ty()).into());
    }
    if align && sizes.contains(&1) {
        return Err("an axis of one element has no corners to align".into());
    }
    let count: usize = sizes.iter().product();
    let shape = wgrad::Shape::from(&sizes[..]);
    let position = |axis: usize, at: usize| {
        let (at, size) = (at as f64, sizes[axis] as f64);
        if align { 2.0 * at / (size - 1.0) - 1.0 } else { (2.0 * at + 1.0) / size - 1.0 }
    };
    // x, y, (z), 1.
    let rows = (0..count).flat_map(|at| {
        let place = shape.unravel(at);
        (0..axes).rev().map(|axis| position(axis, place[axis]) as f32).chain([1.0]).collect::<Vec<_>>()
    });
    let rows = Tensor::new([count, axes + 1], rows.collect::<Vec<f32>>()).map_err(|error| error.to_string())?;
    let y = node.graph().constant(rows).matmul(&theta.cast(DType::F32).permute(&[0, 2, 1]));
    let shape = [&[size[0] as usize], &sizes[..], &[axes]].concat();
    let y = node.checked(y.reshape(&signed(&shape)))?;
    Ok(vec![node.result(y, ty)])
}

/// How elements around a position contribute to its value.
#[derive(Clone, Copy, PartialEq)]
enum Kernel {
    Nearest,
    Linear,
    Cubic,
}

/// What lies beyond the border.
#[derive(Clone, Copy, PartialEq)]
enum Border {
    Zeros,
    Edge,
    /// Reflection at the elements, or at their outer edges.
    Reflected {
        at_elements: bool,
    },
}

impl Border {
    /// The range in which positions stay as they are.
    fn range(self, size: usize) -> (f64, f64) {
        match self {
            Border::Reflected { at_elements: true } => (0.0, size as f64 - 1.0),
            _ => (-0.5, size as f64 - 0.5),
        }
    }

    /// A position inside the range.
    fn moved(self, x: &Value, size: usize) -> Value {
        let (low, high) = self.range(size);
        let range = high - low;
        match self {
            Border::Zeros => x.clone(),
            Border::Edge => x.clamp(0.0, size as f64 - 1.0),
            Border::Reflected { .. } if range == 0.0 => x.zeros_like(),
            Border::Reflected { .. } => {
                let distance = (x - low).abs();
                let times = (&distance / range).floor();
                let rest = distance - &times * range;
                let odd = (&times - (&times * 0.5).floor() * 2.0).gt(&times.full_like(0.5));
                let reflected = odd.where_(&(-&rest + high), &(rest + low));
                let inside = x.ge(&x.full_like(low)).and(&x.le(&x.full_like(high)));
                inside.where_(x, &reflected)
            }
        }
    }
}

/// An element that contributes to a value: its place, its weight, and whether it is inside of the axis.
struct Tap {
    place: Value,
    weight: Value,
    inside: Value,
}

/// The taps of positions along an axis; all places are valid.
fn taps(x: &Value, size: usize, kernel: Kernel, border: Border) -> Vec<Tap> {
    // Far positions are all the same, and must not overflow.
    let x = x.clamp(-8_388_608.0, 8_388_608.0);
    let (first, weights): (Value, Vec<Value>) = match kernel {
        Kernel::Nearest => (x.clone(), vec![x.ones_like()]),
        Kernel::Linear => {
            let first = x.floor();
            let part = &x - &first;
            (first, vec![-&part + 1.0, part])
        }
        Kernel::Cubic => {
            let first = x.floor();
            let part = &x - &first;
            // Keys, 1981, with a = -0.75.
            let a = -0.75;
            let near = |d: &Value| (d * (a + 2.0) - (a + 3.0)) * d * d + 1.0;
            let far = |d: &Value| ((d * a - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
            let rest = -&part + 1.0;
            (first - 1.0, vec![far(&(&part + 1.0)), near(&part), near(&rest), far(&(&rest + 1.0))])
        }
    };
    let last = size as f64 - 1.0;
    let tap = |(at, weight): (usize, Value)| {
        let place = &first + at as f64;
        let inside = place.ge(&place.zeros_like()).and(&place.le(&place.full_like(last)));
        let place = match border {
            // Between two elements, a position is an integer: what is reflected at an edge is one.
            Border::Reflected { .. } => border.moved(&place, size),
            _ => place,
        };
        Tap { place: place.clamp(0.0, last).cast(DType::I32), weight, inside }
    };
    weights.into_iter().enumerate().map(tap).collect()
}

/// Elements of `x` `[n, c, sizes..]` at positions `[n, p]` along each axis: `[n, c, p]`.
fn sampled(x: &Value, positions: &[Value], kernel: Kernel, border: Border) -> Value {
    let (n, c) = (x.dim(0), x.dim(1));
    let sizes = x.shape()[2..].to_vec();
    let count = positions[0].dim(1);
    // The combinations of the taps of all axes.
    let mut all: Option<Vec<Tap>> = None;
    for (position, &size) in positions.iter().zip(&sizes) {
        let along = taps(position, size, kernel, border);
        all = Some(match all {
            None => along,
            Some(before) => before
                .iter()
                .flat_map(|a| {
                    along.iter().map(|b| Tap {
                        place: &a.place * size as f64 + &b.place,
                        weight: &a.weight * &b.weight,
                        inside: a.inside.and(&b.inside),
                    })
                })
                .collect(),
        });
    }
    let all = all.unwrap_or_default();
    // [n, 1, taps * p]
    let joined = |part: fn(&Tap) -> &Value| {
        let parts: Vec<&Value> = all.iter().map(part).collect();
        parts[0].concat(&parts[1..], 1).reshape(&signed(&[n, 1, all.len() * count]))
    };
    let places = joined(|tap| &tap.place).broadcast_to(&[n, c, all.len() * count].into());
    let apart = |x: Value, c: usize| x.reshape(&signed(&[n, c, all.len(), count]));
    let flat = x.reshape(&signed(&[n, c, sizes.iter().product::<usize>()]));
    let mut found = apart(flat.gather(2, &places), c);
    if border == Border::Zeros {
        let inside: Vec<Value> = all.iter().map(|tap| tap.inside.cast(DType::I32)).collect();
        let inside = inside[0].concat(&inside[1..].iter().collect::<Vec<_>>(), 1);
        let inside = apart(inside, 1).cast(DType::Bool);
        found = inside.where_(&found, &found.zeros_like());
    }
    if kernel == Kernel::Nearest {
        return found.reshape(&signed(&[n, c, count]));
    }
    (found * apart(joined(|tap| &tap.weight), 1)).sum(&[2], false)
}

fn grid_sample(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, grid, ty) = (node.float(0)?.cast(DType::F32), node.float(1)?.cast(DType::F32), node.input(0)?.ty());
    let kernel = match node.text("mode", "linear").as_str() {
        "linear" | "bilinear" => Kernel::Linear,
        "nearest" => Kernel::Nearest,
        "cubic" | "bicubic" => Kernel::Cubic,
        other => return Err(format!("the mode `{other}` is unknown").into()),
    };
    let align = node.flag("align_corners", false);
    let border = match node.text("padding_mode", "zeros").as_str() {
        "zeros" => Border::Zeros,
        "border" => Border::Edge,
        "reflection" => Border::Reflected { at_elements: align },
        other => return Err(format!("the padding `{other}` is unknown").into()),
    };
    let axes = x.shape().rank().saturating_sub(2);
    if axes == 0 || grid.shape().rank() != axes + 2 || grid.dim(-1) != axes || grid.dim(0) != x.dim(0) {
        return Err(format!("a grid {} does not fit data {}", grid.ty(), x.ty()).into());
    }
    let sizes = x.shape()[2..].to_vec();
    let result = [&x.shape()[..2], &grid.shape()[1..=axes]].concat();
    if result.contains(&0) {
        return Ok(vec![Val::constant(Constant::floats(ty, result, vec![]))]);
    }
    if sizes.contains(&0) {
        return Err("an axis without elements cannot be sampled".into());
    }
    let lines = grid.reshape(&signed(&[grid.dim(0), grid.shape()[1..=axes].iter().product(), axes]));
    // The last coordinate belongs to the first axis.
    let positions = sizes.iter().enumerate().map(|(axis, &size)| {
        let at = axes - 1 - axis;
        let unit = lines.slice(2, at, at + 1, 1).reshape(&signed(&[lines.dim(0), lines.dim(1)])) + 1.0;
        let position = if align { unit * (0.5 * (size as f64 - 1.0)) } else { (unit * size as f64 - 1.0) * 0.5 };
        let position = if kernel == Kernel::Nearest { position.round() } else { position };
        // Inside of the outer edges, a position stays as it is.
        let (low, high) = if align { (0.0, size as f64 - 1.0) } else { (-0.5, size as f64 - 0.5) };
        let inside = position.ge(&position.full_like(low)).and(&position.le(&position.full_like(high)));
        // Cubic kernels reach beyond the edge: as in PyTorch, their elements are moved, and not the position.
        match (kernel, border) {
            (Kernel::Cubic, Border::Edge) => position,
            _ => inside.where_(&position, &border.moved(&position, size)),
        }
    });
    let positions: Vec<Value> = positions.collect();
    let y = sampled(&x, &positions, kernel, border).reshape(&signed(&result));
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// A convolution whose taps are moved by offsets: the taps are sampled, and multiplied with the weights.
fn deform_conv(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, w, ty) = (node.value(0)?.cast(DType::F32), node.value(1)?.cast(DType::F32), node.input(0)?.ty());
    let offset = node.value(2)?.cast(DType::F32);
    if x.shape().rank() != 4 || w.shape().rank() != 4 || offset.shape().rank() != 4 {
        return Err("only batches of images, with 4 axes, are supported".into());
    }
    let kernel = w.shape()[2..].to_vec();
    node.attribute("kernel_shape");
    let groups = node.int("group", 1).max(1) as usize;
    let parts = node.int("offset_group", 1).max(1) as usize;
    let windows = windows(node, &kernel, &x.shape()[2..])?;
    let (n, c, outputs) = (x.dim(0), x.dim(1), w.dim(0));
    let to: Vec<usize> = windows.iter().zip(&x.shape()[2..]).map(|(window, &size)| window.count(size, false)).collect();
    let (count, places) = (kernel[0] * kernel[1], to[0] * to[1]);
    let fits = c.is_multiple_of(parts) && c == w.dim(1) * groups && outputs.is_multiple_of(groups);
    if !fits || offset.shape().to_vec() != [n, parts * count * 2, to[0], to[1]] {
        return Err(format!("data {}, weights {} and offsets {} do not fit", x.ty(), w.ty(), offset.ty()).into());
    }
    let moves = offset.reshape(&signed(&[n * parts, count, 2, to[0], to[1]]));
    let graph = node.graph().clone();
    let positions: Vec<Value> = (0..2usize)
        .map(|axis| {
            let window = &windows[axis];
            let own = moves.slice(2, axis, axis + 1, 1).reshape(&signed(&[n * parts, count, to[0], to[1]]));
            let tap = graph.iota(DType::I32, [1, kernel[0], kernel[1], 1, 1], 1 + axis as isize);
            let tap = tap.reshape(&signed(&[1, count, 1, 1])) * window.dilation as f64;
            let mut along = [1; 4];
            along[2 + axis] = to[axis];
            let start = graph.iota(DType::I32, along, 2 + axis as isize) * window.stride as f64;
            let whole = (tap + start - window.before as f64).cast(DType::F32);
            (own + whole).reshape(&signed(&[n * parts, count * places]))
        })
        .collect();
    let by_part = x.reshape(&signed(&[n * parts, c / parts, x.dim(2), x.dim(3)]));
    let mut columns = sampled(&by_part, &positions, Kernel::Linear, Border::Zeros);
    if let Some(mask) = node.optional_value(4)? {
        columns = columns * mask.cast(DType::F32).reshape(&signed(&[n * parts, 1, count * places]));
    }
    let columns = columns.reshape(&signed(&[n, groups, c / groups * count, places]));
    let weights = w.reshape(&signed(&[1, groups, outputs / groups, c / groups * count]));
    let mut y = weights.matmul(&columns).reshape(&signed(&[n, outputs, to[0], to[1]]));
    if let Some(bias) = node.optional_value(3)? {
        y = y + by_channel(&bias.cast(DType::F32), 4);
    }
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// Samples on a regular grid in each cell of a region, interpolated, and averaged or their maximum.
fn roi_align(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?.cast(DType::F32), node.input(0)?.ty());
    let (regions, batch) = (node.value(1)?.cast(DType::F32), node.value(2)?.cast(DType::I32));
    let default = if node.version() < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = match node.text("coordinate_transformation_mode", default).as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return Err(format!("the coordinates `{other}` are unknown").into()),
    };
    let is_max = match node.text("mode", "avg").to_lowercase().as_str() {
        "avg" => false,
        "max" => true,
        other => return Err(format!("the mode `{other}` is unknown").into()),
    };
    let cells = [node.int("output_height", 1).max(1) as usize, node.int("output_width", 1).max(1) as usize];
    let (ratio, scale) = (node.int("sampling_ratio", 0).max(0) as usize, node.number("spatial_scale", 1.0));
    let (&[_, c, h, w], &[r, 4]) = (&x.shape()[..], &regions.shape()[..]) else {
        return Err(format!("data {} and regions {} do not fit", x.ty(), regions.ty()).into());
    };
    if r * c == 0 || h * w == 0 {
        return Err("it has no regions or no data".into());
    }
    // Each axis: start and extent of the region, and the number of samples in a cell, which may differ by region.
    let edge = |at: usize| regions.slice(1, at, at + 1, 1) * scale - if half_pixel { 0.5 } else { 0.0 };
    let mut samples = Vec::new();
    for axis in 0..2usize {
        let extent = |low: f64, high: f64| {
            let extent = high * scale - low * scale;
            if half_pixel { extent } else { extent.max(1.0) }
        };
        samples.push(match ratio {
            0 => {
                let known = node.known(1)?.to_floats();
                let of =
                    |region: &[f64]| (extent(region[1 - axis], region[3 - axis]) as f32 / cells[axis] as f32).ceil();
                known.chunks_exact(4).map(of).map(|count| count.max(0.0)).collect()
            }
            ratio => vec![ratio as f32; r],
        });
    }
    let most = [0, 1].map(|axis: usize| samples[axis].iter().fold(1.0f32, |a, &b| a.max(b)) as usize);
    let (height, width) = (cells[0] * most[0], cells[1] * most[1]);
    if r.saturating_mul(c).saturating_mul(height).saturating_mul(width) > 1 << 30 {
        return Err(format!("{r} regions with up to {} by {} samples in a cell are too many", most[0], most[1]).into());
    }
    let graph = node.graph().clone();
    // By axis: positions [r, cells * most], and which of them are samples.
    let mut axes = Vec::new();
    for axis in 0..2usize {
        let counts = Tensor::new([r, 1, 1], samples[axis].clone()).map_err(|error| error.to_string())?;
        let counts = graph.constant(counts);
        let start = edge(1 - axis).reshape(&[-1, 1, 1]);
        let extent = edge(3 - axis).reshape(&[-1, 1, 1]) - &start;
        let extent = if half_pixel { extent } else { extent.maximum(&extent.ones_like()) };
        let cell = extent / cells[axis] as f64;
        let part = graph.iota(DType::F32, [1, 1, most[axis]], 2);
        let place = graph.iota(DType::F32, [1, cells[axis], 1], 1);
        let position = &start + &place * &cell + (&part + 0.5) * &cell / counts.maximum(&counts.ones_like());
        let used = part.lt(&counts).broadcast_to(position.shape());
        let flat = signed(&[r, cells[axis] * most[axis]]);
        axes.push((position.reshape(&flat), used.reshape(&flat)));
    }
    // Low and high elements with weights; beyond one element outside, nothing.
    let along = |position: &Value, size: usize| {
        let valid = position.ge(&position.full_like(-1.0)).and(&position.le(&position.full_like(size as f64)));
        let inside = position.clamp(0.0, size as f64 - 1.0);
        let low = inside.floor();
        let part = inside - &low;
        let high = (&low + 1.0).clamp(0.0, size as f64 - 1.0);
        (valid, [(low.cast(DType::I32), -&part + 1.0), (high.cast(DType::I32), part)])
    };
    let ((y_valid, y_taps), (x_valid, x_taps)) = (along(&axes[0].0, h), along(&axes[1].0, w));
    let rows = x.permute(&[0, 2, 3, 1]).reshape(&signed(&[x.dim(0) * h * w, c]));
    let column = |x: &Value| x.reshape(&signed(&[r, height, 1]));
    let line = |x: &Value| x.reshape(&signed(&[r, 1, width]));
    let first = batch.reshape(&[-1, 1, 1]) * (h * w) as f64;
    let mut parts = Vec::new();
    for (y_place, y_weight) in &y_taps {
        for (x_place, x_weight) in &x_taps {
            let place = column(y_place) * w as f64 + line(x_place) + &first;
            let weight = (column(y_weight) * line(x_weight)).reshape(&signed(&[r, height, width, 1]));
            let found = rows.index_select(0, &place.reshape(&[-1])).reshape(&signed(&[r, height, width, c]));
            parts.push(found * weight);
        }
    }
    let join = |a: Value, b: &Value| if is_max { a.maximum(b) } else { a + b };
    let value = parts[1..].iter().fold(parts[0].clone(), join);
    let four = |x: Value| x.reshape(&signed(&[r, height, width, 1]));
    let valid = four(column(&y_valid).and(&line(&x_valid)));
    let used = four(column(&axes[0].1).and(&line(&axes[1].1)));
    let value = valid.where_(&value, &value.zeros_like());
    let value = used.where_(&value, &value.full_like(if is_max { f64::NEG_INFINITY } else { 0.0 }));
    let apart = value.reshape(&signed(&[r, cells[0], most[0], cells[1], most[1], c]));
    let totals = samples[0].iter().zip(&samples[1]).map(|(a, b)| a * b).collect::<Vec<f32>>();
    let y = match is_max {
        true => {
            let empty = Tensor::new([r, 1, 1, 1], totals.iter().map(|&n| n == 0.0).collect::<Vec<_>>());
            let empty = graph.constant(empty.map_err(|error| error.to_string())?);
            let most = apart.max(&[2, 4], false);
            empty.where_(&most.zeros_like(), &most)
        }
        false => {
            let counts = Tensor::new([r, 1, 1, 1], totals.iter().map(|n| n.max(1.0)).collect::<Vec<_>>());
            apart.sum(&[2, 4], false) / graph.constant(counts.map_err(|error| error.to_string())?)
        }
    };
    let y = node.checked(y.permute(&[0, 3, 1, 2]))?;
    Ok(vec![node.result(y, ty)])
}

/// The corners of a box: the smaller and larger coordinate along each axis.
fn corners(of: &[f64], by_center: bool) -> [(f64, f64); 2] {
    let sorted = |a: f64, b: f64| if a <= b { (a, b) } else { (b, a) };
    match by_center {
        true => [(of[0] - of[2] / 2.0, of[0] + of[2] / 2.0), (of[1] - of[3] / 2.0, of[1] + of[3] / 2.0)],
        false => [sorted(of[0], of[2]), sorted(of[1], of[3])],
    }
}

/// Whether the intersection of two boxes is more than a share of their union.
fn overlap(a: &[f64], b: &[f64], by_center: bool, share: f64) -> bool {
    let (a, b) = (corners(a, by_center), corners(b, by_center));
    let common = |axis: usize| a[axis].1.min(b[axis].1) - a[axis].0.max(b[axis].0);
    if common(0) <= 0.0 || common(1) <= 0.0 {
        return false;
    }
    let area = |x: &[(f64, f64); 2]| (x[0].1 - x[0].0) * (x[1].1 - x[1].0);
    let both = common(0) * common(1);
    let union = area(&a) + area(&b) - both;
    area(&a) > 0.0 && area(&b) > 0.0 && union > 0.0 && (both as f32 / union as f32) as f64 > share
}

/// Boxes in order of their scores, without those that overlap one that is kept: of known boxes and scores, because they
/// decide how many remain.
fn non_max_suppression(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (boxes, scores) = (node.known(0)?, node.known(1)?);
    let most = node.optional_number(2)?.unwrap_or(0.0).max(0.0) as usize;
    let (share, least) = (node.optional_number(3)?.unwrap_or(0.0), node.optional_number(4)?);
    let by_center = node.flag("center_point_box", false);
    let (&[n, count, 4], &[batches, classes, of_scores]) = (boxes.shape(), scores.shape()) else {
        return Err(format!("boxes {:?} and scores {:?} do not fit", boxes.shape(), scores.shape()).into());
    };
    if (n, count) != (batches, of_scores) {
        return Err(format!("boxes {:?} and scores {:?} do not fit", boxes.shape(), scores.shape()).into());
    }
    let (boxes, scores) = (boxes.to_floats(), scores.to_floats());
    let mut found: Vec<i64> = Vec::new();
    for batch in 0..n {
        let of = |at: usize| &boxes[(batch * count + at) * 4..][..4];
        for class in 0..classes {
            let scores = &scores[(batch * classes + class) * count..][..count];
            let mut order: Vec<usize> = (0..count).filter(|&at| least.is_none_or(|least| scores[at] > least)).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut kept: Vec<usize> = Vec::new();
            for at in order {
                if kept.len() == most {
                    break;
                }
                if !kept.iter().any(|&other| overlap(of(at), of(other), by_center, share)) {
                    kept.push(at);
                }
            }
            found.extend(kept.iter().flat_map(|&at| [batch as i64, class as i64, at as i64]));
        }
    }
    Ok(vec![Val::constant(Constant::ints(ElemType::I64, vec![found.len() / 3, 3], found))])
}
