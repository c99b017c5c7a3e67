//! Matrix products with the semantics of `numpy.matmul`: 2-D, batched with broadcasting, and with vectors.

mod integer;
pub(super) mod kernels;

use self::integer::IntegerMatmul;
use crate::graph::NodeKind;
use crate::op::{Backward, Case, Fill, Lowering, Op, Rounding};
use crate::parallel::for_chunks;
use crate::shape::View;
use crate::{DType, Shape, Tensor, TensorType, Value};

/// `y[.., m, n] = sum over k of a[.., m, k] * b[.., k, n]`; the batch axes are equal.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Matmul;

/// The result type of a product of two matrices of one of `dtypes`.
fn infer_product(inputs: &[&TensorType], dtypes: &[DType]) -> Result<Vec<TensorType>, String> {
    let [a, b] = [inputs[0], inputs[1]];
    if a.dtype != b.dtype || !dtypes.contains(&a.dtype) {
        return Err("expected two operands of f32, i32 or u32; cast() one side".into());
    }
    let rank = a.shape.rank();
    if rank < 2 || b.shape.rank() != rank || a.shape[..rank - 2] != b.shape[..rank - 2] {
        return Err("expected two operands of at least two axes with equal batch axes".into());
    }
    if a.shape[rank - 1] != b.shape[rank - 2] {
        return Err(inner_sizes_differ(a.shape[rank - 1], b.shape[rank - 2]));
    }
    let mut sizes = a.shape.to_vec();
    sizes[rank - 1] = b.shape[rank - 1];
    Ok(vec![TensorType::new(a.dtype, sizes)])
}

/// The multiply-adds of a product of two matrices.
fn products(inputs: &[&TensorType], outputs: &[TensorType]) -> u64 {
    outputs[0].shape.numel() as u64 * inputs[0].shape.last().map_or(0, |&k| k as u64)
}

