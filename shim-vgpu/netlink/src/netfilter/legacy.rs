//! The older tables, those of iptables-legacy: which the namespace has is a file of proc(5), what is in one a socket's option.
//!
//! A table comes to be when somebody first asks for it, `iptables-legacy -L` too, with a chain a hook that lets all pass. So only those that
//! are there are asked. What `iptables -N` adds is two entries, which are no rules. Source: Linux,
//! `include/uapi/linux/netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h`, `netfilter/x_tables.h`; iptables, `libiptc/libiptc.c`.
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
    /// Where in it is written where its target is, and after that where the next rule is: two bytes each.
    offsets: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        version: 4,
        names: "/proc/thread-self/net/ip_tables_names",
        sockets: AddressFamily::INET,
        level: libc::SOL_IP,
        rule_bytes: 112,
        offsets: 88,
    },
    Family {
        version: 6,
        names: "/proc/thread-self/net/ip6_tables_names",
        sockets: AddressFamily::INET6,
        level: libc::SOL_IPV6,
        rule_bytes: 168,
        offsets: 140,
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
/// `struct xt_entry_target`, before the verdict of a standard target: its size, its name from [`TARGET_NAME`] on.
const TARGET_BYTES: usize = 32;
const TARGET_NAME: usize = 2;
/// The target of an entry that begins a chain of somebody's own, or ends the table. `XT_ERROR_TARGET`.
const MARK: &[u8] = b"ERROR\0";
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

    /// It has more than an entry a hook, which is the policy, two a chain that somebody has added, which are its mark and its end, and the mark
    /// at the table's end; or a policy is no "accept". What cannot be read acts.
    fn acts(&self) -> bool {
        let hooks = self.number(0);
        let mut policies = (0..HOOKS).filter(|hook| hooks >> hook & 1 != 0).map(|hook| {
            let last_rule = usize::try_from(self.number(1 + HOOKS + hook)).ok()?;
            number(&self.entries, ENTRIES_BYTES + last_rule + self.family.rule_bytes + TARGET_BYTES)
        });
        let are_none = self.marks().map(|marks| hooks.count_ones() + 2 * marks.saturating_sub(1) + 1);
        are_none.is_none_or(|are_none| self.number(11) > are_none)
            || policies.any(|verdict| verdict.map(u32::cast_signed) != Some(ACCEPT))
    }

    /// How many of its entries have the target [`MARK`]. None if they cannot be followed.
    fn marks(&self) -> Option<u32> {
        let (mut rest, mut marks) = (self.entries.get(ENTRIES_BYTES..)?, 0);
        while !rest.is_empty() {
            let offset = |at| rest.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes).map(usize::from);
            let (target, next) = (offset(self.family.offsets)?, offset(self.family.offsets + 2)?);
            marks += u32::from(rest.get(target + TARGET_NAME..)?.starts_with(MARK));
            rest = rest.get(next..).filter(|_| next > 0)?;
        }
        Some(marks)
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
    /// `XT_RETURN`.
    const RETURN: i32 = -5;

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

    /// An entry, which has no matches.
    fn entry(family: &Family, target: &[u8], data: &[u8]) -> Vec<u8> {
        let mut entry = vec![0; family.rule_bytes + TARGET_BYTES];
        entry[family.rule_bytes + TARGET_NAME..][..target.len()].copy_from_slice(target);
        entry.extend(data);
        entry.resize(entry.len().next_multiple_of(8), 0);
        let bytes = u16::try_from(entry.len()).unwrap();
        let target = u16::try_from(family.rule_bytes).unwrap();
        for (at, number) in
            [(family.offsets, target), (family.offsets + 2, bytes), (family.rule_bytes, bytes - target)]
        {
            entry[at..at + 2].copy_from_slice(&number.to_ne_bytes());
        }
        entry
    }

    fn verdict(family: &Family, verdict: i32) -> Vec<u8> {
        entry(family, b"", &verdict.to_ne_bytes())
    }

    fn mark(family: &Family, name: &[u8]) -> Vec<u8> {
        let mut data = [0; 30];
        data[..name.len()].copy_from_slice(name);
        entry(family, MARK, &data)
    }

    /// As the kernel makes a table "filter".
    fn fresh(family: &Family) -> Table<'_> {
        let mut table = Table { family, info: [0; INFO_BYTES], entries: vec![0; ENTRIES_BYTES] };
        let mut set = |number: usize, value: usize| {
            table.info[NAME_BYTES + 4 * number..][..4]
                .copy_from_slice(&u32::try_from(value).unwrap().to_ne_bytes());
        };
        let policy = verdict(family, ACCEPT);
        set(0, 0b01110);
        for hook in [1, 2, OUTPUT] {
            set(1 + hook, (hook - 1) * policy.len());
            set(1 + HOOKS + hook, (hook - 1) * policy.len());
        }
        let entries = [policy.repeat(3), mark(family, b"ERROR")].concat();
        set(11, 4);
        set(12, entries.len());
        table.entries.extend(entries);
        table
    }

    /// Puts entries at a place among those of the table.
    fn insert(table: &mut Table, at: usize, entries: &[Vec<u8>]) {
        let bytes = entries.concat();
        let place = ENTRIES_BYTES + at;
        let more = bytes.len();
        table.entries.splice(place..place, bytes);
        add(table, 11, entries.len());
        add(table, 12, more);
    }

    fn add(table: &mut Table, number: usize, more: usize) {
        let value = table.number(number) + u32::try_from(more).unwrap();
        table.info[NAME_BYTES + 4 * number..][..4].copy_from_slice(&value.to_ne_bytes());
    }

    /// Where the policy for what is sent is.
    fn policy(table: &Table) -> usize {
        usize::try_from(table.number(1 + HOOKS + OUTPUT)).unwrap()
    }

    fn add_rule(table: &mut Table) {
        let rule = verdict(table.family, ACCEPT);
        let more = rule.len();
        insert(table, policy(table), &[rule]);
        add(table, 1 + HOOKS + OUTPUT, more);
    }

    fn drop_at_the_end(table: &mut Table) {
        let at = policy(table) + table.family.rule_bytes + TARGET_BYTES;
        table.entries[ENTRIES_BYTES + at..][..4].copy_from_slice(&(-1_i32).to_ne_bytes());
    }

    /// As `iptables-legacy -N` does, twice.
    fn add_chains(table: &mut Table) {
        for name in [b"one", b"two"] {
            let chain = [mark(table.family, name), verdict(table.family, RETURN)];
            let at = table.entries.len() - ENTRIES_BYTES - mark(table.family, b"").len();
            insert(table, at, &chain);
        }
    }

    /// Rules that nothing leads to.
    fn add_chains_with_a_rule(table: &mut Table) {
        add_chains(table);
        let at = table.entries.len() - ENTRIES_BYTES - mark(table.family, b"").len();
        let rule = verdict(table.family, RETURN);
        insert(table, at, &[rule]);
    }

    type Change = fn(&mut Table);

    /// And whether the table acts then.
    const CHANGES: [(Change, bool); 5] = [
        (|_| (), false),
        (add_rule, true),
        (drop_at_the_end, true),
        (add_chains, false),
        (add_chains_with_a_rule, true),
    ];

    #[test]
    fn rules_and_policies_act_and_empty_chains_do_not() {
        for family in &FAMILIES {
            for (number, (change, acts)) in CHANGES.into_iter().enumerate() {
                let mut table = fresh(family);
                change(&mut table);
                assert_eq!(table.acts(), acts, "IPv{} {number}", family.version);
                table.entries.pop();
                assert!(table.acts(), "what is cut off acts: IPv{} {number}", family.version);
            }
        }
    }

    #[test]
    fn rules_and_policies_of_older_tables_are_named_and_empty_ones_are_none() {
        for family in &FAMILIES {
            for (change, acts) in CHANGES {
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
                        assert_eq!(found, acts.then_some(said));
                    }
                }
            }
        }
    }
}
