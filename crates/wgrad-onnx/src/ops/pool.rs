//! Pooling.

use wgrad::ops::pool2d::Pool2d;
use wgrad::{DType, Shape, Tensor, Value};

use super::Family;
use super::convolution::{Window, padded, windows};
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("AveragePool", pool),
    ("GlobalAveragePool", global),
    ("GlobalLpPool", global),
    ("GlobalMaxPool", global),
    ("LpPool", lp_pool),
    ("MaxPool", pool),
    ("MaxUnpool", max_unpool),
];

fn global(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let axes: Vec<isize> = (2..x.shape().rank() as isize).collect();
    let y = match node.op() {
        "GlobalMaxPool" => x.max(&axes, true),
        "GlobalLpPool" => {
            let p = node.int("p", 2) as f64;
            power(&power(&x.abs(), p).sum(&axes, true), 1.0 / p)
        }
        _ => x.mean(&axes, true),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// Reduces windows along one axis: the combination of as many shifted slices as the window has elements.
pub(super) fn along(x: &Value, axis: usize, window: &Window, count: usize, join: fn(&Value, &Value) -> Value) -> Value {
    let slice = |tap: usize| {
        let start = tap * window.dilation;
        x.slice(axis as isize, start, start + (count.max(1) - 1) * window.stride + 1, window.stride)
    };
    (1..window.kernel).fold(slice(0), |y, tap| join(&y, &slice(tap)))
}

/// The sizes of the axes after the first two, and the windows along them.
fn pooled(node: &mut Node<'_, '_>, x: &Value) -> Result<(Vec<usize>, Vec<Window>)> {
    let kernel = node.attribute_ints("kernel_shape").ok_or("its kernel_shape is missing")?;
    let kernel: Vec<usize> = kernel.iter().map(|&size| size.max(0) as usize).collect();
    if x.shape().rank() < 3 {
        return Err(format!("its input {} has no axes to move along", x.ty()).into());
    }
    let sizes = x.shape()[2..].to_vec();
    let windows = windows(node, &kernel, &sizes)?;
    Ok((sizes, windows))
}

fn pool(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, is_max) = (node.value(0)?, node.input(0)?.ty(), node.op() == "MaxPool");
    let (sizes, windows) = pooled(node, &x)?;
    let (ceil, counts_padding) = (node.flag("ceil_mode", false), node.flag("count_include_pad", false));
    let by_column = node.flag("storage_order", false);
    let counts: Vec<usize> = windows.iter().zip(&sizes).map(|(window, &size)| window.count(size, ceil)).collect();
    if node.proto.output.get(1).is_some_and(|name| !name.is_empty()) {
        return with_places(node, &x, &windows, &counts, by_column);
    }
    let is_plain =
        |window: &Window| window.dilation == 1 && window.before == window.after && window.before <= window.kernel / 2;
    let floor: Vec<usize> = windows.iter().zip(&sizes).map(|(window, &size)| window.count(size, false)).collect();
    if let [a, b] = windows[..]
        && is_plain(&a)
        && is_plain(&b)
        && floor == counts
        && x.dtype().is_float()
    {
        let options = Pool2d::new([a.kernel, b.kernel]).stride([a.stride, b.stride]).padding([a.before, b.before]);
        let y = match is_max {
            true => x.max_pool2d(options),
            false => x.avg_pool2d(options.count_include_pad(counts_padding)),
        };
        let y = node.checked(y)?;
        return Ok(vec![node.result(y, ty)]);
    }
    // Windows that go beyond the end see more padding.
    let beyond = |at: usize| (counts[at].max(1) - 1) * windows[at].stride + windows[at].span();
    let room: Vec<Window> = (0..windows.len())
        .map(|at| {
            let after = beyond(at).saturating_sub(sizes[at] + windows[at].before);
            Window { after, ..windows[at] }
        })
        .collect();
    let joined = |x: &Value, border: f64, join: fn(&Value, &Value) -> Value| {
        let mut y = padded(x, &room, border);
        for (at, window) in windows.iter().enumerate() {
            y = along(&y, at + 2, window, counts[at], join);
        }
        y
    };
    let y = match is_max {
        true => {
            let least = if ty.is_float() { f64::NEG_INFINITY } else { ty.range().0.max(i32::MIN.into()) as f64 };
            joined(&x, least, |a, b| a.maximum(b))
        }
        false => {
            let sum = joined(&x, 0.0, |a, b| a + b);
            // The number of elements in each window: of the data, or also of the padding that the node asks for.
            let mut shape = vec![1; x.shape().rank()];
            shape[2..].copy_from_slice(&sizes);
            let ones = x.graph().full(x.dtype(), shape, 1.0);
            let ones = if counts_padding { padded(&ones, &windows, 1.0) } else { padded(&ones, &windows, 0.0) };
            let rest: Vec<Window> = (0..windows.len())
                .map(|at| Window { before: 0, after: beyond(at).saturating_sub(ones.shape()[at + 2]), ..windows[at] })
                .collect();
            let mut count = padded(&ones, &rest, 0.0);
            for (at, window) in windows.iter().enumerate() {
                count = along(&count, at + 2, window, counts[at], |a, b| a + b);
            }
            sum / count
        }
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, if ty == ElemType::Bool { ElemType::F32 } else { ty })])
}

