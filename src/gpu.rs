//! The wgpu backend: adapters and devices, and the engine that runs plans on them. No other module uses wgpu.

mod adapter;
mod engine;
mod errors;
mod exchange;
mod multiprocessors;
mod pipelines;
mod readback;
mod submissions;
mod variables;

pub(crate) use adapter::{Gpu, list, open};
pub(crate) use engine::Program;
pub(crate) use errors::block_on;
pub(crate) use readback::{Reading, wait};
pub(crate) use variables::Variables;
