//! Bad input: each gives an error with a code and what to do, and leaves nothing behind.

use crate::Story;
use crate::command::{Ended, must, until};
use crate::configuration::Changed;
use crate::node::{Node, kill_9};
use crate::plays::vgpu;
use crate::pod::{Pod, Runtime, START};

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("config_with_an_unknown_key_names_it", 300, |_| {
            let changed = Changed::text(|text| text.replace("[guest]\n", "[guest]\nmemory_mb = 64\n"));
            refused_with(&changed, &["VGPU-103", "memory_mb", "did you mean `guest.memory_mib`"]);
        }),
        vgpu("config_with_too_little_memory_says_how_much_is_needed", 300, |_| {
            refused_with(&Changed::key("memory_mib", "16"), &["VGPU-103", "16", "96", "Correct the line"]);
        }),
        vgpu("config_with_a_missing_kernel_names_the_file", 300, |_| {
            refused_with(
                &Changed::key("kernel", "\"/no/such/vmlinux\""),
                &["VGPU-102", "/no/such/vmlinux", "guest.kernel"],
            );
        }),
        vgpu("config_for_containerd_adds_the_handler", 60, config_for_containerd_adds_the_handler),
        vgpu("pod_with_a_gpu_but_no_gpu_proxy_says_so", 400, pod_with_a_gpu_but_no_gpu_proxy_says_so),
        vgpu("unknown_vgpu_annotation_is_refused", 300, |_| {
            let pod = Pod::busybox(Runtime::Vgpu, &["true"]).option("--annotation").option("vgpu.dev/gqu=1");
            let ended = pod.run();
            assert_ne!(ended.code, Some(0));
            says(&ended, &["VGPU-203", "vgpu.dev/gqu", "Correct the annotation"]);
        }),
    ]
}

/// A pod under this configuration must be refused with all these words.
fn refused_with(_changed: &Changed, words: &[&str]) {
    let ended = Pod::busybox(Runtime::Vgpu, &["true"]).run();

    assert_ne!(ended.code, Some(0), "the pod ran");
    says(&ended, words);
}

fn says(ended: &Ended, words: &[&str]) {
    for word in words {
        assert!(ended.complaint().contains(word), "'{word}' is not in: {}", ended.complaint());
    }
}

/// Debian's containerd reads the file that is installed. What it does not know is not in its dump.
fn config_for_containerd_adds_the_handler(_: &Node) {
    let dumped = must(&["containerd", "-c", "/usr/share/vgpu/containerd/config-v2.toml", "config", "dump"]);
    let lines: Vec<&str> = dumped.lines().map(str::trim).collect();
    for (table, line) in [
        ("vgpu", r#"runtime_type = "io.containerd.vgpu.v1""#),
        ("vgpu", "privileged_without_host_devices = true"),
        ("vgpu", r#"container_annotations = ["vgpu.dev/*"]"#),
        ("vgpu", "pod_annotations = []"),
        ("vgpu.options", r#"ConfigPath = "/etc/vgpu/config.toml""#),
        // Without its default runtime containerd starts no pod at all.
        ("runc", r#"runtime_type = "io.containerd.runc.v2""#),
    ] {
        let heading = format!(r#"[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{table}]"#);
        let behind = lines.iter().skip_while(|line| **line != heading).skip(1);
        let mut own = behind.take_while(|line| !line.starts_with('['));
        assert!(own.any(|own| *own == line), "{heading} has no '{line}' in: {dumped}");
    }
}

fn pod_with_a_gpu_but_no_gpu_proxy_says_so(node: &Node) {
    for process in node.processes_of("gpu-proxy") {
        kill_9(process.pid);
    }
    until(START, || node.processes_of("gpu-proxy").is_empty().then_some(())).expect("kill -9 works");

    let ended = Pod::cuda(&["/vector_add"]).run();

    must(&["sh", "/ctl/vgpu-up.sh"]);
    assert_ne!(ended.code, Some(0), "a pod ran on a GPU that nobody serves");
    says(&ended, &["VGPU-401", "systemctl start gpu-proxy"]);
}
