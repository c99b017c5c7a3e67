//! Data on the host: files, what is done to them before a model sees them, and batches of rows in a
//! seeded order.
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
mod table;
mod vocabulary;
mod windows;

pub use batches::Batches;
pub use mnist::{Digits, Mnist};
pub use table::Table;
pub use vocabulary::Vocabulary;
pub use windows::windows;
