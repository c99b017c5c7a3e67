//! Quantisation: weights and activations as integers of up to 8 bits, with a scale per tensor, per channel, or per
//! block of 32 numbers.
//!
//! A number `x` becomes `q = clamp(round(x / scale) + zero)`, and `q` stands for `(q - zero) scale` (Jacob et al.,
//! *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, arXiv:1712.05877).
//! [`Scheme`] is the format; [`Calibration`] derives the scale from data.
//!
//! ```
//! use wgrad::quant::{Calibration, Scheme};
//! use wgrad::{DType, Device, Graph, Session, Tensor};
//! let weights = Tensor::new([2, 3], [0.5f32, -1.0, 0.25, 10.0, 20.0, -5.0])?;
//! let quantized = Scheme::int8().per_channel(0).quantize(&weights, Calibration::MinMax)?;
//! assert_eq!(quantized.values.to_f64(), [64.0, -127.0, 32.0, 64.0, 127.0, -32.0]);
//! // A product that reads a byte per weight.
//! let graph = Graph::new();
//! let x = graph.input("x", DType::F32, [1, 3]);
//! let y = x.matmul_quantized(&quantized.declare(&graph, "fc"));
//! let mut session = Session::new(Device::cpu());
//! let program = session.compile(&graph, &[&y])?;
//! let y = session.run(&program, &[("x", &Tensor::new([1, 3], [1.0f32, 1.0, 1.0])?)])?[0].to_f32();
//! assert!((y[0] + 0.25).abs() < 0.01 && (y[1] - 25.0).abs() < 0.2);
//! # Ok::<(), wgrad::Error>(())
//! ```

mod activations;
mod blocks;
mod model;

pub use activations::{ActivationRange, Observer, QuantizedInput};
pub use model::QuantizedModel;

use crate::ops::conv2d::Conv2d;
use crate::ops::quantized_matmul::BLOCK;
use crate::{DType, Error, Graph, Result, Shape, Tensor, Value};

/// How numbers are quantised.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::quant::{Calibration, Scheme};
/// assert_eq!(Scheme::int8().limits(), (-127.0, 127.0));
/// let x = Tensor::new([2, 2], [127.0f32, -64.0, 1.0, 0.5])?;
/// let rows = Scheme::int8().per_channel(0).quantize(&x, Calibration::MinMax)?.dequantize()?; // a scale per row
/// assert!(rows.to_f64().iter().zip(x.to_f64()).all(|(a, b)| (a - b).abs() <= 0.5 / 127.0));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Bits per number, 2 to 8.
    pub bits: u32,
    /// Whether the range is symmetric, so that `zero` is 0; otherwise it reaches from the minimum to the maximum.
    pub symmetric: bool,
    /// Which numbers share a scale.
    pub granularity: Granularity,
}

/// The numbers that share a scale. Example: [`Scheme`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Granularity {
    /// All.
    Tensor,
    /// Those of each position along this axis. The integers are stored as i8.
    Channel(usize),
    /// 32 neighbours in a row of a matrix `[N, K]`, for [`Value::quantized_matmul`]. Numbers of 4 or 8 bits are packed
    /// into words, and the scales are f16: a number takes 4.5 or 8.5 bits. Products with a single row of activations
    /// take as long as the weights take to read, so f32 scales would make those of 4 bits a tenth slower; and rounding
    /// a scale costs no accuracy, since the integers are chosen for the rounded one.
    Block,
}

/// How the range of represented numbers follows from data. Numbers beyond it are clamped. Example: [`Scheme`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Calibration {
    /// All numbers.
    MinMax,
    /// All but a share of the largest and smallest ones: with 99.9, one in a thousand is clamped.
    Percentile(f64),
    /// The share of the whole range, in steps of 1/64, with the smallest mean squared error; of a range that is not
    /// symmetric, the share of the upper end, then of the lower one.
    Mse,
}

impl Calibration {
    fn validate(self) -> std::result::Result<(), String> {
        match self {
            Calibration::Percentile(share) if !(share > 0.0 && share <= 100.0) => {
                Err(format!("a percentile is above 0 and at most 100, not {share}"))
            }
            _ => Ok(()),
        }
    }
}

