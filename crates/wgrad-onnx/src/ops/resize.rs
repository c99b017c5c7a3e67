//! Resizing: along each axis, a product with a matrix that is known.

use wgrad::{DType, Tensor, Value};

use super::Family;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[("Resize", resize), ("Upsample", resize)];

/// How an axis is resized.
struct Axis {
    from: usize,
    to: usize,
    /// The factor that positions are divided by.
    scale: f64,
    /// The region that is resized, as shares of the axis.
    region: (f64, f64),
}

struct Options {
    mode: String,
    coordinates: String,
    nearest: String,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
}

impl Options {
    /// The position in the input of element `at` of the output.
    fn position(&self, axis: &Axis, at: usize) -> Result<f64> {
        let (x, from, to) = (at as f64, axis.from as f64, axis.to as f64);
        // What a resized axis would have as its length, before it is rounded to whole elements.
        let length = axis.scale * from;
        Ok(match self.coordinates.as_str() {
            "half_pixel" => (x + 0.5) / axis.scale - 0.5,
            "half_pixel_symmetric" => {
                let adjustment = to / length;
                let center = from / 2.0;
                center * (1.0 - adjustment) + (x + 0.5) / axis.scale - 0.5
            }
            "pytorch_half_pixel" if length <= 1.0 => -0.5,
            "pytorch_half_pixel" => (x + 0.5) / axis.scale - 0.5,
            "align_corners" if length == 1.0 => 0.0,
            "align_corners" => x * (from - 1.0) / (length - 1.0),
            "asymmetric" => x / axis.scale,
            "tf_half_pixel_for_nn" => (x + 0.5) / axis.scale,
            "tf_crop_and_resize" => {
                let (start, end) = axis.region;
                match to > 1.0 {
                    true => start * (from - 1.0) + x * (end - start) * (from - 1.0) / (to - 1.0),
                    false => 0.5 * (start + end) * (from - 1.0),
                }
            }
            other => return Err(format!("the coordinates `{other}` are unknown").into()),
        })
    }

    /// The element that is nearest to a position.
    fn nearest(&self, position: f64, from: usize) -> Result<usize> {
        let whole = match self.nearest.as_str() {
            "round_prefer_floor" if position.fract().abs() == 0.5 => position.floor(),
            "round_prefer_floor" => position.round(),
            "round_prefer_ceil" if position.fract().abs() == 0.5 => position.ceil(),
            "round_prefer_ceil" => position.round(),
            "floor" => position.floor(),
            "ceil" => position.ceil(),
            other => return Err(format!("the mode `{other}` of the nearest element is unknown").into()),
        };
        Ok(whole.clamp(0.0, from as f64 - 1.0) as usize)
    }

    /// The weight of an element at a distance.
    fn weight(&self, distance: f64) -> f64 {
        let x = distance.abs();
        if self.mode == "linear" {
            return (1.0 - x).max(0.0);
        }
        // Keys, Cubic convolution interpolation for digital image processing, 1981.
        let a = self.cubic;
        match x {
            x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            _ => 0.0,
        }
    }

    /// The weights of the input's elements for a position.
    fn row(&self, axis: &Axis, position: f64) -> Vec<f64> {
        let mut row = vec![0.0; axis.from];
        let reach = if self.mode == "linear" { 1.0 } else { 2.0 };
        // Antialiasing widens the filter when an axis shrinks.
        let stretch = if self.antialias && axis.scale < 1.0 { axis.scale } else { 1.0 };
        let (first, last) = ((position - reach / stretch).floor() as i64, (position + reach / stretch).ceil() as i64);
        let end = axis.from as i64 - 1;
        let mut total = 0.0;
        for place in first..=last {
            let weight = self.weight((place as f64 - position) * stretch);
            if self.exclude_outside && !(0..=end).contains(&place) {
                continue;
            }
            total += weight;
            row[place.clamp(0, end) as usize] += weight;
        }
        if self.antialias || self.exclude_outside {
            row.iter_mut().for_each(|weight| *weight /= total);
        }
        row
    }
}