fn power(x: &Value, p: f64) -> Value {
    match p {
        1.0 => x.clone(),
        2.0 => x.square(),
        0.5 => x.sqrt(),
        p => x.powf(p),
    }
}

/// The norm of each window.
fn lp_pool(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let p = node.int("p", 2) as f64;
    let (sizes, windows) = pooled(node, &x)?;
    let ceil = node.flag("ceil_mode", false);
    let mut y = padded(&power(&x.abs(), p), &windows, 0.0);
    for (at, window) in windows.iter().enumerate() {
        let count = window.count(sizes[at], ceil);
        let missing = ((count.max(1) - 1) * window.stride + window.span()).saturating_sub(y.shape()[at + 2]);
        if missing > 0 {
            let mut rest = vec![Window { kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 }; windows.len()];
            rest[at].after = missing;
            y = padded(&y, &rest, 0.0);
        }
        y = along(&y, at + 2, window, count, |a, b| a + b);
    }
    let y = node.checked(power(&y, 1.0 / p))?;
    Ok(vec![node.result(y, ty)])
}

/// The largest element of each window, the first of equal ones, and its place in the whole tensor, in the order of rows
/// or of columns.
fn with_places(
    node: &mut Node<'_, '_>,
    x: &Value,
    windows: &[Window],
    counts: &[usize],
    by_column: bool,
) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let sizes = x.shape()[2..].to_vec();
    let (lines, size) = (x.dim(0) * x.dim(1), sizes.iter().product::<usize>());
    let (taps, places) =
        (windows.iter().map(|window| window.kernel).product::<usize>(), counts.iter().product::<usize>());
    if taps.saturating_mul(places) > 1 << 26 || lines * size > i32::MAX as usize {
        return Err(format!("{places} windows of {taps} elements are too many for indices").into());
    }
    let kernel: Shape = windows.iter().map(|window| window.kernel).collect();
    let (of_counts, strides) = (Shape::from(counts), Shape::from(&sizes[..]).strides());
    // For each tap and window the element: of a tap in the padding, that of the first which is not.
    let mut table = vec![0i32; taps * places];
    for place in 0..places {
        let at = of_counts.unravel(place);
        let element = |tap: usize| -> Option<i32> {
            let tap = kernel.unravel(tap);
            let mut linear = 0;
            for (axis, window) in windows.iter().enumerate() {
                let along = (at[axis] * window.stride + tap[axis] * window.dilation).checked_sub(window.before)?;
                linear += (along < sizes[axis]).then_some(along)? * strides[axis];
            }
            Some(linear as i32)
        };
        let first = (0..taps).find_map(element).ok_or("a window has nothing but padding")?;
        for tap in 0..taps {
            table[tap * places + place] = element(tap).unwrap_or(first);
        }
    }
    let table = Tensor::new([1, taps, places], table).map_err(|error| error.to_string())?;
    let table = node.graph().constant(table);
    let found = x.reshape(&signed(&[lines, size])).index_select(1, &table.reshape(&[-1]));
    let found = found.reshape(&signed(&[lines, taps, places]));
    let shape = [&x.shape()[..2], counts].concat();
    let y = node.checked(found.max(&[1], false).reshape(&signed(&shape)))?;
    let tap = found.argmax(1, true);
    let mut linear = table.broadcast_to(&[lines, taps, places].into()).gather(1, &tap);
    if by_column {
        let mut turned: Option<Value> = None;
        let mut stride = 1;
        for axis in 0..sizes.len() {
            let along = linear.div_trunc(&linear.full_like(strides[axis] as f64));
            let along = along.remainder(&along.full_like(sizes[axis] as f64)) * stride as f64;
            turned = Some(turned.map_or(along.clone(), |turned| turned + along));
            stride *= sizes[axis];
        }
        linear = turned.ok_or("it has no axes to move along")?;
    }
    let line = node.graph().iota(DType::I32, [lines, 1, 1], 0) * size as f64;
    let linear = node.checked((linear + line).reshape(&signed(&shape)))?;
    Ok(vec![node.result(y, ty), node.result(linear, ElemType::I64)])
}

