//! Histograms of errors in ulps: how accurate a device is, not only whether it is accurate enough.

/// Upper ends of the bins, in ulps. The first bin holds exact results, the second correctly rounded ones; one
/// more bin follows the last end.
pub const ENDS: [f64; 10] = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 4096.0];

/// Counts of float elements by their error, in ulps of f32 at the expected value.
///
/// ```
/// use wgrad::check::Histogram;
/// let mut errors = Histogram::default();
/// for got in [1.0, 1.0 + f64::from(f32::EPSILON), 1.0] {
///     errors.add(got, 1.0);
/// }
/// assert_eq!(errors.total(), 3);
/// assert!(errors.quantile(0.5) < 1.0 && errors.quantile(1.0) >= 1.0); // in units in the last place
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Elements in each bin: up to [`ENDS`], then beyond.
    pub counts: [u64; ENDS.len() + 1],
    /// The largest error; infinite if the device gave NaN or an infinity for a number, or a number for one.
    pub most: f64,
}

impl Histogram {
    /// Counts one element.
    pub fn add(&mut self, got: f64, want: f64) {
        let ulps = ulps(got, want);
        let bin = ENDS.iter().position(|&end| ulps <= end).unwrap_or(ENDS.len());
        self.counts[bin] += 1;
        self.most = self.most.max(ulps);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.most = self.most.max(other.most);
    }

    /// Number of elements counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper end of the first bin up to which at least this share of the elements lies; infinity for the
    /// last bin, 0 without elements.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total() as f64 * share).ceil() as u64;
        let mut sum = 0;
        let bin = self.counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        bin.map_or(0.0, |bin| ENDS.get(bin).copied().unwrap_or(f64::INFINITY))
    }
}

/// The difference in ulps of f32 at `want`. Below the smallest normal number, where WGSL lets devices flush to
/// zero, the unit is that number. Infinite if only one of the two is NaN or infinite.
pub fn ulps(got: f64, want: f64) -> f64 {
    if super::same(got, want) {
        return 0.0;
    }
    let difference = (got - want).abs() / ulp(want);
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// The distance from `x`, as f32, to the next number.
fn ulp(x: f64) -> f64 {
    let x = x.abs().min(f64::from(f32::MAX)) as f32;
    if x < f32::MIN_POSITIVE {
        return f64::from(f32::MIN_POSITIVE);
    }
    2f64.powi((x.to_bits() >> 23) as i32 - 150)
}
