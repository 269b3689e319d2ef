//! `mov`, `cvt`, `cvta`: values change their place, type or address space. Source: PTX ISA, 9.7.9.

use super::alu::{Codec, Convert, integer as alu, lanes1, lanes2, lanes3};
use super::compile::Body;
use super::select::Words;
use super::select_integer::named_rounding;
use super::{Dst, F1, LOCAL_WINDOW, Op, PARAM_WINDOW, SHARED_WINDOW, Src, WINDOW_BYTES};
use crate::image::ImageError;
use crate::ptx::{Operand, Ty};

/// `mov`, with the packing and unpacking of vectors.
pub(super) fn move_(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&[])?;
    words.count(2, 2)?;
    let ty = words.ty()?;
    match (words.operand(0)?, words.operand(1)?) {
        (Operand::Vector(targets), source) => unpack(body, words, ty, targets, source),
        (target, Operand::Vector(sources)) => pack(body, words, ty, target, sources),
        (target, source) => {
            let a = if ty == Ty::Pred {
                body.predicate(source, words.line)?
            } else {
                body.src(source, ty, words.line)?
            };
            let Some(dst) = body.dst(target, words.line)? else { return Ok(()) };
            // A 64-bit special register may be read into 32 bits.
            push_masked(body, dst, a, words)
        }
    }
}

/// `dst = a`, cut to the register.
fn push_masked(body: &mut Body<'_, '_>, dst: Dst, a: Src, words: &Words<'_>) -> Result<(), ImageError> {
    let f = alu::truncate(dst.mask.count_ones()).ok_or_else(|| words.unsupported())?;
    body.push(Op::Unary { f, dst: dst.slot, a });
    Ok(())
}

fn unpack(
    body: &mut Body<'_, '_>,
    words: &Words<'_>,
    ty: Ty,
    targets: &[Operand<'_>],
    source: &Operand<'_>,
) -> Result<(), ImageError> {
    let bits = element_bits(words, ty, targets.len())?;
    let a = body.src(source, ty, words.line)?;
    for (index, target) in targets.iter().enumerate() {
        let Some(dst) = body.dst(target, words.line)? else { continue };
        let f = match bits {
            8 => lanes2!(u64 => u8, |a, n| u8::take(a >> n)),
            16 => lanes2!(u64 => u16, |a, n| u16::take(a >> n)),
            _ => lanes2!(u64 => u32, |a, n| u32::take(a >> n)),
        };
        body.push(Op::Binary { f, dst: dst.slot, a, b: Src::Imm(index as u64 * u64::from(bits)) });
    }
    Ok(())
}

fn pack(
    body: &mut Body<'_, '_>,
    words: &Words<'_>,
    ty: Ty,
    target: &Operand<'_>,
    sources: &[Operand<'_>],
) -> Result<(), ImageError> {
    let bits = element_bits(words, ty, sources.len())?;
    let element = match bits {
        8 => Ty::B8,
        16 => Ty::B16,
        _ => Ty::B32,
    };
    let Some(dst) = body.dst(target, words.line)? else { return Ok(()) };
    let mut so_far = Src::Imm(0);
    for (index, source) in sources.iter().enumerate() {
        let value = body.src(source, element, words.line)?;
        // The target may be among the sources: only the last step writes it.
        let place = if index + 1 == sources.len() { dst.slot } else { body.scratch()? };
        let f = match bits {
            8 => lanes3!(u64, u8, u64 => u64, |all, part, n| all | u64::from(part) << n),
            16 => lanes3!(u64, u16, u64 => u64, |all, part, n| all | u64::from(part) << n),
            _ => lanes3!(u64, u32, u64 => u64, |all, part, n| all | u64::from(part) << n),
        };
        body.push(Op::Ternary {
            f,
            dst: place,
            a: so_far,
            b: value,
            c: Src::Imm(index as u64 * u64::from(bits)),
        });
        so_far = Src::Reg(place);
    }
    Ok(())
}

fn element_bits(words: &Words<'_>, ty: Ty, count: usize) -> Result<u32, ImageError> {
    match (ty.bits(), count) {
        (64, 2) => Ok(32),
        (64, 4) | (32, 2) => Ok(16),
        (32, 4) | (16, 2) => Ok(8),
        _ => Err(words.unsupported()),
    }
}

/// `cvt`.
pub(super) fn convert(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "relu"])?;
    let [to, from] = words.types[..] else { return Err(words.unsupported()) };
    let is_known = |ty: Ty| !matches!(ty, Ty::F16x2 | Ty::Bf16x2 | Ty::Pred);
    if !is_known(to) || !is_known(from) {
        return packed_halves(body, words, to, from);
    }
    words.count(2, 2)?;
    let a = body.src(words.operand(1)?, from, words.line)?;
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
    let plain = words.modifiers.is_empty();
    if !to.is_float() && !from.is_float() && plain {
        return integers(body, words, dst, a, to, from);
    }
    if let Some(f) = common(to, from, &words.modifiers) {
        body.push(Op::Unary { f, dst: dst.slot, a });
        return Ok(());
    }
    let how = Convert {
        to,
        from,
        rounding: named_rounding(words),
        integral: words.modifiers.iter().any(|m| matches!(*m, "rni" | "rzi" | "rmi" | "rpi")),
        saturate: words.has("sat"),
        relu: words.has("relu"),
        ftz: words.has("ftz"),
    };
    body.push(Op::Convert { how: Box::new(how), dst: dst.slot, a });
    if to.is_signed() { push_masked(body, dst, Src::Reg(dst.slot), words) } else { Ok(()) }
}

