//! A network that is made in a container's own namespace, which is there from Create on: what is in it at Start is the guest's.

use std::{
    fs,
    io::Read as _,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_shim_protos::api::CreateTaskResponse;
use serde_json::{Value, json};
use vgpu_contract::mock::Shim;
use vgpu_netlink::{Namespace, Rtnetlink, scratch::Scratch};

use crate::{
    containerd::{Containerd, until},
    guest::cgroup,
    moments,
    network::{dress_in, guest_of, hear, network_of, route, tell},
};

const SCRIPT: &str = "busybox nc 10.0.0.1 8000; echo the guest | busybox nc -l -p 8001; exec sleep 1000";

fn network_of_pid(pid: u32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// What `ctr run --cni` and nerdctl's hook make: an interface in the namespace of the task with this pid, whose other end is the node's.
fn plug(pid: u32) -> Scratch {
    let (pod, node) = (Namespace::open(&network_of_pid(pid)).unwrap(), Scratch::new().unwrap());
    let wiring = || {
        let mut netlink = Rtnetlink::open().unwrap();
        netlink.add_veth("eth0", "veth0").unwrap();
        let [near, far] = ["eth0", "veth0"].map(|name| netlink.link(name).unwrap().unwrap().index);
        netlink.move_to(far, node.namespace()).unwrap();
        netlink.no_own_addresses(near).unwrap();
        netlink.set_up(near, true).unwrap();
    };
    pod.enter(wiring).unwrap();
    node.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let index = netlink.link("veth0").unwrap().unwrap().index;
        netlink.no_own_addresses(index).unwrap();
        netlink.set_up(index, true).unwrap();
    });
    let link = [route("10.0.0.0/24", None)];
    dress_in(node.namespace(), "veth0", &["10.0.0.1/24"], &link);
    dress_in(
        &pod,
        "eth0",
        &["10.0.0.2/24"],
        &[link.to_vec(), vec![route("0.0.0.0/0", Some("10.0.0.1"))]].concat(),
    );
    node
}

async fn create(containerd: &Containerd, shim: &Shim, id: &str) -> u32 {
    shim.call::<_, CreateTaskResponse>("Create", &containerd.asked(id)).await.expect("Create").pid
}

/// Of a container that runs and whose network this is: it is the guest's, and goes with it.
async fn lives_in(containerd: &Containerd, shim: &Shim, pid: u32, node: Scratch) {
    let lives = containerd.lives();
    let said = || containerd.output("a");
    until("the guest reaches the node", || said() == "from the node\n", said).await;
    assert_eq!(hear(&node, "10.0.0.2:8001"), "the guest\n");
    let (guest, pod) = (guest_of(&cgroup(containerd)), Namespace::open(&network_of_pid(pid)).unwrap());
    let network = network_of(&guest);
    assert_eq!(
        (network.interfaces.len(), network.interfaces[0].name.as_str(), network.routes.len()),
        (1, "eth0", 2)
    );
    // As for a port-forward.
    tell(&guest, "127.0.0.1:8002", "its loopback\n");
    let mut text = String::new();
    let mut dialled = pod.enter(|| TcpStream::connect("127.0.0.1:8002")).unwrap().unwrap();
    dialled.read_to_string(&mut text).unwrap();
    assert_eq!(text, "its loopback\n");
    drop((pod, dialled));
    shim.signal("a", 9).await;
    assert_eq!((shim.wait("a").await, shim.delete("a").await), (137, 137));
    // Nobody holds the namespace, with which the other end of its wire goes.
    let links = || node.enter(|| Rtnetlink::open().unwrap().links().unwrap());
    until("the interface is gone", || links().iter().all(|link| link.loopback), || format!("{:?}", links()))
        .await;
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
}

/// As `ctr run --cni` does.
#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_comes_between_create_and_start_is_the_guests() {
    let containerd = Containerd::new().await;
    containerd.bundle("a", SCRIPT, |_| {});
    let shim = containerd.start("a").await;
    let pid = create(&containerd, &shim, "a").await;
    let node = plug(pid);
    tell(node.namespace(), "10.0.0.1:8000", "from the node\n");
    shim.begin("a").await;
    lives_in(&containerd, &shim, pid, node).await;
}

/// As nerdctl does: a hook is told the pid.
#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_a_hook_makes_is_the_guests() {
    let containerd = Containerd::new().await;
    let hook = |then: &str| -> Value {
        json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > state; mv state told; {then}")], "timeout": 60}])
    };
    let hooks =
        json!({"createRuntime": hook("while ! test -e plugged; do sleep 0.02; done"), "poststop": hook("")});
    containerd.bundle("a", SCRIPT, |spec| spec["hooks"] = hooks);
    let shim = containerd.start("a").await;
    let told = containerd.bundle_of("a").join("told");
    let plugging = async {
        until("the hook runs", || told.exists(), String::new).await;
        let state: Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
        let node = plug(u32::try_from(state["pid"].as_u64().unwrap()).unwrap());
        tell(node.namespace(), "10.0.0.1:8000", "from the node\n");
        fs::write(containerd.bundle_of("a").join("plugged"), "").unwrap();
        node
    };
    let (pid, node) = tokio::join!(create(&containerd, &shim, "a"), plugging);
    shim.begin("a").await;
    lives_in(&containerd, &shim, pid, node).await;
    let state: Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    assert_eq!((state["status"].as_str(), state.get("pid")), (Some("stopped"), None));
}

/// What was made for the guest is known from disk, and the namespace ends with the shim.
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_killed_during_such_a_start_leaves_nothing_to_its_delete() {
    let containerd = Containerd::new().await;
    let mut joined = 0;
    for milliseconds in moments(2) {
        containerd.bundle("a", "exec sleep 1000", |_| {});
        let shim = containerd.start("a").await;
        let node = plug(create(&containerd, &shim, "a").await);
        let started =
            tokio::time::timeout(Duration::from_millis(milliseconds), shim.begin("a")).await.is_ok();
        let lives = containerd.lives();
        let record = containerd.node().join("sandboxes");
        joined += usize::from(has_a_network(&record));
        shim.kill().await;
        containerd.delete("a");
        containerd.assert_nothing_left(&lives).await;
        let links = || node.enter(|| Rtnetlink::open().unwrap().links().unwrap());
        until(
            "the interface is gone",
            || links().iter().all(|link| link.loopback),
            || format!("{:?}", links()),
        )
        .await;
        containerd.remove_bundle("a");
        if started {
            break;
        }
    }
    assert!(joined > 1, "none was killed while there were vifs");
}

/// Whether the only record below this folder has one.
fn has_a_network(sandboxes: &Path) -> bool {
    let lives: Vec<_> = fs::read_dir(sandboxes).unwrap().flatten().collect();
    let [life] = &lives[..] else { panic!("one life: {lives:?}") };
    let record: Value = serde_json::from_slice(&fs::read(life.path().join("state.json")).unwrap()).unwrap();
    !record["network"].is_null()
}
