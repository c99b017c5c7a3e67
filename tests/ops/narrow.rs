//! Narrow types (f16, bf16, i8, u8): conversions of every value, ops with narrow operands, and what is stored.

use std::collections::BTreeMap;

use wgrad::check::{CaseGraph, Extras, check_case_in};
use wgrad::op::Case;
use wgrad::optim::{Adam, Optimizer};
use wgrad::plan::Options;
use wgrad::{DType, Data, Device, Graph, Session, Tensor, Value, gradients};

use crate::common;

const FLOATS: [DType; 2] = [DType::F16, DType::BF16];

/// Runs a graph of one input on a device.
fn run(device: &Device, x: &Tensor, build: impl Fn(&Value) -> Vec<Value>) -> Vec<Tensor> {
    let graph = Graph::new();
    let outputs = build(&graph.input("x", x.dtype(), x.shape()));
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
    session.run(&program, &[("x", x)]).expect("runs")
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// The value of a float with `fraction` bits of fraction, by the definition of IEEE 754.
fn defined(bits: u16, fraction: u32) -> f64 {
    let (most, bias) = ((1 << (15 - fraction)) - 1, (1 << (14 - fraction)) - 1);
    let (exponent, part) = (i32::from(bits & 0x7fff) >> fraction, i32::from(bits) & ((1 << fraction) - 1));
    let part = f64::from(part) / f64::from(fraction).exp2();
    let magnitude = match exponent {
        0 => part * f64::from(1 - bias).exp2(),
        e if e == most && part == 0.0 => f64::INFINITY,
        e if e == most => f64::NAN,
        e => (1.0 + part) * f64::from(e - bias).exp2(),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// All 65,536 values, loaded as vectors and one by one, widened and stored again.
#[test]
fn every_value_is_widened_and_stored_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for (dtype, fraction) in [(DType::F16, 10), (DType::BF16, 7)] {
        let data: Data = match dtype {
            DType::F16 => all.iter().map(|&bits| half::f16::from_bits(bits)).collect::<Vec<_>>().into(),
            _ => all.iter().map(|&bits| half::bf16::from_bits(bits)).collect::<Vec<_>>().into(),
        };
        let x = Tensor::new([256, 256], data).expect("65,536 values");
        for device in common::devices() {
            let flushes = |x: f64| !device.is_cpu() && x.abs() < f64::from(f32::MIN_POSITIVE);
            let outputs = run(&device, &x, |x| vec![x.cast(DType::F32), x.t().cast(DType::F32), x.t(), x.cast(dtype)]);
            let outputs: Vec<Vec<f64>> = outputs.iter().map(Tensor::to_f64).collect();
            for (at, &bits) in all.iter().enumerate() {
                let want = defined(bits, fraction);
                let turned = at % 256 * 256 + at / 256;
                for (number, output) in outputs.iter().enumerate() {
                    let got = output[if number == 1 || number == 2 { turned } else { at }];
                    let zero = flushes(want) && got == 0.0;
                    assert!(same(got, want) || zero, "{dtype} {bits:#06x} on {device}: {got}, not {want} ({number})");
                }
            }
        }
    }
}

/// Numbers between all pairs of neighbours: halfway, and one f32 before and after.
#[test]
fn every_number_is_rounded_to_the_nearest_value() {
    for (dtype, fraction, infinity) in [(DType::F16, 10, 0x7c00u16), (DType::BF16, 7, 0x7f80)] {
        let mut numbers: Vec<f32> = Vec::new();
        for bits in 0..infinity {
            let next = if bits + 1 == infinity {
                defined(bits, fraction) * 2.0 - defined(bits - 1, fraction)
            } else {
                defined(bits + 1, fraction)
            };
            let halfway = ((defined(bits, fraction) + next) / 2.0) as f32;
            // Subnormal f32 may be flushed to 0 before they are rounded.
            if halfway >= f32::MIN_POSITIVE && halfway.is_finite() {
                numbers.extend([halfway, halfway.next_down(), halfway.next_up(), -halfway]);
            }
        }
        let x = Tensor::new([numbers.len()], numbers.clone()).expect("numbers");
        let values: Vec<f64> = (0..=infinity).map(|bits| defined(bits, fraction)).collect();
        for device in common::devices() {
            let got = run(&device, &x, |x| vec![x.cast(dtype), x.cast(dtype).cast(DType::F32)]);
            assert_eq!((got[0].dtype(), got[1].dtype()), (dtype, DType::F32));
            let got: Vec<Vec<f64>> = got.iter().map(Tensor::to_f64).collect();
            for (i, &number) in numbers.iter().enumerate() {
                let want = dtype.rounded(f64::from(number));
                // By the definition: no other value is nearer, and of two equally near ones, the last bit is 0.
                let bits = values.partition_point(|&value| value < want.abs());
                assert_eq!(values[bits], want.abs(), "{number:e} to no value of {dtype}");
                let distance = |bits: usize| (f64::from(number.abs()) - values[bits]).abs();
                if bits > 0 && bits + 2 < values.len() {
                    let (before, own, after) = (distance(bits - 1), distance(bits), distance(bits + 1));
                    assert!(own <= before && own <= after, "{number:e} to {want:e}");
                    assert!((own < before && own < after) || bits % 2 == 0, "{number:e} to {want:e}: a tie");
                }
                for (output, got) in got.iter().enumerate() {
                    let got = got[i];
                    assert!(same(got, want), "{number:e} to {dtype} on {device}: {got:e}, not {want:e} ({output})");
                }
            }
            assert!(numbers.len() > 20_000);
        }
    }
}

/// Halfway between the largest value and what would be the next.
#[test]
fn numbers_beyond_the_range_become_infinite() {
    let x = Tensor::new([5], [65519.996f32, 65520.0, -65520.0, 3.3895e38, 3.4e38]).expect("five");
    for device in common::devices() {
        let got = run(&device, &x, |x| vec![x.cast(DType::F16), x.cast(DType::BF16)]);
        let infinity = f64::INFINITY;
        assert_eq!(got[0].to_f64(), [65504.0, infinity, -infinity, infinity, infinity]);
        assert_eq!(got[1].to_f64()[..3], [65536.0, 65536.0, -65536.0]);
        assert_eq!(got[1].to_f64()[3..], [f64::from(half::bf16::MAX), infinity]);
    }
}

#[test]
fn integers_wrap_and_floats_are_clamped() {
    let x = Tensor::new([7], [0, 127, 128, -129, 255, 256, -1]).expect("seven");
    let f = Tensor::new([7], [0.9f32, 127.9, 300.0, -129.0, f32::NAN, f32::INFINITY, -1.5]).expect("seven");
    for device in common::devices() {
        let got = run(&device, &x, |x| vec![x.cast(DType::I8), x.cast(DType::U8), x.cast(DType::U8).cast(DType::I8)]);
        assert_eq!(got[0].data(), &Data::I8(vec![0, 127, -128, 127, -1, 0, -1]));
        assert_eq!(got[1].data(), &Data::U8(vec![0, 127, 128, 127, 255, 0, 255]));
        assert_eq!(got[2].data(), got[0].data());
        // Products of bytes are sums in 32 bits.
        let got =
            run(&device, &x, |x| vec![x.cast(DType::I8).reshape(&[1, 7]).matmul(&x.cast(DType::I8).reshape(&[7, 1]))]);
        assert_eq!(got[0].data(), &Data::I32(vec![2 * 127 * 127 + 128 * 128 + 2]));
        let got = run(&device, &f, |x| vec![x.cast(DType::I8), x.cast(DType::U8)]);
        assert_eq!(got[0].data(), &Data::I8(vec![0, 127, 127, -128, 0, 127, -1]));
        assert_eq!(got[1].data(), &Data::U8(vec![0, 127, 255, 0, 0, 255, 0]));
    }
    for to in [DType::I8, DType::U8] {
        assert_eq!(f.cast(to), run(&Device::cpu(), &f, |x| vec![x.cast(to)])[0], "the host converts likewise");
    }
}

/// The first case of every op in f16, and its last in bf16: each launch within its bound.
#[test]
fn every_op_takes_narrow_floats() {
    let Some(device) = common::device() else { return };
    let another = || common::device().expect("opened above");
    let cases = wgrad::ops::narrow_cases();
    let reports = common::in_parallel_with(&cases, another, |device, number, case| {
        let some = |ways| common::sampled(ways, number, common::sampling(case.op, 10));
        check_case_in(device, case, 900 + number as u64, &Extras::default(), some)
    });
    let mut compared = BTreeMap::new();
    for (case, report) in cases.iter().zip(reports) {
        let report = report.unwrap_or_else(|error| panic!("{} ({}): {error}", case.op, case.name));
        let wrong: Vec<_> = report.ways.iter().filter(|(_, report)| !report.passed()).collect();
        assert!(report.passed(), "{} ({}): {:?} {wrong:?}", case.op, case.name, report.complaints);
        *compared.entry(case.op).or_insert(0) += report.compared();
    }
    let nothing: Vec<_> = compared.iter().filter(|(_, n)| **n == 0).collect();
    assert!(nothing.is_empty() && compared.len() > 80, "{} ops on {device}, nothing of {nothing:?}", compared.len());
}

/// An op on narrow floats is the op on f32, rounded once, and so are its gradients.
#[test]
fn results_and_gradients_are_those_of_f32_rounded() {
    let numbers = |n: usize, step: usize| (0..n).map(|i| (i * step % 31) as f32 / 7.0 - 2.0).collect::<Vec<f32>>();
    for dtype in FLOATS {
        let a = Tensor::new([6, 10], numbers(60, 11)).expect("60").cast(dtype);
        let b = Tensor::new([10, 7], numbers(70, 13)).expect("70").cast(dtype);
        for device in common::devices() {
            let graph = Graph::new();
            let [x, w] = [("a", &a), ("b", &b)].map(|(name, t)| graph.input(name, dtype, t.shape()));
            let product = x.matmul(&w);
            let y = product.tanh();
            let loss = y.cast(DType::F32).square().sum_all();
            let [dx, dw] = &gradients(&loss, &[&x, &w])[..] else { panic!("two gradients") };
            assert_eq!([y.dtype(), dx.dtype(), dw.dtype()], [dtype; 3]);
            // Step by step, in f32, with casts between.
            let [x32, w32] = [x.cast(DType::F32), w.cast(DType::F32)];
            let round = |v: &Value| v.cast(dtype).cast(DType::F32);
            let y32 = round(&round(&x32.matmul(&w32)).tanh());
            let dy = round(&(&y32 * 2.0));
            let d = round(&(&dy * ((&y32 * &y32).neg() + 1.0)));
            let wanted = [y32.clone(), round(&d.matmul(&w32.t())), round(&x32.t().matmul(&d))];
            let outputs: Vec<&Value> = [&y, dx, dw].into_iter().chain(&wanted).collect();
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &outputs).expect("compiles");
            let got = session.run(&program, &[("a", &a), ("b", &b)]).expect("runs");
            for (got, want) in got[..3].iter().zip(&got[3..]) {
                assert_eq!(got.dtype(), dtype);
                for (got, want) in got.to_f64().iter().zip(want.to_f64()) {
                    // A different order of summation may round to the neighbour.
                    let neighbour = want.abs() * if dtype == DType::F16 { 2f64.powi(-10) } else { 2f64.powi(-7) };
                    assert!((got - want).abs() <= neighbour + 1e-6, "{dtype} on {device}: {got} and {want}");
                }
            }
        }
    }
}

#[test]
fn operands_of_different_float_types_give_f32() {
    let graph = Graph::new();
    let [a, b, c] = [DType::F16, DType::BF16, DType::F32].map(|dtype| graph.input(dtype.name(), dtype, [2, 2]));
    let labels = graph.input("labels", DType::U8, [2]);
    assert_eq!((&a + &a).dtype(), DType::F16);
    assert_eq!((&a + &b).dtype(), DType::F32);
    assert_eq!((&b * &c).dtype(), DType::F32);
    assert_eq!((&a * 1e-9).dtype(), DType::F16);
    assert_eq!(a.softmax(1).dtype(), DType::F16);
    assert_eq!(a.reshape(&[4]).dtype(), DType::F16);
    assert_eq!(a.gt(&b).dtype(), DType::Bool);
    assert_eq!((&labels + &labels).dtype(), DType::U32);
    assert_eq!(a.cross_entropy(&labels, wgrad::Reduction::Mean).dtype(), DType::F32);
    assert!(graph.errors().is_empty(), "{:?}", graph.errors());
    // The error names the operands as they are.
    let bad = a.matmul(&graph.input("long", DType::F16, [3, 2]));
    assert!(!bad.is_valid() && graph.errors()[0].to_string().contains("f16[2, 2]"), "{}", graph.errors()[0]);
}

/// Between launches, narrow values take half of the memory, and the backward pass keeps nothing wider.
#[test]
fn narrow_activations_take_half_of_the_memory() {
    let Some(device) = common::device() else { return };
    let temporary = |dtype: DType, activation: fn(&Value) -> Value| {
        let graph = Graph::new();
        let x = graph.input("x", dtype, [4096]);
        // Each cumulative sum is a launch of its own; the backward pass reads every result of the activation.
        let y = (0..16).fold(x.clone(), |y, _| activation(&y.cumsum(0)));
        let dx = &gradients(&y.cast(DType::F32).sum_all(), &[&x])[0];
        let program =
            Session::new(device.clone()).compile_with(&graph, &[&y, dx], &Options::default()).expect("compiles");
        let saved = program.plan().calls.iter().flat_map(|call| &call.writes).filter(|stored| stored.ty.dtype == dtype);
        assert!(saved.count() >= 16);
        program.plan().least_temporary_bytes
    };
    for activation in [Value::relu, Value::tanh, Value::sigmoid] {
        let (wide, narrow) = (temporary(DType::F32, activation), temporary(DType::F16, activation));
        assert!(narrow as f64 <= 0.65 * wide as f64, "{narrow} instead of {wide} bytes");
    }
}

/// Bytes as floats through every op that only moves elements, whose kernels may declare them as u32.
#[test]
fn bytes_are_moved_as_floats() {
    for dtype in [DType::U8, DType::I8] {
        let x = Tensor::new([2, 3, 4], (0..24).map(|i| i * 5 - 3).collect::<Vec<i32>>()).expect("24").cast(dtype);
        let index = Tensor::new([2, 1, 4], vec![2, 0, 1, 1, 0, 2, 2, 0]).expect("8");
        let run_on = |device: &Device| {
            let graph = Graph::new();
            let f = graph.input("x", dtype, x.shape()).cast(DType::F32);
            let i = graph.input("i", DType::I32, index.shape());
            let outputs = [
                f.pad(&[(0, 0), (1, 2), (0, 0)], 0.5),
                f.pad(&[(0, 0), (0, 0), (1, 0)], 0.5),
                f.concat(&[&f], 2),
                f.concat(&[&f.slice(1, 0, 1, 1)], 1),
                f.flip(&[2]),
                f.gather(1, &i),
                f.zeros_like().scatter_add(1, &i, &f.slice(1, 0, 1, 1)),
                f.cumsum(1),
                f.sort(2, false).0,
                f.reshape(&[1, 2, 3, 4]).max_pool2d(2),
            ];
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
            session.run(&program, &[("x", &x), ("i", &index)]).expect("runs")
        };
        let want = run_on(&Device::cpu());
        for device in common::devices() {
            for (number, (got, want)) in run_on(&device).iter().zip(&want).enumerate() {
                assert_eq!(got.to_f64(), want.to_f64(), "{dtype}, output {number} on {device}");
            }
        }
    }
}

/// No kernel is lowered for empty tensors.
#[test]
fn empty_narrow_tensors_are_empty() {
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F16, [0]);
        let rows = graph.input("rows", DType::BF16, [2, 0]);
        let outputs = [
            x.cumsum(0),
            &x + &x,
            rows.pad(&[(1, 1), (0, 0)], 0.0),
            rows.matmul(&rows.t()),
            rows.softmax(1),
            rows.sum(&[1], false),
            rows.cast(DType::F32),
        ];
        assert!(graph.errors().is_empty(), "{:?}", graph.errors());
        let mut session = Session::new(device);
        let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
        let feeds = [("x", Tensor::zeros(x.ty())), ("rows", Tensor::zeros(rows.ty()))];
        let feeds: Vec<_> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let got = session.run(&program, &feeds).expect("runs");
        assert_eq!(got[3].to_f64(), [0.0; 4]);
        assert_eq!(got[5].to_f64(), [0.0; 2]);
        assert_eq!(got[5].dtype(), DType::BF16);
    }
}

