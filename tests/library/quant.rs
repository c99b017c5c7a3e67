//! Quantisation: scales, products of quantised weights, and straight-through gradients.

use wgrad::io::safetensors;
use wgrad::ops::conv2d::Conv2d;
use wgrad::plan::{Options, Plan};
use wgrad::quant::{ActivationRange, Calibration, Granularity, Observer, Quantized, QuantizedModel, Scheme};
use wgrad::{DType, Data, Graph, Profile, Session, Tensor, Value, gradients};

use crate::common;

/// Numbers in [-1, 1], with a different scale in each row.
fn weights(rows: usize, columns: usize) -> Tensor {
    let number = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * (1.0 + (i / columns) as f32);
    Tensor::new([rows, columns], (0..rows * columns).map(number).collect::<Vec<f32>>()).expect("fits")
}

/// The scheme with a scale for each position along an axis.
fn along(scheme: Scheme, axis: Option<usize>) -> Scheme {
    Scheme { granularity: axis.map_or(Granularity::Tensor, Granularity::Channel), ..scheme }
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn squared(a: &Tensor, b: &Tensor) -> f64 {
    a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).powi(2)).sum()
}

#[test]
fn numbers_are_at_most_half_a_step_off() {
    let x = weights(6, 40);
    for bits in [2, 4, 8] {
        for scheme in [Scheme::int8().bits(bits), Scheme::int8().bits(bits).affine()] {
            for axis in [None, Some(0), Some(1)] {
                let scheme = along(scheme, axis);
                let quantized = scheme.quantize(&x, Calibration::MinMax).expect("finite");
                let (least, most) = scheme.limits();
                let Data::I8(values) = quantized.values.data() else { panic!("{:?}", quantized.values.ty()) };
                assert!(values.iter().all(|&q| (least..=most).contains(&f64::from(q))));
                let step = quantized.scale.to_f64().into_iter().fold(0.0, f64::max);
                // A rounded zero point moves the ends of the range by half a step.
                let allowed = if scheme.symmetric { 0.5 } else { 1.0 };
                let off = worst(&quantized.dequantize().expect("fits"), &x);
                assert!(off <= (allowed + 1e-6) * step, "{scheme:?}: {off} with steps of {step}");
                let channels = axis.map_or(1, |axis| x.shape()[axis]);
                assert_eq!((quantized.scale.numel(), quantized.zero.numel()), (channels, channels));
            }
        }
    }
    let per_tensor = Scheme::int8().quantize(&x, Calibration::MinMax).expect("finite");
    let per_channel = Scheme::int8().per_channel(0).quantize(&x, Calibration::MinMax).expect("finite");
    let [tensor, channel] = [per_tensor, per_channel].map(|q| squared(&q.dequantize().expect("fits"), &x));
    assert!(channel < 0.5 * tensor, "a scale per channel is more accurate: {channel} and {tensor}");
}

/// One number far from all others: clamping it makes the others more accurate.
#[test]
fn outliers_are_clamped_by_percentile_and_squared_error() {
    let mut numbers: Vec<f32> = (0..10_000).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    numbers[500] = 3.0;
    let x = Tensor::new([10_000], numbers).expect("fits");
    for scheme in [Scheme::int8().bits(4), Scheme::int8().bits(4).affine()] {
        let of = |range| squared(&scheme.quantize(&x, range).expect("finite").dequantize().expect("fits"), &x);
        let (all, percentile, mse) =
            (of(Calibration::MinMax), of(Calibration::Percentile(99.98)), of(Calibration::Mse));
        assert!(percentile < 0.8 * all && mse <= percentile * 1.05, "{all} {percentile} {mse}");
        let largest = |range| scheme.quantize(&x, range).expect("finite").dequantize().expect("fits").to_f64()[500];
        assert!(largest(Calibration::MinMax) > 2.7 && largest(Calibration::Percentile(99.98)) < 1.2);
    }
    let zeros = Scheme::int8()
        .affine()
        .quantize(&Tensor::new([3], [0.0f32; 3]).expect("three"), Calibration::Mse)
        .expect("fits");
    assert_eq!(zeros.dequantize().expect("fits").to_f64(), [0.0; 3]);
}

#[test]
fn mistakes_are_errors() {
    let x = weights(2, 3);
    let nan = Tensor::new([2], [1.0f32, f32::NAN]).expect("two");
    let none = Tensor::new([0], Vec::<f32>::new()).expect("empty");
    for (result, says) in [
        (Scheme::int8().bits(9).quantize(&x, Calibration::MinMax), "2 to 8 bits, not 9"),
        (Scheme::int8().per_channel(2).quantize(&x, Calibration::MinMax), "no axis 2"),
        (Scheme::int8().quantize(&x, Calibration::Percentile(0.0)), "percentile"),
        (Scheme::int8().quantize(&nan, Calibration::Mse), "finite floats"),
        (Scheme::int8().quantize(&none, Calibration::Mse), "finite floats"),
    ] {
        let why = result.expect_err("is refused").to_string();
        assert!(why.contains(says) && why.contains("f32["), "{why}");
    }
    let graph = Graph::new();
    let weight =
        Scheme::int8().affine().per_channel(0).quantize(&x, Calibration::MinMax).expect("finite").declare(&graph, "w");
    let columns = Scheme::int8().per_channel(1).quantize(&x, Calibration::MinMax).expect("finite").declare(&graph, "c");
    let input = graph.input("x", DType::F32, [1, 3]);
    input.matmul_dynamic(&weight);
    input.matmul_quantized(&columns);
    // A square weight with a scale for each of its inputs.
    let square = Scheme::int8().per_channel(1).quantize(&weights(3, 3), Calibration::MinMax).expect("finite");
    input.matmul_quantized(&square.declare(&graph, "s"));
    input.fake_quantize(Scheme::int8().bits(1), &input, &input);
    assert_mistakes(&graph, &["symmetric weight", "one per output", "one per output", "2 to 8 bits"]);
}

