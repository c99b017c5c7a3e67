//! A number passed for a tensor must be a value of its type: a whole number in range for integers, 0 or 1 for bool.

use wgrad::{DType, Error, Graph, Session, Tensor, Value};

use crate::common;

/// A number, and whether it is accepted.
type Number = (f64, bool);

const INTEGERS: &[f64] = &[0.5, -0.5, 1e-300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 4294967296.0, 1e300];

fn numbers(dtype: DType) -> Vec<Number> {
    let bad = |numbers: &[f64]| numbers.iter().map(|&x| (x, false)).collect::<Vec<_>>();
    let good = |numbers: &[f64]| numbers.iter().map(|&x| (x, true)).collect::<Vec<_>>();
    match dtype {
        DType::F32 => [good(&[0.5, -3e9, 3.4e38, f64::INFINITY, 1e-300]), bad(&[1e39, -3.5e38, f64::MAX])].concat(),
        DType::F16 => [good(&[0.5, -65504.0, 65519.9, f64::INFINITY, 1e-300]), bad(&[65520.0, -1e5, 1e39])].concat(),
        DType::BF16 => [good(&[0.5, -3e9, 3.3e38, f64::INFINITY, 1e-300]), bad(&[3.4e38, -1e39])].concat(),
        DType::I8 => [good(&[0.0, -128.0, 127.0]), bad(INTEGERS), bad(&[128.0, -129.0])].concat(),
        DType::U8 => [good(&[0.0, 255.0]), bad(INTEGERS), bad(&[-1.0, 256.0])].concat(),
        DType::I32 => {
            let good = good(&[0.0, -0.0, -7.0, -2147483648.0, 2147483647.0]);
            [good, bad(INTEGERS), bad(&[3e9, 2147483648.0, -2147483649.0])].concat()
        }
        DType::U32 => [good(&[0.0, 7.0, 3e9, 4294967295.0]), bad(INTEGERS), bad(&[-1.0, -4294967295.0])].concat(),
        DType::Bool => [good(&[0.0, 1.0]), bad(&[0.5, 2.0, -1.0, f64::NAN, f64::INFINITY])].concat(),
        other => panic!("no numbers for {other}"),
    }
}

/// An op with a number argument, the types it supports, and its result if all elements of the value are 1.
struct Taker {
    name: &'static str,
    dtypes: &'static [DType],
    apply: fn(&Value, f64) -> Value,
    /// The expected elements of the result.
    result: fn(f64) -> f64,
}

const NUMBERS: &[DType] = &[DType::F32, DType::I32, DType::U32];
const ALL: &[DType] = &[DType::F32, DType::I32, DType::U32, DType::Bool];
const INTEGER: &[DType] = &[DType::I32, DType::U32];

/// Every op that accepts a number for an integer tensor. Sums of large numbers wrap.
const TAKERS: &[Taker] = &[
    Taker { name: "full", dtypes: ALL, apply: |x, n| x.graph().full(x.dtype(), [2], n), result: |n| n },
    Taker { name: "full_like", dtypes: ALL, apply: |x, n| x.full_like(n), result: |n| n },
    Taker { name: "masked_fill", dtypes: ALL, apply: |x, n| x.masked_fill(&x.eq_itself(), n), result: |n| n },
    Taker { name: "pad", dtypes: ALL, apply: |x, n| x.pad(&[(2, 0)], n).slice(0, 0, 2, 1), result: |n| n },
    Taker { name: "pad by nothing", dtypes: ALL, apply: |x, n| x.pad(&[(0, 0)], n), result: |_| 1.0 },
    Taker { name: "pad twice", dtypes: ALL, apply: |x, n| pad_eight(x, n), result: |n| n },
    Taker { name: "mul", dtypes: NUMBERS, apply: |x, n| x * n, result: |n| n },
    Taker { name: "add and sub", dtypes: NUMBERS, apply: |x, n| (x + n) - x, result: |n| n },
    Taker { name: "sub", dtypes: INTEGER, apply: |x, n| x - (x - n), result: |n| n },
    Taker { name: "remainder", dtypes: INTEGER, apply: |x, n| x.full_like(0.0) % n + n, result: |n| n },
    Taker { name: "where", dtypes: ALL, apply: |x, n| x.eq_itself().where_(&x.full_like(n), x), result: |n| n },
    Taker { name: "clamp", dtypes: INTEGER, apply: |x, n| x.clamp(n, n), result: |n| n },
    Taker { name: "maximum", dtypes: INTEGER, apply: |x, n| x.full_like(n).maximum(&x.full_like(n)), result: |n| n },
];

