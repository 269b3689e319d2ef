//! Running a launch: its blocks on host threads, each block's warps in turn.
//!
//! Start at [`Launch::new`], which checks what the guest asked for, and [`run`]. `block.rs` runs one block's warps and its
//! barriers, `warp.rs` finds the lanes that go on together, `step.rs` does one instruction for them, `lanes.rs` what lanes do
//! across a warp, `calls.rs` functions, `access.rs` memory.
//! A block that has run long gives its host thread to the next one, so blocks that wait for each other get on.

mod access;
mod block;
mod calls;
mod lanes;
mod printf;
mod step;
mod texture;
mod warp;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::attributes::{MAX_BLOCK, MAX_GRID, MULTIPROCESSORS, SHARED_BYTES_OPT_IN};
use crate::block::Block as Allocation;
use crate::code::{Function, FunctionKind, Program};
use crate::device::{DeviceConfig, Instance, Meter};
use crate::memory::align_up;
use crate::texture::Objects;
use crate::{Conditions, Fault, LaunchConfig};

use block::{Block, Progress};

/// Most local memory of one thread in bytes, calls included. Source: CUDA programming guide, "Technical Specifications".
pub(crate) const LOCAL_BYTES_MAX: u32 = 512 << 10;
/// Instructions of a block's warps before its host thread looks at other blocks.
const SLICE: u64 = 1 << 18;
/// Host memory that blocks that wait for their next slice may hold, in bytes.
const WAITING_BYTES_MAX: u64 = 512 << 20;

/// A checked launch.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    program: &'a Program,
    function: &'a Function,
    entry: u32,
    globals: &'a [u64],
    references: &'a [u64],
    grid: [u32; 3],
    block: [u32; 3],
    threads: u32,
    /// The kernel's parameters, padded to where a thread's own parameter space starts.
    params: Vec<u8>,
    dynamic_start: u32,
    dynamic_bytes: u32,
    allocations: Vec<Arc<Allocation>>,
    objects: Arc<Objects>,
    conditions: Option<&'a Conditions>,
    /// What kernels read as the multiprocessors that they run on. Empty: all.
    processors: &'a [u32],
    started: Instant,
}

impl<'a> Launch<'a> {
    /// Checks a launch and takes what it needs.
    /// # Errors
    /// [`Fault::InvalidLaunch`], [`Fault::OutOfResources`].
    pub fn new(
        instance: &'a Instance,
        kernel: usize,
        config: &LaunchConfig,
        parameters: &[u8],
        allocations: Vec<Arc<Allocation>>,
    ) -> Result<Self, Fault> {
        let program = &*instance.module.program;
        let info = program.kernels.get(kernel).ok_or(Fault::InvalidLaunch("no such kernel"))?;
        let function = &program.functions[program.kernel_functions[kernel]];
        let FunctionKind::Code(entry) = function.kind else {
            return Err(Fault::InvalidLaunch("no such kernel"));
        };
        let fits =
            |given: [u32; 3], most: [u32; 3]| given.iter().zip(most).all(|(n, most)| (1..=most).contains(n));
        if !fits(config.grid, MAX_GRID) || !fits(config.block, MAX_BLOCK) {
            return Err(Fault::InvalidLaunch("the grid or the block is empty or too large"));
        }
        let threads = config.block.iter().map(|n| u64::from(*n)).product::<u64>();
        if threads > u64::from(info.max_threads) {
            return Err(Fault::OutOfResources("more threads in a block than the kernel allows"));
        }
        let dynamic_start = align_up(u64::from(function.shared_bytes), 16);
        if dynamic_start + u64::from(config.shared_bytes) > u64::from(SHARED_BYTES_OPT_IN) {
            return Err(Fault::InvalidLaunch("more shared memory than a block can have"));
        }
        if function.local_bytes > LOCAL_BYTES_MAX {
            return Err(Fault::OutOfResources("more local memory than a thread can have"));
        }
        let given = parameters.get(..info.parameter_bytes as usize);
        let mut params = given.ok_or(Fault::InvalidLaunch("the parameters are too short"))?.to_vec();
        params.resize(usize::try_from(align_up(params.len() as u64, 16)).unwrap_or(params.len()), 0);
        Ok(Self {
            program,
            function,
            entry,
            globals: instance.addresses(),
            references: instance.references(),
            grid: config.grid,
            block: config.block,
            threads: u32::try_from(threads).map_err(|_| Fault::InvalidLaunch("too many threads"))?,
            params,
            dynamic_start: u32::try_from(dynamic_start).map_err(|_| Fault::InvalidLaunch("shared memory"))?,
            dynamic_bytes: config.shared_bytes,
            allocations,
            objects: Arc::default(),
            conditions: None,
            processors: &[],
            started: Instant::now(),
        })
    }

