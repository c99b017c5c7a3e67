//! Activations as integers whose scale was fixed before: observers of batches, and products of integers.

use super::{Calibration, Granularity, QuantizedWeight, Sample, Scheme};
use crate::ops::conv2d::Conv2d;
use crate::{DType, Error, Graph, Result, Shape, Tensor, Value};

/// Collects the distribution of an activation over batches: its extremes, and a histogram for the other ranges of
/// [`Calibration`].
///
/// Make the activations outputs of a program, run it on a few hundred representative examples, and observe each of
/// them. The histogram has 8,192 bins from `-r` to `r`, where `r` is the power of two above the largest magnitude; each
/// bin keeps its mean. So a percentile is off by at most `r / 4096`, and min-max is exact.
///
/// ```
/// use wgrad::quant::{Calibration, Observer, Scheme};
/// use wgrad::{DType, Device, Graph, Session, Tensor};
/// let weight = Tensor::new([2, 3], [0.5f32, -1.0, 0.25, 1.0, 2.0, -0.5])?;
/// let weight = Scheme::int8().per_channel(0).quantize(&weight, Calibration::MinMax)?;
/// // Activations from 0 to 5.1: steps of 0.02, and -128 stands for 0.
/// let mut observer = Observer::new();
/// for batch in [[0.0f32, 0.7, 5.1], [2.0, 1.3, 0.1]] {
///     observer.observe(&Tensor::new([1, 3], batch)?)?;
/// }
/// let range = observer.range(Scheme::int8().affine(), Calibration::MinMax)?;
/// assert_eq!((range.scale, range.zero), (0.02, -128.0));
/// // The sums of products are exact, in integers.
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [1, 3]);
/// let y = x.matmul_static(&range.declare(&graph, "fc.input"), &weight.declare(&graph, "fc.weight"));
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = session.run(&program, &[("x", &Tensor::new([1, 3], [1.0f32, 2.0, 3.0])?)])?[0].to_f32();
/// assert!((y[0] + 0.75).abs() < 0.03 && (y[1] - 3.5).abs() < 0.03);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Observer {
    low: f64,
    high: f64,
    /// The histogram reaches from `-reach` to `reach`, which is a power of two; 0 until a number is not 0.
    reach: f64,
    bins: Vec<Bin>,
}

/// How many numbers fell into a bin, and their sum.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: u64,
    sum: f64,
}

/// The number of bins; divisible by 4.
const BINS: usize = 8192;

/// A number, and how often it occurs.
impl Sample for (f64, u64) {
    fn number(self) -> f64 {
        self.0
    }
    fn count(self) -> u64 {
        self.1
    }
}

/// The fixed range of a quantised activation (*static range*), as one scale and one zero point.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::quant::{Calibration, Observer, Scheme};
/// let mut observer = Observer::new();
/// observer.observe(&Tensor::new([3], [0.0f32, 0.7, 5.1])?)?;
/// let range = observer.range(Scheme::int8().affine(), Calibration::MinMax)?;
/// assert_eq!((range.scale, range.zero), (0.02, -128.0)); // steps of 0.02 from 0 to 5.1
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationRange {
    /// The format, with [`Granularity::Tensor`].
    pub scheme: Scheme,
    /// The step.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero: f32,
}

/// The range of an activation in a graph. Example: [`Observer`].
#[derive(Clone, Debug)]
pub struct QuantizedInput {
    /// The format.
    pub scheme: Scheme,
    /// f32 `[]`.
    pub scale: Value,
    /// f32 `[]`; `None` if it is 0.
    pub zero: Option<Value>,
}

impl Default for Observer {
    fn default() -> Observer {
        Observer { low: f64::INFINITY, high: f64::NEG_INFINITY, reach: 0.0, bins: vec![Bin::default(); BINS] }
    }
}

impl Observer {
    /// One that has seen nothing.
    pub fn new() -> Observer {
        Observer::default()
    }

