//! Data sets on the host: MNIST, and batches of rows in a seeded order.
//!
//! ```no_run
//! use wgrad::data::{Batches, Mnist};
//! let mnist = Mnist::load("examples/data/mnist10k")?;
//! let batches = Batches::new(mnist.train.len(), 64)?.shuffled(42);
//! for epoch in 0..3 {
//!     for rows in batches.epoch(epoch) {
//!         let images = mnist.train.images.rows(&rows)?; // f32[64, 1, 28, 28]; the last batch may be smaller
//!         let labels = mnist.train.labels.rows(&rows)?; // i32[64]
//!     }
//! }
//! # Ok::<(), wgrad::Error>(())
//! ```

mod batches;
pub mod idx;
mod mnist;

pub use batches::Batches;
pub use mnist::{Digits, Mnist};
