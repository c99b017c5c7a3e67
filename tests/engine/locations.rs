//! Every public function that can record a graph error reports its caller's line.

use std::collections::BTreeSet;
use std::panic::Location;
use std::path::Path;

use wgrad::loss::{ClassLoss, Reduction};
use wgrad::nn::{self, Layer, RecurrentOptions, Scope, init};
use wgrad::ops::all_reduce::AllReduce;
use wgrad::ops::attention::Attention;
use wgrad::ops::conv1d::Conv1d;
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::interpolate::Interpolation;
use wgrad::ops::pad::Padding;
use wgrad::ops::recurrent::{Activation, Cell};
use wgrad::optim::{self, Gradient, Optimizer};
use wgrad::{DType, Graph, Tensor, Value, gradients, gradients_of, models, quant};

/// The values that the calls use.
struct Given {
    g: Graph,
    nn: Scope,
    /// f32 `[2, 3]`.
    f: Value,
    /// i32 `[2, 3]`.
    i: Value,
    /// bool `[2, 3]`.
    b: Value,
    /// f32 `[4]`.
    v: Value,
    /// f32 `[1, 2, 5, 5]`.
    image: Value,
    /// A parameter, f32 `[2, 3]`.
    w: Value,
}

impl Given {
    fn new() -> Given {
        let g = Graph::new();
        let input = |name: &str, dtype, shape: &[usize]| g.input(name, dtype, shape);
        let f = input("f", DType::F32, &[2, 3]);
        Given {
            nn: Scope::train(&g, 0),
            i: input("i", DType::I32, &[2, 3]),
            b: f.gt(&f.zeros_like()),
            v: input("v", DType::F32, &[4]),
            image: input("image", DType::F32, &[1, 2, 5, 5]),
            w: g.parameter("w", Tensor::zeros(f.ty())),
            f,
            g,
        }
    }

    fn gradients(&self) -> Vec<Gradient> {
        vec![Gradient { name: "w".into(), parameter: self.w.clone(), value: self.f.clone() }]
    }
}

/// An invalid call. It spans the lines from its own start to the start of the next entry.
struct Entry {
    name: &'static str,
    line: u32,
    call: Box<dyn Fn(&Given)>,
}

struct Entries(Vec<Entry>);

impl Entries {
    #[track_caller]
    fn add<T>(&mut self, name: &'static str, call: impl Fn(&Given) -> T + 'static) {
        let call = move |given: &Given| drop(call(given));
        self.0.push(Entry { name, line: Location::caller().line(), call: Box::new(call) });
    }
}

const MEAN: Reduction = Reduction::Mean;
/// A tensor with two axes of this size is too large.
const LARGE: usize = 1 << 16;

fn graphs(e: &mut Entries) {
    e.add("input", |t| t.g.input("f", DType::F32, [2]));
    e.add("input", |t| t.g.input("large", DType::F32, [LARGE, LARGE]));
    e.add("parameter", |t| t.g.parameter("w", Tensor::scalar(0.0)));
    e.add("variable", |t| t.g.variable("w", Tensor::scalar(0.0)));
    e.add("step_scalar", |t| t.g.step_scalar("c", DType::Bool, |n| n as f64));
    e.add("assign", |t| t.g.assign(&t.f, &t.f));
    e.add("assign", |t| t.g.assign(&t.w, &t.v));
    e.add("assign", |t| t.g.assign(&Graph::new().parameter("w", Tensor::scalar(0.0)), &t.f));
    e.add("full", |t| t.g.full(DType::F32, [LARGE, LARGE], 1.0));
    e.add("iota", |t| t.g.iota(DType::F32, [2], 1));
    e.add("iota", |t| t.g.iota(DType::Bool, [2], 0));
    e.add("random_bits", |t| t.g.random_bits([2], &t.f, &t.f));
    e.add("random_normal", |t| t.g.random_normal([2], &t.f, &t.f));
    e.add("einsum", |t| t.g.einsum("ij,jk->ik", &[&t.f, &t.f]));
    e.add("einsum", |t| t.g.einsum("", &[]));
    e.add("l1_penalty", |t| t.g.l1_penalty(1.0, |name| name == "none"));
    e.add("l1_penalty", |t| t.g.l1_penalty(f64::NAN, |_| true));
    e.add("l2_penalty", |t| t.g.l2_penalty(-1.0, |_| true));
    e.add("gradients", |t| gradients(&t.f, &[&t.w]));
    e.add("gradients_of", |t| gradients_of(&[(&t.f, &t.v)], &[&t.w]));
}

