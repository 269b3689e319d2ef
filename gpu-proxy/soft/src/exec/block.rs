//! One block: its warps in turn, and the barriers its threads meet at.

use super::Launch;
use super::access::Access;
use super::warp::{Wait, Warp, WarpEnd};
use crate::Fault;
use crate::code::BarReduce;

/// Barriers of a block. Source: PTX ISA, "bar".
const BARRIERS: usize = 16;
/// Instructions of a warp before the block's next one runs.
const TURN: u64 = 1 << 12;

/// How far a block came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

/// One barrier: who has come, and what they brought.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Barrier {
    pub arrived: u32,
    /// Threads it waits for; `None`: all of the block.
    pub expected: Option<u32>,
    /// Arrivals whose predicate was true, for `bar.red`.
    pub ones: u32,
}

/// What the threads of a block share.
#[derive(Debug)]
pub(super) struct Common {
    pub at: [u32; 3],
    pub index: u64,
    pub shared: Vec<u8>,
    pub barriers: [Barrier; BARRIERS],
    pub output: Vec<u8>,
    /// Instructions run, all warps together: also the clock.
    pub clock: u64,
    pub exited: u32,
}

/// A block between two slices of its host thread.
#[derive(Debug)]
pub(super) struct Block {
    common: Common,
    warps: Vec<Warp>,
    next: usize,
    counted: u64,
}

impl Block {
    pub fn new(launch: &Launch<'_>, index: u64) -> Self {
        let warps = (0..launch.threads.div_ceil(32)).map(|n| Warp::new(launch, n)).collect();
        let common = Common {
            at: launch.block_at(index),
            index,
            shared: vec![0; launch.shared_bytes() as usize],
            barriers: [Barrier::default(); BARRIERS],
            output: Vec::new(),
            clock: 0,
            exited: 0,
        };
        Self { common, warps, next: 0, counted: 0 }
    }

    /// Instructions run since the last call.
    pub fn take_used(&mut self) -> u64 {
        let used = self.common.clock - self.counted;
        self.counted = self.common.clock;
        used
    }

    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.common.output)
    }

    /// Runs about `budget` instructions.
    pub fn run(&mut self, launch: &Launch<'_>, budget: u64) -> Result<Progress, Fault> {
        let end = self.common.clock + budget;
        let mut access = Access::new(launch);
        let mut idle = 0;
        while self.common.clock < end {
            if self.common.exited == launch.threads {
                return Ok(Progress::Done);
            }
            let count = self.warps.len();
            let warp = &mut self.warps[self.next];
            self.next = (self.next + 1) % count;
            let before = self.common.clock;
            let ended = warp.run(launch, &mut self.common, &mut access, TURN)?;
            if ended == WarpEnd::Yielded || self.common.clock != before {
                idle = 0;
                continue;
            }
            idle += 1;
            // A whole round in which no warp ran anything: only a barrier can set them going.
            if idle >= count {
                if !self.release_barriers(launch) && self.common.exited != launch.threads {
                    return Err(Fault::Deadlock);
                }
                idle = 0;
            }
        }
        Ok(if self.common.exited == launch.threads { Progress::Done } else { Progress::More })
    }

    /// Lets go of every barrier that all its threads have reached. A thread that has ended counts as having come.
    fn release_barriers(&mut self, launch: &Launch<'_>) -> bool {
        let mut any = false;
        for (id, barrier) in self.common.barriers.iter_mut().enumerate() {
            let is_full = match barrier.expected {
                None => barrier.arrived.saturating_add(self.common.exited) >= launch.threads,
                Some(expected) => barrier.arrived >= expected,
            };
            if barrier.arrived == 0 || !is_full {
                continue;
            }
            any = true;
            let done = std::mem::take(barrier);
            for warp in &mut self.warps {
                warp.release(id, done);
            }
        }
        any
    }
}

impl Barrier {
    /// What `bar.red` returns.
    pub fn result(&self, kind: BarReduce) -> u64 {
        match kind {
            BarReduce::And => u64::from(self.ones == self.arrived),
            BarReduce::Or => u64::from(self.ones > 0),
            BarReduce::Count => u64::from(self.ones),
        }
    }
}

impl Warp {
    fn release(&mut self, id: usize, barrier: Barrier) {
        for lane in 0..32 {
            if let Wait::Barrier { id: waits, result } = self.waits[lane]
                && waits == id
            {
                self.waits[lane] = Wait::None;
                self.blocked &= !(1 << lane);
                if let Some((kind, row)) = result {
                    self.rows[row as usize][lane] = barrier.result(kind);
                }
            }
        }
    }
}