/// A quantised tensor.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::quant::{Calibration, Scheme};
/// let x = Tensor::new([4], [-1.0f32, 0.0, 0.5, 1.0])?;
/// let q = Scheme::int8().quantize(&x, Calibration::MinMax)?;
/// assert_eq!(q.values.to_f64(), [-127.0, 0.0, 64.0, 127.0]); // one byte each
/// assert!((q.dequantize()?.to_f64()[2] - 64.0 / 127.0).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// How it was quantised.
    pub scheme: Scheme,
    /// The shape of the tensor.
    pub shape: Shape,
    /// The integers `q`, i8, in the shape of the tensor; of blocks, `q + 2^(bits - 1)`, packed into u32 as
    /// [`Value::quantized_matmul`] expects.
    pub values: Tensor,
    /// f32, `[]` or one number per channel in a shape that broadcasts: `[C, 1, ...]`; of blocks, f16
    /// `[N, K / 32 rounded up]`.
    pub scale: Tensor,
    /// The integer that stands for 0, f32; of blocks, that integer plus `2^(bits - 1)`, u8. In the shape of `scale`.
    pub zero: Tensor,
}

/// A quantised weight in a graph.
///
/// ```
/// use wgrad::quant::{Calibration, Scheme};
/// use wgrad::{Device, Graph, Session, Tensor};
/// let weight = Tensor::new([1, 2], [127.0f32, -64.0])?; // [out, in]
/// let weight = Scheme::int8().quantize(&weight, Calibration::MinMax)?;
/// let graph = Graph::new();
/// let weight = weight.declare(&graph, "fc.weight");
/// let x = graph.constant(Tensor::new([1, 2], [1.0f32, 2.0])?);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&x.matmul_quantized(&weight), &weight.dequantized()])?;
/// let outputs = session.run(&program, &[])?;
/// assert_eq!((outputs[0].to_f32(), outputs[1].to_f32()), (vec![-1.0], vec![127.0, -64.0]));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct QuantizedWeight {
    /// i8 `[out, ...]`; of blocks, u32.
    pub values: Value,
    /// f32, broadcasts to `values`; of blocks, f16 `[out, blocks]`.
    pub scale: Value,
    /// f32, broadcasts to `values`; of blocks, u8. `None` if it stands for 0 everywhere.
    pub zero: Option<Value>,
}

impl Scheme {
    /// 8 bits, symmetric, one scale.
    pub fn int8() -> Scheme {
        Scheme { bits: 8, symmetric: true, granularity: Granularity::Tensor }
    }

    /// 4 bits, symmetric, one scale.
    pub fn int4() -> Scheme {
        Scheme::int8().bits(4)
    }

    /// Sets the number of bits.
    pub fn bits(self, bits: u32) -> Scheme {
        Scheme { bits, ..self }
    }

    /// A range from the minimum to the maximum, with a zero point.
    pub fn affine(self) -> Scheme {
        Scheme { symmetric: false, ..self }
    }

    /// A scale for each element of an axis: 0 for the outputs of a layer's weight.
    pub fn per_channel(self, axis: usize) -> Scheme {
        Scheme { granularity: Granularity::Channel(axis), ..self }
    }

    /// A scale for each block of 32 numbers in a row of a matrix.
    pub fn per_block(self) -> Scheme {
        Scheme { granularity: Granularity::Block, ..self }
    }

    /// The smallest and the largest integer.
    pub fn limits(&self) -> (f64, f64) {
        let most = f64::from((1i32 << (self.bits.clamp(2, 8) - 1)) - 1);
        if self.symmetric { (-most, most) } else { (-most - 1.0, most) }
    }