fn elementwise(e: &mut Entries) {
    macro_rules! unary {
        ($($name:ident of $of:ident),* $(,)?) => {
            $(e.add(stringify!($name), |t| t.$of.$name());)*
        };
    }
    // Macros keep the table short; all calls of one macro have the line of its use.
    unary!(
        not of f, bit_not of f, neg of b, abs of b, sign of i, floor of i, round of i, exp of i, log of i, sqrt of i, rsqrt of i,
        square of b, reciprocal of i, sin of i, cos of i, tan of i, asin of i, acos of i,
        atan of i, sinh of i, cosh of i, asinh of i, acosh of i, atanh of i, trunc of i, erf of i, normal_cdf of i, tanh of i, sigmoid of i,
        softplus of i, softsign of i, hardsigmoid of i, relu of b, silu of b, gelu of b, gelu_tanh of b, selu of b,
        mish of b, hardswish of b, mean_all of b, sum_all of b,
    );
    macro_rules! binary {
        ($($name:ident),* $(,)?) => {
            $(e.add(stringify!($name), |t| t.f.$name(&t.v));)*
        };
    }
    binary!(
        add,
        sub,
        mul,
        div,
        minimum,
        maximum,
        pow,
        lt,
        le,
        gt,
        ge,
        eq,
        ne,
        and,
        or,
        bit_and,
        bit_or,
        bit_xor,
        shift_left,
        shift_right
    );
    e.add("+", |t| &t.f + &t.v);
    e.add("-", |t| &t.f - t.v.clone());
    e.add("*", |t| t.f.clone() * &t.v);
    e.add("/", |t| t.f.clone() / t.v.clone());
    e.add("+", |t| &t.b + 1.0);
    e.add("-", |t| t.b.clone() - 1.0);
    e.add("neg", |t| -&t.b);
    e.add("neg", |t| -t.b.clone());
    e.add("where_", |t| t.f.where_(&t.f, &t.f));
    e.add("prelu", |t| t.f.prelu(&t.v));
    e.add("glu", |t| t.f.glu(1));
    e.add("glu", |t| t.f.glu(7));
    e.add("swiglu", |t| t.f.swiglu(1));
    e.add("clamp", |t| t.f.clamp(1.0, 0.0));
    e.add("clamp", |t| t.b.clamp(0.0, 1.0));
    e.add("leaky_relu", |t| t.b.leaky_relu(0.1));
    e.add("elu", |t| t.b.elu(1.0));
    e.add("powf", |t| t.f.powf(f64::NAN));
    e.add("powf", |t| t.b.powf(2.0));
    e.add("dropout", |t| t.f.dropout(2.0, &t.f, &t.f));
    e.add("dropout", |t| t.f.dropout(0.5, &t.f, &t.f));
    e.add("masked_fill", |t| t.f.masked_fill(&t.f, 0.0));
    e.add("tril", |t| t.v.tril(0));
    e.add("triu", |t| t.v.triu(0));
    e.add("diagonal", |t| t.v.diagonal(0, 1));
}

fn reductions(e: &mut Entries) {
    e.add("sum", |t| t.f.sum(&[2], false));
    e.add("mean", |t| t.f.mean(&[2], false));
    e.add("var", |t| t.f.var(&[2], 1, false));
    e.add("std", |t| t.f.std(&[2], 1, false));
    e.add("prod", |t| t.f.prod(&[2], false));
    e.add("max", |t| t.f.max(&[2], false));
    e.add("min", |t| t.f.min(&[2], false));
    e.add("logsumexp", |t| t.f.logsumexp(&[2], false));
    e.add("logsumexp", |t| t.i.logsumexp(&[0], false));
    e.add("argmax", |t| t.f.argmax(2, false));
    e.add("argmin", |t| t.f.argmin(2, false));
    e.add("softmax", |t| t.f.softmax(2));
    e.add("log_softmax", |t| t.i.log_softmax(1));
    e.add("cumsum", |t| t.f.cumsum(2));
    e.add("argsort", |t| t.f.argsort(2, false));
    e.add("sort", |t| t.f.sort(2, false));
    e.add("topk", |t| t.f.topk(9, 1, true));
}

