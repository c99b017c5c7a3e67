//! Functions composed of other ops have no reference: their values are compared with plain loops here. Their
//! gradients are checked in tests/ops/reference.rs, their kernels in tests/ops/kernels.rs.

use wgrad::nn::{Embedding, Init, Layer, PRelu, Scope, init};
use wgrad::ops::conv1d::Conv1d;
use wgrad::ops::conv2d::Conv2d;
use wgrad::{DType, Device, Error, Graph, Reduction, Session, Tensor, Value};

use crate::common;

/// Runs the graph on the reference.
fn run(graph: &Graph, outputs: &[&Value], feeds: &[(&str, Tensor)]) -> Vec<Vec<f64>> {
    let mut session = Session::new(Device::cpu());
    let program = session.compile(graph, outputs).expect("compiles");
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    session.run(&program, &feeds).expect("runs").iter().map(Tensor::to_f64).collect()
}

/// Pseudorandom numbers between -1 and 1.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 1e-6 * want.abs().max(1.0), "{i}: {got}, expected {want}");
    }
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values).expect("fits")
}

/// The sum over all values of all letters, in plain loops.
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
fn einsum_sums_over_letters_missing_from_the_result() {
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
fn einsum_without_an_arrow_keeps_letters_that_occur_once() {
    let graph = Graph::new();
    let (a, b) = (graph.input("a", DType::F32, [2, 3]), graph.input("b", DType::F32, [3, 4]));
    assert_eq!(graph.einsum("kb, bi", &[&a, &b]).shape().to_vec(), [4, 2], "alphabetical: ik");
    for (equation, what) in [
        ("ij,jk->ik,", "not a letter"),
        ("ij->ik", "2 were passed"),
        ("ij,kl->ik", "has sizes"),
        ("ijk,kl->il", "3 axes"),
        ("ii,ij->j", "has sizes 2 and 3"),
        ("ij,jk->jj", "twice"),
        ("ij,jk->iz", "no operand"),
        ("...,...->...", "do not broadcast"),
        ("i..,ij->j", "not a letter"),
        ("....ij,jk->ik", "not a letter"),
        ("...i...,jk->ik", "not a letter"),
        ("...ijk,jk->i", "3 axes"),
        ("ij,jk->...i...", "not a letter"),
        ("ij,jk->i->k", "not a letter"),
        ("", "has 1 operand(s)"),
    ] {
        let graph = Graph::new();
        let (a, b) = (graph.input("a", DType::F32, [2, 3]), graph.input("b", DType::F32, [3, 4]));
        let (b, equation) = if equation == "ij,kl->ik" { (b.clone(), "ij,ik->jk") } else { (b, equation) };
        assert!(!graph.einsum(equation, &[&a, &b]).is_valid());
        let why = graph.errors()[0].message.clone();
        assert!(why.contains(what), "{equation}: {why}");
    }
}

#[test]
fn einsum_handles_diagonals_and_ellipses() {
    // An equation and its shapes, then an equivalent one without `...` and the broadcast shapes.
    type Shapes = &'static [&'static [usize]];
    let cases: &[(&str, Shapes, &str, Shapes)] = &[
        ("ii->i", &[&[3, 3]], "ii->i", &[&[3, 3]]),
        ("ii->", &[&[4, 4]], "ii->", &[&[4, 4]]),
        ("ii", &[&[4, 4]], "ii->", &[&[4, 4]]),
        ("bii->bi", &[&[2, 3, 3]], "bii->bi", &[&[2, 3, 3]]),
        ("ibi->bi", &[&[3, 2, 3]], "ibi->bi", &[&[3, 2, 3]]),
        ("iii->i", &[&[3, 3, 3]], "iii->i", &[&[3, 3, 3]]),
        ("ijij->ji", &[&[2, 3, 2, 3]], "ijij->ji", &[&[2, 3, 2, 3]]),
        ("ii,ij->j", &[&[3, 3], &[3, 2]], "ii,ij->j", &[&[3, 3], &[3, 2]]),
        ("ii,jj,ij->", &[&[3, 3], &[2, 2], &[3, 2]], "ii,jj,ij->", &[&[3, 3], &[2, 2], &[3, 2]]),
        ("...ij,...jk->...ik", &[&[2, 1, 3, 4], &[5, 4, 2]], "abij,abjk->abik", &[&[2, 5, 3, 4], &[2, 5, 4, 2]]),
        ("...ij,...jk", &[&[2, 1, 3, 4], &[5, 4, 2]], "abij,abjk->abik", &[&[2, 5, 3, 4], &[2, 5, 4, 2]]),
        ("i...,i...", &[&[2, 3, 1], &[2, 1, 4]], "iab,iab->ab", &[&[2, 3, 4], &[2, 3, 4]]),
        ("...,...->", &[&[3, 1], &[2]], "ab,ab->", &[&[3, 2], &[3, 2]]),
        ("...ii->...i", &[&[2, 3, 3]], "aii->ai", &[&[2, 3, 3]]),
        ("i...i->...", &[&[3, 2, 4, 3]], "iabi->ab", &[&[3, 2, 4, 3]]),
        ("...ij->...ji", &[&[2, 3]], "ij->ji", &[&[2, 3]]),
        ("ij->j...i", &[&[2, 3]], "ij->ji", &[&[2, 3]]),
        ("b...d,dk->k...b", &[&[2, 3, 1, 4], &[4, 5]], "bxyd,dk->kxyb", &[&[2, 3, 1, 4], &[4, 5]]),
        ("...i,...->i", &[&[1, 4], &[3]], "ai,a->i", &[&[3, 4], &[3]]),
    ];
    for (equation, shapes, explicit, full) in cases {
        let graph = Graph::new();
        let names = ["a", "b", "c"];
        let inputs: Vec<Value> = shapes.iter().zip(names).map(|(s, n)| graph.input(n, DType::F32, *s)).collect();
        let y = graph.einsum(equation, &inputs.iter().collect::<Vec<_>>());
        assert!(y.is_valid(), "{equation}: {:?}", graph.errors());
        let values: Vec<Vec<f32>> = shapes.iter().zip(1..).map(|(s, i)| numbers(s.iter().product(), i)).collect();
        let feeds: Vec<(&str, Tensor)> =
            shapes.iter().zip(&values).zip(names).map(|((s, v), name)| (name, tensor(s, v))).collect();
        let spread: Vec<Vec<f32>> =
            shapes.iter().zip(&values).zip(*full).map(|((from, v), to)| broadcast(from, v, to)).collect();
        let operands: Vec<(&[usize], &[f32])> = full.iter().zip(&spread).map(|(s, v)| (*s, &v[..])).collect();
        let want = einsum_by_hand(explicit, &operands);
        assert!(want.iter().all(|x| x.abs() > 1e-6), "{equation}: nothing to compare");
        close(&run(&graph, &[&y], &feeds)[0], &want);
    }
}

