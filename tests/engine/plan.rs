//! The plan as data: fusion, in-place updates, memory reuse, and limits. Needs no GPU.

use std::collections::{HashMap, HashSet};

use wgrad::ops::attention::Attention;
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::recurrent::{Activation, Cell, Weights};
use wgrad::optim::{Optimizer, Sgd};
use wgrad::plan::{Bound, LiveValue, Options, Plan, Role};
use wgrad::{DType, Device, Error, Graph, Profile, Session, Tensor, Value, gradients, models};

pub fn plan_with(graph: &Graph, outputs: &[&Value], options: &Options) -> Plan {
    let mut session = Session::new(Device::cpu());
    session.compile_with(graph, outputs, options).expect("compiles").plan().clone()
}

pub fn plan(graph: &Graph, outputs: &[&Value]) -> Plan {
    plan_with(graph, outputs, &Options::default())
}

pub fn labels(plan: &Plan) -> Vec<&str> {
    plan.calls.iter().map(|call| call.label.as_str()).collect()
}

fn vector(n: usize) -> Tensor {
    Tensor::new([n], vec![0.5f32; n]).expect("a vector")
}

/// No dispatch may bind a buffer twice if one of the bindings writes it.
pub fn assert_valid(plan: &Plan) {
    for dispatch in plan.calls.iter().flat_map(|call| &call.dispatches) {
        let storage: Vec<(usize, bool)> = dispatch
            .bindings
            .iter()
            .filter_map(|b| match b {
                Bound::Storage { buffer, write } => Some((*buffer, *write)),
                _ => None,
            })
            .collect();
        for (i, (a, writes)) in storage.iter().enumerate() {
            for (b, also) in &storage[i + 1..] {
                assert!(a != b || (!writes && !also), "{} binds buffer {a} twice", dispatch.label);
            }
        }
    }
}

#[test]
fn an_elementwise_chain_is_one_dispatch() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [8, 5]);
    let b = graph.input("b", DType::F32, [5]);
    let y = ((&x + &b) * 2.0).tanh().reshape(&[40]).relu();
    assert_eq!(labels(&plan(&graph, &[&y])), ["add + mul + tanh + relu"]);
    let unfused = plan_with(&graph, &[&y], &Options { fuse: false, ..Default::default() });
    assert_eq!(labels(&unfused), ["add", "mul", "tanh", "relu"]);
}

#[test]
fn a_multiplication_by_one_is_removed_unless_it_is_an_output() {
    let graph = Graph::new();
    let (a, b, g) = (
        graph.input("a", DType::F32, [8, 5]),
        graph.input("b", DType::F32, [5, 6]),
        graph.input("g", DType::F32, [8, 6]),
    );
    // The loss's gradient is 1, so the product's gradient is g itself.
    let loss = (a.matmul(&b) * &g).sum_all();
    let da = &gradients(&loss, &[&a])[0];
    assert_eq!(labels(&plan(&graph, &[da])), ["matmul.register4"]);
    let unfused = plan_with(&graph, &[da], &Options { fuse: false, ..Default::default() });
    assert!(labels(&unfused).contains(&"mul"), "{:?}", labels(&unfused));

    let (same, two) = (&a * 1.0, &a * 2.0);
    assert_eq!(labels(&plan(&graph, &[&same])), ["mul"]);
    assert_eq!(labels(&plan(&graph, &[&(&same * 1.0).exp()])), ["exp"]);
    assert_eq!(labels(&plan(&graph, &[&two.exp()])), ["mul + exp"]);
}

#[test]
fn a_fused_group_never_reads_elements_that_other_invocations_write() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [6, 6]);
    let y = x.exp();
    let z = &y + y.t(); // reads other elements of y: two dispatches
    let plan = plan(&graph, &[&z]);
    assert_eq!(labels(&plan), ["exp", "add"]);
    assert_valid(&plan);
}

#[test]
fn fusion_creates_no_cycle() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [4, 4]);
    let a = x.exp();
    let b = a.t().log(); // depends on a
    let c = &a * &b; // reads a directly, and b: must not join a's launch before b has run
    let plan = plan(&graph, &[&c]);
    assert_eq!(labels(&plan), ["exp", "log + mul"]);
    assert_valid(&plan);
}

