//! Builds each op of the golden set in wgrad from PyTorch's names and attributes.

use std::cell::RefCell;

use wgrad::loss::{ClassLoss, Reduction};
use wgrad::ops::attention::Attention;
use wgrad::ops::conv1d::Conv1d;
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::pool2d::Pool2d;
use wgrad::ops::recurrent::{Activation, Cell, Weights};
use wgrad::{DType, Data, Tensor, Value};

use super::attrs::{Attrs, Refusal};
use super::compare::Kind;

/// A call of an op, with inputs and attributes by name. Any that is not read makes the case unknown.
pub struct Call<'a> {
    pub attrs: Attrs<'a>,
    inputs: Vec<(String, Value)>,
    data: &'a [(String, Tensor)],
    used: RefCell<Vec<String>>,
}

type Built = Result<Vec<Value>, Refusal>;

/// One op.
struct Row {
    name: &'static str,
    /// How outputs are compared; gradients of exact ops are sums, hence [`Kind::Scaled`].
    kind: Kind,
    build: fn(&Call) -> Built,
}

/// An op's outputs, and how they and the gradients are compared.
pub struct Expression {
    pub outputs: Vec<Value>,
    pub kind: Kind,
    pub gradient_kind: Kind,
}

/// Builds an op's outputs, in the case's order.
pub fn build(op: &str, call: &Call) -> Result<Expression, Refusal> {
    let row = ROWS.iter().find(|row| row.name == op).ok_or_else(|| Refusal::Unknown(String::new()))?;
    let outputs = (row.build)(call)?;
    call.all_read()?;
    let gradient_kind = if row.kind == Kind::Exact { Kind::Scaled } else { row.kind };
    Ok(Expression { outputs, kind: row.kind, gradient_kind })
}

impl<'a> Call<'a> {
    /// `data` holds the values of the inputs, where known.
    pub fn new(attrs: Attrs<'a>, inputs: Vec<(String, Value)>, data: &'a [(String, Tensor)]) -> Self {
        Call { attrs, inputs, data, used: RefCell::default() }
    }

    /// Whether an index input contains this index.
    fn contains(&self, name: &str, index: isize) -> bool {
        let data = self.data.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.data());
        matches!(data, Some(Data::I32(v)) if v.iter().any(|&i| i as isize == index))
    }

    /// An optional input.
    fn optional(&self, name: &str) -> Option<&Value> {
        self.used.borrow_mut().push(name.to_owned());
        self.inputs.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A required input.
    fn input(&self, name: &str) -> Result<&Value, Refusal> {
        self.optional(name).ok_or_else(|| Refusal::Malformed(format!("the input `{name}` is missing")))
    }

    fn all_read(&self) -> Result<(), Refusal> {
        let used = self.used.borrow();
        match self.inputs.iter().find(|(name, _)| !used.contains(name)) {
            Some((name, _)) => Err(Refusal::Unknown(format!("input `{name}`"))),
            None => self.attrs.all_read(),
        }
    }

    /// An axis counted from the front.
    fn axis(&self, key: &'static str, of: &Value) -> Result<usize, Refusal> {
        let dim = self.attrs.int(key)?;
        let missing = || Refusal::Malformed(format!("`{key}` is {dim}, which is no axis of {}", of.shape()));
        of.shape().axis(dim).ok_or_else(missing)
    }
}

fn unary(call: &Call, f: impl Fn(&Value) -> Value) -> Built {
    Ok(vec![f(call.input("x")?)])
}

fn binary(call: &Call, f: impl Fn(&Value, &Value) -> Value) -> Built {
    Ok(vec![f(call.input("a")?, call.input("b")?)])
}

/// An operation on f16.
fn half(call: &Call, f: impl Fn(&Value, &Value) -> Value) -> Built {
    binary(call, |a, b| f(&a.cast(DType::F16), &b.cast(DType::F16)))
}

fn reduction(call: &Call, f: impl Fn(&Value, &[isize], bool) -> Value) -> Built {
    Ok(vec![f(call.input("x")?, &call.attrs.ints("dim")?, call.attrs.flag("keepdim")?)])
}

fn reduction_of(call: &Call) -> Result<Reduction, Refusal> {
    match call.attrs.text("reduction")?.as_str() {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        other => Err(Refusal::Unknown(format!("`reduction` = \"{other}\""))),
    }
}

