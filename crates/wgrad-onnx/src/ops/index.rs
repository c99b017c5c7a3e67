//! Operators that look up, search, sort or scatter elements.

use wgrad::{DType, Shape, Tensor, Value};

use super::Family;
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("ArgMax", arg_extreme),
    ("ArgMin", arg_extreme),
    ("Compress", compress),
    ("CumProd", cumulative),
    ("CumSum", cumulative),
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("Hardmax", hardmax),
    ("NonZero", non_zero),
    ("OneHot", one_hot),
    ("ReverseSequence", reverse_sequence),
    ("Scatter", scatter_elements),
    ("ScatterElements", scatter_elements),
    ("ScatterND", scatter_nd),
    ("TensorScatter", tensor_scatter),
    ("TopK", top_k),
    ("Unique", unique),
];

/// Indices from -size to size - 1 as those from 0.
pub(super) fn from_zero(index: &Value, size: usize) -> Value {
    let index = if index.dtype() == DType::I32 { index.clone() } else { index.cast(DType::I32) };
    index.lt(&index.zeros_like()).where_(&(&index + size as f64), &index)
}

/// A list of indices in the graph.
fn list(node: &Node<'_, '_>, places: Vec<i32>) -> Result<Value> {
    let tensor = Tensor::new([places.len()], places).map_err(|error| error.to_string())?;
    Ok(node.graph().constant(tensor))
}

fn gather(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, index) = (node.input(0)?, node.input(1)?);
    let axis = node.int("axis", 0);
    let axis = node.axis(axis, x.rank())?;
    let size = x.shape()[axis];
    let value = node.value(0)?;
    let shape = [&x.shape()[..axis], index.shape(), &x.shape()[axis + 1..]].concat();
    let y = match index.known().and_then(|known| known.to_ints()).as_deref() {
        // One known place is a slice.
        Some([place]) => {
            let at =
                node.axis(*place, size).map_err(|_| format!("index {place} is out of range for {size} elements"))?;
            value.slice(axis as isize, at, at + 1, 1).reshape(&signed(&shape))
        }
        Some(places) => {
            if let Some(wrong) = places.iter().find(|&&place| place < -(size as i64) || place >= size as i64) {
                return Err(format!("index {wrong} is out of range for {size} elements").into());
            }
            let places = places.iter().map(|&p| (if p < 0 { p + size as i64 } else { p }) as i32).collect();
            value.index_select(axis as isize, &list(node, places)?).reshape(&signed(&shape))
        }
        None => {
            let index = from_zero(&node.value(1)?, size).reshape(&[-1]);
            value.index_select(axis as isize, &index).reshape(&signed(&shape))
        }
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, x.ty())])
}

fn gather_elements(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let axis = node.int("axis", 0);
    let axis = node.axis(axis, x.shape().rank())?;
    let index = from_zero(&node.value(1)?, x.shape()[axis]);
    let y = node.checked(x.gather(axis as isize, &index))?;
    Ok(vec![node.result(y, ty)])
}

/// Positions in a tensor whose first `depth` axes after `batch` axes are joined, from index vectors.
fn positions(node: &Node<'_, '_>, index: &Value, shape: &[usize], batch: usize) -> Result<Value> {
    let depth = index.dim(-1);
    if batch + depth > shape.len() {
        return Err(format!("indices of {depth} numbers do not fit the shape {shape:?}").into());
    }
    let strides = Shape::from(&shape[batch..batch + depth]).strides();
    let mut sum: Option<Value> = None;
    for at in 0..depth {
        let part = from_zero(&index.slice(-1, at, at + 1, 1), shape[batch + at]) * strides[at] as f64;
        sum = Some(sum.map_or(part.clone(), |sum| sum + part));
    }
    let mut sum = sum.ok_or("its indices are empty")?;
    // The batch axes count, too.
    let within: usize = shape[batch..batch + depth].iter().product();
    let strides = Shape::from(&shape[..batch]).strides();
    for axis in 0..batch {
        let mut along = vec![1; sum.shape().rank()];
        along[axis] = shape[axis];
        sum = sum + node.graph().iota(DType::I32, along, axis as isize) * (strides[axis] * within) as f64;
    }
    Ok(sum.reshape(&[-1]))
}

