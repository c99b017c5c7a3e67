//! The CPU reference: evaluates the unfused graph, with floats in f64.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::graph::{NodeKind, Nodes, ValueId};
use crate::{Data, Error, Result, Tensor};

/// Values by id; floats are [`Data::F64`]. Example: [`evaluate`].
pub type Values = HashMap<ValueId, Tensor>;

/// Computes `targets` from `feeds`, which hold the leaves and may hold intermediate values to start
/// from. Values are dropped after their last use; the result holds the targets.
///
/// ```
/// use wgrad::cpu::{Values, evaluate};
/// use wgrad::{DType, Graph, Tensor};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [2]);
/// let y = x.exp();
/// let feeds = Values::from([(x.id(), Tensor::new([2], [0.0, 1.0])?)]);
/// let values = evaluate(&graph.nodes(), &[y.id()], feeds)?;
/// assert_eq!(values[&y.id()].to_f64(), [1.0, std::f64::consts::E]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If a leaf is missing from `feeds`, or an index is out of range.
pub fn evaluate(nodes: &Nodes, targets: &[ValueId], feeds: Values) -> Result<Values> {
    evaluate_with(nodes, targets, feeds, |computed| computed)
}

/// [`evaluate`], with `each` applied to every computed tensor.
pub(crate) fn evaluate_with(
    nodes: &Nodes,
    targets: &[ValueId],
    feeds: Values,
    each: impl Fn(Tensor) -> Tensor,
) -> Result<Values> {
    let (mut uses, needed) = count_uses(nodes, targets, &feeds);
    let mut values = feeds;
    for target in targets {
        *uses.entry(*target).or_insert(0) += 1; // never dropped
    }
    for number in needed {
        let node = &nodes.nodes[number];
        let ids: Vec<ValueId> = (0..node.outputs.len()).map(|output| ValueId { node: number, output }).collect();
        let computed = match &node.kind {
            NodeKind::Constant(tensor) => vec![tensor.to_reference()],
            NodeKind::Op(op) => {
                let inputs: Vec<&Tensor> = node.inputs.iter().filter_map(|id| values.get(id)).collect();
                if inputs.len() != node.inputs.len() {
                    return Err(Error::Input(format!("internal: {} lacks an input", node.name())));
                }
                check_indices(nodes, number, &inputs)?;
                op.reference(&inputs, &node.outputs)
            }
            _ => return Err(Error::Input(format!("internal: {} {number} is not fed", node.name()))),
        };
        for (id, tensor) in ids.into_iter().zip(computed) {
            debug_assert_eq!(tensor.dtype(), nodes.ty(id).dtype.wide(), "{}", node.name());
            debug_assert_eq!(*tensor.shape(), nodes.ty(id).shape, "{}", node.name());
            if uses.contains_key(&id) {
                values.entry(id).or_insert_with(|| each(tensor));
            }
        }
        for input in &node.inputs {
            if let Some(left) = uses.get_mut(input) {
                *left -= 1;
                if *left == 0 {
                    values.remove(input);
                }
            }
        }
    }
    let targets: HashSet<&ValueId> = targets.iter().collect();
    values.retain(|id, _| targets.contains(id));
    Ok(values)
}

/// The nodes needed to compute `targets` from `feeds`, in order, and how often they read each value.
fn count_uses(nodes: &Nodes, targets: &[ValueId], feeds: &Values) -> (HashMap<ValueId, usize>, BTreeSet<usize>) {
    let mut uses = HashMap::new();
    let mut visited = BTreeSet::new();
    let mut open: Vec<ValueId> = targets.to_vec();
    for target in targets {
        uses.insert(*target, 0);
    }
    while let Some(id) = open.pop() {
        if feeds.contains_key(&id) || !visited.insert(id.node) {
            continue;
        }
        for input in &nodes.nodes[id.node].inputs {
            *uses.entry(*input).or_insert(0) += 1;
            open.push(*input);
        }
    }
    (uses, visited)
}

/// Rejects out-of-range indices, whether fed or computed.
pub(crate) fn check_indices(nodes: &Nodes, number: usize, inputs: &[&Tensor]) -> Result<()> {
    let node = &nodes.nodes[number];
    let NodeKind::Op(op) = &node.kind else { return Ok(()) };
    let types: Vec<_> = node.inputs.iter().map(|&id| nodes.ty(id)).collect();
    for (i, tensor) in inputs.iter().enumerate() {
        if let Some(bound) = op.index_bound(i, &types) {
            index_in_range(tensor, bound)
                .map_err(|why| Error::Input(format!("{} (built at {}): {why}", op.name(), node.location)))?;
        }
    }
    Ok(())
}

/// Checks that every element of an integer tensor is in `0..bound`.
pub(crate) fn index_in_range(tensor: &Tensor, bound: usize) -> std::result::Result<(), String> {
    let bad = match tensor.data() {
        Data::I32(v) => v.iter().position(|&x| x < 0 || x as usize >= bound).map(|at| (at, i64::from(v[at]))),
        Data::U32(v) => v.iter().position(|&x| x as usize >= bound).map(|at| (at, i64::from(v[at]))),
        Data::I8(_) | Data::U8(_) => return index_in_range(&tensor.to_reference(), bound),
        _ => None,
    };
    match bad {
        Some((at, value)) => {
            let index = tensor.shape().unravel(at);
            Err(format!("index {value} at {index:?} is out of range: expected 0 to {}", bound as i64 - 1))
        }
        None => Ok(()),
    }
}
