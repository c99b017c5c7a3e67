//! Products with matrices that are quantised in blocks of 32 numbers, of 4 or 8 bits, packed into words. Kernels unpack
//! the numbers as they load them.

use super::matmul::kernels::{self, Blocks, MatmulTiling, Operand};
use crate::op::{
    Args, Attributes, Backward, Binding, Case, Cost, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot,
    Style, Variant, Work, gamma,
};
use crate::parallel;
use crate::shader::Shader;
use crate::shape::View;
use crate::{DType, Shape, Tensor, TensorType, Value};

/// Numbers that share a scale.
pub(crate) const BLOCK: usize = 32;

/// Words of a block: as many as a number has bits.
const BITS: [usize; 2] = [4, 8];

/// `y[m, n] = sum over k of x[m, k] w[n, k]`; or, transposed, of `x[m, k] w[k, n]`. `w[i, j] = (u - zero) scale`, where
/// `u` are bits `j' bits .. (j' + 1) bits` of the words of block `j / 32`, with `j' = j mod 32`.
///
/// Inputs: x f32 `[M, K]`, words u32 `[rows, blocks bits]`, scales f32 `[rows, blocks]`, and zero points u32
/// `[rows, blocks]`; without these, `zero` is `2^(bits - 1)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct QuantizedMatmul {
    bits: usize,
    /// Numbers in a row of `w`; the rest of the last block counts for nothing.
    columns: usize,
    transposed: bool,
}

impl QuantizedMatmul {
    /// M, N and K.
    fn sizes(&self, x: &Shape, words: &Shape) -> [usize; 3] {
        if self.transposed { [x[0], self.columns, x[1]] } else { [x[0], words[0], x[1]] }
    }

    /// The matrix as the device has it, `[rows, columns]`: `u - zero`, and the scale of each number.
    fn numbers(&self, inputs: &[&Tensor]) -> (Vec<f64>, Vec<f64>) {
        let blocks = self.columns.div_ceil(BLOCK);
        let (words, scales) = (inputs[1].device_words(), inputs[2].f64s());
        let zeros = inputs.get(3).map(|zeros| zeros.device_words());
        let number = |at: usize| {
            let (row, column) = (at / self.columns, at % self.columns);
            let (block, bit) = (row * blocks + column / BLOCK, column % BLOCK * self.bits);
            let u = words[block * self.bits + bit / 32] >> (bit % 32) & ((1 << self.bits) - 1);
            let zero = zeros.as_ref().map_or(1 << (self.bits - 1), |zeros| zeros[block]);
            (f64::from(u) - f64::from(zero), scales[block])
        };
        let rows = inputs[1].shape()[0];
        parallel::map(rows * self.columns, &number).into_iter().unzip()
    }

    /// The sums of `term(x, u - zero, scale)`.
    fn sums(&self, inputs: &[&Tensor], term: impl Fn(f64, f64, f64) -> f64 + Sync) -> Vec<f64> {
        let [m, n, k] = self.sizes(inputs[0].shape(), inputs[1].shape());
        let x = inputs[0].f64s();
        let (numbers, scales) = self.numbers(inputs);
        let element = |at: usize| {
            let (row, column) = (at / n, at % n);
            let of = |t: usize| if self.transposed { t * n + column } else { column * k + t };
            (0..k).map(|t| term(x[row * k + t], numbers[of(t)], scales[of(t)])).sum()
        };
        parallel::map(m * n, &element)
    }
}

