//! What the kernel and the runtime's walls let a process do, by doing it: each in a process of its own, since some of it cannot be undone
//! and a seccomp filter may kill who tries.

use std::{
    env,
    fs::OpenOptions,
    io,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use rustix::{
    fs::{MemfdFlags, inotify, memfd_create},
    mount::{FsOpenFlags, fsopen},
    net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with},
    process::{PidfdFlags, getpid, pidfd_open},
    thread::UnshareFlags,
};
use serde_json::{Map, Value, json};

use super::failed;
use crate::{errors, raw};

type Attempt = fn() -> io::Result<()>;

/// In the order of their names.
const ATTEMPTS: &[(&str, Attempt)] = &[
    ("bpf", raw::bpf_map),
    ("fanotify", raw::fanotify),
    ("fs_overlay", || fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map(drop).map_err(Into::into)),
    ("fs_tmpfs", || fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map(drop).map_err(Into::into)),
    ("fuse", || open("/dev/fuse")),
    ("inotify", || inotify::init(inotify::CreateFlags::CLOEXEC).map(drop).map_err(Into::into)),
    ("io_uring", raw::io_uring),
    ("keyring", raw::keyring),
    ("kvm", || open("/dev/kvm")),
    ("landlock", raw::landlock),
    ("memfd", || memfd_create("inside", MemfdFlags::CLOEXEC).map(drop).map_err(Into::into)),
    ("nf_tables", nf_tables),
    ("perf", raw::perf_event),
    ("pidfd", || pidfd_open(getpid(), PidfdFlags::empty()).map(drop).map_err(Into::into)),
    ("socket_ipv6", || socket(AddressFamily::INET6, SocketType::STREAM)),
    ("socket_packet", || socket(AddressFamily::PACKET, SocketType::RAW)),
    ("socket_raw", || socket(AddressFamily::INET, SocketType::RAW)),
    ("socket_vsock", || socket(AddressFamily::VSOCK, SocketType::STREAM)),
    ("tun", || open("/dev/net/tun")),
    ("unshare_cgroup", || raw::unshare(UnshareFlags::NEWCGROUP)),
    ("unshare_ipc", || raw::unshare(UnshareFlags::NEWIPC)),
    ("unshare_mount", || raw::unshare(UnshareFlags::NEWNS)),
    ("unshare_network", || raw::unshare(UnshareFlags::NEWNET)),
    ("unshare_pid", || raw::unshare(UnshareFlags::NEWPID)),
    ("unshare_time", || raw::unshare(UnshareFlags::NEWTIME)),
    ("unshare_user", || raw::unshare(UnshareFlags::NEWUSER)),
    ("unshare_uts", || raw::unshare(UnshareFlags::NEWUTS)),
    ("userfaultfd", raw::userfaultfd),
];

/// Each by its name: "ok", an error's name, or the signal that ended who tried.
pub fn seen() -> Value {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return failed(error),
    };
    let tried = |(name, _): &(&str, Attempt)| {
        let child = Command::new(&program).args(["try", name]).stdin(Stdio::null()).output();
        let outcome = match child {
            Ok(child) => child.status.signal().map_or_else(
                || String::from_utf8_lossy(&child.stdout).trim_end().to_owned(),
                |signal| format!("signal {signal}"),
            ),
            Err(error) => format!("no process: {}", errors::name(&error)),
        };
        ((*name).to_owned(), json!(outcome))
    };
    ATTEMPTS.iter().map(tried).collect::<Map<_, _>>().into()
}

/// Tries one of them in this process.
pub fn attempt(name: &str) -> Option<String> {
    let (_, attempt) = ATTEMPTS.iter().find(|(known, _)| *known == name)?;
    Some(errors::outcome(attempt()))
}

fn open(path: &str) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}

/// A raw IPv4 socket wants a protocol: ICMP's number is 1.
fn socket(family: AddressFamily, kind: SocketType) -> io::Result<()> {
    let icmp = family == AddressFamily::INET && kind == SocketType::RAW;
    let protocol = icmp.then_some(rustix::net::ipproto::ICMP);
    socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
    Ok(())
}

/// Asks nf_tables for its generation. Source: `linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables.h`.
fn nf_tables() -> io::Result<()> {
    const NFT_MSG_GETGEN: u16 = 10 << 8 | 16;
    const NLM_F_REQUEST_ACK: u16 = 5;
    const NLMSG_ERROR: u16 = 2;
    let family = AddressFamily::NETLINK;
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    let mut question = [0; 20];
    question[0] = 20;
    question[4..6].copy_from_slice(&NFT_MSG_GETGEN.to_ne_bytes());
    question[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    rustix::net::send(&socket, &question, rustix::net::SendFlags::empty())?;
    let mut answer = [0; 512];
    rustix::net::recv(&socket, &mut answer[..], rustix::net::RecvFlags::empty())?;
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    let refused = u16::from_ne_bytes([answer[4], answer[5]]) == NLMSG_ERROR && code != 0;
    if refused { Err(io::Error::from_raw_os_error(code.saturating_neg())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_in_order() {
        assert!(ATTEMPTS.is_sorted_by(|(one, _), (other, _)| one < other));
    }

    #[test]
    fn what_every_process_may_do_is_done_and_what_is_unknown_is_not() {
        assert_eq!(attempt("memfd").as_deref(), Some("ok"));
        assert_eq!(attempt("pidfd").as_deref(), Some("ok"));
        assert_eq!(attempt("nothing"), None);
    }
}
