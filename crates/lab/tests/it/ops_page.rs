//! docs/OPS.md matches the registry. Needs no GPU.

use std::path::Path;

use wgrad_lab::catalog::{catalog, markdown};

#[test]
fn the_ops_page_is_up_to_date() {
    let page = markdown(&catalog().expect("every case builds"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/OPS.md");
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).find(|(new, old)| new != old);
    assert!(page == written, "docs/OPS.md is stale: run `wgrad ops > docs/OPS.md`. First difference: {differs:?}");
}

#[test]
fn every_registered_op_is_listed_with_its_gradient() {
    let entries = catalog().expect("every case builds");
    let find = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("no {name}"));
    for case in wgrad::ops::cases() {
        assert!(find(case.op).cases > 0, "{}", case.op);
    }
    assert_eq!(find("relu").forward, ["pointwise"]);
    assert_eq!(find("gather").backward.as_deref(), Some(&["scatter_sum".to_owned()][..]));
    assert_eq!(find("argmax").backward, None);
    assert!(find("softmax").forward.len() == 2 && find("gelu").composed && !find("softmax_grad").composed);
}

#[test]
fn storage_types_are_those_that_ops_admit() {
    let entries = catalog().expect("every case builds");
    let dtypes = |name: &str| entries.iter().find(|entry| entry.name == name).map_or("", |entry| &entry.dtypes);
    for (name, expected) in [
        ("add", "f32 (f16 bf16) i32 (i8) u32 (u8)"),
        ("and", "bool"),
        ("eq", "f32 (f16 bf16) i32 (i8) u32 (u8) -> bool"),
        ("argsort", "f32 (f16 bf16) i32 (i8) u32 (u8) -> i32"),
        ("conv2d", "f32 (f16 bf16)"),
        ("matmul", "f32 (f16 bf16) i32 (i8) u32 (u8)"),
        ("permute", "f32 (f16 bf16) i32 (i8) u32 (u8) bool"),
        ("widen", "f16 bf16 i8 u8 -> f32 i32 u32"),
        ("gelu", "f32 (f16 bf16)"),
    ] {
        assert_eq!(dtypes(name), expected, "{name}");
    }
}
