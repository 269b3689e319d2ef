//! Integer arithmetic, logic and bit fields. Source: PTX ISA, 9.7.1 and 9.7.8.

#![expect(clippy::cast_possible_truncation, reason = "the low bits of a wider result are the result")]

use super::{Codec, F1, F2, F3, lanes1, lanes2, lanes3};
use crate::ptx::Ty;

/// `$body` with `$t` as the Rust type of PTX type `$ty`; `None` if it is no integer of 16 bits or more.
macro_rules! by_integer {
    ($ty:expr, $t:ident => $body:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 => {
                type $t = u16;
                Some($body)
            }
            Ty::U32 | Ty::B32 => {
                type $t = u32;
                Some($body)
            }
            Ty::U64 | Ty::B64 => {
                type $t = u64;
                Some($body)
            }
            Ty::S16 => {
                type $t = i16;
                Some($body)
            }
            Ty::S32 => {
                type $t = i32;
                Some($body)
            }
            Ty::S64 => {
                type $t = i64;
                Some($body)
            }
            _ => None,
        }
    };
}

/// The same for untyped bits.
macro_rules! by_bits {
    ($ty:expr, $t:ident => $body:expr) => {
        match $ty.bits() {
            16 => {
                type $t = u16;
                Some($body)
            }
            32 => {
                type $t = u32;
                Some($body)
            }
            64 => {
                type $t = u64;
                Some($body)
            }
            _ => None,
        }
    };
}

/// What `clz`, shifts and bit fields share: the width of a type in bits.
trait Width: Copy {
    const BITS: u32;
}
impl Width for u16 {
    const BITS: u32 = 16;
}
impl Width for u32 {
    const BITS: u32 = 32;
}
impl Width for u64 {
    const BITS: u32 = 64;
}
impl Width for i16 {
    const BITS: u32 = 16;
}
impl Width for i32 {
    const BITS: u32 = 32;
}
impl Width for i64 {
    const BITS: u32 = 64;
}

/// `neg abs not cnot popc clz brev bfind` on `ty`.
pub(crate) fn unary(op: &str, ty: Ty) -> Option<F1> {
    match op {
        "neg" => by_integer!(ty, T => lanes1!(T => T, |a| (0 as T).wrapping_sub(a))),
        "abs" => match ty {
            Ty::S16 => Some(lanes1!(i16 => i16, |a| a.wrapping_abs())),
            Ty::S32 => Some(lanes1!(i32 => i32, |a| a.wrapping_abs())),
            Ty::S64 => Some(lanes1!(i64 => i64, |a| a.wrapping_abs())),
            _ => None,
        },
        "not" if ty == Ty::Pred => Some(lanes1!(bool => bool, |a| !a)),
        "not" => by_bits!(ty, T => lanes1!(T => T, |a| !a)),
        "cnot" => by_bits!(ty, T => lanes1!(T => T, |a| T::from(a == 0))),
        "popc" => by_bits!(ty, T => lanes1!(T => u32, |a| a.count_ones())),
        "clz" => by_bits!(ty, T => lanes1!(T => u32, |a| a.leading_zeros())),
        "brev" => by_bits!(ty, T => lanes1!(T => T, |a| a.reverse_bits())),
        "bfind" => match ty {
            Ty::U32 => Some(lanes1!(u32 => u32, |a| 31u32.wrapping_sub(a.leading_zeros()))),
            Ty::U64 => Some(lanes1!(u64 => u32, |a| 63u32.wrapping_sub(a.leading_zeros()))),
            // The highest bit that differs from the sign.
            Ty::S32 => Some(lanes1!(i32 => u32, |a| 31u32.wrapping_sub((a ^ (a >> 31)).leading_zeros()))),
            Ty::S64 => Some(lanes1!(i64 => u32, |a| 63u32.wrapping_sub((a ^ (a >> 63)).leading_zeros()))),
            _ => None,
        },
        // How far to the left the highest bit would have to go; all ones if there is none.
        "bfind.shiftamt" => match ty {
            Ty::U32 => Some(lanes1!(u32 => u32, |a| if a == 0 { u32::MAX } else { a.leading_zeros() })),
            Ty::U64 => Some(lanes1!(u64 => u32, |a| if a == 0 { u32::MAX } else { a.leading_zeros() })),
            Ty::S32 => Some(
                lanes1!(i32 => u32, |a| { let a = a ^ (a >> 31); if a == 0 { u32::MAX } else { a.leading_zeros() } }),
            ),
            Ty::S64 => Some(
                lanes1!(i64 => u32, |a| { let a = a ^ (a >> 63); if a == 0 { u32::MAX } else { a.leading_zeros() } }),
            ),
            _ => None,
        },
        _ => None,
    }
}

