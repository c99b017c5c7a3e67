//! The `wgrad` command, run as a process.

#[path = "../../../../tests/common/mod.rs"]
mod common;
#[path = "../../../../tests/common/my_square.rs"]
mod my_square;

mod bench;
mod cli;
mod golden_files;
mod replay;
mod report;
mod self_test;
