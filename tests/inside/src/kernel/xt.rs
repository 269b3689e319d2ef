//! What `iptables-legacy` and `ip6tables-legacy` ask of the kernel before they change anything.
//!
//! Source: `linux/netfilter_ipv4/ip_tables.h`, `linux/netfilter_ipv6/ip6_tables.h`, `linux/netfilter/x_tables.h`.

use std::io;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::network_apart;
use crate::{errors, raw};

/// A family's sockets, the level of its options, and their numbers: a table, a match's and a target's newest revision.
struct Family {
    family: AddressFamily,
    level: i32,
    table: i32,
    of_match: i32,
    of_target: i32,
}

const FAMILIES: [Family; 2] = [
    Family { family: AddressFamily::INET, level: libc::SOL_IP, table: 64, of_match: 66, of_target: 67 },
    Family { family: AddressFamily::INET6, level: libc::SOL_IPV6, table: 64, of_match: 68, of_target: 69 },
];

const TABLES: &[&str] = &["filter", "mangle", "nat", "raw"];
/// With a revision that both families have.
const MATCHES: &[(&str, u8)] = &[
    ("addrtype", 1),
    ("comment", 0),
    ("connmark", 1),
    ("conntrack", 3),
    ("iprange", 1),
    ("limit", 0),
    ("mark", 1),
    ("multiport", 1),
    ("owner", 1),
    ("recent", 1),
    ("socket", 1),
    ("state", 0),
    ("statistic", 0),
    ("tcp", 0),
    ("udp", 0),
];
const TARGETS: &[(&str, u8)] = &[
    ("CONNMARK", 2),
    ("CT", 2),
    ("DNAT", 2),
    ("MARK", 2),
    ("MASQUERADE", 0),
    ("NFLOG", 0),
    ("REDIRECT", 0),
    ("REJECT", 0),
    ("SNAT", 1),
    ("TCPMSS", 0),
    ("TPROXY", 1),
];

/// `struct ipt_getinfo`: a name of 32 bytes and 13 numbers.
pub fn tables() -> io::Result<()> {
    each(TABLES, |family, name| ask(family, family.table, name, 0, [0; 84]))
}

/// `struct xt_get_revision`: a name of 29 bytes and the revision.
pub fn matches() -> io::Result<()> {
    each(MATCHES, |family, &(name, revision)| ask(family, family.of_match, &name, revision, [0; 30]))
}

pub fn targets() -> io::Result<()> {
    each(TARGETS, |family, &(name, revision)| ask(family, family.of_target, &name, revision, [0; 30]))
}

/// What a family lacks is named; that nothing may be asked is the error itself.
fn each<T>(all: &[T], ask: impl Fn(&Family, &T) -> (io::Result<()>, String)) -> io::Result<()> {
    network_apart();
    for family in &FAMILIES {
        for one in all {
            match ask(family, one) {
                (Err(error), _) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
                (Err(error), name) => {
                    return Err(io::Error::other(format!("{name}: {}", errors::name(&error))));
                }
                (Ok(()), _) => {}
            }
        }
    }
    Ok(())
}

fn ask<const BYTES: usize>(
    family: &Family,
    option: i32,
    name: &&str,
    revision: u8,
    mut data: [u8; BYTES],
) -> (io::Result<()>, String) {
    data[..name.len()].copy_from_slice(name.as_bytes());
    // A table's question has zero there: it is inside of the name's place.
    data[29] = revision;
    let socket = socket_with(family.family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW));
    let asked =
        socket.map_err(Into::into).and_then(|socket| raw::option(&socket, family.level, option, &mut data));
    let version = if family.level == libc::SOL_IP { 4 } else { 6 };
    (asked, format!("{name} of IPv{version}"))
}
