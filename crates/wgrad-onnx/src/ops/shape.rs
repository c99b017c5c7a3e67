//! Operators that change shapes or move elements.

use wgrad::Value;

use super::{Family, MANY};
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("BitCast", bit_cast),
    ("CenterCropPad", center_crop_pad),
    ("Concat", concat),
    ("Constant", constant),
    ("ConstantOfShape", constant_of_shape),
    ("DepthToSpace", depth_to_space),
    ("Expand", expand),
    ("EyeLike", eye_like),
    ("Flatten", flatten),
    ("Pad", pad),
    ("Range", range),
    ("Reshape", reshape),
    ("Shape", shape),
    ("Size", size),
    ("Slice", slice),
    ("SpaceToDepth", space_to_depth),
    ("Split", split),
    ("Squeeze", squeeze),
    ("Tile", tile),
    ("Transpose", transpose),
    ("Trilu", trilu),
    ("Unsqueeze", unsqueeze),
];

/// The new shape of a `Reshape`.
pub(crate) fn reshaped(node: &mut Node<'_, '_>, from: &[usize]) -> Result<Vec<usize>> {
    let sizes = match node.attribute_ints("shape").filter(|_| node.version() < 5) {
        Some(sizes) => sizes,
        None => node.known_ints(1)?,
    };
    let keeps_zero = node.flag("allowzero", false);
    let wrong = |why: &str| format!("{from:?} cannot become {sizes:?}: {why}");
    let mut shape = Vec::new();
    let mut open = None;
    for (at, &size) in sizes.iter().enumerate() {
        shape.push(match size {
            0 if !keeps_zero => *from.get(at).ok_or_else(|| wrong("there is no axis to copy a size from"))?,
            -1 if open.is_none() => {
                open = Some(at);
                1
            }
            size => usize::try_from(size).map_err(|_| wrong("a size is negative"))?,
        });
    }
    let total: usize = from.iter().product();
    let known =
        shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).ok_or_else(|| wrong("it is too large"))?;
    if let Some(at) = open {
        shape[at] = total.checked_div(known).unwrap_or(0);
    }
    if shape.iter().product::<usize>() != total {
        return Err(wrong("the number of elements differs").into());
    }
    Ok(shape)
}