/// Whether the graph has these mistakes, made in this file.
fn assert_mistakes(graph: &Graph, says: &[&str]) {
    let errors = graph.errors();
    assert_eq!(errors.len(), says.len(), "{errors:?}");
    for (error, says) in errors.iter().zip(says) {
        let text = error.to_string();
        assert!(text.contains(says) && error.location.file().ends_with("quant.rs"), "{text}");
    }
}

/// Products of quantised weights, compared with the dequantised ones; every launch with the reference.
#[test]
fn products_of_quantised_weights_agree_with_dequantised_ones() {
    let (w, x) = (weights(9, 52), weights(5, 52));
    for scheme in [Scheme::int8(), Scheme::int8().per_channel(0), Scheme::int8().per_channel(0).affine()] {
        let quantized = scheme.quantize(&w, Calibration::MinMax).expect("finite");
        for device in common::devices() {
            let graph = Graph::new();
            let input = graph.input("x", DType::F32, x.shape());
            let weight = quantized.declare(&graph, "w");
            let plain = input.matmul(&weight.dequantized().t());
            let outputs = if scheme.symmetric {
                vec![input.matmul_quantized(&weight), plain, input.matmul_dynamic(&weight)]
            } else {
                vec![input.matmul_quantized(&weight), plain]
            };
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
            let got = session.run(&program, &[("x", &x)]).expect("runs");
            let largest = got[1].to_f64().iter().fold(0f64, |most, x| most.max(x.abs()));
            assert!(worst(&got[0], &got[1]) <= 1e-4 * largest, "{scheme:?} on {device}");
            if scheme.symmetric {
                let off = worst(&got[2], &got[1]);
                assert!(off > 0.0 && off <= 0.02 * largest, "{off} of {largest} on {device}");
            }
            if !device.is_cpu() {
                let (_, report) = session.check(&program, &[("x", &x)]).expect("runs");
                assert!(report.passed() && report.compared() > 90, "{report:?}");
            }
        }
    }
}

#[test]
fn convolutions_with_quantised_weights_agree_with_dequantised_ones() {
    let w = Tensor::new([6, 3, 3, 3], weights(6, 27).to_f32()).expect("fits");
    let x = Tensor::new([2, 3, 7, 9], (0..378).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect::<Vec<f32>>());
    let x = x.expect("fits");
    for scheme in [Scheme::int8(), Scheme::int8().per_channel(0).bits(4)] {
        let quantized = scheme.quantize(&w, Calibration::Mse).expect("finite");
        for device in common::devices() {
            let graph = Graph::new();
            let input = graph.input("x", DType::F32, x.shape());
            let weight = quantized.declare(&graph, "w");
            let options = Conv2d::same(3).stride(2);
            let outputs =
                [input.conv2d_quantized(&weight, options), input.conv2d(&weight.dequantized(), None, options)];
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &[&outputs[0], &outputs[1]]).expect("compiles");
            let got = session.run(&program, &[("x", &x)]).expect("runs");
            let largest = got[1].to_f64().iter().fold(0f64, |most, x| most.max(x.abs()));
            assert!(worst(&got[0], &got[1]) <= 1e-5 * largest, "{scheme:?} on {device}");
        }
    }
}

/// No copy of the weight in f32: the product reads bytes.
#[test]
fn a_product_reads_a_byte_per_weight() {
    let graph = Graph::new();
    let weight = Scheme::int8().quantize(&weights(64, 128), Calibration::MinMax).expect("finite").declare(&graph, "w");
    let y = graph.input("x", DType::F32, [4, 128]).matmul_quantized(&weight);
    let (plan, findings) = Plan::of(&graph, &[&y], &Profile::webgpu_defaults(), &Options::default()).expect("plans");
    assert!(findings.is_empty() && plan.calls.len() == 1, "{:?}", plan.calls);
    let read = plan.calls[0].reads.iter().map(|stored| stored.ty.to_string()).collect::<Vec<_>>();
    assert!(read.contains(&"i8[64, 128]".to_owned()), "{read:?}");
}

#[test]
fn fake_quantisation_passes_gradients_within_the_range() {
    let x = Tensor::new([6], [0.24f32, -0.26, 0.8, -5.0, 1.5, 0.0]).expect("six");
    for device in common::devices() {
        let graph = Graph::new();
        let input = graph.input("x", DType::F32, [6]);
        let scale = graph.constant(Tensor::new([], [0.5f32]).expect("one"));
        let zero = graph.constant(Tensor::new([], [0.0f32]).expect("one"));
        let scheme = Scheme::int8().bits(3);
        let y = input.fake_quantize(scheme, &scale, &zero);
        let dx = &gradients(&(&y * &y).sum_all(), &[&input])[0];
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&y, dx]).expect("compiles");
        let got = session.run(&program, &[("x", &x)]).expect("runs");
        // Three bits: -3 to 3 times 0.5.
        assert_eq!(got[0].to_f64(), [0.0, -0.5, 1.0, -1.5, 1.5, 0.0]);
        assert_eq!(got[1].to_f64(), [0.0, -1.0, 2.0, 0.0, 3.0, 0.0]);
        // A channel of zeros has scale 0.
        let none = input.zeros_like();
        let y = none.fake_quantize(scheme, &scale.zeros_like(), &zero);
        let program = session.compile(&graph, &[&y]).expect("compiles");
        assert_eq!(session.run(&program, &[]).expect("runs")[0].to_f64(), [0.0; 6]);
    }
}

