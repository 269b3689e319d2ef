//! Arithmetic over the 32 lanes of a warp: each function has its types, rounding and flushing built in.
//!
//! A value lies in the low bits of a lane, the rest is 0. [`Codec`] takes it out and puts it back; the macros make a loop over
//! the lanes from an expression on plain values. Lanes that are not active are computed as well and thrown away: so no
//! expression may panic, whatever it is given.

mod convert;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod integer;
pub(crate) mod rounding;

pub(crate) use convert::Convert;
pub(crate) use half::{Bf16, F16, F16x2};
pub(crate) use rounding::Rounding;

/// One register of a warp.
pub(crate) type Lanes = [u64; 32];
/// One source to one result.
pub(crate) type F1 = fn(&Lanes, &mut Lanes);
/// Two sources to one result.
pub(crate) type F2 = fn(&Lanes, &Lanes, &mut Lanes);
/// Three sources to one result.
pub(crate) type F3 = fn(&Lanes, &Lanes, &Lanes, &mut Lanes);

/// How a value lies in a lane.
pub(crate) trait Codec {
    type Value: Copy;
    fn take(bits: u64) -> Self::Value;
    fn put(value: Self::Value) -> u64;
}

macro_rules! integer_codec {
    ($($t:ty, $u:ty;)*) => {$(
        impl Codec for $t {
            type Value = $t;
            #[expect(clippy::cast_possible_truncation, clippy::allow_attributes, reason = "the low bits are the value")]
            #[allow(clippy::cast_lossless, reason = "one macro for all widths")]
            fn take(bits: u64) -> $t { bits as $t }
            #[allow(clippy::cast_lossless, reason = "one macro for all widths")]
            fn put(value: $t) -> u64 { value as $u as u64 }
        }
    )*};
}
integer_codec! { u8, u8; u16, u16; u32, u32; i8, u8; i16, u16; i32, u32; }

impl Codec for u64 {
    type Value = u64;
    fn take(bits: u64) -> u64 {
        bits
    }
    fn put(value: u64) -> u64 {
        value
    }
}

impl Codec for i64 {
    type Value = i64;
    fn take(bits: u64) -> i64 {
        bits.cast_signed()
    }
    fn put(value: i64) -> u64 {
        value.cast_unsigned()
    }
}

/// A predicate, or the result of a comparison.
impl Codec for bool {
    type Value = bool;
    fn take(bits: u64) -> bool {
        bits & 1 != 0
    }
    fn put(value: bool) -> u64 {
        u64::from(value)
    }
}

/// `f32`. Every NaN that arithmetic makes is the canonical one. Source: PTX ISA, "Floating Point Instructions".
impl Codec for f32 {
    type Value = f32;
    fn take(bits: u64) -> f32 {
        f32::from_bits(u32::take(bits))
    }
    fn put(value: f32) -> u64 {
        u64::from(if value.is_nan() { 0x7fff_ffff } else { value.to_bits() })
    }
}

impl Codec for f64 {
    type Value = f64;
    fn take(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    fn put(value: f64) -> u64 {
        value.to_bits()
    }
}

/// `f32` with `.ftz`: subnormal numbers become zero of the same sign, going in and coming out.
#[derive(Debug)]
pub(crate) struct Ftz;

impl Codec for Ftz {
    type Value = f32;
    fn take(bits: u64) -> f32 {
        flush(f32::take(bits))
    }
    fn put(value: f32) -> u64 {
        f32::put(flush(value))
    }
}

pub(crate) fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// `lanes1!(f32 => f64, |a| f64::from(a))`: an [`F1`].
macro_rules! lanes1 {
    ($from:ty => $to:ty, |$a:ident| $e:expr) => {{
        fn go(a: &$crate::code::alu::Lanes, out: &mut $crate::code::alu::Lanes) {
            for i in 0..32 {
                let $a = <$from as $crate::code::alu::Codec>::take(a[i]);
                out[i] = <$to as $crate::code::alu::Codec>::put($e);
            }
        }
        go as $crate::code::alu::F1
    }};
}

/// `lanes2!(u32 => bool, |a, b| a < b)`: an [`F2`].
macro_rules! lanes2 {
    ($from:ty => $to:ty, |$a:ident, $b:ident| $e:expr) => {{
        fn go(
            a: &$crate::code::alu::Lanes,
            b: &$crate::code::alu::Lanes,
            out: &mut $crate::code::alu::Lanes,
        ) {
            for i in 0..32 {
                let $a = <$from as $crate::code::alu::Codec>::take(a[i]);
                let $b = <$from as $crate::code::alu::Codec>::take(b[i]);
                out[i] = <$to as $crate::code::alu::Codec>::put($e);
            }
        }
        go as $crate::code::alu::F2
    }};
}

/// `lanes3!(u32, u32, bool => u32, |a, b, p| if p { a } else { b })`: an [`F3`].
macro_rules! lanes3 {
    ($ta:ty, $tb:ty, $tc:ty => $to:ty, |$a:ident, $b:ident, $c:ident| $e:expr) => {{
        use $crate::code::alu::{Codec, Lanes};
        fn go(a: &Lanes, b: &Lanes, c: &Lanes, out: &mut Lanes) {
            for i in 0..32 {
                let $a = <$ta as Codec>::take(a[i]);
                let $b = <$tb as Codec>::take(b[i]);
                let $c = <$tc as Codec>::take(c[i]);
                out[i] = <$to as Codec>::put($e);
            }
        }
        go as $crate::code::alu::F3
    }};
}

pub(crate) use {lanes1, lanes2, lanes3};
