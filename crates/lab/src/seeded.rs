//! The seeded faults: typical bugs in kernels and drivers.

mod layers;
mod pointwise;
mod products;

use crate::faults::{Change, Fault};

use Change::Text;

/// All seeded faults.
pub fn all() -> Vec<Fault> {
    [
        products::products(),
        products::quantized_products(),
        products::matrix_units(),
        layers::attention(),
        convolutions(),
        pools(),
        sums(),
        rows(),
        layers::norms(),
        moves(),
        layers::indices(),
        pointwise::pointwise(),
        pointwise::updates(),
        layers::recurrences(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A fault in a case of the registry.
const fn fault(
    what: &'static str,
    [op, case]: [&'static str; 2],
    variant: &'static str,
    kernel: &'static str,
    change: Change,
) -> Fault {
    let variant = if variant.is_empty() { None } else { Some(variant) };
    Fault { what, op, case, variant, kernel, change, build: None }
}

/// A missing barrier of `shaders/tree.wgsl`, without and with subgroups.
const NO_BARRIER_IN_TREE: Change = Change::Texts(&[
    ("    workgroupBarrier();\n    if (lane < half) {", "    if (lane < half) {"),
    ("    workgroupBarrier();\n    all = tree[0];", "    all = tree[0];"),
]);

fn convolutions() -> Vec<Fault> {
    const UNEVEN: [&str; 2] = ["conv2d", "5x3 asymmetric"];
    vec![
        fault(
            "an input gradient uses the horizontal phase as the vertical one",
            ["conv2d", "5x3 asymmetric"],
            "tile64",
            "conv2d_tile",
            Text("i32(channel / SX % SY)", "i32(channel % SX)"),
        ),
        fault(
            "the padding around an input gradient wraps into the next row",
            ["conv2d", "4x4 stride 2"],
            "rows",
            "conv2d_rows",
            Text(" && j >= 0 && j < s.breadth", ""),
        ),
        fault(
            "padding off by one",
            UNEVEN,
            "direct",
            "conv2d_direct",
            Text("i32(i % s.ow * s.sx) - s.px", "i32(i % s.ow * s.sx) - s.px + 1"),
        ),
        fault("the kernel's axes swapped", UNEVEN, "direct", "conv2d_direct", Text("u * s.kw + v", "v * s.kw + u")),
        fault(
            "missing bounds check of the last channels",
            ["conv2d", "17 channels to 33"],
            "tile64",
            "conv2d_tile",
            Text("if (channel < s.channels) {", "if (true) {"),
        ),
        fault(
            "the padding between the terms of a tile is not skipped",
            ["conv2d", "17 channels to 33"],
            "tile32",
            "conv2d_tile",
            Text("let at_right = t4 / 4u * TERMS_RIGHT +", "let at_right = t4 / 4u * TILE_N +"),
        ),
        fault(
            "positions past the last are written",
            ["conv2d", "kernel as large as the input"],
            "rows",
            "conv2d_rows",
            Text("if (position + 3u < end) {", "if (true) {"),
        ),
        fault(
            "stride used as dilation",
            ["conv2d", "dilation 3x1 stride 2"],
            "direct",
            "conv2d_direct",
            Text("i32(u * s.dy)", "i32(u * s.sy)"),
        ),
        fault(
            "packing reads a row below the image",
            ["conv2d", "3x3 padding 1"],
            "tile64",
            "conv2d_pack",
            Text("u32(iy) < s.h", "u32(iy) <= s.h"),
        ),
        fault(
            "padding is not filled, so stale scratch is read",
            ["conv2d", "3x3 padding 1"],
            "tile64",
            "conv2d_pack",
            Text("packed[position * s.quads + q] = quad;", "if (inside) { packed[position * s.quads + q] = quad; }"),
        ),
        fault(
            "the input gradient includes a window below the last",
            ["conv2d_input_grad", "3x3 padding 1"],
            "direct",
            "conv2d_input_direct",
            Text("oy < s.oh", "oy <= s.oh"),
        ),
        fault(
            "the input gradient drops the last channel's term",
            ["conv2d_input_grad", "groups 2"],
            "direct",
            "conv2d_input_direct",
            Text("o < s.end", "o + 1u < s.end"),
        ),
        fault(
            "wrong sign of the weight gradient",
            ["conv2d_weight_grad", "1x1"],
            "direct",
            "conv2d_weight_direct",
            Text("sum += x[at] * dy[", "sum -= x[at] * dy["),
        ),
        fault(
            "a depthwise kernel's rows and columns swapped",
            ["conv2d", "depthwise 5x3 stride 2 dilation 2"],
            "depthwise",
            "conv2d_depthwise",
            Text("u * s.tap_row + v * s.tap_column", "v * s.tap_row + u * s.tap_column"),
        ),
        fault(
            "a phase of a depthwise input gradient uses the kernel rows of another",
            ["conv2d_input_grad", "depthwise 3x3 stride 2"],
            "depthwise",
            "conv2d_depthwise",
            Text("SY * (s.taps_y - 1u) - phase / SX;", "SY * (s.taps_y - 1u) - (SY - 1u - phase / SX);"),
        ),
        fault(
            "a depthwise weight gradient uses the neighbouring channels",
            ["conv2d_weight_grad", "depthwise"],
            "depthwise",
            "conv2d_depthwise_weight",
            Text("let q = row % s.quads;", "let q = (row + 1u) % s.quads;"),
        ),
        fault(
            "a 1x1 convolution with its weight transposed",
            ["conv2d_input_grad", "1x1 on planes of vec4"],
            "pointwise",
            "matmul_register",
            Text("four(m, p.m) * p.a_m", "four(m, p.m) * p.a_k"),
        ),
        fault(
            "the parts of a convolution's sum are stored in one place",
            ["conv2d", "36 channels, planes of vec4"],
            "tile32",
            "conv2d_tile",
            Text("let start = part * s.positions;", "let start = 0u;"),
        ),
        fault(
            "missing barrier before the next tile of a convolution is loaded",
            ["conv2d", "33 channels to 65, more than a tile"],
            "tile128",
            "conv2d_tile",
            Text("{\n    workgroupBarrier();\n    if (loads_left)", "{\n    if (loads_left)"),
        ),
        fault(
            "the weight gradient reads the planes of another image",
            ["conv2d_weight_grad", "1 channel to 40, 5x7, rows of vec4"],
            "tile32",
            "conv2d_tile",
            Text("(s.outputs - 1u) * s.plane + k", "s.outputs * s.plane + k"),
        ),
        fault(
            "a window reads the end of the row before the image's first column",
            ["conv2d", "12 channels to 8, 3x5 asymmetric"],
            "nchw64",
            "conv2d_tile",
            Text(
                "inside(columns, s.taps_x, s.dilation_x, s.data_width)",
                "inside(columns, s.taps_x, s.dilation_x, 1u << 31u)",
            ),
        ),
        fault(
            "padding is skipped by the next kernel column",
            ["conv2d_input_grad", "4 channels, 3x2 dilation 3x2"],
            "nchw32",
            "conv2d_tile",
            Text("vec2(8u + column)", "vec2(9u + column)"),
        ),
        fault(
            "the next kernel row starts at the column of the one before",
            ["conv2d", "20 channels to 36, 2x3 stride 3x2"],
            "nchw128",
            "conv2d_tile",
            Text("distance += s.tap_row - s.taps_x * s.tap_column;", "distance += s.tap_row;"),
        ),
        fault(
            "the weight gradient drops its last part",
            ["conv2d_weight_grad", "3x3 padding 1"],
            "tile64",
            "reduce",
            Text("k < run", "k + 1u < run"),
        ),
    ]
}

fn pools() -> Vec<Fault> {
    vec![
        fault(
            "the last of equal neighbours in a window wins",
            ["max_pool2d_grad", "ties go to the first, windows that fill the plane"],
            "pairs",
            "max_pool2d_grad_pairs",
            Text("v > largest", "v >= largest"),
        ),
        fault(
            "the window is one column short",
            ["max_pool2d", "3x3 stride 2 padding 1"],
            "",
            "max_pool2d",
            Text("x < s.w + s.px)", "x + 1u < s.w + s.px)"),
        ),
        fault(
            "the last of equal elements wins",
            ["max_pool2d_grad", "ties go to the first"],
            "gather",
            "max_pool2d_index",
            Text("v > largest", "v >= largest"),
        ),
        fault(
            "elements that no window covers are not written",
            ["max_pool2d_grad", "2x2, odd sizes"],
            "disjoint",
            "max_pool2d_grad_disjoint",
            Text("window.x + 1u == s.ow)", "false)"),
        ),
        fault(
            "padding is counted where it must not be",
            ["avg_pool2d", "3x3 stride 2 padding 1, padding not counted"],
            "",
            "avg_pool2d",
            Text("s.include == 1u", "true"),
        ),
        fault(
            "the gradient drops the last window's term",
            ["avg_pool2d_grad", "3x3 stride 1 padding 1"],
            "",
            "avg_pool2d_grad",
            Text("ox < ox1", "ox + 1u < ox1"),
        ),
        fault(
            "a write past the end",
            ["avg_pool2d", "2x2, odd sizes"],
            "",
            "avg_pool2d",
            Text("if (i >= s.count) { return; }", "if (i > s.count) { return; }"),
        ),
    ]
}

/// Adds all terms one by one instead of in runs.
const LONG_RUNS: Change = Text("const RUN: u32 = 64u;", "const RUN: u32 = 65536u;");

fn sums() -> Vec<Fault> {
    vec![
        fault(
            "missing barrier in the reduction tree",
            ["sum", "rows of 257"],
            "workgroup",
            "reduce_rows",
            NO_BARRIER_IN_TREE,
        ),
        fault(
            "the last element of a chunk is dropped",
            ["sum", "all but channels"],
            "invocation",
            "reduce",
            Text("min(j + d.chunk, d.count)", "min(j + d.chunk, d.count) - 1u"),
        ),
        fault(
            "fused ops are computed at the number of the vector instead of the element",
            ["mean", "of products, last by vec4"],
            "invocation",
            "reduce",
            Text("prologue4(x[at], 4u * at)", "prologue4(x[at], at)"),
        ),
        fault("a long sum without runs", ["sum", "1030 rows of 2047 tenths"], "invocation", "reduce", LONG_RUNS),
        fault("a long sum without runs", ["mean", "of 999,999 tenths"], "workgroup", "reduce_rows", LONG_RUNS),
        fault("a long running sum without runs", ["cumsum", "lines of 4000 tenths"], "", "cumsum", LONG_RUNS),
        fault(
            "the minimum instead of the maximum",
            ["max", "rows of 255"],
            "invocation",
            "reduce",
            Text("max(a, b)", "min(a, b)"),
        ),
        fault(
            "NaN is lost in the maximum",
            ["max", "NaN and infinities, with min, rows of 8"],
            "invocation",
            "reduce",
            Text("return nan_or4(a, nan_or4(b, most));", "return most;"),
        ),
        fault(
            "the second launch does not continue where the first stopped",
            ["cumsum", "two long lines"],
            "",
            "cumsum",
            Text("if (WALK && chunk > 0u)", "if (WALK && chunk > 1u)"),
        ),
        fault(
            "the last of equal elements is chosen",
            ["argmax", "rows of 1000, and columns, with ties"],
            "",
            "argmax",
            Text("v > largest", "v >= largest"),
        ),
    ]
}

fn rows() -> Vec<Fault> {
    vec![
        fault(
            "a row's sum without runs",
            ["softmax", "4095 elements, all but one equal"],
            "invocation",
            "softmax",
            LONG_RUNS,
        ),
        fault(
            "a row's sum without runs",
            ["log_softmax", "400001 elements, all but one equal"],
            "workgroup",
            "softmax_workgroup",
            LONG_RUNS,
        ),
        fault(
            "a row's sum without runs",
            ["cross_entropy", "4095 classes, all but one equal"],
            "invocation",
            "cross_entropy",
            LONG_RUNS,
        ),
        fault(
            "a row's sum without runs",
            ["cross_entropy", "400001 classes, all but one equal"],
            "workgroup",
            "cross_entropy_workgroup",
            LONG_RUNS,
        ),
        fault(
            "exp without subtracting the maximum",
            ["softmax", "+-100"],
            "invocation",
            "softmax",
            Text("exp_of(x[at] - m)", "exp_of(x[at])"),
        ),
        fault(
            "missing barrier in the reduction tree",
            ["softmax", "rows of 257"],
            "workgroup",
            "softmax_workgroup",
            NO_BARRIER_IN_TREE,
        ),
        fault(
            "the gradient drops the sum's term",
            ["softmax", "rows of 10"],
            "invocation",
            "softmax_grad",
            Text("y[at] * (dy[at] - s)", "y[at] * dy[at]"),
        ),
        fault(
            "a workgroup writes into another's rows",
            ["softmax", "many short rows"],
            "invocation",
            "softmax",
            Text(
                "var m = x[start];",
                "if (row + 512u < d.rows) { y[start + 512u * d.size] = V(0.25); }\n  var m = x[start];",
            ),
        ),
        fault(
            "a workgroup reads what another writes",
            ["softmax", "many short rows"],
            "invocation",
            "softmax_grad",
            Text(
                "s = V(lanes(s));",
                "s = V(lanes(s));\n  if (row >= 512u) {\n    let other = bitcast<u32>(dx[start - 512u * d.size]);\n    \
                 if ((other & 0x7fffffffu) > 0x7f800000u) { s += 1.0; } // not written yet\n  }",
            ),
        ),
        fault(
            "the label off by one",
            ["cross_entropy", "65 of 10 classes"],
            "invocation",
            "cross_entropy",
            Text("x[start + min(label, d.size - 1u)]", "x[start + (label + 1u) % d.size]"),
        ),
        fault(
            "the sum in half precision",
            ["cross_entropy", "4 of 1000 classes"],
            "invocation",
            "cross_entropy",
            Text(
                "run += exp_of(x[start + k] - m);",
                "run = unpack2x16float(pack2x16float(vec2<f32>(run + exp_of(x[start + k] - m), 0.0))).x;",
            ),
        ),
        fault(
            "a class out of range is not reported",
            ["cross_entropy", "the first class past the end of 10, in the last of 65 rows"],
            "invocation",
            "cross_entropy",
            Text("atomicStore(&status[0], 1u);", ""),
        ),
        fault(
            "a class in range is reported as out of range",
            ["cross_entropy", "65 of 10 classes"],
            "workgroup",
            "cross_entropy_workgroup",
            Text("y[row] = stored;", "atomicStore(&status[0], 1u);\n  y[row] = stored;"),
        ),
        fault(
            "the bits of dy are converted as a number",
            ["cross_entropy_with_grad", "65 of 10 classes"],
            "workgroup",
            "cross_entropy_workgroup",
            Text("bitcast<f32>(d.gradient)", "f32(d.gradient)"),
        ),
        fault(
            "wrong sign of the label's term in the gradient",
            ["cross_entropy", "65 of 10 classes"],
            "invocation",
            "cross_entropy",
            Text("/ s - hit", "/ s + hit"),
        ),
    ]
}

fn moves() -> Vec<Fault> {
    vec![
        fault(
            "the padding is off by one element",
            ["pad", "every axis"],
            "",
            "pad",
            Text("return index - to.x;", "return index - to.x + 1u;"),
        ),
        fault(
            "the input's row length used as the output's",
            ["concat", "last axis, one empty"],
            "",
            "concat",
            Text("row * d.total", "row * d.length"),
        ),
        fault(
            "the last rows are not computed and stay stale",
            ["concat", "large"],
            "",
            "concat",
            Text("if (number >= d.chunks) {", "if (number + 64u >= d.chunks) {"),
        ),
    ]
}
