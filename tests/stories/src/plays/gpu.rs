//! CUDA programs in pods.

use std::fs;
use std::time::Duration;

use crate::Story;
use crate::command::{SOON, must, until};
use crate::configuration::Changed;
use crate::node::{Node, kill_9};
use crate::plays::vgpu;
use crate::pod::{Pod, Runtime, START};
use crate::traces::Process;

/// Programs of `tests/cuda` that check their own result: what a pod's way to the GPU has to carry...
const PROGRAMS: &[&str] = &["saxpy", "matmul_tiled", "histogram", "driver_threads", "oob_store"];
/// ... and more of them. Part `programs` of `cargo xtask test` runs all of them, over `local`.
const OTHER_PROGRAMS: &[&str] =
    &["reduce", "features", "math", "device_query", "memory_info", "driver_raw", "driver_wide", "nvml_query"];
/// One after the other, emulated.
const ALL_PROGRAMS: Duration = Duration::from_secs(600);
/// Of one pod to see another's memory, each by a process with a worker of its own: two and a half minutes where nothing else runs.
const ALL_ATTEMPTS: Duration = Duration::from_secs(600);

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("pod_is_a_domain_of_its_own", 300, pod_is_a_domain_of_its_own),
        vgpu("cuda_vector_add_has_the_right_sums", 300, cuda_vector_add_has_the_right_sums),
        vgpu(
            "cuda_program_in_a_pv_guest_has_its_gpu_streams_and_code",
            300,
            cuda_program_in_a_pv_guest_has_its_gpu_streams_and_code,
        ),
        vgpu("cuda_runtimes_12_and_13_initialise", 500, |_| {
            are_right_in_one_pod(&["cudart_init_12", "cudart_init_13"]);
        }),
        vgpu("cuda_programs_compute_what_the_cpu_does", 900, |_| drop(are_right_in_one_pod(PROGRAMS))),
        vgpu("cuda_other_programs_compute_what_the_cpu_does", 900, |_| {
            drop(are_right_in_one_pod(OTHER_PROGRAMS))
        }),
        vgpu("cuda_worker_is_behind_every_wall_of_its_sandbox", 300, cuda_worker_is_behind_every_wall),
        vgpu("nvidia_smi_shows_a_pod_its_own_device", 300, nvidia_smi_shows_a_pod_its_own_device),
        vgpu(
            "container_without_a_gpu_reaches_neither_it_nor_xen",
            300,
            container_without_a_gpu_reaches_neither_it_nor_xen,
        ),
        vgpu("cuda_memory_is_the_workers_too", 900, cuda_memory_is_the_workers_too),
        vgpu("cuda_worker_that_waited_serves_a_pod", 900, cuda_worker_that_waited_serves_a_pod),
        vgpu("two_pods_cannot_see_each_others_memory", 900, two_pods_cannot_see_each_others_memory),
    ]
}

fn pod_is_a_domain_of_its_own(node: &Node) {
    let script = "cat /sys/hypervisor/type /sys/hypervisor/guest_type; uname -r; echo runs; exec sleep 1000";
    let mut pod = node.start(Pod::busybox(Runtime::Vgpu, &["sh", "-c", script]));
    pod.until_line("runs");

    assert_eq!(node.domains().len(), 1, "the pod has one domain");
    let own = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux has it");
    let text = pod.text();
    assert!(text.starts_with("xen\nPVH\n") && text.contains("-vgpu\n"), "{text}");
    assert!(!text.contains(own.trim()), "the pod sees Dom0's kernel: {text}");

    pod.signal("SIGKILL");
    pod.end(START);
}

/// Each program of `tests/cuda` checks its own result and exits with 0 when it is right.
fn cuda_vector_add_has_the_right_sums(_: &Node) {
    let ended = Pod::cuda(&["/vector_add"]).run();
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.complaint());
    assert!(
        ended.text().starts_with("vector_add: ok"),
        "it does not say that it was right: {}",
        ended.text()
    );
}