fn movement(e: &mut Entries) {
    e.add("reshape", |t| t.f.reshape(&[4, -1]));
    e.add("flatten", |t| t.f.flatten(3));
    e.add("permute", |t| t.f.permute(&[0, 2]));
    e.add("t", |t| t.v.t());
    e.add("broadcast_to", |t| t.f.broadcast_to(&[5].into()));
    e.add("slice", |t| t.f.slice(0, 2, 1, 1));
    e.add("all_reduce", |t| t.i.all_reduce(AllReduce::SUM));
    e.add("flip", |t| t.f.flip(&[2]));
    e.add("interpolate", |t| t.f.interpolate(&[0], Interpolation::Linear));
    e.add("concat", |t| t.f.concat(&[&t.v], 0));
    e.add("split", |t| t.f.split(&[1, 1], 1));
    e.add("split", |t| t.f.split(&[1, 1], 5));
    e.add("pad", |t| t.f.pad(&[(1, 1); 3], 0.0));
    e.add("pad_with", |t| t.f.pad_with(&[(1, 1)], Padding::Replicate));
    e.add("pad_with", |t| t.f.pad_with(&[(2, 0), (0, 0)], Padding::Reflect));
    e.add("pixel_shuffle", |t| t.image.pixel_shuffle(0));
    e.add("pixel_unshuffle", |t| t.image.pixel_unshuffle(usize::MAX));
    e.add("gather", |t| t.f.gather(2, &t.i));
    e.add("gather", |t| t.f.gather(0, &t.f));
    e.add("index_select", |t| t.f.index_select(0, &t.i));
    e.add("embedding", |t| t.v.embedding(&t.i));
    e.add("embedding", |t| t.f.embedding(&t.f));
    e.add("scatter_add", |t| t.f.scatter_add(0, &t.f, &t.f));
    e.add("one_hot", |t| t.f.one_hot(3));
}

fn kernels(e: &mut Entries) {
    e.add("matmul", |t| t.f.matmul(&t.f));
    e.add("conv1d", |t| t.f.conv1d(&t.f, None, Conv1d::default()));
    e.add("conv2d", |t| t.image.conv2d(&t.f, None, Conv2d::default()));
    e.add("conv2d_input_grad", |t| t.image.conv2d_input_grad(&t.f, 3, Conv2d::default()));
    e.add("conv2d_weight_grad", |t| t.image.conv2d_weight_grad(&t.f, 3, Conv2d::default()));
    e.add("conv_transpose2d", |t| t.image.conv_transpose2d(&t.f, None, Conv2d::default(), 0));
    e.add("conv_transpose1d", |t| t.f.conv_transpose1d(&t.f, None, Conv1d::default(), 0));
    e.add("max_pool2d", |t| t.f.max_pool2d(2));
    e.add("avg_pool2d", |t| t.f.avg_pool2d(2));
    e.add("global_avg_pool2d", |t| t.f.global_avg_pool2d());
    e.add("adaptive_avg_pool2d", |t| t.f.adaptive_avg_pool2d(2));
    e.add("adaptive_avg_pool1d", |t| t.f.adaptive_avg_pool1d(2));
    e.add("layer_norm", |t| t.f.layer_norm(&[2], None, None, 1e-5));
    e.add("layer_norm", |t| t.f.layer_norm(&[3], None, None, -1.0));
    e.add("rms_norm", |t| t.f.rms_norm(&[3], Some(&t.v), 1e-5));
    e.add("group_norm", |t| t.image.group_norm(3, None, None, 1e-5));
    e.add("instance_norm", |t| t.f.instance_norm(None, None, 1e-5));
    e.add("batch_norm_training", |t| t.v.batch_norm_training(None, None, 1e-5));
    e.add("batch_norm_training", |t| t.f.batch_norm_training(None, None, f64::NAN));
    e.add("batch_norm", |t| t.f.batch_norm(&t.v, &t.v, None, None, 1e-5));
    e.add("batch_norm", |t| t.image.batch_norm(&t.f.sum(&[1], false), &t.f.sum(&[1], false), None, None, -1.0));
    e.add("running", |t| t.f.batch_norm_training(None, None, 1e-5).running(&t.v, &t.v, 0.1));
    e.add("average", |t| t.f.batch_norm_training(None, None, 1e-5).average(&t.v, &t.v, &t.v));
    e.add("scaled_dot_product_attention", |t| t.f.scaled_dot_product_attention(&t.v, &t.f, &Attention::default()));
    e.add("recurrent", |t| {
        let layer = nn::Recurrent::gru(&t.nn, "gru", 3, 4, RecurrentOptions::default());
        t.f.recurrent(Cell::Gru, Activation::Tanh, &layer.weights()[0], &[], false)
    });
}

