//! Pods of more than one container, with the annotations and the paths that CRI writes into their specs.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use vgpu_inside::volume::Volume;

use crate::Story;
use crate::command::{SOON, must, until};
use crate::node::Node;
use crate::plays::{kernel::PROGRAM, vgpu};
use crate::pod::{Pod, Runtime, START};
use crate::wire;

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu(
            "two_containers_of_a_pod_share_its_namespaces",
            400,
            two_containers_of_a_pod_share_its_namespaces,
        ),
        vgpu("vgpu_volume_that_kubelet_swaps_is_fresh", 200, vgpu_volume_that_kubelet_swaps_is_fresh),
        vgpu("vgpu_pod_grows_with_its_limits", 700, vgpu_pod_grows_with_its_limits),
    ]
}

/// Stands for CRI's folder with a pod's shared memory.
const SHM: &str = "/run/story-shm";
/// Stands for kubelet's folder of a pod.
const POD: &str = "/run/story-pod";
const KINDS: [(&str, &str); 4] = [("ipc", "ipc"), ("uts", "uts"), ("network", "net"), ("pid", "pid")];

fn two_containers_of_a_pod_share_its_namespaces(node: &Node) {
    let _ = fs::remove_dir_all(SHM);
    fs::create_dir(SHM).expect("/run is writable");
    let links = "for of in ipc uts net pid; do readlink /proc/self/ns/$of; done";
    let script = format!("{links}; echo shared > /dev/shm/file; echo runs; exec sleep 1000");
    let mut first = node.start(of_a_pod("sandbox", "", &script));
    first.until_line("runs");
    let pid = pid_of(first.name());
    let of =
        |file: &str, pid: &str| fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("a process of Dom0");
    for (_, file) in KINDS {
        assert_ne!(of(file, &pid), of(file, "self"), "{file}: it stands for the pod");
    }

    let joins = |pod: Pod, (kind, file): (&str, &str)| {
        pod.option("--with-ns").option(&format!("{kind}:/proc/{pid}/ns/{file}"))
    };
    let all = KINDS
        .into_iter()
        .fold(of_a_pod("container", first.name(), &format!("{links}; ps; cat /dev/shm/file")), joins);
    let all = all.run();
    let own = of_a_pod("container", first.name(), &format!("{links}; ps")).run();

    let lines = |text: &str| text.lines().take(KINDS.len()).map(String::from).collect::<Vec<_>>();
    let pods = lines(&first.text());
    assert_eq!(lines(&all.text()), pods, "{}", all.complaint());
    assert!(all.text().contains("sleep 1000") && all.text().ends_with("shared\n"), "{}", all.text());
    let same: Vec<_> = lines(&own.text()).iter().zip(&pods).map(|(own, pods)| own == pods).collect();
    assert_eq!(
        same,
        [false, false, true, false],
        "a guest has one network: {}{}",
        own.text(),
        own.complaint()
    );
    assert!(!own.text().contains("sleep 1000"), "{}", own.text());
    first.signal("SIGKILL");
    assert_eq!(first.end(START).code, Some(137));
    assert_eq!(fs::read_dir(SHM).map(Iterator::count).ok(), Some(0), "the memory is the guest's");
    fs::remove_dir(SHM).expect("nothing holds it");
}

/// A file that is open stays what it was; who reads again, and who watches, has the next one.
fn vgpu_volume_that_kubelet_swaps_is_fresh(node: &Node) {
    let _ = fs::remove_dir_all(POD);
    let folder = format!("{POD}/volumes/kubernetes.io~configmap/config");
    fs::create_dir_all(&folder).expect("/run is writable");
    let write = |version: &str, text: &[u8]| {
        let files = [("key", text), ("other", text)];
        Volume::at(Path::new(&folder)).write(version, &files).expect("/run is writable");
    };
    write("one", b"first\n");

    let script = "exec 3< /config/key; cat /config/key; echo x > /config/key || echo refused; \
                  /inside watch /config /config/other; echo $(cat /config/key) after $(cat <&3)";
    let mount = format!("type=bind,src={folder},dst=/config,options=rbind:ro");
    let program = format!("type=bind,src={PROGRAM},dst=/inside,options=rbind:ro");
    let pod = Pod::busybox(Runtime::Vgpu, &["sh", "-c", script]).option("--mount").option(&mount);
    let mut pod = node.start(pod.option("--mount").option(&program));
    pod.until_line("watching");
    write("two", b"second\n");
    let ended = pod.end(START);
    let events = "1 CREATE ISDIR ..two\n1 ATTRIB ISDIR ..two\n1 CREATE ..data_tmp\n1 MOVED_FROM ..data_tmp\n1 MOVED_TO ..data\n\
                  2 ATTRIB\n2 DELETE_SELF\n2 IGNORED\n1 DELETE ISDIR ..one\n";
    let right = format!("first\nrefused\nwatching\n{events}second after first\n");
    assert_eq!((ended.code, ended.text()), (Some(0), right));
    fs::remove_dir_all(POD).expect("nothing holds it");
}