fn gather_nd(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, index, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let batch = node.int("batch_dims", 0).max(0) as usize;
    let shape = x.shape().to_vec();
    if batch >= index.shape().rank() {
        return Err(format!("batch_dims = {batch} does not fit indices {}", index.ty()).into());
    }
    let places = positions(node, &index, &shape, batch)?;
    let taken = batch + index.dim(-1);
    let lines = [&[shape[..taken].iter().product::<usize>()], &shape[taken..]].concat();
    let result = [&index.shape()[..index.shape().rank() - 1], &shape[taken..]].concat();
    let y = x.reshape(&signed(&lines)).index_select(0, &places).reshape(&signed(&result));
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// Elements of the product of targets and updates that a scatter with a reduction may compare.
const MOST_PAIRS: usize = 1 << 26;

/// `x` with `updates` at `index` along an axis, as the operators scatter. Without a reduction, no place may occur twice.
fn scattered(x: &Value, axis: usize, index: &Value, updates: &Value, reduction: &str) -> Result<Value> {
    let along = axis as isize;
    match reduction {
        "none" => {
            let zero = x.graph().full(DType::I32, x.shape(), 0.0);
            let ones = index.graph().full(DType::I32, index.shape(), 1.0);
            let count = zero.scatter_add(along, index, &ones);
            let wide = updates.dtype() == DType::Bool;
            let updates = if wide { updates.cast(DType::I32) } else { updates.clone() };
            let base = x.graph().full(updates.dtype(), x.shape(), 0.0);
            let sum = base.scatter_add(along, index, &updates);
            let sum = if wide { sum.cast(DType::Bool) } else { sum.cast(x.dtype()) };
            Ok(count.gt(&count.zeros_like()).where_(&sum, x))
        }
        "add" => Ok(x.scatter_add(along, index, updates)),
        "mul" | "max" | "min" => {
            // Each target compares its place with all updates of its line.
            let same = index.shape().rank() == x.shape().rank()
                && (0..x.shape().rank()).all(|at| at == axis || x.shape()[at] == index.shape()[at]);
            if !same {
                return Err("with a reduction, its indices must have the sizes of the data on other axes".into());
            }
            let (targets, sources) = (x.shape()[axis], index.shape()[axis]);
            if x.shape().numel().saturating_mul(sources) > MOST_PAIRS {
                return Err(format!(
                    "{targets} places and {sources} updates are too many for the reduction {reduction}"
                )
                .into());
            }
            let wide = |value: &Value, at: usize| {
                let mut shape = value.shape().to_vec();
                shape.insert(at, 1);
                value.reshape(&signed(&shape))
            };
            let mut places = vec![1; x.shape().rank() + 1];
            places[axis] = targets;
            let place = x.graph().iota(DType::I32, places, along);
            let hit = wide(index, axis).eq(&place);
            let neutral = match (reduction, x.dtype().is_float()) {
                ("mul", _) => 1.0,
                ("max", true) => f64::NEG_INFINITY,
                ("min", true) => f64::INFINITY,
                ("max", _) => f64::from(i32::MIN),
                _ => f64::from(i32::MAX),
            };
            let values = wide(updates, axis);
            let values = if values.dtype().is_float() { values } else { values.cast(DType::I32) };
            let chosen = hit.where_(&values, &values.full_like(neutral));
            let over = [along + 1];
            Ok(match reduction {
                "mul" => x * chosen.prod(&over, false),
                "max" => x.maximum(&chosen.max(&over, false).cast(x.dtype())),
                _ => x.minimum(&chosen.min(&over, false).cast(x.dtype())),
            })
        }
        other => Err(format!("the reduction `{other}` is unknown").into()),
    }
}

fn scatter_elements(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, updates, ty) = (node.value(0)?, node.value(2)?, node.input(0)?.ty());
    let axis = node.int("axis", 0);
    let axis = node.axis(axis, x.shape().rank())?;
    let index = from_zero(&node.value(1)?, x.shape()[axis]);
    let reduction = node.text("reduction", "none");
    let y = node.checked(scattered(&x, axis, &index, &updates, &reduction)?)?;
    Ok(vec![node.result(y, ty)])
}

