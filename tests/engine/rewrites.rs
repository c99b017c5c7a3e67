//! Each algebraic rewrite keeps the values of the graph.

use wgrad::cpu::{Values, evaluate};
use wgrad::graph::{NodeKind, Nodes, ValueId};
use wgrad::plan::{Options, Plan, RULES};
use wgrad::{DType, Data, Graph, Profile, Session, Tensor, Value, gradients};

use crate::common;

/// One rounding of f32 for each op that is replaced, relative.
const ROUNDINGS: f64 = 4.0 * f32::EPSILON as f64;

/// The rule, a graph where it applies, and the ops that computed the result before and after.
type Example = (&'static str, fn(&Value) -> Value, &'static str, &'static str);

const EXAMPLES: &[Example] = &[
    ("view of a constant", |x| x.graph().full(DType::F32, [1, 7], 0.1).broadcast_to(x.shape()), "broadcast", "full"),
    ("view of a constant", |x| x.graph().full(DType::I32, [7, 3], -5.0).t().cast(DType::F32), "cast", "cast"),
    ("function of constants", |x| (x.full_like(0.1) * x.full_like(0.3) + x.full_like(1e-3)).sqrt(), "sqrt", "full"),
    ("rounding of a selection", |x| x.cast(DType::F16).relu().cast(DType::F32), "widen", "widen"),
    ("identity element", |x| x * 1.0, "mul", "input"),
    ("identity element", |x| &x.ones_like() * x, "mul", "input"),
];

/// The name of the op that computes a value; an identity element leaves it to be computed, so that is followed.
fn name(nodes: &Nodes, id: ValueId) -> String {
    match &nodes.nodes[id.node].kind {
        NodeKind::Op(op) => op.name().to_owned(),
        NodeKind::Input(_) => "input".into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_rewrite_keeps_the_values_of_its_examples() {
    let special = [f64::NAN, f64::INFINITY, -0.0, 1e-40, -3.4e38, 0.1, 7.0];
    let data: Vec<f64> = special.into_iter().cycle().take(21).collect();
    for (rule, build, before, after) in EXAMPLES {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [3, 7]);
        // The result is read once more, so that what its readers read can be seen.
        let result = build(&x);
        let y = result.abs();
        let (plan, findings) =
            Plan::of(&graph, &[&y], &Profile::webgpu_defaults(), &Options::default()).expect("plans");
        assert!(findings.is_empty(), "{rule}: {findings:?}");
        assert_eq!(name(&graph.nodes(), result.id()), *before, "{rule}");
        let reader = &plan.nodes.nodes[y.id().node];
        match reader.inputs.first() {
            Some(&read) => assert_eq!(name(&plan.nodes, read), *after, "{rule}"),
            None => assert_eq!((name(&plan.nodes, y.id()).as_str(), *after), ("full", "full"), "{rule}"),
        }
        let feeds = || Values::from([(x.id(), Tensor::new([3, 7], Data::F64(data.clone())).expect("21 elements"))]);
        let values = |nodes: &Nodes| evaluate(nodes, &[y.id()], feeds()).expect("evaluates")[&y.id()].to_f64();
        let exact = RULES.iter().find(|known| known.name == *rule).expect("is in the table").exact;
        let (original, rewritten) = (values(&graph.nodes()), values(&plan.nodes));
        assert_eq!((original.len(), rewritten.len()), (21, 21));
        for (a, b) in original.into_iter().zip(rewritten) {
            let close = !exact && (a - b).abs() <= ROUNDINGS * a.abs();
            assert!(a.to_bits() == b.to_bits() || close || a.is_nan() && b.is_nan(), "{rule}: {a} and {b}");
        }
    }
    for rule in RULES {
        assert!(EXAMPLES.iter().any(|(name, ..)| name == &rule.name), "no example of {}", rule.name);
    }
}

/// Values of f16 that are selected are not rounded again; all others are.
#[test]
fn only_selections_are_not_rounded() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F16, [4]);
    let y = graph.input("y", DType::BF16, [4]).cast(DType::F32).cast(DType::F16);
    let calls = |result: &Value| {
        let (plan, _) = Plan::of(&graph, &[result], &Profile::webgpu_defaults(), &Options::default()).expect("plans");
        let text = plan.calls[0].dispatches[0].wgsl.text.to_string();
        ["= to_f16_f32(", "= to_same_f32("].map(|call| text.matches(call).count())
    };
    assert_eq!(calls(&x.relu()), [0, 1]);
    assert_eq!(calls(&x.maximum(&x.full_like(0.5)).neg()), [0, 2]);
    assert_eq!(calls(&x.gt(&x.zeros_like()).where_(&x, &y)), [1, 1]);
    assert_eq!(calls(&x.tanh()), [1, 0]);
    // 0.1 is no value of f16, and neither are all values of bf16.
    assert_eq!(calls(&x.clamp(0.1, 0.5)), [1, 0]);
    assert_eq!(calls(&(x.cast(DType::F32) * 2.0)), [0, 0]);
    assert_eq!(calls(&y.relu()), [1, 1]);
}

