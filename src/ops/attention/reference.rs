//! Attention in f64, with full score matrices, and the error bounds for devices.
//!
//! With [`Precision::Mixed`], the operands of all products are rounded to f16. For q, k, v and dy these roundings are
//! known ([`rounding_to_f16`]); a product of such rows errs by what it grows if each magnitude grows by its rounding.
//! The other operands, weights and the gradients of scores, are computed on the device, so their rounding is bounded
//! from above ([`factor_error`]). All sums and the softmax are in f32.

use std::borrow::Cow;

use super::{LEFT_OUT, MIN_SCORE, Scores, four};
use crate::op::{F32_UNIT_ROUNDOFF, Precision, gamma, rounding_to_f16};
use crate::parallel;
use crate::{Tensor, TensorType};

/// One head: rows of q `[l, e]`, k `[s, e]`, v `[s, width]` and, for the gradients, dy `[l, width]` and
/// stats `[l, 2]`.
struct Head<'a> {
    scores: &'a Scores,
    sizes: [usize; 4],
    q: &'a [f64],
    k: &'a [f64],
    v: &'a [f64],
    dy: &'a [f64],
    stats: &'a [f64],
    mask: Option<&'a [f64]>,
    precision: Precision,
    /// q, k, v and dy, moved away from 0 by their rounding to f16 if the precision is mixed.
    rounded: [Cow<'a, [f64]>; 4],
}

/// The numbers, moved away from 0 by their rounding if operands are rounded.
fn rounded(x: &[f64], precision: Precision) -> Cow<'_, [f64]> {
    match precision {
        Precision::Highest => x.into(),
        Precision::Mixed => x.iter().map(|&x| x + rounding_to_f16(x).copysign(x)).collect(),
    }
}

/// A score and its error bound.
#[derive(Clone, Copy)]
struct Score {
    exact: f64,
    error: f64,
}

/// The sum of `f` over all pairs of elements, in eight partial sums, which the compiler vectorises.
#[inline]
fn sum_of_pairs(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> f64 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(&a, &b)| f(a, b)).sum();
    let mut sums = [0.0; 8];
    for (a, b) in a.zip(b) {
        for k in 0..8 {
            sums[k] += f(a[k], b[k]);
        }
    }
    rest + sums.iter().sum::<f64>()
}

#[inline]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_of_pairs(a, b, |a, b| a * b)
}

#[inline]
fn dot_of_magnitudes(a: &[f64], b: &[f64]) -> f64 {
    sum_of_pairs(a, b, |a, b| (a * b).abs())
}

fn row(x: &[f64], i: usize, size: usize) -> &[f64] {
    &x[i * size..][..size]
}

/// The dot product of two rows and its error on the device, given the rows as in [`Head::rounded`].
fn dot_with_error([a, b]: [&[f64]; 2], [rounded_a, rounded_b]: [&[f64]; 2]) -> (f64, f64) {
    let (exact, rounded) = (dot_of_magnitudes(a, b), dot_of_magnitudes(rounded_a, rounded_b));
    // `max` drops the difference of infinities.
    (dot(a, b), gamma(a.len()) * rounded + (rounded - exact).max(0.0))
}

