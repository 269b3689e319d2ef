//! Pods made and deleted in a row, some beside each other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;
use vgpu_netlink::{Rtnetlink, scratch::Scratch};

use crate::{
    COUNTING,
    containerd::{Containerd, until},
};

const PODS: usize = 500;
const BESIDE_EACH_OTHER: usize = 4;
/// containerd gives up a clean-up that takes longer. Source: containerd, `shim.cleanup` timeout.
const CONTAINERD_WAITS: Duration = Duration::from_secs(5);

/// Where the pods live: a containerd, and the other ends of their interfaces.
struct World {
    containerd: Containerd,
    /// One wire is laid at a time.
    node: Mutex<Scratch>,
}

/// What there is beside the pods, and has to be the same after them.
#[derive(Debug, PartialEq)]
struct Census {
    /// Fifos and sockets are among them.
    files: BTreeSet<PathBuf>,
    /// The other end of an interface goes with the pod's network namespace.
    links: Vec<String>,
    /// Of this process, the containerd.
    descriptors: usize,
    /// They stay until they are waited for.
    children: usize,
}

impl World {
    async fn new() -> Self {
        let world = World { containerd: Containerd::new().await, node: Mutex::new(Scratch::new().unwrap()) };
        fs::create_dir(world.volume()).unwrap();
        fs::write(world.volume().join("file"), "shared\n").unwrap();
        world
    }

    fn volume(&self) -> PathBuf {
        self.containerd.dir.path().join("volume")
    }

    fn census(&self) -> Census {
        let mut files = BTreeSet::new();
        list(self.containerd.dir.path(), &mut files);
        let entries = |dir: &str| fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
        let children = |task: PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
        Census {
            files,
            links: links(&self.node.lock().unwrap()),
            descriptors: entries("/proc/self/fd").count(),
            children: entries("/proc/self/task").map(|task| children(task).split_whitespace().count()).sum(),
        }
    }

    /// Some pods beside each other, from their networks to their last trace. Says how long the last one's cleaning up took.
    async fn pods(self: &Arc<Self>, numbers: impl Iterator<Item = usize>) -> Duration {
        let mut pods = JoinSet::new();
        for number in numbers {
            pods.spawn(live(self.clone(), number));
        }
        let ended = pods.join_all().await;
        let lives: Vec<String> = ended.iter().flat_map(|(lives, _)| lives.clone()).collect();
        self.containerd.assert_nothing_left(&lives).await;
        ended.iter().map(|(_, deleted)| deleted.elapsed()).min().unwrap()
    }
}

/// One pod: the lives that were there with it, and when its deletion began.
async fn live(world: Arc<World>, number: usize) -> (Vec<String>, Instant) {
    let (containerd, id) = (&world.containerd, format!("pod{number}"));
    let network = Scratch::new().unwrap();
    network.wire("eth0", &world.node.lock().unwrap(), &format!("veth{number}")).unwrap();
    let before = links(&network);
    containerd.bundle(&id, "cat /tmp/volume/file; exec sleep 1000", |spec| {
        let (from, to) = (world.volume(), "/tmp/volume");
        let volume = json!({"destination": to, "type": "bind", "source": from, "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().push(volume);
        spec["linux"]["namespaces"][4]["path"] = network.path().to_str().unwrap().into();
    });
    let shim = containerd.start(&id).await;
    containerd.create(&shim, &id).await;
    let lives = containerd.lives();
    let exec = containerd.asked_exec(&id, "e", "exit 3", |_| {});
    shim.exec(&exec).await;
    shim.begin_exec(&id, "e").await;
    assert_eq!((shim.wait_exec(&id, "e").await, shim.delete_exec(&id, "e").await), (3, 3));
    until("it reads the volume", || containerd.output(&id) == "shared\n", || containerd.output(&id)).await;
    shim.signal(&id, 9).await;
    assert_eq!(shim.wait(&id).await, 137);
    let deleted = Instant::now();
    assert_eq!(shim.delete(&id).await, 137);
    shim.shut_down().await;
    containerd.delete(&id);
    assert!(deleted.elapsed() < CONTAINERD_WAITS, "{id} was deleted after {:?}", deleted.elapsed());
    containerd.remove_bundle(&id);
    assert_eq!(links(&network), before);
    (lives, deleted)
}

fn links(namespace: &Scratch) -> Vec<String> {
    let links = namespace.enter(|| Rtnetlink::open().unwrap().links().unwrap());
    links.into_iter().map(|link| link.name).collect()
}

/// All that is below a folder.
fn list(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&entry.path(), found);
        }
        found.insert(entry.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_500_pods_in_a_row_nothing_is_left() {
    let _alone = COUNTING.lock().await;
    let world = Arc::new(World::new().await);
    // The first ones make the node's folders.
    world.pods(0..BESIDE_EACH_OTHER).await;
    let before = world.census();
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    for first in (BESIDE_EACH_OTHER..PODS).step_by(BESIDE_EACH_OTHER) {
        let took = world.pods(first..first + BESIDE_EACH_OTHER).await;
        assert!(took < CONTAINERD_WAITS, "of the pods from {first} on something was left for {took:?}");
        longest = longest.max(took);
    }
    println!("{PODS} pods in {:?}, cleaned up in {longest:?} at most", begun.elapsed());
    let same = || world.census() == before;
    until("all is as it was", same, || format!("{before:?}\n{:?}", world.census())).await;
}
