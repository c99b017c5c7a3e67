//! Lint findings for graphs that exceed each limit of a given profile: the tensor or dispatch, the
//! source line, the numbers, the advice. Only one test uses a GPU.

use wgrad::plan::internals::check_limits;
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Device, Finding, Graph, Limit, Profile, Session, Value, lint};

use crate::common;

/// Findings for a graph; checks that each is a refusal whose message states the required amount.
fn findings(graph: &Graph, outputs: &[&Value], profile: &Profile) -> Vec<Finding> {
    let findings = lint(graph, outputs, profile).expect("a valid graph");
    for finding in &findings {
        let message = finding.to_string();
        assert!(finding.refused, "{message}");
        assert!(finding.limit == Limit::Kernel || message.contains(&finding.needs.to_string()), "{message}");
    }
    findings
}

/// The single finding for this limit.
fn only(findings: &[Finding], limit: Limit) -> &Finding {
    let of: Vec<&Finding> = findings.iter().filter(|finding| finding.limit == limit).collect();
    assert_eq!(of.len(), 1, "{findings:#?}");
    of[0]
}

fn at(line: u32) -> String {
    format!("{}:{line}:", file!())
}

#[test]
fn the_cnn_runs_on_every_profile_except_low_1mib() {
    let graph = Graph::new();
    let loss = wgrad::models::mnist_cnn_training(&graph, 64, 0);
    for (name, profile) in Profile::named().iter().filter(|(name, _)| *name != "low-1mib") {
        assert_eq!(lint(&graph, &[&loss], profile).expect("compiles"), [], "{name}");
    }
    let small = findings(&graph, &[&loss], &Profile::low_1mib());
    assert!(!small.is_empty() && small.iter().all(|f| f.limit == Limit::Binding), "{small:#?}");
}

#[test]
fn a_tensor_larger_than_the_largest_binding_is_reported() {
    let graph = Graph::new();
    let x = graph.input("photos", DType::F32, [64, 3, 512, 512]); // 192 MiB
    let line = line!() - 1;
    let y = x.reshape(&[64, -1]).sum(&[1], false);
    let found = findings(&graph, &[&y], &Profile::webgpu_defaults());
    let message = only(&found, Limit::Binding).to_string();
    let want = format!(
        "input `photos` f32[64, 3, 512, 512] needs a buffer of {} bytes, and WebGPU default limits allows {}; use a \
         smaller batch or split it\n  at {}",
        (192 << 20) + 64,
        128 << 20,
        at(line)
    );
    assert!(message.starts_with(&want), "{message}");
    assert_eq!(findings(&graph, &[&y], &Profile::metal()), []);
}

#[test]
fn results_and_variables_are_named_in_findings() {
    let graph = Graph::new();
    let small = Profile::low_1mib();
    let w = graph.variable("embedding", wgrad::Tensor::zeros(&wgrad::TensorType::new(DType::F32, [600, 1000])));
    let x = graph.input("x", DType::F32, [300, 1]);
    let line = line!() + 1;
    let y = x.matmul(&graph.input("z", DType::F32, [1, 2000]));
    let found = findings(&graph, &[&y, &w.sum(&[0, 1], false)], &small);
    let messages: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{messages:#?}");
    assert!(messages.iter().any(|m| m.contains("variable `embedding` f32[600, 1000] needs")), "{messages:#?}");
    let result = messages.iter().find(|m| m.contains("the result of matmul f32[300, 2000]")).expect("named");
    assert!(result.contains(&at(line)), "{result}");
}

#[test]
fn total_memory_beyond_the_limit_is_reported() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [16 << 20]); // 64 MiB
    let many: Vec<Value> = (0..20).map(|k| (&x + f64::from(k)).exp()).collect();
    let outputs: Vec<&Value> = many.iter().collect();
    let found = findings(&graph, &outputs, &Profile::phone());
    let memory = only(&found, Limit::Memory);
    assert_eq!((memory.needs, memory.allows), (21 * ((64 << 20) + 64), 1 << 30));
    let message = memory.to_string();
    assert!(message.starts_with("the program needs 1409287488 bytes of memory, and Android phone"), "{message}");
    assert!(message.contains("use a smaller batch; the largest buffer is"), "{message}");
}

