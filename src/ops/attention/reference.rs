//! Attention in f64, with full score matrices, and the error bounds for devices.

use super::{LEFT_OUT, MIN_SCORE, Scores, four};
use crate::op::{F32_UNIT_ROUNDOFF, gamma};
use crate::ops::parallel;
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

/// Applies `f` to each head; with `gradients` the inputs include dy and stats.
fn heads<T: Send>(scores: &Scores, inputs: &[&Tensor], gradients: bool, f: impl Fn(&Head<'_>) -> T + Sync) -> Vec<T> {
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
        f(&Head { scores, sizes: [l, s, e, width], q, k, v, dy, stats, mask })
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
            let (q, k) = (&self.q[i * e..][..e], &self.k[j * e..][..e]);
            let product = dot(q, k) * self.scores.scale.0;
            let exact = product + self.mask.map_or(0.0, |mask| mask[i * s + j]);
            let magnitude = dot_of_magnitudes(q, k) * self.scores.scale.0.abs();
            let error = gamma(e) * magnitude + (2.0 * product.abs() + exact.abs()) * F32_UNIT_ROUNDOFF;
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
    /// of the difference and of `exp`; below the smallest normal number it may be flushed to 0.
    fn recomputed_errors(&self) -> (Vec<f64>, Vec<f64>) {
        let [l, s, _, width] = self.sizes;
        let (mut of_weights, mut of_gradients) = (vec![0.0; l * s], vec![0.0; l * s]);
        for i in 0..l {
            let dy = &self.dy[i * width..][..width];
            let (lse, delta) = (self.stats[2 * i], self.stats[2 * i + 1]);
            for (j, score) in self.scores(i).into_iter().enumerate() {
                let Some(score) = score else { continue };
                let w = (score.exact - lse).exp();
                let v = &self.v[j * width..][..width];
                let error = weight_error(w, score, lse);
                let difference = (dot(dy, v) - delta).abs();
                let product = gamma(width) * dot_of_magnitudes(dy, v) + 3.0 * difference * F32_UNIT_ROUNDOFF;
                of_weights[i * s + j] = error;
                of_gradients[i * s + j] = (w * product + error * (difference + product)) * self.scores.scale.0.abs();
            }
        }
        (of_weights, of_gradients)
    }
}

/// The error bound of `w = exp(score - shift)`.
fn weight_error(w: f64, score: Score, shift: f64) -> f64 {
    w * (score.error + ((score.exact - shift).abs() + 8.0) * F32_UNIT_ROUNDOFF) + TINY
}

/// The absolute error allowed for flushed subnormals and the underflow of `exp`.
const TINY: f64 = 1.2e-37;

/// y and lse.
pub(super) fn attention(scores: &Scores, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
    let rows = heads(scores, inputs, false, |head| {
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

/// Errors of the weights `w` contribute `sum_j |dw_j| |v_j - y|`; the two sums and their quotient add roundings.
/// A shift that all weights of a row share cancels: each weight has the shift of its tile, then one factor for
/// each later tile with a larger score. At most `s / 32 + 1` of these factors differ from 1, each rounded three
/// times.
pub(super) fn attention_bound(scores: &Scores, inputs: &[&Tensor], outputs: &[Tensor]) -> Vec<Vec<f64>> {
    let [_, _, l, width] = four(outputs[0].shape());
    let exact = outputs[0].to_f64();
    let rows = heads(scores, inputs, false, |head| {
        let [l, s, ..] = head.sizes;
        let sums = gamma(s) + gamma(3 * s.div_ceil(32) + 4);
        let (mut y, mut magnitude, mut lse) = (vec![0.0; l * width], vec![0.0; l * width], vec![0.0; l]);
        for i in 0..l {
            let (scores, top, sum, weights) = head.softmax(i);
            let mut all = 0.0;
            for (j, score) in scores.iter().enumerate() {
                let Some(score) = score else { continue };
                let error = weight_error(weights[j], *score, top) / sum;
                all += error;
                for c in 0..width {
                    // Bounds v and y separately: |v_j - y| may cancel where the rounding errors do not.
                    y[i * width + c] += error * head.v[j * width + c].abs();
                    magnitude[i * width + c] += weights[j] / sum * head.v[j * width + c].abs();
                }
            }
            let own = (all + sums + 3.0 * F32_UNIT_ROUNDOFF).min(1.0);
            for c in 0..width {
                let at = i * width + c;
                y[at] += sums * magnitude[at] + own * magnitude[at].max(y[at]) + TINY;
            }
            lse[i] =
                if sum == 0.0 { 0.0 } else { all + sums + (4.0 * (top.abs() + sum.ln()) + 4.0) * F32_UNIT_ROUNDOFF };
        }
        (y, lse)
    });
    debug_assert_eq!(exact.len(), rows.len() * l * width);
    let (y, lse): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    vec![y.concat(), lse.concat()]
}

/// dq.
pub(super) fn query_gradient(scores: &Scores, inputs: &[&Tensor]) -> Vec<f64> {
    heads(scores, inputs, true, |head| {
        let [l, s, e, _] = head.sizes;
        let (_, gradients) = head.recomputed();
        product(&gradients, [l, s, e], head.k, |x| x)
    })
    .concat()
}

/// The propagated errors of the scores and the rounding of the sum over the keys.
pub(super) fn query_gradient_bound(scores: &Scores, inputs: &[&Tensor]) -> Vec<f64> {
    heads(scores, inputs, true, |head| {
        let [l, s, e, _] = head.sizes;
        let ((_, gradients), (_, errors)) = (head.recomputed(), head.recomputed_errors());
        summed(&gradients, &errors, [l, s, e], head.k)
    })
    .concat()
}

/// dk and dv, concatenated along the last axis.
pub(super) fn key_gradient(scores: &Scores, inputs: &[&Tensor]) -> Vec<f64> {
    heads(scores, inputs, true, |head| {
        let [l, s, e, width] = head.sizes;
        let (weights, gradients) = head.recomputed();
        let dk = product(&transposed(&gradients, l, s), [s, l, e], head.q, |x| x);
        let dv = product(&transposed(&weights, l, s), [s, l, width], head.dy, |x| x);
        side_by_side(&dk, e, &dv, width)
    })
    .concat()
}

/// Like [`query_gradient_bound`].
pub(super) fn key_gradient_bound(scores: &Scores, inputs: &[&Tensor]) -> Vec<f64> {
    heads(scores, inputs, true, |head| {
        let [l, s, e, width] = head.sizes;
        let ((weights, gradients), (of_weights, of_gradients)) = (head.recomputed(), head.recomputed_errors());
        let turned = |x: &[f64]| transposed(x, l, s);
        let dk = summed(&turned(&gradients), &turned(&of_gradients), [s, l, e], head.q);
        let dv = summed(&turned(&weights), &turned(&of_weights), [s, l, width], head.dy);
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

/// The error bound of [`product`], given the errors of `a`.
fn summed(a: &[f64], errors: &[f64], sizes: [usize; 3], b: &[f64]) -> Vec<f64> {
    let weights: Vec<f64> = a.iter().zip(errors).map(|(a, error)| gamma(sizes[1]) * a.abs() + error + TINY).collect();
    product(&weights, sizes, b, f64::abs).into_iter().map(|bound| bound + TINY).collect()
}

fn transposed(x: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
}

fn side_by_side(a: &[f64], a_width: usize, b: &[f64], b_width: usize) -> Vec<f64> {
    a.chunks(a_width).zip(b.chunks(b_width)).flat_map(|(a, b)| [a, b].concat()).collect()
}
