//! Integer arithmetic, comparisons and selections. Source: PTX ISA, 9.7.1, 9.7.2, 9.7.7 and 9.7.8.

use super::alu::{Rounding, float, half, integer as alu};
use super::compile::Body;
use super::select::{Words, push_binary, push_ternary};
use super::{F2, F3, Op, Src};
use crate::image::ImageError;
use crate::ptx::{Operand, Ty};

/// Every opcode that has no line of its own in `select.rs`.
pub(super) fn integer(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    let ty = words.ty()?;
    let with_modifiers = words.modifiers.iter().fold(words.op.to_owned(), |all, m| all + "." + m);
    if let Some(f) = alu::unary(&with_modifiers, ty) {
        words.count(2, 2)?;
        let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
        let a = body.src(words.operand(1)?, ty, words.line)?;
        body.push(Op::Unary { f, dst: dst.slot, a });
        return Ok(());
    }
    if let Some(f) = alu::binary(&with_modifiers, ty) {
        return push_binary(body, words, Some(f), [ty, ty]);
    }
    let name = match words.types[..] {
        [Ty::U32, Ty::U32] => with_modifiers + ".u32.u32",
        [Ty::S32, Ty::S32] => with_modifiers + ".s32.s32",
        _ => with_modifiers,
    };
    let types = match words.op {
        "bfe" => [ty, Ty::U32, Ty::U32],
        "mad" if words.has("wide") => [ty, ty, Ty::B64],
        _ => [ty; 3],
    };
    push_ternary(body, words, alu::ternary(&name, ty), types)
}

pub(super) fn shift(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&[])?;
    let ty = words.ty()?;
    push_binary(body, words, alu::shift(words.op, ty), [ty, Ty::U32])
}

/// `bfi`: four sources, the last two packed into one.
pub(super) fn bit_insert(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&[])?;
    words.count(5, 5)?;
    let (ty, line) = (words.ty()?, words.line);
    let f = alu::bit_insert(ty).ok_or_else(|| words.unsupported())?;
    let Some(dst) = body.dst(words.operand(0)?, line)? else { return Ok(()) };
    let field = body.src(words.operand(1)?, ty, line)?;
    let into = body.src(words.operand(2)?, ty, line)?;
    let position = body.src(words.operand(3)?, Ty::U32, line)?;
    let length = body.src(words.operand(4)?, Ty::U32, line)?;
    let place = body.scratch()?;
    body.push(Op::Binary { f: alu::pack(), dst: place, a: position, b: length });
    body.push(Op::Ternary { f, dst: dst.slot, a: field, b: into, c: Src::Reg(place) });
    Ok(())
}

/// `lop3.b32`: three sources and a truth table.
pub(super) fn logic3(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&[])?;
    words.count(5, 5)?;
    let line = words.line;
    let Some(dst) = body.dst(words.operand(0)?, line)? else { return Ok(()) };
    let [a, b, c, table] = [1, 2, 3, 4].map(|i| words.operand(i).and_then(|o| body.src(o, Ty::B32, line)));
    let both = body.scratch()?;
    body.push(Op::Binary { f: alu::pack(), dst: both, a: a?, b: b? });
    body.push(Op::Ternary { f: alu::lop3(), dst: dst.slot, a: Src::Reg(both), b: c?, c: table? });
    Ok(())
}

fn comparison(words: &Words<'_>, ty: Ty) -> Option<F2> {
    let op = words.modifiers.first()?;
    match ty {
        Ty::F32 | Ty::F64 => float::compare(op, ty, words.has("ftz")),
        _ if ty.is_float() => half::compare(op, ty),
        _ => alu::compare(op, ty),
    }
}

fn combination<'a>(words: &Words<'a>) -> Result<Option<&'a str>, ImageError> {
    let rest: Vec<_> = words.modifiers.iter().skip(1).copied().filter(|m| *m != "ftz").collect();
    match rest[..] {
        [] => Ok(None),
        [op @ ("and" | "or" | "xor")] => Ok(Some(op)),
        _ => Err(words.unsupported()),
    }
}

/// `setp.lt.and.s32 p|q, a, b, !c`: p is (a < b) and not c; q is (a >= b) and not c.
pub(super) fn set_predicate(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    let (ty, line) = (words.ty()?, words.line);
    let f = comparison(words, ty).ok_or_else(|| words.unsupported())?;
    let combine = combination(words)?;
    words.count(3, 4)?;
    let (first, second) = match *words.operand(0)? {
        Operand::Pair(p, q) => {
            (Operand::Name { name: p, negated: false }, Some(Operand::Name { name: q, negated: false }))
        }
        ref other => (other.clone(), None),
    };
    let a = body.src(words.operand(1)?, ty, line)?;
    let b = body.src(words.operand(2)?, ty, line)?;
    let p = body.dst(&first, line)?;
    if combine.is_none() && second.is_none() {
        if let Some(p) = p {
            body.push(Op::Binary { f, dst: p.slot, a, b });
        }
        return Ok(());
    }
    let with = match combine {
        Some(_) => Some(body.predicate(words.operand(3)?, line)?),
        None => None,
    };
    let holds = body.scratch()?;
    body.push(Op::Binary { f, dst: holds, a, b });
    let fails = body.scratch()?;
    let not = alu::unary("not", Ty::Pred).ok_or_else(|| words.unsupported())?;
    body.push(Op::Unary { f: not, dst: fails, a: Src::Reg(holds) });
    let mut last = Vec::new();
    let q = second.map(|name| body.dst(&name, line)).transpose()?.flatten();
    for (dst, value) in [(p, holds), (q, fails)] {
        let Some(dst) = dst else { continue };
        let op = match (combine, with) {
            (Some(op), Some(with)) => {
                let f = alu::binary(op, Ty::Pred).ok_or_else(|| words.unsupported())?;
                let result = body.scratch()?;
                body.push(Op::Binary { f, dst: result, a: Src::Reg(value), b: with });
                copy(dst.slot, Src::Reg(result), words)?
            }
            _ => copy(dst.slot, Src::Reg(value), words)?,
        };
        last.push(op);
    }
    // `c` may be one of the results: they are written last.
    last.into_iter().for_each(|op| body.push(op));
    Ok(())
}

