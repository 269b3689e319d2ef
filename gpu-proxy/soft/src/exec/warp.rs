//! One warp: 32 threads, each with its own place in the code, run together where they are at the same one.
//!
//! ```text
//! select: of the lanes that can run, the deepest in calls, then at the lowest instruction → run until it branches, waits,
//!         ends, or comes to where other lanes are → select again
//! ```
//! Lowest first makes lanes meet again behind a branch. Every so often the highest go first instead: a lane that holds a lock
//! gets on although the others spin before it.

use super::Launch;
use super::access::Access;
use super::block::Common;
use crate::Fault;
use crate::code::{BarReduce, Function, FunctionKind, Lanes};

/// Every so many choices the highest lanes go first.
const FAIRNESS: u32 = 32;
/// Most registers of a thread's frames together.
pub(super) const ROWS_MAX: u32 = 1 << 16;

/// What a lane waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    None,
    /// A barrier of the block; `bar.red` gets its result in a row of registers.
    Barrier {
        id: usize,
        result: Option<(BarReduce, u32)>,
    },
    /// Lanes of the mask at `bar.warp.sync`.
    Warp(u32),
    /// Lanes of the mask at this instruction.
    Lanes(u32),
}

/// What a caller gets back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// The call instruction.
    pub call: u32,
    pub base: u32,
    pub top: u32,
    pub local_base: u32,
    pub param_base: u32,
    pub function: usize,
}

/// What a lane has beside registers.
#[derive(Debug, Default)]
pub(super) struct Thread {
    pub frames: Vec<Frame>,
    pub local: Vec<u8>,
    pub local_base: u32,
    /// Parameter space of its own; addresses count from the end of the kernel's parameters.
    pub param: Vec<u8>,
    pub param_base: u32,
    /// The function it runs; the kernel has none.
    pub function: usize,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WarpEnd {
    /// Its turn is over; it could go on.
    Yielded,
    /// Every lane waits or has ended.
    Blocked,
}

/// Lanes that go on together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub mask: u32,
    pub pc: u32,
    pub base: u32,
    /// The place of other lanes that it may come to.
    pub meet: u32,
}

/// One warp. A lane's registers are its column in `rows`, from `base` on.
#[derive(Debug)]
pub(super) struct Warp {
    pub index: u32,
    pub live: u32,
    pub blocked: u32,
    pub waits: [Wait; 32],
    pub pc: [u32; 32],
    pub base: [u32; 32],
    pub top: [u32; 32],
    pub rows: Vec<Lanes>,
    pub threads: Vec<Thread>,
    choices: u32,
}

impl Warp {
    pub fn new(launch: &Launch<'_>, index: u32) -> Self {
        let lanes = (launch.threads - 32 * index).min(32);
        let own = launch.function.param_bytes as usize;
        let thread = || Thread {
            local: vec![0; launch.function.local_bytes as usize],
            param: vec![0; own.saturating_sub(launch.params.len())],
            ..Thread::default()
        };
        Self {
            index,
            live: u32::MAX >> (32 - lanes),
            blocked: 0,
            waits: [Wait::None; 32],
            pc: [launch.entry; 32],
            base: [0; 32],
            top: [launch.function.registers; 32],
            rows: vec![[0; 32]; launch.function.registers as usize],
            threads: (0..lanes).map(|_| thread()).collect(),
            choices: 0,
        }
    }

    /// Runs about `budget` instructions, or until no lane can.
    pub fn run(
        &mut self,
        launch: &Launch<'_>,
        common: &mut Common,
        access: &mut Access<'_>,
        budget: u64,
    ) -> Result<WarpEnd, Fault> {
        let end = common.clock + budget;
        loop {
            let Some(mut group) = self.select() else { return Ok(WarpEnd::Blocked) };
            loop {
                common.clock += 1;
                let goes_on = self.step(launch, common, access, &mut group)?;
                if !goes_on {
                    break;
                }
                if common.clock >= end || group.pc == group.meet {
                    self.set_pc(group.mask, group.pc);
                    break;
                }
            }
            if common.clock >= end {
                return Ok(WarpEnd::Yielded);
            }
        }
    }

