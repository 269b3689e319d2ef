//! What is dialled at the loopback of a pod's network namespace on the node, as containerd does for a port-forward, reaches the guest's loopback.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use vgpu_contract::mock::{Shim, until};
use vgpu_netlink::{Namespace, Rtnetlink, scratch::Scratch};

use crate::{
    containerd::Containerd,
    guest::{cgroup, kill, pid_1},
    network::{guest_of, joins},
};

/// Longer than anything takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// What a pod has at once.
const CONNECTIONS_MAX: usize = 64;

/// A pod whose namespace has a loopback and nothing else.
struct World {
    containerd: Containerd,
    shim: Shim,
    lives: Vec<String>,
    pod: Scratch,
    guest: Namespace,
}

impl World {
    async fn new(script: &str) -> Self {
        let pod = Scratch::new().unwrap();
        pod.enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            let index = netlink.link("lo").unwrap().unwrap().index;
            netlink.set_up(index, true).unwrap();
        });
        let containerd = Containerd::new().await;
        containerd.bundle("a", script, |spec| joins(spec, &pod));
        let shim = containerd.start("a").await;
        containerd.create(&shim, "a").await;
        let (lives, guest) = (containerd.lives(), guest_of(&cgroup(&containerd)));
        World { containerd, shim, lives, pod, guest }
    }

    /// A program of the pod's listens there.
    fn serve(&self, at: &str) -> TcpListener {
        self.guest.enter(|| TcpListener::bind(at).unwrap()).unwrap()
    }

    /// As containerd, of the namespace on the node.
    fn dial(&self, at: &str) -> std::io::Result<TcpStream> {
        let stream = self.pod.enter(|| TcpStream::connect_timeout(&at.parse().unwrap(), SOON))?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(stream)
    }

    /// The dialler's end, and the program's.
    fn connect(&self, at: &str, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let mut dialler = self.dial(at).unwrap();
        // One that was reset does not come.
        dialler.set_nonblocking(true).unwrap();
        listener.set_nonblocking(true).unwrap();
        let program = loop {
            match listener.accept() {
                Ok((program, _)) => break program,
                Err(waiting) => assert_eq!(waiting.kind(), ErrorKind::WouldBlock),
            }
            let unheard = dialler.read(&mut [0]).unwrap_err();
            assert_eq!(unheard.kind(), ErrorKind::WouldBlock, "{at}");
            thread::sleep(Duration::from_millis(1));
        };
        for end in [&dialler, &program] {
            end.set_nonblocking(false).unwrap();
        }
        program.set_read_timeout(Some(SOON)).unwrap();
        (dialler, program)
    }

    /// Of one that was accepted, or was not.
    fn end_of(&self, at: &str) -> ErrorKind {
        let ended = self.dial(at).and_then(|mut stream| stream.read(&mut [0]));
        ended.unwrap_err().kind()
    }

    async fn end(self) {
        self.shim.signal("a", 9).await;
        assert_eq!((self.shim.wait("a").await, self.shim.delete("a").await), (137, 137));
        // Nobody accepts any more, and what listened is gone with its namespace's other sockets.
        assert_eq!(self.end_of("127.0.0.1:80"), ErrorKind::ConnectionRefused);
        self.shim.shut_down().await;
        self.containerd.delete("a");
        self.containerd.assert_nothing_left(&self.lives).await;
    }
}

/// Each of the two says something to the end, and the other hears it to the end.
fn converse(mut first: TcpStream, mut second: TcpStream) {
    say(&mut first, &mut second, "question");
    say(&mut second, &mut first, "answer");
}

fn say(from: &mut TcpStream, to: &mut TcpStream, words: &str) {
    from.write_all(words.as_bytes()).unwrap();
    from.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    to.read_to_string(&mut text).unwrap();
    assert_eq!(text, words);
}

