//! Functions of the program that a stream calls: kept here, and run by one thread in the order in which the worker posts them. One that a
//! graph calls keeps its number as long as what can be launched names it, and until its last launch has called it.
//!
//! The thread starts with the first of them. It sleeps on a condition variable while none is queued, else in the channel. How the worker
//! says that one is due: `vgpu_api::host_function`.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use vgpu_api::host_function::{DONE, FUNCTION, MAILBOX_BYTES, POSTED, STATUS};
use vgpu_api::{ContextId, CuError, CuResult, ask};

use super::channel::Room;
use super::process::{Process, without_cuda};
use super::slab::lock;
use super::threads;

/// `CUhostFn`.
pub type HostFn = unsafe extern "C" fn(data: *mut c_void);
/// `CUstreamCallback`.
pub type StreamCallback = unsafe extern "C" fn(stream: u64, status: u32, data: *mut c_void);

/// What a stream calls.
#[derive(Debug, Clone, Copy)]
pub enum HostFunction {
    /// `cuLaunchHostFunc`.
    Plain { function: HostFn, data: u64 },
    /// `cuStreamAddCallback`: it gets the stream as the program named it.
    Callback { function: StreamCallback, stream: u64, data: u64 },
}

impl HostFunction {
    fn call(self, status: u32) {
        let pointer =
            |data: u64| std::ptr::with_exposed_provenance_mut::<c_void>(usize::try_from(data).unwrap_or(0));
        match self {
            // SAFETY: the program gave the function for this call, with what it is to be given.
            Self::Plain { function, data } => unsafe { function(pointer(data)) },
            // SAFETY: as above.
            Self::Callback { function, stream, data } => unsafe { function(stream, status, pointer(data)) },
        }
    }
}

/// What is queued.
#[derive(Debug, Default)]
pub struct HostFunctions {
    state: Mutex<State>,
    queued: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    by_number: HashMap<u64, Known>,
    /// Calls that are to come, of all of them.
    expected: u64,
    mailbox: Option<Arc<Room<'static>>>,
    started: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    function: HostFunction,
    /// Calls that are to come.
    expected: u64,
    /// A graph that can be launched names it.
    is_named: bool,
}

/// The number of a function in what can be launched. Dropped: no further launch calls it.
#[derive(Debug)]
pub struct Number {
    functions: &'static HostFunctions,
    number: u64,
}

impl Number {
    /// What the worker calls it.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        lock(&self.functions.state).change(self.number, |known| known.is_named = false);
    }
}

