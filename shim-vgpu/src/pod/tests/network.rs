//! Pods in a network namespace that somebody made; the vifs are veths, the rest of it is the kernel's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::atomic::Ordering,
};

use vgpu_agent_api::{
    network::{Mac, Network, Prefix},
    sysctl::Sysctl,
};
use vgpu_netlink::{Id, Namespace, Rtnetlink, scan::scan, scratch::Scratch};

use super::{world::Source, *};
use crate::{
    network::{NetworkRecord, PodNetwork},
    pod::{
        Pod,
        steps::{Cut, Step},
    },
};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// A pod's namespace as a plugin leaves it, and the one at its wires' other ends.
fn namespaces(interfaces: &[&str]) -> (Scratch, Scratch) {
    let [pod, node] = [(); 2].map(|()| Scratch::new().unwrap());
    for (number, name) in interfaces.iter().enumerate() {
        pod.wire(name, &node, &format!("veth{number}")).unwrap();
    }
    pod.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let index = netlink.link(interfaces[0]).unwrap().unwrap().index;
        netlink.set_mac(index, MAC).unwrap();
        netlink.set_mtu(index, 1400).unwrap();
        for ip in ["10.0.0.2", "fd00::2"] {
            netlink.add_address(index, &Prefix { ip: ip.parse().unwrap(), bits: 24 }.into()).unwrap();
        }
    });
    (pod, node)
}

/// One in which somebody has made the two interfaces one way.
fn joined_namespaces() -> (Scratch, Scratch) {
    let (pod, node) = namespaces(&["eth0", "net1"]);
    pod.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let [one, other] = ["eth0", "net1"].map(|name| netlink.link(name).unwrap().unwrap().index);
        netlink.join(one, other, [7; 16]).unwrap();
    });
    (pod, node)
}

/// What the pod's namespace has: each link, its MTU, whether it is up, whether it is one way with another.
fn links(pod: &Scratch) -> Vec<(String, u32, bool, bool)> {
    pod.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let links = netlink.links().unwrap().into_iter().filter(|link| !link.loopback);
        let links: Vec<_> = links
            .map(|link| {
                let joined = netlink.incoming(link.index).unwrap().is_some();
                (link.name, link.mtu, link.up, joined)
            })
            .collect();
        links
    })
}

fn edit(request: &api::CreateTaskRequest, change: impl FnOnce(&mut serde_json::Value)) {
    let file = Path::new(&request.bundle).join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut spec);
    fs::write(file, spec.to_string()).unwrap();
}

pub fn in_namespace(node: &Node, id: &str, path: PathBuf) -> api::CreateTaskRequest {
    let request = node.request(id, json!({}));
    edit(&request, |spec| spec["linux"]["namespaces"][4]["path"] = path.to_str().unwrap().into());
    request
}

#[tokio::test]
async fn each_interface_of_the_pod_is_one_way_with_a_vif_until_the_pods_end() {
    let (pod, _far) = namespaces(&["eth0", "net1"]);
    let (before, wanted) = (links(&pod), pod.enter(|| scan().unwrap()));
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(in_namespace(&node, "run", pod.path())).await.unwrap();
    assert_eq!((wanted.interfaces[0].name.as_str(), wanted.interfaces[0].addresses.len()), ("eth0", 2));
    assert_eq!(*node.world.networks.lock().unwrap(), [wanted]);
    let named = |name: &str| links(&pod).into_iter().find(|(found, ..)| found == name).unwrap();
    let own = |name: &str, mtu| (name.to_owned(), mtu, true, true);
    assert_eq!(
        ["eth0", "vif1.0", "net1", "vif1.1"].map(named),
        [own("eth0", 1400), own("vif1.0", 1400), own("net1", 1500), own("vif1.1", 1500)]
    );
    node.start("run", "").await.unwrap();
    node.kill("run", 9).await.unwrap();
    node.wait("run", "").await;
    node.delete("run").await.unwrap();
    assert_eq!(links(&pod), before);
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn the_network_has_its_own_time_and_nobody_waits_for_one_that_is_not_wanted() {
    let (pod, _far) = namespaces(&["eth0"]);
    let node = Node::new(Habits { is_slow: true, ..Habits::default() }).await;
    node.pod.clone().create(in_namespace(&node, "run", pod.path())).await.unwrap();
    node.delete("run").await.unwrap();

    let node = Node::new(Habits { hangs: true, ..Habits::default() }).await;
    let creating = tokio::spawn(node.pod.clone().create(in_namespace(&node, "run", pod.path())));
    let asked = async {
        until("the guest is told of its network", || !node.world.networks.lock().unwrap().is_empty()).await;
        assert_eq!(node.delete("run").await.unwrap_err().code(), Some(Code::NoSuchTask), "there is none yet");
        creating.await.unwrap()
    };
    let refused = tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Some(Code::WrongState));
    node.world.assert_nothing_left("its Create was given up");
}