/// The conversions that loops are full of.
fn common(to: Ty, from: Ty, modifiers: &[&str]) -> Option<F1> {
    match (to, from, modifiers) {
        (Ty::F32, Ty::S32, ["rn"]) => Some(lanes1!(i32 => f32, |a| a as f32)),
        (Ty::F32, Ty::U32, ["rn"]) => Some(lanes1!(u32 => f32, |a| a as f32)),
        (Ty::F64, Ty::S32, ["rn"]) => Some(lanes1!(i32 => f64, |a| f64::from(a))),
        (Ty::F64, Ty::F32, []) => Some(lanes1!(f32 => f64, |a| f64::from(a))),
        _ => None,
    }
}

/// Integers without `.sat`: extended from the source's width, cut to the result's, extended to the register's.
fn integers(
    body: &mut Body<'_, '_>,
    words: &Words<'_>,
    dst: Dst,
    a: Src,
    to: Ty,
    from: Ty,
) -> Result<(), ImageError> {
    let bits = dst.mask.count_ones();
    // What the result keeps of the source decides whose sign counts.
    let narrow = if to.bits() <= from.bits() { to } else { from };
    if !narrow.is_signed() {
        let f = alu::truncate(narrow.bits()).ok_or_else(|| words.unsupported())?;
        body.push(Op::Unary { f, dst: dst.slot, a });
        return Ok(());
    }
    let f = alu::sign_extend(narrow.bits()).ok_or_else(|| words.unsupported())?;
    body.push(Op::Unary { f, dst: dst.slot, a });
    // A wider unsigned result has zeros above its own width.
    let keep = if to.is_signed() { bits } else { bits.min(to.bits()) };
    if keep == 64 {
        return Ok(());
    }
    let f = alu::truncate(keep).ok_or_else(|| words.unsupported())?;
    body.push(Op::Unary { f, dst: dst.slot, a: Src::Reg(dst.slot) });
    Ok(())
}

/// `cvt.rn.f16x2.f32 d, high, low`.
fn packed_halves(body: &mut Body<'_, '_>, words: &Words<'_>, to: Ty, from: Ty) -> Result<(), ImageError> {
    use super::alu::{Bf16, F16};
    words.allow(&["rn"])?;
    words.count(3, 3)?;
    let f = match (to, from) {
        (Ty::F16x2, Ty::F32) => {
            lanes2!(f32 => u64, |high, low| F16::put(f64::from(high)) << 16 | F16::put(f64::from(low)))
        }
        (Ty::Bf16x2, Ty::F32) => {
            lanes2!(f32 => u64, |high, low| Bf16::put(f64::from(high)) << 16 | Bf16::put(f64::from(low)))
        }
        _ => return Err(words.unsupported()),
    };
    super::select::push_binary(body, words, Some(f), [Ty::F32, Ty::F32])
}

fn window(words: &Words<'_>) -> Result<u64, ImageError> {
    match words.modifiers.last() {
        Some(&("global" | "const")) => Ok(0),
        Some(&("shared" | "shared::cta" | "shared::cluster")) => Ok(SHARED_WINDOW),
        Some(&"local") => Ok(LOCAL_WINDOW),
        Some(&("param" | "param::entry")) => Ok(PARAM_WINDOW),
        _ => Err(words.unsupported()),
    }
}

/// `cvta` and `cvta.to`: an address moves between its space and its window in the generic space.
pub(super) fn convert_address(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    let window = window(words)?;
    words.count(2, 2)?;
    let ty = words.ty()?;
    let a = body.src(words.operand(1)?, ty, words.line)?;
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
    let by = if words.has("to") { window.wrapping_neg() } else { window };
    let f = lanes2!(u64 => u64, |a, by| a.wrapping_add(by));
    body.push(Op::Binary { f, dst: dst.slot, a, b: Src::Imm(by) });
    Ok(())
}

/// `isspacep`: whether a generic address lies in a space's window.
pub(super) fn is_space(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    let window = window(words)?;
    words.count(2, 2)?;
    let a = body.src(words.operand(1)?, Ty::U64, words.line)?;
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
    let f = if window == 0 {
        // Constant variables live in global memory, so this is true of both.
        lanes2!(u64 => bool, |a, _w| a >= PARAM_WINDOW + WINDOW_BYTES)
    } else {
        lanes2!(u64 => bool, |a, w| a.wrapping_sub(w) < WINDOW_BYTES)
    };
    body.push(Op::Binary { f, dst: dst.slot, a, b: Src::Imm(window) });
    Ok(())
}