fn losses(e: &mut Entries) {
    e.add("mse_loss", |t| t.f.mse_loss(&t.v, MEAN));
    e.add("l1_loss", |t| t.f.l1_loss(&t.v, MEAN));
    e.add("huber_loss", |t| t.f.huber_loss(&t.f, 0.0, MEAN));
    e.add("huber_loss", |t| t.f.huber_loss(&t.v, 1.0, MEAN));
    e.add("smooth_l1_loss", |t| t.f.smooth_l1_loss(&t.f, -1.0, MEAN));
    e.add("smooth_l1_loss", |t| t.f.smooth_l1_loss(&t.v, 0.0, MEAN));
    e.add("binary_cross_entropy", |t| t.f.binary_cross_entropy(&t.v, MEAN));
    e.add("hinge_loss", |t| t.f.hinge_loss(&t.v, MEAN));
    e.add("cosine_similarity", |t| t.f.cosine_similarity(&t.v, 1));
    e.add("cosine_similarity", |t| t.f.cosine_similarity(&t.f, 2));
    e.add("cosine_embedding_loss", |t| t.f.cosine_embedding_loss(&t.f, &t.v, 0.0, MEAN));
    e.add("cosine_embedding_loss", |t| t.f.cosine_embedding_loss(&t.f, &t.f.sum(&[1], false), f64::NAN, MEAN));
    e.add("binary_cross_entropy_with_logits", |t| t.f.binary_cross_entropy_with_logits(&t.v, MEAN));
    e.add("binary_cross_entropy_with_pos_weight", |t| t.f.binary_cross_entropy_with_pos_weight(&t.f, &t.v, MEAN));
    e.add("kl_div", |t| t.f.kl_div(&t.v, MEAN));
    e.add("cross_entropy", |t| t.f.cross_entropy(&t.i, MEAN));
    e.add("cross_entropy_losses", |t| t.v.cross_entropy_losses(&t.i));
    e.add("cross_entropy_losses", |t| t.f.cross_entropy_losses(&t.v));
    e.add("cross_entropy_with", |t| t.f.cross_entropy_with(&t.i, &ClassLoss::default()));
    e.add("cross_entropy_with", |t| t.f.cross_entropy_with(&t.v, &ClassLoss::default()));
    e.add("nll_loss", |t| t.f.nll_loss(&t.i, &ClassLoss::default()));
    e.add("nll_loss", |t| t.i.nll_loss(&t.i, &ClassLoss::default()));
}

