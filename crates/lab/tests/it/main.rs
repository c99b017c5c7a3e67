//! Tests of the shipped shaders and op list, and of whether the cases detect faults.

#[path = "../../../../tests/common/mod.rs"]
mod common;

mod mutants;
mod ops_page;
mod shaders;
