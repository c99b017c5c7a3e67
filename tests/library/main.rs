//! Layers, optimisers, data, files and examples.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/my_square.rs"]
mod my_square;

mod data;
mod data_props;
mod distributed;
mod examples;
mod hostile_files;
#[cfg(feature = "images")]
mod images;
mod io;
mod layers;
mod mistakes;
mod mixed;
mod nn;
mod optim;
mod quant;
mod row_files;
mod traces;
mod train;
mod train_reports;
mod weights;
