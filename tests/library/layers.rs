//! Layers against independent formulas, in plain loops over f64. Needs no GPU.

use std::collections::BTreeMap;

use wgrad::nn::{
    Identity, Layer, LayerNorm, Pad2d, PixelShuffle, PixelUnshuffle, Scope, TransformerDecoder,
    TransformerDecoderLayer, TransformerEncoder, TransformerEncoderLayer, Upsample,
};
use wgrad::ops::interpolate::Interpolation;
use wgrad::ops::pad::Padding;
use wgrad::{DType, Device, Graph, Session, Tensor, Value};

/// Numbers that look random, from -1 to 1.
fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let number = |i: usize| ((i as f64 + 1.0) * 12.9898 + seed as f64 * 78.233).sin() * 43758.5453;
    (0..count).map(|i| (number(i) - number(i).floor()) * 2.0 - 1.0).collect()
}

fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let values: Vec<f32> = numbers(shape.iter().product(), seed).iter().map(|&x| x as f32).collect();
    Tensor::new(shape, values).expect("as many numbers as the shape has")
}

/// The output of a layer for `x`, as a function of the index `[n, c, h, w]`.
fn images(layer: &dyn Layer, x: &Tensor) -> impl Fn([usize; 4]) -> f64 + use<> {
    let graph = Graph::new();
    let y = layer.forward(&graph.input("x", DType::F32, x.shape()));
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[&y]).unwrap();
    indexed(&session.run(&program, &[("x", x)]).unwrap()[0])
}

/// An element of a tensor with four axes, by its index.
fn indexed(tensor: &Tensor) -> impl Fn([usize; 4]) -> f64 + use<> {
    let (values, shape) = (tensor.to_f64(), tensor.shape().to_vec());
    move |at| {
        assert!(at.iter().zip(&shape).all(|(at, size)| at < size), "{at:?} of {shape:?}");
        values[at.iter().zip(&shape).fold(0, |sum, (at, size)| sum * size + at)]
    }
}

fn every(shape: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    let [n, c, h, w] = shape;
    (0..n * c * h * w).map(move |at| [at / (c * h * w), at / (h * w) % c, at / w % h, at % w])
}

#[test]
fn pixels_are_shuffled_as_in_pytorch() {
    // The example of PyTorch's documentation: channel c r^2 + i r + j is pixel (i, j) of a block.
    let given = tensor(&[2, 12, 3, 5], 1);
    let (x, y) = (indexed(&given), images(&PixelShuffle(2), &given));
    for [n, c, h, w] in every([2, 3, 6, 10]) {
        assert_eq!(y([n, c, h, w]), x([n, c * 4 + h % 2 * 2 + w % 2, h / 2, w / 2]));
    }
    let given = tensor(&[1, 2, 6, 9], 2);
    let (x, y) = (indexed(&given), images(&PixelUnshuffle(3), &given));
    for [n, c, h, w] in every([1, 18, 2, 3]) {
        assert_eq!(y([n, c, h, w]), x([n, c / 9, h * 3 + c % 9 / 3, w * 3 + c % 3]));
    }
    let back = images(&|x: &Value| x.pixel_unshuffle(3).pixel_shuffle(3), &given);
    assert!(every([1, 2, 6, 9]).all(|at| back(at) == x(at)));
    assert!(every([1, 2, 6, 9]).all(|at| images(&Identity, &given)(at) == x(at)));
}

