//! Threads of this library. None is there before a program needs one; they sleep while there is nothing for them, and end with the process.

use std::mem::MaybeUninit;
use std::thread;

use vgpu_api::{CuError, CuResult};

/// What a thread does itself brings these on: who touches the program's memory, or runs a function of it, leaves them to the program's handlers,
/// as for a page that the program opens when it is touched.
const OWN_FAULTS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];

/// Starts one, whose signals are blocked but for those of its own faults: the program's handlers run on the program's threads.
/// # Errors
/// 304 when the system has no thread for us.
pub fn start(name: &str, run: impl FnOnce() + Send + 'static) -> CuResult<()> {
    let (mut all, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::uninit());
    // SAFETY: writes the whole set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    for signal in OWN_FAULTS {
        // SAFETY: changes the set, which was written.
        unsafe { libc::sigdelset(all.as_mut_ptr(), signal) };
    }
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
