//! Graphs that do not compile.

use wgrad::gradients;
use wgrad::nn::{BatchNorm2d, GroupNorm, LayerNorm};
use wgrad::ops::attention::Attention;
use wgrad::ops::conv1d::Conv1d;
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::pool2d::Pool2d;
use wgrad::prelude::*;

use super::{Catalogue, f, i, t};

#[test]
fn shapes() {
    let mut c = Catalogue::new();
    c.graph(|g| f(g, "x", &[2, 3]) + f(g, "y", &[4])).says(
        "add(f32[2, 3], f32[4]): the shapes do not broadcast: aligned at the last axis, sizes must be equal or 1",
    );
    c.graph(|g| f(g, "x", &[2, 3]).matmul(&f(g, "y", &[4, 5]))).says(
        "matmul(f32[2, 3], f32[4, 5]): the inner sizes differ: a has 3 columns and b has 4 rows; expected [.., M, \
         K] and [.., K, N] (t() swaps the last two axes)",
    );
    c.graph(|g| f(g, "x", &[2, 3]).matmul(&f(g, "y", &[2, 3]))).says(
        "matmul(f32[2, 3], f32[2, 3]): the inner sizes differ: a has 3 columns and b has 2 rows; expected [.., M, \
         K] and [.., K, N] (t() swaps the last two axes)",
    );
    c.graph(|g| f(g, "x", &[2, 4, 3]).matmul(&f(g, "y", &[3, 3, 2]))).says(
        "matmul(f32[2, 4, 3], f32[3, 3, 2]): the batch axes [2] and [3] do not broadcast: aligned at the last, \
         sizes must be equal or 1",
    );
    c.graph(|g| g.scalar("x", 1.0).matmul(&f(g, "y", &[2, 3])))
        .says("matmul(f32[], f32[2, 3]): expected operands of at least one axis; multiply by a scalar with *");
    c.graph(|g| g.einsum("ij,jk->ik", &[&f(g, "x", &[2, 3]), &f(g, "y", &[4, 5])]))
        .says("einsum(f32[2, 3], f32[4, 5]): axis `j` has sizes 3 and 4");
    c.graph(|g| g.einsum("ij,jk", &[&f(g, "x", &[2, 3])]))
        .says("einsum(f32[2, 3]): `ij,jk` has 2 operand(s), but 1 were passed");
    c.graph(|g| f(g, "x", &[2, 3]).reshape(&[4, -1])).says(
        "reshape(f32[2, 3]): invalid sizes [4, -1]: expected sizes of at least 0, and at most one -1 that divides \
         evenly",
    );
    c.graph(|g| f(g, "x", &[2, 3]).reshape(&[7]))
        .says("reshape(f32[2, 3]): shape [7] has 7 elements, but the input has 6");
    c.graph(|g| f(g, "x", &[2, 3]).broadcast_to(&[3, 3].into())).says(
        "broadcast(f32[2, 3]): it does not broadcast to [3, 3]: aligned at the last axis, sizes must be equal or \
         the input's 1",
    );
    c.graph(|g| f(g, "x", &[2, 3]).slice(1, 0, 4, 1))
        .says("slice(f32[2, 3]): expected start <= end <= size and a step of at least 1, not 0..4 step 1 on axis 1");
    c.graph(|g| f(g, "x", &[4]).slice(0, 3, 2, 1))
        .says("slice(f32[4]): expected start <= end <= size and a step of at least 1, not 3..2 step 1 on axis 0");
    c.graph(|g| f(g, "x", &[2, 3]).concat(&[&f(g, "y", &[2, 4])], 0))
        .says("concat(f32[2, 3], f32[2, 4]): expected equal types, and equal sizes on all axes except axis 0");
    c.graph(|g| f(g, "x", &[2, 3]).split(&[1, 1], 1))
        .says("split(f32[2, 3]): the sizes [1, 1] do not add up to 3, the size of axis 1");
    c.graph(|g| f(g, "x", &[2, 3]).pad(&[(1, 1)], 0.0))
        .says("pad(f32[2, 3]): expected (before, after) for each of the 2 axes, not 1 pairs");
    c.graph(|g| f(g, "x", &[2]).pad(&[(1, 1); 9], 0.0))
        .says("pad(f32[2]): expected (before, after) for each of the 1 axes, not 9 pairs");
    c.graph(|g| f(g, "x", &[2, 3]).topk(4, 1, true).0)
        .says("topk(f32[2, 3]): there are no 4 elements along axis 1 of [2, 3]");
    c.graph(|g| f(g, "x", &[2, 3]).glu(1))
        .says("glu(f32[2, 3]): axis 1 must have an even size, because it is split in half");
    c.graph(|g| f(g, "x", &[2, 3]).prelu(&f(g, "w", &[2])))
        .says("prelu(f32[2, 3], f32[2]): expected a weight of shape [1] or [3]");
    c.graph(|g| f(g, "x", &[2]).t()).says("t(f32[2]): expected at least two axes");
    c.graph(|g| f(g, "x", &[1, 3, 4, 4]).pixel_shuffle(2)).says(
        "pixel_shuffle(f32[1, 3, 4, 4]): expected data [N, C, H, W] with a multiple of 2 x 2 channels, and r from \
         1 to 65535",
    );
    c.graph(|g| f(g, "x", &[5, 2]).gather(1, &i(g, "n", &[6, 2]))).says(
        "gather(f32[5, 2], i32[6, 2]): expected an index with 2 axes, no larger than [5, 2] on all axes except \
         axis 1",
    );
    c.graph(|g| f(g, "x", &[5]).embedding(&i(g, "n", &[4])))
        .says("embedding(f32[5], i32[4]): expected a table [V, D] and an index");
    c.graph(|g| f(g, "x", &[3]).scatter_add(0, &i(g, "n", &[4]), &f(g, "y", &[2])))
        .says("scatter_add(f32[3], i32[4], f32[2]): expected an index no larger than the source on any axis");
    c.graph(|g| f(g, "x", &[1, 3, 8, 8]).conv2d(&f(g, "w", &[4, 2, 3, 3]), None, Conv2d::default())).says(
        "conv2d(f32[1, 3, 8, 8], f32[4, 2, 3, 3]): the data has C = 3 channels in 1 group(s), so the weight [O, C \
         / groups, KH, KW] must have size 3 on its second axis, not 2",
    );
    c.graph(|g| f(g, "x", &[1, 2, 2, 2]).conv2d(&f(g, "w", &[4, 2, 3, 3]), None, Conv2d::default())).says(
        "conv2d(f32[1, 2, 2, 2], f32[4, 2, 3, 3]): height: the kernel of 3 is larger than the input of 2 with \
         padding 0 on each side; use more padding or a smaller kernel",
    );
    c.graph(|g| f(g, "x", &[2, 8, 8]).conv2d(&f(g, "w", &[4, 2, 3, 3]), None, Conv2d::default())).says(
        "conv2d(f32[2, 8, 8], f32[4, 2, 3, 3]): expected tensors with four axes: data [N, C, H, W] and a weight \
         [O, C / groups, KH, KW]; reshape() first",
    );
    c.graph(|g| f(g, "x", &[1, 2, 8, 8]).conv2d(&f(g, "w", &[4, 2, 3, 3]), Some(&f(g, "b", &[3])), Conv2d::default()))
        .says("conv2d(f32[1, 4, 6, 6], f32[3]): expected a bias of shape [4], one element per output channel");
    c.graph(|g| f(g, "x", &[1, 2, 3, 3]).conv_transpose2d(&f(g, "w", &[2, 1, 2, 2]), None, Conv2d::default(), 1)).says(
        "conv_transpose2d(f32[1, 2, 3, 3], f32[2, 1, 2, 2]): expected an output padding less than the stride [1, \
         1] or dilation [1, 1], not [1, 1]",
    );
    c.graph(|g| {
        let options = Conv1d { padding: [9, 0], ..Conv1d::default() };
        f(g, "x", &[1, 2, 3]).conv_transpose1d(&f(g, "w", &[2, 1, 2]), None, options, 0)
    })
    .says(
        "conv_transpose1d(f32[1, 2, 3], f32[2, 1, 1, 2]): the padding [9, 0] leaves an empty output; use less \
         padding",
    );
    c.graph(|g| f(g, "x", &[1, 2, 3, 4]).conv_transpose1d(&f(g, "w", &[2, 1, 2]), None, Conv1d::default(), 0)).says(
        "conv_transpose1d(f32[1, 2, 3, 4], f32[2, 1, 2]): expected data [N, C, L] and a weight [C, O / groups, K]",
    );
    c.graph(|g| f(g, "x", &[1, 2, 2, 2]).max_pool2d(Pool2d::new(3))).says(
        "max_pool2d(f32[1, 2, 2, 2]): height: the kernel of 3 is larger than the input of 2 with padding 0 on \
         each side; use more padding or a smaller kernel",
    );
    c.graph(|g| f(g, "x", &[2, 8, 8]).max_pool2d(2))
        .says("max_pool2d(f32[2, 8, 8]): expected f32 data [N, C, H, W]; cast() or reshape() it first");
    c.graph(|g| f(g, "x", &[2, 3]).layer_norm(&[4], None, None, 1e-5))
        .says("layer_norm(f32[2, 3]): expected data whose last axes are [4], not [2, 3]");
    c.graph(|g| f(g, "x", &[2, 6, 4]).group_norm(4, None, None, 1e-5))
        .says("group_norm(f32[2, 6, 4]): expected a number of groups that divides C = 6, not 4");
    c.graph(|g| {
        f(g, "x", &[1, 3]).batch_norm_training(None, None, 1e-5).running(&f(g, "m", &[3]), &f(g, "v", &[3]), 0.1)
    })
    .says("batch_norm(f32[1, 3]): expected more than one element in each channel: the variance of one is 0");
    c.graph(|g| f(g, "x", &[2, 3]).batch_norm(&f(g, "m", &[2]), &f(g, "v", &[3]), None, None, 1e-5))
        .says("batch_norm(f32[2, 3], f32[2]): expected a mean of shape [3]");
    c.graph(|g| {
        let (q, k) = (f(g, "q", &[1, 2, 4, 8]), f(g, "k", &[1, 2, 5, 6]));
        q.scaled_dot_product_attention(&k, &k, &Attention::default())
    })
    .says(
        "scaled_dot_product_attention(f32[1, 2, 4, 8], f32[1, 2, 5, 6], f32[1, 2, 5, 6]): expected queries [.., \
         L, E], keys [.., S, E] and values [.., S, Ev]: E is 8 and 6, S is 5 and 5",
    );
    c.graph(|g| f(g, "x", &[4, 10]).cross_entropy(&i(g, "y", &[5]), Reduction::Mean))
        .says("cross_entropy(f32[4, 10], i32[5]): expected class indices of shape [4]");
    c.graph(|g| f(g, "x", &[4, 1]).mse_loss(&f(g, "y", &[4]), Reduction::Mean)).says(
        "mse_loss(f32[4, 1], f32[4]): expected float predictions and targets of equal shapes; reshape() or \
         broadcast_to() one",
    );
    c.graph(|g| Linear::new(&Scope::train(g, 0), "fc", 7, 3).forward(&f(g, "x", &[2, 5]))).says(
        "linear(f32[2, 5], f32[3, 7]): the weight is for rows of 7 numbers, which must be the size of the last \
         axis",
    );
    c.graph(|g| LayerNorm::new(&Scope::train(g, 0), "ln", &[7]).forward(&f(g, "x", &[2, 5])))
        .says("layer_norm(f32[2, 5]): expected data whose last axes are [7], not [2, 5]");
    c.graph(|g| BatchNorm2d::new(&Scope::train(g, 0), "bn", 4).forward(&f(g, "x", &[2, 3, 5, 5])))
        .says("batch_norm(f32[2, 3, 5, 5], f32[4]): expected a weight of shape [3]");
    c.graph(|g| BatchNorm2d::new(&Scope::train(g, 0), "bn", 3).forward(&f(g, "x", &[2, 3])))
        .says("batch_norm(f32[2, 3]): expected data [N, C, ...] with 2 spatial axes");
    c.graph(|g| GroupNorm::new(&Scope::train(g, 0), "gn", 3, 8).forward(&f(g, "x", &[2, 8, 4])))
        .says("group_norm(f32[2, 8, 4]): expected a number of groups that divides C = 8, not 3");
    c.graph(|g| Scope::train(g, 0).linear("fc", &f(g, "x", &[2, 3]), usize::MAX)).says(
        "the graph has 2 errors:\n\
         variable(): `fc.weight` of shape [18446744073709551615, 3] has 2^31 elements or more; are its sizes in \
         the right order?\n\
         \x20 at LINE\n\
         variable(): `fc.bias` of shape [18446744073709551615] has 2^31 elements or more; are its sizes in the \
         right order?\n\
         \x20 at LINE",
    );
    c.graph(|g| f(g, "x", &[1 << 16, 1 << 16]))
        .says("input(): f32[65536, 65536] has 2^31 elements or more, but kernels use 32-bit indices; split the tensor");
    c.finish();
}

