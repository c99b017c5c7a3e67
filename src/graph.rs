//! The typed graph: nodes hold ops; values refer to the outputs of nodes.
//!
//! Shapes are inferred as nodes are added. A mistake does not interrupt graph building: it is recorded
//! with the caller's line, the result is an invalid value, and compiling reports all errors.

mod draw;
mod narrow;
mod print;
mod shortcut;
mod summary;
mod value;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::op::{Lowering, Op};
use crate::{DType, Error, GraphError, Shape, Tensor, TensorType};

pub(crate) use shortcut::Shortcut;
pub use summary::{Summary, SummaryRow};
pub use value::Value;

/// Identifies an output of a node. Example: [`Nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    /// The node's number.
    pub node: usize,
    /// The output's number.
    pub output: usize,
}

const INVALID: ValueId = ValueId { node: usize::MAX, output: 0 };

/// What a node is. Example: [`Nodes`].
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// An input, fed by name at each run.
    Input(String),
    /// A variable, stored in the session under its name.
    Variable(String),
    /// A scalar that the host computes for each step and rounds once.
    Scalar(Scalar),
    /// A tensor known when the graph is built.
    Constant(Arc<Tensor>),
    /// An operation.
    Op(Arc<dyn Op>),
}

/// The source of a step scalar. Example: [`Graph::scalar`].
#[derive(Clone)]
pub enum Scalar {
    /// Fed by name, or the default if it is not fed.
    Fed {
        /// The name to feed.
        name: String,
        /// Its value if it is not fed.
        default: f64,
    },
    /// A function of a counter: the number of earlier runs of programs that use the counter.
    Counted {
        /// The counter's name.
        counter: String,
        /// Maps the count, which starts at 0, to the scalar.
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

/// A node of the graph. Example: [`Nodes`].
#[derive(Clone, Debug)]
pub struct Node {
    /// A leaf or an op.
    pub kind: NodeKind,
    /// The values it reads.
    pub inputs: Vec<ValueId>,
    /// The types of its outputs.
    pub outputs: Vec<TensorType>,
    /// The line of user code that created it; for gradient nodes, the line of the forward node.
    pub location: &'static Location<'static>,
}

impl Node {
    /// The op's name, or the kind of leaf.
    pub fn name(&self) -> &str {
        match &self.kind {
            NodeKind::Input(_) => "input",
            NodeKind::Variable(_) => "variable",
            NodeKind::Scalar(_) => "scalar",
            NodeKind::Constant(_) => "constant",
            NodeKind::Op(op) => op.name(),
        }
    }

    /// The op, unless it is a leaf.
    pub fn op(&self) -> Option<&dyn Op> {
        match &self.kind {
            NodeKind::Op(op) => Some(&**op),
            _ => None,
        }
    }
}

/// A variable's declaration in a graph. Example: [`Nodes`].
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its initial value, if the session does not have the variable yet.
    pub initial: Arc<Tensor>,
    /// Whether an optimiser should train it.
    pub trainable: bool,
    /// Its node.
    pub node: usize,
}

/// An assignment: at the end of the step, the value is stored in the variable. Example: [`Nodes`].
#[derive(Clone, Copy, Debug)]
pub struct Assignment {
    /// The variable's node.
    pub variable: usize,
    /// Its new value.
    pub value: ValueId,
    /// The line of user code that made it.
    pub location: &'static Location<'static>,
}

/// The graph's content, as the planner and the reference read it.
///
/// ```
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, [2]).exp();
/// let nodes = graph.nodes();
/// assert_eq!((nodes.nodes.len(), nodes.nodes[1].name()), (2, "exp"));
/// assert_eq!(nodes.ty(y.id()).to_string(), "f32[2]");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// The nodes in the order in which they were added, so inputs come before their users.
    pub nodes: Vec<Node>,
    /// The variables.
    pub variables: Vec<Declared>,
    /// The assignments.
    pub assignments: Vec<Assignment>,
    /// The errors recorded so far.
    pub errors: Vec<GraphError>,
    /// The fed names, and whether each feeds an `input` or a `scalar`.
    fed: HashMap<String, &'static str>,
    /// The names of the variables.
    declared: HashSet<String>,
    /// The number of random nodes so far.
    streams: u32,
    /// For the output of an op with narrow operands, the value that was rounded from it.
    rounded: HashMap<ValueId, ValueId>,
    /// Values that were computed in another way than the caller wrote.
    shortcuts: Vec<Shortcut>,
}