    /// Quantises a tensor of finite floats.
    ///
    /// # Errors
    /// [`Error::Input`] for other bits than 2 to 8, an axis that does not exist, an empty tensor, numbers that are not
    /// finite, and a percentile outside (0, 100]; for blocks also if the tensor is not a matrix, the bits are not 4 or
    /// 8, or a scale is too large for f16.
    pub fn quantize(&self, x: &Tensor, calibration: Calibration) -> Result<Quantized> {
        let complain = |why: String| Error::Input(format!("cannot quantise {}: {why}", x.ty()));
        let shape = x.shape();
        self.fits(shape).map_err(complain)?;
        calibration.validate().map_err(complain)?;
        let numbers = x.to_f64();
        if !x.dtype().is_float() || numbers.is_empty() || numbers.iter().any(|x| !x.is_finite()) {
            return Err(complain("expected finite floats".to_owned()));
        }
        let mut parts = vec![Vec::new(); self.scale_shape(shape).numel()];
        for (at, &x) in numbers.iter().enumerate() {
            parts[self.part(shape, at)].push(x);
        }
        let mut steps: Vec<(f64, f64)> = parts.iter_mut().map(|part| self.fit(part, calibration)).collect();
        if self.granularity == Granularity::Block {
            blocks::round_scales(&mut steps).map_err(complain)?;
        }
        let values = numbers.iter().enumerate().map(|(at, &x)| self.quantized(x, steps[self.part(shape, at)]) as i8);
        self.stored(shape, values.collect(), &steps)
    }

    /// The quantised tensor of these integers, scales and zero points.
    fn stored(self, shape: &Shape, values: Vec<i8>, steps: &[(f64, f64)]) -> Result<Quantized> {
        let parts = self.scale_shape(shape);
        let scale = Tensor::new(&parts, steps.iter().map(|step| step.0 as f32).collect::<Vec<f32>>())?;
        let (values, scale, zero) = match self.granularity {
            Granularity::Block => {
                let zeros: Vec<u8> = steps.iter().map(|step| (step.1 + self.offset()) as u8).collect();
                let words = blocks::pack(&values, &zeros, shape[1], self.bits);
                (words, scale.cast(DType::F16), Tensor::new(&parts, zeros)?)
            }
            _ => {
                let zeros: Vec<f32> = steps.iter().map(|step| step.1 as f32).collect();
                (Tensor::new(shape, values)?, scale, Tensor::new(&parts, zeros)?)
            }
        };
        Ok(Quantized { scheme: self, shape: shape.clone(), values, scale, zero })
    }

    /// Whether a tensor of this shape can be quantised.
    fn fits(&self, shape: &Shape) -> std::result::Result<(), String> {
        if !(2..=8).contains(&self.bits) {
            return Err(format!("expected 2 to 8 bits, not {}", self.bits));
        }
        match self.granularity {
            Granularity::Channel(axis) if axis >= shape.rank() => Err(format!("there is no axis {axis}")),
            Granularity::Block if shape.rank() != 2 || shape[1] == 0 => {
                Err("blocks are those of the rows of a matrix [N, K]".to_owned())
            }
            Granularity::Block if ![4, 8].contains(&self.bits) => {
                Err(format!("blocks have numbers of 4 or 8 bits, not {}", self.bits))
            }
            _ => Ok(()),
        }
    }

    /// The shape of the scales of a tensor: `[]`, `[1, C, 1]`, or `[N, blocks]`.
    fn scale_shape(&self, of: &Shape) -> Shape {
        match self.granularity {
            Granularity::Tensor => Shape::scalar(),
            Granularity::Channel(axis) => {
                (0..of.rank()).map(|other| if other == axis { of[axis] } else { 1 }).collect()
            }
            Granularity::Block => [of[0], of[1].div_ceil(BLOCK)].into(),
        }
    }

    /// The number of the scale of an element.
    fn part(&self, of: &Shape, at: usize) -> usize {
        match self.granularity {
            Granularity::Tensor => 0,
            Granularity::Channel(axis) => at / of[axis + 1..].iter().product::<usize>() % of[axis],
            Granularity::Block => at / of[1] * of[1].div_ceil(BLOCK) + at % of[1] / BLOCK,
        }
    }

    /// What is added to the integers and zero points that are stored: those of blocks are unsigned.
    fn offset(&self) -> f64 {
        match self.granularity {
            Granularity::Block => f64::from(1 << (self.bits - 1)),
            _ => 0.0,
        }
    }

