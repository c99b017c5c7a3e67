//! Pooling.

use wgrad::Value;
use wgrad::ops::pool2d::Pool2d;

use super::Family;
use super::convolution::{Window, padded, windows};
use crate::constant::ElemType;
use crate::node::{Node, Result};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("AveragePool", pool),
    ("GlobalAveragePool", global),
    ("GlobalLpPool", global),
    ("GlobalMaxPool", global),
    ("LpPool", lp_pool),
    ("MaxPool", pool),
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

fn pool(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, is_max) = (node.value(0)?, node.input(0)?.ty(), node.op() == "MaxPool");
    let kernel = node.attribute_ints("kernel_shape").ok_or("its kernel_shape is missing")?;
    let kernel: Vec<usize> = kernel.iter().map(|&size| size.max(0) as usize).collect();
    if x.shape().rank() < 3 {
        return Err(format!("its input {} has no axes to move along", x.ty()).into());
    }
    let sizes = x.shape()[2..].to_vec();
    let windows = windows(node, &kernel, &sizes)?;
    let (ceil, counts_padding) = (node.flag("ceil_mode", false), node.flag("count_include_pad", false));
    node.attribute("storage_order");
    if node.proto.output.get(1).is_some_and(|name| !name.is_empty()) {
        return Err("its second output, the indices, is not supported".into());
    }
    let counts: Vec<usize> = windows.iter().zip(&sizes).map(|(window, &size)| window.count(size, ceil)).collect();
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
    let kernel = node.attribute_ints("kernel_shape").ok_or("its kernel_shape is missing")?;
    let kernel: Vec<usize> = kernel.iter().map(|&size| size.max(0) as usize).collect();
    if x.shape().rank() < 3 {
        return Err(format!("its input {} has no axes to move along", x.ty()).into());
    }
    let sizes = x.shape()[2..].to_vec();
    let windows = windows(node, &kernel, &sizes)?;
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
