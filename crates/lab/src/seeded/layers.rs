//! Faults in the kernels of whole layers: attention, norms, indices and recurrences.

use super::{LONG_RUNS, NO_BARRIER_IN_TREE, fault};
use crate::faults::{Change, Fault};

use Change::{Short, Swap, Text, Word};

pub(super) fn attention() -> Vec<Fault> {
    const FORWARD: [&str; 2] = ["attention", "2 of 3 queries, 5 keys, 8 and 8 elements"];
    // Rows so long that gradients of scores are stored.
    const WIDE: [&str; 2] = ["attention", "causal, 1 of 40 queries, 70 keys, 64 and 64 elements"];
    const CAUSAL: [&str; 2] = ["attention", "causal, 2 of 16 queries, 32 keys, 16 and 16 elements"];
    vec![
        fault(
            "partial sums are not rescaled when a larger score follows",
            ["attention", "rising from key to key"],
            "tile",
            "attention",
            Text("*= shrink;", "*= 1.0;"),
        ),
        fault(
            "each lane subtracts its own maximum score",
            ["attention", "scores up to +-100"],
            "shuffle",
            "attention",
            Text("rows_max(&most, lane);", ""),
        ),
        fault(
            "a query sees the key after its own",
            CAUSAL,
            "tile",
            "attention",
            Text(") + 1u), p.causal", ") + 2u), p.causal"),
        ),
        fault(
            "the key past the last has a weight",
            FORWARD,
            "shuffle",
            "attention",
            Text(") >= vec4(end)", ") > vec4(end)"),
        ),
        fault(
            "each head uses the mask of the next one",
            ["attention", "a mask for each head"],
            "tile",
            "attention",
            Text("b % p.heads * p.mask_head", "(b + 1u) % p.heads * p.mask_head"),
        ),
        fault(
            "a continuing launch forgets the sum so far",
            ["attention", "keys of two launches, two chunks"],
            "shuffle",
            "attention",
            Text("return lse_before[i];", "return LEFT_OUT;"),
        ),
        fault(
            "the padding between the elements of a tile is not skipped",
            CAUSAL,
            "tile",
            "attention",
            Text("START + quad * ELEMENTS_RIGHT", "START + quad * (32u * SCORES)"),
        ),
        fault("score gradients without the scale", FORWARD, "tile", "attention_query_grad", Text(" * p.factor;", ";")),
        fault("score gradients without delta", CAUSAL, "shuffle", "attention_key_grad", Text(" - delta)", ")")),
        fault("dv from the wrong operand", CAUSAL, "tile", "attention_key_grad", Swap(1, 4)),
        fault(
            "gradients of scores are stored for the wrong queries",
            WIDE,
            "tile",
            "attention_key_grad",
            Text("(j - p.origin) / 32u + 0u, place)", "(j - p.origin) / 32u + 0u, place ^ 1u)"),
        ),
        fault(
            "stored gradients of scores are not transposed",
            WIDE,
            "shuffle",
            "attention_query_grad",
            Text("transpose(mat4x4(ds[", "(mat4x4(ds["),
        ),
    ]
}

