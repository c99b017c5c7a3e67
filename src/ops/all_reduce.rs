//! Sums and means over the ranks of a job.

use crate::op::{Args, Attributes, Backward, Case, Exchange, Kernel, Lowered, Lowering, Op, Rounding, Variant};
use crate::{DType, Tensor, TensorType, Value};

/// Combines the values of all ranks, element by element; every rank gets the same result, bit for bit. In a session
/// without [ranks](crate::Session::distribute), it is the identity.
///
/// ```
/// use wgrad::distributed::World;
/// use wgrad::ops::all_reduce::AllReduce;
/// use wgrad::{DType, Device, Graph, Result, Session, Tensor};
/// fn mean(world: World) -> Result<f64> {
///     let graph = Graph::new();
///     let y = graph.input("x", DType::F32, []).square().all_reduce(AllReduce::MEAN);
///     let mut session = Session::new(Device::cpu());
///     session.distribute(&world)?;
///     let program = session.compile(&graph, &[&y])?;
///     session.run(&program, &[("x", &Tensor::scalar(1.0 + world.rank() as f64))])?[0].item()
/// }
/// std::thread::scope(|scope| {
///     let ranks: Vec<_> = World::threads(2).into_iter().map(|world| scope.spawn(|| mean(world))).collect();
///     for rank in ranks {
///         assert_eq!(rank.join().expect("a rank")?, 2.5); // (1 + 4) / 2
///     }
///     Ok::<(), wgrad::Error>(())
/// })?;
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllReduce {
    mean: bool,
    compressed: bool,
}

impl AllReduce {
    /// The sum over the ranks.
    pub const SUM: AllReduce = AllReduce { mean: false, compressed: false };

    /// The mean over the ranks.
    pub const MEAN: AllReduce = AllReduce { mean: true, compressed: false };

    /// Sends the values as f16 numbers, scaled so that none overflows: half the bytes. Every value is rounded to f16
    /// before it is added, and so is the sum: an element of the sum `s` of `x[r]` is wrong by at most
    /// `2^-11 (sum of |x[r]| + |s|)`, if no element is more than 2^29 times as small as the largest one of the same
    /// exchange. Smaller ones have an absolute error of 2^-40 of the largest.
    pub fn compressed(self) -> AllReduce {
        AllReduce { compressed: true, ..self }
    }
}

impl Op for AllReduce {
    fn name(&self) -> &'static str {
        "all_reduce"
    }

    fn attributes(&self) -> Attributes {
        vec![("mean", self.mean.into()), ("compressed", self.compressed.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match inputs[0].dtype {
            DType::F32 => Ok(vec![inputs[0].clone()]),
            _ => Err("expected f32; cast() it".into()),
        }
    }

    /// The loss is the sum of the ranks' losses, so the gradient of a sum is the sum of the ranks' gradients.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![Some(g.dy().op(*self, &[]))]
    }

    /// Of one rank. For more, the session replaces it.
    fn reference(&self, inputs: &[&Tensor], _: &[TensorType]) -> Vec<Tensor> {
        vec![inputs[0].clone()]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn reads_subnormals(&self) -> bool {
        true
    }

    fn exchange(&self) -> Option<Exchange> {
        Some(Exchange { mean: self.mean, compressed: self.compressed })
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// No launch: the host reads the operand back, combines it with those of other ranks, and uploads the result.
impl Kernel for AllReduce {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant::plain("host")];
        VARIANTS
    }

    fn widens(&self, _: usize) -> bool {
        false
    }

    fn lower(&self, _: &Variant, _: &Args<'_>) -> Result<Lowered, String> {
        Ok(Lowered::default())
    }
}

impl Value {
    /// Combines the values of all ranks of a job; see [`AllReduce`].
    #[track_caller]
    pub fn all_reduce(&self, how: AllReduce) -> Value {
        self.op(how, &[])
    }
}

/// The test cases of this family: of one rank.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &[usize], how: AllReduce| {
        Case::new("all_reduce", name, move |x| vec![x[0].all_reduce(how)]).float("x", shape)
    };
    vec![
        case("sum", &[7], AllReduce::SUM),
        case("mean", &[3, 130], AllReduce::MEAN),
        case("empty", &[0, 3], AllReduce::SUM),
        case("compressed", &[65], AllReduce::SUM.compressed()),
        Case::new("all_reduce", "of a product and of a view, then used", |x| {
            let sums = [x[0].matmul(&x[1]), x[1].t()].map(|x| x.all_reduce(AllReduce::MEAN));
            vec![&sums[0] * 2.0 + sums[1].sum_all(), sums[1].relu()]
        })
        .float("x", [4, 6])
        .float("y", [6, 5]),
        Case::new("all_reduce", "of a result of another one", |x| {
            let mean = x[0].mean(&[0], true).all_reduce(AllReduce::MEAN);
            vec![(&x[0] - &mean).square().mean(&[0], false).all_reduce(AllReduce::MEAN)]
        })
        .float("x", [9, 4]),
    ]
}
