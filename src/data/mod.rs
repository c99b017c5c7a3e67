//! Data on the host: files, preprocessing, and batches of rows in a seeded order.
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

mod augment;
mod batches;
mod classes;
mod columns;
mod fitted;
pub mod idx;
#[cfg(feature = "images")]
mod images;
mod metrics;
mod mnist;
mod split;
mod table;
mod text;
mod vocabulary;
mod windows;

pub use augment::Augment;
pub use batches::Batches;
pub use classes::{class_weights, one_hot, over_sample, under_sample};
pub use columns::{Imputer, Scaler};
pub use fitted::Fitted;
#[cfg(feature = "images")]
pub use images::ImageFolder;
pub use metrics::{ConfusionMatrix, accuracy, average_precision, precision_recall_curve, r2_score, roc_auc};
pub use mnist::{Digits, Mnist};
pub use split::Split;
pub use table::Table;
pub use text::{TextLines, TextWindows, read_text};
pub use vocabulary::Vocabulary;
pub use windows::windows;