/// A fused group may contain nodes created long after those that other groups read; its dispatch must
/// also wait for the inputs of the late nodes.
#[test]
fn fusion_creates_no_cycle_through_late_members() {
    let graph = Graph::new();
    let [x, y, z] = ["x", "y", "z"].map(|name| graph.input(name, DType::F32, [64, 64]));
    let early = x.exp();
    let sums = early.sum(&[1], true); // older than the product
    let product = y.matmul(&z);
    // `a` must not be fused into the product: `sums` waits for `early`, whose dispatch also computes `b`,
    // which waits for the product.
    let a = &product + &sums;
    let b = &early * &product;
    let plan = plan(&graph, &[&a, &b]);
    assert_valid(&plan);
    let leaves = plan.inputs.iter().filter_map(|input| Some(input.stored.as_ref()?.buffer));
    let mut known: Vec<usize> = leaves.collect();
    for call in &plan.calls {
        assert!(call.reads.iter().all(|stored| known.contains(&stored.buffer)), "{:?}", labels(&plan));
        known.extend(call.writes.iter().map(|stored| stored.buffer));
    }
    assert!(plan.outputs.iter().all(|(_, buffer)| known.contains(&buffer.expect("not empty"))), "{:?}", labels(&plan));
}

#[test]
fn duplicate_and_dead_nodes_are_removed() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [7]);
    let _dead = x.sin();
    let y = x.exp() + x.exp();
    let plan = plan(&graph, &[&y]);
    assert_eq!(labels(&plan), ["exp + add"]);
}

#[test]
fn matmul_fuses_bias_and_activation_as_its_epilogue() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [16, 12]);
    let w = graph.input("w", DType::F32, [9, 12]);
    let b = graph.input("b", DType::F32, [9]);
    let y = (x.matmul(&w.t()) + &b).relu();
    let plan = plan(&graph, &[&y]);
    assert_eq!(plan.dispatches(), 1, "{:?}", labels(&plan));
    assert!(plan.calls[0].label.starts_with("matmul.") && plan.calls[0].label.ends_with("+ add + relu"));
    assert_valid(&plan);
}

#[test]
fn updates_are_in_place_but_swaps_are_not() {
    let graph = Graph::new();
    let w = graph.variable("w", vector(100));
    let m = graph.variable("m", vector(100));
    let g = graph.input("g", DType::F32, [100]);
    let new_m = &m * 0.9 + &g;
    let new_w = &w - &new_m * 0.1;
    graph.assign(&m, &new_m);
    graph.assign(&w, &new_w);
    let updates = plan(&graph, &[]);
    assert_eq!(updates.dispatches(), 1, "{:?}", labels(&updates));
    assert!(updates.commits.is_empty());
    assert_eq!(updates.temporary_bytes(), 0);
    assert_valid(&updates);

    let graph = Graph::new();
    let a = graph.variable("a", vector(10));
    let b = graph.variable("b", vector(10));
    graph.assign(&a, &b);
    graph.assign(&b, &a);
    let swap = plan(&graph, &[]);
    assert_eq!(swap.commits.len(), 2);
    assert_valid(&swap);
}

#[test]
fn a_long_chain_reuses_two_buffers() {
    let graph = Graph::new();
    let mut x = graph.input("x", DType::F32, [64, 64]);
    for _ in 0..20 {
        x = x.t().exp(); // each read is strided: no fusion
    }
    let plan = plan(&graph, &[&x]);
    assert_eq!(plan.calls.len(), 20);
    assert_eq!(plan.buffers.iter().filter(|b| b.role == Role::Temporary).count(), 2);
    assert_valid(&plan);
}

#[test]
fn groups_that_differ_only_in_numbers_share_their_wgsl() {
    let text = |shape: [usize; 2], slope: f64| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, shape);
        let b = graph.input("b", DType::F32, [shape[1]]);
        let y = (&x + &b).leaky_relu(slope);
        plan(&graph, &[&y]).calls[0].dispatches[0].wgsl.text.clone()
    };
    assert_eq!(text([8, 5], 0.01), text([100, 33], 0.2));
}

