//! BPF programs for what comes in at a link that no qdisc tells of: they run before our filter, which sees nothing that they let pass.
//!
//! Source: Linux 6.6 and later, `include/uapi/linux/bpf.h`, `BPF_PROG_QUERY`, `BPF_TCX_INGRESS`.
#![allow(unsafe_code, reason = "bpf(2) has no safe function; each block states why it is sound")]

use std::io;

use rustix::io::Errno;

const PROG_QUERY: libc::c_int = 16;
const TCX_INGRESS: u64 = 46;

/// How many there are.
/// # Errors
/// The kernel did not say.
pub(super) fn programs(index: u32) -> io::Result<u64> {
    // The link and the kind, flags, where to write which they are (nowhere), how many.
    let mut query = [u64::from(index) | TCX_INGRESS << 32, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: there is no address in it.
    let asked = unsafe { bpf(PROG_QUERY, &mut query) };
    // A kernel that has no such programs.
    let has_none = |error: &io::Error| {
        [Errno::INVAL, Errno::NOSYS].iter().any(|none| error.raw_os_error() == Some(none.raw_os_error()))
    };
    match asked {
        Err(error) if has_none(&error) => Ok(0),
        asked => asked.map(|_| query[3] & u64::from(u32::MAX)),
    }
}

/// `attributes` is `union bpf_attr`, as far as it is not zero.
///
/// # Safety
/// An address in it is of something that lives until the call returns, and is as long as the command has it.
unsafe fn bpf(command: libc::c_int, attributes: &mut [u64; 8]) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes so many bytes, whatever they are; for what they lead to who calls has spoken.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rtnetlink, scratch::Scratch};

    const PROG_LOAD: libc::c_int = 5;
    const LINK_CREATE: libc::c_int = 28;
    const SCHED_CLS: u64 = 3;
    /// `r0 = -1` (to the next one), `exit`.
    static CODE: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];

    /// Has such a program at a link until this process ends, or its namespace.
    fn attach(index: u32) -> io::Result<()> {
        let (code, license) = (CODE.as_ptr().expose_provenance(), c"GPL".as_ptr().expose_provenance());
        let mut load = [SCHED_CLS | 2 << 32, code as u64, license as u64, 0, 0, 0, 0, 0];
        // SAFETY: both are static, and two instructions and a text with its end.
        let program = unsafe { bpf(PROG_LOAD, &mut load) }?.cast_unsigned();
        let mut link = [program | u64::from(index) << 32, TCX_INGRESS, 0, 0, 0, 0, 0, 0];
        // SAFETY: there is no address in it.
        unsafe { bpf(LINK_CREATE, &mut link) }.map(drop)
    }

    #[test]
    fn a_bpf_program_for_what_comes_in_is_named() {
        let tried = Scratch::new().unwrap().enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            netlink.add_veth("eth0", "peer").unwrap();
            let index = netlink.link("eth0").unwrap().unwrap().index;
            assert_eq!(netlink.incoming(index).unwrap(), None);
            attach(index)?;
            Ok::<_, io::Error>(netlink.incoming(index).unwrap())
        });
        match tried {
            Err(error) => eprintln!("NOT TRIED: no such program is to be had here: {error}"),
            Ok(found) => assert_eq!(found.unwrap(), "a BPF program for what comes in (tcx)"),
        }
    }
}
