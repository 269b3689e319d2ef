//! The system calls that no safe function makes. All of the crate's unsafe is here.

use std::{fs::File, io, ptr};

use rustix::{
    mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap},
    thread::{UnshareFlags, unshare_unsafe},
};

/// One call, whose result is an error or of no interest: a descriptor stays open until the process ends.
///
/// # Safety
/// What the call takes as an address is one of memory that is valid for all that the call reads and writes there.
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: as promised by who calls.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Source: `unshare(2)`.
pub fn unshare(kinds: UnshareFlags) -> io::Result<()> {
    // SAFETY: of namespaces alone; memory and descriptors stay as they are.
    Ok(unsafe { unshare_unsafe(kinds) }?)
}

/// An array of one number. Source: `bpf(2)`, BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY.
pub fn bpf_map() -> io::Result<()> {
    let attributes: [u32; 4] = [2, 4, 4, 1];
    // SAFETY: the attributes are so long and live until the call returns.
    unsafe {
        call(libc::SYS_bpf, [0, attributes.as_ptr().expose_provenance(), size_of_val(&attributes), 0, 0])
    }
}

/// One entry. Source: `io_uring_setup(2)`.
pub fn io_uring() -> io::Result<()> {
    let mut parameters = [0u32; 30];
    // SAFETY: `struct io_uring_params` has 120 bytes, and lives until the call returns.
    unsafe { call(libc::SYS_io_uring_setup, [1, parameters.as_mut_ptr().expose_provenance(), 0, 0, 0]) }
}

/// The version. Source: `landlock_create_ruleset(2)`, LANDLOCK_CREATE_RULESET_VERSION.
pub fn landlock() -> io::Result<()> {
    // SAFETY: no address.
    unsafe { call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0, 0]) }
}

/// Source: `fanotify_init(2)`, FAN_CLASS_NOTIF.
pub fn fanotify() -> io::Result<()> {
    // SAFETY: no address.
    unsafe { call(libc::SYS_fanotify_init, [0; 5]) }
}

/// Of this process's own faults. Source: `userfaultfd(2)`, UFFD_USER_MODE_ONLY.
pub fn userfaultfd() -> io::Result<()> {
    // SAFETY: no address.
    unsafe { call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0]) }
}

/// The process's own, made now. Source: `keyctl(2)`, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING.
pub fn keyring() -> io::Result<()> {
    // SAFETY: no address.
    unsafe { call(libc::SYS_keyctl, [0, (-2isize).cast_unsigned(), 1, 0, 0]) }
}

/// A counter of nothing, of this thread outside the kernel. Source: `perf_event_open(2)`, PERF_COUNT_SW_DUMMY.
pub fn perf_event() -> io::Result<()> {
    const ATTRIBUTE_BYTES: u64 = 128;
    const EXCLUDE_KERNEL_AND_HYPERVISOR: u64 = 1 << 5 | 1 << 6;
    let mut attributes = [0u64; 16];
    // Type and size are 32 bits each: the counter is one of software.
    attributes[0] = 1 | ATTRIBUTE_BYTES << 32;
    attributes[1] = 9;
    attributes[5] = EXCLUDE_KERNEL_AND_HYPERVISOR;
    let none = (-1isize).cast_unsigned();
    // SAFETY: the attributes are as long as they say and live until the call returns.
    unsafe { call(libc::SYS_perf_event_open, [attributes.as_ptr().expose_provenance(), 0, none, none, 0]) }
}

/// Writes the start of a file of at least that length through a shared mapping. Source: `mmap(2)`.
pub fn write_shared(file: &File, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() || file.metadata()?.len() < bytes.len() as u64 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new place of the kernel's choice.
    let mapped = unsafe { mmap(ptr::null_mut(), bytes.len(), access, MapFlags::SHARED, file, 0) }?;
    // SAFETY: the mapping is so long and writable, and nothing else of this process knows of it. Were the file cut short meanwhile,
    // the process would end by SIGBUS.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.cast(), bytes.len()) };
    // SAFETY: the mapping is so long.
    let kept = unsafe { msync(mapped, bytes.len(), MsyncFlags::SYNC) };
    // SAFETY: nobody uses it any more.
    unsafe { munmap(mapped, bytes.len()) }?;
    Ok(kept?)
}