/// A loss of predictions and a target.
fn loss(call: &Call, f: impl Fn(&Value, &Value, Reduction) -> Value) -> Built {
    Ok(vec![f(call.input("x")?, call.input("target")?, reduction_of(call)?)])
}

fn matmul(call: &Call) -> Built {
    let operand = |name, transpose| -> Result<Value, Refusal> {
        let value = call.input(name)?;
        Ok(if call.attrs.flag(transpose)? { value.t() } else { value.clone() })
    };
    Ok(vec![operand("a", "transpose_a")?.matmul(&operand("b", "transpose_b")?)])
}

fn linear(call: &Call) -> Built {
    let y = call.input("x")?.matmul(&call.input("weight")?.t());
    Ok(vec![match call.optional("bias") {
        Some(bias) => y + bias,
        None => y,
    }])
}

fn split(call: &Call) -> Built {
    let sizes = call.attrs.counts("split_size_or_sections")?;
    Ok(call.input("x")?.split(&sizes, call.attrs.int("dim")?))
}

/// `start` and `end` as in Python: negative values count from the end, and both are clamped to the axis.
fn slice(call: &Call) -> Built {
    let x = call.input("x")?;
    let axis = call.axis("dim", x)?;
    let size = x.shape()[axis] as isize;
    let place = |at: isize| if at < 0 { (at + size).max(0) } else { at.min(size) } as usize;
    let start = place(call.attrs.int("start")?);
    let end = place(call.attrs.int("end")?).max(start);
    Ok(vec![x.slice(axis as isize, start, end, call.attrs.count("step", Some(1))?)])
}

fn narrow(call: &Call) -> Built {
    let x = call.input("x")?;
    let axis = call.axis("dim", x)?;
    let start = call.attrs.count("start", None)?;
    Ok(vec![x.slice(axis as isize, start, start + call.attrs.count("length", None)?, 1)])
}

fn transpose(call: &Call) -> Built {
    let x = call.input("x")?;
    let mut axes: Vec<isize> = (0..x.shape().rank() as isize).collect();
    axes.swap(call.axis("dim0", x)?, call.axis("dim1", x)?);
    Ok(vec![x.permute(&axes)])
}

/// A size of -1 keeps the axis.
fn expand(call: &Call) -> Built {
    let x = call.input("x")?;
    let sizes = call.attrs.ints("size")?;
    let new = sizes.len().saturating_sub(x.shape().rank());
    let sizes = sizes.iter().enumerate().map(|(i, &size)| match usize::try_from(size) {
        Ok(size) => Ok(size),
        Err(_) if size == -1 && i >= new => Ok(x.shape()[i - new]),
        Err(_) => Err(Refusal::Malformed(format!("`size` has {size} for a new axis"))),
    });
    let sizes: Vec<usize> = sizes.collect::<Result<_, _>>()?;
    Ok(vec![x.broadcast_to(&sizes.into())])
}

fn flatten(call: &Call) -> Built {
    call.attrs.only("end_dim", -1)?;
    Ok(vec![call.input("x")?.flatten(call.attrs.count("start_dim", Some(1))?)])
}

fn softplus(call: &Call) -> Built {
    call.attrs.only("beta", 1.0)?;
    call.attrs.only("threshold", 20.0)?;
    unary(call, Value::softplus)
}

fn selection(call: &Call) -> Built {
    let cond = call.input("cond")?;
    let cond = cond.ne(&cond.zeros_like());
    Ok(vec![cond.where_(call.input("a")?, call.input("b")?)])
}

/// In PyTorch's order: the last axis first, with its left and right padding.
fn pad(call: &Call) -> Built {
    let x = call.input("x")?;
    call.attrs.only("mode", "constant")?;
    let (amounts, value) = (call.attrs.counts("pad")?, call.attrs.float("value")?);
    let rank = x.shape().rank();
    if !amounts.len().is_multiple_of(2) || amounts.len() / 2 > rank {
        return Err(Refusal::Malformed(format!("`pad` has {} numbers for {rank} axes", amounts.len())));
    }
    let mut pads = vec![(0, 0); rank];
    for (pair, pad) in amounts.chunks_exact(2).zip(pads.iter_mut().rev()) {
        *pad = (pair[0], pair[1]);
    }
    Ok(vec![x.pad(&pads, value)])
}