#[test]
fn limits_are_checked_before_anything_runs() {
    let small = Profile { max_binding: 1 << 20, max_buffer: 1 << 20, ..Profile::webgpu_defaults() };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1 << 19]);
    let y = x.exp();
    let line = line!() - 2;
    let id = plan(&graph, &[&y]).calls[0].writes[0].value;
    let error = Plan::new(graph.nodes(), &[id], &small, &Options::default()).expect_err("too large");
    let Error::Limit(text) = error else { panic!("{error}") };
    assert!(text.contains("1048576") && text.contains("smaller batch"), "{text}");
    assert!(text.contains(&format!("{}:{line}", file!())), "{text}");

    let few = Profile { max_storage_buffers: 8, ..Profile::webgpu_defaults() };
    let graph = Graph::new();
    let inputs: Vec<Value> = (0..12).map(|i| graph.input(&format!("x{i}"), DType::F32, [5])).collect();
    let sum = inputs.iter().skip(1).fold(inputs[0].clone(), |sum, x| sum + x);
    let wide = plan(&graph, &[&sum]);
    assert_eq!(wide.dispatches(), 1);
    let id = wide.calls[0].writes[0].value;
    let narrow = Plan::new(graph.nodes(), &[id], &few, &Options::default()).expect("splits");
    assert!(narrow.dispatches() > 1);
    for dispatch in narrow.calls.iter().flat_map(|call| &call.dispatches) {
        let storage = dispatch.bindings.iter().filter(|b| matches!(b, Bound::Storage { .. })).count();
        assert!(storage <= 7, "{storage} buffers");
    }
}

#[test]
fn sizes_beyond_32_bits_are_refused() {
    let graph = Graph::new();
    graph.input("x", DType::F32, [1 << 16, 1 << 15]);
    graph.input("y", DType::F32, [usize::MAX, 2]);
    let z = graph.input("z", DType::F32, [1 << 20, 1]);
    let _ = z.broadcast_to(&[1 << 20, 1 << 12].into());
    let errors = graph.errors();
    assert_eq!(errors.len(), 3);
    assert!(errors.iter().all(|m| m.message.contains("2^31")), "{errors:?}");
}

#[test]
fn masks_are_computed_where_they_are_read() {
    let graph = Graph::new();
    let (x, w) = (graph.input("x", DType::F32, [64, 64]), graph.parameter("w", Tensor::zeros(&square())));
    let y = x.matmul(&w).relu();
    let loss = y.matmul(&graph.input("v", DType::F32, [64, 64])).sum_all();
    let dw = &wgrad::gradients(&loss, &[&w])[0];
    let plan = plan(&graph, &[&loss, dw]);
    assert!(plan.calls.iter().flat_map(|call| &call.writes).all(|stored| stored.ty.dtype != DType::Bool), "{plan:?}");
    assert!(labels(&plan).iter().any(|label| label.ends_with("+ le + select")), "{:?}", labels(&plan));
}

/// The slope of a tanh or sigmoid is computed from its result where the backward pass needs it, and not stored.
#[test]
fn slopes_are_computed_where_they_are_read() {
    for activation in [Value::tanh, Value::sigmoid] {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [8, 16]);
        let w = graph.input("w", DType::F32, [16, 16]);
        let h = activation(&x.matmul(&w));
        let loss = h.matmul(&w).square().sum_all();
        let gradient = gradients(&loss, &[&w]).remove(0);
        let plan = plan(&graph, &[&loss, &gradient]);
        assert_valid(&plan);
        let forward = plan.calls.iter().find(|call| call.writes.iter().any(|stored| stored.value == h.id()));
        let forward = forward.expect("the activation is stored");
        assert_eq!(forward.writes.len(), 1, "{}: {:?}", forward.label, forward.writes);
        let readers = plan.calls.iter().filter(|call| call.reads.iter().any(|stored| stored.value == h.id()));
        assert_eq!(readers.count(), 3, "two products and the slope: {:?}", labels(&plan));
    }
}

fn square() -> wgrad::TensorType {
    wgrad::TensorType::new(DType::F32, [64, 64])
}