/// `read` and not `cat`: ctr loses the end of an input that is over before the task is made.
fn cuda_program_in_a_pv_guest_has_its_gpu_streams_and_code(_: &Node) {
    let _pv = Changed::key("kind", "\"pv\"");
    let script = "cat /sys/hypervisor/guest_type; read -r line; echo got $line; echo complaint >&2; /vector_add || exit 1; exec /exit7";
    let ended = Pod::cuda(&["sh", "-c", script]).feed(b"a line\n");
    assert_eq!(ended.code, Some(7), "{}{}", ended.text(), ended.complaint());
    assert!(ended.text().starts_with("PV\ngot a line\nvector_add: ok"), "{}", ended.text());
    assert!(ended.complaint().contains("complaint"), "{}", ended.complaint());
}

/// One pod for all: a start costs more than they do. Each is a process, so each has a worker of its own.
fn are_right_in_one_pod(programs: &[&str]) -> String {
    let lines: Vec<String> =
        programs.iter().map(|name| format!("/{name}; echo exit code of {name}: $?")).collect();
    let script = lines.join("\n");
    let ended = Pod::cuda(&["sh", "-c", &script]).run_within(ALL_PROGRAMS);
    let text = ended.text();
    let mut rest = text.as_str();
    for name in programs {
        let (said, behind) = rest
            .split_once(&format!("exit code of {name}: 0\n"))
            .unwrap_or_else(|| panic!("{name} failed: {text}{}", ended.complaint()));
        assert!(said.contains(": ok"), "{name} does not say that it was right: {text}");
        rest = behind;
    }
    text
}

/// Pinned and managed memory at one address on both sides, chunk by chunk; pageable memory through slots and events without questions, by
/// the replies that a step waits for.
fn cuda_memory_is_the_workers_too(_: &Node) {
    let text = are_right_in_one_pod(&["pinned", "managed answers", "steps"]);
    for line in ["pinned: kernels reach pinned memory", "managed:   attribute 2: 0"] {
        assert!(text.contains(line), "no '{line}' in: {text}");
    }
}

/// The first process gets the worker that waits. For a later one the next may not be there yet.
fn cuda_worker_that_waited_serves_a_pod(node: &Node) {
    const PROGRAMS: [&str; 3] = ["vector_add", "pinned", "saxpy"];
    let again = || {
        kill_9(node.supervisor());
        node.assert_no_worker_within(Duration::from_secs(60));
        must(&["sh", "/ctl/vgpu-up.sh"]);
    };
    let changed = Changed::key("workers_ahead", "\"on\"");
    again();
    are_right_in_one_pod(&PROGRAMS);
    let log = fs::read_to_string("/var/log/vgpu/gpu-proxy.log").expect("it logs");
    drop(changed);
    again();

    let births = log.lines().filter(|line| line.contains(", container ") && line.contains(": born"));
    let (ahead, others): (Vec<&str>, Vec<&str>) =
        births.partition(|line| line.contains("ahead of a process"));
    assert!(!ahead.is_empty(), "none was started ahead: {log}");
    assert!(others.len() < PROGRAMS.len(), "none served a process: {log}");
}

/// As gpu-proxy says, and as Dom0's kernel does.
fn cuda_worker_is_behind_every_wall(node: &Node) {
    let mut pod = node.start(Pod::cuda(&["/spin", "1000"]));
    pod.until_line("allocated");
    let worker = node.workers().first().expect("the pod has a worker").pid;

    let info = must(&["vgpuctl", "info"]);
    assert!(info.lines().any(|line| line == "sandbox    whole"), "{info}");
    let of = |pid: u32, file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let namespace = |pid: u32, kind: &str| {
        fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("root reads the names of all namespaces")
    };
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        assert_ne!(namespace(worker, kind), namespace(std::process::id(), kind), "{kind} is Dom0's");
    }
    let status = of(worker, "status");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(status.lines().any(|is| is == line), "no line '{line}' in:\n{status}");
    }
    assert!(!status.contains("\nUid:\t0\t"), "the worker is Dom0's root:\n{status}");
    assert_eq!(of(worker, "oom_score_adj").trim(), "1000");
    let cgroups = of(worker, "cgroup");
    let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::")).expect("version 2");
    let pod_cgroup = cgroup.rsplit_once('/').expect("below the pod's").0;
    for folder in [cgroup, pod_cgroup] {
        for limit in ["memory.max", "pids.max"] {
            let path = format!("/sys/fs/cgroup{folder}/{limit}");
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(text.trim().parse::<u64>().is_ok(), "{path} is no limit: {text}");
        }
    }

    pod.signal("SIGKILL");
    pod.end(START);
}