fn concat(call: &Call) -> Built {
    let first = call.input("x0")?;
    let others: Vec<&Value> = (1..).map_while(|i| call.optional(&format!("x{i}"))).collect();
    Ok(vec![first.concat(&others, call.attrs.int("dim")?)])
}

fn convolution(call: &Call) -> Result<Conv2d, Refusal> {
    Ok(Conv2d::default()
        .stride(call.attrs.pair("stride", Some([1, 1]))?)
        .padding(call.attrs.pair("padding", Some([0, 0]))?)
        .dilation(call.attrs.pair("dilation", Some([1, 1]))?)
        .groups(call.attrs.count("groups", Some(1))?))
}

fn conv2d(call: &Call) -> Built {
    Ok(vec![call.input("x")?.conv2d(call.input("weight")?, call.optional("bias"), convolution(call)?)])
}

fn conv1d(call: &Call) -> Built {
    let options = Conv1d::default()
        .stride(call.attrs.single("stride")?)
        .padding(call.attrs.single("padding")?)
        .dilation(call.attrs.single("dilation")?)
        .groups(call.attrs.count("groups", Some(1))?);
    Ok(vec![call.input("x")?.conv1d(call.input("weight")?, call.optional("bias"), options)])
}

fn conv_transpose2d(call: &Call) -> Built {
    let extra = call.attrs.pair("output_padding", Some([0, 0]))?;
    let (x, weight, bias) = (call.input("x")?, call.input("weight")?, call.optional("bias"));
    Ok(vec![x.conv_transpose2d(weight, bias, convolution(call)?, extra)])
}

fn pool(call: &Call) -> Result<Pool2d, Refusal> {
    call.attrs.only("ceil_mode", false)?;
    let kernel = call.attrs.pair("kernel_size", None)?;
    let padding = call.attrs.pair("padding", Some([0, 0]))?;
    Ok(Pool2d::new(kernel).stride(call.attrs.pair("stride", Some(kernel))?).padding(padding))
}

fn max_pool2d(call: &Call) -> Built {
    call.attrs.only("dilation", [1, 1].to_vec())?;
    Ok(vec![call.input("x")?.max_pool2d(pool(call)?)])
}

fn avg_pool2d(call: &Call) -> Built {
    let count = call.attrs.flag("count_include_pad")?;
    Ok(vec![call.input("x")?.avg_pool2d(pool(call)?.count_include_pad(count))])
}

fn adaptive_avg_pool2d(call: &Call) -> Built {
    Ok(vec![call.input("x")?.adaptive_avg_pool2d(call.attrs.pair("output_size", None)?)])
}

/// The optional scale and shift.
fn affine<'a>(call: &'a Call) -> [Option<&'a Value>; 2] {
    [call.optional("weight"), call.optional("bias")]
}

fn layer_norm(call: &Call) -> Built {
    let (shape, eps, [weight, bias]) = (call.attrs.counts("normalized_shape")?, call.attrs.float("eps")?, affine(call));
    Ok(vec![call.input("x")?.layer_norm(&shape, weight, bias, eps)])
}

fn rms_norm(call: &Call) -> Built {
    let (shape, eps) = (call.attrs.counts("normalized_shape")?, call.attrs.float("eps")?);
    Ok(vec![call.input("x")?.rms_norm(&shape, call.optional("weight"), eps)])
}

fn group_norm(call: &Call) -> Built {
    let (groups, eps, [weight, bias]) = (call.attrs.count("num_groups", None)?, call.attrs.float("eps")?, affine(call));
    Ok(vec![call.input("x")?.group_norm(groups, weight, bias, eps)])
}

fn batch_norm(call: &Call) -> Built {
    let (x, mean, var) = (call.input("x")?, call.input("running_mean")?, call.input("running_var")?);
    let (eps, momentum, [weight, bias]) = (call.attrs.float("eps")?, call.attrs.float("momentum")?, affine(call));
    if !call.attrs.flag("training")? {
        return Ok(vec![x.batch_norm(mean, var, weight, bias, eps)]);
    }
    let batch = x.batch_norm_training(weight, bias, eps);
    let (new_mean, new_var) = batch.running(mean, var, momentum);
    Ok(vec![batch.y, new_mean, new_var])
}

