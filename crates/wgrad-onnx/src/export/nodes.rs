//! Ops as operators of ONNX.

use wgrad::DType;
use wgrad::graph::ValueId;

use super::elementwise::{self, refs};
use super::site::{Found, Site, Size};
use super::writer::{Writer, bytes, elem_type, int, ints, text};
use super::{patterns, recurrent};
use crate::elem_type::ElemType;

/// Writes a node. `broadcast` and `full` are left for later: most readers broadcast by themselves.
pub(super) fn write(w: &mut Writer<'_>, site: &Site<'_>) -> Found<()> {
    let name = site.node.name();
    match name {
        "broadcast" | "full" => return Ok(()),
        "lstm" | "gru" | "rnn" => return recurrent::write(w, site),
        "normalize" | "rms_normalize" | "var" | "std" => return normalize(w, site),
        "attention" => return attention(w, site),
        _ => {}
    }
    let y = match patterns::write(w, site)? {
        Some(y) => y,
        None => match elementwise::write(w, site)? {
            Some(y) => y,
            None => other(w, site)?,
        },
    };
    w.set(site, 0, y);
    Ok(())
}

/// Writes a value that [`write`] has left for later, in its whole shape.
pub(super) fn write_expanded(w: &mut Writer<'_>, site: &Site<'_>) -> Found<String> {
    let x = match site.node.name() {
        "broadcast" => w.input(site, 0)?,
        "full" => w.number(site.node.outputs[0].dtype, site.float("value")?)?,
        "scalar" => return Err("it reads a scalar that counts steps, which ONNX does not have".into()),
        other => return Err(format!("internal: `{other}` was not written")),
    };
    let shape = site.output_shape(0)?;
    if shape.is_empty() {
        return Ok(x);
    }
    let shape = w.sizes(&shape)?;
    Ok(w.node("Expand", &[&x, &shape]))
}

