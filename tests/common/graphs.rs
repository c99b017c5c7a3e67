//! Random graphs generated from bytes: chains of public operations with valid and invalid arguments.
//! Equal bytes give equal graphs; past the end, bytes read as zero.

use wgrad::graph::{Node, ValueId};
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::pool2d::Pool2d;
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Data, Device, Error, Graph, Profile, Reduction, Session, Shape, Tensor, Value, gradients};

/// Random choices drawn from a byte string.
pub struct Choices<'a>(std::slice::Iter<'a, u8>);

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Choices(bytes.iter())
    }

    pub fn is_over(&self) -> bool {
        self.0.len() == 0
    }

    pub fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Usually a small size, occasionally one that makes arithmetic overflow.
    fn size(&mut self) -> usize {
        const WILD: [usize; 10] =
            [0, 1, 255, 65_536, (1 << 31) - 1, 1 << 31, u32::MAX as usize, 1 << 62, usize::MAX - 1, usize::MAX];
        if self.one_in(32) { self.of(&WILD) } else { self.of(&[1, 2, 3, 0, 4, 5, 7, 8, 2, 3]) }
    }

    fn axis(&mut self) -> isize {
        const WILD: [isize; 6] = [4, -5, 100, isize::MIN, isize::MAX, i32::MIN as isize];
        if self.one_in(32) { self.of(&WILD) } else { self.of(&[-1, 0, 1, 2, 3, -2]) }
    }

    /// A subset of the axes for this rank, or arbitrary axes.
    fn axes(&mut self, rank: usize) -> Vec<isize> {
        if self.one_in(8) {
            return (0..self.below(4)).map(|_| self.axis()).collect();
        }
        (0..rank as isize).filter(|_| self.one_in(2)).collect()
    }

    fn shape(&mut self) -> Shape {
        (0..self.below(5)).map(|_| self.size()).collect::<Vec<_>>().into()
    }

    fn dtype(&mut self) -> DType {
        self.of(&[DType::F32, DType::F32, DType::F32, DType::F32, DType::I32, DType::U32, DType::Bool])
    }

    fn number(&mut self) -> f64 {
        const WILD: [f64; 8] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, 5e-324, -0.0, 1e38];
        if self.one_in(16) { self.of(&WILD) } else { f64::from(self.byte() as i8) / 32.0 }
    }

    fn pair(&mut self) -> [usize; 2] {
        let one = self.size();
        if self.one_in(3) { [one, self.size()] } else { [one, one] }
    }

    fn small_pair(&mut self) -> [usize; 2] {
        if self.one_in(8) { self.pair() } else { [1 + self.below(3), 1 + self.below(3)] }
    }
}

fn pick<'a>(c: &mut Choices<'_>, pool: &'a [Value]) -> &'a Value {
    // Prefer the newest values, so that chains grow long.
    let back = if c.one_in(2) { c.below(pool.len()) } else { c.below(pool.len().min(3)) };
    &pool[pool.len() - 1 - back]
}

/// A second operand for `x`: usually a compatible value from the pool.
fn partner<'a>(c: &mut Choices<'_>, pool: &'a [Value], x: &Value) -> &'a Value {
    let fits: Vec<&Value> =
        pool.iter().filter(|v| v.dtype() == x.dtype() && v.shape().broadcast(x.shape()).is_some()).collect();
    if fits.is_empty() || c.one_in(8) { pick(c, pool) } else { fits[c.below(fits.len())] }
}