/// Applies `f` to each head; with `gradients` the inputs include dy and stats.
fn heads<T: Send>(
    scores: &Scores,
    inputs: &[&Tensor],
    gradients: bool,
    precision: Precision,
    f: impl Fn(&Head<'_>) -> T + Sync,
) -> Vec<T> {
    let [n, h, l, e] = four(inputs[0].shape());
    let [_, _, s, width] = four(inputs[2].shape());
    let mask = inputs.get(if gradients { 5 } else { 3 });
    let part = |x: &Tensor, b: usize, size: usize| -> std::ops::Range<usize> {
        debug_assert_eq!(x.numel(), n * h * size);
        b * size..(b + 1) * size
    };
    let head = |b: usize| {
        let [q, k, v] = [(0, l * e), (1, s * e), (2, s * width)].map(|(i, size)| {
            let x = inputs[i];
            &x.f64s()[part(x, b, size)]
        });
        let [dy, stats] = [(3, l * width), (4, l * 2)]
            .map(|(i, size)| if gradients { &inputs[i].f64s()[part(inputs[i], b, size)] } else { &[][..] });
        let mask = mask.map(|mask| &mask.f64s()[part(mask, b, l * s)]);
        let rounded = [q, k, v, dy].map(|x| rounded(x, precision));
        f(&Head { scores, sizes: [l, s, e, width], q, k, v, dy, stats, mask, precision, rounded })
    };
    parallel::map(n * h, &head)
}

impl Head<'_> {
    /// The scores of query `i`; `None` for a masked key. The error is that of the dot product plus one rounding
    /// each for scale and mask.
    fn scores(&self, i: usize) -> Vec<Option<Score>> {
        let [_, s, e, _] = self.sizes;
        let score = |j: usize| {
            if self.scores.causal && j > i {
                return None;
            }
            let rows = |q, k| [row(q, i, e), row(k, j, e)];
            let [rounded_q, rounded_k, ..] = &self.rounded;
            let (product, error) = dot_with_error(rows(self.q, self.k), rows(rounded_q, rounded_k));
            let (product, error) = (product * self.scores.scale.0, error * self.scores.scale.0.abs());
            let exact = product + self.mask.map_or(0.0, |mask| mask[i * s + j]);
            let error = error + (2.0 * product.abs() + exact.abs()) * F32_UNIT_ROUNDOFF;
            // Keeps NaN.
            (!(exact < MIN_SCORE)).then_some(Score { exact, error })
        };
        (0..s).map(score).collect()
    }

    /// For query `i`: its scores, the largest score, and the sum and values of the weights before normalisation.
    fn softmax(&self, i: usize) -> (Vec<Option<Score>>, f64, f64, Vec<f64>) {
        let scores = self.scores(i);
        let top = scores.iter().flatten().map(|score| score.exact).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| s.map_or(0.0, |s| (s.exact - top).exp())).collect();
        let sum = weights.iter().sum();
        (scores, top, sum, weights)
    }

    /// The weights `[l, s]` and the gradients of the scores times the scale, `w (dy . v - delta) scale`.
    fn recomputed(&self) -> (Vec<f64>, Vec<f64>) {
        let [l, s, _, width] = self.sizes;
        let (mut weights, mut gradients) = (vec![0.0; l * s], vec![0.0; l * s]);
        for i in 0..l {
            let dy = &self.dy[i * width..][..width];
            for (j, score) in self.scores(i).into_iter().enumerate() {
                let Some(score) = score else { continue };
                let w = (score.exact - self.stats[2 * i]).exp();
                weights[i * s + j] = w;
                gradients[i * s + j] =
                    w * (dot(dy, &self.v[j * width..][..width]) - self.stats[2 * i + 1]) * self.scores.scale.0;
            }
        }
        (weights, gradients)
    }

    /// The error bounds of both. A weight's relative error is the absolute error of its score plus the rounding
    /// of the difference and of `exp`; below the smallest normal number it may be flushed to 0. Both are factors of
    /// products.
    fn recomputed_errors(&self) -> (Vec<f64>, Vec<f64>) {
        let [l, s, _, width] = self.sizes;
        let (mut of_weights, mut of_gradients) = (vec![0.0; l * s], vec![0.0; l * s]);
        let [_, _, rounded_v, rounded_dy] = &self.rounded;
        for i in 0..l {
            let (lse, delta) = (self.stats[2 * i], self.stats[2 * i + 1]);
            for (j, score) in self.scores(i).into_iter().enumerate() {
                let Some(score) = score else { continue };
                let w = (score.exact - lse).exp();
                let error = weight_error(w, score, lse);
                let rows = |dy, v| [row(dy, i, width), row(v, j, width)];
                let (product, of_product) = dot_with_error(rows(self.dy, self.v), rows(rounded_dy, rounded_v));
                let difference = (product - delta).abs();
                let of_product = of_product + 3.0 * difference * F32_UNIT_ROUNDOFF;
                let of_gradient = w * of_product + error * (difference + of_product);
                of_weights[i * s + j] = error + factor_error(w + error, self.precision);
                of_gradients[i * s + j] = (of_gradient + factor_error(w * difference + of_gradient, self.precision))
                    * self.scores.scale.0.abs();
            }
        }
        (of_weights, of_gradients)
    }
}

/// The error bound of `w = exp(score - shift)`.
fn weight_error(w: f64, score: Score, shift: f64) -> f64 {
    w * exponent_error(score, shift).exp_m1() + TINY
}