/// The shape without axes of size 1.
pub(crate) fn squeezed(node: &mut Node<'_, '_>, from: &[usize]) -> Result<Vec<usize>> {
    let axes = match node.ints_by_input_or_attribute(1, "axes")? {
        Some(axes) => node.axes(&axes, from.len())?,
        None => (0..from.len()).filter(|&axis| from[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| from[axis] != 1) {
        return Err(format!("axis {axis} of {from:?} has more than one element").into());
    }
    Ok((0..from.len()).filter(|axis| !axes.contains(axis)).map(|axis| from[axis]).collect())
}

/// The shape with more axes of size 1.
pub(crate) fn unsqueezed(node: &mut Node<'_, '_>, from: &[usize]) -> Result<Vec<usize>> {
    let axes = node.ints_by_input_or_attribute(1, "axes")?.ok_or("its axes are missing")?;
    let rank = from.len() + axes.len();
    let axes = node.axes(&axes, rank)?;
    let mut sizes = from.iter();
    Ok((0..rank).map(|axis| if axes.contains(&axis) { 1 } else { sizes.next().copied().unwrap_or(1) }).collect())
}

/// The part of an axis that a `Slice` takes: `start`, `start + step`, ...
pub(crate) struct Part {
    start: usize,
    step: i64,
    len: usize,
}

impl Part {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn position(&self, at: usize) -> usize {
        (self.start as i64 + at as i64 * self.step) as usize
    }

    /// Applies it to an axis of a value.
    fn of(&self, x: &Value, axis: usize) -> Value {
        let Part { start, step, len } = *self;
        let size = x.shape()[axis];
        let end = |start: usize, step: usize| if len == 0 { start } else { start + (len - 1) * step + 1 };
        let axis = axis as isize;
        match step {
            1.. => x.slice(axis, start, end(start, step as usize), step as usize),
            _ => {
                let (start, step) = (size - 1 - start.min(size.max(1) - 1), step.unsigned_abs() as usize);
                x.flip(&[axis]).slice(axis, start, end(start, step), step)
            }
        }
    }
}

/// The parts that a `Slice` takes, one for each axis.
pub(crate) fn slices(node: &mut Node<'_, '_>, from: &[usize]) -> Result<Vec<Part>> {
    let (starts, ends, axes, steps) = if node.version() < 10 {
        (
            node.attribute_ints("starts").unwrap_or_default(),
            node.attribute_ints("ends").unwrap_or_default(),
            node.attribute_ints("axes"),
            None,
        )
    } else {
        (node.known_ints(1)?, node.known_ints(2)?, node.optional_ints(3)?, node.optional_ints(4)?)
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("its starts, ends, axes and steps have different numbers of elements".into());
    }
    let mut parts: Vec<Part> = from.iter().map(|&len| Part { start: 0, step: 1, len }).collect();
    for (at, axis) in node.axes(&axes, from.len())?.into_iter().enumerate() {
        let (size, step) = (from[axis] as i64, steps[at]);
        let within = |place: i64, low: i64, high: i64| {
            (if place < 0 { place.saturating_add(size) } else { place }).clamp(low, high)
        };
        let (start, len) = match step {
            0 => return Err("a step of 0 takes nothing".into()),
            1.. => {
                let (start, end) = (within(starts[at], 0, size), within(ends[at], 0, size));
                (start, (end - start).max(0) as u64)
            }
            _ => {
                let (start, end) = (within(starts[at], -1, size - 1), within(ends[at], -1, size - 1));
                (start.max(0), (start - end).max(0) as u64)
            }
        };
        let len = len.div_ceil(step.unsigned_abs()) as usize;
        parts[axis] = Part { start: start as usize, step, len };
    }
    Ok(parts)
}

/// The same elements with another shape. Known values stay known, and weights stay weights.
fn with_shape(node: &mut Node<'_, '_>, shape: Vec<usize>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    if shape == x.shape() {
        return Ok(vec![x]);
    }
    if let (Some(constant), None) = (x.known(), x.weight_name()) {
        return Ok(vec![Val::constant(constant.reshaped(shape))]);
    }
    let y = node.checked(node.value(0)?.reshape(&signed(&shape)))?;
    Ok(vec![Val::graph(y, x.ty())])
}

fn reshape(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    node.attribute("consumed_inputs");
    let from = node.input(0)?.shape().to_vec();
    let shape = reshaped(node, &from)?;
    with_shape(node, shape)
}

fn squeeze(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let from = node.input(0)?.shape().to_vec();
    let shape = squeezed(node, &from)?;
    with_shape(node, shape)
}

fn unsqueeze(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let from = node.input(0)?.shape().to_vec();
    let shape = unsqueezed(node, &from)?;
    with_shape(node, shape)
}

fn flatten(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let from = node.input(0)?.shape().to_vec();
    let axis = node.int("axis", 1);
    let axis = if axis == from.len() as i64 { from.len() } else { node.axis(axis, from.len())? };
    with_shape(node, vec![from[..axis].iter().product(), from[axis..].iter().product()])
}

fn shape(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let (rank, start, end) = (x.rank() as i64, node.int("start", 0), node.int("end", i64::MAX));
    let within = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (within(start), within(end));
    let sizes: Vec<i64> = x.shape()[start..end.max(start)].iter().map(|&size| size as i64).collect();
    Ok(vec![Val::constant(Constant::ints(ElemType::I64, vec![sizes.len()], sizes))])
}

fn size(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let count = node.input(0)?.numel() as i64;
    Ok(vec![Val::constant(Constant::ints(ElemType::I64, vec![], vec![count]))])
}

fn constant(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let floats = |values: Vec<f64>, shape: Vec<usize>| Constant::floats(ElemType::F32, shape, values);
    let ints = |values: Vec<i64>, shape: Vec<usize>| Constant::ints(ElemType::I64, shape, values);
    let found = if let Some(tensor) = node.tensor("value")? {
        // Some exporters write weights as nodes.
        if tensor.ty.is_float() && tensor.numel() > 1 && node.builder.is_main() && !node.builder.is_inference() {
            let name = node.proto.output.first().cloned().unwrap_or_default();
            return Ok(vec![Val::weight(&name, tensor)]);
        }
        tensor
    } else if let Some(number) = node.optional_attribute_number("value_float") {
        floats(vec![number], vec![])
    } else if let Some(numbers) = node.attribute_numbers("value_floats") {
        let count = numbers.len();
        floats(numbers, vec![count])
    } else if let Some(number) = node.attribute("value_int").and_then(|attribute| attribute.i) {
        ints(vec![number], vec![])
    } else if let Some(numbers) = node.attribute_ints("value_ints") {
        let count = numbers.len();
        ints(numbers, vec![count])
    } else {
        return Err("it has no value of a supported type".into());
    };
    Ok(vec![Val::constant(found)])
}

fn constant_of_shape(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let sizes = node.known_ints(0)?;
    let size = |&size: &i64| usize::try_from(size).map_err(|_| format!("the size {size} is negative"));
    let shape = sizes.iter().map(size).collect::<std::result::Result<Vec<_>, _>>()?;
    let count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).filter(|&count| count <= MANY);
    let count = count.ok_or_else(|| format!("the shape {shape:?} is too large"))?;
    let value = node.tensor("value")?.unwrap_or_else(|| Constant::floats(ElemType::F32, vec![1], vec![0.0]));
    let constant = match value.to_ints() {
        Some(values) => Constant::ints(value.ty, shape, vec![*values.first().ok_or("its value is empty")?; count]),
        None => Constant::floats(value.ty, shape, vec![*value.to_floats().first().ok_or("its value is empty")?; count]),
    };
    Ok(vec![Val::constant(constant)])
}

fn range(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let number = |node: &Node<'_, '_>, at: usize| -> Result<f64> { Ok(node.optional_number(at)?.unwrap_or(0.0)) };
    let (start, limit, delta) = (number(node, 0)?, number(node, 1)?, number(node, 2)?);
    let count = ((limit - start) / delta).ceil().max(0.0);
    if !(delta != 0.0 && count <= MANY as f64) {
        return Err(format!("the range from {start} to {limit} by {delta} is too long").into());
    }
    let values: Vec<f64> = (0..count as usize).map(|i| start + i as f64 * delta).collect();
    let shape = vec![values.len()];
    Ok(vec![Val::constant(match ty.is_float() {
        true => Constant::floats(ty, shape, values),
        false => Constant::ints(ty, shape, values.into_iter().map(|x| x as i64).collect()),
    })])
}

fn eye_like(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let &[rows, columns] = x.shape() else { return Err("its input is no matrix".into()) };
    let (ty, k) = (node.elem_type("dtype", x.ty())?, node.int("k", 0));
    if rows.saturating_mul(columns) > MANY {
        return Err("its input is too large".into());
    }
    let ones = (0..rows * columns).map(|i| i64::from((i % columns) as i64 - (i / columns) as i64 == k)).collect();
    Ok(vec![Val::constant(Constant::ints(ty, vec![rows, columns], ones))])
}

fn concat(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let axis = node.int("axis", 1);
    let values = (0..node.inputs().len()).map(|at| node.value(at)).collect::<Result<Vec<_>>>()?;
    let axis = node.axis(axis, values[0].shape().rank())?;
    // Operators of older files join empty lists to others.
    let filled: Vec<&Value> = values.iter().filter(|x| x.shape().to_vec() != [0]).collect();
    let y = match filled[..] {
        [] => values[0].clone(),
        [first, ref others @ ..] => first.concat(others, axis as isize),
    };
    let y = node.checked(y)?;
    Ok(vec![Val::graph(y, ty)])
}

fn slice(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let parts = slices(node, x.shape())?;
    let mut y = node.value(0)?;
    for (axis, part) in parts.iter().enumerate() {
        if part.len != x.shape()[axis] || part.step != 1 {
            y = node.checked(part.of(&y, axis))?;
        }
    }
    let y = node.checked(y)?;
    Ok(vec![Val::graph(y, x.ty())])
}

fn split(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let axis = node.int("axis", 0);
    let axis = node.axis(axis, x.rank())?;
    let (size, outputs) = (x.shape()[axis], node.proto.output.len());
    let count = node.attribute("num_outputs").and_then(|attribute| attribute.i);
    let sizes: Vec<usize> = match node.ints_by_input_or_attribute(1, "split")? {
        Some(sizes) => sizes.iter().map(|&size| size.max(0) as usize).collect(),
        None => {
            let count = count.map_or(outputs, |count| count.max(1) as usize);
            let each = size.div_ceil(count);
            (0..count).map(|at| each.min(size.saturating_sub(at * each))).collect()
        }
    };
    if sizes.iter().sum::<usize>() != size {
        return Err(format!("the sizes {sizes:?} do not add up to {size}").into());
    }
    let value = node.value(0)?;
    let mut start = 0;
    let mut parts = Vec::new();
    for size in sizes {
        let part = node.checked(value.slice(axis as isize, start, start + size, 1))?;
        parts.push(Val::graph(part, x.ty()));
        start += size;
    }
    Ok(parts)
}

fn transpose(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let axes = node.attribute_ints("perm").unwrap_or_else(|| (0..x.rank() as i64).rev().collect());
    let axes = node.axes(&axes, x.rank())?;
    let y = node.checked(node.value(0)?.permute(&signed(&axes)))?;
    Ok(vec![Val::graph(y, x.ty())])
}

fn expand(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, sizes) = (node.input(0)?, node.known_ints(1)?);
    let target: wgrad::Shape = sizes.iter().map(|&size| size.max(0) as usize).collect();
    let shape = wgrad::Shape::from(x.shape()).broadcast(&target);
    let shape = shape.ok_or_else(|| format!("{:?} does not broadcast with {sizes:?}", x.shape()))?;
    if shape.to_vec() == x.shape() {
        return Ok(vec![x]);
    }
    let y = node.checked(node.value(0)?.broadcast_to(&shape))?;
    Ok(vec![Val::graph(y, x.ty())])
}

