//! What is composed of other ops has no reference of its own: its values, worked out here in plain loops. Its
//! gradients are checked in tests/reference.rs, its kernels in tests/kernels.rs. Needs no GPU.

use wgrad::nn::{Embedding, Init, Layer, PRelu, Scope, init};
use wgrad::{DType, Device, Error, Graph, Reduction, Session, Tensor, Value};

/// Computes on the reference: floats in, by name, to floats.
fn run(graph: &Graph, outputs: &[&Value], feeds: &[(&str, Tensor)]) -> Vec<Vec<f64>> {
    let mut session = Session::new(Device::cpu());
    let program = session.compile(graph, outputs).expect("compiles");
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    session.run(&program, &feeds).expect("runs").iter().map(Tensor::to_f64).collect()
}

/// Numbers between -1 and 1 that look like chance.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 1e-6 * want.abs().max(1.0), "{i}: {got} and {want}");
    }
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values).expect("fits")
}

/// The sum over all values of all letters, by counting through them.
fn einsum_by_hand(equation: &str, operands: &[(&[usize], &[f32])]) -> Vec<f64> {
    let (inputs, result) = equation.split_once("->").expect("an arrow");
    let inputs: Vec<Vec<char>> = inputs.split(',').map(|part| part.chars().collect()).collect();
    let result: Vec<char> = result.chars().collect();
    let mut letters: Vec<(char, usize)> = Vec::new();
    for (names, (shape, _)) in inputs.iter().zip(operands) {
        for (name, size) in names.iter().zip(*shape) {
            if !letters.iter().any(|(known, _)| known == name) {
                letters.push((*name, *size));
            }
        }
    }
    let size = |letter: &char| letters.iter().find(|(known, _)| known == letter).map_or(0, |(_, size)| *size);
    let mut sums = vec![0.0; result.iter().map(size).product()];
    for number in 0..letters.iter().map(|(_, size)| size).product() {
        let mut rest: usize = number;
        let mut at = Vec::new();
        for (letter, size) in &letters {
            at.push((*letter, rest % size));
            rest /= size;
        }
        let place = |names: &[char]| {
            let index = |name: &char| at.iter().find(|(known, _)| known == name).map_or(0, |(_, index)| *index);
            names.iter().fold(0, |place, name| place * size(name) + index(name))
        };
        let factors = inputs.iter().zip(operands).map(|(names, (_, values))| f64::from(values[place(names)]));
        sums[place(&result)] += factors.product::<f64>();
    }
    sums
}

#[test]
fn einsum_is_the_sum_over_what_the_result_does_not_name() {
    for (equation, shapes) in [
        ("ij,jk->ik", vec![vec![3, 4], vec![4, 5]]),
        ("ij,kj->ki", vec![vec![3, 4], vec![5, 4]]),
        ("bhqk,bhkd->bqhd", vec![vec![2, 3, 4, 5], vec![2, 3, 5, 2]]),
        ("ijk,ljk->il", vec![vec![3, 2, 4], vec![5, 2, 4]]),
        ("i,i->", vec![vec![7], vec![7]]),
        ("i,j->ji", vec![vec![3], vec![4]]),
        ("ij,ij->ji", vec![vec![3, 4], vec![3, 4]]),
        ("ijk->kj", vec![vec![2, 3, 4]]),
        ("ij->", vec![vec![2, 3]]),
        ("ai,bj->ab", vec![vec![2, 3], vec![4, 5]]),
        ("bn,anm,bm->ba", vec![vec![2, 3], vec![4, 3, 5], vec![2, 5]]),
        ("ij,jk,kl->li", vec![vec![2, 3], vec![3, 4], vec![4, 5]]),
    ] {
        let graph = Graph::new();
        let names = ["a", "b", "c"];
        let values: Vec<Vec<f32>> =
            shapes.iter().enumerate().map(|(i, shape)| numbers(shape.iter().product(), i + 1)).collect();
        let inputs: Vec<Value> =
            shapes.iter().zip(names).map(|(shape, name)| graph.input(name, DType::F32, shape.clone())).collect();
        let y = graph.einsum(equation, &inputs.iter().collect::<Vec<_>>());
        let feeds: Vec<(&str, Tensor)> =
            shapes.iter().zip(&values).zip(names).map(|((shape, v), name)| (name, tensor(shape, v))).collect();
        let operands: Vec<(&[usize], &[f32])> = shapes.iter().zip(&values).map(|(s, v)| (&s[..], &v[..])).collect();
        close(&run(&graph, &[&y], &feeds)[0], &einsum_by_hand(equation, &operands));
    }
}

