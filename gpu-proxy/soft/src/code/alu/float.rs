//! Arithmetic on `f32` and `f64`. Source: PTX ISA, 9.7.3.
//!
//! `.rn` and exact operations are IEEE 754, as the hardware's; other roundings come from `rounding.rs`. The approximations
//! (`sin.approx`, `ex2.approx` …) are computed in double precision and rounded: nearer to the truth than the hardware's.

#![expect(
    clippy::neg_cmp_op_on_partial_ord,
    clippy::double_comparisons,
    reason = "NaN makes these differ from what they look like"
)]

use super::{Codec, F1, F2, F3, Ftz, Rounding, lanes1, lanes2, lanes3};
use crate::ptx::Ty;

/// `$body` with `$t` as the codec of a floating type, flushed or not.
macro_rules! by_float {
    ($ty:expr, $ftz:expr, $t:ident => $body:expr) => {
        match ($ty, $ftz) {
            (Ty::F32, false) => {
                type $t = f32;
                Some($body)
            }
            (Ty::F32, true) => {
                type $t = Ftz;
                Some($body)
            }
            (Ty::F64, _) => {
                type $t = f64;
                Some($body)
            }
            _ => None,
        }
    };
}

macro_rules! by_single {
    ($ftz:expr, $t:ident => $body:expr) => {
        if $ftz {
            type $t = Ftz;
            Some($body)
        } else {
            type $t = f32;
            Some($body)
        }
    };
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
fn through_double(value: f32, f: impl Fn(f64) -> f64) -> f32 {
    f(f64::from(value)) as f32
}

/// `neg abs sqrt rcp rsqrt sin cos ex2 lg2 tanh`, the `.approx` forms included.
pub(crate) fn unary(op: &str, ty: Ty, rounding: Option<Rounding>, ftz: bool) -> Option<F1> {
    match (op, ty) {
        // The sign bit alone, NaN or not.
        ("neg", Ty::F32) if !ftz => return Some(lanes1!(u32 => u32, |a| a ^ 1 << 31)),
        ("abs", Ty::F32) if !ftz => return Some(lanes1!(u32 => u32, |a| a & !(1 << 31))),
        ("neg", _) => return by_float!(ty, ftz, T => lanes1!(T => T, |a| -a)),
        ("abs", _) => return by_float!(ty, ftz, T => lanes1!(T => T, |a| a.abs())),
        ("sqrt", Ty::F32) => return sqrt_single(rounding.unwrap_or(Rounding::Nearest), ftz),
        ("sqrt", _) => return sqrt_double(rounding.unwrap_or(Rounding::Nearest), ty),
        ("rcp", Ty::F32) => return reciprocal_single(rounding.unwrap_or(Rounding::Nearest), ftz),
        // `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64` give the upper half only.
        ("rcp", Ty::F64) if rounding.is_none() => {
            return Some(lanes1!(f64 => u64, |a| f64::put(1.0 / flush_double(a)) & !0xffff_ffff));
        }
        ("rsqrt", Ty::F64) if ftz => {
            return Some(lanes1!(f64 => u64, |a| f64::put(1.0 / flush_double(a).sqrt()) & !0xffff_ffff));
        }
        ("rcp", _) => return reciprocal_double(rounding.unwrap_or(Rounding::Nearest), ty),
        ("rsqrt", Ty::F64) => return Some(lanes1!(f64 => f64, |a| 1.0 / a.sqrt())),
        (_, Ty::F32) => {}
        _ => return None,
    }
    match op {
        "rsqrt" => by_single!(ftz, T => lanes1!(T => T, |a| through_double(a, |x| 1.0 / x.sqrt()))),
        "sin" => by_single!(ftz, T => lanes1!(T => T, |a| through_double(a, f64::sin))),
        "cos" => by_single!(ftz, T => lanes1!(T => T, |a| through_double(a, f64::cos))),
        "ex2" => by_single!(ftz, T => lanes1!(T => T, |a| through_double(a, f64::exp2))),
        "lg2" => by_single!(ftz, T => lanes1!(T => T, |a| through_double(a, f64::log2))),
        "tanh" => by_single!(ftz, T => lanes1!(T => T, |a| through_double(a, f64::tanh))),
        // `.sat`, done to a result.
        "saturate" => Some(lanes1!(f32 => f32, |a| saturate(a))),
        _ => None,
    }
}

fn flush_double(value: f64) -> f64 {
    if value.is_subnormal() { 0f64.copysign(value) } else { value }
}

/// `.sat`: to [0, 1]; NaN becomes 0.
pub(crate) fn saturate(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

macro_rules! by_rounding {
    ($rounding:expr, $r:ident => $body:expr) => {
        match $rounding {
            Rounding::Nearest => {
                const $r: Rounding = Rounding::Nearest;
                $body
            }
            Rounding::Zero => {
                const $r: Rounding = Rounding::Zero;
                $body
            }
            Rounding::Down => {
                const $r: Rounding = Rounding::Down;
                $body
            }
            Rounding::Up => {
                const $r: Rounding = Rounding::Up;
                $body
            }
        }
    };
}

fn sqrt_single(rounding: Rounding, ftz: bool) -> Option<F1> {
    by_rounding!(rounding, R => by_single!(ftz, T => lanes1!(T => T, |a| R.sqrt32(a))))
}

fn sqrt_double(rounding: Rounding, ty: Ty) -> Option<F1> {
    let f = by_rounding!(rounding, R => lanes1!(f64 => f64, |a| R.sqrt64(a)));
    (ty == Ty::F64).then_some(f)
}

fn reciprocal_single(rounding: Rounding, ftz: bool) -> Option<F1> {
    by_rounding!(rounding, R => by_single!(ftz, T => lanes1!(T => T, |a| R.div32(1.0, a))))
}

fn reciprocal_double(rounding: Rounding, ty: Ty) -> Option<F1> {
    let f = by_rounding!(rounding, R => lanes1!(f64 => f64, |a| R.div64(1.0, a)));
    (ty == Ty::F64).then_some(f)
}

/// `add sub mul div min max copysign`, and `testp`'s one.
pub(crate) fn binary(op: &str, ty: Ty, rounding: Rounding, ftz: bool) -> Option<F2> {
    match (op, rounding) {
        ("add", Rounding::Nearest) => by_float!(ty, ftz, T => lanes2!(T => T, |a, b| a + b)),
        ("sub", Rounding::Nearest) => by_float!(ty, ftz, T => lanes2!(T => T, |a, b| a - b)),
        ("mul", Rounding::Nearest) => by_float!(ty, ftz, T => lanes2!(T => T, |a, b| a * b)),
        ("div", Rounding::Nearest) => by_float!(ty, ftz, T => lanes2!(T => T, |a, b| a / b)),
        ("min", _) => {
            by_float!(ty, ftz, T => lanes2!(T => T, |a, b| if a == b && a.is_sign_negative() { a } else { a.min(b) }))
        }
        ("max", _) => {
            by_float!(ty, ftz, T => lanes2!(T => T, |a, b| if a == b && a.is_sign_positive() { a } else { a.max(b) }))
        }
        ("min.NaN", _) => {
            by_float!(ty, ftz, T => lanes2!(T => T, |a, b| if a.is_nan() || b.is_nan() { a + b } else { a.min(b) }))
        }
        ("max.NaN", _) => {
            by_float!(ty, ftz, T => lanes2!(T => T, |a, b| if a.is_nan() || b.is_nan() { a + b } else { a.max(b) }))
        }
        // The sign of the first, the rest of the second.
        ("copysign", _) if ty == Ty::F32 => {
            Some(lanes2!(u32 => u32, |a, b| (a & 1 << 31) | (b & !(1 << 31))))
        }
        ("copysign", _) if ty == Ty::F64 => {
            Some(lanes2!(u64 => u64, |a, b| (a & 1 << 63) | (b & !(1 << 63))))
        }
        (_, rounding) if ty == Ty::F32 => by_rounding!(rounding, R => match op {
            "add" => by_single!(ftz, T => lanes2!(T => T, |a, b| R.add32(a, b))),
            "sub" => by_single!(ftz, T => lanes2!(T => T, |a, b| R.add32(a, -b))),
            "mul" => by_single!(ftz, T => lanes2!(T => T, |a, b| R.mul32(a, b))),
            "div" => by_single!(ftz, T => lanes2!(T => T, |a, b| R.div32(a, b))),
            _ => None,
        }),
        (_, rounding) if ty == Ty::F64 => by_rounding!(rounding, R => match op {
            "add" => Some(lanes2!(f64 => f64, |a, b| R.add64(a, b))),
            "sub" => Some(lanes2!(f64 => f64, |a, b| R.add64(a, -b))),
            "mul" => Some(lanes2!(f64 => f64, |a, b| R.mul64(a, b))),
            "div" => Some(lanes2!(f64 => f64, |a, b| R.div64(a, b))),
            _ => None,
        }),
        _ => None,
    }
}

/// `fma`.
pub(crate) fn fused(ty: Ty, rounding: Rounding, ftz: bool) -> Option<F3> {
    match (ty, rounding) {
        (_, Rounding::Nearest) => by_float!(ty, ftz, T => lanes3!(T, T, T => T, |a, b, c| a.mul_add(b, c))),
        (Ty::F32, rounding) => by_rounding!(rounding, R =>
            by_single!(ftz, T => lanes3!(T, T, T => T, |a, b, c| R.fma32(a, b, c)))),
        (Ty::F64, rounding) => {
            by_rounding!(rounding, R => Some(lanes3!(f64, f64, f64 => f64, |a, b, c| R.fma64(a, b, c))))
        }
        _ => None,
    }
}

/// `setp`'s comparisons: a `u` form is also true when one side is not a number.
pub(crate) fn compare(op: &str, ty: Ty, ftz: bool) -> Option<F2> {
    match op {
        "eq" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| a == b)),
        "ne" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| a < b || a > b)),
        "lt" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| a < b)),
        "le" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| a <= b)),
        "gt" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| a > b)),
        "ge" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| a >= b)),
        "equ" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| !(a < b || a > b))),
        "neu" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| a != b)),
        "ltu" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| !(a >= b))),
        "leu" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| !(a > b))),
        "gtu" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| !(a <= b))),
        "geu" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| !(a < b))),
        "num" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| !a.is_nan() && !b.is_nan())),
        "nan" => by_float!(ty, ftz, T => lanes2!(T => bool, |a, b| a.is_nan() || b.is_nan())),
        _ => None,
    }
}

/// `testp`.
pub(crate) fn test(op: &str, ty: Ty) -> Option<F1> {
    match op {
        "finite" => by_float!(ty, false, T => lanes1!(T => bool, |a| a.is_finite())),
        "infinite" => by_float!(ty, false, T => lanes1!(T => bool, |a| a.is_infinite())),
        "number" => by_float!(ty, false, T => lanes1!(T => bool, |a| !a.is_nan())),
        "notanumber" => by_float!(ty, false, T => lanes1!(T => bool, |a| a.is_nan())),
        "normal" => by_float!(ty, false, T => lanes1!(T => bool, |a| a.is_normal())),
        "subnormal" => by_float!(ty, false, T => lanes1!(T => bool, |a| a.is_subnormal())),
        _ => None,
    }
}

/// `slct` with a floating condition.
pub(crate) fn select_by_sign() -> F3 {
    lanes3!(u64, u64, f32 => u64, |a, b, c| if c >= 0.0 { a } else { b })
}
