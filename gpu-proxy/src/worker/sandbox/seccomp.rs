//! The system calls of a worker after its door is closed, as data: a test tries each line, and a number of those that are not here.
//!
//! Two filters, of which the stricter answer counts. The first lets pass what is listed and kills the process for all else. The
//! second answers what the C library tries and can do without with an error, so that it falls back.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::device::DeviceKind;

/// Who needs a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Every worker.
    Always,
    /// NVIDIA's driver, as traced.
    Cuda,
    /// NVIDIA's driver, where it keeps what it has compiled. Not traced: what programs do with files of their own, by either name. Landlock
    /// says where.
    Code,
}

/// One line of the list.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The call.
    pub number: i64,
    /// As it is called.
    pub name: &'static str,
    /// Who needs it.
    pub need: Need,
    /// What for.
    pub reason: &'static str,
}

macro_rules! allowed {
    ($($name:ident $need:ident $reason:literal;)*) => {
        /// The list.
        pub const ALLOWED: &[Allowed] = &[$(
            Allowed { number: libc::$name, name: stringify!($name), need: Need::$need, reason: $reason },
        )*];
    };
}

#[rustfmt::skip]
allowed! {
    SYS_read Always "take back rings of the doorbell";
    SYS_preadv2 Always "the same, without ever waiting for it; what kernels have printed";
    SYS_write Always "ring the peer's doorbell; the log; the report to the supervisor";
    SYS_writev Always "the log, in one piece";
    SYS_close Always "descriptors that a drop lets go of";
    SYS_poll Always "sleep until the doorbell rings or somebody is gone";
    SYS_ppoll Always "the same with a limit in nanoseconds";
    SYS_mmap Always "the allocator, stacks of threads; never executable without NVIDIA's driver";
    SYS_munmap Always "the allocator, stacks of threads";
    SYS_mremap Always "the allocator: large buffers grow";
    SYS_mprotect Always "guard pages of stacks; never executable without NVIDIA's driver";
    SYS_madvise Always "the allocator gives pages back";
    SYS_brk Always "the allocator";
    SYS_futex Always "locks, joining threads; sleep until it is this worker's turn";
    SYS_sched_yield Always "polling beside others on a busy machine";
    SYS_clock_gettime Always "time, where the vDSO cannot tell it";
    SYS_clock_nanosleep Always "look again at what the device has done, and at words of memory";
    SYS_getrandom Always "seeds of hash tables";
    SYS_clone Always "threads for the blocks of a launch; only threads: see the conditions";
    SYS_clone3 Always "tried first by the C library; answered with ENOSYS, so that it takes clone";
    SYS_set_robust_list Always "start of a thread";
    SYS_rseq Always "start of a thread";
    SYS_sigaltstack Always "start and end of a thread: its stack for signals";
    SYS_rt_sigprocmask Always "start of a thread";
    SYS_rt_sigreturn Always "end of a signal handler: Rust's for stack overflows";
    SYS_rt_sigaction Always "a stack overflow puts the default back before it dies";
    SYS_gettid Always "start of a thread, locks";
    SYS_getpid Always "the log, and fork detection of libraries";
    SYS_tgkill Always "abort() kills its own process; others are out of sight (pid namespace) and reach (Landlock)";
    SYS_sched_getaffinity Always "the C library counts CPUs for its arenas and reads a thread's attributes";
    SYS_openat Always "tried by the C library for the number of CPUs; answered with ENOSYS without NVIDIA's driver";
    SYS_fstat Always "the C library looks at what it writes to";
    SYS_restart_syscall Always "sleeping calls that a stop signal interrupted";
    SYS_exit Always "end of a thread";
    SYS_exit_group Always "end of the worker";
    SYS_ioctl Always "ring an event channel; with NVIDIA's driver those of its device nodes: see the conditions";
    SYS_sendmsg Always "ask the supervisor about memory of the zone; on that descriptor only: see the conditions";
    SYS_recvmsg Always "its answer, likewise";
    SYS_fcntl Always "look at a descriptor before it is closed, in debug builds; with NVIDIA's driver exports, contexts: see the conditions";
    SYS_dup Cuda "contexts";
    SYS_lseek Cuda "contexts; how much kernels have printed";
    SYS_stat Cuda "modules";
    SYS_newfstatat Cuda "modules";
    SYS_access Cuda "contexts";
    SYS_readlink Cuda "contexts";
    SYS_getdents64 Cuda "contexts: NUMA nodes";
    SYS_eventfd2 Cuda "contexts: notice of completion";
    SYS_pipe2 Cuda "contexts";
    SYS_sysinfo Cuda "contexts";
    SYS_get_mempolicy Cuda "contexts: NUMA nodes";
    SYS_prlimit64 Cuda "registered memory";
    SYS_sched_get_priority_max Cuda "the PTX compiler's threads";
    SYS_sched_get_priority_min Cuda "the PTX compiler's threads";
    SYS_geteuid Cuda "contexts";
    SYS_uname Cuda "contexts";
    SYS_open Code "files, without the C library";
    SYS_mkdir Code "folders of the cache";
    SYS_mkdirat Code "the same";
    SYS_rmdir Code "folders that were emptied";
    SYS_unlink Code "entries that make room for others";
    SYS_unlinkat Code "the same";
    SYS_rename Code "an entry that is whole takes its name";
    SYS_renameat Code "the same";
    SYS_renameat2 Code "the same";
    SYS_flock Code "one process at a time changes the index; fcntl's locks pass with NVIDIA's driver";
    SYS_pread64 Code "entries, the index";
    SYS_pwrite64 Code "the same";
    SYS_readv Code "entries";
    SYS_truncate Code "the index's length";
    SYS_ftruncate Code "the same";
    SYS_fallocate Code "room before it is written";
    SYS_fsync Code "an entry is whole before it has its name";
    SYS_fdatasync Code "the same";
    SYS_msync Code "the same of a mapped one";
    SYS_lstat Code "how large entries are";
    SYS_statx Code "the same";
    SYS_faccessat Code "whether there is an entry";
    SYS_faccessat2 Code "the same";
    SYS_statfs Code "how much room there is";
    SYS_fstatfs Code "the same";
    SYS_getdents Code "entries, by the older name";
    SYS_utimensat Code "when an entry was used last";
    SYS_utimes Code "the same";
    SYS_utime Code "the same";
    SYS_chmod Code "who may read an entry: its owner is the only user";
    SYS_fchmod Code "the same";
    SYS_umask Code "the same, of what is made";
    SYS_getuid Code "whose folder it is";
    SYS_getgid Code "the same";
    SYS_getegid Code "the same";
}