#[test]
fn images_are_resized_and_padded() {
    let given = tensor(&[2, 2, 3, 4], 3);
    let x = indexed(&given);
    let y = images(&Upsample::by([2, 3], Interpolation::Nearest), &given);
    assert!(every([2, 2, 6, 12]).all(|[n, c, h, w]| y([n, c, h, w]) == x([n, c, h / 2, w / 3])));
    // Bilinear, by the formula of the position in the source: (j + 1/2) / scale - 1/2.
    let y = images(&Upsample::to([6, 5], Interpolation::Linear), &given);
    let taps = |j: usize, from: usize, to: usize| {
        let at = ((j as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, from as f64 - 1.0);
        let low = at.floor() as usize;
        [(low, 1.0 - at.fract()), ((low + 1).min(from - 1), at.fract())]
    };
    for [n, c, h, w] in every([2, 2, 6, 5]) {
        let rows = taps(h, 3, 6).into_iter().flat_map(|row| taps(w, 4, 5).map(|column| (row, column)));
        let want: f64 = rows.map(|((i, a), (j, b))| a * b * x([n, c, i, j])).sum();
        assert!((y([n, c, h, w]) - want).abs() < 1e-12, "{want}");
    }
    // Two rows above and one below, none left and three right.
    let sides = [(2, 1), (0, 3)];
    let inside = |h: usize, w: usize| (2..5).contains(&h) && w < 4;
    let constant = images(&Pad2d::constant(sides, 1.5), &given);
    let zeros = images(&Pad2d::zeros(1), &given);
    let reflected = images(&Pad2d::with(sides, Padding::Reflect), &given);
    let replicated = images(&Pad2d::with(sides, Padding::Replicate), &given);
    let circular = images(&Pad2d::with(sides, Padding::Circular), &given);
    let mirror = |at: i64, size: i64| if at < 0 { -at } else { size - 1 - (size - 1 - at).abs() } as usize;
    for [n, c, h, w] in every([2, 2, 6, 7]) {
        let (i, j) = (h as i64 - 2, w as i64);
        let at = [n, c, h, w];
        assert_eq!(constant(at), if inside(h, w) { x([n, c, h - 2, w]) } else { 1.5 });
        assert_eq!(reflected(at), x([n, c, mirror(i, 3), mirror(j, 4)]));
        assert_eq!(replicated(at), x([n, c, i.clamp(0, 2) as usize, j.clamp(0, 3) as usize]));
        assert_eq!(circular(at), x([n, c, i.rem_euclid(3) as usize, j.rem_euclid(4) as usize]));
    }
    for [n, c, h, w] in every([2, 2, 5, 6]) {
        let inside = (1..4).contains(&h) && (1..5).contains(&w);
        assert_eq!(zeros([n, c, h, w]), if inside { x([n, c, h - 1, w - 1]) } else { 0.0 });
    }
}

/// A matrix in plain loops.
type Matrix = Vec<Vec<f64>>;

/// The weights of a model by name, with the arithmetic of a transformer in plain loops.
struct Plain(BTreeMap<String, Tensor>);

impl Plain {
    fn numbers(&self, name: &str) -> Vec<f64> {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}")).to_f64()
    }

    /// `x W^T + b`, with rows `rows` of the weight and the bias.
    fn linear(&self, x: &Matrix, weight: &str, bias: &str, rows: std::ops::Range<usize>) -> Matrix {
        let (w, b) = (self.numbers(weight), self.numbers(bias));
        let row = |x: &Vec<f64>, o: usize| b[o] + (0..x.len()).map(|i| x[i] * w[o * x.len() + i]).sum::<f64>();
        x.iter().map(|x| rows.clone().map(|o| row(x, o)).collect()).collect()
    }

    fn norm(&self, x: &Matrix, name: &str) -> Matrix {
        let (w, b) = (self.numbers(&format!("{name}.weight")), self.numbers(&format!("{name}.bias")));
        let row = |x: &Vec<f64>| {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            (0..x.len()).map(|i| (x[i] - mean) / (var + 1e-5).sqrt() * w[i] + b[i]).collect()
        };
        x.iter().map(row).collect()
    }

    /// Attention of `heads` heads; `allowed(query, key)`.
    fn attention(
        &self,
        name: &str,
        [x, memory]: [&Matrix; 2],
        heads: usize,
        allowed: impl Fn(usize, usize) -> bool,
    ) -> Matrix {
        let width = x[0].len();
        let of = |x: &Matrix, part: usize| {
            let [weight, bias] = ["weight", "bias"].map(|what| format!("{name}.in_proj_{what}"));
            self.linear(x, &weight, &bias, part * width..(part + 1) * width)
        };
        let (q, k, v) = (of(x, 0), of(memory, 1), of(memory, 2));
        let size = width / heads;
        let mut y = vec![vec![0.0; width]; x.len()];
        for head in 0..heads {
            let columns = head * size..(head + 1) * size;
            for i in 0..x.len() {
                let score = |j: usize| columns.clone().map(|c| q[i][c] * k[j][c]).sum::<f64>() / (size as f64).sqrt();
                let weights: Vec<f64> =
                    (0..memory.len()).map(|j| if allowed(i, j) { score(j).exp() } else { 0.0 }).collect();
                let sum: f64 = weights.iter().sum();
                for c in columns.clone() {
                    y[i][c] = (0..memory.len()).map(|j| weights[j] / sum * v[j][c]).sum();
                }
            }
        }
        self.linear(&y, &format!("{name}.out_proj.weight"), &format!("{name}.out_proj.bias"), 0..width)
    }

    fn feed_forward(&self, name: &str, x: &Matrix, inner: usize, activation: fn(f64) -> f64) -> Matrix {
        let (width, part) = (x[0].len(), |part: &str| format!("{name}.{part}"));
        let mut y = self.linear(x, &part("linear1.weight"), &part("linear1.bias"), 0..inner);
        y.iter_mut().flatten().for_each(|y| *y = activation(*y));
        self.linear(&y, &part("linear2.weight"), &part("linear2.bias"), 0..width)
    }
}