fn scatter_nd(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, index, updates, ty) = (node.value(0)?, node.value(1)?, node.value(2)?, node.input(0)?.ty());
    let shape = x.shape().to_vec();
    let taken = index.dim(-1);
    let places = positions(node, &index, &shape, 0)?;
    let (count, inner) = (places.dim(0), shape[taken..].iter().product::<usize>());
    let lines = x.reshape(&signed(&[shape[..taken].iter().product::<usize>(), inner]));
    let places = places.reshape(&[-1, 1]).broadcast_to(&[count, inner].into());
    let updates = updates.reshape(&signed(&[count, inner]));
    let reduction = node.text("reduction", "none");
    let y = scattered(&lines, 0, &places, &updates, &reduction)?;
    let y = node.checked(y.reshape(&signed(&shape)))?;
    Ok(vec![node.result(y, ty)])
}

/// Writes a block into a cache, from a place that differs by batch.
fn tensor_scatter(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, update, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let axis = node.int("axis", -2);
    let axis = node.axis(axis, x.shape().rank())?;
    let circular = match node.text("mode", "linear").as_str() {
        "linear" => false,
        "circular" => true,
        other => return Err(format!("the mode `{other}` is unknown").into()),
    };
    let rank = x.shape().rank();
    let mut along = vec![1; rank];
    along[axis] = update.dim(axis as isize);
    let mut place = node.graph().iota(DType::I32, along, axis as isize);
    if let Some(start) = node.optional_value(2)? {
        let mut by_batch = vec![1isize; rank];
        by_batch[0] = -1;
        place = place + start.cast(DType::I32).reshape(&by_batch);
    }
    if circular {
        place = place.remainder(&place.full_like(x.shape()[axis] as f64));
    }
    let index = place.broadcast_to(update.shape());
    let y = node.checked(scattered(&x, axis, &index, &update, "none")?)?;
    Ok(vec![node.result(y, ty)])
}

fn arg_extreme(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, largest) = (node.value(0)?, node.op() == "ArgMax");
    let (axis, keeps) = (node.int("axis", 0), node.flag("keepdims", true));
    let axis = node.axis(axis, x.shape().rank())? as isize;
    let last = node.flag("select_last_index", false);
    let find = |x: &Value| if largest { x.argmax(axis, keeps) } else { x.argmin(axis, keeps) };
    let y = match last {
        false => find(&x),
        true => -find(&x.flip(&[axis])) + (x.shape()[axis as usize] as f64 - 1.0),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ElemType::I64)])
}

fn top_k(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let k = match node.attribute("k").and_then(|attribute| attribute.i) {
        Some(k) => k,
        None => *node.known_ints(1)?.first().ok_or("its k is empty")?,
    };
    let (axis, largest) = (node.int("axis", -1), node.flag("largest", true));
    node.attribute("sorted");
    let axis = node.axis(axis, x.shape().rank())?;
    let k = usize::try_from(k).ok().filter(|&k| k <= x.shape()[axis]);
    let k = k.ok_or_else(|| format!("k does not fit {} elements", x.shape()[axis]))?;
    let (values, places) = x.topk(k, axis as isize, largest);
    let (values, places) = (node.checked(values)?, node.checked(places)?);
    Ok(vec![node.result(values, ty), node.result(places, ElemType::I64)])
}