#[tokio::test]
async fn a_namespace_with_a_loopback_alone_is_as_none() {
    let node = Node::new(Habits::default()).await;
    let pod = Scratch::new().unwrap();
    node.pod.clone().create(in_namespace(&node, "run", pod.path())).await.unwrap();
    assert_eq!(*node.world.networks.lock().unwrap(), [] as [Network; 0]);
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// As with runc, which sets the spec's after plugins have set theirs.
#[tokio::test]
async fn a_plugins_sysctls_are_the_guests_but_for_those_that_the_spec_sets() {
    let (pod, _far) = namespaces(&["eth0"]);
    pod.enter(|| {
        fs::write("/proc/sys/net/core/somaxconn", "3000").unwrap();
        fs::write("/proc/sys/net/ipv4/conf/eth0/log_martians", "1").unwrap();
    });
    let node = Node::new(Habits::default()).await;
    let request = in_namespace(&node, "run", pod.path());
    edit(&request, |spec| spec["linux"]["sysctl"] = json!({"net.core.somaxconn": "5", "kernel.shmmax": "7"}));
    node.pod.clone().create(request).await.unwrap();
    let told = node.world.networks.lock().unwrap()[0].sysctls.clone();
    let sysctl = Sysctl::parse("net.ipv4.conf.eth0.log_martians").unwrap();
    assert_eq!(told, BTreeMap::from([(sysctl, "1".to_owned())]));
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// What a guest's boot does is far less than what ends it, and what it did long ago is forgotten.
#[tokio::test]
async fn a_guest_that_changes_its_vifs_states_without_end_loses_its_domain() {
    let (pod, _far) = namespaces(&["eth0"]);
    let before = links(&pod);
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(in_namespace(&node, "run", pod.path())).await.unwrap();
    node.start("run", "").await.unwrap();
    tokio::time::pause();
    for _ in 0..3 {
        node.world.vif_changes.send_modify(|count| *count += 100);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(node.state("run", ""), (true, api::Status::RUNNING, None));
    }
    tokio::time::resume();
    for _ in 0..101 {
        node.world.vif_changes.send_modify(|count| *count += 1);
    }
    assert_eq!(node.wait("run", "").await, 137);
    node.delete("run").await.unwrap();
    assert_eq!(links(&pod), before);
    node.world.assert_nothing_left("after delete");
}

/// A node whose shim is killed when its Create of a pod in this namespace has come so far, and the bundle.
async fn killed_after(last: Step, pod: &Scratch) -> (Node, String) {
    Node::killed_after(last, |node| in_namespace(node, "run", pod.path())).await
}

/// From before the vifs are to what comes after, and with a namespace that ends before the pod.
#[tokio::test]
async fn a_create_that_dies_leaves_the_pods_namespace_as_it_was() {
    for (last, gone) in
        [(Step::DevicesMade, false), (Step::VifsMade, false), (Step::VifsMade, true), (Step::GuestUp, false)]
    {
        let (pod, far) = namespaces(&["eth0"]);
        let before = links(&pod);
        let (node, bundle) = killed_after(last, &pod).await;
        assert_eq!(links(&pod) != before, last >= Step::VifsMade, "{last:?}");
        let pod = if gone {
            drop((pod, far));
            None
        } else {
            Some((pod, far))
        };
        node.clean(&bundle).await.unwrap();
        node.clean(&bundle).await.unwrap();
        node.world.assert_nothing_left(&format!("{last:?} {gone}"));
        if let Some((pod, _far)) = pod {
            assert_eq!(links(&pod), before, "{last:?}");
        }
    }
}

/// Its shim was killed, and its cleaning failed or is not over: its ways are not somebody else's.
#[tokio::test]
async fn a_sandbox_of_the_same_id_has_the_namespace_of_the_earlier_one() {
    let (pod, _far) = namespaces(&["eth0"]);
    let (before, node) = (links(&pod), Node::new(Habits::default()).await);
    node.pod.clone().create(in_namespace(&node, "run", pod.path())).await.unwrap();
    let next = Pod::new(Arc::new(Source(node.world.clone())), "default", node.outbox.clone(), Cut::default());
    next.clone().create(in_namespace(&node, "run", pod.path())).await.unwrap();
    next.delete(api::DeleteRequest { id: "run".into(), ..Default::default() }).await.unwrap();
    assert_eq!(links(&pod), before);
    node.world.assert_nothing_left("after the next one's Delete");
}

/// The kernel gives a new namespace the inode of one that is gone: here the record is made to say so.
#[tokio::test]
async fn another_namespace_in_its_place_keeps_what_somebody_made_there() {
    let (pod, far) = namespaces(&["eth0", "net1"]);
    let (node, bundle) = killed_after(Step::VifsMade, &pod).await;
    drop((pod, far));
    let (next, _far) = joined_namespaces();
    let store = Store::pointed_from(Path::new(&bundle)).unwrap();
    let mut record = store.load().unwrap().unwrap();
    let Id { device, inode } = next.namespace().id().unwrap();
    let interfaces = record.network.unwrap().interfaces;
    record.network = Some(NetworkRecord { namespace: next.path(), device, inode, interfaces });
    store.save(&record).unwrap();
    let before = links(&next);
    node.clean(&bundle).await.unwrap();
    assert_eq!(links(&next), before);
    node.world.assert_nothing_left("after the cleaning");
}

#[tokio::test]
async fn the_pods_interface_is_the_pods_again_also_if_its_vif_stays() {
    let (pod, _far) = namespaces(&["eth0"]);
    let before = links(&pod);
    let (node, bundle) = killed_after(Step::VifsMade, &pod).await;
    node.world.no_xl.store(true, Ordering::Relaxed);
    assert_eq!(node.clean(&bundle).await.unwrap_err().code(), Some(Code::NoXen));
    let now = links(&pod);
    assert!(before.iter().all(|link| now.contains(link)) && now.len() > before.len(), "{now:?}");
    node.world.no_xl.store(false, Ordering::Relaxed);
    node.clean(&bundle).await.unwrap();
    assert_eq!(links(&pod), before);
    node.world.assert_nothing_left("after the second cleaning");
}

#[tokio::test]
async fn what_a_guest_cannot_have_or_make_fails_the_create_and_leaves_nothing() {
    let (pod, _far) = joined_namespaces();
    let node = Node::new(Habits::default()).await;
    let create = |path| node.pod.clone().create(in_namespace(&node, "run", path));
    let refused = create(pod.path()).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::SpecRefused));
    let (said, start) = (refused.to_string(), "linux.namespaces asks for the network of /proc/");
    let why = ", which a pod in a domain cannot have: eth0 has a queueing";
    assert!(said.starts_with(start) && said.contains(why), "{said}");
    let (ruled, _node) = namespaces(&["eth0"]);
    ruled.add_rule("istio").unwrap();
    let refused = create(ruled.path()).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::SpecRefused));
    assert!(refused.to_string().contains("the nft table inet istio has rules"), "{refused}");
    let missing = create("/run/netns/there is none".into()).await.unwrap_err();
    assert_eq!(missing.code(), Some(Code::SpecInvalid));
    let none = create(node.world.dir.path().join("image")).await.unwrap_err();
    assert_eq!(none.code(), Some(Code::SpecRefused), "no namespace: {none}");
    node.world.assert_nothing_left("before there is a domain");

    let (pod, _far) = namespaces(&["eth0"]);
    let before = links(&pod);
    let node = Node::new(Habits { is_old: true, ..Habits::default() }).await;
    let old = node.pod.clone().create(in_namespace(&node, "run", pod.path())).await.unwrap_err();
    assert_eq!(old.code(), Some(Code::ProtocolVersion));
    assert_eq!(*node.world.networks.lock().unwrap(), [] as [Network; 0], "it is not even asked");
    node.world.assert_nothing_left("the guest is old");
    assert_eq!(links(&pod), before);
}