#[test]
fn axes() {
    let mut c = Catalogue::new();
    c.graph(|g| f(g, "x", &[2, 3]).sum(&[2], false))
        .says("sum(f32[2, 3]): there is no axis 2 in [2, 3]; expected 0 to 1, or -2 to -1");
    c.graph(|g| f(g, "x", &[2, 3]).sum(&[1, -1], false))
        .says("sum(f32[2, 3]): axis 1 is repeated; name each axis once");
    c.graph(|g| f(g, "x", &[2]).mean(&[5], false))
        .says("mean(f32[2]): there is no axis 5 in [2]; expected 0 to 0, or -1 to -1");
    c.graph(|g| f(g, "x", &[2, 3]).var(&[0, 0], 0, false))
        .says("var(f32[2, 3]): axis 0 is repeated; name each axis once");
    c.graph(|g| f(g, "x", &[2, 3]).logsumexp(&[0, 0], false))
        .says("logsumexp(f32[2, 3]): axis 0 is repeated; name each axis once");
    c.graph(|g| f(g, "x", &[2, 0]).max(&[1], false))
        .says("max(f32[2, 0]): an empty axis has no extreme element; expected a size of at least 1");
    c.graph(|g| f(g, "x", &[2, 0]).mean_all()).says("mean(f32[2, 0]): the mean of no elements is undefined");
    c.graph(|g| f(g, "x", &[2, 3]).argmax(2, false))
        .says("argmax(f32[2, 3]): there is no axis 2 in [2, 3]; expected 0 to 1, or -2 to -1");
    c.graph(|g| f(g, "x", &[2, 3]).softmax(2))
        .says("softmax(f32[2, 3]): there is no axis 2 in [2, 3]; expected 0 to 1, or -2 to -1");
    c.graph(|g| f(g, "x", &[2]).cumsum(3))
        .says("cumsum(f32[2]): there is no axis 3 in [2]; expected 0 to 0, or -1 to -1");
    c.graph(|g| f(g, "x", &[2]).flatten(3))
        .says("flatten(f32[2]): there is no axis 3 in [2]; expected 0 to 0, or -1 to -1");
    c.graph(|g| f(g, "x", &[2]).slice(1, 0, 1, 1))
        .says("slice(f32[2]): there is no axis 1 in [2]; expected 0 to 0, or -1 to -1");
    c.graph(|g| f(g, "x", &[2]).concat(&[&f(g, "y", &[2])], 1))
        .says("concat(f32[2]): there is no axis 1 in [2]; expected 0 to 0, or -1 to -1");
    c.graph(|g| f(g, "x", &[2]).sort(-2, false).0)
        .says("argsort(f32[2]): there is no axis -2 in [2]; expected 0 to 0, or -1 to -1");
    c.graph(|g| f(g, "x", &[2, 3]).permute(&[0, 2]))
        .says("permute(f32[2, 3]): there is no axis 2 in [2, 3]; expected 0 to 1, or -2 to -1");
    c.graph(|g| f(g, "x", &[2, 3]).permute(&[0, -2]))
        .says("permute(f32[2, 3]): expected each of the 2 axes once, not [0, 0]");
    c.graph(|g| f(g, "x", &[2, 3]).flip(&[0, 0])).says("flip(f32[2, 3]): axis 0 is repeated; name each axis once");
    c.graph(|g| f(g, "x", &[2, 3]).diagonal(1, -1))
        .says("diagonal(f32[2, 3]): expected two different axes of [2, 3], not 1 and -1");
    c.graph(|g| f(g, "x", &[2, 3]).index_select(2, &i(g, "n", &[2])))
        .says("index_select(f32[2, 3], i32[2]): expected an axis of [2, 3] and an index [K], not axis 2");
    c.finish();
}