    /// Scale, as f32, and zero point of at least one sample.
    fn fit(&self, samples: &mut [impl Sample], calibration: Calibration) -> (f64, f64) {
        samples.sort_unstable_by(|a, b| a.number().total_cmp(&b.number()));
        let (low, high) = (samples[0].number().min(0.0), samples[samples.len() - 1].number().max(0.0));
        match calibration {
            Calibration::MinMax => self.step(low, high),
            Calibration::Percentile(share) => {
                // Half of the rest at either end, or of the magnitudes.
                let cut = ((100.0 - share) * count(samples) as f64 / 100.0 + 1e-6) as u64;
                if self.symmetric {
                    samples.sort_unstable_by(|a, b| b.number().abs().total_cmp(&a.number().abs()));
                    let most = after(samples.iter(), cut).abs();
                    return self.step(-most, most);
                }
                let (low, high) = (after(samples.iter(), cut / 2), after(samples.iter().rev(), cut.div_ceil(2)));
                self.step(low.min(0.0), high.max(0.0))
            }
            Calibration::Mse => {
                let error = |(scale, zero): (f64, f64)| -> f64 {
                    let of = |x: f64| (x - (self.quantized(x, (scale, zero)) - zero) * scale).powi(2);
                    samples.iter().map(|sample| of(sample.number()) * sample.count() as f64).sum()
                };
                let best = |step: &dyn Fn(f64) -> (f64, f64)| {
                    let parts = (8..=64).map(|part| f64::from(part) / 64.0);
                    let errors = parts.map(|part| (part, error(step(part))));
                    errors.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(1.0, |(part, _)| part)
                };
                if self.symmetric {
                    let part = best(&|part| self.step(low * part, high * part));
                    return self.step(low * part, high * part);
                }
                // One end after the other.
                let high = high * best(&|part| self.step(low, high * part));
                self.step(low * best(&|part| self.step(low * part, high)), high)
            }
        }
    }

    /// Scale, as f32, and zero point for a range that includes 0.
    fn step(&self, low: f64, high: f64) -> (f64, f64) {
        let (least, most) = self.limits();
        let width = if self.symmetric { 2.0 * high.max(-low) } else { high - low };
        let scale = f64::from((width / (most - least)) as f32);
        // Numbers that are all 0, or too small for an f32 scale.
        if scale < f64::from(f32::MIN_POSITIVE) {
            return (1.0, 0.0);
        }
        let zero = if self.symmetric { 0.0 } else { (least - low / scale).round_ties_even().clamp(least, most) };
        (scale, zero)
    }

    fn quantized(&self, x: f64, (scale, zero): (f64, f64)) -> f64 {
        let (least, most) = self.limits();
        ((x / scale).round_ties_even() + zero).clamp(least, most)
    }
}

/// A number, or several equal ones.
trait Sample: Copy {
    fn number(self) -> f64;
    fn count(self) -> u64;
}

impl Sample for f64 {
    fn number(self) -> f64 {
        self
    }
    fn count(self) -> u64 {
        1
    }
}

/// How many numbers samples are.
fn count(samples: &[impl Sample]) -> u64 {
    samples.iter().map(|sample| sample.count()).sum()
}

/// The number that follows the first `skipped` ones; the last, if there are no more.
fn after<'a, S: Sample + 'a>(samples: impl Iterator<Item = &'a S>, skipped: u64) -> f64 {
    let (mut passed, mut last) = (0, 0.0);
    for sample in samples {
        (passed, last) = (passed + sample.count(), sample.number());
        if passed > skipped {
            break;
        }
    }
    last
}

impl Quantized {
    /// The numbers that the integers stand for, f32.
    ///
    /// # Errors
    /// [`Error::Input`] if shapes do not match the scheme.
    pub fn dequantize(&self) -> Result<Tensor> {
        self.validate_shapes().map_err(Error::Input)?;
        let (scale, zero) = (self.scale.to_f64(), self.zero.to_f64());
        let number = |(at, q): (usize, f64)| {
            let part = self.scheme.part(&self.shape, at);
            ((q + self.scheme.offset() - zero[part]) * scale[part]) as f32
        };
        Tensor::new(&self.shape, self.integers().into_iter().enumerate().map(number).collect::<Vec<f32>>())
    }

    /// The integers `q`, in the shape of the tensor.
    fn integers(&self) -> Vec<f64> {
        match self.scheme.granularity {
            Granularity::Block => blocks::unpack(&self.values, self.shape[1], self.scheme.bits),
            _ => self.values.to_f64(),
        }
    }