#[test]
fn einsum_without_an_arrow_names_what_stands_once() {
    let graph = Graph::new();
    let (a, b) = (graph.input("a", DType::F32, [2, 3]), graph.input("b", DType::F32, [3, 4]));
    assert_eq!(graph.einsum("kb, bi", &[&a, &b]).shape().to_vec(), [4, 2], "alphabetical: ik");
    for (equation, what) in [
        ("ij,jk->ik,", "no letter"),
        ("ij->ik", "2 are given"),
        ("ij,kl->ik", "is of size"),
        ("ijk,kl->il", "3 axes"),
        ("ii,ij->j", "twice"),
        ("ij,jk->iz", "no operand"),
        ("i...,ij->j", "no letter"),
    ] {
        let graph = Graph::new();
        let (a, b) = (graph.input("a", DType::F32, [2, 3]), graph.input("b", DType::F32, [3, 4]));
        let (b, equation) = if equation == "ij,kl->ik" { (b.clone(), "ij,ik->jk") } else { (b, equation) };
        assert!(!graph.einsum(equation, &[&a, &b]).is_valid());
        let why = graph.mistakes()[0].message.clone();
        assert!(why.contains(what), "{equation}: {why}");
    }
}

#[test]
fn triangles_masks_and_topk() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [3, 3]);
    let (top, at) = x.topk(2, 1, true);
    let (least, _) = x.topk(1, 0, false);
    let mask = x.gt(&x.full_like(5.5));
    let outputs =
        [x.tril(0), x.triu(0), x.triu(1), x.tril(-1), x.masked_fill(&mask, -1.0), top, at, least, x.flip(&[0])];
    let feeds = [("x", tensor(&[3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0, 8.0, 9.0]))];
    let got = run(&graph, &outputs.iter().collect::<Vec<_>>(), &feeds);
    assert_eq!(got[0], [1.0, 0.0, 0.0, 4.0, 5.0, 0.0, 9.0, 8.0, 9.0]);
    assert_eq!(got[1], [1.0, 2.0, 3.0, 0.0, 5.0, 6.0, 0.0, 0.0, 9.0]);
    assert_eq!(got[2], [0.0, 2.0, 3.0, 0.0, 0.0, 6.0, 0.0, 0.0, 0.0]);
    assert_eq!(got[3], [0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 9.0, 8.0, 0.0]);
    assert_eq!(got[4], [1.0, 2.0, 3.0, 4.0, 5.0, -1.0, -1.0, -1.0, -1.0]);
    assert_eq!(got[5], [3.0, 2.0, 6.0, 5.0, 9.0, 9.0]);
    assert_eq!(got[6], [2.0, 1.0, 2.0, 1.0, 0.0, 2.0], "of equal ones the first");
    assert_eq!(got[7], [1.0, 2.0, 3.0]);
    assert_eq!(got[8], [9.0, 8.0, 9.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
}

#[test]
fn gates_and_slopes() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 4]);
    let w = graph.input("w", DType::F32, [4]);
    let values = [0.5f32, -1.0, 2.0, -3.0, 1.5, 0.0, -0.5, 0.25];
    let slopes = [0.1f32, 0.2, 0.3, 0.4];
    let got = run(
        &graph,
        &[&x.glu(1), &x.swiglu(0), &x.prelu(&w)],
        &[("x", tensor(&[2, 4], &values)), ("w", tensor(&[4], &slopes))],
    );
    let v: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let glu: Vec<f64> = [(0, 2), (1, 3), (4, 6), (5, 7)].iter().map(|&(a, b)| v[a] * sigmoid(v[b])).collect();
    close(&got[0], &glu);
    let swiglu: Vec<f64> = (0..4).map(|i| v[i] * sigmoid(v[i]) * v[i + 4]).collect();
    close(&got[1], &swiglu);
    let prelu: Vec<f64> = (0..8).map(|i| if v[i] > 0.0 { v[i] } else { f64::from(slopes[i % 4]) * v[i] }).collect();
    close(&got[2], &prelu);
    assert!(
        !x.glu(2).is_valid() && !x.slice(1, 0, 3, 1).glu(1).is_valid() && !x.prelu(&w.slice(0, 0, 3, 1)).is_valid()
    );
}

