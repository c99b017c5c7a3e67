//! What ships, and whether the tests notice faults.

#[path = "../../../../tests/common/mod.rs"]
mod common;

mod mutants;
mod ops_page;
mod shaders;
