//! From an instruction's words to operations: the table of opcodes.
//!
//! A modifier that an opcode's line does not allow is refused, never skipped: a wrong result would be worse than an error.

use super::compile::Body;
use super::layout::{unsupported, wrong};
use super::select_convert::{convert, convert_address, move_};
use super::select_float::{float, float_binary, fused};
use super::select_integer::{bit_insert, carry, integer, logic3, select_value, set, set_predicate, shift};
use super::select_memory::{atomic, load, store};
use super::select_texture::{ask, gather, sample, surface};
use super::select_threads::{
    barrier, branch, branch_indexed, call, match_lanes, reduce, shuffle, vote, warp,
};
use super::{F2, F3, Op};
use crate::image::ImageError;
use crate::ptx::{Instruction, Operand, Ty};

/// An instruction's words, apart.
pub(super) struct Words<'a> {
    pub op: &'a str,
    /// Everything behind the opcode that is no type.
    pub modifiers: Vec<&'a str>,
    pub types: Vec<Ty>,
    pub operands: &'a [Operand<'a>],
    pub line: u32,
    whole: &'a str,
}

impl<'a> Words<'a> {
    fn new(instruction: &'a Instruction<'a>) -> Self {
        let mut parts = instruction.words.split('.');
        let op = parts.next().unwrap_or_default();
        let (mut modifiers, mut types) = (Vec::new(), Vec::new());
        for part in parts {
            match Ty::from_word(part) {
                Some(ty) => types.push(ty),
                None => modifiers.push(part),
            }
        }
        let Instruction { operands, line, words, .. } = instruction;
        Self { op, modifiers, types, operands, line: *line, whole: words }
    }

    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.contains(&modifier)
    }

    /// Refuses modifiers that are not in `known`.
    pub fn allow(&self, known: &[&str]) -> Result<(), ImageError> {
        if self.modifiers.iter().all(|m| known.contains(m)) { Ok(()) } else { Err(self.unsupported()) }
    }

    /// The first type: that of the result.
    pub fn ty(&self) -> Result<Ty, ImageError> {
        self.types.first().copied().ok_or_else(|| self.wrong("a type is missing"))
    }

    pub fn operand(&self, index: usize) -> Result<&'a Operand<'a>, ImageError> {
        self.operands.get(index).ok_or_else(|| self.wrong("an operand is missing"))
    }

    pub fn count(&self, least: usize, most: usize) -> Result<(), ImageError> {
        if (least..=most).contains(&self.operands.len()) {
            Ok(())
        } else {
            Err(self.wrong("the number of operands"))
        }
    }

    pub fn unsupported(&self) -> ImageError {
        unsupported(self.line, format!("{:.80}", self.whole))
    }

    pub fn wrong(&self, what: &str) -> ImageError {
        wrong(self.line, format!("{:.80}: {what}", self.whole))
    }
}

/// Appends the operations of `instruction` to the body's code.
pub(super) fn select<'a>(
    body: &mut Body<'a, '_>,
    instruction: &'a Instruction<'a>,
) -> Result<(), ImageError> {
    let words = &Words::new(instruction);
    let is_float = words.types.first().is_some_and(|ty| ty.is_float());
    match words.op {
        "mov" => move_(body, words),
        "cvt" => convert(body, words),
        "cvta" => convert_address(body, words),
        "isspacep" => super::select_convert::is_space(body, words),
        "ld" | "ldu" => load(body, words),
        "st" => store(body, words),
        "atom" | "red" => atomic(body, words),
        "setp" => set_predicate(body, words),
        "set" => set(body, words),
        "selp" | "slct" => select_value(body, words),
        "neg" | "abs" | "sqrt" | "rcp" | "rsqrt" | "sin" | "cos" | "ex2" | "lg2" | "tanh" | "testp"
            if is_float =>
        {
            float(body, words)
        }
        "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" if is_float => float_binary(body, words),
        "fma" | "mad" if is_float => fused(body, words),
        "add" | "sub" | "addc" | "subc" | "madc" if words.has("cc") || words.op.ends_with('c') => {
            carry(body, words)
        }
        "mad" if words.has("cc") => carry(body, words),
        "shl" | "shr" => shift(body, words),
        "bfi" => bit_insert(body, words),
        "lop3" => logic3(body, words),
        "bra" => branch(body, words),
        "brx" => branch_indexed(body, words),
        "call" => call(body, words),
        "ret" => plain(body, words, Op::Return),
        "exit" => plain(body, words, Op::Exit),
        "trap" => plain(body, words, Op::Trap),
        "brkpt" | "nanosleep" | "prefetch" | "prefetchu" | "discard" | "applypriority" | "pmevent"
        | "griddepcontrol" => {
            body.push(Op::Nothing);
            Ok(())
        }
        "membar" | "fence" => {
            body.push(Op::Fence);
            Ok(())
        }
        "tex" => sample(body, words),
        "tld4" => gather(body, words),
        "txq" | "suq" => ask(body, words),
        "suld" | "sust" => surface(body, words),
        "bar" | "barrier" => barrier(body, words),
        "shfl" => shuffle(body, words),
        "vote" => vote(body, words),
        "match" => match_lanes(body, words),
        "redux" => reduce(body, words),
        "activemask" | "elect" => warp(body, words),
        _ => integer(body, words),
    }
}

fn plain(body: &mut Body<'_, '_>, words: &Words<'_>, op: Op) -> Result<(), ImageError> {
    words.allow(&["uni"])?;
    words.count(0, 0)?;
    body.push(op);
    Ok(())
}

/// `dst = f(a, b)`, sources of the types given.
pub(super) fn push_binary(
    body: &mut Body<'_, '_>,
    words: &Words<'_>,
    f: Option<F2>,
    types: [Ty; 2],
) -> Result<(), ImageError> {
    let f = f.ok_or_else(|| words.unsupported())?;
    words.count(3, 3)?;
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
    let a = body.src(words.operand(1)?, types[0], words.line)?;
    let b = body.src(words.operand(2)?, types[1], words.line)?;
    body.push(Op::Binary { f, dst: dst.slot, a, b });
    Ok(())
}

/// `dst = f(a, b, c)`, sources of the types given.
pub(super) fn push_ternary(
    body: &mut Body<'_, '_>,
    words: &Words<'_>,
    f: Option<F3>,
    types: [Ty; 3],
) -> Result<(), ImageError> {
    let f = f.ok_or_else(|| words.unsupported())?;
    words.count(4, 4)?;
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
    let a = body.src(words.operand(1)?, types[0], words.line)?;
    let b = body.src(words.operand(2)?, types[1], words.line)?;
    let c = body.src(words.operand(3)?, types[2], words.line)?;
    body.push(Op::Ternary { f, dst: dst.slot, a, b, c });
    Ok(())
}