#[test]
fn updates_are_fused_into_the_gradient_kernel() {
    let graph = Graph::new();
    let (x, w) = (graph.input("x", DType::F32, [64, 64]), graph.parameter("w", Tensor::zeros(&square())));
    let loss = x.matmul(&w.t()).square().sum_all();
    Sgd::new().momentum(0.9).minimize(&graph, &loss);
    let plan = plan(&graph, &[&loss]);
    let last = plan.calls.last().expect("calls");
    assert_eq!(last.kernel.map(|(op, _)| op), Some("matmul"), "{:?}", labels(&plan));
    let updated: Vec<&str> = (plan.variables.iter())
        .filter(|(_, stored)| last.writes.iter().any(|written| written.buffer == stored.buffer))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(updated, ["w", "w.sgd.momentum"]);
    assert_valid(&plan);
}

/// Limits on dispatches, memory and pipelines of the MNIST CNN's training step, on a software adapter and a GPU.
#[test]
fn a_cnn_training_step_stays_within_its_budget() {
    use wgrad::nn::Scope;
    use wgrad::optim::{Adam, Optimizer};
    let example = Graph::new();
    let loss_of_example = wgrad::models::mnist_cnn_training(&example, 64, 0);
    // The network of `wgrad bench cnn_step`, whose feature maps have even sizes.
    let padded = Graph::new();
    let nn = Scope::train(&padded, 1);
    let conv = |name: &str, x: &Value, outputs| {
        nn.conv2d(name, x, outputs, 3, Conv2d::default().padding(1)).relu().max_pool2d(2)
    };
    let x = conv("conv1", &padded.input("x", DType::F32, [64, 1, 28, 28]), 32);
    let x = nn.linear("fc1", &conv("conv2", &x, 64).flatten(1), 128).relu();
    let target = padded.input("labels", DType::I32, [64]);
    let loss_of_padded = nn.linear("fc2", &x, 10).cross_entropy(&target, wgrad::Reduction::Mean);
    Adam::new().lr(1e-3).minimize(&padded, &loss_of_padded);
    let base = Profile { max_storage_buffers: 31, max_workgroup_memory: 32_768, ..Profile::webgpu_defaults() };
    let software = Profile { software: true, kind: "software".into(), subgroups: Some((8, 8)), ..base.clone() };
    let gpu = Profile { kind: "discrete GPU".into(), subgroups: Some((32, 32)), ..base };
    let (example, padded) = ((&example, &loss_of_example), (&padded, &loss_of_padded));
    for ((graph, loss), profile, pipelines) in
        [(example, &software, 19), (padded, &software, 15), (example, &gpu, 21), (padded, &gpu, 19)]
    {
        let (plan, findings) = Plan::of(graph, &[loss], profile, &Options::default()).expect("plans");
        assert!(findings.is_empty(), "{findings:?}");
        assert_valid(&plan);
        assert!(plan.dispatches() <= 40, "{} dispatches on {}", plan.dispatches(), profile.kind);
        // On GPUs, the values of small steps have buffers of their own.
        let ratio = plan.temporary_bytes() as f64 / plan.least_temporary_bytes as f64;
        let most = if profile.software { 1.2 } else { 3.0 };
        assert!(ratio <= most && plan.temporary_bytes() < 64 << 20, "{ratio} times the least on {}", profile.kind);
        let live = plan.live_values();
        let exists = |value: &&LiveValue, call: usize| value.first <= call && call <= value.last;
        let bytes = |call: usize| live.iter().filter(|value| exists(value, call)).map(|value| value.bytes).sum();
        assert_eq!((0..=plan.calls.len()).map(bytes).max(), Some(plan.least_temporary_bytes), "{}", profile.kind);
        let dispatches = plan.calls.iter().flat_map(|call| &call.dispatches);
        let texts: HashSet<&str> = dispatches.map(|dispatch| &*dispatch.wgsl.text).collect();
        let names: Vec<&str> = plan.calls.iter().map(|call| call.label.as_str()).collect();
        assert!(texts.len() <= pipelines, "{} pipelines on {}: {names:?}", texts.len(), profile.kind);
    }
}

