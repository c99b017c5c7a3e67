//! Values without inputs (constants, iota, random bits), casts, and dropout.

use crate::op::{Arg, Backward, Bits, Case, Fill, Lowering, Nan, Op, Pointwise, Rounding};
use crate::{DType, Data, Graph, Shape, Tensor, TensorType, Value};

/// Fills a tensor with one number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Full {
    value: Bits,
    ty: TensorType,
}

impl Full {
    pub(crate) fn new(value: f64, ty: TensorType) -> Full {
        Full { value: Bits(value), ty }
    }

    /// The number as a pointwise argument, rounded to the type.
    pub(crate) fn arg(&self) -> Arg {
        match self.ty.dtype {
            DType::F32 => Arg::F32(self.value.0),
            DType::I32 => Arg::I32(self.value.0 as i32),
            DType::U32 => Arg::U32(self.value.0 as u32),
            DType::Bool => Arg::U32(u32::from(self.value.0 != 0.0)),
        }
    }
}

impl Op for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn infer(&self, _: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        self.ty.dtype.check(self.value.0)?;
        Ok(vec![self.ty.clone()])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        Vec::new()
    }

    fn reference(&self, _: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        vec![Tensor::of(&outputs[0].shape, outputs[0].dtype.filled(self.value.0, outputs[0].shape.numel()))]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        if self.ty.dtype.rounds(self.value.0) { Rounding::Ulps(0.5, 0.0) } else { Rounding::Exact }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Pointwise(Pointwise { function: "full".into(), args: vec![self.arg()] })
    }

    fn fill_value(&self) -> Option<f64> {
        Some(self.value.0)
    }
}

/// The index along one axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Iota {
    ty: TensorType,
    axis: usize,
}

impl Iota {
    /// The stride and the size of the axis.
    fn steps(&self) -> (usize, usize) {
        (self.ty.shape[self.axis + 1..].iter().product(), self.ty.shape[self.axis])
    }
}

impl Op for Iota {
    fn name(&self) -> &'static str {
        "iota"
    }

    fn infer(&self, _: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if self.axis >= self.ty.shape.rank() || self.ty.dtype == DType::Bool {
            return Err(format!("expected numbers and an axis of the shape, not axis {} of {}", self.axis, self.ty));
        }
        Ok(vec![self.ty.clone()])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        Vec::new()
    }

    fn reference(&self, _: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let (inner, size) = self.steps();
        let count = (0..outputs[0].shape.numel()).map(|i| i / inner.max(1) % size.max(1));
        let data = match outputs[0].dtype {
            DType::F32 => Data::F64(count.map(|i| i as f64).collect()),
            DType::I32 => Data::I32(count.map(|i| i as i32).collect()),
            _ => Data::U32(count.map(|i| i as u32).collect()),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        // f32 represents whole numbers exactly up to 2^24.
        let rounds = self.ty.dtype == DType::F32 && self.steps().1 > 1 << 24;
        if rounds { Rounding::Ulps(0.5, 0.0) } else { Rounding::Exact }
    }

    fn lowering(&self) -> Lowering<'_> {
        let (inner, size) = self.steps();
        Lowering::Pointwise(Pointwise {
            function: "iota".into(),
            args: vec![Arg::Index, Arg::U32(inner as u32), Arg::U32(size as u32)],
        })
    }
}

/// Converts the element type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cast {
    to: DType,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![TensorType::new(self.to, &inputs[0].shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![(g.dy().dtype() == g.x(0).dtype()).then(|| g.dy())]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let x = inputs[0];
        let data = match (x.data(), self.to) {
            (Data::I32(v), DType::U32) => Data::U32(v.iter().map(|&x| x as u32).collect()),
            (Data::U32(v), DType::I32) => Data::I32(v.iter().map(|&x| x as i32).collect()),
            // Like the kernel, Rust's `as` truncates towards zero, saturates and converts NaN to 0.
            (_, DType::I32) => Data::I32(x.to_f64().iter().map(|&x| x as i32).collect()),
            (_, DType::U32) => Data::U32(x.to_f64().iter().map(|&x| x as u32).collect()),
            (_, DType::Bool) => Data::Bool(x.to_f64().iter().map(|&x| x != 0.0).collect()),
            (_, DType::F32) => Data::F64(x.to_f64()),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let rounds = self.to == DType::F32 && matches!(inputs[0].dtype, DType::I32 | DType::U32);
        if rounds { Rounding::Ulps(0.5, 0.0) } else { Rounding::Exact }
    }

    fn nan(&self, _: usize) -> Nan {
        Nan::Casts
    }

    fn reads_subnormals(&self) -> bool {
        true
    }

    fn lowering(&self) -> Lowering<'_> {
        let function = match self.to {
            DType::F32 => "to_f32",
            DType::I32 => "to_i32",
            DType::U32 => "to_u32",
            DType::Bool => "to_bool",
        };
        Lowering::Pointwise(Pointwise { function: function.into(), args: vec![Arg::Input(0)] })
    }
}