#[test]
fn losses_of_probabilities_margins_and_angles() {
    let graph = Graph::new();
    let input = |name: &str, shape: &[usize]| graph.input(name, DType::F32, shape);
    let (p, t, s) = (input("p", &[5]), input("t", &[5]), input("s", &[3]));
    let (a, b) = (input("a", &[3, 2]), input("b", &[3, 2]));
    let sign = input("sign", &[3]);
    let bce = p.binary_cross_entropy(&t, Reduction::Mean);
    let slope = &wgrad::gradients(&bce, &[&p])[0];
    let outputs = [
        &bce,
        slope,
        &s.hinge_loss(&sign, Reduction::Sum),
        &a.cosine_similarity(&b, 1),
        &a.cosine_embedding_loss(&b, &sign, 0.25, Reduction::Mean),
    ];
    let feeds = [
        ("p", tensor(&[5], &[0.25, 0.5, 0.75, 0.0, 1.0])),
        ("t", tensor(&[5], &[1.0, 0.5, 0.0, 1.0, 1.0])),
        ("s", tensor(&[3], &[2.0, 0.5, -0.25])),
        ("sign", tensor(&[3], &[1.0, -1.0, 1.0])),
        ("a", tensor(&[3, 2], &[1.0, 0.0, 3.0, 4.0, 1.0, 1.0])),
        ("b", tensor(&[3, 2], &[0.0, 2.0, 4.0, 3.0, 2.0, 2.0])),
    ];
    let got = run(&graph, &outputs, &feeds);
    close(&got[0], &[(4f64.ln() + 2f64.ln() + 4f64.ln() + 100.0) / 5.0]);
    // (p - t) / (p (1 - p)), with at least 1e-12 below the line, over five.
    close(&got[1], &[-0.75 / 0.1875 / 5.0, 0.0, 0.75 / 0.1875 / 5.0, -1e12 / 5.0, 0.0]);
    close(&got[2], &[0.0 + 1.5 + 1.25]);
    close(&got[3], &[0.0, 24.0 / 25.0, 1.0]);
    close(&got[4], &[(1.0 + (0.96 - 0.25) + 0.0) / 3.0]);
}

#[test]
fn a_padding_number_gives_zeros_and_trains_nothing() {
    let graph = Graph::new();
    let words = graph.input("words", DType::I32, [4]);
    let table = Embedding::new(&Scope::train(&graph, 3), "table", 3, 2).padding_idx(1);
    let y = table.forward(&words);
    let slope = &wgrad::gradients(&y.sum_all(), &[&table.weight])[0];
    let feeds = [("words", Tensor::new([4], [2, 1, 2, 0]).expect("fits"))];
    let got = run(&graph, &[&y, slope, &table.weight], &feeds);
    assert_eq!(got[0], [&got[2][4..6], &[0.0, 0.0], &got[2][4..6], &got[2][0..2]].concat());
    assert_eq!(got[1], [1.0, 1.0, 0.0, 0.0, 2.0, 2.0]);
    let x = graph.input("x", DType::F32, [2]);
    assert_eq!(
        run(
            &graph,
            &[&PRelu::new(&Scope::train(&graph, 0), "act", 1).forward(&x)],
            &[("x", tensor(&[2], &[-4.0, 4.0]))]
        )[0],
        [-1.0, 4.0]
    );
}

