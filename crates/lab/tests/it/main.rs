//! Tests of what ships, and of whether the tests detect faults.

#[path = "../../../../tests/common/mod.rs"]
mod common;

mod mutants;
mod ops_page;
mod shaders;
