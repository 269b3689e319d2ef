//! Links, routing rules and lists of sockets, by netlink.
//!
//! Source: `linux/rtnetlink.h`, `linux/if_link.h`, `linux/fib_rules.h`, `linux/inet_diag.h`, `linux/unix_diag.h`.

use std::{
    fs::{File, OpenOptions},
    io,
};

use rustix::net::netlink::SOCK_DIAG;

use super::network_apart;
use crate::{
    netlink::{ACK, CREATE_NEW, REQUEST, ask, attribute, dump, dump_of, nested, question, text},
    raw,
};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const LINKS: (u16, usize) = (18, 16);
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const NO_LINK: [u8; 16] = [0; 16];
/// Of links that are made here.
const NAME: &str = "inside0";
const PEER: &str = "inside1";

pub fn veth() -> io::Result<()> {
    network_apart();
    make_veth()?;
    delete(NAME)
}

pub fn bridge() -> io::Result<()> {
    network_apart();
    make(NAME, &kind("bridge", &[]), &[])?;
    delete(NAME)
}

/// Number 7, on one end of a pair: the loopback carries none.
pub fn vlan() -> io::Result<()> {
    network_apart();
    make_veth()?;
    let made = number_of(NAME).and_then(|below| {
        let below = attribute(IFLA_LINK, &below.to_ne_bytes());
        make("inside2", &kind("vlan", &[attribute(1, &7u16.to_ne_bytes())]), &[below])
    });
    delete(NAME)?;
    made
}

/// A table of its own for marked packets, for both kinds of addresses.
pub fn rules() -> io::Result<()> {
    const TO_TABLE: u8 = 1;
    const TABLE: u8 = 133;
    network_apart();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).map_err(io::Error::other)?;
        let mut header = [0; 12];
        (header[0], header[4], header[7]) = (family, TABLE, TO_TABLE);
        let marked = [attribute(10, &1337u32.to_ne_bytes())];
        for (kind, flags) in [(NEW_RULE, CREATE_NEW), (DELETE_RULE, 0)] {
            ask(None, &[question(kind, REQUEST | ACK | flags, &header, &marked)])?;
        }
    }
    Ok(())
}

/// TCP's and UDP's.
pub fn inet_sockets() -> io::Result<()> {
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
        let mut wanted = [0; 56];
        wanted[0] = u8::try_from(libc::AF_INET).map_err(io::Error::other)?;
        wanted[1] = u8::try_from(protocol).map_err(io::Error::other)?;
        wanted[4..8].fill(0xff);
        sockets(&wanted)?;
    }
    Ok(())
}

pub fn unix_sockets() -> io::Result<()> {
    let mut wanted = [0; 24];
    wanted[0] = u8::try_from(libc::AF_UNIX).map_err(io::Error::other)?;
    wanted[4..8].fill(0xff);
    sockets(&wanted)
}

/// An interface of its own, which goes with the descriptor.
pub fn tun() -> io::Result<()> {
    // The interface belongs where the device was opened.
    network_apart();
    let device: File = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    raw::tun_interface(&device)
}

fn sockets(wanted: &[u8]) -> io::Result<()> {
    const BY_FAMILY: u16 = 20;
    dump_of(Some(SOCK_DIAG), BY_FAMILY, wanted, &[]).map(drop)
}

fn make_veth() -> io::Result<()> {
    let peer = [&NO_LINK[..], &text(IFLA_IFNAME, PEER)].concat();
    make(NAME, &kind("veth", &[attribute(1 | 0x8000, &peer)]), &[])
}

fn kind(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(IFLA_LINKINFO, &[text(1, name), nested(2, data)])
}

fn make(name: &str, kind: &[u8], others: &[Vec<u8>]) -> io::Result<()> {
    let mut attributes = vec![text(IFLA_IFNAME, name), kind.to_vec()];
    attributes.extend_from_slice(others);
    ask(None, &[question(NEW_LINK, REQUEST | ACK | CREATE_NEW, &NO_LINK, &attributes)]).map(drop)
}

fn delete(name: &str) -> io::Result<()> {
    ask(None, &[question(DELETE_LINK, REQUEST | ACK, &NO_LINK, &[text(IFLA_IFNAME, name)])]).map(drop)
}

fn number_of(name: &str) -> io::Result<u32> {
    let links = dump(LINKS.0, LINKS.1)?;
    let named = |link: &&crate::netlink::Message| {
        let attributes = link.attributes(LINKS.1);
        attributes.get(&IFLA_IFNAME).is_some_and(|found| found.strip_suffix(b"\0") == Some(name.as_bytes()))
    };
    let found = links.iter().find(named).map(|link| link.number(4));
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}
