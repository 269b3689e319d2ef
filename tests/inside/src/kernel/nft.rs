//! Rules of nf_tables, as `nft` makes them: each in a table of its own, which is listed and taken away again.
//!
//! Source: `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables_compat.h`.

use std::io;

use rustix::net::netlink::NETFILTER;

use super::network_apart;
use crate::netlink::{ACK, CREATE_NEW, REQUEST, ask, attribute, dump_of, nested, question, text};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const GET_GENERATION: u16 = SUBSYSTEM << 8 | 16;
const COMPAT_GET: u16 = 11 << 8;
const TRACKED_GET: u16 = 1 << 8 | 1;
const NFPROTO_IPV4: u8 = 2;
const REGISTER: u32 = 1;

const TABLE: &str = "inside";
const CHAIN: &str = "chain";

/// Where a chain stands: its type, hook and priority.
type Place = (&'static str, u32, i32);
const NAT_BEFORE_ROUTING: Place = ("nat", 0, -100);
const NAT_AFTER_ROUTING: Place = ("nat", 4, 100);
const FILTER_BEFORE_ROUTING: Place = ("filter", 0, -150);
const FILTER_INPUT: Place = ("filter", 1, 0);
const FILTER_OUTPUT: Place = ("filter", 3, 0);

pub fn generation() -> io::Result<()> {
    network_apart();
    ask(Some(NETFILTER), &[question(GET_GENERATION, REQUEST | ACK, &header(0, 0), &[])]).map(drop)
}

pub fn redirect() -> io::Result<()> {
    rule(NAT_BEFORE_ROUTING, &[expression("redir", &[])])
}

pub fn masquerade() -> io::Result<()> {
    rule(NAT_AFTER_ROUTING, &[expression("masq", &[])])
}

/// To the port of which the number is in a register.
pub fn tproxy() -> io::Result<()> {
    let family = u32::from(NFPROTO_IPV4);
    let port = load(&15001u16.to_be_bytes());
    rule(FILTER_BEFORE_ROUTING, &[port, expression("tproxy", &[number(1, family), number(3, REGISTER)])])
}

/// The user who owns a packet's socket.
pub fn owner() -> io::Result<()> {
    const SOCKETS_USER: u32 = 10;
    rule(FILTER_OUTPUT, &[expression("meta", &[number(1, REGISTER), number(2, SOCKETS_USER)])])
}

/// Set on packets.
pub fn mark() -> io::Result<()> {
    const MARK: u32 = 3;
    let set = expression("meta", &[number(2, MARK), number(3, REGISTER)]);
    rule(FILTER_BEFORE_ROUTING, &[load(&7u32.to_ne_bytes()), set])
}

/// The state of a packet's connection.
pub fn connection_state() -> io::Result<()> {
    const STATE: u32 = 0;
    rule(FILTER_INPUT, &[expression("ct", &[number(1, REGISTER), number(2, STATE)])])
}

/// Whether a packet's socket is one of a transparent proxy.
pub fn socket() -> io::Result<()> {
    const TRANSPARENT: u32 = 0;
    rule(FILTER_BEFORE_ROUTING, &[expression("socket", &[number(1, TRANSPARENT), number(2, REGISTER)])])
}

/// With ICMP's "port unreachable".
pub fn reject() -> io::Result<()> {
    rule(FILTER_INPUT, &[expression("reject", &[number(1, 0), attribute(2, &[3])])])
}

/// To who listens to a group by netlink.
pub fn log_to_group() -> io::Result<()> {
    rule(FILTER_INPUT, &[expression("log", &[attribute(1, &1u16.to_be_bytes())])])
}

/// To the kernel's own log.
pub fn log_to_kernel() -> io::Result<()> {
    rule(FILTER_INPUT, &[expression("log", &[])])
}

/// Asks for a target of iptables as `iptables-nft` does. Its revision is 0.
pub fn compat() -> io::Result<()> {
    const TARGET: u32 = 1;
    network_apart();
    let wanted = [text(1, "REDIRECT"), number(2, 0), number(3, TARGET)];
    ask(Some(NETFILTER), &[question(COMPAT_GET, REQUEST | ACK, &header(NFPROTO_IPV4, 0), &wanted)]).map(drop)
}

/// Lists the connections that are tracked, as `conntrack -L` does.
pub fn tracked() -> io::Result<()> {
    network_apart();
    dump_of(Some(NETFILTER), TRACKED_GET, &header(NFPROTO_IPV4, 0), &[]).map(drop)
}

/// Makes a table with a chain with a rule, and wants to find the rule.
fn rule(place: Place, expressions: &[Vec<u8>]) -> io::Result<()> {
    network_apart();
    let (kind, hook, priority) = place;
    let expressions: Vec<Vec<u8>> = expressions.iter().map(|one| attribute(1 | 0x8000, one)).collect();
    let at = nested(4, &[number(1, hook), number(2, priority.cast_unsigned())]);
    let of_chain = [text(1, TABLE), text(3, CHAIN), at, text(7, kind)];
    let of_rule = [text(1, TABLE), text(2, CHAIN), nested(4, &expressions)];
    batch(&[
        (NEW_TABLE, REQUEST | CREATE_NEW, &[text(1, TABLE)]),
        (NEW_CHAIN, REQUEST | CREATE_NEW, &of_chain),
        (NEW_RULE, REQUEST | CREATE_NEW | ACK, &of_rule),
    ])?;
    let found = dump_of(Some(NETFILTER), GET_RULE, &header(NFPROTO_IPV4, 0), &[text(1, TABLE)]);
    batch(&[(DELETE_TABLE, REQUEST | ACK, &[text(1, TABLE)])])?;
    match found?.len() {
        1 => Ok(()),
        other => Err(io::Error::other(format!("{other} rules"))),
    }
}

/// All of it or nothing. The last one is answered.
fn batch(messages: &[(u16, u16, &[Vec<u8>])]) -> io::Result<()> {
    let border = |kind| question(kind, REQUEST, &header(0, SUBSYSTEM), &[]);
    let inner = messages
        .iter()
        .map(|(kind, flags, attributes)| question(*kind, *flags, &header(NFPROTO_IPV4, 0), attributes));
    let all: Vec<Vec<u8>> =
        [border(BATCH_BEGIN)].into_iter().chain(inner).chain([border(BATCH_END)]).collect();
    ask(Some(NETFILTER), &all).map(drop)
}

/// What each message of nfnetlink begins with: family, version, resource.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// A name and what belongs to it.
fn expression(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    [text(1, name), nested(2, attributes)].concat()
}

/// Puts bytes into the register.
fn load(bytes: &[u8]) -> Vec<u8> {
    expression("immediate", &[number(1, REGISTER), nested(2, &[attribute(1, bytes)])])
}

/// Numbers of nf_tables have the network's order.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}
