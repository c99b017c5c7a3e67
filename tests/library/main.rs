//! Layers, optimisers, data, files and examples.

#[path = "../common/mod.rs"]
mod common;

mod data;
mod data_props;
mod examples;
mod hostile_files;
mod io;
mod mixed;
mod nn;
mod optim;
mod quant;
mod train;
mod train_reports;
