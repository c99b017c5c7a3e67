//! Operators on small inputs, where ONNX's own node tests do not reach: results computed by hand, and errors.

use common::op::*;
use wgrad_onnx::{Constant, ElemType, Model};

mod common;

// ---- Sampling

#[test]
fn grid_sample_moves_positions_beyond_the_border_of_an_image_that_is_not_square() {
    let image = f32s(&[1, 1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let grid = f32s(&[1, 1, 3, 2], &[-2.0, 0.0, 1.0, 1.0, 0.5, -0.5]);
    let sample = |mode: &str, padding: &str| {
        op("GridSample", &[&image, &grid]).with(text("mode", mode)).with(text("padding_mode", padding))
    };
    // x = ((g + 1) 3 - 1) / 2 and y = ((g + 1) 2 - 1) / 2: (-2, 0.5), (2.5, 1.5), (1.75, 0).
    close(&sample("linear", "border").numbers(), &[2.5, 6.0, 2.75]);
    close(&sample("linear", "zeros").numbers(), &[0.0, 1.5, 2.75]);
    close(&sample("nearest", "zeros").numbers(), &[0.0, 0.0, 3.0]);
    // -2 is reflected at -0.5 to 1.
    close(&sample("linear", "reflection").numbers(), &[3.5, 6.0, 2.75]);
    // Between -1 and 1 the elements at the ends: 2 is place 3, reflected at 2 to 1.
    let far = f32s(&[1, 1, 1, 2], &[2.0, -1.0]);
    let aligned =
        op("GridSample", &[&image, &far]).with(text("padding_mode", "reflection")).with(int("align_corners", 1));
    close(&aligned.numbers(), &[2.0]);
    assert!(sample("quintic", "zeros").error().contains("the mode `quintic` is unknown"));
    assert!(sample("linear", "mirror").error().contains("the padding `mirror` is unknown"));
    let volume = f32s(&[1, 1, 1, 1, 3], &[0.0; 3]);
    assert!(op("GridSample", &[&image, &volume]).error().contains("does not fit data"));
}

#[test]
fn grid_sample_of_positions_that_are_no_numbers_stays_within_the_image() {
    let image = f32s(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let grid = f32s(&[1, 1, 3, 2], &[f64::NAN, 0.0, f64::INFINITY, 0.0, -1e30, -1e30]);
    let y = op("GridSample", &[&image, &grid]).with(text("padding_mode", "border")).numbers();
    close(&y[1..], &[3.0, 1.0]);
}

#[test]
fn affine_grids_and_regions_have_the_positions_of_the_formulas() {
    let theta = f32s(&[1, 2, 3], &[1.0, 0.0, 0.5, 0.0, 2.0, 0.0]);
    let grid = op("AffineGrid", &[&theta, &i64s(&[4], &[1, 1, 1, 2])]).numbers();
    close(&grid, &[0.0, 0.0, 1.0, 0.0]);
    let line = op("AffineGrid", &[&theta, &i64s(&[4], &[1, 1, 1, 2])]).with(int("align_corners", 1));
    assert!(line.error().contains("no corners to align"));
    // One sample at the centre of each half: of columns (1.5 + 1) / 2 - 0.5.
    let (image, region) = (count(&[1, 1, 2, 4]), f32s(&[1, 4], &[0.0, 0.0, 4.0, 2.0]));
    let roi = || op("RoiAlign", &[&image, &region, &i64s(&[1], &[0])]).with(int("output_width", 2));
    close(&roi().with(int("sampling_ratio", 1)).numbers(), &[2.5, 4.5]);
    close(&roi().numbers(), &[2.5, 4.5]);
    assert!(roi().with(text("mode", "sum")).error().contains("the mode `sum` is unknown"));
}

#[test]
fn a_deformable_convolution_without_offsets_is_a_convolution() {
    let (x, w) = (count(&[1, 2, 4, 5]), f32s(&[2, 1, 2, 2], &[1.0, -2.0, 0.5, 3.0, -1.0, 2.0, 4.0, 0.25]));
    let offset = f32s(&[1, 8, 3, 4], &[0.0; 96]);
    let plain = op("Conv", &[&x, &w]).with(int("group", 2)).numbers();
    close(&op("DeformConv", &[&x, &w, &offset]).with(int("group", 2)).numbers(), &plain);
    // One to the right, in each tap: the next column.
    let right: Vec<f64> = (0..96).map(|at| if at / 12 % 2 == 1 { 1.0 } else { 0.0 }).collect();
    let moved = op("DeformConv", &[&x, &w, &f32s(&[1, 8, 3, 4], &right)]).with(int("group", 2)).numbers();
    close(&moved[..3], &plain[1..4]);
}

// ---- Pooling and blocks

#[test]
fn max_pool_counts_places_by_rows_or_by_columns() {
    let x = count(&[1, 2, 3, 4]);
    let pool = |order: i64| {
        let op = op("MaxPool", &[&x]).with(ints("kernel_shape", &[2, 2])).with(ints("strides", &[1, 2]));
        op.with(int("storage_order", order)).outputs(2).run()
    };
    let rows = pool(0);
    close(&rows[0].to_floats(), &[5.0, 7.0, 9.0, 11.0, 17.0, 19.0, 21.0, 23.0]);
    assert_eq!(rows[1].to_ints(), Some(vec![5, 7, 9, 11, 17, 19, 21, 23]));
    assert_eq!(rows[1].elem_type(), ElemType::I64);
    // Row r and column c are at r + 3 c.
    assert_eq!(pool(1)[1].to_ints(), Some(vec![4, 10, 5, 11, 16, 22, 17, 23]));
    // Of equal elements the first; padding is never one, whatever the data.
    let low = f32s(&[1, 1, 3], &[f64::NEG_INFINITY; 3]);
    let padded = op("MaxPool", &[&low]).with(ints("kernel_shape", &[2])).with(ints("pads", &[1, 0])).outputs(2).run();
    assert_eq!(padded[1].to_ints(), Some(vec![0, 0, 1]));
}

#[test]
fn max_unpool_writes_to_the_places_of_the_pooling() {
    let (x, places) = (f32s(&[1, 1, 1, 2], &[7.0, 8.0]), i64s(&[1, 1, 1, 2], &[5, 2]));
    let unpool = |strides: &[i64]| {
        op("MaxUnpool", &[&x, &places]).with(ints("kernel_shape", &[2, 2])).with(ints("strides", strides))
    };
    close(&unpool(&[2, 2]).numbers(), &[0.0, 0.0, 8.0, 0.0, 0.0, 7.0, 0.0, 0.0]);
    let larger = unpool(&[2, 2]).and(Some(&i64s(&[4], &[1, 1, 2, 5])));
    close(&larger.numbers(), &[0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0]);
    assert!(unpool(&[1, 2]).error().contains("windows that overlap"));
}

#[test]
fn blocks_that_overlap_are_added_and_padding_is_dropped() {
    // Two windows of two elements over [p, a, b]: columns are windows.
    let x = f32s(&[1, 2, 2], &[1.0, 2.0, 10.0, 20.0]);
    let blocks = op("Col2Im", &[&x, &i64s(&[1], &[2]), &i64s(&[1], &[2])]).with(ints("pads", &[1, 0]));
    close(&blocks.numbers(), &[12.0, 20.0]);
    let wrong = op("Col2Im", &[&x, &i64s(&[1], &[5]), &i64s(&[1], &[2])]);
    assert!(wrong.error().contains("blocks"), "{}", wrong.error());
}

#[test]
fn cropping_and_padding_keep_the_center() {
    let x = count(&[5]);
    let to = |size: i64| op("CenterCropPad", &[&x, &i64s(&[1], &[size])]).numbers();
    close(&to(2), &[1.0, 2.0]);
    close(&to(8), &[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0]);
    let image = count(&[1, 2, 2, 2]);
    let depth = |mode: &str| op("SpaceToDepth", &[&image]).with(int("blocksize", 2)).with(text("mode", mode));
    close(&depth("DCR").numbers(), &[0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
    close(&depth("CRD").numbers(), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert!(depth("RCD").error().contains("the mode `RCD` is unknown"));
}

#[test]
fn boxes_that_overlap_more_than_the_threshold_are_dropped() {
    let boxes = f32s(&[1, 3, 4], &[0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0, 1.0, 5.0, 5.0, 6.0, 6.0]);
    let scores = f32s(&[1, 1, 3], &[0.5, 0.9, 0.7]);
    let keep = |most: i64, share: f64| {
        let limits = [i64s(&[1], &[most]), f32s(&[1], &[share])];
        op("NonMaxSuppression", &[&boxes, &scores, &limits[0], &limits[1]]).numbers()
    };
    // The first box has half of its area in common with the second.
    close(&keep(9, 0.4), &[0.0, 0.0, 1.0, 0.0, 0.0, 2.0]);
    close(&keep(9, 0.5), &[0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
    close(&keep(1, 0.4), &[0.0, 0.0, 1.0]);
    assert!(keep(0, 0.4).is_empty());
}

// ---- Numbers

#[test]
fn integers_of_all_sizes_keep_their_bits() {
    let not = |ty: ElemType| op("BitwiseNot", &[&of(ty, &[5, 0])]).run().swap_remove(0).to_ints();
    assert_eq!(not(ElemType::U8), Some(vec![250, 255]));
    assert_eq!(not(ElemType::I16), Some(vec![-6, -1]));
    assert_eq!(not(ElemType::U16), Some(vec![65530, 65535]));
    assert_eq!(not(ElemType::I64), Some(vec![-6, -1]));
    assert!(op("BitwiseNot", &[&of(ElemType::U64, &[5])]).error().contains("devices have 32 bits"));
    let shift = |ty: ElemType, x: &[i64], by: &[i64], direction: &str| {
        let op = op("BitShift", &[&of(ty, x), &of(ty, by)]).with(text("direction", direction));
        op.run().swap_remove(0).to_ints().expect("integers")
    };
    assert_eq!(shift(ElemType::U8, &[200, 255, 1], &[1, 8, 7], "LEFT"), [144, 0, 128]);
    assert_eq!(shift(ElemType::I32, &[-7, -7, 7], &[1, 40, 40], "RIGHT"), [-4, -1, 0]);
    let both = |name| op(name, &[&of(ElemType::I16, &[-1, 12]), &of(ElemType::I16, &[255, 10])]).numbers();
    close(&both("BitwiseAnd"), &[255.0, 8.0]);
    close(&both("BitwiseOr"), &[-1.0, 14.0]);
    close(&both("BitwiseXor"), &[-256.0, 6.0]);
    let bits = |ty: i64| op("BitCast", &[&of(ElemType::U16, &[65535, 7])]).with(int("to", ty)).opset(26);
    assert_eq!(bits(5).run().swap_remove(0).to_ints(), Some(vec![-1, 7]));
    assert!(bits(1).error().contains("different sizes"));
}

#[test]
fn remainders_of_floats_have_the_sign_of_the_divisor_or_of_the_dividend() {
    let inputs =
        [f32s(&[5], &[-7.0, 7.0, 5.5, -1.0, 6.0]), f32s(&[5], &[3.0, -3.0, f64::INFINITY, f64::INFINITY, 3.0])];
    let of = |fmod: i64| op("Mod", &[&inputs[0], &inputs[1]]).with(int("fmod", fmod)).numbers();
    close(&of(0), &[2.0, -2.0, 5.5, f64::INFINITY, 0.0]);
    close(&of(1), &[-1.0, 1.0, 5.5, -1.0, 0.0]);
}

#[test]
fn functions_of_angles_and_their_inverses_agree_with_rust() {
    let x = [-0.9, -0.3, 0.0, 0.2, 0.8];
    let of = |name| op(name, &[&f32s(&[5], &x)]).numbers();
    for (name, function) in [
        ("Asin", f64::asin as fn(f64) -> f64),
        ("Acos", f64::acos),
        ("Atan", f64::atan),
        ("Tan", f64::tan),
        ("Sinh", f64::sinh),
        ("Cosh", f64::cosh),
        ("Asinh", f64::asinh),
        ("Atanh", f64::atanh),
    ] {
        close(&of(name), &x.map(|x| function(f64::from(x as f32))));
    }
    close(&of("Acosh")[..1], &[f64::NAN]);
}

#[test]
fn determinants_need_no_first_element() {
    let x =
        f32s(&[2, 3, 3], &[0.0, 2.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 5.0, 1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 1.0, 1.0, 1.0]);
    close(&op("Det", &[&x]).numbers(), &[-30.0, 0.0]);
    assert!(op("Det", &[&count(&[2, 3])]).error().contains("no square matrices"));
}

#[test]
fn transforms_of_one_side_are_undone_by_their_inverse() {
    let x = f32s(&[1, 5, 1], &[1.0, -2.0, 3.0, 0.5, 4.0]);
    let sides = |x: &Constant| op("DFT", &[x]).opset(17).with(int("onesided", 1));
    let bins = sides(&x).run().swap_remove(0);
    assert_eq!(bins.shape(), [1, 3, 2]);
    close(&bins.to_floats()[..2], &[6.5, 0.0]);
    let back = sides(&bins).with(int("inverse", 1)).and(Some(&i64s(&[], &[5])));
    close(&back.numbers(), &x.to_floats());
    assert!(sides(&bins).error().contains("two sides"));
    // A constant in windows of three elements, one apart.
    let (ones, step, length) = (f32s(&[1, 5, 1], &[1.0; 5]), i64s(&[], &[2]), i64s(&[], &[3]));
    let frames = op("STFT", &[&ones, &step]).and(None).and(Some(&length)).run().swap_remove(0);
    assert_eq!(frames.shape(), [1, 2, 2, 2]);
    close(&frames.to_floats(), &[3.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn extremes_of_nothing_are_neutral() {
    let nothing = f32s(&[2, 0], &[]);
    let of = |name| op(name, &[&nothing, &i64s(&[1], &[1])]).with(int("keepdims", 0)).numbers();
    close(&of("ReduceMax"), &[f64::NEG_INFINITY; 2]);
    close(&of("ReduceMin"), &[f64::INFINITY; 2]);
    close(&of("ReduceLogSumExp"), &[f64::NEG_INFINITY; 2]);
    close(&of("ReduceSum"), &[0.0; 2]);
}

// ---- Types of few bits

#[test]
fn numbers_of_4_bits_are_packed_the_lower_half_first() {
    let scale = f32s(&[], &[0.5]);
    let of = |ty: i64, bytes: &[u8]| {
        let op = Op { name: "DequantizeLinear", opset: 21, outputs: 1, ..Op::default() };
        op.tensor(0, ty, &[3], bytes).and(Some(&scale))
    };
    close(&of(22, &[0xf1, 0x08]).numbers(), &[0.5, -0.5, -4.0]);
    close(&of(21, &[0xf1, 0x08]).numbers(), &[0.5, 7.5, 4.0]);
    close(&of(26, &[0b00_10_01_11]).numbers(), &[-0.5, 0.5, -1.0]);
    let damaged = Model::from_bytes(of(22, &[0xf1]).model(), ".").err().expect("too few bytes").to_string();
    assert!(damaged.contains("1 bytes"), "{damaged}");
    // 17 has the lower four bits of 1; 9 has those of -7.
    let wrapped = op("Cast", &[&of_i32(&[17, 9])]).opset(21).with(int("to", 22)).run().swap_remove(0);
    assert_eq!(wrapped.to_ints(), Some(vec![1, -7]));
}

fn of_i32(values: &[i64]) -> Constant {
    of(ElemType::I32, values)
}

#[test]
fn floats_of_8_bits_are_rounded_to_even_and_saturate() {
    let x = f32s(&[6], &[464.0, 465.0, 17.0, 19.0, 2f64.powi(-10), f64::INFINITY]);
    let cast = |ty: i64, saturate: i64| op("Cast", &[&x]).with(int("to", ty)).with(int("saturate", saturate)).numbers();
    close(&cast(17, 1), &[448.0, 448.0, 16.0, 20.0, 0.0, 448.0]);
    close(&cast(17, 0), &[448.0, f64::NAN, 16.0, 20.0, 0.0, f64::NAN]);
    close(&cast(19, 1), &[448.0, 448.0, 16.0, 20.0, 2f64.powi(-10), 57344.0]);
    assert_eq!(cast(19, 0)[5], f64::INFINITY);
    close(&cast(18, 1)[..2], &[240.0, 240.0]);
    // Weights of 8 bits: 1, -1, 2^-9 and the largest.
    let codes = |op: Op| op.tensor(0, 17, &[4], &[0x38, 0xb8, 0x01, 0x7e]);
    let wide = codes(Op { name: "Cast", opset: 21, outputs: 1, ..Op::default() }).with(int("to", 1));
    close(&wide.numbers(), &[1.0, -1.0, 2f64.powi(-9), 448.0]);
    let sum = codes(Op { name: "Neg", opset: 21, outputs: 1, ..Op::default() });
    assert!(sum.error().contains("float8e4m3fn has no arithmetic; convert it"));
    close(&op("Cast", &[&x]).with(int("to", 1)).with(int("saturate", 1)).numbers(), &x.to_floats());
    let powers = op("Cast", &[&f32s(&[3], &[3.0, 4.0, 0.0])]).with(int("to", 24)).numbers();
    close(&powers, &[4.0, 4.0, 2f64.powi(-127)]);
    assert!(op("Cast", &[&f32s(&[1], &[-3.0])]).with(int("to", 24)).error().contains("no negative numbers"));
}

// ---- Operators of ONNX Runtime

/// Weights 0 and 1 in turn, times a scale of 1/2, if the zero point is 8.
fn matmul_bits(columns: i64, known: bool, zero: Option<i64>) -> Op {
    let bytes = columns as usize / 32 * 16 + if columns % 32 == 0 { 0 } else { 16 };
    let x = count(&[1, columns as usize]);
    let mut op = op("MatMulNBits", &[&x]).of(MICROSOFT);
    op = match known {
        true => op.tensor(1, 2, &[1, bytes as i64 / 16, 16], &vec![0x98; bytes]),
        false => op.and(Some(
            &Constant::from_ints(ElemType::U8, vec![1, bytes / 16, 16], vec![0x98; bytes]).expect("a constant"),
        )),
    };
    op = op.and(Some(&f32s(&[bytes / 16], &vec![0.5; bytes / 16])));
    if let Some(zero) = zero {
        op = op.and(Some(&of(ElemType::U8, &[zero])));
    }
    op.with(int("K", columns)).with(int("N", 1)).with(int("bits", 4)).with(int("block_size", 32))
}

#[test]
fn weights_of_4_bits_are_multiplied_by_their_scales() {
    for known in [true, false] {
        // The odd numbers below 32, halved; below 20 and 64.
        close(&matmul_bits(32, known, None).numbers(), &[128.0]);
        close(&matmul_bits(20, known, None).numbers(), &[50.0]);
        close(&matmul_bits(64, known, None).numbers(), &[512.0]);
        // With zero point 9: minus the even numbers.
        close(&matmul_bits(32, known, Some(9)).numbers(), &[-120.0]);
    }
    let reordered = matmul_bits(32, true, Some(9)).and(Some(&of_i32(&[0; 32])));
    assert!(reordered.error().contains("g_idx is not supported"));
}

#[test]
fn quantised_sums_are_rounded_to_the_scale_of_the_result() {
    let (scale, zero) =
        (|x: f64| f32s(&[], &[x]), |x: i64| Constant::from_ints(ElemType::U8, vec![], vec![x]).expect("a constant"));
    let (a, b) = (of(ElemType::U8, &[12, 255]), of(ElemType::U8, &[3, 255]));
    let inputs = [&a, &scale(0.5), &zero(10), &b, &scale(0.25), &zero(1), &scale(1.0), &zero(5)];
    // (12 - 10) / 2 + (3 - 1) / 4 = 1.5, to even 2; 122.5 + 63.5 = 186.
    close(&op("QLinearAdd", &inputs).of(MICROSOFT).numbers(), &[7.0, 191.0]);
    close(&op("QLinearMul", &inputs).of(MICROSOFT).numbers(), &[5.0, 255.0]);
    let parts = [&scale(1.0), &zero(5), &a, &scale(0.5), &zero(10), &b, &scale(0.25), &zero(1)];
    close(&op("QLinearConcat", &parts).of(MICROSOFT).with(int("axis", 0)).numbers(), &[6.0, 127.0, 5.0, 69.0]);
}

#[test]
fn normalisation_of_a_sum_returns_the_sum() {
    let (x, skip, gamma) = (f32s(&[1, 1, 2], &[1.0, 2.0]), f32s(&[1, 1, 2], &[2.0, 2.0]), f32s(&[2], &[1.0, 10.0]));
    let norm = |name| op(name, &[&x, &skip, &gamma]).of(MICROSOFT).outputs(4).run();
    let layer = norm("SkipLayerNormalization");
    close(&layer[0].to_floats(), &[-1.0, 10.0]);
    close(&layer[3].to_floats(), &[3.0, 4.0]);
    let rms = norm("SkipSimplifiedLayerNormalization");
    close(&rms[0].to_floats(), &[3.0 / 12.5f64.sqrt(), 40.0 / 12.5f64.sqrt()]);
}

#[test]
fn attention_of_one_key_is_its_value_and_masks_remove_keys() {
    let query = f32s(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let (keys, values) = (count(&[1, 2, 4]), f32s(&[1, 2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]));
    let attention = |mask: &Constant| {
        let op = op("MultiHeadAttention", &[&query, &keys, &values]).of(MICROSOFT);
        op.and(None).and(Some(mask)).with(int("num_heads", 2))
    };
    close(&attention(&of_i32(&[1])).numbers(), &[1.0, 2.0, 3.0, 4.0]);
    let second = Constant::from_ints(ElemType::I32, vec![1, 2], vec![0, 1]).expect("a constant");
    close(&attention(&second).numbers(), &[5.0, 6.0, 7.0, 8.0]);
    assert!(attention(&of_i32(&[1, 1, 1])).error().contains("a mask of the shape [3] is not supported"));
    let packed = f32s(&[1, 1, 2, 3, 2], &(0..12).map(f64::from).collect::<Vec<_>>());
    close(
        &op("MultiHeadAttention", &[&packed]).of(MICROSOFT).with(int("num_heads", 2)).numbers(),
        &[4.0, 5.0, 10.0, 11.0],
    );

    // Two heads share one key and value; the cache has the first place.
    let (key, value, past) =
        (f32s(&[1, 1, 2], &[0.0, 0.0]), f32s(&[1, 1, 2], &[3.0, 5.0]), f32s(&[1, 1, 1, 2], &[0.0, 1.0]));
    let shared = |total: i64| {
        let op = op("GroupQueryAttention", &[&query, &key, &value]).of(MICROSOFT);
        let op = op.and(Some(&f32s(&[1, 1, 1, 2], &[0.0, 0.0]))).and(Some(&past));
        let op = op
            .and(Some(&of_i32(&[1])))
            .and(Some(&Constant::from_ints(ElemType::I32, vec![], vec![total]).expect("a constant")));
        op.with(int("num_heads", 2)).with(int("kv_num_heads", 1)).outputs(3)
    };
    let found = shared(2).run();
    close(&found[0].to_floats(), &[1.5, 3.0, 1.5, 3.0]);
    close(&found[2].to_floats(), &[0.0, 1.0, 3.0, 5.0]);
    assert!(shared(8).error().contains("a cache with places in reserve is not supported"));
    assert!(shared(2).with(int("smooth_softmax", 1)).error().contains("smooth_softmax is not supported"));
}

#[test]
fn rotary_embedding_by_a_quarter_swaps_the_parts() {
    let x = f32s(&[1, 2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    // Place 0 does not turn; place 1 turns by a quarter.
    let (cos, sin) = (f32s(&[2, 2], &[1.0, 1.0, 0.0, 0.0]), f32s(&[2, 2], &[0.0, 0.0, 1.0, 1.0]));
    let rotary = |interleaved: i64| {
        let op = op("RotaryEmbedding", &[&x, &i64s(&[1], &[0]), &cos, &sin]).of(MICROSOFT);
        op.with(int("interleaved", interleaved))
    };
    close(&rotary(0).numbers(), &[1.0, 2.0, 3.0, 4.0, -7.0, -8.0, 5.0, 6.0]);
    close(&rotary(1).numbers(), &[1.0, 2.0, 3.0, 4.0, -6.0, 5.0, -8.0, 7.0]);
    assert!(rotary(0).with(int("is_packed_batching", 1)).error().contains("is_packed_batching is not supported"));
}

// ---- Classic machine learning, and what is not supported

#[test]
fn labels_and_scores_of_linear_models() {
    let labels = op("LabelEncoder", &[&i64s(&[3], &[7, 1, 4])]).of("ai.onnx.ml");
    let labels = labels.with(ints("keys_int64s", &[1, 7])).with(int("default_int64", -3));
    close(&labels.with(ints("values_int64s", &[10, 70])).numbers(), &[70.0, 10.0, -3.0]);
    let strings_only = op("LabelEncoder", &[&i64s(&[1], &[7])]).of("ai.onnx.ml").with(ints("keys_int64s", &[7]));
    assert!(strings_only.with(strings("values_strings", &["seven"])).error().contains("strings are not supported"));
    let classifier = op("LinearClassifier", &[&f32s(&[1, 2], &[1.0, 2.0])]).of("ai.onnx.ml").outputs(2);
    assert!(classifier.with(strings("classlabels_strings", &["a", "b"])).error().contains("classlabels_ints"));
}

#[test]
fn inputs_that_are_left_out_have_no_element() {
    let x = count(&[2]);
    close(&op("OptionalHasElement", &[&x]).numbers(), &[1.0]);
    close(&op("OptionalHasElement", &[]).numbers(), &[0.0]);
    close(&op("OptionalHasElement", &[]).and(None).numbers(), &[0.0]);
    close(&op("OptionalGetElement", &[&x]).numbers(), &[0.0, 1.0]);
}

#[test]
fn what_is_not_supported_is_an_error_that_tells_what_to_do() {
    let x = count(&[2, 2]);
    assert!(op("RandomNormalLike", &[&x]).error().contains("its results are random"));
    assert!(op("Bernoulli", &[&x]).error().contains("its results are random"));
    assert!(op("ImageDecoder", &[&x]).error().contains("the operator is not supported"));
    assert!(op("Atan", &[&x]).with(float("alpha", 1.0)).error().contains("its attribute alpha is not supported"));
    let turned = op("FusedMatMul", &[&x, &x]).of(MICROSOFT).with(int("transBatchA", 1));
    assert!(turned.error().contains("transpose the inputs before"));
    assert!(op("HannWindow", &[&i64s(&[], &[1])]).with(int("periodic", 0)).error().contains("not supported"));
}
