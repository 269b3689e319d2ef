//! Links, addresses, and routes of the main table, as `ip` shows them.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde_json::{Value, json};

use super::failed;
use crate::netlink::{Attributes, Message, attributes, dump, number};

/// Kinds of questions and the size of what their answers begin with. Source: `linux/rtnetlink.h`, `linux/if_addr.h`.
const LINKS: (u16, usize) = (18, 16);
const ADDRESSES: (u16, usize) = (22, 8);
const ROUTES: (u16, usize) = (26, 12);
/// Attributes. Source: `linux/if_link.h`, `linux/if_addr.h`, `linux/rtnetlink.h`.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const IFF_UP: u32 = 1;

pub fn seen() -> Value {
    see().unwrap_or_else(failed)
}

fn see() -> io::Result<Value> {
    let links = dump(LINKS.0, LINKS.1)?;
    // By their numbers, which differ from run to run.
    let names: BTreeMap<u32, String> = links.iter().map(|link| (link.number(4), link_name(link))).collect();
    let name = |number: u32| names.get(&number).cloned().unwrap_or_else(|| number.to_string());
    let (addresses, routes) = (dump(ADDRESSES.0, ADDRESSES.1)?, dump(ROUTES.0, ROUTES.1)?);
    let in_main = |route: &&Message| route.byte(4) == RT_TABLE_MAIN && route.byte(7) == RTN_UNICAST;
    Ok(json!({
        "links": links.iter().map(link).collect::<Vec<_>>(),
        "addresses": addresses.iter().map(|one| address(one, &name)).collect::<Vec<_>>(),
        "routes": routes.iter().filter(in_main).map(|one| route(one, &name)).collect::<Vec<_>>(),
    }))
}

fn link_name(link: &Message) -> String {
    link.attributes(LINKS.1).get(&IFLA_IFNAME).map(|name| word(name)).unwrap_or_default()
}

fn link(link: &Message) -> Value {
    let all = link.attributes(LINKS.1);
    let inner = all.get(&IFLA_LINKINFO).map(|info| attributes(info)).unwrap_or_default();
    let mac = |bytes: &&[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    json!({
        "name": link_name(link),
        "up": link.number(8) & IFF_UP != 0,
        "mtu": all.get(&IFLA_MTU).and_then(|mtu| number(mtu, 0)),
        "mac": all.get(&IFLA_ADDRESS).map(mac),
        "kind": inner.get(&IFLA_INFO_KIND).map(|kind| word(kind)),
    })
}

fn address(address: &Message, name: &impl Fn(u32) -> String) -> Value {
    let all = address.attributes(ADDRESSES.1);
    // Of a link between two, the first is the other end's.
    let own = all.get(&IFA_LOCAL).or_else(|| all.get(&IFA_ADDRESS));
    json!({
        "link": name(address.number(4)), "address": own.and_then(|own| ip(own)), "prefix": address.byte(1),
        "scope": address.byte(3),
    })
}

fn route(route: &Message, name: &impl Fn(u32) -> String) -> Value {
    let all = route.attributes(ROUTES.1);
    let of = |kind: u16, all: &Attributes<'_>| all.get(&kind).and_then(|value| number(value, 0));
    json!({
        "destination": all.get(&RTA_DST).and_then(|to| ip(to)),
        "prefix": route.byte(1),
        "gateway": all.get(&RTA_GATEWAY).and_then(|via| ip(via)),
        "link": of(RTA_OIF, &all).map(name),
        "metric": of(RTA_PRIORITY, &all),
    })
}

fn ip(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).to_string())).ok()
}

/// Up to its end's 0.
fn word(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each network namespace has it.
    #[test]
    fn the_loopback_link_is_there() {
        let seen = seen();
        let links = seen["links"].as_array().expect("links");
        let lo = links.iter().find(|link| link["name"] == "lo").expect("lo");
        assert_eq!((&lo["mac"], &lo["mtu"]), (&json!("00:00:00:00:00:00"), &json!(65536)));
    }

    #[test]
    fn addresses_are_of_two_kinds() {
        assert_eq!(ip(&[10, 0, 0, 1]).as_deref(), Some("10.0.0.1"));
        assert_eq!(ip(&[0; 16]).as_deref(), Some("::"));
        assert_eq!(ip(&[0; 5]), None);
    }
}
