//! A model as a list of layers, with its parameters, arithmetic and memory.
//!
//! Nodes do not know which layer made them; the parameters that they read tell. A row begins at each op that reads the
//! parameters of another layer, and at each op that is neither a view nor elementwise. Ops that only continue one row,
//! such as an activation, join it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use super::{Graph, Node, NodeKind, Nodes, ValueId};
use crate::autodiff::gradients_of;
use crate::op::Lowering;
use crate::{Error, Result, TensorType, Value};

/// Parts in parts count up to this depth.
pub(super) const DEEPEST: usize = 16;

/// The layers from the inputs of a graph to some outputs. `Display` is a table; [`Summary::to_dot`] and
/// [`Summary::to_mermaid`] are pictures.
///
/// ```
/// use wgrad::nn::Scope;
/// use wgrad::{DType, Graph, models};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [1, 1, 28, 28]);
/// let logits = models::mnist_cnn(&Scope::train(&graph, 0), &x);
/// let summary = graph.summary(&[&logits])?;
/// println!("{summary}");
/// assert_eq!(summary.parameters(), 225_034);
/// let conv1 = summary.rows.iter().find(|row| row.layer == "conv1").unwrap();
/// assert_eq!((conv1.parameters, conv1.multiply_adds), (320, 32 * 26 * 26 * 9));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The inputs and layers; each reads only rows before it.
    pub rows: Vec<SummaryRow>,
}

/// A row of a [`Summary`]: an input, or ops that belong together, such as a convolution, its bias and a ReLU.
/// Example: [`Summary`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SummaryRow {
    /// The name of the layer: that of its parameters without the last part (`layer1.0.conv1`). For an input, its name.
    /// Empty if it has no parameters.
    pub layer: String,
    /// The names of its ops, each once, without views and conversions.
    pub ops: Vec<&'static str>,
    /// The type of its last value that is read outside of it.
    pub output: TensorType,
    /// Numbers that an optimiser trains, each counted in the first row that reads it.
    pub parameters: usize,
    /// Numbers in other variables: frozen parameters and running statistics.
    pub other_variables: usize,
    /// Bytes of all its variables.
    pub variable_bytes: usize,
    /// Multiply-adds of matrix products, convolutions, attention and recurrences, forward only.
    pub multiply_adds: u64,
    /// Bytes of its values that the gradients of the parameters read, so that training keeps them until the backward
    /// pass. Fused kernels may recompute some of them.
    pub kept_bytes: usize,
    /// The earlier rows that it reads, and the types of the values; each once.
    pub inputs: Vec<(usize, TensorType)>,
    /// The part of the model in which it is drawn: `layer1.0` for `layer1.0.conv1`.
    pub part: String,
}

impl Graph {
    /// The layers that `outputs` depend on, as in the summaries of Keras and torchinfo.
    ///
    /// # Errors
    /// [`Error::Graph`] with every mistake made while the graph was built; [`Error::Input`] if an output belongs to
    /// another graph.
    pub fn summary(&self, outputs: &[&Value]) -> Result<Summary> {
        let nodes = self.nodes();
        if !nodes.errors.is_empty() {
            return Err(Error::Graph(nodes.errors));
        }
        let targets = self.outputs(outputs)?;
        let mut rows = Rows::new(&nodes, &targets);
        rows.assign();
        Ok(rows.finish())
    }
}

impl Summary {
    /// Numbers that an optimiser trains.
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(|row| row.parameters).sum()
    }

    /// Multiply-adds of a forward pass.
    pub fn multiply_adds(&self) -> u64 {
        self.rows.iter().map(|row| row.multiply_adds).sum()
    }

    /// Bytes of activations that training keeps until the backward pass; see [`SummaryRow::kept_bytes`].
    pub fn kept_bytes(&self) -> usize {
        self.rows.iter().map(|row| row.kept_bytes).sum()
    }
}

/// The rows under construction.
struct Rows<'a> {
    nodes: &'a Nodes,
    targets: &'a [ValueId],
    /// For each node, the nodes that read it, of those that the targets depend on; `None` if they do not.
    users: Vec<Option<Vec<usize>>>,
    /// For each node that depends on no input, so that it belongs to what reads it: the layer of its variables, if they
    /// have the same.
    prepared: Vec<Option<Owner>>,
    /// For each node, its row.
    row_of: Vec<Option<usize>>,
    rows: Vec<SummaryRow>,
    /// For each row, the first node.
    first: Vec<usize>,
    /// The nodes of trainable variables.
    trained: BTreeSet<usize>,
    /// Nodes before the rows that have been counted.
    counted: BTreeSet<usize>,
}