/// Numbers are packed lowest bits first, a row's last block is filled up with 0, and scales are f16.
#[test]
fn blocks_are_packed() {
    let x = weights(3, 70);
    for (scheme, bits) in [(Scheme::int4(), 4), (Scheme::int8(), 8)] {
        for scheme in [scheme.per_block(), scheme.affine().per_block()] {
            let q = scheme.quantize(&x, Calibration::MinMax).expect("finite");
            let parts = [&q.values, &q.scale, &q.zero].map(|part| part.ty().to_string());
            assert_eq!(parts, [format!("u32[3, {}]", 3 * bits), "f16[3, 3]".to_owned(), "u8[3, 3]".to_owned()]);
            // Nine scales of 2 bytes and nine zero points of 1, in whole words.
            let affine = if scheme.symmetric { 0 } else { 12 };
            assert_eq!(q.bytes(), 3 * 3 * bits * 4 + 20 + affine);
            let Data::U32(words) = q.values.data() else { panic!("{}", q.values.ty()) };
            let (scale, zero) = (q.scale.to_f64(), q.zero.to_f64());
            let back = q.dequantize().expect("fits");
            for (at, (x, back)) in x.to_f64().into_iter().zip(back.to_f64()).enumerate() {
                let (block, i) = (at / 70 * 3 + at % 70 / 32, at % 70 % 32);
                let u = (words[block * bits + i * bits / 32] >> (i * bits % 32)) & ((1 << bits) - 1);
                assert_eq!(back, f64::from(((f64::from(u) - zero[block]) * scale[block]) as f32));
                // A rounded zero point moves the ends of the range by half a step, a rounded scale by less.
                let allowed = if scheme.symmetric { 0.55 } else { 1.1 };
                assert!((x - back).abs() <= allowed * scale[block], "{scheme:?}: {x} became {back}");
            }
            // Row 2 ends with 6 numbers in block 8.
            for i in 6..32 {
                let u = (words[8 * bits + i * bits / 32] >> (i * bits % 32)) & ((1 << bits) - 1);
                assert_eq!(f64::from(u), zero[8]);
            }
        }
    }
    // More scales, less error.
    let of = |scheme: Scheme| {
        let q = scheme.quantize(&weights(6, 320), Calibration::MinMax).expect("finite");
        squared(&q.dequantize().expect("fits"), &weights(6, 320))
    };
    let [channel, block] = [Scheme::int4().per_channel(0), Scheme::int4().per_block()].map(of);
    assert!(block < channel, "{block} and {channel}");
    let zeros = Tensor::new([1, 33], vec![0.0f32; 33]).expect("33");
    let tiny = Tensor::new([1, 33], vec![1e-9f32; 33]).expect("33");
    for none in [zeros, tiny] {
        let q = Scheme::int4().affine().per_block().quantize(&none, Calibration::Mse).expect("finite");
        assert_eq!(q.dequantize().expect("fits").to_f64(), [0.0; 33]);
    }
    let large = Tensor::new([1, 2], [1e6f32, 0.0]).expect("two");
    for (x, scheme, says) in [
        (&x, Scheme::int8().bits(5).per_block(), "4 or 8 bits, not 5"),
        (&Tensor::new([4], [1.0f32; 4]).expect("four"), Scheme::int4().per_block(), "rows of a matrix"),
        (&large, Scheme::int4().per_block(), "more than f16 can represent"),
    ] {
        let why = scheme.quantize(x, Calibration::MinMax).expect_err(says).to_string();
        assert!(why.contains(says), "{why}");
    }
}

/// Products and their gradients agree with those of the dequantised matrix, and read the packed words only.
#[test]
fn products_with_blocks_agree_with_dequantised_ones() {
    let (w, x) = (weights(37, 70), weights(10, 70));
    for scheme in [Scheme::int4(), Scheme::int4().affine(), Scheme::int8(), Scheme::int8().affine()] {
        let quantized = scheme.per_block().quantize(&w, Calibration::MinMax).expect("finite");
        let plain = quantized.dequantize().expect("fits");
        for (device, rows) in
            common::devices().into_iter().flat_map(|device| [1, 2, 10].map(|rows| (device.clone(), rows)))
        {
            let graph = Graph::new();
            let input = graph.input("x", DType::F32, [rows, 70]);
            let weight = quantized.declare(&graph, "w");
            let products = [input.matmul_quantized(&weight), input.matmul(&graph.constant(plain.clone()).t())];
            let slopes = products.clone().map(|y| gradients(&y.square().sum_all(), &[&input]).remove(0));
            let outputs: Vec<&Value> = products.iter().chain(&slopes).collect();
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &outputs).expect("compiles");
            let x = x.rows(&(0..rows).collect::<Vec<_>>()).expect("rows");
            let got = session.run(&program, &[("x", &x)]).expect("runs");
            for (packed, plain) in [(&got[0], &got[1]), (&got[2], &got[3])] {
                let largest = plain.to_f64().iter().fold(0f64, |most, x| most.max(x.abs()));
                assert!(worst(packed, plain) <= 1e-5 * largest, "{scheme:?}, {rows} rows on {device}");
            }
            let reads = program.plan().calls.iter().flat_map(|call| &call.reads);
            let words = reads.filter(|read| read.ty.to_string() == format!("u32[37, {}]", 3 * scheme.bits)).count();
            assert!(device.is_cpu() || words == 2, "a product and its gradient read words: {words}");
        }
    }
    let graph = Graph::new();
    let weight = Scheme::int4().per_block().quantize(&w, Calibration::MinMax).expect("finite").declare(&graph, "w");
    let input = |sizes: &[usize]| graph.input(&format!("x{sizes:?}"), DType::F32, sizes);
    input(&[2, 70]).matmul_dynamic(&weight);
    input(&[2, 37, 3, 3]).conv2d_quantized(&weight, Conv2d::default());
    weight.dequantized();
    input(&[2, 97]).matmul_quantized(&weight);
    input(&[2, 69]).quantized_matmul(&weight.values, &weight.scale, Some(&weight.scale));
    input(&[]).matmul_quantized(&weight);
    input(&[70]).quantized_matmul(&weight.scale, &weight.scale, None);
    let says = [
        "symmetric weight",
        "symmetric weight",
        "on the host",
        "4 blocks of 32",
        "zero points of u32",
        "one axis",
        "words u32",
    ];
    assert_mistakes(&graph, &says);
}

