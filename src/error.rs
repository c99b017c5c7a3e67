//! The error type.

use std::fmt;
use std::panic::Location;
use std::path::{Path, PathBuf};

use crate::TensorType;

/// `Result` with the crate's [`Error`].
///
/// ```
/// fn half(x: f64) -> wgrad::Result<f64> {
///     if x.is_nan() { Err(wgrad::Error::Input("expected a number".into())) } else { Ok(x / 2.0) }
/// }
/// assert_eq!(half(3.0)?, 1.5);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong, grouped by where the fix belongs.
///
/// `Debug` writes the same text as `Display`, because that is what `fn main() -> wgrad::Result<()>` prints:
///
/// ```
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [2, 3]));
/// let product = a.matmul(&b);
/// let error = wgrad::Session::new(wgrad::Device::cpu()).compile(&graph, &[&product]).err().unwrap();
/// assert_eq!(format!("{error:?}"), error.to_string());
/// assert!(error.to_string().contains("matmul(f32[2, 3], f32[2, 3]): the inner sizes differ"));
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// All errors in the graph, in the order in which they were made.
    #[error("{}", GraphErrors(.0))]
    Graph(Vec<GraphError>),
    /// A value passed at run time is not valid: its name, what was expected, what was passed.
    #[error("{0}")]
    Input(String),
    /// No adapter, an unknown device name, or a device that could not be opened.
    #[error("{0}")]
    Device(String),
    /// The plan exceeds a limit of the device: which tensor or kernel, by how much, what to do.
    #[error("{0}")]
    Limit(String),
    /// The device ran out of memory.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// The device was lost (driver reset, unplugged, destroyed). Everything computed on it since the
    /// last save is lost; graphs, host tensors and files remain.
    #[error(
        "the device was lost: {0}. Variables stored on it are lost; graphs and saved files remain. Open the device \
         again, compile in a new session and load the last checkpoint (Session::load)"
    )]
    DeviceLost(String),
    /// The driver or wgpu rejected a command or a shader.
    #[error("GPU error: {0}")]
    Gpu(String),
    /// A rank of a [distributed](crate::distributed) job failed or is not there: which one, and why.
    #[error("{0}")]
    Distributed(String),
    /// A training cannot go on: which step, why, and the last good checkpoint.
    #[error("{0}")]
    Training(String),
    /// A file's content is invalid.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A cell of a table (CSV) is invalid.
    #[error("{}: line {line}, column {column}: {message}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The line at which the cell's row begins; the header is on line 1.
        line: u64,
        /// The number of the cell in its row, from 1.
        column: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The operating system could not read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    /// An error about a file's content.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Error {
        Error::File { path: path.to_path_buf(), message: message.into() }
    }
}

/// A mistake made while building a graph: the op, its inputs, what was expected, and the caller's line.
///
/// ```
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// graph.input("x", DType::I32, [2]).exp();
/// let error = &graph.errors()[0];
/// assert_eq!((error.op.as_str(), error.inputs[0].to_string()), ("exp", "i32[2]".to_owned()));
/// assert!(error.to_string().contains("expected f32 operands; cast() the others"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GraphError {
    /// The op's name, such as `matmul`.
    pub op: String,
    /// The types of its inputs.
    pub inputs: Vec<TensorType>,
    /// What was expected, and how to fix it.
    pub message: String,
    /// The line of user code that called the op.
    pub location: &'static Location<'static>,
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inputs: Vec<String> = self.inputs.iter().map(ToString::to_string).collect();
        write!(f, "{}({}): {}\n  at {}", self.op, inputs.join(", "), self.message, self.location)
    }
}

struct GraphErrors<'a>(&'a [GraphError]);

impl fmt::Display for GraphErrors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [one] => write!(f, "the graph has an error:\n{one}"),
            all => {
                write!(f, "the graph has {} errors:", all.len())?;
                all.iter().try_for_each(|error| write!(f, "\n{error}"))
            }
        }
    }
}
