//! Tuning: its results affect only programs compiled afterwards, an incorrect variant never wins, the
//! time budget is kept, and the tuning file restores the results.

use std::time::{Duration, Instant};

use wgrad::ops::conv2d::Conv2d;
use wgrad::plan::internals::sites;
use wgrad::plan::{Choices, Options, Plan};
use wgrad::tuning::{Outcome, Tuned};
use wgrad::{DType, Device, Graph, Profile, Session, Tensor, Value, models};

use crate::common;

const LONG: Duration = Duration::from_secs(60);

/// A matmul and a softmax: two kernels with several variants.
fn graph() -> (Graph, Value) {
    let graph = Graph::new();
    let a = graph.input("a", DType::F32, [64, 80]);
    let b = graph.input("b", DType::F32, [96, 80]);
    let y = a.matmul(&b.t()).relu().softmax(1);
    (graph, y)
}

fn variants(program: &wgrad::Program) -> Vec<(&'static str, &'static str)> {
    program.plan().calls.iter().filter_map(|call| call.kernel).collect()
}

/// Makes a plan do no work: fast and wrong. (Zero workgroups, as one may be enough for a large tile.)
fn shirk(plan: &mut Plan) -> wgrad::Result<()> {
    for dispatch in plan.calls.iter_mut().flat_map(|call| &mut call.dispatches) {
        dispatch.workgroups = [0; 3];
    }
    Ok(())
}

fn rejected<'a>(tuned: &'a Tuned, op: &str) -> Vec<(&'static str, &'a str)> {
    let kernels = tuned.kernels.iter().filter(|kernel| kernel.op == op);
    let outcomes = kernels.flat_map(|kernel| &kernel.candidates).filter_map(|candidate| match &candidate.outcome {
        Outcome::Rejected(why) => Some((candidate.variant, why.as_str())),
        _ => None,
    });
    outcomes.collect()
}

#[test]
fn tuning_affects_only_later_programs_and_wrong_variants_never_win() {
    let Some(device) = common::device() else { return };
    let (graph, y) = graph();
    let mut session = Session::new(device);
    let before = session.compile(&graph, &[&y]).expect("compiles");
    let was = (variants(&before), before.plan().fingerprint());
    // The default variant does no work: very fast, and wrong.
    let default = was.0[0].1;
    let shirker = |variant: &str, plan: &mut Plan| if variant == default { shirk(plan) } else { Ok(()) };
    let tuned = session.tune_edited(None, &graph, &[&y], LONG, &shirker).expect("tunes");
    println!("{tuned}");
    let [matmul, softmax] = &tuned.kernels[..] else { panic!("{tuned}") };
    assert_eq!((matmul.op, matmul.default, softmax.op), ("matmul", default, "softmax"));
    assert_eq!(matmul.class, "f32[64,64] f32[64,128]@1,64 -> f32[64,128]");
    assert!(matmul.candidates.len() > 1 && matmul.candidates.len() <= 6);
    let [(wrong, why)] = rejected(&tuned, "matmul")[..] else { panic!("{tuned}") };
    assert!(wrong == default && why.contains("expected"), "{why}");
    assert!(matmul.changed() && matmul.chosen != Some(default), "{tuned}");
    // Later programs use the winner; the earlier program is unchanged.
    let chosen = matmul.chosen.expect("another variant is correct");
    let after = session.compile(&graph, &[&y]).expect("compiles");
    assert_eq!(variants(&after)[0], ("matmul", chosen));
    assert_eq!((variants(&before), before.plan().fingerprint()), was);
    let feeds = [("a", [64, 80]), ("b", [96, 80])].map(|(name, shape)| {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| (i as f32 * 0.37).sin()).collect();
        (name, Tensor::new(shape, values).expect("a matrix"))
    });
    let feeds = [("a", &feeds[0].1), ("b", &feeds[1].1)];
    for program in [&before, &after] {
        let (_, report) = session.check(program, &feeds).expect("runs");
        assert!(report.passed() && report.compared() > 0);
    }
    // Explicit options override the tuned choices.
    let plain = session.compile_with(&graph, &[&y], &Options::default()).expect("compiles");
    assert_eq!(plain.plan().fingerprint(), was.1);
    // All classes are known now, so nothing is timed.
    let again = session.tune_in(None, &graph, &[&y], LONG).expect("tunes");
    assert_eq!((again.kernels.len(), again.known, again.left.len()), (0, 2, 0));
}