/// Sums or products of the elements up to each.
fn cumulative(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let axis = *node.known_ints(1)?.first().ok_or("its axis is empty")?;
    let axis = node.axis(axis, x.shape().rank())?;
    let along = axis as isize;
    let (exclusive, reverse) = (node.flag("exclusive", false), node.flag("reverse", false));
    let is_sum = node.op() == "CumSum";
    let size = x.shape()[axis];
    let x = if reverse { x.flip(&[along]) } else { x };
    let x = match exclusive && size > 0 {
        true => {
            let mut shape = x.shape().to_vec();
            shape[axis] = 1;
            let first = x.graph().full(x.dtype(), shape, if is_sum { 0.0 } else { 1.0 });
            first.concat(&[&x.slice(along, 0, size - 1, 1)], along)
        }
        false => x,
    };
    let y = if is_sum { x.cumsum(along) } else { products(&x, axis) };
    let y = if reverse { y.flip(&[along]) } else { y };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// Products of the elements up to each, by doubling distances (Hillis and Steele, 1986).
fn products(x: &Value, axis: usize) -> Value {
    let (along, size) = (axis as isize, x.shape()[axis]);
    let mut y = x.clone();
    let mut distance = 1;
    while distance < size {
        let (head, tail) = (y.slice(along, 0, distance, 1), y.slice(along, distance, size, 1));
        y = head.concat(&[&(tail * y.slice(along, 0, size - distance, 1)).cast(x.dtype())], along);
        distance *= 2;
    }
    y
}

/// 1 at the first largest element along an axis, 0 elsewhere.
fn hardmax(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, old) = (node.value(0)?, node.input(0)?.ty(), node.version() < 13);
    let rank = x.shape().rank();
    let axis = node.int("axis", if old { 1 } else { -1 });
    let axis = node.axis(axis, rank)?;
    let shape = x.shape().to_vec();
    let flat = match old {
        true => x.reshape(&signed(&[shape[..axis].iter().product::<usize>(), shape[axis..].iter().product()])),
        false => x.clone(),
    };
    let axis = if old { 1 } else { axis };
    let mut along = vec![1; flat.shape().rank()];
    along[axis] = flat.shape()[axis];
    let place = node.graph().iota(DType::I32, along, axis as isize);
    let hit = flat.argmax(axis as isize, true).eq(&place);
    let y = hit.where_(&flat.ones_like(), &flat.zeros_like()).reshape(&signed(&shape));
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn one_hot(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (index, ty) = (node.value(0)?, node.input(2)?.ty());
    let depth = node.optional_number(1)?.unwrap_or(0.0);
    if !(0.0..=1e7).contains(&depth) {
        return Err(format!("a depth of {depth} is not supported").into());
    }
    let depth = depth as usize;
    let axis = node.int("axis", -1);
    let axis = node.axis(axis, index.shape().rank() + 1)?;
    let index = if index.dtype() == DType::I32 { index } else { index.cast(DType::I32) };
    let index = from_zero(&index, depth);
    let mut shape = index.shape().to_vec();
    shape.insert(axis, 1);
    let mut along = vec![1; shape.len()];
    along[axis] = depth;
    let hit = index.reshape(&signed(&shape)).eq(&node.graph().iota(DType::I32, along, axis as isize));
    let values = node.value(2)?;
    let number = |at: usize| values.slice(0, at, at + 1, 1).reshape(&vec![1; shape.len()]);
    let y = node.checked(hit.where_(&number(1), &number(0)))?;
    Ok(vec![node.result(y, ty)])
}

/// The first elements of each sequence in reverse order.
fn reverse_sequence(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, lengths, ty) = (node.value(0)?, node.value(1)?.cast(DType::I32), node.input(0)?.ty());
    let rank = x.shape().rank();
    let (batch, time) = (node.int("batch_axis", 1), node.int("time_axis", 0));
    let (batch, time) = (node.axis(batch, rank)?, node.axis(time, rank)?);
    let shape_along = |axis: usize, size: isize| {
        let mut shape = vec![1isize; rank];
        shape[axis] = size;
        shape
    };
    let mut along = vec![1; rank];
    along[time] = x.shape()[time];
    let place = node.graph().iota(DType::I32, along, time as isize);
    let lengths = lengths.reshape(&shape_along(batch, -1));
    let index = place.lt(&lengths).where_(&(&lengths - &place - 1.0), &place).broadcast_to(x.shape());
    let y = node.checked(x.gather(time as isize, &index))?;
    Ok(vec![node.result(y, ty)])
}

