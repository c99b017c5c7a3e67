//! ONNX's tests of operators, on the reference and on the adapter.

use wgrad_onnx::node_tests::{Verdict, tests};

mod common;

#[test]
fn small_node_tests_pass() {
    for device in common::devices() {
        let tests = tests(common::node_tests()).expect("tests");
        assert_eq!(tests.len(), 1005);
        let wrong: Vec<String> = tests
            .iter()
            .filter_map(|test| match test.run(&device) {
                Verdict::Passed => None,
                other => Some(format!("{}: {other:?}", test.name)),
            })
            .collect();
        assert!(wrong.is_empty(), "{device}: {wrong:#?}");
    }
}