/// A kernel's f32 result that is needed, too, is not replaced by the rounded one.
#[test]
fn results_are_read_in_both_types() {
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [1, 1, 4, 4]);
        let dx = gradients(&x.max_pool2d(2).sum_all(), &[&x]).remove(0);
        let sum = x.reshape(&[4, 4]).matmul(&x.reshape(&[4, 4]));
        let soft = x.reshape(&[4, 4]).softmax(1);
        let outputs: Vec<Value> = [dx, sum, soft].into_iter().flat_map(|y| [y.clone(), y.cast(DType::F16)]).collect();
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
        let x =
            Tensor::new([1, 1, 4, 4], (0..16).map(|i| (i * 7 % 16) as f32 / 3.0).collect::<Vec<f32>>()).expect("16");
        let got = session.run(&program, &[("x", &x)]).expect("runs");
        for pair in got.chunks(2) {
            assert_eq!((pair[0].dtype(), pair[1].dtype()), (DType::F32, DType::F16));
            assert!(pair[0].to_f64().iter().any(|&x| x != 0.0));
            let rounded = Tensor::new(pair[0].shape(), pair[0].to_f32()).expect("same").cast(DType::F16);
            assert_eq!(rounded, pair[1], "on {device}");
        }
    }
}

/// Kernels load narrow operands, and store narrow results where they store four elements at a time: no copies, and no
/// launch that only converts.
#[test]
fn products_of_narrow_operands_are_one_launch() {
    let Some(device) = common::device() else { return };
    for dtype in FLOATS {
        let graph = Graph::new();
        let [x, w, b] = [("x", vec![16, 24]), ("w", vec![32, 24]), ("b", vec![32])]
            .map(|(name, shape)| graph.input(name, dtype, shape));
        let y = (x.matmul(&w.t()) + b).relu();
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&y]).expect("compiles");
        let [call] = &program.plan().calls[..] else { panic!("{:?}", program.plan().calls) };
        let types: Vec<String> = call.reads.iter().chain(&call.writes).map(|stored| stored.ty.to_string()).collect();
        let expected = ["[16, 24]", "[32, 24]", "[32]", "[16, 32]"].map(|shape| format!("{dtype}{shape}"));
        assert_eq!(types, expected);
        let feed = |n: usize, shape: &[usize]| {
            let numbers: Vec<f32> = (0..n).map(|i| (i * 37 % 19) as f32 / 9.0 - 1.0).collect();
            Tensor::new(shape, numbers).expect("fits").cast(dtype)
        };
        let feeds = [("x", feed(384, &[16, 24])), ("w", feed(768, &[32, 24])), ("b", feed(32, &[32]))];
        let feeds: Vec<_> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let (_, report) = session.check(&program, &feeds).expect("runs");
        assert!(report.passed() && report.compared() == 512, "{report:?}");
    }
}

