//! Half precision: `f16` (IEEE binary16), `bf16` (the upper half of a binary32) and pairs of `f16`.
//!
//! A result of `f16` is computed in binary64, where sums, products and fused products of halves are exact or nearly so, and
//! rounded once.

#![expect(
    clippy::neg_cmp_op_on_partial_ord,
    clippy::double_comparisons,
    reason = "NaN makes these differ from what they look like"
)]

use super::{Codec, F1, F2, F3, lanes1, lanes2, lanes3};
use crate::ptx::Ty;

/// A binary16 in the low bits of a lane; its value is a binary64.
#[derive(Debug)]
pub(crate) struct F16;
/// A bfloat16 in the low bits of a lane; its value is a binary64.
#[derive(Debug)]
pub(crate) struct Bf16;
/// Two binary16, the first in the low half.
#[derive(Debug)]
pub(crate) struct F16x2;

impl Codec for F16 {
    type Value = f64;
    fn take(bits: u64) -> f64 {
        from_small(u16::take(bits), 5, 10)
    }
    fn put(value: f64) -> u64 {
        u64::from(to_small(value, 5, 10))
    }
}

impl Codec for Bf16 {
    type Value = f64;
    fn take(bits: u64) -> f64 {
        from_small(u16::take(bits), 8, 7)
    }
    fn put(value: f64) -> u64 {
        u64::from(to_small(value, 8, 7))
    }
}

impl Codec for F16x2 {
    type Value = [f64; 2];
    fn take(bits: u64) -> [f64; 2] {
        [F16::take(bits), F16::take(bits >> 16)]
    }
    fn put(value: [f64; 2]) -> u64 {
        F16::put(value[0]) | F16::put(value[1]) << 16
    }
}

/// A small format's value: `exponent` and `fraction` bits behind a sign.
fn from_small(bits: u16, exponent: i32, fraction: i32) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let top = (1 << exponent) - 1;
    let biased = i32::from(bits) >> fraction & top;
    let rest = f64::from(bits & ((1 << fraction) - 1));
    let bias = top / 2;
    if biased == top {
        return if rest == 0.0 { sign * f64::INFINITY } else { f64::NAN };
    }
    let one = f64::from(1 << fraction);
    if biased == 0 {
        sign * rest / one * power(1 - bias)
    } else {
        sign * (one + rest) / one * power(biased - bias)
    }
}

/// The nearest value of a small format, ties to even.
fn to_small(value: f64, exponent: i32, fraction: i32) -> u16 {
    let top: i32 = (1 << exponent) - 1;
    let bias = top / 2;
    let sign = u16::from(value.is_sign_negative()) << 15;
    if value.is_nan() {
        return 0x7fff;
    }
    let infinity = u16::take(u64::from(top.unsigned_abs()) << fraction);
    let magnitude = value.abs();
    if magnitude.is_infinite() {
        return sign | infinity;
    }
    // The exponent of the value, no lower than that of subnormal numbers.
    let scale = if magnitude < power(1 - bias) { 1 - bias } else { exponent_of(magnitude) };
    let units = (magnitude / power(scale) * f64::from(1 << fraction)).round_ties_even();
    // Units beyond one octave carry into the exponent by themselves.
    let biased = f64::from(scale + bias - 1) * f64::from(1 << fraction) + units;
    if biased >= f64::from(infinity) {
        return sign | infinity;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, below infinity's pattern"
    )]
    let pattern = biased as u16;
    sign | pattern
}

/// 2 to the power `n`, for exponents of normal binary64 numbers.
fn power(n: i32) -> f64 {
    f64::from_bits(u64::from((n.clamp(-1022, 1023) + 1023).unsigned_abs()) << 52)
}

fn exponent_of(value: f64) -> i32 {
    i32::from(u16::take(value.to_bits() >> 52 & 0x7ff)) - 1023
}

/// `neg abs` and approximations.
pub(crate) fn unary(op: &str, ty: Ty) -> Option<F1> {
    match (op, ty) {
        ("neg", Ty::F16 | Ty::Bf16) => Some(lanes1!(u16 => u16, |a| a ^ 0x8000)),
        ("abs", Ty::F16 | Ty::Bf16) => Some(lanes1!(u16 => u16, |a| a & 0x7fff)),
        ("neg", Ty::F16x2 | Ty::Bf16x2) => Some(lanes1!(u32 => u32, |a| a ^ 0x8000_8000)),
        ("abs", Ty::F16x2 | Ty::Bf16x2) => Some(lanes1!(u32 => u32, |a| a & 0x7fff_7fff)),
        ("ex2", Ty::F16) => Some(lanes1!(F16 => F16, |a| a.exp2())),
        ("tanh", Ty::F16) => Some(lanes1!(F16 => F16, |a| a.tanh())),
        _ => None,
    }
}

