//! Finds where a step's first NaN or infinity originates.

use std::collections::HashSet;
use std::fmt;

use super::exchanged::Runner;
use crate::cpu::{self, Values};
use crate::gpu::block_on;
use crate::graph::{NodeKind, Nodes, Scalar, ValueId};
use crate::op::Lowering;
use crate::plan::{KernelCall, Stored};
use crate::{DType, Data, Program, Result, Session, Tensor};

/// The range of a tensor's values. Example: [`NonFinite`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Range {
    /// The smallest and the largest finite value, if any.
    pub finite: Option<(f64, f64)>,
    /// Number of NaN elements.
    pub nan: usize,
    /// Number of infinite elements.
    pub infinite: usize,
    /// Number of elements.
    pub elements: usize,
}

impl Range {
    /// The range of a tensor. With `single`, values are rounded to f32 first, so that large ones become
    /// infinite.
    fn of(tensor: &Tensor, single: bool) -> Range {
        let values = tensor.to_f64().into_iter().map(|x| if single { f64::from(x as f32) } else { x });
        let mut range = Range { finite: None, nan: 0, infinite: 0, elements: tensor.numel() };
        for x in values {
            if x.is_nan() {
                range.nan += 1;
            } else if x.is_infinite() {
                range.infinite += 1;
            } else {
                let (low, high) = range.finite.unwrap_or((x, x));
                range.finite = Some((low.min(x), high.max(x)));
            }
        }
        range
    }

    /// Whether there is neither NaN nor infinity.
    pub fn is_finite(&self) -> bool {
        self.nan == 0 && self.infinite == 0
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.finite {
            Some((low, high)) => write!(f, "{low:e} to {high:e}")?,
            None => f.write_str("no finite value")?,
        }
        write!(f, ", {} NaN and {} infinite of {}", self.nan, self.infinite, self.elements)
    }
}

/// The first node of a step whose output holds NaN or infinity.
///
/// ```
/// use wgrad::{DType, Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, [2]).log().sum_all();
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let (_outputs, found) = session.find_nan(&program, &[("x", &Tensor::new([2], [1.0f32, -1.0])?)])?;
/// let found = found.expect("the logarithm of -1");
/// assert!(found.node.starts_with("log f32[2]") && found.output.nan == 1);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NonFinite {
    /// Its op, type and the user's line; for an input or a variable also its name.
    pub node: String,
    /// The values of its output.
    pub output: Range,
    /// Its inputs, described in the same way, and their values.
    pub inputs: Vec<(String, Range)>,
    /// On a GPU: the launch that computed it.
    pub launch: Option<String>,
    /// On a GPU: whether the reference finds it too. If not, the device computes wrong results;
    /// [`Session::run_checked`] gives details.
    pub confirmed: bool,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "first NaN or infinity: {}\n  output: {}", self.node, self.output)?;
        for (input, range) in &self.inputs {
            write!(f, "\n  input {input}: {range}")?;
        }
        if let Some(launch) = &self.launch {
            write!(f, "\n  launch: {launch}")?;
        }
        if !self.confirmed {
            f.write_str("\n  the reference finds none here: the device gives wrong results; check the step")?;
        }
        Ok(())
    }
}

fn describe(nodes: &Nodes, id: ValueId) -> String {
    let node = &nodes.nodes[id.node];
    let name = match &node.kind {
        NodeKind::Input(name) | NodeKind::Variable(name) | NodeKind::Scalar(Scalar::Fed { name, .. }) => {
            format!(" `{name}`")
        }
        _ => String::new(),
    };
    format!("{}{name} {} (built at {})", node.name(), nodes.ty(id), node.location)
}

fn floats(tensor: &Tensor) -> bool {
    matches!(tensor.data(), Data::F32(_) | Data::F64(_))
}

/// The finding for a value, unless it is finite.
fn finding(nodes: &Nodes, id: ValueId, values: &Values, single: bool) -> Option<NonFinite> {
    let value = values.get(&id).filter(|tensor| floats(tensor))?;
    let output = Range::of(value, single);
    if output.is_finite() {
        return None;
    }
    let inputs = nodes.nodes[id.node].inputs.iter();
    let inputs = inputs.filter_map(|input| Some((describe(nodes, *input), Range::of(values.get(input)?, single))));
    Some(NonFinite { node: describe(nodes, id), output, inputs: inputs.collect(), launch: None, confirmed: true })
}

/// The values between the leaves and the program's outputs and assignments, in graph order. Constants are left
/// out: an infinity in a constant is intended.
fn reachable(nodes: &Nodes, program: &Program) -> Vec<ValueId> {
    let assigned = nodes.assignments.iter().map(|a| a.value);
    let mut open: Vec<ValueId> = program.targets().iter().copied().chain(assigned).collect();
    let mut seen = vec![false; nodes.nodes.len()];
    while let Some(id) = open.pop() {
        if !std::mem::replace(&mut seen[id.node], true) {
            open.extend(&nodes.nodes[id.node].inputs);
        }
    }
    let nodes = nodes.nodes.iter().enumerate().filter(|(number, _)| seen[*number]);
    let nodes = nodes.filter(|(_, node)| !matches!(node.kind, NodeKind::Constant(_)));
    nodes.flat_map(|(node, n)| (0..n.outputs.len()).map(move |output| ValueId { node, output })).collect()
}