/// Everything with two sources of one type. A division by 0 gives all ones; PTX leaves it open.
pub(crate) fn binary(op: &str, ty: Ty) -> Option<F2> {
    if ty == Ty::Pred {
        return predicate(op);
    }
    match op {
        "add" => by_integer!(ty, T => lanes2!(T => T, |a, b| a.wrapping_add(b))),
        "add.sat" if ty == Ty::S32 => Some(lanes2!(i32 => i32, |a, b| a.saturating_add(b))),
        "sub.sat" if ty == Ty::S32 => Some(lanes2!(i32 => i32, |a, b| a.saturating_sub(b))),
        "sub" => by_integer!(ty, T => lanes2!(T => T, |a, b| a.wrapping_sub(b))),
        "mul.lo" => by_integer!(ty, T => lanes2!(T => T, |a, b| a.wrapping_mul(b))),
        "mul.hi" => high(ty),
        "mul.wide" => wide(ty),
        "mul24.lo" if ty == Ty::U32 => {
            Some(lanes2!(u32 => u32, |a, b| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff)))
        }
        "mul24.lo" if ty == Ty::S32 => {
            Some(lanes2!(i32 => i32, |a, b| (a << 8 >> 8).wrapping_mul(b << 8 >> 8)))
        }
        "div" => by_integer!(ty, T => lanes2!(T => T, |a, b| if b == 0 { !0 } else { a.wrapping_div(b) })),
        "rem" => by_integer!(ty, T => lanes2!(T => T, |a, b| if b == 0 { !0 } else { a.wrapping_rem(b) })),
        "min" => by_integer!(ty, T => lanes2!(T => T, |a, b| a.min(b))),
        "max" => by_integer!(ty, T => lanes2!(T => T, |a, b| a.max(b))),
        "and" => by_bits!(ty, T => lanes2!(T => T, |a, b| a & b)),
        "or" => by_bits!(ty, T => lanes2!(T => T, |a, b| a | b)),
        "xor" => by_bits!(ty, T => lanes2!(T => T, |a, b| a ^ b)),
        _ => None,
    }
}

fn predicate(op: &str) -> Option<F2> {
    match op {
        "and" => Some(lanes2!(bool => bool, |a, b| a & b)),
        "or" => Some(lanes2!(bool => bool, |a, b| a | b)),
        "xor" => Some(lanes2!(bool => bool, |a, b| a ^ b)),
        _ => None,
    }
}

fn high(ty: Ty) -> Option<F2> {
    match ty {
        Ty::U16 => Some(lanes2!(u16 => u16, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16)),
        Ty::S16 => Some(lanes2!(i16 => i16, |a, b| ((i32::from(a) * i32::from(b)) >> 16) as i16)),
        Ty::U32 => Some(lanes2!(u32 => u32, |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32)),
        Ty::S32 => Some(lanes2!(i32 => i32, |a, b| ((i64::from(a) * i64::from(b)) >> 32) as i32)),
        Ty::U64 => Some(lanes2!(u64 => u64, |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64)),
        Ty::S64 => Some(lanes2!(i64 => i64, |a, b| ((i128::from(a) * i128::from(b)) >> 64) as i64)),
        _ => None,
    }
}

fn wide(ty: Ty) -> Option<F2> {
    match ty {
        Ty::U16 => Some(lanes2!(u16 => u32, |a, b| u32::from(a) * u32::from(b))),
        Ty::S16 => Some(lanes2!(i16 => i32, |a, b| i32::from(a) * i32::from(b))),
        Ty::U32 => Some(lanes2!(u32 => u64, |a, b| u64::from(a) * u64::from(b))),
        Ty::S32 => Some(lanes2!(i32 => i64, |a, b| i64::from(a) * i64::from(b))),
        _ => None,
    }
}

