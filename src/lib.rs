//! A deep-learning compute engine on [wgpu](https://docs.rs/wgpu): WGSL kernels, a typed static
//! graph with reverse-mode differentiation, and a CPU reference in f64 that checks every number.
//!
//! ```
//! use wgrad::{DType, Device, Graph, Session, Tensor};
//!
//! let graph = Graph::new();
//! let a = graph.input("a", DType::F32, [2, 3]);
//! let b = graph.input("b", DType::F32, [3, 2]);
//! let y = a.matmul(&b).relu();
//!
//! let mut session = Session::new(Device::cpu()); // or Device::open(None)? for the best GPU
//! let program = session.compile(&graph, &[&y])?;
//! let a = Tensor::new([2, 3], [1.0f32, 2.0, 3.0, -1.0, -2.0, -3.0])?;
//! let b = Tensor::new([3, 2], [1.0f32, 0.0, 0.0, 1.0, 1.0, 1.0])?;
//! let outputs = session.run(&program, &[("a", &a), ("b", &b)])?;
//! assert_eq!(outputs[0].to_f32(), [4.0, 5.0, 0.0, 0.0]);
//! # Ok::<(), wgrad::Error>(())
//! ```
//!
//! Start with [`Graph`] and [`Session`]; layers are in [`nn`], optimisers in [`optim`]. Names and
//! layouts are PyTorch's (`conv1.weight`, NCHW, OIHW).
//!
//! # Features
//!
//! None is on by default.
//!
//! - `images`: `data::ImageFolder`, a data set of PNG, JPEG and PNM files in a folder for each class.
//! - `mpi`: `distributed::World::init`, for [training on several devices](distributed). Needs an MPI library and
//!   libclang to build.
//! - `tracing`: the spans of a [`Trace`] also go to subscribers of the crate [`tracing`](https://docs.rs/tracing).
//! - `web`: for browsers, with WebGPU, when compiled for `wasm32-unknown-unknown`. A browser cannot wait: use the async
//!   forms of what waits for the device, such as [`Session::run_async`].

#![warn(missing_docs)]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod distributed;
mod error;
mod files;
mod parallel;
pub mod profile;
pub mod shader;
pub mod shape;
mod tensor;
/// The clock.
mod time {
    #[cfg(not(target_family = "wasm"))]
    pub use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
    #[cfg(target_family = "wasm")]
    pub use web_time::{Duration, Instant, SystemTime, UNIX_EPOCH};
}
mod trace;

pub mod op;

mod autodiff;
pub mod graph;

pub mod ops;

pub mod cpu;
pub mod plan;

mod gpu;

mod device;
mod session;
mod timing;

pub mod check;
pub mod tuning;

pub mod data;
pub mod io;
pub mod loss;
pub mod models;
pub mod nn;
pub mod optim;
pub mod quant;
pub mod train;

/// What most programs use: `use wgrad::prelude::*;`.
///
/// ```
/// use wgrad::prelude::*;
///
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [2, 3]);
/// let y = Linear::new(&Scope::eval(&graph, 0), "fc", 3, 4).forward(&x).relu();
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let x = Tensor::try_from(vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]])?;
/// println!("{}", session.run(&program, &[("x", &x)])?[0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub mod prelude {
    pub use crate::nn::{Layer, Linear, Scope, Sequential};
    pub use crate::optim::{Adam, AdamW, Optimizer, Sgd};
    pub use crate::{DType, Device, Error, Graph, Reduction, Session, Tensor, Value};
}

pub use autodiff::{gradients, gradients_of};
pub use device::{Device, NO_ADAPTER, OpenOptions};
pub use error::{Error, GraphError, Result};
pub use graph::{Graph, Value};
/// The numbers of [`Data::F16`] and [`Data::BF16`].
pub use half::{bf16, f16};
pub use loss::Reduction;
pub use op::Precision;
pub use plan::{Finding, Limit, lint};
pub use profile::Profile;
pub use session::{Pending, Program, Session};
pub use shape::{Shape, View};
pub use tensor::{DType, Data, Tensor, TensorType};
pub use timing::{CallTime, LaunchTime, Phases, StepProfile};
pub use trace::{Span, Trace};

/// Runs the documents' examples as doc tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct ReadMe;

    #[doc = include_str!("../docs/GUIDE.md")]
    struct Guide;

    #[doc = include_str!("../docs/guide/loops.md")]
    struct Loops;

    #[doc = include_str!("../docs/guide/running.md")]
    struct Running;

    #[doc = include_str!("../docs/guide/accuracy.md")]
    struct Accuracy;

    #[doc = include_str!("../docs/guide/devices.md")]
    struct Devices;

    #[doc = include_str!("../docs/PYTORCH.md")]
    struct FromPyTorch;

    #[doc = include_str!("../ARCHITECTURE.md")]
    struct Architecture;
}