thread_local! {
    /// While this thread builds nodes on behalf of others (gradients, for instance): the location to record for them.
    static ORIGIN: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

impl Nodes {
    /// A value's type.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.nodes[id.node].outputs[id.output]
    }

    fn push(&mut self, node: Node) -> usize {
        let location = ORIGIN.get().unwrap_or(node.location);
        self.nodes.push(Node { location, ..node });
        self.nodes.len() - 1
    }

    /// Registers the name of an input or a scalar. Scalars may share a name; inputs may not.
    fn feed(&mut self, name: &str, kind: &'static str) -> Result<(), String> {
        match self.fed.get(name) {
            Some(&taken) if [taken, kind] != ["scalar"; 2] => Err(format!(
                "the name `{name}` is already in use ({taken}); names of inputs and scalars must be unique"
            )),
            _ => {
                self.fed.insert(name.to_owned(), kind);
                Ok(())
            }
        }
    }
}

/// A graph under construction. A clone is another handle to the same graph; several threads may add
/// to it.
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

    /// The errors recorded so far.
    pub fn errors(&self) -> Vec<GraphError> {
        self.lock().errors.clone()
    }

    /// Whether two handles refer to the same graph.
    pub fn same(&self, other: &Graph) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn value(&self, id: ValueId, ty: TensorType) -> Value {
        Value { graph: self.clone(), id, ty }
    }

    fn invalid(&self) -> Value {
        self.value(INVALID, TensorType::new(DType::F32, Shape::scalar()))
    }

    /// Records a mistake. Returns an invalid value, which later ops pass on without further errors.
    #[track_caller]
    pub(crate) fn error(&self, op: &str, inputs: &[&Value], message: impl Into<String>) -> Value {
        self.error_at(Location::caller(), op, inputs, message)
    }

    /// [`Graph::error`] for closures, which cannot use `track_caller`.
    pub(crate) fn error_at(
        &self,
        location: &'static Location<'static>,
        op: &str,
        inputs: &[&Value],
        message: impl Into<String>,
    ) -> Value {
        self.lock().errors.push(GraphError {
            op: op.to_owned(),
            inputs: inputs.iter().map(|v| v.ty.clone()).collect(),
            message: message.into(),
            location: ORIGIN.get().unwrap_or(location),
        });
        self.invalid()
    }

    /// Checks that all values are valid and belong to this graph. If not, returns the invalid value to
    /// use as the result. A value of another graph is recorded as a mistake; the mistake behind an
    /// invalid value has already been recorded.
    #[track_caller]
    pub(crate) fn admit(&self, op: &str, values: &[&Value]) -> Result<(), Value> {
        if let Some(foreign) = values.iter().find(|v| !self.same(&v.graph)) {
            let few = [values[0], foreign];
            let named = if values.len() > 8 { &few } else { values };
            let why = "the values belong to different graphs; build the whole expression in one";
            return Err(self.error(op, named, why));
        }
        if values.iter().all(|v| v.is_valid()) { Ok(()) } else { Err(self.invalid()) }
    }

    /// The ids of a program's outputs, which must be values of this graph.
    ///
    /// # Errors
    /// [`Error::Input`] for the first value that is not.
    pub(crate) fn outputs(&self, outputs: &[&Value]) -> Result<Vec<ValueId>, Error> {
        let id = |(number, value): (usize, &&Value)| match value.is_valid() && self.same(&value.graph) {
            true => Ok(value.id),
            false => Err(Error::Input(format!(
                "output {number}, {value:?}, belongs to another graph; every output must be a value of the graph \
                 being compiled"
            ))),
        };
        outputs.iter().enumerate().map(id).collect()
    }

    /// Adds a leaf unless `declare`, which receives the node's number, rejects it. The graph stays
    /// locked in between.
    #[track_caller]
    fn leaf(
        &self,
        op: &str,
        kind: NodeKind,
        ty: TensorType,
        declare: impl FnOnce(&mut Nodes, usize) -> Result<(), String>,
    ) -> Value {
        let location = Location::caller();
        let mut nodes = self.lock();
        let number = nodes.nodes.len();
        let declared = check_size(&ty).and_then(|()| declare(&mut nodes, number));
        if let Err(message) = declared {
            drop(nodes);
            return self.error_at(location, op, &[], message);
        }
        let node = nodes.push(Node { kind, inputs: Vec::new(), outputs: vec![ty.clone()], location });
        drop(nodes);
        self.value(ValueId { node, output: 0 }, ty)
    }

    /// An input, fed by name at each run. No other input and no [scalar](Graph::scalar) may have its name.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Value {
        let ty = TensorType::new(dtype, shape);
        self.leaf("input", NodeKind::Input(name.to_owned()), ty, |nodes, _| nodes.feed(name, "input"))
    }

    /// A trainable variable, stored in the session under its name and shared by all programs of the session.
    /// `initial` is used only if the session does not have the variable yet.
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
        let (ty, kind) = (initial.ty(), NodeKind::Variable(name.to_owned()));
        self.leaf("variable", kind, ty, |nodes, node| {
            if !nodes.declared.insert(name.to_owned()) {
                return Err(format!(
                    "a variable named `{name}` already exists; give each layer its own name (Scope::part adds a \
                     prefix) and each parameter one optimiser. To share a layer, build it once and call it twice"
                ));
            }
            nodes.variables.push(Declared { name: name.to_owned(), initial, trainable, node });
            Ok(())
        })
    }

    /// The names and values of the parameters declared so far, in order.
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

    /// A constant tensor. To fill a tensor with one number, see [`Graph::full`].
    #[track_caller]
    pub fn constant(&self, tensor: impl Into<Arc<Tensor>>) -> Value {
        let tensor = tensor.into();
        let ty = tensor.ty();
        self.leaf("constant", NodeKind::Constant(tensor), ty, |_, _| Ok(()))
    }

    /// A float scalar `[]` that can be fed by name at each step (`lr`, for instance) without recompiling;
    /// `default` if it is not fed.
    ///
    /// Several scalars may share a name: a fed value goes to all of them; otherwise each has its own
    /// default. No [input](Graph::input) may have the same name.
    ///
    /// ```
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let y = graph.input("x", DType::F32, [2]) * graph.scalar("scale", 3.0);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&y])?;
    /// let x = Tensor::new([2], [1.0f32, 2.0])?;
    /// assert_eq!(session.run(&program, &[("x", &x)])?[0].to_f32(), [3.0, 6.0]);
    /// let half = Tensor::scalar(0.5);
    /// assert_eq!(session.run(&program, &[("x", &x), ("scale", &half)])?[0].to_f32(), [0.5, 1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn scalar(&self, name: &str, default: f64) -> Value {
        let kind = NodeKind::Scalar(Scalar::Fed { name: name.to_owned(), default });
        let ty = TensorType::new(DType::F32, Shape::scalar());
        self.leaf("scalar", kind, ty, |nodes, _| nodes.feed(name, "scalar"))
    }

    /// A scalar `[]` that the host computes in f64 from a counter: the number of earlier runs, in
    /// this session, of programs that use the counter (for bias correction, schedules, seeds).
    /// `dtype` is F32 or U32.
    #[track_caller]
    pub fn step_scalar(
        &self,
        counter: &str,
        dtype: DType,
        function: impl Fn(u64) -> f64 + Send + Sync + 'static,
    ) -> Value {
        let kind = NodeKind::Scalar(Scalar::Counted { counter: counter.to_owned(), function: Arc::new(function) });
        self.leaf("counted", kind, TensorType::new(dtype, Shape::scalar()), |_, _| match dtype {
            DType::F32 | DType::U32 => Ok(()),
            _ => Err(format!("a step scalar is f32 or u32, not {dtype}")),
        })
    }

    /// A new random stream number, unique within the graph.
    pub(crate) fn next_stream(&self) -> u32 {
        let mut nodes = self.lock();
        nodes.streams += 1;
        nodes.streams - 1
    }

    /// Assigns the value to the variable at the end of the step; until then, all readers see the old value.
    #[track_caller]
    pub fn assign(&self, variable: &Value, value: &Value) {
        let location = Location::caller();
        if self.admit("assign", &[variable, value]).is_err() {
            return;
        }
        let complain = |message: &str| {
            self.error_at(location, "assign", &[variable, value], message);
        };
        let mut nodes = self.lock();
        let name = match &nodes.nodes[variable.id.node].kind {
            NodeKind::Variable(name) => Some(name.clone()),
            _ => None,
        };
        let is_variable = name.is_some();
        let twice = nodes.assignments.iter().any(|a| a.variable == variable.id.node);
        if is_variable && !twice && variable.ty == value.ty {
            nodes.assignments.push(Assignment { variable: variable.id.node, value: value.id, location });
            return;
        }
        drop(nodes);
        if !is_variable {
            complain("only a parameter or variable can be assigned to; declare it with Graph::variable");
        } else if twice {
            complain(&format!(
                "variable `{}` is assigned twice in one step; combine the two into one value, or, if it is the running \
                 statistic of a norm, use the norm once",
                name.unwrap_or_default()
            ));
        } else {
            complain("the new value must have the variable's type and shape; cast() or reshape() it");
        }
    }

    /// The number of assignments so far.
    pub(crate) fn assignments(&self) -> usize {
        self.lock().assignments.len()
    }

    /// Makes the assignments from number `first` on conditional: where `condition`, a bool `[]`, is false, the variable
    /// keeps its value.
    pub(crate) fn assign_if(&self, condition: &Value, first: usize) {
        let assignments = self.lock().assignments[first..].to_vec();
        for (number, assignment) in (first..).zip(assignments) {
            self.at(assignment.location, || {
                let old = self.value_of(ValueId { node: assignment.variable, output: 0 });
                let new = condition.where_(&self.value_of(assignment.value), &old).cast(old.dtype());
                self.lock().assignments[number].value = new.id;
            });
        }
    }

    /// Adds an op. All inputs must belong to this graph.
    ///
    /// Every op takes narrow operands. It computes in their wide types: f32, i32 or u32. If all float operands have the
    /// same narrow type, the (first) float result is rounded to it, once; results of integers stay in 32 bits. (Views,
    /// such as `reshape`, keep any type.) No copy is made for a kernel that loads the narrow type itself.
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F16, [4, 8]);
    /// let w = graph.input("w", DType::F16, [8, 2]);
    /// assert_eq!(x.matmul(&w).relu().dtype(), DType::F16);
    /// assert_eq!(x.matmul(&w.cast(DType::F32)).dtype(), DType::F32);
    /// assert_eq!((&x * 0.5).argmax(1, false).dtype(), DType::I32);
    /// ```
    #[track_caller]
    pub fn apply(&self, op: impl Op, inputs: &[&Value]) -> Vec<Value> {
        self.apply_shared(Arc::new(op), inputs)
    }

    #[track_caller]
    fn apply_shared(&self, op: Arc<dyn Op>, inputs: &[&Value]) -> Vec<Value> {
        let location = Location::caller();
        if let Err(invalid) = self.admit(op.name(), inputs) {
            return vec![invalid; 4]; // at least as many as any op has outputs
        }
        let narrow = inputs.iter().any(|v| v.dtype().is_narrow());
        if narrow && !matches!(op.lowering(), Lowering::View(_)) {
            return self.at(location, || self.apply_widened(op, inputs));
        }
        let types: Vec<&TensorType> = inputs.iter().map(|v| &v.ty).collect();
        let inferred = op.infer(&types).and_then(|outputs| {
            outputs.iter().try_for_each(check_size)?;
            Ok(outputs)
        });
        match inferred {
            Ok(outputs) => {
                let ids = inputs.iter().map(|v| v.id).collect();
                let node = Node { kind: NodeKind::Op(op), inputs: ids, outputs: outputs.clone(), location };
                let node = self.lock().push(node);
                let values = outputs.into_iter().enumerate();
                values.map(|(output, ty)| self.value(ValueId { node, output }, ty)).collect()
            }
            Err(message) => vec![self.error(op.name(), inputs, message); 4],
        }
    }

    /// Adds an op with one output.
    #[track_caller]
    pub fn apply1(&self, op: impl Op, inputs: &[&Value]) -> Value {
        let mut values = self.apply(op, inputs);
        values.swap_remove(0)
    }

    /// The value with this id, which must exist.
    pub(crate) fn value_of(&self, id: ValueId) -> Value {
        let ty = self.lock().ty(id).clone();
        self.value(id, ty)
    }

    /// The value with this id (see [`Graph::nodes`]); `None` if the graph has no such value.
    pub fn find(&self, id: ValueId) -> Option<Value> {
        let ty = self.lock().nodes.get(id.node)?.outputs.get(id.output)?.clone();
        Some(self.value(id, ty))
    }

    /// Runs `build`; the nodes it adds get the location of node `node`.
    pub(crate) fn on_behalf_of<T>(&self, node: usize, build: impl FnOnce() -> T) -> T {
        let location = self.lock().nodes[node].location;
        self.at(location, build)
    }

    /// Runs `build`; the nodes it adds and its errors get this location.
    pub(crate) fn at<T>(&self, location: &'static Location<'static>, build: impl FnOnce() -> T) -> T {
        /// Restores the location, whether `build` returns or panics.
        struct Before(Option<&'static Location<'static>>);
        impl Drop for Before {
            fn drop(&mut self) {
                ORIGIN.set(self.0);
            }
        }
        let before = Before(ORIGIN.get());
        ORIGIN.set(before.0.or(Some(location))); // inside a gradient, keep the forward node's line
        build()
    }
}

/// Rejects tensors whose element indices do not fit the kernels' u32 arithmetic.
fn check_size(ty: &TensorType) -> Result<(), String> {
    let elements = ty.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    match elements {
        Some(n) if n < (1 << 31) => Ok(()),
        _ => Err(format!("{ty} has 2^31 elements or more, but kernels use 32-bit indices; split the tensor")),
    }
}
