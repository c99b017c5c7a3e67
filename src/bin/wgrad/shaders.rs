//! `wgrad shaders --dump`.
use crate::output::{Out, Stop};
pub fn run(_dump: &std::path::Path, _out: &mut Out) -> Result<bool, Stop> { Ok(true) }