/// What listens in the namespace on the node is ours, at a port like others. Source: `proc_pid_net(5)`, `TCP_LISTEN`.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_of_our_own_listener_is_the_guests_as_each_other() {
    let world = World::new("exec sleep 1000").await;
    let sockets = world.pod.enter(|| fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    let listens = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        (state == "0A").then(|| u16::from_str_radix(local.split_once(':')?.1, 16).ok()).flatten()
    };
    let ports: Vec<u16> = sockets.lines().filter_map(listens).collect();
    let [port] = ports[..] else { panic!("one listens: {sockets}") };
    let at = format!("127.0.0.1:{port}");
    assert_eq!(world.end_of(&at), ErrorKind::ConnectionReset, "nobody of the guest's listens");
    let listener = world.serve(&at);
    let (dialler, program) = world.connect(&at, &listener);
    converse(dialler, program);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_reached_at_each_loopback_address_and_each_side_may_end_first() {
    let world = World::new("busybox nc -l -p 8080 -e busybox cat; exec sleep 1000").await;
    // Before it listens the connection is reset.
    let echoed = || {
        let echoed = world.dial("127.0.0.1:8080").and_then(|mut stream| {
            stream.write_all(b"word\n")?;
            stream.read_exact(&mut [0; 5])
        });
        echoed.is_ok()
    };
    until("the container's program answers", echoed, || world.containerd.output("a")).await;
    // Only IPv6 has a listener: who dials goes on to it where IPv4 is refused, which is not what our accepting says.
    let cases = [
        "127.0.0.1 127.0.0.1",
        "127.0.0.1 0.0.0.0",
        "127.0.0.1 [::1]",
        "127.0.0.1 [::]",
        "[::1] [::1]",
        "[::1] [::]",
    ];
    for (case, port) in cases.iter().zip(8001..) {
        let (dialled, served) = case.split_once(' ').unwrap();
        let (at, listener) = (format!("{dialled}:{port}"), world.serve(&format!("{served}:{port}")));
        let (dialler, program) = world.connect(&at, &listener);
        converse(dialler, program);
        let (dialler, program) = world.connect(&at, &listener);
        converse(program, dialler);
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_the_connection_is_reset() {
    let world = World::new("exec sleep 1000").await;
    let _only_ipv4 = world.serve("127.0.0.1:81");
    for at in ["127.0.0.1:80", "[::1]:80", "[::1]:81"] {
        assert_eq!(world.end_of(at), ErrorKind::ConnectionReset, "{at}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn much_comes_whole_both_ways_beside_others() {
    const MUCH: usize = 16 << 20;
    let world = World::new("exec sleep 1000").await;
    let listener = world.serve("127.0.0.1:80");
    let connections: Vec<_> = (0..3).map(|_| world.connect("127.0.0.1:80", &listener)).collect();
    thread::scope(|scope| {
        for (ends, key) in connections.iter().zip([1, 2, 4]) {
            let bytes =
                move |turned: u8| (0..251).cycle().take(MUCH).map(move |byte: u8| byte ^ key ^ turned);
            for (mut says, mut hears, turned) in [(&ends.0, &ends.1, 0), (&ends.1, &ends.0, 128)] {
                scope.spawn(move || {
                    says.write_all(&bytes(turned).collect::<Vec<_>>()).unwrap();
                    says.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || {
                    let mut heard = Vec::new();
                    hears.read_to_end(&mut heard).unwrap();
                    assert!(heard.iter().copied().eq(bytes(turned)), "{} of {MUCH} bytes", heard.len());
                });
            }
        }
    });
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_are_connected_at_once_and_one_more_after_an_end() {
    let world = World::new("exec sleep 1000").await;
    let listener = world.serve("127.0.0.1:80");
    let mut connections: Vec<_> =
        (0..CONNECTIONS_MAX).map(|_| world.connect("127.0.0.1:80", &listener)).collect();
    assert_eq!(world.end_of("127.0.0.1:80"), ErrorKind::ConnectionReset);
    connections.pop();
    let again = || {
        let connected = world.dial("127.0.0.1:80").and_then(|mut dialler| {
            listener.set_nonblocking(true)?;
            dialler.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(dialler.read(&mut [0]).unwrap_err().kind())
        });
        connected.is_ok_and(|waiting| waiting == ErrorKind::WouldBlock)
    };
    until("one more is connected", again, || "the last is reset".into()).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_the_node_that_listens_in_the_pods_namespace_goes_before_the_guest() {
    let world = World::new("exec sleep 1000").await;
    let _guests = world.serve("0.0.0.0:80");
    let nodes = world.pod.enter(|| TcpListener::bind("127.0.0.1:80").unwrap());
    let (dialler, process) = world.connect("127.0.0.1:80", &nodes);
    converse(dialler, process);
    drop(nodes);
    world.end().await;
}

/// As the crash of a kernel, and then the shim's.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_guest_its_connections_end_and_with_the_shim_what_listens() {
    let world = World::new("exec sleep 1000").await;
    let listener = world.serve("127.0.0.1:80");
    let (mut dialler, program) = world.connect("127.0.0.1:80", &listener);
    drop((listener, program));
    kill(pid_1(&cgroup(&world.containerd)));
    assert_eq!(dialler.read(&mut [0]).unwrap_or(0), 0);
    // One that is taken while the guest is dying has an end, as the first one has.
    let dialled = || world.dial("127.0.0.1:80").and_then(|mut stream| stream.read(&mut [0]));
    let refused = || dialled().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    until("a dead guest's port is refused", refused, String::new).await;
    world.shim.delete("a").await;
    world.shim.shut_down().await;
    world.containerd.delete("a");
    world.containerd.assert_nothing_left(&world.lives).await;

    let World { containerd, shim, lives, pod, .. } = World::new("exec sleep 1000").await;
    shim.kill().await;
    let refused = pod.enter(|| TcpStream::connect_timeout(&"127.0.0.1:80".parse().unwrap(), SOON));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
}