/// What is known of a prepared value's layer.
#[derive(Clone, Debug, PartialEq)]
enum Owner {
    /// No variables.
    None,
    /// Variables of several layers.
    Several,
    /// The layer with this name.
    Layer(String),
    /// A variable with this name, which has no parts.
    Variable(String),
}

impl Owner {
    /// The owner of a variable: its name up to the last part, or to `weight` or `bias`, which may be followed by parts
    /// that belong to the variable (`fc.weight.scale`).
    fn of(variable: &str) -> Owner {
        let parts: Vec<&str> = variable.split('.').collect();
        let known = parts.iter().position(|part| ["weight", "bias"].contains(part));
        match known.unwrap_or(parts.len() - 1) {
            0 => Owner::Variable(variable.to_owned()),
            end => Owner::Layer(parts[..end].join(".")),
        }
    }
}

fn is_view(node: &Node) -> bool {
    node.op().is_some_and(|op| matches!(op.lowering(), Lowering::View(_)))
}

/// Whether the node only changes the type of its input.
fn converts(node: &Node) -> bool {
    ["cast", "widen"].contains(&node.name())
}

fn is_pointwise(node: &Node) -> bool {
    node.op().is_some_and(|op| matches!(op.lowering(), Lowering::Pointwise(_)))
}

