//! A table of nf_tables for tests, as `nft` makes one.

use std::io;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE};

use super::{Message, NETFILTER, SUBSYSTEM, Socket};

const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
/// Of what is sent, and where it stands among what is.
const OUTPUT: u32 = 3;

fn message(kind: u16, family: u8, attributes: &[DefaultNla]) -> Message {
    let [high, low] = if kind < SUBSYSTEM << 8 { SUBSYSTEM.to_be_bytes() } else { [0, 0] };
    let mut body = vec![family, 0, high, low];
    let at = body.len();
    body.resize(at + attributes.buffer_len(), 0);
    attributes.emit(&mut body[at..]);
    Message { kind, body }
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), b"\0"].concat())
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// Makes a table with a chain for what is sent, of this policy, or of no hook; in it are so many rules that do nothing.
pub(crate) fn make(
    family: u8,
    table: &str,
    chain: &str,
    policy: Option<u32>,
    rules: usize,
) -> io::Result<()> {
    let mut of_chain = vec![text(1, table), text(3, chain)];
    if let Some(policy) = policy {
        of_chain.extend([
            nested(4, &[number(1, OUTPUT), number(2, 0)]),
            number(5, policy),
            text(7, "filter"),
        ]);
    }
    let rule = message(NEW_RULE, family, &[text(1, table), text(2, chain)]);
    let made = [message(NEW_TABLE, family, &[text(1, table)]), message(NEW_CHAIN, family, &of_chain)];
    let border = |kind, flags| [(message(kind, 0, &[]), flags)];
    let inner = made.into_iter().chain(vec![rule; rules]).map(|message| (message, NLM_F_CREATE));
    let mut socket = Socket::open(Some(NETFILTER))?;
    // The last one is answered, and each that is refused.
    socket.send(border(BEGIN, 0).into_iter().chain(inner).chain(border(END, NLM_F_ACK)))?;
    socket.receive::<Message>().map(drop)
}