#[test]
fn nothing_is_chosen_if_no_candidate_is_correct() {
    let Some(device) = common::device() else { return };
    let (graph, y) = graph();
    let mut session = Session::new(device);
    let tuned = session.tune_edited(None, &graph, &[&y], LONG, &|_, plan| shirk(plan)).expect("tunes");
    let matmul = tuned.kernels.iter().find(|kernel| kernel.op == "matmul").expect("it was tried");
    assert_eq!((matmul.chosen, rejected(&tuned, "matmul").len()), (None, matmul.candidates.len()), "{tuned}");
    assert!(tuned.to_string().contains("none is right"), "{tuned}");
    assert!(session.choices().iter().all(|(op, ..)| op != "matmul"));
}

#[test]
fn tuning_keeps_its_time_budget() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let loss = models::mnist_cnn_training(&graph, 32, 0);
    let mut session = Session::new(device);
    let nothing = session.tune_in(None, &graph, &[&loss], Duration::ZERO).expect("tunes");
    assert!(nothing.kernels.is_empty() && nothing.left.len() > 5 && session.choices().is_empty(), "{nothing}");
    let start = Instant::now();
    let tuned = session.tune_in(None, &graph, &[&loss], Duration::from_secs(2)).expect("tunes");
    let seconds = start.elapsed().as_secs_f64();
    println!("{tuned}\n{:?}", tuned.left);
    // The last candidate is still compiled and compared after the time is up.
    assert!(seconds < 2.0 + 8.0, "{seconds} s");
    assert_eq!(tuned.kernels.len() + tuned.left.len(), nothing.left.len());
    assert_eq!(session.choices().len(), tuned.kernels.iter().filter(|kernel| kernel.chosen.is_some()).count());
    // A product of 134 million terms fits in a few seconds; one that would take the reference minutes is not started.
    let large = Graph::new();
    let [a, b] = ["a", "b"].map(|name| large.input(name, DType::F32, [512, 512]));
    let tuned = session.tune_in(None, &large, &[&a.matmul(&b)], Duration::from_secs(20)).expect("tunes");
    assert_eq!((tuned.kernels.len(), tuned.left.len()), (1, 0), "{tuned}");
    let huge = Graph::new();
    let [a, b] = ["a", "b"].map(|name| huge.input(name, DType::F32, [4096, 4096]));
    let start = Instant::now();
    let tuned = session.tune_in(None, &huge, &[&a.matmul(&b)], Duration::from_secs(2)).expect("tunes");
    assert!((tuned.kernels.len(), tuned.left.len()) == (0, 1) && start.elapsed().as_secs_f64() < 2.0, "{tuned}");
}

#[test]
fn the_tuning_file_restores_the_choices() {
    let Some(device) = common::device() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("of/wgrad/tuning.json");
    let (graph, y) = graph();
    let mut session = Session::new(device.clone());
    let first = session.tune_in(Some(&file), &graph, &[&y], LONG).expect("tunes");
    assert_eq!((first.kernels.len(), first.notes.len()), (2, 0), "{first}");
    let program = session.compile(&graph, &[&y]).expect("compiles");
    // Another process gets the same choices from the file.
    let mut other = Session::new(device.clone());
    assert!(other.choices().is_empty());
    assert_eq!(other.load_tuning(&file), Vec::<String>::new());
    assert_eq!(other.choices(), session.choices());
    let same = other.compile(&graph, &[&y]).expect("compiles");
    assert_eq!(same.plan().fingerprint(), program.plan().fingerprint());
    let known = Session::new(device.clone()).tune_in(Some(&file), &graph, &[&y], LONG).expect("tunes");
    assert_eq!((known.kernels.len(), known.known), (0, 2));
    // Choices that differ from the default give the same plan each time they are loaded.
    let matmul = &first.kernels[0];
    let loser = matmul.candidates.iter().find(|candidate| candidate.variant != matmul.default);
    let loser = loser.expect("another one").variant;
    let mut choices = Choices::default();
    choices.set("matmul", &matmul.class, loser);
    session.set_choices(choices);
    session.save_tuning(&file).expect("writes");
    let fingerprint = || {
        let mut session = Session::new(device.clone());
        assert_eq!(session.load_tuning(&file), Vec::<String>::new());
        let program = session.compile(&graph, &[&y]).expect("compiles");
        assert_eq!(variants(&program)[0], ("matmul", loser));
        program.plan().fingerprint()
    };
    assert_eq!(fingerprint(), fingerprint());
    // If the file cannot be written, tuning adds a note and still uses the results.
    let mut session = Session::new(device);
    let through = file.join("tuning.json");
    let tuned = session.tune_in(Some(&through), &graph, &[&y], LONG).expect("tunes");
    assert_eq!((session.choices().len(), tuned.kernels.len()), (2, 2));
    assert!(tuned.notes.iter().any(|note| note.contains("not saved")), "{tuned}");
}

