//! Attention: masks, errors, memory, and the layers that use it.

use wgrad::nn::{self, Layer, MultiheadAttention, Scope, TransformerEncoderLayer, init};
use wgrad::ops::attention::Attention;
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Device, Graph, Profile, Session, Tensor, Value, gradients};

use crate::common;

fn random(shape: &[usize], name: &str) -> Tensor {
    init::normal(0.0, 1.0).draw(shape, 7, name)
}

fn run(device: &Device, graph: &Graph, outputs: &[&Value], feeds: &[(&str, &Tensor)]) -> Vec<Vec<f64>> {
    let mut session = Session::new(device.clone());
    let program = session.compile(graph, outputs).expect("compiles");
    session.run(&program, feeds).expect("runs").iter().map(Tensor::to_f64).collect()
}

fn devices() -> Vec<Device> {
    std::iter::once(Device::cpu()).chain(common::device()).collect()
}

fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "element {at} is {got}, expected {want}");
    }
}

#[test]
fn bool_additive_and_minus_infinity_masks_agree() {
    let (l, s) = (5, 9);
    // Query 2 sees no key.
    let seen: Vec<bool> = (0..l * s).map(|at| at / s != 2 && at * 7 % 5 < 3).collect();
    let added = |low: f32| seen.iter().map(|&seen| if seen { 0.0 } else { low }).collect::<Vec<f32>>();
    let masks = [
        Tensor::new([l, s], seen.clone()).unwrap(),
        Tensor::new([l, s], added(f32::NEG_INFINITY)).unwrap(),
        Tensor::new([l, s], added(-1e30)).unwrap(),
    ];
    let [q, k, v] = [("q", l), ("k", s), ("v", s)].map(|(name, rows)| random(&[rows, 8], name));
    for device in devices() {
        let results: Vec<Vec<Vec<f64>>> = masks
            .iter()
            .map(|mask| {
                let graph = Graph::new();
                let [a, b, c] =
                    [("q", l), ("k", s), ("v", s)].map(|(name, rows)| graph.input(name, DType::F32, [rows, 8]));
                let attn_mask = Some(graph.input("mask", mask.dtype(), [l, s]));
                let y = a.scaled_dot_product_attention(&b, &c, &Attention { attn_mask, ..Attention::default() });
                let d = gradients(&(&y * &a).sum_all(), &[&a, &b, &c]);
                run(&device, &graph, &[&y, &d[0], &d[1], &d[2]], &[("q", &q), ("k", &k), ("v", &v), ("mask", mask)])
            })
            .collect();
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], results[2]);
        let y = &results[0][0];
        assert!(y.iter().all(|y| y.is_finite()) && y[16..24].iter().all(|&y| y == 0.0), "{y:?}");
        assert!(y[..8].iter().all(|&y| y != 0.0));
    }
}

#[test]
fn attention_memory_grows_linearly_with_the_length() {
    let Some(device) = common::device() else { return };
    let bytes = |length: usize| {
        let graph = Graph::new();
        let x = graph.parameter("x", random(&[2, length, 16], "x"));
        let y = x.scaled_dot_product_attention(&x, &x, &Attention { is_causal: true, ..Attention::default() });
        let dx = &gradients(&y.square().sum_all(), &[&x])[0];
        let program = Session::new(device.clone()).compile(&graph, &[dx]).expect("compiles");
        program.plan().total_bytes() as f64
    };
    let (short, long) = (bytes(1024), bytes(4096));
    assert!(long < 4.2 * short, "{short} and {long} bytes");
}