impl Op for QuantizedMatmul {
    fn name(&self) -> &'static str {
        "quantized_matmul"
    }

    fn attributes(&self) -> Attributes {
        vec![("bits", self.bits.into()), ("columns", self.columns.into()), ("transposed", self.transposed.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, words, scales] = [inputs[0], inputs[1], inputs[2]];
        if x.dtype != DType::F32 || words.dtype != DType::U32 || scales.dtype != DType::F32 {
            return Err("expected x and scales of floats, and words of u32".into());
        }
        if [x, words, scales].iter().any(|ty| ty.shape.rank() != 2) {
            return Err("expected matrices".into());
        }
        let (rows, blocks) = (words.shape[0], self.columns.div_ceil(BLOCK));
        if !BITS.contains(&self.bits) || words.shape[1] != blocks * self.bits || *scales.shape != [rows, blocks] {
            return Err(format!(
                "a matrix [{rows}, {}] has {blocks} blocks of {BLOCK} numbers per row: expected words [{rows}, \
                 {blocks} * 4] (4 bits) or [{rows}, {blocks} * 8] (8 bits), and scales [{rows}, {blocks}]",
                self.columns
            ));
        }
        if let Some(zeros) = inputs.get(3)
            && (zeros.dtype != DType::U32 || zeros.shape != scales.shape)
        {
            return Err(format!("expected zero points of u32 or u8, [{rows}, {blocks}]"));
        }
        let terms = if self.transposed { rows } else { self.columns };
        if x.shape[1] != terms {
            return Err(format!("x has rows of {} numbers; expected {terms}", x.shape[1]));
        }
        let [m, n, _] = self.sizes(&x.shape, &words.shape);
        Ok(vec![TensorType::new(DType::F32, [m, n])])
    }

    /// Scales and zero points have none.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let weights: Vec<&Value> = g.inputs[1..].iter().collect();
        let op = || QuantizedMatmul { transposed: !self.transposed, ..*self };
        let mut gradients = vec![None; g.inputs.len()];
        gradients[0] = g.when(0, || g.dy().op(op(), &weights));
        gradients
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        vec![Tensor::of(&outputs[0].shape, self.sums(inputs, |x, number, scale| x * number * scale))]
    }

    /// `u - zero` is exact, each product is rounded twice, and the sums of blocks are part of a sum of all products. A
    /// device may flush to 0 what is subnormal: x, a product, or a product before it is scaled.
    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let bound = gamma(self.reduction_len(inputs) + 1);
        let op = QuantizedMatmul { ..*self };
        let error = move |x: f64, number: f64, scale: f64| {
            let (product, scale) = ((x * number * scale).abs(), scale.abs());
            let flushed = f64::from(f32::MIN_POSITIVE) * (1.0 + scale * (1.0 + number.abs()));
            if product == 0.0 { 0.0 } else { bound * product + flushed }
        };
        Rounding::bound(move |inputs, _| vec![op.sums(inputs, error)])
    }

    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        inputs[0].shape[1]
    }

    fn multiply_adds(&self, inputs: &[&TensorType], _: &[TensorType]) -> u64 {
        self.sizes(&inputs[0].shape, &inputs[1].shape).map(|size| size as u64).into_iter().product()
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// For GPUs, few rows: the invocations of a workgroup share a tile and split k.
const GEMV: Variant = Variant { workgroup_memory: 8192, ..kernels::variant("gemv") };
/// For lavapipe, few rows: an invocation loads whole blocks of four rows of the matrix.
const GEMV_SHUFFLE: Variant = kernels::shuffle("gemv_shuffle");

/// Most rows for the variants above.
const FEW: usize = 8;

fn tiling(variant: &Variant, m: usize, n: usize) -> MatmulTiling {
    let rows = m.next_power_of_two().min(FEW);
    let tiling = |tile, terms| MatmulTiling { tile, tiles_in_group: 1, resident: 4, terms, cost: 16 };
    match *variant {
        GEMV => tiling([rows, if rows == FEW { 4 } else { 8 }], 512),
        GEMV_SHUFFLE => tiling([rows, 32], BLOCK),
        _ => kernels::tiling(variant, m, n),
    }
}

impl Kernel for QuantizedMatmul {
    fn variants(&self) -> &'static [Variant] {
        use kernels::{REGISTER4, SHUFFLE32, TILE32, TILE32X128, TILE64, TILE128};
        const VARIANTS: &[Variant] = &[GEMV, GEMV_SHUFFLE, SHUFFLE32, TILE128, TILE64, TILE32X128, TILE32, REGISTER4];
        VARIANTS
    }

    /// Unpacking a number takes as long as 2.5 multiply-adds: on lavapipe, products of 1 and 8 rows with a matrix of
    /// 4096 x 4096 numbers of 4 bits took 4.3 and 12.5 ms of CPU time, and 45 ms with `shuffle32`.
    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let sizes @ [m, n, k] = self.sizes(&args.inputs[0].shape, &args.inputs[1].shape);
        let tiling = tiling(variant, m, n);
        let mut work = match *variant {
            GEMV | GEMV_SHUFFLE if self.transposed => return None,
            GEMV if m > FEW => return None,
            GEMV_SHUFFLE => {
                let [tile_m, tile_n] = tiling.tile;
                let numbers = m.div_ceil(tile_m) * n.next_multiple_of(tile_n) * k;
                let flops = (2 * tile_m + 5) as f64 * numbers as f64;
                Work { style: Style::Shuffled, flops, efficiency: 0.55, ..Work::default() }
            }
            _ => tiling.work(kernels::style(variant), sizes, 1, args.profile),
        };
        work.compile = kernels::compile(variant, sizes);
        Some(args.cost(&work))
    }

    /// Any matrix x with one contiguous axis; the others are contiguous.
    fn reads(&self, input: usize, view: &View) -> bool {
        match input {
            0 => (0..2).any(|axis| view.shape[axis] <= 1 || view.strides[axis] == 1),
            _ => view.is_contiguous(),
        }
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let sizes @ [m, n, k] = self.sizes(&args.inputs[0].shape, &args.inputs[1].shape);
        let x = Operand::new(&args.views[0], m, k, false);
        let tiling = tiling(variant, m, n);
        let [tile_m, tile_n] = tiling.tile;
        let (entry, mut shader) = match *variant {
            GEMV => {
                let words = if self.bits == 4 { "u32" } else { "vec2<u32>" };
                let shader = Shader::new("quantized_gemv").set("TM", tile_m).set("TN", tile_n);
                ("quantized_gemv", shader.set("Words", words))
            }
            GEMV_SHUFFLE => {
                let shader = Shader::new("quantized_gemv_shuffle").set("TM", tile_m);
                ("quantized_gemv_shuffle", shader.set("Words", "vec4<u32>"))
            }
            _ => {
                let by_terms = [x.blocks == Blocks::AlongInner, !self.transposed];
                let (entry, shader) = kernels::shader(variant, tiling.tile, by_terms, args.profile);
                let along_m = x.blocks == Blocks::AlongOuter;
                (entry, shader.set("A_ALONG_M", along_m).set("WHOLE_BLOCKS", k.is_multiple_of(4)))
            }
        };
        let cut = tiling.cut(sizes, 1, args.profile);
        let target = if cut.parts > 1 { Slot::Scratch(0) } else { Slot::Output(0) };
        shader = shader
            .set("A_ALONG_K", x.blocks == Blocks::AlongInner)
            .set("B_BITS", self.bits)
            .set("ZEROS", args.inputs.len() > 3)
            .set("TRANSPOSED", self.transposed)
            .set("Y_VEC4", n.is_multiple_of(4));
        let unused = Operand::new(&View::contiguous(&[k, n].into()), n, k, true);
        let mut bindings = vec![
            Binding::Uniform(cut.words(sizes, 1, &[x, unused])),
            Binding::Read(Slot::Input(0)),
            Binding::Read(Slot::Input(1)),
            Binding::Write(target),
            Binding::Read(Slot::Input(2)),
        ];
        bindings.extend((args.inputs.len() > 3).then_some(Binding::Read(Slot::Input(3))));
        let launch = Launch {
            label: format!("quantized_matmul {}", variant.name),
            wgsl: shader.finish()?,
            entry,
            bindings,
            workgroups: args.profile.grid(cut.workgroups as u64)?,
        };
        cut.with_sum(launch, DType::F32, m * n, args.profile)
    }
}

