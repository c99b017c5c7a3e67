//! The functions of `shaders/scalar.wgsl`, run on every adapter over dense sweeps of their domain and
//! compared with the f64 reference, within the declared error bounds.

use wgpu::util::DeviceExt;
use wgrad::graph::NodeKind;
use wgrad::op::{Arg, Lowering, Op, Rounding};
use wgrad::{DType, Data, Device, Graph, Session, Tensor, TensorType, Value};

use crate::common;

struct Gpu {
    name: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
}

/// Every available adapter.
fn adapters() -> Vec<Gpu> {
    let instance = wgpu::Instance::default();
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let open = |adapter: wgpu::Adapter| {
        let info = adapter.get_info();
        let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).ok()?;
        Some(Gpu { name: format!("{} ({})", info.name, info.backend), device, queue })
    };
    adapters.into_iter().filter_map(open).collect()
}

impl Gpu {
    /// Runs a kernel whose bindings are the inputs, then the output, with one invocation per element.
    fn run(&self, wgsl: &str, inputs: &[Vec<u32>]) -> Vec<u32> {
        let n = inputs[0].len();
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(wgsl.into()),
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let buffer = |words: &[u32], usage| {
            let contents = bytemuck::cast_slice(words);
            self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
        };
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let mut buffers: Vec<wgpu::Buffer> = inputs.iter().map(|words| buffer(words, usage)).collect();
        buffers.push(buffer(&vec![u32::MAX; n], usage));
        let staging = buffer(&vec![0; n], wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let entries: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
            .collect();
        let layout = pipeline.get_bind_group_layout(0);
        let group = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
        let group = self.device.create_bind_group(&group);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups((n as u32).div_ceil(64), 1, 1);
        drop(pass);
        encoder.copy_buffer_to_buffer(&buffers[inputs.len()], 0, &staging, 0, n as u64 * 4);
        self.queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |result| result.expect("maps"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device lives");
        let mapped = staging.slice(..).get_mapped_range().expect("mapped");
        bytemuck::cast_slice(&mapped).to_vec()
    }
}

type Build = Box<dyn Fn(&[Value]) -> Value>;

/// A function under test: how to build its node, and its inputs.
struct Sweep {
    build: Build,
    inputs: Vec<Vec<f32>>,
}

fn unary(build: impl Fn(&Value) -> Value + 'static, xs: Vec<f32>) -> Sweep {
    Sweep { build: Box::new(move |x| build(&x[0])), inputs: vec![xs] }
}

fn binary(build: impl Fn(&Value, &Value) -> Value + 'static, pairs: Vec<(f32, f32)>) -> Sweep {
    let (a, b) = pairs.into_iter().unzip();
    Sweep { build: Box::new(move |x| build(&x[0], &x[1])), inputs: vec![a, b] }
}

const SPECIAL: [f32; 22] = [
    0.0,
    0.5,
    1.0,
    1.5,
    2.5,
    std::f32::consts::PI,
    std::f32::consts::TAU,
    10.0,
    13.0,
    20.0,
    44.0,
    80.0,
    87.3,
    88.7,
    100.0,
    104.0,
    355.0,
    1e4,
    1e-3,
    1e-10,
    1e-30,
    1.2e-38,
];

/// Half a million numbers spaced evenly in `low..=high`, as many spaced by bit pattern, and special values.
fn dense(low: f32, high: f32) -> Vec<f32> {
    const N: u32 = 500_000;
    let even = (0..=N).map(|i| low + (high - low) * (i as f32 / N as f32));
    let (first, last) = (f32::MIN_POSITIVE.to_bits(), high.abs().max(low.abs()).to_bits());
    let by_bits =
        (0..N).map(|i| f32::from_bits(first + (u64::from(last - first) * u64::from(i) / u64::from(N)) as u32));
    let signed = by_bits.enumerate().map(|(i, x)| if i % 2 == 0 { x } else { -x });
    let special = SPECIAL.into_iter().flat_map(|x| [x, -x]);
    even.chain(signed).chain(special).filter(|x| (low..=high).contains(x)).collect()
}

/// The error allowed because devices may flush small results to zero.
fn flushed(x: f64) -> f64 {
    if x.abs() < 1e-36 { f64::from(f32::MIN_POSITIVE) } else { 0.0 }
}

/// The spacing of f32 at a number.
fn ulp(x: f64) -> f64 {
    let x = (x.abs() as f32).max(f32::MIN_POSITIVE);
    f64::from(x) - f64::from(f32::from_bits(x.to_bits() - 1))
}

/// A prepared sweep: its op, the kernel's WGSL, its inputs as words, and the expected output.
type Prepared = (std::sync::Arc<dyn Op>, String, Vec<Vec<u32>>, Tensor);

fn prepare(sweep: &Sweep) -> Prepared {
    let n = sweep.inputs[0].len();
    let graph = Graph::new();
    let values: Vec<Value> = (0..sweep.inputs.len()).map(|i| graph.input(&format!("x{i}"), DType::F32, [n])).collect();
    let y = (sweep.build)(&values);
    assert!(y.is_valid(), "{:?}", graph.errors());
    let nodes = graph.nodes();
    let node = nodes.nodes.last().expect("a node");
    let NodeKind::Op(op) = &node.kind else { panic!("an op") };
    let Lowering::Pointwise(call) = op.lowering() else { panic!("pointwise") };
    let args: Vec<String> = call
        .args
        .iter()
        .map(|arg| match arg {
            Arg::Input(i) => format!("bitcast<f32>(x{i}[i])"),
            Arg::F32(value) => format!("bitcast<f32>({}u)", (*value as f32).to_bits()),
            other => panic!("unexpected argument {other:?}"),
        })
        .collect();
    let bindings: String = (0..=values.len())
        .map(|i| match i == values.len() {
            true => format!("@group(0) @binding({i}) var<storage, read_write> y: array<u32>;\n"),
            false => format!("@group(0) @binding({i}) var<storage, read> x{i}: array<u32>;\n"),
        })
        .collect();
    let value = format!("{}_f32({})", call.function, args.join(", "));
    let word = match node.outputs[0].dtype {
        DType::Bool => format!("select(0u, 1u, {value})"),
        _ => format!("bitcast<u32>({value})"),
    };
    let text = format!(
        "{bindings}@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{\n\
         let i = id.x;\nif i < {n}u {{ y[i] = {word}; }}\n}}\n"
    );
    let text = wgrad::shader::complete(&text).expect("a text").to_string();
    let words = sweep.inputs.iter().map(|xs| xs.iter().map(|x| x.to_bits()).collect()).collect();
    let wanted = reference(&**op, &sweep.inputs, &node.outputs);
    (op.clone(), text, words, wanted)
}

/// The op's reference result for these floats.
fn reference(op: &dyn Op, inputs: &[Vec<f32>], outputs: &[TensorType]) -> Tensor {
    let wide = |xs: &Vec<f32>| Tensor::new([xs.len()], xs.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    let wide: Vec<Tensor> = inputs.iter().map(|xs| wide(xs).expect("fits")).collect();
    op.reference(&wide.iter().collect::<Vec<_>>(), outputs).swap_remove(0)
}

/// The largest excess of an error over `absolute`, in ulps, and where.
fn worst(got: &[f32], want: &[f64], absolute: f64) -> (f64, usize) {
    let error = |i: usize| {
        let (got, want) = (got[i], want[i]);
        let as_f32 = want as f32;
        let same = got == as_f32 || (got.is_nan() && as_f32.is_nan());
        match got.is_finite() && as_f32.is_finite() {
            true => ((f64::from(got) - want).abs() - absolute - flushed(want)) / ulp(want),
            false if same => 0.0,
            false => f64::INFINITY,
        }
    };
    (0..got.len()).map(|i| (error(i), i)).fold((f64::NEG_INFINITY, 0), |a, b| if b.0 > a.0 { b } else { a })
}

fn sweeps() -> Vec<Sweep> {
    let grid = |a: (f32, f32), b: (f32, f32)| -> Vec<(f32, f32)> {
        let at = |(low, high): (f32, f32), i: u32| low + (high - low) * (i as f32 / 999.0);
        (0..1_000_000).map(|i| (at(a, i % 1000), at(b, i / 1000))).collect()
    };
    let mut powers = grid((1e-3, 20.0), (-20.0, 20.0));
    powers.extend(grid((0.9, 1.1), (-700.0, 700.0)));
    powers.extend(
        dense(0.0, 3e38).into_iter().step_by(13).flat_map(|x| [(x, 2.0), (x, -0.5), (x, 0.37), (x, -1.0), (x, 0.0)]),
    );
    for x in dense(-50.0, 0.0).into_iter().step_by(7) {
        powers.extend([(x, 2.0), (x, 3.0), (x, -1.0), (x, -2.0), (x, 0.0), (x, 7.0), (x, 0.5)]);
    }
    let numbers = || dense(-3e38, 3e38);
    vec![
        unary(|x| x.exp(), dense(-110.0, 95.0)),
        unary(|x| x.log(), dense(0.0, 3e38)),
        unary(|x| x.log(), dense(0.0, 4.0)),
        unary(|x| x.sqrt(), dense(0.0, 3e38)),
        unary(|x| x.rsqrt(), dense(f32::MIN_POSITIVE, 3e38)),
        unary(|x| x.reciprocal(), dense(1e-37, 8e37)),
        unary(|x| x.sin(), dense(-1e4, 1e4)),
        unary(|x| x.sin(), dense(-10.0, 10.0)),
        unary(|x| x.cos(), dense(-1e4, 1e4)),
        unary(|x| x.cos(), dense(-10.0, 10.0)),
        unary(|x| x.tan(), dense(-1e4, 1e4)),
        unary(|x| x.tan(), dense(-10.0, 10.0)),
        unary(|x| x.asin(), dense(-1.0, 1.0)),
        unary(|x| x.acos(), dense(-1.0, 1.0)),
        unary(|x| x.atan(), numbers()),
        unary(|x| x.atan(), dense(-10.0, 10.0)),
        unary(|x| x.sinh(), dense(-95.0, 95.0)),
        unary(|x| x.sinh(), dense(-3.0, 3.0)),
        unary(|x| x.cosh(), dense(-95.0, 95.0)),
        unary(|x| x.asinh(), numbers()),
        unary(|x| x.asinh(), dense(-3.0, 3.0)),
        unary(|x| x.acosh(), dense(1.0, 3e38)),
        unary(|x| x.acosh(), dense(1.0, 4.0)),
        unary(|x| x.atanh(), dense(-1.0, 1.0)),
        unary(|x| x.trunc(), numbers()),
        unary(|x| x.trunc(), dense(-100.0, 100.0)),
        unary(|x| x.erf(), numbers()),
        unary(|x| x.erf(), dense(-5.0, 5.0)),
        unary(|x| x.normal_cdf(), numbers()),
        unary(|x| x.normal_cdf(), dense(-14.0, 14.0)),
        unary(|x| x.tanh(), numbers()),
        unary(|x| x.tanh(), dense(-10.0, 10.0)),
        unary(|x| x.sigmoid(), numbers()),
        unary(|x| x.sigmoid(), dense(-100.0, 100.0)),
        unary(|x| x.softplus(), numbers()),
        unary(|x| x.softplus(), dense(-100.0, 100.0)),
        unary(|x| x.elu(1.5), numbers()),
        unary(|x| x.elu(1.5), dense(-20.0, 1.0)),
        unary(|x| x.leaky_relu(0.01), dense(-1e30, 1e30)),
        unary(|x| x.relu(), numbers()),
        unary(|x| x.floor(), numbers()),
        unary(|x| x.floor(), dense(-100.0, 100.0)),
        unary(|x| x.round(), numbers()),
        unary(|x| x.round(), (-1000..1000).map(|i| i as f32 * 0.5).collect()),
        unary(|x| x.sign(), numbers()),
        unary(|x| x.powf(-1.5), dense(1e-20, 1e20)),
        binary(|a, b| a.pow(b), powers),
        binary(|a, b| a / b, grid((-100.0, 100.0), (0.01, 7.0))),
    ]
}

#[test]
fn functions_keep_their_declared_bounds() {
    let adapters = adapters();
    if adapters.is_empty() {
        let required = std::env::var_os("CI").is_some() || std::env::var_os("WGRAD_REQUIRE_GPU").is_some();
        assert!(!required, "no adapter, but CI or WGRAD_REQUIRE_GPU requires one");
        eprintln!("skipped: no adapter");
        return;
    }
    let prepared: Vec<_> = sweeps().into_iter().map(|sweep| (prepare(&sweep), sweep)).collect();
    let mut failures = Vec::new();
    for gpu in &adapters {
        println!("{}", gpu.name);
        for ((op, text, words, wanted), sweep) in &prepared {
            let got: Vec<f32> = gpu.run(text, words).into_iter().map(f32::from_bits).collect();
            let ty = TensorType::new(DType::F32, [got.len()]);
            let (ulps, absolute) = match op.rounding(&vec![&ty; words.len()]) {
                Rounding::Ulps(ulps, absolute) => (ulps, absolute),
                _ => (0.0, 0.0),
            };
            let Data::F64(want) = wanted.data() else { panic!("the reference computes in f64") };
            let (most, at) = worst(&got, want, absolute);
            let x: Vec<f32> = sweep.inputs.iter().map(|xs| xs[at]).collect();
            let line = format!(
                "{op:?}: {most:.2} ulp of {ulps} (besides {absolute:e}) at {x:?}: {:e}, not {:e}",
                got[at], want[at]
            );
            println!("  {line}");
            let keeps = most <= ulps;
            if !keeps {
                failures.push(format!("{}: {line}", gpu.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Zeros, small numbers, subnormals, range limits, infinities and NaN, of both signs.
fn hard() -> Vec<f32> {
    let bits = [0, 1, 3, 0x0001_16c2, 0x0040_0000, 0x007f_ffff, 0x0080_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000];
    let numbers = [0.5, 1.0, 1.5, 2.0, 3.0, 1e-30, 1e30, 16_777_217.0, 2_147_483_648.0, 4_294_967_296.0, 88.8, 104.0];
    let positive = bits.into_iter().map(f32::from_bits).chain(numbers);
    positive.flat_map(|x| [x, -x]).collect()
}

/// Every unary function, then every binary one.
fn special_sweeps() -> Vec<Sweep> {
    let powers = (-149..=127).map(|k| -(2f64.powi(k) as f32));
    let xs: Vec<f32> = hard().into_iter().chain(powers).collect();
    // Sine and cosine are specified up to 1e4.
    let angles: Vec<f32> = xs.iter().copied().filter(|x| x.abs() <= 1e4 || !x.is_finite()).collect();
    let pairs: Vec<(f32, f32)> = hard().into_iter().flat_map(|a| hard().into_iter().map(move |b| (a, b))).collect();
    // WGSL does not bound the error for larger divisors.
    let divided: Vec<(f32, f32)> = pairs.iter().copied().filter(|(_, b)| b.abs() < 8e37 || !b.is_finite()).collect();
    type Unary = fn(&Value) -> Value;
    let unaries: [Unary; 40] = [
        Value::neg,
        Value::abs,
        Value::sign,
        Value::floor,
        Value::round,
        Value::trunc,
        Value::asin,
        Value::acos,
        Value::atan,
        Value::sinh,
        Value::asinh,
        Value::acosh,
        Value::atanh,
        Value::exp,
        Value::log,
        Value::sqrt,
        Value::rsqrt,
        Value::square,
        Value::reciprocal,
        Value::erf,
        Value::normal_cdf,
        Value::tanh,
        Value::sigmoid,
        Value::softplus,
        Value::softsign,
        Value::hardsigmoid,
        Value::relu,
        |x| x.leaky_relu(0.01),
        |x| x.leaky_relu(-2.0),
        |x| x.elu(1.5),
        |x| x.clamp(-0.53, 0.77),
        |x| x.clamp(0.0, 6.0),
        |x| x.powf(-1.5),
        |x| x.powf(4.0),
        |x| x.powf(-3.0),
        |x| x.powf(0.3125),
        |x| x.powf(-0.0078125),
        |x| x.cast(DType::I32),
        |x| x.cast(DType::U32),
        |x| x.cast(DType::Bool),
    ];
    type Binary = fn(&Value, &Value) -> Value;
    let binaries: [Binary; 12] = [
        |a, b| a + b,
        |a, b| a - b,
        |a, b| a * b,
        Value::minimum,
        Value::maximum,
        Value::pow,
        Value::lt,
        Value::le,
        Value::gt,
        Value::ge,
        Value::eq,
        Value::ne,
    ];
    let unaries = unaries.into_iter().map(|f| unary(f, xs.clone()));
    let binaries = binaries.into_iter().map(|f| binary(f, pairs.clone()));
    let others = [
        unary(Value::sin, angles.clone()),
        unary(Value::cos, angles.clone()),
        unary(Value::tan, angles),
        unary(Value::cosh, xs.clone()),
        binary(|a, b| a / b, divided),
    ];
    unaries.chain(binaries).chain(others).collect()
}

#[test]
fn special_values_match_the_reference() {
    let zeroed = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    let (mut failures, mut compared) = (Vec::new(), 0);
    for gpu in adapters() {
        for sweep in special_sweeps() {
            let (op, text, words, wanted) = prepare(&sweep);
            let number: fn(u32) -> f32 = match wanted.dtype() {
                DType::I32 => |word| word as i32 as f32,
                DType::U32 | DType::Bool => |word| word as f32,
                _ => f32::from_bits,
            };
            let got: Vec<f32> = gpu.run(&text, &words).into_iter().map(number).collect();
            // WGSL lets a device treat subnormal operands as 0, so results for flushed operands are also accepted,
            // unless the op reads subnormals.
            let mut right = vec![wanted.to_f64()];
            let flushed: &[&[usize]] = if op.reads_subnormals() { &[] } else { &[&[0], &[1], &[0, 1]] };
            for flushed in flushed {
                let mut inputs = sweep.inputs.clone();
                let taken = inputs.iter_mut().enumerate().filter(|(i, _)| flushed.contains(i));
                taken.for_each(|(_, xs)| xs.iter_mut().for_each(|x| *x = zeroed(*x)));
                right.push(reference(&*op, &inputs, &[wanted.ty()]).to_f64());
            }
            if wanted.dtype() != DType::F32 {
                right.iter_mut().flatten().for_each(|x| *x = f64::from(*x as f32)); // converted as `got` is
            }
            let types: Vec<TensorType> =
                sweep.inputs.iter().map(|xs| TensorType::new(DType::F32, [xs.len()])).collect();
            let (ulps, absolute) = match op.rounding(&types.iter().collect::<Vec<_>>()) {
                Rounding::Ulps(ulps, absolute) => (ulps, absolute),
                _ => (0.0, 0.0),
            };
            for (i, &got) in got.iter().enumerate() {
                compared += 1;
                if !right.iter().any(|want| worst(&[got], &[want[i]], absolute).0 <= ulps) {
                    let x: Vec<f32> = sweep.inputs.iter().map(|xs| xs[i]).collect();
                    failures.push(format!("{}: {op:?} of {x:?} is {got:e}, not {:e}", gpu.name, right[0][i]));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {compared} wrong:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn quotients_and_remainders_are_exact_below_2_to_the_31() {
    let largest = (1u64 << 31) - 1;
    let divisors =
        [1, 2, 3, 5, 7, 10, 45, 641, 1845, 32_769, 46_341, 65_535, 65_536, 65_537, 1_000_003, 1 << 30, largest];
    let (mut numbers, mut of) = (Vec::new(), Vec::new());
    for d in divisors {
        // Multiples of the divisor, plus and minus one, over the whole range.
        let multiples = (0..200).map(|k| (largest / d * k / 199) * d);
        let powers = (0..31).map(|bit| 1 << bit);
        for n in multiples.chain(powers).flat_map(|n: u64| [n.saturating_sub(1), n, n + 1]) {
            numbers.push(n.min(largest) as u32);
            of.push(d as u32);
        }
    }
    let words = |f: fn([u32; 2]) -> u32| of.iter().map(|&d| f(wgrad::shape::reciprocal(d as usize))).collect();
    let inputs: [Vec<u32>; 4] =
        [numbers.clone(), of.clone(), words(|[multiplier, _]| multiplier), words(|[_, shift]| shift)];
    for (function, expected) in [
        ("quotient(x0[i], vec2(x2[i], x3[i]))", (|n, d| n / d) as fn(u32, u32) -> u32),
        ("remainder(x0[i], x1[i], vec2(x2[i], x3[i]))", |n, d| n % d),
    ] {
        let inputs_bound: String =
            (0..4).map(|b| format!("@group(0) @binding({b}) var<storage, read> x{b}: array<u32>;\n")).collect();
        // Read every input, so that each keeps its binding.
        let text = format!(
            "{inputs_bound}@group(0) @binding(4) var<storage, read_write> y: array<u32>;\n\
             @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{\n\
             let i = id.x;\nif i < {}u && x1[i] > 0u {{ y[i] = {function}; }}\n}}\n",
            numbers.len()
        );
        let text = wgrad::shader::complete(&text).expect("a text");
        for gpu in adapters() {
            let found = gpu.run(&text, &inputs);
            for ((&n, &d), got) in numbers.iter().zip(&of).zip(found) {
                assert_eq!(got, expected(n, d), "{function} of {n} and {d} on {}", gpu.name);
            }
        }
    }
}

/// PyTorch's value and slope of each activation, at kinks and for large arguments.
#[test]
fn activations_match_pytorch_at_kinks_and_for_large_arguments() {
    type Activation = (&'static str, fn(&Value) -> Value, [(f64, f64); 5]);
    let e = std::f64::consts::E;
    let phi = 0.8413447460685429; // normal CDF at 1; the density follows
    let density = 0.24197072451914337;
    let sigmoid = 1.0 / (1.0 + 1.0 / e);
    let silu_slope = sigmoid * (2.0 - sigmoid);
    let tanh = 1f64.tanh();
    let inner = (2.0 / std::f64::consts::PI).sqrt() * 1.044715;
    let inner_slope = (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044715);
    let cdf = 0.5 * (1.0 + inner.tanh());
    let cdf_slope = 0.5 * (1.0 - inner.tanh().powi(2)) * inner_slope;
    // At 0, 1, -1, 100 and -100.
    let activations: [Activation; 12] = [
        ("relu", Value::relu, [(0., 0.), (1., 1.), (0., 0.), (100., 1.), (0., 0.)]),
        ("abs", Value::abs, [(0., 0.), (1., 1.), (1., -1.), (100., 1.), (100., -1.)]),
        ("leaky_relu", |x| x.leaky_relu(0.1), [(0., 0.1), (1., 1.), (-0.1, 0.1), (100., 1.), (-10., 0.1)]),
        ("elu", |x| x.elu(1.5), [(0., 1.5), (1., 1.), (1.5 * (1.0 / e - 1.0), 1.5 / e), (100., 1.), (-1.5, 0.)]),
        (
            "sigmoid",
            Value::sigmoid,
            [
                (0.5, 0.25),
                (sigmoid, sigmoid * (1.0 - sigmoid)),
                (1.0 - sigmoid, sigmoid * (1.0 - sigmoid)),
                (1., 0.),
                (0., 0.),
            ],
        ),
        ("tanh", Value::tanh, [(0., 1.), (tanh, 1.0 - tanh * tanh), (-tanh, 1.0 - tanh * tanh), (1., 0.), (-1., 0.)]),
        (
            "gelu",
            Value::gelu,
            [(0., 0.5), (phi, phi + density), (phi - 1.0, 1.0 - phi - density), (100., 1.), (0., 0.)],
        ),
        (
            "gelu_tanh",
            Value::gelu_tanh,
            [(0., 0.5), (cdf, cdf + cdf_slope), (cdf - 1.0, 1.0 - cdf - cdf_slope), (100., 1.), (0., 0.)],
        ),
        (
            "silu",
            Value::silu,
            [(0., 0.5), (sigmoid, silu_slope), (sigmoid - 1.0, 1.0 - silu_slope), (100., 1.), (0., 0.)],
        ),
        (
            "softplus",
            Value::softplus,
            [(2f64.ln(), 0.5), ((1.0 + e).ln(), sigmoid), ((1.0 + e).ln() - 1.0, 1.0 - sigmoid), (100., 1.), (0., 0.)],
        ),
        ("powf 2", |x| x.powf(2.0), [(0., 0.), (1., 2.), (1., -2.), (1e4, 200.), (1e4, -200.)]),
        ("powf 4", |x| x.powf(4.0), [(0., 0.), (1., 4.), (1., -4.), (1e8, 4e6), (1e8, -4e6)]),
    ];
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [5]);
    let mut outputs = Vec::new();
    for (_, function, _) in &activations {
        let y = function(&x);
        let slope = wgrad::gradients(&y.sum_all(), &[&x]).swap_remove(0);
        outputs.extend([y, slope]);
    }
    let at = Tensor::new([5], [0.0f32, 1.0, -1.0, 100.0, -100.0]).expect("five");
    let devices = std::iter::once(Device::cpu()).chain(common::device());
    for device in devices {
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
        let results = session.run(&program, &[("x", &at)]).expect("runs");
        for ((name, _, wanted), result) in activations.iter().zip(results.chunks(2)) {
            let (ys, slopes) = (result[0].to_f64(), result[1].to_f64());
            for (i, (y, slope)) in wanted.iter().enumerate() {
                for (got, want) in [(ys[i], *y), (slopes[i], *slope)] {
                    let close = (got - want).abs() <= 1e-6 + 1e-5 * want.abs();
                    assert!(close, "{device}: {name} number {i}: {got:e}, not {want:e}");
                }
            }
        }
    }
}