/// The error of the exponent, including what the rounding of `exp` adds. The shift of a kernel may be up to 8 ln 2 below
/// the largest score.
fn exponent_error(score: Score, shift: f64) -> f64 {
    score.error + ((score.exact - shift).abs() + 8.0) * F32_UNIT_ROUNDOFF
}

/// How far a number up to this magnitude moves at most when it becomes a factor of a product: half a unit in the last
/// place of an f16, which is 2^-24 for subnormal numbers, or what exceeds the range.
fn factor_error(magnitude: f64, precision: Precision) -> f64 {
    match precision {
        Precision::Highest => 0.0,
        Precision::Mixed => (magnitude * 2f64.powi(-11) + 2f64.powi(-25)).max(magnitude - 65_504.0),
    }
}

/// The absolute error allowed for flushed subnormals and the underflow of `exp`.
const TINY: f64 = 1.2e-37;

/// y and lse.
pub(super) fn attention(scores: &Scores, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
    let rows = heads(scores, inputs, false, Precision::Highest, |head| {
        let [l, s, _, width] = head.sizes;
        let (mut y, mut lse) = (vec![0.0; l * width], vec![0.0; l]);
        for i in 0..l {
            let (_, top, sum, weights) = head.softmax(i);
            lse[i] = if sum == 0.0 { LEFT_OUT } else { top + sum.ln() };
            for j in (0..s).filter(|&j| weights[j] != 0.0) {
                add(&mut y[i * width..][..width], &head.v[j * width..][..width], weights[j] / sum);
            }
        }
        (y, lse)
    });
    let (y, lse): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    vec![Tensor::of(&outputs[0].shape, y.concat()), Tensor::of(&outputs[1].shape, lse.concat())]
}

fn add(to: &mut [f64], x: &[f64], factor: f64) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += x * factor);
}

/// Errors of the weights `w`, of their rounding and of that of v contribute `sum_j |d(w_j v_j)|`, and the sum of the
/// weights, which divides all, `|y| sum_j |dw_j|`, but not more than `2 |y|`, as y is a mean of v; the two sums and their
/// quotient add roundings. If the errors `e_j` of the exponents are large, the sum of the weights may be as small as
/// `sum_j w_j exp(-e_j)`.
///
/// A shift that all weights of a row share cancels: each weight has the shift of its tile, then one factor for
/// each later tile with a larger score. At most `s / 32 + 1` of these factors differ from 1, each rounded three
/// times. A factor is at most 1, so a weight that is rounded to f16 before it keeps at most the error in units of the
/// final shift, whose weight is at most the sum.
pub(super) fn attention_bound(
    scores: &Scores,
    inputs: &[&Tensor],
    outputs: &[Tensor],
    precision: Precision,
) -> Vec<Vec<f64>> {
    let [_, _, l, width] = four(outputs[0].shape());
    // The rounding of a shift below the largest score and of the logarithm of a larger sum.
    let of_shift = if precision == Precision::Mixed { 32.0 } else { 4.0 };
    let rows = heads(scores, inputs, false, precision, |head| {
        let [l, s, ..] = head.sizes;
        let sums = gamma(s) + gamma(3 * s.div_ceil(32) + 4);
        let (mut y, mut magnitude, mut lse) = (vec![0.0; l * width], vec![0.0; l * width], vec![0.0; l]);
        for i in 0..l {
            let (scores, top, sum, weights) = head.softmax(i);
            let (mut all, mut least) = (0.0, 0.0);
            for (j, score) in scores.iter().enumerate() {
                let Some(score) = score else { continue };
                let w = weights[j] / sum;
                let error = weight_error(weights[j], *score, top) / sum;
                let of_factor = error + factor_error(w + error, precision);
                all += error;
                least += w * (-exponent_error(*score, top)).exp();
                let (v, rounded_v) = (row(head.v, j, width), row(&head.rounded[2], j, width));
                for c in 0..width {
                    // Bounds v and y separately: |v_j - y| may cancel where the rounding errors do not.
                    let of_v = (rounded_v[c] - v[c]).abs().max(0.0); // not NaN
                    y[i * width + c] += of_factor * rounded_v[c].abs() + w * of_v;
                    magnitude[i * width + c] += w * v[c].abs();
                }
            }
            let roundings = 2.0 * sums + 3.0 * F32_UNIT_ROUNDOFF;
            for c in 0..width {
                let (y, magnitude) = (&mut y[i * width + c], magnitude[i * width + c]);
                let error = *y + roundings * (magnitude + *y) + all.min(2.0) * magnitude;
                *y = TINY + if sum == 0.0 { 0.0 } else { error / least };
            }
            lse[i] = match sum {
                0.0 => 0.0,
                _ => all + sums + (4.0 * (top.abs() + sum.ln()) + of_shift) * F32_UNIT_ROUNDOFF,
            };
        }
        (y, lse)
    });
    debug_assert_eq!(outputs[0].numel(), rows.len() * l * width);
    let (y, lse): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    vec![y.concat(), lse.concat()]
}

