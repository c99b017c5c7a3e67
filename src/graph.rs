//! The typed graph: nodes that hold ops, values that name a node's outputs.
//!
//! Shapes are inferred as nodes are pushed. A mistake does not stop the chain: it is remembered
//! with the caller's line, the result is an invalid value, and compiling reports all mistakes.

use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::op::Op;
use crate::{DType, Mistake, Shape, Tensor, TensorType};

/// Which output of which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    /// The node's number.
    pub node: usize,
    /// The output's number.
    pub output: usize,
}

const INVALID: ValueId = ValueId { node: usize::MAX, output: 0 };

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// Fed at each run, by name.
    Input(String),
    /// Lives in the session, by name.
    Variable(String),
    /// A number made on the host for each step, rounded once.
    Scalar(Scalar),
    /// Known when the graph is built.
    Constant(Arc<Tensor>),
    /// An operation.
    Op(Arc<dyn Op>),
}

/// Where a step's scalar comes from.
#[derive(Clone)]
pub enum Scalar {
    /// Fed by name; the default where it is not fed.
    Fed {
        /// The name to feed.
        name: String,
        /// Its value where it is not fed.
        default: f64,
    },
    /// A function of a counter: the number of earlier runs of programs that use the counter.
    Counted {
        /// The counter's name.
        counter: String,
        /// From the count, starting at 0, to the scalar.
        function: Arc<dyn Fn(u64) -> f64 + Send + Sync>,
    },
}

impl std::fmt::Debug for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Fed { name, .. } => write!(f, "fed {name}"),
            Scalar::Counted { counter, .. } => write!(f, "counted {counter}"),
        }
    }
}

/// A node: what it is, what it reads, the types it yields, the user's line that made it.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// What it reads.
    pub inputs: Vec<ValueId>,
    /// Types of its outputs.
    pub outputs: Vec<TensorType>,
    /// The line of user code that made it, or that made the node whose gradient it serves.
    pub location: &'static Location<'static>,
}

impl Node {
    /// The op's name, or what kind of leaf it is.
    pub fn name(&self) -> &str {
        match &self.kind {
            NodeKind::Input(_) => "input",
            NodeKind::Variable(_) => "variable",
            NodeKind::Scalar(_) => "scalar",
            NodeKind::Constant(_) => "constant",
            NodeKind::Op(op) => op.name(),
        }
    }
}

/// A variable's declaration in a graph.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its value where the session does not know it yet.
    pub initial: Arc<Tensor>,
    /// Whether an optimiser should train it.
    pub trainable: bool,
    /// Its node.
    pub node: usize,
}

/// An assignment: at the step's end the variable takes the value.
#[derive(Clone, Copy, Debug)]
pub struct Assignment {
    /// The variable's node.
    pub variable: usize,
    /// Its new value.
    pub value: ValueId,
    /// The user's line.
    pub location: &'static Location<'static>,
}

/// The graph's content, as the planner and the reference read it.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// In the order in which they were pushed: inputs before users.
    pub nodes: Vec<Node>,
    /// The variables.
    pub variables: Vec<Declared>,
    /// The assignments.
    pub assignments: Vec<Assignment>,
    /// What went wrong so far.
    pub mistakes: Vec<Mistake>,
    /// While gradients are built: the forward node's line.
    origin: Option<&'static Location<'static>>,
}

impl Nodes {
    /// A value's type.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.nodes[id.node].outputs[id.output]
    }
}

