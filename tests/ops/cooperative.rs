//! Matrix products and convolutions by cooperative matrices. What runs on a device needs one that has them; elsewhere
//! these tests say that they are skipped.

use wgrad::check::bound::rounding_to_f16;
use wgrad::check::{CaseReport, Extras, check_case_in};
use wgrad::op::Case;
use wgrad::ops::attention::Attention;
use wgrad::ops::conv2d::Conv2d;
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Device, Graph, OpenOptions, Precision, Profile, Session, Tensor};

use crate::common;

/// The ops that have kernels for cooperative matrices.
const OPS: [&str; 4] = ["matmul", "conv2d", "conv2d_input_grad", "conv2d_weight_grad"];

/// Runs every `n`-th case of an op in float types with each kernel for cooperative matrices. Returns how many numbers
/// these computed.
fn check_cases(device: &Device, op: &str, n: usize) -> usize {
    let all = wgrad::ops::cases().into_iter().chain(wgrad::ops::narrow_cases());
    let cases: Vec<Case> = all.filter(|case| case.op == op).collect();
    let cooperative = |ways: Vec<Options>| -> Vec<Options> {
        ways.into_iter().filter(|way| way.variant.as_ref().is_some_and(|v| v.starts_with("cooperative"))).collect()
    };
    let mut compared = 0;
    for (number, case) in cases.iter().enumerate().filter(|(number, _)| common::thorough() || number % n == 0) {
        let report: CaseReport =
            check_case_in(device, case, number as u64, &Extras::default(), cooperative).expect("runs");
        for call in report.ways.iter().flat_map(|(_, report)| &report.calls) {
            assert!(call.passed(), "{}: {} {:?} {:?}", case.name, call.label, call.worst, call.stray);
            compared += if call.label.contains("cooperative") { call.compared } else { 0 };
        }
    }
    compared
}

#[test]
fn cases_agree_with_the_reference() {
    let Some(device) = common::cooperative_device() else { return };
    // Compiling takes most of the time.
    for ((op, least), n) in OPS.into_iter().zip([10_000, 5_000, 3_000, 1_000]).zip([4, 9, 9, 9]) {
        let compared = check_cases(&device, op, n);
        assert!(compared > least, "{op}: only {compared} numbers");
    }
}

/// Kernels are planned for subgroups of twice the size that the device has.
#[test]
fn smaller_subgroups_than_planned_leave_some_idle() {
    let Some(device) = common::cooperative_device() else { return };
    let Some((least, most)) = device.profile().subgroups else { panic!("cooperative matrices need subgroups") };
    let limits = Profile { subgroups: Some((least, 2 * most)), ..device.profile().clone() };
    let options = OpenOptions { within: Some(limits), cooperative_matrices: true };
    let device = Device::open_with(None, &options).expect("opens");
    assert_eq!(device.profile().subgroups, Some((least, 2 * most)));
    for (op, least) in OPS.into_iter().zip([2_000, 1_000, 1_000, 500]) {
        let compared = check_cases(&device, op, 13);
        assert!(compared > least, "{op}: only {compared} numbers");
    }
}

/// Grids of two or three dimensions, with surplus workgroups.
#[test]
fn folded_grids_agree_with_the_reference() {
    let Some(device) = common::cooperative_device() else { return };
    let limits = Profile { max_workgroups: 3, ..device.profile().clone() };
    let options = OpenOptions { within: Some(limits), cooperative_matrices: true };
    let device = Device::open_with(None, &options).expect("opens");
    let product = Case::new("matmul", "7 products in a grid of 3 x 3", |x| vec![x[0].matmul(&x[1])]);
    let options = Conv2d::same(3);
    let forward = Case::new("conv2d", "7 tiles", move |x| vec![x[0].conv2d(&x[1], None, options)]);
    let input = Case::new("conv2d_input_grad", "7 tiles", move |x| vec![x[0].conv2d_input_grad(&x[1], 20, options)]);
    let weight = Case::new("conv2d_weight_grad", "5 tiles", move |x| vec![x[0].conv2d_weight_grad(&x[1], 3, options)]);
    let (image, kernel) = ([1, 5, 20, 20], [5, 5, 3, 3]);
    let cases = [
        (product.float("a", [7, 5, 9]).float("b", [7, 9, 6]), 7),
        (forward.float("x", image).float("w", kernel), 7),
        (input.float("dy", image).float("w", kernel), 7),
        (weight.float("x", [1, 33, 6, 6]).float("dy", [1, 5, 6, 6]), 5),
    ];
    let cooperative = |_| {
        let options =
            Options { variant: Some("cooperative64".into()), precision: Precision::Mixed, ..Options::default() };
        vec![options]
    };
    for (case, tiles) in cases {
        let report = check_case_in(&device, &case, 1, &Extras::default(), cooperative).expect("runs");
        assert!(report.passed() && report.compared() > 0, "{report:?}");
        let label = format!("{}.cooperative64", case.op);
        let calls: Vec<_> = report.ways.iter().flat_map(|(_, report)| &report.calls).collect();
        assert!(calls.iter().any(|call| call.label == label && call.workgroups > tiles), "{calls:?}");
    }
}