/// dq.
pub(super) fn query_gradient(scores: &Scores, inputs: &[&Tensor]) -> Vec<f64> {
    heads(scores, inputs, true, Precision::Highest, |head| {
        let [l, s, e, _] = head.sizes;
        let (_, gradients) = head.recomputed();
        product(&gradients, [l, s, e], head.k, |x| x)
    })
    .concat()
}

/// The propagated errors of the scores and the rounding of the sum over the keys.
pub(super) fn query_gradient_bound(scores: &Scores, inputs: &[&Tensor], precision: Precision) -> Vec<f64> {
    heads(scores, inputs, true, precision, |head| {
        let [l, s, e, _] = head.sizes;
        let ((_, gradients), (_, errors)) = (head.recomputed(), head.recomputed_errors());
        summed(&gradients, &errors, [l, s, e], [head.k, &head.rounded[1]])
    })
    .concat()
}

/// dk and dv, concatenated along the last axis.
pub(super) fn key_gradient(scores: &Scores, inputs: &[&Tensor]) -> Vec<f64> {
    heads(scores, inputs, true, Precision::Highest, |head| {
        let [l, s, e, width] = head.sizes;
        let (weights, gradients) = head.recomputed();
        let dk = product(&transposed(&gradients, l, s), [s, l, e], head.q, |x| x);
        let dv = product(&transposed(&weights, l, s), [s, l, width], head.dy, |x| x);
        side_by_side(&dk, e, &dv, width)
    })
    .concat()
}

/// Like [`query_gradient_bound`].
pub(super) fn key_gradient_bound(scores: &Scores, inputs: &[&Tensor], precision: Precision) -> Vec<f64> {
    heads(scores, inputs, true, precision, |head| {
        let [l, s, e, width] = head.sizes;
        let ((weights, gradients), (of_weights, of_gradients)) = (head.recomputed(), head.recomputed_errors());
        let turned = |x: &[f64]| transposed(x, l, s);
        let dk = summed(&turned(&gradients), &turned(&of_gradients), [s, l, e], [head.q, &head.rounded[0]]);
        let dv = summed(&turned(&weights), &turned(&of_weights), [s, l, width], [head.dy, &head.rounded[3]]);
        side_by_side(&dk, e, &dv, width)
    })
    .concat()
}

/// `y[m, n] = sum over k of a[m, k] f(b[k, n])`.
fn product(a: &[f64], [m, k, n]: [usize; 3], b: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for (row, y) in y.chunks_mut(n).enumerate() {
        for j in 0..k {
            let x = a[row * k + j];
            y.iter_mut().zip(&b[j * n..][..n]).for_each(|(y, &b)| *y += x * f(b));
        }
    }
    y
}

/// The error bound of [`product`], given the errors of `a`, and b rounded as in [`Head::rounded`].
fn summed(a: &[f64], errors: &[f64], sizes: [usize; 3], [b, rounded]: [&[f64]; 2]) -> Vec<f64> {
    let weight = |(a, error): (&f64, &f64)| gamma(sizes[1]) * (a.abs() + error) + error + TINY;
    let weights: Vec<f64> = a.iter().zip(errors).map(weight).collect();
    let magnitudes: Vec<f64> = a.iter().map(|a| a.abs()).collect();
    let moved: Vec<f64> = b.iter().zip(rounded).map(|(b, rounded)| (rounded - b).abs().max(0.0)).collect();
    let of_b = product(&magnitudes, sizes, &moved, |x| x);
    let of_a = product(&weights, sizes, rounded, f64::abs);
    of_a.into_iter().zip(of_b).map(|(a, b)| a + b + TINY).collect()
}

fn transposed(x: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
}

fn side_by_side(a: &[f64], a_width: usize, b: &[f64], b_width: usize) -> Vec<f64> {
    a.chunks(a_width).zip(b.chunks(b_width)).flat_map(|(a, b)| [a, b].concat()).collect()
}
