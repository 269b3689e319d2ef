//! The system calls that need `unsafe`: this module alone may use it.
#![allow(unsafe_code, reason = "each block states why it is sound; everything else here forbids it")]

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use tokio::io::unix::AsyncFd;

/// The signal by number, as the functions here and the Task API take it.
pub const SIGKILL: u32 = libc::SIGKILL.cast_unsigned();

/// Watches a file for readiness. It must not block: set O_NONBLOCK before.
/// # Errors
/// The kind of file cannot be watched.
pub fn watch(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: `File` owns its descriptor and gives the same one for as long as it lives; `AsyncFd` keeps it, and hands out only
    // shared references, through which it cannot be replaced or closed.
    Ok(unsafe { AsyncFd::register(file) }?)
}

/// Sends a signal by number to the process behind a pidfd, real-time signals included (systemd's SIGRTMIN+3 is a usual stop signal).
/// # Errors
/// ESRCH: it was reaped. EINVAL: no such signal.
pub fn signal(process: BorrowedFd<'_>, signal: u32) -> io::Result<()> {
    let signal = i32::try_from(signal).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) without a siginfo takes integers and touches no memory of ours; the descriptor is open while it is
    // borrowed.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by number to a pid, which must not have been reaped: else it may be another process by now.
/// # Errors
/// ESRCH: no such process. EINVAL: no such signal.
pub fn kill(pid: i32, signal: u32) -> io::Result<()> {
    // 0 and negative pids mean groups: never what a caller here means.
    let signal = i32::try_from(signal).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from this one on. For a process that goes on without any object that has one.
/// # Errors
/// `close_range(2)`'s.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers; who still owns one of the descriptors never uses it again.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the kernel random bytes, as many as it takes in at once, and has it count them. Source: `random(4)`, RNDADDENTROPY.
/// # Errors
/// EPERM: no CAP_SYS_ADMIN.
pub fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    /// Source: Linux `include/uapi/linux/random.h`, `struct rand_pool_info`.
    #[repr(C)]
    struct Pool {
        bits: libc::c_int,
        bytes: libc::c_int,
        data: [u8; 64],
    }
    /// Source: the same, `_IOW('R', 0x03, int[2])`.
    const ADD: libc::c_ulong = 0x4008_5203;
    let mut data = [0; 64];
    let mut length = 0;
    for (place, byte) in data.iter_mut().zip(bytes) {
        *place = *byte;
        length += 1;
    }
    let pool = Pool { bits: 8 * length, bytes: length, data };
    let device = File::options().write(true).open("/dev/random")?;
    // SAFETY: the kernel reads the head and as many bytes behind it as that says, which are there; it writes nothing.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), ADD as _, &raw const pool) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Adds a seccomp filter to this thread and to what it executes. `flags`: `SECCOMP_FILTER_FLAG_…` of seccomp(2).
/// # Errors
/// EACCES: neither no_new_privs nor CAP_SYS_ADMIN. EPERM: an earlier filter refuses it.
pub fn add_seccomp_filter(program: &[seccompiler::sock_filter], flags: libc::c_ulong) -> io::Result<()> {
    let too_long = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(too_long)?,
        // The same layout, by another name; the kernel only reads it.
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `program` and the instructions that it points to live until the call returns; the kernel copies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The last real-time signal. Source: Linux `include/uapi/asm-generic/signal.h`, `_NSIG`.
const SIGNAL_MAX: i32 = 64;

/// As the system call has it; zeros are the default. Source: Linux `arch/x86/include/uapi/asm/signal.h`, `struct sigaction`.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Executes a program in place of this one, with the environment in this order, no signal blocked and none ignored: our runtime ignores SIGPIPE,
/// and the C library, in what it spawns, the signals of its threads. Only returns if it cannot: `std` would sort the environment.
pub fn execute(program: &CStr, args: &[CString], environment: &[CString]) -> io::Error {
    let ended = |texts: &[CString]| -> Vec<_> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, environment) = (ended(args), ended(environment));
    let mut none = MaybeUninit::uninit();
    // SAFETY: the call fills a set of ours.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set is filled, and no old one is asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
    for signal in 1..=SIGNAL_MAX {
        let default = KernelAction::default();
        let old = ptr::null_mut::<KernelAction>();
        // Past the C library, which keeps some for itself. Fails for the two that have no other action.
        // SAFETY: the kernel reads a structure of ours of its own form, and no code of ours becomes a handler.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, old, size_of::<u64>()) };
    }
    // SAFETY: the strings live until the call returns, which only reads them; each array has a null at its end.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Sends `signal` to every process but PID 1.
/// # Errors
/// None is left.
pub fn kill_everything(signal: rustix::process::Signal) -> io::Result<()> {
    // SAFETY: as in `kill`. The caller is PID 1 of a guest, so "everything" is this pod and nothing else.
    if unsafe { libc::kill(-1, signal.as_raw()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the kernel has to be told, and none.
    #[test]
    fn random_bytes_are_taken_in() {
        for bytes in [[7; 80].as_slice(), &[7; 32], &[]] {
            match add_entropy(bytes) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    eprintln!("NOT TRIED: {}: nobody may count random bytes here: {error}", file!());
                }
                taken => taken.unwrap(),
            }
        }
    }
}