#[test]
fn rewrites_leave_what_would_change() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [4]);
    let count = |y: &Value| {
        let (plan, _) = Plan::of(&graph, &[y], &Profile::webgpu_defaults(), &Options::default()).expect("plans");
        plan.nodes.nodes[y.id().node].inputs.len()
    };
    // 0 + -0 is 0, so 0 is no identity of a sum; a result of infinity is not folded; integers wrap at their own width.
    let zero = x.zeros_like();
    let sum = &x + &zero;
    assert_eq!(count(&sum), 2);
    assert_eq!(count(&zero.log()), 1);
    let i = graph.full(DType::I32, [4], 3.0);
    assert_eq!(count(&(&i * &i)), 2);
}

/// A step that needs losses and their gradient reads the logits once.
#[test]
fn cross_entropies_and_their_gradients_are_computed_together() {
    let names = |graph: &Graph, outputs: &[&Value], fuse: bool| -> Vec<&'static str> {
        let options = Options { fuse, ..Options::default() };
        let (plan, findings) = Plan::of(graph, outputs, &Profile::webgpu_defaults(), &options).expect("plans");
        assert!(findings.is_empty(), "{findings:?}");
        let kernels = plan.calls.iter().filter_map(|call| call.kernel).map(|(op, _)| op);
        kernels.filter(|op| op.starts_with("cross_entropy")).collect()
    };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 5, 3]);
    let class = graph.input("class", DType::I32, [2, 3]);
    let weights = graph.input("weights", DType::F32, [2, 3]);
    let losses = x.cross_entropy_losses(&class);
    let gradient = |loss: &Value| gradients(loss, &[&x]).remove(0);

    let (mean, sum) = (losses.mean_all(), losses.sum_all());
    let of_mean = gradient(&mean);
    assert_eq!(names(&graph, &[&mean, &of_mean], true), ["cross_entropy_with_grad"]);
    assert_eq!(names(&graph, &[&of_mean, &losses], true), ["cross_entropy_with_grad"]);
    assert_eq!(names(&graph, &[&mean, &of_mean], false), ["cross_entropy", "cross_entropy_grad"]);
    assert_eq!(names(&graph, &[&mean], true), ["cross_entropy"]);
    assert_eq!(names(&graph, &[&of_mean], true), ["cross_entropy_grad"]);
    // Only one gradient fits.
    let both = names(&graph, &[&mean, &of_mean, &gradient(&sum)], true);
    assert_eq!(both, ["cross_entropy_with_grad", "cross_entropy_grad"]);
    // The gradient for each row is known only at run time.
    let weighted = (&losses * &weights).sum_all();
    let of_weighted = gradient(&weighted);
    assert_eq!(names(&graph, &[&weighted, &of_weighted], true), ["cross_entropy", "cross_entropy_grad"]);

    let logits: Vec<f32> = (0..30).map(|i| (i * 7 % 11) as f32 * 0.3 - 1.5).collect();
    let logits = Tensor::new([2, 5, 3], logits).expect("30 elements");
    let classes = Tensor::new([2, 3], [0i32, 4, 2, 1, 3, 0]).expect("6 elements");
    for device in common::devices() {
        let mut session = Session::new(device);
        let [joined, apart] = [true, false].map(|fuse| {
            let options = Options { fuse, ..Options::default() };
            let step = session.compile_with(&graph, &[&mean, &of_mean], &options).expect("compiles");
            session.run(&step, &[("x", &logits), ("class", &classes)]).expect("runs")
        });
        assert_eq!(joined[1].shape(), logits.shape());
        for (a, b) in joined.iter().zip(&apart).flat_map(|(a, b)| a.to_f32().into_iter().zip(b.to_f32())) {
            assert!((a - b).abs() <= 1e-6 * b.abs().max(0.1), "{a} and {b}");
        }
        // The terms of a row add up to 0.
        let sums =
            |of: &Tensor| (0..3).map(|i| (0..5).map(|k| of.to_f32()[3 * k + i]).sum::<f32>()).collect::<Vec<_>>();
        assert!(sums(&joined[1]).iter().all(|sum| sum.abs() < 1e-6) && joined[1].to_f32().iter().any(|x| *x > 0.01));
    }
}
