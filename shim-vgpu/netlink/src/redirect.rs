//! Two links as one way: what comes in at one goes out at the other, whatever it is. The kernel's IP sees none of it.
//!
//! By traffic control: a qdisc for what comes in, and a filter without a condition whose action is "out there instead". The action has a
//! cookie, by which it is known again. What others have at a link stays and acts: its qdisc and filters for what goes out see the guest's
//! packets; a `clsact` of theirs has our filter beside them, after each that they add later. Where they have filters or BPF programs for what comes in, ours
//! would see no packet that theirs let pass: [`Rtnetlink::incoming`] names them. Source: tc(8), tc-mirred(8); Linux,
//! `include/uapi/linux/pkt_sched.h`, `pkt_cls.h`.

mod tcx;

use std::{convert::Infallible, io};

use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_EXCL, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
        TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType,
        TcOption, TcU32Selector, TcU32SelectorFlags,
    },
};

use crate::Rtnetlink;

/// The only qdisc for what comes in that a link can have, whichever kind it is.
const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: 0 };
/// Of that kind it is ours; of the other, which is for what goes out, too, somebody else's.
const OUR_KIND: &str = "ingress";
const THEIR_KIND: &str = "clsact";
/// Where filters for what comes in are.
const INCOMING: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
/// ETH_P_ALL of `include/uapi/linux/if_ether.h`, in the order of the wire.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
/// Of our filter: the last there is.
const PRIORITY: u32 = 0xffff;
/// What the kernel knows a filter by beside its link.
const INFO: u32 = PRIORITY << 16 | ALL_PROTOCOLS as u32;

/// Whose a way is. Source: Linux, `include/uapi/linux/pkt_cls.h`, `TC_COOKIE_MAX_SIZE`.
pub type Cookie = [u8; 16];

fn message(index: u32) -> io::Result<TcMessage> {
    Ok(TcMessage::with_index(i32::try_from(index).map_err(io::Error::other)?))
}

fn qdisc(index: u32) -> io::Result<TcMessage> {
    let mut message = message(index)?;
    message.header.parent = TcHandle::INGRESS;
    message.header.handle = INGRESS;
    message.attributes = vec![TcAttribute::Kind(OUR_KIND.into())];
    Ok(message)
}

fn filter(from: u32, to: u32, cookie: Cookie) -> io::Result<TcMessage> {
    let mut way = TcMirror::default();
    way.generic.action = TcActionType::Stolen;
    way.eaction = TcMirrorActionType::EgressRedir;
    way.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.into()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(way))]),
        TcActionAttribute::Cookie(cookie.into()),
    ];
    let mut every = TcU32Selector::default();
    every.flags = TcU32SelectorFlags::Terminal;
    let mut message = message(from)?;
    message.header.parent = INCOMING;
    message.header.info = INFO;
    message.attributes = vec![
        TcAttribute::Kind(TcFilterU32::KIND.into()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(every)),
            TcOption::U32(TcFilterU32Option::Action(vec![action])),
        ]),
    ];
    Ok(message)
}

impl Rtnetlink {
    /// Makes two links one way, in both directions. `cookie` says whose it is.
    /// # Errors
    /// Somebody has something at what comes in at one of them ([`Rtnetlink::incoming`]), or the kernel lacks the means.
    pub fn join(&mut self, one: u32, other: u32, cookie: Cookie) -> io::Result<()> {
        for (from, to) in [(one, other), (other, one)] {
            if self.ingress(from)?.as_deref() != Some(THEIR_KIND) {
                self.ask(RouteNetlinkMessage::NewQueueDiscipline(qdisc(from)?), NLM_F_CREATE | NLM_F_EXCL)?;
            }
            let filter = RouteNetlinkMessage::NewTrafficFilter(filter(from, to, cookie)?);
            self.ask(filter, NLM_F_CREATE | NLM_F_EXCL)?;
        }
        Ok(())
    }

    /// What somebody has at what comes in at a link, beside which no way can be.
    /// # Errors
    /// As [`Rtnetlink::dump`].
    pub fn incoming(&mut self, index: u32) -> io::Result<Option<String>> {
        Ok(match self.ingress(index)? {
            Some(kind) if kind != THEIR_KIND => {
                Some(format!("a queueing discipline for what comes in ({kind})"))
            }
            Some(kind) if !self.filters(index)?.is_empty() => {
                Some(format!("filters for what comes in (of {kind})"))
            }
            _ if tcx::programs(index)? > 0 => Some("a BPF program for what comes in (tcx)".into()),
            _ => None,
        })
    }