/// A file of blocks whose shapes or numbers do not match is refused.
#[test]
fn hostile_blocks_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    let q = Scheme::int4().per_block().quantize(&weights(3, 40), Calibration::MinMax).expect("finite");
    let mut scales = vec![half::f16::ONE; 6];
    scales[2] = half::f16::NAN;
    let nan = Tensor::new([3, 2], scales).expect("6");
    let zero = Tensor::new([3, 2], vec![16u8; 6]).expect("6");
    let right = r#"{"bits":4,"block":32,"shape":[3,40],"symmetric":true}"#;
    for (scheme, values, scale, zero, why) in [
        (r#"{"bits":4,"block":64,"shape":[3,40],"symmetric":true}"#, &q.values, &q.scale, &q.zero, "the scheme is"),
        (r#"{"bits":4,"block":32,"symmetric":true}"#, &q.values, &q.scale, &q.zero, "the scheme is"),
        (r#"{"bits":4,"block":32,"shape":[3,-1],"symmetric":true}"#, &q.values, &q.scale, &q.zero, "the scheme is"),
        (r#"{"bits":4,"block":32,"shape":[3],"symmetric":true}"#, &q.values, &q.scale, &q.zero, "rows of a matrix"),
        (r#"{"bits":4,"block":32,"shape":[3,0],"symmetric":true}"#, &q.values, &q.scale, &q.zero, "rows of a matrix"),
        (
            r#"{"bits":4,"block":32,"shape":[3,65],"symmetric":true}"#,
            &q.values,
            &q.scale,
            &q.zero,
            "expected u32[3, 12]",
        ),
        (
            r#"{"bits":4,"block":32,"shape":[18446744073709551615,18446744073709551615],"symmetric":true}"#,
            &q.values,
            &q.scale,
            &q.zero,
            "too many elements",
        ),
        (r#"{"bits":5,"block":32,"shape":[3,40],"symmetric":true}"#, &q.values, &q.scale, &q.zero, "4 or 8 bits"),
        (
            r#"{"bits":8,"block":32,"shape":[3,40],"symmetric":true}"#,
            &q.values,
            &q.scale,
            &q.zero,
            "expected u32[3, 16]",
        ),
        (right, &q.values, &nan, &q.zero, "`scale` has the number NaN"),
        (right, &q.values, &q.scale, &zero, "`zero` has the number 8; expected 0"),
        (right, &q.scale, &q.scale, &q.zero, "`values` is f16[3, 2]; expected u32[3, 8]"),
    ] {
        let tensors = [("fc.values", values), ("fc.scale", scale), ("fc.zero", zero)];
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor.clone())).into();
        safetensors::save(&path, &tensors, &[("quantization.fc".to_owned(), scheme.to_owned())].into()).expect("saved");
        let error = QuantizedModel::load(&path).expect_err(why).to_string();
        assert!(error.contains("weight `fc`") && error.contains(why), "{error}");
    }
}

/// A narrow integer is read as f32 without a copy, in generated code and in kernels.
#[test]
fn bytes_are_read_as_floats() {
    let bytes = Tensor::new([2, 5], vec![-128i8, -1, 0, 1, 127, 5, -7, 90, -90, 3]).expect("ten");
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::I8, [2, 5]);
        let f = x.cast(DType::F32);
        let outputs: [Value; 4] =
            [&f * 0.5, f.sum(&[1], false), f.t().softmax(1), x.cast(DType::I32).cast(DType::F32) - &f];
        let mut session = Session::new(device);
        let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
        let got = session.run(&program, &[("x", &bytes)]).expect("runs");
        let numbers = bytes.to_f64();
        assert_eq!(got[0].to_f64(), numbers.iter().map(|x| x * 0.5).collect::<Vec<f64>>());
        assert_eq!(got[1].to_f64(), [-1.0, 1.0]);
        assert_eq!(got[3].to_f64(), vec![0.0; 10]);
        for column in 0..5 {
            let [a, b] = [numbers[column], numbers[column + 5]];
            let want = 1.0 / (1.0 + (b - a).exp());
            assert!((got[2].to_f64()[2 * column] - want).abs() < 1e-6);
        }
    }
}

/// QuantizedModel of every scheme come back as they were, and a session reads the same file.
#[test]
fn files_keep_values_and_schemes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    let mut model = QuantizedModel::default();
    for bits in [2, 4, 8] {
        for scheme in [Scheme::int8().bits(bits), Scheme::int8().bits(bits).affine()] {
            for axis in [None, Some(0), Some(1)] {
                let scheme = along(scheme, axis);
                let quantized = scheme.quantize(&weights(5, 8), Calibration::Mse).expect("finite");
                model.quantized.insert(format!("{scheme:?}"), quantized);
            }
        }
    }
    let mut blocks = QuantizedModel::default();
    for scheme in [Scheme::int4(), Scheme::int4().affine(), Scheme::int8(), Scheme::int8().affine()] {
        let quantized = scheme.per_block().quantize(&weights(3, 70), Calibration::Mse).expect("finite");
        blocks.quantized.insert(format!("blocks.{scheme:?}"), quantized);
    }
    let in_blocks = folder.path().join("blocks.safetensors");
    blocks.save(&in_blocks).expect("saved");
    assert_eq!(QuantizedModel::load(&in_blocks).expect("loads"), blocks);
    model.others.insert("bias".to_owned(), weights(1, 8));
    model.save(&path).expect("saved");
    assert_eq!(QuantizedModel::load(&path).expect("loads"), model);

    for name in model.quantized.keys().step_by(5) {
        let graph = Graph::new();
        // Another weight, as the initial values.
        let other = Tensor::new([5, 8], (0..40).map(|i| i as f32 + 1.0).collect::<Vec<f32>>()).expect("40");
        let other =
            Scheme { bits: 8, ..model.quantized[name].scheme }.quantize(&other, Calibration::MinMax).expect("finite");
        let other = Quantized { zero: model.quantized[name].zero.clone(), ..other };
        let weight = other.declare(&graph, name).dequantized();
        let mut session = Session::new(wgrad::Device::cpu());
        let program = session.compile(&graph, &[&weight]).expect("compiles");
        let parts = safetensors::load(&path).expect("loads").into_iter().filter(|(part, _)| part.starts_with(name));
        let one = folder.path().join("one.safetensors");
        safetensors::save(&one, &parts.collect(), &Default::default()).expect("saved");
        session.load_weights(&one, &graph).expect("the names of the variables");
        let got = session.run(&program, &[]).expect("runs").remove(0);
        assert!(worst(&got, &model.quantized[name].dequantize().expect("fits")) < 1e-5);
    }
}

