//! Every case on devices opened with lower limits than the adapter's, so that every fold, split and
//! fallback runs: WebGPU's guaranteed limits, and very low ones (128 invocations, 64 workgroups per
//! dimension, bindings of 1 MiB). wgpu enforces the limits, and the planner chooses as on a real GPU.
//! Plans equal to one for the adapter itself are skipped: `kernels.rs` runs them. Every case is planned; half of them, or
//! an eighth where kernels compile slowly, run with the default options and some others. With `WGRAD_THOROUGH=1`, all
//! cases run with all options.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use wgrad::check::{CaseGraph, ways};
use wgrad::op::Case;
use wgrad::ops::conv2d::Conv2d;
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Device, Error, Graph, Limit, Profile, Session, Tensor, Value};

use crate::common;

/// The result of a case under a profile.
enum Verdict {
    /// The number of elements compared and of plans run (without those that the adapter gets too).
    Right {
        compared: usize,
        ran: usize,
    },
    /// The profile refuses the case, with the reason.
    Refused(String),
    Wrong(String),
}

/// The results of all cases under a profile.
#[derive(Default)]
struct Outcome {
    cases: usize,
    compared: usize,
    /// The number of plans run.
    ran: usize,
    /// Cases that the profile refuses, with the reason.
    refused: Vec<(String, String)>,
}

/// Runs one profile at a time, so that the second reuses kernels that the driver has cached.
static TURN: Mutex<()> = Mutex::new(());

fn name_of(case: &Case) -> String {
    format!("{} ({})", case.op, case.name)
}

/// Runs the cases selected by `wanted` with all options, and panics if one is wrong.
fn run(whole: &Profile, profile: &Profile, wanted: impl Fn(&str) -> bool) -> Outcome {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = || Device::open_within(None, Some(profile)).expect("opens");
    let device = open();
    let given = device.profile();
    assert_eq!((given.max_invocations, given.max_workgroups), (profile.max_invocations, profile.max_workgroups));
    assert_eq!((given.usable_storage_buffers(), given.max_binding), (7, profile.max_binding));
    assert!(given.subgroups.is_none() && !given.f16 && !given.timestamps && !given.software);
    let cases: Vec<(usize, Case)> = wgrad::ops::cases().into_iter().enumerate().collect();
    let cases: Vec<(usize, Case)> = cases.into_iter().filter(|(_, case)| wanted(&name_of(case))).collect();
    let verdicts = common::in_parallel_with(&cases, open, |device, _, (number, case)| {
        let every = if common::sampling(case.op, 1) > 1 { 8 } else { 2 };
        let runs = common::thorough() || number % every == 0;
        verdict(whole, device, case, *number, |_| runs)
    });
    let (mut outcome, mut failures) = (Outcome::default(), Vec::new());
    for ((_, case), verdict) in cases.iter().zip(verdicts) {
        match verdict {
            Verdict::Right { compared, ran } => {
                outcome.cases += 1;
                outcome.compared += compared;
                outcome.ran += ran;
            }
            Verdict::Refused(why) => outcome.refused.push((name_of(case), why)),
            Verdict::Wrong(why) => failures.push(format!("{}: {why}", name_of(case))),
        }
    }
    println!("{}: {} cases, {} plans, {} comparisons", profile.name, outcome.cases, outcome.ran, outcome.compared);
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    outcome
}