pub(super) fn norms() -> Vec<Fault> {
    vec![
        fault(
            "variance as mean square minus squared mean",
            ["batch_norm", "a mean of 300, in parts"],
            "parts",
            "norm_moments",
            Text("mean = lanes(sum) / n;", "mean = S(0.0);"),
        ),
        fault(
            "parts of unequal length have equal weights",
            ["batch_norm", "planes in parts"],
            "parts",
            "norm_merge",
            Text("return f32((d.size - p + d.parts - 1u) / d.parts) / f32(d.size);", "return 1.0 / f32(d.parts);"),
        ),
        fault(
            "the variance is not corrected for the rounding of the mean",
            ["var", "a row of 16,384, a mean of a million"],
            "parts",
            "norm_moments",
            Text("v = max(v - more * more, S(0.0));", "v = max(v, S(0.0));"),
        ),
        fault(
            "parts are merged with their rounded means",
            ["var", "columns in parts, a mean of a million"],
            "parts",
            "norm_merge",
            Text(" + part(p, 2u, row)", ""),
        ),
        fault(
            "squares overflow",
            ["std", "a row of 16,384, huge"],
            "parts",
            "norm_moments",
            Text("scale = scale_of(v);", ""),
        ),
        fault(
            "missing barrier in the reduction tree",
            ["layer_norm", "rows of 768"],
            "workgroup",
            "norm_workgroup",
            NO_BARRIER_IN_TREE,
        ),
        fault(
            "the tree is overwritten before all invocations have read it",
            ["layer_norm", "rows of 768"],
            "workgroup",
            "norm_workgroup",
            Text(".x / d.n;\n    tree_barrier();", ".x / d.n;"),
        ),
        fault(
            "the gradient drops the mean's term",
            ["layer_norm", "rows of 33"],
            "parts",
            "norm_grad_apply",
            Text("dy[i] - V(sums[row])", "dy[i]"),
        ),
        fault(
            "the gradient drops the variance's term",
            ["rms_norm", "rows of 768"],
            "workgroup",
            "norm_grad_workgroup",
            Text("lanes(b))) / d.n;", "0.0)) / d.n;"),
        ),
    ]
}

pub(super) fn indices() -> Vec<Fault> {
    const LONG: [&str; 2] = ["scatter_sum", "8200 wide rows to 3"];
    vec![
        fault(
            "the index of the previous row",
            ["gather", "embedding"],
            "",
            "gather",
            Text("j * d.index.y", "max(j, 1u) * d.index.y - d.index.y"),
        ),
        fault(
            "an index out of range is not reported",
            ["gather", "the first index past the end of 7, the last of 65"],
            "",
            "gather",
            Text("atomicStore(&status[0], 1u);", ""),
        ),
        fault(
            "a negative index is not detected",
            ["one_hot", "class -1 of 5, the last of 70"],
            "",
            "one_hot",
            Text("hit >= d.classes", "hit == d.classes"),
        ),
        fault(
            "the last index is skipped",
            ["scatter_sum", "rows by vec4"],
            "walk",
            "scatter_walk",
            Text("d.count", "(d.count - 1u)"),
        ),
        fault(
            "a row used twice gets only the last gradient",
            ["scatter_sum", "rows"],
            "walk",
            "scatter_walk",
            Text("run += src", "run = src"),
        ),
        fault(
            "a row's gradients without runs",
            ["scatter_sum", "8000 tenths to one row"],
            "walk",
            "scatter_walk",
            LONG_RUNS,
        ),
        fault(
            "a block's sum without runs",
            ["scatter_sum", "20000 tenths to one row"],
            "sorted",
            "scatter_blocks",
            LONG_RUNS,
        ),
        fault(
            "a segment of the sorted index starts one late",
            ["scatter_sum", "300 rows to 1000"],
            "sorted",
            "scatter_sum",
            Text("sum_of(first, low,", "sum_of(first + 1u, low,"),
        ),
        fault(
            "the last block of a segment is skipped",
            LONG,
            "sorted",
            "scatter_sum",
            Text("high / d.block", "(max(high / d.block, 1u) - 1u)"),
        ),
        fault(
            "blocks of one index and blocks of several are confused",
            LONG,
            "sorted",
            "scatter_blocks",
            Text(
                "let end = select(first, first + d.block, whole);",
                "let end = select(first + d.block, first, whole);",
            ),
        ),
        fault(
            "an index out of range is not reported by the sorted variant",
            ["scatter_sum", "index -1 of 10, the last of 300"],
            "sorted",
            "scatter_starts",
            Text("k == d.size && low < d.count", "k == d.size && low > d.count"),
        ),
        fault(
            "the last of equal elements comes first",
            ["argsort", "rows of 5000, and columns down, with ties"],
            "",
            "sort_blocks",
            Text("run[2u * 3u + 1u].x < run[2u * 3u].x", "run[2u * 3u + 1u].x <= run[2u * 3u].x"),
        ),
        fault(
            "merging runs is not stable",
            ["argsort", "rows of 257, and columns down, with ties"],
            "",
            "sort_merge",
            Text("at_a < b && of_a.x <= of_b.x", "at_a < b && of_a.x < of_b.x"),
        ),
        fault(
            "the second run is one element short",
            ["argsort", "rows of 1000, and columns down, with ties"],
            "",
            "sort_merge",
            Text("let b_size = min(d.run,", "let b_size = min(d.run - 1u,"),
        ),
        fault(
            "the first step of a merge does not mirror its second half",
            ["argsort", "rows of 1000, and columns down, with ties"],
            "tile",
            "sort_tile",
            Text("select(0u, swizzled(below), steps == log)", "0u"),
        ),
        fault(
            "equal elements in reverse order",
            ["argsort", "rows of 1000, and columns down, with ties"],
            "tile",
            "sort_tile",
            Text("(b.y < a.y)", "(b.y > a.y)"),
        ),
        fault(
            "the third number of a vec4 has the place of the second",
            ["argmax", "rows of 1000, and columns, with ties"],
            "workgroup",
            "argmax_rows",
            Text("4u * k + 2u", "4u * k + 1u"),
        ),
        fault(
            "nothing is reversed",
            ["flip", "two axes apart"],
            "",
            "flip",
            Text("let j = d.size - 1u - (row - o * d.size);", "let j = row - o * d.size;"),
        ),
    ]
}