/// Pads more axes than one kernel supports, and returns padded elements.
fn pad_eight(x: &Value, number: f64) -> Value {
    let padded = x.reshape(&[2, 1, 1, 1, 1, 1, 1, 1]).pad(&[(1, 0); 8], number);
    let last = |x: Value| x.flatten(0).slice(0, 0, 2, 1);
    if padded.is_valid() { last(padded) } else { padded }
}

trait EqItself {
    fn eq_itself(&self) -> Value;
}

impl EqItself for Value {
    /// True everywhere.
    fn eq_itself(&self) -> Value {
        self.graph().full(DType::Bool, self.shape(), 1.0)
    }
}

fn ones(dtype: DType) -> Tensor {
    Tensor::new([2], [1u32, 1]).expect("two elements").cast(dtype)
}

#[test]
fn numbers_invalid_for_the_type_are_reported_at_the_users_line() {
    for taker in TAKERS {
        for &dtype in taker.dtypes {
            for (number, _) in numbers(dtype).into_iter().filter(|(_, good)| !good) {
                if taker.name == "clamp" && number.is_nan() {
                    continue; // bounds that are not ordered
                }
                let what = format!("{} of {dtype} with {number}", taker.name);
                let graph = Graph::new();
                let y = (taker.apply)(&graph.input("x", dtype, [2]), number);
                assert!(!y.is_valid(), "{what} is accepted");
                let errors = graph.errors();
                assert!(errors[0].location.file().ends_with("numbers.rs"), "{what}: {}", errors[0].location);
                let message = &errors[0].message;
                assert!(
                    message.starts_with(&format!("{number:?} is not a valid {dtype}: expected ")),
                    "{what}: {message}"
                );
            }
        }
    }
}

#[test]
fn numbers_valid_for_the_type_are_used_exactly() {
    for device in common::devices() {
        let mut session = Session::new(device);
        for taker in TAKERS {
            for &dtype in taker.dtypes {
                let good: Vec<f64> = numbers(dtype).into_iter().filter(|(_, good)| *good).map(|(x, _)| x).collect();
                // With a large or infinite float, (x + n) - x is not n.
                let good = good.into_iter().filter(|x| taker.name != "add and sub" || dtype != DType::F32 || *x == 0.5);
                for number in good {
                    let graph = Graph::new();
                    let y = (taker.apply)(&graph.input("x", dtype, [2]), number);
                    let program = session.compile(&graph, &[&y]).expect("compiles");
                    let got = session.run(&program, &[("x", &ones(dtype))]).expect("runs")[0].to_f64();
                    let want = (taker.result)(number);
                    let want = if dtype == DType::F32 { f64::from(want as f32) } else { want };
                    let same = |&x: &f64| x == want || (dtype == DType::F32 && x as f32 == want as f32);
                    assert!(got.iter().all(same), "{} of {dtype} with {number}: {got:?}", taker.name);
                }
            }
        }
    }
}

#[test]
fn scalars_invalid_for_their_type_fail_the_run() {
    for device in common::devices() {
        let mut session = Session::new(device);
        for (number, good) in numbers(DType::U32) {
            let graph = Graph::new();
            let y = graph.step_scalar("steps", DType::U32, move |_| number).reshape(&[1]);
            let program = session.compile(&graph, &[&y]).expect("compiles");
            match session.run(&program, &[]) {
                Ok(got) => assert!(good && got[0].to_f64() == [number], "{number} returns {:?}", got[0].to_f64()),
                Err(Error::Input(why)) => {
                    assert!(
                        !good && why.contains(&format!("counter `steps`: {number:?} is not a valid u32")),
                        "{number}: {why}"
                    );
                }
                Err(other) => panic!("{number}: {other}"),
            }
        }
        let graph = Graph::new();
        let y = graph.scalar("scale", 1.0).reshape(&[1]);
        let program = session.compile(&graph, &[&y]).expect("compiles");
        let error = session.run(&program, &[("scale", &Tensor::scalar(1e39))]).expect_err("no f32").to_string();
        assert!(error.contains("scalar `scale`: 1e39 is not a valid f32"), "{error}");
    }
}