/// Runs those plans of a case that are `wanted` and differ from the plans for the adapter's full profile, `whole`.
fn verdict(whole: &Profile, device: &Device, case: &Case, number: usize, wanted: impl Fn(&Plan) -> bool) -> Verdict {
    let graph = CaseGraph::new(case).expect("builds");
    let outputs: Vec<&Value> = graph.outputs.iter().map(|(_, value)| value).collect();
    let plan = |profile: &Profile, options: &Options| {
        Plan::of(&graph.graph, &outputs, profile, options).expect("a valid graph")
    };
    let mut known: HashSet<u64> =
        ways(&graph, whole).iter().map(|options| plan(whole, options).0.fingerprint()).collect();
    let inputs = graph.sample(1000 + number as u64);
    let feeds: Vec<_> = graph.inputs.iter().zip(&inputs).map(|((name, ..), t)| (name.as_str(), t)).collect();
    let (mut compared, mut ran) = (0, 0);
    for options in common::sampled(ways(&graph, device.profile()), number, common::sampling(case.op, 5)) {
        let (plan, findings) = plan(device.profile(), &options);
        if let Some(finding) = findings.iter().find(|finding| finding.refused) {
            return Verdict::Refused(finding.to_string());
        }
        if !known.insert(plan.fingerprint()) || !wanted(&plan) {
            continue;
        }
        let mut session = Session::new(device.clone());
        let program = session.compile_with(&graph.graph, &outputs, &options);
        match program.and_then(|program| session.check(&program, &feeds)) {
            Ok((_, report)) if report.passed() => (compared, ran) = (compared + report.compared(), ran + 1),
            Ok((_, report)) => return Verdict::Wrong(format!("{options:?}: {report:?}")),
            Err(error) => return Verdict::Wrong(format!("{options:?}: {error}")),
        }
    }
    Verdict::Right { compared, ran }
}

/// The number of plans that a profile must run, far below what it does run.
fn least_plans() -> usize {
    if common::thorough() { 500 } else { 200 }
}

#[test]
fn every_case_passes_within_webgpu_defaults() {
    let Some(whole) = common::device() else { return };
    let outcome = run(whole.profile(), &Profile::webgpu_defaults(), |_| true);
    assert_eq!(outcome.refused, []);
    assert_eq!(outcome.cases, wgrad::ops::cases().len());
    assert!(outcome.compared > 1_000_000 && outcome.ran > least_plans(), "only {} comparisons", outcome.compared);
}

/// The number of kernels with cases large enough to fold.
const FOLDED: usize = 20;

/// The cases that do not fit bindings of 1 MiB.
const LARGE: [&str; 13] = [
    "attention (keys of three launches)",
    "attention (keys of two launches, two chunks)",
    "attention (queries of two launches, two chunks)",
    "cross_entropy (400001 classes, all but one equal)",
    "sum (all of 1.2 million)",
    "sum (two longer rows)",
    "mean (of 999,999 tenths)",
    "sum (1030 rows of 2047 tenths)",
    "scatter_sum (8200 wide rows to 3)",
    "softmax (400001 elements, all but one equal)",
    "log_softmax (400001 elements, all but one equal)",
    "softmax_grad (400001 equal elements)",
    "log_softmax_grad (400001 equal elements)",
];

#[test]
fn every_case_passes_within_low_limits() {
    let Some(whole) = common::device() else { return };
    let outcome = run(whole.profile(), &Profile::low_1mib(), |_| true);
    let names: Vec<&str> = outcome.refused.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, LARGE);
    for (name, why) in &outcome.refused {
        assert!(
            why.contains("needs a buffer of") && why.contains("allows 1048576; use a smaller batch"),
            "{name}: {why}"
        );
    }
    assert_eq!(outcome.cases + LARGE.len(), wgrad::ops::cases().len());
    assert!(outcome.compared > 1_000_000 && outcome.ran > least_plans(), "only {} comparisons", outcome.compared);

    let large = run(whole.profile(), &Profile::low(), |name| LARGE.contains(&name));
    assert_eq!((large.cases, large.refused), (LARGE.len(), vec![]));
    assert!(large.compared > 0);
}

/// On grids of at most 4 x 4 x 4, with all variants that the adapter can run: for each kernel, runs the
/// first case that needs all three dimensions. Cases that need more workgroups are refused.
#[test]
fn every_kernel_folds_over_three_dimensions() {
    let Some(whole) = common::device() else { return };
    let (mut kernels, mut compared, mut refused) = (BTreeSet::new(), 0, 0);
    for max_workgroups in [4, 3, 2] {
        let limits = Profile { max_workgroups, ..whole.profile().clone() };
        let device = Device::open_within(None, Some(&limits)).expect("opens");
        for (number, case) in wgrad::ops::cases().iter().enumerate() {
            let graph = CaseGraph::new(case).expect("builds");
            for options in ways(&graph, device.profile()) {
                match fold(&device, &graph, &options, number as u64, &mut kernels) {
                    Some(n) => compared += n,
                    None => refused += 1,
                }
            }
        }
    }
    println!("{} kernels, {compared} comparisons, {refused} plans refused: {kernels:?}", kernels.len());
    assert!(kernels.len() >= FOLDED && compared > 100_000 && refused > 0, "{} kernels: {kernels:?}", kernels.len());
}

