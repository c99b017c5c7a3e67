//! The reference of the convolutions: plain loops in f64. For each weight element, a shifted row of the input pairs
//! with a row of the output over the columns where both exist.

use std::ops::Range;

use super::Sizes;
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
