//! Tensors as text, as NumPy prints arrays.

use std::fmt::{self, Write};

use super::{Data, Tensor};

/// Beyond so many elements, only the first and last of each axis are shown.
const MANY: usize = 1000;
/// How many of them.
const ENDS: usize = 3;
/// Decimals of a float, and columns of a line.
const DECIMALS: usize = 8;
const COLUMNS: usize = 75;

/// The elements, aligned, with the notation and the defaults of NumPy: up to 8 decimals, powers of ten if numbers are
/// large, small, or far apart, and `...` in place of the middle of tensors with more than 1,000 elements.
///
/// ```
/// use wgrad::Tensor;
/// let x = Tensor::new([2, 3], [1.0f32, 0.25, -3.0, 10.5, f32::NAN, 0.0])?;
/// assert_eq!(x.to_string(), "[[ 1.    0.25 -3.  ]\n [10.5    nan  0.  ]]");
/// assert_eq!(Tensor::new([2], [1.5f32, 2e9])?.to_string(), "[1.5e+00 2.0e+09]");
/// assert_eq!(Tensor::new([2], [7, -12])?.to_string(), "[  7 -12]");
/// # Ok::<(), wgrad::Error>(())
/// ```
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.numel() == 0 {
            return f.write_str("[]");
        }
        let shown: Vec<Vec<Option<usize>>> =
            self.shape.iter().map(|&size| indices(size, self.numel() > MANY)).collect();
        let mut places = Vec::new();
        places_of(&shown, &self.shape.strides(), 0, &mut places);
        let texts = aligned(self, &places);
        let mut texts = texts.iter().map(String::as_str);
        f.write_str(&block(&shown, 0, &mut texts))
    }
}

/// The shown indices of an axis; `None` for those left out.
fn indices(size: usize, many: bool) -> Vec<Option<usize>> {
    if !many || size <= 2 * ENDS {
        return (0..size).map(Some).collect();
    }
    (0..ENDS).map(Some).chain([None]).chain((size - ENDS..size).map(Some)).collect()
}

/// The positions of the shown elements.
fn places_of(shown: &[Vec<Option<usize>>], strides: &[usize], start: usize, places: &mut Vec<usize>) {
    match shown.split_first() {
        None => places.push(start),
        Some((axis, inner)) => {
            for index in axis.iter().flatten() {
                places_of(inner, &strides[1..], start + index * strides[0], places);
            }
        }
    }
}

/// Elements as texts of one width.
fn aligned(x: &Tensor, places: &[usize]) -> Vec<String> {
    let pad = |texts: Vec<String>| {
        let width = texts.iter().map(String::len).max().unwrap_or(0);
        texts.into_iter().map(|text| format!("{text:>width$}")).collect()
    };
    let floats =
        |of: &dyn Fn(usize) -> (f64, String)| pad(floats(&places.iter().map(|&at| of(at)).collect::<Vec<_>>()));
    // The shortest text that stands for a number depends on its type.
    match &x.data {
        Data::F32(v) => floats(&|at| (v[at].into(), format!("{:e}", v[at]))),
        Data::F64(v) => floats(&|at| (v[at], format!("{:e}", v[at]))),
        Data::F16(v) => floats(&|at| (v[at].into(), shortest(v[at].into(), |x| half::f16::from_f64(x) == v[at]))),
        Data::BF16(v) => floats(&|at| (v[at].into(), shortest(v[at].into(), |x| half::bf16::from_f64(x) == v[at]))),
        Data::I32(v) => pad(places.iter().map(|&at| v[at].to_string()).collect()),
        Data::U32(v) => pad(places.iter().map(|&at| v[at].to_string()).collect()),
        Data::I8(v) => pad(places.iter().map(|&at| v[at].to_string()).collect()),
        Data::U8(v) => pad(places.iter().map(|&at| v[at].to_string()).collect()),
        Data::Bool(v) => pad(places.iter().map(|&at| v[at].to_string()).collect()),
    }
}