#[test]
fn types() {
    let mut c = Catalogue::new();
    c.graph(|g| i(g, "x", &[2]).exp()).says("exp(i32[2]): expected f32 operands; cast() the others");
    c.graph(|g| f(g, "x", &[2]) + i(g, "y", &[2]))
        .says("add(f32[2], i32[2]): expected numbers of one type; cast() one side");
    c.graph(|g| f(g, "x", &[2, 3]).matmul(&i(g, "y", &[3, 2])))
        .says("matmul(f32[2, 3], i32[3, 2]): expected two operands of f32, i32 or u32; cast() one side");
    c.graph(|g| f(g, "x", &[2]).where_(&f(g, "a", &[2]), &f(g, "b", &[2])))
        .says("select(f32[2], f32[2], f32[2]): expected a bool condition and two branches of one type");
    c.graph(|g| g.input("x", DType::Bool, [2]).sum_all()).says("sum(bool[2]): expected numbers; cast() the bools");
    c.graph(|g| i(g, "x", &[2]).mean_all()).says("mean(i32[2]): expected floats; cast() first");
    c.graph(|g| i(g, "x", &[2, 3]).softmax(1)).says("softmax(i32[2, 3]): expected f32; cast() first");
    c.graph(|g| i(g, "x", &[2, 3]).layer_norm(&[3], None, None, 1e-5))
        .says("layer_norm(i32[2, 3]): expected floats; cast() first");
    c.graph(|g| f(g, "x", &[5, 2]).embedding(&f(g, "n", &[4])))
        .says("gather(f32[5, 2], f32[4, 2]): expected indices as i32 or u32");
    c.graph(|g| f(g, "x", &[4]).one_hot(3)).says("one_hot(f32[4]): expected class indices as i32 or u32");
    c.graph(|g| f(g, "x", &[4, 10]).cross_entropy(&f(g, "y", &[4]), Reduction::Mean)).says(
        "cross_entropy(f32[4, 10], f32[4]): expected probabilities of the logits' shape, or class indices as i32 \
         or u32",
    );
    c.graph(|g| g.step_scalar("steps", DType::I32, |n| n as f64))
        .says("counted(): a step scalar is f32 or u32, not i32");
    c.graph(|g| Scope::train(g, 0).mixed(DType::I32).activation(&f(g, "x", &[2, 3])))
        .says("mixed(f32[2, 3]): activations must be floats, not i32");
    c.finish();
}

