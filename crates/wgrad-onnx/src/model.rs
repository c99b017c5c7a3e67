//! Models as they are on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;
use wgrad::{Error, Result};

use crate::build::Built;
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::proto::{FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// An ONNX model: its operators, weights, inputs and outputs. [`Model::build`] makes a graph of it.
pub struct Model {
    pub(crate) graph: GraphProto,
    pub(crate) functions: Vec<FunctionProto>,
    /// The tensors of the main graph.
    pub(crate) initializers: BTreeMap<String, Constant>,
    opsets: BTreeMap<String, i64>,
    producer: String,
    metadata: BTreeMap<String, String>,
    pub(crate) path: PathBuf,
}

/// An input or output of a [`Model`].
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, if wgrad has it; otherwise what it is.
    pub elem_type: std::result::Result<ElemType, String>,
    /// Its axes; `None` if the file does not tell.
    pub dims: Option<Vec<Dim>>,
}

/// The size of an axis of a [`Port`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A fixed size.
    Fixed(usize),
    /// A size that has a name, such as `batch`; the same name means the same size.
    Symbol(String),
    /// Any size.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// `x: float[batch, 3, 224, 224]`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.elem_type {
            Ok(ty) => write!(f, "{}: {ty}", self.name)?,
            Err(what) => write!(f, "{}: {what}", self.name)?,
        }
        match &self.dims {
            Some(dims) => write!(f, "[{}]", dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            None => f.write_str(" of any shape"),
        }
    }
}

impl Port {
    fn of(info: &ValueInfoProto) -> Port {
        let name = info.name.clone().unwrap_or_default();
        let ty = info.r#type.as_ref();
        let tensor = ty.and_then(|ty| ty.tensor_type.as_ref());
        let elem_type = match (ty, tensor) {
            (_, Some(tensor)) => ElemType::of(tensor.elem_type.unwrap_or(0).into()),
            (Some(ty), _) if ty.sequence_type.is_some() => Err("a sequence".to_owned()),
            (Some(ty), _) if ty.optional_type.is_some() => Err("an optional value".to_owned()),
            _ => Err("of no type".to_owned()),
        };
        let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| {
            let dim = |dim: &crate::proto::DimensionProto| match (dim.dim_value, &dim.dim_param) {
                (Some(size), _) if size >= 0 => Dim::Fixed(size as usize),
                (_, Some(name)) if !name.is_empty() => Dim::Symbol(name.clone()),
                _ => Dim::Unknown,
            };
            shape.dim.iter().map(dim).collect()
        });
        Port { name, elem_type, dims }
    }
}

/// A node of a [`Model`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name; may be empty.
    pub name: String,
    /// Its operator: `Conv`, `com.microsoft.Gelu`.
    pub operator: String,
    /// The names of its inputs; empty for those that are left out.
    pub inputs: Vec<String>,
    /// The names of its outputs.
    pub outputs: Vec<String>,
}

impl NodeInfo {
    /// The node as a line: `Conv(x, w) -> y: float[1, 8, 32, 32]`, with types if the model could be built.
    pub fn describe(&self, built: Option<&Built>) -> String {
        let output = |name: &String| match built.and_then(|built| built.type_of(name)) {
            Some((ty, shape)) => format!("{name}: {ty}{shape:?}"),
            None => name.clone(),
        };
        let outputs: Vec<String> = self.outputs.iter().filter(|name| !name.is_empty()).map(output).collect();
        format!("{}({}) -> {}", self.operator, self.inputs.join(", "), outputs.join(", "))
    }
}

