//! Random bits, normal numbers, and dropout.

use std::f64::consts::TAU;

use crate::op::{Arg, Attributes, Backward, Case, Fill, Lowering, Op, Pointwise, Rounding};
use crate::{DType, Data, Graph, Shape, Tensor, TensorType, Value};

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

    fn attributes(&self) -> Attributes {
        vec![("stream", self.stream.into())]
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
    /// 32 random bits per element, identical on CPU and GPU: a hash of `seed` and `step` (u32 scalars), the number of
    /// random nodes added to this graph before, and the element index.
    #[track_caller]
    pub fn random_bits(&self, shape: impl Into<Shape>, seed: &Value, step: &Value) -> Value {
        let shape = shape.into();
        let op = RandomBits { stream: self.next_stream(), shape: shape.clone() };
        self.apply1(op, &[&seed.broadcast_to(&shape), &step.broadcast_to(&shape)])
    }

    /// Independent normal numbers of mean 0 and variance 1, f32: `sqrt(-2 ln u) cos(2 pi v)` with `u` and `v` uniform
    /// in (0, 1) (G. E. P. Box, M. E. Muller, *A note on the generation of random normal deviates*, 1958), from
    /// [random bits](Graph::random_bits) for `seed` and `step`. `u` has 23 bits, so none exceeds 5.77.
    ///
    /// ```
    /// use wgrad::{Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let [seed, step] = [1u32, 2].map(|n| graph.constant(Tensor::new([0; 0], [n]).expect("a scalar")));
    /// let z = graph.random_normal([1000], &seed, &step);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&z.mean_all(), &z.std(&[0], 0, false)])?;
    /// let moments = session.run(&program, &[])?;
    /// assert!(moments[0].item()?.abs() < 0.1 && (moments[1].item()? - 1.0).abs() < 0.1);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn random_normal(&self, shape: impl Into<Shape>, seed: &Value, step: &Value) -> Value {
        let shape = shape.into();
        let radius = (self.random_uniform(&shape, seed, step).log() * -2.0).sqrt();
        radius * (self.random_uniform(&shape, seed, step) * TAU).cos()
    }

    /// Uniform in (0, 1): the middles of 2^23 intervals, which f32 represents exactly.
    #[track_caller]
    fn random_uniform(&self, shape: &Shape, seed: &Value, step: &Value) -> Value {
        let bits = self.random_bits(shape.clone(), seed, step);
        (bits.shift_right(&bits.full_like(9.0)).cast(DType::F32) + 0.5) * 2f64.powi(-23)
    }
}

impl Value {
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

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let seeds = |case: Case| {
        let scalar = || TensorType::new(DType::U32, []);
        case.input("seed", scalar(), Fill::Index(1 << 30)).input("step", scalar(), Fill::Index(1000))
    };
    vec![
        seeds(Case::new("random_bits", "bit for bit", |x| vec![x[0].graph().random_bits([301], &x[0], &x[1])]))
            .forward_only(),
        seeds(Case::new("random_normal", "Box-Muller", |x| vec![x[0].graph().random_normal([301], &x[0], &x[1])]))
            .forward_only(),
        seeds(Case::new("dropout", "p 0.4", |x| vec![x[2].dropout(0.4, &x[0], &x[1])])).float("x", [7, 43]),
    ]
}