/// Puts an interface into the namespace of the task with this pid, as `ctr run --cni` does. Gives the namespace and what is at its other end.
fn plug(pid: u32) -> (Namespace, Scratch) {
    let pod = Namespace::open(format!("/proc/{pid}/ns/net").as_ref()).unwrap();
    let far = Scratch::new().unwrap();
    pod.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        netlink.add_veth("eth0", "far").unwrap();
        let [near, other] = ["eth0", "far"].map(|name| netlink.link(name).unwrap().unwrap().index);
        netlink.move_to(other, far.namespace()).unwrap();
        netlink.no_own_addresses(near).unwrap();
        netlink.set_mac(near, MAC).unwrap();
        netlink.set_up(near, true).unwrap();
        netlink.add_address(near, &Prefix { ip: "10.0.0.2".parse().unwrap(), bits: 24 }.into()).unwrap();
    })
    .unwrap();
    (pod, far)
}

#[tokio::test]
async fn what_is_in_a_new_namespace_at_start_is_the_guests() {
    let node = Node::new(Habits::default()).await;
    let pid = node.create("run").await.unwrap().pid;
    assert_eq!(*node.world.networks.lock().unwrap(), [] as [Network; 0], "there was nothing at Create");
    let (pod, _far) = plug(pid);
    let wanted = pod.enter(|| scan().unwrap()).unwrap();
    assert_eq!((wanted.interfaces.len(), wanted.interfaces[0].mac), (1, MAC));
    node.start("run", "").await.unwrap();
    assert_eq!(*node.world.networks.lock().unwrap(), [wanted]);
    let ways = pod.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let lo = netlink.link("lo").unwrap().unwrap();
        let ways = ["eth0", "vif1.0"].map(|name| {
            let link = netlink.link(name).unwrap().unwrap();
            netlink.incoming(link.index).unwrap().is_some()
        });
        (lo.up, ways)
    });
    assert_eq!(ways.unwrap(), (true, [true; 2]));
    node.exec("run", "e").await.unwrap();
    node.start("run", "e").await.unwrap();
    assert_eq!(node.world.networks.lock().unwrap().len(), 1, "an exec's Start has no network");
    node.kill("run", 9).await.unwrap();
    node.wait("run", "").await;
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// The namespace is the one that was made for the container, whatever its pid leads to by then.
#[tokio::test]
async fn a_path_by_a_pid_that_leads_elsewhere_by_then_is_not_followed() {
    let node = Node::new(Habits { holders_move: true, ..Habits::default() }).await;
    let pid = node.create("run").await.unwrap().pid;
    let (pod, _far) = plug(pid);
    let wanted = pod.enter(|| scan().unwrap()).unwrap();
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    node.world.move_holders();
    let leads_to = || Namespace::open(&path).unwrap().id().unwrap();
    until("the pid leads elsewhere", || leads_to() != pod.id().unwrap()).await;
    node.start("run", "").await.unwrap();
    assert_eq!(*node.world.networks.lock().unwrap(), [wanted]);
    node.kill("run", 9).await.unwrap();
    node.wait("run", "").await;
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// It runs when its vifs are made, and may begin before it is told of them.
#[tokio::test]
async fn what_a_guest_does_to_its_vifs_before_it_has_made_its_network_counts() {
    let node = Node::new(Habits { is_slow: true, ..Habits::default() }).await;
    let pid = node.create("run").await.unwrap().pid;
    let (_pod, _far) = plug(pid);
    let floods = async {
        until("the guest is told of its network", || !node.world.networks.lock().unwrap().is_empty()).await;
        node.world.vif_changes.send_modify(|count| *count += 101);
    };
    // Its start may be answered or not.
    let _ = tokio::join!(node.start("run", ""), floods);
    let ended = tokio::time::timeout(Duration::from_secs(10), node.wait("run", ""));
    assert_eq!(ended.await.unwrap(), 137);
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

#[test]
fn the_hosts_namespace_is_not_looked_at() {
    let path = Path::new("/run/netns/pod");
    let hosts = Namespace::open(Path::new("/proc/self/ns/net")).unwrap();
    let refused = PodNetwork::scan(path, &hosts, &BTreeSet::new()).unwrap_err();
    assert_eq!(refused.code(), Some(Code::NetworkFailed));
    assert_eq!(refused.to_string(), "cannot use the network namespace /run/netns/pod: it is the host's");
}

#[tokio::test]
async fn a_new_namespace_that_stays_empty_is_as_none() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    assert_eq!(*node.world.networks.lock().unwrap(), [] as [Network; 0]);
    assert!(node.world.left.lock().unwrap().vifs.is_empty());
    node.world.destroy_all();
    node.wait("run", "").await;
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn what_a_guest_cannot_have_of_a_new_namespace_fails_the_start() {
    for is_old in [false, true] {
        let node = Node::new(Habits { is_old, ..Habits::default() }).await;
        let pid = node.create("run").await.unwrap().pid;
        let (pod, _far) = plug(pid);
        if !is_old {
            let ruled = Prefix { ip: "10.0.0.9".parse().unwrap(), bits: 32 };
            let ruling = || Rtnetlink::open().unwrap().add_address(1, &ruled.into()).unwrap();
            pod.enter(ruling).unwrap();
        }
        let code = if is_old { Code::ProtocolVersion } else { Code::SpecRefused };
        let refused = node.start("run", "").await.unwrap_err();
        assert_eq!(refused.code(), Some(code), "{refused}");
        assert_eq!(node.state("run", "").1, api::Status::STOPPED);
        node.delete("run").await.unwrap();
        node.world.assert_nothing_left("after delete");
    }
}