/// The elements broadcast to a larger shape.
fn broadcast(from: &[usize], values: &[f32], to: &[usize]) -> Vec<f32> {
    let skipped = to.len() - from.len();
    let strides: Vec<usize> = (0..from.len()).map(|axis| from[axis + 1..].iter().product()).collect();
    let at = |number: usize| {
        let (mut rest, mut place) = (number, 0);
        for axis in (0..to.len()).rev() {
            let index = rest % to[axis];
            rest /= to[axis];
            if axis >= skipped && from[axis - skipped] > 1 {
                place += index * strides[axis - skipped];
            }
        }
        values[place]
    };
    (0..to.iter().product()).map(at).collect()
}

/// A transposed convolution along one axis: each element of `x` `[C, L]` scales the weight `[C, O, K]` and adds it to
/// the output `[O, M]`.
fn spread(x: &[f32], weight: &[f32], [c, l, o, k]: [usize; 4], options: Conv1d, output_padding: usize) -> Vec<f64> {
    let Conv1d { stride, padding: [before, behind], dilation, .. } = options;
    let m = (l - 1) * stride + dilation * (k - 1) + output_padding + 1 - before - behind;
    let mut y = vec![0.0; o * m];
    for (at, &x) in x.iter().enumerate() {
        let (channel, i) = (at / l, at % l);
        for out in 0..o {
            for u in 0..k {
                if let Some(place) = (i * stride + u * dilation).checked_sub(before).filter(|&place| place < m) {
                    y[out * m + place] += f64::from(x) * f64::from(weight[(channel * o + out) * k + u]);
                }
            }
        }
    }
    assert_eq!(x.len(), c * l);
    y
}