    /// The kind of the qdisc for what comes in.
    fn ingress(&mut self, index: u32) -> io::Result<Option<String>> {
        let all = self.dump(&RouteNetlinkMessage::GetQueueDiscipline(message(index)?))?;
        let found = all.iter().find_map(|qdisc| match qdisc {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc)
                if qdisc.header.index.cast_unsigned() == index
                    && qdisc.header.parent == TcHandle::INGRESS =>
            {
                Some(qdisc)
            }
            _ => None,
        });
        let kind = found.map(|qdisc| qdisc.attributes.iter().find_map(kind).unwrap_or_default());
        Ok(kind.map(str::to_owned))
    }

    /// The filters for what comes in. None: one of a form that we know nothing of.
    fn filters(&mut self, index: u32) -> io::Result<Vec<Option<TcMessage>>> {
        let mut asked = message(index)?;
        asked.header.parent = INCOMING;
        let all = self.0.dump(&Told(Some(RouteNetlinkMessage::GetTrafficFilter(asked))))?;
        let filters = all.into_iter().map(|Told(filter)| match filter {
            Some(RouteNetlinkMessage::NewTrafficFilter(filter)) => Some(filter),
            _ => None,
        });
        Ok(filters.collect())
    }

    /// Takes a link out of the way of this cookie; what somebody else has at what comes in stays as it is. One that is in none is no error.
    /// # Errors
    /// It is gone.
    pub fn part(&mut self, index: u32, cookie: Cookie) -> io::Result<()> {
        let Some(kind) = self.ingress(index)? else { return Ok(()) };
        let filters = self.filters(index)?;
        let known = filters.iter().flatten().filter(|filter| !is_place(filter));
        let (ours, others): (Vec<_>, Vec<_>) = known.partition(|filter| is_of(filter, cookie));
        // One of a form that we know nothing of is somebody else's, wherever it is.
        let unknown = filters.iter().any(Option::is_none);
        let shared = unknown || others.iter().any(|other| other.header.info == INFO);
        for filter in ours {
            let mut ours = message(index)?;
            ours.header.parent = INCOMING;
            ours.header.info = INFO;
            // None is all of its priority, with where they are kept.
            ours.header.handle = if shared { filter.header.handle } else { TcHandle::default() };
            ours.attributes = vec![TcAttribute::Kind(TcFilterU32::KIND.into())];
            self.ask(RouteNetlinkMessage::DelTrafficFilter(ours), 0)?;
        }
        // Ours, and before there is a filter it does nothing to anybody.
        if kind == OUR_KIND && others.is_empty() && !unknown {
            self.ask(RouteNetlinkMessage::DelQueueDiscipline(qdisc(index)?), 0)?;
        }
        Ok(())
    }
}

/// A message of rtnetlink. None: one whose attributes have a form that we know nothing of; those beside it are told all the same.
#[derive(Clone, Debug)]
struct Told(Option<RouteNetlinkMessage>);

impl NetlinkSerializable for Told {
    fn message_type(&self) -> u16 {
        self.0.as_ref().map_or(0, NetlinkSerializable::message_type)
    }

    fn buffer_len(&self) -> usize {
        self.0.as_ref().map_or(0, NetlinkSerializable::buffer_len)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(message) = &self.0 {
            message.serialize(buffer);
        }
    }
}

impl NetlinkDeserializable for Told {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, body: &[u8]) -> Result<Self, Infallible> {
        Ok(Told(RouteNetlinkMessage::deserialize(header, body).ok()))
    }
}

fn kind(attribute: &TcAttribute) -> Option<&str> {
    match attribute {
        TcAttribute::Kind(kind) => Some(kind),
        _ => None,
    }
}

/// Of no filter, but of where those of our priority are kept.
fn is_place(message: &TcMessage) -> bool {
    let is_u32 = message.attributes.iter().find_map(kind) == Some(TcFilterU32::KIND);
    let is_kept = |option: &TcOption| matches!(option, TcOption::U32(TcFilterU32Option::Selector(_)));
    is_u32 && message.header.info == INFO && !options(message).any(is_kept)
}

/// A filter with an action of this cookie.
fn is_of(message: &TcMessage, cookie: Cookie) -> bool {
    let cookie = TcActionAttribute::Cookie(cookie.into());
    options(message).any(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => {
            actions.iter().any(|action| action.attributes.contains(&cookie))
        }
        _ => false,
    })
}

fn options(message: &TcMessage) -> impl Iterator<Item = &TcOption> {
    message.attributes.iter().flat_map(|attribute| match attribute {
        TcAttribute::Options(options) => &options[..],
        _ => &[],
    })
}

#[cfg(test)]
mod tests;