fn sum(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn relu(x: f64) -> f64 {
    x.max(0.0)
}

/// `x / 2 (1 + erf(x / sqrt 2))`, with erf by its series.
fn gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    let mut term = z;
    let mut erf = z;
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        erf += term / f64::from(2 * n + 1);
    }
    x / 2.0 * (1.0 + erf * 2.0 / std::f64::consts::PI.sqrt())
}

const WIDTH: usize = 8;
const HEADS: usize = 2;
const INNER: usize = 12;

/// Runs a model on `x` `[2, 5, WIDTH]` and `memory` `[2, 3, WIDTH]` with random weights. Returns them, the output and
/// the weights.
fn computed(model: impl Fn(&Scope, &Value, &Value) -> Value) -> ([Vec<Matrix>; 3], Plain) {
    let graph = Graph::new();
    let [x, memory] = [("x", 5), ("memory", 3)].map(|(name, len)| graph.input(name, DType::F32, [2, len, WIDTH]));
    let y = model(&Scope::eval(&graph, 3), &x, &memory);
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[&y]).unwrap();
    let mut weights = BTreeMap::new();
    for (seed, (name, value)) in graph.parameters().into_iter().enumerate() {
        // Other than at the start, norms scale and shift, and biases are not 0.
        let value = tensor(value.shape(), 10 + seed as u64);
        session.set(&name, &value).unwrap();
        weights.insert(name, value);
    }
    let feeds = [tensor(&[2, 5, WIDTH], 1), tensor(&[2, 3, WIDTH], 2)];
    let y = session.run(&program, &[("x", &feeds[0]), ("memory", &feeds[1])]).unwrap().remove(0);
    let matrices = |tensor: &Tensor| {
        let rows: Matrix = tensor.to_f64().chunks(WIDTH).map(<[f64]>::to_vec).collect();
        rows.chunks(tensor.shape()[1]).map(<[Vec<f64>]>::to_vec).collect::<Vec<_>>()
    };
    ([matrices(&feeds[0]), matrices(&feeds[1]), matrices(&y)], Plain(weights))
}

#[track_caller]
fn assert_near(got: &Matrix, want: &Matrix) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((got - want).abs() < 1e-10, "{got} instead of {want}");
    }
}

fn encoder_layer(plain: &Plain, name: &str, x: &Matrix, first: bool, causal: bool) -> Matrix {
    let [norm1, norm2] = ["norm1", "norm2"].map(|norm| format!("{name}.{norm}"));
    let attend = |x: &Matrix| plain.attention(&format!("{name}.self_attn"), [x, x], HEADS, |i, j| !causal || j <= i);
    if first {
        let x = sum(x, &attend(&plain.norm(x, &norm1)));
        return sum(&x, &plain.feed_forward(name, &plain.norm(&x, &norm2), INNER, gelu));
    }
    let x = plain.norm(&sum(x, &attend(x)), &norm1);
    plain.norm(&sum(&x, &plain.feed_forward(name, &x, INNER, relu)), &norm2)
}