#[test]
fn matmul_on_a_gpu_gets_the_right_tile() {
    let gpu = Profile { kind: "discrete GPU".into(), subgroups: Some((32, 32)), ..Profile::webgpu_defaults() };
    let label = |a: &[usize], b: &[usize], turned: bool, profile: &Profile| {
        let graph = Graph::new();
        let (a, b) = (graph.input("a", DType::F32, a), graph.input("b", DType::F32, b));
        let y = a.matmul(&if turned { b.t() } else { b });
        let (plan, _) = Plan::of(&graph, &[&y], profile, &Options::default()).expect("plans");
        plan.calls[0].label.clone()
    };
    let cases: [(&[usize], &[usize], bool, &str); 19] = [
        // The large tile if there are enough tiles, or parts of the sums, to fill the GPU: 64 multiprocessors.
        (&[2048, 512], &[512, 2048], false, "tile128"),
        (&[1024, 512], &[512, 1024], false, "tile128"),
        (&[64, 512], &[512, 16384], false, "tile64"),
        (&[768, 256], &[256, 768], false, "tile32"),
        // Sums are so short that another workgroup must hide the first loads and the stores.
        (&[16, 512, 64], &[16, 64, 512], false, "tile64"),
        (&[16, 512, 256], &[16, 256, 512], false, "tile128"),
        // Few rows or few columns.
        (&[32, 4096], &[4096, 16384], false, "tile32x128"),
        (&[65536, 64], &[64, 32], false, "tile128x32"),
        (&[32, 784], &[784, 256], false, "tile32"),
        (&[33, 20], &[20, 40], false, "tile32"),
        (&[8, 8], &[8, 8], false, "tile32"),
        // Vectors, if the sums are long: gemv if the matrix is contiguous along k, else gemv_across.
        (&[1, 4096], &[1000, 4096], true, "gemv"),
        (&[1, 4096], &[4096, 1000], false, "gemv_across"),
        (&[4096, 512], &[512, 1], false, "gemv"),
        (&[8, 512], &[512, 301], false, "gemv_across"),
        (&[1, 200], &[200, 1000], false, "tile32"),
        (&[262_144, 64], &[64, 1], false, "register4"),
        (&[8, 700], &[301, 700], true, "gemv"),
        (&[9, 700], &[301, 700], true, "tile32"),
    ];
    for (a, b, turned, expected) in cases {
        assert_eq!(label(a, b, turned, &gpu), format!("matmul.{expected}"), "{a:?} x {b:?}, turned: {turned}");
    }
    // A matrix on the left that is contiguous along the result.
    let graph = Graph::new();
    let y = graph.input("a", DType::F32, [512, 4096]).t().matmul(&graph.input("b", DType::F32, [512, 1]));
    let (plan, _) = Plan::of(&graph, &[&y], &gpu, &Options::default()).expect("plans");
    assert_eq!(plan.calls[0].label, "matmul.gemv_across");
    // A GPU with more multiprocessors needs more workgroups.
    let large = Profile { multiprocessors: Some(132), ..gpu.clone() };
    let found = [2048, 1024, 768, 512, 256, 96].map(|n| label(&[n, n], &[n, n], false, &large));
    let expected = ["tile128", "tile128", "tile128", "tile32", "tile32", "tile32"];
    assert_eq!(found, expected.map(|tile| format!("matmul.{tile}")), "on 132 multiprocessors");
    // With more workgroup memory, NVIDIA's GPUs use the widest tile for large products.
    let nvidia = Profile { max_workgroup_memory: 48 << 10, ..large };
    let of_sizes = |profile: &Profile| {
        let sizes = [[8192, 8192, 8192], [4096; 3], [2048; 3], [256, 4096, 4096], [1024; 3], [512; 3]];
        sizes.map(|[m, n, k]| label(&[m, k], &[k, n], false, profile).replace("matmul.", ""))
    };
    let wide = "tile128x256";
    assert_eq!(of_sizes(&nvidia), [wide, wide, wide, wide, "tile128", "tile32"]);
    let narrow = ["tile128", "tile128", "tile128", "tile128", "tile128", "tile32"];
    let amd = Profile { subgroups: Some((32, 64)), ..nvidia.clone() };
    assert_eq!(of_sizes(&amd), narrow);
    let apple = Profile { backend: "metal".into(), kind: "integrated GPU".into(), ..nvidia };
    assert_eq!(of_sizes(&apple), narrow);
    // A device that cannot run the tile gets a smaller one.
    let little = Profile { max_workgroup_memory: 8192, max_invocations: 128, ..gpu };
    assert_eq!(label(&[2048, 512], &[512, 2048], false, &little), "matmul.tile64");
}

