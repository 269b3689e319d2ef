//! Floating arithmetic: rounding, flushing and saturation from the modifiers. Source: PTX ISA, 9.7.3 and 9.7.4.

use super::alu::{Rounding, float as alu, half};
use super::compile::Body;
use super::select::{Words, push_binary, push_ternary};
use super::{Op, Src};
use crate::image::ImageError;
use crate::ptx::Ty;

const ROUNDINGS: [&str; 4] = ["rn", "rz", "rm", "rp"];

fn rounding(words: &Words<'_>) -> Option<Rounding> {
    words.modifiers.iter().find_map(|m| Rounding::from_word(m))
}

fn allow(words: &Words<'_>, more: &[&str]) -> Result<(), ImageError> {
    words.allow(&[&ROUNDINGS[..], &["ftz", "sat"], more].concat())
}

/// `.sat`, done to the result just written.
fn saturate(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    if !words.has("sat") {
        return Ok(());
    }
    if words.ty()? != Ty::F32 {
        return Err(words.unsupported());
    }
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
    let f = alu::unary("saturate", Ty::F32, None, false).ok_or_else(|| words.unsupported())?;
    body.push(Op::Unary { f, dst: dst.slot, a: Src::Reg(dst.slot) });
    Ok(())
}

/// One source.
pub(super) fn float(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    let ty = words.ty()?;
    let f = if words.op == "testp" {
        words.modifiers.first().and_then(|test| alu::test(test, ty))
    } else {
        allow(words, &["approx"])?;
        let rounding = rounding(words);
        half::unary(words.op, ty).or_else(|| alu::unary(words.op, ty, rounding, words.has("ftz")))
    };
    let f = f.ok_or_else(|| words.unsupported())?;
    words.count(2, 2)?;
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
    let a = body.src(words.operand(1)?, ty, words.line)?;
    body.push(Op::Unary { f, dst: dst.slot, a });
    saturate(body, words)
}

/// Two sources.
pub(super) fn float_binary(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    allow(words, &["approx", "full", "NaN"])?;
    let ty = words.ty()?;
    let op = match (words.op, words.has("NaN")) {
        ("min", true) => "min.NaN",
        ("max", true) => "max.NaN",
        (op, _) => op,
    };
    let rounding = rounding(words).unwrap_or(Rounding::Nearest);
    let f = if matches!(ty, Ty::F32 | Ty::F64) {
        alu::binary(op, ty, rounding, words.has("ftz"))
    } else {
        half::binary(op, ty).filter(|_| rounding == Rounding::Nearest)
    };
    push_binary(body, words, f, [ty, ty])?;
    saturate(body, words)
}

/// `fma`, and `mad` on floats, which is the same since sm_20.
pub(super) fn fused(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    allow(words, &[])?;
    let ty = words.ty()?;
    let rounding = rounding(words).unwrap_or(Rounding::Nearest);
    let f = if matches!(ty, Ty::F32 | Ty::F64) {
        alu::fused(ty, rounding, words.has("ftz"))
    } else {
        half::fused(ty).filter(|_| rounding == Rounding::Nearest)
    };
    push_ternary(body, words, f, [ty, ty, ty])?;
    saturate(body, words)
}
