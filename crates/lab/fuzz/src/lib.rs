//! Fuzz targets: functions of bytes that panic when something is wrong. `scripts/fuzz` runs them in libFuzzer, and
//! `tests/mutations.rs` on mutations of the seeds, which needs no special build.

pub mod case_file;
pub mod csv;
pub mod golden;
pub mod graph;
pub mod idx;
pub mod onnx;
pub mod safetensors;
pub mod tuning;

/// A function of an input.
pub type Target = fn(&[u8]);

/// The targets by name, which is also that of the folder of their seeds.
pub const TARGETS: [(&str, Target); 8] = [
    ("case_file", case_file::run),
    ("csv", csv::run),
    ("golden", golden::run),
    ("graph", graph::run),
    ("idx", idx::run),
    ("onnx", onnx::run),
    ("safetensors", safetensors::run),
    ("tuning", tuning::run),
];