/// On a GPU, several short rows share a workgroup. Each lies in a subgroup, if subgroups combine values.
#[test]
fn short_rows_share_a_workgroup_on_a_gpu() {
    let gpu = Profile { kind: "discrete GPU".into(), ..Profile::webgpu_defaults() };
    let software = Profile { software: true, kind: "software".into(), ..gpu.clone() };
    let of = |subgroups| Profile { subgroups, ..gpu.clone() };
    let (nvidia, intel) = (of(Some((32, 32))), of(Some((8, 32))));
    let cases: [(usize, &Profile, &str, usize); 9] = [
        (10, &nvidia, "invocation", 64),
        (16, &nvidia, "workgroup", 16),
        (64, &nvidia, "workgroup", 16),
        (512, &nvidia, "workgroup", 2),
        (516, &nvidia, "workgroup", 1),
        (256, &intel, "workgroup", 8),
        (512, &intel, "workgroup", 1),
        (512, &gpu, "workgroup", 2),
        (64, &software, "invocation", 64),
    ];
    for (size, profile, variant, rows) in cases {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [6400, size]);
        for y in [x.softmax(-1), x.layer_norm(&[size], None, None, 1e-5)] {
            let (plan, _) = Plan::of(&graph, &[&y], profile, &Options::default()).expect("plans");
            let [call] = &plan.calls[..] else { panic!("{} calls", plan.calls.len()) };
            let workgroups: u32 = call.dispatches[0].workgroups.iter().product();
            assert!(call.label.ends_with(variant), "{} of rows of {size}", call.label);
            assert_eq!(workgroups as usize, 6400 / rows, "{} of rows of {size}, {:?}", call.label, profile.subgroups);
        }
    }
}

/// Variants and parts of convolutions on a GPU with 132 multiprocessors.
#[test]
fn convolutions_on_a_gpu_get_the_right_tile() {
    let gpu = Profile { kind: "discrete GPU".into(), multiprocessors: Some(132), ..Profile::webgpu_defaults() };
    // Batch, channels and size of square images, output channels, kernel, stride; for forward, input gradient and weight
    // gradient the variant and the number of workgroups of the product.
    type Chosen = (&'static str, usize);
    let cases: [([usize; 6], [Chosen; 3]); 8] = [
        // Tiles of 64 are spread evenly: 5.94 per multiprocessor. Few channels by many positions take long sums.
        ([32, 128, 28, 128, 3, 1], [("nchw64", 784), ("nchw64", 784), ("tile128", 126)]),
        ([32, 64, 56, 64, 3, 1], [("nchw64", 1568), ("nchw64", 1568), ("tile64", 522)]),
        // To 32 channels: 392 tiles of 32 x 128, each in two parts.
        ([64, 32, 28, 64, 3, 1], [("nchw64", 784), ("nchw32x128", 784), ("tile64", 525)]),
        // 392 tiles, each in two parts. The copy takes less time than it saves.
        ([32, 256, 14, 256, 3, 1], [("tile64", 784), ("tile64", 784), ("tile128", 252)]),
        // Phases: 114 large tiles of positions, by two of channels. Forward, a copy would be 4 times as large as y.
        ([32, 128, 28, 128, 3, 2], [("nchw64", 784), ("tile128", 228), ("tile128", 126)]),
        // Small tiles for small convolutions, such as those of an MNIST network.
        ([8, 32, 28, 64, 3, 1], [("nchw32", 392), ("nchw32", 784), ("tile32", 504)]),
        ([64, 1, 28, 32, 3, 1], [("tile32", 1568), ("nchw32x128", 784), ("tile32", 392)]),
        ([64, 32, 14, 64, 3, 1], [("nchw32", 784), ("nchw32", 784), ("tile32", 504)]),
    ];
    for ([n, c, size, o, kernel, stride], expected) in cases {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [n, c, size, size]);
        let w = graph.input("w", DType::F32, [o, c, kernel, kernel]);
        let y = x.conv2d(&w, None, Conv2d::same(kernel).stride(stride));
        let dy = graph.input("dy", DType::F32, y.shape());
        let options = Conv2d::same(kernel).stride(stride);
        let passes = [y, dy.conv2d_input_grad(&w, size, options), x.conv2d_weight_grad(&dy, kernel, options)];
        let found = passes.map(|y| {
            let (plan, findings) = Plan::of(&graph, &[&y], &gpu, &Options::default()).expect("plans");
            assert!(findings.is_empty(), "{findings:?}");
            let product = plan.calls[0].dispatches.iter().find(|dispatch| dispatch.entry == "conv2d_tile");
            let groups = product.map_or(0, |product| product.workgroups.iter().product::<u32>());
            (plan.calls[0].label.clone(), groups as usize)
        });
        let prefixes = ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"];
        let expected: Vec<_> = prefixes.iter().zip(expected).map(|(op, (v, n))| (format!("{op}.{v}"), n)).collect();
        assert_eq!(found.to_vec(), expected, "{:?}", [n, c, size, o, kernel, stride]);
    }
}