fn layers(e: &mut Entries) {
    // Names that are taken, then data that does not fit.
    e.add("Scope::parameter", |t| t.nn.parameter("w", [2], init::ones()));
    e.add("Scope::parameter", |t| t.nn.parameter("large", [LARGE, LARGE], init::ones()));
    e.add("Scope::variable", |t| t.nn.variable("w", [2], init::ones()));
    e.add("Scope::activation", |t| t.nn.mixed(DType::I8).activation(&t.f));
    e.add("Scope::linear", |t| t.nn.linear("l", &t.i, 2));
    e.add("Scope::embedding", |t| t.nn.embedding("l", &t.f, 3, 4));
    e.add("Scope::conv2d", |t| t.nn.conv2d("l", &t.f, 3, 3, Conv2d::default()));
    e.add("Scope::dropout", |t| t.nn.dropout(&t.f, 2.0));
    e.add("Scope::layer_norm", |t| t.nn.layer_norm("l", &t.i));
    e.add("Scope::batch_norm", |t| t.nn.batch_norm("l", &t.v));
    e.add("Linear::new", |t| nn::Linear::new(&t.nn, "l", LARGE, LARGE));
    e.add("Linear::forward", |t| nn::Linear::new(&t.nn, "l", 4, 4).forward(&t.f));
    e.add("Conv1d::new", |t| nn::Conv1d::new(&t.nn, "l", LARGE, LARGE, 3, Conv1d::default()));
    e.add("Conv1d::forward", |t| nn::Conv1d::new(&t.nn, "l", 4, 4, 3, Conv1d::default()).forward(&t.f));
    e.add("Conv2d::new", |t| nn::Conv2d::new(&t.nn, "l", LARGE, LARGE, 3, Conv2d::default()));
    e.add("Conv2d::forward", |t| nn::Conv2d::new(&t.nn, "l", 4, 4, 3, Conv2d::default()).forward(&t.f));
    e.add("ConvTranspose2d::new", |t| nn::ConvTranspose2d::new(&t.nn, "l", LARGE, LARGE, 3, Conv2d::default()));
    e.add("ConvTranspose2d::forward", |t| {
        nn::ConvTranspose2d::new(&t.nn, "l", 4, 4, 3, Conv2d::default()).forward(&t.f)
    });
    e.add("SeparableConv2d::new", |t| nn::SeparableConv2d::new(&t.nn, "l", LARGE, LARGE, 3, Conv2d::default()));
    e.add("SeparableConv2d::forward", |t| {
        nn::SeparableConv2d::new(&t.nn, "l", 4, 4, 3, Conv2d::default()).forward(&t.f)
    });
    e.add("Embedding::new", |t| nn::Embedding::new(&t.nn, "l", LARGE, LARGE));
    e.add("Embedding::forward", |t| nn::Embedding::new(&t.nn, "l", 4, 4).padding_idx(0).forward(&t.f));
    e.add("MaxPool2d::forward", |t| nn::MaxPool2d::new(2).forward(&t.f));
    e.add("AvgPool2d::forward", |t| nn::AvgPool2d::new(2).forward(&t.f));
    e.add("Flatten::forward", |t| nn::Flatten.forward(&t.f.sum_all()));
    e.add("Dropout::forward", |t| nn::Dropout::new(&t.nn, f64::NAN).forward(&t.f));
    e.add("PRelu::new", |t| nn::PRelu::new(&t.nn, "l", LARGE * LARGE));
    e.add("PRelu::forward", |t| nn::PRelu::new(&t.nn, "l", 7).forward(&t.f));
    e.add("LayerNorm::new", |t| nn::LayerNorm::new(&t.nn, "l", &[LARGE, LARGE]));
    e.add("LayerNorm::forward", |t| nn::LayerNorm::new(&t.nn, "l", &[4]).forward(&t.f));
    e.add("RmsNorm::new", |t| nn::RmsNorm::new(&t.nn, "l", &[LARGE, LARGE]));
    e.add("RmsNorm::forward", |t| nn::RmsNorm::new(&t.nn, "l", &[4]).forward(&t.f));
    e.add("GroupNorm::new", |t| nn::GroupNorm::new(&t.nn, "l", 2, LARGE * LARGE));
    e.add("GroupNorm::forward", |t| nn::GroupNorm::new(&t.nn, "l", 2, 4).forward(&t.f));
    e.add("InstanceNorm2d::affine", |t| nn::InstanceNorm2d::affine(&t.nn, "l", LARGE * LARGE));
    e.add("InstanceNorm2d::forward", |t| nn::InstanceNorm2d::new().forward(&t.f));
    e.add("BatchNorm::new", |t| nn::BatchNorm2d::new(&t.nn, "l", LARGE * LARGE));
    e.add("BatchNorm::forward", |t| nn::BatchNorm2d::new(&t.nn, "l", 4).forward(&t.image));
    e.add("BatchNorm::forward", |t| nn::BatchNorm2d::new(&t.nn, "l", 4).forward(&t.f));
    e.add("MultiheadAttention::new", |t| nn::MultiheadAttention::new(&t.nn, "l", LARGE, 1));
    e.add("MultiheadAttention::attend", |t| {
        nn::MultiheadAttention::new(&t.nn, "l", 4, 2).attend(&t.f, &t.f, &t.f, &Attention::default())
    });
    e.add("MultiheadAttention::forward", |t| nn::MultiheadAttention::new(&t.nn, "l", 4, 3).forward(&t.f));
    e.add("TransformerEncoderLayer::new", |t| nn::TransformerEncoderLayer::new(&t.nn, "l", LARGE, 1, LARGE, 0.0));
    e.add("TransformerEncoderLayer::forward", |t| {
        nn::TransformerEncoderLayer::new(&t.nn, "l", 4, 2, 4, 0.0).activation(Value::exp).forward(&t.f)
    });
    e.add("TransformerDecoderLayer::new", |t| nn::TransformerDecoderLayer::new(&t.nn, "l", LARGE, 1, LARGE, 0.0));
    e.add("TransformerDecoderLayer::forward", |t| {
        nn::TransformerDecoderLayer::new(&t.nn, "l", 4, 2, 4, 0.0).forward(&t.f, &t.f)
    });
    e.add("TransformerEncoder::forward", |t| {
        let layer = |nn: &Scope, name: &str| nn::TransformerEncoderLayer::new(nn, name, 4, 2, 4, 0.0);
        nn::TransformerEncoder::new(&t.nn, "l", 1, layer).forward(&t.f)
    });
    e.add("TransformerDecoder::forward", |t| {
        let layer = |nn: &Scope, name: &str| nn::TransformerDecoderLayer::new(nn, name, 4, 2, 4, 0.0);
        nn::TransformerDecoder::new(&t.nn, "l", 1, layer).forward(&t.f, &t.f)
    });
    e.add("Upsample::forward", |t| nn::Upsample::by(2, Interpolation::Nearest).forward(&t.f));
    e.add("Upsample::forward", |t| nn::Upsample::by(1 << 30, Interpolation::Nearest).forward(&t.image));
    e.add("PixelShuffle::forward", |t| nn::PixelShuffle(2).forward(&t.image));
    e.add("PixelUnshuffle::forward", |t| nn::PixelUnshuffle(2).forward(&t.image));
    e.add("Pad2d::forward", |t| nn::Pad2d::zeros(1).forward(&t.f));
    e.add("Pad2d::forward", |t| nn::Pad2d::with(5, Padding::Reflect).forward(&t.image));
    e.add("sinusoidal_positions", |t| nn::sinusoidal_positions(&t.g, LARGE, LARGE));
    e.add("rotary", |t| nn::rotary(&t.f, 10_000.0));
    e.add("Recurrent::rnn", |t| nn::Recurrent::rnn(&t.nn, "l", 4, LARGE, RecurrentOptions::default()));
    e.add("Recurrent::lstm", |t| nn::Recurrent::lstm(&t.nn, "l", 4, LARGE, RecurrentOptions::default()));
    e.add("Recurrent::gru", |t| nn::Recurrent::gru(&t.nn, "l", 4, LARGE, RecurrentOptions::default()));
    e.add("Recurrent::new", |t| nn::Recurrent::new(Cell::Gru, &t.nn, "l", 4, LARGE, RecurrentOptions::default()));
    e.add("Recurrent::forward", |t| nn::Recurrent::gru(&t.nn, "l", 4, 4, RecurrentOptions::default()).forward(&t.f));
    e.add("Recurrent::forward", |t| {
        nn::Recurrent::gru(&t.nn, "l", 4, 4, RecurrentOptions::default().layers(0)).forward(&t.f)
    });
    e.add("Recurrent::states", |t| {
        let layer = nn::Recurrent::lstm(&t.nn, "l", 4, 4, RecurrentOptions::default());
        let x = t.g.input("sequence", DType::F32, [2, 3, 4]);
        layer.states(&x, Some(&[t.f.clone(), t.f.clone()]))
    });
    e.add("Recurrent::states", |t| {
        let layer = nn::Recurrent::lstm(&t.nn, "l", 4, 4, RecurrentOptions::default().layers(2).dropout(2.0));
        layer.states(&t.g.input("sequence", DType::F32, [2, 3, 4]), None)
    });
    e.add("F::forward", |t| Layer::forward(&Value::exp, &t.i));
    e.add("Sequential::forward", |t| {
        nn::Sequential::new().then(Value::exp).then(nn::Flatten).then(|x: &Value| x.softmax(9)).forward(&t.i)
    });
    e.add("Sequential::then", |t| nn::Sequential::new().then(|x: &Value| x.softmax(9)).forward(&t.f));
}