impl<'a> Rows<'a> {
    fn new(nodes: &'a Nodes, targets: &'a [ValueId]) -> Rows<'a> {
        let count = nodes.nodes.len();
        let mut users: Vec<Option<Vec<usize>>> = vec![None; count];
        for target in targets {
            users[target.node].get_or_insert_default();
        }
        for node in (0..count).rev().filter(|node| nodes.nodes[*node].op().is_some()) {
            if users[node].is_some() {
                for input in &nodes.nodes[node].inputs {
                    users[input.node].get_or_insert_default().push(node);
                }
            }
        }
        let mut rows = Rows {
            nodes,
            targets,
            users,
            prepared: vec![None; count],
            row_of: vec![None; count],
            rows: Vec::new(),
            first: Vec::new(),
            trained: nodes.variables.iter().filter(|variable| variable.trainable).map(|v| v.node).collect(),
            counted: BTreeSet::new(),
        };
        for node in 0..count {
            rows.prepared[node] = rows.owner(node);
        }
        rows
    }

    fn node(&self, node: usize) -> &'a Node {
        &self.nodes.nodes[node]
    }

    /// See [`Rows::prepared`].
    fn owner(&self, node: usize) -> Option<Owner> {
        match &self.node(node).kind {
            NodeKind::Input(_) => None,
            NodeKind::Variable(name) => Some(Owner::of(name)),
            NodeKind::Scalar(_) | NodeKind::Constant(_) => Some(Owner::None),
            NodeKind::Op(_) if self.targets.iter().any(|target| target.node == node) => None,
            NodeKind::Op(_) => {
                let inputs = &self.node(node).inputs;
                let owners = inputs.iter().map(|id| self.prepared[id.node].as_ref()).collect::<Option<Vec<_>>>()?;
                let mut known = owners.into_iter().filter(|owner| **owner != Owner::None);
                let first = known.next().cloned().unwrap_or(Owner::None);
                Some(if known.all(|owner| *owner == first) { first } else { Owner::Several })
            }
        }
    }

    /// The layer whose parameters the op reads itself.
    fn layer_read(&self, node: usize) -> Option<String> {
        let owners = self.node(node).inputs.iter().filter_map(|id| self.prepared[id.node].as_ref());
        let mut layers = owners.filter_map(|owner| match owner {
            Owner::Layer(layer) => Some(layer.clone()),
            Owner::Variable(name) if !is_pointwise(self.node(node)) => Some(name.clone()),
            _ => None,
        });
        layers.next()
    }

    /// The layer that the op belongs to: a norm reads its scale only after it has normalised, in an op of the same call.
    fn layer(&self, node: usize) -> Option<String> {
        let own = self.layer_read(node);
        if own.is_some() || is_view(self.node(node)) || is_pointwise(self.node(node)) {
            return own;
        }
        let location = self.node(node).location;
        let mut open = self.users[node].clone().unwrap_or_default();
        while let Some(user) = open.pop() {
            match self.node(user) {
                next if is_view(next) => open.extend(self.users[user].iter().flatten()),
                next if is_pointwise(next) && next.location == location => {
                    if let Some(layer) = self.layer_read(user) {
                        return Some(layer);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn assign(&mut self) {
        for node in 0..self.nodes.nodes.len() {
            if self.users[node].is_some() && self.prepared[node].is_none() {
                self.place(node);
            }
        }
    }

    /// Adds a node to a row.
    fn place(&mut self, number: usize) {
        let node = self.node(number);
        let read: BTreeSet<usize> = node.inputs.iter().filter_map(|id| self.row_of[id.node]).collect();
        let layer = self.layer(number);
        let only = match read.iter().copied().collect::<Vec<_>>()[..] {
            [row] if is_view(node) || self.node(self.first[row]).op().is_some() => Some(row),
            _ => None,
        };
        let joined = only.filter(|&row| match &layer {
            Some(layer) => *layer == self.rows[row].layer,
            None => is_view(node) || is_pointwise(node) || node.location == self.node(self.first[row]).location,
        });
        let row = joined.unwrap_or_else(|| {
            let name = match &node.kind {
                NodeKind::Input(name) => name.clone(),
                _ => layer.unwrap_or_default(),
            };
            self.rows.push(SummaryRow {
                layer: name,
                ops: Vec::new(),
                output: node.outputs[0].clone(),
                parameters: 0,
                other_variables: 0,
                variable_bytes: 0,
                multiply_adds: 0,
                kept_bytes: 0,
                inputs: Vec::new(),
                part: String::new(),
            });
            self.first.push(number);
            self.rows.len() - 1
        });
        self.row_of[number] = Some(row);
        for &id in &node.inputs {
            match self.row_of[id.node] {
                Some(from) if from == row => {}
                Some(from) => {
                    let edge = (from, self.nodes.ty(self.shown(id)).clone());
                    if !self.rows[row].inputs.contains(&edge) {
                        self.rows[row].inputs.push(edge);
                    }
                }
                None => self.count(id.node, row),
            }
        }
        self.add(number, row);
        let (ops, name) = (&mut self.rows[row].ops, node_name(node));
        if !(is_view(node) || converts(node) || ops.contains(&name)) {
            ops.push(name);
        }
    }

    /// Sets the type of each row's last value that another row reads, or a target.
    fn set_outputs(&mut self) {
        let mut read: BTreeSet<ValueId> = self.targets.iter().copied().collect();
        for (number, node) in self.nodes.nodes.iter().enumerate().filter(|(number, _)| self.row_of[*number].is_some()) {
            read.extend(node.inputs.iter().filter(|id| self.row_of[id.node] != self.row_of[number]));
        }
        for id in read {
            if let Some(row) = self.row_of[id.node] {
                self.rows[row].output = self.nodes.ty(self.shown(id)).clone();
            }
        }
    }

    /// Counts what a row reads that depends on no input: variables, and functions of them.
    fn count(&mut self, node: usize, row: usize) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if !self.counted.insert(node) {
                continue;
            }
            open.extend(self.node(node).inputs.iter().map(|id| id.node));
            self.add(node, row);
            let ty = &self.node(node).outputs[0];
            if let NodeKind::Variable(_) = self.node(node).kind {
                let trained = self.trained.contains(&node);
                let row = &mut self.rows[row];
                *(if trained { &mut row.parameters } else { &mut row.other_variables }) += ty.shape.numel();
                row.variable_bytes += ty.bytes();
            }
        }
    }

    /// Counts variables that a step updates and no output reads, in the row of their layer: running statistics in
    /// training. The state of optimisers, whose names extend a parameter's, is not part of the model.
    fn count_updated(&mut self) {
        let variables = || self.nodes.variables.iter();
        let is_state = |name: &str| {
            let extends = |parameter: &str| name.strip_prefix(parameter).is_some_and(|rest| rest.starts_with('.'));
            variables().any(|other| other.trainable && extends(&other.name))
        };
        let of_layers: Vec<(usize, String)> = variables()
            .filter(|variable| !variable.trainable && !is_state(&variable.name))
            .filter(|variable| self.node(variable.node).outputs[0].dtype.is_float()) // not the counts of batches
            .filter_map(|variable| match Owner::of(&variable.name) {
                Owner::Layer(layer) => Some((variable.node, layer)),
                _ => None,
            })
            .collect();
        for (node, layer) in of_layers {
            if let Some(row) = self.rows.iter().position(|row| row.layer == layer) {
                self.count(node, row);
            }
        }
    }

    /// Adds the arithmetic of a node to a row.
    fn add(&mut self, node: usize, row: usize) {
        let node = self.node(node);
        if let Some(op) = node.op() {
            let inputs: Vec<&TensorType> = node.inputs.iter().map(|&id| self.nodes.ty(id)).collect();
            self.rows[row].multiply_adds += op.multiply_adds(&inputs, &node.outputs);
        }
    }

    fn finish(mut self) -> Summary {
        for (id, bytes) in self.kept() {
            if let Some(row) = self.row_of[id.node] {
                self.rows[row].kept_bytes += bytes;
            }
        }
        self.count_updated();
        self.set_outputs();
        let parts = self.parts();
        for (row, part) in self.rows.iter_mut().zip(parts) {
            row.part = part;
        }
        Summary { rows: self.rows }
    }

    /// For each row, the part of the model that it is in. Ops without parameters are in the smallest part that
    /// a row that they read has in common with another neighbour.
    fn parts(&self) -> Vec<String> {
        let layers = self.rows.iter().filter(|row| !row.is_input()).map(|row| row.layer.as_str());
        let with_parts: BTreeSet<&str> =
            layers.flat_map(|layer| layer.match_indices('.').take(DEEPEST).map(|(dot, _)| &layer[..dot])).collect();
        let own = |row: &SummaryRow| match row.layer.rsplit_once('.') {
            _ if row.is_input() => String::new(),
            _ if with_parts.contains(row.layer.as_str()) => row.layer.clone(),
            Some((part, _)) => part.to_owned(),
            None => String::new(),
        };
        // Those that it reads come first.
        let mut neighbours: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.inputs.iter().map(|(from, _)| own(&self.rows[*from])).collect()).collect();
        for row in &self.rows {
            row.inputs.iter().for_each(|(from, _)| neighbours[*from].push(own(row)));
        }
        let of = |(row, neighbours): (&SummaryRow, Vec<String>)| {
            if !row.layer.is_empty() {
                return own(row);
            }
            let pairs = (0..row.inputs.len()).flat_map(|i| (i + 1..neighbours.len()).map(move |j| (i, j)));
            let common = pairs.map(|(i, j)| common_part(&neighbours[i], &neighbours[j]));
            common.max_by_key(|part| part.len()).unwrap_or_default().to_owned()
        };
        self.rows.iter().zip(neighbours).map(of).collect()
    }

    /// The computed values that the gradients of the parameters read, and their bytes.
    fn kept(&self) -> BTreeMap<ValueId, usize> {
        let graph = Graph(Arc::new(Mutex::new(self.nodes.clone())));
        let before = self.nodes.nodes.len();
        let float = |id: &ValueId| self.nodes.ty(*id).dtype.is_float();
        let outputs: Vec<Value> = self.targets.iter().filter(|id| float(id)).map(|&id| graph.value_of(id)).collect();
        let trained = self.trained.iter().map(|&node| ValueId { node, output: 0 });
        let trained: Vec<Value> = trained.filter(float).map(|id| graph.value_of(id)).collect();
        if outputs.is_empty() || trained.is_empty() {
            return BTreeMap::new();
        }
        let seeds: Vec<Value> = outputs.iter().map(Value::ones_like).collect();
        let found = gradients_of(&outputs.iter().zip(&seeds).collect::<Vec<_>>(), &trained.iter().collect::<Vec<_>>());
        let nodes = graph.nodes();
        let mut live = vec![false; nodes.nodes.len()];
        found.iter().filter(|value| value.is_valid()).for_each(|value| live[value.id.node] = true);
        let mut kept = BTreeMap::new();
        for node in (before..live.len()).rev().filter(|node| nodes.nodes[*node].op().is_some()) {
            if !live[node] {
                continue;
            }
            for &id in &nodes.nodes[node].inputs {
                live[id.node] = true;
                let stored = if id.node < before { self.stored(id) } else { continue };
                if self.row_of[stored.node].is_some() && self.node(stored.node).op().is_some() {
                    kept.insert(stored, self.nodes.ty(stored).bytes());
                }
            }
        }
        kept
    }

    /// The value in the shape that it has between layers: matrix products and norms merge axes of what they read. A
    /// `flatten` that the model calls itself is shown.
    fn shown(&self, id: ValueId) -> ValueId {
        let node = self.node(id.node);
        let mut neighbours = self.users[id.node].iter().flatten().chain(node.inputs.first().map(|id| &id.node));
        let inside = neighbours.any(|&other| self.node(other).location == node.location);
        let before = node.inputs.first().filter(|before| self.row_of[before.node].is_some());
        match before {
            Some(&before) if node.name() == "reshape" && inside => before,
            _ => id,
        }
    }

    /// The value behind views and widened types, which kernels read in place.
    fn stored(&self, mut id: ValueId) -> ValueId {
        while is_view(self.node(id.node)) || self.node(id.node).name() == "widen" {
            id = self.node(id.node).inputs[0];
        }
        id
    }
}

fn node_name(node: &Node) -> &'static str {
    node.op().map_or("input", |op| op.name())
}