#[test]
fn the_reference_has_nothing_to_tune() {
    let (graph, y) = graph();
    let mut session = Session::new(Device::cpu());
    let tuned = session.tune_in(None, &graph, &[&y], LONG).expect("no error");
    assert!(tuned.kernels.is_empty() && tuned.notes[0].contains("reference"), "{tuned}");
    let elsewhere = Graph::new().input("x", DType::F32, [1]);
    assert!(session.tune_in(None, &graph, &[&elsewhere], LONG).is_err());
    let broken = graph.input("c", DType::F32, [3]).matmul(&y);
    assert!(session.tune_in(None, &graph, &[&broken], LONG).is_err());
}

#[test]
fn an_isolated_site_has_the_layout_of_the_graph() {
    let graph = Graph::new();
    let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [96, 98]));
    let y = (&a * 2.0).matmul(&b.t()).relu();
    let again = (&b + 1.0).matmul(&a.t()); // the same class
    let profile = Profile::webgpu_defaults();
    let found = sites(graph.nodes(), &[y.id(), again.id()], &profile, 6);
    let [site] = &found[..] else { panic!("{} sites", found.len()) };
    assert_eq!(site.class, "f32[128,128~] f32[128~,128]@1,128 -> f32[128,128]");
    assert_eq!(site.work, 96.0 * 96.0 * 98.0);
    let class_alone = sites(site.nodes.clone(), &site.targets, &profile, 6);
    assert_eq!((class_alone.len(), &class_alone[0].class), (1, &site.class));
}

#[test]
fn sizes_and_attributes_of_a_class_are_rounded() {
    let class = |build: &dyn Fn(&Graph) -> Value| {
        let graph = Graph::new();
        let y = build(&graph);
        sites(graph.nodes(), &[y.id()], &Profile::webgpu_defaults(), 6).remove(0).class
    };
    let floats = |graph: &Graph, name: &str, shape: &[usize]| graph.input(name, DType::F32, shape);
    let product = |m, k, n| class(&|g| floats(g, "a", &[m, k]).matmul(&floats(g, "b", &[k, n])));
    assert_eq!(product(1, 7, 8), "f32[1,7] f32[7,8] -> f32[1,8]");
    assert_eq!(product(9, 11, 12), "f32[8~,8~] f32[8~,16] -> f32[8~,16]");
    assert_eq!(product(24, 511, 512), "f32[32,512~] f32[512~,512] -> f32[32,512]");
    assert_eq!(product(767, 768, 784), "f32[512~,1024] f32[1024,1024] -> f32[512~,1024]");
    let options = Conv2d::default().stride([2, 3]).padding([0, 1]);
    // The length and the elements of stride, padding and dilation, the groups, the pass.
    let convolution = class(&|g| floats(g, "x", &[2, 3, 30, 30]).conv2d(&floats(g, "w", &[8, 3, 5, 5]), None, options));
    assert!(convolution.starts_with("(2,2,3,2,0,1,2,1,1,1,0) f32[2,3,32~,32~] f32[8,3,5,5] ->"), "{convolution}");
}

#[test]
fn the_cheapest_candidates_are_kept() {
    let graph = Graph::new();
    let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [96, 96]));
    let y = a.matmul(&b);
    let gpu = Profile { kind: "discrete GPU".into(), ..Profile::webgpu_defaults() };
    let software = Profile { software: true, subgroups: Some((8, 8)), ..gpu.clone() };
    let names = |profile: &Profile| {
        let site = sites(graph.nodes(), &[y.id()], profile, 6).remove(0);
        site.candidates.iter().map(|v| v.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&gpu)[0], "tile32");
    assert!(!names(&gpu).contains(&"register8"), "{:?}", names(&gpu));
    assert_eq!(names(&software)[..3], ["shuffle32", "register8", "register4"]);
}

#[test]
fn unusable_choices_are_ignored() {
    let graph = Graph::new();
    let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [64, 64]));
    let y = a.matmul(&b);
    let profile = Profile::webgpu_defaults();
    let plan = |variant: Option<&str>| {
        let site = &sites(graph.nodes(), &[y.id()], &profile, 6)[0];
        let mut choices = Choices::default();
        variant.iter().for_each(|name| choices.set(site.op, &site.class, name));
        let options = Options { choices, ..Options::default() };
        Plan::of(&graph, &[&y], &profile, &options).expect("plans").0
    };
    let (default, other) = (plan(None), plan(Some("register8")));
    assert_eq!(other.calls[0].label, "matmul.register8");
    assert_ne!(default.fingerprint(), other.fingerprint());
    assert_eq!(other.fingerprint(), plan(Some("register8")).fingerprint());
    // Needs subgroups; empty; unknown; a variant of another op.
    for name in ["shuffle32", "", "warp", "direct"] {
        assert_eq!(plan(Some(name)).fingerprint(), default.fingerprint(), "{name}");
    }
}
