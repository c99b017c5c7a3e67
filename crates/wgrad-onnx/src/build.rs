//! Builds a graph from a model.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use wgrad::{Device, Error, Graph, Result, Session, Tensor, Value};

use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::model::{Model, external, operator};
use crate::node::{Node, Why};
use crate::ops::convolution::Convolution;
use crate::options::{BuildOptions, matches};
use crate::proto::{AttributeProto, GraphProto, NodeProto};
use crate::value::Val;
use crate::{host, ops};

/// What [`Model::build`] has added to a graph.
pub struct Built {
    /// The inputs: names, types in the model, and values.
    pub inputs: Vec<(String, ElemType, Value)>,
    /// The outputs in the order of the model.
    pub outputs: Vec<Output>,
    /// The nodes of the model, and for each the number after that of its last node in the graph.
    origins: Vec<(usize, String)>,
    /// The values of the main graph: names, types and shapes.
    types: BTreeMap<String, (ElemType, Vec<usize>)>,
}

/// An output of a [`Built`] model.
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its type in the model.
    pub elem_type: ElemType,
    /// Its value.
    pub value: OutputValue,
}

/// The value of an [`Output`].
pub enum OutputValue {
    /// Computed by the graph.
    Graph(Value),
    /// The same for all inputs, such as a shape.
    Constant(Constant),
}

impl Built {
    /// The values of the outputs that the graph computes.
    pub fn values(&self) -> Vec<&Value> {
        let computed = self.outputs.iter().filter_map(|output| match &output.value {
            OutputValue::Graph(value) => Some(value),
            OutputValue::Constant(_) => None,
        });
        computed.collect()
    }

    /// An output of the graph.
    ///
    /// # Errors
    /// If the model has no output with this name, or its value does not depend on the inputs.
    pub fn output(&self, name: &str) -> Result<&Value> {
        let names = || self.outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>().join(", ");
        match self.outputs.iter().find(|output| output.name == name).map(|output| &output.value) {
            Some(OutputValue::Graph(value)) => Ok(value),
            Some(OutputValue::Constant(_)) => Err(Error::Input(format!("output `{name}` is a constant of the model"))),
            None => Err(Error::Input(format!("the model has no output `{name}`; it has {}", names()))),
        }
    }

    /// The element type and shape of a value inside of the model.
    pub fn type_of(&self, name: &str) -> Option<(ElemType, &[usize])> {
        self.types.get(name).map(|(ty, shape)| (*ty, &shape[..]))
    }

    /// The node of the model that made a node of the graph.
    pub fn origin(&self, node: usize) -> Option<&str> {
        let at = self.origins.partition_point(|(end, _)| *end <= node);
        self.origins.get(at).map(|(_, name)| name.as_str())
    }
}

/// Why a node of a model cannot become part of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The node's name, or that of its first output; empty for problems of the whole model.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// What is wrong, and what to do.
    pub why: String,
    /// The inputs of the model whose values would have to be known; see [`BuildOptions::constant`].
    pub needs: BTreeSet<String>,
}

impl Problem {
    /// A problem that no single node has.
    pub(crate) fn of_model(why: String) -> Problem {
        Problem { node: String::new(), operator: String::new(), why, needs: BTreeSet::new() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { node, operator, why, .. } = self;
        match (operator.is_empty(), node.is_empty()) {
            (true, _) => f.write_str(why),
            (false, true) => write!(f, "{operator}: {why}"),
            (false, false) => write!(f, "{operator} `{node}`: {why}"),
        }
    }
}

/// All problems of a model, as one error.
pub(crate) fn error(model: &Model, problems: &[Problem]) -> Error {
    let list: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
    Error::File { path: model.path.clone(), message: format!("the model cannot be built: {count}{list}") }
}

impl Model {
    /// Adds the model to a graph. Weights become parameters with their names in the file, or variables if they are
    /// [frozen](BuildOptions::freeze); operators become nodes; what does not depend on the inputs is computed here.
    ///
    /// # Errors
    /// [`Error::File`] with all unsupported operators and other [problems](Model::try_build) of the model.
    pub fn build(&self, graph: &Graph, options: &BuildOptions) -> Result<Built> {
        self.try_build(graph, options).map_err(|problems| error(self, &problems))
    }

