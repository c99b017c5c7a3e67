//! Floats of 8 and 4 bits, which are stored as the f32 that have their values.

use crate::elem_type::ElemType;

/// The bits of a format, and what it has besides numbers.
struct Format {
    exponent: u32,
    fraction: u32,
    bias: i32,
    largest: f64,
    /// Whether numbers beyond the largest are infinite; otherwise they are NaN.
    infinite: bool,
}

impl Format {
    fn of(ty: ElemType) -> Option<Format> {
        let format =
            |exponent, fraction, bias, largest, infinite| Format { exponent, fraction, bias, largest, infinite };
        Some(match ty {
            ElemType::F8E4M3 => format(4, 3, 7, 448.0, false),
            ElemType::F8E4M3Z => format(4, 3, 8, 240.0, false),
            ElemType::F8E5M2 => format(5, 2, 15, 57344.0, true),
            ElemType::F8E5M2Z => format(5, 2, 16, 57344.0, false),
            ElemType::F4E2M1 => format(2, 1, 1, 6.0, false),
            _ => return None,
        })
    }
}

/// The number of a code; 0 if the type is none of these.
pub(crate) fn decoded(ty: ElemType, code: u8) -> f64 {
    if ty == ElemType::F8E8M0 {
        return if code == 0xff { f64::NAN } else { 2f64.powi(i32::from(code) - 127) };
    }
    let Some(format) = Format::of(ty) else { return 0.0 };
    let magnitude = u32::from(code) & ((1 << (format.exponent + format.fraction)) - 1);
    let (e, fraction) = (magnitude >> format.fraction, magnitude & ((1 << format.fraction) - 1));
    let sign = if u32::from(code) == magnitude { 1.0 } else { -1.0 };
    match ty {
        ElemType::F8E4M3 if magnitude == 0x7f => return f64::NAN,
        ElemType::F8E4M3Z | ElemType::F8E5M2Z if code == 0x80 => return f64::NAN,
        ElemType::F8E5M2 if e == 31 => return if fraction == 0 { sign * f64::INFINITY } else { f64::NAN },
        _ => {}
    }
    let part = f64::from(fraction) / f64::from(1u32 << format.fraction);
    let (whole, power) = if e == 0 { (0.0, 1 - format.bias) } else { (1.0, e as i32 - format.bias) };
    sign * (whole + part) * 2f64.powi(power)
}

/// The nearest number of the type, ties to even. Beyond the largest, that if it saturates; else infinity, or NaN in a
/// type without.
pub(crate) fn rounded(ty: ElemType, x: f64, saturates: bool) -> f64 {
    let Some(format) = Format::of(ty).filter(|_| !x.is_nan() && x != 0.0) else { return x };
    if x.is_infinite() && !saturates {
        return if format.infinite { x } else { f64::NAN };
    }
    // The bits of an f64 have its exponent; those below the smallest are flushed by the limit.
    let power = ((x.abs().to_bits() >> 52) as i32 - 1023).max(1 - format.bias).min(format.bias + 64);
    let step = 2f64.powi(power - format.fraction as i32);
    let y = (x / step).round_ties_even() * step;
    match (y.abs() > format.largest, saturates) {
        (false, _) => y,
        (true, true) => format.largest.copysign(x),
        (true, false) if format.infinite => f64::INFINITY.copysign(x),
        (true, false) => f64::NAN,
    }
}

/// The power of two of 8 bits for a number that is not negative: the next larger (`up`) or smaller one (`down`), or the
/// nearest. Beyond the range, its end if it saturates, else NaN.
pub(crate) fn power_of_two(x: f64, mode: &str, saturates: bool) -> Result<f64, String> {
    if x < 0.0 {
        return Err(format!("{x} is no power of two: float8e8m0 has no negative numbers"));
    }
    let floor = (x.to_bits() >> 52) as i32 - 1023;
    let share = x / 2f64.powi(floor);
    let power = match mode {
        "up" => floor + i32::from(share > 1.0),
        "down" => floor,
        "nearest" => floor + i32::from(share >= 1.5),
        other => return Err(format!("round_mode = {other} is unknown")),
    };
    Ok(match (-127..=127).contains(&power) {
        _ if x.is_nan() => x,
        false if !saturates => f64::NAN,
        _ => 2f64.powi(power.clamp(-127, 127)),
    })
}
