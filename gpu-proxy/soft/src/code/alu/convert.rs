//! `cvt` in its general form. The plain forms between integers are made of cheaper operations by `select_convert.rs`.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "floats to i128 saturate; the low bits are the result"
)]

use super::{Bf16, Codec, F16, Rounding, flush};
use crate::ptx::Ty;

/// One conversion. Source: PTX ISA, "cvt".
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convert {
    pub to: Ty,
    pub from: Ty,
    /// `None`: exact, or to an integer towards zero.
    pub rounding: Option<Rounding>,
    /// Whether a floating result is made integral (`.rni` and the like between floating types).
    pub integral: bool,
    pub saturate: bool,
    pub relu: bool,
    pub ftz: bool,
}

impl Convert {
    /// Converts the low bits of `bits`. A signed result is sign-extended to 64 bits: the caller cuts it to its register.
    pub fn apply(&self, bits: u64) -> u64 {
        if self.from.is_float() {
            let value = self.source(bits);
            return if self.to.is_float() {
                self.float_to_float(value)
            } else {
                self.float_to_integer(value)
            };
        }
        let value = integer(bits, self.from);
        if self.to.is_float() { self.integer_to_float(value) } else { self.integer_to_integer(value) }
    }

    fn source(&self, bits: u64) -> f64 {
        match self.from {
            Ty::F16 => F16::take(bits),
            Ty::Bf16 => Bf16::take(bits),
            Ty::F32 if self.ftz => f64::from(flush(f32::take(bits))),
            Ty::F32 => f64::from(f32::take(bits)),
            _ => f64::take(bits),
        }
    }

    fn float_to_float(&self, value: f64) -> u64 {
        let rounding = self.rounding.unwrap_or(Rounding::Nearest);
        let mut value = if self.integral { rounding.to_integral(value) } else { value };
        if self.saturate {
            value = if value > 0.0 { value.min(1.0) } else { 0.0 };
        }
        if self.relu && (value < 0.0 || value.is_nan()) {
            value = 0.0;
        }
        match self.to {
            Ty::F16 => F16::put(directed(value, rounding, F16::put, F16::take)),
            Ty::Bf16 => Bf16::put(directed(value, rounding, Bf16::put, Bf16::take)),
            Ty::F32 => {
                let single = rounding.to_f32(value);
                f32::put(if self.ftz { flush(single) } else { single })
            }
            _ => f64::put(value),
        }
    }

    /// Out of range gives the nearest end; NaN gives 0, or for a 64-bit result its top bit.
    fn float_to_integer(&self, value: f64) -> u64 {
        let (low, high) = range(self.to);
        if value.is_nan() {
            return if self.to.bits() == 64 { 1 << 63 } else { 0 };
        }
        let value = self.rounding.unwrap_or(Rounding::Zero).to_integral(value);
        // `as` between f64 and i128 saturates.
        let whole = (value as i128).clamp(low, high);
        low_bits(whole)
    }

    fn integer_to_float(&self, value: i128) -> u64 {
        let rounding = self.rounding.unwrap_or(Rounding::Nearest);
        match self.to {
            Ty::F64 => f64::put(to_f64(value, rounding)),
            Ty::F32 => f32::put(to_f32(value, rounding)),
            Ty::F16 => F16::put(f64::from(to_f32_odd(value))),
            _ => Bf16::put(f64::from(to_f32_odd(value))),
        }
    }

    fn integer_to_integer(&self, value: i128) -> u64 {
        if !self.saturate {
            return integer_bits(low_bits(value), self.to);
        }
        let (low, high) = range(self.to);
        low_bits(value.clamp(low, high))
    }
}

/// A value of a small format that `put` then keeps: the nearest, moved by one place if `rounding` asks for it.
fn directed(value: f64, rounding: Rounding, put: fn(f64) -> u64, take: fn(u64) -> f64) -> f64 {
    let pattern = put(value);
    let nearest = take(pattern);
    if rounding == Rounding::Nearest || nearest == value || value.is_nan() || value.is_infinite() {
        return nearest;
    }
    let towards_zero = match rounding {
        Rounding::Zero => nearest.abs() > value.abs(),
        Rounding::Down => value > 0.0 && nearest > value,
        _ => value < 0.0 && nearest < value,
    };
    let away = match rounding {
        Rounding::Down => value < 0.0 && nearest > value,
        Rounding::Up => value > 0.0 && nearest < value,
        _ => false,
    };
    // Patterns of one sign lie in the order of their magnitudes.
    if towards_zero {
        take(pattern - 1)
    } else if away {
        take(pattern + 1)
    } else {
        nearest
    }
}

fn integer(bits: u64, ty: Ty) -> i128 {
    let wide = integer_bits(bits, ty);
    if ty.is_signed() { i128::from(wide.cast_signed()) } else { i128::from(wide) }
}

/// The low bits that `ty` has, extended to 64 by its sign or by zeros.
fn integer_bits(bits: u64, ty: Ty) -> u64 {
    let unused = 64 - ty.bits();
    if ty.is_signed() {
        (bits << unused).cast_signed().wrapping_shr(unused).cast_unsigned()
    } else {
        bits << unused >> unused
    }
}

fn range(ty: Ty) -> (i128, i128) {
    let bits = ty.bits();
    if ty.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn low_bits(value: i128) -> u64 {
    value as u64
}

/// Integers of 64 bits have up to 64 significant ones: the conversion to nearest is the host's, the others step from it.
fn to_f64(value: i128, rounding: Rounding) -> f64 {
    let nearest = value as f64;
    match compare_step(value, nearest as i128, rounding) {
        1 => nearest.next_up(),
        -1 => nearest.next_down(),
        _ => nearest,
    }
}

fn to_f32(value: i128, rounding: Rounding) -> f32 {
    let nearest = value as f32;
    match compare_step(value, nearest as i128, rounding) {
        1 => nearest.next_up(),
        -1 => nearest.next_down(),
        _ => nearest,
    }
}

fn compare_step(exact: i128, nearest: i128, rounding: Rounding) -> i32 {
    match rounding {
        Rounding::Up if nearest < exact => 1,
        Rounding::Down if nearest > exact => -1,
        Rounding::Zero if exact > 0 && nearest > exact => -1,
        Rounding::Zero if exact < 0 && nearest < exact => 1,
        _ => 0,
    }
}

/// Rounded so that a second rounding to fewer bits is right: towards zero, with the last bit set if anything was lost.
fn to_f32_odd(value: i128) -> f32 {
    let zero = to_f32(value, Rounding::Zero);
    if zero as i128 == value { zero } else { f32::from_bits(zero.to_bits() | 1) }
}