pub(super) fn recurrences() -> Vec<Fault> {
    const LSTM: [&str; 2] = ["lstm", "64 units"];
    vec![
        fault(
            "the product uses the state after the step",
            LSTM,
            "steps",
            "recurrent",
            Text("(p.from_slot * p.batch + row", "(p.to_slot * p.batch + row"),
        ),
        fault(
            "the forget gate gets the input gate's sum",
            LSTM,
            "workgroup",
            "recurrent_workgroup",
            Text("x[second] + sums[1]", "x[second] + sums[0]"),
        ),
        fault(
            "missing barrier between the state's copy and its use",
            LSTM,
            "workgroup",
            "recurrent_workgroup",
            Text("    workgroupBarrier();\n    for (var unit", "    for (var unit"),
        ),
        fault(
            "the reverse direction runs forwards",
            ["gru", "reverse"],
            "workgroup",
            "recurrent_workgroup",
            Text("select(1u, 0xffffffffu, reverse)", "1u"),
        ),
        fault(
            "the last step adds the gradient of a step that does not exist",
            LSTM,
            "steps",
            "recurrent_grad",
            Text("if (carries) {", "if (true) {"),
        ),
        fault(
            "the bias of n outside the product with r",
            ["gru", "8 units, 73 rows"],
            "steps",
            "recurrent",
            Text("+ r * q)", "+ (r * sums[2] + bias[2u * p.hidden + at.unit]))"),
        ),
        fault(
            "missing barrier between the states and their use",
            LSTM,
            "registers",
            "recurrent_registers",
            Text("    workgroupBarrier();\n    if (lane < TERMS4)", "    if (lane < TERMS4)"),
        ),
        fault(
            "each gate gets the first gate's part of the later gradient",
            LSTM,
            "registers",
            "recurrent_grad_registers",
            Text("behind[gate * TERMS4", "behind[0u * TERMS4"),
        ),
        fault(
            "the last step meets the weights",
            ["rnn", "gradient of a step, infinite weight"],
            "registers",
            "recurrent_grad_registers",
            Text("if (carries) {", "if (true) {"),
        ),
        fault("the grid is one workgroup short", ["rnn", "97 units, several workgroups"], "steps", "recurrent", Short),
        fault("the following step is off by one", LSTM, "steps", "recurrent_grad", Word(5, |later| later + 1)),
    ]
}