/// A file whose tensors do not match the scheme is refused, and says why; so is saving such weights.
#[test]
fn files_that_do_not_match_their_scheme_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    let right = Scheme::int8().bits(4).per_channel(0).quantize(&weights(3, 4), Calibration::MinMax).expect("finite");
    let affine = Scheme::int8().affine().quantize(&weights(3, 4), Calibration::MinMax).expect("finite");
    let of = |weight: Quantized| QuantizedModel {
        quantized: [("fc".to_owned(), weight)].into(),
        ..QuantizedModel::default()
    };
    let scale = |numbers: [f32; 3]| Tensor::new([3, 1], numbers).expect("3");
    let wrong = [
        (Quantized { scheme: right.scheme.bits(9), ..right.clone() }, "expected 2 to 8 bits, not 9"),
        (Quantized { scheme: right.scheme.bits(2), ..right.clone() }, "expected integers from -1 to 1"),
        (Quantized { scheme: right.scheme.per_channel(2), ..right.clone() }, "there is no axis 2"),
        (
            Quantized { scheme: right.scheme.per_channel(1), ..right.clone() },
            "`scale` is f32[3, 1]; expected f32[1, 4]",
        ),
        (Quantized { values: right.values.cast(DType::F32), ..right.clone() }, "expected i8[3, 4]"),
        (Quantized { scale: scale([1.0, f32::NAN, 1.0]), ..right.clone() }, "`scale` has the number NaN"),
        (Quantized { scale: scale([1.0, 1.0, 0.0]), ..right.clone() }, "`scale` has the number 0"),
        (Quantized { zero: scale([0.0, 1.0, 0.0]), ..right.clone() }, "`zero` has the number 1; expected 0"),
        (Quantized { zero: Tensor::new([], [0.5f32]).expect("one"), ..affine.clone() }, "`zero` has the number 0.5"),
    ];
    for (weight, why) in wrong {
        let error = of(weight.clone()).save(&path).expect_err(why).to_string();
        assert!(error.contains("weight `fc`") && error.contains(why), "{error}");
        assert!(!path.exists(), "nothing is written");
        // The same as a file.
        let Scheme { bits, symmetric, granularity } = weight.scheme;
        let axis = if let Granularity::Channel(axis) = granularity { axis.to_string() } else { "null".to_owned() };
        let scheme = format!("{{\"axis\":{axis},\"bits\":{bits},\"symmetric\":{symmetric}}}");
        let Quantized { values, scale, zero, .. } = weight;
        let tensors = [("fc.values", values), ("fc.scale", scale), ("fc.zero", zero)];
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into();
        safetensors::save(&path, &tensors, &[("quantization.fc".to_owned(), scheme)].into()).expect("saved");
        let error = QuantizedModel::load(&path).expect_err(why).to_string();
        assert!(error.contains("weight `fc`") && error.contains(why), "{error}");
        std::fs::remove_file(&path).expect("was written");
    }
    let mut twice = of(right.clone());
    twice.others.insert("fc.scale".to_owned(), weights(1, 1));
    assert!(twice.save(&path).expect_err("one name").to_string().contains("two tensors have the name `fc.scale`"));
    for (scheme, why) in
        [("{}", "the scheme is `{}`"), ("{\"axis\":0,\"bits\":8,\"symmetric\":true}", "`fc.values` is missing")]
    {
        let tensors = [("other".to_owned(), weights(1, 2))].into();
        safetensors::save(&path, &tensors, &[("quantization.fc".to_owned(), scheme.to_owned())].into()).expect("saved");
        assert!(QuantizedModel::load(&path).expect_err(why).to_string().contains(why));
    }
}

/// Batches of a skewed activation, each larger than the one before; the first is 0.
fn batches() -> Vec<Tensor> {
    let number = |i: usize, most: f64| {
        let x = (i * 7919 % 10_007) as f64 / 10_007.0;
        (most * (x * x * x - 0.1)) as f32
    };
    [0.0, 0.01, 1.0, 7.5]
        .map(|most| Tensor::new([50, 40], (0..2000).map(|i| number(i, most)).collect::<Vec<f32>>()).expect("2000"))
        .into()
}

