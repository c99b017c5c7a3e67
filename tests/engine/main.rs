//! The graph, the plan, sessions and errors.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/my_square.rs"]
mod my_square;

mod asynchronous;
mod attributes;
mod deep;
mod documents;
mod errors;
mod failed_steps;
mod fusion;
mod large_graphs;
mod lint;
mod locations;
mod own_op;
mod ownership;
mod pace;
mod plan;
mod profile;
mod rewrites;
mod session;
mod shaders;
mod shadow;
mod structure;
mod summary;
mod tensors;
mod threads;
mod tuning;
mod units;