fn var(call: &Call) -> Built {
    let correction = usize::from(call.attrs.flag("unbiased")?);
    reduction(call, |x, axes, keepdim| x.var(axes, correction, keepdim))
}

fn argmax(call: &Call) -> Built {
    Ok(vec![call.input("x")?.argmax(call.attrs.int("dim")?, call.attrs.flag("keepdim")?)])
}

/// The options of the losses over class indices; `None` if all have their defaults.
fn class_loss(call: &Call, label_smoothing: f64) -> Result<Option<ClassLoss>, Refusal> {
    let ignored = call.attrs.int("ignore_index")?;
    let reduction = reduction_of(call)?;
    let weight = call.optional("weight").cloned();
    if weight.is_none() && label_smoothing == 0.0 && !call.contains("target", ignored) {
        return Ok(None);
    }
    let ignored = i32::try_from(ignored).map_err(|_| Refusal::Malformed(format!("`ignore_index` is {ignored}")))?;
    Ok(Some(ClassLoss { reduction, ignore_index: Some(ignored), weight, label_smoothing }))
}

fn cross_entropy(call: &Call) -> Built {
    let (x, target) = (call.input("x")?, call.input("target")?);
    let options = class_loss(call, call.attrs.float("label_smoothing")?)?;
    Ok(vec![match options {
        None => x.cross_entropy(target, reduction_of(call)?),
        Some(options) => x.cross_entropy_with(target, &options),
    }])
}

fn nll_loss(call: &Call) -> Built {
    let options = class_loss(call, 0.0)?;
    let options =
        options.map_or_else(|| Ok(ClassLoss { reduction: reduction_of(call)?, ..ClassLoss::default() }), Ok)?;
    Ok(vec![call.input("x")?.nll_loss(call.input("target")?, &options)])
}

fn huber_loss(call: &Call) -> Built {
    let delta = call.attrs.float("delta")?;
    loss(call, |x, target, reduction| x.huber_loss(target, delta, reduction))
}

fn smooth_l1_loss(call: &Call) -> Built {
    let beta = call.attrs.float("beta")?;
    loss(call, |x, target, reduction| x.smooth_l1_loss(target, beta, reduction))
}

fn bce_with_logits(call: &Call) -> Built {
    let pos_weight = call.optional("pos_weight");
    loss(call, |x, target, reduction| match pos_weight {
        None => x.binary_cross_entropy_with_logits(target, reduction),
        Some(weight) => x.binary_cross_entropy_with_pos_weight(target, weight, reduction),
    })
}

/// `batchmean` is the sum divided by the number of rows.
fn kl_div(call: &Call) -> Built {
    call.attrs.only("log_target", false)?;
    let x = call.input("x")?;
    if call.attrs.text("reduction")? != "batchmean" {
        return loss(call, Value::kl_div);
    }
    let sum = x.kl_div(call.input("target")?, Reduction::Sum);
    Ok(vec![sum * (1.0 / x.dim(0).max(1) as f64)])
}

fn scaled_dot_product_attention(call: &Call) -> Built {
    let options = Attention {
        attn_mask: call.optional("attn_mask").cloned(),
        is_causal: call.attrs.flag("is_causal")?,
        scale: Some(call.attrs.float("scale")?),
    };
    Ok(vec![call.input("q")?.scaled_dot_product_attention(call.input("k")?, call.input("v")?, &options)])
}

fn prod(call: &Call) -> Built {
    Ok(vec![call.input("x")?.prod(&[call.attrs.int("dim")?], call.attrs.flag("keepdim")?)])
}

/// `x` is `[batch, time, input]`; the final states have a leading axis of layers and directions.
fn recurrent(call: &Call, cell: Cell) -> Built {
    call.attrs.only("num_layers", 1)?;
    call.attrs.only("batch_first", true)?;
    call.attrs.only("bidirectional", false)?;
    let biases = call.attrs.flag("bias")?;
    let bias = |name| if biases { call.input(name).map(|v| Some(v.clone())) } else { Ok(None) };
    let weights = Weights {
        w_ih: call.input("w_ih")?.clone(),
        w_hh: call.input("w_hh")?.clone(),
        b_ih: bias("b_ih")?,
        b_hh: bias("b_hh")?,
    };
    let hidden = call.attrs.count("hidden_size", None)? as isize;
    let found = call.input("x")?.recurrent(cell, Activation::Tanh, &weights, &[], false);
    let last = |v: Value| v.reshape(&[1, -1, hidden]);
    Ok([found.y, last(found.h)].into_iter().chain(found.c.map(last)).collect())
}

