//! What containers of a pod share, and that it is nothing else of the guest.

mod world;

use std::fs;

use serde_json::{Value, json};
use ttrpc::Code;
use vgpu_agent_api::pod::{Memory, namespace_of};
use world::{Stdio, World, refusal, story};

const SIGKILL: u32 = 9;
const KINDS: [&str; 3] = ["pid", "uts", "ipc"];

/// The namespaces of `kinds` are those of another container; its name is the pod's, as containerd has it.
fn joins(spec: &mut Value, container: &str, kinds: &[&str]) {
    for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
        if kinds.contains(&namespace["type"].as_str().unwrap()) {
            namespace["path"] = namespace_of(container).into();
        }
    }
    spec.as_object_mut().unwrap().remove("hostname");
}

/// A memory of the pod at /dev/shm.
fn shares_memory(spec: &mut Value, name: u128) {
    let memory = Memory::new(name, (1 << 20).try_into().unwrap());
    let mount = json!({"destination": "/dev/shm", "type": "bind", "source": memory.to_string(), "options": ["rbind", "nosuid", "noexec"]});
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

async fn begin(world: &World, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> Stdio {
    world.bundle(id, &["sh", "-c", script], change);
    let stdio = world.create(id, false).await.unwrap();
    world.start(id, "").await.unwrap();
    stdio
}

/// What a script writes in a container that begins, ends and is deleted.
async fn output(world: &World, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut stdio = begin(world, id, script, change).await;
    let text = stdio.output().await;
    world.wait(id, "").await;
    world.delete(id).await.unwrap();
    text
}

async fn end(world: &World, id: &str) {
    world.kill(id, SIGKILL, false).await.unwrap();
    assert_eq!(world.wait(id, "").await, 137);
    world.delete(id).await.unwrap();
}

const LINKS: &str = "for of in pid uts ipc; do readlink /proc/self/ns/$of; done; hostname";

#[test]
fn containers_are_in_the_namespaces_of_the_one_that_they_name() {
    story(async |world| {
        let mut first = begin(world, "pod", &format!("{LINKS}; echo that; exec sleep 1000"), |_| {}).await;
        let of_pod = first.output_until("that").await.replace("that\n", "");
        assert!(of_pod.ends_with("inside\n"), "{of_pod}");
        assert_eq!(output(world, "all", LINKS, |spec| joins(spec, "pod", &KINDS)).await, of_pod);
        // One of them each.
        for kind in KINDS {
            let text = output(world, "one", LINKS, |spec| joins(spec, "pod", &[kind])).await;
            let same: Vec<_> =
                text.lines().zip(of_pod.lines()).take(3).map(|(its, pods)| its == pods).collect();
            assert_eq!(same, KINDS.map(|other| other == kind), "{kind}: {text}{of_pod}");
        }
        assert_ne!(output(world, "own", LINKS, |_| {}).await, of_pod);
        end(world, "pod").await;
    });
}

/// With `shareProcessNamespace` it is the pause container's.
#[test]
fn a_shared_pid_namespace_ends_with_its_first_process_and_one_that_joined_ends_whole() {
    story(async |world| {
        let _pod = begin(world, "pod", "exec sleep 1000", |_| {}).await;
        let script = "sleep 2000 & echo $$; cat /proc/1/cmdline; echo; echo there; exec sleep 3000";
        let mut app = begin(world, "app", script, |spec| joins(spec, "pod", &["pid"])).await;
        let said = app.output_until("there").await;
        assert!(!said.starts_with("1\n") && said.contains("sleep\u{0}1000"), "{said}");
        // Its init is nobody's first process: the rest of it is ended with it.
        world.kill("app", SIGKILL, false).await.unwrap();
        assert_eq!(world.wait("app", "").await, 137);
        world.delete("app").await.unwrap();
        let left = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
        let left = left.filter(|file| fs::read(file).is_ok_and(|line| line == b"sleep\x002000\0"));
        assert_eq!(left.count(), 0);
        let _app = begin(world, "app", "exec sleep 3000", |spec| joins(spec, "pod", &["pid"])).await;
        world.kill("pod", SIGKILL, false).await.unwrap();
        assert_eq!((world.wait("pod", "").await, world.wait("app", "").await), (137, 137));
        // Nobody can come to it any more.
        world.bundle("late", &["true"], |spec| joins(spec, "pod", &["pid"]));
        let (code, text) = refusal(world.create("late", false).await);
        assert_eq!(code, Code::INVALID_ARGUMENT);
        assert!(text.contains("the pid namespace of container pod cannot be joined"), "{text}");
        world.assert_nothing_left_of("late");
        world.delete("app").await.unwrap();
        world.delete("pod").await.unwrap();
    });
}

#[test]
fn what_containers_share_outlives_the_one_that_began_it() {
    story(async |world| {
        let shares = |spec: &mut Value| {
            joins(spec, "pod", &["uts", "ipc"]);
            shares_memory(spec, 1);
        };
        let said = format!("{LINKS}; echo that; exec sleep 1000");
        let mut pod = begin(world, "pod", &said, |spec| shares_memory(spec, 1)).await;
        let of_pod = pod.output_until("that").await;
        let _app = begin(world, "app", "echo here > /dev/shm/file; exec sleep 1000", shares).await;
        end(world, "pod").await;
        let said = format!("{LINKS}; cat /dev/shm/file");
        let later = output(world, "later", &said, |spec| {
            joins(spec, "app", &["uts", "ipc"]);
            shares_memory(spec, 1);
        });
        let later = later.await;
        let (links, rest) = later.split_once("inside\n").unwrap();
        let (_, shared) = of_pod.split_once('\n').unwrap();
        assert!(links.ends_with(shared.split_once("inside\n").unwrap().0), "{later}{of_pod}");
        assert_eq!(rest, "here\n");
        end(world, "app").await;
    });
}

#[test]
fn a_memory_is_one_for_all_that_name_it_and_has_its_size() {
    story(async |world| {
        let fill = "head -c 2000000 /dev/zero > /dev/shm/file; wc -c < /dev/shm/file";
        let text = output(world, "a", fill, |spec| shares_memory(spec, 1)).await;
        assert_eq!(text, "1048576\n");
        assert_eq!(output(world, "b", "ls /dev/shm", |spec| shares_memory(spec, 1)).await, "file\n");
        assert_eq!(output(world, "c", "ls /dev/shm", |spec| shares_memory(spec, 2)).await, "");
        let options = output(world, "d", "grep /dev/shm /proc/mounts", |spec| shares_memory(spec, 2)).await;
        for forbidden in ["nosuid", "noexec", "nodev"] {
            assert!(options.contains(forbidden), "{options}");
        }
    });
}

#[test]
fn no_path_leads_into_the_guests_own_namespaces() {
    story(async |world| {
        let _pod = begin(world, "pod", "exec sleep 1000", |_| {}).await;
        let own = std::process::id();
        for (at, kind) in [(0, "pid"), (2, "uts"), (3, "ipc"), (1, "mnt"), (4, "net")] {
            for path in [
                format!("/proc/1/ns/{kind}"),
                format!("/proc/self/ns/{kind}"),
                format!("/proc/{own}/ns/{kind}"),
                namespace_of("none"),
                "vgpu:container/../../1".into(),
                "vgpu:pod".into(),
            ] {
                world.bundle("a", &["true"], |spec| {
                    spec["linux"]["namespaces"][at]["path"] = path.as_str().into()
                });
                let (code, text) = refusal(world.create("a", false).await);
                assert_eq!(code, Code::INVALID_ARGUMENT, "{kind} {path}: {text}");
                assert!(text.contains("linux.namespaces: the "), "{kind} {path}: {text}");
                world.assert_nothing_left_of("a");
            }
        }
        for missing in ["pid", "ipc"] {
            world.bundle("a", &["true"], |spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|of| of["type"] != missing);
            });
            let (code, text) = refusal(world.create("a", false).await);
            assert_eq!(code, Code::INVALID_ARGUMENT, "{missing}: {text}");
        }
        let text = output(world, "a", LINKS, |spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|of| of["type"] != "uts");
        });
        let guests = fs::read_link("/proc/thread-self/ns/uts").unwrap();
        assert_ne!(text.await.lines().nth(1).unwrap(), guests.to_str().unwrap(), "a name of its own");
        end(world, "pod").await;
    });
}
