//! A node of the model while it becomes nodes of the graph.

use std::collections::BTreeSet;

use wgrad::{DType, Graph, Value};

use crate::build::{Builder, evaluate};
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::model::external;
use crate::proto::{AttributeProto, GraphProto, NodeProto};
use crate::value::Val;

/// Why a node cannot be built.
#[derive(Clone, Debug)]
pub(crate) enum Why {
    /// A node that it depends on has been reported.
    AfterProblem,
    Text(String),
    /// An input must be known, but depends on inputs of the model.
    NotKnown {
        input: usize,
        sources: BTreeSet<String>,
    },
}

impl From<String> for Why {
    fn from(text: String) -> Why {
        Why::Text(text)
    }
}

impl From<&str> for Why {
    fn from(text: &str) -> Why {
        Why::Text(text.to_owned())
    }
}

pub(crate) type Result<T> = std::result::Result<T, Why>;

/// A node, its inputs and attributes.
pub(crate) struct Node<'a, 'm> {
    pub builder: &'a mut Builder<'m>,
    pub proto: &'a NodeProto,
    inputs: Vec<Option<Val>>,
    /// The attributes that have been read.
    read: BTreeSet<&'static str>,
}

impl<'a, 'm> Node<'a, 'm> {
    pub fn new(builder: &'a mut Builder<'m>, proto: &'a NodeProto, inputs: Vec<Option<Val>>) -> Node<'a, 'm> {
        Node { builder, proto, inputs, read: BTreeSet::new() }
    }