/// The optimiser's arithmetic and state are in f32; the parameter is rounded.
#[test]
fn narrow_parameters_are_trained() {
    for device in common::devices() {
        let mut session = Session::new(device);
        let graph = Graph::new();
        let w = graph.parameter("w", Tensor::new([3], [0.0f32; 3]).expect("three").cast(DType::BF16));
        let target = graph.constant(Tensor::new([3], [1.0f32, -2.0, 0.5]).expect("three"));
        let loss = (w.cast(DType::F32) - &target).square().mean_all();
        Adam::new().lr(0.05).minimize(&graph, &loss);
        let program = session.compile(&graph, &[&loss]).expect("compiles");
        for _ in 0..120 {
            session.run(&program, &[]).expect("runs");
        }
        assert_eq!(session.variable_type("w").map(|ty| ty.dtype), Some(DType::BF16));
        assert_eq!(session.variable_type("w.adam.m").map(|ty| ty.dtype), Some(DType::F32));
        let found = session.get("w").expect("w");
        assert!(matches!(found.data(), Data::BF16(_)));
        for (got, want) in found.to_f64().iter().zip([1.0, -2.0, 0.5]) {
            assert!((got - want).abs() < 0.05, "{:?}", found.to_f64());
        }
    }
}

/// Class labels and images are often bytes.
#[test]
fn bytes_are_labels_and_pixels() {
    let pixels = Tensor::new([3, 5], (0..15).map(|i| i * 17).collect::<Vec<u8>>()).expect("15");
    let labels = Tensor::new([3], [4u8, 0, 2]).expect("three");
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::U8, [3, 5]);
        let label = graph.input("label", DType::U8, [3]);
        let picked = (x.cast(DType::F32) * (1.0 / 255.0)).gather(1, &label.reshape(&[3, 1]));
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&picked]).expect("compiles");
        let got = session.run(&program, &[("x", &pixels), ("label", &labels)]).expect("runs");
        for (got, want) in got[0].to_f64().iter().zip([68.0, 85.0, 204.0]) {
            assert!((got - want / 255.0).abs() < 1e-7);
        }
        let wrong = Tensor::new([3], [4u8, 5, 2]).expect("three");
        let error = session.run(&program, &[("x", &pixels), ("label", &wrong)]).expect_err("no class 5").to_string();
        assert!(error.contains("index 5 at [1") && error.contains("`label`"), "{error}");
    }
}

/// Cases in narrow types are numbered, so that a report can name them.
#[test]
fn a_case_of_floats_is_narrowed() {
    let case = Case::new("add", "two", |x| vec![&x[0] + &x[1]]).float("a", [3]).float("b", [3]);
    let graph = CaseGraph::new(&case.with_floats(DType::F16).expect("has floats")).expect("builds");
    assert!(graph.inputs.iter().all(|(_, value, _)| value.dtype() == DType::F16));
    assert!(graph.sample(1).iter().all(|tensor| matches!(tensor.data(), Data::F16(_))));
    let none = Case::new("cast", "integers", |x| vec![x[0].cast(DType::F32)]);
    assert!(none.with_floats(DType::F16).is_none());
}
