//! Attention by cooperative matrices. What runs on a device needs one that has them; elsewhere these tests say that they
//! are skipped.

use wgrad::check::{CaseReport, Extras, check_case_in};
use wgrad::op::{Case, Fill};
use wgrad::ops::attention::Attention;
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Device, Graph, OpenOptions, Precision, Profile, TensorType, Value, gradients};

use crate::common;

/// The kernel for cooperative matrices, in each of its forms.
fn cooperative(_: Vec<Options>) -> Vec<Options> {
    vec![Options { variant: Some("cooperative".into()), precision: Precision::Mixed, ..Options::default() }]
}

/// Compares every element of the results and gradients of the cases. Returns how many numbers the kernels for
/// cooperative matrices computed.
fn check(device: &Device, cases: &[Case]) -> usize {
    let extras = Extras { repeat: false, permuted: true, ..Extras::default() };
    let mut compared = 0;
    for (number, case) in cases.iter().enumerate() {
        let report: CaseReport = check_case_in(device, case, number as u64, &extras, cooperative).expect("runs");
        for call in report.ways.iter().flat_map(|(_, report)| &report.calls) {
            assert!(call.passed(), "{}: {} {:?} {:?}", case.name, call.label, call.worst, call.stray);
            compared += if call.label.contains("cooperative") { call.compared } else { 0 };
        }
    }
    compared
}

/// Attention of `heads` heads, with queries `[l, e]`, keys `[s, e]`, values `[s, width]` and a mask for each head.
fn case([heads, l, s, e, width]: [usize; 5], is_causal: bool, masked: bool) -> Case {
    let name = format!("{heads} of {l} queries, {s} keys, {e} and {width}, causal {is_causal}, masked {masked}");
    let case = Case::new("attention", name, move |x| {
        let options = Attention { attn_mask: x.get(3).cloned(), is_causal, scale: None };
        vec![x[0].scaled_dot_product_attention(&x[1], &x[2], &options)]
    });
    let case = case.float("q", [heads, l, e]).float("k", [heads, s, e]).float("v", [heads, s, width]);
    let mask = TensorType::new(DType::F32, [heads, l, s]);
    if masked { case.input("mask", mask, Fill::Uniform(-2.0, 2.0)) } else { case }
}

#[test]
fn results_and_gradients_agree_with_the_reference() {
    let Some(device) = common::cooperative_device() else { return };
    let cases = [
        // Several tiles of queries and of keys.
        case([2, 130, 150, 32, 32], false, false),
        case([1, 200, 70, 36, 12], true, false),
        case([1, 64, 128, 64, 64], false, false),
        case([1, 70, 200, 64, 64], true, true),
        // Two panels, and several workgroups side by side.
        case([2, 65, 129, 80, 80], false, true),
        case([1, 70, 66, 20, 140], true, false),
        case([1, 66, 30, 140, 24], false, false),
        // Less than a tile.
        case([3, 5, 7, 128, 128], false, false),
        case([2, 1, 1, 4, 4], true, false),
    ];
    let compared = check(&device, &cases);
    assert!(compared > 100_000, "only {compared} numbers");
}

/// Scores that rise from key to key, by 26 in each tile: each changes the shift, and scales what has been added.
#[test]
fn scores_may_rise_from_tile_to_tile() {
    let Some(device) = common::cooperative_device() else { return };
    const RISING: [f64; 4 * 260] = {
        let (mut x, mut i) = ([0.0; 4 * 260], 0);
        while i < x.len() {
            x[i] = (i / 4) as f64 * 0.02 - 2.0;
            i += 1;
        }
        x
    };
    let floats = |rows: usize, width: usize| TensorType::new(DType::F32, [rows, width]);
    let case = Case::new("attention", "rising", |x| {
        vec![x[0].scaled_dot_product_attention(&x[1], &x[2], &Attention { scale: Some(1.0), ..Attention::default() })]
    });
    // Two queries see the rise, another tile of them hardly.
    let case = case.input("q", floats(70, 4), Fill::Special(&[5.0; 8], -0.2, 0.2));
    let case = case.input("k", floats(260, 4), Fill::Special(&RISING, 0.0, 0.0)).float("v", [260, 100]);
    assert!(check(&device, &[case]) > 7000);
}