/// Workgroups of an elementwise launch; the text is the same for all sizes.
#[test]
fn small_elementwise_launches_on_gpus_have_more_invocations() {
    let launch = |n: usize, kind: &str| {
        let graph = Graph::new();
        let y = graph.input("x", DType::F32, [n]).relu();
        let profile = Profile { kind: kind.into(), software: kind == "software", ..Profile::webgpu_defaults() };
        let (plan, _) = Plan::of(&graph, &[&y], &profile, &Options::default()).expect("plans");
        let dispatch = &plan.calls[0].dispatches[0];
        (dispatch.workgroups[0], dispatch.wgsl.text.clone())
    };
    let [(few, small), (many, large)] = [1 << 16, 1 << 23].map(|n| launch(n, "discrete GPU"));
    assert_eq!((few, many, launch(1 << 16, "software").0), (256, 8192, 64));
    assert_eq!(small, large);
}

/// The first kernels that a discrete GPU with 32 KiB of workgroup memory, but otherwise the limits of WebGPU, and a
/// software adapter run for the same values.
#[test]
fn gpus_and_software_adapters_get_their_own_kernels() {
    type Build = fn(&Graph) -> Value;
    fn floats(graph: &Graph, name: &str, shape: &[usize]) -> Value {
        graph.input(name, DType::F32, shape)
    }
    fn lstm(graph: &Graph, batch: usize, hidden: usize) -> Value {
        let x = floats(graph, "x", &[batch, 8, 16]);
        let w_ih = floats(graph, "w_ih", &[4 * hidden, 16]);
        let weights = Weights { w_ih, w_hh: floats(graph, "w_hh", &[4 * hidden, hidden]), b_ih: None, b_hh: None };
        x.recurrent(Cell::Lstm, Activation::Tanh, &weights, &[], false).y
    }
    fn attention(graph: &Graph, shape: &[usize]) -> Value {
        let x = floats(graph, "x", shape);
        x.scaled_dot_product_attention(&x, &x, &Attention::default())
    }
    fn attention_bwd(graph: &Graph, width: usize) -> Value {
        let x = floats(graph, "x", &[64, 512, width]);
        let y = x.scaled_dot_product_attention(&x, &x, &Attention::default());
        gradients(&y.square().sum_all(), &[&x]).remove(0)
    }
    let cases: [(Build, &str, &str); 20] = [
        // A constant is in no buffer that could be read.
        (|g| g.full(DType::F32, [64, 48], 2.0).t(), "copy", "copy"),
        (|g| floats(g, "x", &[64, 48]).t(), "transpose", "copy"),
        (|g| floats(g, "x", &[2, 3, 20, 20]).permute(&[0, 2, 3, 1]), "copy", "copy"),
        (|g| floats(g, "x", &[2, 64, 20, 20]).permute(&[0, 2, 3, 1]), "transpose", "copy"),
        (|g| lstm(g, 64, 512), "lstm.tile256", "lstm.steps"),
        (|g| lstm(g, 64, 96), "lstm.workgroup", "lstm.steps"),
        (|g| lstm(g, 64, 64), "lstm.registers", "lstm.steps"),
        (|g| lstm(g, 1, 64), "lstm.registers", "lstm.steps"),
        (|g| lstm(g, 640, 8), "lstm.registers", "lstm.steps"),
        (|g| floats(g, "x", &[64, 4096]).cumsum(1), "cumsum.rows", "cumsum.lines"),
        (|g| floats(g, "x", &[64, 4096]).cumsum(0), "cumsum.lines", "cumsum.lines"),
        (|g| floats(g, "x", &[64, 4096]).argsort(1, false), "argsort.tile", "argsort.merge"),
        (|g| floats(g, "x", &[64, 4096]).argmax(1, false), "argmax.workgroup", "argmax.invocation"),
        (|g| attention(g, &[64, 512, 64]), "attention.tile64", "attention.tile"),
        (|g| attention(g, &[64, 512, 128]), "attention.tile128", "attention.tile"),
        (|g| attention(g, &[4, 32, 64]), "attention.tile", "attention.tile"),
        (|g| attention_bwd(g, 64), "attention_grad.tile64", "attention_grad.tile"),
        (|g| attention_bwd(g, 128), "attention_grad.tile128", "attention_grad.tile"),
        // A bias gradient of few rows waits for its loads; one of many reads neighbouring columns together.
        (|g| floats(g, "x", &[64, 128]).sum(&[0], false), "sum.workgroup", "sum.invocation"),
        (|g| floats(g, "x", &[8192, 2048]).sum(&[0], false), "sum.invocation", "sum.invocation"),
    ];
    for (number, (build, on_gpu, on_software)) in cases.into_iter().enumerate() {
        for (kind, expected) in [("discrete GPU", on_gpu), ("software", on_software)] {
            let graph = Graph::new();
            let y = build(&graph);
            let profile = Profile {
                kind: kind.into(),
                software: kind == "software",
                max_workgroup_memory: 32 << 10,
                ..Profile::webgpu_defaults()
            };
            let (plan, findings) = Plan::of(&graph, &[&y], &profile, &Options::default()).expect("plans");
            assert!(findings.is_empty(), "{findings:?}");
            let labels = labels(&plan);
            assert!(labels.contains(&expected), "case {number} on {kind}: {labels:?}, not {expected}");
        }
    }
}