/// `_IOC(_IOC_NONE, 'E', 4, 4)`: notify an event channel. Source: Linux `include/uapi/xen/evtchn.h`.
const IOCTL_EVTCHN_NOTIFY: u64 = 0x0004_4504;
/// NVIDIA's own type of ioctl, `'F'`, in bits 8 to 15. Source: open-gpu-kernel-modules, `nv-ioctl-numbers.h`.
const IOCTL_NVIDIA: u64 = 0x4600;
const IOCTL_TYPE: u64 = 0xff00;
/// nvidia-uvm numbers its calls plainly, from 1; but for `UVM_INITIALIZE` and `UVM_DEINITIALIZE`, 0x30000001 and 0x30000002, which are
/// used before the door closes only. Source: open-gpu-kernel-modules, `uvm_ioctl.h`, `uvm_linux_ioctl.h`.
const IOCTL_UVM_MAX: u64 = 0xff;
/// What the C library's streams ask of a descriptor before they write to it, as NVIDIA's driver does for `printf` in kernels;
/// answered with ENOSYS, so no terminal. Source: `ioctl_tty(2)`.
const IOCTL_TCGETS: u64 = 0x5401;
/// Source: `fcntl(2)`.
const F_GETFD: u64 = libc::F_GETFD as u64;
/// A new thread of the same process has all of these. Source: `clone(2)`.
const THREAD_FLAGS: u64 = (libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND) as u64;
/// And none of these.
const NAMESPACE_FLAGS: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u64;

