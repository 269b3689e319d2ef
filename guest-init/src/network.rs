//! The pod's network in the guest: the devices that the domain was given become the interfaces of the pod's network namespace on the node.
//!
//! [`make`] is all of it. The kernel adds nothing of its own: no address by the MAC, none from a router, no question whether an address is
//! free; what holds in the pod's namespace was settled there.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use vgpu_agent_api::{
    network::{DEVICES_LIMIT, Interface, Network},
    sysctl::Sysctl,
};
use vgpu_netlink::{Rtnetlink, link::Link};

use crate::{
    boot::console::say,
    error::{During, Result},
    sysctl,
};

const PAUSE: Duration = Duration::from_millis(5);

/// Makes the interfaces, with their addresses, routes and neighbours, of the thread's network namespace. Blocks.
/// # Errors
/// A device is missing or has no carrier within [`DEVICES_LIMIT`]; what the kernel refuses, each with its name.
pub fn make(network: &Network) -> Result<()> {
    make_within(network, DEVICES_LIMIT)
}

/// [`make`] with another limit than what the shim reckons with.
/// # Errors
/// As [`make`].
pub fn make_within(network: &Network, limit: Duration) -> Result<()> {
    let mut netlink = Rtnetlink::open().during(|| "open a socket to the kernel's network".into())?;
    let wait = Wait { limit, deadline: Instant::now() + limit };
    let mut indices = Vec::new();
    for interface in &network.interfaces {
        indices.push(find(&mut netlink, interface, &wait)?);
    }
    rename(&mut netlink, &network.interfaces, &indices)?;
    // Before there are addresses: IPv6 that is switched off and on has none left.
    set_sysctls(&network.sysctls);
    for (interface, index) in network.interfaces.iter().zip(&indices) {
        bring_up(&mut netlink, interface, *index)?;
    }
    for (interface, index) in network.interfaces.iter().zip(&indices) {
        let is_it = |link: &Link| link.index == *index && link.carrier;
        wait.until(&mut netlink, interface, "a carrier of", is_it)?;
    }
    for route in &network.routes {
        let (name, index) = (&network.interfaces[route.interface].name, indices[route.interface]);
        netlink.add_route(index, route).during(|| {
            let by = route.gateway.map(|ip| format!(" by {ip}")).unwrap_or_default();
            format!("add the route to {}{by} through {name}", route.to)
        })?;
    }
    for neighbour in &network.neighbours {
        let (name, index) = (&network.interfaces[neighbour.interface].name, indices[neighbour.interface]);
        netlink
            .add_neighbour(index, neighbour)
            .during(|| format!("add the neighbour {} of {name}, {}", neighbour.ip, neighbour.mac))?;
    }
    Ok(())
}

/// The number of the device that is to be this interface.
fn find(netlink: &mut Rtnetlink, interface: &Interface, wait: &Wait) -> Result<u32> {
    let is_it = |link: &Link| !link.loopback && link.mac == Some(interface.mac);
    wait.until(netlink, interface, "the device of", is_it).map(|link| link.index)
}

/// One time for all devices.
struct Wait {
    limit: Duration,
    deadline: Instant,
}

impl Wait {
    fn until(
        &self,
        netlink: &mut Rtnetlink,
        interface: &Interface,
        what: &str,
        is_it: impl Fn(&Link) -> bool,
    ) -> Result<Link> {
        let waiting = || {
            let (Interface { name, mac, .. }, seconds) = (interface, self.limit.as_secs());
            format!("wait {seconds} s for {what} {name} ({mac}), which the node's xen-netback has to serve")
        };
        loop {
            let links = netlink.links().during(waiting)?;
            if let Some(link) = links.into_iter().find(&is_it) {
                return Ok(link);
            }
            if Instant::now() > self.deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut)).during(waiting);
            }
            thread::sleep(PAUSE);
        }
    }
}

/// By way of names that nobody has: two devices may have each other's.
fn rename(netlink: &mut Rtnetlink, interfaces: &[Interface], indices: &[u32]) -> Result<()> {
    for index in indices {
        netlink.set_up(*index, false).during(|| "put a device down".into())?;
        netlink.rename(*index, &format!("vgpu{index}")).during(|| "rename a device".into())?;
    }
    for (Interface { name, mac, .. }, index) in interfaces.iter().zip(indices) {
        netlink.rename(*index, name).during(|| format!("give the device {mac} the name {name}"))?;
    }
    Ok(())
}

/// Those of `all` interfaces first, which write each one's, then `default`; and twice, since `forwarding` writes others when it changes:
/// the second time it stays. What the guest's kernel does not have is no reason to refuse a pod.
fn set_sysctls(sysctls: &BTreeMap<Sysctl, String>) {
    let mut ordered: Vec<_> = sysctls.iter().collect();
    ordered.sort_by_key(|(sysctl, _)| {
        let file = sysctl.file();
        let is_of = |name| Path::new(&file).iter().nth(3).is_some_and(|part| part == name);
        (!is_of("all"), !is_of("default"))
    });
    for (sysctl, value) in &ordered {
        // The second time says it.
        let _ = sysctl::set(sysctl, value);
    }
    for (sysctl, value) in ordered {
        if let Err(error) = sysctl::set(sysctl, value) {
            say(format_args!("of the pod's network: {}", vgpu_codes::with_causes(&error)));
        }
    }
}

fn bring_up(netlink: &mut Rtnetlink, interface: &Interface, index: u32) -> Result<()> {
    let Interface { name, mtu, addresses, .. } = interface;
    netlink.no_own_addresses(index).during(|| format!("keep {name} from addresses of its own"))?;
    let file = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
    match fs::write(&file, "0") {
        // Without IPv6 there are no routers to listen to.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        written => written.during(|| format!("write {file}"))?,
    }
    netlink.set_mtu(index, *mtu).during(|| format!("set the MTU of {name} to {mtu}"))?;
    netlink.set_up(index, true).during(|| format!("put {name} up"))?;
    for address in addresses {
        netlink
            .add_address(index, address)
            .during(|| format!("give {name} the address {}", address.prefix))?;
    }
    Ok(())
}