impl Model {
    /// Reads a file. Weights in other files are read, too.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] if the file is no ONNX model or damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Model::read(bytes, path)
    }

    /// Reads a model from the bytes of a file. Weights in other files are looked for in `folder`.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_bytes(bytes: Vec<u8>, folder: impl AsRef<Path>) -> Result<Model> {
        Model::read(bytes, &folder.as_ref().join("model"))
    }

    fn read(bytes: Vec<u8>, path: &Path) -> Result<Model> {
        let error = |message: String| Error::File { path: path.to_owned(), message };
        let proto = ModelProto::decode(Bytes::from(bytes)).map_err(|why| error(format!("is no ONNX model: {why}")))?;
        let mut graph = proto.graph.ok_or_else(|| error("is no ONNX model: it has no graph".into()))?;
        if graph.node.is_empty() && graph.output.is_empty() {
            return Err(error("is no ONNX model: its graph has no nodes and no outputs".into()));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut initializers = BTreeMap::new();
        for tensor in std::mem::take(&mut graph.initializer) {
            let name = tensor.name.clone().unwrap_or_default();
            let constant = Constant::read(&tensor, |tensor| external(folder, tensor));
            let constant = constant.map_err(|why| error(format!("tensor `{name}`: {why}")))?;
            if initializers.insert(name.clone(), constant).is_some() {
                return Err(error(format!("tensor `{name}` occurs twice")));
            }
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(error("it has sparse tensors, which are not supported; export it with dense ones".into()));
        }
        let opsets = |list: &[crate::proto::OperatorSetIdProto]| -> BTreeMap<String, i64> {
            let domain = |name: Option<&String>| name.filter(|name| *name != "ai.onnx").cloned().unwrap_or_default();
            list.iter().map(|set| (domain(set.domain.as_ref()), set.version.unwrap_or(1))).collect()
        };
        let entry = |(key, value): (Option<String>, Option<String>)| Some((key?, value.unwrap_or_default()));
        let producer = [proto.producer_name, proto.producer_version].into_iter().flatten().collect::<Vec<_>>();
        Ok(Model {
            graph,
            functions: proto.functions,
            initializers,
            opsets: opsets(&proto.opset_import),
            producer: producer.join(" ").trim().to_owned(),
            metadata: proto.metadata_props.into_iter().filter_map(|pair| entry((pair.key, pair.value))).collect(),
            path: path.to_owned(),
        })
    }

    /// The inputs, without those that have a value in the file.
    pub fn inputs(&self) -> Vec<Port> {
        let ports = self.graph.input.iter().map(Port::of);
        ports.filter(|port| !self.initializers.contains_key(&port.name)).collect()
    }

    /// The outputs.
    pub fn outputs(&self) -> Vec<Port> {
        self.graph.output.iter().map(Port::of).collect()
    }

    /// The version of an operator set: `""` is that of ONNX.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        self.opsets.get(domain).copied()
    }

    /// The operator sets: domains and versions.
    pub fn opsets(&self) -> &BTreeMap<String, i64> {
        &self.opsets
    }

    /// The program that wrote the file, with its version.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The metadata of the file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The number of nodes of each operator, those in branches and loops included.
    pub fn operators(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let mut open: Vec<&NodeProto> = self.graph.node.iter().collect();
        while let Some(node) = open.pop() {
            *counts.entry(operator(node)).or_default() += 1;
            let graphs = node.attribute.iter().filter_map(|attribute| attribute.g.as_ref());
            open.extend(graphs.flat_map(|graph| &graph.node));
        }
        counts
    }

    /// The nodes of the main graph, in order.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let info = |node: &NodeProto| NodeInfo {
            name: node.name.clone().unwrap_or_default(),
            operator: operator(node),
            inputs: node.input.clone(),
            outputs: node.output.clone(),
        };
        self.graph.node.iter().map(info).collect()
    }

    /// The names of the symbolic axes of the inputs.
    pub fn symbols(&self) -> BTreeSet<String> {
        let dims = self.inputs().into_iter().filter_map(|port| port.dims).flatten();
        dims.filter_map(|dim| if let Dim::Symbol(name) = dim { Some(name) } else { None }).collect()
    }
}

/// The name of a node's operator, with its domain unless that is ONNX's: `Conv`, `com.microsoft.Gelu`.
pub(crate) fn operator(node: &NodeProto) -> String {
    let name = node.op_type.as_deref().unwrap_or_default();
    match node.domain.as_deref() {
        None | Some("" | "ai.onnx") => name.to_owned(),
        Some(domain) => format!("{domain}.{name}"),
    }
}

/// Reads the bytes of a tensor in another file, which must be in the model's folder.
pub(crate) fn external(folder: &Path, tensor: &TensorProto) -> std::result::Result<Vec<u8>, String> {
    let entry = |key: &str| {
        let found = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
        found.and_then(|entry| entry.value.clone())
    };
    let location = entry("location").ok_or("its data is in another file, but no file is named")?;
    let within = Path::new(&location);
    if !within.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("its data is in {location}, which is outside of the model's folder"));
    }
    let number = |key: &str| -> std::result::Result<Option<u64>, String> {
        let parsed =
            entry(key).map(|text| text.parse().map_err(|_| format!("the {key} `{text}` of its data is no number")));
        parsed.transpose()
    };
    let path = folder.join(within);
    let failed = |why: std::io::Error| format!("its data in {}: {why}", path.display());
    let mut file = File::open(&path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or(size.saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|end| end > size) {
        let path = path.display();
        return Err(format!("its data is {length} bytes at {offset} of {path}, which has only {size} bytes"));
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