/// All other ops with one output.
fn other(w: &mut Writer<'_>, site: &Site<'_>) -> Found<String> {
    let name = site.node.name();
    if site.node.inputs.is_empty() {
        return match name {
            "iota" => iota(w, site),
            _ => Err("it has no operator in ONNX".into()),
        };
    }
    match name {
        "matmul" => return matmul(w, site),
        "gather" => return gather(w, site),
        "quantized_matmul" => return quantized_matmul(w, site),
        "random_bits" => {
            return Err("random numbers have no operator in ONNX; export the graph of an evaluation".into());
        }
        "all_reduce" => {
            return Err("a sum over ranks has no operator in ONNX; export the graph of an evaluation".into());
        }
        _ => {}
    }
    let x = w.input(site, 0)?;
    let axis = |site: &Site<'_>| -> Found<(&'static str, _)> { Ok(("axis", int(site.int("axis")?))) };
    Ok(match name {
        "argmax" | "argmin" => {
            let attributes = [axis(site)?, ("keepdims", int(site.flag("keepdim")?.into()))];
            let y = w.node_with(if name == "argmax" { "ArgMax" } else { "ArgMin" }, &[&x], &attributes);
            w.cast(&y, ElemType::I32)
        }
        "argsort" => {
            let at = site.int("axis")?;
            let count = w.sizes(&site.input_shape(0)?[at as usize..][..1])?;
            let attributes = [("axis", int(at)), ("largest", int(site.flag("descending")?.into()))];
            let outputs = w.node_of("TopK", &[&x, &count], &attributes, 2);
            w.cast(&outputs[1], ElemType::I32)
        }
        "avg_pool2d" | "max_pool2d" => {
            let padding = site.ints("padding")?;
            let mut attributes = vec![
                ("kernel_shape", ints(&site.ints("kernel")?)),
                ("strides", ints(&site.ints("stride")?)),
                ("pads", ints(&[padding.clone(), padding].concat())),
            ];
            if name == "avg_pool2d" {
                attributes.push(("count_include_pad", int(site.flag("count_include_pad")?.into())));
            }
            w.node_with(if name == "avg_pool2d" { "AveragePool" } else { "MaxPool" }, &[&x], &attributes)
        }
        "cast" | "widen" => w.cast(&x, elem_type(site.dtype("to")?)?),
        "concat" => {
            let inputs = (0..site.node.inputs.len()).map(|input| w.input(site, input)).collect::<Found<Vec<_>>>()?;
            w.node_with("Concat", &refs(&inputs), &[axis(site)?])
        }
        "conv2d" | "conv2d_input_grad" => convolution(w, site, None)?,
        "cross_entropy" => {
            let index = w.input(site, 1)?;
            let index = w.cast(&index, ElemType::I64);
            let [one, last] = [w.ints(&[1]), w.ints(&[-1])];
            let (logs, column) =
                (w.node_with("LogSoftmax", &[&x], &[("axis", int(1))]), w.node("Unsqueeze", &[&index, &one]));
            let chosen = w.node_with("GatherElements", &[&logs, &column], &[("axis", int(1))]);
            let chosen = w.node("Squeeze", &[&chosen, &last]);
            w.node("Neg", &[&chosen])
        }
        "cumsum" => {
            let along = w.ints(&[site.int("axis")?]);
            let empty = w.ints(&[]);
            let along = w.node("Reshape", &[&along, &empty]);
            w.node_with("CumSum", &[&x, &along], &[("reverse", int(site.flag("reverse")?.into()))])
        }
        "diagonal" => {
            let axes = site.ints("axes")?;
            let rank = site.input_shape(0)?.len();
            let letter = |axis: usize| if axis as i64 == axes[1] { axes[0] as usize } else { axis };
            let letter = |axis: usize| char::from(b'a' + letter(axis) as u8);
            let from: String = (0..rank).map(letter).collect();
            let kept = (0..rank).filter(|&axis| !axes.contains(&(axis as i64))).chain([axes[0] as usize]);
            let to: String = kept.map(letter).collect();
            let shape = site.input_shape(0)?;
            let ends = axes.iter().map(|&axis| shape[axis as usize].known()).collect::<Option<Vec<_>>>();
            let least = ends.and_then(|ends| ends.into_iter().min()).ok_or("its size depends on the number of rows")?;
            let (starts, ends, along) = (w.ints(&[0, 0]), w.ints(&[least, least]), w.ints(&axes));
            let square = w.node("Slice", &[&x, &starts, &ends, &along]);
            w.node_with("Einsum", &[&square], &[("equation", text(&format!("{from}->{to}")))])
        }
        "flip" => {
            let (from, to, along, step) =
                (w.ints(&[-1]), w.ints(&[i64::MIN]), w.ints(&[site.int("axis")?]), w.ints(&[-1]));
            w.node("Slice", &[&x, &from, &to, &along, &step])
        }
        "interpolate" => interpolate(w, site, &x)?,
        "log_softmax" => w.node_with("LogSoftmax", &[&x], &[axis(site)?]),
        "softmax" => w.node_with("Softmax", &[&x], &[axis(site)?]),
        "max" | "mean" | "min" | "prod" | "sum" => {
            let operator = match name {
                "max" => "ReduceMax",
                "mean" => "ReduceMean",
                "min" => "ReduceMin",
                "prod" => "ReduceProd",
                _ => "ReduceSum",
            };
            let axes = w.ints(&site.ints("axes")?);
            // No axes would mean all of them.
            let keep = [("keepdims", int(site.flag("keepdim")?.into())), ("noop_with_empty_axes", int(1))];
            w.node_with(operator, &[&x, &axes], &keep)
        }
        "one_hot" => {
            let (from, to) = (site.input_shape(0)?, site.output_shape(0)?);
            // The operator does not take a scalar.
            let index = if from.is_empty() { w.reshaped(&x, &[Size::fixed(1)])? } else { x };
            let index = w.cast(&index, ElemType::I64);
            let depth = w.ints(&[site.int("classes")?]);
            let values = [0.0f32, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
            let values = w.constant(ElemType::F32, &[2], values);
            let y = w.node_with("OneHot", &[&index, &depth, &values], &[("axis", int(-1))]);
            if from.is_empty() { w.reshaped(&y, &to)? } else { y }
        }
        "pad" => pad(w, site, x)?,
        "permute" => w.node_with("Transpose", &[&x], &[("perm", ints(&site.ints("axes")?))]),
        "reshape" => w.reshaped(&x, &site.output_shape(0)?)?,
        "scatter_sum" => {
            let (index, src) = (w.cast(&x, ElemType::I64), w.input(site, 1)?);
            let zero = w.number(site.node.outputs[0].dtype, 0.0)?;
            let shape = w.sizes(&site.output_shape(0)?)?;
            let zeros = w.node("Expand", &[&zero, &shape]);
            w.node_with("ScatterElements", &[&zeros, &index, &src], &[axis(site)?, ("reduction", text("add"))])
        }
        "slice" => {
            let (start, end) = (w.sizes(&site.sizes("start")?)?, w.sizes(&site.sizes("end")?)?);
            let (along, step) = (w.ints(&[site.int("axis")?]), w.ints(&[site.int("step")?]));
            w.node("Slice", &[&x, &start, &end, &along, &step])
        }
        "stop_gradient" => x,
        _ => return Err("it has no operator in ONNX".into()),
    })
}