#[test]
fn arguments() {
    let mut c = Catalogue::new();
    c.graph(|g| f(g, "x", &[2]).leaky_relu(f64::NAN)).says("leaky_relu(f32[2]): expected a finite f32, not NaN");
    c.graph(|g| f(g, "x", &[2]).leaky_relu(1e39)).says("leaky_relu(f32[2]): expected a finite f32, not 1e39");
    c.graph(|g| f(g, "x", &[2]).elu(f64::INFINITY)).says("elu(f32[2]): expected a finite f32, not inf");
    c.graph(|g| f(g, "x", &[2]).powf(f64::NAN)).says("powf(f32[2]): expected a finite f32, not NaN");
    c.graph(|g| f(g, "x", &[2]).clamp(1.0, 0.0)).says("clamp(f32[2]): the bounds must be ordered, not 1.0 and 0.0");
    c.graph(|g| f(g, "x", &[2]).clamp(f64::NAN, 1.0))
        .says("clamp(f32[2]): the bounds must be ordered, not NaN and 1.0");
    c.graph(|g| f(g, "x", &[2, 3]).layer_norm(&[3], None, None, f64::NAN))
        .says("layer_norm(f32[2, 3]): expected a small positive number for eps, such as 1e-5, not NaN");
    c.graph(|g| f(g, "x", &[2, 3]).rms_norm(&[3], None, 0.0))
        .says("rms_norm(f32[2, 3]): expected a small positive number for eps, such as 1e-5, not 0.0");
    c.graph(|g| f(g, "x", &[2, 3]).batch_norm(&f(g, "m", &[3]), &f(g, "v", &[3]), None, None, -1e-5))
        .says("batch_norm(f32[2, 3]): expected a small positive number for eps, such as 1e-5, not -1e-5");
    c.graph(|g| {
        let [m, v] = ["m", "v"].map(|name| f(g, name, &[3]));
        f(g, "x", &[2, 3]).batch_norm_training(None, None, 1e-5).running(&m, &v, f64::NAN)
    })
    .says("batch_norm(f32[3], f32[3]): the momentum must be in [0, 1], not NaN");
    c.graph(|g| {
        let x = f(g, "x", &[1, 1, 2, 4]);
        x.scaled_dot_product_attention(&x, &x, &Attention { scale: Some(1e39), ..Attention::default() })
    })
    .says(
        "scaled_dot_product_attention(f32[1, 1, 2, 4], f32[1, 1, 2, 4], f32[1, 1, 2, 4]): the scale must be a \
         finite f32, not 1e39",
    );
    c.graph(|g| {
        let options = Conv2d::default().stride(2).dilation([1, 3]);
        f(g, "x", &[1, 2, 3, 3]).conv_transpose2d(&f(g, "w", &[2, 1, 2, 2]), None, options, [2, 2])
    })
    .says(
        "conv_transpose2d(f32[1, 2, 3, 3], f32[2, 1, 2, 2]): expected an output padding less than the stride [2, \
         2] or dilation [1, 3], not [2, 2]",
    );
    c.graph(|g| Scope::train(g, 0).conv2d("conv", &f(g, "x", &[1, 3, 8, 8]), 4, 3, Conv2d::same(3).groups(2))).says(
        "conv2d(f32[1, 3, 8, 8], f32[4, 1, 3, 3]): groups must divide both channel counts, but 2 does not divide \
         C = 3 and O = 4",
    );
    c.graph(|g| Scope::train(g, 0).conv2d("conv", &f(g, "x", &[1, 3, 8, 8]), 4, 3, Conv2d::same(3).stride(0))).says(
        "conv2d(f32[1, 3, 8, 8], f32[4, 3, 3, 3]): height: kernel, stride and dilation must be at least 1, not 3, \
         0 and 1",
    );
    c.graph(|g| Scope::train(g, 0).dropout(&f(g, "x", &[2]), 1.5))
        .says("dropout(f32[2]): the probability must be in [0, 1], not 1.5");
    c.graph(|g| f(g, "x", &[2]).huber_loss(&f(g, "y", &[2]), 0.0, Reduction::Mean))
        .says("huber_loss(f32[2], f32[2]): delta must be positive and finite, not 0.0");
    c.graph(|g| g.l2_penalty(0.1, |_| true))
        .says("l2_penalty(): no parameter has a matching name; declared so far: none");
    c.graph(|g| i(g, "x", &[4]).one_hot(0)).says("one_hot(i32[4]): expected at least one class, not 0");
    c.finish();
}

