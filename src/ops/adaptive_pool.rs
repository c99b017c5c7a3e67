//! Average pooling to a given output size.
//!
//! As in PyTorch, output `i` of `m` averages the elements `floor(i n / m) .. ceil((i + 1) n / m)` of `n`
//! (end excluded). If `m` divides `n`, these are the windows of [`Value::avg_pool2d`]; otherwise they
//! overlap, and pooling an axis is a matrix product with the averaging weights.

use super::conv2d::Pair;
use super::pool2d::Pool2d;
use crate::op::Case;
use crate::{Shape, Tensor, Value};

/// The averaging weights `[n, m]`.
fn averages(n: usize, m: usize) -> Tensor {
    let mut weights = vec![0.0f32; n * m];
    for i in 0..m {
        let (start, end) = (i * n / m, ((i + 1) * n).div_ceil(m));
        for at in start..end {
            weights[at * m + i] = (1.0 / (end - start) as f64) as f32;
        }
    }
    Tensor::of(&Shape::from([n, m]), weights)
}

impl Value {
    /// Averages data `[N, C, H, W]` over evenly spread windows, giving `[N, C, OH, OW]` for the `output` size
    /// `[OH, OW]`. Window `i` of `OH` covers the rows `floor(i H / OH) .. ceil((i + 1) H / OH)` (end excluded);
    /// columns likewise.
    ///
    /// # Errors
    /// At compile time, if the data or the output is empty.
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let x = Graph::new().input("x", DType::F32, [8, 3, 17, 20]);
    /// assert_eq!(x.adaptive_avg_pool2d([5, 4]).shape()[..], [8, 3, 5, 4]);
    /// ```
    #[track_caller]
    pub fn adaptive_avg_pool2d(&self, output: impl Into<Pair>) -> Value {
        let Pair([oh, ow]) = output.into();
        if !self.is_valid() {
            return self.clone();
        }
        let (&[n, c, h, w], true) = (&self.shape()[..], self.dtype().is_float()) else {
            return self.graph().error("adaptive_avg_pool2d", &[self], "expected float data [N, C, H, W]");
        };
        if [h, w, oh, ow].contains(&0) {
            let why = format!("expected input and output sizes of at least 1; the output is [{oh}, {ow}]");
            return self.graph().error("adaptive_avg_pool2d", &[self], why);
        }
        if (oh, ow) == (1, 1) {
            return self.global_avg_pool2d();
        }
        if h.is_multiple_of(oh) && w.is_multiple_of(ow) {
            return self.avg_pool2d(Pool2d::new([h / oh, w / ow]));
        }
        if oh.saturating_mul(h).max(ow.saturating_mul(w)) > 1 << 24 {
            return self.graph().error("adaptive_avg_pool2d", &[self], "expected a smaller output size");
        }
        let to = |sizes: [usize; 3]| sizes.map(|size| size as isize);
        let rows = self.reshape(&to([n * c, h, w])).matmul(&self.graph().constant(averages(w, ow)));
        let both = self.graph().constant(averages(h, oh)).t().matmul(&rows);
        both.reshape(&[n, c, oh, ow].map(|size| size as isize))
    }

    /// Like [`Value::adaptive_avg_pool2d`], for data `[N, C, L]`: `[N, C, output]`.
    #[track_caller]
    pub fn adaptive_avg_pool1d(&self, output: usize) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        let &[n, c, l] = &self.shape()[..] else {
            return self.graph().error("adaptive_avg_pool1d", &[self], "expected f32 data [N, C, L]");
        };
        let y = self.reshape(&[n, c, 1, l].map(|size| size as isize)).adaptive_avg_pool2d([1, output]);
        if y.is_valid() { y.reshape(&[n, c, output].map(|size| size as isize)) } else { y }
    }
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, x: [usize; 4], to: [usize; 2]| {
        Case::new("adaptive_avg_pool2d", name, move |v| vec![v[0].adaptive_avg_pool2d(to)]).float("x", x)
    };
    vec![
        case("to one", [2, 3, 5, 7], [1, 1]),
        case("to a divisor", [2, 3, 6, 8], [3, 2]),
        case("to a non-divisor", [2, 3, 7, 10], [3, 4]),
        case("to a larger size", [1, 2, 2, 3], [5, 4]),
        case("rows only", [2, 2, 7, 4], [3, 4]),
        Case::new("adaptive_avg_pool1d", "to a non-divisor", |v| vec![v[0].adaptive_avg_pool1d(4)])
            .float("x", [2, 3, 11]),
    ]
}
