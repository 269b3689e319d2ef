//! What is dialled at the loopback of a pod's network namespace, where the guest has no answer. One that has is in tests/local.

use std::{
    io::{ErrorKind, Read as _},
    net::TcpStream,
};

use vgpu_netlink::{Namespace, Rtnetlink, scratch::Scratch};

use super::{network::in_namespace, *};
use crate::forward;

fn namespace() -> Scratch {
    let pod = Scratch::new().unwrap();
    pod.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let index = netlink.link("lo").unwrap().unwrap().index;
        netlink.set_up(index, true).unwrap();
    });
    pod
}

/// Whether the port accepts, and then how the connection ends.
fn dial(pod: &Scratch, at: &str) -> (bool, ErrorKind) {
    match pod.enter(|| TcpStream::connect(at)) {
        Ok(mut stream) => (true, stream.read(&mut [0]).unwrap_err().kind()),
        Err(error) => (false, error.kind()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_guests_ports_are_not_forwarded() {
    for (is_old, end) in
        [(false, (true, ErrorKind::ConnectionReset)), (true, (false, ErrorKind::ConnectionRefused))]
    {
        let (pod, node) = (namespace(), Node::new(Habits { is_old, ..Habits::default() }).await);
        node.pod.clone().create(in_namespace(&node, "run", pod.path())).await.unwrap();
        for at in ["127.0.0.1:80", "[::1]:80"] {
            assert_eq!(dial(&pod, at), end, "{at}, is old: {is_old}");
        }
        node.delete("run").await.unwrap();
        assert_eq!(dial(&pod, "127.0.0.1:80"), (false, ErrorKind::ConnectionRefused));
    }
}

#[tokio::test]
async fn without_a_loopback_there_are_no_doors() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    let guest = node.pod.guest().unwrap();
    assert_eq!(forward::doors(&guest, namespace().namespace()).await.len(), 2);
    let none = Namespace::open(Path::new("/dev/null")).unwrap();
    assert_eq!(forward::doors(&guest, &none).await.len(), 0);
}
