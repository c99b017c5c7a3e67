//! The reference of the convolutions: matrix products in f64. For each kernel element, a shifted row of the input pairs
//! with a row of the output over the columns where both exist.

use std::ops::Range;

use super::Sizes;
use crate::ops::matmul::add_row_times_matrix;
use crate::parallel::for_chunks;

/// Numbers of a block of columns: they stay in the cache of a core.
const BLOCK: usize = 1 << 17;

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

/// Calls `row(output start, input start, length)` for each pair of rows of kernel element `(u, v)` in some rows of the
/// output; the input advances by the horizontal stride.
fn for_rows(s: &Sizes, u: usize, v: usize, rows: &Range<usize>, mut row: impl FnMut(usize, usize, usize)) {
    let [height, width] = axes(s);
    let (columns, valid) = (width.outputs(v), height.outputs(u));
    if columns.is_empty() {
        return;
    }
    for i in valid.start.max(rows.start)..valid.end.min(rows.end) {
        let (y, x) = (i * s.ow + columns.start, height.input(i, u) * s.w + width.input(columns.start, v));
        row(y, x, columns.len());
    }
}

/// The number of terms of an output: the kernel elements of a group.
fn terms(s: &Sizes) -> usize {
    s.group_c() * s.kh * s.kw
}

/// The rows of the output in blocks.
fn blocks(s: &Sizes) -> impl Iterator<Item = Range<usize>> {
    let (rows, at_once) = (s.oh, (BLOCK / (terms(s) * s.ow).max(1)).max(1));
    (0..rows).step_by(at_once).map(move |first| first..(first + at_once).min(rows))
}

/// What the outputs in some rows read of the channels `x` of a group: a row for each kernel element `(c, u, v)`, with a
/// column for each output; 0 in the padding.
fn columns(x: &[f64], s: &Sizes, rows: &Range<usize>) -> Vec<f64> {
    let (size, stride) = (rows.len() * s.ow, s.options.stride[1]);
    let mut columns = vec![0.0; terms(s) * size];
    for_chunks(&mut columns, size, &|element, column| {
        let (c, u, v) = (element / (s.kh * s.kw), element / s.kw % s.kh, element % s.kw);
        let x = &x[c * s.h * s.w..][..s.h * s.w];
        for_rows(s, u, v, rows, |y, xi, length| {
            let column = &mut column[y - rows.start * s.ow..][..length];
            if stride == 1 {
                column.copy_from_slice(&x[xi..xi + length]);
            } else {
                column.iter_mut().zip(x[xi..].iter().step_by(stride)).for_each(|(column, x)| *column = *x);
            }
        });
    });
    columns
}

/// The sum of products, in eight parts.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0; 8];
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    rest + sums.iter().sum::<f64>()
}

/// `y[n, o] = sum over c, u, v of weight[o, c, u, v] * x[n, c] shifted by (u, v)`.
pub(super) fn conv2d(x: &[f64], weight: &[f64], s: &Sizes) -> Vec<f64> {
    let (channels, out, terms) = (s.group_c() * s.h * s.w, s.oh * s.ow, terms(s));
    let mut y = vec![0.0; s.n * s.o * out];
    for_chunks(&mut y, s.group_o() * out, &|chunk, y| {
        let weight = &weight[chunk % s.options.groups * s.group_o() * terms..];
        for rows in blocks(s) {
            let columns = columns(&x[chunk * channels..][..channels], s, &rows);
            for_chunks(y, out, &|o, y| {
                add_row_times_matrix(
                    &mut y[rows.start * s.ow..rows.end * s.ow],
                    &weight[o * terms..][..terms],
                    &columns,
                );
            });
        }
    });
    y
}

/// `dx[n, c] = sum over o, u, v of weight[o, c, u, v] * dy[n, o] shifted back by (u, v)`.
pub(super) fn conv2d_input_grad(dy: &[f64], weight: &[f64], s: &Sizes) -> Vec<f64> {
    let (group_c, group_o, out, elements) = (s.group_c(), s.group_o(), s.oh * s.ow, s.kh * s.kw);
    let mut dx = vec![0.0; s.n * s.c * s.h * s.w];
    if dy.is_empty() {
        return dx;
    }
    for_chunks(&mut dx, s.h * s.w, &|nc, dx| {
        let (n, c) = (nc / s.c, nc % s.c);
        let (group, inner) = (c / group_c, c % group_c);
        let dy = &dy[(n * s.o + group * group_o) * out..][..group_o * out];
        let mut row = vec![0.0; out];
        for element in 0..elements {
            let first = (group * group_o * group_c + inner) * elements + element;
            let weights: Vec<f64> = weight[first..].iter().step_by(group_c * elements).take(group_o).copied().collect();
            row.fill(0.0);
            add_row_times_matrix(&mut row, &weights, dy);
            for_rows(s, element / s.kw, element % s.kw, &(0..s.oh), |yi, xi, length| {
                let dx = dx[xi..].iter_mut().step_by(s.options.stride[1]);
                dx.zip(&row[yi..yi + length]).for_each(|(dx, term)| *dx += term);
            });
        }
    });
    dx
}

/// `dweight[o, c, u, v] = sum over n of <dy[n, o], x[n, c] shifted by (u, v)>`.
pub(super) fn conv2d_weight_grad(x: &[f64], dy: &[f64], s: &Sizes) -> Vec<f64> {
    let (channels, out, terms) = (s.group_c() * s.h * s.w, s.oh * s.ow, terms(s));
    let mut dweight = vec![0.0; s.o * terms];
    if dy.is_empty() {
        return dweight;
    }
    for_chunks(&mut dweight, s.group_o() * terms, &|group, dweight| {
        for chunk in (0..s.n).map(|n| n * s.options.groups + group) {
            let dy = &dy[chunk * s.group_o() * out..][..s.group_o() * out];
            for rows in blocks(s) {
                let columns = columns(&x[chunk * channels..][..channels], s, &rows);
                for_chunks(dweight, terms, &|o, dweight| {
                    let dy = &dy[o * out..][rows.start * s.ow..rows.end * s.ow];
                    let columns = columns.chunks_exact(dy.len());
                    dweight.iter_mut().zip(columns).for_each(|(sum, column)| *sum += dot(dy, column));
                });
            }
        }
    });
    dweight
}