#[test]
fn transformer_encoders_match_plain_loops() {
    let layer = |nn: &Scope, name: &str| TransformerEncoderLayer::new(nn, name, WIDTH, HEADS, INNER, 0.5);
    let ([x, _, y], plain) = computed(|nn, x, _| layer(nn, "layer").forward(x));
    for (x, y) in x.iter().zip(&y) {
        assert_near(y, &encoder_layer(&plain, "layer", x, false, false));
    }
    let names: Vec<&str> = plain.0.keys().map(String::as_str).collect();
    let expected = [
        "layer.linear1.bias",
        "layer.linear1.weight",
        "layer.linear2.bias",
        "layer.linear2.weight",
        "layer.norm1.bias",
        "layer.norm1.weight",
        "layer.norm2.bias",
        "layer.norm2.weight",
        "layer.self_attn.in_proj_bias",
        "layer.self_attn.in_proj_weight",
        "layer.self_attn.out_proj.bias",
        "layer.self_attn.out_proj.weight",
    ];
    assert_eq!(names, expected);
    let ([x, _, y], plain) = computed(|nn, x, _| {
        let layer = |nn: &Scope, name: &str| layer(nn, name).norm_first().activation(Value::gelu).causal();
        TransformerEncoder::new(nn, "encoder", 2, layer).norm(LayerNorm::new(nn, "encoder.norm", &[WIDTH])).forward(x)
    });
    for (x, y) in x.iter().zip(&y) {
        let x = encoder_layer(&plain, "encoder.layers.0", x, true, true);
        let x = encoder_layer(&plain, "encoder.layers.1", &x, true, true);
        assert_near(y, &plain.norm(&x, "encoder.norm"));
    }
}

#[test]
fn a_mask_hides_padding_from_an_encoder() {
    let hidden = |i: usize, j: usize| j < 4 && (i + j) % 3 != 1;
    let ([x, _, y], plain) = computed(|nn, x, _| {
        let allowed: Vec<bool> = (0..25).map(|at| hidden(at / 5, at % 5)).collect();
        let mask = nn.graph().constant(Tensor::new([5, 5], allowed).unwrap());
        TransformerEncoderLayer::new(nn, "layer", WIDTH, HEADS, INNER, 0.0).mask(&mask).forward(x)
    });
    for (x, y) in x.iter().zip(&y) {
        let x = sum(x, &plain.attention("layer.self_attn", [x, x], HEADS, hidden));
        let x = plain.norm(&x, "layer.norm1");
        assert_near(y, &plain.norm(&sum(&x, &plain.feed_forward("layer", &x, INNER, relu)), "layer.norm2"));
    }
}

fn decoder_layer(plain: &Plain, name: &str, x: &Matrix, memory: &Matrix, first: bool) -> Matrix {
    let norm = |x: &Matrix, number: usize| plain.norm(x, &format!("{name}.norm{number}"));
    let itself = |x: &Matrix| plain.attention(&format!("{name}.self_attn"), [x, x], HEADS, |i, j| j <= i);
    let other = |x: &Matrix| plain.attention(&format!("{name}.multihead_attn"), [x, memory], HEADS, |i, j| j != i);
    if first {
        let x = sum(x, &itself(&norm(x, 1)));
        let x = sum(&x, &other(&norm(&x, 2)));
        return sum(&x, &plain.feed_forward(name, &norm(&x, 3), INNER, gelu));
    }
    let x = norm(&sum(x, &itself(x)), 1);
    let x = norm(&sum(&x, &other(&x)), 2);
    norm(&sum(&x, &plain.feed_forward(name, &x, INNER, relu)), 3)
}

#[test]
fn transformer_decoders_match_plain_loops() {
    let layer = |nn: &Scope, name: &str| {
        let others: Vec<bool> = (0..15).map(|at| at % 3 != at / 3).collect();
        let mask = nn.graph().constant(Tensor::new([5, 3], others).unwrap());
        TransformerDecoderLayer::new(nn, name, WIDTH, HEADS, INNER, 0.5).causal().memory_mask(&mask)
    };
    let ([x, memory, y], plain) = computed(|nn, x, memory| layer(nn, "layer").forward(x, memory));
    for ((x, memory), y) in x.iter().zip(&memory).zip(&y) {
        assert_near(y, &decoder_layer(&plain, "layer", x, memory, false));
    }
    assert_eq!(plain.0.len(), 18);
    let ([x, memory, y], plain) = computed(|nn, x, memory| {
        let layer = |nn: &Scope, name: &str| layer(nn, name).norm_first().activation(Value::gelu);
        let norm = LayerNorm::new(nn, "decoder.norm", &[WIDTH]);
        TransformerDecoder::new(nn, "decoder", 2, layer).norm(norm).forward(x, memory)
    });
    for ((x, memory), y) in x.iter().zip(&memory).zip(&y) {
        let x = decoder_layer(&plain, "decoder.layers.0", x, memory, true);
        let x = decoder_layer(&plain, "decoder.layers.1", &x, memory, true);
        assert_near(y, &plain.norm(&x, "decoder.norm"));
    }
}