/// Kernels whose cases are too small to fold are checked by their source text.
#[test]
fn every_shader_numbers_workgroups_over_three_dimensions() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut seen = 0;
    let files = std::fs::read_dir(folder).expect("the shaders").flatten().map(|entry| entry.path());
    for path in files.filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&path).expect("text");
        if text.contains("@workgroup_size") {
            seen += 1;
            assert!(text.contains("group_number(group, groups)"), "{}", path.display());
        }
    }
    assert!(seen > 30, "only {seen} shaders");
}

/// Runs a plan if it has a kernel with a three-dimensional grid that is not yet in `kernels`. Returns the
/// number of elements compared, or `None` if the grid is too small.
fn fold(
    device: &Device,
    graph: &CaseGraph,
    options: &Options,
    seed: u64,
    kernels: &mut BTreeSet<String>,
) -> Option<usize> {
    let outputs: Vec<&Value> = graph.outputs.iter().map(|(_, value)| value).collect();
    let (plan, findings) = Plan::of(&graph.graph, &outputs, device.profile(), options).expect("a valid graph");
    if !findings.is_empty() {
        let most = u64::from(device.profile().max_workgroups).pow(3);
        assert!(findings.iter().all(|f| f.limit == Limit::Workgroups && f.allows == most), "{findings:?}");
        return None;
    }
    let dispatches = plan.calls.iter().flat_map(|call| &call.dispatches);
    let folded = dispatches.filter(|dispatch| dispatch.workgroups[2] > 1).map(|d| d.entry.clone());
    let before = kernels.len();
    kernels.extend(folded);
    if kernels.len() == before {
        return Some(0);
    }
    let inputs = graph.sample(seed);
    let feeds: Vec<_> = graph.inputs.iter().zip(&inputs).map(|((name, ..), t)| (name.as_str(), t)).collect();
    let mut session = Session::new(device.clone());
    let program = session.compile_with(&graph.graph, &outputs, options).expect("compiles");
    let (_, report) = session.check(&program, &feeds).expect("runs");
    assert!(report.passed(), "{report:?}");
    Some(report.compared())
}

/// Workgroups that combine their values by subgroups, whose size is that of the adapter, or known only to the kernel. Each
/// in an eighth of the cases, or in all of them if `WGRAD_THOROUGH=1`; one in all cases of long rows, which take larger
/// workgroups.
#[test]
fn workgroups_reduce_by_subgroups_of_any_size() {
    let Some(whole) = common::device() else { return };
    let Some(sizes) = whole.profile().subgroups else { return };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let reduces = |plan: &Plan| {
        let mut dispatches = plan.calls.iter().flat_map(|call| &call.dispatches);
        dispatches.any(|dispatch| dispatch.wgsl.text.contains("fn subgroup_width"))
    };
    for (side, subgroups) in [sizes, (4, 128)].into_iter().enumerate() {
        let gpu = Profile { software: false, subgroups: Some(subgroups), ..whole.profile().clone() };
        let open = || Device::open_within(None, Some(&gpu)).expect("opens");
        assert_eq!(open().profile().subgroups, Some(subgroups));
        let cases = wgrad::ops::cases().into_iter().enumerate();
        let long = |case: &Case| case.inputs.iter().any(|input| input.ty.shape.last().is_some_and(|&size| size > 4096));
        let wanted =
            |&(number, ref case): &(usize, Case)| common::thorough() || number % 8 == side || side == 0 && long(case);
        let cases: Vec<(usize, Case)> = cases.filter(wanted).collect();
        let verdicts = common::in_parallel_with(&cases, open, |device, _, (number, case)| {
            verdict(whole.profile(), device, case, *number, reduces)
        });
        let (mut compared, mut ran) = (0, 0);
        for ((_, case), verdict) in cases.iter().zip(verdicts) {
            match verdict {
                Verdict::Right { compared: more, ran: plans } => (compared, ran) = (compared + more, ran + plans),
                Verdict::Refused(why) | Verdict::Wrong(why) => panic!("{}: {why}", name_of(case)),
            }
        }
        println!("subgroups of {subgroups:?}: {ran} plans, {compared} comparisons");
        assert!(ran > 50 && compared > 100_000, "only {compared} comparisons");
    }
}

