//! Integer arithmetic on every device, compared with values computed here, which agree with PyTorch where it defines
//! the op.

use wgrad::{DType, Graph, Session, Tensor, Value};

use crate::common;

/// Runs a graph with integer inputs on every device and returns the elements of its outputs.
fn run(inputs: &[(&str, Tensor)], build: impl Fn(&[Value]) -> Vec<Value>) -> Vec<Vec<Vec<f64>>> {
    let run_on = |device| {
        let graph = Graph::new();
        let values: Vec<Value> =
            inputs.iter().map(|(name, tensor)| graph.input(name, tensor.dtype(), tensor.shape())).collect();
        let outputs = build(&values);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
        let feeds: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        session.run(&program, &feeds).expect("runs").iter().map(Tensor::to_f64).collect()
    };
    common::devices().into_iter().map(run_on).collect()
}

fn divisions(a: &Value, b: &Value) -> Vec<Value> {
    vec![a.div_trunc(b), a.div_floor(b), a.div_euclid(b), a.fmod(b), a % b, a.rem_euclid(b)]
}

#[test]
fn signs_of_quotients_and_remainders_match_pytorch() {
    let a = Tensor::new([8], [7, 7, -7, -7, 6, -6, 6, -6]).expect("a");
    let b = Tensor::new([8], [2, -2, 2, -2, 3, 3, -3, -3]).expect("b");
    for got in run(&[("a", a), ("b", b)], |x| divisions(&x[0], &x[1])) {
        assert_eq!(got[0], [3.0, -3.0, -3.0, 3.0, 2.0, -2.0, -2.0, 2.0], "torch.div(rounding_mode='trunc')");
        assert_eq!(got[1], [3.0, -4.0, -4.0, 3.0, 2.0, -2.0, -2.0, 2.0], "torch.div(rounding_mode='floor')");
        assert_eq!(got[2], [3.0, -3.0, -4.0, 4.0, 2.0, -2.0, -2.0, 2.0], "Euclidean");
        assert_eq!(got[3], [1.0, 1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.0], "torch.fmod");
        assert_eq!(got[4], [1.0, -1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0], "torch.remainder");
        assert_eq!(got[5], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], "Euclidean remainder");
    }
}

#[test]
fn division_by_zero_and_overflow_are_the_same_on_every_device() {
    let a = Tensor::new([6], [7, -7, 0, i32::MIN, i32::MIN, i32::MIN]).expect("a");
    let b = Tensor::new([6], [0, 0, 0, 0, -1, 1]).expect("b");
    let smallest = f64::from(i32::MIN);
    for got in run(&[("a", a), ("b", b)], |x| divisions(&x[0], &x[1])) {
        for quotient in &got[..3] {
            assert_eq!(*quotient, [7.0, -7.0, 0.0, smallest, smallest, smallest]);
        }
        for remainder in &got[3..] {
            assert_eq!(*remainder, [0.0; 6]);
        }
    }
    let a = Tensor::new([3], [7u32, 0, u32::MAX]).expect("a");
    for got in run(&[("a", a)], |x| divisions(&x[0], &x[0].zeros_like())) {
        for quotient in &got[..3] {
            assert_eq!(*quotient, [7.0, 0.0, f64::from(u32::MAX)]);
        }
        for remainder in &got[3..] {
            assert_eq!(*remainder, [0.0; 3]);
        }
    }
}

#[test]
fn quotients_and_remainders_of_large_numbers_are_exact() {
    // In f64, rounding never moves a quotient of two 32-bit integers across an integer.
    let numbers = [i32::MIN, i32::MIN + 1, -1_000_000_007, -65_537, -3, -1, 1, 2, 10, 46_341, 1 << 30, i32::MAX];
    let n = numbers.len();
    let pair = |i: usize| (f64::from(numbers[i / n]), f64::from(numbers[i % n]));
    let inputs = [("a", Tensor::new([n, 1], numbers).expect("a")), ("b", Tensor::new([n], numbers).expect("b"))];
    for got in run(&inputs, |x| divisions(&x[0], &x[1])) {
        for i in (0..n * n).filter(|&i| pair(i) != (f64::from(i32::MIN), -1.0)) {
            let (a, b) = pair(i);
            let (trunc, floor) = ((a / b).trunc(), (a / b).floor());
            let euclid = if b > 0.0 { floor } else { (a / b).ceil() };
            let want = [trunc, floor, euclid, a - b * trunc, a - b * floor, a - b * euclid];
            let got: Vec<f64> = got.iter().map(|all| all[i]).collect();
            assert_eq!(got, want, "{a} by {b}");
        }
    }
    let numbers = [1u32, 2, 3, 65_535, 65_537, 1 << 31, (1 << 31) + 1, u32::MAX - 1, u32::MAX];
    let n = numbers.len();
    let inputs = [("a", Tensor::new([n, 1], numbers).expect("a")), ("b", Tensor::new([n], numbers).expect("b"))];
    for got in run(&inputs, |x| divisions(&x[0], &x[1])) {
        for i in 0..n * n {
            let (a, b) = (numbers[i / n], numbers[i % n]);
            let (quotient, remainder) = (f64::from(a / b), f64::from(a % b));
            let got: Vec<f64> = got.iter().map(|all| all[i]).collect();
            assert_eq!(got, [quotient, quotient, quotient, remainder, remainder, remainder], "{a} by {b}");
        }
    }
}