fn tile(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, repeats) = (node.input(0)?, node.known_ints(1)?);
    if repeats.len() != x.rank() || repeats.iter().any(|&n| n < 0) {
        return Err(format!("the repeats {repeats:?} do not fit a tensor of {} axes", x.rank()).into());
    }
    // [a, b] as [1, a, 1, b], broadcast to [ra, a, rb, b].
    let mut y = node.value(0)?;
    let pairs = x.shape().iter().flat_map(|&size| [1, size]).collect::<Vec<_>>();
    let repeated: wgrad::Shape = x.shape().iter().zip(&repeats).flat_map(|(&size, &n)| [n as usize, size]).collect();
    let joined: Vec<usize> = x.shape().iter().zip(&repeats).map(|(&size, &n)| n as usize * size).collect();
    y = y.reshape(&signed(&pairs)).broadcast_to(&repeated).reshape(&signed(&joined));
    let y = node.checked(y)?;
    Ok(vec![Val::graph(y, x.ty())])
}

/// `[n, c, h, w]` to `[n, c / b^2, h b, w b]`.
fn depth_to_space(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let (block, mode) = (node.int("blocksize", 0) as usize, node.text("mode", "DCR"));
    let &[n, c, h, w] = x.shape() else { return Err("its input is no batch of images".into()) };
    if block == 0 || !c.is_multiple_of(block * block) {
        return Err(format!("{c} channels cannot become blocks of {block} by {block}").into());
    }
    let depth = c / (block * block);
    let (apart, order): ([usize; 6], [isize; 6]) = match mode.as_str() {
        "DCR" => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        other => return Err(format!("the mode `{other}` is unknown").into()),
    };
    let y = node.value(0)?.reshape(&signed(&apart)).permute(&order).reshape(&signed(&[n, depth, h * block, w * block]));
    let y = node.checked(y)?;
    Ok(vec![Val::graph(y, x.ty())])
}

