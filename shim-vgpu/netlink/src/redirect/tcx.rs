//! BPF programs for what comes in at a link that no qdisc tells of: they run before our filter, which sees nothing that they let pass.

use std::io;

use rustix::io::Errno;

use crate::bpf::{self, Hook};

/// How many there are.
/// # Errors
/// The kernel did not say.
pub(super) fn programs(index: u32) -> io::Result<u32> {
    // A kernel that has no such programs.
    let has_none = |error: &io::Error| {
        [Errno::INVAL, Errno::NOSYS].iter().any(|none| error.raw_os_error() == Some(none.raw_os_error()))
    };
    match bpf::count(Hook::INCOMING, index) {
        Err(error) if has_none(&error) => Ok(0),
        asked => asked,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::{Rtnetlink, bpf::Instruction, scratch::Scratch};

    /// `r0 = -1` (to the next one), `exit`.
    const CODE: [Instruction; 2] = [
        Instruction { code: 0xb7, registers: 0, offset: 0, immediate: -1 },
        Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
    ];

    /// Has such a program at a link for as long as what is returned is open.
    fn attach(index: u32) -> io::Result<OwnedFd> {
        let program = bpf::load(Hook::INCOMING, *b"vgpu_test\0\0\0\0\0\0\0", &CODE)?;
        bpf::attach(Hook::INCOMING, program.as_fd(), index)
    }

    #[test]
    fn a_bpf_program_for_what_comes_in_is_named() {
        let tried = Scratch::new().unwrap().enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            netlink.add_veth("eth0", "peer").unwrap();
            let index = netlink.link("eth0").unwrap().unwrap().index;
            assert_eq!(netlink.incoming(index).unwrap(), None);
            let _link = attach(index)?;
            Ok::<_, io::Error>(netlink.incoming(index).unwrap())
        });
        match tried {
            Err(error) => eprintln!("NOT TRIED: no such program is to be had here: {error}"),
            Ok(found) => assert_eq!(found.unwrap(), "a BPF program for what comes in (tcx)"),
        }
    }
}
