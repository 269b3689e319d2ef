//! Two links as one way: what comes in at one goes out at the other, whatever it is. The kernel's IP sees none of it.
//!
//! By traffic control: a qdisc for what comes in, and a filter without a condition whose action is "out there instead". Source: tc(8),
//! tc-mirred(8); Linux, `include/uapi/linux/pkt_sched.h`, `pkt_cls.h`.

use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
        TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType,
        TcOption, TcU32Selector, TcU32SelectorFlags,
    },
};

use crate::Rtnetlink;

/// The only qdisc for what comes in that a link can have.
const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: 0 };
/// ETH_P_ALL of `include/uapi/linux/if_ether.h`, in the order of the wire.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
/// Of our filter, the only one.
const PRIORITY: u32 = 1;
/// What the kernel knows a filter by beside its link.
const INFO: u32 = PRIORITY << 16 | ALL_PROTOCOLS as u32;

fn message(index: u32) -> io::Result<TcMessage> {
    Ok(TcMessage::with_index(i32::try_from(index).map_err(io::Error::other)?))
}

fn qdisc(index: u32) -> io::Result<TcMessage> {
    let mut message = message(index)?;
    message.header.parent = TcHandle::INGRESS;
    message.header.handle = INGRESS;
    message.attributes = vec![TcAttribute::Kind("ingress".into())];
    Ok(message)
}

fn filter(from: u32, to: u32) -> io::Result<TcMessage> {
    let mut way = TcMirror::default();
    way.generic.action = TcActionType::Stolen;
    way.eaction = TcMirrorActionType::EgressRedir;
    way.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.into()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(way))]),
    ];
    let mut every = TcU32Selector::default();
    every.flags = TcU32SelectorFlags::Terminal;
    let mut message = message(from)?;
    message.header.parent = INGRESS;
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
    /// Makes two links one way, in both directions.
    /// # Errors
    /// Somebody has something at what comes in at one of them ([`Rtnetlink::has_ingress`]), or the kernel lacks the means.
    pub fn join(&mut self, one: u32, other: u32) -> io::Result<()> {
        for (from, to) in [(one, other), (other, one)] {
            self.ask(RouteNetlinkMessage::NewQueueDiscipline(qdisc(from)?), NLM_F_CREATE | NLM_F_EXCL)?;
            self.ask(RouteNetlinkMessage::NewTrafficFilter(filter(from, to)?), NLM_F_CREATE | NLM_F_EXCL)?;
        }
        Ok(())
    }

    /// Whether somebody has a qdisc at what comes in at a link.
    /// # Errors
    /// As [`Rtnetlink::dump`].
    pub fn has_ingress(&mut self, index: u32) -> io::Result<bool> {
        self.ingress(index).map(|qdisc| qdisc.is_some())
    }

    fn ingress(&mut self, index: u32) -> io::Result<Option<TcMessage>> {
        let all = self.dump(&RouteNetlinkMessage::GetQueueDiscipline(message(index)?))?;
        Ok(all.into_iter().find_map(|qdisc| match qdisc {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc)
                if qdisc.header.index.cast_unsigned() == index
                    && qdisc.header.parent == TcHandle::INGRESS =>
            {
                Some(qdisc)
            }
            _ => None,
        }))
    }

    /// Takes a link out of its way, if that leads to a link that is gone, or whose name is `ours`; what somebody else has at what comes in
    /// stays as it is. One that is in none is no error.
    /// # Errors
    /// It is gone.
    pub fn part(&mut self, index: u32, ours: impl Fn(&str) -> bool) -> io::Result<()> {
        let is_plain = |kind: &TcAttribute| *kind == TcAttribute::Kind("ingress".into());
        if !self.ingress(index)?.is_some_and(|qdisc| qdisc.attributes.iter().any(is_plain)) {
            return Ok(());
        }
        let mut asked = message(index)?;
        asked.header.parent = INGRESS;
        let filters = match self.dump(&RouteNetlinkMessage::GetTrafficFilter(asked)) {
            // No form that we have ever made.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(()),
            filters => filters?,
        };
        let links = self.links()?;
        // Before there is a filter the qdisc does nothing to anybody.
        let all_ours = filters.iter().all(|filter| match filter {
            RouteNetlinkMessage::NewTrafficFilter(filter) => match way(filter) {
                Way::Nothing => true,
                Way::To(to) => links.iter().find(|link| link.index == to).is_none_or(|link| ours(&link.name)),
                Way::Other => false,
            },
            _ => true,
        });
        if all_ours {
            self.ask(RouteNetlinkMessage::DelQueueDiscipline(qdisc(index)?), 0)?;
        }
        Ok(())
    }
}

