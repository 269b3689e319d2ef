//! Control flow, barriers and what lanes do together. Source: PTX ISA, 9.7.12 and 9.7.13.

use super::compile::Body;
use super::select::Words;
use super::{BarReduce, CallFrame, Op, ShuffleKind, Src, VoteKind};
use crate::image::ImageError;
use crate::ptx::{Operand, Ty};

pub(super) fn branch(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["uni"])?;
    words.count(1, 1)?;
    let Operand::Name { name, negated: false } = words.operand(0)? else {
        return Err(words.wrong("expected a label"));
    };
    let target = body.label(name).ok_or_else(|| words.wrong("the label is nowhere defined"))?;
    body.push(Op::Branch { target });
    Ok(())
}

/// `brx.idx index, table`.
pub(super) fn branch_indexed(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["idx", "uni"])?;
    words.count(2, 2)?;
    let index = body.src(words.operand(0)?, Ty::U32, words.line)?;
    let Operand::Name { name, .. } = words.operand(1)? else { return Err(words.wrong("expected a table")) };
    let targets = body.targets(name).ok_or_else(|| words.wrong("the table is nowhere defined"))?;
    body.count_targets(targets.len()).ok_or_else(|| words.unsupported())?;
    body.push(Op::BranchIndexed { index, targets: targets.into() });
    Ok(())
}

/// `call (results), function, (arguments), prototype`: results, arguments and prototype may be missing.
pub(super) fn call(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["uni"])?;
    let mut operands = words.operands;
    let mut results: &[Operand<'_>] = &[];
    if let [Operand::Group(list), rest @ ..] = operands {
        (results, operands) = (list, rest);
    }
    let [callee, rest @ ..] = operands else { return Err(words.wrong("what is called is missing")) };
    let arguments: &[Operand<'_>] = match rest {
        [Operand::Group(list), ..] => list,
        _ => &[],
    };
    let Operand::Name { name, negated: false } = callee else {
        return Err(words.wrong("expected a function"));
    };
    if let Some(function) = body.function(name) {
        let layout = &body.functions[function];
        if layout.parameters.len() != arguments.len() || layout.returns.len() != results.len() {
            return Err(words.wrong("the number of arguments"));
        }
        let frame = CallFrame {
            arguments: places(body, words, arguments, Some(&layout.parameters))?,
            returns: places(body, words, results, Some(&layout.returns))?,
        };
        body.push(Op::Call { function, frame: Box::new(frame) });
        return Ok(());
    }
    let frame = CallFrame {
        arguments: places(body, words, arguments, None)?,
        returns: places(body, words, results, None)?,
    };
    let address = body.src(callee, Ty::U64, words.line)?;
    body.push(Op::CallIndirect { address, frame: Box::new(frame) });
    Ok(())
}

/// Where in this function's frame the parameters lie; the size is the callee's (0 where it is only known at run time).
fn places(
    body: &Body<'_, '_>,
    words: &Words<'_>,
    list: &[Operand<'_>],
    callee: Option<&[(u32, u32)]>,
) -> Result<Vec<(u32, u32)>, ImageError> {
    let place = |(index, operand): (usize, &Operand<'_>)| match operand {
        Operand::Name { name, negated: false } => {
            let offset = body.parameter(name).ok_or_else(|| words.unsupported())?;
            Ok((offset, callee.map_or(0, |layout| layout[index].1)))
        }
        _ => Err(words.unsupported()),
    };
    list.iter().enumerate().map(place).collect()
}

/// `bar` and `barrier`, of the block or of a warp.
pub(super) fn barrier(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["sync", "arrive", "red", "warp", "cta", "aligned", "and", "or", "popc"])?;
    let line = words.line;
    if words.has("warp") {
        words.count(1, 1)?;
        let mask = body.src(words.operand(0)?, Ty::B32, line)?;
        body.push(Op::BarrierWarp { mask });
        return Ok(());
    }
    if words.has("red") {
        return barrier_reduce(body, words);
    }
    words.count(1, 2)?;
    let id = body.src(words.operand(0)?, Ty::U32, line)?;
    let count = words.operands.get(1).map(|o| body.src(o, Ty::U32, line)).transpose()?;
    body.push(Op::Barrier { id, count, wait: !words.has("arrive"), reduce: None });
    Ok(())
}

/// `bar.red.popc.u32 d, id{, count}, p`.
fn barrier_reduce(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    let line = words.line;
    words.count(3, 4)?;
    let kind = match words {
        _ if words.has("and") => BarReduce::And,
        _ if words.has("or") => BarReduce::Or,
        _ => BarReduce::Count,
    };
    let Some(dst) = body.dst(words.operand(0)?, line)? else { return Err(words.unsupported()) };
    let id = body.src(words.operand(1)?, Ty::U32, line)?;
    let last = words.operands.len() - 1;
    let count = if last == 3 { Some(body.src(words.operand(2)?, Ty::U32, line)?) } else { None };
    let p = body.predicate(words.operand(last)?, line)?;
    body.push(Op::Barrier { id, count, wait: true, reduce: Some((kind, dst.slot, p, false)) });
    Ok(())
}

