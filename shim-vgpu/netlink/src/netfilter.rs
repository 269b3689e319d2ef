//! What of the namespace's own netfilter acts on packets. Those of a guest pass none of it: they go from the interface to the guest's vif
//! before the kernel's IP sees them ([`crate::redirect`]).
//!
//! [`acting`] asks nf_tables here, and the older tables of iptables in [`legacy`]. A table without a rule, and a chain that lets pass what no
//! rule stops, act on nothing. Source: Linux, `include/uapi/linux/netfilter/nfnetlink.h`, `nf_tables.h`, `include/uapi/linux/netfilter.h`.

mod legacy;
#[cfg(any(test, feature = "scratch"))]
pub(crate) mod making;

use std::{convert::Infallible, fmt, io};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator};
use rustix::{io::Errno, net::netlink::NETFILTER};

use crate::socket::Socket;

const SUBSYSTEM: u16 = 10;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
/// What a message of nfnetlink begins with: family, version, resource.
const HEADER_BYTES: usize = 4;

const RULE_TABLE: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_POLICY: u16 = 5;
/// As a chain's policy has it.
const DROP: [u8; 4] = 0_u32.to_be_bytes();

/// Something that acts on packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acting {
    /// A table of nf_tables with rules: family and name, as nft writes them.
    Nft(String),
    /// A chain of nf_tables that drops what no rule lets pass: family, table and name.
    NftPolicy(String),
    /// A table of iptables-legacy (4) or ip6tables-legacy (6), with rules or such chains.
    Legacy(u8, String),
}

impl fmt::Display for Acting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Acting::Nft(table) => write!(f, "the nft table {table} has rules"),
            Acting::NftPolicy(chain) => write!(f, "the nft chain {chain} has the policy drop"),
            Acting::Legacy(version, table) => {
                write!(f, "the table {table} of iptables-legacy for IPv{version} has rules")
            }
        }
    }
}

/// The first that is found in the thread's network namespace.
/// # Errors
/// The kernel did not say.
pub fn acting() -> io::Result<Option<Acting>> {
    Ok(nft()?.or(legacy::acting()?))
}

fn nft() -> io::Result<Option<Acting>> {
    let mut socket = match Socket::open(Some(NETFILTER)) {
        // No netfilter.
        Err(error) if is(&error, Errno::PROTONOSUPPORT) => return Ok(None),
        socket => socket?,
    };
    let mut all = |kind| match socket.dump(&Message { kind, body: vec![0; HEADER_BYTES] }) {
        // No nf_tables.
        Err(error) if is(&error, Errno::INVAL) => Ok(Vec::new()),
        messages => messages,
    };
    if let Some(rule) = all(GET_RULE)?.first() {
        return Ok(Some(Acting::Nft(rule.named(&[RULE_TABLE]))));
    }
    let chains = all(GET_CHAIN)?;
    let drops =
        chains.iter().find(|chain| chain.attribute(CHAIN_POLICY).is_some_and(|policy| policy == DROP));
    Ok(drops.map(|chain| Acting::NftPolicy(chain.named(&[CHAIN_TABLE, CHAIN_NAME]))))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// A message of nf_tables: its kind, and what stands behind its header.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl Message {
    fn attribute(&self, kind: u16) -> Option<Vec<u8>> {
        let attributes = NlasIterator::new(self.body.get(HEADER_BYTES..)?);
        let mut found = attributes.flatten().filter(|attribute| attribute.kind() == kind);
        found.next().map(|attribute| attribute.value().to_vec())
    }

    /// Its family and these attributes, which are names.
    fn named(&self, attributes: &[u16]) -> String {
        let family = match self.body.first() {
            Some(1) => "inet",
            Some(2) => "ip",
            Some(3) => "arp",
            Some(5) => "netdev",
            Some(7) => "bridge",
            Some(10) => "ip6",
            _ => "of another family",
        };
        let names = attributes.iter().map(|kind| {
            let name = self.attribute(*kind).unwrap_or_default();
            String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
        });
        [family.to_owned()].into_iter().chain(names).collect::<Vec<_>>().join(" ")
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, body: &[u8]) -> Result<Self, Infallible> {
        Ok(Message { kind: header.message_type, body: body.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::{making::make, *};
    use crate::scratch::Scratch;

    const INET: u8 = 1;
    const ACCEPT: u32 = 1;

    fn found(family: u8, policy: Option<u32>, rules: usize) -> Option<String> {
        Scratch::new().unwrap().enter(|| {
            make(family, "mesh", "out", policy, rules).unwrap();
            acting().unwrap().map(|acting| acting.to_string())
        })
    }

    #[test]
    fn rules_and_policies_of_nft_are_named_and_empty_tables_are_none() {
        assert_eq!(Scratch::new().unwrap().enter(|| acting().unwrap()), None);
        assert_eq!(found(INET, Some(ACCEPT), 0), None, "as iptables-nft -L leaves it");
        assert_eq!(found(INET, None, 0), None, "a chain of no hook");
        assert_eq!(found(INET, Some(ACCEPT), 2).unwrap(), "the nft table inet mesh has rules");
        assert_eq!(found(10, None, 1).unwrap(), "the nft table ip6 mesh has rules");
        assert_eq!(found(2, Some(0), 0).unwrap(), "the nft chain ip mesh out has the policy drop");
    }
}
