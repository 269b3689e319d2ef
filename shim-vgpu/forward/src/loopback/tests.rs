use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use vgpu_agent_api::network::{Prefix, Route};
use vgpu_netlink::{Rtnetlink, scratch::Scratch};

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// A namespace whose loopback is up.
fn namespace() -> Scratch {
    let scratch = Scratch::new().unwrap();
    scratch.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let index = netlink.link("lo").unwrap().unwrap().index;
        netlink.set_up(index, true).unwrap();
    });
    scratch
}

fn prefix(ip: &str, bits: u8) -> Prefix {
    Prefix { ip: ip.parse().unwrap(), bits }
}

fn route(to: &str, bits: u8, gateway: Option<IpAddr>) -> Route {
    let (to, scope) = (prefix(to, bits), if gateway.is_some() { 0 } else { 253 });
    Route {
        to,
        gateway,
        interface: 0,
        metric: 0,
        scope,
        onlink: false,
        source: None,
        mtu: None,
        advmss: None,
    }
}

fn dial(from: &Scratch, at: &str) -> io::Result<TcpStream> {
    from.enter(|| TcpStream::connect_timeout(&at.parse().unwrap(), SOON))
}

fn refused(from: &Scratch, at: &str) -> bool {
    dial(from, at).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// What comes to a listener of ours next.
fn caught(loopbacks: &[Arc<Loopback>]) -> TcpStream {
    let begun = Instant::now();
    loop {
        for loopback in loopbacks {
            if let Ok((stream, _)) = loopback.listener().accept() {
                return stream;
            }
        }
        assert!(begun.elapsed() < SOON, "nothing comes");
        thread::sleep(Duration::from_millis(1));
    }
}

fn both(of: &Scratch) -> Vec<Arc<Loopback>> {
    Loopback::both(of.namespace()).unwrap().into_iter().map(Arc::new).collect()
}

#[test]
fn each_port_of_both_addresses_comes_with_its_number_until_the_end() {
    let pod = namespace();
    let loopbacks = both(&pod);
    for at in ["127.0.0.1:1", "127.0.0.1:8080", "127.0.0.1:65535", "[::1]:1", "[::1]:8080", "[::1]:65535"] {
        let mut dialler = dial(&pod, at).unwrap();
        let mut stream = caught(&loopbacks);
        assert_eq!(stream.local_addr().unwrap(), at.parse().unwrap());
        stream.set_nonblocking(false).unwrap();
        dialler.write_all(b"word").unwrap();
        drop(dialler);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "word");
    }
    drop(loopbacks);
    assert!(refused(&pod, "127.0.0.1:8080") && refused(&pod, "[::1]:8080"));
}

/// Also where packets to 127.0.0.1 may come from outside: the pod's side lets them, and the other has no loopback of its own.
#[test]
fn other_addresses_and_what_comes_from_outside_is_not_ours() {
    let [pod, other] = [namespace(), Scratch::new().unwrap()];
    pod.wire("eth0", &other, "veth0").unwrap();
    let gateway = Some("10.0.0.2".parse().unwrap());
    let routes = [route("10.0.0.0", 24, None), route("127.0.0.1", 32, gateway)];
    for (of, name, address, routes) in
        [(&pod, "eth0", "10.0.0.2", &routes[..1]), (&other, "veth0", "10.0.0.1", &routes[..])]
    {
        of.enter(|| {
            fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            let mut netlink = Rtnetlink::open().unwrap();
            let index = netlink.link(name).unwrap().unwrap().index;
            netlink.add_address(index, &prefix(address, 24).into()).unwrap();
            routes.iter().for_each(|route| netlink.add_route(index, route).unwrap());
        });
    }
    let loopbacks = both(&pod);
    assert!(refused(&pod, "127.0.0.2:80") && refused(&pod, "10.0.0.2:80"));
    assert!(refused(&other, "10.0.0.2:80") && refused(&other, "127.0.0.1:80"));
    drop(loopbacks);
    // It is the pod's loopback that was asked.
    let _listener = pod.enter(|| TcpListener::bind("127.0.0.1:80").unwrap());
    dial(&other, "127.0.0.1:80").unwrap();
}

/// A process of the node's, which began after us.
#[test]
fn who_really_listens_is_reached_past_us() {
    let pod = namespace();
    let loopbacks = both(&pod);
    for (loopback, at) in loopbacks.iter().zip(["127.0.0.1:80", "[::1]:80"]) {
        let dialled = |at: &str| {
            let (socket, _past) = loopback.past().unwrap();
            socket.set_nonblocking(false).unwrap();
            let connected = rustix::net::connect(&socket, &at.parse::<SocketAddr>().unwrap());
            connected.map(|()| socket).map_err(io::Error::from)
        };
        let error = dialled(at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let listener = pod.enter(|| TcpListener::bind(at).unwrap());
        let socket = dialled(at).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        assert_eq!((stream.local_addr().unwrap(), peer), (at.parse().unwrap(), socket.local_addr().unwrap()));
        // The next one is ours again, from the same port too.
        drop(dial(&pod, at).unwrap());
        caught(&loopbacks);
    }
}

#[test]
fn a_namespace_that_has_one_address_has_that_one() {
    // Its loopback is down, which IPv4 does not mind.
    let loopbacks = both(&Scratch::new().unwrap());
    let ips: Vec<_> = loopbacks.iter().map(|loopback| loopback.ip).collect();
    assert_eq!(ips, [Ipv4Addr::LOCALHOST]);
}
