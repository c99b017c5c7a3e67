//! The reference of the convolutions: plain loops in f64. For each weight element, a shifted row of the input pairs
//! with a row of the output over the columns where both exist.

use std::ops::Range;

use super::{ConvPass, Sizes};
use crate::Tensor;
use crate::parallel::for_chunks;

/// One axis: `input = output * stride + kernel * dilation - padding`.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    out: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
}

impl Axis {
    /// The outputs whose input for kernel element `k` is not in the padding.
    fn outputs(&self, k: usize) -> Range<usize> {
        let shift = k * self.dilation;
        let first = self.padding.saturating_sub(shift).div_ceil(self.stride);
        let end = (self.size + self.padding).saturating_sub(shift).div_ceil(self.stride);
        first..end.min(self.out).max(first)
    }

    /// The input that output `i` uses for kernel element `k`.
    fn input(&self, i: usize, k: usize) -> usize {
        i * self.stride + k * self.dilation - self.padding
    }
}

/// Height and width.
fn axes(s: &Sizes) -> [Axis; 2] {
    let axis = |i: usize, size, out| Axis {
        size,
        out,
        stride: s.options.stride[i],
        padding: s.options.padding[i],
        dilation: s.options.dilation[i],
    };
    [axis(0, s.h, s.oh), axis(1, s.w, s.ow)]
}

/// Calls `row(output start, input start, length)` for each pair of rows of kernel element `(u, v)`; the input
/// advances by the horizontal stride.
fn for_rows(s: &Sizes, u: usize, v: usize, mut row: impl FnMut(usize, usize, usize)) {
    let [height, width] = axes(s);
    let columns = width.outputs(v);
    if columns.is_empty() {
        return;
    }
    for i in height.outputs(u) {
        let (y, x) = (i * s.ow + columns.start, height.input(i, u) * s.w + width.input(columns.start, v));
        row(y, x, columns.len());
    }
}

/// A pass, from its two operands.
pub(super) fn of(pass: ConvPass, a: &[f64], b: &[f64], s: &Sizes) -> Vec<f64> {
    match pass {
        ConvPass::Forward => conv2d(a, b, s),
        ConvPass::BackwardData(_) => conv2d_input_grad(a, b, s),
        ConvPass::BackwardFilter(_) => conv2d_weight_grad(a, b, s),
    }
}

/// The results that may be NaN because a number that is not finite meets a zero in some kernels: one of the second
/// operand meets padding, or a gradient meets the elements by which a kernel is smaller than a multiple of the stride.
pub(super) fn may_be_nan(pass: ConvPass, inputs: &[&Tensor], s: &Sizes) -> Option<Vec<bool>> {
    let marks = |x: &Tensor| x.f64s().iter().map(|x| f64::from(!x.is_finite())).collect::<Vec<f64>>();
    let (a, b) = (marks(inputs[0]), marks(inputs[1]));
    let mut found = None;
    if b.contains(&1.0) {
        // How many such numbers meet an element of the first operand, and how many there are for a channel of the result.
        let met = of(pass, &vec![1.0; a.len()], &b, s);
        let [rows, columns] = [0, 1].map(|axis| inputs[1].shape()[axis]);
        let counts: Vec<f64> = b.chunks(b.len() / (rows * columns)).map(|plane| plane.iter().sum()).collect();
        let row = |row: usize| counts[row * columns..][..columns].iter().sum();
        let column = |rows: Range<usize>, column: usize| rows.map(|row| counts[row * columns + column]).sum();
        let (plane, all): (usize, Vec<f64>) = match pass {
            ConvPass::Forward => (s.oh * s.ow, (0..rows).map(row).collect()),
            ConvPass::BackwardData(_) => {
                let group = |c: usize| c / columns * s.group_o()..(c / columns + 1) * s.group_o();
                (s.h * s.w, (0..s.c).map(|c| column(group(c), c % columns)).collect())
            }
            ConvPass::BackwardFilter(_) => (s.group_c() * s.kh * s.kw, (0..s.o).map(|o| column(0..rows, o)).collect()),
        };
        let all = |i: usize| all[i / plane % all.len()];
        found = Some(met.iter().enumerate().map(|(i, &met)| met < all(i)).collect::<Vec<bool>>());
    }
    let [kh, kw] = [s.kh.next_multiple_of(s.options.stride[0]), s.kw.next_multiple_of(s.options.stride[1])];
    if matches!(pass, ConvPass::BackwardData(_)) && [kh, kw] != [s.kh, s.kw] && a.contains(&1.0) {
        let met = |s: &Sizes| conv2d_input_grad(&a, &vec![1.0; s.o * s.group_c() * s.kh * s.kw], s);
        let (less, more) = (met(s), met(&Sizes { kh, kw, ..*s }));
        let found = found.get_or_insert_with(|| vec![false; less.len()]);
        found.iter_mut().zip(less.iter().zip(&more)).for_each(|(found, (less, more))| *found |= less < more);
    }
    found
}

