//! Files: weights as safetensors, written so that a file is never half there.

mod checkpoint;
pub mod safetensors;

pub use crate::files::{cache_folder, read, write_atomically};
