//! What the lanes of a warp do together: shuffles, votes, matches, reductions. Source: PTX ISA, 9.7.9 and 9.7.13.
//!
//! Each lane names the lanes that take part. Those that are all here do it; the others wait, and do it when the rest has come.

use super::step::{View, number, u32_of};
use super::warp::{Wait, Warp, lanes};
use crate::code::{Lanes, Op, ShuffleKind, VoteKind};

impl Warp {
    /// Runs `op` for the lanes of `mask` whose partners are here and returns those; the others wait at the instruction.
    pub(super) fn across(&mut self, op: &Op, view: &View<'_, '_>, mask: u32) -> u32 {
        let mut buffer = [0; 32];
        let members: Lanes = match op {
            Op::Shuffle { mask, .. }
            | Op::Match { mask, .. }
            | Op::Reduce { mask, .. }
            | Op::Elect { mask, .. } => *self.read(*mask, view, &mut buffer),
            Op::Vote { mask: Some(mask), .. } => *self.read(*mask, view, &mut buffer),
            // A vote from before sm_70: whoever is here.
            _ => [u64::from(mask); 32],
        };
        let is_complete = |lane: &usize| u32_of(members[*lane]) & self.live & !mask == 0;
        let done = lanes(mask).filter(is_complete).fold(0, |done, lane| done | 1 << lane);
        for lane in lanes(mask & !done) {
            self.wait(1 << lane, Wait::Lanes(u32_of(members[lane])));
        }
        let mut rest = done;
        while rest != 0 {
            let wanted = members[rest.trailing_zeros() as usize];
            let group =
                lanes(rest).filter(|&lane| members[lane] == wanted).fold(0, |all, lane| all | 1 << lane);
            self.together(op, view, group);
            rest &= !group;
        }
        done
    }

    fn together(&mut self, op: &Op, view: &View<'_, '_>, group: u32) {
        let (mut x, mut y, mut z) = ([0; 32], [0; 32], [0; 32]);
        let mut out = [0; 32];
        let mut flag = [0; 32];
        let base = view.group.base;
        let (dst, second) = match op {
            Op::Shuffle { kind, dst, valid, a, b, c, .. } => {
                let (a, b, c) =
                    (self.read(*a, view, &mut x), self.read(*b, view, &mut y), self.read(*c, view, &mut z));
                for lane in lanes(group) {
                    let (from, is_valid) = source(*kind, lane, u32_of(b[lane]), u32_of(c[lane]));
                    out[lane] = a[from];
                    flag[lane] = u64::from(is_valid);
                }
                (Some(*dst), *valid)
            }
            Op::Vote { kind, dst, a, negated, .. } => {
                let a = self.read(*a, view, &mut x);
                let ones = lanes(group)
                    .filter(|&lane| (a[lane] & 1 == 1) != *negated)
                    .fold(0, |all, lane| all | 1u32 << lane);
                out = [vote(*kind, ones, group); 32];
                (Some(*dst), None)
            }
            Op::Match { all, dst, valid, a, bits, .. } => {
                let a = self.read(*a, view, &mut x).map(|value| value & (u64::MAX >> (64 - bits)));
                for lane in lanes(group) {
                    let equal = lanes(group)
                        .filter(|&other| a[other] == a[lane])
                        .fold(0, |m, other| m | 1u32 << other);
                    out[lane] = if *all && equal != group { 0 } else { u64::from(equal) };
                    flag[lane] = u64::from(equal == group);
                }
                (Some(*dst), *valid)
            }
            Op::Reduce { f, dst, a, .. } => {
                let a = self.read(*a, view, &mut x);
                out = [lanes(group).map(|lane| a[lane]).reduce(f).unwrap_or(0); 32];
                (Some(*dst), None)
            }
            Op::Elect { dst, chosen, .. } => {
                let leader = group.trailing_zeros();
                out = [u64::from(leader); 32];
                flag[leader as usize & 31] = 1;
                (*dst, Some(*chosen))
            }
            // `across` is called for these operations only.
            _ => (None, None),
        };
        if let Some(dst) = dst {
            self.write(base + dst, group, &out);
        }
        if let Some(second) = second {
            self.write(base + second, group, &flag);
        }
    }
}

/// The lane a shuffle reads, and whether it lies in the segment. `c`: clamp in bits 0–4, segment mask in bits 8–12.
fn source(kind: ShuffleKind, lane: usize, b: u32, c: u32) -> (usize, bool) {
    let lane = number(lane);
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let most = (lane & segment) | (clamp & !segment);
    let (from, is_valid) = match kind {
        ShuffleKind::Up => (lane.wrapping_sub(b), lane.cast_signed() - b.cast_signed() >= most.cast_signed()),
        ShuffleKind::Down => (lane + b, lane + b <= most),
        ShuffleKind::Butterfly => (lane ^ b, lane ^ b <= most),
        ShuffleKind::Index => {
            let from = (lane & segment) | (b & !segment);
            (from, from <= most)
        }
    };
    (if is_valid { from & 31 } else { lane } as usize, is_valid)
}

fn vote(kind: VoteKind, ones: u32, group: u32) -> u64 {
    match kind {
        VoteKind::All => u64::from(ones == group),
        VoteKind::Any => u64::from(ones != 0),
        VoteKind::Uni => u64::from(ones == group || ones == 0),
        VoteKind::Ballot => u64::from(ones),
    }
}