/// A graph under construction. Cloning it gives another handle to the same graph.
///
/// ```
/// use wgrad::{Device, DType, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [2, 2]);
/// let y = (&x * 3.0 + 1.0).sum_all();
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let outputs = session.run(&program, &[("x", &Tensor::new([2, 2], [1.0f32, 2.0, 3.0, 4.0])?)])?;
/// assert_eq!(outputs[0].item()?, 34.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Graph(Arc<Mutex<Nodes>>);

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({} nodes)", self.lock().nodes.len())
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Graph::default()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the graph's content.
    pub fn nodes(&self) -> Nodes {
        self.lock().clone()
    }

    /// The mistakes made so far.
    pub fn mistakes(&self) -> Vec<Mistake> {
        self.lock().mistakes.clone()
    }

    /// Whether two handles name one graph.
    pub fn same(&self, other: &Graph) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn value(&self, id: ValueId, ty: TensorType) -> Value {
        Value { graph: self.clone(), id, ty }
    }

    fn invalid(&self) -> Value {
        self.value(INVALID, TensorType::new(DType::F32, Shape::scalar()))
    }

    /// Remembers a mistake; the result is an invalid value that passes silently through later ops.
    #[track_caller]
    pub(crate) fn mistake(&self, op: &str, inputs: &[&Value], message: impl Into<String>) -> Value {
        self.mistake_at(Location::caller(), op, inputs, message)
    }

    /// The same for closures, which do not know their caller's line.
    pub(crate) fn mistake_at(
        &self,
        location: &'static Location<'static>,
        op: &str,
        inputs: &[&Value],
        message: impl Into<String>,
    ) -> Value {
        let mut nodes = self.lock();
        let location = nodes.origin.unwrap_or(location);
        nodes.mistakes.push(Mistake {
            op: op.to_owned(),
            inputs: inputs.iter().map(|v| v.ty.clone()).collect(),
            message: message.into(),
            location,
        });
        drop(nodes);
        self.invalid()
    }

    fn push(&self, node: Node) -> usize {
        let mut nodes = self.lock();
        let location = nodes.origin.unwrap_or(node.location);
        nodes.nodes.push(Node { location, ..node });
        nodes.nodes.len() - 1
    }

    #[track_caller]
    fn leaf(&self, kind: NodeKind, ty: TensorType) -> Value {
        let location = Location::caller();
        let node = self.push(Node { kind, inputs: Vec::new(), outputs: vec![ty.clone()], location });
        self.value(ValueId { node, output: 0 }, ty)
    }

    /// A value fed by name at each run.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Value {
        let taken = self.lock().nodes.iter().any(|n| matches!(&n.kind, NodeKind::Input(old) if old == name));
        if taken {
            return self.mistake("input", &[], format!("there is an input `{name}` already; names are unique"));
        }
        let ty = TensorType::new(dtype, shape);
        if let Err(message) = check_size(&ty) {
            return self.mistake("input", &[], message);
        }
        self.leaf(NodeKind::Input(name.to_owned()), ty)
    }

    /// A trainable variable: lives in the session under its name, shared by all its programs.
    /// The session keeps the value it has; `initial` is for its first appearance.
    #[track_caller]
    pub fn parameter(&self, name: &str, initial: impl Into<Arc<Tensor>>) -> Value {
        self.declare(name, initial.into(), true)
    }

    /// A variable that no optimiser trains: optimiser state, running statistics.
    #[track_caller]
    pub fn variable(&self, name: &str, initial: impl Into<Arc<Tensor>>) -> Value {
        self.declare(name, initial.into(), false)
    }

    #[track_caller]
    fn declare(&self, name: &str, initial: Arc<Tensor>, trainable: bool) -> Value {
        let ty = initial.ty();
        let known = self.lock().variables.iter().any(|v| v.name == name);
        if known {
            return self.mistake("variable", &[], format!("there is a variable `{name}` already; names are unique"));
        }
        if let Err(message) = check_size(&ty) {
            return self.mistake("variable", &[], message);
        }
        let value = self.leaf(NodeKind::Variable(name.to_owned()), ty);
        let node = value.id.node;
        self.lock().variables.push(Declared { name: name.to_owned(), initial, trainable, node });
        value
    }

    /// The parameters declared so far, with their names, in order.
    pub fn parameters(&self) -> Vec<(String, Value)> {
        let nodes = self.lock();
        nodes
            .variables
            .iter()
            .filter(|v| v.trainable)
            .map(|v| {
                let id = ValueId { node: v.node, output: 0 };
                (v.name.clone(), self.value(id, nodes.ty(id).clone()))
            })
            .collect()
    }

    /// A value known now. For one number everywhere see [`Graph::full`].
    #[track_caller]
    pub fn constant(&self, tensor: impl Into<Arc<Tensor>>) -> Value {
        let tensor = tensor.into();
        let ty = tensor.ty();
        if let Err(message) = check_size(&ty) {
            return self.mistake("constant", &[], message);
        }
        self.leaf(NodeKind::Constant(tensor), ty)
    }

    /// A float scalar `[]` fed by name for each step (`lr`), without recompiling; `default` where
    /// it is not fed.
    #[track_caller]
    pub fn scalar(&self, name: &str, default: f64) -> Value {
        let scalar = Scalar::Fed { name: name.to_owned(), default };
        self.leaf(NodeKind::Scalar(scalar), TensorType::new(DType::F32, Shape::scalar()))
    }

    /// A scalar `[]` computed on the host, in f64, from a counter: the number of earlier runs, in
    /// this session, of programs that use the counter (bias corrections, schedules, seeds).
    /// `dtype` is F32 or U32.
    #[track_caller]
    pub fn counted(&self, counter: &str, dtype: DType, function: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Value {
        if !matches!(dtype, DType::F32 | DType::U32) {
            return self.mistake("counted", &[], format!("a counted scalar is f32 or u32, not {dtype}"));
        }
        let scalar = Scalar::Counted { counter: counter.to_owned(), function: Arc::new(function) };
        self.leaf(NodeKind::Scalar(scalar), TensorType::new(dtype, Shape::scalar()))
    }

    /// At the end of the step the variable takes the value; until then everybody reads the old one.
    #[track_caller]
    pub fn assign(&self, variable: &Value, value: &Value) {
        let location = Location::caller();
        if !variable.is_valid() || !value.is_valid() {
            return;
        }
        let complain = |message: &str| {
            self.mistake_at(location, "assign", &[variable, value], message);
        };
        if !self.same(&variable.graph) || !self.same(&value.graph) {
            return complain("variable and value must belong to this graph");
        }
        let mut nodes = self.lock();
        let is_variable = matches!(nodes.nodes[variable.id.node].kind, NodeKind::Variable(_));
        let twice = nodes.assignments.iter().any(|a| a.variable == variable.id.node);
        if is_variable && !twice && variable.ty == value.ty {
            nodes.assignments.push(Assignment { variable: variable.id.node, value: value.id, location });
            return;
        }
        drop(nodes);
        if !is_variable {
            complain("only a parameter or variable can be assigned to");
        } else if twice {
            complain("the variable is assigned twice in one step; combine the two into one value");
        } else {
            complain("the new value must have the variable's type");
        }
    }

    /// Pushes an op. All inputs must be of this graph.
    #[track_caller]
    pub fn apply(&self, op: impl Op, inputs: &[&Value]) -> Vec<Value> {
        let location = Location::caller();
        if inputs.iter().any(|v| !v.is_valid()) {
            // The mistake behind it is known; give as many invalid values as there might be outputs.
            return vec![self.invalid(); 4];
        }
        if inputs.iter().any(|v| !self.same(&v.graph)) {
            let why = "the inputs belong to different graphs; build the whole expression in one";
            return vec![self.mistake(op.name(), inputs, why); 4];
        }
        let types: Vec<&TensorType> = inputs.iter().map(|v| &v.ty).collect();
        let inferred = op.infer(&types).and_then(|outputs| {
            outputs.iter().try_for_each(check_size)?;
            Ok(outputs)
        });
        match inferred {
            Ok(outputs) => {
                let ids = inputs.iter().map(|v| v.id).collect();
                let node = Node { kind: NodeKind::Op(Arc::new(op)), inputs: ids, outputs: outputs.clone(), location };
                let node = self.push(node);
                let values = outputs.into_iter().enumerate();
                values.map(|(output, ty)| self.value(ValueId { node, output }, ty)).collect()
            }
            Err(message) => vec![self.mistake(op.name(), inputs, message); 4],
        }
    }

    /// Pushes an op of one output.
    #[track_caller]
    pub fn apply1(&self, op: impl Op, inputs: &[&Value]) -> Value {
        let mut values = self.apply(op, inputs);
        values.swap_remove(0)
    }

    /// The value with that id; it must exist.
    pub(crate) fn value_of(&self, id: ValueId) -> Value {
        let ty = self.lock().ty(id).clone();
        self.value(id, ty)
    }

    /// Runs `build` while the nodes it pushes bear the location of node `node`.
    pub(crate) fn on_behalf_of<T>(&self, node: usize, build: impl FnOnce() -> T) -> T {
        let location = self.lock().nodes[node].location;
        self.at(location, build)
    }

    /// Runs `build` while the nodes it pushes, and its mistakes, bear that location.
    pub(crate) fn at<T>(&self, location: &'static Location<'static>, build: impl FnOnce() -> T) -> T {
        let before = {
            let mut nodes = self.lock();
            let before = nodes.origin;
            nodes.origin.get_or_insert(location); // within a gradient: the forward node's line stays
            before
        };
        let result = build();
        self.lock().origin = before;
        result
    }
}