/// `add sub mul min max`.
pub(crate) fn binary(op: &str, ty: Ty) -> Option<F2> {
    macro_rules! each {
        (|$a:ident, $b:ident| $e:expr) => {
            match ty {
                Ty::F16 => Some(lanes2!(F16 => F16, |$a, $b| $e)),
                Ty::Bf16 => Some(lanes2!(Bf16 => Bf16, |$a, $b| $e)),
                Ty::F16x2 => Some(lanes2!(F16x2 => F16x2, |x, y| [0, 1].map(|i: usize| { let ($a, $b) = (x[i], y[i]); $e }))),
                _ => None,
            }
        };
    }
    match op {
        "add" => each!(|a, b| a + b),
        "sub" => each!(|a, b| a - b),
        "mul" => each!(|a, b| a * b),
        "min" => each!(|a, b| a.min(b)),
        "max" => each!(|a, b| a.max(b)),
        _ => None,
    }
}

/// `fma`. The sum is rounded to binary64 first: a last place may differ from the hardware's where that lands on a tie.
pub(crate) fn fused(ty: Ty) -> Option<F3> {
    match ty {
        Ty::F16 => Some(lanes3!(F16, F16, F16 => F16, |a, b, c| a.mul_add(b, c))),
        Ty::Bf16 => Some(lanes3!(Bf16, Bf16, Bf16 => Bf16, |a, b, c| a.mul_add(b, c))),
        Ty::F16x2 => Some(
            lanes3!(F16x2, F16x2, F16x2 => F16x2, |a, b, c| [0, 1].map(|i: usize| a[i].mul_add(b[i], c[i]))),
        ),
        _ => None,
    }
}

/// `setp`'s comparisons.
pub(crate) fn compare(op: &str, ty: Ty) -> Option<F2> {
    macro_rules! each {
        (|$a:ident, $b:ident| $e:expr) => {
            match ty {
                Ty::F16 => Some(lanes2!(F16 => bool, |$a, $b| $e)),
                Ty::Bf16 => Some(lanes2!(Bf16 => bool, |$a, $b| $e)),
                _ => None,
            }
        };
    }
    match op {
        "eq" => each!(|a, b| a == b),
        "ne" => each!(|a, b| a < b || a > b),
        "lt" => each!(|a, b| a < b),
        "le" => each!(|a, b| a <= b),
        "gt" => each!(|a, b| a > b),
        "ge" => each!(|a, b| a >= b),
        "neu" => each!(|a, b| a != b),
        "ltu" => each!(|a, b| !(a >= b)),
        "gtu" => each!(|a, b| !(a <= b)),
        "nan" => each!(|a, b| a.is_nan() || b.is_nan()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_way_there_and_back() {
        for bits in 0..=u16::MAX {
            for (there, back) in
                [(F16::take as fn(u64) -> f64, F16::put as fn(f64) -> u64), (Bf16::take, Bf16::put)]
            {
                let value = there(u64::from(bits));
                let expected = if value.is_nan() { 0x7fff } else { u64::from(bits) };
                assert_eq!(back(value), expected, "{bits:#x} is {value}");
            }
        }
    }

    #[test]
    fn bfloat_is_the_upper_half_of_a_single() {
        for bits in [0u16, 1, 0x3f80, 0xc2f7, 0x7f7f, 0x8001] {
            assert_eq!(Bf16::take(u64::from(bits)), f64::from(f32::from_bits(u32::from(bits) << 16)));
        }
    }

    #[test]
    fn halves_round_to_even_and_overflow_to_infinity() {
        assert_eq!(F16::put(1.0 + 1.0 / 2048.0), 0x3c00);
        assert_eq!(F16::put(1.0 + 3.0 / 2048.0), 0x3c02);
        assert_eq!(F16::put(65519.9), 0x7bff);
        assert_eq!(F16::put(65520.0), 0x7c00);
        assert_eq!(F16::put(power(-25)), 0);
        assert_eq!(F16::put(power(-25) * 1.5), 1);
        assert_eq!(F16::put(-0.0), 0x8000);
    }
}