/// An observer finds the range that all numbers of its batches have together.
#[test]
fn observed_ranges_are_those_of_all_numbers() {
    let all: Vec<f32> = batches().iter().flat_map(Tensor::to_f32).collect();
    let (low, high) = all.iter().fold((0f64, 0f64), |(low, high), &x| (low.min(x.into()), high.max(x.into())));
    let all = Tensor::new([all.len()], all).expect("fits");
    let mut observer = Observer::new();
    for (number, batch) in batches().iter().enumerate() {
        observer.observe(batch).expect("finite");
        if number == 0 {
            let zero = observer.range(Scheme::int8(), Calibration::Mse).expect("saw 0");
            assert_eq!((zero.scale, zero.zero), (1.0, 0.0));
        }
    }
    let affine = observer.range(Scheme::int8().affine(), Calibration::MinMax).expect("observed");
    let scale = ((high - low) / 255.0) as f32;
    assert_eq!((affine.scale, affine.zero), (scale, (-128.0 - low / f64::from(scale)).round() as f32));
    let symmetric = observer.range(Scheme::int8(), Calibration::MinMax).expect("observed");
    assert_eq!((symmetric.scale, symmetric.zero), ((high.max(-low) / 127.0) as f32, 0.0));

    for scheme in [Scheme::int8(), Scheme::int8().affine(), Scheme::int4(), Scheme::int4().affine()] {
        for calibration in [Calibration::Percentile(100.0), Calibration::Percentile(97.0), Calibration::Mse] {
            let found = observer.range(scheme, calibration).expect("observed");
            let exact = scheme.quantize(&all, calibration).expect("finite");
            // Bins of 16 / 8192; a range has at least 15 steps.
            let (scale, zero) = (exact.scale.to_f64()[0], exact.zero.to_f64()[0]);
            let off = (f64::from(found.scale) - scale).abs() / scale;
            let allowed = if calibration == Calibration::Percentile(100.0) { 1e-7 } else { 2e-3 };
            assert!(off <= allowed, "{scheme:?}, {calibration:?}: {found:?} instead of {scale}");
            assert!((f64::from(found.zero) - zero).abs() <= 1.0, "{found:?} instead of {zero}");
        }
    }
    let clamped = observer.range(Scheme::int8(), Calibration::Percentile(97.0)).expect("observed");
    assert!(clamped.scale < 0.8 * symmetric.scale, "{clamped:?}");
    // The order of the batches does not matter.
    let mut reversed = Observer::new();
    batches().iter().rev().for_each(|batch| reversed.observe(batch).expect("finite"));
    for calibration in [Calibration::MinMax, Calibration::Mse] {
        let [a, b] = [&observer, &reversed].map(|o| o.range(Scheme::int8(), calibration).expect("observed"));
        assert_eq!(a, b);
    }
}

/// Ranges of 8 and 4 bits, with and without a zero point.
fn ranges() -> [ActivationRange; 4] {
    let range = |scheme, scale, zero| ActivationRange { scheme, scale, zero };
    [
        range(Scheme::int8(), 0.02, 0.0),
        range(Scheme::int8().affine(), 0.013, -128.0),
        range(Scheme::int8().affine(), 0.017, 31.0),
        range(Scheme::int4().affine(), 0.3, -3.0),
    ]
}

/// Numbers within and beyond a range, none of them near the middle of two steps; and their integers less the zero
/// point.
fn activations(range: &ActivationRange, shape: &[usize]) -> (Tensor, Vec<f64>) {
    let (least, most) = range.scheme.limits();
    let (scale, zero) = (f64::from(range.scale), f64::from(range.zero));
    let width = most - least + 21.0;
    let (mut numbers, mut integers) = (Vec::new(), Vec::new());
    for i in 0..shape.iter().product::<usize>() {
        let q = least - 10.0 + (i * 7919 % 1009) as f64 % width;
        let part = (i % 7) as f64 / 10.0 - 0.3;
        numbers.push(((q - zero + part) * scale) as f32);
        integers.push(q.clamp(least, most) - zero);
    }
    (Tensor::new(shape, numbers).expect("fits"), integers)
}

/// Products with static ranges, compared with sums of integers in f64, to the rounding of two scales.
#[test]
fn products_with_static_ranges_are_sums_of_integers() {
    for (range, per_channel) in ranges().into_iter().flat_map(|range| [(range, false), (range, true)]) {
        let scheme = if per_channel { Scheme::int8().per_channel(0) } else { Scheme::int8() };
        let quantized = scheme.quantize(&weights(9, 52), Calibration::MinMax).expect("finite");
        let (x, integers) = activations(&range, &[2, 5, 52]);
        let (w, scales) = (quantized.values.to_f64(), quantized.scale.to_f64());
        let scale = |output: usize| f64::from(range.scale) * scales[output % scales.len()];
        let want: Vec<f64> = (0..90)
            .map(|at| (at / 9, at % 9))
            .map(|(row, output)| {
                let terms = (0..52).map(|k| integers[row * 52 + k] * w[output * 52 + k]);
                terms.sum::<f64>() * scale(output)
            })
            .collect();
        for device in common::devices() {
            let graph = Graph::new();
            let input = graph.input("x", DType::F32, x.shape());
            let (declared, weight) = (range.declare(&graph, "x"), quantized.declare(&graph, "w"));
            let outputs = [input.matmul_static(&declared, &weight), input.quantize(&declared)];
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &[&outputs[0], &outputs[1]]).expect("compiles");
            let got = session.run(&program, &[("x", &x)]).expect("runs");
            let stored: Vec<f64> = integers.iter().map(|q| q + f64::from(range.zero)).collect();
            assert_eq!((got[1].dtype(), got[1].to_f64()), (DType::I8, stored));
            for (got, want) in got[0].to_f64().into_iter().zip(&want) {
                assert!((got - want).abs() <= 4e-7 * want.abs(), "{range:?}: {got} instead of {want} on {device}");
            }
            if !device.is_cpu() {
                let bytes = |call: &wgrad::plan::KernelCall| {
                    let reads = call.reads.iter().map(|read| read.ty.to_string()).collect::<Vec<_>>();
                    ["i8[2, 5, 52]", "i8[9, 52]"].iter().all(|ty| reads.contains(&(*ty).to_owned()))
                };
                assert!(program.plan().calls.iter().any(bytes), "the product reads bytes");
                let (_, report) = session.check(&program, &[("x", &x)]).expect("runs");
                assert!(report.passed() && report.compared() > 90, "{report:?}");
            }
        }
    }
}