#[test]
fn transposed_convolutions_match_plain_loops() {
    let plain = Conv1d::default();
    for (options, output_padding) in [
        (plain, 0),
        (plain.stride(2).padding(1), 1),
        (plain.dilation(3), 2), // more than the stride, less than the dilation
        (plain.dilation(3).padding(2), 1),
        (plain.stride(2).dilation(5).padding(3), 4),
        (plain.stride(3).dilation(2), 2),
        (Conv1d { padding: [1, 3], ..plain.stride(2).dilation(2) }, 1),
        (Conv1d { padding: [4, 0], ..plain.dilation(2) }, 1),
    ] {
        let sizes @ [c, l, o, k] = [3, 5, 2, 4];
        let (x, weight) = (numbers(c * l, 1), numbers(c * o * k, 2));
        let want = spread(&x, &weight, sizes, options, output_padding);
        let graph = Graph::new();
        let w = graph.input("w", DType::F32, [c, o, k]);
        let line = graph.input("x", DType::F32, [1, c, l]).conv_transpose1d(&w, None, options, output_padding);
        assert_eq!(line.shape()[..], [1, o, want.len() / o], "{options:?}, {output_padding}: {:?}", graph.errors());
        let feeds = [("x", tensor(&[1, c, l], &x)), ("w", tensor(&[c, o, k], &weight))];
        close(&run(&graph, &[&line], &feeds)[0], &want);

        // The same along the height of an image.
        let [before, behind] = options.padding;
        if before == behind {
            let graph = Graph::new();
            let (x, w) = (graph.input("x", DType::F32, [1, c, l, 1]), graph.input("w", DType::F32, [c, o, k, 1]));
            let options =
                Conv2d::default().stride([options.stride, 1]).padding([before, 0]).dilation([options.dilation, 1]);
            let y = x.conv_transpose2d(&w, None, options, [output_padding, 0]);
            let [(_, x), (_, w)] = feeds;
            let reshaped = |t: &Tensor, shape: &[usize]| tensor(shape, &t.to_f32());
            let feeds = [("x", reshaped(&x, &[1, c, l, 1])), ("w", reshaped(&w, &[c, o, k, 1]))];
            close(&run(&graph, &[&y], &feeds)[0], &want);
        }
    }
}