/// Whether `name` is `part` or in it.
fn is_within(name: &str, part: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The longest part that both are in.
fn common_part<'b>(a: &'b str, b: &str) -> &'b str {
    let ends = a.match_indices('.').map(|(dot, _)| dot).chain([a.len()]).take(DEEPEST);
    ends.filter(|&end| is_within(b, &a[..end])).last().map_or("", |end| &a[..end])
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TITLES: [&str; 7] = ["layer", "ops", "output", "parameters", "other", "multiply-adds", "kept"];
        let unless_0 = |number: u64, text: String| if number == 0 { String::new() } else { text };
        let cells = |row: &SummaryRow| {
            [
                row.layer.clone(),
                row.ops_text(),
                row.output.to_string(),
                unless_0(row.parameters as u64, grouped(row.parameters)),
                unless_0(row.other_variables as u64, grouped(row.other_variables)),
                unless_0(row.multiply_adds, scaled(row.multiply_adds as f64)),
                unless_0(row.kept_bytes as u64, bytes(row.kept_bytes)),
            ]
        };
        let lines: Vec<[String; 7]> =
            [TITLES.map(str::to_owned)].into_iter().chain(self.rows.iter().map(cells)).collect();
        let widths: [usize; 7] =
            std::array::from_fn(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0));
        for line in &lines {
            let cell = |i: usize| match i {
                0..3 => format!("{:<1$}", line[i], widths[i]),
                _ => format!("{:>1$}", line[i], widths[i]),
            };
            writeln!(f, "{}", (0..7).map(cell).collect::<Vec<_>>().join("  ").trim_end())?;
        }
        let other: usize = self.rows.iter().map(|row| row.other_variables).sum();
        let size: usize = self.rows.iter().map(|row| row.variable_bytes).sum();
        writeln!(
            f,
            "{} parameters, {} other numbers (frozen or running statistics), {} in all",
            grouped(self.parameters()),
            grouped(other),
            bytes(size)
        )?;
        write!(
            f,
            "{} multiply-adds forward; training keeps {} of activations",
            scaled(self.multiply_adds() as f64),
            bytes(self.kept_bytes())
        )
    }
}

