//! How a model becomes a graph.

use std::collections::BTreeMap;

use wgrad::Value;

use crate::constant::Constant;
use crate::model::{Dim, Model, Port};

/// How a [`Model`] becomes a graph.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    pub(crate) dims: BTreeMap<String, usize>,
    pub(crate) default_dim: Option<usize>,
    pub(crate) shapes: BTreeMap<String, Vec<usize>>,
    pub(crate) constants: BTreeMap<String, Constant>,
    pub(crate) given: BTreeMap<String, Value>,
    pub(crate) outputs: Vec<String>,
    pub(crate) frozen: Vec<String>,
    pub(crate) prefix: String,
    pub(crate) training: bool,
    pub(crate) inference: bool,
}

impl BuildOptions {
    /// Every size that the file leaves open must be set.
    pub fn new() -> BuildOptions {
        BuildOptions::default()
    }

    /// The size of a symbolic axis, such as `batch`.
    pub fn dim(mut self, name: &str, size: usize) -> BuildOptions {
        self.dims.insert(name.to_owned(), size);
        self
    }

    /// The size of all axes that have no size otherwise.
    pub fn default_dim(mut self, size: usize) -> BuildOptions {
        self.default_dim = Some(size);
        self
    }

    /// The shape of an input.
    pub fn shape(mut self, input: &str, shape: impl Into<Vec<usize>>) -> BuildOptions {
        self.shapes.insert(input.to_owned(), shape.into());
        self
    }

    /// A value for an input, which becomes part of the graph. Inputs that decide about shapes, such as the new shape of
    /// a `Reshape`, must be set: the shapes of a graph are fixed.
    pub fn constant(mut self, input: &str, value: Constant) -> BuildOptions {
        self.constants.insert(input.to_owned(), value);
        self
    }

    /// A value of the graph for an input, instead of an input of the graph: the model becomes a part of a larger one.
    pub fn input(mut self, input: &str, value: &Value) -> BuildOptions {
        self.given.insert(input.to_owned(), value.clone());
        self
    }

    /// A value inside of the model as output, instead of the model's outputs: the features before the last layers. Call
    /// it again for more. `wgrad onnx inspect --nodes` lists the names. Nodes that only the other outputs need are left
    /// out.
    pub fn output(mut self, name: &str) -> BuildOptions {
        self.outputs.push(name.to_owned());
        self
    }

    /// The inputs whose open sizes are taken from [`BuildOptions::default_dim`].
    pub fn guessed(&self, model: &Model) -> Vec<Port> {
        let exact = BuildOptions { default_dim: None, ..self.clone() };
        let ports = model.inputs().into_iter();
        ports.filter(|port| !self.is_set(&port.name) && exact.shape_of(port).is_err()).collect()
    }

    /// Whether the value of an input is set.
    pub fn is_set(&self, input: &str) -> bool {
        self.constants.contains_key(input)
    }

    /// Weights that are not trained: those whose names match the pattern, in which `*` stands for any characters. Call
    /// it again for more. The others are parameters.
    pub fn freeze(mut self, pattern: &str) -> BuildOptions {
        self.frozen.push(pattern.to_owned());
        self
    }

    /// For training: batch normalisation uses the statistics of the batch, and each run updates its running mean and
    /// variance. Without it, as in inference, it uses these.
    pub fn training(mut self) -> BuildOptions {
        self.training = true;
        self
    }

    /// For inference alone: weights are constants of the graph, what depends only on them is computed here, and batch
    /// normalisations become part of the convolutions before them. The graph has no variables.
    pub fn inference(mut self) -> BuildOptions {
        self.inference = true;
        self
    }

    /// Text before the names of all weights, to use several models in one session.
    pub fn prefix(mut self, prefix: &str) -> BuildOptions {
        self.prefix = prefix.to_owned();
        self
    }
}

impl BuildOptions {
    /// The shape of an input with these options.
    ///
    /// # Errors
    /// If the size of an axis is not known, or a given shape does not fit.
    pub fn shape_of(&self, port: &Port) -> std::result::Result<Vec<usize>, String> {
        let (name, dims) = (&port.name, port.dims.as_deref());
        if let Some(shape) = self.shapes.get(name) {
            let fits = |(dim, size): (&Dim, &usize)| !matches!(dim, Dim::Fixed(n) if n != size);
            let fit = dims.is_none_or(|dims| dims.len() == shape.len() && dims.iter().zip(shape).all(fits));
            return match fit {
                true => Ok(shape.clone()),
                false => Err(format!(
                    "input `{port}` cannot have the shape {shape:?}; sizes that are numbers are fixed by the file: \
                     use them, or export the model with symbolic axes"
                )),
            };
        }
        let dims = dims.ok_or_else(|| format!("the file does not tell the shape of input `{name}`; set it"))?;
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Symbol(symbol) => self.dims.get(symbol).copied().or(self.default_dim),
            Dim::Unknown => self.default_dim,
        };
        if let Some(sizes) = dims.iter().map(size).collect() {
            return Ok(sizes);
        }
        let open: Vec<&Dim> = dims.iter().filter(|dim| size(dim).is_none()).collect();
        if open.contains(&&Dim::Unknown) {
            return Err(format!("input `{port}` has open sizes without a name; set its shape"));
        }
        let names: Vec<String> = open.iter().map(|dim| format!("`{dim}`")).collect();
        Err(format!("input `{port}` has the open sizes {}; set them, for example {}=1", names.join(", "), open[0]))
    }
}

/// Whether a name matches a pattern in which `*` stands for any characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}
