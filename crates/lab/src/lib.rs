//! Tools that test wgrad, never published: golden vectors, fault injection into kernels, mutation testing of the
//! shaders, lists of what ships, and the tables of docs/RESULTS.md.
//!
//! The command line uses it for `wgrad check --golden`, `wgrad check --self-test`, `wgrad ops` and
//! `wgrad shaders`. `cargo run --release -p wgrad-lab -- mutate` runs the mutation tests, and `-- results` generates the
//! tables.

pub mod catalog;
pub mod faults;
pub mod golden;
pub mod mutate;
pub mod output;
pub mod results;
pub mod seeded;
pub mod shipped;
pub mod wgsl;
