//! The one error type.

use std::fmt;
use std::panic::Location;
use std::path::{Path, PathBuf};

use crate::TensorType;

/// `Result` with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong, grouped by whose business it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The graph has mistakes: all of them, in the order in which they were made.
    #[error("{}", GraphErrors(.0))]
    Graph(Vec<GraphError>),
    /// A value handed in at run time does not fit: its name, what was expected, what came.
    #[error("{0}")]
    Input(String),
    /// No adapter, an unknown or ambiguous device name, a device that could not be opened.
    #[error("{0}")]
    Device(String),
    /// The plan needs more than the device has: which tensor or kernel, how much, what to do.
    #[error("{0}")]
    Limit(String),
    /// The device ran out of memory.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// The device was lost (driver reset, unplugged, destroyed). What was computed on it since the
    /// last save is gone; graphs, host tensors and files are kept.
    #[error(
        "the device was lost: {0}. The variables that lived on it are gone with it; graphs and saved files are kept. \
         Open the device again, compile in a new session and load the last checkpoint (Session::load)"
    )]
    DeviceLost(String),
    /// The driver or wgpu refused a command or a shader.
    #[error("the GPU refused: {0}")]
    Gpu(String),
    /// A file's content is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A cell of a table (CSV) is not what it should be.
    #[error("{}: line {line}, column {column}: {message}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The line of the file at which the cell's row begins; the header is on line 1.
        line: u64,
        /// The number of the cell in its row, from 1.
        column: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    /// A complaint about a file's content.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Error {
        Error::File { path: path.to_path_buf(), message: message.into() }
    }
}

/// One mistake in building a graph: the op, its inputs, what was expected, and where it was called.
#[derive(Clone, Debug)]
pub struct GraphError {
    /// The op's name, such as `matmul`.
    pub op: String,
    /// The types of its inputs.
    pub inputs: Vec<TensorType>,
    /// What was expected and the way out.
    pub message: String,
    /// The line of user code that asked for the op.
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
            [one] => write!(f, "the graph has a mistake:\n{one}"),
            all => {
                write!(f, "the graph has {} mistakes:", all.len())?;
                all.iter().try_for_each(|mistake| write!(f, "\n{mistake}"))
            }
        }
    }
}
