//! CPU reference of the poolings: plain f64 loops, window by window.

use std::ops::Range;

use super::Sizes;
use crate::ops::reduce::exceeds;
use crate::parallel::for_chunks;

/// The elements that window `i` covers along an axis, without padding.
fn covered(i: usize, kernel: usize, stride: usize, padding: usize, size: usize) -> Range<usize> {
    let (start, end) = (i * stride, i * stride + kernel);
    start.saturating_sub(padding)..(end - padding).min(size)
}

/// Calls `window(number, rows, columns)` for each window of a plane.
fn for_windows(s: &Sizes, mut window: impl FnMut(usize, Range<usize>, Range<usize>)) {
    let p = &s.options;
    for i in 0..s.oh {
        let rows = covered(i, p.kernel[0], p.stride[0], p.padding[0], s.h);
        for j in 0..s.ow {
            let columns = covered(j, p.kernel[1], p.stride[1], p.padding[1], s.w);
            window(i * s.ow + j, rows.clone(), columns);
        }
    }
}

/// Position of the first maximum, or the first NaN, in a window of a plane `x`.
fn argmax(x: &[f64], s: &Sizes, rows: Range<usize>, columns: Range<usize>) -> usize {
    let mut best = rows.start * s.w + columns.start;
    for row in rows {
        for column in columns.clone() {
            if exceeds(x[row * s.w + column], x[best]) {
                best = row * s.w + column;
            }
        }
    }
    best
}

/// The divisor of the average over a window.
fn divisor(s: &Sizes, rows: &Range<usize>, columns: &Range<usize>) -> f64 {
    let p = &s.options;
    if p.count_include_pad { (p.kernel[0] * p.kernel[1]) as f64 } else { (rows.len() * columns.len()) as f64 }
}

/// `y[window] = v[argmax of x over the window]`; the maximum itself with `v = x`.
pub(super) fn max_pool2d(x: &[f64], v: &[f64], s: &Sizes) -> Vec<f64> {
    let mut y = vec![0.0; s.planes * s.oh * s.ow];
    for_chunks(&mut y, s.oh * s.ow, &|plane, y| {
        let x = &x[plane * s.h * s.w..][..s.h * s.w];
        let v = &v[plane * s.h * s.w..][..s.h * s.w];
        for_windows(s, |i, rows, columns| y[i] = v[argmax(x, s, rows, columns)]);
    });
    y
}

/// `dx[argmax of x over the window] += dy[window]`.
pub(super) fn max_pool2d_grad(x: &[f64], dy: &[f64], s: &Sizes) -> Vec<f64> {
    let mut dx = vec![0.0; s.planes * s.h * s.w];
    for_chunks(&mut dx, s.h * s.w, &|plane, dx| {
        let x = &x[plane * s.h * s.w..][..s.h * s.w];
        let dy = &dy[plane * s.oh * s.ow..][..s.oh * s.ow];
        for_windows(s, |i, rows, columns| dx[argmax(x, s, rows, columns)] += dy[i]);
    });
    dx
}

/// `y[window] = sum of x over the window / divisor`.
pub(super) fn avg_pool2d(x: &[f64], s: &Sizes) -> Vec<f64> {
    let mut y = vec![0.0; s.planes * s.oh * s.ow];
    for_chunks(&mut y, s.oh * s.ow, &|plane, y| {
        let x = &x[plane * s.h * s.w..][..s.h * s.w];
        for_windows(s, |i, rows, columns| {
            let divisor = divisor(s, &rows, &columns);
            let sum: f64 = rows.map(|row| x[row * s.w..][columns.clone()].iter().sum::<f64>()).sum();
            y[i] = sum / divisor;
        });
    });
    y
}

/// `dx[element] = sum over the windows that cover it of dy[window] / divisor`.
pub(super) fn avg_pool2d_grad(dy: &[f64], s: &Sizes) -> Vec<f64> {
    let mut dx = vec![0.0; s.planes * s.h * s.w];
    for_chunks(&mut dx, s.h * s.w, &|plane, dx| {
        let dy = &dy[plane * s.oh * s.ow..][..s.oh * s.ow];
        for_windows(s, |i, rows, columns| {
            let share = dy[i] / divisor(s, &rows, &columns);
            for row in rows {
                dx[row * s.w..][columns.clone()].iter_mut().for_each(|dx| *dx += share);
            }
        });
    });
    dx
}