/// `shl`, `shr`: the amount is a `u32`; one beyond the width gives 0, or the sign.
pub(crate) fn shift(op: &str, ty: Ty) -> Option<F2> {
    match op {
        "shl" => by_bits!(ty, T => lanes_shift!(T, |a, n| if n >= <T as Width>::BITS { 0 } else { a << n })),
        "shr" => by_integer!(ty, T => lanes_shift!(T, |a, n| a >> n.min(<T as Width>::BITS - 1), zero)),
        _ => None,
    }
}

/// An [`F2`] whose second source is a `u32`. `zero`: an unsigned value shifted out is 0, not its top bit.
macro_rules! lanes_shift {
    ($t:ty, |$a:ident, $n:ident| $e:expr) => {{
        use $crate::code::alu::{Codec, Lanes};
        fn go(a: &Lanes, b: &Lanes, out: &mut Lanes) {
            for i in 0..32 {
                let $a = <$t as Codec>::take(a[i]);
                let $n = u32::take(b[i]);
                out[i] = <$t as Codec>::put($e);
            }
        }
        go as $crate::code::alu::F2
    }};
    ($t:ty, |$a:ident, $n:ident| $e:expr, zero) => {
        lanes_shift!($t, |$a, $n| if <$t>::MIN == 0 && $n >= <$t as Width>::BITS { 0 } else { $e })
    };
}
use lanes_shift;

/// `mad.lo mad.hi mad.wide sad bfi bfe prmt lop3 shf dp4a` and the like, with three sources.
pub(crate) fn ternary(op: &str, ty: Ty) -> Option<F3> {
    match op {
        "mad.lo" => by_integer!(ty, T => lanes3!(T, T, T => T, |a, b, c| a.wrapping_mul(b).wrapping_add(c))),
        "mad.wide" => match ty {
            Ty::U16 => {
                Some(lanes3!(u16, u16, u32 => u32, |a, b, c| (u32::from(a) * u32::from(b)).wrapping_add(c)))
            }
            Ty::S16 => {
                Some(lanes3!(i16, i16, i32 => i32, |a, b, c| (i32::from(a) * i32::from(b)).wrapping_add(c)))
            }
            Ty::U32 => {
                Some(lanes3!(u32, u32, u64 => u64, |a, b, c| (u64::from(a) * u64::from(b)).wrapping_add(c)))
            }
            Ty::S32 => {
                Some(lanes3!(i32, i32, i64 => i64, |a, b, c| (i64::from(a) * i64::from(b)).wrapping_add(c)))
            }
            _ => None,
        },
        "mad.hi" => mad_high(ty),
        "sad" => match ty {
            Ty::U32 => Some(lanes3!(u32, u32, u32 => u32, |a, b, c| a.abs_diff(b).wrapping_add(c))),
            Ty::S32 => Some(lanes3!(i32, i32, u32 => u32, |a, b, c| a.abs_diff(b).wrapping_add(c))),
            _ => None,
        },
        "bfe" => match ty {
            Ty::U32 => Some(lanes3!(u32, u32, u32 => u32, |a, p, n| {
                let (p, n) = (p & 255, n & 255);
                (u64::from(a).checked_shr(p).unwrap_or(0) & ones(n)) as u32
            })),
            Ty::U64 => Some(
                lanes3!(u64, u32, u32 => u64, |a, p, n| a.checked_shr(p & 255).unwrap_or(0) & ones(n & 255)),
            ),
            Ty::S32 => Some(
                lanes3!(i32, u32, u32 => i32, |a, p, n| extract_signed(i64::from(a), p & 255, n & 255, 31) as i32),
            ),
            Ty::S64 => Some(lanes3!(i64, u32, u32 => i64, |a, p, n| extract_signed(a, p & 255, n & 255, 63))),
            _ => None,
        },
        "prmt" => Some(lanes3!(u32, u32, u32 => u32, |a, b, c| permute(a, b, c))),
        "prmt.f4e" => Some(lanes3!(u32, u32, u32 => u32, |a, b, c| permute(a, b, 0x3210 + 0x1111 * (c & 3)))),
        "prmt.b4e" => Some(
            lanes3!(u32, u32, u32 => u32, |a, b, c| permute(a, b, [0x5670, 0x6701, 0x7012, 0x0123][(c & 3) as usize])),
        ),
        "prmt.rc8" => Some(lanes3!(u32, u32, u32 => u32, |a, b, c| permute(a, b, 0x1111 * (c & 3)))),
        "prmt.rc16" => {
            Some(lanes3!(u32, u32, u32 => u32, |a, b, c| permute(a, b, [0x1010, 0x3232][(c & 1) as usize])))
        }
        "shf.l.wrap" => Some(lanes3!(u32, u32, u32 => u32, |a, b, c| (pair(a, b) << (c & 31) >> 32) as u32)),
        "shf.l.clamp" => {
            Some(lanes3!(u32, u32, u32 => u32, |a, b, c| (pair(a, b) << c.min(32) >> 32) as u32))
        }
        "shf.r.wrap" => Some(lanes3!(u32, u32, u32 => u32, |a, b, c| (pair(a, b) >> (c & 31)) as u32)),
        "shf.r.clamp" => Some(lanes3!(u32, u32, u32 => u32, |a, b, c| (pair(a, b) >> c.min(32)) as u32)),
        "dp4a.u32.u32" => Some(
            lanes3!(u32, u32, u32 => u32, |a, b, c| (0..4).fold(c, |s, i| s.wrapping_add((a >> (8 * i) & 255) * (b >> (8 * i) & 255)))),
        ),
        "dp4a.s32.s32" => Some(
            lanes3!(u32, u32, i32 => i32, |a, b, c| (0..4).fold(c, |s, i| s.wrapping_add(i32::from((a >> (8 * i)) as i8) * i32::from((b >> (8 * i)) as i8)))),
        ),
        _ => None,
    }
}

