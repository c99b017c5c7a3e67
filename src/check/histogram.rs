//! Histograms of errors in ulps: how accurate a device is, not only whether it is accurate enough.

/// Upper ends of the bins, in ulps. The first bin holds exact results, the second correctly rounded ones; one
/// more bin follows the last end.
pub const ENDS: [f64; 10] = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 4096.0];

/// Counts of float elements by their error, in ulps of f32 at the expected value.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulps_follow_the_exponent() {
        let next = |x: f32| f64::from(f32::from_bits(x.to_bits() + 1));
        for x in [1.0f32, 1.5, 3.0, 1e-30, 1e30, f32::MIN_POSITIVE] {
            assert_eq!(ulps(next(x), f64::from(x)), 1.0, "{x}");
            assert_eq!(ulps(-next(x), -f64::from(x)), 1.0, "{x}");
        }
        assert_eq!(ulps(0.0, 1e-40).ceil(), 1.0, "a subnormal may be flushed");
        assert_eq!((ulps(f64::INFINITY, f64::INFINITY), ulps(f64::NAN, f64::NAN)), (0.0, 0.0));
        for (got, want) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.0, f64::INFINITY), (1.0, f64::NAN)] {
            assert_eq!(ulps(got, want), f64::INFINITY, "{got} {want}");
        }
    }

    #[test]
    fn bins_and_quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0.0);
        let unit = f64::from(f32::EPSILON);
        (0..98).for_each(|_| histogram.add(1.0, 1.0));
        histogram.add(1.0 + 3.0 * unit, 1.0);
        assert_eq!((histogram.quantile(0.98), histogram.quantile(0.99)), (0.0, 4.0));
        let mut other = Histogram::default();
        other.add(f64::NAN, 1.0);
        histogram.merge(&other);
        assert_eq!((histogram.total(), histogram.counts[0], histogram.counts[ENDS.len()]), (100, 98, 1));
        assert_eq!((histogram.quantile(1.0), histogram.most), (f64::INFINITY, f64::INFINITY));
    }
}