thread_local! {
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller is the thread that runs these functions.
pub fn is_own_thread() -> bool {
    OWN.get()
}

/// Runs one in the calling thread, which may not call CUDA meanwhile.
pub fn run_here(function: HostFunction) {
    OWN.set(true);
    without_cuda(|| function.call(0));
    OWN.set(false);
}

impl HostFunctions {
    /// Keeps `function`; `send` queues the number that it has.
    /// # Errors
    /// 304 when the thread cannot be started, and those of `send`.
    pub fn queue(
        &self,
        process: &'static Process,
        function: HostFunction,
        send: impl FnOnce(u64) -> CuResult<()>,
    ) -> CuResult<()> {
        let number = lock(&self.state).add(process, function, false)?;
        self.expecting(&[number], || send(number))
    }

    /// A number for a function that a graph calls.
    /// # Errors
    /// 304 when the thread cannot be started.
    pub fn name(process: &'static Process, function: HostFunction) -> CuResult<Number> {
        let functions = &process.host_functions;
        let number = lock(&functions.state).add(process, function, true)?;
        Ok(Number { functions, number })
    }

    /// Runs `send`, after which the worker calls each of these once more.
    /// # Errors
    /// Those of `send`: then it calls none.
    pub fn expecting(&self, numbers: &[u64], send: impl FnOnce() -> CuResult<()>) -> CuResult<()> {
        numbers.iter().for_each(|number| lock(&self.state).expect(*number));
        self.queued.notify_one();
        send().inspect_err(|_| {
            for number in numbers {
                self.take(*number);
            }
        })
    }

    /// One call of a function has come.
    fn take(&self, number: u64) -> Option<HostFunction> {
        let mut state = lock(&self.state);
        let function = state.by_number.get(&number).filter(|known| known.expected > 0)?.function;
        state.expected -= 1;
        state.change(number, |known| known.expected -= 1);
        Some(function)
    }

    fn until_one_is_queued(&self) {
        let state = lock(&self.state);
        let waited = self.queued.wait_while(state, |state| state.expected == 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn add(&mut self, process: &'static Process, function: HostFunction, is_named: bool) -> CuResult<u64> {
        self.start(process)?;
        self.last += 1;
        self.by_number.insert(self.last, Known { function, expected: 0, is_named });
        Ok(self.last)
    }

    fn expect(&mut self, number: u64) {
        if let Some(known) = self.by_number.get_mut(&number) {
            known.expected += 1;
            self.expected += 1;
        }
    }

    /// Changes what is known of a function, which goes when nothing names it and no call of it is to come.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Known)) {
        let Some(known) = self.by_number.get_mut(&number) else { return };
        change(known);
        if known.expected == 0 && !known.is_named {
            self.by_number.remove(&number);
        }
    }

    /// Once in a process: a place where the worker posts, and the thread that looks there.
    fn start(&mut self, process: &'static Process) -> CuResult<()> {
        if self.started {
            return Ok(());
        }
        let mailbox = match &self.mailbox {
            Some(mailbox) => Arc::clone(mailbox),
            None => {
                let room = process.channel.mailbox(MAILBOX_BYTES)?;
                let place = room.put(&[0; MAILBOX_BYTES])?;
                ask::vgpuHostFunctions(&process.channel, ContextId::NONE, place)?;
                Arc::clone(self.mailbox.insert(Arc::new(room)))
            }
        };
        threads::start("vgpu-host", move || run(process, &mailbox))?;
        self.started = true;
        Ok(())
    }
}

/// The thread: until the worker is gone.
fn run(process: &'static Process, mailbox: &Room<'_>) {
    OWN.set(true);
    let mut done = 0;
    loop {
        process.host_functions.until_one_is_queued();
        if process.channel.wait_until(|| mailbox.word(POSTED) != done).is_err() {
            return;
        }
        done = mailbox.word(POSTED);
        // What was written before `posted`.
        fence(Ordering::Acquire);
        let status = u32::try_from(mailbox.word(STATUS)).unwrap_or(CuError::UNKNOWN.code());
        if let Some(function) = process.host_functions.take(mailbox.word(FUNCTION)) {
            without_cuda(|| function.call(status));
        }
        // After all that the function wrote.
        fence(Ordering::Release);
        mailbox.set_word(DONE, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn nothing(_: *mut c_void) {}

    /// With one function under the number 1, as [`State::add`] would have it.
    fn one(is_named: bool) -> &'static HostFunctions {
        let functions: &'static HostFunctions = Box::leak(Box::default());
        let function = HostFunction::Plain { function: nothing, data: 0 };
        lock(&functions.state).by_number.insert(1, Known { function, expected: 0, is_named });
        functions
    }

    fn left(functions: &HostFunctions) -> (usize, u64) {
        let state = lock(&functions.state);
        (state.by_number.len(), state.expected)
    }

    #[test]
    fn a_number_lasts_until_nothing_names_it_and_its_last_launch_has_called_it() {
        let functions = one(true);
        let number = Number { functions, number: 1 };
        functions.expecting(&[1, 1], || Ok(())).unwrap();
        assert!(functions.take(1).is_some());
        drop(number);
        assert_eq!(left(functions), (1, 1), "one launch goes on");
        assert!(functions.take(1).is_some());
        assert_eq!(left(functions), (0, 0));
        assert!(functions.take(1).is_none());
    }

    #[test]
    fn a_number_that_no_launch_calls_goes_with_its_name() {
        let functions = one(true);
        let number = Number { functions, number: 1 };
        assert!(functions.take(1).is_none(), "a call that nobody asked for");
        assert_eq!(functions.expecting(&[1], || Err(CuError::INVALID_HANDLE)), Err(CuError::INVALID_HANDLE));
        assert_eq!(left(functions), (1, 0));
        drop(number);
        assert_eq!(left(functions), (0, 0));
    }

    #[test]
    fn what_a_stream_calls_once_goes_with_its_call() {
        let functions = one(false);
        functions.expecting(&[1], || Ok(())).unwrap();
        assert_eq!(left(functions), (1, 1));
        assert!(functions.take(1).is_some());
        assert_eq!(left(functions), (0, 0));
    }
}