    /// This launch, with these textures and surfaces, and these values of conditional nodes.
    pub fn with(self, objects: Arc<Objects>, conditions: &'a Conditions) -> Self {
        Self { objects, conditions: Some(conditions), ..self }
    }

    /// This launch, on these multiprocessors.
    pub fn on(self, processors: &'a [u32]) -> Self {
        Self { processors, ..self }
    }

    /// The multiprocessor that a block runs on.
    fn processor(&self, block: u64) -> u32 {
        let nth = |count: usize| usize::try_from(block % count as u64).unwrap_or(0);
        match self.processors {
            [] => u32::try_from(block % u64::from(MULTIPROCESSORS)).unwrap_or(0),
            some => some[nth(some.len())],
        }
    }

    fn blocks(&self) -> u64 {
        self.grid.iter().map(|n| u64::from(*n)).product()
    }

    fn shared_bytes(&self) -> u32 {
        self.dynamic_start + self.dynamic_bytes
    }

    fn block_at(&self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        // Each coordinate is below its side of the grid, which is a u32.
        [index % x, index / x % y, index / x / y].map(|n| u32::try_from(n).unwrap_or(u32::MAX))
    }

    /// Host bytes of one block, about.
    fn block_bytes(&self) -> u64 {
        let thread = 8 * u64::from(self.function.registers) + u64::from(self.function.local_bytes) + 512;
        u64::from(self.threads) * thread + u64::from(self.shared_bytes())
    }
}

struct Queue {
    next: u64,
    waiting: VecDeque<Block>,
    fault: Option<Fault>,
    output: Vec<u8>,
}

struct Shared<'a> {
    launch: &'a Launch<'a>,
    instructions_max: Option<u64>,
    instructions: AtomicU64,
    meter: Option<&'a Meter>,
    waiting_max: usize,
    output_max: usize,
    queue: Mutex<Queue>,
}

/// Runs all blocks on the host threads of `config`; returns how it ended and what was printed (at most `output_max` bytes).
pub(crate) fn run(
    launch: &Launch<'_>,
    config: &DeviceConfig,
    meter: Option<&Meter>,
    output_max: usize,
) -> (Result<(), Fault>, Vec<u8>) {
    let most = (WAITING_BYTES_MAX / launch.block_bytes().max(1)).clamp(1, 1024);
    let shared = Shared {
        launch,
        instructions_max: config.instructions_max,
        instructions: AtomicU64::new(0),
        meter,
        waiting_max: usize::try_from(most).unwrap_or(1),
        output_max,
        queue: Mutex::new(Queue { next: 0, waiting: VecDeque::new(), fault: None, output: Vec::new() }),
    };
    let threads = config.host_threads.clamp(1, 64).min(usize::try_from(launch.blocks()).unwrap_or(64));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(&shared));
        }
        work(&shared);
    });
    let queue = shared.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    (queue.fault.map_or(Ok(()), Err), queue.output)
}

impl Shared<'_> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next block to run: a new one, until so many wait that they go first.
    fn take(&self) -> Option<Block> {
        let mut queue = self.queue();
        if queue.fault.is_some() {
            return None;
        }
        let index = queue.next;
        if queue.waiting.len() < self.waiting_max && index < self.launch.blocks() {
            queue.next += 1;
            drop(queue);
            return Some(Block::new(self.launch, index));
        }
        queue.waiting.pop_front()
    }

    fn check_budget(&self, used: u64) -> Result<(), Fault> {
        let total = self.instructions.fetch_add(used, Ordering::Relaxed) + used;
        match self.instructions_max {
            Some(most) if total > most => Err(Fault::Timeout),
            _ => Ok(()),
        }
    }
}

fn work(shared: &Shared<'_>) {
    while let Some(mut block) = shared.take() {
        let mut left = SLICE;
        let ended = loop {
            // Small steps, so that the end of the budget is seen soon.
            let step = block.run(shared.launch, left.min(1 << 14));
            let used = block.take_used();
            if let Some(meter) = shared.meter {
                meter(used);
            }
            left = left.saturating_sub(used.max(1));
            match step.and_then(|progress| shared.check_budget(used).map(|()| progress)) {
                Ok(Progress::More) if left > 0 => {}
                other => break other,
            }
        };
        let mut queue = shared.queue();
        let room = shared.output_max.saturating_sub(queue.output.len());
        let printed = block.take_output();
        queue.output.extend_from_slice(&printed[..printed.len().min(room)]);
        match ended {
            Ok(Progress::Done) => {}
            Ok(Progress::More) => queue.waiting.push_back(block),
            Err(fault) => {
                queue.fault.get_or_insert(fault);
            }
        }
    }
}
