//! Convolutions.

use wgrad::ops::conv2d::Conv2d;
use wgrad::{Shape, Tensor, Value};

use super::Family;
use crate::constant::Constant;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[("Col2Im", col2im), ("Conv", conv), ("ConvTranspose", conv_transpose)];

/// The windows of a convolution or pooling along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: usize,
    pub after: usize,
}

impl Window {
    /// The elements that a window spans.
    pub fn span(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// The number of windows in an axis of `size` elements; with `ceil`, a last one may go beyond the end.
    pub fn count(&self, size: usize, ceil: bool) -> usize {
        let padded = size + self.before + self.after;
        let Some(room) = padded.checked_sub(self.span()) else { return 0 };
        let count = room / self.stride + 1;
        // A window must not begin in the padding after the data.
        let more = ceil && !room.is_multiple_of(self.stride) && count * self.stride < size + self.before;
        count + usize::from(more)
    }
}

/// The windows along the axes after the first two, from the attributes of a node.
pub(super) fn windows(node: &mut Node<'_, '_>, kernel: &[usize], sizes: &[usize]) -> Result<Vec<Window>> {
    let axes = sizes.len();
    let given = |found: Option<Vec<i64>>, default: i64, count: usize, name: &str| -> Result<Vec<usize>> {
        let numbers = found.filter(|numbers| !numbers.is_empty()).unwrap_or_else(|| vec![default; count]);
        let least = if name == "pads" { 0 } else { 1 };
        if numbers.len() != count || numbers.iter().any(|&n| n < least || n > 1 << 20) {
            return Err(format!("{name} = {numbers:?} does not fit {axes} axes").into());
        }
        Ok(numbers.iter().map(|&n| n as usize).collect())
    };
    let strides = given(node.attribute_ints("strides"), 1, axes, "strides")?;
    let dilations = given(node.attribute_ints("dilations"), 1, axes, "dilations")?;
    let pads = given(node.attribute_ints("pads"), 0, 2 * axes, "pads")?;
    let auto = node.text("auto_pad", "NOTSET");
    if kernel.len() != axes || kernel.contains(&0) {
        return Err(format!("a kernel of {kernel:?} does not fit {axes} axes").into());
    }
    let window = |at: usize| -> Result<Window> {
        let (kernel, stride, dilation) = (kernel[at], strides[at], dilations[at]);
        let mut window = Window { kernel, stride, dilation, before: pads[at], after: pads[at + axes] };
        match auto.as_str() {
            "NOTSET" => {}
            "VALID" => (window.before, window.after) = (0, 0),
            "SAME_UPPER" | "SAME_LOWER" => {
                let total =
                    ((sizes[at].div_ceil(stride).max(1) - 1) * stride + window.span()).saturating_sub(sizes[at]);
                let (less, more) = (total / 2, total - total / 2);
                (window.before, window.after) = if auto == "SAME_UPPER" { (less, more) } else { (more, less) };
            }
            other => return Err(format!("auto_pad = {other} is unknown").into()),
        }
        Ok(window)
    };
    (0..axes).map(window).collect()
}

/// `x` with a constant around the axes after the first two.
pub(super) fn padded(x: &Value, windows: &[Window], value: f64) -> Value {
    let mut y = x.clone();
    for (at, window) in windows.iter().enumerate() {
        for (count, is_before) in [(window.before, true), (window.after, false)] {
            if count > 0 {
                let mut shape = y.shape().to_vec();
                shape[at + 2] = count;
                let border = y.graph().full(y.dtype(), shape, value);
                let axis = at as isize + 2;
                y = if is_before { border.concat(&[&y], axis) } else { y.concat(&[&border], axis) };
            }
        }
    }
    y
}

fn conv(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, w, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let bias = node.optional_value(2)?;
    if x.shape().rank() < 3 || w.shape().rank() != x.shape().rank() {
        return Err(format!("data {} and weights {} do not fit", x.ty(), w.ty()).into());
    }
    let kernel = w.shape()[2..].to_vec();
    if let Some(given) = node.attribute_ints("kernel_shape")
        && given.iter().map(|&size| size as usize).collect::<Vec<_>>() != kernel
    {
        return Err(format!("kernel_shape = {given:?} differs from that of the weights, {kernel:?}").into());
    }
    let groups = node.int("group", 1).max(1) as usize;
    let sizes = x.shape()[2..].to_vec();
    let windows = windows(node, &kernel, &sizes)?;
    let y = node.checked(biased(convolved(&x, &w, &windows, groups)?, bias.as_ref()))?;
    // For a batch normalisation that follows.
    if node.builder.is_main() && node.builder.is_inference() && node.proto.output.len() == 1 {
        let known = |at: usize| node.optional(at).and_then(|val| val.known().cloned());
        if let (Some(w), true) = (known(1), node.optional(2).is_none() || known(2).is_some()) {
            let convolution = Convolution { x, w, bias: known(2), windows, groups };
            node.builder.convolutions.insert(node.proto.output[0].clone(), convolution);
        }
    }
    Ok(vec![node.result(y, ty)])
}

/// A convolution with known weights.
pub(crate) struct Convolution {
    x: Value,
    w: Constant,
    bias: Option<Constant>,
    windows: Vec<Window>,
    groups: usize,
}

impl Convolution {
    /// The convolution whose results are multiplied by `factor` and moved by `shift`, for each channel.
    pub fn scaled(&self, factor: &[f64], shift: &[f64]) -> Result<Value> {
        let each = self.w.numel() / factor.len().max(1);
        let weights = self.w.to_floats().iter().enumerate().map(|(at, w)| w * factor[at / each.max(1)]).collect();
        let own = self.bias.as_ref().map_or_else(|| vec![0.0; factor.len()], Constant::to_floats);
        let bias = (0..factor.len()).map(|channel| own[channel] * factor[channel] + shift[channel]).collect();
        let value = |shape: &[usize], values: Vec<f64>| -> Result<Value> {
            let constant = Constant::floats(self.w.ty, shape.to_vec(), values);
            Ok(self.x.graph().constant(constant.to_tensor()?))
        };
        let w = value(self.w.shape(), weights)?;
        Ok(biased(convolved(&self.x, &w, &self.windows, self.groups)?, Some(&value(&[factor.len()], bias)?)))
    }

