//! The smallest useful program: `y = relu(a b)` on the best available GPU.
//!
//! ```text
//! cargo run --release --example matmul
//! ```
//!
//! With `-- --shadow`, each kernel call is compared with the reference; with `-- --find-nan`, each is checked for NaN.

mod common;

use wgrad::{DType, Graph, Tensor};

fn main() -> wgrad::Result<()> {
    let mut options: common::Options = common::parse("Computes relu(a b): the smallest program");

    // Describe the computation. Shapes are checked as nodes are added; nothing runs yet.
    let graph = Graph::new();
    let a = graph.input("a", DType::F32, [2, 3]);
    let b = graph.input("b", DType::F32, [3, 2]);
    let y = a.matmul(&b).relu();

    // Compile it for a device. The relu is fused into the matmul kernel.
    let mut session = options.session()?;
    let program = session.compile(&graph, &[&y])?;
    println!("{program}");

    // Feed inputs by name and read the result.
    let a = Tensor::new([2, 3], [1.0f32, 2.0, 3.0, -1.0, -2.0, -3.0])?;
    let b = Tensor::new([3, 2], [1.0f32, 0.0, 0.0, 1.0, 1.0, 1.0])?;
    let y = options.steps.run(&mut session, &program, &[("a", &a), ("b", &b)])?.remove(0);
    println!("relu(a b) = {:?}", y.to_f32());
    options.steps.summary();
    assert_eq!(y.to_f32(), [4.0, 5.0, 0.0, 0.0]);
    Ok(())
}
