//! Birth of a worker: `clone3` into fresh namespaces and a cgroup, then `execveat` of this program. The one place of the supervisor
//! with unsafe code. Between the two the child does nothing but a few system calls: it is a copy of one thread of a process with
//! many, so it may not allocate, lock, or run anything of the C library that does.

use std::ffi::{CStr, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::thread::UnshareFlags;

/// Gives the calling thread a mount namespace of its own, and with it a root and a working directory of its own.
///
/// # Errors
/// What the system says.
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: memory and descriptors stay shared with the other threads.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?)
}

/// What the child needs, made before it is born.
#[derive(Debug)]
pub struct Birth<'a> {
    /// `CLONE_NEW…` flags.
    pub namespaces: u64,
    /// The cgroup to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The program.
    pub program: BorrowedFd<'a>,
    /// Becomes descriptor 0.
    pub socket: BorrowedFd<'a>,
    /// Becomes descriptor 1.
    pub null: BorrowedFd<'a>,
    /// Becomes descriptor 2.
    pub log: BorrowedFd<'a>,
    /// The child waits until it can read one byte: its user namespace is mapped then.
    pub go: BorrowedFd<'a>,
    /// The other end of `go`. The child closes its copy, so that `go` ends with its maker's.
    pub give: BorrowedFd<'a>,
    /// The user and group that the child becomes, as its user namespace numbers them.
    pub id: Option<u32>,
    /// The program's arguments.
    pub arguments: &'a [&'a CStr],
    /// The program's whole environment.
    pub environment: &'a [&'a CStr],
}

/// Where the program's descriptor is put in the child: 0 to 2 are its standard ones, all behind it is closed.
const PROGRAM: c_int = 3;

/// A child, not yet reaped.
#[derive(Debug)]
pub struct Child {
    /// Its number here.
    pub pid: i32,
    /// Becomes readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Source: Linux `include/uapi/linux/sched.h`. `libc` has it in a type that is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The kernel's `struct clone_args`, first version with `cgroup`. Source: Linux `include/uapi/linux/sched.h`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}
const _: () = assert!(size_of::<CloneArgs>() == 88);

/// Gives birth. Must be called by a thread that lives as long as the supervisor: the child dies with it (`PR_SET_PDEATHSIG`).
/// A child that is never let go ends when `give` is closed.
///
/// # Errors
/// What `clone3` says. What goes wrong in the child ends it with status 127.
pub fn birth(birth: &Birth<'_>) -> io::Result<Child> {
    let arguments = pointers(birth.arguments);
    let environment = pointers(birth.environment);
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: birth.namespaces | libc::CLONE_PIDFD as u64,
        pidfd: ptr::from_mut(&mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = birth.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is a whole clone_args of the size given, without a stack and without CLONE_VM: the child is a copy of this
    // thread with memory of its own, as after fork. It goes on below, in `child`, alone.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => child(birth, &arguments, &environment),
        Ok(pid) if pid > 0 => {
            // SAFETY: CLONE_PIDFD made this descriptor for us; nobody else owns it.
            Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The child's few system calls. It never returns.
fn child(birth: &Birth<'_>, arguments: &[*const c_char], environment: &[*const c_char]) -> ! {
    let raw = |fd: BorrowedFd<'_>| c_long::from(fd.as_raw_fd());
    let mut byte = 0_u8;
    // Tied to its maker first of all. One that died before this line holds no `give` any more: the read ends. The tie is lost with the
    // change of user; from there on the child waits for nothing but its socket, which then tells the same.
    let ok = call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into(), 0, 0]) == 0
        && call(libc::SYS_close, [raw(birth.give), 0, 0, 0]) == 0
        && call(
            libc::SYS_read,
            [raw(birth.go), ptr::from_mut(&mut byte).expose_provenance() as c_long, 1, 0],
        ) == 1
        && birth.id.is_none_or(become_user)
        && place(raw(birth.program), [raw(birth.socket), raw(birth.null), raw(birth.log)]);
    if ok {
        // SAFETY: both lists end with a null pointer and their strings outlive the call; the path is an empty string.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                c_long::from(PROGRAM),
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                c_long::from(libc::AT_EMPTY_PATH),
            )
        };
    }
    loop {
        call(libc::SYS_exit_group, [127, 0, 0, 0]);
    }
}

/// Puts the program and the three standard descriptors where they are expected and closes all others.
fn place(program: c_long, standard: [c_long; 3]) -> bool {
    // First out of the way of one another: these copies are new numbers, above those that are about to be taken.
    let apart = |fd| call(libc::SYS_fcntl, [fd, libc::F_DUPFD_CLOEXEC.into(), c_long::from(PROGRAM) + 1, 0]);
    let (program, standard) = (apart(program), standard.map(apart));
    program >= 0
        && call(libc::SYS_dup3, [program, PROGRAM.into(), libc::O_CLOEXEC.into(), 0]) >= 0
        && (0..).zip(standard).all(|(to, from)| from >= 0 && call(libc::SYS_dup3, [from, to, 0, 0]) >= 0)
        && call(libc::SYS_close_range, [c_long::from(PROGRAM) + 1, c_long::from(u32::MAX), 0, 0]) == 0
}

/// The raw calls: those of the C library would tell threads that this child does not have.
fn become_user(id: u32) -> bool {
    let id = c_long::from(id);
    // Refused in a user namespace that its maker had no right to give groups to: then there are none to drop.
    call(libc::SYS_setgroups, [0, 0, 0, 0]);
    call(libc::SYS_setresgid, [id, id, id, 0]) == 0 && call(libc::SYS_setresuid, [id, id, id, 0]) == 0
}

fn call(number: c_long, [a, b, c, d]: [c_long; 4]) -> c_long {
    // SAFETY: only called with numbers above, whose arguments are integers or point to what the caller owns.
    unsafe { libc::syscall(number, a, b, c, d) }
}
