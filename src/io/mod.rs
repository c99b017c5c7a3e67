//! Files: weights as safetensors, written atomically.

mod checkpoint;
pub mod safetensors;
mod weights;

pub use crate::files::{cache_folder, check_writable, is_same_file, read, write_atomically};
pub use weights::{LoadedWeights, MismatchedWeight, Weights};