/// Every `n`-th case of attention: masks, views, special numbers, and sums that several launches share.
fn check_cases(device: &Device, n: usize) -> usize {
    let all = wgrad::ops::cases().into_iter().chain(wgrad::ops::narrow_cases());
    let cases = all.filter(|case| case.op == "attention").enumerate();
    let chosen: Vec<Case> =
        cases.filter(|(number, _)| common::thorough() || number % n == 0).map(|(_, case)| case).collect();
    check(device, &chosen)
}

#[test]
fn cases_agree_with_the_reference() {
    let Some(device) = common::cooperative_device() else { return };
    let compared = check_cases(&device, 9);
    assert!(compared > 10_000, "only {compared} numbers");
}

/// Kernels are planned for subgroups of twice the size that the device has, and grids are folded.
#[test]
fn smaller_subgroups_and_folded_grids_leave_some_idle() {
    let Some(device) = common::cooperative_device() else { return };
    let Some((least, most)) = device.profile().subgroups else { panic!("cooperative matrices need subgroups") };
    let limits = Profile { subgroups: Some((least, 2 * most)), max_workgroups: 3, ..device.profile().clone() };
    let options = OpenOptions { within: Some(limits), cooperative_matrices: true };
    let device = Device::open_with(None, &options).expect("opens");
    assert_eq!(device.profile().subgroups, Some((least, 2 * most)));
    // 10, 10 and 5 workgroups.
    let compared = check(&device, &[case([5, 70, 9, 16, 20], false, false)]);
    assert!(compared > 5 * 70 * 20, "only {compared} numbers");
}

/// An NVIDIA H100 and an AMD GPU of RDNA 3.
fn gpus() -> [Profile; 2] {
    let gpu = Profile {
        kind: "discrete GPU".into(),
        max_invocations: 1024,
        max_workgroup_memory: 48 << 10,
        max_storage_buffers: 16,
        f16: true,
        cooperative_matrices: vec![16],
        ..Profile::webgpu_defaults()
    };
    let nvidia = Profile { multiprocessors: Some(132), subgroups: Some((32, 32)), ..gpu.clone() };
    let amd = Profile { multiprocessors: Some(96), max_workgroup_memory: 64 << 10, subgroups: Some((32, 64)), ..gpu };
    [nvidia, amd]
}

/// The labels of the kernel calls of attention, forward and backward, for 16 heads of 1024 queries.
fn planned(profile: &Profile, width: usize, precision: Precision) -> Vec<String> {
    let graph = Graph::new();
    let [q, k, v] = ["q", "k", "v"].map(|name| graph.input(name, DType::F32, [16, 1024, width]));
    let y = q.scaled_dot_product_attention(&k, &v, &Attention { is_causal: true, ..Attention::default() });
    let gradients: Vec<Value> = gradients(&y.square().sum_all(), &[&q, &k, &v]);
    let outputs: Vec<&Value> = std::iter::once(&y).chain(&gradients).collect();
    let options = Options { precision, ..Options::default() };
    let (plan, findings) = Plan::of(&graph, &outputs, profile, &options).expect("plans");
    assert!(findings.is_empty(), "{findings:?}");
    let calls = plan.calls.iter().filter(|call| call.kernel.is_some_and(|(op, _)| op.starts_with("attention")));
    calls.map(|call| call.label.clone()).collect()
}

#[test]
fn only_mixed_precision_uses_cooperative_matrices_and_only_where_there_are_some() {
    for (profile, width) in gpus().into_iter().flat_map(|gpu| [32, 64, 80, 128].map(|width| (gpu.clone(), width))) {
        let mixed = planned(&profile, width, Precision::Mixed);
        assert_eq!(mixed.len(), 2, "{mixed:?}");
        assert!(mixed.iter().all(|label| label.contains(".cooperative")), "{mixed:?}");
        let highest = planned(&profile, width, Precision::Highest);
        assert!(highest.iter().all(|label| label.contains(".tile")), "{highest:?}");
        let without = Profile { cooperative_matrices: Vec::new(), ..profile };
        assert_eq!(planned(&without, width, Precision::Mixed), highest);
    }
}