/// Beyond the range are its ends, and the middle between two integers is the even one.
#[test]
fn integers_of_a_range_are_clamped() {
    let range = ActivationRange { scheme: Scheme::int4().affine(), scale: 0.5, zero: 2.0 };
    let numbers = [0.0, 0.25, 0.75, -0.25, 2.4, f32::INFINITY, -1e30, -4.9, f32::NAN];
    let x = Tensor::new([9], numbers).expect("nine");
    for device in common::devices() {
        let graph = Graph::new();
        let declared = range.declare(&graph, "range");
        let [wide, narrow] = [("x", DType::F32), ("narrow", DType::BF16)].map(|(name, dtype)| {
            let input = graph.input(name, dtype, [9]);
            input.quantize(&declared)
        });
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&wide, &narrow]).expect("compiles");
        let got = session.run(&program, &[("x", &x), ("narrow", &x.cast(DType::BF16))]).expect("runs");
        for got in got {
            assert_eq!(got.to_f64(), [2.0, 2.0, 4.0, 2.0, 7.0, 7.0, -8.0, -8.0, 0.0], "on {device}");
        }
    }
}

/// The same for convolutions; padding is 0, whichever integer stands for it.
#[test]
fn convolutions_with_static_ranges_are_sums_of_integers() {
    let w = Tensor::new([6, 3, 3, 3], weights(6, 27).to_f32()).expect("fits");
    let quantized = Scheme::int8().per_channel(0).quantize(&w, Calibration::MinMax).expect("finite");
    let (w, scales) = (quantized.values.to_f64(), quantized.scale.to_f64());
    for range in ranges() {
        let (x, integers) = activations(&range, &[2, 3, 5, 6]);
        let mut want = Vec::new();
        for (image, output, row, column) in (0..2usize)
            .flat_map(|n| (0..6usize).map(move |o| (n, o)))
            .flat_map(|(n, o)| (0..30usize).map(move |at| (n, o, at / 6, at % 6)))
        {
            let mut sum = 0.0;
            for (channel, i, j) in (0..27usize).map(|k| (k / 9, k / 3 % 3, k % 3)) {
                let (y, x) = ((row + i).wrapping_sub(1), (column + j).wrapping_sub(1));
                if y < 5 && x < 6 {
                    let a = integers[((image * 3 + channel) * 5 + y) * 6 + x];
                    sum += a * w[((output * 3 + channel) * 3 + i) * 3 + j];
                }
            }
            want.push(sum * scales[output] * f64::from(range.scale));
        }
        for device in common::devices() {
            let graph = Graph::new();
            let input = graph.input("x", DType::F32, x.shape());
            let (declared, weight) = (range.declare(&graph, "x"), quantized.declare(&graph, "w"));
            let y = input.conv2d_static(&declared, &weight, Conv2d::same(3));
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &[&y]).expect("compiles");
            let got = session.run(&program, &[("x", &x)]).expect("runs").remove(0).to_f64();
            assert_eq!(got.len(), want.len());
            for (got, want) in got.into_iter().zip(&want) {
                assert!((got - want).abs() <= 4e-7 * want.abs(), "{range:?}: {got} instead of {want} on {device}");
            }
        }
    }
}

#[test]
fn mistakes_with_static_ranges_are_errors() {
    let mut observer = Observer::new();
    let nothing = observer.range(Scheme::int8(), Calibration::MinMax).expect_err("saw nothing").to_string();
    assert!(nothing.contains("nothing was observed"), "{nothing}");
    observer.observe(&weights(2, 3)).expect("finite");
    let before = observer.range(Scheme::int8(), Calibration::MinMax).expect("observed");
    let infinite = Tensor::new([2], [100.0f32, f32::INFINITY]).expect("two");
    for wrong in [&infinite, &Tensor::new([1], [1i32]).expect("one")] {
        let why = observer.observe(wrong).expect_err("not finite floats").to_string();
        assert!(why.contains("expected finite floats") && why.contains("32["), "{why}");
    }
    assert_eq!(observer.range(Scheme::int8(), Calibration::MinMax).expect("observed"), before, "no number was added");
    for (scheme, calibration, says) in [
        (Scheme::int8().bits(1), Calibration::MinMax, "2 to 8 bits, not 1"),
        (Scheme::int8().per_channel(0), Calibration::MinMax, "one scale"),
        (Scheme::int8().per_block(), Calibration::MinMax, "one scale"),
        (Scheme::int8(), Calibration::Percentile(f64::NAN), "percentile"),
    ] {
        let why = observer.range(scheme, calibration).expect_err(says).to_string();
        assert!(why.contains(says), "{why}");
    }

    let graph = Graph::new();
    let declare = |name: &str, scheme: Scheme, rows, columns| {
        let quantized = scheme.quantize(&weights(rows, columns), Calibration::MinMax).expect("finite");
        quantized.declare(&graph, name)
    };
    let range = before.declare(&graph, "range");
    let x = graph.input("x", DType::F32, [2, 3]);
    x.matmul_static(&range, &declare("affine", Scheme::int8().affine(), 2, 3));
    x.matmul_static(&range, &declare("columns", Scheme::int8().per_channel(1), 2, 3));
    x.matmul_static(&range, &declare("blocks", Scheme::int8().per_block(), 2, 3));
    x.matmul_static(&range, &declare("long", Scheme::int8(), 1, 66_312));
    x.matmul_static(&range, &declare("inner", Scheme::int8(), 2, 4));
    x.conv2d_static(&range, &declare("affine4", Scheme::int8().affine(), 2, 3), Conv2d::default());
    graph.input("n", DType::I32, [2]).quantize(&range);
    // An invalid range is one error; what uses it adds none.
    let invalid = ActivationRange { scale: f32::NAN, ..before }.declare(&graph, "nan");
    x.matmul_static(&invalid, &declare("right", Scheme::int8(), 2, 3));
    ActivationRange { zero: 1.0, ..before }.declare(&graph, "one");
    let foreign = before.declare(&Graph::new(), "foreign");
    x.quantize(&foreign);
    let says = [
        "symmetric weight [out, in]",
        "symmetric weight [out, in]",
        "symmetric weight [out, in]",
        "at most 66311 inputs",
        "matmul",
        "symmetric weight [O,",
        "i32",
        "`nan`: `scale` is NaN",
        "`one`: `zero` is 1",
        "different graphs",
    ];
    assert_mistakes(&graph, &says);
}

