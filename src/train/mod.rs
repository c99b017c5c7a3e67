//! Training: a [`Trainer`] with epochs, validation, metrics, checkpoints and progress, and its parts for user-defined
//! loops.
//!
//! ```no_run
//! use wgrad::data::{Mnist, Scaler};
//! use wgrad::optim::schedule::Cosine;
//! use wgrad::prelude::*;
//! use wgrad::train::{Metric, Model, Trainer};
//!
//! let mnist = Mnist::load("examples/data/mnist10k")?;
//! let mut model = Model::new([1, 28, 28], wgrad::models::mnist_cnn);
//! let mut session = Session::new(Device::open(None)?);
//! let history = Trainer::new(&model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
//!     .optimizer(AdamW::new())
//!     .schedule(|steps| Cosine { lr: 4e-3, last: 1e-5, steps })
//!     .epochs(4)
//!     .batch(64)
//!     .monitor(Metric::Accuracy)
//!     .folder("runs/mnist")
//!     .resume(true) // goes on where an earlier run was interrupted
//!     .restore_best()
//!     .fit(&mut session, &mnist.train, Some(&mnist.test))?;
//! println!("{history}");
//! let logits = model.predict(&mut session, &mnist.test.images)?;
//! model.save(&session, "mnist.safetensors")?;
//! # Ok::<(), wgrad::Error>(())
//! ```
//!
//! Its parts can be used alone: [`Programs`] compiles a step for each batch size, [`Loader`] prepares batches on worker
//! threads, [`Meter`] computes metrics, [`Model`] runs a network on any number of rows, [`Progress`] shows progress,
//! [`Session::save`](crate::Session::save) and [`Session::load`](crate::Session::load) keep variables and counters.

mod checked;
mod dataset;
mod describe;
mod diverged;
mod evaluate;
mod events;
mod folder;
mod history;
mod interrupt;
mod loader;
mod metric;
mod model;
mod programs;
mod progress;
mod ranks;
mod report;
mod run;
mod settings;
mod state;
mod steps;
mod trainer;
mod watch;
mod worst;

pub use checked::Checked;
pub use dataset::{Augmented, Batch, Dataset, FromFn, Map};
pub use history::{Ended, Epoch, Evaluation, History};
pub use loader::{Loaded, Loader};
pub use metric::{Custom, Meter, Metric};
pub use model::Model;
pub use programs::{Inputs, Programs};
pub use progress::Progress;
pub use report::{Report, STYLE};
pub use trainer::{Control, Step, StepEvent, Trainer};
