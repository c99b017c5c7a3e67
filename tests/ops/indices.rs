//! Out-of-range indices are errors, whatever their source; sums by index are bitwise reproducible.

use wgrad::{DType, Device, Error, Graph, Session, Tensor, Value, gradients};

use crate::common;

type Use = fn(&Value, &Value) -> Value;

/// Ops that read indices `[4]` into an axis of size 5.
const USES: &[(&str, Use)] = &[
    ("embedding", |x, index| x.embedding(index)),
    ("index_select", |x, index| x.t().index_select(1, index)),
    ("gather", |x, index| x.gather(0, &index.reshape(&[4, 1]))),
    ("scatter_add", |x, index| x.scatter_add(0, &index.reshape(&[4, 1]), x)),
    ("one_hot", |_, index| index.one_hot(5)),
];

fn devices() -> impl Iterator<Item = Device> {
    std::iter::once(Device::cpu()).chain(common::device())
}

fn x() -> Tensor {
    Tensor::new([5, 3], (0..15).map(|i| i as f32).collect::<Vec<_>>()).expect("fits")
}

#[test]
fn out_of_range_indices_are_refused_in_inputs_constants_and_variables() {
    for (name, apply) in USES {
        for (device, bad) in devices().flat_map(|device| [5, -1, i32::MIN].map(|bad| (device.clone(), bad))) {
            for from in ["input", "constant", "variable"] {
                let run = |last: i32| {
                    let numbers = Tensor::new([4], [0, 4, 2, last]).expect("fits");
                    let graph = Graph::new();
                    let index = match from {
                        "input" => graph.input("index", DType::I32, [4]),
                        "constant" => graph.constant(numbers.clone()),
                        _ => graph.variable("index", numbers.clone()),
                    };
                    let y = apply(&graph.input("x", DType::F32, [5, 3]), &index);
                    let mut session = Session::new(device.clone());
                    let program = session.compile(&graph, &[&y])?;
                    let feeds = [("x", &x()), ("index", &numbers)];
                    session.run(&program, &feeds[..if from == "input" { 2 } else { 1 }])
                };
                run(3).expect(name);
                let error = run(bad).expect_err(name);
                let reported = matches!(&error, Error::Input(why) if why.contains("out of range"));
                assert!(reported, "{name}, {from}, {bad} on {device}: {error}");
            }
        }
    }
}

#[test]
fn invalid_index_arguments_are_refused_with_what_was_expected() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [5, 3]);
    let index = graph.input("index", DType::I32, [4]);
    let column = index.reshape(&[4, 1]);
    let wide = index.reshape(&[1, 4]);
    let cases = [
        (x.embedding(&x), "i32 or u32"),
        (x.flatten(0).embedding(&index), "a table [V, D]"),
        (x.gather(2, &column), "no axis 2"),
        (x.gather(0, &index), "2 axes"),
        (x.gather(0, &wide), "no larger than [5, 3]"),
        (x.index_select(0, &column), "an index [K]"),
        (x.scatter_add(0, &column, &x.slice(0, 0, 2, 1)), "no larger than the source"),
        (x.slice(0, 0, 0, 1).embedding(&index), "no elements to select"),
        (x.one_hot(3), "class indices"),
        (index.one_hot(0), "at least one class"),
        (x.gt(&x).argsort(0, false), "cast()"),
        (x.topk(6, 0, true).0, "no 6 elements"),
        (x.tril(isize::MAX), "32 bits"),
        (index.triu(0), "two axes"),
        (x.flip(&[0, 2]), "no axis 2"),
    ];
    let errors = graph.errors();
    assert_eq!(errors.len(), cases.len(), "{errors:?}");
    for (error, (value, expected)) in errors.iter().zip(cases) {
        assert!(!value.is_valid() && error.message.contains(expected), "{expected}: {error}");
        assert!(error.location.file().ends_with("indices.rs"), "{error}");
    }
}

/// 100,000 uses of 7 rows: partial sums of blocks, in a fixed order.
#[test]
fn long_sums_by_index_are_correct_and_reproducible() {
    const COUNT: usize = 100_000;
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let table = graph.input("table", DType::F32, [7, 4]);
    let index = graph.input("index", DType::U32, [COUNT]);
    let weights = graph.input("weights", DType::F32, [COUNT, 1]);
    let slope = &gradients(&(table.embedding(&index) * &weights).sum_all(), &[&table])[0];
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[slope]).expect("compiles");
    // Half of the indices are the same row, like padding.
    let rows: Vec<u32> = (0..COUNT as u32).map(|i| if i % 2 == 0 { 3 } else { i * 7919 % 7 }).collect();
    let numbers: Vec<f32> = (0..COUNT).map(|i| (i * 104_729 % 2003) as f32 / 2003.0).collect();
    let mut sums = [0.0; 7];
    rows.iter().zip(&numbers).for_each(|(&row, &number)| sums[row as usize] += f64::from(number));
    let feeds = [
        ("table", &Tensor::new([7, 4], vec![0.0f32; 28]).expect("fits")),
        ("index", &Tensor::new([COUNT], rows).expect("fits")),
        ("weights", &Tensor::new([COUNT, 1], numbers).expect("fits")),
    ];
    let first = session.run(&program, &feeds).expect("runs")[0].to_f32();
    for (i, got) in first.iter().enumerate() {
        let want = sums[i / 4];
        assert!((f64::from(*got) - want).abs() <= 1e-5 * want, "{i}: {got}, expected {want}");
    }
    for _ in 0..3 {
        assert_eq!(session.run(&program, &feeds).expect("runs")[0].to_f32(), first);
    }
}
