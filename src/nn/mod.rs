//! Layers. A model is a function from a [`Scope`] and an input to an output. The scope holds the graph, the seed and
//! the mode (training or evaluation), so one function builds every graph of the model: the training step, the
//! evaluation, other batch sizes. Their programs share the session's variables by name. Parameter names, layouts and
//! initial values match PyTorch.
//!
//! ```
//! use wgrad::data::Batches;
//! use wgrad::nn::Scope;
//! use wgrad::optim::{Optimizer, Sgd};
//! use wgrad::{DType, Device, Graph, Program, Session, Tensor, Value};
//!
//! fn model(nn: &Scope, x: &Value) -> Value {
//!     let x = nn.linear("fc1", x, 16).relu();
//!     nn.linear("fc2", &nn.dropout(&x, 0.2), 1)
//! }
//!
//! // A training step for one batch size.
//! fn train(session: &mut Session, batch: usize) -> wgrad::Result<Program> {
//!     let graph = Graph::new();
//!     let x = graph.input("x", DType::F32, [batch, 4]);
//!     let y = graph.input("y", DType::F32, [batch, 1]);
//!     let loss = (model(&Scope::train(&graph, 42), &x) - y).square().mean_all();
//!     Sgd::new().lr(0.05).minimize(&graph, &loss);
//!     session.compile(&graph, &[&loss])
//! }
//!
//! // Evaluation on one row: the same function and variables, with dropout off.
//! fn eval(session: &mut Session) -> wgrad::Result<Program> {
//!     let graph = Graph::new();
//!     let x = graph.input("x", DType::F32, [1, 4]);
//!     session.compile(&graph, &[&model(&Scope::eval(&graph, 42), &x)])
//! }
//!
//! let mut session = Session::new(Device::cpu());
//! let (full, rest, eval) = (train(&mut session, 8)?, train(&mut session, 3)?, eval(&mut session)?);
//! let (x, y) = (Tensor::new([11, 4], vec![0.5f32; 44])?, Tensor::new([11, 1], vec![3.0f32; 11])?);
//! for epoch in 0..100 {
//!     for rows in Batches::new(11, 8)?.shuffled(1).epoch(epoch) {
//!         let step = if rows.len() == 8 { &full } else { &rest };
//!         session.run(step, &[("x", &x.rows(&rows)?), ("y", &y.rows(&rows)?)])?;
//!     }
//! }
//! let predicted = session.run(&eval, &[("x", &x.rows(&[0])?)])?[0].item()?;
//! assert!((predicted - 3.0).abs() < 0.5);
//! assert_eq!(session.names(), ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]);
//! # Ok::<(), wgrad::Error>(())
//! ```
//!
//! Layers that are reused or composed at run time are also available as structs: [`Linear`], [`Conv2d`], ...,
//! [`Sequential`], all with [`Layer::forward`]. Every `Fn(&Value) -> Value` is a layer, so activations are
//! `Value::relu`, `Value::tanh`, or a closure.

mod attention;
mod conv;
mod embedding;
pub mod init;
mod layers;
mod norm;
mod recurrent;
mod resize;
mod scope;
mod transformer;

pub use attention::{MultiheadAttention, rotary, sinusoidal_positions};
pub use conv::{Conv1d, ConvTranspose1d, ConvTranspose2d, SeparableConv2d};
pub use embedding::Embedding;
pub use init::Init;
pub use layers::{AvgPool2d, Conv2d, DROPOUT, Dropout, Flatten, Identity, Layer, Linear, MaxPool2d, PRelu, Sequential};
pub use norm::{BatchNorm, BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm, RmsNorm};
pub use recurrent::{Recurrent, RecurrentOptions, States};
pub use resize::{Pad2d, PixelShuffle, PixelUnshuffle, Sides, Upsample};
pub use scope::Scope;
pub use transformer::{TransformerDecoder, TransformerDecoderLayer, TransformerEncoder, TransformerEncoderLayer};