/// `y[n, o] = sum over c, u, v of weight[o, c, u, v] * x[n, c] shifted by (u, v)`.
pub(super) fn conv2d(x: &[f64], weight: &[f64], s: &Sizes) -> Vec<f64> {
    let (plane, stride) = (s.h * s.w, s.options.stride[1]);
    let mut y = vec![0.0; s.n * s.o * s.oh * s.ow];
    for_chunks(&mut y, s.oh * s.ow, &|no, y| {
        let (n, o) = (no / s.o, no % s.o);
        let group = o / s.group_o();
        for c in 0..s.group_c() {
            let x = &x[(n * s.c + group * s.group_c() + c) * plane..][..plane];
            for u in 0..s.kh {
                for v in 0..s.kw {
                    let weight = weight[((o * s.group_c() + c) * s.kh + u) * s.kw + v];
                    for_rows(s, u, v, |yi, xi, length| {
                        let y = &mut y[yi..yi + length];
                        if stride == 1 {
                            y.iter_mut().zip(&x[xi..xi + length]).for_each(|(y, x)| *y += weight * x);
                        } else {
                            y.iter_mut().zip(x[xi..].iter().step_by(stride)).for_each(|(y, x)| *y += weight * x);
                        }
                    });
                }
            }
        }
    });
    y
}

/// `dx[n, c] = sum over o, u, v of weight[o, c, u, v] * dy[n, o] shifted back by (u, v)`.
pub(super) fn conv2d_input_grad(dy: &[f64], weight: &[f64], s: &Sizes) -> Vec<f64> {
    let (plane, stride) = (s.oh * s.ow, s.options.stride[1]);
    let mut dx = vec![0.0; s.n * s.c * s.h * s.w];
    for_chunks(&mut dx, s.h * s.w, &|nc, dx| {
        let (n, c) = (nc / s.c, nc % s.c);
        let (group, inner) = (c / s.group_c(), c % s.group_c());
        for o in group * s.group_o()..(group + 1) * s.group_o() {
            let dy = &dy[(n * s.o + o) * plane..][..plane];
            for u in 0..s.kh {
                for v in 0..s.kw {
                    let weight = weight[((o * s.group_c() + inner) * s.kh + u) * s.kw + v];
                    for_rows(s, u, v, |yi, xi, length| {
                        let dy = &dy[yi..yi + length];
                        if stride == 1 {
                            dx[xi..xi + length].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += weight * dy);
                        } else {
                            dx[xi..].iter_mut().step_by(stride).zip(dy).for_each(|(dx, dy)| *dx += weight * dy);
                        }
                    });
                }
            }
        }
    });
    dx
}

/// `dweight[o, c, u, v] = sum over n of <dy[n, o], x[n, c] shifted by (u, v)>`.
pub(super) fn conv2d_weight_grad(x: &[f64], dy: &[f64], s: &Sizes) -> Vec<f64> {
    let (plane, out, stride) = (s.h * s.w, s.oh * s.ow, s.options.stride[1]);
    let mut dweight = vec![0.0; s.o * s.group_c() * s.kh * s.kw];
    for_chunks(&mut dweight, s.kh * s.kw, &|oc, dweight| {
        let (o, inner) = (oc / s.group_c(), oc % s.group_c());
        let c = o / s.group_o() * s.group_c() + inner;
        for n in 0..s.n {
            let x = &x[(n * s.c + c) * plane..][..plane];
            let dy = &dy[(n * s.o + o) * out..][..out];
            for u in 0..s.kh {
                for v in 0..s.kw {
                    let sum = &mut dweight[u * s.kw + v];
                    for_rows(s, u, v, |yi, xi, length| {
                        let dy = &dy[yi..yi + length];
                        *sum += dy.iter().zip(x[xi..].iter().step_by(stride)).map(|(dy, x)| dy * x).sum::<f64>();
                    });
                }
            }
        }
    });
    dweight
}