    /// The name of the operator.
    pub fn op(&self) -> &'a str {
        self.proto.op_type.as_deref().unwrap_or_default()
    }

    /// The version of the operator's set.
    pub fn version(&self) -> i64 {
        let domain = self.proto.domain.as_deref().filter(|domain| *domain != "ai.onnx").unwrap_or_default();
        self.builder.opset(domain)
    }

    pub fn graph(&self) -> &Graph {
        &self.builder.graph
    }

    // ---- Inputs

    /// All inputs; `None` for those that are left out.
    pub fn inputs(&self) -> &[Option<Val>] {
        &self.inputs
    }

    /// An input, if it is given.
    pub fn optional(&self, at: usize) -> Option<Val> {
        self.inputs.get(at).cloned().flatten()
    }

    /// An input that must be given.
    pub fn input(&self, at: usize) -> Result<Val> {
        self.optional(at).ok_or_else(|| format!("its input {at} is missing").into())
    }

    /// A value in the graph.
    pub fn value_of(&self, val: &Val) -> Result<Value> {
        Ok(self.builder.value(val)?)
    }

    /// An input in the graph.
    pub fn value(&self, at: usize) -> Result<Value> {
        self.value_of(&self.input(at)?)
    }

    /// An input in the graph that is not trained, such as a running mean.
    pub fn untrained(&self, at: usize) -> Result<Value> {
        Ok(self.builder.value_as(&self.input(at)?, false)?)
    }

    /// An input in the graph, if it is given.
    pub fn optional_value(&self, at: usize) -> Result<Option<Value>> {
        self.optional(at).map(|val| self.value_of(&val)).transpose()
    }

    /// An input as float in the graph; integers and truth values are converted to f32.
    pub fn float(&self, at: usize) -> Result<Value> {
        let value = self.value(at)?;
        Ok(if value.dtype().is_float() { value } else { value.cast(DType::F32) })
    }

    /// An input whose elements must be known.
    pub fn known(&self, at: usize) -> Result<Constant> {
        let val = self.input(at)?;
        match (val.known(), val.value().get()) {
            (Some(constant), _) => Ok(constant.clone()),
            // Computed from weights alone.
            (None, Some(value)) if val.sources().is_empty() => {
                let tensors = evaluate(self.graph(), &[value]).map_err(|error| error.to_string())?;
                let tensor = tensors.into_iter().next().ok_or("internal: an output was not computed")?;
                Ok(Constant::of_tensor(val.ty(), tensor))
            }
            _ => Err(Why::NotKnown { input: at, sources: val.sources().clone() }),
        }
    }

    /// Integers that must be known.
    pub fn known_ints(&self, at: usize) -> Result<Vec<i64>> {
        let constant = self.known(at)?;
        constant.to_ints().ok_or_else(|| format!("its input {at} has the type {}, not an integer", constant.ty).into())
    }

    /// Integers that must be known, if the input is given.
    pub fn optional_ints(&self, at: usize) -> Result<Option<Vec<i64>>> {
        self.optional(at).map(|_| self.known_ints(at)).transpose()
    }

    /// Numbers that must be known, if the input is given.
    pub fn optional_floats(&self, at: usize) -> Result<Option<Vec<f64>>> {
        self.optional(at).map(|_| Ok(self.known(at)?.to_floats())).transpose()
    }

    /// A single number that must be known, if the input is given.
    pub fn optional_number(&self, at: usize) -> Result<Option<f64>> {
        match self.optional_floats(at)?.as_deref() {
            None => Ok(None),
            Some([number]) => Ok(Some(*number)),
            Some(other) => Err(format!("its input {at} has {} elements, not one", other.len()).into()),
        }
    }

    // ---- Attributes

    pub fn attribute(&mut self, name: &'static str) -> Option<AttributeProto> {
        self.read.insert(name);
        self.builder.attribute(self.proto, name)
    }

    pub fn int(&mut self, name: &'static str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    pub fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.int(name, default.into()) != 0
    }

    pub fn number(&mut self, name: &'static str, default: f64) -> f64 {
        // As f32: 1e-5 is the nearest f32 in the reference of ONNX, too.
        self.attribute(name).and_then(|attribute| attribute.f).map_or(default, f64::from)
    }

    pub fn optional_attribute_number(&mut self, name: &'static str) -> Option<f64> {
        self.attribute(name).and_then(|attribute| attribute.f).map(f64::from)
    }

    pub fn text(&mut self, name: &'static str, default: &str) -> String {
        let found = self.attribute(name).and_then(|attribute| attribute.s);
        found.map_or_else(|| default.to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        let found = self.attribute(name).map(|attribute| attribute.strings).unwrap_or_default();
        found.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    pub fn attribute_ints(&mut self, name: &'static str) -> Option<Vec<i64>> {
        self.attribute(name).map(|attribute| attribute.ints)
    }

    pub fn attribute_numbers(&mut self, name: &'static str) -> Option<Vec<f64>> {
        self.attribute(name).map(|attribute| attribute.floats.into_iter().map(f64::from).collect())
    }

    /// An attribute that is a tensor.
    pub fn tensor(&mut self, name: &'static str) -> Result<Option<Constant>> {
        let Some(tensor) = self.attribute(name).and_then(|attribute| attribute.t) else { return Ok(None) };
        let folder = self.builder.model.path.parent().unwrap_or(std::path::Path::new("")).to_owned();
        let constant = Constant::read(&tensor, |tensor| external(&folder, tensor));
        constant.map(Some).map_err(|why| format!("its attribute {name}: {why}").into())
    }

    /// An attribute that is a graph.
    pub fn subgraph(&mut self, name: &'static str) -> Result<GraphProto> {
        let found = self.attribute(name).and_then(|attribute| attribute.g);
        found.ok_or_else(|| format!("its attribute {name} is missing").into())
    }

    /// An element type in an attribute.
    pub fn elem_type(&mut self, name: &'static str, default: ElemType) -> Result<ElemType> {
        match self.attribute(name).and_then(|attribute| attribute.i) {
            None => Ok(default),
            Some(number) => Ok(ElemType::of(number)?),
        }
    }

    /// Integers that are an input in newer versions, and an attribute in older ones.
    pub fn ints_by_input_or_attribute(&mut self, at: usize, name: &'static str) -> Result<Option<Vec<i64>>> {
        match self.optional_ints(at)? {
            Some(ints) => Ok(Some(ints)),
            None => Ok(self.attribute_ints(name)),
        }
    }

    /// An error if the node has an attribute that nothing has read, because ignoring it would give wrong results.
    pub fn check_attributes(&self) -> Result<()> {
        let unread = self.proto.attribute.iter().filter_map(|attribute| attribute.name.as_deref());
        let unread: Vec<&str> = unread.filter(|name| !self.read.contains(name)).collect();
        match unread.is_empty() {
            true => Ok(()),
            false => Err(format!("its attribute {} is not supported", unread.join(", ")).into()),
        }
    }

    // ---- Results

    /// A result of type `ty`, from a value that may have more bits: integers wrap around.
    pub fn result(&self, value: Value, ty: ElemType) -> Val {
        Val::graph(self.stored(value, ty), ty)
    }

    /// See [`Node::result`].
    pub fn stored(&self, value: Value, ty: ElemType) -> Value {
        let value = if value.dtype() == ty.dtype() { value } else { value.cast(ty.dtype()) };
        match ty {
            ElemType::I16 => (&value + 32768.0).rem_euclid(&value.full_like(65536.0)) - 32768.0,
            ElemType::U16 => value.rem_euclid(&value.full_like(65536.0)),
            ElemType::I2 | ElemType::I4 | ElemType::U2 | ElemType::U4 => {
                let (value, (low, high)) = (value.cast(DType::I32), ty.range());
                let (low, count) = (low as f64, (high - low + 1) as f64);
                ((&value - low).rem_euclid(&value.full_like(count)) + low).cast(ty.dtype())
            }
            _ => value,
        }
    }

    /// An axis from -rank to rank - 1, or to `rank` for a place between axes.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        match at >= 0 && at < rank as i64 {
            true => Ok(at as usize),
            false => Err(format!("axis {axis} is out of range: the tensor has {rank} axes").into()),
        }
    }

    /// Axes as [`Node::axis`], each once.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        let mut found = Vec::new();
        for &axis in axes {
            let axis = self.axis(axis, rank)?;
            if found.contains(&axis) {
                return Err(format!("axis {axis} occurs twice").into());
            }
            found.push(axis);
        }
        Ok(found)
    }

    /// The value if it is valid; else the mistake that the graph has recorded.
    pub fn checked(&self, value: Value) -> Result<Value> {
        match value.is_valid() {
            true => Ok(value),
            false => {
                let last = self.graph().errors().pop();
                // The line would be one of this crate.
                let text = |error: wgrad::GraphError| {
                    let inputs: Vec<String> = error.inputs.iter().map(ToString::to_string).collect();
                    format!("{}({}): {}", error.op, inputs.join(", "), error.message)
                };
                Err(last.map_or_else(|| "it cannot be built".to_owned(), text).into())
            }
        }
    }
}

/// Axes or sizes as the graph takes them.
pub(crate) fn signed(sizes: &[usize]) -> Vec<isize> {
    sizes.iter().map(|&size| size as isize).collect()
}