/// The places where a known condition is true.
fn compress(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, condition) = (node.value(0)?, node.input(0)?.ty(), node.known_ints(1)?);
    let axis = node.attribute("axis").and_then(|attribute| attribute.i);
    let (x, axis) = match axis {
        Some(axis) => (x.clone(), node.axis(axis, x.shape().rank())?),
        None => (x.reshape(&[-1]), 0),
    };
    let size = x.shape()[axis];
    let places = condition.iter().take(size).enumerate().filter(|(_, value)| **value != 0).map(|(at, _)| at as i32);
    let y = x.index_select(axis as isize, &list(node, places.collect())?);
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// The places of known numbers that are not 0.
fn non_zero(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.known(0)?;
    let shape = Shape::from(x.shape());
    let values = x.to_floats();
    let found: Vec<Vec<usize>> =
        (0..values.len()).filter(|&at| values[at] != 0.0).map(|at| shape.unravel(at)).collect();
    let ints = (0..shape.rank()).flat_map(|axis| found.iter().map(move |place| place[axis] as i64)).collect();
    Ok(vec![Val::constant(Constant::ints(ElemType::I64, vec![shape.rank(), found.len()], ints))])
}

/// The different slices of a known tensor: sorted or as they come, with their first places and counts.
fn unique(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.known(0)?;
    let sorted = node.flag("sorted", true);
    let axis = node.attribute("axis").and_then(|attribute| attribute.i);
    let (shape, axis) = match axis {
        Some(axis) => (x.shape().to_vec(), node.axis(axis, x.shape().len())?),
        None => (vec![x.numel()], 0),
    };
    let values = x.to_floats();
    let (size, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let outer = shape[..axis].iter().product::<usize>();
    let slice = |at: usize| -> Vec<f64> {
        (0..outer)
            .flat_map(|o| (0..inner).map(move |i| (o, i)))
            .map(|(o, i)| values[(o * size + at) * inner + i])
            .collect()
    };
    let order = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne());
    // First place and slice, by slice.
    let mut found: Vec<(usize, Vec<f64>)> = Vec::new();
    let mut of = Vec::new();
    for at in 0..size {
        let own = slice(at);
        let known = found.iter().position(|(_, other)| *other == own);
        of.push(known.unwrap_or(found.len()));
        if known.is_none() {
            found.push((at, own));
        }
    }
    let mut rank: Vec<usize> = (0..found.len()).collect();
    if sorted {
        rank.sort_by(|&a, &b| order(&found[a].1, &found[b].1).unwrap_or(std::cmp::Ordering::Equal));
    }
    let mut place = vec![0; rank.len()];
    rank.iter().enumerate().for_each(|(at, &number)| place[number] = at);
    let mut result = shape.clone();
    result[axis] = rank.len();
    let at = |to: usize| {
        let (o, rest) = (to / (rank.len() * inner), to % (rank.len() * inner));
        found[rank[rest / inner]].1[o * inner + rest % inner]
    };
    let unique = (0..result.iter().product()).map(at).collect();
    let ints = |values: Vec<i64>| Val::constant(Constant::ints(ElemType::I64, vec![values.len()], values));
    let counts = rank.iter().map(|&number| of.iter().filter(|&&other| other == number).count() as i64).collect();
    Ok(vec![
        Val::constant(Constant::floats(x.ty, result, unique)),
        ints(rank.iter().map(|&number| found[number].0 as i64).collect()),
        ints(of.iter().map(|&number| place[number] as i64).collect()),
        ints(counts),
    ])
}
