//! The older tables, those of iptables-legacy: which the namespace has is a file of proc(5), what is in one a socket's option.
//!
//! A table comes to be when somebody first asks for it, `iptables-legacy -L` too, with a chain a hook that lets all pass. So only those that
//! are there are asked. Source: Linux, `include/uapi/linux/netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h`,
//! `netfilter/x_tables.h`.
#![allow(unsafe_code, reason = "options of sockets that are no number; each block states why it is sound")]

use std::{fs, io, os::fd::AsRawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::Acting;

struct Family {
    version: u8,
    /// Of the thread's namespace: `/proc/net` is of that of the process.
    names: &'static str,
    sockets: AddressFamily,
    level: libc::c_int,
    /// Of a rule, before its matches and its target.
    rule_bytes: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        version: 4,
        names: "/proc/thread-self/net/ip_tables_names",
        sockets: AddressFamily::INET,
        level: libc::SOL_IP,
        rule_bytes: 112,
    },
    Family {
        version: 6,
        names: "/proc/thread-self/net/ip6_tables_names",
        sockets: AddressFamily::INET6,
        level: libc::SOL_IPV6,
        rule_bytes: 168,
    },
];

const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const NAME_BYTES: usize = 32;
/// `struct ipt_getinfo`: the name, then numbers: hooks, first rule by hook, last rule by hook, count of rules, their size.
const INFO_BYTES: usize = NAME_BYTES + 4 * 13;
const HOOKS: usize = 5;
/// `struct ipt_get_entries` before its rules: the name, their size, and what aligns them.
const ENTRIES_BYTES: usize = NAME_BYTES + 8;
/// `struct xt_entry_target`, before the verdict of a standard target.
const TARGET_BYTES: usize = 32;
/// `-NF_ACCEPT - 1`.
const ACCEPT: i32 = -2;

pub(super) fn acting() -> io::Result<Option<Acting>> {
    for family in &FAMILIES {
        let names = match fs::read_to_string(family.names) {
            Err(none) if none.kind() == io::ErrorKind::NotFound => continue,
            names => names?,
        };
        for name in names.lines() {
            if Table::read(family, name)?.acts() {
                return Ok(Some(Acting::Legacy(family.version, name.into())));
            }
        }
    }
    Ok(None)
}

/// A table as the kernel gives it.
struct Table<'a> {
    family: &'a Family,
    info: [u8; INFO_BYTES],
    /// [`ENTRIES_BYTES`], then the rules.
    entries: Vec<u8>,
}