impl Value {
    /// `x W^T` with a matrix `W` `[N, K]` that is quantised in blocks of 32 numbers along its rows, of 4 or 8 bits:
    /// `[.., K]` to `[.., N]`. Nothing unpacked is stored: kernels unpack numbers as they load them. The sums are in
    /// f32.
    ///
    /// `W[n, k] = (u - zero) scale`. With `B = K / 32`, rounded up:
    /// - `words` is u32 `[N, B bits]`; a block has `bits` words, and its number `i` is in their bits `i bits` to
    ///   `(i + 1) bits`, lowest first. Numbers beyond `K` count for nothing;
    /// - `scales` is `[N, B]`, of any float type;
    /// - `zeros` is u32 or u8 `[N, B]`; without them, `zero` is `2^(bits - 1)`.
    ///
    /// The gradient is that of `x`; scales and zero points have none.
    /// [`Scheme::per_block`](crate::quant::Scheme::per_block) quantises a weight like this:
    ///
    /// ```
    /// use wgrad::quant::{Calibration, Scheme};
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let weight = Tensor::new([2, 3], [0.7f32, -0.1, 0.2, 1.4, 0.0, -0.6])?;
    /// let packed = Scheme::int4().per_block().quantize(&weight, Calibration::MinMax)?;
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [1, 3]);
    /// let w = packed.declare(&graph, "w");
    /// let y = x.quantized_matmul(&w.values, &w.scale, None); // as x.matmul_quantized(&w)
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&y])?;
    /// let y = session.run(&program, &[("x", &Tensor::new([1, 3], [1.0f32, 2.0, 3.0])?)])?[0].to_f32();
    /// assert!((y[0] - 1.1).abs() < 1e-3 && (y[1] + 0.4).abs() < 1e-3); // steps of 0.1 and 0.2
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// At compile time, if types or shapes do not match.
    #[track_caller]
    pub fn quantized_matmul(&self, words: &Value, scales: &Value, zeros: Option<&Value>) -> Value {
        let weights: Vec<&Value> = [words, scales].into_iter().chain(zeros).collect();
        let inputs: Vec<&Value> = [self].into_iter().chain(weights.iter().copied()).collect();
        if let Err(invalid) = self.graph().admit("quantized_matmul", &inputs) {
            return invalid;
        }
        let Some((&columns, outer)) = self.shape().split_last() else {
            return self.graph().error("quantized_matmul", &inputs, "expected x with at least one axis");
        };
        if words.shape().rank() != 2 || words.dtype() != DType::U32 || !scales.dtype().is_float() {
            let why = "expected words u32 [N, blocks * bits] and scales [N, blocks] of floats";
            return self.graph().error("quantized_matmul", &inputs, why);
        }
        let op = QuantizedMatmul {
            // Other widths are an error of the op; without blocks, any is right.
            bits: words.dim(1).checked_div(columns.div_ceil(BLOCK)).unwrap_or(BITS[0]),
            columns,
            transposed: false,
        };
        let (outer, rows) = (outer.to_vec(), words.dim(0));
        let signed = |sizes: &[usize]| sizes.iter().map(|&size| size as isize).collect::<Vec<isize>>();
        self.widely(|x| {
            let x = x.reshape(&signed(&[outer.iter().product(), columns]));
            let weights: Vec<Value> = weights.iter().map(|value| value.widen()).collect();
            let y = x.op(op, &weights.iter().collect::<Vec<_>>());
            let sizes: Vec<usize> = outer.iter().copied().chain([rows]).collect();
            if y.is_valid() { y.reshape(&signed(&sizes)) } else { y }
        })
    }
}

