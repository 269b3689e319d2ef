//! The system calls of a server behind its walls, as data. Any other one ends the process.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

macro_rules! allowed {
    ($($name:ident $reason:literal;)*) => {
        /// Number, name, and what for.
        pub const ALLOWED: &[(i64, &str, &str)] = &[$((libc::$name, stringify!($name), $reason),)*];
    };
}

#[rustfmt::skip]
allowed! {
    SYS_openat2 "a step down, by one name";
    SYS_openat "open what a step has found, through /proc/self/fd";
    SYS_open "the same, by the C library's name";
    SYS_close "fids that are clunked";
    SYS_read "take events of the doorbell";
    SYS_write "let the next event in; the log";
    SYS_writev "the log, in one piece";
    SYS_poll "sleep until the guest rings";
    SYS_ppoll "the same with a limit";
    SYS_ioctl "ring the guest: see the condition";
    SYS_pread64 "contents";
    SYS_pwrite64 "contents";
    SYS_lseek "entries of a directory from one on";
    SYS_getdents64 "entries of a directory";
    SYS_statx "attributes";
    SYS_fstat "the C library looks at what it writes to";
    SYS_fstatfs "how much room there is";
    SYS_readlinkat "where a link leads, for the guest's kernel";
    SYS_fsync "contents are on the disk";
    SYS_fdatasync "the same";
    SYS_ftruncate "lengths";
    SYS_fchmodat "modes";
    SYS_chmod "the same, of what /proc/self/fd leads to";
    SYS_fchownat "owners";
    SYS_utimensat "times";
    SYS_mkdirat "directories are made";
    SYS_mknodat "fifos and sockets are made";
    SYS_symlinkat "links are made";
    SYS_linkat "further names";
    SYS_unlinkat "names go";
    SYS_renameat "names change";
    SYS_renameat2 "the same";
    SYS_getxattr "extended attributes";
    SYS_setxattr "extended attributes";
    SYS_listxattr "extended attributes";
    SYS_removexattr "extended attributes";
    SYS_fcntl "look at a descriptor before it is closed, in debug builds: see the condition";
    SYS_mmap "the allocator; never executable";
    SYS_munmap "the allocator; the rings' pages at the end";
    SYS_mremap "the allocator";
    SYS_mprotect "the allocator; never executable";
    SYS_madvise "the allocator gives pages back";
    SYS_brk "the allocator";
    SYS_futex "locks";
    SYS_sched_yield "polling beside others on a busy machine";
    SYS_clock_gettime "time, where the vDSO cannot tell it";
    SYS_getrandom "seeds of hash tables";
    SYS_gettid "locks";
    SYS_getpid "abort";
    SYS_tgkill "abort() kills its own process: see the condition";
    SYS_sigaltstack "end of a thread: its stack for signals";
    SYS_rt_sigprocmask "abort";
    SYS_rt_sigaction "a stack overflow puts the default back before it dies";
    SYS_rt_sigreturn "end of a signal handler";
    SYS_restart_syscall "sleeping calls that a stop signal interrupted";
    SYS_exit "end of the server";
    SYS_exit_group "end of the server";
}

/// `_IOC(_IOC_NONE, 'E', 4, 4)`: notify an event channel. Source: Linux `include/uapi/xen/evtchn.h`.
const IOCTL_EVTCHN_NOTIFY: u64 = 0x0004_4504;
/// No other: by `F_SETOWN` and `F_SETSIG` a process of user 0 sends any signal to any process, whatever its capabilities. Source: Linux
/// `fs/fcntl.c`, `sigio_perm`.
const F_GETFD: u64 = libc::F_GETFD as u64;
/// Source: `mmap(2)`.
const PROT_EXEC: u64 = libc::PROT_EXEC as u64;

/// Puts the filter on this process.
///
/// # Errors
/// The kernel did not take it.
pub(super) fn apply() -> Result<(), Error> {
    let mut rules = BTreeMap::new();
    let own = u64::from(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
    for (number, ..) in ALLOWED {
        let conditions = match *number {
            libc::SYS_ioctl => vec![rule(1, SeccompCmpOp::Eq, IOCTL_EVTCHN_NOTIFY)?],
            libc::SYS_fcntl => vec![rule(1, SeccompCmpOp::Eq, F_GETFD)?],
            libc::SYS_mmap | libc::SYS_mprotect => vec![rule(2, SeccompCmpOp::MaskedEq(PROT_EXEC), 0)?],
            libc::SYS_tgkill => vec![rule(0, SeccompCmpOp::Eq, own)?],
            _ => vec![],
        };
        rules.insert(*number, conditions);
    }
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}

fn rule(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Qword, op, value)?])?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Command, Stdio};

    use super::*;

    const CALL: &str = "VGPU_SHARE_TEST_CALL";
    const SIGSYS: i32 = 31;

    #[test]
    #[ignore = "played by the tests here as their child"]
    fn one_call() {
        let call = std::env::var(CALL).expect("any_other_call_ends_the_process plays this");
        rustix::thread::set_no_new_privs(true).unwrap();
        apply().unwrap();
        match &*call {
            "none" => {}
            "socket" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
            "execve" => drop(Command::new("/bin/true").exec()),
            "kill" => drop(rustix::process::test_kill_process(rustix::process::Pid::INIT)),
            "chroot" => drop(rustix::process::chroot("/")),
            "unshare" => drop(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS)),
            "mount" => drop(rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty())),
            "clone" => drop(std::thread::spawn(|| ()).join()),
            "ioctl" => drop(rustix::io::ioctl_fionread(std::io::stdin())),
            "fcntl" => drop(rustix::fs::fcntl_getfl(std::io::stdin())),
            _ => unreachable!(),
        }
        // Not by a panic or the harness, which want calls of their own.
        std::process::exit(0);
    }

    #[test]
    fn any_other_call_ends_the_process() {
        let play = |call: &str| {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--ignored", "--exact", "walls::calls::tests::one_call"]).env(CALL, call);
            child.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
        };
        assert!(play("none").success());
        for call in ["socket", "execve", "kill", "chroot", "unshare", "mount", "clone", "ioctl", "fcntl"] {
            assert_eq!(play(call).signal(), Some(SIGSYS), "{call}");
        }
    }
}
