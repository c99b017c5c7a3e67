//! The seeded faults: typical bugs in kernels and drivers.

mod layers;
mod pointwise;

use crate::faults::{Change, Fault};

use Change::{Short, Swap, Text, Word};

/// All seeded faults.
pub(super) fn all() -> Vec<Fault> {
    [
        products(),
        quantized_products(),
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
    ("  workgroupBarrier();\n  all = tree[0];", "  all = tree[0];"),
]);

/// Packing and scales of weights in blocks.
fn quantized_products() -> Vec<Fault> {
    const fn case(name: &'static str) -> [&'static str; 2] {
        ["quantized_matmul", name]
    }
    const ROW: [&str; 2] = case("1 x 320 x 36, 4 bits, zero points");
    const EDGES: [&str; 2] = case("2 x 100 x 68, 4 bits, zero points");
    const LARGE: [&str; 2] = case("33 x 64 x 64, 4 bits, scales f16");
    const BYTES: [&str; 2] = case("2 x 31 x 8, 8 bits, zero points");
    vec![
        fault(
            "4-bit numbers are taken from the highest bits first",
            LARGE,
            "register4",
            "matmul_register",
            Text("vec4(0u, B_BITS, 2u * B_BITS, 3u * B_BITS)", "vec4(3u * B_BITS, 2u * B_BITS, B_BITS, 0u)"),
        ),
        fault(
            "the upper half of a word is read as its lower half",
            ROW,
            "gemv",
            "quantized_gemv",
            Text("pack >> 16u", "pack"),
        ),
        fault(
            "every other group of four numbers comes from the wrong half of a word",
            LARGE,
            "tile64",
            "matmul_tile",
            Text(">> (bit % 32u)", ">> (16u - bit % 32u)"),
        ),
        fault(
            "the first scale of a row is used for all of its blocks",
            ROW,
            "gemv",
            "quantized_gemv",
            Text("scales[row + k / 32u]", "scales[row]"),
        ),
        fault(
            "scales are applied to blocks of 64",
            LARGE,
            "shuffle32",
            "matmul_shuffle",
            Text("blocks_in_row() + i / 32u;", "blocks_in_row() + i / 64u;"),
        ),
        fault(
            "zero points are left out",
            BYTES,
            "gemv",
            "quantized_gemv",
            Text("vec4<f32>(vec4<i32>(u)) - zero", "vec4<f32>(vec4<i32>(u))"),
        ),
        fault(
            "zero points are off by half of the range",
            case("1 x 64 x 33, 8 bits"),
            "register4",
            "matmul_register",
            Text("f32(1u << (B_BITS - 1u))", "0.0"),
        ),
        fault(
            "the rest of a row's last block is not left out",
            case("3 x 37 x 5, 4 bits"),
            "gemv",
            "quantized_gemv",
            Text("< vec4(last)", "< vec4(last + 32u)"),
        ),
        fault(
            "the last block of a row is not counted where it is not full",
            EDGES,
            "register4",
            "matmul_register",
            Text("(p.k + 31u) / 32u", "p.k / 32u"),
        ),
        fault(
            "lanes share the terms of the wrong word",
            ROW,
            "gemv_shuffle",
            "quantized_gemv_shuffle",
            Text("0u * (32u / B_BITS) + 1u)", "0u * (32u / B_BITS) + 2u)"),
        ),
        fault("words and scales swapped", LARGE, "tile64", "matmul_tile", Swap(2, 4)),
    ]
}

