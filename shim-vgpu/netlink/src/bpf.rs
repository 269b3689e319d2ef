//! The few calls of bpf(2) that are needed, by hand: a library for it brings a loader of ELF files and a libc of its own. What a program is for
//! its crate knows.
//!
//! Source of all numbers and layouts: Linux, `include/uapi/linux/bpf.h`. The kernel takes what a shorter argument lacks for zeros.
#![allow(unsafe_code, reason = "bpf(2) takes pointers as numbers; each block states why it is sound")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What is done.
    pub code: u8,
    /// Of the destination in the lower half, of the source in the upper one.
    pub registers: u8,
    /// Of an address, or of where a jump leads.
    pub offset: i16,
    /// A number in the instruction itself.
    pub immediate: i32,
}

/// Where a program is asked: its type (`enum bpf_prog_type`) and how it is attached (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    program: u32,
    attached_as: u32,
}

impl Hook {
    /// Which socket of a network namespace a new connection is for. Linux 5.9.
    pub const SOCKET_LOOKUP: Hook = Hook { program: 30, attached_as: 36 };
    /// What comes in at a link, before its queueing disciplines. Linux 6.6.
    pub const INCOMING: Hook = Hook { program: 3, attached_as: 46 };
}

/// `enum bpf_map_type`.
#[derive(Clone, Copy, Debug)]
pub enum MapKind {
    /// Of numbers.
    Hash = 1,
    /// Of sockets.
    Sockets = 15,
}

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;

/// Its keys and values are numbers of 32 bits.
#[derive(Debug)]
pub struct Map(OwnedFd);

impl Map {
    /// A new one of at most `entries`.
    /// # Errors
    /// EPERM: neither CAP_BPF with CAP_NET_ADMIN nor CAP_SYS_ADMIN. EINVAL: the kernel does not have the kind.
    pub fn new(kind: MapKind, entries: u32) -> io::Result<Self> {
        #[repr(C)]
        struct Create {
            kind: u32,
            key_bytes: u32,
            value_bytes: u32,
            entries: u32,
        }
        let mut create = Create { kind: kind as u32, key_bytes: 4, value_bytes: 4, entries };
        // SAFETY: there is no pointer in `Create`, all of which is initialised.
        let file = unsafe { call(MAP_CREATE, &mut create) }?;
        // SAFETY: the kernel has just made it for us.
        Ok(Map(unsafe { OwnedFd::from_raw_fd(file) }))
    }

    /// Puts an entry in, or in the place of another.
    /// # Errors
    /// E2BIG: it is full.
    pub fn put(&self, key: u32, value: u32) -> io::Result<()> {
        self.at(MAP_UPDATE, &key, &value)
    }

    /// Takes an entry out.
    /// # Errors
    /// ENOENT: there is none.
    pub fn remove(&self, key: u32) -> io::Result<()> {
        self.at(MAP_DELETE, &key, &0)
    }

    fn at(&self, command: libc::c_int, key: &u32, value: &u32) -> io::Result<()> {
        #[repr(C)]
        struct Element {
            map: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let map = number(self.0.as_fd())?;
        let mut element = Element { map, padding: 0, key: address(key), value: address(value), flags: 0 };
        // SAFETY: the kernel reads a key and a value of 32 bits, which live until it returns, and writes nothing.
        unsafe { call(command, &mut element) }.map(drop)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has the kernel check and take a program. `name` is what `bpftool` shows.
/// # Errors
/// EPERM as for [`Map::new`]. EINVAL, EACCES: the kernel does not have the hook, or does not take this one.
pub fn load(hook: Hook, name: [u8; 16], program: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        licence: u64,
        log_level: u32,
        log_bytes: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attached_as: u32,
    }
    let licence = c"Apache-2.0";
    let mut load = Load {
        kind: hook.program,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: address(program.as_ptr()),
        licence: address(licence.as_ptr()),
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        attached_as: hook.attached_as,
    };
    // SAFETY: the kernel reads the instructions, as many as are counted, and a string with its end; both live until it returns.
    let file = unsafe { call(PROGRAM_LOAD, &mut load) }?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// Has the program asked at a target, a descriptor of a namespace or the number of a link, for as long as what is returned is open, or the target is
/// there.
/// # Errors
/// E2BIG, ERANGE: the target has 64 of them.
pub fn attach(hook: Hook, program: BorrowedFd<'_>, target: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        attached_as: u32,
        flags: u32,
    }
    let mut link = Link { program: number(program)?, target, attached_as: hook.attached_as, flags: 0 };
    // SAFETY: there is no pointer in `Link`, all of which is initialised.
    let file = unsafe { call(LINK_CREATE, &mut link) }?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// How many programs are asked at a link.
/// # Errors
/// EINVAL, ENOSYS: the kernel does not have the hook.
pub fn count(hook: Hook, link: u32) -> io::Result<u32> {
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        target: u32,
        attached_as: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        programs_flags: u64,
        links: u64,
        links_flags: u64,
        revision: u64,
    }
    let mut query = Query { target: link, attached_as: hook.attached_as, ..Query::default() };
    // SAFETY: no pointer in `Query` leads anywhere, and all of it is initialised.
    unsafe { call(PROGRAM_QUERY, &mut query) }?;
    Ok(query.count)
}

/// # Safety
/// Each pointer in `argument` is good for what `command` does with it.
unsafe fn call<A>(command: libc::c_int, argument: &mut A) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes no more of the argument than its size says, all of which are numbers; for its pointers the caller
    // answers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(argument), size_of::<A>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        RawFd::try_from(result).map_err(io::Error::other)
    }
}

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

/// As bpf(2) takes a descriptor.
/// # Errors
/// Never: no descriptor is negative.
pub fn number(file: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(file.as_raw_fd()).map_err(io::Error::other)
}
