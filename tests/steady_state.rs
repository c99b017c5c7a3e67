//! A repeated step creates no pipeline, bind group or buffer, and allocates nothing on the host outside
//! wgpu's own calls.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};

use wgrad::nn::Scope;
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Graph, Reduction, Session, Tensor};

mod common;

/// The system allocator, which records the stack of each allocation on recording threads.
struct Recorder;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    static STACKS: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

fn record() {
    // Thread-local storage may be destroyed already when a thread exits.
    if RECORDING.try_with(|recording| recording.replace(false)) == Ok(true) {
        STACKS.with(|stacks| stacks.borrow_mut().push(Backtrace::force_capture()));
        RECORDING.with(|recording| recording.set(true));
    }
}

// SAFETY: every call is forwarded to the system allocator.
unsafe impl GlobalAlloc for Recorder {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        record();
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        record();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Recorder = Recorder;

/// The functions on the stack of each allocation that `f` makes, innermost first.
fn allocations(f: impl FnOnce()) -> Vec<Vec<String>> {
    RECORDING.with(|recording| recording.set(true));
    f();
    RECORDING.with(|recording| recording.set(false));
    let stacks = STACKS.with(|stacks| stacks.take());
    // Lines of "number: function"; lines that name files follow where there is debug information.
    let functions = |stack: Backtrace| {
        let text = stack.to_string();
        let names = text.lines().filter_map(|line| line.trim_start().split_once(": ")).map(|(_, name)| name.to_owned());
        names.filter(|name| !name.contains("steady_state::") && !name.contains("backtrace")).collect()
    };
    stacks.into_iter().map(functions).collect()
}

/// Whether the allocation happened inside wgpu or one of its crates. A submission only calls wgpu, and the compiler may
/// inline the function of wgpu that boxes its callback.
fn in_wgpu(stack: &[String]) -> bool {
    stack.iter().any(|name| name.contains("wgpu") || name.ends_with("Submissions::submit"))
}

/// The stacks of allocations outside wgpu.
fn ours(stacks: &[Vec<String>]) -> Vec<&Vec<String>> {
    stacks.iter().filter(|stack| !in_wgpu(stack)).collect()
}

#[test]
fn a_repeated_step_creates_nothing() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let nn = Scope::train(&graph, 1);
    let x = graph.input("x", DType::F32, [4, 1, 12, 12]);
    let labels = graph.input("labels", DType::I32, [4]);
    let y = nn.conv2d("conv", &x, 5, 3, wgrad::ops::conv2d::Conv2d::same(3)).relu().max_pool2d(2);
    let y = nn.dropout(&y, 0.3);
    let loss = nn.linear("fc", &y.flatten(1), 10).cross_entropy(&labels, Reduction::Mean);
    Adam::new().lr(1e-3).minimize(&graph, &loss);
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[&loss]).expect("compiles");
    let image = Tensor::new([4, 1, 12, 12], (0..576).map(|i| (i % 7) as f32).collect::<Vec<_>>()).expect("a tensor");
    let labels = Tensor::new([4], vec![1, 0, 9, 3]).expect("a tensor");
    let lr = Tensor::scalar(1e-3);
    let feeds = [("x", &image), ("labels", &labels), ("lr", &lr)];
    for _ in 0..3 {
        session.run(&program, &feeds).expect("runs");
    }

    let submitted = allocations(|| session.submit(&program, &feeds).expect("starts"));
    session.wait().expect("waits");
    let read = allocations(|| drop(session.run(&program, &feeds).expect("runs")));

    // The recorder works: it sees wgpu's own allocations and those for a returned tensor.
    assert!(submitted.iter().filter(|stack| in_wgpu(stack)).count() > 10, "{} allocations", submitted.len());
    assert!(read.iter().any(|stack| stack.iter().any(|name| name.contains("from_device_words"))));

    let made = ["create_buffer", "create_bind_group", "create_compute_pipeline", "create_shader_module"];
    for stack in submitted.iter().chain(&read) {
        let created = stack
            .iter()
            .find(|name| made.iter().any(|made| name.contains(&format!("wgpu::api::device::Device::{made}"))));
        assert!(created.is_none(), "a step calls {created:?}");
    }
    let ours = ours(&submitted);
    assert!(ours.is_empty(), "a step allocates: {ours:#?}");
    // Reading back allocates: the list, its tensors, and the pending state of each.
    let ours = self::ours(&read);
    assert!((1..=8).contains(&ours.len()), "reading a step's outputs allocates {} times: {ours:#?}", ours.len());
}