/// The first node inside a launch whose output is not finite. The reference recomputes the nodes from the
/// launch's inputs and rounds each output as the device does: a fused launch stores only its last values, and
/// later ops may hide a NaN or an infinity (a maximum, `1 / x`).
fn inside(nodes: &Nodes, call: &KernelCall, feeds: &Values) -> Result<Option<NonFinite>> {
    let computed = call.computed(nodes);
    let mut wanted = computed.clone();
    wanted.extend(computed.iter().flat_map(|id| &nodes.nodes[id.node].inputs));
    let values = cpu::evaluate_with(nodes, &wanted, feeds.clone(), rounded)?;
    let found = computed.iter().find_map(|&id| finding(nodes, id, &values, true));
    Ok(found.map(|found| NonFinite { launch: Some(call.label.clone()), ..found }))
}

/// Rounds floats to f32.
fn rounded(tensor: Tensor) -> Tensor {
    match tensor.data() {
        Data::F64(v) => Tensor::of(tensor.shape(), v.iter().map(|&x| f64::from(x as f32)).collect::<Vec<f64>>()),
        _ => tensor,
    }
}

/// Whether a launch computes floats that it does not store.
fn keeps(nodes: &Nodes, call: &KernelCall) -> bool {
    let stored: HashSet<ValueId> = call.writes.iter().map(|stored| stored.value).collect();
    let moves = |id: &ValueId| match &nodes.nodes[id.node].kind {
        NodeKind::Op(op) => matches!(op.lowering(), Lowering::View(_)) || op.fill_value().is_some(),
        _ => true,
    };
    let mut computed = call.computed(nodes).into_iter();
    computed.any(|id| !stored.contains(&id) && nodes.ty(id).dtype == DType::F32 && !moves(&id))
}

/// The finding for a launch's output that is not finite although the reference's is.
fn unconfirmed(nodes: &Nodes, call: &KernelCall, read: &Values, (stored, written): (&Stored, &Tensor)) -> NonFinite {
    let inputs = call.reads.iter().map(|stored| stored.value);
    let inputs = inputs.filter_map(|id| Some((describe(nodes, id), Range::of(read.get(&id)?, true))));
    NonFinite {
        node: describe(nodes, stored.value),
        output: Range::of(written, true),
        inputs: inputs.collect(),
        launch: Some(call.label.clone()),
        confirmed: false,
    }
}

impl Session {
    /// Runs a step as [`Session::run`] does, and finds the first node whose output holds NaN or infinity:
    /// launch by launch on a GPU, node by node on the reference. Inputs, variables and scalars count as
    /// nodes, constants do not. Returns the step's outputs and the finding.
    ///
    /// Values that a fused launch does not store are recomputed on the reference from the launch's inputs.
    /// This takes as long as [`Session::run_checked`].
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn find_nan(
        &mut self,
        program: &Program,
        feeds: &[(&str, &Tensor)],
    ) -> Result<(Vec<Tensor>, Option<NonFinite>)> {
        block_on(self.find_nan_async(program, feeds))
    }

    /// [`Session::find_nan`] for use with an async executor.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn find_nan_async(
        &mut self,
        program: &Program,
        feeds: &[(&str, &Tensor)],
    ) -> Result<(Vec<Tensor>, Option<NonFinite>)> {
        if let Some((nodes, leaves)) = self.leaves(program, feeds)? {
            let wanted = reachable(nodes, program);
            let values = cpu::evaluate(nodes, &wanted, leaves)?;
            let found = wanted.iter().find_map(|&id| finding(nodes, id, &values, false));
            return Ok((self.run_async(program, feeds).await?, found));
        }
        let (gpu, scalars) = self.start_check(program, feeds)?;
        let plan = program.plan();
        let mut found = None;
        let reached: HashSet<ValueId> = reachable(&plan.nodes, program).into_iter().collect();
        let inputs = plan.inputs.iter().filter_map(|input| input.stored.as_ref());
        let stored = inputs.chain(plan.variables.iter().map(|(_, stored)| stored));
        let mut leaves: Values = scalars.iter().cloned().collect();
        for stored in stored.filter(|stored| reached.contains(&stored.value)) {
            if found.is_none() {
                leaves.insert(stored.value, gpu.read(stored).await?);
                found = finding(&plan.nodes, stored.value, &leaves, true);
            }
        }
        found = found.or_else(|| scalars.iter().find_map(|(id, _)| finding(&plan.nodes, *id, &leaves, true)));
        let mut runner = Runner::new(self, gpu, plan);
        for (number, call) in plan.calls.iter().enumerate() {
            runner.prepare(number)?;
            if found.is_some() {
                runner.run(number).await?;
                continue;
            }
            let mut before: Values = scalars.iter().cloned().collect();
            for stored in &call.reads {
                before.insert(stored.value, gpu.read(stored).await?.to_reference());
            }
            let exchanged = runner.run(number).await?.is_some();
            let mut bad = None;
            for stored in call.writes.iter().filter(|stored| stored.ty.dtype == DType::F32) {
                let written = gpu.read(stored).await?;
                if !Range::of(&written, true).is_finite() {
                    bad = Some((stored, written));
                    break;
                }
            }
            if !exchanged && (bad.is_some() || keeps(&plan.nodes, call)) {
                found = inside(&plan.nodes, call, &before)?;
            }
            if let (None, Some((stored, written))) = (&found, bad) {
                found = Some(unconfirmed(&plan.nodes, call, &before, (stored, &written)));
            }
        }
        Ok((self.finish_check(program, gpu).await?, found))
    }
}