impl SummaryRow {
    /// Whether it is an input of the graph.
    pub fn is_input(&self) -> bool {
        self.ops == ["input"]
    }

    /// The first ops.
    pub(super) fn ops_text(&self) -> String {
        const MOST: usize = 4;
        let more = if self.ops.len() > MOST { ", ..." } else { "" };
        let ops = if self.ops.is_empty() { "view".to_owned() } else { self.ops[..self.ops.len().min(MOST)].join(", ") };
        ops + more
    }
}

/// A number with commas: `11,689,512`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let comma = |at: usize| at > 0 && (digits.len() - at).is_multiple_of(3);
    digits.char_indices().flat_map(|(at, digit)| comma(at).then_some(',').into_iter().chain([digit])).collect()
}

/// A number in thousands, millions, ...: `1.81 G`.
fn scaled(number: f64) -> String {
    match number {
        n if n < 1e4 => format!("{n}"),
        n if n < 1e6 => format!("{:.1} k", n / 1e3),
        n if n < 1e9 => format!("{:.2} M", n / 1e6),
        n if n < 1e12 => format!("{:.2} G", n / 1e9),
        n => format!("{:.2} T", n / 1e12),
    }
}

fn bytes(number: usize) -> String {
    match number as f64 {
        n if n < 1024.0 => format!("{n} B"),
        n if n < 1048576.0 => format!("{:.1} KiB", n / 1024.0),
        n if n < 1073741824.0 => format!("{:.1} MiB", n / 1048576.0),
        n => format!("{:.2} GiB", n / 1073741824.0),
    }
}
