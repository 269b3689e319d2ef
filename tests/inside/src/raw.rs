//! The system calls that no safe function makes. All of the crate's unsafe is here.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

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

/// A program of a kind that answers 0. Source: `bpf(2)`, BPF_PROG_LOAD; `linux/bpf.h` has the kinds.
pub fn bpf_program(kind: u32) -> io::Result<()> {
    /// `r0 = 0`, `exit`.
    static CODE: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let attributes: [u64; 6] = [
        u64::from(kind) | 2 << 32,
        CODE.as_ptr().expose_provenance() as u64,
        license.as_ptr().expose_provenance() as u64,
        0,
        0,
        0,
    ];
    // SAFETY: the attributes are so long, and they and what they name live until the call returns.
    unsafe {
        call(libc::SYS_bpf, [5, attributes.as_ptr().expose_provenance(), size_of_val(&attributes), 0, 0])
    }
}

/// A filter that lets all calls pass, for this thread, which may not gain privileges any more. Source: `seccomp(2)`.
pub fn seccomp_filter(flags: usize) -> io::Result<()> {
    /// One instruction: `BPF_RET | BPF_K` with SECCOMP_RET_ALLOW.
    static FILTER: [u64; 1] = [0x7fff_0000_0000_0006];
    rustix::thread::set_no_new_privs(true)?;
    let program: [u64; 2] = [1, FILTER.as_ptr().expose_provenance() as u64];
    // SAFETY: `struct sock_fprog`, a number and an address, and the filter live until the call returns.
    unsafe { call(libc::SYS_seccomp, [1, flags, program.as_ptr().expose_provenance(), 0, 0]) }
}

/// Source: `finit_module(2)`, of no descriptor.
pub fn module() -> io::Result<()> {
    // SAFETY: no address that is looked at before the descriptor.
    unsafe { call(libc::SYS_finit_module, [usize::MAX, c"".as_ptr().expose_provenance(), 0, 0, 0]) }
}

/// Bytes without waiting for them. Source: `getrandom(2)`, GRND_NONBLOCK.
pub fn random() -> io::Result<()> {
    let mut bytes = [0u8; 16];
    // SAFETY: the bytes are so many and live until the call returns.
    unsafe { call(libc::SYS_getrandom, [bytes.as_mut_ptr().expose_provenance(), bytes.len(), 1, 0, 0]) }
}

/// What a socket's option answers to `data`, in its place. Source: `getsockopt(2)`.
pub fn option(socket: &OwnedFd, level: i32, option: i32, data: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(data.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes no more than so many bytes, which live until the call returns.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, data.as_mut_ptr().cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes an interface of a device, `inside0`, for packets without a header. Source: `linux/if_tun.h`, TUNSETIFF.
pub fn tun_interface(device: &File) -> io::Result<()> {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca_u32 as libc::Ioctl;
    let mut request = [0u8; size_of::<libc::ifreq>()];
    request[..7].copy_from_slice(b"inside0");
    request[libc::IFNAMSIZ..libc::IFNAMSIZ + 2].copy_from_slice(&0x1001u16.to_ne_bytes());
    // SAFETY: the kernel reads and writes a `struct ifreq`, which is so long and lives until the call returns.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// What a user may have, too: events that name files by handles. Source: `fanotify_init(2)`, FAN_REPORT_FID.
pub fn fanotify() -> io::Result<()> {
    // SAFETY: no address.
    unsafe { call(libc::SYS_fanotify_init, [0x200, 0, 0, 0, 0]) }
}

/// Of this process's own faults. Source: `userfaultfd(2)`, UFFD_USER_MODE_ONLY.
pub fn userfaultfd() -> io::Result<()> {
    // SAFETY: no address.
    unsafe { call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0]) }
}

/// A key in the process's own keyring. Source: `add_key(2)`, KEY_SPEC_PROCESS_KEYRING.
pub fn key() -> io::Result<()> {
    let (kind, name, value) = (c"user", c"inside", c"value");
    let ring = (-2isize).cast_unsigned();
    // SAFETY: two texts with their ends and five bytes, which live until the call returns.
    unsafe {
        call(
            libc::SYS_add_key,
            [
                kind.as_ptr().expose_provenance(),
                name.as_ptr().expose_provenance(),
                value.as_ptr().expose_provenance(),
                5,
                ring,
            ],
        )
    }
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
    // All of it: huge pages are unmapped whole.
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if len == 0 || len < bytes.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new place of the kernel's choice.
    let mapped = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, file, 0) }?;
    // SAFETY: the mapping is at least so long and writable, and nothing else of this process knows of it. Were the file cut short meanwhile,
    // the process would end by SIGBUS.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.cast(), bytes.len()) };
    // SAFETY: the mapping is so long.
    let kept = unsafe { msync(mapped, len, MsyncFlags::SYNC) };
    // SAFETY: nobody uses it any more.
    unsafe { munmap(mapped, len) }?;
    Ok(kept?)
}