fn embedding(call: &Call) -> Built {
    Ok(vec![call.input("weight")?.embedding(call.input("index")?)])
}

fn gather(call: &Call) -> Built {
    Ok(vec![call.input("x")?.gather(call.attrs.int("dim")?, call.input("index")?)])
}

fn index_select(call: &Call) -> Built {
    Ok(vec![call.input("x")?.index_select(call.attrs.int("dim")?, call.input("index")?)])
}

fn scatter_add(call: &Call) -> Built {
    let (x, index, src) = (call.input("x")?, call.input("index")?, call.input("src")?);
    Ok(vec![x.scatter_add(call.attrs.int("dim")?, index, src)])
}

fn one_hot(call: &Call) -> Built {
    Ok(vec![call.input("index")?.one_hot(call.attrs.count("num_classes", None)?)])
}

use Kind::{Elementwise, Exact, RoundedConstant, Scaled};

const fn row(name: &'static str, kind: Kind, build: fn(&Call) -> Built) -> Row {
    Row { name, kind, build }
}

#[rustfmt::skip] // one line per op
const ROWS: &[Row] = &[
    row("matmul", Scaled, matmul),
    row("linear", Scaled, linear),
    row("conv1d", Scaled, conv1d),
    row("conv2d", Scaled, conv2d),
    row("conv_transpose2d", Scaled, conv_transpose2d),
    row("max_pool2d", Scaled, max_pool2d),
    row("avg_pool2d", Scaled, avg_pool2d),
    row("adaptive_avg_pool2d", Scaled, adaptive_avg_pool2d),
    row("relu", Elementwise, |c| unary(c, Value::relu)),
    row("silu", Elementwise, |c| unary(c, Value::silu)),
    row("sigmoid", Elementwise, |c| unary(c, Value::sigmoid)),
    row("tanh", Elementwise, |c| unary(c, Value::tanh)),
    row("abs", Elementwise, |c| unary(c, Value::abs)),
    row("neg", Elementwise, |c| unary(c, |x| -x)),
    row("sin", Elementwise, |c| unary(c, Value::sin)),
    row("cos", Elementwise, |c| unary(c, Value::cos)),
    row("erf", Elementwise, |c| unary(c, Value::erf)),
    row("square", Elementwise, |c| unary(c, Value::square)),
    row("gelu", Elementwise, |c| { c.attrs.only("approximate", "none")?; unary(c, Value::gelu) }),
    row("gelu_tanh", Elementwise, |c| { c.attrs.only("approximate", "tanh")?; unary(c, Value::gelu_tanh) }),
    row("softplus", Elementwise, softplus),
    row("leaky_relu", Elementwise, |c| { let s = c.attrs.float("negative_slope")?; unary(c, |x| x.leaky_relu(s)) }),
    row("elu", Elementwise, |c| { let alpha = c.attrs.float("alpha")?; unary(c, |x| x.elu(alpha)) }),
    row("clamp", Elementwise, |c| { let (a, b) = (c.attrs.float("min")?, c.attrs.float("max")?); unary(c, |x| x.clamp(a, b)) }),
    row("exp", Elementwise, |c| unary(c, Value::exp)),
    row("log", Elementwise, |c| unary(c, Value::log)),
    row("sqrt", Elementwise, |c| unary(c, Value::sqrt)),
    row("rsqrt", Elementwise, |c| unary(c, Value::rsqrt)),
    row("reciprocal", Elementwise, |c| unary(c, Value::reciprocal)),
    row("pow_scalar", Elementwise, |c| { let e = c.attrs.float("exponent")?; unary(c, |x| x.powf(e)) }),
    row("add", Elementwise, |c| binary(c, |a, b| a + b)),
    row("sub", Elementwise, |c| binary(c, |a, b| a - b)),
    row("mul", Elementwise, |c| binary(c, |a, b| a * b)),
    row("div", Elementwise, |c| binary(c, |a, b| a / b)),
    row("maximum", Elementwise, |c| binary(c, Value::maximum)),
    row("float16_cast", Exact, |c| unary(c, |x| x.cast(DType::F16))),
    row("float16_add", Exact, |c| half(c, |a, b| a + b)),
    row("float16_sub", Exact, |c| half(c, |a, b| a - b)),
    row("float16_mul", Exact, |c| half(c, |a, b| a * b)),
    row("float16_maximum", Exact, |c| half(c, Value::maximum)),
    row("minimum", Elementwise, |c| binary(c, Value::minimum)),
    row("pow_tensor", Elementwise, |c| binary(c, Value::pow)),
    row("where", Elementwise, selection),
    row("gt", Exact, |c| binary(c, Value::gt)),
    row("ge", Exact, |c| binary(c, Value::ge)),
    row("lt", Exact, |c| binary(c, Value::lt)),
    row("le", Exact, |c| binary(c, Value::le)),
    row("eq", Exact, |c| binary(c, Value::eq)),
    row("ne", Exact, |c| binary(c, Value::ne)),
    row("sum", Scaled, |c| reduction(c, Value::sum)),
    row("mean", Scaled, |c| reduction(c, Value::mean)),
    row("max", Scaled, |c| reduction(c, Value::max)),
    row("min", Scaled, |c| reduction(c, Value::min)),
    row("logsumexp", Scaled, |c| reduction(c, Value::logsumexp)),
    row("var", Scaled, var),
    row("argmax", Exact, argmax),
    row("cumsum", Scaled, |c| { let dim = c.attrs.int("dim")?; unary(c, |x| x.cumsum(dim)) }),
    row("softmax", Scaled, |c| { let dim = c.attrs.int("dim")?; unary(c, |x| x.softmax(dim)) }),
    row("log_softmax", Scaled, |c| { let dim = c.attrs.int("dim")?; unary(c, |x| x.log_softmax(dim)) }),
    row("layer_norm", Scaled, layer_norm),
    row("rms_norm", Scaled, rms_norm),
    row("group_norm", Scaled, group_norm),
    row("batch_norm", Scaled, batch_norm),
    row("scaled_dot_product_attention", Scaled, scaled_dot_product_attention),
    row("rnn_tanh", Scaled, |c| recurrent(c, Cell::Rnn)),
    row("lstm", Scaled, |c| recurrent(c, Cell::Lstm)),
    row("gru", Scaled, |c| recurrent(c, Cell::Gru)),
    row("mse_loss", Scaled, |c| loss(c, Value::mse_loss)),
    row("l1_loss", Scaled, |c| loss(c, Value::l1_loss)),
    row("huber_loss", Scaled, huber_loss),
    row("smooth_l1_loss", Scaled, smooth_l1_loss),
    row("cross_entropy", Scaled, cross_entropy),
    row("nll_loss", Scaled, nll_loss),
    row("binary_cross_entropy_with_logits", Scaled, bce_with_logits),
    row("kl_div", Scaled, kl_div),
    row("concat", Exact, concat),
    row("pad", Exact, pad),
    row("split", Exact, split),
    row("slice", Exact, slice),
    row("narrow", Exact, narrow),
    row("reshape", Exact, |c| { let sizes = c.attrs.ints("shape")?; unary(c, |x| x.reshape(&sizes)) }),
    row("flatten", Exact, flatten),
    row("permute", Exact, |c| { let dims = c.attrs.ints("dims")?; unary(c, |x| x.permute(&dims)) }),
    row("transpose", Exact, transpose),
    row("expand", Exact, expand),
    row("embedding", Exact, embedding),
    row("gather", Exact, gather),
    row("index_select", Exact, index_select),
    row("scatter_add", Scaled, scatter_add),
    row("one_hot", Exact, one_hot),
    row("tril", Exact, |c| { let diagonal = c.attrs.int("diagonal")?; unary(c, |x| x.tril(diagonal)) }),
    row("flip", Exact, |c| { let dims = c.attrs.ints("dims")?; unary(c, |x| x.flip(&dims)) }),
    row("prod", Scaled, prod),
    row("selu", Elementwise, |c| unary(c, Value::selu)),
    row("mish", Elementwise, |c| unary(c, Value::mish)),
    row("hardswish", Elementwise, |c| unary(c, Value::hardswish)),
    row("hardsigmoid", RoundedConstant, |c| unary(c, Value::hardsigmoid)),
];
