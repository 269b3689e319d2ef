//! `ld st atom red`. Source: PTX ISA, 9.7.9 and 9.7.13.

use super::alu::Codec;
use super::compile::Body;
use super::select::Words;
use super::{Area, Op, Src};
use crate::image::ImageError;
use crate::ptx::{Operand, Ty};

/// Cache hints, orderings and scopes: memory here is coherent and every access is ordered as an acquire or release.
const HINTS: [&str; 22] = [
    "ca",
    "cg",
    "cs",
    "cv",
    "lu",
    "wb",
    "wt",
    "nc",
    "volatile",
    "weak",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "mmio",
    "L1::no_allocate",
    "L2::128B",
    "noftz",
];
const MORE_HINTS: [&str; 7] = [
    "L2::64B",
    "L2::256B",
    "L1::evict_normal",
    "L1::evict_last",
    "L1::evict_first",
    "L1::evict_unchanged",
    "unified",
];

fn area(words: &Words<'_>) -> Result<Area, ImageError> {
    let mut area = Area::Generic;
    for modifier in &words.modifiers {
        match *modifier {
            "global" | "const" => area = Area::Global,
            "shared" | "shared::cta" => area = Area::Shared,
            "local" => area = Area::Local,
            "param" | "param::entry" | "param::func" => area = Area::Param,
            _ => {}
        }
    }
    Ok(area)
}

const AREAS: [&str; 8] =
    ["global", "const", "shared", "shared::cta", "local", "param", "param::entry", "param::func"];

fn allow(words: &Words<'_>, more: &[&str]) -> Result<(), ImageError> {
    words.allow(&[&HINTS[..], &MORE_HINTS[..], &AREAS[..], more].concat())
}

/// The registers of `{a, b}`, or of `a` alone; as many as `.v2`, `.v4` say.
pub(super) fn elements<'a>(
    words: &Words<'a>,
    operand: &'a Operand<'a>,
) -> Result<&'a [Operand<'a>], ImageError> {
    let count = words.modifiers.iter().find_map(|m| m.strip_prefix('v')?.parse::<usize>().ok()).unwrap_or(1);
    let list = match operand {
        Operand::Vector(list) => &list[..],
        other => std::slice::from_ref(other),
    };
    if list.len() == count { Ok(list) } else { Err(words.wrong("the number of elements")) }
}

pub(super) fn load(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    allow(words, &["v2", "v4", "v8"])?;
    words.count(2, 2)?;
    let ty = words.ty()?;
    let address = body.address(words.operand(1)?, area(words)?, words.line)?;
    let targets = elements(words, words.operand(0)?)?;
    let dst: Box<[_]> = targets.iter().map(|t| body.dst(t, words.line)).collect::<Result<_, _>>()?;
    // The elements come one behind the other; an address in a register that is also a target is read first.
    body.push(Op::Load { address, width: ty.bytes(), signed: ty.is_signed(), dst });
    Ok(())
}

pub(super) fn store(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    allow(words, &["v2", "v4", "v8"])?;
    words.count(2, 2)?;
    let ty = words.ty()?;
    let address = body.address(words.operand(0)?, area(words)?, words.line)?;
    let sources = elements(words, words.operand(1)?)?;
    let values: Box<[_]> = sources.iter().map(|s| body.src(s, ty, words.line)).collect::<Result<_, _>>()?;
    body.push(Op::Store { address, width: ty.bytes(), values });
    Ok(())
}

const ATOMICS: [&str; 10] = ["add", "and", "or", "xor", "min", "max", "exch", "cas", "inc", "dec"];

/// `atom` returns the old value, `red` has no result.
pub(super) fn atomic(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    allow(words, &ATOMICS)?;
    let (ty, line) = (words.ty()?, words.line);
    let op = words.modifiers.iter().find(|m| ATOMICS.contains(m)).ok_or_else(|| words.unsupported())?;
    let f = update(op, ty).ok_or_else(|| words.unsupported())?;
    let first = usize::from(words.op == "atom");
    let sources = if *op == "cas" { 2 } else { 1 };
    words.count(first + 1 + sources, first + 1 + sources)?;
    let dst = if first == 1 { body.dst(words.operand(0)?, line)?.map(|dst| dst.slot) } else { None };
    let address = body.address(words.operand(first)?, area(words)?, line)?;
    if !matches!(address.area, Area::Generic | Area::Global | Area::Shared) {
        return Err(words.unsupported());
    }
    let a = body.src(words.operand(first + 1)?, ty, line)?;
    let b = if sources == 2 { body.src(words.operand(first + 2)?, ty, line)? } else { Src::Imm(0) };
    body.push(Op::Atomic { address, width: ty.bytes(), f, dst, a, b });
    Ok(())
}

type Update = fn(u64, u64, u64) -> u64;

/// What takes the place of the old value.
fn update(op: &str, ty: Ty) -> Option<Update> {
    macro_rules! with {
        ($t:ty, |$old:ident, $a:ident| $e:expr) => {
            Some(|old, a, _| {
                let ($old, $a) = (<$t as Codec>::take(old), <$t as Codec>::take(a));
                <$t as Codec>::put($e)
            })
        };
    }
    match (op, ty) {
        ("exch", Ty::B32 | Ty::B64) => Some(|_, a, _| a),
        ("cas", Ty::B16 | Ty::B32 | Ty::B64) => {
            Some(|old, expected, new| if old == expected { new } else { old })
        }
        ("and", Ty::B32 | Ty::B64) => Some(|old, a, _| old & a),
        ("or", Ty::B32 | Ty::B64) => Some(|old, a, _| old | a),
        ("xor", Ty::B32 | Ty::B64) => Some(|old, a, _| old ^ a),
        ("add", Ty::U32 | Ty::S32) => with!(u32, |old, a| old.wrapping_add(a)),
        ("add", Ty::U64 | Ty::S64) => with!(u64, |old, a| old.wrapping_add(a)),
        ("add", Ty::F32) => with!(f32, |old, a| old + a),
        ("add", Ty::F64) => with!(f64, |old, a| old + a),
        ("add", Ty::F16) => with!(super::alu::F16, |old, a| old + a),
        ("add", Ty::F16x2) => with!(super::alu::F16x2, |old, a| [old[0] + a[0], old[1] + a[1]]),
        ("add", Ty::Bf16) => with!(super::alu::Bf16, |old, a| old + a),
        ("min", Ty::U32) => with!(u32, |old, a| old.min(a)),
        ("min", Ty::S32) => with!(i32, |old, a| old.min(a)),
        ("min", Ty::U64) => with!(u64, |old, a| old.min(a)),
        ("min", Ty::S64) => with!(i64, |old, a| old.min(a)),
        ("max", Ty::U32) => with!(u32, |old, a| old.max(a)),
        ("max", Ty::S32) => with!(i32, |old, a| old.max(a)),
        ("max", Ty::U64) => with!(u64, |old, a| old.max(a)),
        ("max", Ty::S64) => with!(i64, |old, a| old.max(a)),
        ("inc", Ty::U32) => with!(u32, |old, limit| if old >= limit { 0 } else { old + 1 }),
        ("dec", Ty::U32) => with!(u32, |old, limit| if old == 0 || old > limit { limit } else { old - 1 }),
        _ => None,
    }
}