fn optimizers(e: &mut Entries) {
    e.add("parameter_gradients", |t| optim::parameter_gradients(&t.g, &Graph::new().scalar("x", 0.0)));
    e.add("parameter_gradients", |t| optim::parameter_gradients(&t.g, &t.f));
    e.add("matmul_quantized", |t| {
        let q = quant::QuantizedWeight { values: t.f.clone(), scale: t.v.clone(), zero: None };
        t.f.matmul_quantized(&q)
    });
    e.add("quantized_matmul", |t| t.f.quantized_matmul(&t.f, &t.f, None));
    e.add("conv2d_quantized", |t| {
        let q = quant::QuantizedWeight { values: t.f.clone(), scale: t.v.clone(), zero: None };
        t.image.conv2d_quantized(&q, Conv2d::default())
    });
    e.add("matmul_dynamic", |t| {
        let q = quant::QuantizedWeight { values: t.f.clone(), scale: t.v.clone(), zero: None };
        t.f.matmul_dynamic(&q)
    });
    e.add("fake_quantize", |t| t.f.fake_quantize(quant::Scheme::int8().bits(1), &t.v, &t.v));
    e.add("declare", |t| {
        let q =
            quant::Scheme::int8().quantize(&Tensor::new([1], [1.0f32]).unwrap(), quant::Calibration::MinMax).unwrap();
        t.g.variable("q.values", Tensor::new([1], [1.0f32]).unwrap());
        q.declare(&t.g, "q")
    });
    let range =
        |scale: &Value| quant::QuantizedInput { scheme: quant::Scheme::int8(), scale: scale.clone(), zero: None };
    e.add("quantize", move |t| t.f.quantize(&range(&t.i)));
    e.add("matmul_static", move |t| {
        let q = quant::QuantizedWeight { values: t.f.clone(), scale: t.v.clone(), zero: None };
        t.f.matmul_static(&range(&t.v), &q)
    });
    e.add("conv2d_static", move |t| {
        let q = quant::QuantizedWeight { values: t.f.clone(), scale: t.v.clone(), zero: None };
        t.image.conv2d_static(&range(&t.v), &q, Conv2d::default())
    });
    e.add("dequantized", |t| {
        quant::QuantizedWeight { values: t.f.clone(), scale: t.v.clone(), zero: None }.dequantized()
    });
    e.add("LossScale::minimize", |t| optim::LossScale::new().initial(-1.0).minimize(&t.g, &optim::Sgd::new(), &t.f));
    e.add("LossScale::gradients", |t| optim::LossScale::new().gradients(&t.g, &t.i.sum_all()));
    e.add("Scaled::apply", |t| {
        let none =
            optim::Scaled { gradients: Vec::new(), finite: t.b.slice(0, 0, 1, 1).slice(1, 0, 1, 1).reshape(&[]) };
        none.apply(&t.g, &optim::Sgd::new().lr(-1.0), &[])
    });
    e.add("clip_norm", |t| optim::clip_norm(&t.gradients(), -1.0));
    e.add("clip_value", |t| optim::clip_value(&t.gradients(), -1.0));
    e.add("accumulate", |t| {
        let gradients = t.gradients();
        t.g.variable("w.grad_sum", Tensor::scalar(0.0));
        optim::accumulate(&t.g, &gradients)
    });
    e.add("accumulated", |t| optim::accumulated(&t.g, 0));
    e.add("all_reduce", |t| {
        let wrong = Gradient { value: t.i.clone(), ..t.gradients()[0].clone() };
        optim::all_reduce(&[wrong], AllReduce::MEAN)
    });
    e.add("accumulated", |t| {
        t.g.variable("w.grad_sum", Tensor::scalar(0.0));
        optim::accumulated(&t.g, 2)
    });
    e.add("Gradient::state", |t| (t.gradients()[0].state("x"), t.gradients()[0].state("x")));
    e.add("Gradient::average", |t| t.gradients()[0].average("x", 0.9, &t.v));
    e.add("minimize", |t| optim::Sgd::new().minimize(&t.g, &t.f));
    e.add("apply", |t| {
        optim::Sgd::new().lr(-1.0).apply(&t.g, &t.gradients());
        optim::Sgd::new().nesterov(true).apply(&t.g, &[]);
        optim::Sgd::new().momentum(1.0).apply(&t.g, &[]);
        optim::Lion::new().lr(f64::NAN).apply(&t.g, &[]);
        optim::Lion::new().betas((0.9, f64::NAN)).apply(&t.g, &[]);
        optim::Adam::new().betas((1.0, 0.9)).apply(&t.g, &[]);
        optim::AdamW::new().weight_decay(-1.0).apply(&t.g, &[]);
        optim::NAdam::new().momentum_decay(f64::INFINITY).apply(&t.g, &[]);
        optim::RmsProp::new().alpha(f64::NAN).apply(&t.g, &[]);
        optim::RmsProp::new().momentum(-0.1).apply(&t.g, &[]);
        optim::Adagrad::new().lr_decay(-1.0).apply(&t.g, &[]);
        optim::Adadelta::new().rho(1.5).apply(&t.g, &[]);
        optim::Adadelta::new().eps(f64::NAN).apply(&t.g, &[]);
        optim::Sgd::new().lr_factor(f64::NAN).apply(&t.g, &[]);
        optim::Sgd::new().averaged(1.0).apply(&t.g, &[]);
        assert_eq!(t.g.errors().len(), 15);
    });
    e.add("rule", |t| {
        let _ = optim::Sgd::new().lr(-1.0).rule(&t.g);
        let _ = optim::Lion::new().lr(-1.0).rule(&t.g);
        let _ = optim::Adam::new().lr(-1.0).rule(&t.g);
        let _ = optim::AdamW::new().lr(-1.0).rule(&t.g);
        let _ = optim::NAdam::new().lr(-1.0).rule(&t.g);
        let _ = optim::RmsProp::new().lr(-1.0).rule(&t.g);
        let _ = optim::Adagrad::new().lr(-1.0).rule(&t.g);
        optim::Adadelta::new().lr(-1.0).lr_factor(-1.0).averaged(-1.0).rule(&t.g)
    });
}