fn mad_high(ty: Ty) -> Option<F3> {
    match ty {
        Ty::U32 => Some(
            lanes3!(u32, u32, u32 => u32, |a, b, c| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)),
        ),
        Ty::S32 => Some(
            lanes3!(i32, i32, i32 => i32, |a, b, c| (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c)),
        ),
        Ty::U64 => Some(
            lanes3!(u64, u64, u64 => u64, |a, b, c| (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c)),
        ),
        Ty::S64 => Some(
            lanes3!(i64, i64, i64 => i64, |a, b, c| (((i128::from(a) * i128::from(b)) >> 64) as i64).wrapping_add(c)),
        ),
        _ => None,
    }
}

/// `bfi`: field, target, and position and length as [`pack`] joins them.
pub(crate) fn bit_insert(ty: Ty) -> Option<F3> {
    match ty.bits() {
        32 => Some(lanes3!(u64, u64, u64 => u64, |field, into, place| insert(32, field, into, place))),
        64 => Some(lanes3!(u64, u64, u64 => u64, |field, into, place| insert(64, field, into, place))),
        _ => None,
    }
}

/// The low halves of two sources in one register: the second above.
pub(crate) fn pack() -> F2 {
    lanes2!(u32 => u64, |low, high| pair(low, high))
}

fn insert(width: u32, field: u64, into: u64, place: u64) -> u64 {
    let (position, length) = (u32::take(place) & 255, u32::take(place >> 32) & 255);
    if position >= width {
        return into;
    }
    let mask = (ones(length) << position) & ones(width);
    (into & !mask) | ((field << position) & mask)
}

/// The low `count` bits set.
pub(crate) fn ones(count: u32) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// `bfe` of a signed value: beyond the top bit, and above the field, everything is the sign.
fn extract_signed(value: i64, position: u32, length: u32, top: u32) -> i64 {
    if length == 0 {
        return 0;
    }
    let sign_at = position.saturating_add(length - 1).min(top);
    let sign = (value >> sign_at) & 1;
    let field = (value >> position.min(63)).cast_unsigned();
    let field = if position > top { 0 } else { field & ones((top + 1 - position).min(length)) };
    let have = if position > top { 0 } else { (top + 1 - position).min(length) };
    if sign == 1 { (field | !ones(have)).cast_signed() } else { field.cast_signed() }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// `prmt` in its default mode: each nibble of the selector picks a byte; its top bit replicates the byte's sign.
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = pair(a, b).to_le_bytes();
    let pick = |index: u32| {
        let nibble = selector >> (4 * index) & 15;
        let byte = bytes[(nibble & 7) as usize];
        if nibble & 8 == 0 { byte } else { byte.cast_signed().wrapping_shr(7).cast_unsigned() }
    };
    u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)])
}

