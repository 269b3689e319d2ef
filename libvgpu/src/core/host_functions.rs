//! Functions of the program that a stream calls: kept here, and run by one thread in the order in which the worker posts them.
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
    by_number: HashMap<u64, HostFunction>,
    mailbox: Option<Arc<Room<'static>>>,
    started: bool,
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
        let number = {
            let mut state = lock(&self.state);
            state.start(process)?;
            state.last += 1;
            let number = state.last;
            state.by_number.insert(number, function);
            number
        };
        self.queued.notify_one();
        send(number).inspect_err(|_| {
            self.take(number);
        })
    }

    fn take(&self, number: u64) -> Option<HostFunction> {
        lock(&self.state).by_number.remove(&number)
    }

    fn until_one_is_queued(&self) {
        let state = lock(&self.state);
        let waited = self.queued.wait_while(state, |state| state.by_number.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
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