/// Puts the filters on every thread of this process.
///
/// # Errors
/// The kernel did not take them.
pub fn apply(
    device: DeviceKind,
    event_channel: bool,
    exchange: Option<RawFd>,
    code: bool,
) -> Result<(), Error> {
    // The answering filter first: after the other one there is no system call left to put on a filter.
    for filter in [answers(device)?, list(device, event_channel, exchange, code)?] {
        seccompiler::apply_filter_all_threads(&filter)?;
    }
    Ok(())
}

fn list(
    device: DeviceKind,
    event_channel: bool,
    exchange: Option<RawFd>,
    code: bool,
) -> Result<BpfProgram, Error> {
    let cuda = device == DeviceKind::Cuda;
    let needed = |line: &&Allowed| match line.need {
        Need::Always => true,
        Need::Cuda => cuda,
        Need::Code => cuda && code,
    };
    let mut rules = BTreeMap::new();
    for line in ALLOWED.iter().filter(needed) {
        let conditions = match line.number {
            libc::SYS_clone => vec![rule(&[
                (0, SeccompCmpOp::MaskedEq(THREAD_FLAGS), THREAD_FLAGS),
                (0, SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS), 0),
            ])?],
            libc::SYS_fcntl if !cuda => vec![rule(&[(1, SeccompCmpOp::Eq, F_GETFD)])?],
            libc::SYS_sendmsg | libc::SYS_recvmsg => match exchange.and_then(|fd| u64::try_from(fd).ok()) {
                Some(fd) => vec![rule(&[(0, SeccompCmpOp::Eq, fd)])?],
                None => continue,
            },
            libc::SYS_mmap | libc::SYS_mprotect if !cuda => {
                vec![rule(&[(2, SeccompCmpOp::MaskedEq(4), 0)])?] // PROT_EXEC
            }
            libc::SYS_ioctl => {
                let mut allowed = Vec::new();
                if event_channel {
                    allowed.push(rule(&[(1, SeccompCmpOp::Eq, IOCTL_EVTCHN_NOTIFY)])?);
                }
                // Not those of gntdev, which a worker has too: they map pages that any domain has granted to this one.
                if cuda {
                    allowed.push(rule(&[(1, SeccompCmpOp::MaskedEq(IOCTL_TYPE), IOCTL_NVIDIA)])?);
                    allowed.push(rule(&[(1, SeccompCmpOp::Le, IOCTL_UVM_MAX)])?);
                    allowed.push(rule(&[(1, SeccompCmpOp::Eq, IOCTL_TCGETS)])?);
                }
                if allowed.is_empty() {
                    continue;
                }
                allowed
            }
            _ => vec![],
        };
        rules.insert(line.number, conditions);
    }
    program(rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

fn answers(device: DeviceKind) -> Result<BpfProgram, Error> {
    let also = match device {
        DeviceKind::Cuda => (libc::SYS_ioctl, vec![rule(&[(1, SeccompCmpOp::Eq, IOCTL_TCGETS)])?]),
        DeviceKind::Soft | DeviceKind::Null => (libc::SYS_openat, vec![]),
    };
    // One filter has one answer: the one that makes the C library fall back from clone3; for the others any error does.
    let rules = BTreeMap::from([(libc::SYS_clone3, vec![]), also]);
    program(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))
}

fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, Error> {
    let conditions = conditions
        .iter()
        .map(|(argument, op, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Qword, op.clone(), *value)
        })
        .collect::<Result<_, _>>()?;
    Ok(SeccompRule::new(conditions)?)
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, Error> {
    Ok(SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)?.try_into()?)
}