/// `setp`'s comparisons on integers and bits.
pub(crate) fn compare(op: &str, ty: Ty) -> Option<F2> {
    match op {
        "eq" => by_integer!(ty, T => lanes2!(T => bool, |a, b| a == b)),
        "ne" => by_integer!(ty, T => lanes2!(T => bool, |a, b| a != b)),
        "lt" | "lo" => by_integer!(ty, T => lanes2!(T => bool, |a, b| a < b)),
        "le" | "ls" => by_integer!(ty, T => lanes2!(T => bool, |a, b| a <= b)),
        "gt" | "hi" => by_integer!(ty, T => lanes2!(T => bool, |a, b| a > b)),
        "ge" | "hs" => by_integer!(ty, T => lanes2!(T => bool, |a, b| a >= b)),
        _ => None,
    }
}

/// Adds with the carry as a third source: (sum, carry out).
pub(crate) fn add_carry(ty: Ty) -> Option<(F3, F3)> {
    match ty.bits() {
        32 => Some((
            lanes3!(u32, u32, u32 => u32, |a, b, c| a.wrapping_add(b).wrapping_add(c)),
            lanes3!(u32, u32, u32 => u32, |a, b, c| u32::from(u64::from(a) + u64::from(b) + u64::from(c) > u64::from(u32::MAX))),
        )),
        64 => Some((
            lanes3!(u64, u64, u64 => u64, |a, b, c| a.wrapping_add(b).wrapping_add(c)),
            lanes3!(u64, u64, u64 => u64, |a, b, c| u64::from(u128::from(a) + u128::from(b) + u128::from(c) > u128::from(u64::MAX))),
        )),
        _ => None,
    }
}

/// Subtracts with the borrow as a third source: (difference, borrow out).
pub(crate) fn sub_borrow(ty: Ty) -> Option<(F3, F3)> {
    match ty.bits() {
        32 => Some((
            lanes3!(u32, u32, u32 => u32, |a, b, c| a.wrapping_sub(b).wrapping_sub(c)),
            lanes3!(u32, u32, u32 => u32, |a, b, c| u32::from(u64::from(a) < u64::from(b) + u64::from(c))),
        )),
        64 => Some((
            lanes3!(u64, u64, u64 => u64, |a, b, c| a.wrapping_sub(b).wrapping_sub(c)),
            lanes3!(u64, u64, u64 => u64, |a, b, c| u64::from(u128::from(a) < u128::from(b) + u128::from(c))),
        )),
        _ => None,
    }
}

/// `selp`, and what it needs: any 64 bits.
pub(crate) fn select() -> F3 {
    lanes3!(u64, u64, bool => u64, |a, b, p| if p { a } else { b })
}

/// `slct` with an integer condition.
pub(crate) fn select_by_sign() -> F3 {
    lanes3!(u64, u64, i32 => u64, |a, b, c| if c >= 0 { a } else { b })
}

/// `lop3.b32` with `table`: the bit of the truth table at each triple of bits.
///
/// Its sources are the first two, packed, the third, and the table.
pub(crate) fn lop3() -> F3 {
    lanes3!(u64, u32, u32 => u32, |ab, c, table| look_up(u32::take(ab), u32::take(ab >> 32), c, table))
}

fn look_up(a: u32, b: u32, c: u32, table: u32) -> u32 {
    (0..8).filter(|row| table >> row & 1 == 1).fold(0, |out, row| {
        let pick = |value: u32, bit: u32| if row & bit == 0 { !value } else { value };
        out | (pick(a, 4) & pick(b, 2) & pick(c, 1))
    })
}

/// Sign-extends from `from` bits.
pub(crate) fn sign_extend(from: u32) -> Option<F1> {
    match from {
        8 => Some(lanes1!(i8 => i64, |a| i64::from(a))),
        16 => Some(lanes1!(i16 => i64, |a| i64::from(a))),
        32 => Some(lanes1!(i32 => i64, |a| i64::from(a))),
        64 => Some(lanes1!(u64 => u64, |a| a)),
        _ => None,
    }
}

/// Keeps `bits` low bits.
pub(crate) fn truncate(bits: u32) -> Option<F1> {
    match bits {
        1 => Some(lanes1!(bool => bool, |a| a)),
        8 => Some(lanes1!(u8 => u8, |a| a)),
        16 => Some(lanes1!(u16 => u16, |a| a)),
        32 => Some(lanes1!(u32 => u32, |a| a)),
        64 => Some(lanes1!(u64 => u64, |a| a)),
        _ => None,
    }
}