    /// As [`Model::build`], with a list of problems instead of one error. The graph is then of no use.
    ///
    /// # Errors
    /// Every operator, attribute, type and size that is not supported or not known.
    pub fn try_build(&self, graph: &Graph, options: &BuildOptions) -> std::result::Result<Built, Vec<Problem>> {
        let mut builder = Builder {
            graph: graph.clone(),
            model: self,
            options,
            scopes: Vec::new(),
            problems: Vec::new(),
            origins: Vec::new(),
            functions: Vec::new(),
            nodes: 0,
            convolutions: HashMap::new(),
        };
        let inputs = builder.open();
        let names: Vec<String> = match options.outputs.is_empty() {
            true => self.graph.output.iter().map(|port| port.name.clone().unwrap_or_default()).collect(),
            false => options.outputs.clone(),
        };
        builder.run_nodes(&self.graph.node, names.iter().map(String::as_str).collect());
        let mut outputs = Vec::new();
        for name in names {
            match builder.find(&name) {
                Some(Some(val)) => outputs.push((name, val)),
                Some(None) => {}
                None => builder.problem(&format!("the output `{name}` is computed by no node")),
            }
        }
        let mut results = Vec::new();
        for (name, val) in outputs {
            let value = match val.known() {
                Some(constant) => OutputValue::Constant(constant.clone()),
                None => match builder.value(&val) {
                    Ok(value) => OutputValue::Graph(value),
                    Err(why) => {
                        builder.problem(&format!("output `{name}`: {why}"));
                        continue;
                    }
                },
            };
            results.push(Output { name, elem_type: val.ty(), value });
        }
        if !builder.problems.is_empty() {
            return Err(builder.problems);
        }
        let scope = builder.scopes.pop().unwrap_or_default();
        let types = scope.into_iter().filter_map(|(name, val)| val.map(|val| (name, (val.ty(), val.shape().to_vec()))));
        Ok(Built { inputs, outputs: results, origins: builder.origins, types: types.collect() })
    }
}

/// The names of a graph or branch, and what they are; `None` after a problem.
type Scope = HashMap<String, Option<Val>>;

/// Nodes that may be added; loops are unrolled.
const MOST_NODES: usize = 200_000;
/// Graphs in graphs.
const DEEPEST: usize = 40;

pub(crate) struct Builder<'m> {
    pub graph: Graph,
    pub model: &'m Model,
    options: &'m BuildOptions,
    scopes: Vec<Scope>,
    problems: Vec<Problem>,
    origins: Vec<(usize, String)>,
    /// The attributes of the calls of functions that are being built.
    functions: Vec<(Vec<AttributeProto>, BTreeMap<String, i64>)>,
    nodes: usize,
    /// For inference: convolutions with known weights, by their outputs.
    pub convolutions: HashMap<String, Convolution>,
}

