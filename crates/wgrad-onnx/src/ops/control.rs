//! Branches and loops, which become straight code.

use super::Family;
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, Why};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("If", branch),
    ("Loop", repeat),
    ("OptionalGetElement", element),
    ("OptionalHasElement", has_element),
    ("Scan", scan),
];

/// Iterations of a loop.
const MOST_ITERATIONS: i64 = 10_000;

/// A tensor is the element of an optional value that has one.
fn element(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    Ok(vec![node.input(0)?])
}

/// An input that is left out is an optional value without an element.
fn has_element(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let has = node.optional(0).is_some();
    Ok(vec![Val::constant(Constant::ints(ElemType::Bool, vec![], vec![has.into()]))])
}

/// A known condition decides at import; otherwise both branches are computed, and one is selected.
fn branch(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let condition = node.input(0)?;
    let graphs = [node.subgraph("then_branch")?, node.subgraph("else_branch")?];
    if let Some(known) = condition.known() {
        let is_true = known.to_ints().is_some_and(|values| values.first().is_some_and(|&value| value != 0));
        let chosen = &graphs[usize::from(!is_true)];
        return node.builder.subgraph(chosen, &[])?.ok_or(Why::AfterProblem);
    }
    // A single number decides: build the branch that it chooses.
    let sources = condition.sources().clone();
    if !sources.is_empty() && sources.iter().all(|name| node.builder.input_is_number(name)) {
        return Err(Why::NotKnown { input: 0, sources });
    }
    let [then, other] = graphs.map(|graph| node.builder.subgraph(&graph, &[]));
    let (then, other) = (then?.ok_or(Why::AfterProblem)?, other?.ok_or(Why::AfterProblem)?);
    let condition = node.value(0)?.reshape(&[]);
    let mut outputs = Vec::new();
    for (a, b) in then.iter().zip(&other) {
        if a.shape() != b.shape() || a.ty() != b.ty() {
            return Err(Why::NotKnown { input: 0, sources });
        }
        let (a_value, b_value) = (node.value_of(a)?, node.value_of(b)?);
        let chosen = node.checked(condition.where_(&a_value, &b_value))?;
        outputs.push(node.result(chosen, a.ty()));
    }
    Ok(outputs)
}

/// A loop whose number of iterations is known at import is unrolled.
fn repeat(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let body = node.subgraph("body")?;
    let most = match node.optional(0) {
        Some(_) => node.known_ints(0)?.first().copied().unwrap_or(0),
        None => i64::MAX,
    };
    let truth = |val: &Val, input: usize| -> Result<bool> {
        let known = val.known().ok_or_else(|| Why::NotKnown { input, sources: val.sources().clone() })?;
        Ok(known.to_floats().first().is_some_and(|&value| value != 0.0))
    };
    let mut goes_on = node.optional(1).map_or(Ok(true), |val| truth(&val, 1))?;
    let mut state: Vec<Val> = node.inputs().iter().skip(2).flatten().cloned().collect();
    let count = state.len();
    let mut collected: Vec<Vec<Val>> = vec![Vec::new(); body.output.len().saturating_sub(1 + count)];
    let mut iteration = 0;
    while goes_on && iteration < most {
        if iteration == MOST_ITERATIONS {
            return Err(format!("it has more than {MOST_ITERATIONS} iterations").into());
        }
        let number = |ty: ElemType, value: i64| Val::constant(Constant::ints(ty, vec![], vec![value]));
        let mut inputs = vec![number(ElemType::I64, iteration), number(ElemType::Bool, 1)];
        inputs.extend(state);
        let mut outputs = node.builder.subgraph(&body, &inputs)?.ok_or(Why::AfterProblem)?.into_iter();
        let condition = outputs.next().ok_or("its body has no outputs")?;
        state = outputs.by_ref().take(count).collect();
        collected.iter_mut().zip(outputs).for_each(|(list, val)| list.push(val));
        goes_on = truth(&condition, 1)?;
        iteration += 1;
    }
    for list in collected {
        state.push(stacked(node, &list, 0)?);
    }
    Ok(state)
}

/// Values of equal shape along a new axis.
fn stacked(node: &Node<'_, '_>, list: &[Val], axis: usize) -> Result<Val> {
    let first = list.first().ok_or("a loop without iterations has outputs of unknown shape")?;
    let mut shape: Vec<isize> = first.shape().iter().map(|&size| size as isize).collect();
    shape.insert(axis, 1);
    let slices = list.iter().map(|val| Ok(node.value_of(val)?.reshape(&shape))).collect::<Result<Vec<_>>>()?;
    let joined = match &slices[..] {
        [first, others @ ..] if !others.is_empty() => first.concat(&others.iter().collect::<Vec<_>>(), axis as isize),
        _ => slices[0].clone(),
    };
    Ok(Val::graph(node.checked(joined)?, first.ty()))
}

/// A loop over slices of its inputs, unrolled.
fn scan(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let body = node.subgraph("body")?;
    if node.version() < 9 {
        return Err("before opset 9, it has batches, which are not supported".into());
    }
    let scanned = node.int("num_scan_inputs", 0).max(0) as usize;
    let inputs = node.inputs().iter().flatten().cloned().collect::<Vec<Val>>();
    let count = inputs.len().checked_sub(scanned).ok_or("it has fewer inputs than it scans")?;
    let outputs = body.output.len().saturating_sub(count);
    let list = |node: &mut Node<'_, '_>, name: &'static str, count: usize| {
        let mut list = node.attribute_ints(name).unwrap_or_default();
        list.resize(count, 0);
        list
    };
    let (axes, directions) = (list(node, "scan_input_axes", scanned), list(node, "scan_input_directions", scanned));
    let (to_axes, to_directions) =
        (list(node, "scan_output_axes", outputs), list(node, "scan_output_directions", outputs));
    let mut state = inputs[..count].to_vec();
    let mut sources = Vec::new();
    for (val, &axis) in inputs[count..].iter().zip(&axes) {
        sources.push((val.clone(), node.axis(axis, val.rank())?));
    }
    let steps = sources.first().map_or(0, |(val, axis)| val.shape()[*axis]);
    if sources.iter().any(|(val, axis)| val.shape()[*axis] != steps) {
        return Err("the inputs that it scans have different lengths".into());
    }
    if steps as i64 > MOST_ITERATIONS {
        return Err(format!("it has more than {MOST_ITERATIONS} iterations").into());
    }
    let mut collected: Vec<Vec<Val>> = vec![Vec::new(); outputs];
    for step in 0..steps {
        let mut inputs = state.clone();
        for ((val, axis), direction) in sources.iter().zip(&directions) {
            let at = if *direction == 0 { step } else { steps - 1 - step };
            let mut shape: Vec<isize> = val.shape().iter().map(|&size| size as isize).collect();
            shape.remove(*axis);
            let slice = node.value_of(val)?.slice(*axis as isize, at, at + 1, 1).reshape(&shape);
            inputs.push(Val::graph(node.checked(slice)?, val.ty()));
        }
        let mut results = node.builder.subgraph(&body, &inputs)?.ok_or(Why::AfterProblem)?.into_iter();
        state = results.by_ref().take(count).collect();
        collected.iter_mut().zip(results).for_each(|(list, val)| list.push(val));
    }
    for (mut list, (&axis, &direction)) in collected.into_iter().zip(to_axes.iter().zip(&to_directions)) {
        if direction != 0 {
            list.reverse();
        }
        let rank = list.first().map_or(0, Val::rank) + 1;
        let axis = node.axis(axis, rank)?;
        state.push(stacked(node, &list, axis)?);
    }
    Ok(state)
}