/// The same bits as another type. Devices convert between integers; floats must be known.
fn bit_cast(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (from, to) = (node.input(0)?.ty(), node.elem_type("to", ElemType::F32)?);
    if from.bits() != to.bits() {
        return Err(format!("{from} and {to} have different sizes").into());
    }
    if from.is_float() || to.is_float() || node.input(0)?.known().is_some() {
        return Ok(vec![Val::constant(node.known(0)?.bit_cast(to)?)]);
    }
    let value = node.value(0)?;
    if to == ElemType::Bool {
        return Err("integers other than 0 and 1 have no meaning as bool; use Cast".into());
    }
    let value = if value.dtype() == to.dtype() { value } else { value.cast(wgrad::DType::I32) };
    let value = node.checked(value)?;
    Ok(vec![node.result(value, to)])
}

/// Crops or pads axes, evenly on both sides; the odd element is at the end.
fn center_crop_pad(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, sizes) = (node.input(0)?, node.known_ints(1)?);
    let axes = match node.attribute_ints("axes") {
        Some(axes) => node.axes(&axes, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    if axes.len() != sizes.len() || sizes.iter().any(|size| !(0..=1 << 30).contains(size)) {
        return Err(format!("the sizes {sizes:?} do not fit {} axes", axes.len()).into());
    }
    let mut y = node.value(0)?;
    for (&axis, &size) in axes.iter().zip(&sizes) {
        let more = size - x.shape()[axis] as i64;
        if more != 0 {
            let places = padded_places("constant", x.shape()[axis], more / 2, more - more / 2)?;
            y = padded(&y, axis, &places, 0.0);
        }
    }
    let y = node.checked(y)?;
    Ok(vec![node.result(y, x.ty())])
}

/// `[n, c, h, w]` to `[n, c b^2, h / b, w / b]`.
fn space_to_depth(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let (block, mode) = (node.int("blocksize", 0).max(0) as usize, node.text("mode", "DCR"));
    let &[n, c, h, w] = x.shape() else { return Err("its input is no batch of images".into()) };
    let order: [isize; 6] = match mode.as_str() {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => return Err(format!("the mode `{other}` is unknown").into()),
    };
    if block == 0 || !h.is_multiple_of(block) || !w.is_multiple_of(block) {
        return Err(format!("{h} by {w} pixels do not divide into blocks of {block} by {block}").into());
    }
    let (h, w) = (h / block, w / block);
    let apart = signed(&[n, c, h, block, w, block]);
    let y = node.value(0)?.reshape(&apart).permute(&order).reshape(&signed(&[n, c * block * block, h, w]));
    let y = node.checked(y)?;
    Ok(vec![Val::graph(y, x.ty())])
}

fn trilu(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let (upper, k) = (node.flag("upper", true), node.optional_number(1)?.unwrap_or(0.0) as isize);
    let value = node.value(0)?;
    let y = node.checked(if upper { value.triu(k) } else { value.tril(k) })?;
    Ok(vec![node.result(y, x.ty())])
}

/// The places in an axis of `size` elements that a padded axis takes; `None` is the constant.
fn padded_places(mode: &str, size: usize, before: i64, after: i64) -> Result<Vec<Option<usize>>> {
    let n = size as i64;
    let place = |at: i64| -> Option<usize> {
        match mode {
            "edge" => Some(at.clamp(0, n - 1) as usize),
            "wrap" => Some(at.rem_euclid(n) as usize),
            "reflect" if n == 1 => Some(0),
            "reflect" => {
                let period = 2 * (n - 1);
                let at = at.rem_euclid(period);
                Some(at.min(period - at) as usize)
            }
            _ => (0..n).contains(&at).then_some(at as usize),
        }
    };
    if n == 0 && mode != "constant" {
        return Err(format!("an empty axis cannot be padded in the mode {mode}").into());
    }
    Ok((-before..n + after).map(place).collect())
}

fn pad(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.input(0)?;
    let mode = node.text("mode", "constant");
    if !["constant", "edge", "reflect", "wrap"].contains(&mode.as_str()) {
        return Err(format!("the mode `{mode}` is unknown").into());
    }
    let (pads, value) = if node.version() < 11 {
        let pads = node.attribute_ints("pads").or(node.attribute_ints("paddings"));
        (pads.ok_or("its pads are missing")?, node.number("value", 0.0))
    } else {
        (node.known_ints(1)?, node.optional_number(2)?.unwrap_or(0.0))
    };
    let axes = match node.optional_ints(3)? {
        Some(axes) => node.axes(&axes, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads do not fit {} axes", pads.len(), axes.len()).into());
    }
    let mut y = node.value(0)?;
    for (at, &axis) in axes.iter().enumerate() {
        let (before, after) = (pads[at], pads[at + axes.len()]);
        if (before, after) == (0, 0) {
            continue;
        }
        let size = x.shape()[axis];
        if before.saturating_add(after).saturating_add(size as i64) < 0 || before.max(after) > i64::from(i32::MAX) {
            return Err(format!("axis {axis} of {size} elements cannot be padded by {before} and {after}").into());
        }
        let places = padded_places(&mode, size, before, after)?;
        y = padded(&y, axis, &places, value);
    }
    let y = node.checked(y)?;
    Ok(vec![node.result(y, x.ty())])
}

/// Joins the runs of places of an axis: slices, flipped slices and constants.
fn padded(x: &Value, axis: usize, places: &[Option<usize>], value: f64) -> Value {
    let axis_ = axis as isize;
    let mut parts: Vec<Value> = Vec::new();
    let mut at = 0;
    while at < places.len() {
        let step = match (places[at], places.get(at + 1).copied().flatten()) {
            (Some(a), Some(b)) if b as i64 - a as i64 == -1 => -1,
            (Some(a), Some(b)) if a == b => 0,
            (Some(_), _) => 1,
            (None, _) => 0,
        };
        let next = |place: Option<usize>| place.map(|place| place as i64 + step);
        let mut end = at + 1;
        while end < places.len() && places[end].map(|place| place as i64) == next(places[end - 1]) {
            end += 1;
        }
        let count = end - at;
        let mut shape = x.shape().to_vec();
        shape[axis] = count;
        parts.push(match (places[at], step) {
            (None, _) => x.graph().full(x.dtype(), shape, value),
            (Some(place), 0) => x.slice(axis_, place, place + 1, 1).broadcast_to(&shape.into()),
            (Some(place), 1) => x.slice(axis_, place, place + count, 1),
            (Some(place), _) => x.slice(axis_, place + 1 - count, place + 1, 1).flip(&[axis_]),
        });
        at = end;
    }
    match &parts[..] {
        [] => x.slice(axis_, 0, 0, 1),
        [only] => only.clone(),
        [first, others @ ..] => first.concat(&others.iter().collect::<Vec<_>>(), axis_),
    }
}
