//! Tools that test wgrad, never published: golden vectors, fault injection into kernels, mutation testing of the
//! shaders, and lists of what ships.
//!
//! The command line uses it for `wgrad check --golden`, `wgrad check --self-test`, `wgrad ops` and
//! `wgrad shaders`. `cargo run --release -p wgrad-lab -- mutate` runs the mutation tests.

pub mod catalog;
pub mod faults;
pub mod golden;
pub mod mutate;
pub mod output;
mod seeded;
pub mod shipped;
