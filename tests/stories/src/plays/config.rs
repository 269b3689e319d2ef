//! Bad input: each gives an error with a code and what to do, and leaves nothing behind.

use crate::Story;
use crate::command::{must, until};
use crate::configuration::Changed;
use crate::node::{Node, kill_9};
use crate::plays::vgpu;
use crate::pod::{Pod, Runtime, START};

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("config_with_an_unknown_key_names_it", 300, |_| {
            let changed = Changed::text(|text| text.replace("[guest]\n", "[guest]\nmemory_mb = 64\n"));
            refused_with(&changed, &["VGPU-", "memory_mb", "memory_mib"]);
        }),
        vgpu("config_with_too_little_memory_says_how_much_is_needed", 300, |_| {
            refused_with(&Changed::key("memory_mib", "16"), &["VGPU-", "16", "96"]);
        }),
        vgpu("config_with_a_missing_kernel_names_the_file", 300, |_| {
            refused_with(&Changed::key("kernel", "\"/no/such/vmlinux\""), &["VGPU-", "/no/such/vmlinux"]);
        }),
        vgpu("pod_with_a_gpu_but_no_gpu_proxy_says_so", 400, pod_with_a_gpu_but_no_gpu_proxy_says_so),
        vgpu("unknown_vgpu_annotation_is_refused", 300, |_| {
            let pod = Pod::busybox(Runtime::Vgpu, &["true"]).option("--annotation").option("vgpu.dev/gqu=1");
            let ended = pod.run();
            assert_ne!(ended.code, Some(0));
            assert!(ended.complaint().contains("vgpu.dev/gqu"), "{}", ended.complaint());
        }),
    ]
}

/// A pod under this configuration must be refused with all these words.
fn refused_with(_changed: &Changed, words: &[&str]) {
    let ended = Pod::busybox(Runtime::Vgpu, &["true"]).run();

    assert_ne!(ended.code, Some(0), "the pod ran");
    for word in words {
        assert!(ended.complaint().contains(word), "'{word}' is not in: {}", ended.complaint());
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
    for word in ["VGPU-", "gpu-proxy"] {
        assert!(ended.complaint().contains(word), "'{word}' is not in: {}", ended.complaint());
    }
}
