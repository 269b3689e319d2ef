//! What the worker answered to `cuCtxGetLimit`: a limit changes by `cuCtxSetLimit` alone, so it is asked for once.
//!
//! But for a thread's stack (`CU_LIMIT_STACK_SIZE`): the driver makes it larger, and leaves it so, for a kernel that needs more. Such an answer
//! holds until a launch that may do that, which is one of a kernel that is not known to need less (`CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES`) and
//! has not run since limits were last set: what it made larger then is in the answer. The next launch of each such kernel counts again
//! after an error, since the launch may have been what failed. All that is done with graphs that can be launched counts.
//!
//! The two limits of the device's cache are asked for each time: other processes have the same cache.
//!
//! A launch is looked at after it was queued, and an answer counts from before it was asked for: so an answer that the worker gave before a
//! launch is never kept beyond it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use vgpu_api::{ContextId, CuResult, ask};

use super::contexts::Entered;
use super::functions::Function;
use super::process::Process;
use super::slab::lock;

/// `CU_LIMIT_STACK_SIZE`.
const STACK: u32 = 0;
/// `CU_LIMIT_MAX_L2_FETCH_GRANULARITY`, `…_PERSISTING_L2_CACHE_SIZE`.
const OF_THE_CACHE: [u32; 2] = [5, 6];
/// `CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES`.
const LOCAL_BYTES: u32 = 3;

/// The answers of all contexts.
#[derive(Debug)]
pub struct Limits {
    state: Mutex<State>,
    /// The least stack of those that are kept; 0 while one is asked for, the greatest number if none is kept.
    stack_least: AtomicU64,
    /// Counts the times that limits were set, or may have to be looked at anew.
    round: AtomicU32,
    /// Counts the launches that may have made a stack larger.
    growths: AtomicU64,
    /// The channel's errors at the last launch that was looked at.
    errors: AtomicU32,
}

#[derive(Debug)]
struct State {
    kept: HashMap<(ContextId, u32), Kept>,
    /// Threads that wait for the answer about a stack.
    asking: u32,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    value: u64,
    since: Stamp,
}

/// What was known before an answer was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    round: u32,
    /// Of the stack alone: launches that may have made it larger, and calls of graphs.
    grown: Option<(u64, u32)>,
}

impl Limits {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State { kept: HashMap::new(), asking: 0 }),
            stack_least: AtomicU64::new(u64::MAX),
            round: AtomicU32::new(0),
            growths: AtomicU64::new(0),
            errors: AtomicU32::new(0),
        }
    }

    /// A limit of a context; the worker's answer, or what it answered before.
    /// # Errors
    /// The worker's, which are not kept.
    pub fn get(&self, process: &Process, context: ContextId, limit: u32) -> CuResult<u64> {
        let key = (context, limit);
        let (since, errors) = {
            let mut state = lock(&self.state);
            let now = self.stamp(process, limit);
            if let Some(kept) = state.kept.get(&key).filter(|kept| kept.since == now) {
                return Ok(kept.value);
            }
            if limit == STACK {
                state.asking += 1;
                self.stack_least.store(0, SeqCst);
            }
            (now, process.channel.error_count())
        };
        let answer = ask::cuCtxGetLimit(&process.channel, context, limit);
        let mut state = lock(&self.state);
        if let Ok(value) = answer
            && !OF_THE_CACHE.contains(&limit)
            && process.channel.error_count() == errors
        {
            state.kept.insert(key, Kept { value, since });
        }
        if limit == STACK {
            state.asking -= 1;
            self.stack_least.store(state.stack_least(), SeqCst);
        }
        answer
    }

    /// A limit was set, or a context has ended.
    pub fn forget(&self) {
        let mut state = lock(&self.state);
        self.round.fetch_add(1, SeqCst);
        state.kept.clear();
        self.stack_least.store(state.stack_least(), SeqCst);
    }

    /// A launch of `function` was queued.
    #[inline]
    pub fn launched(&self, entered: Entered, function: &Function) {
        let least = self.stack_least.load(SeqCst);
        if least != u64::MAX {
            self.look(entered.process, function, least);
        }
    }

    fn look(&self, process: &Process, function: &Function, least: u64) {
        let errors = process.channel.error_count();
        if self.errors.swap(errors, SeqCst) != errors {
            self.round.fetch_add(1, SeqCst);
        }
        let round = self.round.load(SeqCst);
        // A stream may be of another context than the current one: with several of them it isn't known here where a kernel has run.
        if function.launched_in(round) && process.contexts.is_one() {
            return;
        }
        let local_bytes = function.known_attribute(LOCAL_BYTES).and_then(|bytes| u64::try_from(bytes).ok());
        if local_bytes.is_none_or(|bytes| bytes > least) {
            self.growths.fetch_add(1, SeqCst);
        }
        function.set_launched_in(round);
    }

    fn stamp(&self, process: &Process, limit: u32) -> Stamp {
        let round = self.round.load(SeqCst);
        let grown = || (self.growths.load(SeqCst), process.channel.graph_calls());
        Stamp { round, grown: (limit == STACK).then(grown) }
    }
}

impl State {
    fn stack_least(&self) -> u64 {
        let stacks = self.kept.iter().filter(|((_, limit), _)| *limit == STACK);
        let least = stacks.map(|(_, kept)| kept.value).min().unwrap_or(u64::MAX);
        if self.asking > 0 { 0 } else { least }
    }
}