#[test]
fn reductions_over_any_axes_of_any_rank_agree_with_loops() {
    for (shape, axes) in [
        (vec![2, 3, 2, 2, 3, 2, 2], vec![0, 2, 4, 6]),
        (vec![2, 3, 2, 2, 3, 2, 2], vec![1, 3, 5]),
        (vec![2, 2, 3, 2, 2, 2, 2, 3], vec![1, 3, 5, 7]),
        (vec![2, 2, 3, 2, 2, 2, 2, 3], vec![0, 2, 4, 6]),
        (vec![2, 2, 3, 1, 2, 2, 1, 2, 2], vec![0, 2, 4, 6, 8]),
    ] {
        let x = numbers(shape.iter().product(), 3);
        let signed: Vec<isize> = axes.iter().map(|&axis| axis as isize).collect();
        let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        // The elements of each output, in order.
        let mut rows: Vec<(Vec<usize>, Vec<f64>)> = Vec::new();
        for (number, &x) in x.iter().enumerate() {
            let kept = (0..shape.len()).filter(|axis| !axes.contains(axis));
            let place: Vec<usize> = kept.map(|axis| number / strides[axis] % shape[axis]).collect();
            match rows.iter_mut().find(|(known, _)| *known == place) {
                Some((_, row)) => row.push(f64::from(x)),
                None => rows.push((place, vec![f64::from(x)])),
            }
        }
        let of = |f: fn(&[f64]) -> f64| rows.iter().map(|(_, row)| f(row)).collect::<Vec<f64>>();
        let want = [
            of(|row| row.iter().sum()),
            of(|row| row.iter().sum::<f64>() / row.len() as f64),
            of(|row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            of(|row| row.iter().copied().fold(f64::INFINITY, f64::min)),
            of(|row| row.iter().product()),
            of(|row| {
                let mean = row.iter().sum::<f64>() / row.len() as f64;
                row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (row.len() - 1) as f64
            }),
            of(|row| row.iter().map(|x| x.exp()).sum::<f64>().ln()),
        ];
        for device in common::devices() {
            for keep in [false, true] {
                let graph = Graph::new();
                let x = graph.input("x", DType::F32, shape.clone());
                let outputs = [
                    x.sum(&signed, keep),
                    x.mean(&signed, keep),
                    x.max(&signed, keep),
                    x.min(&signed, keep),
                    x.prod(&signed, keep),
                    x.var(&signed, 1, keep),
                    x.logsumexp(&signed, keep),
                ];
                let sizes = shape.iter().enumerate().filter(|(axis, _)| keep || !axes.contains(axis));
                let sizes: Vec<usize> = sizes.map(|(axis, &n)| if axes.contains(&axis) { 1 } else { n }).collect();
                let mut session = Session::new(device.clone());
                let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
                let feed = tensor(&shape, &numbers(shape.iter().product(), 3));
                for (got, want) in session.run(&program, &[("x", &feed)]).expect("runs").iter().zip(&want) {
                    assert_eq!(got.shape()[..], sizes[..]);
                    for (got, want) in got.to_f64().iter().zip(want) {
                        assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{shape:?}: {got}, expected {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn triangles_masks_sorting_and_topk_match_known_values() {
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
    assert_eq!(got[6], [2.0, 1.0, 2.0, 1.0, 0.0, 2.0], "the first of equal elements");
    assert_eq!(got[7], [1.0, 2.0, 3.0]);
    assert_eq!(got[8], [9.0, 8.0, 9.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
}

#[test]
fn gated_and_parametric_activations_match_their_formulas() {
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
fn composed_losses_match_their_formulas() {
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
    // (p - t) / max(p (1 - p), 1e-12), averaged over five elements.
    close(&got[1], &[-0.75 / 0.1875 / 5.0, 0.0, 0.75 / 0.1875 / 5.0, -1e12 / 5.0, 0.0]);
    close(&got[2], &[0.0 + 1.5 + 1.25]);
    close(&got[3], &[0.0, 24.0 / 25.0, 1.0]);
    close(&got[4], &[(1.0 + (0.96 - 0.25) + 0.0) / 3.0]);
}

#[test]
fn padding_indices_give_zeros_and_no_gradient() {
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
fn initialisers_are_parsed_by_name() {
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
        ("normal(a, b)", "with numbers"),
        ("normal(0, inf)", "with numbers"),
        ("normal(0, 1", "closing parenthesis"),
    ] {
        let error = text.parse::<Init>().expect_err(text);
        assert!(matches!(&error, Error::Input(why) if why.contains(what)), "{text}: {error}");
    }
}

#[test]
fn orthogonal_and_truncated_normal_initialisers_match_their_definitions() {
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

/// Includes windows with only negative elements, whose gradient the relu stops.
#[test]
fn moving_a_relu_behind_max_pooling_keeps_values_and_gradients() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 3, 5, 6]);
    let weights = numbers(2 * 3 * 4 * 5, 3);
    let weighted = |y: &Value| {
        let weights = graph.constant(tensor(&[2, 3, 4, 5], &weights));
        (y * weights).sum_all()
    };
    let options = wgrad::ops::pool2d::Pool2d::new(2).stride(1);
    let after = x.relu().max_pool2d(options);
    let before = x.maximum(&x.zeros_like()).max_pool2d(options); // not a relu, so not moved
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

/// The pooling reads the input of the relu, but the gradient of the relu's output must not be lost.
#[test]
fn the_output_of_a_relu_before_max_pooling_has_a_gradient() {
    for dtype in [DType::F32, DType::F16] {
        let graph = Graph::new();
        let x = graph.input("x", dtype, [2, 3, 5, 6]);
        let weights = graph.constant(tensor(&[2, 3, 4, 5], &numbers(2 * 3 * 4 * 5, 3)).cast(dtype));
        let options = wgrad::ops::pool2d::Pool2d::new(2).stride(1);
        let of = |c: &Value| {
            let loss =
                (c.max_pool2d(options) * &weights).cast(DType::F32).sum_all() + c.cast(DType::F32).square().mean_all();
            let both = wgrad::gradients(&loss, &[c, &x]);
            let alone = wgrad::gradients(&loss, &[c]).remove(0);
            [both[0].clone(), both[1].clone(), alone]
        };
        let relu = of(&x.relu());
        let plain = of(&x.maximum(&x.zeros_like())); // not a relu, so not moved
        let outputs: Vec<&Value> = relu.iter().chain(&plain).collect();
        let x = tensor(&[2, 3, 5, 6], &numbers(180, 1).iter().map(|x| x - 0.5).collect::<Vec<_>>()).cast(dtype);
        let got = run(&graph, &outputs, &[("x", x)]);
        assert!(got[0].iter().filter(|&&d| d != 0.0).count() > 20, "{dtype}");
        for (relu, plain) in got[..3].iter().zip(&got[3..]) {
            let off = relu.iter().zip(plain).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(off <= if dtype == DType::F32 { 1e-6 } else { 4e-3 }, "{dtype}: {off}");
        }
        close(&got[0], &got[2]);
    }
}