    /// Bytes of the variables of [`Quantized::declare`].
    pub fn bytes(&self) -> usize {
        let zero = if self.is_symmetric() { 0 } else { self.zero.ty().bytes() };
        self.values.ty().bytes() + self.scale.ty().bytes() + zero
    }

    /// Declares the variables `NAME.values`, `NAME.scale` and, unless no number is shifted, `NAME.zero` with these
    /// initial values.
    #[track_caller]
    pub fn declare(&self, graph: &Graph, name: &str) -> QuantizedWeight {
        let variable = |part: &str, tensor: &Tensor| graph.variable(&format!("{name}.{part}"), tensor.clone());
        graph.at(std::panic::Location::caller(), || QuantizedWeight {
            values: variable("values", &self.values),
            scale: variable("scale", &self.scale),
            zero: (!self.is_symmetric()).then(|| variable("zero", &self.zero)),
        })
    }
}

impl QuantizedWeight {
    /// The weight in f32, `(values - zero) scale`.
    ///
    /// # Errors
    /// At compile time, if it is quantised in blocks: only products unpack them.
    #[track_caller]
    pub fn dequantized(&self) -> Value {
        if self.is_packed() {
            let why = "blocks are unpacked by matmul_quantized() only; on the host, use Quantized::dequantize()";
            return self.values.graph().error("dequantized", &[&self.values, &self.scale], why);
        }
        self.shifted() * &self.scale
    }

    /// Whether it is quantised in blocks.
    fn is_packed(&self) -> bool {
        self.values.dtype() == DType::U32
    }

    /// `values - zero`; without a zero point, a view that kernels convert as they load it.
    #[track_caller]
    fn shifted(&self) -> Value {
        let values = self.values.cast(DType::F32);
        match &self.zero {
            Some(zero) => values - zero,
            None => values,
        }
    }

    /// The scale of each output, `[out]`, or `[]`.
    fn output_scale(&self) -> Value {
        match self.scale.shape().numel() {
            1 => self.scale.reshape(&[]),
            _ => self.scale.reshape(&[-1]),
        }
    }

    /// Whether products of integers can be summed in i32, at most so many of them.
    fn fits_integers(&self, terms: usize) -> std::result::Result<(), String> {
        let is_matrix = self.values.shape().rank() == 2 && !self.is_packed();
        if !is_matrix || !self.is_per_output() || self.zero.is_some() {
            return Err("expected a symmetric weight [out, in] with one scale, or one per output".to_owned());
        }
        if self.values.dim(1) > terms {
            return Err(format!("expected at most {terms} inputs, so that sums fit i32"));
        }
        Ok(())
    }

    /// Whether it can be the weight of a convolution.
    fn fits_convolution(&self) -> std::result::Result<(), &'static str> {
        if self.is_packed() || !self.is_per_output() || self.zero.is_some() {
            return Err("expected a symmetric weight [O, C / groups, KH, KW] with one scale, or one per output");
        }
        Ok(())
    }

    /// The scale of each output of a convolution, `[1, O, 1, 1]`, or `[]`.
    fn channel_scale(&self) -> Value {
        match self.scale.shape().numel() {
            1 => self.scale.reshape(&[]),
            _ => self.scale.reshape(&[1, -1, 1, 1]),
        }
    }

    /// Whether there is one scale, or one per output.
    fn is_per_output(&self) -> bool {
        let first = |x: &Value| {
            let n = x.shape().numel();
            n == 1 || (n == self.values.dim(0) && x.shape().rank() == self.values.shape().rank() && x.dim(0) == n)
        };
        first(&self.scale) && self.zero.iter().all(first)
    }
}