/// The gradients of the scores are stored for some queries at a time, if that takes less time and a kernel can bind them.
#[test]
fn gradients_of_scores_are_stored_in_parts() {
    let Some(device) = common::device() else { return };
    // Bindings for 64 queries at a time, and for the operands.
    let limits = Profile { max_binding: 80 << 10, ..device.profile().clone() };
    let device = Device::open_within(None, Some(&limits)).expect("opens");
    let sizes = [("q", 150), ("k", 70), ("v", 70)];
    let tensors = sizes.map(|(name, rows)| random(&[2, rows, 64], name));
    let feeds: Vec<(&str, &Tensor)> = sizes.iter().zip(&tensors).map(|(&(name, _), tensor)| (name, tensor)).collect();
    for (is_causal, variant) in [false, true]
        .into_iter()
        .flat_map(|causal| [None, Some("tile64"), Some("tile128"), Some("tile")].map(|variant| (causal, variant)))
    {
        let graph = Graph::new();
        let x = sizes.map(|(name, rows)| graph.input(name, DType::F32, [2, rows, 64]));
        let y = x[0].scaled_dot_product_attention(&x[1], &x[2], &Attention { is_causal, ..Attention::default() });
        let gradients = gradients(&y.square().sum_all(), &x.each_ref());
        let outputs: Vec<&Value> = gradients.iter().collect();
        let options = Options { variant: variant.map(str::to_owned), ..Options::default() };
        let mut session = Session::new(device.clone());
        let program = session.compile_with(&graph, &outputs, &options).expect("compiles");
        let call = program.plan().calls.iter().find(|call| call.kernel.is_some_and(|(op, _)| op == "attention_grad"));
        let entries: Vec<&str> = call.expect("a call").dispatches.iter().map(|dispatch| &*dispatch.entry).collect();
        assert_eq!(entries, ["attention_key_grad", "attention_query_grad"].repeat(3), "{variant:?}");
        let (_, report) = session.check(&program, &feeds).expect("runs");
        assert!(report.passed() && report.compared() > 2 * (150 + 70 + 70) * 64, "{variant:?}: {report:?}");
    }
    // A mask is the eighth storage buffer, too many for some devices, which compute the scores twice.
    let graph = Graph::new();
    let [q, k, v] = ["q", "k", "v"].map(|name| graph.input(name, DType::F32, [2, 256, 64]));
    let mask = graph.input("mask", DType::F32, [256, 256]);
    for (attn_mask, scratch) in [(None, 1), (Some(mask), 0)] {
        let y = q.scaled_dot_product_attention(&k, &v, &Attention { attn_mask, ..Attention::default() });
        let gradients = gradients(&y.square().sum_all(), &[&q, &k, &v]);
        let outputs: Vec<&Value> = gradients.iter().collect();
        let defaults = Profile { kind: "discrete GPU".into(), ..Profile::webgpu_defaults() };
        let (plan, findings) = Plan::of(&graph, &outputs, &defaults, &Options::default()).expect("plans");
        let call = plan.calls.iter().find(|call| call.kernel.is_some_and(|(op, _)| op == "attention_grad"));
        assert_eq!((call.expect("a call").scratch.len(), findings), (scratch, vec![]));
    }
}

#[test]
fn attention_errors_say_what_was_expected() {
    let graph = Graph::new();
    let input = |name: &str, shape: &[usize]| graph.input(name, DType::F32, shape);
    let (q, k, v) = (input("q", &[2, 5, 8]), input("k", &[2, 6, 8]), input("v", &[2, 6, 4]));
    let plain = Attention::default();
    let masked = |shape: &[usize]| Attention { attn_mask: Some(input(&format!("{shape:?}"), shape)), ..plain.clone() };
    let attention = MultiheadAttention::new(&Scope::train(&graph, 0), "attn", 8, 3);
    for (value, part) in [
        (q.scaled_dot_product_attention(&v, &v, &plain), "E is 8 and 4"),
        (q.scaled_dot_product_attention(&k, &q, &plain), "S is 6 and 5"),
        (q.scaled_dot_product_attention(&k.slice(0, 0, 1, 1), &v, &masked(&[5, 5])), "the mask [5, 5]"),
        (input("three", &[3, 5, 8]).scaled_dot_product_attention(&k, &v, &plain), "do not broadcast"),
        (q.scaled_dot_product_attention(&k, &v, &Attention { scale: Some(f64::NAN), ..plain.clone() }), "finite"),
        (attention.forward(&q), "divides 8, not 3"),
        (nn::rotary(&input("odd", &[4, 5]), 1e4), "even D"),
        (nn::rotary(&q, 0.0), "base above 0"),
    ] {
        assert!(!value.is_valid());
        let errors = graph.errors();
        let last = errors.last().expect("an error").to_string();
        assert!(errors.iter().any(|m| m.to_string().contains(part)), "{part}: {last}");
    }
    assert!(graph.errors().iter().all(|m| m.to_string().contains("attention.rs")));
}

/// `softmax(q k^T / sqrt(D)) v` in plain loops, for one row of one head.
fn attended(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let weights: Vec<f64> = keys.iter().map(|k| (dot(q, k) / (q.len() as f64).sqrt()).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..values[0].len()).map(|c| weights.iter().zip(values).map(|(w, v)| w / sum * v[c]).sum()).collect()
}