/// The shortest text that stands for a number.
fn shortest(x: f64, stands: impl Fn(f64) -> bool) -> String {
    let texts = (0..DECIMALS).map(|decimals| format!("{x:.decimals$e}"));
    let found = texts.into_iter().find(|text| text.parse().is_ok_and(&stands));
    found.unwrap_or_else(|| format!("{x:e}"))
}

/// Floats in one notation. Each is given with its shortest text in powers of ten.
fn floats(numbers: &[(f64, String)]) -> Vec<String> {
    let magnitudes = || numbers.iter().map(|(x, _)| x.abs()).filter(|x| x.is_finite() && *x > 0.0);
    let (least, most) = (magnitudes().fold(f64::INFINITY, f64::min), magnitudes().fold(0.0, f64::max));
    let powers = most >= 1e8 || (most > 0.0 && (least < 1e-4 || most / least > 1e3));
    let decimals = |text: &str| text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let finite = numbers.iter().filter(|(x, _)| x.is_finite());
    if powers {
        let digits = finite.map(|(_, text)| decimals(text.split('e').next().unwrap_or(text)).min(DECIMALS)).max();
        let parts: Vec<(String, char, String)> =
            numbers.iter().map(|(x, _)| in_powers(*x, digits.unwrap_or(0))).collect();
        let width = parts.iter().map(|(_, _, power)| power.len()).max().unwrap_or(0).max(2);
        let one = |(mantissa, sign, power): &(String, char, String)| format!("{mantissa}e{sign}{power:0>width$}");
        let texts = numbers.iter().zip(&parts).map(|((x, _), parts)| special(*x).unwrap_or_else(|| one(parts)));
        return texts.collect();
    }
    // Without trailing zeros, but with as much space.
    let trimmed = |(x, text): &(f64, String)| {
        let short: f64 = text.parse().unwrap_or(*x);
        let text = format!("{short:.DECIMALS$}");
        text.trim_end_matches('0').to_owned()
    };
    let places = finite.map(|number| decimals(&trimmed(number))).max().unwrap_or(0);
    let one = |number: &(f64, String)| {
        let text = trimmed(number);
        let space = places - decimals(&text);
        text + &" ".repeat(space)
    };
    numbers.iter().map(|number| special(number.0).unwrap_or_else(|| one(number))).collect()
}

/// A number in powers of ten: mantissa, and sign and digits of the power.
fn in_powers(x: f64, decimals: usize) -> (String, char, String) {
    let text = format!("{x:.decimals$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, ""));
    let point = if mantissa.contains('.') { "" } else { "." };
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
    (format!("{mantissa}{point}"), sign, power.to_owned())
}

/// The text of a number that is not finite.
fn special(x: f64) -> Option<String> {
    match x {
        x if x.is_nan() => Some("nan".into()),
        f64::INFINITY => Some("inf".into()),
        f64::NEG_INFINITY => Some("-inf".into()),
        _ => None,
    }
}

/// The axes from `depth` on, in brackets.
fn block<'a>(shown: &[Vec<Option<usize>>], depth: usize, texts: &mut impl Iterator<Item = &'a str>) -> String {
    let Some((axis, inner)) = shown[depth..].split_first() else {
        return texts.next().unwrap_or_default().trim().to_owned();
    };
    let mut text = String::from("[");
    let indent = " ".repeat(depth + 1);
    let mut column = indent.len();
    for (number, index) in axis.iter().enumerate() {
        if inner.is_empty() {
            let next = index.map_or("...", |_| texts.next().unwrap_or_default());
            if number > 0 && column + next.len() >= COLUMNS {
                column = indent.len();
                text.truncate(text.trim_end().len());
                let _ = write!(text, "\n{indent}");
            } else if number > 0 {
                text.push(' ');
            }
            column += next.len() + 1;
            text.push_str(next);
        } else {
            if number > 0 {
                // An empty line between matrices, two between blocks of matrices, and so on.
                let _ = write!(text, "{}{indent}", "\n".repeat(inner.len()));
            }
            match index {
                Some(_) => text.push_str(&block(shown, depth + 1, texts)),
                None => text.push_str("..."),
            }
        }
    }
    text.push(']');
    text
}