/// The error message for inner sizes `a` and `b`.
fn inner_sizes_differ(a: usize, b: usize) -> String {
    format!(
        "the inner sizes differ: a has {a} columns and b has {b} rows; expected [.., M, K] and [.., K, N] \
         (t() swaps the last two axes)"
    )
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        infer_product(inputs, &[DType::F32])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let (dy, a, b) = (g.dy(), g.x(0), g.x(1));
        // A transposed operand gets its gradient in the layout of the original matrix.
        let da = || if transposed(a) { b.matmul(&dy.t()).t() } else { dy.matmul(&b.t()) };
        let db = || if transposed(b) { dy.t().matmul(a).t() } else { a.t().matmul(&dy) };
        vec![g.when(0, da), g.when(1, db)]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let [m, n, k] = sizes(inputs[0].shape(), inputs[1].shape());
        let (a, b) = (inputs[0].f64s(), inputs[1].f64s());
        let mut y = vec![0.0; outputs[0].shape.numel()];
        let rows_at_once = (1 << 14) / (n * k).max(1) + 1;
        for_chunks(&mut y, rows_at_once * n, &|number, rows| {
            for (y, row) in rows.chunks_mut(n.max(1)).zip(number * rows_at_once..) {
                let b = &b[row / m * k * n..][..k * n];
                add_row_times_matrix(y, &a[row * k..][..k], b);
            }
        });
        vec![Tensor::of(&outputs[0].shape, y)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        Rounding::Sum(inputs[0].shape.last().copied().unwrap_or(0))
    }

    fn multiply_adds(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> u64 {
        products(inputs, outputs)
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// `y[n] += sum over k of a[k] * b[k, n]`, four rows of `b` at a time, which quarters the traffic of `y`.
pub(super) fn add_row_times_matrix(y: &mut [f64], a: &[f64], b: &[f64]) {
    let n = y.len();
    let mut rows = b.chunks_exact(4 * n);
    let mut factors = a.chunks_exact(4);
    for (rows, a) in rows.by_ref().zip(factors.by_ref()) {
        let (b0, rest) = rows.split_at(n);
        let (b1, rest) = rest.split_at(n);
        let (b2, b3) = rest.split_at(n);
        for (i, y) in y.iter_mut().enumerate() {
            *y += a[0] * b0[i] + a[1] * b1[i] + a[2] * b2[i] + a[3] * b3[i];
        }
    }
    for (row, a) in rows.remainder().chunks_exact(n).zip(factors.remainder()) {
        for (y, b) in y.iter_mut().zip(row) {
            *y += a * b;
        }
    }
}

/// Whether a matrix is a transposed view of another one.
fn transposed(x: &Value) -> bool {
    let nodes = x.graph().lock();
    let node = &nodes.nodes[x.id().node];
    let NodeKind::Op(op) = &node.kind else { return false };
    let Lowering::View(view) = op.lowering() else { return false };
    let lies = view.view(&View::contiguous(&nodes.ty(node.inputs[0]).shape));
    lies.is_some_and(|view| matches!(view.strides[..], [.., 1, outer] if outer > 1))
}

/// Rows, columns and inner size of a product.
fn sizes(a: &Shape, b: &Shape) -> [usize; 3] {
    let (rank, inner) = (a.rank(), a.rank() - 1);
    [a[rank - 2], b[inner], a[inner]]
}

impl Value {
    /// The matrix product, as in `numpy.matmul` and `torch.matmul`: `[.., M, K] @ [.., K, N]` gives `[.., M, N]`, and
    /// the batch axes broadcast. A 1-D operand is a row on the left and a column on the right, and the result lacks its
    /// axis; two vectors give a scalar `[]`. `K = 0` gives zeros.
    ///
    /// A transposed operand costs no copy: `a.t().matmul(&b)`. Operands are f32, or integers of one type, whose product
    /// is exact modulo 2^32.
    ///
    /// # Errors
    /// At compile time, when an operand is a scalar, or inner sizes or batch axes do not match.
    #[track_caller]
    pub fn matmul(&self, other: &Value) -> Value {
        if let Err(invalid) = self.graph().admit("matmul", &[self, other]) {
            return invalid;
        }
        let (batch, [m, n, k]) = match product_of(self.shape(), other.shape()) {
            Ok(found) => found,
            Err(why) => return self.graph().error("matmul", &[self, other], why),
        };
        let (is_row, is_column) = (self.shape().rank() == 1, other.shape().rank() == 1);
        let a = if is_row { self.with_sizes(&[1, k]) } else { self.clone() };
        let b = if is_column { other.with_sizes(&[k, 1]) } else { other.clone() };
        let y = if b.shape().rank() == 2 {
            // One matrix for the whole batch: fold the batch into the rows of one large product. The gradient of b is
            // then one product too, not a sum over the batch.
            a.with_sizes(&[batch.numel() * m, k]).product(&b)
        } else {
            let full = |rows: usize, columns: usize| batch.iter().copied().chain([rows, columns]).collect::<Shape>();
            a.broadcast_to(&full(m, k)).product(&b.broadcast_to(&full(k, n)))
        };
        let mut result = batch.to_vec();
        result.extend((!is_row).then_some(m));
        result.extend((!is_column).then_some(n));
        y.with_sizes(&result)
    }

    #[track_caller]
    fn product(&self, other: &Value) -> Value {
        match self.dtype().wide() {
            DType::I32 | DType::U32 => self.op(IntegerMatmul, &[other]),
            _ => self.op(Matmul, &[other]),
        }
    }

    #[track_caller]
    fn with_sizes(&self, sizes: &[usize]) -> Value {
        let signed: Vec<isize> = sizes.iter().map(|&size| size as isize).collect();
        self.reshape(&signed)
    }
}

/// The axes before the matrix; none for a vector.
fn batch(shape: &Shape) -> Shape {
    shape[..shape.rank().saturating_sub(2)].into()
}

/// Batch axes, and rows, columns and inner size of the product of two user-supplied operands, or an error message.
fn product_of(a: &Shape, b: &Shape) -> Result<(Shape, [usize; 3]), String> {
    let (Some(&k), Some(&last)) = (a.last(), b.last()) else {
        return Err("expected operands of at least one axis; multiply by a scalar with *".into());
    };
    let m = a.iter().rev().nth(1).copied().unwrap_or(1);
    let (rows, n) = b.iter().rev().nth(1).map_or((last, 1), |&rows| (rows, last));
    if k != rows {
        return Err(inner_sizes_differ(k, rows));
    }
    let (batch_a, batch_b) = (batch(a), batch(b));
    match batch_a.broadcast(&batch_b) {
        Some(batch) => Ok((batch, [m, n, k])),
        None => Err(format!(
            "the batch axes {batch_a} and {batch_b} do not broadcast: aligned at the last, sizes must be equal or 1"
        )),
    }
}

/// A product of operands of the given shapes, each transposed first if its flag is set.
fn product(name: &str, a: &[usize], b: &[usize], [ta, tb]: [bool; 2]) -> Case {
    let operand = |x: &Value, transposed: bool| if transposed { x.t() } else { x.clone() };
    let build = move |x: &[Value]| vec![operand(&x[0], ta).matmul(&operand(&x[1], tb))];
    Case::new("matmul", name, build).float("a", a).float("b", b)
}

/// Test cases: sizes around tile edges, and all operand layouts.
pub fn cases() -> Vec<Case> {
    const NN: [bool; 2] = [false, false];
    // M, N, K.
    const SIZES: &[[usize; 3]] = &[
        [1, 1, 1],
        [2, 3, 7],
        [3, 1, 8],
        [7, 2, 64],
        [8, 8, 8],
        [15, 33, 3],
        [16, 64, 16],
        [17, 65, 15],
        [31, 7, 130],
        [33, 16, 17],
        [63, 63, 31],
        [64, 64, 64],
        [65, 130, 2],
        [1, 130, 63],
        [130, 1, 65],
        [130, 68, 36],
    ];
    let mut cases: Vec<Case> =
        SIZES.iter().map(|&[m, n, k]| product(&format!("{m} x {n} x {k}"), &[m, k], &[k, n], NN)).collect();
    // A NaN in the first row of a and an infinity in the first row of b must not leak into other elements.
    for [m, n, k] in [[17, 65, 15], [64, 64, 64], [6, 10, 2100], [130, 68, 36], [5, 6, 3000]] {
        let mut case = product(&format!("{m} x {n} x {k}, NaN and infinity"), &[m, k], &[k, n], NN).forward_only();
        case.inputs[0].fill = Fill::Special(&[0.5, 0.25, f64::NAN, 0.5], -1.0, 1.0);
        case.inputs[1].fill = Fill::Special(&[0.5, f64::INFINITY, 0.25], -1.0, 1.0);
        cases.push(case);
    }
    // An infinity in the last term, which the terms that fill up a block of four must not repeat.
    let mut case = product("21 x 18 x 7, infinity in the last term", &[21, 7], &[18, 7], [false, true]).forward_only();
    case.inputs[1].fill = Fill::Special(&[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, f64::INFINITY], -1.0, 1.0);
    cases.push(case);
    // Beyond the range of f16, in its subnormal numbers, and below.
    let mut case = product("19 x 34 x 22, large and small", &[19, 22], &[22, 34], NN).forward_only();
    case.inputs[0].fill = Fill::Special(&[7e4, 65_504.0, 65_519.0, 65_520.0, -3e38, 1e-5, 3e-8, -1e-9], -1.0, 1.0);
    case.inputs[1].fill = Fill::Special(&[-1e6, 6.1e-5, 2e-6, 65_535.0], -1.0, 1.0);
    cases.push(case);
    for [ta, tb] in [[false, true], [true, false], [true, true]] {
        let name = |what: &str| {
            format!("{what}{}{}", if ta { ", a transposed" } else { "" }, if tb { ", b transposed" } else { "" })
        };
        for [m, n, k] in [[20, 72, 12], [33, 17, 65], [68, 36, 20]] {
            let a = if ta { [k, m] } else { [m, k] };
            let b = if tb { [n, k] } else { [k, n] };
            cases.push(product(&name(&format!("{m} x {n} x {k}")), &a, &b, [ta, tb]));
        }
        let (a, b) = (if ta { [3, 4, 5] } else { [3, 5, 4] }, if tb { [3, 8, 4] } else { [3, 4, 8] });
        cases.push(product(&name("batch of 3"), &a, &b, [ta, tb]));
    }
    cases.extend([
        product("long sum", &[5, 3000], &[3000, 6], NN),
        // Split-K partial results of exactly two workgroups of elements, and of many.
        product("long sum, 8 x 16", &[8, 700], &[700, 16], NN),
        product("long sum, 18 x 41", &[18, 640], &[640, 41], NN),
        // Few rows or columns: some invocations run two iterations, some one.
        product("6 x 10 x 2100, b transposed", &[6, 2100], &[10, 2100], [false, true]),
        product("37 x 7 x 515", &[37, 515], &[515, 7], NN),
        product("batch of 3 x 33 x 272, b transposed", &[2, 3, 272], &[2, 33, 272], [false, true]),
        // Two of the largest tiles in each direction.
        product("131 x 260 x 33", &[131, 33], &[33, 260], NN),
        product("batch", &[2, 3, 9, 10], &[2, 3, 10, 11], NN),
        product("batch broadcast both ways", &[2, 1, 4, 8], &[3, 8, 4], NN),
        product("batch times one matrix", &[2, 3, 5, 8], &[8, 12], NN),
        product("one matrix times batch", &[6, 8], &[3, 8, 4], NN),
        product("vector times matrix", &[12], &[12, 20], NN),
        product("matrix times vector", &[9, 33], &[33], NN),
        product("vector times batch", &[4], &[2, 4, 5], NN),
        product("vectors", &[37], &[37], NN),
        product("no rows", &[0, 3], &[3, 4], NN),
        product("no columns", &[2, 3], &[3, 0], NN),
        product("empty sum", &[3, 0], &[0, 5], NN),
        product("empty batch", &[0, 2, 3], &[3, 4], NN),
        Case::new("matmul", "slices", |x| {
            vec![x[0].slice(0, 4, 21, 1).slice(1, 8, 20, 1).matmul(&x[1].slice(1, 4, 36, 1))]
        })
        .float("a", [24, 20])
        .float("b", [12, 40]),
        Case::new("matmul", "slices at odd offsets", |x| {
            vec![x[0].slice(1, 1, 18, 1).t().matmul(&x[1].slice(0, 2, 19, 1).slice(1, 3, 10, 1))]
        })
        .float("a", [17, 18])
        .float("b", [20, 11]),
        Case::new("matmul", "every other column", |x| vec![x[0].slice(1, 0, 12, 2).matmul(&x[1])])
            .float("a", [5, 12])
            .float("b", [6, 7]),
        Case::new("matmul", "heads of attention", |x| {
            let heads = |x: &Value| x.reshape(&[2, 5, 3, 8]).permute(&[0, 2, 1, 3]);
            vec![heads(&x[0]).matmul(&heads(&x[1]).t())]
        })
        .float("q", [2, 5, 24])
        .float("k", [2, 5, 24]),
        Case::new("matmul", "with its own transpose", |x| vec![x[0].matmul(&x[0].t())]).float("x", [12, 20]),
        Case::new("matmul", "batch axes in another order", |x| {
            let turned = |x: &Value| x.permute(&[2, 1, 0, 3, 4]);
            vec![turned(&x[0]).matmul(&turned(&x[1]))]
        })
        .float("a", [2, 4, 3, 5, 4])
        .float("b", [2, 4, 3, 4, 6]),
        Case::new("matmul", "then bias and relu, 22 columns", |x| vec![(x[0].matmul(&x[1]) + &x[2]).relu()])
            .float("a", [18, 16])
            .float("b", [16, 22])
            .float("bias", [22]),
        Case::new("matmul", "then bias and relu", |x| vec![(x[0].matmul(&x[1]) + &x[2]).relu()])
            .float("a", [18, 16])
            .float("b", [16, 20])
            .float("bias", [20]),
        // Across four neighbours in a row, `rows` has one element, and `transposed` has elements that are far apart.
        Case::new("matmul", "then a number for each row, and a transposed matrix", |x| {
            vec![x[0].matmul(&x[1]) * &x[2] + x[3].t()]
        })
        .float("a", [18, 16])
        .float("b", [16, 20])
        .float("rows", [18, 1])
        .float("transposed", [20, 18]),
    ]);
    let integers = |name: &str, dtype: DType, a: &[usize], b: &[usize], transposed: [bool; 2]| {
        let Case { build, .. } = product("", &[], &[], transposed);
        let case = Case::new("matmul", format!("{dtype} {name}"), build);
        let input = |case: Case, name, shape| case.input(name, TensorType::new(dtype, shape), Fill::Index(u32::MAX));
        input(input(case, "a", a), "b", b).forward_only()
    };
    let bytes = |name: &str, a: &[usize], b: &[usize]| {
        let Case { build, .. } = product("", &[], &[], [false, true]);
        let input = |case: Case, name, shape| case.input(name, TensorType::new(DType::I8, shape), Fill::Index(256));
        let case = Case::new("matmul", format!("i8 {name}, b transposed"), build);
        input(input(case, "a", a), "b", b).forward_only()
    };
    cases.extend([
        integers("5 x 6 x 7", DType::I32, &[5, 7], &[7, 6], NN),
        integers("6 x 7 x 5", DType::U32, &[6, 5], &[5, 7], NN),
        integers("9 x 4 x 5, both transposed", DType::U32, &[5, 9], &[4, 5], [true, true]),
        integers("33 x 65 x 17, b transposed", DType::I32, &[33, 17], &[65, 17], [false, true]),
        integers("long sum", DType::I32, &[3, 3000], &[3000, 2], NN),
        integers("one longer than a loop may be", DType::U32, &[1, 25_001], &[25_001, 1], NN),
        integers("batch broadcast both ways", DType::U32, &[2, 1, 4, 8], &[3, 8, 4], NN),
        integers("matrix times vector", DType::I32, &[9, 33], &[33], NN),
        integers("vectors", DType::U32, &[37], &[37], NN),
        integers("empty sum", DType::I32, &[3, 0], &[0, 5], NN),
        integers("no rows", DType::I32, &[0, 3], &[3, 4], NN),
        // Rows of whole words, and others.
        bytes("17 x 33 x 35", &[17, 35], &[33, 35]),
        bytes("17 x 33 x 36", &[17, 36], &[33, 36]),
        bytes("1 x 5 x 2052", &[1, 2052], &[5, 2052]),
        bytes("3 x 2 x 50,000", &[3, 50_000], &[2, 50_000]),
        bytes("batch of 3 x 5 x 8", &[3, 6, 8], &[3, 5, 8]),
    ]);
    cases
}
