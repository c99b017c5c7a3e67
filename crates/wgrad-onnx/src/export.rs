//! Graphs as ONNX files.

mod elementwise;
mod nodes;
mod patterns;
mod recurrent;
mod site;
mod writer;

use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;
use wgrad::train::Model;
use wgrad::{Error, Graph, Result, Session, Value};

use crate::proto::{ModelProto, StringStringEntryProto, TensorProto};
use writer::Writer;

/// The version of the operators in exported files.
const OPSET: i64 = 21;

/// Messages of Protocol Buffers have less than 2 GiB; larger models have their tensors in a file of their own.
const LARGEST_FILE: usize = 2_000_000_000;

/// Tensors from this size on are moved to the file of external data.
const SMALLEST_EXTERNAL: usize = 1024;

/// The numbers of rows of the graphs from which [`Export::batched`] finds the sizes that depend on it: two to find how,
/// and a third to test it.
const ROWS: [usize; 3] = [2, 3, 5];

/// A graph to be written as an ONNX file, for ONNX Runtime and others: operators of opset 21, and the variables of a
/// session as initializers with their names.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::train;
/// use wgrad_onnx::{BuildOptions, Export, Model};
///
/// let mut model = train::Model::new([4], |nn: &Scope, x: &Value| nn.linear("fc2", &nn.linear("fc1", x, 16).relu(), 3));
/// let mut session = Session::new(Device::cpu());
/// let x = Tensor::new([1, 4], [1.0f32, 2.0, 3.0, 4.0])?;
/// let y = model.predict(&mut session, &x)?;
///
/// // Any number of rows: the first axis of input `x` and output `y` is called `batch`.
/// let file = Export::model(&model).to_bytes(&session)?;
///
/// // The file has the same numbers.
/// let graph = Graph::new();
/// let built = Model::from_bytes(file, ".")?.build(&graph, &BuildOptions::new().dim("batch", 1))?;
/// let program = session.compile(&graph, &built.values())?;
/// assert_eq!(session.run(&program, &[("x", &x)])?[0].to_f64(), y.to_f64());
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// Variables that the session does not have yet get their initial values, as when a program is compiled. Gradients,
/// optimisers and random numbers have no operators in ONNX: export the graph of an evaluation.
pub struct Export {
    /// The graph; or the same for the numbers of [`ROWS`].
    graphs: Vec<(Graph, Vec<(String, Value)>)>,
    external: bool,
}

impl Export {
    /// A graph with its outputs, by name. All sizes are fixed.
    pub fn new(graph: &Graph, outputs: &[(&str, &Value)]) -> Export {
        let outputs = outputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect();
        Export { graphs: vec![(graph.clone(), outputs)], external: false }
    }

    /// A graph whose inputs have any number of rows. `build` makes the graph and its outputs for a given number; it is
    /// called for three, and sizes that differ depend on the number of rows. They must do so linearly.
    ///
    /// ```
    /// use wgrad::prelude::*;
    /// use wgrad_onnx::Export;
    /// let export = Export::batched(|rows| {
    ///     let graph = Graph::new();
    ///     let x = graph.input("x", DType::F32, [rows, 8, 2]);
    ///     let y = x.flatten(1).softmax(-1);
    ///     (graph, vec![("y".to_owned(), y)])
    /// });
    /// let file = export.to_bytes(&Session::new(Device::cpu()))?;
    /// assert_eq!(wgrad_onnx::Model::from_bytes(file, ".")?.outputs()[0].to_string(), "y: float[batch, 16]");
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn batched(build: impl Fn(usize) -> (Graph, Vec<(String, Value)>)) -> Export {
        Export { graphs: ROWS.map(build).into(), external: false }
    }

    /// The evaluation of a model for any number of rows: input `x`, output `y`.
    pub fn model(model: &Model) -> Export {
        Export::batched(|rows| {
            let (graph, y) = model.graph(rows);
            (graph, vec![("y".to_owned(), y)])
        })
    }

    /// Whether [`Export::save`] writes the tensors to a file of their own, `PATH.data`. Models of 2 GB and more always
    /// have one.
    pub fn external_data(self, external: bool) -> Export {
        Export { external, ..self }
    }

    fn message(&self, session: &Session) -> Result<ModelProto> {
        for (graph, outputs) in &self.graphs {
            if let Some((name, _)) = outputs.iter().find(|(_, value)| !value.graph().same(graph)) {
                return Err(Error::Input(format!("output `{name}` is not a value of the graph that is exported")));
            }
        }
        let contents: Vec<_> = self.graphs.iter().map(|(graph, _)| graph.nodes()).collect();
        let outputs: Vec<_> = self.graphs.iter().map(|(_, outputs)| &outputs[..]).collect();
        Writer::new(session, &contents, &outputs)?.finish()
    }

    /// The file as bytes.
    ///
    /// # Errors
    /// [`Error::Input`] that lists all nodes without an ONNX operator, with the lines that made them; or if the model
    /// has 2 GB or more, which only [`Export::save`] can write.
    pub fn to_bytes(&self, session: &Session) -> Result<Vec<u8>> {
        let message = self.message(session)?;
        match message.encoded_len() < LARGEST_FILE {
            true => Ok(message.encode_to_vec()),
            false => Err(Error::Input("the model has 2 GB or more, which needs external data; save() it".into())),
        }
    }

    /// Writes the file, and that of external data if there is one, each atomically.
    ///
    /// # Errors
    /// As [`Export::to_bytes`]; [`Error::Io`].
    pub fn save(&self, session: &Session, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut message = self.message(session)?;
        if self.external || message.encoded_len() >= LARGEST_FILE {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{name}.data");
            let graph = message.graph.as_mut();
            let data = moved(graph.map_or(&mut [], |graph| &mut graph.initializer[..]), &name);
            wgrad::io::write_atomically(path.with_file_name(name), &data)?;
        }
        wgrad::io::write_atomically(path, &message.encode_to_vec())
    }
}

/// Moves the data of large tensors to a file of this name, which it returns.
fn moved(tensors: &mut [TensorProto], name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for tensor in tensors {
        let Some(bytes) = tensor.raw_data.take_if(|bytes| bytes.len() >= SMALLEST_EXTERNAL) else { continue };
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        tensor.external_data = vec![
            entry("location", name.to_owned()),
            entry("offset", data.len().to_string()),
            entry("length", bytes.len().to_string()),
        ];
        tensor.data_location = Some(1);
        data.extend(Bytes::as_ref(&bytes));
    }
    data
}