fn products() -> Vec<Fault> {
    const SQUARE: [&str; 2] = ["matmul", "64 x 64 x 64"];
    const EDGES: [&str; 2] = ["matmul", "17 x 65 x 15"];
    vec![
        fault(
            "a part of an integer sum starts one term late",
            ["matmul", "i32 long sum"],
            "",
            "matmul_integer",
            Text("for (var k = part * p.part_k;", "for (var k = part * p.part_k + min(part, 1u);"),
        ),
        fault(
            "bytes are multiplied without their signs",
            ["matmul", "i8 17 x 33 x 36, b transposed"],
            "",
            "matmul_dot4",
            Text("dot4I8Packed(four, terms.x)", "i32(dot4U8Packed(bitcast<u32>(four), terms.x))"),
        ),
        fault(
            "missing bounds check at the end of a row",
            EDGES,
            "register8",
            "matmul_register",
            Text("if (n + 3u < p.n) { y[i + 3u] =", "{ y[i + 3u] ="),
        ),
        fault(
            "the sum over k ends one block early",
            SQUARE,
            "register8",
            "matmul_register",
            Text("k < last; k += 4u", "k + 4u < last; k += 4u"),
        ),
        fault(
            "wrong stride of the tile in workgroup memory",
            SQUARE,
            "tile64",
            "matmul_tile",
            Text("let at_b = t4 * (TILE_N / 4u) +", "let at_b = t4 * (TILE_N / 4u - 1u) +"),
        ),
        fault(
            "terms past the end of k are not zeroed",
            EDGES,
            "tile64",
            "matmul_tile",
            Text("if (k + 4u <= last) {", "if (k <= last) {"),
        ),
        fault(
            "rows and columns of the left matrix swapped",
            SQUARE,
            "shuffle32",
            "matmul_shuffle",
            Text("four(m, p.m) * p.a_m", "four(m, p.m) * p.a_k"),
        ),
        fault(
            "missing barrier before the next tile is loaded",
            ["matmul", "33 x 17 x 65, a transposed"],
            "tile128",
            "matmul_tile",
            Text("{\n    workgroupBarrier();\n    if (loads_a)", "{\n    if (loads_a)"),
        ),
        fault(
            "the second half of a tile's rows is stored at the wrong row",
            ["matmul", "130 x 68 x 36"],
            "tile128x32",
            "matmul_tile",
            Text("done / 4u * (LANES_M * 4u)", "done / 4u * (LANES_M * 3u)"),
        ),
        fault(
            "the sums of the last invocations are dropped",
            ["matmul", "6 x 10 x 2100, b transposed"],
            "gemv",
            "matmul_gemv",
            Text("i < 64u; i += QUADS", "i + QUADS < 64u; i += QUADS"),
        ),
        fault(
            "the second of two iterations along k is skipped",
            ["matmul", "37 x 7 x 515"],
            "gemv",
            "matmul_gemv",
            Text("k < last; k += 256u", "k + 256u < last; k += 256u"),
        ),
        fault("wrong stride in the uniform", EDGES, "register8", "matmul_register", Word(9, |stride| stride + 1)),
        fault("the two matrices swapped", SQUARE, "tile64", "matmul_tile", Swap(1, 2)),
        fault("the grid is one workgroup short", ["matmul", "65 x 130 x 2"], "tile64", "matmul_tile", Short),
        fault(
            "the last part of a split-K sum is dropped",
            ["matmul", "long sum"],
            "",
            "reduce",
            Text("k < run", "k + 1u < run"),
        ),
        fault(
            "parts are summed in half precision",
            ["matmul", "long sum"],
            "",
            "reduce",
            Text("block = combine(block, x[at]);", "block = quantizeToF16(combine(block, x[at]));"),
        ),
        fault(
            "scratch is assumed to be zero",
            ["matmul", "long sum"],
            "register4",
            "matmul_register",
            Text("y[i] = ", "y[i] = y[i] + "),
        ),
        fault(
            "the epilogue adds the bias of the next four columns",
            ["matmul", "then bias and relu"],
            "register4",
            "matmul_register",
            Text(
                "fn epilogue4(v: vec4<f32>, i0: u32) -> vec4<f32> {",
                "fn epilogue4(v: vec4<f32>, here: u32) -> vec4<f32> { let i0 = here + 4u;",
            ),
        ),
    ]
}

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
            Text("y[row] = select(", "atomicStore(&status[0], 1u);\n      y[row] = select("),
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
