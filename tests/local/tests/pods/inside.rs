//! What a program sees in a container of the local shim is what its spec asked for, by the judge that passes runc's.

use serde_json::Value;
use vgpu_inside::{
    judge::differences,
    look::{Wanted, document},
    part::given,
    specs,
};

use crate::containerd::Containerd;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_INSIDE, the program"]
async fn says_what_the_local_shim_gives() {
    let outside = document(&Wanted::default())["namespaces"].take();
    let mut wrong = Vec::new();
    // Limits are for machines whose controllers are in cgroup2.
    for (name, spec) in specs::all().into_iter().filter(|(name, _)| *name != "limited") {
        let found = differences(&spec, &seen_in(name, &spec).await, &outside);
        wrong.extend(found.iter().map(|difference| format!("{name}: {difference}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The document of a container that leaves nothing.
async fn seen_in(name: &str, spec: &Value) -> Value {
    let containerd = Containerd::new().await;
    bundle(&containerd, name, spec);
    let shim = containerd.start(name).await;
    containerd.create(&shim, name).await;
    let lives = containerd.lives();
    assert_eq!((shim.wait(name).await, shim.delete(name).await), (0, 0), "{name}");
    let document = serde_json::from_str(&containerd.output(name)).expect("a document");
    shim.shut_down().await;
    containerd.delete(name);
    containerd.assert_nothing_left(&lives).await;
    document
}

fn bundle(containerd: &Containerd, name: &str, spec: &Value) {
    specs::bundle(&containerd.bundle_of(name), &given("VGPU_INSIDE"), spec).unwrap();
}
