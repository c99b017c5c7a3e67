//! Every case of every op on the GPU, forward and backward, fused or unfused: each kernel call is compared with the
//! reference. A case runs with the variant that the planner chooses and a tenth of the others, or fewer where
//! these compile slowly; with all of them if `WGRAD_THOROUGH=1`.

use wgrad::check::{CaseGraph, Extras, check_case_in, ways};
use wgrad::nn::Scope;
use wgrad::op::Case;
use wgrad::ops::conv2d::Conv2d;
use wgrad::plan::Options;
use wgrad::{DType, Device, Error, Graph, Profile, Reduction, Session, Tensor};

use crate::common;

#[test]
fn every_case_agrees_with_the_reference() {
    let Some(device) = common::device() else { return };
    let another = || common::device().expect("opened above");
    let pattern = std::env::var("WGRAD_TEST_OP").unwrap_or_default();
    let cases: Vec<(usize, Case)> =
        wgrad::ops::cases().into_iter().enumerate().filter(|(_, case)| case.op.contains(&pattern)).collect();
    let reports = common::in_parallel_with(&cases, another, |device, _, &(number, ref case)| {
        let n = common::sampling(case.op, 10);
        let some = |ways| common::sampled(ways, number, n);
        check_case_in(device, case, number as u64, &Extras::default(), some)
    });
    let mut compared = 0;
    let mut failures = Vec::new();
    for ((_, case), report) in cases.iter().zip(reports) {
        let name = format!("{} ({})", case.op, case.name);
        match report {
            Err(error) => failures.push(format!("{name}: {error}")),
            Ok(report) => {
                compared += report.compared();
                for (way, report) in report.ways {
                    for call in report.calls.iter().filter(|call| !call.passed()) {
                        let what = call.worst.as_ref().map_or_else(String::new, ToString::to_string);
                        let stray: Vec<&String> = call.stray.iter().chain(&call.status).collect();
                        let (label, wrong, n) = (&call.label, call.wrong, call.compared);
                        failures.push(format!("{name} {way:?} {label}: {wrong} of {n} wrong: {what} {stray:?}"));
                    }
                }
            }
        }
    }
    println!("{compared} comparisons on {device}");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    let least = if pattern.is_empty() { 1_000_000 } else { 1 };
    assert!(compared >= least, "only {compared} comparisons");
}

/// An optimiser's update is fused into the epilogue of the kernel that computes the gradient, in every
/// variant, and updates in place. Only this test detects an epilogue that runs twice for an element, or
/// never.
#[test]
fn in_place_updates_are_correct_in_the_epilogue_of_every_variant() {
    use wgrad::optim::{Adam, Optimizer};
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let nn = Scope::train(&graph, 1);
    let x = graph.input("x", DType::F32, [3, 2, 13, 11]);
    let labels = graph.input("labels", DType::I32, [3]);
    let y = nn.conv2d("conv", &x, 19, 3, Conv2d::same(3)).relu().max_pool2d(2);
    let loss = nn.linear("fc", &y.flatten(1), 37).cross_entropy(&labels, Reduction::Mean);
    Adam::new().lr(0.1).minimize(&graph, &loss);
    let feeds = [
        Tensor::new([3, 2, 13, 11], (0..858).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>()),
        Tensor::new([3], vec![5, 36, 0]),
    ];
    let [x, labels] = feeds.map(|tensor| tensor.expect("a tensor"));
    let names = wgrad::check::variants(&graph.nodes(), device.profile());
    let mut updated = std::collections::BTreeSet::new();
    for name in names {
        let mut session = Session::new(device.clone());
        let options = Options { variant: Some(name.to_owned()), ..Options::default() };
        let program = session.compile_with(&graph, &[&loss], &options).expect("compiles");
        for step in 0..2 {
            let (_, report) = session.check(&program, &[("x", &x), ("labels", &labels)]).expect("runs");
            let wrong: Vec<_> = report.calls.iter().filter(|call| !call.passed()).collect();
            assert!(wrong.is_empty() && report.compared() > 4000, "{name}, step {step}: {wrong:?}");
        }
        let plan = program.plan();
        let variables: Vec<usize> = plan.variables.iter().map(|(_, stored)| stored.buffer).collect();
        let updates = plan.calls.iter().filter(|call| call.writes.iter().any(|w| variables.contains(&w.buffer)));
        updated.extend(updates.filter_map(|call| call.kernel));
    }
    for op in ["matmul", "conv2d_weight_grad", "sum"] {
        let variants = updated.iter().filter(|(name, _)| *name == op).count();
        assert!(variants >= 2, "{op} updates in {variants} variants: {updated:?}");
    }
}

#[test]
fn out_of_range_indices_computed_on_the_device_are_reported() {
    let Some(software) = common::device() else { return };
    // The adapter, and with the kernels of a GPU.
    let gpu = Profile { software: false, ..software.profile().clone() };
    let gpu = Device::open_within(None, Some(&gpu)).expect("opens");
    let cases = || wgrad::ops::out_of_range_cases();
    for (device, case) in [&software, &gpu].into_iter().flat_map(|device| cases().into_iter().map(move |c| (device, c)))
    {
        let graph = CaseGraph::new(&case).expect("builds");
        let inputs = graph.sample(1);
        let feeds: Vec<(&str, &Tensor)> =
            graph.inputs.iter().zip(&inputs).map(|((name, ..), tensor)| (name.as_str(), tensor)).collect();
        let outputs: Vec<_> = graph.outputs.iter().map(|(_, value)| value).collect();
        assert!(matches!(graph.reference(&inputs), Err(Error::Input(why)) if why.contains("out of range")));
        for options in ways(&graph, device.profile()) {
            let mut session = Session::new(device.clone());
            let program = session.compile_with(&graph.graph, &outputs, &options).expect("compiles");
            let name = format!("{} ({}), {options:?}", case.op, case.name);
            let run = session.run(&program, &feeds);
            assert!(matches!(&run, Err(Error::Input(why)) if why.contains("out of range")), "{name}: {run:?}");
            // When the device reports the error, `check` returns the reference's error.
            let check = session.check(&program, &feeds).map(|(_, report)| report);
            assert!(matches!(&check, Err(Error::Input(why)) if why.contains(" at [")), "{name}: {check:?}");
        }
    }
}
