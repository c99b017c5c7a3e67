//! The file as it is written: names, tensors, sizes that depend on the number of rows, and nodes.

use std::collections::{HashMap, HashSet};

use prost::bytes::Bytes;
use wgrad::graph::{Node, NodeKind, Nodes, Scalar, ValueId};
use wgrad::{DType, Data, Error, Result, Session, Tensor, Value};

use super::site::{BATCH, Found, Site, Size, signed, sizes};
use super::{OPSET, nodes};
use crate::elem_type::ElemType;
use crate::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// Writes the nodes of a graph.
pub(super) struct Writer<'a> {
    session: &'a Session,
    graphs: &'a [Nodes],
    outputs: &'a [&'a [(String, Value)]],
    /// For each node of the first graph that is needed, in order, the same node of the others.
    sites: Vec<(usize, [Option<usize>; 2])>,
    /// Needed values of the first graph.
    needed: HashSet<ValueId>,
    /// The names of the values that have been written.
    names: HashMap<ValueId, String>,
    taken: HashSet<String>,
    /// Constant tensors by content.
    constants: HashMap<(i32, Vec<i64>, Vec<u8>), String>,
    /// The number of rows as a tensor `[1]`.
    rows: Option<String>,
    file: GraphProto,
}

impl<'a> Writer<'a> {
    pub fn new(session: &'a Session, graphs: &'a [Nodes], outputs: &'a [&'a [(String, Value)]]) -> Result<Writer<'a>> {
        for (graph, outputs) in graphs.iter().zip(outputs) {
            if !graph.errors.is_empty() {
                return Err(Error::Graph(graph.errors.clone()));
            }
            if outputs.is_empty() {
                return Err(Error::Input("the graph to export has no outputs; give at least one".into()));
            }
        }
        let (nodes, needed) = needed(&graphs[0], outputs[0]);
        let mut sites: Vec<(usize, [Option<usize>; 2])> = nodes.into_iter().map(|number| (number, [None; 2])).collect();
        for (at, (graph, outputs)) in graphs[1..].iter().zip(&outputs[1..]).enumerate() {
            let (others, _) = self::needed(graph, outputs);
            let name = |graph: &Nodes, number: usize| graph.nodes[number].name().to_owned();
            let equal = others.len() == sites.len()
                && others.iter().zip(&sites).all(|(&b, &(a, _))| name(&graphs[0], a) == name(graph, b));
            if !equal {
                let why = "the graphs for different numbers of rows have different nodes; export one with Export::new";
                return Err(Error::Input(why.into()));
            }
            sites.iter_mut().zip(others).for_each(|(site, other)| site.1[at] = Some(other));
        }
        Ok(Writer {
            session,
            graphs,
            outputs,
            sites,
            needed,
            names: HashMap::new(),
            taken: outputs[0].iter().map(|(name, _)| name.clone()).collect(),
            constants: HashMap::new(),
            rows: None,
            file: GraphProto { name: Some("wgrad".into()), ..GraphProto::default() },
        })
    }

    /// Writes everything.
    pub fn finish(mut self) -> Result<ModelProto> {
        let mut problems: Vec<String> = Vec::new();
        for (number, _) in self.sites.clone() {
            let id = ValueId { node: number, output: 0 };
            if self.names.contains_key(&id) {
                continue; // written together with another node
            }
            let site = self.maker(id);
            let written = match &site.node.kind {
                NodeKind::Op(_) => nodes::write(&mut self, &site),
                leaf => self.leaf(&site, leaf),
            };
            if let Err(why) = written {
                let what = site.node.name();
                problems.push(format!("{} ({what}): {why}", site.node.location));
                // Later nodes are written all the same, so that all problems are found.
                for output in 0..site.node.outputs.len() {
                    let name = self.fresh(what);
                    self.names.insert(ValueId { node: number, output }, name);
                }
            }
        }
        if !problems.is_empty() {
            let count = problems.len();
            let list: String = problems.into_iter().map(|problem| format!("\n  {problem}")).collect();
            let noun = if count == 1 { "problem" } else { "problems" };
            return Err(Error::Input(format!("the graph cannot be exported to ONNX: {count} {noun}{list}")));
        }
        self.name_outputs()?;
        self.prune();
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) };
        Ok(ModelProto {
            ir_version: Some(10),
            opset_import: vec![opset],
            producer_name: Some("wgrad".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            graph: Some(self.file),
            ..ModelProto::default()
        })
    }

    /// Gives the outputs their names.
    fn name_outputs(&mut self) -> Result<()> {
        let made: HashSet<String> = self.file.node.iter().flat_map(|node| node.output.clone()).collect();
        let mut renamed: HashMap<String, String> = HashMap::new();
        for (position, (name, value)) in self.outputs[0].iter().enumerate() {
            let written = self.value(value.id()).map_err(Error::Input)?;
            if made.contains(&written) && !renamed.contains_key(&written) {
                renamed.insert(written, name.clone());
            } else {
                // Inputs, weights, and values that are an output under another name.
                self.push("Identity", vec![written], vec![name.clone()], vec![]);
            }
            let shapes: Vec<Vec<i64>> = self.outputs.iter().map(|list| signed(list[position].1.shape())).collect();
            let shape = sizes(&shapes).map_err(|why| Error::Input(format!("output `{name}`: {why}")))?;
            let port = port(name, value.dtype(), &shape).map_err(Error::Input)?;
            self.file.output.push(port);
        }
        for node in &mut self.file.node {
            for name in node.input.iter_mut().chain(&mut node.output) {
                if let Some(new) = renamed.get(name) {
                    name.clone_from(new);
                }
            }
        }
        Ok(())
    }

    /// Removes nodes and tensors that nothing reads: those that a reader has replaced by its own.
    fn prune(&mut self) {
        let mut read: HashSet<String> = self.outputs[0].iter().map(|(name, _)| name.clone()).collect();
        let mut nodes = std::mem::take(&mut self.file.node);
        nodes.reverse();
        nodes.retain(|node| {
            let is_read = node.output.iter().any(|name| read.contains(name));
            if is_read {
                read.extend(node.input.iter().cloned());
            }
            is_read
        });
        nodes.reverse();
        self.file.node = nodes;
        self.file.initializer.retain(|tensor| tensor.name.as_ref().is_some_and(|name| read.contains(name)));
    }

    fn leaf(&mut self, site: &Site<'_>, kind: &NodeKind) -> Found<()> {
        let id = ValueId { node: site.number, output: 0 };
        let ty = &site.node.outputs[0];
        let name = match kind {
            NodeKind::Input(name) => {
                let shape = site.output_shape(0)?;
                let name = self.reserved(name)?;
                self.file.input.push(port(&name, ty.dtype, &shape)?);
                let batch = Size { fixed: 0, per_row: 1 };
                if let (None, Some(axis)) = (&self.rows, shape.iter().position(|size| *size == batch)) {
                    let ends = [("start", int(axis as i64)), ("end", int(axis as i64 + 1))];
                    self.rows = Some(self.node_with("Shape", &[&name], &ends));
                }
                name
            }
            NodeKind::Variable(name) => {
                let stored = self.stored(id)?;
                if stored.ty() != *ty {
                    return Err(format!("the session has {} for it, the graph {ty}", stored.ty()));
                }
                let name = self.reserved(name)?;
                self.tensor(&name, elem_type(ty.dtype)?, &signed(stored.shape()), bytes(&stored)?);
                name
            }
            NodeKind::Constant(tensor) => {
                let is_same = |other: &Node| matches!(&other.kind, NodeKind::Constant(o) if same(o, tensor));
                if !site.others.into_iter().flatten().all(is_same) {
                    return Err("it depends on the number of rows".into());
                }
                self.constant(elem_type(ty.dtype)?, &signed(tensor.shape()), bytes(tensor)?)
            }
            // An input with a default: an initializer of the same name.
            NodeKind::Scalar(Scalar::Fed { name, default }) => {
                let name = self.reserved(name)?;
                self.file.input.push(port(&name, DType::F32, &[])?);
                self.tensor(&name, ElemType::F32, &[], (*default as f32).to_le_bytes().to_vec());
                name
            }
            // Nothing, unless an operator reads it.
            _ => return Ok(()),
        };
        self.names.insert(id, name);
        Ok(())
    }

    /// The tensor of a variable or constant: of the session, or the initial one if the session has none yet.
    pub fn stored(&self, id: ValueId) -> Found<Tensor> {
        match &self.graphs[0].nodes[id.node].kind {
            NodeKind::Constant(tensor) => Ok((**tensor).clone()),
            NodeKind::Variable(name) if self.session.variable_type(name).is_some() => {
                self.session.get(name).map_err(|e| e.to_string())
            }
            _ => {
                let declared = self.graphs[0].variables.iter().find(|declared| declared.node == id.node);
                declared.map(|declared| (*declared.initial).clone()).ok_or_else(|| "it is computed".into())
            }
        }
    }

    /// A name that is given by the user.
    fn reserved(&mut self, name: &str) -> Found<String> {
        match self.taken.insert(name.to_owned()) {
            true => Ok(name.to_owned()),
            false => Err(format!("the name `{name}` is used twice; inputs, outputs and variables share their names")),
        }
    }

    /// A new name for a value.
    fn fresh(&mut self, like: &str) -> String {
        (self.file.node.len()..)
            .map(|number| format!("{like}_{number}"))
            .find(|name| self.taken.insert(name.clone()))
            .unwrap_or_default()
    }

    fn tensor(&mut self, name: &str, ty: ElemType, dims: &[i64], bytes: Vec<u8>) {
        self.file.initializer.push(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(ty.number()),
            name: Some(name.to_owned()),
            raw_data: Some(Bytes::from(bytes)),
            ..TensorProto::default()
        });
    }

    /// The name of a constant tensor of these bytes.
    pub fn constant(&mut self, ty: ElemType, dims: &[i64], bytes: Vec<u8>) -> String {
        let key = (ty.number(), dims.to_vec(), bytes);
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let name = (self.constants.len()..)
            .map(|number| format!("constant_{number}"))
            .find(|name| self.taken.insert(name.clone()))
            .unwrap_or_default();
        self.tensor(&name, ty, dims, key.2.clone());
        self.constants.insert(key, name.clone());
        name
    }

    /// A constant list of integers of 64 bits.
    pub fn ints(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(ElemType::I64, &[values.len() as i64], bytes)
    }

    /// A constant number of type `dtype`, without axes.
    pub fn number(&mut self, dtype: DType, value: f64) -> Found<String> {
        self.filled(dtype, &[], value)
    }

    /// A constant tensor of equal numbers.
    pub fn filled(&mut self, dtype: DType, dims: &[i64], value: f64) -> Found<String> {
        let count = dims.iter().product::<i64>().max(0) as usize;
        let tensor = Tensor::new([count], vec![value; count]).map_err(|e| e.to_string())?;
        Ok(self.constant(elem_type(dtype)?, dims, bytes(&tensor.cast(dtype))?))
    }

    /// Sizes as a list of integers of 64 bits: a constant, or computed from the number of rows.
    pub fn sizes(&mut self, sizes: &[Size]) -> Found<String> {
        if let Some(known) = sizes.iter().map(|size| size.known()).collect::<Option<Vec<_>>>() {
            return Ok(self.ints(&known));
        }
        let mut parts: Vec<String> = Vec::new();
        let mut constants: Vec<i64> = Vec::new();
        for size in sizes {
            if let Some(known) = size.known() {
                constants.push(known);
                continue;
            }
            if !constants.is_empty() {
                parts.push(self.ints(&std::mem::take(&mut constants)));
            }
            let mut part =
                self.rows.clone().ok_or("it depends on the number of rows, but no input has an axis of it")?;
            if size.per_row != 1 {
                let factor = self.ints(&[size.per_row]);
                part = self.node("Mul", &[&part, &factor]);
            }
            if size.fixed != 0 {
                let offset = self.ints(&[size.fixed]);
                part = self.node("Add", &[&part, &offset]);
            }
            parts.push(part);
        }
        if !constants.is_empty() {
            parts.push(self.ints(&constants));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(match parts[..] {
            [one] => one.to_owned(),
            _ => self.node_with("Concat", &parts, &[("axis", int(0))]),
        })
    }

    /// `x` with another shape.
    pub fn reshaped(&mut self, x: &str, shape: &[Size]) -> Found<String> {
        let unknown: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis].known().is_none()).collect();
        let empty = shape.iter().any(|size| size.known() == Some(0));
        let sizes = match unknown[..] {
            // One axis takes what is left.
            [one] if !empty => {
                let mut sizes = shape.to_vec();
                sizes[one] = Size::fixed(-1);
                self.sizes(&sizes)?
            }
            _ => self.sizes(shape)?,
        };
        let zeros = [("allowzero", int(1))];
        Ok(self.node_with("Reshape", &[x, &sizes], if empty { &zeros } else { &[] }))
    }

    /// Whether a value is used.
    pub fn is_needed(&self, id: ValueId) -> bool {
        self.needed.contains(&id)
    }

    /// The node that makes a value.
    pub fn maker(&self, id: ValueId) -> Site<'a> {
        let at = self.sites.binary_search_by_key(&id.node, |site| site.0).ok();
        let others = at.map_or([None; 2], |at| self.sites[at].1);
        let other = |at: usize| others[at].map(|number| &self.graphs[at + 1].nodes[number]);
        Site {
            number: id.node,
            node: &self.graphs[0].nodes[id.node],
            others: [other(0), other(1)],
            graphs: self.graphs,
        }
    }

    /// The nodes that read a value.
    pub fn readers(&self, id: ValueId) -> Vec<Site<'a>> {
        let reads = |number: &usize| self.graphs[0].nodes[*number].inputs.contains(&id);
        let readers = self.sites.iter().map(|site| site.0).filter(reads);
        readers.map(|node| self.maker(ValueId { node, output: 0 })).collect()
    }

    /// Whether a value is an output of the model.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs[0].iter().any(|(_, value)| value.id() == id)
    }

    /// The name of a value, which is written now if it has been left for later.
    pub fn value(&mut self, id: ValueId) -> Found<String> {
        if let Some(known) = self.names.get(&id) {
            return Ok(known.clone());
        }
        let site = self.maker(id);
        let name = nodes::write_expanded(self, &site)?;
        self.names.insert(id, name.clone());
        Ok(name)
    }

    /// The name of a node's input.
    pub fn input(&mut self, site: &Site<'_>, input: usize) -> Found<String> {
        self.value(site.node.inputs[input])
    }

    /// Sets the name of a node's output.
    pub fn set(&mut self, site: &Site<'_>, output: usize, name: String) {
        self.names.insert(ValueId { node: site.number, output }, name);
    }

    fn push(&mut self, op: &str, input: Vec<String>, output: Vec<String>, attribute: Vec<AttributeProto>) {
        let name = format!("{op}_{}", self.file.node.len());
        self.file.node.push(NodeProto {
            input,
            output,
            name: Some(name),
            op_type: Some(op.to_owned()),
            domain: None,
            attribute,
        });
    }

    /// Writes a node with an output and returns its name. An empty name stands for an input that is left out.
    pub fn node(&mut self, op: &str, inputs: &[&str]) -> String {
        self.node_with(op, inputs, &[])
    }

    /// [`Writer::node`] with attributes.
    pub fn node_with(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, AttributeProto)]) -> String {
        self.node_of(op, inputs, attributes, 1).swap_remove(0)
    }

    /// [`Writer::node_with`] with several outputs.
    pub fn node_of(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, AttributeProto)],
        outputs: usize,
    ) -> Vec<String> {
        let names: Vec<String> = (0..outputs).map(|_| self.fresh(&op.to_lowercase())).collect();
        let named =
            |(name, value): &(&str, AttributeProto)| AttributeProto { name: Some((*name).into()), ..value.clone() };
        self.push(
            op,
            inputs.iter().map(|&name| name.to_owned()).collect(),
            names.clone(),
            attributes.iter().map(named).collect(),
        );
        names
    }

    /// `x` as another type.
    pub fn cast(&mut self, x: &str, to: ElemType) -> String {
        self.node_with("Cast", &[x], &[("to", int(to.number().into()))])
    }
}