/// What a message of a dump of filters tells.
enum Way {
    /// Of no filter: where filters are kept.
    Nothing,
    /// Of one like ours, to this link; to 0 if that is gone.
    To(u32),
    /// Of another one.
    Other,
}

fn way(message: &TcMessage) -> Way {
    let (mut is_u32, mut is_kept, mut ways) = (false, false, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => is_u32 = kind == TcFilterU32::KIND,
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::U32(TcFilterU32Option::Selector(_)) => is_kept = true,
                        TcOption::U32(TcFilterU32Option::Action(actions)) => {
                            ways.extend(actions.iter().map(target))
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let is_ours = message.header.info == INFO;
    match (is_u32 && is_ours, is_kept, &ways[..]) {
        (true, false, []) => Way::Nothing,
        (true, true, [Some(to)]) => Way::To(*to),
        _ => Way::Other,
    }
}

/// The link that an action sends all to.
fn target(action: &TcAction) -> Option<u32> {
    let options = action.attributes.iter().find_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    options?.iter().find_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(way)) => {
            (way.eaction == TcMirrorActionType::EgressRedir).then_some(way.ifindex)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, SocketAddr, TcpStream},
        time::Duration,
    };

    use vgpu_agent_api::network::{Mac, Prefix, Route};

    use super::*;
    use crate::scratch::Scratch;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    /// Puts a link up with these addresses, and what is in them on the link.
    fn dress(name: &str, addresses: &[&str]) {
        let mut netlink = Rtnetlink::open().unwrap();
        let index = netlink.link(name).unwrap().unwrap().index;
        netlink.set_up(index, true).unwrap();
        for (ip, bits) in addresses.iter().map(|text| text.split_once('/').unwrap()) {
            let (ip, bits): (IpAddr, u8) = (ip.parse().unwrap(), bits.parse().unwrap());
            netlink.add_address(index, &Prefix { ip, bits }).unwrap();
            let ours = ip.to_string().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
            let to = Prefix { ip: format!("{ours}0").parse().unwrap(), bits };
            let scope = if ip.is_ipv4() { 253 } else { 0 };
            let route = Route {
                to,
                gateway: None,
                interface: 0,
                metric: 1,
                scope,
                onlink: false,
                source: None,
                mtu: None,
                advmss: None,
            };
            netlink.add_route(index, &route).unwrap();
        }
    }

    /// Whether somebody at this address says that nobody serves the port: he has heard us, and we hear him.
    fn refuses(ip: &str, within_ms: u64) -> bool {
        let address = SocketAddr::new(ip.parse().unwrap(), 9);
        let tried = TcpStream::connect_timeout(&address, Duration::from_millis(within_ms));
        tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    #[test]
    fn both_ends_hear_each_other_and_the_namespace_between_hears_nothing() {
        let [node, pod, guest] = [(); 3].map(|()| Scratch::new().unwrap());
        let indices = pod.enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            for (near, far, to) in [("eth0", "far", &node), ("vif", "inner", &guest)] {
                netlink.add_veth(near, far).unwrap();
                let far = netlink.link(far).unwrap().unwrap().index;
                netlink.move_to(far, to.namespace()).unwrap();
            }
            let eth0 = netlink.link("eth0").unwrap().unwrap().index;
            netlink.set_mac(eth0, MAC).unwrap();
            // As a plugin leaves it: the kernel between would answer for these addresses itself.
            dress("eth0", &["10.0.0.2/24", "fd00::2/64"]);
            dress("vif", &[]);
            (eth0, netlink.link("vif").unwrap().unwrap().index)
        });
        node.enter(|| dress("far", &["10.0.0.1/24", "fd00::1/64"]));
        guest.enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            let inner = netlink.link("inner").unwrap().unwrap().index;
            netlink.set_mac(inner, MAC).unwrap();
            dress("inner", &["10.0.0.2/24", "fd00::2/64"]);
        });
        let heard = |guest_within_ms| {
            let from_node = node.enter(|| ["10.0.0.2", "fd00::2"].map(|ip| refuses(ip, 5000)));
            let from_guest = guest.enter(|| ["10.0.0.1", "fd00::1"].map(|ip| refuses(ip, guest_within_ms)));
            [from_node, from_guest].concat()
        };
        assert_eq!(heard(200), [true, true, false, false], "the pod answers, the guest is alone");
        pod.enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            netlink.join(indices.0, indices.1).unwrap();
            assert!(netlink.has_ingress(indices.0).unwrap() && netlink.has_ingress(indices.1).unwrap());
        });
        assert_eq!(heard(5000), [true; 4]);
        pod.enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            for index in [indices.0, indices.1, indices.1] {
                netlink.part(index, |name| ["eth0", "vif"].contains(&name)).unwrap();
                assert!(!netlink.has_ingress(index).unwrap());
            }
        });
        assert_eq!(heard(200), [true, true, false, false], "as before");
    }

    #[test]
    fn a_way_to_a_link_that_is_not_ours_is_left_and_one_to_nowhere_is_not() {
        Scratch::new().unwrap().enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            netlink.add_veth("eth0", "peer").unwrap();
            netlink.add_veth("vif", "inner").unwrap();
            let [eth0, vif, peer] =
                ["eth0", "vif", "peer"].map(|name| netlink.link(name).unwrap().unwrap().index);
            let mut left = |change: &dyn Fn(&mut Rtnetlink), ours: &str| {
                change(&mut netlink);
                netlink.part(eth0, |name| name == ours).unwrap();
                netlink.has_ingress(eth0).unwrap()
            };
            assert!(left(&|netlink| netlink.join(eth0, vif).unwrap(), "vif1"), "another's");
            assert!(!left(&|_| (), "vif"), "ours");
            let again = |netlink: &mut Rtnetlink, to| {
                let one = RouteNetlinkMessage::NewTrafficFilter(filter(eth0, to).unwrap());
                netlink
                    .ask(RouteNetlinkMessage::NewQueueDiscipline(qdisc(eth0).unwrap()), NLM_F_CREATE)
                    .unwrap();
                netlink.ask(one, NLM_F_CREATE).unwrap();
            };
            let both = |netlink: &mut Rtnetlink| {
                again(netlink, vif);
                let mut second = filter(eth0, peer).unwrap();
                second.header.info += 1 << 16;
                netlink.ask(RouteNetlinkMessage::NewTrafficFilter(second), NLM_F_CREATE).unwrap();
            };
            assert!(left(&both, "vif"), "beside one of ours is another's");
            let end = |netlink: &mut Rtnetlink| {
                netlink.ask(RouteNetlinkMessage::DelQueueDiscipline(qdisc(eth0).unwrap()), 0).unwrap();
                again(netlink, vif);
                netlink.remove_link(vif).unwrap();
            };
            assert!(!left(&end, "nobody's"), "to nowhere");
            let begun = |netlink: &mut Rtnetlink| {
                netlink
                    .ask(RouteNetlinkMessage::NewQueueDiscipline(qdisc(eth0).unwrap()), NLM_F_CREATE)
                    .unwrap();
            };
            assert!(!left(&begun, "nobody's"), "a join that was cut");
        });
    }
}