/// One operation on values of the pool, with possibly invalid arguments.
pub fn operation(c: &mut Choices<'_>, graph: &Graph, pool: &[Value]) -> Vec<Value> {
    let x = pick(c, pool);
    let reduction = if c.one_in(2) { Reduction::Sum } else { Reduction::Mean };
    let one = match c.byte() % 80 {
        0 => x + partner(c, pool, x),
        1 => x - partner(c, pool, x),
        2 => x * partner(c, pool, x),
        3 => x / partner(c, pool, x),
        4 => x.minimum(partner(c, pool, x)),
        5 => x.maximum(partner(c, pool, x)),
        6 => x.pow(partner(c, pool, x)),
        7 => x.lt(partner(c, pool, x)),
        8 => x.le(partner(c, pool, x)),
        9 => x.gt(partner(c, pool, x)),
        10 => x.ge(partner(c, pool, x)),
        11 => x.eq(partner(c, pool, x)),
        12 => x.ne(partner(c, pool, x)),
        13 => x.and(partner(c, pool, x)),
        14 => x.or(partner(c, pool, x)),
        15 => x.not(),
        16 => x.neg(),
        17 => x.abs(),
        18 => x.sign(),
        19 => x.floor(),
        20 => x.round(),
        21 => x.exp(),
        22 => x.log(),
        23 => x.sqrt(),
        24 => x.rsqrt(),
        25 => x.square(),
        26 => x.reciprocal(),
        27 => x.sin(),
        28 => match c.below(11) {
            0 => x.cos(),
            1 => x.tan(),
            2 => x.asin(),
            3 => x.acos(),
            4 => x.atan(),
            5 => x.sinh(),
            6 => x.cosh(),
            7 => x.asinh(),
            8 => x.acosh(),
            9 => x.atanh(),
            _ => x.trunc(),
        },
        29 => x.erf(),
        30 => x.normal_cdf(),
        31 => x.tanh(),
        32 => x.sigmoid(),
        33 => x.softplus(),
        34 => x.softsign(),
        35 => x.relu(),
        36 => x.silu(),
        37 => x.gelu(),
        38 => x.gelu_tanh(),
        39 => x.clamp(c.number(), c.number()),
        40 => x.leaky_relu(c.number()),
        41 => x.elu(c.number()),
        42 => x.powf(c.number()),
        43 => {
            let a = pick(c, pool);
            x.where_(a, partner(c, pool, a))
        }
        44 => x.sum(&c.axes(x.shape().rank()), c.one_in(2)),
        45 => x.mean(&c.axes(x.shape().rank()), c.one_in(2)),
        46 => x.var(&c.axes(x.shape().rank()), c.of(&[0, 1, 0, 1, usize::MAX]), c.one_in(2)),
        47 => x.max(&c.axes(x.shape().rank()), c.one_in(2)),
        48 => x.min(&c.axes(x.shape().rank()), c.one_in(2)),
        49 => x.logsumexp(&c.axes(x.shape().rank()), c.one_in(2)),
        50 => x.softmax(c.axis()),
        51 => x.log_softmax(c.axis()),
        52 => x.argmax(c.axis(), c.one_in(2)),
        53 => x.cumsum(c.axis()),
        54 => {
            let sizes: Vec<isize> = (0..c.below(5)).map(|_| if c.one_in(3) { -1 } else { c.size() as isize }).collect();
            x.reshape(&sizes)
        }
        55 => x.flatten(c.below(5)),
        56 => {
            let mut axes: Vec<isize> = (0..x.shape().rank() as isize).collect();
            for i in (1..axes.len()).rev() {
                axes.swap(i, c.below(i + 1));
            }
            if c.one_in(8) { x.permute(&c.axes(x.shape().rank())) } else { x.permute(&axes) }
        }
        57 => x.t(),
        58 => {
            let mut shape = x.shape().to_vec();
            shape.iter_mut().filter(|d| **d == 1).for_each(|d| *d = c.size());
            shape.insert(0, c.size());
            let shape = if c.one_in(8) { c.shape() } else { shape.into() };
            x.broadcast_to(&shape)
        }
        59 => x.slice(c.axis(), c.size(), c.size(), c.size()),
        60 => x.stop_gradient(),
        61 => x.pad(&(0..c.below(5)).map(|_| (c.size(), c.size())).collect::<Vec<_>>(), c.number()),
        62 => x.concat(&[partner(c, pool, x), x], c.axis()),
        63 => return x.split(&(0..c.below(4)).map(|_| c.size()).collect::<Vec<_>>(), c.axis()),
        64 => {
            // Usually a compatible right operand.
            let other = if c.one_in(6) { pick(c, pool).clone() } else { x.t() };
            x.matmul(&other)
        }
        65 => {
            let options = Conv2d {
                stride: c.small_pair(),
                padding: c.small_pair(),
                dilation: c.small_pair(),
                groups: if c.one_in(8) { c.size() } else { 1 },
            };
            if c.one_in(4) {
                return vec![x.conv2d(pick(c, pool), Some(pick(c, pool)), options)];
            }
            let data = x.reshape(&[1, c.of(&[1, 2, 3]), c.of(&[1, 2, 4, 6]), -1]);
            let weight = graph.full(DType::F32, [c.of(&[1, 2, 5]), data.dim(1), 1 + c.below(3), 1 + c.below(3)], 0.5);
            match c.below(3) {
                0 => data.conv2d(&weight, None, options),
                1 => data.conv2d_input_grad(&weight, c.pair(), options),
                _ => data.conv2d_weight_grad(pick(c, pool), c.pair(), options),
            }
        }
        66 | 67 => {
            let options = Pool2d {
                kernel: c.small_pair(),
                stride: c.small_pair(),
                padding: if c.one_in(3) { c.small_pair() } else { [0, 0] },
                count_include_pad: c.one_in(2),
            };
            let data = if c.one_in(6) { x.clone() } else { x.reshape(&[1, c.of(&[1, 2, 3]), c.of(&[1, 2, 4, 6]), -1]) };
            if c.one_in(2) { data.max_pool2d(options) } else { data.avg_pool2d(options) }
        }
        68 => x.cast(c.dtype()),
        69 => match c.below(4) {
            0 => graph.full(c.dtype(), c.shape(), c.number()),
            1 => graph.iota(c.dtype(), c.shape(), c.axis()),
            2 => x.full_like(c.number()),
            _ => x.ones_like(),
        },
        70 => {
            let seed = graph.full(DType::U32, Shape::scalar(), 7.0);
            x.dropout(c.of(&[0.5, 0.0, 0.9, 1.0, -1.0, f64::NAN]), &seed, &seed)
        }
        71 => {
            let target = if c.one_in(6) { pick(c, pool).clone() } else { x.argmax(-1, false) };
            x.cross_entropy(&target, reduction)
        }
        72 => {
            let target = partner(c, pool, x);
            match c.below(6) {
                0 => x.mse_loss(target, reduction),
                1 => x.l1_loss(target, reduction),
                2 => x.huber_loss(target, c.number(), reduction),
                3 => x.smooth_l1_loss(target, c.number(), reduction),
                4 => x.binary_cross_entropy_with_logits(target, reduction),
                _ => x.kl_div(target, reduction),
            }
        }
        73 => x.diagonal(c.axis(), c.axis()),
        74 => match c.below(3) {
            0 => x.div_trunc(partner(c, pool, x)),
            1 => x.div_floor(partner(c, pool, x)),
            _ => x.div_euclid(partner(c, pool, x)),
        },
        75 => match c.below(9) {
            0 => x.fmod(partner(c, pool, x)),
            1 => x % partner(c, pool, x),
            2 => x.rem_euclid(partner(c, pool, x)),
            3 => x.bit_and(partner(c, pool, x)),
            4 => x.bit_or(partner(c, pool, x)),
            5 => x.bit_xor(partner(c, pool, x)),
            6 => x.bit_not(),
            7 => x.shift_left(partner(c, pool, x)),
            _ => x.shift_right(partner(c, pool, x)),
        },
        76 => {
            let equation = c.of(&["...,...", "...i,...->i", "i...,...->...", "ii...,...i->...i", "ab,bc", "a,.b->c"]);
            graph.einsum(equation, &[x, partner(c, pool, x)])
        }
        77 => {
            let options = Conv2d::default().stride(c.small_pair()).padding(c.small_pair()).dilation(c.small_pair());
            let data = x.reshape(&[1, c.of(&[1, 2, 3]), c.of(&[1, 2, 4, 6]), -1]);
            let weight = graph.full(DType::F32, [data.dim(1), c.of(&[1, 2, 5]), 1 + c.below(3), 1 + c.below(3)], 0.5);
            data.conv_transpose2d(&weight, None, options, c.small_pair())
        }
        _ => {
            let loss = if c.one_in(8) { x.clone() } else { x.sum_all() };
            return gradients(&loss, &[pick(c, pool), pick(c, pool)]);
        }
    };
    vec![one]
}