fn resize(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.input(0)?, node.input(0)?.ty());
    let old = node.op() == "Upsample" || node.version() < 11;
    let options = Options {
        mode: node.text("mode", "nearest"),
        coordinates: node.text("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" }),
        nearest: node.text("nearest_mode", if old { "floor" } else { "round_prefer_floor" }),
        cubic: node.number("cubic_coeff_a", -0.75),
        exclude_outside: node.flag("exclude_outside", false),
        antialias: node.flag("antialias", false),
    };
    let mode = options.mode.clone();
    if !["nearest", "linear", "bilinear", "trilinear", "cubic"].contains(&mode.as_str()) {
        return Err(format!("the mode `{mode}` is unknown").into());
    }
    let options = if mode.ends_with("linear") { Options { mode: "linear".into(), ..options } } else { options };
    let extrapolation = node.number("extrapolation_value", 0.0);
    let policy = node.text("keep_aspect_ratio_policy", "stretch");
    let axes = match node.attribute_ints("axes") {
        Some(axes) => node.axes(&axes, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    let filled = |numbers: Option<Vec<f64>>| numbers.filter(|numbers| !numbers.is_empty());
    let (region, scales, sizes) = if old {
        // The first version has attributes for the axes of an image.
        let of_image = [node.optional_attribute_number("height_scale"), node.optional_attribute_number("width_scale")];
        let scales = match (node.attribute_numbers("scales"), of_image) {
            (Some(scales), _) => Some(scales),
            (None, [Some(height), Some(width)]) => Some(vec![1.0, 1.0, height, width]),
            _ => node.optional_floats(1)?,
        };
        (None, scales, None)
    } else {
        let sizes = filled(node.optional_floats(3)?);
        let scales = filled(node.optional_floats(2)?).filter(|_| sizes.is_none());
        (filled(node.optional_floats(1)?), scales, sizes)
    };
    let count = axes.len();
    let fits = |numbers: &Option<Vec<f64>>| numbers.as_ref().is_none_or(|numbers| numbers.len() == count);
    if !fits(&scales) || !fits(&sizes) || (scales.is_none() && sizes.is_none()) {
        return Err(format!("it needs scales or sizes for {count} axes").into());
    }
    let uses_region = options.coordinates == "tf_crop_and_resize";
    let region = region.filter(|_| uses_region);
    if uses_region && region.as_ref().is_none_or(|region| region.len() != 2 * count) {
        return Err(format!("it needs a region of {count} axes").into());
    }
    let from: Vec<usize> = axes.iter().map(|&axis| x.shape()[axis]).collect();
    let region_of = |at: usize| region.as_ref().map_or((0.0, 1.0), |region| (region[at], region[at + count]));
    let mut resized = Vec::new();
    for at in 0..count {
        let size = from[at] as f64;
        let (scale, to) = match (&scales, &sizes) {
            (Some(scales), _) => {
                let (start, end) = region_of(at);
                (scales[at], (size * (end - start) * scales[at]).floor())
            }
            (_, Some(sizes)) if policy == "stretch" => (sizes[at] / size, sizes[at]),
            (_, Some(sizes)) => {
                let each = sizes.iter().zip(&from).map(|(&to, &from)| to / from as f64);
                let scale = match policy.as_str() {
                    "not_larger" => each.fold(f64::INFINITY, f64::min),
                    "not_smaller" => each.fold(f64::NEG_INFINITY, f64::max),
                    other => return Err(format!("the policy `{other}` is unknown").into()),
                };
                (scale, (scale * size).round())
            }
            _ => return Err("it needs scales or sizes".into()),
        };
        if !(scale > 0.0 && (0.0..=1e6).contains(&to)) {
            return Err(format!("axis {} of {size} elements cannot become {to}", axes[at]).into());
        }
        resized.push(Axis { from: from[at], to: to as usize, scale, region: region_of(at) });
    }

    let mut y = node.value(0)?;
    y = if ty.is_float() { y } else { y.cast(DType::F32) };
    for (axis, resized) in axes.iter().zip(&resized) {
        if resized.from != resized.to || resized.scale != 1.0 || uses_region {
            y = along(&y, *axis, resized, &options)?;
        }
    }
    if uses_region {
        for (axis, resized) in axes.iter().zip(&resized) {
            let outside = (0..resized.to)
                .map(|at| options.position(resized, at).map(|x| x < 0.0 || x > resized.from as f64 - 1.0))
                .collect::<Result<Vec<bool>>>()?;
            if outside.contains(&true) {
                let mut shape = vec![1; y.shape().rank()];
                shape[*axis] = resized.to;
                let mask = Tensor::new(shape, outside).map_err(|error| error.to_string())?;
                y = y.graph().constant(mask).where_(&y.full_like(extrapolation), &y);
            }
        }
    }
    let y = if ty.is_float() || options.mode == "nearest" { y } else { y.round() };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn along(x: &Value, axis: usize, resized: &Axis, options: &Options) -> Result<Value> {
    let positions = (0..resized.to).map(|at| options.position(resized, at)).collect::<Result<Vec<_>>>()?;
    if options.mode == "nearest" {
        let places = positions.into_iter().map(|position| Ok(options.nearest(position, resized.from)? as i32));
        let places = places.collect::<Result<Vec<i32>>>()?;
        let places = Tensor::new([places.len()], places).map_err(|error| error.to_string())?;
        return Ok(x.index_select(axis as isize, &x.graph().constant(places)));
    }
    // [.., from, ..] as [outer, from, inner], times a matrix from the left.
    let rows: Vec<f64> = positions.into_iter().flat_map(|position| options.row(resized, position)).collect();
    let matrix = Tensor::new([resized.to, resized.from], rows).map_err(|error| error.to_string())?.cast(x.dtype());
    let matrix = x.graph().constant(matrix);
    let shape = x.shape().to_vec();
    let (outer, inner) = (shape[..axis].iter().product::<usize>(), shape[axis + 1..].iter().product::<usize>());
    let mut to = shape.clone();
    to[axis] = resized.to;
    let y = match inner {
        1 => x.reshape(&signed(&[outer, resized.from])).matmul(&matrix.t()),
        _ => matrix.matmul(&x.reshape(&signed(&[outer, resized.from, inner]))),
    };
    Ok(y.reshape(&signed(&to)))
}