/// A raised limit is memory and CPUs that the container can use, one that comes with more as well, and memory that Xen does not have is refused.
/// What Xen gives of its CPUs is bounded by the limits, with a quarter of one for its kernel, and while a container has none by those that the guest uses.
fn vgpu_pod_grows_with_its_limits(node: &Node) {
    let _ = fs::remove_dir_all(SHM);
    fs::create_dir(SHM).expect("/run is writable");
    let pod = |kind: &str, sandbox: &str, limit_mib: u64, script: &str| {
        of_a_pod(kind, sandbox, script).option("--memory-limit").option(&(limit_mib << 20).to_string())
    };
    let first = pod("sandbox", "", 64, "echo runs; exec sleep 1000");
    let mut first =
        node.start(first.option("--cpu-quota").option("100000").option("--cpu-period").option("100000"));
    first.until_line("runs");
    let &[domain] = &node.domains()[..] else { panic!("one domain") };
    let has_about = |mib: u64| (mib - 2..=mib).contains(&node.memory_mib(domain));
    assert!(has_about(128), "{}", node.memory_mib(domain));
    let cpus = || (node.cap_percent(domain), node.cpus(domain));
    assert_eq!(cpus(), (125, 1));
    let shim = format!("/run/containerd/io.containerd.runtime.v2.task/default/{}/address", first.name());
    let shim = fs::read_to_string(shim).expect("the shim's address is in the bundle");
    let update = |mib: u64, cpu_percent: u64| {
        let shim = UnixStream::connect(shim.trim_start_matches("unix://")).expect("the shim listens");
        let (bytes, quota) = (mib << 20, cpu_percent * 1000);
        let resources = format!(r#"{{"memory": {{"limit": {bytes}}}, "cpu": {{"quota": {quota}}}}}"#);
        wire::ask(shim, &wire::update(first.name(), &resources)).expect("the shim answers")
    };
    // One piece of memory, all of it touched.
    let fill = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1 2> /dev/null && echo filled"];
    assert_eq!(first.exec(&fill).text(), "", "more than its limit");

    update(256, 250).expect("Xen has as much");
    assert_eq!(cpus(), (275, 3));
    let seen = first.exec(&["sh", "-c", "nproc; grep -c ^processor /proc/cpuinfo"]);
    assert_eq!(seen.text(), "3\n3\n", "{}", seen.complaint());
    assert!(has_about(323), "{}", node.memory_mib(domain));
    let filled = first.exec(&fill);
    assert_eq!(filled.text(), "filled\n", "{}", filled.complaint());
    // As many CPUs as the domain has: Xen's tools take no cap above that.
    update(256, 800).expect("Xen has as much");
    assert_eq!(node.cap_percent(domain), 800);
    update(256, 250).expect("less is always possible");
    until(SOON, || (cpus() == (275, 3)).then_some(())).expect("the guest takes the others offline");
    let error = update(1 << 20, 500).expect_err("more than any machine that plays this has");
    assert!(error.contains("VGPU-") && error.contains("MiB free"), "{error}");
    assert!(has_about(323), "{}", node.memory_mib(domain));
    assert_eq!(cpus(), (275, 3));

    let script = "dd if=/dev/zero of=/dev/null bs=40M count=1 2> /dev/null && echo filled; exec sleep 1000";
    let mut second = node.start(pod("container", first.name(), 64, script));
    second.until_line("filled");
    assert!(has_about(388), "{}", node.memory_mib(domain));
    assert_eq!(cpus(), (300, 3), "one without a limit");
    second.signal("SIGKILL");
    assert_eq!(second.end(START).code, Some(137));
    update(64, 50).expect("less is always possible");
    until(SOON, || (has_about(128) && cpus() == (75, 1)).then_some(())).expect("the guest gives it back");
    let seen = first.exec(&["sh", "-c", "nproc; grep -c ^processor /proc/cpuinfo"]);
    assert_eq!(seen.text(), "1\n1\n", "{}", seen.complaint());
    first.signal("SIGKILL");
    assert_eq!(first.end(START).code, Some(137));
    fs::remove_dir(SHM).expect("nothing holds it");
}

fn of_a_pod(kind: &str, sandbox: &str, script: &str) -> Pod {
    let mount = format!("type=bind,src={SHM},dst=/dev/shm,options=rbind:rw");
    let pod = Pod::busybox(Runtime::Vgpu, &["sh", "-c", script]).option("--mount").option(&mount);
    let pod = pod.option("--annotation").option(&format!("io.kubernetes.cri.container-type={kind}"));
    match sandbox {
        "" => pod,
        _ => pod.option("--annotation").option(&format!("io.kubernetes.cri.sandbox-id={sandbox}")),
    }
}

/// As the shim has told it.
fn pid_of(task: &str) -> String {
    let listed = must(&["ctr", "task", "ls"]);
    let line = listed.lines().find(|line| line.split_whitespace().next() == Some(task));
    line.and_then(|line| line.split_whitespace().nth(1)).expect("ctr lists it").to_owned()
}