/// How many kernel calls write the temporary buffer that most of them write, and how many temporary buffers there are.
fn sharing(plan: &Plan) -> (usize, usize) {
    let mut writers: HashMap<usize, HashSet<usize>> = HashMap::new();
    for (number, call) in plan.calls.iter().enumerate() {
        for bound in call.dispatches.iter().flat_map(|dispatch| &dispatch.bindings) {
            if let Bound::Storage { buffer, write: true } = *bound
                && plan.buffers[buffer].role == Role::Temporary
            {
                writers.entry(buffer).or_default().insert(number);
            }
        }
    }
    (writers.values().map(HashSet::len).max().unwrap_or(0), writers.len())
}

#[test]
fn values_of_small_steps_on_gpus_have_buffers_of_their_own() {
    let gpu = Profile { kind: "discrete GPU".into(), ..Profile::webgpu_defaults() };
    let software = Profile { software: true, ..Profile::webgpu_defaults() };
    let plan = |graph: &Graph, output: &Value, profile: &Profile| {
        let (plan, _) = Plan::of(graph, &[output], profile, &Options::default()).expect("plans");
        sharing(&plan)
    };
    let graph = Graph::new();
    let loss = models::mnist_cnn_training(&graph, 64, 0);
    let (most, buffers) = plan(&graph, &loss, &gpu);
    assert!(most == 1 && buffers > 20, "{most} calls write one of {buffers} buffers");
    let (most, buffers) = plan(&graph, &loss, &software);
    assert!(most > 1 && buffers < 20, "{most} calls write one of {buffers} buffers");

    // Too large for that.
    let graph = Graph::new();
    let x = graph.parameter("x", Tensor::new([1 << 20], vec![1f32; 1 << 20]).expect("x"));
    let y = (0..20).fold(x.clone(), |y, _| y.cumsum(0));
    let (most, buffers) = plan(&graph, &y.sum_all(), &gpu);
    assert!(most > 1 && buffers < 20, "{most} calls write one of {buffers} buffers");
}