/// Ranges come back as they were, a session reads them, and hostile ones are refused.
#[test]
fn files_keep_static_ranges() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    let mut model = QuantizedModel::default();
    let names = ["a", "b", "c", "d"];
    model.activations.extend(names.iter().map(|name| (*name).to_owned()).zip(ranges()));
    let weight = Scheme::int8().quantize(&weights(2, 3), Calibration::MinMax).expect("finite");
    model.quantized.insert("w".to_owned(), weight);
    model.save(&path).expect("saved");
    assert_eq!(QuantizedModel::load(&path).expect("loads"), model);

    // Variables with other initial values take those of the file.
    let graph = Graph::new();
    let other = |range: &ActivationRange| ActivationRange { scale: 1.0, ..*range };
    let declared: Vec<_> = model.activations.iter().map(|(name, range)| other(range).declare(&graph, name)).collect();
    let scales: Vec<&Value> = declared.iter().map(|range| &range.scale).collect();
    let mut session = Session::new(wgrad::Device::cpu());
    let program = session.compile(&graph, &scales).expect("compiles");
    let mut contents = safetensors::load(&path).expect("loads");
    contents.retain(|name, _| !name.starts_with('w'));
    let only = folder.path().join("only.safetensors");
    safetensors::save(&only, &contents, &Default::default()).expect("saved");
    session.load_weights(&only, &graph).expect("the names of the variables");
    let got: Vec<f32> = session.run(&program, &[]).expect("runs").iter().map(|x| x.to_f32()[0]).collect();
    assert_eq!(got, ranges().map(|range| range.scale));

    let single = |x: f32| Tensor::new([], [x]).expect("one");
    let right = r#"{"bits":8,"symmetric":false}"#;
    let (one, minus) = (single(1.0), single(-128.0));
    for (scheme, scale, zero, why) in [
        ("8", &one, &minus, "the scheme is `8`"),
        ("{", &one, &minus, "the scheme is `{`"),
        (r#"{"bits":-8,"symmetric":true}"#, &one, &minus, "the scheme is"),
        (r#"{"bits":8}"#, &one, &minus, "the scheme is"),
        (r#"{"bits":9,"symmetric":false}"#, &one, &minus, "2 to 8 bits, not 9"),
        (r#"{"bits":8,"symmetric":true}"#, &one, &minus, "`zero` is -128; expected an integer from 0 to 0"),
        (r#"{"bits":4,"symmetric":false}"#, &one, &minus, "expected an integer from -8 to 7"),
        (right, &single(f32::NAN), &minus, "`scale` is NaN"),
        (right, &single(0.0), &minus, "`scale` is 0"),
        (right, &single(f32::INFINITY), &minus, "`scale` is inf"),
        (right, &one, &single(0.5), "`zero` is 0.5"),
        (right, &one, &single(f32::NAN), "`zero` is NaN"),
        (right, &weights(1, 1), &minus, "`x.scale` is f32[1, 1]; expected f32[]"),
        (right, &one, &Tensor::new([0], Vec::<f32>::new()).expect("none"), "`x.zero` is f32[0]; expected f32[]"),
        (right, &one.cast(DType::F16), &minus, "`x.scale` is f16[]; expected f32[]"),
    ] {
        let tensors = [("x.scale".to_owned(), scale.clone()), ("x.zero".to_owned(), zero.clone())].into();
        let metadata = [("quantized_activation.x".to_owned(), scheme.to_owned())].into();
        safetensors::save(&path, &tensors, &metadata).expect("saved");
        let error = QuantizedModel::load(&path).expect_err(why).to_string();
        assert!(error.contains("activation `x`") && error.contains(why), "{error}");
    }
    safetensors::save(&path, &Default::default(), &[("quantized_activation.x".to_owned(), right.to_owned())].into())
        .expect("saved");
    let error = QuantizedModel::load(&path).expect_err("empty").to_string();
    assert!(error.contains("`x.scale` is missing"), "{error}");

    std::fs::remove_file(&path).expect("was written");
    let range = ranges()[1];
    let mut wrong = QuantizedModel::default();
    wrong.activations.insert("x".to_owned(), ActivationRange { zero: 500.0, ..range });
    let error = wrong.save(&path).expect_err("no such integer").to_string();
    assert!(error.contains("activation `x`") && error.contains("`zero` is 500") && !path.exists(), "{error}");
    wrong.activations.insert("x".to_owned(), range);
    wrong.others.insert("x.scale".to_owned(), weights(1, 1));
    let error = wrong.save(&path).expect_err("one name").to_string();
    assert!(error.contains("two tensors have the name `x.scale`"), "{error}");
}