/// A tensor that fills a binding exactly runs: the padding behind it need not be bound. A larger one is
/// refused.
#[test]
fn a_tensor_that_fills_a_binding_exactly_runs() {
    if common::device().is_none() {
        return;
    }
    const MAX: usize = 1 << 18; // elements of 1 MiB
    let profile = Profile { max_buffer: 4 << 20, ..Profile::low_1mib() };
    let device = Device::open_within(None, Some(&profile)).expect("opens");
    let compile = |session: &mut Session, elements: usize| {
        let graph = Graph::new();
        let w = graph.parameter("w", Tensor::new([elements], vec![0.5f32; elements]).expect("fits"));
        let x = graph.input("x", DType::F32, [elements]);
        let y = &x * 2.0 + &w;
        graph.assign(&w, &y);
        let rows = x.reshape(&[elements as isize / 16, 16]);
        session.compile(&graph, &[&y, &x.sum_all(), &rows.sum(&[1], false), &x.slice(0, elements - 3, elements, 1)])
    };
    for elements in [MAX - 64, MAX - 16, MAX] {
        let mut session = Session::new(device.clone());
        let program = compile(&mut session, elements).expect("fits");
        let x: Vec<f32> = (0..elements).map(|i| (i % 7) as f32).collect();
        let feeds = [("x", &Tensor::new([elements], x.clone()).expect("fits"))];
        let outputs = session.run(&program, &feeds).expect("runs");
        let want: Vec<f32> = x.iter().map(|x| x * 2.0 + 0.5).collect();
        assert_eq!(outputs[0].to_f32(), want);
        assert_eq!(session.get("w").expect("w").to_f32(), want);
        assert_eq!(outputs[1].item().expect("a scalar"), x.iter().map(|&x| f64::from(x)).sum::<f64>());
        let sums: Vec<f32> = x.chunks(16).map(|row| row.iter().sum()).collect();
        assert_eq!(outputs[2].to_f32(), sums);
        assert_eq!(outputs[3].to_f32(), x[elements - 3..]);
        let mut session = Session::new(device.clone());
        let program = compile(&mut session, elements).expect("fits");
        let (_, report) = session.check(&program, &feeds).expect("runs");
        assert!(report.passed() && report.compared() > elements, "{report:?}");
    }
    let refused = compile(&mut Session::new(device), MAX + 64).map(drop).expect_err("does not fit");
    let reported =
        matches!(&refused, Error::Limit(why) if why.contains("1048896 bytes") && why.contains("allows 1048576"));
    assert!(reported, "{refused}");
}

/// A device whose workgroup memory the largest tiles fill has no room to pad them.
#[test]
fn tiles_agree_with_the_reference_padded_or_not() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let a = graph.input("a", DType::F32, [150, 68]);
    let b = graph.input("b", DType::F32, [136, 68]);
    let x = graph.input("x", DType::F32, [2, 8, 12, 12]);
    let w = graph.input("w", DType::F32, [20, 8, 3, 3]);
    let dy = graph.input("dy", DType::F32, [2, 20, 12, 12]);
    let options = Conv2d::same(3);
    // Both operands, the right one, and the left one are contiguous along the terms.
    let cases = [
        (a.matmul(&b.t()), [("a", &a), ("b", &b)], 2),
        (x.conv2d(&w, None, options), [("x", &x), ("w", &w)], 1),
        (x.conv2d_weight_grad(&dy, 3, options), [("x", &x), ("dy", &dy)], 1),
    ];
    let numbers = |count: usize| (0..count).map(|i| (i % 61) as f32 / 16.0 - 2.0).collect::<Vec<_>>();
    for (memory, padded) in [(16_384, false), (16_640, true)] {
        let limits = Profile { max_workgroup_memory: memory, max_invocations: 256, ..device.profile().clone() };
        let device = Device::open_within(None, Some(&limits)).expect("opens");
        for (y, inputs, by_terms) in &cases {
            let options = Options { variant: Some("tile128".into()), ..Options::default() };
            let mut session = Session::new(device.clone());
            let program = session.compile_with(&graph, &[y], &options).expect("compiles");
            let dispatches = program.plan().calls.iter().flat_map(|call| &call.dispatches);
            let found: usize = dispatches.map(|d| d.wgsl.text.matches("_BY_TERMS: bool = true").count()).sum();
            assert_eq!(found, if padded { *by_terms } else { 0 }, "{}", program.plan().explain());
            let tensors = inputs.map(|(name, input)| {
                let numbers = numbers(input.shape().iter().product());
                (name, Tensor::new(input.shape(), numbers).expect("as many"))
            });
            let feeds = tensors.each_ref().map(|(name, tensor)| (*name, tensor));
            let (_, report) = session.check(&program, &feeds).expect("runs");
            assert!(report.passed() && report.compared() > 1000, "{report:?}");
        }
    }
}