#[test]
fn more_workgroups_than_the_grid_allows_are_reported() {
    let tiny = Profile { max_workgroups: 3, ..Profile::low() };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1 << 20]);
    let line = line!() + 1;
    let y = x.exp();
    let found = findings(&graph, &[&y], &tiny);
    let grid = only(&found, Limit::Workgroups);
    assert_eq!(grid.allows, 27);
    let message = grid.to_string();
    assert!(message.starts_with("exp(f32[1048576]) needs ") && message.contains(&at(line)), "{message}");

    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1 << 15, 2]);
    let y = x.cumsum(1);
    let found = findings(&graph, &[&y], &tiny);
    let message = only(&found, Limit::Workgroups).to_string();
    let want =
        "cumsum(f32[32768, 2]) needs 512 workgroups in one launch, and low limits allows 27; use a smaller batch";
    assert!(message.starts_with(want), "{message}");
}

#[test]
fn more_storage_buffers_than_a_kernel_may_bind_are_reported() {
    let few = Profile { max_storage_buffers: 4, ..Profile::webgpu_compat() };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [4, 10]);
    let labels = graph.input("labels", DType::I32, [4]);
    let line = line!() + 1;
    let loss = x.cross_entropy(&labels, wgrad::Reduction::Mean);
    let found = findings(&graph, &[&loss], &few);
    let storage = only(&found, Limit::StorageBuffers);
    assert_eq!((storage.needs, storage.allows), (5, 3));
    let message = storage.to_string();
    assert!(message.contains("cross_entropy") && message.contains("binds 5 storage buffers"), "{message}");
    assert!(message.contains(&at(line)), "{message}");
}

#[test]
fn workgroups_with_too_many_invocations_are_reported() {
    let narrow = Profile { max_invocations: 32, ..Profile::low() };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [4, 4]);
    let line = line!() + 1;
    let y = x.matmul(&x);
    let found = findings(&graph, &[&y], &narrow);
    let invocations = only(&found, Limit::Invocations);
    assert_eq!((invocations.needs, invocations.allows), (64, 32));
    let message = invocations.to_string();
    assert!(message.starts_with("matmul(f32[4, 4], f32[4, 4]) needs workgroups of 64 invocations"), "{message}");
    assert!(message.contains(&at(line)) && message.contains("no variant runs"), "{message}");

    // Generated kernels have no variants.
    let graph = Graph::new();
    let y = graph.input("x", DType::F32, [4]).exp();
    assert_eq!(only(&findings(&graph, &[&y], &narrow), Limit::Invocations).what, "exp");
}

#[test]
fn uniforms_and_step_scalars_beyond_the_limit_are_reported() {
    let narrow = Profile { max_uniform: 16, ..Profile::low() };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [4, 4]);
    let y = x.matmul(&x);
    let uniform = findings(&graph, &[&y], &narrow);
    let uniform = only(&uniform, Limit::Uniform);
    assert!(uniform.needs > 16 && uniform.allows == 16, "{uniform}");
    assert!(uniform.to_string().contains("binds a uniform of"), "{uniform}");

    let graph = Graph::new();
    let sum = (0..65).map(|k| graph.scalar(&format!("s{k}"), 0.0)).reduce(|a, b| a + b).expect("65");
    assert_eq!(findings(&graph, &[&sum], &Profile::webgpu_defaults()), []);
    let narrow = Profile { max_uniform: 256, ..Profile::low() };
    let found = findings(&graph, &[&sum], &narrow);
    let uniform = only(&found, Limit::Uniform);
    assert_eq!((uniform.needs, uniform.allows), (272, 256), "{uniform}");
}

