//! Threads of this library. None is there before a program needs one; they sleep while there is nothing for them, and end with the process.

use std::mem::MaybeUninit;
use std::thread;

use vgpu_api::{CuError, CuResult};

/// Starts one, all of whose signals are blocked: the program's handlers run on the program's threads.
/// # Errors
/// 304 when the system has no thread for us.
pub fn start(name: &str, run: impl FnOnce() + Send + 'static) -> CuResult<()> {
    let (mut all, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::uninit());
    // SAFETY: writes the whole set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // A thread begins with the mask of who starts it.
    // SAFETY: reads a set that was written, writes another, and changes this thread's mask alone.
    let blocked = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let started = thread::Builder::new().name(name.into()).spawn(run);
    if blocked == 0 {
        // SAFETY: the mask that this thread had, written above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    started.map(drop).map_err(|_| CuError::OPERATING_SYSTEM)
}
