//! Faults in matrix products.

use super::fault;
use crate::faults::{Change, Fault};

use Change::{Short, Swap, Text, Word};

/// Packing and scales of weights in blocks.
pub(super) fn quantized_products() -> Vec<Fault> {
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

pub(super) fn products() -> Vec<Fault> {
    const SQUARE: [&str; 2] = ["matmul", "64 x 64 x 64"];
    const EDGES: [&str; 2] = ["matmul", "17 x 65 x 15"];
    vec![
        fault(
            "a part of an integer sum starts one term late",
            ["matmul", "i32 long sum"],
            "",
            "matmul_integer",
            Text("k = part * p.part_k / TERMS;", "k = part * p.part_k / TERMS + min(part, 1u);"),
        ),
        fault(
            "bytes are multiplied without their signs",
            ["matmul", "i8 17 x 33 x 36, b transposed"],
            "",
            "matmul_integer",
            Text("dot4I8Packed(factor, terms.x)", "i32(dot4U8Packed(factor, terms.x))"),
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
            Text("let at_b = t4 / 4u * TERMS_B +", "let at_b = t4 / 4u * (TERMS_B - 1u) +"),
        ),
        fault(
            "the padding between the terms of a tile is not skipped",
            SQUARE,
            "tile128",
            "matmul_tile",
            Text("let at_a = t4 / 4u * TERMS_A +", "let at_a = t4 / 4u * TILE_M +"),
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
            Text("i < LANES; i += RESULTS", "i + RESULTS < LANES; i += RESULTS"),
        ),
        fault(
            "the second of two iterations along k is skipped",
            ["matmul", "37 x 7 x 515"],
            "gemv",
            "matmul_gemv",
            Text("k < last; k += STEP", "k + STEP < last; k += STEP"),
        ),
        fault(
            "neighbouring invocations start at different terms",
            ["matmul", "37 x 7 x 515"],
            "gemv_across",
            "matmul_gemv",
            Text("lane / (ACROSS_M * ACROSS_N) * 4u", "lane / ACROSS_N * 4u"),
        ),
        fault(
            "all blocks of a tile are read from the first column",
            ["matmul", "6 x 10 x 2100, b transposed"],
            "gemv_across",
            "matmul_gemv",
            Text("n + lane % ACROSS_N * TN", "n"),
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
            Text("block = combine(block, load(at));", "block = quantizeToF16(combine(block, load(at)));"),
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

/// Products of f16 by matrix units.
pub(super) fn matrix_units() -> Vec<Fault> {
    const PRODUCT: [&str; 2] = ["matmul", "130 x 68 x 36"];
    let attention = |what, kernel, change| {
        fault(what, ["attention", "1 of 40 queries, 70 keys, 64 and 64 elements"], "cooperative", kernel, change)
    };
    let fault = |what, case, change| fault(what, case, "cooperative64", "cooperative_tile", change);
    vec![
        fault(
            "the matrices of a subgroup are stored in the wrong columns",
            PRODUCT,
            Text("done % BLOCKS_N) * SIDE", "done / BLOCKS_N) * SIDE"),
        ),
        fault(
            "all subgroups multiply the columns of the first",
            PRODUCT,
            Text("subgroup % SUBGROUPS_N * (BLOCKS_N * SIDE)", "subgroup % SUBGROUPS_N * 0u"),
        ),
        fault("the last workgroup of matrices is missing", PRODUCT, Short),
        fault(
            "matrices are loaded before the other subgroups have stored them",
            ["matmul", "64 x 64 x 64"],
            Text("    workgroupBarrier();\n    columns = later", "    columns = later"),
        ),
        fault(
            "two terms of one operand change places in workgroup memory",
            PRODUCT,
            Text(
                "put_left(to_left + 0u * STRIDE, block_left[0u]);",
                "put_left(to_left + 0u * STRIDE, block_left[0u].yxzw);",
            ),
        ),
        fault(
            "f16 numbers have the precision of bf16",
            ["matmul", "65 x 130 x 2"],
            Text(
                "vec4<f16>(terms[0])",
                "vec4<f16>(bitcast<vec4<f32>>(bitcast<vec4<u32>>(terms[0]) & vec4(0xffff0000u)))",
            ),
        ),
        fault(
            "the windows of a convolution move on by a matrix instead of a round",
            ["conv2d", "32 channels to 64"],
            Text("columns = later(columns, TERMS);", "columns = later(columns, SIDE);"),
        ),
        fault(
            "a weight gradient reads the window of a position twice",
            ["conv2d_weight_grad", "17 channels to 33"],
            Text("let second = next(at);", "let second = at;"),
        ),
        attention(
            "all subgroups multiply the columns of the first",
            "attention_cooperative",
            Text("subgroup % SUBGROUPS_N * (BLOCKS_N * SIDE)", "subgroup % SUBGROUPS_N * 0u"),
        ),
        attention(
            "keys beyond the last have weights",
            "attention_cooperative",
            Text("key >= vec4(beyond)", "key >= vec4(beyond + 1u)"),
        ),
        attention(
            "all subgroups multiply the columns of the first",
            "attention_query_grad_cooperative",
            Text("subgroup % SUBGROUPS_N * (BLOCKS_N * SIDE)", "subgroup % SUBGROUPS_N * 0u"),
        ),
        attention(
            "all subgroups multiply the rows of the first",
            "attention_key_grad_cooperative",
            Text("subgroup / SUBGROUPS_N * (BLOCKS_M * SIDE)", "subgroup / SUBGROUPS_N * 0u"),
        ),
    ]
}