/// The product of each of `a` with `b`: an op of [`OPS`] of which each result has one term.
fn products(device: &Device, op: &'static str, a: &[f32], b: f32) -> Vec<f32> {
    let graph = Graph::new();
    let column = if op == "matmul" { vec![a.len(), 1] } else { vec![1, a.len(), 1, 1] };
    let one = vec![1; column.len()];
    let x = graph.input("x", DType::F32, column.clone());
    let w = graph.input("w", DType::F32, one.clone());
    let y = match op {
        "matmul" => x.matmul(&w),
        // The operand with several rows is the weight, or dy.
        "conv2d" => w.conv2d(&x.reshape(&[-1, 1, 1, 1]), None, Conv2d::default()),
        "conv2d_input_grad" => w.conv2d_input_grad(&x, 1, Conv2d::default()),
        _ => w.conv2d_weight_grad(&x, 1, Conv2d::default()),
    };
    let options = Options { variant: Some("cooperative64".into()), precision: Precision::Mixed, ..Options::default() };
    let mut session = Session::new(device.clone());
    let program = session.compile_with(&graph, &[&y], &options).expect("compiles");
    let calls = &program.plan().calls;
    let call = calls.iter().find(|call| call.kernel == Some((op, "cooperative64"))).expect("a call");
    assert_eq!(call.precision(), Precision::Mixed);
    let x = Tensor::new(column, a.to_vec()).expect("a tensor");
    let w = Tensor::new(one, [b]).expect("a tensor");
    session.run(&program, &[("x", &x), ("w", &w)]).expect("runs")[0].to_f32()
}

#[test]
fn operands_are_rounded_to_the_nearest_f16_within_its_range() {
    let Some(device) = common::cooperative_device() else { return };
    let a = [1.0 + 2f32.powi(-11) * 1.5, 1.0 + 2f32.powi(-12), 65_504.0, 65_519.0, 65_520.0, -1e30, 2f32.powi(-24)];
    let want = [1.0 + 2f32.powi(-10), 1.0, 65_504.0, 65_504.0, 65_504.0, -65_504.0, 2f32.powi(-24)];
    for op in OPS {
        assert_eq!(products(&device, op, &a, 1.0), want, "{op}");
        let special = products(&device, op, &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, -0.0], 2.0);
        assert_eq!(special[..2], [f32::INFINITY, f32::NEG_INFINITY], "{op}");
        assert!(special[2].is_nan(), "{op}");
        assert_eq!(special[3..], [2.0, 0.0], "{op}");
        // The sum of products is beyond the range of f16.
        assert_eq!(products(&device, op, &[60_000.0], 60_000.0), [3.6e9], "{op}");
        // The other operand is rounded alike.
        assert_eq!(products(&device, op, &[1.0], 1.0 + 2f32.powi(-12)), [1.0], "{op}");
    }
}

#[test]
fn the_bound_of_rounding_is_half_a_unit_in_the_last_place() {
    for (x, bound) in [
        (0.0, 0.0),
        (1.0, 0.0),
        (1.0 + 2f64.powi(-12), 2f64.powi(-11)),
        (-3.0000001, 2f64.powi(-10)),
        (1e-9, 2f64.powi(-25)),
        (2f64.powi(-24), 0.0),
        (65_504.0, 0.0),
        (65_505.0, 16.0),
        (1e6, 1e6 - 65_504.0),
        (f64::INFINITY, 0.0),
    ] {
        assert_eq!(rounding_to_f16(x), bound, "{x}");
    }
    assert_eq!(rounding_to_f16(f64::NAN), 0.0);
}

/// A GPU with matrix units.
fn gpu() -> Profile {
    Profile {
        kind: "discrete GPU".into(),
        max_workgroup_memory: 48 << 10,
        subgroups: Some((32, 32)),
        f16: true,
        cooperative_matrices: vec![16],
        ..Profile::webgpu_defaults()
    }
}

/// The label of a product's kernel call.
fn planned(sizes: [usize; 3], profile: &Profile, precision: Precision) -> (String, String) {
    let [m, n, k] = sizes;
    let graph = Graph::new();
    let y = graph.input("a", DType::F32, [m, k]).matmul(&graph.input("b", DType::F32, [k, n]));
    let options = Options { precision, ..Options::default() };
    let (plan, findings) = Plan::of(&graph, &[&y], profile, &options).expect("plans");
    assert!(findings.is_empty(), "{findings:?}");
    (plan.calls[0].label.clone(), plan.explain())
}

