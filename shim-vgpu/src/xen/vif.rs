//! Network devices of a guest, served by Dom0's netback: our own nodes in xenstore, without libxl's hotplug script, and the interface that
//! netback makes of them, moved to where the pod's network is.
//!
//! Source: `xen/include/public/io/netif.h`; Linux, `drivers/net/xen-netback/xenbus.c`.

use std::{
    convert::Infallible,
    io, thread,
    time::{Duration, Instant},
};

use idm::xen::{
    DomId,
    xenstore::{Client, Permissions, Store, Watch, XsError},
};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
};
use tokio::sync::watch;
use vgpu_codes::Code;
use vgpu_netlink::{Namespace, Rtnetlink};

use super::{RETRY, nodes::write_side};
use crate::{
    error::{OrFail, Result},
    network::Vif,
};

/// For netback to make an interface of its nodes, under emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// Writes the nodes of all, waits for their interfaces and moves these into the namespace.
///
/// # Errors
/// [`Code::NetworkFailed`].
pub fn make(xenstore: &Client, guest: DomId, vifs: &[Vif], namespace: &Namespace) -> Result<()> {
    let domid = guest.get();
    let what = || format!("cannot make the vifs of domain {domid}");
    let written =
        xenstore.transaction(|nodes| vifs.iter().try_for_each(|vif| write_nodes(nodes, guest, vif)));
    written.or_fail(Code::NetworkFailed, what)?;
    let moved = move_all(vifs.iter().map(|vif| vif.name(domid)), namespace);
    moved.or_fail(Code::NetworkFailed, what)
}

/// Removes the backends' nodes: netback's interfaces go with them, wherever they are. And what Dom0's kernel has noted there of a guest whose
/// rings or states made no sense (Linux, `drivers/xen/xenbus/xenbus_client.c`, `xenbus_dev_fatal`).
///
/// # Errors
/// xenstored's.
pub fn remove(xenstore: &Client, domid: u16) -> Result<(), XsError> {
    let nodes = ["backend", "error/backend"].map(|place| format!("/local/domain/0/{place}/vif/{domid}"));
    nodes.iter().try_for_each(|node| xenstore.remove(node))
}

/// What a guest may write and netback looks at each time. Source: Linux, `drivers/net/xen-netback/xenbus.c`.
const LOOKED_AT: [&str; 2] = ["state", "request-multicast-control"];

/// Watches on those nodes of a guest's vifs, which need not be there yet.
///
/// # Errors
/// xenstored's.
pub fn states(domid: u16, vifs: usize) -> Result<Vec<Watch>, XsError> {
    let xenstore = Client::connect()?;
    let nodes =
        (0..vifs).flat_map(|number| LOOKED_AT.map(|node| format!("{}/{node}", front_of(domid, number))));
    nodes.map(|node| xenstore.watch(&node)).collect()
}

/// Counts what a guest writes to them, by the watches that there are and, over xenstored's restarts, by later ones. Never returns.
pub fn count_changes(
    domid: u16,
    vifs: usize,
    mut states: Result<Vec<Watch>, XsError>,
    changes: &watch::Sender<u64>,
) {
    loop {
        let Err(error) = states.map_err(io::Error::other).and_then(|states| count(&states, changes));
        log::debug!("the states of the vifs of domain {domid}: {error}");
        thread::sleep(RETRY);
        states = self::states(domid, vifs);
    }
}

fn count(states: &[Watch], changes: &watch::Sender<u64>) -> io::Result<Infallible> {
    loop {
        let mut readable: Vec<_> = states.iter().map(|state| PollFd::new(state, PollFlags::IN)).collect();
        match rustix::event::poll(&mut readable, None) {
            Err(Errno::INTR) => {}
            polled => drop(polled?),
        }
        for state in states {
            let fired = state.take().map_err(io::Error::other)?;
            changes.send_if_modified(|count| {
                *count += fired;
                fired > 0
            });
        }
    }
}

fn move_all(names: impl Iterator<Item = String>, namespace: &Namespace) -> io::Result<()> {
    let mut netlink = Rtnetlink::open()?;
    let deadline = Instant::now() + LIMIT;
    for name in names {
        let index = loop {
            match netlink.link(&name)? {
                Some(link) => break link.index,
                None if Instant::now() > deadline => {
                    let what = format!("netback has not made {name} within {} s", LIMIT.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, what));
                }
                None => thread::sleep(PAUSE),
            }
        };
        netlink.move_to(index, namespace)?;
    }
    Ok(())
}

/// The guest's side, which it may write.
fn front_of(domid: u16, number: usize) -> String {
    format!("/local/domain/{domid}/device/vif/{number}")
}

/// Both sides of the device. What the guest is to have of a network is not here: it could write some of these nodes.
fn write_nodes(nodes: &impl Store, guest: DomId, vif: &Vif) -> Result<(), XsError> {
    let (domid, number) = (guest.get().to_string(), vif.number.to_string());
    let (mac, mtu) = (vif.mac.to_string(), vif.mtu.to_string());
    let back = format!("/local/domain/0/backend/vif/{domid}/{number}");
    let front = front_of(guest.get(), vif.number);
    let back_nodes = [
        ("frontend", front.as_str()),
        ("frontend-id", &domid),
        ("online", "1"),
        ("state", "1"),
        ("handle", &number),
        ("mac", &mac),
        // Netback wants a script's name for udev, and goes on without that script's word.
        ("script", ""),
        ("hotplug-status", "connected"),
    ];
    let front_nodes = [
        ("backend", back.as_str()),
        ("backend-id", "0"),
        ("state", "1"),
        ("handle", &number),
        ("mac", &mac),
        ("mtu", &mtu),
    ];
    write_side(nodes, &back, &back_nodes, &Permissions::owned(DomId::DOM0, guest))?;
    write_side(nodes, &front, &front_nodes, &Permissions::owned(guest, DomId::DOM0))
}