/// Refuses tensors whose element numbers do not fit the kernels' u32 arithmetic.
fn check_size(ty: &TensorType) -> Result<(), String> {
    let elements = ty.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    match elements {
        Some(n) if n < (1 << 31) => Ok(()),
        _ => Err(format!("{ty} has 2^31 elements or more; kernels number elements with 32 bits, split the tensor")),
    }
}

/// A value of the graph: an output of a node, with its type. Cheap to clone.
#[derive(Clone)]
pub struct Value {
    graph: Graph,
    id: ValueId,
    ty: TensorType,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_valid() {
            write!(f, "%{}.{}: {}", self.id.node, self.id.output, self.ty)
        } else {
            write!(f, "invalid")
        }
    }
}

impl Value {
    /// The graph it belongs to.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Which output of which node. Only for valid values.
    pub(crate) fn id(&self) -> ValueId {
        self.id
    }

    /// Whether it came from an op that was accepted.
    pub fn is_valid(&self) -> bool {
        self.id != INVALID
    }

    /// Element type and shape.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    /// The sizes of the axes; `[]` for an invalid value.
    pub fn shape(&self) -> &Shape {
        &self.ty.shape
    }

    /// The size of an axis, which may count from the end (`-1`); 0 where there is no such axis.
    pub fn dim(&self, axis: isize) -> usize {
        self.shape().axis(axis).map_or(0, |axis| self.shape()[axis])
    }

    /// Where an op of that name made this value: what it read.
    pub(crate) fn made_by(&self, op: &str) -> Option<Vec<Value>> {
        let inputs = match self.graph.lock().nodes.get(self.id.node) {
            Some(node) if node.name() == op => node.inputs.clone(),
            _ => return None,
        };
        Some(inputs.into_iter().map(|id| self.graph.value_of(id)).collect())
    }

    /// Pushes an op of one output with this value and others as inputs.
    #[track_caller]
    pub(crate) fn op(&self, op: impl Op, others: &[&Value]) -> Value {
        let inputs: Vec<&Value> = std::iter::once(self).chain(others.iter().copied()).collect();
        self.graph.apply1(op, &inputs)
    }
}
