//! A domain's memory by xl and xenstore.

use idm::xen::xenstore::{Client, Store as _, XsError};
use vgpu_codes::Code;

use super::{super::memory::Levers, done, xl};
use crate::error::{Error, OrFail, Result};

/// See the module.
pub struct Memory(pub u16);

impl Levers for Memory {
    fn has(&self) -> Result<u64> {
        let what = format!("cannot ask for the memory of domain {}", self.0);
        let list = done(xl().arg("list").arg(self.0.to_string()), Code::HostFailure, &what)?;
        let memory = listed_mib(&String::from_utf8_lossy(&list.stdout));
        memory.ok_or_else(|| Error::new(Code::HostFailure, what))
    }

    fn free(&self) -> Result<u64> {
        let what = "cannot ask for Xen's memory";
        let info = done(xl().arg("info"), Code::HostFailure, what)?;
        let free = free_mib(&String::from_utf8_lossy(&info.stdout));
        free.ok_or_else(|| Error::new(Code::HostFailure, what))
    }

    fn bound(&self, mib: u64) -> Result<()> {
        let what = format!("cannot bound the memory of domain {}", self.0);
        done(xl().args(["mem-max", &self.0.to_string(), &mib.to_string()]), Code::HostFailure, &what)
            .map(drop)
    }

    fn aim(&self, mib: u64) -> Result<()> {
        let set = || set_target(&Client::connect()?, self.0, mib);
        set()
            .or_fail(Code::HostFailure, || format!("cannot set the memory that domain {} is to have", self.0))
    }
}

/// In one transaction: a write alone would make the folders of a domain that has just gone, and nobody would remove them.
fn set_target(xenstore: &Client, domid: u16, mib: u64) -> Result<(), XsError> {
    let path = format!("/local/domain/{domid}/memory/target");
    xenstore.transaction(|tx| match tx.read_if_there(&path)? {
        Some(_) => tx.write(&path, mib.saturating_mul(1024).to_string()),
        None => Ok(()),
    })
}

/// Reads the memory column of `xl list ID`, before those of CPUs, state and time: a name may have spaces.
fn listed_mib(list: &str) -> Option<u64> {
    list.lines().nth(1)?.split_whitespace().rev().nth(3)?.parse().ok()
}

/// Reads `xl info`.
fn free_mib(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("free_memory"))?;
    line.trim_start_matches([' ', ':']).trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        thread,
    };

    use super::*;

    #[test]
    fn memory_is_read_from_what_xl_prints() {
        let list = "Name   ID   Mem VCPUs\tState\tTime(s)\nvgpu a 12   191     4     -b----       3.1\n";
        assert_eq!(listed_mib(list), Some(191));
        assert_eq!(listed_mib("Name ID\n"), None);
        let info =
            "total_memory           : 12287\nfree_memory            : 9123\nsharing_freed_memory   : 0\n";
        assert_eq!(free_mib(info), Some(9123));
        assert_eq!(free_mib("total_memory : 1\n"), None);
    }

    const TARGET: &[u8] = b"/local/domain/7/memory/target\0";

    /// A xenstored that takes the domain away just before the first commit. Gives what was written: in which transaction, and what.
    fn xenstored(mut socket: UnixStream) -> Vec<(u32, Vec<u8>)> {
        let (mut written, mut commits) = (Vec::new(), 0);
        let mut header = [0; 16];
        while socket.read_exact(&mut header).is_ok() {
            let word = |n: usize| u32::from_le_bytes(header[n..n + 4].try_into().unwrap());
            let (kind, transaction) = (word(0), word(8));
            let mut payload = vec![0; word(12) as usize];
            socket.read_exact(&mut payload).unwrap();
            // Source: Xen, `xen/include/public/io/xs_wire.h`.
            let (kind, answer): (u32, &[u8]) = match kind {
                6 => (kind, b"1\0"),
                2 if commits == 0 => (kind, b"524288"),
                2 => (16, b"ENOENT\0"),
                11 => {
                    written.push((transaction, payload));
                    (kind, b"OK\0")
                }
                7 => {
                    commits += 1;
                    if commits == 1 { (16, b"EAGAIN\0") } else { (kind, b"OK\0") }
                }
                _ => (16, b"ENOSYS\0"),
            };
            let length = u32::try_from(answer.len()).unwrap();
            let words = [kind, word(4), transaction, length].map(u32::to_le_bytes);
            socket.write_all(&[&words.concat(), answer].concat()).unwrap();
        }
        written
    }

    #[test]
    fn a_domain_that_goes_meanwhile_is_written_nothing_of() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(|| xenstored(theirs));
        let client = Client::over_socket(ours).unwrap();
        set_target(&client, 7, 1024).unwrap();
        drop(client);
        // What was written, it was in the transaction that met the conflict.
        assert_eq!(server.join().unwrap(), [(1, [TARGET, b"1048576"].concat())]);
    }
}