#[test]
fn only_mixed_precision_uses_cooperative_matrices_and_only_where_there_are_some() {
    let large = [2048, 2048, 2048];
    assert_eq!(planned(large, &gpu(), Precision::Mixed).0, "matmul.cooperative128");
    assert_eq!(planned([512, 512, 512], &gpu(), Precision::Mixed).0, "matmul.cooperative64");
    let (highest, why) = planned(large, &gpu(), Precision::Highest);
    assert_eq!(highest, "matmul.tile128x256");
    assert!(why.contains("cooperative128 needs Options::precision Mixed"), "{why}");
    let without = Profile { cooperative_matrices: Vec::new(), ..gpu() };
    let (label, why) = planned(large, &without, Precision::Mixed);
    assert_eq!(label, "matmul.tile128x256");
    assert!(why.contains("cooperative128 lacks cooperative matrices (off unless enabled)"), "{why}");
    // A workgroup's memory does not hold the results of so many subgroups.
    let narrow = Profile { subgroups: Some((4, 4)), ..gpu() };
    assert_eq!(planned(large, &narrow, Precision::Mixed).0, "matmul.tile128");
}

/// naga's Metal output loads cooperative matrices through pointers to numbers; elsewhere four are stored at a time.
#[test]
fn operands_are_numbers_on_metal_and_vectors_elsewhere() {
    for (backend, element) in [("metal", "alias Cell = f16;"), ("vulkan", "alias Cell = vec4<f16>;")] {
        let profile = Profile { backend: backend.into(), ..gpu() };
        let graph = Graph::new();
        let q = graph.input("q", DType::F32, [1, 1, 64, 64]);
        let product = graph.input("a", DType::F32, [64, 64]).matmul(&graph.input("b", DType::F32, [64, 64]));
        let attention = q.scaled_dot_product_attention(&q, &q, &Attention::default());
        for (y, variant) in [(product, "cooperative64"), (attention, "cooperative")] {
            let variant = Some(variant.to_owned());
            let options = Options { variant, precision: Precision::Mixed, ..Options::default() };
            let (plan, _) = Plan::of(&graph, &[&y], &profile, &options).expect("plans");
            let texts: Vec<_> = plan.calls.iter().flat_map(|call| &call.dispatches).map(|d| &d.wgsl).collect();
            assert!(texts.iter().any(|wgsl| wgsl.cooperative && wgsl.text.contains(element)), "{backend}: {texts:?}");
        }
    }
}

/// f16 operands are not converted on their way to workgroup memory.
#[test]
fn products_read_f16_as_such() {
    let graph = Graph::new();
    let a = graph.input("a", DType::F16, [64, 64]);
    let b = graph.input("b", DType::F32, [64, 64]);
    let options = Options { variant: Some("cooperative64".into()), precision: Precision::Mixed, ..Options::default() };
    let (plan, _) = Plan::of(&graph, &[&a.matmul(&b.cast(DType::F16))], &gpu(), &options).expect("plans");
    let texts: Vec<_> = plan.calls.iter().flat_map(|call| &call.dispatches).map(|d| &d.wgsl.text).collect();
    let product = texts.iter().find(|text| text.contains("coopMultiplyAdd")).expect("a product");
    assert!(product.contains("var<storage, read> a: array<vec4<ElementA>>;"), "{product}");
    assert!(product.contains("alias ElementA = f16;"), "{product}");
}

/// The variants of a convolution's three passes, of `[images, channels, size, outputs, kernel]`.
fn convolutions([n, c, size, o, kernel]: [usize; 5], profile: &Profile, precision: Precision) -> [&'static str; 3] {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [n, c, size, size]);
    let w = graph.input("w", DType::F32, [o, c, kernel, kernel]);
    let options = Conv2d::same(kernel);
    let y = x.conv2d(&w, None, options);
    let dy = graph.input("dy", DType::F32, y.shape());
    [y, dy.conv2d_input_grad(&w, size, options), x.conv2d_weight_grad(&dy, kernel, options)].map(|y| {
        let options = Options { precision, ..Options::default() };
        let (plan, findings) = Plan::of(&graph, &[&y], profile, &options).expect("plans");
        assert!(findings.is_empty(), "{findings:?}");
        assert!(plan.calls[0].precision() <= precision);
        plan.calls[0].kernel.expect("a kernel").1
    })
}

#[test]
fn convolutions_use_them_in_all_passes() {
    let large = [64, 256, 28, 256, 3];
    assert_eq!(convolutions(large, &gpu(), Precision::Mixed), ["cooperative128"; 3]);
    assert_eq!(convolutions(large, &gpu(), Precision::Highest), ["tile128"; 3]);
    let without = Profile { cooperative_matrices: Vec::new(), ..gpu() };
    assert_eq!(convolutions(large, &without, Precision::Mixed), ["tile128"; 3]);
    let pointwise = convolutions([64, 256, 28, 256, 1], &gpu(), Precision::Mixed);
    assert_eq!(pointwise, ["cooperative_pointwise", "cooperative_pointwise", "cooperative128"]);
}

#[test]
fn a_device_has_cooperative_matrices_only_on_request() {
    let Some(device) = common::cooperative_device() else { return };
    assert!(Device::gpu().expect("opened above").profile().cooperative_matrices.is_empty());
    let named = Device::open_within(None, Some(device.profile())).expect("opens");
    assert!(named.profile().cooperative_matrices.is_empty());
}