/// Writes each element to its place in a tensor of zeros.
fn max_unpool(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, index, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let kernel = node.attribute_ints("kernel_shape").ok_or("its kernel_shape is missing")?;
    let axes = x.shape().rank().saturating_sub(2);
    let strides = node.attribute_ints("strides").unwrap_or_else(|| vec![1; axes]);
    let pads = node.attribute_ints("pads").unwrap_or_else(|| vec![0; 2 * axes]);
    if axes == 0 || kernel.len() != axes || strides.len() != axes || pads.len() != 2 * axes {
        return Err(format!("its kernel, strides and pads do not fit {}", x.ty()).into());
    }
    if index.shape() != x.shape() {
        return Err(format!("indices {} do not fit data {}", index.ty(), x.ty()).into());
    }
    if kernel.iter().zip(&strides).any(|(kernel, stride)| kernel > stride) {
        return Err("windows that overlap may write one place twice, which is not supported; \
                    use strides that are not smaller than the kernel"
            .into());
    }
    let mut shape = x.shape().to_vec();
    for axis in 0..axes {
        let size = (shape[axis + 2] as i64 - 1) * strides[axis] - pads[axis] - pads[axis + axes] + kernel[axis];
        shape[axis + 2] = usize::try_from(size).map_err(|_| format!("axis {} becomes {size}", axis + 2))?;
    }
    let count: usize = shape.iter().product();
    let index = super::index::from_zero(&index, count).reshape(&[-1]);
    let zero = node.graph().full(x.dtype(), [count], 0.0);
    let mut y = zero.scatter_add(0, &index, &x.reshape(&[-1])).reshape(&signed(&shape));
    if let Some(wanted) = node.optional_ints(2)? {
        let fits = wanted.len() == shape.len() && wanted.iter().zip(&shape).all(|(&to, &from)| to >= from as i64);
        if !fits {
            return Err(format!("its result of the shape {shape:?} does not fit {wanted:?}").into());
        }
        for (axis, (&to, &from)) in wanted.iter().zip(&shape).enumerate() {
            if to as usize > from {
                let mut more = y.shape().to_vec();
                more[axis] = to as usize - from;
                y = y.concat(&[&y.graph().full(y.dtype(), more, 0.0)], axis as isize);
            }
        }
    }
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}