    /// Adds the numbers of a batch, of any shape.
    ///
    /// # Errors
    /// [`Error::Input`] for numbers that are not finite floats; then none is added.
    pub fn observe(&mut self, x: &Tensor) -> Result<()> {
        let numbers = x.to_f64();
        if !x.dtype().is_float() || numbers.iter().any(|x| !x.is_finite()) {
            return Err(Error::Input(format!("cannot observe {}: expected finite floats", x.ty())));
        }
        for &x in &numbers {
            (self.low, self.high) = (self.low.min(x), self.high.max(x));
        }
        let most = numbers.iter().fold(0f64, |most, x| most.max(x.abs()));
        while most >= self.reach && most > 0.0 {
            self.widen(most);
        }
        for x in numbers {
            let at = self.bin(x);
            let bin = &mut self.bins[at];
            (bin.count, bin.sum) = (bin.count + 1, bin.sum + x);
        }
        Ok(())
    }

    /// The range of all numbers so far.
    ///
    /// # Errors
    /// [`Error::Input`] if there are none, for a scheme with several scales or other bits than 2 to 8, and for a
    /// percentile outside (0, 100].
    pub fn range(&self, scheme: Scheme, calibration: Calibration) -> Result<ActivationRange> {
        let complain = |why: String| Error::Input(format!("cannot quantise an activation: {why}"));
        calibration.validate().map_err(complain)?;
        let mut samples = self.samples();
        if samples.is_empty() {
            return Err(complain("nothing was observed; call observe() first".to_owned()));
        }
        check_scheme(scheme).map_err(complain)?;
        let (scale, zero) = scheme.fit(&mut samples, calibration);
        Ok(ActivationRange { scheme, scale: scale as f32, zero: zero as f32 })
    }

    /// Doubles the reach, and merges each two bins; the first time, sets the reach.
    fn widen(&mut self, most: f64) {
        if self.reach == 0.0 {
            // The power of two at or below, from which doubling proceeds. All numbers so far are 0.
            self.reach = most.log2().floor().exp2();
            return;
        }
        self.reach *= 2.0;
        let old = std::mem::replace(&mut self.bins, vec![Bin::default(); BINS]);
        for (number, bin) in old.into_iter().enumerate() {
            let wide = &mut self.bins[BINS / 4 + number / 2];
            (wide.count, wide.sum) = (wide.count + bin.count, wide.sum + bin.sum);
        }
    }

    /// The number of the bin of a number.
    fn bin(&self, x: f64) -> usize {
        if self.reach == 0.0 {
            return BINS / 2;
        }
        (((x / self.reach + 1.0) * (BINS / 2) as f64) as usize).min(BINS - 1)
    }

    /// The mean of each bin, and the extremes as numbers of their own.
    fn samples(&self) -> Vec<(f64, u64)> {
        let mut bins = self.bins.clone();
        let mut samples = Vec::new();
        for extreme in [self.low, self.high].into_iter().filter(|x| x.is_finite()) {
            let bin = &mut bins[self.bin(extreme)];
            // Not if the lowest is the highest.
            if bin.count > 0 {
                (bin.count, bin.sum) = (bin.count - 1, bin.sum - extreme);
                samples.push((extreme, 1));
            }
        }
        let filled = bins.into_iter().filter(|bin| bin.count > 0);
        // A sum is rounded; a mean is not beyond the extremes.
        samples.extend(filled.map(|bin| ((bin.sum / bin.count as f64).clamp(self.low, self.high), bin.count)));
        samples
    }
}

/// One number, f32 `[]`.
pub(super) fn single(x: f32) -> Tensor {
    Tensor::of(&Shape::scalar(), vec![x])
}

/// Whether an activation can have this format.
fn check_scheme(scheme: Scheme) -> std::result::Result<(), String> {
    if scheme.granularity != Granularity::Tensor {
        return Err("its range has one scale; expected Granularity::Tensor".to_owned());
    }
    match scheme.bits {
        2..=8 => Ok(()),
        bits => Err(format!("expected 2 to 8 bits, not {bits}")),
    }
}

