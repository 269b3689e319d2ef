//! Each line of the system call list is tried, and a number of calls that are not on it. Every attempt is a process of its own: this
//! test program started again, with its door closed as a worker's.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gpu_proxy::device::DeviceKind;
use gpu_proxy::worker::sandbox::{self, seccomp};

const ROLE: &str = "VGPU_TEST_CALL";
/// Before a role: behind the door of NVIDIA's driver.
const CUDA: &str = "cuda ";
/// The same where it keeps what it compiles.
const CODE: &str = "code ";
const FILES: &str = "files";
/// Where a worker may send messages. Nothing is open there.
const EXCHANGE: i32 = 777;
/// The child did what it was told and the filter let it.
const PASSED: i32 = 42;

/// Not a test of its own: what a child does.
#[test]
#[ignore = "played by the tests here as their child"]
fn child() {
    let role = std::env::var(ROLE).unwrap();
    if role == FILES {
        return files_of_nvidias_driver();
    }
    let (device, code, role) = match (role.strip_prefix(CUDA), role.strip_prefix(CODE)) {
        (Some(role), _) => (DeviceKind::Cuda, false, role),
        (_, Some(role)) => (DeviceKind::Cuda, true, role),
        _ => (DeviceKind::Soft, false, role.as_str()),
    };
    sandbox::close_door(device, true, Some(EXCHANGE), code).unwrap();
    match role {
        "a thread" => std::thread::spawn(|| ()).join().unwrap(),
        "an allocation" => drop(vec![1_u8; 64 << 20]),
        "a file" => {
            assert_eq!(std::fs::File::open("/etc/passwd").unwrap_err().raw_os_error(), Some(libc::ENOSYS))
        }
        call => raw_call(call),
    }
    // SAFETY: ends the process; no destructor matters here.
    unsafe { libc::syscall(libc::SYS_exit_group, PASSED) };
}

/// What a worker of NVIDIA's driver may open, and what of its neighbours it may not.
fn files_of_nvidias_driver() {
    let gaps = sandbox::strip(DeviceKind::Cuda, false, None, false).unwrap();
    assert!(!gaps.iter().any(|gap| gap.contains("no Landlock")), "{gaps:?}");
    for read in [
        "/proc/self/maps",
        "/proc/self/status",
        "/proc/cpuinfo",
        "/proc/devices",
        "/proc/sys/vm/mmap_min_addr",
    ] {
        std::fs::read(read).unwrap_or_else(|error| panic!("{read}: {error}"));
    }
    assert!(std::fs::read_dir("/usr").unwrap().count() > 0);
    let refused = |what: &str, result: std::io::Result<()>| {
        assert_eq!(result.map_err(|error| error.kind()), Err(std::io::ErrorKind::PermissionDenied), "{what}");
    };
    refused("another process", std::fs::read("/proc/1/cmdline").map(drop));
    refused("all processes", std::fs::read_dir("/proc").map(drop));
    refused("a home", std::fs::read_dir("/root").map(drop));
    for planted in ["/dev/shm/cuda_injection_path_shm", "/tmp/planted", "/etc/planted", "/usr/planted"] {
        refused(planted, std::fs::write(planted, "x"));
    }
    // SAFETY: ends the process; no destructor matters here.
    unsafe { libc::syscall(libc::SYS_exit_group, PASSED) };
}

/// `number argument argument argument`
fn raw_call(call: &str) {
    let mut words = call.split(' ').map(|word| word.parse::<i64>().unwrap());
    let mut next = || words.next().unwrap_or(0);
    // SAFETY: arguments are zero or flags: at worst the call fails, or ends this process, which is what is looked at.
    unsafe { libc::syscall(next(), next(), next(), next(), next()) };
}

fn try_out(role: &str) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--ignored", "child", "--test-threads=1", "--nocapture"]).env(ROLE, role);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > Duration::from_secs(10) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{role} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGSYS)
}

#[test]
fn every_line_of_the_list_passes() {
    for line in seccomp::ALLOWED.iter().filter(|line| line.need == seccomp::Need::Always) {
        let number = line.number;
        let status = match number {
            // As a fork clone is not allowed: see below. The end of a thread is `exit`.
            libc::SYS_clone | libc::SYS_exit => try_out("a thread"),
            // Without descriptors or a limit it would wait for ever.
            libc::SYS_ppoll => try_out(&format!("{number} 0 {}", -1)),
            libc::SYS_ioctl => try_out(&format!("{number} 0 {}", 0x4_4504)),
            libc::SYS_fcntl => try_out(&format!("{number} 0 {}", libc::F_GETFD)),
            libc::SYS_sendmsg | libc::SYS_recvmsg => try_out(&format!("{number} {EXCHANGE}")),
            _ => try_out(&number.to_string()),
        };
        let passed = match number {
            // Its own end, or that of a frame that is none.
            libc::SYS_exit_group | libc::SYS_rt_sigreturn => !was_killed(status),
            _ => status.code() == Some(PASSED),
        };
        assert!(passed, "{} ({}): {status}", line.name, line.reason);
    }
}