/// The nodes that the outputs need, in order, and the values that are read or are outputs.
fn needed(graph: &Nodes, outputs: &[(String, Value)]) -> (Vec<usize>, HashSet<ValueId>) {
    let mut values: HashSet<ValueId> = outputs.iter().map(|(_, value)| value.id()).collect();
    let mut is_needed = vec![false; graph.nodes.len()];
    values.iter().for_each(|id| is_needed[id.node] = true);
    for number in (0..graph.nodes.len()).rev() {
        if is_needed[number] {
            for &input in &graph.nodes[number].inputs {
                is_needed[input.node] = true;
                values.insert(input);
            }
        }
    }
    ((0..graph.nodes.len()).filter(|&number| is_needed[number]).collect(), values)
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    a.ty() == b.ty() && bytes(a).is_ok_and(|a| bytes(b) == Ok(a))
}

fn port(name: &str, dtype: DType, shape: &[Size]) -> Found<ValueInfoProto> {
    let dim = |size: &Size| match *size {
        Size { fixed: 0, per_row: 1 } => DimensionProto { dim_param: Some(BATCH.into()), ..DimensionProto::default() },
        size => DimensionProto { dim_value: size.known(), dim_param: size.known().is_none().then(|| size.to_string()) },
    };
    let tensor_type = Some(TensorTypeProto {
        elem_type: Some(elem_type(dtype)?.number()),
        shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }),
    });
    Ok(ValueInfoProto { name: Some(name.into()), r#type: Some(TypeProto { tensor_type, ..TypeProto::default() }) })
}

/// The type of ONNX that has the same elements.
pub(super) fn elem_type(dtype: DType) -> Found<ElemType> {
    Ok(match dtype {
        DType::F32 => ElemType::F32,
        DType::F16 => ElemType::F16,
        DType::BF16 => ElemType::BF16,
        DType::I32 => ElemType::I32,
        DType::U32 => ElemType::U32,
        DType::I8 => ElemType::I8,
        DType::U8 => ElemType::U8,
        DType::Bool => ElemType::Bool,
        other => return Err(format!("ONNX has no type {other}")),
    })
}

/// The elements in little-endian order, as ONNX stores them.
pub(super) fn bytes(tensor: &Tensor) -> Found<Vec<u8>> {
    Ok(match tensor.data() {
        Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::F64(v) => v.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        Data::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::BF16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I8(v) => v.iter().map(|&x| x as u8).collect(),
        Data::U8(v) => v.clone(),
        Data::Bool(v) => v.iter().map(|&x| x.into()).collect(),
        _ => return Err(format!("ONNX has no type {}", tensor.dtype())),
    })
}

pub(super) fn int(value: i64) -> AttributeProto {
    AttributeProto { r#type: Some(2), i: Some(value), ..AttributeProto::default() }
}

pub(super) fn ints(values: &[i64]) -> AttributeProto {
    AttributeProto { r#type: Some(7), ints: values.to_vec(), ..AttributeProto::default() }
}

pub(super) fn float(value: f64) -> AttributeProto {
    AttributeProto { r#type: Some(1), f: Some(value as f32), ..AttributeProto::default() }
}

pub(super) fn text(value: &str) -> AttributeProto {
    AttributeProto { r#type: Some(3), s: Some(Bytes::copy_from_slice(value.as_bytes())), ..AttributeProto::default() }
}

pub(super) fn texts(values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|value| Bytes::copy_from_slice(value.as_bytes())).collect();
    AttributeProto { r#type: Some(8), strings, ..AttributeProto::default() }
}