#[test]
fn names_and_variables() {
    let mut c = Catalogue::new();
    c.graph(|g| [g.parameter("w", t(&[2])), g.parameter("w", t(&[3]))]).says(
        "variable(): a variable named `w` already exists; give each layer its own name (Scope::part adds a \
         prefix) and each parameter one optimiser. To share a layer, build it once and call it twice",
    );
    c.graph(|g| [f(g, "x", &[2]), f(g, "x", &[2])])
        .says("input(): the name `x` is already in use (input); names of inputs and scalars must be unique");
    c.graph(|g| (f(g, "x", &[2]), g.scalar("x", 1.0)))
        .says("scalar(): the name `x` is already in use (input); names of inputs and scalars must be unique");
    c.graph(|g| {
        let nn = Scope::train(g, 0);
        nn.without_bias().linear("fc", &nn.without_bias().linear("fc", &f(g, "x", &[2, 3]), 3), 3)
    })
    .says(
        "variable(): a variable named `fc.weight` already exists; give each layer its own name (Scope::part adds \
         a prefix) and each parameter one optimiser. To share a layer, build it once and call it twice",
    );
    c.graph(|g| {
        let bn = BatchNorm2d::new(&Scope::train(g, 0), "bn", 3).momentum(None);
        bn.forward(&bn.forward(&f(g, "x", &[2, 3, 4, 4])))
    })
    .says(
        "the graph has 3 errors:\n\
         assign(f32[3], f32[3]): variable `bn.running_mean` is assigned twice in one step; combine the two into \
         one value, or, if it is the running statistic of a norm, use the norm once\n\
         \x20 at LINE\n\
         assign(f32[3], f32[3]): variable `bn.running_var` is assigned twice in one step; combine the two into \
         one value, or, if it is the running statistic of a norm, use the norm once\n\
         \x20 at LINE\n\
         assign(i32[], i32[]): variable `bn.num_batches_tracked` is assigned twice in one step; combine the two \
         into one value, or, if it is the running statistic of a norm, use the norm once\n\
         \x20 at LINE",
    );
    c.graph(|g| g.assign(&f(g, "x", &[2]), &f(g, "y", &[2]))).says(
        "assign(f32[2], f32[2]): only a parameter or variable can be assigned to; declare it with Graph::variable",
    );
    c.graph(|g| g.assign(&g.variable("v", t(&[2])), &f(g, "y", &[3])))
        .says("assign(f32[2], f32[3]): the new value must have the variable's type and shape; cast() or reshape() it");
    c.graph(|g| f(g, "x", &[2]) + f(&Graph::new(), "y", &[2]))
        .says("add(f32[2], f32[2]): the values belong to different graphs; build the whole expression in one");
    c.graph(|g| gradients(&f(g, "x", &[2]), &[&f(g, "y", &[2])])).says(
        "gradients(f32[2]): the loss must be one float, an f32; cast() it, reduce it with mean_all() or \
         sum_all(), or give seeds to gradients_of",
    );
    c.graph(|g| Sgd::new().minimize(g, &g.scalar("x", 1.0)))
        .says("minimize(f32[]): the graph declares no parameters; use Graph::parameter");
    c.graph(|g| Sgd::new().minimize(g, &g.parameter("w", t(&[2])))).says(
        "gradients(f32[2]): the loss must be one float, an f32; cast() it, reduce it with mean_all() or \
         sum_all(), or give seeds to gradients_of",
    );
    c.graph(|g| Sgd::new().nesterov(true).minimize(g, &g.parameter("w", t(&[]))))
        .says("sgd(): Nesterov momentum requires a momentum above 0; call momentum()");
    c.graph(|g| Adam::new().betas((0.9, 1.0)).minimize(g, &g.parameter("w", t(&[]))))
        .says("adam(): beta2 must be in [0, 1), not 1");
    c.graph(|g| Adam::new().lr(f64::NAN).minimize(g, &g.parameter("w", t(&[]))))
        .says("adam(): lr must be finite and at least 0, not NaN");
    c.graph(|g| {
        let loss = g.parameter("w", t(&[])).square();
        Adam::new().minimize(g, &loss);
        Adam::new().minimize(g, &loss)
    })
    .says(
        "the graph has 2 errors:\n\
         variable(): a variable named `w.adam.m` already exists; give each layer its own name (Scope::part adds a \
         prefix) and each parameter one optimiser. To share a layer, build it once and call it twice\n\
         \x20 at LINE\n\
         variable(): a variable named `w.adam.v` already exists; give each layer its own name (Scope::part adds a \
         prefix) and each parameter one optimiser. To share a layer, build it once and call it twice\n\
         \x20 at LINE",
    );
    c.finish();
}
