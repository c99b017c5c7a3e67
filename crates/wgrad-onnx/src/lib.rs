//! ONNX models as graphs of [wgrad]: run them on any GPU, check every kernel call against the CPU reference, and train
//! them further.
//!
//! ```no_run
//! use wgrad::prelude::*;
//! use wgrad_onnx::{BuildOptions, Model};
//!
//! let model = Model::load("model.onnx")?;
//! let graph = Graph::new();
//! let built = model.build(&graph, &BuildOptions::new().dim("batch", 8))?;
//! let mut session = Session::new(Device::open(None)?);
//! let program = session.compile(&graph, &built.values())?;
//! let x = Tensor::new([8, 3, 32, 32], vec![0.5f32; 8 * 3 * 32 * 32])?;
//! let outputs = session.run(&program, &[("x", &x)])?;
//! # Ok::<(), wgrad::Error>(())
//! ```
//!
//! A model becomes an ordinary graph: weights are parameters with their names in the file, so gradients, optimisers,
//! shadow runs, `find_nan`, lint and tuning work as for any other.

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/onnx.md")]
struct Guide;

mod build;
mod constant;
mod elem_type;
mod export;
mod host;
mod model;
mod node;
pub mod node_tests;
mod ops;
mod options;
mod proto;
mod run;
mod small_float;
mod value;

pub use build::{Built, Output, OutputValue, Problem};
pub use constant::Constant;
pub use elem_type::ElemType;
pub use export::Export;
pub use model::{Dim, Model, NodeInfo, Port};
pub use ops::names as operators;
pub use options::BuildOptions;
pub use run::Prepared;