#[test]
fn multihead_attention_matches_single_heads_with_projections() {
    let (n, l, s, width, heads) = (2, 3, 4, 6, 2);
    let [x, memory] = [("x", l), ("memory", s)].map(|(name, rows)| random(&[n, rows, width], name));
    for device in devices() {
        let graph = Graph::new();
        let [a, b] = [("x", l), ("memory", s)].map(|(name, rows)| graph.input(name, DType::F32, [n, rows, width]));
        let attention = MultiheadAttention::new(&Scope::eval(&graph, 3), "attn", width, heads);
        let crossed = attention.attend(&a, &b, &b, &Attention::default());
        let own = attention.clone().causal().forward(&a);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&crossed, &own]).expect("compiles");
        assert_eq!(
            session.names(),
            ["attn.in_proj_bias", "attn.in_proj_weight", "attn.out_proj.bias", "attn.out_proj.weight"]
        );
        for name in ["attn.in_proj_bias", "attn.out_proj.bias"] {
            let shape = session.get(name).expect("a bias").shape().clone();
            session.set(name, &random(&shape, name)).expect("set");
        }
        let outputs = session.run(&program, &[("x", &x), ("memory", &memory)]).expect("runs");
        let weights = |name: &str| session.get(name).expect("a parameter").to_f64();
        let [w, bias] = [weights("attn.in_proj_weight"), weights("attn.in_proj_bias")];
        let [out, out_bias] = [weights("attn.out_proj.weight"), weights("attn.out_proj.bias")];
        // Row `row` of the projection that starts at row `first` of `w`.
        let project = |x: &[f64], w: &[f64], bias: &[f64], first: usize| -> Vec<f64> {
            let row = |r: usize| bias[r] + x.iter().zip(&w[r * width..]).map(|(x, w)| x * w).sum::<f64>();
            (first..first + width).map(row).collect()
        };
        let (x, memory) = (x.to_f64(), memory.to_f64());
        let expected = |image: usize, i: usize, others: &[f64], seen: usize, rows: usize| {
            let row = |x: &[f64], rows: usize, i: usize| x[(image * rows + i) * width..][..width].to_vec();
            let q = project(&row(&x, l, i), &w, &bias, 0);
            let of = |first| -> Vec<Vec<f64>> {
                (0..seen).map(|j| project(&row(others, rows, j), &w, &bias, first)).collect()
            };
            let (keys, values) = (of(width), of(2 * width));
            let head = |h: usize| {
                let part = |rows: &[Vec<f64>]| rows.iter().map(|row| row[h * 3..][..3].to_vec()).collect::<Vec<_>>();
                attended(&q[h * 3..][..3], &part(&keys), &part(&values))
            };
            project(&(0..heads).flat_map(head).collect::<Vec<_>>(), &out, &out_bias, 0)
        };
        for (image, i) in (0..n).flat_map(|image| (0..l).map(move |i| (image, i))) {
            let at = (image * l + i) * width;
            assert_close(&outputs[0].to_f64()[at..][..width], &expected(image, i, &memory, s, s), 1e-5);
            assert_close(&outputs[1].to_f64()[at..][..width], &expected(image, i, &x, i + 1, l), 1e-5);
        }
    }
}

#[test]
fn rotary_products_depend_only_on_distances() {
    let (length, width) = (7, 6);
    let graph = Graph::new();
    let [q, k] = ["q", "k"].map(|name| graph.input(name, DType::F32, [1, width]));
    let places = [length, width].into();
    let turned = [&q, &k].map(|x| nn::rotary(&x.broadcast_to(&places), 100.0));
    let products = turned[0].matmul(&turned[1].t());
    let (a, b) = (random(&[1, width], "q"), random(&[1, width], "k"));
    let y = run(&Device::cpu(), &graph, &[&products, &turned[0]], &[("q", &a), ("k", &b)]);
    for i in 1..length {
        for j in 1..length {
            let (here, before) = (y[0][i * length + j], y[0][(i - 1) * length + j - 1]);
            assert!((here - before).abs() < 1e-12, "{i}, {j}");
        }
    }
    assert!((y[0][0] - y[0][1]).abs() > 1e-3);
    // Position 1, pair 1: elements 1 and 4 are rotated by the angle 100^(-1/3).
    let (q, (sin, cos)) = (a.to_f64(), 100f64.powf(-1.0 / 3.0).sin_cos());
    assert_close(&[y[1][width + 1], y[1][width + 4]], &[q[1] * cos - q[4] * sin, q[4] * cos + q[1] * sin], 1e-12);
}

#[test]
fn sinusoidal_positions_are_sines_and_cosines() {
    let graph = Graph::new();
    let y = run(&Device::cpu(), &graph, &[&nn::sinusoidal_positions(&graph, 4, 5)], &[]);
    let angle = 3.0 / 10_000f64.powf(2.0 / 5.0);
    assert_close(
        &y[0][15..],
        &[3f64.sin(), 3f64.cos(), angle.sin(), angle.cos(), (3.0 / 10_000f64.powf(0.8)).sin()],
        1e-12,
    );
    assert_close(&y[0][..5], &[0.0, 1.0, 0.0, 1.0, 0.0], 0.0);
}

#[test]
fn a_causal_block_does_not_see_later_positions() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1, 6, 8]);
    let nn = Scope::train(&graph, 1);
    let y = TransformerEncoderLayer::new(&nn, "block", 8, 2, 16, 0.0).norm_first().causal().forward(&x);
    let names: Vec<String> = graph.parameters().into_iter().map(|(name, _)| name).collect();
    for name in [
        "block.self_attn.in_proj_weight",
        "block.linear1.bias",
        "block.linear2.weight",
        "block.norm1.weight",
        "block.norm2.bias",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
    let mut values = random(&[1, 6, 8], "x").to_f32();
    let once = |values: &[f32]| {
        run(&Device::cpu(), &graph, &[&y], &[("x", &Tensor::new([1, 6, 8], values.to_vec()).unwrap())]).remove(0)
    };
    let before = once(&values);
    values[4 * 8..].iter_mut().for_each(|x| *x += 1.0);
    let after = once(&values);
    assert_eq!(before[..32], after[..32]);
    assert!(before[32..].iter().zip(&after[32..]).all(|(a, b)| a != b));
}
