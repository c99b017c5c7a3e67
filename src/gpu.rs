//! The wgpu backend: adapters and devices, and the engine that runs plans on them. No other module uses wgpu.

mod adapter;
mod engine;
mod multiprocessors;
mod pipelines;
mod readback;

pub(crate) use adapter::{Gpu, list, open};
pub(crate) use engine::{Program, Variables};
pub(crate) use readback::{Reading, wait};