/// A product of `x` `[.., K]` with random words for `[N, K]`, scales from 0.01 to 0.32, and zero points.
pub(super) fn product(name: String, x: &[usize], rows: usize, bits: usize, zeros: bool, scales: DType) -> Case {
    let blocks = x[x.len() - 1].div_ceil(BLOCK);
    let build = move |v: &[Value]| {
        let scale = ((&v[2].cast(DType::F32) + 1.0) * 0.01).cast(scales);
        let zero = v.get(3).map(|zero| if scales.is_narrow() { zero.cast(DType::U8) } else { zero.clone() });
        vec![v[0].quantized_matmul(&v[1], &scale, zero.as_ref())]
    };
    let words = |shape: [usize; 2]| TensorType::new(DType::U32, shape);
    let case = Case::new("quantized_matmul", name, build)
        .float("x", x)
        .input("words", words([rows, blocks * bits]), Fill::Index(u32::MAX))
        .input("scales", words([rows, blocks]), Fill::Index(32));
    if zeros { case.input("zeros", words([rows, blocks]), Fill::Index(1 << bits)) } else { case }
}

/// Test cases: sizes around blocks and tiles, with and without zero points, in both widths and types of scales.
pub fn cases() -> Vec<Case> {
    let case = |x: &[usize], rows: usize, bits: usize, zeros: bool, scales: DType| {
        let sizes: Vec<String> = x.iter().map(usize::to_string).collect();
        let with = if zeros { ", zero points" } else { "" };
        let stored = if scales.is_narrow() { format!(", scales {scales}") } else { String::new() };
        product(format!("{} x {rows}, {bits} bits{with}{stored}", sizes.join(" x ")), x, rows, bits, zeros, scales)
    };
    let mut cases = vec![
        case(&[1, 32], 1, 4, false, DType::F32),
        case(&[1, 64], 33, 8, false, DType::F32),
        case(&[1, 320], 36, 4, true, DType::F32),
        case(&[1, 1056], 40, 4, false, DType::F16),
        case(&[1, 1100], 37, 8, true, DType::F16),
        case(&[96], 20, 4, true, DType::F16),
        case(&[2, 100], 68, 4, true, DType::F32),
        case(&[2, 31], 8, 8, true, DType::F32),
        case(&[3, 37], 5, 4, false, DType::F32),
        case(&[4, 130], 34, 8, false, DType::BF16),
        case(&[7, 70], 40, 4, true, DType::F32),
        case(&[8, 132], 129, 8, true, DType::F32),
        case(&[33, 64], 64, 4, false, DType::F16),
        case(&[17, 45], 65, 4, true, DType::F32),
        case(&[66, 96], 132, 8, false, DType::F32),
        case(&[131, 33], 130, 8, true, DType::F16),
        case(&[2, 3, 40], 12, 4, false, DType::F32),
        case(&[0, 40], 12, 4, false, DType::F32),
        case(&[3, 0], 2, 4, false, DType::F32),
        case(&[3, 40], 0, 8, false, DType::F32),
    ];
    // A NaN and an infinity in the first row of x must not leak into others.
    for bits in BITS {
        let mut case = case(&[5, 2100], 10, bits, false, DType::F32).forward_only();
        case.name.push_str(", NaN and infinity");
        case.inputs[0].fill = Fill::Special(&[0.5, 0.25, f64::NAN, f64::INFINITY], -1.0, 1.0);
        cases.push(case);
    }
    let transposed = |bits| {
        let Case { build, inputs, .. } = case(&[5, 68], 22, bits, true, DType::F32);
        let through = move |v: &[Value]| {
            let views: Vec<Value> = [v[0].t()].into_iter().chain(v[1..].iter().cloned()).collect();
            vec![(&build(&views)[0] + &v[0].slice(0, 0, 22, 1).t()).relu()]
        };
        let case = Case::new("quantized_matmul", format!("x transposed, {bits} bits, then a sum and relu"), through);
        inputs[1..]
            .iter()
            .fold(case.float("x", [68, 5]), |case, input| case.input(input.name, input.ty.clone(), input.fill.clone()))
    };
    cases.extend(BITS.map(transposed));
    cases
}
