//! Long chains of nodes on a small stack: no traversal or drop of a graph recurses.

use wgrad::graph::ValueId;
use wgrad::{DType, Graph, Tensor, cpu, gradients};

const NODES: usize = 200_000;
const STACK: usize = 512 << 10;

fn on_a_small_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(f).expect("starts").join().expect("the stack is large enough");
}

/// The id of the graph's last node.
fn last(graph: &Graph) -> ValueId {
    ValueId { node: graph.nodes().nodes.len() - 1, output: 0 }
}

#[test]
fn long_chains_are_built_differentiated_evaluated_and_dropped() {
    on_a_small_stack(|| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, []);
        let leaf = last(&graph);
        let y = (0..NODES).fold(x.clone(), |y, _| y + 1.0);
        let value = last(&graph);
        let dx = &gradients(&y, &[&x])[0] * 3.0;
        assert!(dx.is_valid());
        let slope = last(&graph);
        assert!(graph.nodes().nodes.len() > 2 * NODES);
        let feeds = cpu::Values::from([(leaf, Tensor::scalar(0.5))]);
        let values = cpu::evaluate(&graph.nodes(), &[value, slope], feeds).expect("evaluates");
        assert_eq!(values[&value].item().expect("a scalar"), NODES as f64 + 0.5);
        assert_eq!(values[&slope].item().expect("a scalar"), 3.0);
    });
}

#[test]
fn long_chains_of_views_are_handled_the_same_way() {
    on_a_small_stack(|| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2, 3]);
        let leaf = last(&graph);
        let pair = |y: wgrad::Value, _| y.permute(&[1, 0]).reshape(&[2, 3]);
        let y = (0..NODES / 2).fold(x.clone(), pair).square().sum_all();
        let value = last(&graph);
        let dx = gradients(&y, &[&x]).swap_remove(0);
        assert_eq!(dx.shape().to_vec(), [2, 3]);
        let numbers = Tensor::new([2, 3], vec![1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("fits");
        let feeds = cpu::Values::from([(leaf, numbers)]);
        let values = cpu::evaluate(&graph.nodes(), &[value], feeds).expect("evaluates");
        assert_eq!(values[&value].item().expect("a scalar"), 91.0);
    });
}

/// Differentiates with respect to 20,000 parameters.
#[test]
fn gradients_of_many_parameters_take_linear_time() {
    on_a_small_stack(|| {
        let graph = Graph::new();
        let leaves: Vec<_> = (0..20_000).map(|i| graph.parameter(&format!("p{i}"), Tensor::scalar(1.0))).collect();
        let sum = leaves.iter().skip(1).fold(leaves[0].clone(), |sum, leaf| sum + leaf);
        let start = std::time::Instant::now();
        let slopes = gradients(&sum, &leaves.iter().collect::<Vec<_>>());
        assert!(slopes.iter().all(|slope| slope.is_valid()));
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    });
}