/// Ours: the image has none. It is asked beside a program that computes, and by the container's own pids.
fn nvidia_smi_shows_a_pod_its_own_device(node: &Node) {
    let mut pod = node.start(Pod::cuda(&["/spin", "1000"]));
    pod.until_line("allocated");
    let workers = node.workers().len();
    let listed = pod.exec(&["nvidia-smi", "-L"]);
    assert!(listed.text().starts_with("GPU 0: "), "{}{}", listed.text(), listed.complaint());
    let query = ["nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader"];
    let computing = pod.exec(&query);
    assert_eq!(computing.text(), "1, /spin\n", "{}", computing.complaint());
    assert_eq!(node.workers().len(), workers, "who only asks gets no worker");
    let refused = pod.exec(&["nvidia-smi", "-pl", "100"]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());

    pod.signal("SIGKILL");
    pod.end(START);
}

/// As the root of a usual container, which may make devices on a node, with the word for a grant where it grants nothing.
fn container_without_a_gpu_reaches_neither_it_nor_xen(_: &Node) {
    let script = "tr '\\0' '\\n' < /proc/1/environ | grep vgpu; \
                  ls /dev/xen /run/vgpu /usr/lib/libcuda.so.1 /usr/lib64/libcuda.so.1 /usr/lib/libnvidia-ml.so.1 /usr/bin/nvidia-smi; \
                  n=$(busybox sed -n 's/ xen.*//p' /proc/misc); for n in $n; do busybox mknod /dev/misc$n c 10 $n && cat /dev/misc$n; done; \
                  cat /proc/xen/xenbus; mount -t xenfs xenfs /proc/xen; mount -t devtmpfs devtmpfs /tmp; echo over";
    let pod = Pod::busybox(Runtime::Vgpu, &["sh", "-c", script]).option("--env").option("vgpu.dev/gpu=1");
    let ended = pod.run();
    let complaint = ended.complaint();
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "vgpu.dev/gpu=1\nover\n"), "{complaint}");
    assert!(complaint.matches("Operation not permitted").count() >= 3, "devices: {complaint}");
    assert_eq!(complaint.matches("permission denied").count(), 2, "mounts: {complaint}");
}

/// A plants a pattern in its GPU memory and says where; B tries those addresses and A's handles. While both are at work each has a
/// domain, a worker, a user and a cgroup of its own.
fn two_pods_cannot_see_each_others_memory(node: &Node) {
    let mut a = node.start(Pod::cuda(&["/pattern_plant"]));
    let planted = a.until_line("planted");
    let (_, values) = planted.split_once("planted ").expect("the line that was waited for");

    let mut line = vec!["/pattern_probe"];
    line.extend(values.split_whitespace());
    // One that hangs says what its channel's words say.
    let mut b = node.start(Pod::cuda(&line).option("--env").option("VGPU_LOG=1"));
    b.until_line("pattern_probe: 0x");
    assert_eq!(node.domains().len(), 2, "a domain a pod");
    // Each of B's attempts is a process, and has a worker.
    let apart = until(SOON, || are_apart(&node.workers()).then_some(()));
    assert!(apart.is_some(), "A and B have no workers, users and cgroups of their own: {:?}", node.workers());
    let b = b.end(ALL_ATTEMPTS);

    assert_eq!(b.code, Some(0), "B has seen A's data: {}{}", b.text(), b.complaint());
    a.until_more_of("whole"); // or A was hurt by B's attempts
    assert_eq!(node.domains().len(), 1, "A's domain alone is left");
    a.signal("SIGKILL");
    a.end(Duration::from_secs(60));
}

/// Whether these are two workers, of two users and of the cgroups of two pods.
fn are_apart(workers: &[Process]) -> bool {
    let [one, other] = workers else { return false };
    // A worker whose process has just ended has neither.
    let of = |worker: &Process| {
        let read = |file| fs::read_to_string(format!("/proc/{}/{file}", worker.pid)).ok();
        let user = read("status")?.lines().find(|line| line.starts_with("Uid:"))?.to_string();
        let cgroup = read("cgroup")?
            .lines()
            .find_map(|line| Some(line.strip_prefix("0::")?.rsplit_once("/worker-")?.0.to_string()))?;
        Some((user, cgroup))
    };
    matches!((of(one), of(other)), (Some(one), Some(other)) if one.0 != other.0 && one.1 != other.1)
}