fn whole_models(e: &mut Entries) {
    e.add("mnist_cnn", |t| models::mnist_cnn(&t.nn, &t.f));
    e.add("mnist_cnn_with", |t| models::mnist_cnn_with(&t.nn, &t.g.input("x", DType::F32, [1, 1, 28, 28]), 2.0));
    e.add("resnet18", |t| models::resnet18(&t.nn, &t.f, 10));
    e.add("resnet34", |t| models::resnet34(&t.nn, &t.image.slice(2, 0, 0, 1), 10));
    e.add("xor", |t| models::xor(&t.nn, &t.i));
    e.add("mnist_cnn_training", |t| (t.g.input("x", DType::F32, []), models::mnist_cnn_training(&t.g, 2, 0)));
    e.add("mnist_cnn_training_with", |t| models::mnist_cnn_training_with(&t.g, 2, 0, 2.0));
    e.add("mnist_cnn_training_in", |t| models::mnist_cnn_training_in(&t.g, &t.nn, 2, 2.0));
    e.add("mnist_cnn_inference", |t| (t.g.input("x", DType::F32, []), models::mnist_cnn_inference(&t.g, 2, 0)));
    e.add("xor_training", |t| (t.g.input("x", DType::F32, []), models::xor_training(&t.g, 0)));
}