/// Plans the graph for WebGPU's default limits, with and without fusion, without a device. The only
/// error allowed is `Error::Limit`.
fn plan(graph: &Graph) {
    let nodes = graph.nodes();
    if !nodes.errors.is_empty() {
        return;
    }
    let last = nodes.nodes.len().saturating_sub(6);
    let outputs = |(node, it): (usize, &Node)| (0..it.outputs.len()).map(move |output| ValueId { node, output });
    let targets: Vec<ValueId> = nodes.nodes.iter().enumerate().skip(last).flat_map(outputs).collect();
    for fuse in [true, false] {
        match Plan::new(nodes.clone(), &targets, &Profile::webgpu_defaults(), &Options { fuse, ..Default::default() }) {
            Ok(_) => {}
            Err(Error::Limit(text)) => assert!(!text.contains("internal"), "{text}"),
            Err(error) => panic!("planning a valid graph: {error}"),
        }
    }
}

/// Builds a graph from operations that may be invalid. It must compile if and only if no operation
/// recorded an error.
pub fn wild(bytes: &[u8], most: usize) {
    let mut c = Choices::new(bytes);
    let graph = Graph::new();
    let mut pool: Vec<Value> =
        (0..3).map(|i| graph.input(&format!("x{i}"), c.dtype(), c.shape())).chain([graph.scalar("s", 1.0)]).collect();
    for _ in 0..most {
        if c.is_over() {
            break;
        }
        let made = operation(&mut c, &graph, &pool);
        // Keep few invalid values, or soon most operations would build on them.
        pool.extend(made.into_iter().filter(|v| v.is_valid() || c.one_in(8)));
    }
    plan(&graph);
    let errors = graph.errors();
    let valid: Vec<&Value> = pool.iter().filter(|v| v.is_valid()).collect();
    let program = Session::new(Device::cpu()).compile(&graph, &valid);
    match program {
        Ok(_) => assert!(errors.is_empty(), "compiled despite {errors:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains("internal"), "{text}");
            assert!(!errors.is_empty() || matches!(error, Error::Limit(_)), "{text}");
        }
    }
}