#[test]
fn cumulative_sums_of_integers_wrap() {
    let x = Tensor::new([2, 4], [1, 2, 3, 4, i32::MAX, 1, -5, i32::MIN]).expect("x");
    let large = Tensor::new([5000], vec![1_000_003u32; 5000]).expect("large");
    for got in run(&[("x", x), ("large", large)], |x| vec![x[0].cumsum(1), x[0].cumsum(0), x[1].cumsum(0)]) {
        let [max, min] = [i32::MAX, i32::MIN].map(f64::from);
        assert_eq!(got[0], [1.0, 3.0, 6.0, 10.0, max, min, max - 4.0, -5.0]);
        assert_eq!(got[1], [1.0, 2.0, 3.0, 4.0, min, 3.0, -2.0, min + 4.0]);
        let want: Vec<f64> = (1..=5000u32).map(|k| f64::from(k.wrapping_mul(1_000_003))).collect();
        assert_eq!(got[2], want, "5000 in chunks");
    }
}

/// The product of matrices `[batch, m, k]` and `[batch, k, n]`, modulo 2^32.
fn product(a: &[i32], b: &[i32], [batches, m, n, k]: [usize; 4]) -> Vec<i32> {
    let element = |i: usize| {
        let (batch, row, column) = (i / (m * n), i / n % m, i % n);
        let terms = (0..k).map(|j| a[(batch * m + row) * k + j].wrapping_mul(b[(batch * k + j) * n + column]));
        terms.fold(0i32, i32::wrapping_add)
    };
    (0..batches * m * n).map(element).collect()
}

/// Pseudorandom numbers from the full i32 range.
fn large(n: usize, seed: usize) -> Vec<i32> {
    (0..n).map(|i| ((i + seed) as u32).wrapping_mul(2_654_435_761).rotate_left(7) as i32).collect()
}

#[test]
fn integer_products_are_exact_modulo_2_to_the_32() {
    for sizes @ [batches, m, n, k] in [[1, 2, 2, 3], [3, 5, 9, 7], [1, 1, 1, 13_000], [2, 70, 66, 33]] {
        let (a, b) = (large(batches * m * k, 1), large(batches * k * n, 2));
        let want: Vec<f64> = product(&a, &b, sizes).into_iter().map(f64::from).collect();
        let inputs =
            [("a", Tensor::new([batches, m, k], a).expect("a")), ("b", Tensor::new([batches, k, n], b).expect("b"))];
        let build = |x: &[Value]| {
            let unsigned = x[0].cast(DType::U32).matmul(&x[1].cast(DType::U32)).cast(DType::I32);
            vec![x[0].matmul(&x[1]), unsigned, x[1].t().matmul(&x[0].t()).t()]
        };
        for got in run(&inputs, build) {
            for got in got {
                assert!(got == want, "{sizes:?}");
            }
        }
    }
}

#[test]
fn integer_division_of_floats_and_bools_is_an_error() {
    for dtype in [DType::F32, DType::Bool] {
        for function in [Value::div_trunc, Value::div_floor, Value::div_euclid, Value::fmod, Value::remainder] {
            let graph = Graph::new();
            let x = graph.input("x", dtype, [2]);
            assert!(!function(&x, &x).is_valid());
            assert!(graph.errors()[0].to_string().contains("integers"), "{:?}", graph.errors());
        }
    }
    let graph = Graph::new();
    let (x, y) = (graph.input("x", DType::I32, [2, 2]), graph.input("y", DType::U32, [2, 2]));
    assert!(!x.matmul(&y).is_valid() && graph.errors()[0].to_string().contains("cast()"));
}

#[test]
fn bits_and_shifts_match_rust() {
    let numbers = [i32::MIN, -65_537, -2, -1, 0, 1, 2, 0x5555_5555, i32::MAX];
    let shifts = [-1, 0, 1, 5, 31, 32, 33, i32::MIN, i32::MAX];
    let n = numbers.len();
    let inputs = [
        ("a", Tensor::new([n, 1], numbers).expect("a")),
        ("b", Tensor::new([n], shifts).expect("b")),
        ("ua", Tensor::new([n, 1], numbers.map(|x| x as u32)).expect("ua")),
        ("ub", Tensor::new([n], shifts.map(|x| x as u32)).expect("ub")),
    ];
    let all = |a: &Value, b: &Value| {
        vec![a.bit_and(b), a.bit_or(b), a.bit_xor(b), a.bit_not(), a.shift_left(b), a.shift_right(b)]
    };
    for got in run(&inputs, |x| [all(&x[0], &x[1]), all(&x[2], &x[3])].concat()) {
        for i in 0..n * n {
            let (a, b) = (numbers[i / n], shifts[i % n]);
            let within = (0..32).contains(&b).then_some(b as u32);
            let left = within.map_or(0, |b| a << b);
            let signed = [a & b, a | b, a ^ b, !a, left, within.map_or(a.signum().min(0), |b| a >> b)];
            let right = within.map_or(0, |b| a as u32 >> b);
            let unsigned = [a & b, a | b, a ^ b, !a, left].map(|x| x as u32).into_iter().chain([right]);
            let want: Vec<f64> = signed.into_iter().map(f64::from).chain(unsigned.map(f64::from)).collect();
            let got: Vec<f64> = got.iter().map(|all| all[if all.len() == n { i / n } else { i }]).collect();
            assert_eq!(got, want, "{a} and {b}");
        }
    }
}