/// A convolution or, transposed, the gradient of one, with a vector that is added to its channels.
pub(super) fn convolution(w: &mut Writer<'_>, site: &Site<'_>, bias: Option<ValueId>) -> Found<String> {
    let (x, weight, padding) = (w.input(site, 0)?, w.input(site, 1)?, site.ints("padding")?);
    let bias = bias.map(|bias| w.value(bias)).transpose()?;
    let inputs: Vec<&str> = [&x, &weight].into_iter().chain(&bias).map(String::as_str).collect();
    let (stride, dilation) = (site.ints("stride")?, site.ints("dilation")?);
    let mut attributes = vec![
        ("strides", ints(&stride)),
        ("pads", ints(&[&padding[..], &padding[..]].concat())),
        ("dilations", ints(&dilation)),
        ("group", int(site.int("groups")?)),
    ];
    if site.node.name() == "conv2d" {
        return Ok(w.node_with("Conv", &inputs, &attributes));
    }
    let sizes = |shape: Vec<Size>| -> Found<Vec<i64>> {
        let known = shape[2..].iter().map(|size| size.known()).collect::<Option<_>>();
        known.ok_or_else(|| "its height or width depends on the number of rows".into())
    };
    let (from, kernel) = (sizes(site.input_shape(0)?)?, sizes(site.input_shape(1)?)?);
    let size = site.ints("size")?;
    let least = |i: usize| (from[i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + 1;
    attributes.push(("output_padding", ints(&[size[0] - least(0), size[1] - least(1)])));
    Ok(w.node_with("ConvTranspose", &inputs, &attributes))
}

/// Operands that are only broadcast along the axes before the matrices need no copies.
fn matmul(w: &mut Writer<'_>, site: &Site<'_>) -> Found<String> {
    let source = |w: &mut Writer<'_>, input: usize| -> Found<Option<String>> {
        let maker = w.maker(site.node.inputs[input]);
        if maker.node.name() != "broadcast" {
            return Ok(None);
        }
        let (from, to) = (maker.input_shape(0)?, maker.output_shape(0)?);
        let fits = from.len() >= 2 && from[from.len() - 2..] == to[to.len() - 2..];
        if fits { w.input(&maker, 0).map(Some) } else { Ok(None) }
    };
    let sources = [source(w, 0)?, source(w, 1)?];
    let both = sources.iter().all(Option::is_some);
    let mut names = Vec::new();
    for (input, source) in sources.into_iter().enumerate() {
        names.push(match source {
            Some(source) if !both || input == 1 => source,
            _ => w.input(site, input)?,
        });
    }
    Ok(w.node("MatMul", &refs(&names)))
}

/// Rows by number, as embeddings look them up, are `Gather`; elements by number `GatherElements`.
fn gather(w: &mut Writer<'_>, site: &Site<'_>) -> Found<String> {
    let axis = site.int("axis")?;
    let attributes = [("axis", int(axis))];
    let maker = w.maker(site.node.inputs[1]);
    if maker.node.name() == "broadcast" {
        let (from, to) = (maker.input_shape(0)?, maker.output_shape(0)?);
        let along = axis as usize;
        // The axis of the source that becomes `along`; all others are copied.
        let at = (along + from.len()).checked_sub(to.len());
        let fits = |(i, size): (usize, &Size)| *size == if Some(i) == at { to[along] } else { Size::fixed(1) };
        if at.is_some() && from.iter().enumerate().all(fits) {
            let x = w.input(site, 0)?;
            let index = w.input(&maker, 0)?;
            let flat = w.ints(&[-1]);
            let index = w.node("Reshape", &[&index, &flat]);
            let index = indices(w, &index, site.input_type(1));
            return Ok(w.node_with("Gather", &[&x, &index], &attributes));
        }
    }
    let (x, index) = (w.input(site, 0)?, w.input(site, 1)?);
    let index = indices(w, &index, site.input_type(1));
    Ok(w.node_with("GatherElements", &[&x, &index], &attributes))
}

/// Indices are signed in ONNX.
fn indices(w: &mut Writer<'_>, index: &str, dtype: DType) -> String {
    if dtype == DType::I32 { index.to_owned() } else { w.cast(index, ElemType::I64) }
}

/// The numbers of the elements along an axis.
fn iota(w: &mut Writer<'_>, site: &Site<'_>) -> Found<String> {
    let (shape, axis) = (site.output_shape(0)?, site.int("axis")? as usize);
    let mut column = vec![Size::fixed(1); shape.len()];
    column[axis] = shape[axis];
    let numbers = match shape[axis].known() {
        Some(count) => w.ints(&(0..count).collect::<Vec<_>>()),
        None => {
            let scalar = w.ints(&[]);
            let size = w.sizes(&shape[axis..][..1])?;
            let size = w.node("Reshape", &[&size, &scalar]);
            let [zero, one] = [0i64, 1].map(|value| w.constant(ElemType::I64, &[], value.to_le_bytes().to_vec()));
            w.node("Range", &[&zero, &size, &one])
        }
    };
    let numbers = w.cast(&numbers, elem_type(site.node.outputs[0].dtype)?);
    let column = w.reshaped(&numbers, &column)?;
    let shape = w.sizes(&shape)?;
    Ok(w.node("Expand", &[&column, &shape]))
}

/// `Resize`; or `Gather` for the nearest element where the quotient of the sizes is not exact.
fn interpolate(w: &mut Writer<'_>, site: &Site<'_>, x: &str) -> Found<String> {
    let (axis, sizes, mode) = (site.int("axis")?, site.ints("sizes")?, site.text("mode")?);
    let [from, to] = sizes[..] else { return Err("it lacks its sizes".into()) };
    let (mode, coordinates) = match mode.as_str() {
        "nearest" if to % from != 0 => {
            let index = w.ints(&(0..to).map(|i| i * from / to).collect::<Vec<_>>());
            return Ok(w.node_with("Gather", &[x, &index], &[("axis", int(axis))]));
        }
        "nearest" => ("nearest", "asymmetric"),
        "linear" => ("linear", "half_pixel"),
        "linear_aligned" => ("linear", "align_corners"),
        other => return Err(format!("the mode `{other}` has no operator in ONNX")),
    };
    // ONNX Runtime interpolates one of the last two of four axes.
    let (shape, size) = (site.input_shape(0)?, w.ints(&[to]));
    let is_image = shape.len() == 4 && axis >= 2;
    let product = |sizes: &[Size]| -> Found<Size> {
        let mut product = Size::fixed(1);
        for size in sizes {
            product = match (product.known(), size.known()) {
                (Some(k), _) => Size { fixed: size.fixed * k, per_row: size.per_row * k },
                (_, Some(k)) => Size { fixed: product.fixed * k, per_row: product.per_row * k },
                _ => return Err("its shape does not grow linearly with the number of rows".into()),
            };
        }
        Ok(product)
    };
    let (outer, inner) = (product(&shape[..axis as usize])?, product(&shape[axis as usize + 1..])?);
    let image = match is_image {
        true => x.to_owned(),
        false => w.reshaped(x, &[outer, Size::fixed(1), Size::fixed(from), inner])?,
    };
    let attributes = [
        ("axes", ints(&[if is_image { axis } else { 2 }])),
        ("mode", text(mode)),
        ("coordinate_transformation_mode", text(coordinates)),
        ("nearest_mode", text("floor")),
    ];
    let y = w.node_with("Resize", &[&image, "", "", &size], &attributes);
    if is_image { Ok(y) } else { w.reshaped(&y, &site.output_shape(0)?) }
}

/// Elements apart from each other are padded on a new axis, which is then merged.
fn pad(w: &mut Writer<'_>, site: &Site<'_>, mut x: String) -> Found<String> {
    let (start, size, step) = (site.sizes("start")?, site.sizes("size")?, site.ints("step")?);
    let dtype = site.node.outputs[0].dtype;
    let fill = w.number(dtype, site.float("value")?)?;
    let mut shape = site.input_shape(0)?;
    for axis in (0..shape.len()).filter(|&axis| step[axis] > 1) {
        let (at, pads) = (w.ints(&[axis as i64 + 1]), w.ints(&[0, step[axis] - 1]));
        let column = w.node("Unsqueeze", &[&x, &at]);
        let apart = w.node("Pad", &[&column, &pads, &fill, &at]);
        let (fixed, per_row) = (shape[axis].fixed * step[axis], shape[axis].per_row * step[axis]);
        shape[axis] = Size { fixed, per_row };
        x = w.reshaped(&apart, &shape)?;
        shape[axis].fixed -= step[axis] - 1;
        let (from, to, along) = (w.ints(&[0]), w.sizes(&shape[axis..][..1])?, w.ints(&[axis as i64]));
        x = w.node("Slice", &[&x, &from, &to, &along]);
    }
    let after = |axis: usize| Size {
        fixed: size[axis].fixed - start[axis].fixed - shape[axis].fixed,
        per_row: size[axis].per_row - start[axis].per_row - shape[axis].per_row,
    };
    let pads: Vec<Size> = start.iter().copied().chain((0..shape.len()).map(after)).collect();
    if pads.iter().all(|size| *size == Size::fixed(0)) {
        return Ok(x);
    }
    let pads = w.sizes(&pads)?;
    Ok(w.node("Pad", &[&x, &pads, &fill]))
}

/// Norms of rows of `[outer, rows, inner]`, and their statistics `[2, rows]`.
fn normalize(w: &mut Writer<'_>, site: &Site<'_>) -> Found<()> {
    let name = site.node.name();
    let x = w.input(site, 0)?;
    let axes = w.ints(&[0, 2]);
    let mean = |w: &mut Writer<'_>, x: &str| w.node_with("ReduceMean", &[x, &axes], &[("keepdims", int(1))]);
    let has_mean = name != "rms_normalize";
    let center = if has_mean { mean(w, &x) } else { String::new() };
    let off = if has_mean { w.node("Sub", &[&x, &center]) } else { x };
    let squares = w.node("Mul", &[&off, &off]);
    let var = mean(w, &squares);
    let statistics = match name {
        "var" | "std" => 0,
        _ => 1,
    };
    if statistics == 1 {
        let eps = w.number(DType::F32, site.float("eps")?)?;
        let sum = w.node("Add", &[&var, &eps]);
        let root = w.node("Sqrt", &[&sum]);
        let y = w.node("Div", &[&off, &root]);
        w.set(site, 0, y);
    }
    if w.is_needed(ValueId { node: site.number, output: statistics }) {
        let spread = if name == "std" { w.node("Sqrt", &[&var]) } else { var };
        let center = match has_mean {
            true => center,
            false => w.node("Sub", &[&spread, &spread]),
        };
        let line = [Size::fixed(1), site.output_shape(statistics)?[1]];
        let (center, spread) = (w.reshaped(&center, &line)?, w.reshaped(&spread, &line)?);
        let both = w.node_with("Concat", &[&center, &spread], &[("axis", int(0))]);
        w.set(site, statistics, both);
    }
    Ok(())
}

/// `softmax(scale q k^T + mask) v`, and the logarithm of the sum of exponentials.
fn attention(w: &mut Writer<'_>, site: &Site<'_>) -> Found<()> {
    let [q, k, v] = [w.input(site, 0)?, w.input(site, 1)?, w.input(site, 2)?];
    let scale = w.number(DType::F32, site.float("scale")?)?;
    let q = w.node("Mul", &[&q, &scale]);
    let k = w.node_with("Transpose", &[&k], &[("perm", ints(&[0, 1, 3, 2]))]);
    let mut scores = w.node("MatMul", &[&q, &k]);
    let masked = site.node.inputs.len() > 3;
    if masked {
        let maker = w.maker(site.node.inputs[3]);
        let mask = if maker.node.name() == "broadcast" { w.input(&maker, 0)? } else { w.input(site, 3)? };
        scores = w.node("Add", &[&scores, &mask]);
    }
    if site.flag("causal")? {
        let least = w.number(DType::F32, f64::NEG_INFINITY)?;
        let (queries, keys) = (site.input_shape(0)?[2], site.input_shape(1)?[2]);
        let shape = w.sizes(&[queries, keys])?;
        let full = w.node("Expand", &[&least, &shape]);
        let one = w.constant(ElemType::I64, &[], 1i64.to_le_bytes().to_vec());
        let later = w.node_with("Trilu", &[&full, &one], &[("upper", int(1))]);
        scores = w.node("Add", &[&scores, &later]);
    }
    let mut weights = w.node_with("Softmax", &[&scores], &[("axis", int(-1))]);
    if masked {
        // Scores below -1e29 mask their keys, also all keys of a query.
        let (least, zero) = (w.number(DType::F32, -1e29)?, w.number(DType::F32, 0.0)?);
        let is_masked = w.node("Less", &[&scores, &least]);
        weights = w.node("Where", &[&is_masked, &zero, &weights]);
    }
    let y = w.node("MatMul", &[&weights, &v]);
    w.set(site, 0, y);
    if w.is_needed(ValueId { node: site.number, output: 1 }) {
        let last = w.ints(&[-1]);
        let sums = w.node_with("ReduceLogSumExp", &[&scores, &last], &[("keepdims", int(0))]);
        w.set(site, 1, sums);
    }
    Ok(())
}

/// A product with a matrix in blocks: the words become a tensor of 4 or 8 bits, `DequantizeLinear` its numbers.
fn quantized_matmul(w: &mut Writer<'_>, site: &Site<'_>) -> Found<String> {
    let (bits, columns) = (site.int("bits")?, site.int("columns")?);
    let (ty, zero) = if bits == 4 { (ElemType::U4, 8u8) } else { (ElemType::U8, 128) };
    let x = w.input(site, 0)?;
    let words = bytes(
        &w.stored(site.node.inputs[1])
            .map_err(|_| "its matrix is computed; only weights and constants in blocks can be exported".to_owned())?,
    )?;
    let scales = w.input(site, 2)?;
    let known = |size: &Size| size.known().ok_or("the size of its matrix depends on the number of rows");
    let shape = site.input_shape(2)?;
    let (rows, blocks) = (known(&shape[0])?, known(&shape[1])?);
    let matrix = w.constant(ty, &[rows, blocks * 32], words);
    let zeros = if site.node.inputs.len() > 3 {
        let zeros = w.input(site, 3)?;
        w.cast(&zeros, ty)
    } else {
        let byte = if bits == 4 { zero | zero << 4 } else { zero };
        w.constant(ty, &[rows, blocks], vec![byte; ((rows * blocks * bits + 7) / 8) as usize])
    };
    let attributes = [("axis", int(1)), ("block_size", int(32))];
    let mut matrix = w.node_with("DequantizeLinear", &[&matrix, &scales, &zeros], &attributes);
    if columns != blocks * 32 {
        let (from, to, along) = (w.ints(&[0]), w.ints(&[columns]), w.ints(&[1]));
        matrix = w.node("Slice", &[&matrix, &from, &to, &along]);
    }
    if !site.flag("transposed")? {
        matrix = w.node_with("Transpose", &[&matrix], &[("perm", ints(&[1, 0]))]);
    }
    Ok(w.node("MatMul", &[&x, &matrix]))
}