/// A graph that compiles and whose values are finite and small, so that a device's results can be checked.
pub struct Sound {
    pub graph: Graph,
    pub feeds: Vec<(String, Tensor)>,
    pub outputs: Vec<Value>,
}

const MAX_ELEMENTS: usize = 4096;

/// Whether all values are small enough that a few more operations do not overflow.
fn tame(tensor: &Tensor) -> bool {
    tensor.dtype() != DType::F32 || tensor.to_f64().iter().all(|x| x.abs() < 1e4)
}

fn random(c: &mut Choices<'_>, dtype: DType, shape: &Shape) -> Tensor {
    // A separate generator, so that large tensors do not consume the bytes.
    let mut state = 0x9e37_79b9_u32 ^ (u32::from(c.byte()) << 8 | u32::from(c.byte()));
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let words: Vec<u32> = (0..shape.numel()).map(|_| next()).collect();
    let data: Data = match dtype {
        DType::F32 => words.iter().map(|&w| (w >> 8) as f32 / (1 << 22) as f32 - 2.0).collect::<Vec<f32>>().into(),
        DType::I32 => words.iter().map(|&w| (w % 9) as i32 - 4).collect::<Vec<i32>>().into(),
        DType::U32 => words.iter().map(|&w| w % 9).collect::<Vec<u32>>().into(),
        _ => words.iter().map(|&w| w & 1 == 1).collect::<Vec<bool>>().into(),
    };
    Tensor::new(shape, data).expect("one word per element")
}