    /// The number of channels of its results.
    pub fn channels(&self) -> usize {
        self.w.shape()[0]
    }
}

/// `y` with a number added to each channel.
fn biased(y: Value, bias: Option<&Value>) -> Value {
    match bias {
        Some(bias) if y.is_valid() => &y + super::norm::by_channel(bias, y.shape().rank()),
        _ => y,
    }
}

/// A convolution over 1, 2 or more axes.
pub(super) fn convolved(x: &Value, w: &Value, windows: &[Window], groups: usize) -> Result<Value> {
    if let Some(invalid) = [x, w].into_iter().find(|value| !value.is_valid()) {
        return Ok(invalid.clone());
    }
    match windows {
        [] => Err("it has no axes to move along".into()),
        // One axis is the second of two.
        [only] => {
            let (n, o) = (x.shape().to_vec(), w.shape().to_vec());
            let one = Window { kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 };
            let (x, w) = (x.reshape(&signed(&[n[0], n[1], 1, n[2]])), w.reshape(&signed(&[o[0], o[1], 1, o[2]])));
            let y = convolved(&x, &w, &[one, *only], groups)?;
            let shape = y.shape().to_vec();
            Ok(if y.is_valid() { y.reshape(&signed(&[shape[0], shape[1], shape[3]])) } else { y })
        }
        [a, b] => {
            let symmetric = a.before == a.after && b.before == b.after;
            let options =
                Conv2d { stride: [a.stride, b.stride], padding: [0, 0], dilation: [a.dilation, b.dilation], groups };
            Ok(match symmetric {
                true => x.conv2d(w, None, options.padding([a.before, b.before])),
                false => padded(x, windows, 0.0).conv2d(w, None, options),
            })
        }
        // The first axis joins the batch: a sum over its taps of convolutions along the other axes.
        [first, rest @ ..] => {
            let x = padded(x, &[*first], 0.0);
            let (n, size) = (x.shape()[0], x.shape()[2]);
            let count = Window { before: 0, after: 0, ..*first }.count(size, false);
            let mut sum: Option<Value> = None;
            for tap in 0..first.kernel {
                let start = tap * first.dilation;
                let slice = x.slice(2, start, start + (count.max(1) - 1) * first.stride + 1, first.stride);
                let rank = slice.shape().rank() as isize;
                let order: Vec<isize> = [0, 2, 1].into_iter().chain(3..rank).collect();
                let mut shape = slice.shape().to_vec();
                shape.remove(2);
                shape[0] = n * count;
                let slice = slice.permute(&order).reshape(&signed(&shape));
                let mut kernel = w.shape().to_vec();
                kernel.remove(2);
                let kernel = w.slice(2, tap, tap + 1, 1).reshape(&signed(&kernel));
                let y = convolved(&slice, &kernel, rest, groups)?;
                sum = Some(sum.map_or(y.clone(), |sum| sum + y));
            }
            let y = sum.ok_or("its kernel is empty")?;
            let mut shape = y.shape().to_vec();
            shape[0] = count;
            shape.insert(0, n);
            let rank = shape.len() as isize;
            let order: Vec<isize> = [0, 2, 1].into_iter().chain(3..rank).collect();
            Ok(if y.is_valid() { y.reshape(&signed(&shape)).permute(&order) } else { y })
        }
    }
}

/// The transpose of a convolution: the data with zeros between its elements, convolved with the flipped weights.
fn conv_transpose(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, w, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    if x.shape().rank() < 3 || w.shape().rank() != x.shape().rank() {
        return Err(format!("data {} and weights {} do not fit", x.ty(), w.ty()).into());
    }
    let (axes, groups) = (x.shape().rank() - 2, node.int("group", 1).max(1) as usize);
    let kernel = w.shape()[2..].to_vec();
    node.attribute("kernel_shape");
    let numbers = |found: Option<Vec<i64>>, default: i64, count: usize| -> Result<Vec<i64>> {
        let list = found.filter(|list| !list.is_empty()).unwrap_or_else(|| vec![default; count]);
        match list.len() == count && list.iter().all(|&n| (0..=1 << 20).contains(&n)) {
            true => Ok(list),
            false => Err(format!("{list:?} does not fit {axes} axes").into()),
        }
    };
    let strides = numbers(node.attribute_ints("strides"), 1, axes)?;
    let dilations = numbers(node.attribute_ints("dilations"), 1, axes)?;
    let extra = numbers(node.attribute_ints("output_padding"), 0, axes)?;
    let mut pads = numbers(node.attribute_ints("pads"), 0, 2 * axes)?;
    let auto = node.text("auto_pad", "NOTSET");
    let wanted = node.attribute_ints("output_shape").map(|mut shape| shape.split_off(shape.len().saturating_sub(axes)));
    let mut sizes = Vec::new();
    for at in 0..axes {
        let span = (kernel[at] as i64 - 1) * dilations[at] + 1;
        let whole = (x.shape()[at + 2] as i64 - 1) * strides[at] + span + extra[at];
        let same = auto.starts_with("SAME").then(|| x.shape()[at + 2] as i64 * strides[at]);
        let target = wanted.as_ref().and_then(|shape| shape.get(at).copied()).or(same);
        if auto == "VALID" {
            (pads[at], pads[at + axes]) = (0, 0);
        } else if let Some(target) = target {
            let total = whole - target;
            let (less, more) = (total.div_euclid(2), total - total.div_euclid(2));
            (pads[at], pads[at + axes]) = if auto == "SAME_UPPER" { (less, more) } else { (more, less) };
        } else if auto != "NOTSET" {
            return Err(format!("auto_pad = {auto} is unknown").into());
        }
        sizes.push(whole - pads[at] - pads[at + axes]);
    }
    // Zeros between the elements, and around them as far as the kernel reaches.
    let mut y = x.clone();
    for at in 0..axes {
        let axis = at + 2;
        let stride = strides[at].max(1) as usize;
        if stride > 1 {
            let mut shape = y.shape().to_vec();
            shape.insert(axis + 1, 1);
            let apart = y.reshape(&signed(&shape));
            shape[axis + 1] = stride - 1;
            let zeros = y.graph().full(y.dtype(), shape.clone(), 0.0);
            let wide = apart.concat(&[&zeros], axis as isize + 1);
            shape.remove(axis + 1);
            let size = shape[axis];
            shape[axis] *= stride;
            y = wide.reshape(&signed(&shape)).slice(
                axis as isize,
                0,
                ((size.max(1) - 1) * stride + 1).min(shape[axis]),
                1,
            );
        }
        let reach = (kernel[at] as i64 - 1) * dilations[at];
        let size = y.shape()[axis] as i64;
        let before = reach - pads[at];
        let after = sizes[at] + reach - size - before;
        y = bordered(&y, axis, before, after);
    }
    // [c, o / groups, ..] to [o, c / groups, ..], flipped.
    let flipped = w.flip(&(2..w.shape().rank() as isize).collect::<Vec<_>>());
    let shape = w.shape().to_vec();
    if !shape[0].is_multiple_of(groups) {
        return Err(format!("{} channels do not divide into {groups} groups", shape[0]).into());
    }
    let apart = [&[groups, shape[0] / groups, shape[1]], &shape[2..]].concat();
    let order: Vec<isize> = [0, 2, 1].into_iter().chain(3..apart.len() as isize).collect();
    let together = [&[groups * shape[1], shape[0] / groups], &shape[2..]].concat();
    let w = flipped.reshape(&signed(&apart)).permute(&order).reshape(&signed(&together));
    let plain = |at: usize| Window {
        kernel: kernel[at],
        stride: 1,
        dilation: dilations[at].max(1) as usize,
        before: 0,
        after: 0,
    };
    let windows: Vec<Window> = (0..axes).map(plain).collect();
    let mut y = convolved(&y, &w, &windows, groups)?;
    if let Some(bias) = node.optional_value(2)? {
        y = &y + super::norm::by_channel(&bias, y.shape().rank());
    }
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// `x` with zeros before and after an axis; negative numbers remove elements.
fn bordered(x: &Value, axis: usize, before: i64, after: i64) -> Value {
    let size = x.shape()[axis] as i64;
    let (start, end) = ((-before).clamp(0, size), (size + after.min(0)).clamp(0, size));
    let x = x.slice(axis as isize, start as usize, end.max(start) as usize, 1);
    let mut shape = x.shape().to_vec();
    let mut zeros = |count: i64| {
        shape[axis] = count.max(0) as usize;
        x.graph().full(x.dtype(), shape.clone(), 0.0)
    };
    let (head, tail) = (zeros(before), zeros(after));
    match (before > 0, after > 0) {
        (true, true) => head.concat(&[&x, &tail], axis as isize),
        (true, false) => head.concat(&[&x], axis as isize),
        (false, true) => x.concat(&[&tail], axis as isize),
        (false, false) => x,
    }
}

/// Sums of overlapping blocks: `[n, c * block, windows]` to `[n, c, image]`.
fn col2im(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, image, block) = (node.value(0)?, node.input(0)?.ty(), node.known_ints(1)?, node.known_ints(2)?);
    let sizes = |ints: &[i64]| ints.iter().map(|&size| size.clamp(0, 1 << 30) as usize).collect::<Vec<_>>();
    let (image, block) = (sizes(&image), sizes(&block));
    let windows = windows(node, &block, &image)?;
    let counts: Vec<usize> = windows.iter().zip(&image).map(|(window, &size)| window.count(size, false)).collect();
    let (taps, places) = (block.iter().product::<usize>(), counts.iter().product::<usize>());
    let &[n, columns, given] = &x.shape()[..] else { return Err(format!("{} is no batch of blocks", x.ty()).into()) };
    if !columns.is_multiple_of(taps) || given != places {
        return Err(format!("{} does not have blocks of {block:?} at {places} places of {image:?}", x.ty()).into());
    }
    let c = columns / taps;
    // The place of each element in the image with its border.
    let with_border: Vec<usize> = windows.iter().zip(&image).map(|(w, &size)| size + w.before + w.after).collect();
    let (strides, whole) = (Shape::from(&with_border[..]).strides(), with_border.iter().product::<usize>());
    let (block, counts) = (Shape::from(&block[..]), Shape::from(&counts[..]));
    let index = (0..taps).flat_map(|tap| {
        let tap = block.unravel(tap);
        let (counts, windows, strides) = (&counts, &windows, &strides);
        (0..places).map(move |place| {
            let place = counts.unravel(place);
            let along = |axis: usize| place[axis] * windows[axis].stride + tap[axis] * windows[axis].dilation;
            (0..place.len()).map(|axis| along(axis) * strides[axis]).sum::<usize>() as i32
        })
    });
    let index = Tensor::new([1, taps * places], index.collect::<Vec<i32>>()).map_err(|error| error.to_string())?;
    let index = node.graph().constant(index).broadcast_to(&[n * c, taps * places].into());
    let zero = node.graph().full(x.dtype(), [n * c, whole], 0.0);
    let sum = zero.scatter_add(1, &index, &x.reshape(&signed(&[n * c, taps * places])));
    let mut y = sum.reshape(&signed(&[&[n, c], &with_border[..]].concat()));
    for (axis, (window, &size)) in windows.iter().zip(&image).enumerate() {
        y = y.slice(axis as isize + 2, window.before, window.before + size, 1);
    }
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}