impl ActivationRange {
    /// Whether scale and zero point match the scheme.
    pub(super) fn validate(&self) -> std::result::Result<(), String> {
        let ActivationRange { scheme, scale, zero } = *self;
        check_scheme(scheme)?;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(format!("`scale` is {scale}; expected a positive number"));
        }
        let (least, most) = if scheme.symmetric { (0.0, 0.0) } else { scheme.limits() };
        if zero.fract() != 0.0 || !(least..=most).contains(&f64::from(zero)) {
            return Err(format!("`zero` is {zero}; expected an integer from {least} to {most}"));
        }
        Ok(())
    }

    /// Declares the variables `NAME.scale` and, unless it is 0, `NAME.zero` with these initial values.
    ///
    /// # Errors
    /// At compile time, if the scheme has several scales, the scale is not a positive number, or the zero point is not
    /// an integer of the scheme.
    #[track_caller]
    pub fn declare(&self, graph: &Graph, name: &str) -> QuantizedInput {
        let location = std::panic::Location::caller();
        if let Err(why) = self.validate() {
            let scale = graph.error_at(location, "declare", &[], format!("`{name}`: {why}"));
            return QuantizedInput { scheme: self.scheme, scale, zero: None };
        }
        let variable = |part: &str, number: f32| graph.variable(&format!("{name}.{part}"), single(number));
        graph.at(location, || QuantizedInput {
            scheme: self.scheme,
            scale: variable("scale", self.scale),
            zero: (self.zero != 0.0).then(|| variable("zero", self.zero)),
        })
    }
}

impl QuantizedInput {
    /// The values that an op with this weight takes.
    fn with<'a>(&'a self, x: &'a Value, weight: &'a QuantizedWeight) -> Vec<&'a Value> {
        [x, &self.scale, &weight.values, &weight.scale].into_iter().chain(&self.zero).collect()
    }
}

impl Value {
    /// The integers `q = clamp(round(x / scale) + zero)` of a range, i8. Of two equally near integers, the even one.
    /// NaN becomes the integer 0. There is no gradient; see [`Value::fake_quantize`].
    #[track_caller]
    pub fn quantize(&self, range: &QuantizedInput) -> Value {
        let inputs: Vec<&Value> = [self, &range.scale].into_iter().chain(&range.zero).collect();
        if let Err(invalid) = self.graph().admit("quantize", &inputs) {
            return invalid;
        }
        let steps = (self.widen() / &range.scale).round();
        let q = match &range.zero {
            Some(zero) => steps + zero,
            None => steps,
        };
        let (least, most) = range.scheme.limits();
        q.clamp(least, most).cast(DType::I8)
    }

    /// `x W^T` with activations in a fixed range (*static range*), `[.., in]` to `[.., out]`, f32: the products are of
    /// 8-bit integers, and their sums exact in i32. The weight `[out, in]` must be symmetric, with one scale or one per
    /// output.
    ///
    /// Numbers beyond the range are clamped. With a zero point, each run also adds up the rows of the weight, because
    /// `sum (q - zero) w = sum q w - zero sum w`.
    ///
    /// # Errors
    /// At compile time, if sizes do not match, for any other weight, and for more than 66,311 inputs, whose sums may
    /// exceed i32.
    #[track_caller]
    pub fn matmul_static(&self, range: &QuantizedInput, weight: &QuantizedWeight) -> Value {
        let inputs = range.with(self, weight);
        if let Err(invalid) = self.graph().admit("matmul_static", &inputs) {
            return invalid;
        }
        // 255 * 127 times this many fits 31 bits.
        if let Err(why) = weight.fits_integers(66_311) {
            return self.graph().error("matmul_static", &inputs, why);
        }
        let product = self.quantize(range).matmul(&weight.values.t());
        let centred = match &range.zero {
            Some(zero) => product - weight.values.sum(&[1], false) * zero.cast(DType::I32),
            None => product,
        };
        centred.cast(DType::F32) * (&range.scale * weight.output_scale())
    }

    /// [`Value::conv2d`] with activations in a fixed range (*static range*) and a symmetric weight
    /// `[O, C / groups, KH, KW]` with one scale, or one per output. Products and sums are those of integers, in f32:
    /// exact up to 2^24, then rounded. Padding is 0.
    ///
    /// # Errors
    /// As [`Value::conv2d`], and for any other weight.
    #[track_caller]
    pub fn conv2d_static(&self, range: &QuantizedInput, weight: &QuantizedWeight, options: Conv2d) -> Value {
        let inputs = range.with(self, weight);
        if let Err(invalid) = self.graph().admit("conv2d_static", &inputs) {
            return invalid;
        }
        if let Err(why) = weight.fits_convolution() {
            return self.graph().error("conv2d_static", &inputs, why);
        }
        let q = self.quantize(range).cast(DType::F32);
        let centred = match &range.zero {
            Some(zero) => q - zero,
            None => q,
        };
        let product = centred.conv2d(&weight.values.cast(DType::F32), None, options);
        product * (&range.scale * weight.channel_scale())
    }
}