#[test]
fn initialisers_by_name() {
    for (text, init) in [
        ("zeros", init::zeros()),
        ("constant(0.5)", init::constant(0.5)),
        (" normal( 1 , 2e-1 ) ", init::normal(1.0, 0.2)),
        ("truncated_normal(0, 0.02, -0.04, 0.04)", init::truncated_normal(0.0, 0.02, -0.04, 0.04)),
        ("orthogonal", init::orthogonal(1.0)),
        ("kaiming_normal", init::kaiming_normal(0.0)),
        ("xavier_uniform(2)", init::xavier_uniform(2.0)),
    ] {
        assert_eq!(text.parse::<Init>().expect(text), init, "{text}");
    }
    for (text, what) in [
        ("glorot", "xavier_uniform"),
        ("uniform(1)", "uniform(low, high)"),
        ("constant", "constant(value)"),
        ("zeros(1)", "zeros()"),
        ("normal(a, b)", "as numbers"),
        ("normal(0, inf)", "as numbers"),
        ("normal(0, 1", "closing parenthesis"),
    ] {
        let error = text.parse::<Init>().expect_err(text);
        assert!(matches!(&error, Error::Input(why) if why.contains(what)), "{text}: {error}");
    }
}

#[test]
fn orthogonal_rows_and_truncated_numbers() {
    for (shape, rows, columns) in [(vec![4, 7], 4, 7), (vec![7, 4], 7, 4), (vec![3, 2, 2], 3, 4), (vec![6, 6], 6, 6)] {
        let drawn = init::orthogonal(2.0).draw(shape, 5, "w").to_f64();
        let (count, dot): (usize, Box<dyn Fn(usize, usize) -> f64>) = if rows <= columns {
            (rows, Box::new(|a, b| (0..columns).map(|k| drawn[a * columns + k] * drawn[b * columns + k]).sum()))
        } else {
            (columns, Box::new(|a, b| (0..rows).map(|k| drawn[k * columns + a] * drawn[k * columns + b]).sum()))
        };
        for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
            let want = if a == b { 4.0 } else { 0.0 };
            assert!((dot(a, b) - want).abs() < 1e-5, "{rows}x{columns}: {a}.{b} = {}", dot(a, b));
        }
    }
    let drawn = init::truncated_normal(1.0, 2.0, 0.0, 3.0).draw([10_000], 5, "w").to_f64();
    assert!(drawn.iter().all(|x| (0.0..=3.0).contains(x)));
    // The mean of N(1, 2) between 0 and 3: 1 + 2 (phi(-1/2) - phi(1)) / (Phi(1) - Phi(-1/2)).
    let mean = drawn.iter().sum::<f64>() / 10_000.0;
    assert!((mean - 1.41326).abs() < 0.03, "{mean}");
    let nothing = init::truncated_normal(0.0, 1.0, 50.0, 51.0).draw([3], 5, "w").to_f64();
    assert!(nothing.iter().all(|x| (50.0..=51.0).contains(x)));
}

/// Windows with negative numbers alone are among them, whose maximum's gradient the relu stops.
#[test]
fn a_relu_right_before_a_maximum_is_computed_after_it_with_the_same_values_and_gradients() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 3, 5, 6]);
    let weights = numbers(2 * 3 * 4 * 5, 3);
    let weighted = |y: &Value| {
        let weights = graph.constant(tensor(&[2, 3, 4, 5], &weights));
        (y * weights).sum_all()
    };
    let options = wgrad::ops::pool2d::Pool2d::new(2).stride(1);
    let after = x.relu().max_pool2d(options);
    let before = x.maximum(&x.zeros_like()).max_pool2d(options); // no relu, so it stays where it is
    let gradients = [&after, &before].map(|y| wgrad::gradients(&weighted(y), &[&x]).remove(0));
    let got = run(
        &graph,
        &[&after, &before, &gradients[0], &gradients[1]],
        &[("x", tensor(&[2, 3, 5, 6], &numbers(180, 1).iter().map(|x| x - 0.5).collect::<Vec<_>>()))],
    );
    assert!(got[0].contains(&0.0) && got[0].iter().any(|&y| y > 0.0));
    assert!(got[2].iter().any(|&dx| dx != 0.0));
    close(&got[0], &got[1]);
    close(&got[2], &got[3]);
    let names: Vec<String> = graph.nodes().nodes.iter().map(|node| node.name().to_owned()).collect();
    let place = |name: &str| names.iter().position(|known| known == name).expect("there");
    assert!(place("max_pool2d") < names.iter().rposition(|name| name == "relu").expect("there"), "{names:?}");
}