/// Evaluates values of a graph on the CPU reference.
fn evaluate(graph: &Graph, outputs: &[&Value], feeds: &[(String, Tensor)]) -> Option<Vec<Tensor>> {
    let mut session = Session::new(Device::cpu());
    let program = session.compile(graph, outputs).ok()?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    session.run(&program, &feeds).ok()
}

/// Builds a [`Sound`] graph. Each operation is first tried in a separate graph whose inputs hold the
/// pool's values; it is skipped if it is refused or if a result is huge, infinite or NaN.
pub fn sound(bytes: &[u8], most: usize) -> Sound {
    let mut c = Choices::new(bytes);
    let graph = Graph::new();
    let (mut pool, mut known, mut feeds) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..4 {
        let dtype = if i < 2 { DType::F32 } else { c.dtype() };
        let mut shape: Vec<usize> = (0..1 + c.below(4)).map(|_| c.of(&[3, 2, 4, 1, 5, 6, 8, 17])).collect();
        if c.one_in(24) {
            shape[0] = 0;
        }
        let tensor = random(&mut c, dtype, &shape.into());
        pool.push(graph.input(&format!("x{i}"), dtype, tensor.shape()));
        known.push(tensor.clone());
        feeds.push((format!("x{i}"), tensor));
    }
    let inputs = pool.len();
    for _ in 0..most {
        let draw: Vec<u8> = (0..24).map(|_| c.byte()).collect();
        let alone = Graph::new();
        let stand_ins: Vec<Value> =
            known.iter().enumerate().map(|(i, t)| alone.input(&format!("x{i}"), t.dtype(), t.shape())).collect();
        let tried = operation(&mut Choices::new(&draw), &alone, &stand_ins);
        // In the real graph the pool's values depend on each other, so gradients differ from those with
        // respect to stand-in inputs. They are skipped here and added at the end.
        if !alone.errors().is_empty() || draw[3] % 74 == 73 {
            continue;
        }
        if tried.is_empty() || tried.iter().any(|v| v.shape().numel() > MAX_ELEMENTS) {
            continue;
        }
        if alone.nodes().nodes.iter().flat_map(|n| &n.outputs).any(|ty| ty.shape.numel() > 16 * MAX_ELEMENTS) {
            continue;
        }
        let stand: Vec<(String, Tensor)> =
            known.iter().enumerate().map(|(i, t)| (format!("x{i}"), t.clone())).collect();
        let Some(results) = evaluate(&alone, &tried.iter().collect::<Vec<_>>(), &stand) else { continue };
        if results.iter().all(tame) {
            pool.extend(operation(&mut Choices::new(&draw), &graph, &pool));
            known.extend(results);
        }
    }
    assert!(graph.errors().is_empty(), "accepted alone, refused in the graph: {:?}", graph.errors());
    plan(&graph);
    let mut outputs: Vec<Value> = pool[inputs..].iter().rev().take(3).cloned().collect();
    let last = pool[inputs..].iter().rev().find(|v| v.dtype() == DType::F32);
    if let Some(last) = last.filter(|_| !c.byte().is_multiple_of(4)) {
        let wrt: Vec<&Value> = pool[..inputs].iter().filter(|v| v.dtype() == DType::F32).collect();
        let grads = gradients(&last.sum_all(), &wrt);
        assert!(graph.errors().is_empty(), "the gradient of a valid graph: {:?}", graph.errors());
        let values = evaluate(&graph, &grads.iter().collect::<Vec<_>>(), &feeds);
        if values.expect("the gradient of a valid graph evaluates").iter().all(tame) {
            outputs.extend(grads);
        }
    }
    Sound { graph, feeds, outputs }
}