/// A result and the predicate behind `|`.
fn result_pair(body: &Body<'_, '_>, words: &Words<'_>) -> Result<(u32, Option<u32>), ImageError> {
    let (value, predicate) = match *words.operand(0)? {
        Operand::Pair(value, predicate) => (value, Some(predicate)),
        Operand::Name { name, negated: false } => (name, None),
        _ => return Err(words.wrong("the result")),
    };
    let slot = |name| body.dst(&Operand::Name { name, negated: false }, words.line);
    let value = slot(value)?.ok_or_else(|| words.unsupported())?.slot;
    let predicate = predicate.map(slot).transpose()?.flatten().map(|dst| dst.slot);
    Ok((value, predicate))
}

/// `shfl.sync.kind.b32 d|p, a, b, c, mask`.
pub(super) fn shuffle(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["sync", "up", "down", "bfly", "idx"])?;
    let line = words.line;
    let kind = match words.modifiers.last() {
        Some(&"up") => ShuffleKind::Up,
        Some(&"down") => ShuffleKind::Down,
        Some(&"bfly") => ShuffleKind::Butterfly,
        Some(&"idx") => ShuffleKind::Index,
        _ => return Err(words.unsupported()),
    };
    if !words.has("sync") || words.ty()? != Ty::B32 {
        return Err(words.unsupported());
    }
    words.count(5, 5)?;
    let (dst, valid) = result_pair(body, words)?;
    let a = body.src(words.operand(1)?, Ty::B32, line)?;
    let b = body.src(words.operand(2)?, Ty::U32, line)?;
    let c = body.src(words.operand(3)?, Ty::U32, line)?;
    let mask = body.src(words.operand(4)?, Ty::B32, line)?;
    body.push(Op::Shuffle { kind, dst, valid, a, b, c, mask });
    Ok(())
}

/// `vote.sync.kind d, p, mask`.
pub(super) fn vote(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["sync", "all", "any", "uni", "ballot"])?;
    let kind = match words.modifiers.last() {
        Some(&"all") => VoteKind::All,
        Some(&"any") => VoteKind::Any,
        Some(&"uni") => VoteKind::Uni,
        Some(&"ballot") => VoteKind::Ballot,
        _ => return Err(words.unsupported()),
    };
    words.count(2, 3)?;
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Err(words.unsupported()) };
    let a = body.predicate(words.operand(1)?, words.line)?;
    let mask = words.operands.get(2).map(|o| body.src(o, Ty::B32, words.line)).transpose()?;
    if mask.is_some() != words.has("sync") {
        return Err(words.wrong("the number of operands"));
    }
    body.push(Op::Vote { kind, dst: dst.slot, a, negated: false, mask });
    Ok(())
}

/// `match.any.sync.b32 d, a, mask` and `match.all.sync.b32 d|p, a, mask`.
pub(super) fn match_lanes(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["sync", "any", "all"])?;
    words.count(3, 3)?;
    let ty = words.ty()?;
    let (dst, valid) = result_pair(body, words)?;
    let a = body.src(words.operand(1)?, ty, words.line)?;
    let mask = body.src(words.operand(2)?, Ty::B32, words.line)?;
    body.push(Op::Match { all: words.has("all"), dst, valid, a, bits: ty.bits(), mask });
    Ok(())
}

/// `redux.sync.op.type d, a, mask`.
pub(super) fn reduce(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["sync", "add", "min", "max", "and", "or", "xor"])?;
    words.count(3, 3)?;
    let f: fn(u64, u64) -> u64 = match (words.modifiers.last(), words.ty()?) {
        (Some(&"add"), Ty::U32 | Ty::S32) => |a, b| a.wrapping_add(b) & 0xffff_ffff,
        (Some(&"min"), Ty::U32) => |a, b| a.min(b),
        (Some(&"max"), Ty::U32) => |a, b| a.max(b),
        // Flipping the sign bit puts signed values in the order of unsigned ones.
        (Some(&"min"), Ty::S32) => |a, b| if a ^ 1 << 31 < b ^ 1 << 31 { a } else { b },
        (Some(&"max"), Ty::S32) => |a, b| if a ^ 1 << 31 > b ^ 1 << 31 { a } else { b },
        (Some(&"and"), Ty::B32) => |a, b| a & b,
        (Some(&"or"), Ty::B32) => |a, b| a | b,
        (Some(&"xor"), Ty::B32) => |a, b| a ^ b,
        _ => return Err(words.unsupported()),
    };
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Err(words.unsupported()) };
    let a = body.src(words.operand(1)?, Ty::B32, words.line)?;
    let mask = body.src(words.operand(2)?, Ty::B32, words.line)?;
    body.push(Op::Reduce { f, dst: dst.slot, a, mask });
    Ok(())
}

/// `activemask.b32 d` and `elect.sync d|p, mask`.
pub(super) fn warp(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["sync"])?;
    if words.op == "activemask" {
        words.count(1, 1)?;
        let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
        body.push(Op::ActiveMask { dst: dst.slot });
        return Ok(());
    }
    words.count(2, 2)?;
    let Operand::Pair(lane, chosen) = *words.operand(0)? else { return Err(words.wrong("the result")) };
    let slot = |name| body.dst(&Operand::Name { name, negated: false }, words.line);
    let dst = slot(lane)?.map(|dst| dst.slot);
    let chosen = slot(chosen)?.ok_or_else(|| words.unsupported())?.slot;
    let mask: Src = body.src(words.operand(1)?, Ty::B32, words.line)?;
    body.push(Op::Elect { dst, chosen, mask });
    Ok(())
}