impl Builder<'_> {
    fn problem(&mut self, why: &str) {
        self.problems.push(Problem::of_model(why.to_owned()));
    }

    /// Opens the scope of the main graph, with the weights and inputs.
    fn open(&mut self) -> Vec<(String, ElemType, Value)> {
        let mut scope = Scope::new();
        for (name, constant) in &self.model.initializers {
            // Single numbers are parts of formulas more often than weights.
            let is_weight = constant.ty.is_float() && constant.numel() > 1 && !self.options.inference;
            let val = if is_weight { Val::weight(name, constant.clone()) } else { Val::constant(constant.clone()) };
            scope.insert(name.clone(), Some(val));
        }
        let mut inputs = Vec::new();
        for port in self.model.inputs() {
            let name = port.name.clone();
            if let Some(constant) = self.options.constants.get(&name) {
                scope.insert(name, Some(Val::constant(constant.clone())));
                continue;
            }
            if let Some(value) = self.options.given.get(&name) {
                let val = port.elem_type.clone().map_err(|why| format!("input `{name}`: {why}")).and_then(|ty| {
                    let wanted = self.options.clone().shape(&name, value.shape().to_vec()).shape_of(&port)?;
                    match value.is_valid() && value.dtype() == ty.dtype() && value.graph().same(&self.graph) {
                        true => Ok((Val::graph(value.clone(), ty), wanted)),
                        false => Err(format!("input `{port}` cannot be {}", value.ty())),
                    }
                });
                match val {
                    Ok((val, _)) => {
                        scope.insert(name.clone(), Some(val.with_sources(BTreeSet::from([name]))));
                    }
                    Err(why) => {
                        self.problem(&why);
                        scope.insert(name, None);
                    }
                }
                continue;
            }
            let found = port.elem_type.clone().map_err(|why| format!("input `{name}`: {why}"));
            let found = found.and_then(|ty| {
                let shape = self.options.shape_of(&port)?;
                let count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
                let fits = count.is_some_and(|count| count <= ops::MOST);
                let why = || format!("input `{name}` of shape {shape:?} has 2^31 elements or more, which is too many");
                if fits { Ok((ty, shape)) } else { Err(why()) }
            });
            let val = match found {
                Ok((ty, shape)) => {
                    let value = self.graph.input(&name, ty.dtype(), shape);
                    inputs.push((name.clone(), ty, value.clone()));
                    Some(Val::graph(value, ty).with_sources(BTreeSet::from([name.clone()])))
                }
                Err(why) => {
                    self.problem(&why);
                    None
                }
            };
            scope.insert(name, val);
        }
        self.scopes.push(scope);
        inputs
    }

    /// Whether weights are constants.
    pub fn is_inference(&self) -> bool {
        self.options.inference
    }

    /// Whether batch statistics are used.
    pub fn is_training(&self) -> bool {
        self.options.training
    }

    /// Whether nodes of the main graph are being built, not those of branches, loops or functions.
    pub fn is_main(&self) -> bool {
        self.scopes.len() == 1 && self.functions.is_empty()
    }

    /// What a name means here.
    pub fn find(&self, name: &str) -> Option<Option<Val>> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned()
    }

    /// Whether an input of the model is a single integer or truth value.
    pub fn input_is_number(&self, name: &str) -> bool {
        let val = self.scopes.first().and_then(|scope| scope.get(name)).cloned().flatten();
        val.is_some_and(|val| val.numel() == 1 && !val.ty().is_float())
    }

    pub fn define(&mut self, name: &str, val: Option<Val>) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), val);
        }
    }

    /// The value in the graph: a parameter for a weight, a constant for other known values.
    pub fn value(&self, val: &Val) -> std::result::Result<Value, String> {
        self.value_as(val, true)
    }

    /// As [`Builder::value`]; a weight that is not trained becomes a variable.
    pub fn value_as(&self, val: &Val, trained: bool) -> std::result::Result<Value, String> {
        if let Some(value) = val.value().get() {
            return Ok(value.clone());
        }
        let constant = val.known().ok_or("internal: a value that is neither known nor computed")?;
        let tensor = constant.to_tensor()?;
        let value = match val.weight_name() {
            Some(name) => {
                let frozen = !trained || self.options.frozen.iter().any(|pattern| matches(pattern, name));
                let name = format!("{}{name}", self.options.prefix);
                let tensor = match constant.ty {
                    ElemType::F64 => {
                        Tensor::new(tensor.shape(), tensor.to_f32()).map_err(|error| error.to_string())?.into()
                    }
                    _ => tensor,
                };
                if frozen { self.graph.variable(&name, tensor) } else { self.graph.parameter(&name, tensor) }
            }
            None => self.graph.constant(tensor),
        };
        if !value.is_valid() {
            return Err(self.graph.errors().pop().map_or_else(String::new, |error| error.to_string()));
        }
        Ok(val.value().get_or_init(|| value).clone())
    }

    /// Builds the nodes of a graph that its outputs need, in a scope of its own unless it is the main graph.
    fn run(&mut self, graph: &GraphProto) {
        let outputs = graph.output.iter().filter_map(|port| port.name.as_deref());
        self.run_nodes(&graph.node, outputs.collect());
    }

    fn run_nodes<'n>(&mut self, nodes: &'n [NodeProto], outputs: Vec<&'n str>) {
        let mut needed: BTreeSet<&str> = outputs.into_iter().collect();
        let mut wanted = vec![false; nodes.len()];
        for (at, node) in nodes.iter().enumerate().rev() {
            if node.output.iter().any(|name| needed.contains(name.as_str())) {
                wanted[at] = true;
                read(node, &mut needed);
            }
        }
        for (node, _) in nodes.iter().zip(wanted).filter(|(_, wanted)| *wanted) {
            self.node(node);
        }
    }

    /// Builds a graph in a scope of its own, with names for its inputs. Returns its outputs; `None` after a problem.
    pub fn subgraph(&mut self, graph: &GraphProto, inputs: &[Val]) -> std::result::Result<Option<Vec<Val>>, String> {
        if self.scopes.len() > DEEPEST {
            return Err(format!("more than {DEEPEST} graphs are nested"));
        }
        let mut scope = Scope::new();
        for tensor in &graph.initializer {
            let name = tensor.name.clone().unwrap_or_default();
            let folder = self.model.path.parent().unwrap_or(std::path::Path::new(""));
            let constant = Constant::read(tensor, |tensor| external(folder, tensor));
            let constant = constant.map_err(|why| format!("tensor `{name}`: {why}"))?;
            scope.insert(name, Some(Val::constant(constant)));
        }
        for (port, val) in graph.input.iter().zip(inputs) {
            scope.insert(port.name.clone().unwrap_or_default(), Some(val.clone()));
        }
        self.scopes.push(scope);
        self.run(graph);
        let outputs = self.results(graph.output.iter().filter_map(|port| port.name.as_deref()));
        self.scopes.pop();
        outputs
    }

    fn results<'n>(&self, names: impl Iterator<Item = &'n str>) -> std::result::Result<Option<Vec<Val>>, String> {
        let mut results = Some(Vec::new());
        for name in names {
            match (self.find(name), &mut results) {
                (None, _) => return Err(format!("the output `{name}` is computed by no node")),
                (Some(Some(val)), Some(results)) => results.push(val),
                _ => results = None,
            }
        }
        Ok(results)
    }

    /// The version of the operator set of a domain.
    pub fn opset(&self, domain: &str) -> i64 {
        let of_function = self.functions.last().and_then(|(_, opsets)| opsets.get(domain).copied());
        of_function.or_else(|| self.model.opset(domain)).unwrap_or(1)
    }

    /// An attribute of a node, or of the call of the function that the node belongs to.
    pub fn attribute(&self, node: &NodeProto, name: &str) -> Option<AttributeProto> {
        let found = node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))?;
        match found.ref_attr_name.as_deref().filter(|reference| !reference.is_empty()) {
            None => Some(found.clone()),
            Some(reference) => {
                let of_call = &self.functions.last()?.0;
                of_call.iter().find(|attribute| attribute.name.as_deref() == Some(reference)).cloned()
            }
        }
    }

    fn node(&mut self, node: &NodeProto) {
        self.nodes += 1;
        let name = node.name.clone().filter(|name| !name.is_empty());
        let name = name.or_else(|| node.output.iter().find(|name| !name.is_empty()).cloned()).unwrap_or_default();
        match self.lower(node) {
            Ok(vals) => {
                let last = vals.iter().filter_map(|val| Some(val.value().get()?.id().node)).max();
                if let Some(last) = last.filter(|last| self.origins.last().is_none_or(|known| known.0 <= *last)) {
                    self.origins.push((last + 1, name.clone()));
                }
                for (at, output) in node.output.iter().enumerate().filter(|(_, output)| !output.is_empty()) {
                    self.define(output, vals.get(at).cloned());
                    if vals.get(at).is_none() {
                        let why = format!("its output {at} (`{output}`) is not supported");
                        let (node, operator) = (name.clone(), operator(node));
                        self.problems.push(Problem { node, operator, why, needs: BTreeSet::new() });
                    }
                }
            }
            Err(why) => {
                node.output.iter().for_each(|output| self.define(output, None));
                let (why, needs) = match why {
                    Why::AfterProblem => return,
                    Why::Text(why) => (why, BTreeSet::new()),
                    Why::NotKnown { input, sources } => {
                        let from = sources.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                        let why = format!(
                            "its input {input} must be known when the graph is built, because it decides about shapes \
                             or structure, but it depends on the model's input {from}; set that as a constant"
                        );
                        (why, sources)
                    }
                };
                self.problems.push(Problem { node: name, operator: operator(node), why, needs });
            }
        }
    }

    fn lower(&mut self, node: &NodeProto) -> std::result::Result<Vec<Val>, Why> {
        if self.nodes > MOST_NODES {
            // Reported once.
            return match self.nodes == MOST_NODES + 1 {
                true => Err(format!("the graph has more than {MOST_NODES} nodes, loops unrolled").into()),
                false => Err(Why::AfterProblem),
            };
        }
        let mut inputs = Vec::new();
        for name in &node.input {
            inputs.push(match (name.is_empty(), self.find(name)) {
                (true, _) => None,
                (false, Some(Some(val))) => Some(val),
                (false, Some(None)) => return Err(Why::AfterProblem),
                (false, None) => {
                    return Err(format!("its input `{name}` is computed by no node before it").into());
                }
            });
        }
        let sources: BTreeSet<String> = inputs.iter().flatten().flat_map(|val| val.sources()).cloned().collect();
        let vals = self.lower_with(node, inputs)?;
        Ok(vals.into_iter().map(|val| val.with_sources(sources.clone())).collect())
    }

    fn lower_with(&mut self, node: &NodeProto, inputs: Vec<Option<Val>>) -> std::result::Result<Vec<Val>, Why> {
        let op = operator(node);
        let Some(lower) = ops::find(&op) else {
            return match self.function(node) {
                Some(function) => self.call(node, &function, inputs),
                None if ops::RANDOM.contains(&op.as_str()) => {
                    let why =
                        "its results are random, so that they cannot be compared; make them an input of the model";
                    Err(why.into())
                }
                None => Err("the operator is not supported".to_owned().into()),
            };
        };
        if let Some(small) = inputs.iter().flatten().map(Val::ty).find(|ty| ty.is_small_float())
            && !ops::MOVES.contains(&op.as_str())
        {
            return Err(format!("{small} has no arithmetic; convert it by Cast or DequantizeLinear before").into());
        }
        // What is computed from known numbers is computed here.
        let known = |val: &Val| val.known().is_some() && val.weight_name().is_none();
        let is_straight = node.attribute.iter().all(|attribute| attribute.g.is_none());
        let is_known = !inputs.is_empty() && inputs.iter().flatten().all(known);
        if is_known && is_straight && !ops::RANDOM.contains(&op.as_str()) {
            if let Some(found) = host::evaluate(&mut Node::new(self, node, inputs.clone())) {
                return found.map(|constants| constants.into_iter().map(Val::constant).collect());
            }
            return self.fold(node, lower, inputs);
        }
        let mut node = Node::new(self, node, inputs);
        let vals = lower(&mut node)?;
        node.check_attributes()?;
        Ok(vals)
    }

    /// Lowers a node to a graph of its own, which the reference computes.
    fn fold(
        &mut self,
        node: &NodeProto,
        lower: ops::Lower,
        inputs: Vec<Option<Val>>,
    ) -> std::result::Result<Vec<Val>, Why> {
        let fresh = |val: Val| val.known().map_or(val.clone(), |constant| Val::constant(constant.clone()));
        let copies = inputs.iter().cloned().map(|val| val.map(fresh)).collect();
        let outer = std::mem::replace(&mut self.graph, Graph::new());
        let mut inner = Node::new(self, node, copies);
        let lowered = lower(&mut inner).and_then(|vals| inner.check_attributes().map(|()| vals));
        let graph = std::mem::replace(&mut self.graph, outer);
        let vals = lowered?;
        let sizes = graph.nodes().nodes.iter().flat_map(|node| &node.outputs).map(|ty| ty.shape.numel()).max();
        if sizes.is_some_and(|most| most > ops::MANY) {
            // Too large to be kept: each run computes it.
            return lower(&mut Node::new(self, node, inputs));
        }
        let computed: Vec<&Value> =
            vals.iter().filter(|val| val.known().is_none()).filter_map(|val| val.value().get()).collect();
        let tensors = evaluate(&graph, &computed).map_err(|error| error.to_string())?;
        let mut tensors = tensors.into_iter();
        let folded = vals.into_iter().map(|val| match (val.known(), val.value().get()) {
            (None, Some(_)) => tensors.next().map(|tensor| Val::constant(Constant::of_tensor(val.ty(), tensor))),
            _ => Some(val),
        });
        folded.collect::<Option<Vec<Val>>>().ok_or_else(|| "internal: an output was not computed".to_owned().into())
    }

    /// The function of the model that a node calls.
    fn function(&self, node: &NodeProto) -> Option<crate::proto::FunctionProto> {
        let domain = |domain: &Option<String>| domain.clone().unwrap_or_default();
        let calls =
            |f: &&crate::proto::FunctionProto| f.name == node.op_type && domain(&f.domain) == domain(&node.domain);
        self.model.functions.iter().find(calls).cloned()
    }

    /// Builds the body of a function.
    fn call(
        &mut self,
        node: &NodeProto,
        function: &crate::proto::FunctionProto,
        inputs: Vec<Option<Val>>,
    ) -> std::result::Result<Vec<Val>, Why> {
        if self.scopes.len() > DEEPEST {
            return Err(format!("more than {DEEPEST} functions are nested").into());
        }
        let mut attributes = function.attribute_proto.clone();
        for given in &node.attribute {
            if let Some(attribute) = self.attribute(node, given.name.as_deref().unwrap_or_default()) {
                attributes.retain(|other| other.name != given.name);
                attributes.push(AttributeProto { name: given.name.clone(), ..attribute });
            }
        }
        let opset = |set: &crate::proto::OperatorSetIdProto| {
            let domain = set.domain.clone().filter(|domain| domain != "ai.onnx").unwrap_or_default();
            (domain, set.version.unwrap_or(1))
        };
        let opsets = function.opset_import.iter().map(opset).collect();
        let names = function.input.iter().cloned().zip(inputs);
        let scope: Scope = names.filter_map(|(name, val)| Some((name, Some(val?)))).collect();
        // A function sees nothing but its inputs.
        let outer = std::mem::replace(&mut self.scopes, vec![scope; 1]);
        let depth = outer.len();
        self.scopes.splice(..0, std::iter::repeat_with(Scope::new).take(depth));
        self.functions.push((attributes, opsets));
        self.run_nodes(&function.node, function.output.iter().map(String::as_str).collect());
        let results = self.results(function.output.iter().map(String::as_str));
        self.functions.pop();
        self.scopes = outer;
        results?.ok_or(Why::AfterProblem)
    }
}

/// The names that a node reads, those of its branches included.
fn read<'n>(node: &'n NodeProto, names: &mut BTreeSet<&'n str>) {
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        names.extend(node.input.iter().map(String::as_str));
        for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            names.extend(graph.output.iter().filter_map(|port| port.name.as_deref()));
            open.extend(&graph.node);
        }
    }
}

/// Computes values of a graph that depend on no inputs, on the reference.
pub(crate) fn evaluate(graph: &Graph, values: &[&Value]) -> Result<Vec<Tensor>> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let mut session = Session::new(Device::cpu());
    let program = session.compile(graph, values)?;
    session.run(&program, &[])
}