    pub fn set_pc(&mut self, mask: u32, pc: u32) {
        for lane in lanes(mask) {
            self.pc[lane] = pc;
        }
    }

    /// Ends lanes.
    pub fn exit(&mut self, mask: u32, common: &mut Common) {
        self.live &= !mask;
        common.exited += mask.count_ones();
    }

    pub fn wait(&mut self, mask: u32, wait: Wait) {
        self.blocked |= mask;
        for lane in lanes(mask) {
            self.waits[lane] = wait;
        }
    }

    fn select(&mut self) -> Option<Group> {
        if self.blocked & self.live != 0 {
            self.wake_lanes();
        }
        let ready = self.live & !self.blocked;
        if ready == 0 {
            return None;
        }
        self.choices = self.choices.wrapping_add(1);
        let first = ready.trailing_zeros() as usize;
        let same = |warp: &Self, a: usize, b: usize| warp.pc[a] == warp.pc[b] && warp.base[a] == warp.base[b];
        if lanes(ready).all(|lane| same(self, lane, first)) {
            return Some(Group { mask: ready, pc: self.pc[first], base: self.base[first], meet: u32::MAX });
        }
        let depth = |lane: usize| self.threads[lane].frames.len();
        let backwards = self.choices.is_multiple_of(FAIRNESS);
        let chosen = if backwards {
            lanes(ready).min_by_key(|&lane| (depth(lane), u32::MAX - self.pc[lane]))
        } else {
            lanes(ready).min_by_key(|&lane| (usize::MAX - depth(lane), self.pc[lane]))
        }?;
        let mask =
            lanes(ready).filter(|&lane| same(self, lane, chosen)).fold(0, |mask, lane| mask | 1 << lane);
        let ahead = |lane: usize| self.pc[lane] > self.pc[chosen] && self.base[lane] == self.base[chosen];
        let meet = lanes(ready & !mask).filter(|&lane| ahead(lane)).map(|lane| self.pc[lane]).min();
        Some(Group { mask, pc: self.pc[chosen], base: self.base[chosen], meet: meet.unwrap_or(u32::MAX) })
    }

    /// Sets lanes going that waited for each other and are all there. Lanes that have ended are not waited for.
    fn wake_lanes(&mut self) {
        for lane in lanes(self.blocked & self.live) {
            let wait = self.waits[lane];
            let needed = match wait {
                Wait::Warp(mask) | Wait::Lanes(mask) => mask & self.live,
                Wait::None | Wait::Barrier { .. } => continue,
            };
            let is_there = |other: usize| {
                self.waits[other] == wait
                    && (matches!(wait, Wait::Warp(_)) || self.pc[other] == self.pc[lane])
            };
            if lanes(needed).all(is_there) {
                for other in lanes(needed | 1 << lane) {
                    self.waits[other] = Wait::None;
                }
                self.blocked &= !(needed | 1 << lane);
            }
        }
    }

    /// Makes room for a frame of `function` above the rows of the lanes of a group.
    pub fn grow(&mut self, top: u32, function: &Function) -> Result<u32, Fault> {
        let new_top = top.saturating_add(function.registers);
        if new_top > ROWS_MAX {
            return Err(Fault::StackOverflow);
        }
        if self.rows.len() < new_top as usize {
            self.rows.resize(new_top as usize, [0; 32]);
        }
        Ok(new_top)
    }
}

/// The instruction that a function starts with.
pub(super) fn entry(function: &Function, address: u64) -> Result<u32, Fault> {
    match function.kind {
        FunctionKind::Code(entry) => Ok(entry),
        _ => Err(Fault::InvalidPc(address)),
    }
}

/// The numbers of the bits set.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros();
        rest &= rest - 1;
        Some(lane as usize)
    })
}