/// Counter-based random bits: a hash of seed, step, the stream of the node and the element index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RandomBits {
    stream: u32,
    shape: Shape,
}

/// The 32-bit finalizer of MurmurHash3 (A. Appleby, public domain): every input bit flips each output bit with
/// probability close to one half.
fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Bit-identical to `random_bits_u32` in `shaders/scalar.wgsl`.
fn random_bits(seed: u32, step: u32, stream: u32, index: u32) -> u32 {
    let key = mix(mix(mix(seed ^ 0x9e37_79b9).wrapping_add(step)).wrapping_add(stream));
    mix(mix(index ^ key).wrapping_add(key))
}

impl Op for RandomBits {
    fn name(&self) -> &'static str {
        "random_bits"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs.iter().any(|ty| ty.dtype != DType::U32 || ty.shape != self.shape) {
            return Err("expected seed and step as u32, broadcast to the shape".into());
        }
        Ok(vec![TensorType::new(DType::U32, &self.shape)])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        vec![None, None]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let [Data::U32(seed), Data::U32(step)] = [inputs[0].data(), inputs[1].data()] else {
            return vec![Tensor::zeros(&outputs[0])];
        };
        let bits = (0..outputs[0].shape.numel()).map(|i| random_bits(seed[i], step[i], self.stream, i as u32));
        vec![Tensor::of(&outputs[0].shape, bits.collect::<Vec<u32>>())]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Pointwise(Pointwise {
            function: "random_bits".into(),
            args: vec![Arg::Input(0), Arg::Input(1), Arg::U32(self.stream), Arg::Index],
        })
    }
}

impl Graph {
    /// A tensor filled with one number, which must be representable in the type: whole and in range for integers, 0
    /// or 1 for bool. For f32 it is rounded.
    #[track_caller]
    pub fn full(&self, dtype: DType, shape: impl Into<Shape>, value: f64) -> Value {
        self.apply1(Full::new(value, TensorType::new(dtype, shape)), &[])
    }

    /// 0, 1, 2, ... along `axis`, repeated along the others. F32, I32 or U32.
    #[track_caller]
    pub fn iota(&self, dtype: DType, shape: impl Into<Shape>, axis: isize) -> Value {
        let ty = TensorType::new(dtype, shape);
        let Some(axis) = ty.shape.axis(axis) else {
            return self.error("iota", &[], format!("there is no axis {axis} in {}", ty.shape));
        };
        self.apply1(Iota { ty, axis }, &[])
    }

    /// 32 random bits per element, identical on CPU and GPU: a hash of `seed` and `step` (u32 scalars), the number of
    /// random nodes added to this graph before, and the element index.
    #[track_caller]
    pub fn random_bits(&self, shape: impl Into<Shape>, seed: &Value, step: &Value) -> Value {
        let shape = shape.into();
        let op = RandomBits { stream: self.next_stream(), shape: shape.clone() };
        self.apply1(op, &[&seed.broadcast_to(&shape), &step.broadcast_to(&shape)])
    }
}