#[test]
fn lint_reports_what_a_weaker_device_plans_instead() {
    // The reference plans like a software adapter without subgroups.
    let mut session = Session::new(Device::cpu());
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [40_000, 128]);
    let line = line!() + 1;
    let y = x.sum(&[1], false);
    let program =
        session.compile_with(&graph, &[&y], &Options { variant: Some("workgroup".into()), ..Options::default() });
    let program = program.expect("compiles");
    assert_eq!(session.lint(&program, &Profile::webgpu_defaults()), []);
    let found = session.lint(&program, &Profile::low());
    assert!(found.iter().all(|finding| !finding.refused), "{found:#?}");
    let (grid, size) = (only(&found, Limit::Grid), only(&found, Limit::Invocations));
    assert_eq!((grid.needs, grid.allows, size.needs, size.allows), (40_000, 64, 256, 128));
    let want = format!(
        "sum.workgroup needs 40000 workgroups in one dimension, and low limits allows 64; there it is planned with \
         another workgroup or grid\n  at {}",
        at(line)
    );
    assert!(grid.to_string().starts_with(&want), "{grid}");
}

#[test]
fn workgroup_memory_and_subgroups_of_a_plan_are_checked() {
    let mut session = Session::new(Device::cpu());
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [128, 128]);
    let y = x.matmul(&x);
    let tile = Options { variant: Some("tile64".into()), ..Options::default() };
    let program = session.compile_with(&graph, &[&y], &tile).expect("compiles");
    let little = Profile { max_workgroup_memory: 4096, ..Profile::low() };
    let found = session.lint(&program, &little);
    let memory = only(&found, Limit::WorkgroupMemory);
    assert!(!memory.refused && memory.allows == 4096, "{memory}");
    let message = memory.to_string();
    assert!(message.starts_with("matmul.tile64 needs 8192 bytes of workgroup memory, and low limits"), "{message}");
    assert!(message.contains("there it is planned as matmul.register4"), "{message}");

    // Planning with subgroups of 8 requires a device that has them.
    let Some(device) = common::device().filter(|device| device.profile().subgroups == Some((8, 8))) else { return };
    let mut session = Session::new(device);
    let shuffle = Options { variant: Some("shuffle32".into()), ..Options::default() };
    let program = session.compile_with(&graph, &[&y], &shuffle).expect("compiles");
    let found = session.lint(&program, &Profile::phone());
    let message = only(&found, Limit::Subgroups).to_string();
    assert!(message.starts_with("matmul.shuffle32 needs subgroups of 8, and Android phone"), "{message}");
    assert!(message.contains("has none; there it is planned as matmul."), "{message}");
    let message = only(&session.lint(&program, &Profile::metal()), Limit::Subgroups).to_string();
    assert!(message.contains("has others, up to 32; there it is planned as matmul."), "{message}");

    // On GPUs with subgroups, a variant that needs none uses them.
    let gpu = Profile { software: false, ..session.device().profile().clone() };
    let mut session = Session::new(Device::open_within(None, Some(&gpu)).expect("opens"));
    let program = session.compile(&graph, &[&x.softmax(1)]).expect("compiles");
    let message = only(&session.lint(&program, &Profile::phone()), Limit::Subgroups).to_string();
    assert!(message.starts_with("softmax.workgroup needs subgroups of 8, and Android phone"), "{message}");
}

#[test]
fn shaders_that_use_f16_need_f16() {
    let graph = Graph::new();
    let line = line!() + 1;
    let y = graph.input("x", DType::F32, [4]).exp();
    let made = Plan::of(&graph, &[&y], &Profile::metal(), &Options::default());
    let (mut plan, findings) = made.expect("no errors");
    assert!(findings.is_empty());
    plan.calls[0].dispatches[0].wgsl.f16 = true;
    assert!(check_limits(&plan, &Profile::metal()).is_empty());
    let found = check_limits(&plan, &Profile::phone());
    let message = only(&found, Limit::F16).to_string();
    assert!(message.starts_with("exp needs 16-bit floats, and Android phone"), "{message}");
    assert!(message.contains(&format!("has none; compute in f32\n  at {}", at(line))), "{message}");
}