#[test]
fn what_workers_live_on_works_behind_the_door() {
    for role in ["a thread", "an allocation", "a file"] {
        assert_eq!(try_out(role).code(), Some(PASSED), "{role}");
    }
}

#[test]
fn all_else_kills() {
    let calls = [
        ("execve", libc::SYS_execve, ""),
        ("execveat", libc::SYS_execveat, ""),
        ("fork", libc::SYS_fork, ""),
        ("clone as a fork", libc::SYS_clone, "17"),
        ("clone into a user namespace", libc::SYS_clone, "268503296"),
        ("unshare", libc::SYS_unshare, "268435456"),
        ("setns", libc::SYS_setns, ""),
        ("socket", libc::SYS_socket, "1 1"),
        ("connect", libc::SYS_connect, ""),
        ("another name for a descriptor", libc::SYS_fcntl, "0 0"),
        ("sendmsg to the supervisor's other socket", libc::SYS_sendmsg, ""),
        ("sendmsg beside the exchange", libc::SYS_sendmsg, "778"),
        ("recvmsg beside the exchange", libc::SYS_recvmsg, "776"),
        ("ptrace", libc::SYS_ptrace, ""),
        ("process_vm_readv", libc::SYS_process_vm_readv, ""),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, ""),
        ("kill", libc::SYS_kill, ""),
        ("open", libc::SYS_open, ""),
        ("openat2", libc::SYS_openat2, ""),
        ("mount", libc::SYS_mount, ""),
        ("chroot", libc::SYS_chroot, ""),
        ("setresuid", libc::SYS_setresuid, ""),
        ("prctl", libc::SYS_prctl, ""),
        ("bpf", libc::SYS_bpf, ""),
        ("io_uring_setup", libc::SYS_io_uring_setup, ""),
        ("userfaultfd", libc::SYS_userfaultfd, ""),
        ("keyctl", libc::SYS_keyctl, ""),
        ("perf_event_open", libc::SYS_perf_event_open, ""),
        ("memfd_create", libc::SYS_memfd_create, ""),
        ("executable memory", libc::SYS_mmap, "0 4096 4 34"),
        ("memory made executable", libc::SYS_mprotect, "0 0 4"),
        ("another ioctl", libc::SYS_ioctl, "0 21522"),
        ("shutdown of the machine", libc::SYS_reboot, ""),
    ];
    for (name, number, arguments) in calls {
        let status = try_out(format!("{number} {arguments}").trim_end());
        assert!(was_killed(status), "{name}: {status}");
    }
}

#[test]
fn behind_nvidias_door_only_its_own_ioctls_and_the_doorbell_pass() {
    for (name, request, passes) in [
        ("nvidiactl: control", 0xc020_462a_u32, true),
        ("nvidiactl: map memory", 0xc038_464e, true),
        ("nvidia-uvm", 0x49, true),
        ("evtchn: notify", 0x0004_4504, true),
        // These two would reach the pages and ports that other domains gave to this one.
        ("gntdev: map a grant", 0x0018_4700, false),
        ("evtchn: bind", 0x0008_4501, false),
        ("terminal: type for the user", 0x5412, false),
    ] {
        let status = try_out(&format!("{CUDA}{} 0 {request}", libc::SYS_ioctl));
        assert_eq!(status.code() == Some(PASSED), passes, "{name}: {status}");
        assert_eq!(was_killed(status), !passes, "{name}: {status}");
    }
    for (name, number) in [("execve", libc::SYS_execve), ("socket", libc::SYS_socket)] {
        assert!(was_killed(try_out(&format!("{CUDA}{number}"))), "{name}");
    }
}

#[test]
fn files_are_changed_only_where_what_is_compiled_is_kept() {
    let lines = || seccomp::ALLOWED.iter().filter(|line| line.need == seccomp::Need::Code);
    assert!(lines().count() > 0);
    for line in lines() {
        // Without a path or a descriptor none of them does anything.
        let kept = try_out(&format!("{CODE}{} {}", line.number, -1));
        assert_eq!(kept.code(), Some(PASSED), "{} ({}): {kept}", line.name, line.reason);
        for door in ["", CUDA] {
            let status = try_out(&format!("{door}{} {}", line.number, -1));
            assert!(was_killed(status), "{door}{}: {status}", line.name);
        }
    }
    for (name, number) in [
        ("symlink", libc::SYS_symlink),
        ("link", libc::SYS_link),
        ("mknod", libc::SYS_mknod),
        ("chown", libc::SYS_chown),
        ("mount", libc::SYS_mount),
        ("move_mount", libc::SYS_move_mount),
        ("execve", libc::SYS_execve),
    ] {
        let status = try_out(&format!("{CODE}{number}"));
        assert!(was_killed(status), "{name}: {status}");
    }
}

#[test]
fn a_worker_of_nvidias_driver_reads_what_the_driver_does_and_writes_nothing() {
    assert_eq!(try_out(FILES).code(), Some(PASSED));
}