impl Table<'_> {
    fn read<'a>(family: &'a Family, name: &str) -> io::Result<Table<'a>> {
        let socket = socket_with(family.sockets, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
        let mut table = Table { family, info: [0; INFO_BYTES], entries: Vec::new() };
        let place = table.info.get_mut(..name.len()).filter(|place| place.len() < NAME_BYTES);
        place.ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(name.as_bytes());
        option(&socket, family.level, GET_INFO, &mut table.info)?;
        let rule_bytes = table.number(12);
        table.entries = vec![0; ENTRIES_BYTES + usize::try_from(rule_bytes).map_err(io::Error::other)?];
        table.entries[..name.len()].copy_from_slice(name.as_bytes());
        table.entries[NAME_BYTES..][..4].copy_from_slice(&rule_bytes.to_ne_bytes());
        option(&socket, family.level, GET_ENTRIES, &mut table.entries)?;
        Ok(table)
    }

    /// A number of its info.
    fn number(&self, at: usize) -> u32 {
        number(&self.info[NAME_BYTES..], 4 * at).unwrap_or_default()
    }

    /// It has more than a rule a hook, which is the policy, and the one that marks the end; or one of them is no "accept". A chain that somebody
    /// has added counts as rules, also an empty one.
    fn acts(&self) -> bool {
        let hooks = self.number(0);
        let mut policies = (0..HOOKS).filter(|hook| hooks >> hook & 1 != 0).map(|hook| {
            let last_rule = usize::try_from(self.number(1 + HOOKS + hook)).ok()?;
            number(&self.entries, ENTRIES_BYTES + last_rule + self.family.rule_bytes + TARGET_BYTES)
        });
        self.number(11) > hooks.count_ones() + 1
            || policies.any(|verdict| verdict.map(u32::cast_signed) != Some(ACCEPT))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// getsockopt(2), for an option as long as `value`, which also says what is asked.
fn option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes `length` bytes at most, and so many are there; no value of a byte is wrong.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if got == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const SET_REPLACE: libc::c_int = 64;
    const OUTPUT: usize = 3;

    /// Puts a changed table into the place of the one that is there. `struct ipt_replace`.
    fn replace(table: &Table, had: u32) {
        let mut request = table.info.to_vec();
        let mut counters = vec![0_u8; 16 * usize::try_from(had).unwrap()];
        // The numbers of the info are those of the request in another order: count and size follow the hooks.
        let numbers: Vec<u32> = [0, 11, 12].into_iter().chain(1..11).map(|at| table.number(at)).collect();
        request.truncate(NAME_BYTES);
        request.extend(numbers.iter().chain([&had]).flat_map(|number| number.to_ne_bytes()));
        request.extend(counters.as_mut_ptr().expose_provenance().to_ne_bytes());
        request.extend(&table.entries[ENTRIES_BYTES..]);
        let family = table.family;
        let socket =
            socket_with(family.sockets, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW)).unwrap();
        let length = request.len().try_into().unwrap();
        // SAFETY: the kernel reads so many bytes, and writes a counter for each of the `had` rules that there were.
        let set = unsafe {
            libc::setsockopt(socket.as_raw_fd(), family.level, SET_REPLACE, request.as_ptr().cast(), length)
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    /// The rule that is the policy for what is sent, once more before it.
    fn add_rule(table: &mut Table) {
        let (last, bytes) = (
            usize::try_from(table.number(1 + HOOKS + OUTPUT)).unwrap(),
            table.family.rule_bytes + TARGET_BYTES + 8,
        );
        let at = ENTRIES_BYTES + last;
        let rule = table.entries[at..at + bytes].to_vec();
        table.entries.splice(at..at, rule);
        for (number, more) in [(1 + HOOKS + OUTPUT, bytes), (11, 1), (12, bytes)] {
            let value = table.number(number) + u32::try_from(more).unwrap();
            table.info[NAME_BYTES + 4 * number..][..4].copy_from_slice(&value.to_ne_bytes());
        }
    }

    fn drop_at_the_end(table: &mut Table) {
        let at = usize::try_from(table.number(1 + HOOKS + OUTPUT)).unwrap()
            + table.family.rule_bytes
            + TARGET_BYTES;
        table.entries[ENTRIES_BYTES + at..][..4].copy_from_slice(&(-1_i32).to_ne_bytes());
    }

    #[test]
    fn rules_and_policies_of_older_tables_are_named_and_empty_ones_are_none() {
        for family in &FAMILIES {
            for change in [add_rule, drop_at_the_end] {
                let found = Scratch::new().unwrap().enter(|| {
                    let mut table = match Table::read(family, "filter") {
                        Ok(table) => table,
                        Err(error) => return Err(error),
                    };
                    assert!(fs::read_to_string(family.names).unwrap().contains("filter"));
                    assert_eq!(acting().unwrap(), None, "it has been asked for");
                    let had = table.number(11);
                    change(&mut table);
                    replace(&table, had);
                    Ok(acting().unwrap().map(|acting| acting.to_string()))
                });
                match found {
                    Err(error) => {
                        eprintln!("NOT TRIED: IPv{} has no iptables-legacy here: {error}", family.version)
                    }
                    Ok(found) => {
                        let said = format!(
                            "the table filter of iptables-legacy for IPv{} has rules",
                            family.version
                        );
                        assert_eq!(found, Some(said));
                    }
                }
            }
        }
    }
}
