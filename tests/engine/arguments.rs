//! Invalid arguments are reported with the user's source line. Needs no GPU.

use wgrad::ops::attention::Attention;
use wgrad::ops::conv1d::Conv1d;
use wgrad::ops::conv2d::Conv2d;
use wgrad::{DType, Graph, Value};

fn f32s(graph: &Graph, name: &str, shape: &[usize]) -> Value {
    graph.input(name, DType::F32, shape)
}

/// The op, part of the error message, and the invalid call.
type Refusal = (&'static str, &'static str, fn(&Graph) -> Value);

const REFUSALS: &[Refusal] = &[
    // Repeated axes, also when counted from the end.
    ("sum", "axis 1 is repeated", |g| f32s(g, "x", &[2, 3]).sum(&[1, 1], false)),
    ("sum", "axis 1 is repeated", |g| f32s(g, "x", &[2, 3]).sum(&[1, -1], false)),
    ("mean", "is repeated", |g| f32s(g, "x", &[2, 3]).mean(&[0, -2], false)),
    ("max", "is repeated", |g| f32s(g, "x", &[2, 3]).max(&[0, 0], false)),
    ("prod", "is repeated", |g| f32s(g, "x", &[2, 3]).prod(&[0, 0], false)),
    ("var", "is repeated", |g| f32s(g, "x", &[2, 3]).var(&[0, 0], 0, false)),
    ("logsumexp", "is repeated", |g| f32s(g, "x", &[2, 3]).logsumexp(&[0, 0], false)),
    ("flip", "is repeated", |g| f32s(g, "x", &[2, 3]).flip(&[0, 0])),
    ("diagonal", "two different axes", |g| f32s(g, "x", &[2, 3]).diagonal(1, -1)),
    ("diagonal", "two different axes", |g| f32s(g, "x", &[2, 3]).diagonal(0, 2)),
    ("permute", "once", |g| f32s(g, "x", &[2, 3]).permute(&[0, -2])),
    // Numbers that f32 cannot hold, or that turn every result into NaN.
    ("leaky_relu", "not NaN", |g| f32s(g, "x", &[2]).leaky_relu(f64::NAN)),
    ("leaky_relu", "finite", |g| f32s(g, "x", &[2]).leaky_relu(1e39)),
    ("elu", "not inf", |g| f32s(g, "x", &[2]).elu(f64::INFINITY)),
    ("powf", "not NaN", |g| f32s(g, "x", &[2]).powf(f64::NAN)),
    ("powf", "finite", |g| f32s(g, "x", &[2]).powf(-1e39)),
    ("clamp", "ordered", |g| f32s(g, "x", &[2]).clamp(f64::NAN, 1.0)),
    ("batch_norm", "eps", |g| {
        let [m, v] = ["m", "v"].map(|name| f32s(g, name, &[3]));
        f32s(g, "x", &[2, 3]).batch_norm(&m, &v, None, None, f64::NAN)
    }),
    ("batch_norm", "eps", |g| {
        let [m, v] = ["m", "v"].map(|name| f32s(g, name, &[3]));
        f32s(g, "x", &[2, 3]).batch_norm(&m, &v, None, None, -1e-5)
    }),
    ("batch_norm", "momentum", |g| {
        let [m, v] = ["m", "v"].map(|name| f32s(g, name, &[3]));
        f32s(g, "x", &[2, 3]).batch_norm_training(None, None, 1e-5).running(&m, &v, f64::NAN).1
    }),
    ("normalize", "eps", |g| f32s(g, "x", &[2, 3]).layer_norm(&[3], None, None, f64::NAN)),
    ("normalize", "eps", |g| f32s(g, "x", &[2, 3]).rms_norm(&[3], None, 0.0)),
    ("scaled_dot_product_attention", "scale", |g| {
        let x = f32s(g, "x", &[1, 1, 2, 4]);
        x.scaled_dot_product_attention(&x, &x, &Attention { scale: Some(1e39), ..Default::default() })
    }),
    ("topk", "no 4 elements", |g| f32s(g, "x", &[2, 3]).topk(4, 1, true).0),
    // Transposed convolutions.
    ("conv_transpose2d", "output padding", |g| {
        f32s(g, "x", &[1, 2, 3, 3]).conv_transpose2d(&f32s(g, "w", &[2, 1, 2, 2]), None, Conv2d::default(), 1)
    }),
    ("conv_transpose2d", "output padding", |g| {
        let options = Conv2d::default().stride(2).dilation([1, 3]);
        f32s(g, "x", &[1, 2, 3, 3]).conv_transpose2d(&f32s(g, "w", &[2, 1, 2, 2]), None, options, [2, 2])
    }),
    ("conv_transpose1d", "leaves an empty output", |g| {
        let options = Conv1d { padding: [9, 0], ..Conv1d::default() };
        f32s(g, "x", &[1, 2, 3]).conv_transpose1d(&f32s(g, "w", &[2, 1, 2]), None, options, 0)
    }),
    ("conv_transpose1d", "[N, C, L]", |g| {
        f32s(g, "x", &[1, 2, 3, 4]).conv_transpose1d(&f32s(g, "w", &[2, 1, 2]), None, Conv1d::default(), 0)
    }),
    ("pad", "(before, after)", |g| f32s(g, "x", &[2, 3]).pad(&[(1, 1)], 0.0)),
    ("pad", "(before, after)", |g| f32s(g, "x", &[2]).pad(&[(1, 1); 9], 0.0)),
];

#[test]
fn invalid_arguments_are_reported_at_the_users_line() {
    for (number, (op, what, build)) in REFUSALS.iter().enumerate() {
        let graph = Graph::new();
        let y = build(&graph);
        assert!(!y.is_valid(), "{number}: {op} accepts the arguments and returns {y:?}");
        let errors = graph.errors();
        assert_eq!(errors.len(), 1, "{number}: {errors:?}");
        let text = errors[0].to_string();
        assert!(text.contains(&format!("{op}(")) && text.contains(what), "{number}: {text}");
        assert!(errors[0].location.file().ends_with("arguments.rs"), "{text}");
    }
}
