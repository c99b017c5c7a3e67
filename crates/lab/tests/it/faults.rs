//! The seeded faults.

use wgrad::plan::Plan;
use wgrad::{Profile, Value};
use wgrad_lab::seeded;

/// The self-test runs on the devices of its users, whose kernels are not those of the software adapters of the tests.
#[test]
fn faults_fit_the_kernels_of_gpus() {
    let gpu = Profile {
        kind: "discrete GPU".into(),
        multiprocessors: Some(132),
        max_workgroup_memory: 48 << 10,
        subgroups: Some((32, 32)),
        f16: true,
        cooperative_matrices: vec![16],
        ..Profile::metal()
    };
    let (mut fitting, mut mixed) = (0, 0);
    for fault in seeded::all() {
        let subject = fault.subject().expect("a graph");
        let outputs: Vec<&Value> = subject.outputs.iter().collect();
        let Ok((mut plan, _)) = Plan::of(&subject.graph, &outputs, &gpu, &fault.options()) else { continue };
        // Kernels for software adapters, such as those for subgroups of 8, cannot run there.
        if plan.calls.iter().flat_map(|call| &call.dispatches).any(|dispatch| dispatch.entry == fault.kernel) {
            fault.inject(&mut plan).expect("something to change");
            fitting += 1;
            mixed += usize::from(fault.is_mixed());
        }
    }
    assert!(fitting > 100, "only {fitting} faults");
    assert!(mixed >= 7, "only {mixed} faults in kernels for matrix units");
}