impl Value {
    /// A tensor of this value's type and shape filled with one number.
    #[track_caller]
    pub fn full_like(&self, value: f64) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        self.graph().full(self.dtype(), self.shape(), value)
    }

    /// Zeros of this value's type and shape.
    #[track_caller]
    pub fn zeros_like(&self) -> Value {
        self.full_like(0.0)
    }

    /// Ones of this value's type and shape.
    #[track_caller]
    pub fn ones_like(&self) -> Value {
        self.full_like(1.0)
    }

    /// Converts to another element type. Floats become integers by truncation towards zero, clamped to the range of
    /// the type, with 0 for NaN. Conversions between integers keep the bits. Numbers become `true` unless they are 0;
    /// NaN becomes `true`. Only conversions from float to float pass gradients.
    #[track_caller]
    pub fn cast(&self, to: DType) -> Value {
        if self.dtype() == to {
            return self.clone();
        }
        self.op(Cast { to }, &[])
    }

    /// Dropout (Srivastava et al., JMLR 15, 2014): zeroes each element with probability `p` and divides the others by
    /// `1 - p`; with `p = 1` all are zero. `seed` and `step` as for [`Graph::random_bits`]. An element is kept if its
    /// random bits are below `(1 - p) 2^32`, rounded to an integer on the host.
    #[track_caller]
    pub fn dropout(&self, p: f64, seed: &Value, step: &Value) -> Value {
        if !(0.0..=1.0).contains(&p) {
            return self.graph().error("dropout", &[self], format!("the probability must be in [0, 1], not {p}"));
        }
        if let Err(invalid) = self.graph().admit("dropout", &[self, seed, step]) {
            return invalid;
        }
        if p == 0.0 {
            return self.clone();
        }
        if p == 1.0 {
            return self.zeros_like();
        }
        let bits = self.graph().random_bits(self.shape(), seed, step);
        let below = ((1.0 - p) * 4_294_967_296.0).round().min(4_294_967_295.0);
        let kept = bits.lt(&bits.full_like(below));
        kept.where_(&(self * (1.0 / (1.0 - p))), &self.zeros_like())
    }
}

/// Floats around the limits of the integer types.
const EDGES: &[f64] = &[
    0.0,
    -0.5,
    1.5,
    -2.7,
    100.0,
    -100.0,
    2147483520.0,
    2147483648.0,
    -2147483648.0,
    3e9,
    -3e9,
    4294967040.0,
    4294967296.0,
    1e30,
    -1e30,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e-40,
];

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let seeds = |case: Case| {
        let scalar = || TensorType::new(DType::U32, []);
        case.input("seed", scalar(), Fill::Index(1 << 30)).input("step", scalar(), Fill::Index(1000))
    };
    let mut cases = vec![
        Case::new("full", "added to", |x| {
            vec![
                &x[0] + x[0].full_like(2.5),
                x[0].graph().full(DType::I32, [3], -7.0),
                x[0].graph().full(DType::I32, [2], -2147483648.0),
            ]
        })
        .float("x", [3, 4])
        .forward_only(),
        Case::new("iota", "each axis and type", |x| {
            let graph = x[0].graph();
            vec![
                graph.iota(DType::U32, [2, 3, 4], 1),
                graph.iota(DType::I32, [5], 0),
                &x[0] + graph.iota(DType::F32, [2, 3], -1),
            ]
        })
        .float("x", [2, 3])
        .forward_only(),
        seeds(Case::new("random_bits", "bit for bit", |x| vec![x[0].graph().random_bits([301], &x[0], &x[1])]))
            .forward_only(),
        seeds(Case::new("dropout", "p 0.4", |x| vec![x[2].dropout(0.4, &x[0], &x[1])])).float("x", [7, 43]),
    ];
    // One, two and three elements after the last whole vec4.
    for (from, shape, fill) in [
        (DType::F32, [5, 5], Fill::Special(EDGES, -10.0, 10.0)),
        (DType::I32, [2, 11], Fill::Index(50)),
        (DType::U32, [1, 23], Fill::Index(1 << 31)),
        (DType::Bool, [3, 7], Fill::Coin),
    ] {
        cases.push(
            Case::new("cast", format!("{from} to each"), |x| {
                [DType::F32, DType::I32, DType::U32, DType::Bool]
                    .iter()
                    .map(|&to| x[0].cast(to).reshape(&[-1]))
                    .collect()
            })
            .input("x", TensorType::new(from, shape), fill)
            .forward_only(),
        );
    }
    let negative = |n: usize| {
        Case::new("cast", format!("{n} negative i32"), |x| {
            let x = &x[0] - 25.0;
            vec![x.cast(DType::Bool), x.cast(DType::F32), x.cast(DType::U32)]
        })
        .input("x", TensorType::new(DType::I32, [n]), Fill::Index(50))
        .forward_only()
    };
    cases.extend([37, 38, 39].map(negative));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bits_are_even_and_streams_differ() {
        let n = 100_000;
        let ones: u32 = (0..n).map(|i| random_bits(1, 2, 3, i).count_ones()).sum();
        let mean = f64::from(ones) / f64::from(n);
        assert!((mean - 16.0).abs() < 0.05, "{mean}");
        let same = (0..n).filter(|&i| random_bits(1, 2, 3, i) == random_bits(1, 2, 4, i)).count();
        assert!(same < 5, "{same}");
    }
}
