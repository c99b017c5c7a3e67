//! Tests of the shipped shaders, op list and tables of results, and of whether the cases detect faults.

#[path = "../../../../tests/common/mod.rs"]
mod common;

mod faults;
mod mutants;
mod ops_page;
mod results;
mod shaders;