fn entries() -> Vec<Entry> {
    let mut entries = Entries(Vec::new());
    for add in [graphs, elementwise, reductions, movement, kernels, losses, layers, optimizers, whole_models] {
        add(&mut entries);
    }
    entries.0
}

#[test]
fn graph_errors_report_the_callers_line() {
    let entries = entries();
    let mut wrong = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let given = Given::new();
        assert!(given.g.errors().is_empty());
        (entry.call)(&given);
        let end = entries[number + 1..].iter().map(|next| next.line).find(|&line| line > entry.line);
        let end = end.unwrap_or(u32::MAX);
        let errors = given.g.errors();
        if errors.is_empty() {
            wrong.push(format!("{}: no error", entry.name));
        }
        for error in errors {
            let here = Path::new(error.location.file()).file_name() == Path::new(file!()).file_name();
            if !here || !(entry.line..end).contains(&error.location.line()) {
                wrong.push(format!("{}, line {}: {error}", entry.name, entry.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), entries.len(), wrong.join("\n"));
}

/// Functions that track their caller for the nodes they add, but never record an error themselves.
/// `Inputs::get` of a batch without such a tensor: its line is tested with the trainer (`tests/library/train.rs`).
const TESTED_ELSEWHERE: &[&str] = &["get"];

const NO_ERRORS: &[&str] = &[
    "apply",
    "apply1",
    "cast",
    "constant",
    "decayed",
    "full_like",
    "of_step",
    "ones_like",
    "scalar",
    "stop_gradient",
    "zeros_like",
];

#[test]
fn the_table_lists_every_public_function_that_tracks_its_caller() {
    let tested: BTreeSet<&str> =
        entries().iter().map(|entry| entry.name).flat_map(|name| [name, name.rsplit("::").next().unwrap()]).collect();
    let mut missing = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).expect("a folder") {
            let path = file.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for after in text.split("#[track_caller]\n").skip(1) {
                let Some(rest) = after.trim_start().strip_prefix("pub fn ") else { continue };
                let name = rest.split(['(', '<']).next().unwrap_or_default();
                let excepted = NO_ERRORS.iter().chain(TESTED_ELSEWHERE).any(|known| *known == name);
                if name != "$name" && !tested.contains(name) && !excepted {
                    missing.push(format!("{name} of {}", path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in the table: {}", missing.join(", "));
}
