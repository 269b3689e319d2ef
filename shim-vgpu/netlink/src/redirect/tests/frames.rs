//! Frames as they are, of any length, sent and heard by sockets at links.
#![allow(unsafe_code, reason = "rustix has no address of a link; the block states why it is sound")]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::{OURS, World};
use crate::{Rtnetlink, redirect::ALL_PROTOCOLS, scratch::Scratch};

/// For what the kernel does within the call that sends.
const SOON: Duration = Duration::from_secs(10);
/// One that is nobody's. Source: IEEE 802, local experimental EtherType 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Sends at a link, and hears what comes there and what others send.
struct Socket(OwnedFd);

impl Socket {
    fn at(namespace: &Scratch, link: &str) -> Self {
        namespace.enter(|| {
            let index = Rtnetlink::open().unwrap().link(link).unwrap().unwrap().index;
            let kind = (AddressFamily::PACKET, SocketType::RAW);
            // Of no protocol it hears nothing until it is bound.
            let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None).unwrap();
            set_socket_timeout(&socket, Timeout::Recv, Some(SOON)).unwrap();
            let address = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET.try_into().unwrap(),
                sll_protocol: ALL_PROTOCOLS,
                sll_ifindex: index.cast_signed(),
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            let bytes = size_of_val(&address).try_into().unwrap();
            // SAFETY: the kernel reads so many bytes of the address, which lives until the call returns.
            let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), bytes) };
            assert_eq!(bound, 0, "{}", io::Error::last_os_error());
            Socket(socket)
        })
    }

    fn send(&self, frame: &[u8]) {
        let sent = send(&self.0, frame, SendFlags::empty());
        // A link may say that it has dropped it.
        assert!([Ok(frame.len()), Err(Errno::NOBUFS)].contains(&sent), "{sent:?}");
    }

    /// The lengths of those from the same sender that come until this one, which comes whole.
    fn hears(&self, last: &[u8]) -> Vec<usize> {
        let (mut buffer, mut lengths) = (vec![0; 1 << 16], Vec::new());
        loop {
            let (length, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty()).unwrap();
            let heard = &buffer[..length];
            if heard.get(6..14) == last.get(6..14) {
                lengths.push(length);
            }
            if heard == last {
                return lengths;
            }
        }
    }
}

const GUEST: u8 = 1;
const NODE: u8 = 2;

/// Of this length, to everybody; `number` is its last byte.
fn frame(from: u8, length: usize, number: u8) -> Vec<u8> {
    let mut frame = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, from], &ETHERTYPE].concat();
    frame.resize(length - 1, 0x5a);
    frame.push(number);
    frame
}

fn set_mtu(namespace: &Scratch, link: &str, mtu: u32) {
    namespace.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let index = netlink.link(link).unwrap().unwrap().index;
        netlink.set_mtu(index, mtu).unwrap();
    });
}

/// A guest sends what it likes: its own link and its vif may have a larger MTU than the pod's interface.
#[test]
fn frames_from_the_shortest_to_the_mtu_pass_whole_and_longer_ones_are_dropped() {
    let world = World::new();
    for (namespace, link) in [(&world.guest, "inner"), (&world.pod, "vif")] {
        set_mtu(namespace, link, 9000);
    }
    world.with(|netlink| netlink.join(world.eth0, world.vif, OURS).unwrap());
    let [node, hearing] = [(); 2].map(|()| Socket::at(&world.node, "far"));
    let [guest, listening] = [(); 2].map(|()| Socket::at(&world.guest, "inner"));
    for length in [15, 60, 1514] {
        guest.send(&frame(GUEST, length, 0));
        assert_eq!(hearing.hears(&frame(GUEST, length, 0)), [length]);
        node.send(&frame(NODE, length, 0));
        assert_eq!(listening.hears(&frame(NODE, length, 0)), [length]);
    }
    for length in [1600, 9014] {
        guest.send(&frame(GUEST, length, 1));
        guest.send(&frame(GUEST, 15, 2));
        assert_eq!(hearing.hears(&frame(GUEST, 15, 2)), [15], "the long one is nowhere, the next one comes");
    }
    // From a node whose link takes more than the pod's.
    set_mtu(&world.node, "far", 9000);
    node.send(&frame(NODE, 9014, 3));
    node.send(&frame(NODE, 15, 4));
    assert_eq!(listening.hears(&frame(NODE, 15, 4)), [15], "nor the other way");
}