fn copy(dst: u32, a: Src, words: &Words<'_>) -> Result<Op, ImageError> {
    let f = alu::truncate(64).ok_or_else(|| words.unsupported())?;
    Ok(Op::Unary { f, dst, a })
}

/// `set`: a comparison whose result is all ones, or 1.0, or 0.
pub(super) fn set(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    let [to, ty] = words.types[..] else { return Err(words.unsupported()) };
    let line = words.line;
    let f = comparison(words, ty).ok_or_else(|| words.unsupported())?;
    let yes = match to {
        Ty::F32 => u64::from(1f32.to_bits()),
        Ty::U32 | Ty::S32 => u64::from(u32::MAX),
        _ => return Err(words.unsupported()),
    };
    let combine = combination(words)?;
    words.count(3, 4)?;
    let Some(dst) = body.dst(words.operand(0)?, line)? else { return Ok(()) };
    let a = body.src(words.operand(1)?, ty, line)?;
    let b = body.src(words.operand(2)?, ty, line)?;
    let holds = body.scratch()?;
    body.push(Op::Binary { f, dst: holds, a, b });
    if let Some(op) = combine {
        let with = body.predicate(words.operand(3)?, line)?;
        let f = alu::binary(op, Ty::Pred).ok_or_else(|| words.unsupported())?;
        body.push(Op::Binary { f, dst: holds, a: Src::Reg(holds), b: with });
    }
    body.push(Op::Ternary {
        f: alu::select(),
        dst: dst.slot,
        a: Src::Imm(yes),
        b: Src::Imm(0),
        c: Src::Reg(holds),
    });
    Ok(())
}

/// `selp` by a predicate, `slct` by a sign.
pub(super) fn select_value(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["ftz"])?;
    let ty = words.ty()?;
    let (f, by): (F3, Ty) = match (words.op, words.types.get(1)) {
        ("selp", None) => (alu::select(), Ty::Pred),
        ("slct", Some(Ty::S32)) => (alu::select_by_sign(), Ty::S32),
        ("slct", Some(Ty::F32)) => (float::select_by_sign(), Ty::F32),
        _ => return Err(words.unsupported()),
    };
    push_ternary(body, words, Some(f), [ty, ty, by])
}

/// `add.cc addc sub.cc subc mad.lo.cc madc`: the carry lies in a slot that all of a function share.
pub(super) fn carry(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["cc", "lo", "hi"])?;
    let (ty, line) = (words.ty()?, words.line);
    let is_mad = words.op.starts_with("mad");
    words.count(if is_mad { 4 } else { 3 }, if is_mad { 4 } else { 3 })?;
    let Some(dst) = body.dst(words.operand(0)?, line)? else { return Ok(()) };
    let mut a = body.src(words.operand(1)?, ty, line)?;
    let mut b = body.src(words.operand(2)?, ty, line)?;
    if is_mad {
        let half = if words.has("hi") { "mul.hi" } else { "mul.lo" };
        let f = alu::binary(half, ty).ok_or_else(|| words.unsupported())?;
        let product = body.scratch()?;
        body.push(Op::Binary { f, dst: product, a, b });
        (a, b) = (Src::Reg(product), body.src(words.operand(3)?, ty, line)?);
    }
    let functions = if words.op.starts_with("sub") { alu::sub_borrow(ty) } else { alu::add_carry(ty) };
    let (result, carry_out) = functions.ok_or_else(|| words.unsupported())?;
    let flag = body.carry()?;
    let c = if words.op.ends_with('c') { Src::Reg(flag) } else { Src::Imm(0) };
    // The result may be one of the sources, so it is written last.
    let next = body.scratch()?;
    body.push(Op::Ternary { f: carry_out, dst: next, a, b, c });
    body.push(Op::Ternary { f: result, dst: dst.slot, a, b, c });
    if words.has("cc") {
        let op = copy(flag, Src::Reg(next), words)?;
        body.push(op);
    }
    Ok(())
}

/// The rounding named by the first modifier that names one.
pub(super) fn named_rounding(words: &Words<'_>) -> Option<Rounding> {
    words.modifiers.iter().find_map(|m| Rounding::from_word(m))
}