impl Value {
    /// `x W^T` with a quantised weight `[out, in]` and a scale per tensor, output, or block: `[.., in]` to `[.., out]`.
    /// The sums are in f32. The weight is read as bytes and scaled after the sum; blocks are read as
    /// [`Value::quantized_matmul`] does.
    ///
    /// # Errors
    /// At compile time, if the sizes do not match or the scale is that of another axis.
    #[track_caller]
    pub fn matmul_quantized(&self, weight: &QuantizedWeight) -> Value {
        if weight.is_packed() {
            return self.quantized_matmul(&weight.values, &weight.scale, weight.zero.as_ref());
        }
        if let Err(invalid) = self.graph().admit("matmul_quantized", &[self, &weight.values, &weight.scale]) {
            return invalid;
        }
        if weight.values.shape().rank() != 2 || !weight.is_per_output() {
            let why = "expected a weight [out, in] with one scale, or one per output";
            return self.graph().error("matmul_quantized", &[self, &weight.values, &weight.scale], why);
        }
        let q = weight.values.cast(DType::F32);
        let product = self.matmul(&q.t());
        let centred = match &weight.zero {
            // sum (q - zero) x = sum q x - zero sum x
            Some(zero) => {
                let zero = if zero.shape().numel() == 1 { zero.reshape(&[]) } else { zero.reshape(&[-1]) };
                product - self.widen().sum(&[-1], true) * zero
            }
            None => product,
        };
        centred * weight.output_scale()
    }

    /// [`Value::conv2d`] with a symmetric quantised weight `[O, C / groups, KH, KW]` and a scale per tensor or output.
    /// The sums are in f32; the weight is read as bytes and scaled after the sum.
    ///
    /// # Errors
    /// As [`Value::conv2d`], and if the scale is that of another axis or the weight has a zero point.
    #[track_caller]
    pub fn conv2d_quantized(&self, weight: &QuantizedWeight, options: Conv2d) -> Value {
        if let Err(invalid) = self.graph().admit("conv2d_quantized", &[self, &weight.values, &weight.scale]) {
            return invalid;
        }
        if let Err(why) = weight.fits_convolution() {
            return self.graph().error("conv2d_quantized", &[self, &weight.values, &weight.scale], why);
        }
        self.conv2d(&weight.values.cast(DType::F32), None, options) * weight.channel_scale()
    }

    /// [`Value::matmul_quantized`] with activations that are quantised, too, each row with a scale of its own from its
    /// largest magnitude (*dynamic range*): the products are of 8-bit integers, and their sums exact in i32. The weight
    /// must be symmetric.
    #[track_caller]
    pub fn matmul_dynamic(&self, weight: &QuantizedWeight) -> Value {
        if let Err(invalid) = self.graph().admit("matmul_dynamic", &[self, &weight.values, &weight.scale]) {
            return invalid;
        }
        // 127^2 times this many fits 31 bits.
        if let Err(why) = weight.fits_integers(133_144) {
            return self.graph().error("matmul_dynamic", &[self, &weight.values, &weight.scale], why);
        }
        let x = self.widen();
        // A row of zeros has scale 0; any other divisor keeps it 0.
        let most = x.abs().max(&[-1], true).stop_gradient();
        let scale = most.maximum(&most.full_like(1e-30)) * (1.0 / 127.0);
        let q = (&x / &scale).round().cast(DType::I8);
        q.matmul(&weight.values.t()).cast(DType::F32) * scale * weight.output_scale()
    }

    /// Rounds to the values that a scheme can represent, for quantisation-aware training. The gradient is that of a
    /// clamp to the range, as if nothing were rounded (*straight-through*; Bengio, Leonard and Courville,
    /// arXiv:1308.3432). `scale` and `zero` broadcast to this value.
    #[track_caller]
    pub fn fake_quantize(&self, scheme: Scheme, scale: &Value, zero: &Value) -> Value {
        if let Err(invalid) = self.graph().admit("fake_quantize", &[self, scale, zero]) {
            return invalid;
        }
        if !(2..=8).contains(&scheme.bits) {
            let why = format!("expected 2 to 8 bits, not {}", scheme.bits);
            return self.graph().error("fake_quantize", &[self, scale, zero], why);
        }
        let (least, most) = scheme.limits();
        self.widely(|x| {
            let bound = |limit: f64| (zero.neg() + limit) * scale;
            let (low, high) = (bound(least).broadcast_to(x.shape()), bound(most).broadcast_to(x.shape()));
            let inside = x.ge(&low).and(&x.le(&high));
            let clamped = inside.where_(x, &x.maximum(&low).minimum(&high).stop_gradient());
            // A scale of 0, of numbers that are all 0, represents nothing else.
            let step = scale.maximum(&scale.full_like(1e-30));
            let rounded = (&clamped / step).round() * scale;
            &clamped + (rounded - &clamped).stop_gradient()
        })
    }
}