/// Transposed copies go through tiles on GPUs; constants, which have no buffer, do not.
#[test]
fn transposed_values_of_every_kind_are_copied() {
    let Some(_) = common::device() else { return };
    let device = Device::open_within(None, Some(&Profile::webgpu_defaults())).expect("opens");
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [40, 3, 24]);
    let w = graph.parameter("w", Tensor::new([33, 20], (0..660).map(|i| i as f32).collect::<Vec<_>>()).expect("660"));
    let constant = graph.full(DType::F32, [40, 24], 2.0);
    let stored = graph.constant(Tensor::new([17, 18], (0..306).collect::<Vec<i32>>()).expect("306"));
    let values = [
        x.permute(&[2, 1, 0]),
        (&x * 2.0).permute(&[2, 0, 1]),
        w.t(),
        constant.t(),
        stored.t(),
        (&constant + &x.slice(1, 0, 1, 1).reshape(&[40, 24])).t(),
    ];
    let outputs: Vec<&Value> = values.iter().collect();
    let mut session = Session::new(device);
    let program = session.compile(&graph, &outputs).expect("compiles");
    let tiled = program.plan().calls.iter().filter(|call| call.label == "transpose").count();
    assert!(tiled >= 4, "{tiled} transposed copies");
    let feed = Tensor::new([40, 3, 24], (0..2880).map(|i| (i % 1013) as f32).collect::<Vec<_>>()).expect("2880");
    let (_, report) = session.check(&program, &[("x", &feed)]).expect("runs");
    assert!(report.passed() && report.compared() > 5000, "{report:?}");
}

/// The tests of this file rely on wgpu to reject dispatches beyond the limit of a device.
#[test]
fn a_dispatch_beyond_the_limit_is_refused() {
    if common::device().is_none() {
        return;
    }
    let device = Device::open_within(None, Some(&Profile::low())).expect("opens");
    let graph = Graph::new();
    let y = graph.input("x", DType::F32, [100]).relu();
    let x = Tensor::new([100], (0..100).map(|i| i as f32 - 50.0).collect::<Vec<f32>>()).expect("x");
    let mut session = Session::new(device);
    for axis in 0..3 {
        let mut run = |workgroups: u32| {
            let edit = |plan: &mut Plan| {
                plan.calls[0].dispatches[0].workgroups[axis] = workgroups;
                Ok(())
            };
            let program = session.compile_edited(&graph, &[&y], &Options::default(), edit)?;
            session.run(&program, &[("x", &x)])
        };
        run(64).expect("within the limit");
        let refused = run(65).expect_err("beyond the limit").to_string();
        assert!(refused.contains("65") && refused.contains("64"), "{refused}");
    }
    // The device remains usable.
    let program = session.compile(&graph, &[&y]).expect("compiles");
    let found = session.run(&program, &[("x", &x)]).expect("runs")[0].to_f32();
    assert_eq!(found, (0..100).map(|i| (i as f32 - 50.0).max(0.0)).collect::<Vec<f32>>());
}
