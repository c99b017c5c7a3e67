//! Test cases of attention: sizes around tile boundaries, masks and views.

use super::Attention;
use crate::autodiff::gradients_of;
use crate::op::{Case, Fill};
use crate::{DType, TensorType, Value};

fn attend(x: &[Value], options: &Attention) -> Value {
    x[0].scaled_dot_product_attention(&x[1], &x[2], options)
}

/// Queries `[heads, l, e]`, keys `[heads, s, e]` and values `[heads, s, width]`.
fn heads(name: impl Into<String>, [heads, l, s, e, width]: [usize; 5], options: Attention) -> Case {
    Case::new("attention", name, move |x| vec![attend(x, &options)])
        .float("q", [heads, l, e])
        .float("k", [heads, s, e])
        .float("v", [heads, s, width])
}

/// Like [`heads`], with a mask as the fourth input.
fn masked(name: &str, sizes: [usize; 5], mask: &[usize], fill: Fill, causal: bool) -> Case {
    let [heads, l, s, e, width] = sizes;
    Case::new("attention", name, move |x| {
        // A mask shared by all keys has gradient 0, which leaves no scale to compare rounding errors with.
        let mask = if x[3].dim(-1) == 1 { x[3].stop_gradient() } else { x[3].clone() };
        let options = Attention { attn_mask: Some(mask), is_causal: causal, scale: None };
        vec![attend(x, &options)]
    })
    .float("q", [heads, l, e])
    .float("k", [heads, s, e])
    .float("v", [heads, s, width])
    .input("mask", TensorType::new(DType::F32, mask), fill)
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let plain = Attention::default;
    let causal = move || Attention { is_causal: true, ..plain() };
    // Heads, queries, keys, E, Ev.
    const SIZES: &[[usize; 5]] = &[
        [1, 1, 1, 4, 4],
        [2, 3, 5, 8, 8],
        [1, 15, 31, 4, 12],
        [2, 16, 32, 16, 16],
        [1, 17, 33, 12, 36],
        [3, 32, 64, 32, 32],
        [1, 34, 65, 36, 32],
        [1, 40, 70, 64, 64],
        [1, 9, 40, 68, 60],
        [1, 18, 34, 20, 132],
        [1, 20, 37, 132, 20],
        [65, 2, 3, 4, 4],
        [1, 130, 7, 8, 4],
        [1, 5, 200, 8, 4],
        [1, 140, 135, 8, 4],
    ];
    let mut cases = Vec::new();
    for &[n, l, s, e, width] in SIZES {
        let sizes = [n, l, s, e, width];
        let name = format!("{n} of {l} queries, {s} keys, {e} and {width} elements");
        cases.push(heads(name.clone(), sizes, plain()));
        cases.push(heads(format!("causal, {name}"), sizes, causal()));
    }
    // The last tile has two rows of queries, or 13 of keys.
    cases.push(heads("6 queries, 13 keys", [2, 6, 13, 16, 16], plain()));
    cases.push(heads("rows of odd sizes", [2, 7, 9, 5, 3], causal()));
    cases.push(heads("a given scale", [2, 7, 40, 8, 8], Attention { scale: Some(2.5), ..plain() }));
    cases.push(heads(
        "a negative scale",
        [1, 20, 33, 4, 4],
        Attention { scale: Some(-3.0), is_causal: true, ..plain() },
    ));
    cases.push(heads("causal, more queries than keys", [1, 70, 20, 8, 8], causal()));
    cases.push(heads("causal, more keys than queries", [1, 20, 70, 8, 8], causal()));
    for sizes in [[1, 0, 3, 4, 4], [1, 3, 0, 4, 4], [0, 2, 3, 4, 4], [1, 2, 3, 0, 4], [1, 2, 3, 4, 0]] {
        cases.push(heads(format!("empty: {sizes:?}"), sizes, plain()));
    }
    cases.push(
        Case::new("attention", "one head, no batch", move |x| vec![attend(x, &plain())])
            .float("q", [6, 8])
            .float("k", [5, 8])
            .float("v", [5, 4]),
    );
    cases.push(
        Case::new("attention", "self-attention, heads side by side", |x| {
            let heads = |i: usize| x[0].slice(2, i * 24, i * 24 + 24, 1).reshape(&[2, 18, 3, 8]).permute(&[0, 2, 1, 3]);
            let options = Attention { is_causal: true, ..Attention::default() };
            let y = heads(0).scaled_dot_product_attention(&heads(1), &heads(2), &options);
            vec![y.permute(&[0, 2, 1, 3]).reshape(&[2, 18, 24])]
        })
        .float("qkv", [2, 18, 72]),
    );
    cases.push(
        Case::new("attention", "keys and values shared by heads and batch", move |x| vec![attend(x, &plain())])
            .float("q", [2, 3, 5, 8])
            .float("k", [1, 7, 8])
            .float("v", [2, 1, 7, 8]),
    );
    cases.push(
        Case::new("attention", "five axes", move |x| vec![attend(x, &causal())])
            .float("q", [2, 1, 2, 5, 4])
            .float("k", [1, 2, 2, 6, 4])
            .float("v", [2, 2, 1, 6, 4]),
    );
    // The loop over keys or queries is split across launches: short rows for three launches, wide ones for chunks.
    cases.push(heads("keys of three launches", [1, 33, 36_600, 4, 4], plain()));
    cases.push(heads("keys of two launches, two chunks", [1, 17, 8_600, 100, 100], plain()));
    cases.push(heads("queries of two launches", [2, 18_400, 17, 4, 4], causal()));
    cases.push(heads("queries of two launches, three columns", [1, 18_400, 17, 12, 4], causal()));
    cases.push(heads("queries of two launches, two chunks", [1, 8_600, 17, 100, 100], plain()));
    // Scores so large that exp underflows or overflows unless the maximum is subtracted, first falling, then
    // rising from tile to tile. The last query has small scores, so that not all gradients are 0.
    const FALLING: &[f64] = &[40.0, 1.0, 1.0, 1.0];
    let large = |name: &str, fill: Fill, s: usize| {
        Case::new("attention", name, move |x| vec![attend(x, &Attention { scale: Some(1.0), ..plain() })])
            .input("q", TensorType::new(DType::F32, [3, 4]), Fill::Special(&[5.0; 8], -0.2, 0.2))
            .input("k", TensorType::new(DType::F32, [s, 4]), fill)
            .float("v", [s, 8])
            .with_cancelling_gradients()
    };
    cases.push(large("the first key far above", Fill::Special(FALLING, -1.0, 1.0), 70));
    cases.push(large("scores up to +-100", Fill::Uniform(-5.0, 5.0), 100));
    const RISING: &[f64] = &{
        let mut x = [0.0; 4 * 130];
        let mut i = 0;
        while i < 4 * 130 {
            x[i] = (i / 4) as f64 * 0.02 - 2.0;
            i += 1;
        }
        x
    };
    cases.push(large("rising from key to key", Fill::Special(RISING, 0.0, 0.0), 130));

    let unit = Fill::Uniform(-2.0, 2.0);
    cases.push(masked("a mask for all heads", [3, 18, 35, 8, 8], &[18, 35], unit.clone(), false));
    cases.push(masked("a mask for each head", [3, 18, 35, 8, 8], &[3, 18, 35], unit.clone(), true));
    cases.push(masked("a mask of keys", [2, 5, 33, 8, 4], &[2, 1, 33], unit.clone(), false));
    cases.push(masked("a mask of queries", [2, 17, 6, 8, 4], &[17, 1], unit, false));
    // A score far below all others masks the key: query 0 attends to no key, query 1 only to the last.
    const OUT: f64 = -1e30;
    const HOLES: &[f64] = &[OUT, OUT, OUT, OUT, OUT, OUT, OUT, OUT, OUT, 0.5, 0.0, OUT, 1.0, OUT, -1.0];
    // Finite differences at such mask values are 0, so there is nothing to compare there.
    cases.push(masked(
        "masked keys, all of one query",
        [1, 3, 5, 4, 4],
        &[3, 5],
        Fill::Special(HOLES, 0.0, 0.0),
        false,
    ));
    // Fused and unfused, with keys masked by minus infinity: query 0 attends to none.
    const INFINITE: &[f64] = &[f64::NEG_INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY, 0.5, f64::NEG_INFINITY, 0.0];
    for (name, e, width) in [
        ("masked by infinity", 8, 4),
        ("masked by infinity, wide rows", 4100, 4),
        ("masked by infinity, wide v", 4, 4100),
    ] {
        let fill = Fill::Special(INFINITE, 0.0, 0.0);
        cases.push(masked(name, [1, 2, 3, e, width], &[2, 3], fill, false));
    }
    cases.push(
        Case::new("attention", "a bool mask", |x| {
            let mask = x[3].clone();
            vec![attend(x, &Attention { attn_mask: Some(mask), ..Attention::default() })]
        })
        .float("q", [2, 4, 18, 8])
        .float("k", [2, 4, 34, 8])
        .float("v", [2, 4, 34, 8])
        .input("mask", TensorType::new(DType::Bool, [2, 1, 18, 34]), Fill::Coin),
    );
    // Gradients of some operands only.
    for (operand, name) in ["queries", "keys", "values"].into_iter().enumerate() {
        let case = Case::new("attention", format!("gradients of {name} only"), move |x| {
            gradients_of(&[(&attend(x, &causal()), &x[3])], &[&x[operand]])
        });
        let case =
            case.float("q", [2, 70, 16]).float("k", [2, 68, 16]).float("v", [2, 68, 24]).float("dy", [2, 70, 24]);
        cases.push(case.forward_only());
    }
    // Three heads: one query of the first is NaN, one key of the second, none of the third.
    const QUERY: &[f64] = &[0.5, -0.5, 0.25, 1.0, -1.0, 0.5, 0.0, 0.75, 0.5, f64::NAN, 0.5];
    const KEYS: [f64; 40 * 8 + 100] = {
        let (mut x, mut i) = ([0.0; 40 * 8 + 100], 0);
        while i < x.len() {
            x[i] = (i * 7 % 19) as f64 / 16.0 - 0.5;
            i += 1;
        }
        x[40 * 8 + 77] = f64::NAN;
        x
    };
    let floats = |size: usize| TensorType::new(DType::F32, [3, size, 8]);
    cases.push(
        Case::new("attention", "NaN, with gradients", |x| {
            let y = attend(x, &Attention::default());
            [vec![y.clone()], gradients_of(&[(&y, &x[3])], &[&x[0], &x[1], &x[2]])].concat()
        })
        .input("q", floats(18), Fill::Special(QUERY, -1.0, 1.0))
        .input("k", floats(40), Fill::Special(&KEYS, -1.0, 1.0))
        .input("v", floats(40), Fill::Uniform(-1.0, 1.0))
        .input("dy", floats(18), Fill::Uniform(-1.0, 1.0))
        .forward_only(),
    );
    for causal in [false, true] {
        let name = if causal { "differentiated again, causal" } else { "differentiated again, with a mask" };
        cases.push(
            Case::new("attention", name, move |x| {
                let mask = (!causal).then(|| x[4].clone());
                let y = attend(x, &Attention { attn_mask: mask, is_causal: causal, scale: None });
                let wrt: Vec<&Value> = x.iter().enumerate().filter(|(i, _)| *i != 3).map(|(_, x)| x).collect();
                gradients_of(&[(&y, &x[3])], &wrt)
            })
            .float("q", [2, 3, 4])
            .float("k", [2, 5, 4])
            .float("v", [2, 5, 8])
            .float("dy", [2, 3, 8])
            .float("mask", [3, 5]),
        );
    }
    cases
}
